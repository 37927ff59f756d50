//! What the edge serves from: every site, bucket and key at one point of the change log, in memory, never changed.
//!
//! The store builds a [`Snapshot`] with a [`SnapshotBuilder`]; the edge swaps it in whole. A request that began with one
//! snapshot ends with it.

use crate::{
    AccessPolicy, BucketId, BucketName, CorsPolicy, Fqdn, LiveOrigin, Origin, ProjectId, Purge, SigningKeyId, StreamId,
    StreamKeyHash, Timestamp,
};
use std::{collections::HashMap, fmt, sync::Arc};

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// An RSA public key, PKCS#1 DER (RFC 8017 A.1.1).
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(pub Box<[u8]>);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bytes)", self.0.len())
    }
}

/// The signing keys made for one bucket, domain or stream.
#[derive(Debug, Clone, Default)]
pub struct KeyRing(Map<SigningKeyId, PublicKey>);

impl KeyRing {
    /// A key by its id.
    pub fn get(&self, id: SigningKeyId) -> Option<&PublicKey> {
        self.0.get(&id)
    }

    /// Whether no key has been made, or all are deleted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(SigningKeyId, PublicKey)> for KeyRing {
    fn from_iter<I: IntoIterator<Item = (SigningKeyId, PublicKey)>>(keys: I) -> Self {
        Self(keys.into_iter().collect())
    }
}

/// A bucket as the edge sees it.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Never reused; the first part of a cache key.
    pub id: BucketId,
    /// The bucket's name.
    pub name: BucketName,
    /// The project it belongs to.
    pub project: ProjectId,
    /// One of the configured regions.
    pub region: String,
    /// Goes up with every `purge_all` and whenever cached answers must become unreachable; part of a cache key.
    pub generation: u64,
    /// Where its objects are.
    pub origin: Origin,
    /// Whether a token is asked for.
    pub policy: AccessPolicy,
    /// Its CORS policy; empty when none is set.
    pub cors: CorsPolicy,
    /// The keys that open it.
    pub keys: KeyRing,
}

/// A live stream as the edge sees it.
#[derive(Debug, Clone)]
pub struct LiveStream {
    /// Its id.
    pub id: StreamId,
    /// The project it belongs to.
    pub project: ProjectId,
    /// The public id in URLs and in a token's `uri`: lower-case, fit to be part of a DNS label.
    pub playback_id: Box<str>,
    /// Where it comes from.
    pub origin: LiveOrigin,
    /// Whether a token is asked for.
    pub policy: AccessPolicy,
    /// The keys that open it.
    pub keys: KeyRing,
}

/// The live streams of a project, as a live domain serves them.
#[derive(Debug, Clone, Default)]
pub struct LiveDomain {
    /// By playback id.
    pub streams: Map<Box<str>, Arc<LiveStream>>,
}

/// The host that encoders push to: the streams by the hash of their stream key.
#[derive(Debug, Clone, Default)]
pub struct IngestHost(Map<StreamKeyHash, Arc<LiveStream>>);

impl IngestHost {
    /// The stream that this key opens for pushing.
    pub fn stream(&self, key: StreamKeyHash) -> Option<&Arc<LiveStream>> {
        self.0.get(&key)
    }
}

/// What a host serves.
#[derive(Debug, Clone)]
pub enum Content {
    /// The objects of a bucket.
    Bucket(Arc<Bucket>),
    /// One live stream, on its own host.
    Stream(Arc<LiveStream>),
    /// Every live stream of a project.
    LiveDomain(LiveDomain),
    /// Nothing: it takes what encoders push.
    Ingest(IngestHost),
}

/// A host that the edge answers for.
#[derive(Debug, Clone)]
pub struct Site {
    /// The host's name.
    pub host: Fqdn,
    /// Whose it is.
    pub project: ProjectId,
    /// What it serves.
    pub content: Content,
    /// The domain's own policy; `Public` for the service's own hosts, whose content has a policy itself.
    pub policy: AccessPolicy,
    /// The keys made for the domain; empty for the service's own hosts.
    pub keys: KeyRing,
}

/// An entry of the change log, as far as the edge must act on it beyond taking the new snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Rows changed; the snapshot has it all.
    Rows,
    /// Cached copies are to go, or to be stale.
    Purge {
        /// The bucket.
        bucket: BucketId,
        /// What of it.
        purge: Purge,
    },
}

