//! Session tickets (RFC 8446 §4.6.1, RFC 5077): sealed with a random key that is made anew every 8 hours; tickets of the
//! key before are still taken, older ones are not.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use rustls::{Error, TicketRotator, crypto::GetRandomFailed, server::ProducesTickets};
use std::sync::Arc;
use zeroize::Zeroizing;

/// How long one key seals, in seconds.
const ROTATION: u32 = 8 * 3600;

/// The tickets of a server.
pub(crate) fn ticketer() -> Result<Arc<dyn ProducesTickets>, Error> {
    Ok(Arc::new(TicketRotator::new(ROTATION, || {
        Ok(Box::new(Generation::new().ok_or(GetRandomFailed)?))
    })?))
}

/// One key's tickets.
#[derive(Debug)]
struct Generation(RandomizedNonceKey);

impl Generation {
    fn new() -> Option<Self> {
        let mut key = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(&mut *key).ok()?;
        RandomizedNonceKey::new(&AES_256_GCM, &*key).ok().map(Self)
    }
}

impl ProducesTickets for Generation {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        2 * ROTATION
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let mut body = plain.to_vec();
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut body).ok()?;
        Some([&nonce.as_ref()[..], &body].concat())
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (nonce, body) = ticket.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = body.to_vec();
        let length = self.0.open_in_place(nonce, Aad::empty(), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tickets_open_with_their_own_key_only() {
        let (one, other) = (Generation::new().unwrap(), Generation::new().unwrap());
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(one.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(other.decrypt(&ticket), None);
        for at in 0..ticket.len() {
            assert_eq!(one.decrypt(&ticket[..at]), None);
        }
        assert_eq!(ticketer().unwrap().lifetime(), 2 * ROTATION);
    }
}
