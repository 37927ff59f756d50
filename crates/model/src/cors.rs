//! A bucket's CORS policy (Fetch Standard, "CORS protocol"): the four response headers that its owner may set.

use std::{collections::BTreeMap, fmt, str::FromStr};

/// A header that a policy may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CorsHeader {
    /// `Access-Control-Allow-Origin`: `*` or one origin.
    AllowOrigin,
    /// `Access-Control-Allow-Credentials`: `true` or `false`.
    AllowCredentials,
    /// `Access-Control-Allow-Methods`: a comma-separated list.
    AllowMethods,
    /// `Access-Control-Max-Age`: seconds.
    MaxAge,
}

impl CorsHeader {
    const ALL: [Self; 4] = [
        Self::AllowOrigin,
        Self::AllowCredentials,
        Self::AllowMethods,
        Self::MaxAge,
    ];

    /// The header's name in its one kept spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AllowOrigin => "Access-Control-Allow-Origin",
            Self::AllowCredentials => "Access-Control-Allow-Credentials",
            Self::AllowMethods => "Access-Control-Allow-Methods",
            Self::MaxAge => "Access-Control-Max-Age",
        }
    }
}

impl fmt::Display for CorsHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CorsHeader {
    type Err = CorsError;

    fn from_str(s: &str) -> Result<Self, CorsError> {
        Self::ALL
            .into_iter()
            .find(|h| h.as_str().eq_ignore_ascii_case(s))
            .ok_or(CorsError::Header)
    }
}

/// Why a policy is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CorsError {
    /// A header that a policy may not set.
    #[error("is not one of Access-Control-Allow-Origin, -Allow-Credentials, -Allow-Methods and -Max-Age")]
    Header,
    /// The same header twice (in two spellings).
    #[error("is given twice")]
    Duplicate,
    /// A tab, a line break or another control character.
    #[error("must not hold control characters")]
    Control,
    /// Not `*` and not one origin.
    #[error("must be * or one origin, as in https://player.example.com")]
    Origin,
    /// Not `true` or `false`.
    #[error("must be true or false")]
    Credentials,
    /// Credentials for everyone.
    #[error("can be true only together with one particular Access-Control-Allow-Origin")]
    CredentialsForAll,
    /// A method that is not one of the nine.
    #[error("must be a comma-separated list of GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH")]
    Methods,
    /// Not whole seconds.
    #[error("must be a number of seconds from 0 to 2147483647")]
    MaxAge,
}

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// The value of `Access-Control-Allow-Origin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CorsOrigin<'a> {
    /// `*`.
    Any,
    /// One serialized origin (RFC 6454 §6.2).
    One(&'a str),
}

/// A validated policy. Every value is fit to be a header value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CorsPolicy(BTreeMap<CorsHeader, String>);

impl CorsPolicy {
    /// Checks a whole policy; an error names the header (as given) at fault.
    pub fn new<'a>(headers: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, (String, CorsError)> {
        let mut policy = BTreeMap::new();
        for (name, value) in headers {
            let fail = |e| (name.to_owned(), e);
            let header: CorsHeader = name.parse().map_err(fail)?;
            if value.chars().any(char::is_control) {
                return Err(fail(CorsError::Control));
            }
            let value = parse_value(header, value.trim_matches(' ')).map_err(fail)?;
            if policy.insert(header, value).is_some() {
                return Err(fail(CorsError::Duplicate));
            }
        }
        let policy = Self(policy);
        policy
            .check_credentials()
            .map_err(|e| (CorsHeader::AllowCredentials.to_string(), e))?;
        Ok(policy)
    }

    /// The policy without `header`; refused when what is left would not be a valid policy.
    pub fn without(&self, header: CorsHeader) -> Result<Self, CorsError> {
        let mut rest = self.clone();
        rest.0.remove(&header);
        rest.check_credentials()?;
        Ok(rest)
    }

    /// The headers and their values.
    pub fn iter(&self) -> impl Iterator<Item = (CorsHeader, &str)> {
        self.0.iter().map(|(h, v)| (*h, v.as_str()))
    }

    /// A header's value.
    pub fn get(&self, header: CorsHeader) -> Option<&str> {
        self.0.get(&header).map(String::as_str)
    }

    /// Whom the policy lets in; `None` when it names nobody.
    pub fn allow_origin(&self) -> Option<CorsOrigin<'_>> {
        self.get(CorsHeader::AllowOrigin)
            .map(|v| if v == "*" { CorsOrigin::Any } else { CorsOrigin::One(v) })
    }

    /// Whether no header is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn check_credentials(&self) -> Result<(), CorsError> {
        let credentials = self.get(CorsHeader::AllowCredentials) == Some("true");
        if credentials && !matches!(self.allow_origin(), Some(CorsOrigin::One(_))) {
            return Err(CorsError::CredentialsForAll);
        }
        Ok(())
    }
}

/// A value in the form it is kept and sent in.
fn parse_value(header: CorsHeader, value: &str) -> Result<String, CorsError> {
    match header {
        CorsHeader::AllowOrigin if value == "*" => Ok(value.to_owned()),
        CorsHeader::AllowOrigin => origin(value).ok_or(CorsError::Origin),
        CorsHeader::AllowCredentials => match value.to_ascii_lowercase().as_str() {
            v @ ("true" | "false") => Ok(v.to_owned()),
            _ => Err(CorsError::Credentials),
        },
        CorsHeader::AllowMethods => {
            let methods: Vec<_> = value.split(',').map(|m| m.trim_matches(' ')).collect();
            if methods.iter().all(|m| METHODS.contains(m)) {
                Ok(methods.join(", "))
            } else {
                Err(CorsError::Methods)
            }
        }
        CorsHeader::MaxAge => match value.parse::<u32>() {
            Ok(n) if i32::try_from(n).is_ok() && value.bytes().all(|b| b.is_ascii_digit()) => Ok(n.to_string()),
            _ => Err(CorsError::MaxAge),
        },
    }
}

