//! Signed tokens: JSON Web Tokens (RFC 7519) in compact form (RFC 7515 §7.1), read strictly (RFC 8725).
//!
//! [`parse`] takes a token apart without trusting it; the caller checks the signature over
//! [`SignedToken::signing_input`] with the key that [`SignedToken::key_id`] names, always as RS256; then
//! [`TokenClaims::check`] says whether the claims open what is asked for.

use crate::SigningKeyId;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use std::{collections::HashSet, fmt};

/// The longest token that is looked at, in bytes. One signed with a 4096-bit key has some 900.
pub const MAX_BYTES: usize = 8 * 1024;

/// How far ahead of the edge's clock a signer's clock may be, in seconds: `nbf` is taken this much earlier. `exp` gets
/// no leeway, as it is the moment that the owner of the content has set for the end.
pub const CLOCK_SKEW: f64 = 5.0;

/// Why a token opens nothing. One reason a public code; no reason tells a foreign key from an unknown one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TokenError {
    /// No `auth` parameter.
    #[error("a signed token is needed: add ?auth=<token> to the URL")]
    Missing,
    /// Not a JWT, or one that breaks a rule.
    #[error("the token is not a well-formed JWT with a string claim \"uri\"")]
    Malformed,
    /// `alg` is not RS256.
    #[error("the token's algorithm is not accepted: sign with RS256")]
    Algorithm,
    /// No such key for this resource.
    #[error("the token's key id (kid) is not a signing key of this resource")]
    KeyUnknown,
    /// The signature does not fit.
    #[error("the token's signature is not valid")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` is ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `uri` is not the resource or a prefix of it.
    #[error("the token's uri does not cover this resource")]
    UriMismatch,
}

impl TokenError {
    /// The `error` field of the refusal.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::KeyUnknown => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::UriMismatch => "token_uri_mismatch",
        }
    }
}

/// What a token is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    /// An object: `uri` is a prefix of its key.
    Object(&'a str),
    /// A live stream: `uri` is its playback id.
    Stream(&'a str),
}

/// The claims that the edge acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenClaims {
    /// What the token opens.
    pub uri: Box<str>,
    /// Seconds since 1970 from which it is no longer accepted.
    pub exp: Option<f64>,
    /// Seconds since 1970 before which it is not accepted.
    pub nbf: Option<f64>,
}

impl TokenClaims {
    /// Whether the claims open `resource` at `now` (seconds since 1970).
    pub fn check(&self, resource: Resource<'_>, now: f64) -> Result<(), TokenError> {
        if self.exp.is_some_and(|exp| now >= exp) {
            return Err(TokenError::Expired);
        }
        if self.nbf.is_some_and(|nbf| now + CLOCK_SKEW < nbf) {
            return Err(TokenError::NotYetValid);
        }
        let covered = match resource {
            Resource::Object(key) => key.starts_with(self.uri.strip_prefix('/').unwrap_or(&self.uri)),
            Resource::Stream(playback_id) => *self.uri == *playback_id,
        };
        if covered { Ok(()) } else { Err(TokenError::UriMismatch) }
    }
}

/// A token taken apart; nothing in it is to be believed before the signature is checked.
#[derive(Debug)]
pub struct SignedToken<'a> {
    /// The key that is said to have signed it.
    pub key_id: SigningKeyId,
    /// What was signed: header, dot, payload.
    pub signing_input: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
    /// The claims.
    pub claims: TokenClaims,
}

/// Takes a compact JWS apart. Refuses every algorithm but RS256 before anything else is looked at.
pub fn parse(token: &str) -> Result<SignedToken<'_>, TokenError> {
    const MALFORMED: TokenError = TokenError::Malformed;
    if token.len() > MAX_BYTES {
        return Err(MALFORMED);
    }
    let (signing_input, signature) = token.rsplit_once('.').ok_or(MALFORMED)?;
    let (header, payload) = signing_input.split_once('.').ok_or(MALFORMED)?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED);

    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| MALFORMED)?;
    if header.alg != "RS256" {
        return Err(TokenError::Algorithm);
    }
    // RFC 7515 §4.1.11: an extension that is not understood makes the token invalid. None is understood here.
    if header.crit {
        return Err(MALFORMED);
    }
    // Checked to be a UUID before any look-up; what is none cannot be a key's id.
    let key_id = header
        .kid
        .and_then(|kid| kid.parse().ok())
        .ok_or(TokenError::KeyUnknown)?;
    let claims: TokenClaims = serde_json::from_slice(&decode(payload)?).map_err(|_| MALFORMED)?;
    Ok(SignedToken {
        key_id,
        signing_input: signing_input.as_bytes(),
        signature: decode(signature)?,
        claims,
    })
}

