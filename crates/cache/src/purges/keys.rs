//! The surrogate keys of a response: what its origin calls it by, so that much can be purged at once.
//!
//! `Surrogate-Key` lists them with spaces, `Cache-Tag` with commas; no standard tells of them. Both are for caches, and
//! name what is behind an object: they are not for clients.

use edgeweir_model::SurrogateKey;
use http::{HeaderMap, HeaderName};

/// The fields in which an origin gives a response surrogate keys. They are for caches alone.
pub static SURROGATE_KEYS: [HeaderName; 2] = [
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("cache-tag"),
];

/// What stands between the keys in each of the fields.
const BETWEEN: [u8; 2] = *b" ,";

/// The most keys of one response that are told apart. A response that has more is purged with any key of its site.
const MAX_KEYS: usize = 512;

/// Stands for any key, as none has a comma.
const ANY: &str = ",";

/// The surrogate keys in a response's header fields, in order. What is none is passed over: nobody can purge by it.
pub(crate) fn surrogate_keys(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    SURROGATE_KEYS.iter().zip(BETWEEN).flat_map(move |(name, between)| {
        headers
            .get_all(name)
            .iter()
            .flat_map(move |value| value.as_bytes().split(move |b| *b == between))
            .map(<[u8]>::trim_ascii)
            .filter(|key| SurrogateKey::check(key).is_ok())
            .filter_map(|key| str::from_utf8(key).ok())
    })
}

/// The keys of a response, in one text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SurrogateKeys(Box<str>);

impl SurrogateKeys {
    /// Those of a response with these header fields.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut text = String::new();
        for (n, key) in surrogate_keys(headers).enumerate() {
            if n == MAX_KEYS {
                return Self(ANY.into());
            }
            if n > 0 {
                text.push(' ');
            }
            text.push_str(key);
        }
        Self(text.into())
    }

    /// Whatever there may be.
    pub(crate) fn any() -> Self {
        Self(ANY.into())
    }

    #[cfg(test)]
    pub(super) fn from_text(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether there are more than are told apart.
    pub(super) fn are_any(&self) -> bool {
        *self.0 == *ANY
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.split(' ').filter(|key| !key.is_empty() && !self.are_any())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http::HeaderValue;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn keys_of_header_fields() {
        let long = "k".repeat(257);
        let cases: [(&str, &[(&str, &str)], &[&str]); 8] = [
            ("none", &[("cache-control", "max-age=1")], &[]),
            ("spaces", &[("surrogate-key", " a  b\tc d ")], &["a", "d"]),
            ("commas", &[("cache-tag", "a,b , c,,")], &["a", "b", "c"]),
            ("a space in a tag", &[("cache-tag", "a b,c")], &["c"]),
            ("a comma in a key", &[("surrogate-key", "a,b c")], &["c"]),
            (
                "several lines of both",
                &[("cache-tag", "c"), ("surrogate-key", "a"), ("surrogate-key", "b")],
                &["a", "b", "c"],
            ),
            ("too long", &[("surrogate-key", &long), ("cache-tag", "a")], &["a"]),
            ("not ASCII beside one that is", &[("surrogate-key", "é a")], &["a"]),
        ];
        for (case, fields, expected) in cases {
            let headers = headers(fields);
            assert_eq!(surrogate_keys(&headers).collect::<Vec<_>>(), expected, "{case}");
            let keys = SurrogateKeys::of(&headers);
            assert_eq!(keys.iter().collect::<Vec<_>>(), expected, "{case}");
            assert!(!keys.are_any(), "{case}");
        }
    }

    #[test]
    fn more_keys_than_are_told_apart_are_any() {
        for (count, any) in [(MAX_KEYS, false), (MAX_KEYS + 1, true)] {
            let headers = headers(&[("surrogate-key", &"a ".repeat(count))]);
            let keys = SurrogateKeys::of(&headers);
            assert_eq!(keys.are_any(), any, "{count}");
            assert_eq!(keys.iter().count(), if any { 0 } else { count }, "{count}");
        }
    }
}
