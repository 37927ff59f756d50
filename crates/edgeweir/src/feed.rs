//! From the change log to the edge: a new snapshot for every change, what to purge, and certificates for its names.

use crate::certificates::{CertificateMetrics, Certificates, CertificatesError};
use edgeweir_cache::Cache;
use edgeweir_certs::Resolver;
use edgeweir_edge::Edge;
use edgeweir_model::{Change, Fqdn, Snapshot, Timestamp};
use edgeweir_store::{ChangeFeed, Store, StoreError};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Why the state could not be brought to the edge. It serves on with what it has.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FeedError {
    #[error("the state cannot be read")]
    Store(#[from] StoreError),
    #[error("certificates cannot be made ready")]
    Certificates(#[from] CertificatesError),
}

/// How often certificates are looked after when nothing changes.
const RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// How long entries of the log are kept, in seconds: an edge that was away for longer starts with an empty cache.
const KEPT_SECONDS: i64 = 7 * 24 * 3600;
/// How often old ones are looked for.
const PRUNING: Duration = Duration::from_secs(3600);

/// Follows the change log for one edge.
#[derive(Debug)]
pub(crate) struct Feed {
    store: Store,
    commits: ChangeFeed,
    edge: Arc<Edge>,
    cache: Arc<Cache>,
    certificates: Certificates,
    metrics: CertificateMetrics,
    resolver: Arc<Resolver>,
    zone: Fqdn,
    renewal: Duration,
    /// The entry up to which nothing that is cached needs to be purged; `None` while nothing is cached.
    sequence: Option<u64>,
}

impl Feed {
    /// Brings the present state to the edge, and what was purged while it was down.
    pub(crate) async fn start(
        store: Store,
        edge: Arc<Edge>,
        cache: Arc<Cache>,
        certificates: Certificates,
        metrics: CertificateMetrics,
        resolver: Arc<Resolver>,
        zone: Fqdn,
    ) -> Result<Self, FeedError> {
        store.attach_applier();
        let commits = store.feed().await?;
        let mut feed = Self {
            commits,
            edge,
            cache,
            certificates,
            metrics,
            resolver,
            zone,
            renewal: RENEWAL,
            sequence: None,
            store,
        };
        feed.sequence = feed.edge.position();
        feed.follow().await?;
        Ok(feed)
    }

    /// Follows the log until `shutdown`, and has it forget what is old meanwhile.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let pruning = prune(self.store.clone(), PRUNING, KEPT_SECONDS);
        tokio::select! {
            () = self.follow_on(shutdown) => {}
            never = pruning => match never {},
        }
    }

    async fn follow_on(mut self, shutdown: CancellationToken) {
        const FIRST_WAIT: Duration = Duration::from_millis(100);
        const LONGEST_WAIT: Duration = Duration::from_secs(5);
        let mut renewal = tokio::time::interval(self.renewal);
        renewal.tick().await;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.commits.next() => {}
                // The state as it is, once more.
                _ = renewal.tick() => {}
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
        // Read after the snapshot: a purge that is not in it yet comes early, and once more with the next one, which
        // harms nothing.
        let changes = missed(&self.store, self.sequence).await?;
        self.apply(&snapshot, changes.as_deref()).await
    }

    /// What closes and purges goes first: it must not wait for certificates, whatever is wrong with them. A change counts
    /// as applied with its certificates, so that a new domain can be reached over TLS once the API has answered; and when
    /// what it purged is written down, which later changes do not wait for: the cache's disk may hang.
    async fn apply(&mut self, snapshot: &Snapshot, changes: Option<&[Change]>) -> Result<(), FeedError> {
        self.edge.apply(snapshot, changes);
        let cache = self.cache.clone();
        let persisted = tokio::spawn(async move { cache.persist().await });
        self.sequence = Some(snapshot.sequence());
        let table = self.certificates.table(&self.store, snapshot).await?;
        self.resolver.replace(table);
        self.metrics.serve(snapshot.certificates());
        let (store, sequence) = (self.store.clone(), snapshot.sequence());
        tokio::spawn(async move {
            if persisted.await.is_ok() {
                store.mark_applied(sequence);
            }
        });
        Ok(())
    }
}

/// Has the log forget entries that are older than `kept` seconds, now and then. A failure costs some room, no more.
async fn prune(store: Store, every: Duration, kept: i64) -> Infallible {
    let mut round = tokio::time::interval(every);
    loop {
        round.tick().await;
        let before = Timestamp(Timestamp::now().0 - kept);
        loop {
            match store.prune_changes(before).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(e) => {
                    tracing::warn!(error = &e as &dyn std::error::Error, "old changes cannot be forgotten");
                    break;
                }
            }
        }
    }
}