struct Header {
    alg: String,
    kid: Option<String>,
    crit: bool,
}

/// Reads a JSON object, handing each member to `member`; a name that comes twice is an error (RFC 7519 §4).
fn read_object<'de, A: MapAccess<'de>>(
    mut map: A,
    mut member: impl FnMut(&str, &mut A) -> Result<(), A::Error>,
) -> Result<(), A::Error> {
    let mut seen = HashSet::new();
    while let Some(name) = map.next_key::<String>()? {
        member(&name, &mut map)?;
        if !seen.insert(name) {
            return Err(A::Error::custom("duplicate member"));
        }
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JOSE header")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Header, A::Error> {
                let (mut alg, mut kid, mut crit) = (None, None, false);
                read_object(map, |name, map| {
                    match name {
                        "alg" => alg = Some(map.next_value()?),
                        "kid" => kid = Some(map.next_value()?),
                        _ => {
                            crit |= name == "crit";
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                    Ok(())
                })?;
                Ok(Header {
                    alg: alg.ok_or_else(|| A::Error::missing_field("alg"))?,
                    kid,
                    crit,
                })
            }
        }
        d.deserialize_map(Members)
    }
}

impl<'de> Deserialize<'de> for TokenClaims {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = TokenClaims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JWT claims set")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TokenClaims, A::Error> {
                let (mut uri, mut exp, mut nbf) = (None, None, None);
                read_object(map, |name, map| {
                    match name {
                        "uri" => uri = Some(map.next_value::<String>()?.into_boxed_str()),
                        // serde_json refuses a number that does not fit a finite f64.
                        "exp" => exp = Some(map.next_value::<f64>()?),
                        "nbf" => nbf = Some(map.next_value::<f64>()?),
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                    Ok(())
                })?;
                Ok(TokenClaims {
                    uri: uri.ok_or_else(|| A::Error::missing_field("uri"))?,
                    exp,
                    nbf,
                })
            }
        }
        d.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KID: &str = "ec25a6a6-b31e-4ac9-af01-711460421c6b";

    fn token(header: &str, payload: &str) -> String {
        format!(
            "{}.{}.c2ln",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        )
    }

    fn rs256(payload: &str) -> String {
        token(&format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{KID}"}}"#), payload)
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text = rs256(r#"{"uri":"movies/","exp":1700000000.5,"nbf":-1,"viewer":{"id":[1,2]}}"#);
        let parsed = parse(&text).expect("well-formed");
        assert_eq!(parsed.key_id.to_string(), KID);
        assert_eq!(parsed.signature, b"sig");
        assert_eq!(
            parsed.claims,
            TokenClaims {
                uri: "movies/".into(),
                exp: Some(1_700_000_000.5),
                nbf: Some(-1.0)
            }
        );
        assert!(text.as_bytes().starts_with(parsed.signing_input));
    }

    #[test]
    fn headers_that_are_refused() {
        let kid = format!(r#""kid":"{KID}""#);
        let long = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, "a".repeat(1000));
        for (header, why) in [
            (format!(r#"{{"alg":"none",{kid}}}"#), TokenError::Algorithm),
            (format!(r#"{{"alg":"None",{kid}}}"#), TokenError::Algorithm),
            (format!(r#"{{"alg":"HS256",{kid}}}"#), TokenError::Algorithm),
            (format!(r#"{{"alg":"RS512",{kid}}}"#), TokenError::Algorithm),
            (format!(r#"{{"alg":"PS256",{kid}}}"#), TokenError::Algorithm),
            (format!(r#"{{"alg":"rs256",{kid}}}"#), TokenError::Algorithm),
            (format!(r#"{{"alg":["RS256"],{kid}}}"#), TokenError::Malformed),
            (format!(r#"{{"alg":null,{kid}}}"#), TokenError::Malformed),
            (format!("{{{kid}}}"), TokenError::Malformed),
            (
                format!(r#"{{"alg":"RS256","alg":"RS256",{kid}}}"#),
                TokenError::Malformed,
            ),
            (
                format!(r#"{{"alg":"RS256",{kid},"crit":["exp"],"exp":1}}"#),
                TokenError::Malformed,
            ),
            (
                format!(r#"{{"alg":"RS256",{kid},"crit":["b64"],"b64":false}}"#),
                TokenError::Malformed,
            ),
            (r#"{"alg":"RS256"}"#.into(), TokenError::KeyUnknown),
            (
                r#"{"alg":"RS256","kid":"../../etc/passwd"}"#.into(),
                TokenError::KeyUnknown,
            ),
            (r#"{"alg":"RS256","kid":"' OR 1=1; --"}"#.into(), TokenError::KeyUnknown),
            (r#"{"alg":"RS256","kid":"\u0000"}"#.into(), TokenError::KeyUnknown),
            (long, TokenError::KeyUnknown),
            (r#"{"alg":"RS256","kid":7}"#.into(), TokenError::Malformed),
            ("[]".into(), TokenError::Malformed),
            ("{".into(), TokenError::Malformed),
        ] {
            assert_eq!(parse(&token(&header, r#"{"uri":""}"#)).err(), Some(why), "{header}");
        }
        // Keys that the token brings along are never looked at.
        let header = format!(r#"{{"alg":"RS256",{kid},"jwk":{{"kty":"RSA"}},"jku":"http://x/","x5u":"http://x/"}}"#);
        assert_eq!(
            parse(&token(&header, r#"{"uri":""}"#))
                .expect("well-formed")
                .key_id
                .to_string(),
            KID
        );
    }

    #[test]
    fn claims_that_are_refused() {
        for payload in [
            "{}",
            r#"{"uri":null}"#,
            r#"{"uri":["a"]}"#,
            r#"{"uri":7}"#,
            r#"{"uri":"a","uri":"b"}"#,
            r#"{"uri":"a","x":1,"x":2}"#,
            r#"{"uri":"a","exp":"1700000000"}"#,
            r#"{"uri":"a","exp":null}"#,
            r#"{"uri":"a","exp":true}"#,
            r#"{"uri":"a","exp":1e999}"#,
            r#"{"uri":"a","exp":NaN}"#,
            r#"{"uri":"a","nbf":"0"}"#,
            r#"["uri"]"#,
            r#"{"uri":"a"} x"#,
            "",
        ] {
            assert_eq!(parse(&rs256(payload)).err(), Some(TokenError::Malformed), "{payload}");
        }
    }

    #[test]
    fn shapes_that_are_refused() {
        let good = rs256(r#"{"uri":""}"#);
        for bad in [
            String::new(),
            "a".into(),
            "a.b".into(),
            "..".into(),
            format!("{good}.x"),
            format!("{good}="),
            format!("{good}%3D"),
            good.replace('.', "+."),
            format!("{good}{}", "A".repeat(MAX_BYTES)),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_claims_open_and_when() {
        let claims = |uri: &str, exp, nbf| TokenClaims {
            uri: uri.into(),
            exp,
            nbf,
        };
        let object = Resource::Object("movies/intro.mp4");
        for (claims, resource, expected) in [
            (claims("movies/intro.mp4", None, None), object, Ok(())),
            (claims("movies/", None, None), object, Ok(())),
            (claims("/movies/", None, None), object, Ok(())),
            (claims("//movies/", None, None), object, Err(TokenError::UriMismatch)),
            (claims("", None, None), object, Ok(())),
            (claims("/", None, None), object, Ok(())),
            (claims("mov", None, None), object, Ok(())),
            (claims("Movies/", None, None), object, Err(TokenError::UriMismatch)),
            (
                claims("movies/intro.mp4x", None, None),
                object,
                Err(TokenError::UriMismatch),
            ),
            (claims("movies%2F", None, None), object, Err(TokenError::UriMismatch)),
            (claims("video", None, None), Resource::Object("video2"), Ok(())),
            (
                claims("e\u{301}", None, None),
                Resource::Object("é"),
                Err(TokenError::UriMismatch),
            ),
            (claims("abc", None, None), Resource::Stream("abc"), Ok(())),
            (
                claims("ab", None, None),
                Resource::Stream("abc"),
                Err(TokenError::UriMismatch),
            ),
            (
                claims("", None, None),
                Resource::Stream("abc"),
                Err(TokenError::UriMismatch),
            ),
            (
                claims("/abc", None, None),
                Resource::Stream("abc"),
                Err(TokenError::UriMismatch),
            ),
            (claims("", Some(1000.0), None), object, Err(TokenError::Expired)),
            (claims("", Some(1000.5), None), object, Ok(())),
            (claims("", Some(-1.0), None), object, Err(TokenError::Expired)),
            (claims("", Some(f64::MAX), None), object, Ok(())),
            (claims("", None, Some(1000.0 + CLOCK_SKEW)), object, Ok(())),
            (
                claims("", None, Some(1001.0 + CLOCK_SKEW)),
                object,
                Err(TokenError::NotYetValid),
            ),
            (claims("", None, Some(f64::MIN)), object, Ok(())),
        ] {
            assert_eq!(claims.check(resource, 1000.0), expected, "{claims:?} {resource:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[A-Za-z0-9._={}\"-]{0,200}", header in ".{0,60}", payload in ".{0,60}") {
            let _ = parse(&text);
            let _ = parse(&token(&header, &payload));
        }
    }
}
