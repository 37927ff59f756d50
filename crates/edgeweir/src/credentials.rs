//! Origins' credentials at rest: sealed with the key that comes of the node secret.

use edgeweir_certs::Sealer;
use edgeweir_model::{Seal, SealedSecret};
use secrecy::{ExposeSecret, SecretString};
use std::sync::Arc;

/// Seals for the API, and opens for the edge.
#[derive(Debug)]
pub(crate) struct Credentials(pub(crate) Arc<Sealer>);

impl Seal for Credentials {
    fn seal(&self, purpose: &str, secret: &SecretString) -> SealedSecret {
        SealedSecret(self.0.seal(purpose, secret.expose_secret().as_bytes()).into())
    }

    fn open(&self, purpose: &str, sealed: &SealedSecret) -> Option<SecretString> {
        let opened = self.0.open(purpose, &sealed.0).ok()?;
        std::str::from_utf8(&opened).ok().map(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_opens_for_its_purpose_alone() {
        let credentials = Credentials(Arc::new(Sealer::new(&[7; 32])));
        let sealed = credentials.seal("a", &"secret".into());
        let opened = |purpose| credentials.open(purpose, &sealed).map(|s| s.expose_secret().to_owned());
        assert_eq!(opened("a").as_deref(), Some("secret"));
        assert_eq!(opened("b"), None);
    }
}
