//! Bucket names, by the S3 rules for general purpose buckets.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// Why a text is no bucket name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not 3 to 63 characters.
    #[error("must have 3 to 63 characters")]
    Length,
    /// A character other than `a-z`, `0-9`, `.` and `-`.
    #[error("may hold lower-case letters, digits, dots and hyphens only")]
    Character,
    /// Starts or ends with a dot or hyphen, or has `..`, `.-` or `-.` inside.
    #[error("every dot-separated label must start and end with a letter or digit")]
    Label,
    /// Reads as an IPv4 address.
    #[error("must not look like an IP address")]
    Address,
    /// Starts or ends with something that S3 keeps for itself (`xn--`, `-s3alias` and so on).
    #[error("uses a reserved prefix or suffix")]
    Reserved,
}

/// A bucket's name: unique across projects, 3 to 63 characters, fit to be the first labels of a host name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct BucketName(Box<str>);

impl BucketName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BucketName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        if !(3..=63).contains(&s.len()) {
            return Err(NameError::Length);
        }
        if !s.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-')) {
            return Err(NameError::Character);
        }
        if s.split('.')
            .any(|l| l.is_empty() || l.starts_with('-') || l.ends_with('-'))
        {
            return Err(NameError::Label);
        }
        if s.parse::<Ipv4Addr>().is_ok() {
            return Err(NameError::Address);
        }
        let reserved = ["xn--", "sthree-", "amzn-s3-demo-"].iter().any(|p| s.starts_with(p))
            || ["-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3"]
                .iter()
                .any(|p| s.ends_with(p));
        if reserved {
            return Err(NameError::Reserved);
        }
        Ok(Self(s.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_rules() {
        for good in ["abc", "my-bucket", "my.bucket.1", "0ab", &"a".repeat(63)] {
            assert!(good.parse::<BucketName>().is_ok(), "{good}");
        }
        for (bad, why) in [
            ("ab", NameError::Length),
            (&*"a".repeat(64), NameError::Length),
            ("MyBucket", NameError::Character),
            ("my_bucket", NameError::Character),
            ("a/b", NameError::Character),
            ("../etc", NameError::Character),
            ("büro", NameError::Character),
            ("-abc", NameError::Label),
            ("abc-", NameError::Label),
            ("a..b", NameError::Label),
            ("a.-b", NameError::Label),
            (".abc", NameError::Label),
            ("192.168.5.4", NameError::Address),
            ("xn--abc", NameError::Reserved),
            ("abc-s3alias", NameError::Reserved),
        ] {
            assert_eq!(bad.parse::<BucketName>(), Err(why), "{bad}");
        }
    }
}
