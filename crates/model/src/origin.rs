//! Where a bucket's bytes come from, as far as the configuration of it goes.

use crate::S3Origin;
use std::{fmt, str::FromStr, sync::Arc};

/// Why a text is no origin URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginUrlError {
    /// Not `http://` or `https://`.
    #[error("must start with http:// or https://")]
    Scheme,
    /// No host, or one with user information, white space or control characters.
    #[error("must name a host, without user name or password")]
    Host,
    /// A port that is no number from 1 to 65535.
    #[error("has a bad port")]
    Port,
    /// A query or a fragment.
    #[error("must not have a query or fragment")]
    Query,
    /// A path with dot segments or characters that a URL may not hold.
    #[error("has a bad path")]
    Path,
}

/// The base URL of an HTTP origin: scheme, host, port and a path prefix, without user information, query or fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginUrl {
    https: bool,
    host: Box<str>,
    port: u16,
    prefix: Box<str>,
}

impl OriginUrl {
    /// Whether TLS is spoken.
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The host: a lower-case name, an IPv4 address, or an IPv6 address without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, the scheme's default filled in.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path prefix, without a trailing slash; empty for the root.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// `host[:port]` as a `Host` field has it (RFC 9110 §7.2): the default port left out, IPv6 in brackets.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.to_string()
        };
        let default = if self.https { 443 } else { 80 };
        if self.port == default {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

impl fmt::Display for OriginUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            if self.https { "https" } else { "http" },
            self.authority(),
            self.prefix
        )
    }
}

impl FromStr for OriginUrl {
    type Err = OriginUrlError;

    fn from_str(s: &str) -> Result<Self, OriginUrlError> {
        let (https, rest) = match s.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
            _ => return Err(OriginUrlError::Scheme),
        };
        if rest.contains(['?', '#']) {
            return Err(OriginUrlError::Query);
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(OriginUrlError::Host);
        }
        let (host, port) = if let Some(v6) = authority.strip_prefix('[') {
            let (host, after) = v6.split_once(']').ok_or(OriginUrlError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| OriginUrlError::Host)?;
            let port = if after.is_empty() {
                None
            } else {
                Some(after.strip_prefix(':').ok_or(OriginUrlError::Host)?)
            };
            (host, port)
        } else {
            authority
                .split_once(':')
                .map_or((authority, None), |(h, p)| (h, Some(p)))
        };
        let host = host.to_ascii_lowercase();
        let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if host.is_empty() || !(host.chars().all(name) || authority.starts_with('[')) {
            return Err(OriginUrlError::Host);
        }
        let port = match port {
            None => {
                if https {
                    443
                } else {
                    80
                }
            }
            Some(p) if p.bytes().all(|b| b.is_ascii_digit()) => {
                p.parse().ok().filter(|p| *p != 0).ok_or(OriginUrlError::Port)?
            }
            Some(_) => return Err(OriginUrlError::Port),
        };
        let prefix = path.trim_end_matches('/');
        let plain =
            |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
        if !prefix.bytes().all(plain) || prefix.split('/').any(|s| s == "." || s == "..") {
            return Err(OriginUrlError::Path);
        }
        Ok(Self {
            https,
            host: host.into(),
            port,
            prefix: prefix.into(),
        })
    }
}

/// An origin that is asked over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOrigin {
    /// The base; an object's URL is this, a slash, and the encoded key.
    pub url: OriginUrl,
    /// The methods that clients may use, upper-case; GET and HEAD at least.
    pub methods: Box<[Box<str>]>,
    /// Request header fields, in lower case, that it is told beside those that every origin is.
    pub request_headers: Box<[Box<str>]>,
    /// Whether its answers are stored also when they set cookies, for everybody.
    pub store_set_cookie: bool,
    /// Whether clients are shown `Surrogate-Key` and `Cache-Tag`: those of a shield, which are caches themselves.
    pub show_surrogate_keys: bool,
}

/// A bucket's origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Files in the data folder.
    Local,
    /// Another HTTP server.
    Http(HttpOrigin),
    /// A bucket of an S3 server.
    S3(Arc<S3Origin>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (given, shown) in [
            ("http://Origin.example.com", "http://origin.example.com"),
            ("https://o.example.com:443/a/b/", "https://o.example.com/a/b"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ] {
            assert_eq!(
                given.parse::<OriginUrl>().map(|u| u.to_string()),
                Ok(shown.to_string()),
                "{given}"
            );
        }
        for (bad, why) in [
            ("ftp://a", OriginUrlError::Scheme),
            ("file:///etc/passwd", OriginUrlError::Scheme),
            ("a.example.com", OriginUrlError::Scheme),
            ("http://", OriginUrlError::Host),
            ("http://user:pw@a", OriginUrlError::Host),
            ("http://user@a:80", OriginUrlError::Host),
            ("http://user@a", OriginUrlError::Host),
            ("http://a b", OriginUrlError::Host),
            ("http://a\r\nb", OriginUrlError::Host),
            ("http://[1.2.3.4]", OriginUrlError::Host),
            ("http://a:0", OriginUrlError::Port),
            ("http://a:+80", OriginUrlError::Port),
            ("http://a:65536", OriginUrlError::Port),
            ("http://a/?x=1", OriginUrlError::Query),
            ("http://a/../b", OriginUrlError::Path),
            ("http://a/ b", OriginUrlError::Path),
        ] {
            assert_eq!(bad.parse::<OriginUrl>(), Err(why), "{bad:?}");
        }
    }
}