/// `scheme://host[:port]`, nothing after it, as browsers send it: they compare it with their own byte by byte, which is
/// in lower case and leaves the scheme's default port out (RFC 6454 §6.2).
fn origin(value: &str) -> Option<String> {
    let value = value.to_ascii_lowercase();
    let (scheme, authority) = value.split_once("://")?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'));
    let host_ok = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !host.is_empty()
                && host
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    };
    if !scheme_ok || !host_ok {
        return None;
    }
    let port = match port {
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse::<u16>().ok()?),
        Some(_) => return None,
        None => None,
    };
    Some(match (scheme, port) {
        (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}"),
        (_, Some(port)) => format!("{scheme}://{host}:{port}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_in_one_spelling() {
        let policy = CorsPolicy::new([
            ("access-control-allow-origin", "https://a.example.com:8443"),
            ("ACCESS-CONTROL-ALLOW-METHODS", "GET,PUT , POST"),
            ("Access-Control-Max-Age", "0600"),
            ("Access-Control-Allow-Credentials", "True"),
        ])
        .expect("valid");
        let shown: Vec<_> = policy.iter().map(|(h, v)| format!("{h}: {v}")).collect();
        assert_eq!(
            shown,
            [
                "Access-Control-Allow-Origin: https://a.example.com:8443",
                "Access-Control-Allow-Credentials: true",
                "Access-Control-Allow-Methods: GET, PUT, POST",
                "Access-Control-Max-Age: 600"
            ]
        );
        // As browsers send them.
        for (given, kept) in [
            ("https://Player.Example.com", "https://player.example.com"),
            ("HTTPS://player.example.com", "https://player.example.com"),
            ("https://player.example.com:443", "https://player.example.com"),
            ("http://player.example.com:80", "http://player.example.com"),
            ("http://player.example.com:443", "http://player.example.com:443"),
            ("https://player.example.com:80", "https://player.example.com:80"),
            ("https://player.example.com:08443", "https://player.example.com:8443"),
            ("http://[2001:DB8::1]:80", "http://[2001:db8::1]"),
            ("*", "*"),
        ] {
            let policy = CorsPolicy::new([("Access-Control-Allow-Origin", given)]).expect("valid");
            assert_eq!(policy.get(CorsHeader::AllowOrigin), Some(kept), "{given}");
        }
    }

    #[test]
    fn refused_values() {
        const ORIGIN: &str = "Access-Control-Allow-Origin";
        for (name, value, why) in [
            ("X-Other", "1", CorsError::Header),
            ("Access-Control-Allow-Headers", "*", CorsError::Header),
            ("Set-Cookie", "a=b", CorsError::Header),
            (ORIGIN, "", CorsError::Origin),
            (ORIGIN, "null", CorsError::Origin),
            (ORIGIN, "https://a.example.com/", CorsError::Origin),
            (
                ORIGIN,
                "https://a.example.com, https://b.example.com",
                CorsError::Origin,
            ),
            (ORIGIN, "https://a.example.com\r\nSet-Cookie: a=b", CorsError::Control),
            (ORIGIN, "https://a.example.com\t", CorsError::Control),
            ("Access-Control-Allow-Methods", "GET,\tPUT", CorsError::Control),
            (ORIGIN, "https://a.example.com:99999", CorsError::Origin),
            (ORIGIN, "https://*.example.com", CorsError::Origin),
            ("Access-Control-Allow-Credentials", "yes", CorsError::Credentials),
            ("Access-Control-Allow-Methods", "GET, BREW", CorsError::Methods),
            ("Access-Control-Allow-Methods", "get", CorsError::Methods),
            ("Access-Control-Allow-Methods", "GET\r\n", CorsError::Control),
            ("Access-Control-Allow-Methods", "", CorsError::Methods),
            ("Access-Control-Max-Age", "-1", CorsError::MaxAge),
            ("Access-Control-Max-Age", "+1", CorsError::MaxAge),
            ("Access-Control-Max-Age", "1.5", CorsError::MaxAge),
            ("Access-Control-Max-Age", "4294967296", CorsError::MaxAge),
        ] {
            assert_eq!(
                CorsPolicy::new([(name, value)]),
                Err((name.to_owned(), why)),
                "{name}: {value:?}"
            );
        }
        let twice = CorsPolicy::new([("Access-Control-Max-Age", "1"), ("access-control-max-age", "2")]);
        assert_eq!(twice, Err(("access-control-max-age".to_owned(), CorsError::Duplicate)));
    }

    #[test]
    fn credentials_need_one_origin_also_after_a_removal() {
        const CREDENTIALS: &str = "Access-Control-Allow-Credentials";
        for origin in [Some("*"), None] {
            let headers = origin
                .map(|o| ("Access-Control-Allow-Origin", o))
                .into_iter()
                .chain([(CREDENTIALS, "true")]);
            assert_eq!(
                CorsPolicy::new(headers),
                Err((CREDENTIALS.to_owned(), CorsError::CredentialsForAll))
            );
        }
        let policy = CorsPolicy::new([
            ("Access-Control-Allow-Origin", "https://a.example.com"),
            (CREDENTIALS, "true"),
        ])
        .expect("valid");
        assert_eq!(
            policy.without(CorsHeader::AllowOrigin),
            Err(CorsError::CredentialsForAll)
        );
        assert!(policy.without(CorsHeader::AllowCredentials).is_ok());
    }
}