/// What came after entry `since`, or nothing where nothing is cached. `None` when nobody knows, and the cache must start
/// anew.
async fn missed(store: &Store, since: Option<u64>) -> Result<Option<Vec<Change>>, StoreError> {
    let Some(since) = since else {
        return Ok(Some(Vec::new()));
    };
    let changes = store.changes_since(since).await?;
    if changes.is_none() {
        tracing::warn!(since, "the change log has a gap; the cache starts anew");
    }
    Ok(changes.map(|all| all.into_iter().map(|(_, change)| change).collect()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::credentials::Credentials;
    use edgeweir_cache::CacheConfig;
    use edgeweir_certs::{CertificateTable, InternalCa, InternalIssuer, Sealer};
    use edgeweir_edge::{HttpMode, Parts, Settings};
    use edgeweir_model::{Arrivals, BucketName, KeyPrefix, Origin, Purge, Purged};
    use edgeweir_origin::{
        Origins, OriginsConfig, Timeouts,
        ingest::{Ingest, IngestConfig},
    };
    use edgeweir_store::NewBucket;
    use std::path::Path;

    fn edge(dir: &Path, resolver: &Arc<Resolver>) -> Arc<Edge> {
        let config = OriginsConfig {
            data_dir: dir.to_owned(),
            allow_private: false,
            timeouts: Timeouts::default(),
        };
        let seal = Arc::new(Credentials(Arc::new(Sealer::new(&[0; 32]))));
        let origins = Origins::new(&config, seal);
        let settings = Settings {
            http_mode: HttpMode::Serve,
            https_port: 443,
            h3: false,
            drain: Duration::ZERO,
            idle: Duration::from_secs(1),
            connections: 1,
        };
        let ingest = Ingest::open(IngestConfig {
            data_dir: dir.to_owned(),
            ..IngestConfig::default()
        });
        let parts = Parts {
            cache: Cache::new(CacheConfig::with_memory(1 << 20)),
            origins: origins.unwrap(),
            resolver: resolver.clone(),
            ingest: ingest.unwrap(),
            arrivals: Arrivals::default(),
        };
        Edge::new(settings, parts)
    }

    async fn start(dir: &Path, edge: &Arc<Edge>, resolver: &Arc<Resolver>, region: &str) -> Result<Feed, FeedError> {
        let store = Store::open("sqlite", dir).await.unwrap();
        let project = store.create_project("p").await.unwrap().project_id;
        let domain = edgeweir_store::NewDomain::Live;
        store
            .create_domain(project, "live.example.com".parse().unwrap(), domain, 1)
            .await
            .unwrap();
        let issuer = InternalIssuer::new(InternalCa::open(dir).unwrap());
        let zone: Fqdn = "cdn.example.net".parse().unwrap();
        let sealer = Arc::new(Sealer::new(&[0; 32]));
        let certificates = Certificates::new(issuer, sealer, zone.clone(), &[region.to_owned()], true);
        let metrics = CertificateMetrics::default();
        let cache = Cache::new(CacheConfig::with_memory(1 << 20));
        let (edge, resolver) = (edge.clone(), resolver.clone());
        Feed::start(store, edge, cache, certificates, metrics, resolver, zone).await
    }

    #[tokio::test]
    async fn certificates_are_looked_after_when_nothing_changes() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = Resolver::new();
        let edge = edge(dir.path(), &resolver);
        let mut feed = start(dir.path(), &edge, &resolver, "local").await.unwrap();
        let covered = || resolver.covers("live.example.com", "live.example.com");
        assert!(covered());
        resolver.replace(CertificateTable::default());
        assert!(!covered());
        feed.renewal = Duration::from_millis(1);
        let stop = CancellationToken::new();
        let running = tokio::spawn(feed.run(stop.clone()));
        while !covered() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn old_changes_are_forgotten_while_the_server_runs_and_a_failure_is_none_of_the_servers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite", dir.path()).await.unwrap();
        store.create_project("p").await.unwrap();
        let every = Duration::from_millis(1);
        // None is that old; all are.
        let whole = prune(store.clone(), every, 1000);
        assert!(tokio::time::timeout(20 * every, whole).await.is_err());
        assert!(store.changes_since(0).await.unwrap().is_some());
        let pruning = tokio::spawn(prune(store.clone(), every, -1000));
        while store.changes_since(0).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
        store.close().await;
        tokio::time::sleep(20 * every).await;
        assert!(!pruning.is_finished());
        pruning.abort();
    }

    #[tokio::test]
    async fn purges_made_while_the_edge_was_down_are_not_missed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite", dir.path()).await.unwrap();
        let project = store.create_project("p").await.unwrap().project_id;
        let name: BucketName = "videos".parse().unwrap();
        let new = NewBucket {
            name: name.clone(),
            region: "local".to_owned(),
            origin: Origin::Local,
        };
        let bucket = store.create_bucket(project, new).await.unwrap().id;
        // The edge ends here.
        let position = *store.commits().borrow();
        let purge = Purge::soft(Purged::Prefix(KeyPrefix::new("a/").unwrap()));
        store.purge(project, &name, purge.clone()).await.unwrap();
        store.purge_all(project, &name).await.unwrap();
        let all = vec![Change::Purge { bucket, purge }, Change::Rows];
        for (case, position, expected) in [
            ("nothing is cached", None, Some(Vec::new())),
            ("both came after", Some(position), Some(all.clone())),
            ("one came after", Some(position + 1), Some(all[1..].to_vec())),
            ("nothing came after", Some(position + 2), Some(Vec::new())),
            (
                "the cache is of another database, which came farther",
                Some(position + 3),
                None,
            ),
        ] {
            assert_eq!(missed(&store, position).await.unwrap(), expected, "{case}");
        }
    }

    #[tokio::test]
    async fn a_change_reaches_the_edge_when_certificates_cannot_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = Resolver::new();
        let edge = edge(dir.path(), &resolver);
        let failed = start(dir.path(), &edge, &resolver, "no\u{e9}").await;
        assert!(matches!(failed, Err(FeedError::Certificates(_))), "{failed:?}");
        assert!(edge.is_ready());
    }
}
