//! Fully qualified domain names in their one canonical form: lower-case A-labels without a trailing dot
//! (RFC 1035 §2.3.4, RFC 5891, UTS 46).

use std::{fmt, net::IpAddr, str::FromStr};

/// Why a text is no name for a playback domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FqdnError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// An IPv4 or IPv6 address.
    #[error("must be a name, not an IP address")]
    Address,
    /// A `*` label.
    #[error("must not be a wildcard")]
    Wildcard,
    /// Only one label.
    #[error("must have at least two labels, as in video.example.com")]
    OneLabel,
    /// A label that is empty, over 63 octets, or not letters, digits and inner hyphens.
    #[error("every label must have 1 to 63 letters, digits or inner hyphens")]
    Label,
    /// Over 253 octets.
    #[error("must have at most 253 characters")]
    Length,
    /// Not valid as an internationalized name (UTS 46).
    #[error("is not a valid internationalized name")]
    Idna,
    /// A name that never resolves publicly (RFC 6761 and the like).
    #[error("is under a reserved top-level name")]
    Reserved,
}

/// A canonical domain name. Two equal names have equal bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct Fqdn(Box<str>);

/// Top-level names that are never public (RFC 6761, RFC 6762, RFC 7686, RFC 8375). Documentation names stay allowed.
const RESERVED: [&str; 6] = ["localhost", "invalid", "local", "onion", "home.arpa", "internal"];

impl Fqdn {
    /// The name as text, lower-case, without a trailing dot.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is `zone` or below it.
    pub fn is_within(&self, zone: &Fqdn) -> bool {
        self.0
            .strip_suffix(zone.as_str())
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The name one level below this one, `<label>.<self>`. `label` must be made of valid labels already.
    #[must_use]
    pub fn child(&self, label: &str) -> Fqdn {
        Fqdn(format!("{label}.{}", self.0).into())
    }

    /// A name that a customer may bring: every rule of [`Fqdn`], and not under a reserved top-level name.
    pub fn parse_public(s: &str) -> Result<Self, FqdnError> {
        let name = s.parse::<Fqdn>()?;
        let reserved = RESERVED.iter().any(|r| name.is_within(&Fqdn((*r).into())));
        if reserved { Err(FqdnError::Reserved) } else { Ok(name) }
    }
}

impl fmt::Display for Fqdn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Fqdn {
    type Err = FqdnError;

    fn from_str(s: &str) -> Result<Self, FqdnError> {
        let s = s.strip_suffix('.').unwrap_or(s);
        if s.is_empty() {
            return Err(FqdnError::Empty);
        }
        // Far over any valid name, before UTS 46 is run on it.
        if s.len() > 1024 {
            return Err(FqdnError::Length);
        }
        if s.parse::<IpAddr>().is_ok() || (s.starts_with('[') && s.ends_with(']')) {
            return Err(FqdnError::Address);
        }
        if s.split('.').any(|l| l.contains('*')) {
            return Err(FqdnError::Wildcard);
        }
        let name = if s.is_ascii() && !s.to_ascii_lowercase().contains("xn--") {
            s.to_ascii_lowercase()
        } else {
            // A length failure of UTS 46 is told apart below, so lengths are not asked for here.
            idna::domain_to_ascii_cow(s.as_bytes(), idna::AsciiDenyList::STD3)
                .map_err(|_| FqdnError::Idna)?
                .into_owned()
        };
        let ldh = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        if !name.split('.').all(ldh) {
            return Err(FqdnError::Label);
        }
        if name.len() > 253 {
            return Err(FqdnError::Length);
        }
        let last = name.rsplit('.').next().unwrap_or_default();
        if last.bytes().all(|b| b.is_ascii_digit()) || name.parse::<IpAddr>().is_ok() {
            return Err(FqdnError::Address);
        }
        if !name.contains('.') {
            return Err(FqdnError::OneLabel);
        }
        Ok(Self(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_form() {
        for (given, canonical) in [
            ("live.mydomain.com", "live.mydomain.com"),
            ("LIVE.MyDomain.COM.", "live.mydomain.com"),
            ("bücher.example.com", "xn--bcher-kva.example.com"),
            ("XN--BCHER-KVA.example.com", "xn--bcher-kva.example.com"),
            ("日本語。example.com", "xn--wgv71a119e.example.com"),
            (
                &format!("{}.example.com", "a".repeat(63)),
                &format!("{}.example.com", "a".repeat(63)),
            ),
        ] {
            assert_eq!(
                given.parse::<Fqdn>().map(|n| n.to_string()),
                Ok(canonical.to_string()),
                "{given}"
            );
        }
    }

    #[test]
    fn refused_names() {
        let long = format!("{}.com", vec!["a".repeat(63); 4].join("."));
        for (bad, why) in [
            ("", FqdnError::Empty),
            (".", FqdnError::Empty),
            ("10.0.0.1", FqdnError::Address),
            ("::1", FqdnError::Address),
            ("[::1]", FqdnError::Address),
            ("a.123", FqdnError::Address),
            ("*.example.com", FqdnError::Wildcard),
            ("com", FqdnError::OneLabel),
            ("a..example.com", FqdnError::Label),
            ("example.com..", FqdnError::Label),
            ("-a.example.com", FqdnError::Label),
            ("a_b.example.com", FqdnError::Label),
            ("a b.example.com", FqdnError::Label),
            ("a/b.example.com", FqdnError::Label),
            ("a.example.com:443", FqdnError::Label),
            ("a\r\nb.example.com", FqdnError::Label),
            ("a\0.example.com", FqdnError::Label),
            (&format!("{}.example.com", "a".repeat(64)), FqdnError::Label),
            (&long, FqdnError::Length),
            ("xn--\u{0}.example.com", FqdnError::Idna),
        ] {
            assert_eq!(bad.parse::<Fqdn>(), Err(why), "{bad:?}");
        }
        assert_eq!(Fqdn::parse_public("video.localhost"), Err(FqdnError::Reserved));
        assert!(Fqdn::parse_public("video.example.com").is_ok());
    }

    #[test]
    fn within_a_zone_is_by_label() {
        let zone: Fqdn = "edge.example.com".parse().expect("valid");
        let name = |s: &str| s.parse::<Fqdn>().expect("valid");
        assert!(name("edge.example.com").is_within(&zone));
        assert!(name("a.edge.example.com").is_within(&zone));
        assert!(!name("myedge.example.com").is_within(&zone));
    }
}
