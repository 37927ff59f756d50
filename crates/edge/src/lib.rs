//! The edge: the request path.
//!
//! A request walks through typed phases, one file each: `accept` → `site` → `authorize` → `lookup` → `fetch` →
//! `respond`. Each takes the value of the one before, so that none can be left out. What the edge knows of the
//! service's state is the last [`Snapshot`] it was given; it never asks a store.

mod accept;
mod authorize;
mod body;
mod change;
mod connection;
mod cors;
mod date;
mod fetch;
mod gathered;
mod h1;
mod h2;
mod h3;
mod interim;
mod invalidate;
mod limits;
mod listen;
mod live;
mod lookup;
mod metrics;
mod multiplexed;
mod own;
mod pace;
mod part;
mod refusal;
mod respond;
mod site;
mod stream;
mod upload;
mod walk;

pub use respond::ATTACHED_BYTES;

use arc_swap::ArcSwap;
use authorize::Verifier;
use edgeweir_cache::Cache;
use edgeweir_certs::Resolver;
use edgeweir_model::{Arrivals, Change, Content, Origin, Snapshot};
use edgeweir_origin::{Origins, ingest::Ingest};
use http::HeaderValue;
use listen::Connections;
use live::Live;
use metrics::Metrics;
use rustls::ServerConfig;
use site::Table;
use std::{collections::HashMap, net::UdpSocket, sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// What plain HTTP serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpMode {
    /// Content.
    Serve,
    /// Redirects to HTTPS.
    Redirect,
}

/// How an edge serves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What plain HTTP serves.
    pub http_mode: HttpMode,
    /// The port that redirects lead to.
    pub https_port: u16,
    /// Whether HTTP/3 is served at `https_port`, which answers over TLS then tell.
    pub h3: bool,
    /// How long requests in flight may take once the edge is told to stop.
    pub drain: Duration,
    /// For how long a connection may idle, or its client not read. It is looked at in steps of this, so that up to twice
    /// as long may pass.
    pub idle: Duration,
    /// How many connections may be open at a time; more are closed as they come.
    pub connections: u64,
}

/// An edge.
#[derive(Debug)]
pub struct Edge {
    settings: Settings,
    table: ArcSwap<Table>,
    verifier: Verifier,
    cache: Arc<Cache>,
    origins: Origins,
    resolver: Arc<Resolver>,
    live: Arc<Live>,
    connections: Connections,
    metrics: Metrics,
    /// Where HTTP/3 is served, as answers over TLS tell it (RFC 7838). Static, so that it has no reference count.
    alternative: Option<HeaderValue>,
}

/// Where an edge serves.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Plain HTTP.
    pub http: Option<TcpListener>,
    /// HTTP/1.1 and HTTP/2 over TLS.
    pub https: Option<(TcpListener, Arc<ServerConfig>)>,
    /// HTTP/3, with the certificates of the former: a socket on the same port, so that it is found by `Alt-Svc`.
    pub h3: Option<UdpSocket>,
}

/// What an edge works with.
#[derive(Debug)]
pub struct Parts {
    /// What was fetched.
    pub cache: Arc<Cache>,
    /// Where it is fetched from.
    pub origins: Origins,
    /// The certificates.
    pub resolver: Arc<Resolver>,
    /// What encoders push.
    pub ingest: Ingest,
    /// Where it is noted what arrives of live streams.
    pub arrivals: Arrivals,
}

impl Edge {
    /// An edge that knows no host until it is given a snapshot.
    pub fn new(settings: Settings, parts: Parts) -> Arc<Self> {
        let Parts {
            cache,
            origins,
            resolver,
            ingest,
            arrivals,
        } = parts;
        let metrics = Metrics::default();
        // Once a process.
        let alternative = settings.h3.then(|| {
            let value = format!("h3=\":{}\"; ma={}", settings.https_port, limits::ALTERNATIVE_SECONDS);
            HeaderValue::from_static(value.leak())
        });
        let live = Live::new(ingest, cache.clone(), origins.clone(), arrivals, metrics.live());
        Arc::new(Self {
            settings,
            table: ArcSwap::from_pointee(Table::empty()),
            verifier: Verifier::new(),
            cache,
            origins,
            resolver,
            live,
            connections: Connections::default(),
            metrics,
            alternative,
        })
    }

    /// The change-log entry up to which nothing that is cached needs to be purged; `None` when nothing is cached from before.
    pub fn position(&self) -> Option<u64> {
        self.cache.position()
    }

    /// Takes the state after `changes`: the next request sees it, and nothing that was purged. Without `changes`, which
    /// means that nobody knows what was purged, nothing that is cached is used again.
    pub fn apply(&self, snapshot: &Snapshot, changes: Option<&[Change]>) {
        // A stream that is gone is so for everybody before its host is; one that is new is there before its host.
        self.live.apply(snapshot);
        // Before hosts are known: a cache that outlived its process must not answer first.
        match changes {
            Some(changes) => self.purge(snapshot, changes),
            None => self.cache.purge_everything(),
        }
        self.table
            .store(Arc::new(Table::new(snapshot, self.alternative.as_ref())));
        self.cache.settle(snapshot.sequence());
    }

    fn purge(&self, snapshot: &Snapshot, changes: &[Change]) {
        let mut purges = changes.iter().filter_map(|change| match change {
            Change::Purge { bucket, purge } => Some((bucket, purge)),
            Change::Rows => None,
        });
        let Some(first) = purges.next() else { return };
        // A server that was away may have many of them to make up for.
        let buckets: HashMap<_, _> = snapshot
            .sites()
            .filter_map(|site| match &site.content {
                Content::Bucket(bucket) => Some((bucket.id, bucket)),
                _ => None,
            })
            .collect();
        for (id, purge) in std::iter::once(first).chain(purges) {
            match buckets.get(id) {
                // An upload purges what it replaces; there may be many.
                Some(bucket) if bucket.origin == Origin::Local => {
                    self.cache.purge_in_memory(id.0, bucket.generation, purge);
                }
                // One that is not there may come back, if its row could not be read, and then in a generation of its own.
                bucket => self
                    .cache
                    .purge_by(id.0, bucket.map_or(0, |bucket| bucket.generation), purge),
            }
        }
    }

    /// Whether a snapshot has been applied.
    pub fn is_ready(&self) -> bool {
        !self.table.load().is_empty()
    }

    /// Makes the edge's metrics known to a registry.
    pub fn register_metrics(&self, registry: &mut prometheus_client::registry::Registry) {
        self.metrics.register(registry);
    }

    /// Serves until `shutdown`, then drains.
    pub async fn serve(self: Arc<Self>, listeners: Listeners, shutdown: CancellationToken) {
        let drain = self.settings.drain;
        let stop = CancellationToken::new();
        let live = tokio::spawn(self.live.clone().run(stop.clone()));
        tokio::spawn(self.live.clone().release(shutdown.clone()));
        listen::serve(self, listeners, shutdown, drain).await;
        stop.cancel();
        let _ = live.await;
    }
}