/// What a CA is to be answered when it looks whether a host is ours (RFC 8555 §8).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// The host.
    pub host: Fqdn,
    /// The challenge's token.
    pub token: Box<str>,
    /// The answer.
    pub key_authorization: Box<str>,
}

/// A certificate by its id: one id is one certificate for ever, so that what was made ready of it can be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRef {
    /// The host that it is for.
    pub host: Fqdn,
    /// Its id.
    pub id: i64,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// Until when.
    pub not_after: Timestamp,
}

/// The state at one point of the change log.
#[derive(Debug, Clone)]
pub struct Snapshot {
    sequence: u64,
    sites: Map<Box<str>, Arc<Site>>,
    challenges: Vec<Challenge>,
    certificates: Vec<CertificateRef>,
    streams: Vec<Arc<LiveStream>>,
}

impl Snapshot {
    /// A snapshot with nothing in it: every host is unknown.
    pub fn empty() -> Self {
        Self {
            sequence: 0,
            sites: Map::default(),
            challenges: Vec::new(),
            certificates: Vec::new(),
            streams: Vec::new(),
        }
    }

    /// The number of the last change-log entry that it holds.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The site of a host: lower-case, without port and trailing dot.
    pub fn site(&self, host: &str) -> Option<&Arc<Site>> {
        self.sites.get(host)
    }

    /// Every site, in no order.
    pub fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.sites.values()
    }

    /// What CAs are to be answered.
    pub fn challenges(&self) -> &[Challenge] {
        &self.challenges
    }

    /// The live streams.
    pub fn streams(&self) -> &[Arc<LiveStream>] {
        &self.streams
    }

    /// The certificates that CAs have issued.
    pub fn certificates(&self) -> &[CertificateRef] {
        &self.certificates
    }
}

/// Builds a [`Snapshot`].
#[derive(Debug)]
pub struct SnapshotBuilder {
    zone: Fqdn,
    snapshot: Snapshot,
}

impl SnapshotBuilder {
    /// An empty snapshot of the service at `zone`, after change-log entry `sequence`.
    pub fn new(zone: Fqdn, sequence: u64) -> Self {
        Self {
            zone,
            snapshot: Snapshot {
                sequence,
                ..Snapshot::empty()
            },
        }
    }

    /// Adds a bucket under its own host, `<bucket>.media-storage.<region>.<zone>`.
    pub fn bucket(&mut self, bucket: &Arc<Bucket>) {
        let host = self
            .zone
            .child(&format!("{}.media-storage.{}", bucket.name, bucket.region));
        self.add(host, bucket.project, Content::Bucket(bucket.clone()));
    }

    /// Adds a live stream under its own host, `play-<playback_id>.<zone>`.
    pub fn stream(&mut self, stream: &Arc<LiveStream>) {
        let host = self.zone.child(&format!("play-{}", stream.playback_id));
        self.add(host, stream.project, Content::Stream(stream.clone()));
        self.snapshot.streams.push(stream.clone());
    }

    /// Adds a customer's domain.
    pub fn domain(&mut self, site: Site) {
        self.snapshot.sites.insert(site.host.as_str().into(), Arc::new(site));
    }

    /// Adds what a CA is to be answered.
    pub fn challenge(&mut self, challenge: Challenge) {
        self.snapshot.challenges.push(challenge);
    }

    /// Adds a certificate that a CA has issued.
    pub fn certificate(&mut self, certificate: CertificateRef) {
        self.snapshot.certificates.push(certificate);
    }

    /// The finished snapshot. `ingest.<zone>` belongs to no project.
    pub fn build(mut self) -> Snapshot {
        let pushed = self.snapshot.streams.iter().filter_map(|stream| match stream.origin {
            LiveOrigin::Ingest(key) => Some((key, stream.clone())),
            LiveOrigin::Pull(_) => None,
        });
        let ingest = IngestHost(pushed.collect());
        self.add(self.zone.child("ingest"), ProjectId(0), Content::Ingest(ingest));
        self.snapshot
    }

    fn add(&mut self, host: Fqdn, project: ProjectId, content: Content) {
        self.domain(Site {
            host,
            project,
            content,
            policy: AccessPolicy::Public,
            keys: KeyRing::default(),
        });
    }
}
