//! The head of a request of HTTP/1.x: read whole or not at all, its framing certain (RFC 9112 §2, §3, §6).
//!
//! The text is httparse's affair; what a recipient has to make of it is decided here, and what two of them could decide in
//! two ways is refused.

use crate::{accept::Target, limits, upload::content_length};
use bytes::{Buf, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, Version,
    header::{CONNECTION, CONTENT_LENGTH, EXPECT, TE, TRANSFER_ENCODING},
    uri::Scheme,
};
use std::mem::MaybeUninit;

/// What the client of an HTTP/2 connection sends first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A request's head, and what it says of the message and the connection.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) version: Version,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    /// Whether another request may come after this one (RFC 9112 §9.3).
    pub(super) keep_alive: bool,
    /// Whether the client waits for a word before it sends content (RFC 9110 §10.1.1).
    pub(super) expects_continue: bool,
    /// Whether the client takes trailers (RFC 9110 §10.1.4).
    pub(super) takes_trailers: bool,
}

/// Where a request's content ends (RFC 9112 §6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// There is none.
    Empty,
    /// After so many bytes.
    Length(u64),
    /// Where the last chunk says so.
    Chunked,
}

/// Why there is no request to answer. What comes after it cannot be told apart: the connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// 400, and what is wrong.
    Bad(&'static str),
    /// 414.
    TargetTooLong,
    /// 431.
    HeadersTooLong,
}

/// What a buffer begins with.
#[derive(Debug)]
pub(super) enum Read {
    /// A head, which has been taken out of the buffer.
    Head(Head),
    /// The preface of HTTP/2, or a begin of it.
    Preface,
    /// Less than a head.
    Part,
}

/// Reads a request's head from the begin of `buffer`, of which the last `new` bytes have not been looked at before.
pub(super) fn read(buffer: &mut BytesMut, new: usize) -> Result<Read, Malformed> {
    if !buffer.is_empty() && (buffer.starts_with(PREFACE) || PREFACE.starts_with(buffer)) {
        return Ok(Read::Preface);
    }
    // A head ends with a line. One that comes a byte at a time is not to be parsed a byte at a time.
    let unseen = &buffer[buffer.len() - new..];
    let ends_line = memchr::memchr(b'\n', unseen).is_some() || buffer.starts_with(&PREFACE[..4]);
    let parsed = if ends_line { parse(buffer)? } else { None };
    match parsed {
        Some((head, length)) => {
            buffer.advance(length);
            Ok(Read::Head(head))
        }
        None if buffer.len() < limits::HEAD_BUFFER_BYTES => Ok(Read::Part),
        None if memchr::memchr(b'\n', buffer).is_none() => Err(Malformed::TargetTooLong),
        None => Err(Malformed::HeadersTooLong),
    }
}

fn parse(buffer: &[u8]) -> Result<Option<(Head, usize)>, Malformed> {
    let mut fields = [const { MaybeUninit::uninit() }; limits::HEADER_COUNT];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(buffer, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Malformed::HeadersTooLong),
        Err(_) => return Err(Malformed::Bad("the request is malformed")),
    };
    if has_bare_line_feed(&buffer[..length]) {
        return Err(Malformed::Bad("a line ends without a carriage return"));
    }
    let bad = || Malformed::Bad("the request line is malformed");
    let method = request.method.and_then(|m| Method::from_bytes(m.as_bytes()).ok());
    let version = match request.version {
        Some(0) => Version::HTTP_10,
        Some(1) => Version::HTTP_11,
        _ => return Err(bad()),
    };
    let mut headers = HeaderMap::with_capacity(request.headers.len());
    for field in request.headers.iter() {
        let malformed = Malformed::Bad("a header field is malformed");
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| malformed)?;
        headers.append(name, HeaderValue::from_bytes(field.value).map_err(|_| malformed)?);
    }
    let (method, target) = method.zip(request.path.and_then(target)).ok_or_else(bad)?;
    let framing = framing(&method, version, &headers)?;
    let head = Head {
        framing,
        keep_alive: keep_alive(version, &headers),
        expects_continue: version == Version::HTTP_11
            && framing != Framing::Empty
            && has(&headers, &EXPECT, b"100-continue"),
        takes_trailers: version == Version::HTTP_11 && has(&headers, &TE, b"trailers"),
        method,
        target,
        version,
        headers,
    };
    Ok(Some((head, length)))
}

/// What a request asks for: a path; a whole URI, of HTTP; or `*` (RFC 9112 §3.2). A host alone is what only CONNECT asks
/// for, which is not served: elsewhere it could be taken for a path, or for the host of one.
fn target(text: &str) -> Option<Target> {
    Target::origin_form(text).or_else(|| {
        let uri = text.parse::<Uri>().ok()?;
        let is_http = uri.scheme().is_some_and(|s| *s == Scheme::HTTP || *s == Scheme::HTTPS);
        (is_http || uri.authority().is_none()).then(|| uri.into())
    })
}

