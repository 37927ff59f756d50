//! AWS Signature Version 4 in header fields, as S3 takes it ("Authenticating Requests: Using the Authorization Header",
//! Amazon S3 API Reference). Pure: the time is handed in.

use aws_lc_rs::{digest, hmac};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{AUTHORIZATION, RANGE},
};
use secrecy::{ExposeSecret, SecretString};
use std::fmt::Write;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use zeroize::Zeroizing;

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// SHA-256 of nothing: no request here has a body.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What requests are signed with.
#[derive(Debug)]
pub(super) struct Signer<'a> {
    /// The public half of the credentials.
    pub(super) access_key_id: &'a str,
    /// The secret half.
    pub(super) secret_access_key: &'a SecretString,
    /// The region of the bucket.
    pub(super) region: &'a str,
}

impl Signer<'_> {
    /// Signs a request without query and body. `path` is percent-encoded but for unreserved characters and slashes, as
    /// it is sent. What is asked for is signed: host, path, range; conditions are not.
    pub(super) fn sign(&self, method: &Method, host: &str, path: &str, headers: &mut HeaderMap, now: OffsetDateTime) {
        const TIME: &[BorrowedFormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");
        let time = now.to_offset(time::UtcOffset::UTC).format(TIME);
        let time = time.expect("a date has all of its parts");
        headers.insert(DATE, HeaderValue::from_str(&time).expect("digits and two letters"));
        headers.insert(CONTENT, HeaderValue::from_static(EMPTY));

        // In the order of their names.
        let mut names = String::from("host");
        let mut fields = format!("host:{host}\n");
        for name in [RANGE, CONTENT, DATE] {
            if let Some(value) = headers.get(&name).and_then(|v| v.to_str().ok()) {
                let _ = write!(names, ";{name}");
                let _ = writeln!(fields, "{name}:{}", value.trim());
            }
        }
        let canonical = format!("{method}\n{path}\n\n{fields}\n{names}\n{EMPTY}");
        let (date, _) = time.split_once('T').expect("it is in the format");
        let scope = format!("{date}/{}/s3/aws4_request", self.region);
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
            hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
        );
        let signature = hex(hmac::sign(&self.key(date), to_sign.as_bytes()).as_ref());
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
            self.access_key_id
        );
        // Ids and regions are visible ASCII.
        let mut authorization = HeaderValue::from_str(&authorization).expect("visible ASCII");
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
    }

    /// The key of a day, region and service.
    fn key(&self, date: &str) -> hmac::Key {
        let secret = Zeroizing::new(format!("AWS4{}", self.secret_access_key.expose_secret()));
        let first = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        [date, self.region, "s3", "aws4_request"]
            .iter()
            .fold(first, |key, part| {
                hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref())
            })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    /// The example "GET Object" of the S3 API Reference.
    #[test]
    fn the_example_of_the_reference_has_its_signature() {
        let secret = SecretString::from("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let signer = Signer {
            access_key_id: "AKIAIOSFODNN7EXAMPLE",
            secret_access_key: &secret,
            region: "us-east-1",
        };
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, HeaderValue::from_static("bytes=0-9"));
        let host = "examplebucket.s3.amazonaws.com";
        let now = datetime!(2013-05-24 0:00 UTC);
        signer.sign(&Method::GET, host, "/test.txt", &mut headers, now);
        assert_eq!(
            headers[AUTHORIZATION],
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,\
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,\
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let shown = format!("{headers:?} {signer:?}");
        assert!(!shown.contains("f0e8") && !shown.contains("wJalr"), "{shown}");
    }
}
