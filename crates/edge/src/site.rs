//! Host to site, path to what is asked for: the second phase of a request (`Accepted` → `Resolved`).
//!
//! The table is made once a snapshot, so that a request finds everything about its site with one look-up.

use crate::{
    accept::Accepted,
    cors::Cors,
    live,
    refusal::{Reason, Refusal},
};
use edgeweir_model::{
    AccessPolicy, Bucket, Content, CorsPolicy, KeyRing, LiveDomain, LiveStream, ObjectKey, Origin, ProjectId,
    PublicKey, SigningKeyId, Snapshot,
};
use http::{HeaderValue, Method};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The name under which a stream is played, whatever its entry is called.
pub(crate) const ENTRY: &str = "playlist.m3u8";

/// A host that the edge answers for, with what its answers need made ready.
#[derive(Debug)]
pub(crate) struct Site {
    /// No other site has it, nor has this one after a change.
    pub(crate) number: u64,
    pub(crate) content: Content,
    pub(crate) cors: Cors,
    pub(crate) project: ProjectId,
    /// Where HTTP/3 is served, for the answers that are made ready.
    pub(crate) alternative: Option<HeaderValue>,
    policy: AccessPolicy,
    keys: KeyRing,
}

/// Every site of a snapshot.
#[derive(Debug)]
pub(crate) struct Table {
    sites: HashMap<Box<str>, Arc<Site>, foldhash::fast::RandomState>,
    /// What CAs are to be answered, by host and token.
    challenges: HashMap<(Box<str>, Box<str>), Box<str>>,
    none_yet: bool,
}

impl Table {
    /// The table before the first snapshot: it knows no host.
    pub(crate) fn empty() -> Self {
        Self {
            sites: HashMap::default(),
            challenges: HashMap::default(),
            none_yet: true,
        }
    }

    pub(crate) fn new(snapshot: &Snapshot, alternative: Option<&HeaderValue>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let sites = snapshot.sites().map(|site| {
            let cors = match &site.content {
                Content::Bucket(bucket) => Cors::new(&bucket.cors),
                // Encoders are no browsers.
                Content::Ingest(_) => Cors::default(),
                // Live streams have no bucket to hold a policy: their players come from anywhere.
                Content::Stream(_) | Content::LiveDomain(_) => {
                    Cors::new(&CorsPolicy::new([("Access-Control-Allow-Origin", "*")]).expect("valid"))
                }
            };
            let ready = Site {
                number: NEXT.fetch_add(1, Ordering::Relaxed),
                content: site.content.clone(),
                cors,
                project: site.project,
                alternative: alternative.cloned(),
                policy: site.policy,
                keys: site.keys.clone(),
            };
            (Box::from(site.host.as_str()), Arc::new(ready))
        });
        let challenges = snapshot.challenges().iter().map(|c| {
            let key = (Box::from(c.host.as_str()), c.token.clone());
            (key, c.key_authorization.clone())
        });
        Self {
            sites: sites.collect(),
            challenges: challenges.collect(),
            none_yet: false,
        }
    }

    /// Whether no snapshot has been applied.
    pub(crate) fn is_empty(&self) -> bool {
        self.none_yet
    }

    pub(crate) fn get(&self, host: &str) -> Option<&Arc<Site>> {
        self.sites.get(host)
    }

    /// The answer to a CA that asks `host` for this path (RFC 8555 §8.3): for a host of ours, or one that is to become it.
    pub(crate) fn challenge(&self, host: &str, path: &str) -> Option<&str> {
        let token = path.strip_prefix("/.well-known/acme-challenge/")?;
        let answer = self.challenges.get(&(Box::from(host), Box::from(token)))?;
        Some(answer)
    }
}

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Target {
    /// An object of a bucket.
    Object(Arc<Bucket>, ObjectKey),
    /// Something of a live stream.
    Live(Arc<LiveStream>, LivePath),
}

/// What of a live stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LivePath {
    /// Its entry, at a place from which its folder is at `prefix`.
    Entry { prefix: Box<str> },
    /// A file in its folder.
    File(ObjectKey),
}

/// A request whose site and target are known, and whose method is one that the target takes.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) request: Accepted,
    pub(crate) site: Arc<Site>,
    pub(crate) target: Target,
}