/// Whether a line ends with LF alone, which some recipients take for its end and others do not (RFC 9112 §2.2).
pub(super) fn has_bare_line_feed(text: &[u8]) -> bool {
    memchr::memchr_iter(b'\n', text).any(|end| end == 0 || text[end - 1] != b'\r')
}

/// Finds where the content ends, and refuses what request smuggling lives on: two ways to tell, or one that not everybody
/// understands (RFC 9112 §6.1, §6.3).
fn framing(method: &Method, version: Version, headers: &HeaderMap) -> Result<Framing, Malformed> {
    let bad = |what| Err(Malformed::Bad(what));
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let (length, second) = (lengths.next(), lengths.next());
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let (coding, further) = (codings.next(), codings.next());
    let framing = match (coding, length) {
        (Some(_), Some(_)) => return bad("a request has either Content-Length or Transfer-Encoding"),
        (Some(_), None) if version < Version::HTTP_11 => return bad("this version of HTTP has no Transfer-Encoding"),
        (Some(coding), None) if further.is_none() && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            Framing::Chunked
        }
        (Some(_), None) => return bad("no Transfer-Encoding but chunked is understood"),
        (None, Some(_)) if second.is_some() => return bad("Content-Length is given twice"),
        (None, Some(length)) => match content_length(length) {
            Some(0) => Framing::Empty,
            Some(length) => Framing::Length(length),
            None => return bad("Content-Length is malformed"),
        },
        (None, None) => Framing::Empty,
    };
    if matches!(*method, Method::GET | Method::HEAD) && framing != Framing::Empty {
        return bad("a GET or HEAD request has no body");
    }
    Ok(framing)
}

fn keep_alive(version: Version, headers: &HeaderMap) -> bool {
    if version >= Version::HTTP_11 {
        !has(headers, &CONNECTION, b"close")
    } else {
        has(headers, &CONNECTION, b"keep-alive") && !has(headers, &CONNECTION, b"close")
    }
}

