//! From the change log to the edge: a new snapshot for every change, certificates for its names, and what to purge.

use edgeweir_certs::{InternalIssuer, Resolver};
use edgeweir_edge::Edge;
use edgeweir_model::{Change, Fqdn, Snapshot};
use edgeweir_store::{ChangeFeed, Store, StoreError};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Why the state could not be brought to the edge. It serves on with what it has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error("the state cannot be read")]
    Store(#[from] StoreError),
    #[error("certificates cannot be made")]
    Certificates(#[from] edgeweir_certs::Error),
}

/// Follows the change log for one edge.
#[derive(Debug)]
pub(crate) struct Feed {
    store: Store,
    commits: ChangeFeed,
    edge: Arc<Edge>,
    issuer: InternalIssuer,
    resolver: Arc<Resolver>,
    zone: Fqdn,
    /// What the service's own certificate covers.
    zone_names: Vec<String>,
    sequence: u64,
}

impl Feed {
    /// Brings the present state to the edge, which has cached nothing yet.
    pub(crate) async fn start(
        store: Store,
        edge: Arc<Edge>,
        issuer: InternalIssuer,
        resolver: Arc<Resolver>,
        zone: Fqdn,
        regions: &[String],
    ) -> Result<Self, FeedError> {
        store.attach_applier();
        let commits = store.feed().await?;
        let own = [zone.to_string(), format!("*.{zone}")];
        let regional = regions.iter().map(|region| format!("*.media-storage.{region}.{zone}"));
        let mut feed = Self {
            commits,
            edge,
            issuer,
            resolver,
            zone_names: own.into_iter().chain(regional).collect(),
            zone,
            sequence: 0,
            store,
        };
        let snapshot = feed.store.snapshot(&feed.zone).await?;
        feed.apply(&snapshot, Some(&[]))?;
        Ok(feed)
    }

    /// Follows the log until `shutdown`.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        const FIRST_WAIT: Duration = Duration::from_millis(100);
        const LONGEST_WAIT: Duration = Duration::from_secs(5);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.commits.next() => {}
            }
            let mut wait = FIRST_WAIT;
            while let Err(e) = self.follow().await {
                tracing::error!(
                    error = &e as &dyn std::error::Error,
                    "a change does not reach the edge; it serves on with the last state"
                );
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }

    async fn follow(&mut self) -> Result<(), FeedError> {
        let snapshot = self.store.snapshot(&self.zone).await?;
        // Read after the snapshot: a purge that is not in it yet comes early, which harms nothing.
        let changes = self.store.changes_since(self.sequence).await?;
        if changes.is_none() {
            tracing::warn!(since = self.sequence, "the change log has a gap; the cache starts anew");
        }
        let changes: Option<Vec<Change>> = changes.map(|all| all.into_iter().map(|(_, change)| change).collect());
        self.apply(&snapshot, changes.as_deref())
    }

    fn apply(&mut self, snapshot: &Snapshot, changes: Option<&[Change]>) -> Result<(), FeedError> {
        let customers = snapshot
            .sites()
            .map(|site| &site.host)
            .filter(|host| !host.is_within(&self.zone));
        let table = self.issuer.refresh(&self.zone_names, customers.map(Fqdn::as_str))?;
        self.resolver.replace(table);
        self.edge.apply(snapshot, changes);
        self.sequence = snapshot.sequence();
        self.store.mark_applied(self.sequence);
        Ok(())
    }
}
