//! Object keys: what a request path names inside a bucket.
//!
//! A path is percent-decoded once, here, and the result is the one key that authorization, cache and origin see
//! (RFC 3986 §6). What could be read in two ways is refused, not mended: dot segments, encoded slashes, empty segments,
//! control characters, bytes that are no UTF-8. Bytes are compared as they are: no case or Unicode folding.

use std::fmt;

/// The longest key, in bytes, as in S3.
const MAX_BYTES: usize = 1024;

/// Why a text is no object key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key at all (the path `/`).
    #[error("names no object")]
    Empty,
    /// Over 1024 bytes.
    #[error("is longer than 1024 bytes")]
    Length,
    /// A `%` that no two hexadecimal digits follow.
    #[error("has a broken percent-encoding")]
    Encoding,
    /// `%2f`.
    #[error("has an encoded slash")]
    EncodedSlash,
    /// A `.` or `..` segment, plain or encoded.
    #[error("has a dot segment")]
    DotSegment,
    /// `//`, or a leading `/`.
    #[error("has an empty segment")]
    EmptySegment,
    /// A control character, NUL above all.
    #[error("has a control character")]
    Control,
    /// Not UTF-8 after decoding.
    #[error("is not UTF-8")]
    Utf8,
}

/// A decoded object key such as `movies/intro.mp4`: 1 to 1024 bytes of UTF-8, no leading slash, no dot or empty
/// segment (a trailing slash is let stand), no control character.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Box<str>);

impl ObjectKey {
    /// The key from a request's path as it came over the wire: `/` and the percent-encoded key.
    pub fn from_path(path: &str) -> Result<Self, KeyError> {
        let encoded = path.strip_prefix('/').unwrap_or(path);
        if !encoded.contains('%') {
            return Self::new(encoded);
        }
        let mut decoded = Vec::with_capacity(encoded.len());
        let mut bytes = encoded.bytes();
        while let Some(b) = bytes.next() {
            if b != b'%' {
                decoded.push(b);
                continue;
            }
            let mut digit = || {
                bytes
                    .next()
                    .and_then(|d| (d as char).to_digit(16))
                    .ok_or(KeyError::Encoding)
            };
            let byte = (digit()? * 16 + digit()?) as u8;
            if byte == b'/' {
                return Err(KeyError::EncodedSlash);
            }
            decoded.push(byte);
        }
        Self::new(&String::from_utf8(decoded).map_err(|_| KeyError::Utf8)?)
    }

    /// The key from text that is not encoded (a JSON field, a file's name).
    pub fn new(key: &str) -> Result<Self, KeyError> {
        if key.is_empty() {
            return Err(KeyError::Empty);
        }
        if key.len() > MAX_BYTES {
            return Err(KeyError::Length);
        }
        if key.bytes().any(|b| b.is_ascii_control()) {
            return Err(KeyError::Control);
        }
        let body = key.strip_suffix('/').unwrap_or(key);
        for segment in body.split('/') {
            match segment {
                "" => return Err(KeyError::EmptySegment),
                "." | ".." => return Err(KeyError::DotSegment),
                _ => {}
            }
        }
        Ok(Self(key.into()))
    }

    /// The decoded key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The key as a URL path without the leading slash: every byte but unreserved ones and `/` percent-encoded.
    pub fn to_url_path(&self) -> String {
        const KEEP: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
            .remove(b'-')
            .remove(b'.')
            .remove(b'_')
            .remove(b'~')
            .remove(b'/');
        percent_encoding::utf8_percent_encode(&self.0, KEEP).to_string()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decoded_once() {
        for (path, key) in [
            ("/a/b.mp4", "a/b.mp4"),
            ("/a%20b+c", "a b+c"),
            ("/%61", "a"),
            ("/%252e%252e/x", "%2e%2e/x"),
            ("/folder/", "folder/"),
            ("/...", "..."),
            ("/%C3%A9", "é"),
            ("/e%CC%81", "e\u{301}"),
            ("/A", "A"),
        ] {
            assert_eq!(
                ObjectKey::from_path(path).map(|k| k.to_string()),
                Ok(key.to_string()),
                "{path}"
            );
        }
    }

    #[test]
    fn refused_paths() {
        for (path, why) in [
            ("/", KeyError::Empty),
            ("", KeyError::Empty),
            ("/../x", KeyError::DotSegment),
            ("/a/../x", KeyError::DotSegment),
            ("/a/./x", KeyError::DotSegment),
            ("/%2e%2e/x", KeyError::DotSegment),
            ("/a/%2E", KeyError::DotSegment),
            ("/a/..", KeyError::DotSegment),
            ("/a%2fb", KeyError::EncodedSlash),
            ("/..%2Fx", KeyError::EncodedSlash),
            ("//a", KeyError::EmptySegment),
            ("/a//b", KeyError::EmptySegment),
            ("/a//", KeyError::EmptySegment),
            ("/a%00b", KeyError::Control),
            ("/a%0d%0ab", KeyError::Control),
            ("/%ff", KeyError::Utf8),
            ("/%", KeyError::Encoding),
            ("/%2", KeyError::Encoding),
            ("/%+1", KeyError::Encoding),
            ("/%zz", KeyError::Encoding),
            (&format!("/{}", "a".repeat(1025)), KeyError::Length),
        ] {
            assert_eq!(ObjectKey::from_path(path), Err(why), "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_key_survives_its_own_url(text in "[a-z /%.é+?#\\\\]{1,40}") {
            if let Ok(key) = ObjectKey::new(&text) {
                prop_assert_eq!(ObjectKey::from_path(&key.to_url_path()), Ok(key));
            }
        }

        #[test]
        fn no_path_yields_a_climbing_key(path in "(/|\\.|%2e|%2f|%25|a|\\.\\.){0,12}") {
            if let Ok(key) = ObjectKey::from_path(&path) {
                prop_assert!(!key.as_str().split('/').any(|s| s == ".." || s == "."));
            }
        }
    }
}