/// Whether a field that lists tokens has one, whatever its case.
fn has(headers: &HeaderMap, name: &HeaderName, token: &[u8]) -> bool {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|listed| listed.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> Result<Read, Malformed> {
        let mut buffer = BytesMut::from(text);
        let new = buffer.len();
        read(&mut buffer, new)
    }

    fn head(text: &str) -> Head {
        match of(&format!("{text}\r\n")) {
            Ok(Read::Head(head)) => head,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn the_framing_is_certain_or_the_request_is_refused() {
        for (fields, wanted) in [
            ("", Ok(Framing::Empty)),
            ("Content-Length: 0\r\n", Ok(Framing::Empty)),
            ("Content-Length: 17\r\n", Ok(Framing::Length(17))),
            ("Transfer-Encoding: Chunked\r\n", Ok(Framing::Chunked)),
            ("Content-Length: +1\r\n", Err(())),
            ("Content-Length: 1 \r\nContent-Length: 1\r\n", Err(())),
            ("Content-Length: 1, 1\r\n", Err(())),
            ("Content-Length: 0x1\r\n", Err(())),
            ("Content-Length: \r\n", Err(())),
            ("Content-Length: 18446744073709551616\r\n", Err(())),
            ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", Err(())),
            ("Transfer-Encoding: gzip, chunked\r\n", Err(())),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Err(())),
            ("Transfer-Encoding: chunked, identity\r\n", Err(())),
            ("Transfer-Encoding: \"chunked\"\r\n", Err(())),
            ("Transfer-Encoding: \x0bchunked\r\n", Err(())),
            ("Transfer-Encoding:\r\n", Err(())),
            ("Transfer-Encoding : chunked\r\n", Err(())),
            (" Transfer-Encoding: chunked\r\n", Err(())),
            ("X: a\r\n Content-Length: 5\r\n", Err(())),
            ("X: a\rContent-Length: 5\r\n", Err(())),
            ("X\0: a\r\n", Err(())),
        ] {
            let read = of(&format!("POST / HTTP/1.1\r\n{fields}\r\n"));
            let framing = match read {
                Ok(Read::Head(head)) => Ok(head.framing),
                Ok(other) => panic!("{fields:?}: {other:?}"),
                Err(Malformed::Bad(_)) => Err(()),
                Err(other) => panic!("{fields:?}: {other:?}"),
            };
            assert_eq!(framing, wanted, "{fields:?}");
        }
        for request in [
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
            "HEAD / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.2\r\n\r\n",
            "GET / HTTP/2.0\r\n\r\n",
            "GET /\r\n\r\n",
            "G(T / HTTP/1.1\r\n\r\n",
            "GET /a b HTTP/1.1\r\n\r\n",
            "\x16\x03\x01\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert!(matches!(of(request), Err(Malformed::Bad(_))), "{request:?}");
        }
    }

    #[test]
    fn what_a_connection_is_to_do_after_a_request() {
        for (request, wanted) in [
            ("GET / HTTP/1.1\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: close\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: x, Close\r\n", false),
            ("GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n", true),
            ("GET / HTTP/1.0\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", true),
            ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n", false),
        ] {
            assert_eq!(head(request).keep_alive, wanted, "{request:?}");
        }
    }

    #[test]
    fn who_is_to_be_told_to_go_on() {
        for (request, wanted) in [
            ("PUT / HTTP/1.1\r\nContent-Length: 1\r\nExpect: 100-Continue\r\n", true),
            ("PUT / HTTP/1.1\r\nContent-Length: 0\r\nExpect: 100-continue\r\n", false),
            ("PUT / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n", false),
            ("PUT / HTTP/1.1\r\nContent-Length: 1\r\n", false),
        ] {
            assert_eq!(head(request).expects_continue, wanted, "{request:?}");
        }
        assert!(head("GET / HTTP/1.1\r\nTE: gzip, trailers\r\n").takes_trailers);
        assert!(!head("GET / HTTP/1.1\r\nTE: gzip\r\n").takes_trailers);
    }

    #[test]
    fn targets_in_each_form() {
        let path = |text: &str| head(text).target.path().to_owned();
        assert_eq!(path("GET /a%20b?x=1 HTTP/1.1\r\nHost: a\r\n"), "/a%20b");
        assert_eq!(path("GET http://b/c HTTP/1.1\r\nHost: a\r\n"), "/c");
        assert_eq!(path("OPTIONS * HTTP/1.1\r\n"), "*");
        assert_eq!(path("GET HTTPS://b?c HTTP/1.1\r\nHost: a\r\n"), "/");
        assert!(matches!(of("GET /a#b HTTP/1.1\r\n\r\n"), Ok(Read::Head(_))));
        for line in [
            "GET example.com",
            "GET example.com:80",
            "CONNECT a:1",
            "GET ftp://b/c",
            "GET a/b",
            "GET ?a",
            "GET http:/b",
        ] {
            let text = format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert!(matches!(of(&text), Err(Malformed::Bad(_))), "{line:?}");
        }
        // An empty line or two before a request are skipped (RFC 9112 §2.2).
        assert_eq!(head("\r\n\r\nGET / HTTP/1.1\r\n").method, Method::GET);
    }

    #[test]
    fn a_head_has_an_end_in_bytes_and_in_fields() {
        let long = "a".repeat(limits::HEAD_BUFFER_BYTES);
        assert!(matches!(of(&format!("GET /{long}")), Err(Malformed::TargetTooLong)));
        let fields = format!("GET / HTTP/1.1\r\nX: {long}");
        assert!(matches!(of(&fields), Err(Malformed::HeadersTooLong)));
        let many = "X: y\r\n".repeat(limits::HEADER_COUNT + 1);
        assert!(matches!(
            of(&format!("GET / HTTP/1.1\r\n{many}")),
            Err(Malformed::HeadersTooLong)
        ));
        assert!(matches!(of("GET / HTTP/1.1\r\nX: y\r\n"), Ok(Read::Part)));
    }

    #[test]
    fn the_preface_of_http2_is_told_from_its_first_byte_on() {
        for length in 1..=PREFACE.len() {
            let text = std::str::from_utf8(&PREFACE[..length]).unwrap();
            assert!(matches!(of(text), Ok(Read::Preface)), "{text:?}");
        }
        assert!(matches!(of("PRINT / HTTP/1.1\r\n\r\n"), Ok(Read::Head(_))));
        assert!(matches!(of("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"), Err(Malformed::Bad(_))));
    }

    proptest! {
        /// However a head is cut into pieces, it comes to the same, and nothing after it is touched.
        #[test]
        fn a_head_in_pieces_is_the_same_head(cuts in proptest::collection::vec(0_usize..200, 0..8)) {
            let text = "POST /a?b=c HTTP/1.1\r\nHost: example.com\r\nContent-Length: 7\r\nX: y, z\r\n\r\nabcdefg";
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % text.len()).collect();
            cuts.push(text.len());
            cuts.sort_unstable();
            let (mut buffer, mut at) = (BytesMut::new(), 0);
            for cut in cuts {
                buffer.extend_from_slice(&text.as_bytes()[at..cut]);
                let new = cut - at;
                at = cut;
                if let Read::Head(head) = read(&mut buffer, new).unwrap() {
                    prop_assert_eq!(head.framing, Framing::Length(7));
                    prop_assert_eq!(head.headers.len(), 3);
                    buffer.extend_from_slice(&text.as_bytes()[at..]);
                    prop_assert_eq!(&buffer[..], b"abcdefg");
                    return Ok(());
                }
            }
            prop_assert!(false, "no head was found");
        }

        #[test]
        fn nothing_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            let new = buffer.len();
            let _ = read(&mut buffer, new);
        }
    }
}
