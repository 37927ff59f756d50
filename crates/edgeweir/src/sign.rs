//! Signed tokens from a private key, offline.

use crate::{cli::SignArgs, tell};
use edgeweir_model::{SigningKeyId, Timestamp};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use std::{io::Read, path::Path};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

/// Why there is no token. Nothing of the key is in the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignError {
    #[error("--key-id must be a signing key's id, a UUID in lower case")]
    KeyId,
    #[error("--key {0}: {1}")]
    File(String, std::io::Error),
    #[error("--key must be an RSA private key in PEM (BEGIN RSA PRIVATE KEY or BEGIN PRIVATE KEY)")]
    Key,
    #[error("--not-before must be Unix seconds, or a time as in 2026-01-31T12:00:00Z")]
    NotBefore,
    #[error("--expires-in is too long")]
    ExpiresIn,
}

impl SignError {
    /// Whether the command line is at fault, and not a file.
    pub(crate) fn is_usage(&self) -> bool {
        matches!(self, Self::KeyId | Self::NotBefore | Self::ExpiresIn)
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    uri: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
}

/// A token (RS256) that opens `uri`, from `nbf` and until `exp` (Unix seconds).
pub(crate) fn token(
    key_id: SigningKeyId,
    private_pem: &[u8],
    uri: &str,
    exp: Option<i64>,
    nbf: Option<i64>,
) -> Result<String, SignError> {
    let key = EncodingKey::from_rsa_pem(private_pem).map_err(|_| SignError::Key)?;
    let mut header = Header::new(Algorithm::RS256);
    header.kid = Some(key_id.to_string());
    jsonwebtoken::encode(&header, &Claims { uri, exp, nbf }, &key).map_err(|_| SignError::Key)
}

pub(crate) fn from_args(args: &SignArgs) -> Result<String, SignError> {
    let key_id = args.key_id.parse().map_err(|_| SignError::KeyId)?;
    let nbf = args.not_before.as_deref().map(moment).transpose()?;
    let exp = match args.expires_in {
        0 => None,
        seconds => Some(
            i64::try_from(seconds)
                .ok()
                .and_then(|s| Timestamp::now().0.checked_add(s))
                .ok_or(SignError::ExpiresIn)?,
        ),
    };
    let private_pem = read(&args.key).map_err(|e| SignError::File(args.key.display().to_string(), e))?;
    if opens_siblings(&args.uri) {
        tell(&format_args!(
            "warning: \"{0}\" is a plain prefix: it opens \"{0}2\" too. End a folder with a slash: \"{0}/\"",
            args.uri
        ));
    }
    token(key_id, &private_pem, &args.uri, exp, nbf)
}

fn read(path: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut content = Zeroizing::new(Vec::new());
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut content)?;
    } else {
        std::fs::File::open(path)?.read_to_end(&mut content)?;
    }
    Ok(content)
}

fn moment(text: &str) -> Result<i64, SignError> {
    text.parse()
        .or_else(|_| OffsetDateTime::parse(text, &Rfc3339).map(OffsetDateTime::unix_timestamp))
        .map_err(|_| SignError::NotBefore)
}

/// Whether a `uri` looks like a folder whose slash was forgotten: neither a file with an extension nor a playback id.
fn opens_siblings(uri: &str) -> bool {
    let last = uri.rsplit('/').next().unwrap_or_default();
    let playback_id = uri.len() >= 22 && uri.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    !last.is_empty() && !last.contains('.') && !playback_id
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_forgotten_slash_is_told_from_files_and_playback_ids() {
        for (uri, warned) in [
            ("", false),
            ("video", true),
            ("a/video", true),
            ("a/video/", false),
            ("a/video.mp4", false),
            ("k3f0c4v1sq2w9e8r7t6y5u4i", false),
        ] {
            assert_eq!(opens_siblings(uri), warned, "{uri:?}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!(moment("1700000000").unwrap(), 1_700_000_000);
        assert_eq!(moment("2023-11-14T22:13:20Z").unwrap(), 1_700_000_000);
        for bad in ["", "tomorrow", "2023-11-14", "1.5"] {
            assert!(moment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_no_rsa_key_is_refused_without_showing_it() {
        for pem in [
            "",
            "SECRET",
            "-----BEGIN EC PRIVATE KEY-----\nU0VDUkVU\n-----END EC PRIVATE KEY-----\n",
        ] {
            let error = token(SigningKeyId::random(), pem.as_bytes(), "", None, None).unwrap_err();
            assert!(matches!(error, SignError::Key) && !error.to_string().contains("SECRET"));
        }
    }
}
