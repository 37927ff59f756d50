//! Private keys and account credentials at rest: AES-256-GCM (RFC 5116) under a key derived from the node secret by
//! HKDF (RFC 5869). What a sealed text is for is authenticated with it: one cannot be put in another's place.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hkdf::{HKDF_SHA256, KeyType, Salt},
};
use zeroize::Zeroizing;

/// The first byte of everything sealed this way.
const VERSION: u8 = 1;

/// A sealed text cannot be opened: another secret sealed it, or it is damaged, or for something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it was encrypted with another node secret, or is damaged")]
pub struct Unopened;

/// Seals and opens.
pub struct Sealer(RandomizedNonceKey);

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

struct KeyLength;

impl KeyType for KeyLength {
    fn len(&self) -> usize {
        32
    }
}

impl Sealer {
    /// A sealer with the key that comes of a node secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        Salt::new(HKDF_SHA256, b"edgeweir")
            .extract(secret)
            .expand(&[b"certificates at rest"], KeyLength)
            .and_then(|out| out.fill(&mut *key))
            .expect("32 bytes are within HKDF's limit");
        Self(RandomizedNonceKey::new(&AES_256_GCM, &*key).expect("the key has AES-256's length"))
    }

    /// Seals a text for a purpose.
    pub fn seal(&self, purpose: &str, text: &[u8]) -> Vec<u8> {
        let mut body = text.to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(purpose.as_bytes()), &mut body)
            .expect("a text is far below AES-GCM's limit");
        let mut sealed = vec![VERSION];
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        sealed
    }

    /// Opens what was sealed for this purpose.
    pub fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let (version, rest) = sealed.split_first().ok_or(Unopened)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(Unopened)?;
        if *version != VERSION {
            return Err(Unopened);
        }
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Unopened)?;
        let mut text = Zeroizing::new(body.to_vec());
        let length = self
            .0
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut text)
            .map_err(|_| Unopened)?
            .len();
        text.truncate(length);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_for_one_purpose_by_one_secret() {
        let sealer = Sealer::new(&[7; 32]);
        let sealed = sealer.seal("key of a.example", b"secret");
        assert_eq!(
            sealer.open("key of a.example", &sealed).as_deref().map(Vec::as_slice),
            Ok(&b"secret"[..])
        );
        assert_ne!(sealed, sealer.seal("key of a.example", b"secret"));
        assert!(!sealed.windows(6).any(|w| w == b"secret"));
        assert_eq!(sealer.open("key of b.example", &sealed), Err(Unopened));
        assert_eq!(Sealer::new(&[8; 32]).open("key of a.example", &sealed), Err(Unopened));
        for at in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[at] ^= 1;
            assert_eq!(sealer.open("key of a.example", &damaged), Err(Unopened), "{at}");
            assert_eq!(sealer.open("key of a.example", &sealed[..at]), Err(Unopened), "{at}");
        }
    }
}
