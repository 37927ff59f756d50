//! Secrets of others that are kept to be used, such as an origin's credentials.
//!
//! The store, the API and the snapshot hold them sealed. What seals and opens them is handed to who needs it by the
//! binary, which alone has the key.

use secrecy::SecretString;
use std::fmt;

/// A secret as it is stored: encrypted, for one purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedSecret(pub Box<[u8]>);

impl fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedSecret")
    }
}

/// What seals secrets and opens them. One that was sealed for a purpose opens for that purpose alone.
pub trait Seal: fmt::Debug + Send + Sync {
    /// Seals a secret.
    fn seal(&self, purpose: &str, secret: &SecretString) -> SealedSecret;

    /// Opens a secret; `None` when another key sealed it, or it is damaged, or for something else.
    fn open(&self, purpose: &str, sealed: &SealedSecret) -> Option<SecretString>;
}
