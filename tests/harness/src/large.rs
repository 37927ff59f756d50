//! A large object that nobody keeps: each byte is made from its place, and differs between any two versions.

use crate::origin::{Answer, Seen};
use bytes::Bytes;
use std::ops::Range;

/// An object, and what its origin makes of requests for it.
#[derive(Debug, Clone)]
pub struct Large {
    /// In bytes.
    pub length: u64,
    /// Tells the bytes, and the entity tag.
    pub version: u8,
    /// Whether its entity tag is a weak one.
    pub weak: bool,
    /// Whether ranges are answered with ranges.
    pub ranges: bool,
    /// Whether `If-Match` is minded.
    pub conditions: bool,
    /// Header lines of its answers, `Accept-Ranges` among them.
    pub headers: String,
    /// How many bytes of an answer's body come before [`Origin::release`](crate::Origin::release).
    pub at_once: u64,
}

impl Large {
    /// Version 1 of an object that is fresh for ten minutes, of an origin that does all as it should.
    pub fn new(length: u64) -> Self {
        Self {
            length,
            version: 1,
            weak: false,
            ranges: true,
            conditions: true,
            headers: "Cache-Control: max-age=600\r\nAccept-Ranges: bytes\r\n".to_owned(),
            at_once: u64::MAX,
        }
    }

    /// The same object, in another version.
    #[must_use]
    pub fn version(&self, version: u8) -> Self {
        Self {
            version,
            ..self.clone()
        }
    }

    /// Its entity tag.
    pub fn etag(&self) -> String {
        let weak = if self.weak { "W/" } else { "" };
        format!("{weak}\"v{}\"", self.version)
    }

    /// Some of its bytes.
    pub fn bytes(&self, range: Range<u64>) -> Bytes {
        let first = range.start / 8;
        let mut bytes = Vec::with_capacity((range.end - first * 8 + 8) as usize);
        for word in first..range.end.div_ceil(8) {
            let mixed = word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let version = u64::from(self.version) * 0x0101_0101_0101_0101;
            bytes.extend_from_slice(&((mixed ^ (mixed >> 29)) ^ version).to_le_bytes());
        }
        Bytes::from(bytes).slice((range.start - first * 8) as usize..(range.end - first * 8) as usize)
    }

    /// All of its bytes.
    pub fn whole(&self) -> Bytes {
        self.bytes(0..self.length)
    }

    /// What its origin answers.
    pub fn answer(&self, seen: &Seen) -> Answer {
        let etag = self.etag();
        let fails = |tag: &str| self.conditions && (self.weak || tag != etag);
        if seen.field("if-match").is_some_and(fails) {
            return self.without_body("412 Precondition Failed", "");
        }
        if seen.field("if-none-match") == Some(&*etag) {
            return self.without_body("304 Not Modified", "");
        }
        let asked = seen.range().filter(|_| self.ranges);
        let (status, range) = match asked {
            None => ("200 OK".to_owned(), 0..self.length),
            Some(asked) if asked.start >= self.length => {
                let unsatisfied = format!("Content-Range: bytes */{}\r\n", self.length);
                return self.without_body("416 Range Not Satisfiable", &unsatisfied);
            }
            Some(asked) => {
                let range = asked.start..asked.end.min(self.length);
                let content = format!("{}-{}/{}", range.start, range.end - 1, self.length);
                (format!("206 Partial Content\r\nContent-Range: bytes {content}"), range)
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{}ETag: {etag}\r\nConnection: close\r\n\r\n",
            range.end - range.start,
            self.headers
        );
        let object = self.clone();
        Answer::Large {
            head: head.into(),
            object,
            range,
        }
    }

    fn without_body(&self, status: &str, fields: &str) -> Answer {
        let (headers, etag) = (&self.headers, self.etag());
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: 0\r\n{headers}{fields}ETag: {etag}\r\nConnection: close\r\n\r\n"
        );
        Answer::Raw(head.into())
    }
}