impl Resolved {
    /// Finds the site and the target.
    pub(crate) fn new(request: Accepted, site: Arc<Site>) -> Result<Self, Refusal> {
        let target = match &site.content {
            Content::Bucket(bucket) => ObjectKey::from_path(request.path())
                .map(|key| Target::Object(bucket.clone(), key))
                .map_err(Reason::BadPath),
            Content::Stream(stream) => match request.path().strip_prefix("/qhls/qlive") {
                Some(file) => live_file(stream, file),
                None => Err(Reason::NotFound),
            },
            Content::LiveDomain(domain) => live_target(domain, request.path()),
            Content::Ingest(_) => Err(Reason::NotFound),
        };
        let target = target.map_err(|reason| Refusal::at(reason, &site))?;
        let allowed = match &target {
            Target::Object(bucket, _) => method_allowed(&bucket.origin, &request.method),
            Target::Live(..) => is_read(&request.method),
        };
        if !allowed {
            return Err(Refusal::at(Reason::Method(site.allow()), &site));
        }
        Ok(Self { request, site, target })
    }

    /// Whether a signed token is asked for: by the domain, or by what it serves.
    pub(crate) fn needs_token(&self) -> bool {
        let content = match &self.target {
            Target::Object(bucket, _) => bucket.policy,
            Target::Live(stream, _) => stream.policy,
        };
        self.site.policy == AccessPolicy::Authenticated || content == AccessPolicy::Authenticated
    }

    /// A key that opens the target: one of the domain's or one of the bucket's or stream's own.
    pub(crate) fn key(&self, id: SigningKeyId) -> Option<&PublicKey> {
        let own = match &self.target {
            Target::Object(bucket, _) => &bucket.keys,
            Target::Live(stream, _) => &stream.keys,
        };
        own.get(id).or_else(|| self.site.keys.get(id))
    }
}

impl Site {
    /// Whether the origin takes requests with this method.
    pub(crate) fn takes(&self, method: &Method) -> bool {
        matches!(&self.content, Content::Bucket(bucket) if method_allowed(&bucket.origin, method))
    }

    /// The methods that this site takes, as `Allow` lists them.
    pub(crate) fn allow(&self) -> String {
        if matches!(self.content, Content::Ingest(_)) {
            return live::ALLOW.to_owned();
        }
        let mut methods = vec!["GET", "HEAD", "OPTIONS"];
        if let Content::Bucket(bucket) = &self.content
            && let Origin::Http(http) = &bucket.origin
        {
            methods.extend(
                http.methods
                    .iter()
                    .map(|m| &**m)
                    .filter(|m| !["GET", "HEAD", "OPTIONS"].contains(m)),
            );
        }
        methods.join(", ")
    }
}

/// Whether a request with this method is answered from the cache.
pub(crate) fn is_read(method: &Method) -> bool {
    *method == Method::GET || *method == Method::HEAD
}

fn method_allowed(origin: &Origin, method: &Method) -> bool {
    is_read(method)
        || match origin {
            Origin::Local | Origin::S3(_) => false,
            Origin::Http(http) => *method != Method::CONNECT && http.methods.iter().any(|m| **m == *method.as_str()),
        }
}

/// `/<playback_id>.m3u8`, or a file below `/<playback_id>/`.
fn live_target(domain: &LiveDomain, path: &str) -> Result<Target, Reason> {
    let path = path.strip_prefix('/').ok_or(Reason::NotFound)?;
    let (id, file) = match path.find('/') {
        Some(at) => (&path[..at], Some(&path[at..])),
        None => (path.strip_suffix(".m3u8").ok_or(Reason::NotFound)?, None),
    };
    let stream = domain.streams.get(id).ok_or(Reason::NotFound)?;
    match file {
        Some(file) => live_file(stream, file),
        None => Ok(Target::Live(
            stream.clone(),
            LivePath::Entry {
                prefix: format!("{id}/").into(),
            },
        )),
    }
}

/// A file in the stream's folder by its path there, which begins with a slash.
fn live_file(stream: &Arc<LiveStream>, path: &str) -> Result<Target, Reason> {
    if !path.starts_with('/') {
        return Err(Reason::NotFound);
    }
    let key = ObjectKey::from_path(path).map_err(Reason::BadPath)?;
    let path = if key.as_str() == ENTRY {
        LivePath::Entry { prefix: Box::default() }
    } else {
        LivePath::File(key)
    };
    Ok(Target::Live(stream.clone(), path))
}
