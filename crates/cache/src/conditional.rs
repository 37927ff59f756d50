//! Conditional requests (RFC 9110 §13). Pure.

use edgeweir_model::entity_tag::{is_listed, strong, weak};
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a GET or HEAD request's preconditions come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answer as if there were none.
    Proceed,
    /// 304.
    NotModified,
    /// 412.
    PreconditionFailed,
}

/// Evaluates the preconditions in their order (RFC 9110 §13.2.2). `date` stands in for `last_modified` where a client
/// asks for what came since (RFC 9111 §4.3.2).
pub fn evaluate(
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
    date: Option<SystemTime>,
) -> Outcome {
    if request.contains_key(IF_MATCH) {
        if !etag_list(request, IF_MATCH, etag, strong) {
            return Outcome::PreconditionFailed;
        }
    } else if let Some(since) = asked(request, IF_UNMODIFIED_SINCE)
        && last_modified.is_some_and(|modified| whole(modified) > since)
    {
        return Outcome::PreconditionFailed;
    }
    if request.contains_key(IF_NONE_MATCH) {
        if etag_list(request, IF_NONE_MATCH, etag, weak) {
            return Outcome::NotModified;
        }
    } else if let Some(since) = asked(request, IF_MODIFIED_SINCE)
        && last_modified.or(date).is_some_and(|modified| whole(modified) <= since)
    {
        return Outcome::NotModified;
    }
    Outcome::Proceed
}

/// Whether a `Range` may be honoured: no `If-Range`, or one that names this very representation (RFC 9110 §13.1.5), which
/// was last modified then, and said so at `date`.
pub fn range_applies(
    request: &HeaderMap,
    etag: Option<&HeaderValue>,
    last_modified: Option<SystemTime>,
    date: Option<SystemTime>,
) -> bool {
    let Some(value) = request.get(IF_RANGE) else {
        return true;
    };
    let tag = value.as_bytes();
    if tag.starts_with(b"\"") || tag.starts_with(b"W/") {
        return etag.is_some_and(|etag| strong(etag.as_bytes(), tag));
    }
    // A date is a strong validator only by being the same one.
    let (Some(asked), Some(modified), Some(date)) = (date_of(value), last_modified, date) else {
        return false;
    };
    whole(modified) == whole(asked) && is_strong(modified, date)
}

/// Whether what was last modified then, and said so at `date`, can have been changed no more within that second
/// (RFC 9110 §8.8.2.2).
pub(crate) fn is_strong(modified: SystemTime, date: SystemTime) -> bool {
    whole(date) > whole(modified)
}

fn etag_list(
    request: &HeaderMap,
    name: HeaderName,
    etag: Option<&HeaderValue>,
    same: fn(&[u8], &[u8]) -> bool,
) -> bool {
    let mut lists = request.get_all(name).into_iter().map(HeaderValue::as_bytes);
    let etag = etag.map(HeaderValue::as_bytes);
    lists.any(|list| is_listed(list, etag, same))
}

fn asked(request: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    date_of(request.get(name)?)
}

fn date_of(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// HTTP dates have whole seconds; what is compared with one must have, too.
fn whole(time: SystemTime) -> SystemTime {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
    const NEW: &str = "Mon, 01 Jan 2024 00:00:01 GMT";

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(n, v)| (HeaderName::from_static(n), value(v)))
            .collect()
    }

    fn value(text: &str) -> HeaderValue {
        text.parse().expect("a field's value")
    }

    #[test]
    fn preconditions() {
        use Outcome::{NotModified, PreconditionFailed, Proceed};
        let modified = Some(httpdate::parse_http_date(OLD).expect("a date") + std::time::Duration::from_millis(700));
        for (list, etag, expected) in [
            (&[][..], Some("\"a\""), Proceed),
            (&[("if-none-match", "\"a\"")], Some("\"a\""), NotModified),
            (&[("if-none-match", "W/\"a\"")], Some("\"a\""), NotModified),
            (
                &[("if-none-match", "\"b\", \"x,y\" ,\"a\"")],
                Some("\"a\""),
                NotModified,
            ),
            (&[("if-none-match", "\"x,y\"")], Some("\"x,y\""), NotModified),
            (&[("if-none-match", "*")], None, NotModified),
            (&[("if-none-match", "\"b\"")], Some("\"a\""), Proceed),
            (&[("if-none-match", "a")], Some("\"a\""), Proceed),
            (
                &[("if-none-match", "\"b\""), ("if-modified-since", NEW)],
                Some("\"a\""),
                Proceed,
            ),
            (&[("if-modified-since", OLD)], None, NotModified),
            (&[("if-modified-since", "yesterday")], None, Proceed),
            (&[("if-match", "\"a\"")], Some("\"a\""), Proceed),
            (&[("if-match", "W/\"a\"")], Some("W/\"a\""), PreconditionFailed),
            (&[("if-match", "\"ü\"")], Some("\"ü\""), Proceed),
            (&[("if-match", "\"ü\", \"a\"")], Some("\"a\""), Proceed),
            (&[("if-match", "\"u\"")], Some("\"ü\""), PreconditionFailed),
            (&[("if-none-match", "W/\"ü\"")], Some("\"ü\""), NotModified),
            (&[("if-match", "\"b\"")], Some("\"a\""), PreconditionFailed),
            (&[("if-match", "\"b\"")], None, PreconditionFailed),
            (&[("if-unmodified-since", OLD)], None, Proceed),
            (
                &[("if-unmodified-since", "Sun, 31 Dec 2023 23:59:59 GMT")],
                None,
                PreconditionFailed,
            ),
            (
                &[("if-match", "\"a\""), ("if-none-match", "\"a\"")],
                Some("\"a\""),
                NotModified,
            ),
        ] {
            assert_eq!(
                evaluate(&headers(list), etag.map(value).as_ref(), modified, None),
                expected,
                "{list:?}"
            );
        }
        for (list, expected) in [
            (&[("if-modified-since", OLD)][..], NotModified),
            (&[("if-modified-since", "Sun, 31 Dec 2023 23:59:59 GMT")], Proceed),
            (&[("if-unmodified-since", "Sun, 31 Dec 2023 23:59:59 GMT")], Proceed),
        ] {
            assert_eq!(evaluate(&headers(list), None, None, modified), expected, "{list:?}");
        }
        let later = modified.map(|modified| modified + std::time::Duration::from_secs(1));
        for (list, etag, date, expected) in [
            (&[][..], None, None, true),
            (&[("if-range", "\"a\"")], Some("\"a\""), None, true),
            (&[("if-range", "W/\"a\"")], Some("W/\"a\""), later, false),
            (&[("if-range", "\"b\"")], Some("\"a\""), later, false),
            (&[("if-range", "\"ü\"")], Some("\"ü\""), None, true),
            (&[("if-range", "ü")], None, later, false),
            (&[("if-range", OLD)], None, later, true),
            (&[("if-range", OLD)], None, modified, false),
            (&[("if-range", OLD)], None, None, false),
            (&[("if-range", NEW)], None, later, false),
        ] {
            assert_eq!(
                range_applies(&headers(list), etag.map(value).as_ref(), modified, date),
                expected,
                "{list:?}"
            );
        }
    }
}
