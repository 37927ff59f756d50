//! Values that are text in a configuration.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, net::SocketAddr, str::FromStr};
use toml::Value;

/// An IP address and a port; empty for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) Option<SocketAddr>);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() {
            return Ok(Self(None));
        }
        s.parse()
            .map(|address| Self(Some(address)))
            .map_err(|_| "must be an IP address and a port, as in 127.0.0.1:8080 or [::]:8080, or empty for none")
    }
}

/// A number of bytes; written with a binary unit where it is a whole number of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &(&str, u32)| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match UNITS.iter().find(|unit| whole(unit)) {
            Some((name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => self.0.fmt(f),
        }
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let (digits, shift) = UNITS
            .iter()
            .find_map(|(name, shift)| Some((s.strip_suffix(name)?, *shift)))
            .unwrap_or((s, 0));
        digits
            .trim_end()
            .parse()
            .ok()
            .filter(|n: &u64| n.leading_zeros() >= shift)
            .map(|n| Self(n << shift))
            .ok_or("must be a number of bytes, or of KiB, MiB, GiB or TiB, as in 256MiB")
    }
}

/// Types that are text in TOML.
pub(super) mod as_text {
    use super::{Deserialize, Deserializer, FromStr, Serializer, fmt};
    use serde::de::Error;

    pub(in super::super) fn serialize<T: fmt::Display, S: Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(in super::super) fn deserialize<'de, T, D>(d: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: fmt::Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        as_text::serialize(self, s)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        as_text::deserialize(d)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        as_text::serialize(self, s)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match Value::deserialize(d)? {
            Value::Integer(n) => u64::try_from(n)
                .map(Self)
                .map_err(|_| D::Error::custom("must not be negative")),
            Value::String(s) => s.parse().map_err(D::Error::custom),
            _ => Err(D::Error::custom("must be a number of bytes, or text as in 256MiB")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("1500", 1500),
            ("64KiB", 65536),
            ("10 GiB", 10 << 30),
            ("2TiB", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        for bad in ["", "MiB", "-1", "1.5GiB", "1gb", "99999999999999999999", "99999999TiB"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
