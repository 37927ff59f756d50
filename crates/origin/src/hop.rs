//! What concerns one hop of a message only (RFC 9110 §7.6.1), and the mark that a request has been here (RFC 8586).

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AGE, ALT_SVC, AUTHORIZATION, CACHE_CONTROL, CONNECTION, DATE, ETAG, EXPIRES, HOST, LAST_MODIFIED,
        PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, VARY,
    },
};
use uuid::Uuid;

/// The field in which a request lists the networks that it went through (RFC 8586).
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// What `Connection` cannot take out: an answer without its `Cache-Control: private` would be kept for everybody, and one
/// without its surrogate keys would outlive their purge. `Content-*` are protected, too.
const PROTECTED: [HeaderName; 15] = [
    AGE,
    AUTHORIZATION,
    CACHE_CONTROL,
    HeaderName::from_static("cache-tag"),
    HeaderName::from_static("cdn-cache-control"),
    CDN_LOOP,
    DATE,
    ETAG,
    EXPIRES,
    HOST,
    LAST_MODIFIED,
    SET_COOKIE,
    HeaderName::from_static("surrogate-control"),
    HeaderName::from_static("surrogate-key"),
    VARY,
];

/// Takes out hop-by-hop fields, also those that `Connection` names, and what tells of other hops.
pub(crate) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name: &HeaderName| !PROTECTED.contains(name) && !name.as_str().starts_with("content-"))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        // An origin's alternatives are not those of the edge's hosts (RFC 7838 §3).
        ALT_SVC,
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ] {
        headers.remove(name);
    }
}

/// This process, as `CDN-Loop` names it. Random, so that edges in a row are told apart.
#[derive(Debug)]
pub(crate) struct Itself(HeaderValue);

impl Itself {
    pub(crate) fn new() -> Self {
        let name = format!("edgeweir-{}", Uuid::new_v4().simple());
        Self(HeaderValue::from_str(&name).expect("a token"))
    }

    /// Adds this process to the networks that a request went through.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        headers.append(CDN_LOOP, self.0.clone());
    }

    /// Whether this process is among them. A member may have parameters after a semicolon.
    pub(crate) fn has_signed(&self, headers: &HeaderMap) -> bool {
        headers
            .get_all(CDN_LOOP)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .filter_map(|member| member.split(|b| *b == b';').next())
            .any(|id| id.trim_ascii().eq_ignore_ascii_case(self.0.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_takes_out_what_it_names_and_nothing_that_is_protected() {
        let fields = [
            ("connection", "close, X-Hop, cache-control, CDN-Cache-Control, vary"),
            ("connection", "set-cookie, content-range, content-type, age, etag"),
            ("connection", "surrogate-control, Surrogate-Key, cache-tag"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("forwarded", "for=192.0.2.1"),
            ("cache-control", "private"),
            ("cdn-cache-control", "no-store"),
            ("vary", "accept"),
            ("set-cookie", "a=b"),
            ("content-range", "bytes 0-1/2"),
            ("content-type", "text/plain"),
            ("age", "1"),
            ("etag", "\"1\""),
            ("surrogate-control", "no-store"),
            ("surrogate-key", "a"),
            ("cache-tag", "b"),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let expected = [
            "age",
            "cache-control",
            "cache-tag",
            "cdn-cache-control",
            "content-range",
            "content-type",
            "etag",
            "set-cookie",
            "surrogate-control",
            "surrogate-key",
            "vary",
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn a_request_that_was_here_is_known() {
        let (this, other) = (Itself::new(), Itself::new());
        let mut headers = HeaderMap::new();
        headers.append(CDN_LOOP, HeaderValue::from_static("one.example, two; a=b"));
        assert!(!this.has_signed(&headers));
        other.sign(&mut headers);
        assert!(!this.has_signed(&headers) && other.has_signed(&headers));
        this.sign(&mut headers);
        assert!(this.has_signed(&headers) && other.has_signed(&headers));
        let name = this.0.to_str().expect("ASCII").to_uppercase();
        for (value, expected) in [
            (format!("a,{name} ;x=1,b"), true),
            (format!("{name}0"), false),
            (format!("a; b={name}"), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CDN_LOOP, HeaderValue::from_str(&value).expect("ASCII"));
            assert_eq!(this.has_signed(&headers), expected, "{value}");
        }
    }
}
