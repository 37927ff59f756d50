//! The account at the CA: made once, kept sealed in the store, made anew when the CA has lost or revoked it.

use super::Parts;
use edgeweir_certs::{
    Sealer,
    acme::{Acme, AcmeError, Session},
};
use edgeweir_store::{Store, StoreError};
use std::sync::Arc;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

/// Why there is no account to work with.
#[derive(Debug, thiserror::Error)]
pub(super) enum AccountError {
    #[error(transparent)]
    Acme(#[from] AcmeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(super) type Credentials = Arc<Zeroizing<Vec<u8>>>;

/// Keeps the account.
#[derive(Debug)]
pub(super) struct AccountKeeper {
    store: Store,
    acme: Acme,
    sealer: Arc<Sealer>,
    directory: String,
    known: Mutex<Option<Credentials>>,
}

impl AccountKeeper {
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            store: parts.store.clone(),
            acme: parts.acme.clone(),
            sealer: parts.sealer.clone(),
            directory: parts.directory.clone(),
            known: Mutex::default(),
        }
    }

    fn purpose(&self) -> String {
        format!("ACME account at {}", self.directory)
    }

    async fn stored(&self) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let sealed = self.store.acme_account(&self.directory).await?;
        Ok(
            sealed.and_then(|sealed| match self.sealer.open(&self.purpose(), &sealed) {
                Ok(credentials) => Some(credentials),
                Err(e) => {
                    tracing::error!(error = %e, "the ACME account cannot be opened; a new one is made");
                    None
                }
            }),
        )
    }

    async fn make(&self) -> Result<Credentials, AccountError> {
        let made = self.acme.register().await?;
        let sealed = self.sealer.seal(&self.purpose(), &made);
        self.store.set_acme_account(&self.directory, &sealed).await?;
        tracing::info!(directory = self.directory, "an ACME account has been made");
        Ok(Arc::new(made))
    }

    /// The account in use, with its credentials.
    pub(super) async fn session(&self) -> Result<(Session, Credentials), AccountError> {
        let mut known = self.known.lock().await;
        let credentials = match &*known {
            Some(credentials) => credentials.clone(),
            None => {
                let credentials = match self.stored().await? {
                    Some(stored) => Arc::new(stored),
                    None => self.make().await?,
                };
                known.insert(credentials).clone()
            }
        };
        drop(known);
        Ok((self.acme.session(&credentials).await?, credentials))
    }

    /// Takes another account, since the CA does not take this one: the one that another node has made meanwhile, else a
    /// new one.
    pub(super) async fn replace(&self, gone: &Credentials) -> Result<(), AccountError> {
        let mut known = self.known.lock().await;
        if known.as_ref().is_some_and(|now| !Arc::ptr_eq(now, gone)) {
            return Ok(());
        }
        *known = None;
        let stored = self.stored().await?.filter(|stored| **stored != ***gone);
        *known = Some(match stored {
            Some(stored) => Arc::new(stored),
            None => self.make().await?,
        });
        Ok(())
    }
}
