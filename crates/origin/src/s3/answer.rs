//! What an answer of an S3 server means ("Error responses", Amazon S3 API Reference), and what of it is passed on. Pure.

use crate::media_type;
use edgeweir_model::ObjectKey;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH,
        CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, EXPIRES, LAST_MODIFIED,
    },
};
use std::ops::Range;

/// What is to be made of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An answer about the object.
    Object,
    /// There is no such object.
    Missing,
    /// The server is busy or broken; it may be asked again.
    Busy,
    /// It refuses for reasons of ours: credentials, region, bucket, clock.
    Denied,
}

/// What a status means, with the code in the answer's body where there was one.
pub(super) fn meaning(status: StatusCode, code: Option<&str>) -> Meaning {
    match status.as_u16() {
        200 | 206 | 304 | 412 | 416 => Meaning::Object,
        404 if code == Some("NoSuchBucket") => Meaning::Denied,
        404 | 410 => Meaning::Missing,
        408 | 429 | 500.. => Meaning::Busy,
        _ => Meaning::Denied,
    }
}

/// The code in the body of an error, as far as it is one.
pub(super) fn code(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let code = text.split_once("<Code>")?.1.split_once("</Code>")?.0;
    let plain =
        (1..=64).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    plain.then(|| code.to_owned())
}

/// What describes the object in every answer about it.
const ALWAYS: [HeaderName; 6] = [AGE, CACHE_CONTROL, DATE, ETAG, EXPIRES, LAST_MODIFIED];

/// What describes the content that comes, or would.
const WITH_CONTENT: [HeaderName; 6] = [
    ACCEPT_RANGES,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_TYPE,
];

/// What S3 gives an object that was put without a type.
const NO_TYPE: &[u8] = b"binary/octet-stream";

/// The fields that are passed on: those of the object, and its owner's own. What tells of the store stays here.
pub(super) fn fields(status: StatusCode, given: &HeaderMap, key: &ObjectKey) -> HeaderMap {
    let mut kept = HeaderMap::new();
    let content = status.is_success();
    let of_content: &[_] = if content { &WITH_CONTENT } else { &[] };
    let names = ALWAYS.iter().chain(of_content).chain([&CONTENT_RANGE]);
    for name in names {
        for value in given.get_all(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    if !content {
        return kept;
    }
    let own = given
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-amz-meta-"));
    for (name, value) in own {
        kept.append(name.clone(), value.clone());
    }
    if kept.get(CONTENT_TYPE).is_none_or(|t| t.as_bytes() == NO_TYPE) {
        kept.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(key.as_str())));
    }
    kept
}

/// Which bytes of the object an answer to a GET brings, and how many it has, where the answer says it.
pub(super) fn span(status: StatusCode, headers: &HeaderMap, length: Option<u64>) -> Option<(Range<u64>, u64)> {
    match status {
        StatusCode::OK => length.map(|length| (0..length, length)),
        StatusCode::PARTIAL_CONTENT => {
            let text = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?;
            let (range, total) = text.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            let (first, last, total): (u64, u64, u64) = (first.parse().ok()?, last.parse().ok()?, total.parse().ok()?);
            let range = first..last.checked_add(1)?;
            let fits = first <= last && last < total && length.is_none_or(|l| l == range.end - range.start);
            fits.then_some((range, total))
        }
        _ => None,
    }
}

/// Whether a validator is a strong entity tag (RFC 9110 §8.8.3).
pub(super) fn is_strong(validator: &HeaderValue) -> bool {
    let text = validator.as_bytes();
    text.len() >= 2 && text.starts_with(b"\"") && text.ends_with(b"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_and_codes() {
        for (status, code, expected) in [
            (200, None, Meaning::Object),
            (206, None, Meaning::Object),
            (304, None, Meaning::Object),
            (412, Some("PreconditionFailed"), Meaning::Object),
            (416, Some("InvalidRange"), Meaning::Object),
            (404, None, Meaning::Missing),
            (404, Some("NoSuchKey"), Meaning::Missing),
            (404, Some("NoSuchBucket"), Meaning::Denied),
            (301, Some("PermanentRedirect"), Meaning::Denied),
            (400, Some("AuthorizationHeaderMalformed"), Meaning::Denied),
            (403, Some("SignatureDoesNotMatch"), Meaning::Denied),
            (403, None, Meaning::Denied),
            (429, None, Meaning::Busy),
            (503, Some("SlowDown"), Meaning::Busy),
        ] {
            let status = StatusCode::from_u16(status).expect("valid");
            assert_eq!(meaning(status, code), expected, "{status} {code:?}");
        }
        for (body, expected) in [
            ("<Error><Code>NoSuchKey</Code></Error>", Some("NoSuchKey")),
            ("<Error><Code></Code></Error>", None),
            ("<Error><Code>a b</Code></Error>", None),
            ("<Error><Code>NoSuchKey", None),
            ("", None),
        ] {
            assert_eq!(code(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let list = list.iter();
        list.map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
            .collect()
    }

    #[test]
    fn what_tells_of_the_store_stays_here() {
        let given = headers(&[
            ("etag", "\"1\""),
            ("content-type", "binary/octet-stream"),
            ("content-length", "2"),
            ("x-amz-meta-title", "t"),
            ("x-amz-request-id", "R"),
            ("x-amz-server-side-encryption-aws-kms-key-id", "arn:1"),
            ("server", "AmazonS3"),
            ("vary", "Origin"),
            ("access-control-allow-origin", "*"),
        ]);
        let names = |status| {
            let key = ObjectKey::new("a.mp4").expect("a key");
            let kept = fields(status, &given, &key);
            assert!(kept.get(CONTENT_TYPE).is_none_or(|t| t == "video/mp4"));
            let mut names: Vec<_> = kept.keys().map(|n| n.as_str().to_owned()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(
            names(StatusCode::OK),
            ["content-length", "content-type", "etag", "x-amz-meta-title"]
        );
        assert_eq!(names(StatusCode::NOT_MODIFIED), ["etag"]);
    }

    #[test]
    fn spans() {
        for (status, range, length, expected) in [
            (200, "", Some(10), Some((0..10, 10))),
            (200, "", None, None),
            (206, "bytes 2-4/10", Some(3), Some((2..5, 10))),
            (206, "bytes 2-4/10", None, Some((2..5, 10))),
            (206, "bytes 2-4/10", Some(4), None),
            (206, "bytes 4-2/10", None, None),
            (206, "bytes 2-10/10", None, None),
            (206, "bytes 2-4/*", None, None),
            (206, "bytes 0-18446744073709551615/1", None, None),
            (206, "", Some(3), None),
        ] {
            let status = StatusCode::from_u16(status).expect("valid");
            let found = span(status, &headers(&[("content-range", range)]), length);
            assert_eq!(found, expected, "{status} {range} {length:?}");
        }
    }

    #[test]
    fn strong_entity_tags() {
        for (text, strong) in [
            ("\"a\"", true),
            ("W/\"a\"", false),
            ("\"", false),
            ("Mon, 01 Jan 2024", false),
        ] {
            assert_eq!(is_strong(&HeaderValue::from_static(text)), strong, "{text}");
        }
    }
}
