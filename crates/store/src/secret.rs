//! Random secrets, and the only form they are stored in.
//!
//! They hold 256 random bits, so that a plain SHA-256 cannot be searched; a slow password hash would add nothing.

use crate::StoreError;
use aws_lc_rs::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use zeroize::Zeroizing;

fn fill(buf: &mut [u8]) -> Result<(), StoreError> {
    SystemRandom::new()
        .fill(buf)
        .map_err(|e| StoreError::Internal(e.into()))
}

/// `prefix` and 43 characters of base64url.
pub(crate) fn random(prefix: &str) -> Result<SecretString, StoreError> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill(&mut *bytes)?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
    Ok(format!("{prefix}{}", *text).into())
}

/// The hash that is stored.
pub(crate) fn hash(secret: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, secret.as_bytes()).as_ref());
    out
}

/// Compares in constant time.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// 24 characters of `a-z0-9`: public, unguessable, fit for a DNS label.
pub(crate) fn playback_id() -> Result<String, StoreError> {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut id = String::with_capacity(24);
    while id.len() < 24 {
        let mut byte = [0];
        fill(&mut byte)?;
        // 252 = 7 * 36: bytes above it would favour the first letters.
        if byte[0] < 252 {
            id.push(char::from(ALPHABET[usize::from(byte[0] % 36)]));
        }
    }
    Ok(id)
}
