//! What an answer says to the caches behind it.

use crate::{authorize::Authorized, fetch};
use edgeweir_cache::{SURROGATE_KEYS, policy};
use http::{HeaderMap, HeaderName, HeaderValue, header::CACHE_CONTROL};
use std::{fmt::Write, time::Duration};

pub(crate) const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
pub(crate) const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");

/// What is said of texts with a token in them.
pub(crate) const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// Takes out what names for caches what is behind an object, unless its bucket is a shield's.
pub(super) fn hide_surrogate_keys(authorized: &Authorized, headers: &mut HeaderMap) {
    if !fetch::shows_surrogate_keys(authorized) {
        for_caches_alone(headers);
    }
}

/// Takes out what names for caches what is behind an object.
pub(crate) fn for_caches_alone(headers: &mut HeaderMap) {
    for name in &SURROGATE_KEYS {
        headers.remove(name);
    }
}

/// Shared caches on the way must not keep what a token opened (RFC 9111 §5.2.2.7). What the origin says to browsers
/// stays; what it says to shared caches alone goes, and counts for nobody else.
pub(crate) fn make_private(headers: &mut HeaderMap, lifetime: Duration) {
    let mut value = String::from("private");
    let mut for_shared = headers.remove(CDN_CACHE_CONTROL).is_some();
    for_shared |= headers.remove(SURROGATE_CONTROL).is_some();
    let mut says = false;
    for field in headers.get_all(CACHE_CONTROL) {
        for directive in policy::split_list(field.as_bytes()).filter_map(|d| std::str::from_utf8(d).ok()) {
            let name = directive.split('=').next().unwrap_or_default().trim();
            let is = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n));
            if is(&["s-maxage", "proxy-revalidate"]) {
                for_shared = true;
            } else if !directive.is_empty() && !is(&["public", "private"]) {
                says |= is(&["max-age", "no-cache", "no-store"]);
                value.push_str(", ");
                value.push_str(directive);
            }
        }
    }
    headers.remove(http::header::EXPIRES);
    if !says && !for_shared {
        let _ = write!(value, ", max-age={}", lifetime.as_secs());
    }
    // Made of a field's own text.
    let value = HeaderValue::from_str(&value).unwrap_or(PRIVATE);
    headers.insert(CACHE_CONTROL, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signed_answers_are_private_and_else_what_the_origin_says_to_browsers() {
        for (fields, expected) in [
            (&[][..], "private, max-age=60"),
            (
                &[("cache-control", "public, max-age=30, immutable")],
                "private, max-age=30, immutable",
            ),
            (&[("cache-control", "max-age=0, s-maxage=86400")], "private, max-age=0"),
            (&[("cache-control", "s-maxage=86400")], "private"),
            (
                &[("cache-control", "no-cache, max-age=9")],
                "private, no-cache, max-age=9",
            ),
            (
                &[("cache-control", "public"), ("cache-control", "must-revalidate")],
                "private, must-revalidate, max-age=60",
            ),
            (&[("cdn-cache-control", "max-age=86400")], "private"),
            (
                &[("cdn-cache-control", "max-age=86400"), ("cache-control", "no-store")],
                "private, no-store",
            ),
            (
                &[
                    ("cdn-cache-control", "no-store"),
                    ("cache-control", "public, max-age=600"),
                ],
                "private, max-age=600",
            ),
        ] {
            let mut headers: HeaderMap = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            headers.insert("expires", HeaderValue::from_static("Mon, 01 Jan 2024 00:00:00 GMT"));
            make_private(&mut headers, Duration::from_secs(60));
            assert_eq!(headers[CACHE_CONTROL], expected, "{fields:?}");
            assert!(!headers.contains_key(CDN_CACHE_CONTROL) && !headers.contains_key("expires"));
        }
    }
}
