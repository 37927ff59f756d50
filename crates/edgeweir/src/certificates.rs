//! The certificates of a snapshot, made ready for handshakes: issued ones opened, challenges shown, the internal CA's for
//! the rest. What was made ready is kept by its id, so that a change costs what it changes.

mod metrics;

use edgeweir_certs::{CertificateTable, InternalIssuer, Sealer, issued};
use edgeweir_model::{Fqdn, Snapshot};
use edgeweir_store::{Store, StoreError, StoredCertificate};
pub(crate) use metrics::CertificateMetrics;
use rustls::sign::CertifiedKey;
use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};
use tokio::task::JoinHandle;

/// How many certificates are read at a time, and how many such batches are being opened.
const BATCH: usize = 500;
const BATCHES: usize = 4;

/// What a private key is sealed for.
pub(crate) fn key_purpose(domain: &Fqdn) -> String {
    format!("private key of {domain}")
}

/// Why certificates could not be made ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificatesError {
    #[error("issued certificates cannot be read")]
    Store(#[from] StoreError),
    #[error("certificates cannot be made")]
    Internal(#[from] edgeweir_certs::Error),
}

/// Makes certificates ready.
#[derive(Debug)]
pub(crate) struct Certificates {
    internal: InternalIssuer,
    sealer: Arc<Sealer>,
    zone: Fqdn,
    /// What the service's own certificate covers.
    zone_names: Vec<String>,
    /// Whether the internal CA also signs for customers' domains: where no other CA does.
    for_customers: bool,
    /// By id; `None` for one that cannot be used.
    issued: HashMap<i64, Option<Arc<CertifiedKey>>>,
    /// By host and key authorization.
    challenges: HashMap<(Fqdn, Box<str>), Arc<CertifiedKey>>,
}

impl Certificates {
    /// Nothing is ready yet.
    pub(crate) fn new(
        internal: InternalIssuer,
        sealer: Arc<Sealer>,
        zone: Fqdn,
        regions: &[String],
        for_customers: bool,
    ) -> Self {
        let own = [zone.to_string(), format!("*.{zone}")];
        let regional = regions.iter().map(|region| format!("*.media-storage.{region}.{zone}"));
        Self {
            internal,
            sealer,
            zone_names: own.into_iter().chain(regional).collect(),
            zone,
            for_customers,
            issued: HashMap::new(),
            challenges: HashMap::new(),
        }
    }

    /// The table of a snapshot. A name that neither CA has signed for has no certificate.
    pub(crate) async fn table(
        &mut self,
        store: &Store,
        snapshot: &Snapshot,
    ) -> Result<CertificateTable, CertificatesError> {
        self.read_new(store, snapshot).await?;
        let mut by_host = HashMap::new();
        for reference in snapshot.certificates() {
            if let Some(Some(key)) = self.issued.get(&reference.id) {
                by_host.insert(reference.host.as_str(), key);
            }
        }
        let customers = snapshot
            .sites()
            .map(|site| &site.host)
            .filter(|host| self.for_customers && !host.is_within(&self.zone) && !by_host.contains_key(host.as_str()));
        let mut table = self.internal.refresh(&self.zone_names, customers.map(Fqdn::as_str))?;
        for (host, key) in by_host {
            table.insert([host], key);
        }
        let mut shown = HashMap::new();
        for challenge in snapshot.challenges() {
            let at = (challenge.host.clone(), challenge.key_authorization.clone());
            let key = match self.challenges.remove(&at) {
                Some(key) => key,
                None => issued::challenge(challenge.host.as_str(), &challenge.key_authorization)?,
            };
            table.insert_challenge(challenge.host.as_str(), key.clone());
            shown.insert(at, key);
        }
        self.challenges = shown;
        Ok(table)
    }

    async fn read_new(&mut self, store: &Store, snapshot: &Snapshot) -> Result<(), StoreError> {
        let present: HashSet<i64> = snapshot.certificates().iter().map(|c| c.id).collect();
        self.issued.retain(|id, _| present.contains(id));
        let new: Vec<i64> = present.into_iter().filter(|id| !self.issued.contains_key(id)).collect();
        // At a start all are new: they are opened on every core, while the next are read.
        let mut opening = VecDeque::new();
        for ids in new.chunks(BATCH) {
            let (stored, sealer) = (store.certificates(ids).await?, self.sealer.clone());
            opening.push_back(tokio::task::spawn_blocking(move || {
                let open = |stored: &StoredCertificate| (stored.id, open(&sealer, stored));
                stored.iter().map(open).collect::<Vec<_>>()
            }));
            if opening.len() == BATCHES {
                self.take(opening.pop_front()).await;
            }
        }
        while !opening.is_empty() {
            self.take(opening.pop_front()).await;
        }
        Ok(())
    }

    async fn take(&mut self, opening: Option<JoinHandle<Vec<(i64, Option<Arc<CertifiedKey>>)>>>) {
        if let Some(opening) = opening {
            // One whose batch panicked is tried again with the next change.
            self.issued.extend(opening.await.unwrap_or_default());
        }
    }
}

/// A certificate ready for TLS. One that cannot be used is told once, and is none.
fn open(sealer: &Sealer, stored: &StoredCertificate) -> Option<Arc<CertifiedKey>> {
    let opened = sealer
        .open(&key_purpose(&stored.domain), &stored.private_key)
        .map_err(|e| format!("its private key cannot be opened: {e}"))
        .and_then(|key| issued::certified(&stored.chain, &key).map_err(|e| e.to_string()));
    opened
        .inspect_err(|error| tracing::error!(domain = %stored.domain, error, "an issued certificate cannot be used"))
        .ok()
}
