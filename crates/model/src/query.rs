//! A request's query, parted into the signed token (`auth`) and the rest.
//!
//! The token leaves the query here, before anything else sees it: what remains may become part of a cache key or of a
//! request to an origin.

use std::borrow::Cow;

/// Why a query is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// More than one `auth` parameter: no telling which one is meant.
    #[error("has more than one auth parameter")]
    DuplicateToken,
}

/// A query without its `auth` parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query<'a> {
    /// The value of `auth`, not decoded (a JWT needs no encoding; one that is encoded is malformed).
    pub token: Option<&'a str>,
    /// The other parameters, in their order and spelling, without a leading `?`.
    pub rest: Cow<'a, str>,
}

impl<'a> Query<'a> {
    /// Parts `query` (without its `?`).
    pub fn parse(query: &'a str) -> Result<Self, QueryError> {
        // The common shapes: nothing, or the token alone.
        if query.is_empty() {
            return Ok(Self {
                token: None,
                rest: Cow::Borrowed(""),
            });
        }
        if let Some(token) = query.strip_prefix("auth=")
            && !token.contains('&')
        {
            return Ok(Self {
                token: Some(token),
                rest: Cow::Borrowed(""),
            });
        }
        let mut token = None;
        let mut rest = String::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !is_auth(name) {
                if !rest.is_empty() {
                    rest.push('&');
                }
                rest.push_str(pair);
            } else if token.replace(value).is_some() {
                return Err(QueryError::DuplicateToken);
            }
        }
        Ok(Self {
            token,
            rest: if token.is_some() {
                Cow::Owned(rest)
            } else {
                Cow::Borrowed(query)
            },
        })
    }
}

/// Whether a parameter's name decodes to `auth`; an encoded spelling must not smuggle a token past this module.
fn is_auth(name: &str) -> bool {
    name == "auth" || (name.contains('%') && percent_encoding::percent_decode_str(name).eq(*b"auth"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_taken_out() {
        for (query, token, rest) in [
            ("", None, ""),
            ("a=1&b=2", None, "a=1&b=2"),
            ("auth=x.y.z", Some("x.y.z"), ""),
            ("a=1&auth=x&b=2", Some("x"), "a=1&b=2"),
            ("auth=x&a=1", Some("x"), "a=1"),
            ("%61uth=x", Some("x"), ""),
            ("auth", Some(""), ""),
            ("author=x", None, "author=x"),
            ("AUTH=x", None, "AUTH=x"),
        ] {
            let got = Query::parse(query).expect(query);
            assert_eq!((got.token, &*got.rest), (token, rest), "{query}");
        }
    }

    #[test]
    fn two_tokens_are_refused() {
        for query in ["auth=a&auth=b", "auth=a&auth=a", "auth=a&x=1&%61%75th=b", "auth&auth"] {
            assert_eq!(Query::parse(query), Err(QueryError::DuplicateToken), "{query}");
        }
    }
}
