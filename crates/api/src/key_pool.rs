//! RSA key pairs made ahead: one takes 0.4 to 1.7 s of a core, and a request should not wait for that.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::KeyPair as _,
};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use secrecy::SecretString;
use std::{fmt, sync::Arc};
use tokio::sync::{Mutex, mpsc};
use x509_parser::asn1_rs::{Any, FromDer, Sequence};
use zeroize::Zeroizing;

/// A new key pair.
pub struct KeyPair {
    /// The private half: PKCS#1 (RFC 8017 A.1.2) in PEM.
    pub private_pem: SecretString,
    /// The public half: PKCS#1 (RFC 8017 A.1.1) in DER.
    pub public_der: Vec<u8>,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPair")
    }
}

/// A key pair could not be made.
#[derive(Debug, thiserror::Error)]
#[error("an RSA key pair cannot be made")]
pub(crate) struct KeyError;

/// The pool. Its thread ends when it is dropped.
#[derive(Debug)]
pub struct KeyPool {
    /// `None` when nothing is made ahead.
    pairs: Option<Mutex<mpsc::Receiver<Pooled>>>,
    ready: Arc<Gauge>,
}

/// A pair made ahead, counted until it is taken.
struct Pooled {
    pair: KeyPair,
    _counted: Counted,
}

/// One of the pairs that are ready.
struct Counted(Arc<Gauge>);

impl Counted {
    fn new(ready: &Arc<Gauge>) -> Self {
        ready.inc();
        Self(ready.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl KeyPool {
    /// Starts making `size` pairs in the background, at low priority; 0 makes each when it is asked for.
    pub fn start(size: usize) -> Self {
        let ready = Arc::new(Gauge::default());
        if size == 0 {
            return Self { pairs: None, ready };
        }
        // The one that waits for a place in the channel counts.
        let (sender, receiver) = mpsc::channel(size.saturating_sub(1).max(1));
        let counter = ready.clone();
        let work = move || {
            // On Linux this is the calling thread's own (setpriority(2), "C library/kernel differences").
            let _ = rustix::process::nice(10);
            while let Ok(pair) = generate() {
                let pooled = Pooled {
                    pair,
                    _counted: Counted::new(&counter),
                };
                if sender.blocking_send(pooled).is_err() {
                    return;
                }
            }
            tracing::error!("RSA key pairs cannot be made ahead");
        };
        let started = std::thread::Builder::new().name("rsa-keys".into()).spawn(work);
        Self {
            pairs: started.is_ok().then(|| Mutex::new(receiver)),
            ready,
        }
    }

    /// Makes the pool's metrics known to a registry.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register(
            "edgeweir_key_pool_ready",
            "RSA key pairs made ahead",
            Gauge::clone(&self.ready),
        );
    }

    /// A pair that nobody else gets: at once while the pool has some, else when it is made.
    pub(crate) async fn take(&self) -> Result<KeyPair, KeyError> {
        if let Some(pairs) = &self.pairs {
            let mut pairs = pairs.lock().await;
            if self.ready.get() > 0 {
                tracing::debug!("a signing key's pair comes from the pool");
            } else {
                tracing::debug!("a signing key's pair is waited for");
            }
            if let Some(pooled) = pairs.recv().await {
                return Ok(pooled.pair);
            }
        }
        tokio::task::spawn_blocking(generate).await.map_err(|_| KeyError)?
    }
}

fn generate() -> Result<KeyPair, KeyError> {
    let pair = RsaKeyPair::generate(KeySize::Rsa4096).map_err(|_| KeyError)?;
    let pkcs8 = pair.as_der().map_err(|_| KeyError)?;
    let pem = pem::Pem::new("RSA PRIVATE KEY", pkcs1(pkcs8.as_ref()).ok_or(KeyError)?);
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let private_pem = pem::encode_config(&pem, config).into();
    drop(Zeroizing::new(pem.into_contents()));
    Ok(KeyPair {
        private_pem,
        public_der: pair.public_key().as_ref().to_vec(),
    })
}

/// The RSAPrivateKey in a PrivateKeyInfo (RFC 5208 §5): version, algorithm, and an OCTET STRING that holds it.
fn pkcs1(pkcs8: &[u8]) -> Option<&[u8]> {
    let (_, info) = Sequence::from_der(pkcs8).ok()?;
    let (rest, _version) = Any::from_der(&info.content).ok()?;
    let (rest, _algorithm) = Any::from_der(rest).ok()?;
    let (_, key) = Any::from_der(rest).ok()?;
    let start = key.data.as_ptr().addr() - pkcs8.as_ptr().addr();
    pkcs8.get(start..start + key.data.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey},
    };
    use secrecy::ExposeSecret;

    #[tokio::test]
    async fn a_pair_signs_and_verifies_in_pkcs1() {
        let pair = KeyPool::start(0).take().await.unwrap();
        let text = pair.private_pem.expose_secret();
        assert!(
            text.starts_with("-----BEGIN RSA PRIVATE KEY-----\n") && text.ends_with("-----END RSA PRIVATE KEY-----\n")
        );
        assert_eq!(format!("{pair:?}"), "KeyPair");
        let der = pem::parse(text).unwrap();
        let private = RsaKeyPair::from_der(der.contents()).unwrap();
        assert_eq!(private.public_modulus_len(), 512);
        let mut signature = vec![0; 512];
        private
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"data", &mut signature)
            .unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &pair.public_der);
        assert!(public.verify(b"data", &signature).is_ok());
        assert!(public.verify(b"other", &signature).is_err());
    }

    #[tokio::test]
    async fn the_pool_hands_out_different_pairs_and_its_thread_ends_with_it() {
        let pool = KeyPool::start(1);
        let (a, b) = (pool.take().await.unwrap(), pool.take().await.unwrap());
        assert_ne!(a.public_der, b.public_der);
        let ready = pool.ready.clone();
        drop(pool);
        // The thread has its own part in the counter until it ends.
        while Arc::strong_count(&ready) > 1 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(ready.get(), 0);
    }
}
