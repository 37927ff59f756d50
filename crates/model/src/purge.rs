//! What of a bucket is purged from caches, and how.

use crate::{KeyError, ObjectKey};
use std::fmt;

/// The longest prefix, in bytes: as long as a key.
const MAX_PREFIX: usize = 1024;

/// The longest surrogate key, in bytes.
const MAX_SURROGATE_KEY: usize = 256;

/// What a purge takes from caches, of one bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// What is purged.
    pub what: Purged,
    /// Stale from now on, and not gone: to be revalidated, and to be served meanwhile or when the origin fails for as long
    /// as RFC 5861 lets it.
    pub soft: bool,
}

/// What of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purged {
    /// One object: all queries and variants.
    Object(ObjectKey),
    /// Every object whose key begins so.
    Prefix(KeyPrefix),
    /// Every response that the origin gave one of these surrogate keys.
    SurrogateKeys(Box<[SurrogateKey]>),
    /// Every object.
    Everything,
}

impl Purge {
    /// A purge after which nothing is left of it.
    pub fn hard(what: Purged) -> Self {
        Self { what, soft: false }
    }

    /// A purge after which it is stale.
    pub fn soft(what: Purged) -> Self {
        Self { what, soft: true }
    }
}

/// Why a text is no prefix of object keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// The prefix of all keys.
    #[error("is empty, which every key begins with")]
    Empty,
    /// No key begins so.
    #[error(transparent)]
    Key(KeyError),
}

/// How object keys begin, such as `movies/2026-`: a plain string prefix as in S3, of 1 to 1024 bytes, which a key can
/// begin with. It may end inside a segment or a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyPrefix(Box<str>);

impl KeyPrefix {
    /// The prefix from text that is not encoded.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        if prefix.is_empty() {
            return Err(PrefixError::Empty);
        }
        if prefix.len() > MAX_PREFIX {
            return Err(PrefixError::Key(KeyError::Length));
        }
        if prefix.bytes().any(|b| b.is_ascii_control()) {
            return Err(PrefixError::Key(KeyError::Control));
        }
        // What follows the last slash may go on.
        let folders = prefix.rsplit_once('/').map(|(folders, _)| folders);
        for segment in folders.iter().flat_map(|folders| folders.split('/')) {
            match segment {
                "" => return Err(PrefixError::Key(KeyError::EmptySegment)),
                "." | ".." => return Err(PrefixError::Key(KeyError::DotSegment)),
                _ => {}
            }
        }
        Ok(Self(prefix.into()))
    }

    /// The prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no surrogate key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SurrogateKeyError {
    /// Empty, or over 256 bytes.
    #[error("must have 1 to 256 characters")]
    Length,
    /// A space, a comma, or something that is not visible ASCII.
    #[error("may hold visible ASCII characters only, and no comma")]
    Character,
}

/// A name that an origin gives responses (`Surrogate-Key`, `Cache-Tag`), so that they can be purged together: 1 to 256
/// visible ASCII characters without comma, compared byte by byte.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SurrogateKey(Box<str>);

impl SurrogateKey {
    /// The key from text.
    pub fn new(key: &str) -> Result<Self, SurrogateKeyError> {
        Self::check(key.as_bytes()).map(|()| Self(key.into()))
    }

    /// Whether these bytes are one.
    pub fn check(key: &[u8]) -> Result<(), SurrogateKeyError> {
        if !(1..=MAX_SURROGATE_KEY).contains(&key.len()) {
            return Err(SurrogateKeyError::Length);
        }
        if !key.iter().all(|b| b.is_ascii_graphic() && *b != b',') {
            return Err(SurrogateKeyError::Character);
        }
        Ok(())
    }

    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SurrogateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn prefixes() {
        let long = "a".repeat(1025);
        for (prefix, expected) in [
            ("a", None),
            ("movies/", None),
            ("movies/2026-", None),
            (".", None),
            ("a/..", None),
            ("a/.b/", None),
            ("é ,*", None),
            (&long[..1024], None),
            ("", Some(PrefixError::Empty)),
            ("/", Some(PrefixError::Key(KeyError::EmptySegment))),
            ("/a", Some(PrefixError::Key(KeyError::EmptySegment))),
            ("a//", Some(PrefixError::Key(KeyError::EmptySegment))),
            ("a//b", Some(PrefixError::Key(KeyError::EmptySegment))),
            ("../", Some(PrefixError::Key(KeyError::DotSegment))),
            ("a/./b", Some(PrefixError::Key(KeyError::DotSegment))),
            ("a\nb", Some(PrefixError::Key(KeyError::Control))),
            (&long, Some(PrefixError::Key(KeyError::Length))),
        ] {
            assert_eq!(KeyPrefix::new(prefix).err(), expected, "{prefix:?}");
        }
    }

    #[test]
    fn surrogate_keys() {
        let long = "k".repeat(257);
        for (key, expected) in [
            ("a", None),
            ("product-17", None),
            ("<!~\"'=;:*>", None),
            (&long[..256], None),
            ("", Some(SurrogateKeyError::Length)),
            (&long, Some(SurrogateKeyError::Length)),
            ("a b", Some(SurrogateKeyError::Character)),
            ("a,b", Some(SurrogateKeyError::Character)),
            ("a\tb", Some(SurrogateKeyError::Character)),
            ("ä", Some(SurrogateKeyError::Character)),
            ("\u{7f}", Some(SurrogateKeyError::Character)),
        ] {
            assert_eq!(SurrogateKey::new(key).err(), expected, "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_key_begins_with_is_a_prefix(text in "[a-c./é]{1,12}", cut in 0..12_usize) {
            if let Ok(key) = ObjectKey::new(&text) {
                let start: String = key.as_str().chars().take(cut + 1).collect();
                prop_assert!(KeyPrefix::new(&start).is_ok(), "{start}");
            }
        }
    }
}
