//! The cache itself: look-up, collapsed fetch, purge.

use crate::{
    entry::{self, Entry, Freshness, Now, Validators},
    fill::{
        BodyError, FetchError, FetchStatus, Fetched, FetchedResponse, Fill, FillBody, Progress, ResponseHead,
        SharedStream,
    },
    key::{Key, KeyRef},
    policy::{self, Settings},
};
use foldhash::fast::RandomState;
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;
use quick_cache::{
    Weighter,
    sync::{Cache as Map, DefaultLifecycle},
};
use std::{
    collections::HashMap,
    future::{Future, poll_fn},
    hash::BuildHasher,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

/// For how long a key whose answer could not be shared is fetched without collapsing.
const PASS_FOR: Duration = Duration::from_secs(60);

/// The most variants (queries and `Vary` selections together) that are kept of one path; the oldest goes first.
const MAX_VARIANTS: usize = 64;

const FILL_SHARDS: usize = 64;

/// What a cache may hold.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig {
    /// Bytes of memory for stored responses.
    pub memory_bytes: u64,
    /// The largest body that is stored, in bytes. Larger ones pass through.
    pub max_object_bytes: u64,
    /// Freshness where an answer says nothing.
    pub settings: Settings,
}

impl CacheConfig {
    /// A cache of so many bytes, whose largest object is a sixteenth of it, 64 MiB at most.
    pub fn with_memory(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            max_object_bytes: (memory_bytes / 16).min(64 << 20),
            settings: Settings::default(),
        }
    }
}

/// What a look-up finds.
#[derive(Debug)]
pub enum Lookup {
    /// A fresh response.
    Fresh {
        /// The response.
        entry: Arc<Entry>,
        /// For how long it stays fresh.
        ttl: Duration,
    },
    /// One to be served now, and revalidated meanwhile (RFC 5861 §3).
    StaleWhileRevalidate(Arc<Entry>),
    /// One to be revalidated first.
    Stale(Arc<Entry>),
    /// Nothing.
    Miss,
    /// Known not to be sharable: fetch for yourself.
    Pass,
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Paths with stored responses.
    pub entries: u64,
    /// Bytes that stored responses take.
    pub bytes: u64,
}

/// Everything stored of one path.
#[derive(Debug)]
struct Resource {
    variants: Vec<(Box<str>, Arc<Entry>)>,
}

impl Resource {
    fn find(&self, query: &str, request: &HeaderMap) -> Option<&Arc<Entry>> {
        self.variants
            .iter()
            .find(|(q, entry)| **q == *query && entry.matches(request))
            .map(|(_, entry)| entry)
    }

    /// With one more variant, in place of one that it replaces.
    fn with(&self, query: &str, entry: Arc<Entry>) -> Self {
        let kept = self
            .variants
            .iter()
            .filter(|(q, old)| **q != *query || !old.same_variant(&entry))
            .cloned();
        let mut variants: Vec<_> = kept.collect();
        if variants.len() >= MAX_VARIANTS {
            variants.remove(0);
        }
        variants.push((query.into(), entry));
        Self { variants }
    }
}

#[derive(Debug, Clone)]
struct ByBytes;

impl Weighter<Key, Arc<Resource>> for ByBytes {
    fn weight(&self, key: &Key, resource: &Arc<Resource>) -> u64 {
        let variants: u64 = resource.variants.iter().map(|(q, e)| q.len() as u64 + e.weight()).sum();
        key.path.len() as u64 + variants
    }
}

type Fills = HashMap<Key, Arc<Fill>, RandomState>;

/// A shared HTTP cache in memory.
#[derive(Debug)]
pub struct Cache {
    config: CacheConfig,
    stored: Map<Key, Arc<Resource>, ByBytes, RandomState>,
    /// Fetches under way, by the hash of their path. Whoever stores or purges a path holds its shard's lock, so that a
    /// purge and the end of a fill have an order.
    fills: Box<[Mutex<Fills>]>,
    passes: Map<Key, Instant, quick_cache::UnitWeighter, RandomState>,
    hasher: RandomState,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: CacheConfig) -> Arc<Self> {
        let entries = (config.memory_bytes / (64 << 10)).clamp(128, 1 << 20) as usize;
        Arc::new(Self {
            config,
            stored: Map::with(
                entries,
                config.memory_bytes,
                ByBytes,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
            fills: (0..FILL_SHARDS).map(|_| Mutex::default()).collect(),
            passes: Map::with(
                4096,
                4096,
                quick_cache::UnitWeighter,
                RandomState::default(),
                DefaultLifecycle::default(),
            ),
            hasher: RandomState::default(),
        })
    }

    /// What is stored for a GET of `key` with these request fields. Takes no lock that all requests share, does no I/O
    /// and does not allocate.
    pub fn lookup(&self, key: KeyRef<'_>, request: &HeaderMap, now: Now) -> Lookup {
        let resource = self.stored.get(&key.resource());
        let Some(entry) = resource.as_ref().and_then(|r| r.find(key.query, request)) else {
            let pass = self
                .passes
                .get(&key)
                .is_some_and(|since| now.mono.saturating_duration_since(since) < PASS_FOR);
            return if pass { Lookup::Pass } else { Lookup::Miss };
        };
        let entry = entry.clone();
        match entry.freshness(now) {
            Freshness::Fresh { ttl } => Lookup::Fresh { entry, ttl },
            Freshness::StaleWhileRevalidate => Lookup::StaleWhileRevalidate(entry),
            Freshness::Stale => Lookup::Stale(entry),
        }
    }

    /// Fetches what a look-up did not find fresh. Of the callers that ask for one key at a time, one runs `fetch`, in a
    /// task of its own that outlives its caller; the others read from that fetch. When it fails before its first byte,
    /// they share one more. `stale` is revalidated, and stands in where `stale-if-error` lets it.
    pub async fn fetch<F, Fut>(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        request: &HeaderMap,
        stale: Option<Arc<Entry>>,
        fetch: F,
    ) -> Result<Fetched, FetchError>
    where
        F: FnOnce(Option<Validators>) -> Fut + Send,
        Fut: Future<Output = Result<FetchedResponse, FetchError>> + Send + 'static,
    {
        let mut fetch = Some(fetch);
        let mut followed_a_failure = false;
        loop {
            let (fill, leads) = self.join(key, request);
            let mut own = None;
            if leads {
                let fetch = fetch.take().expect("a caller leads once: what it led is final");
                let (send, receive) = oneshot::channel();
                own = Some(receive);
                let response = fetch(stale.as_ref().map(|e| e.validators()));
                let task = Leader {
                    cache: self.clone(),
                    fill: fill.clone(),
                    key: key.to_owned(),
                    stale: stale.clone(),
                };
                tokio::spawn(task.run(response, send));
            }
            let status = if leads {
                FetchStatus::Miss
            } else {
                FetchStatus::Collapsed
            };
            return match fill.head().await {
                Progress::Waiting => unreachable!("the head was waited for"),
                Progress::Entry(entry, status) if leads || entry.matches(request) => Ok(Fetched::Entry(entry, status)),
                Progress::Streaming { head, length } if leads || same_variant(&head, &fill.request, request) => {
                    Ok(Fetched::Stream(SharedStream {
                        head,
                        body: FillBody::new(fill, length),
                        length,
                        status,
                    }))
                }
                Progress::Unshared if leads => match own.expect("a leader listens").await {
                    Ok(response) => Ok(Fetched::Own(response)),
                    Err(_) => Err(Arc::new(BodyError::Broken("the fetch was given up".into()))),
                },
                Progress::Entry(..) | Progress::Streaming { .. } | Progress::Unshared => Ok(Fetched::Pass),
                Progress::Failed(_) if !leads && !followed_a_failure => {
                    followed_a_failure = true;
                    continue;
                }
                Progress::Failed(error) => Err(error),
            };
        }
    }

    /// Forgets a path: every query and variant of it in this generation. Fetches of it under way finish for those who
    /// read them, and are not stored.
    pub fn purge(&self, site: i64, generation: u64, path: &str) {
        let key = KeyRef {
            site,
            generation,
            path,
            query: "",
        };
        let mut fills = self.shard(key).lock();
        fills.retain(|k, fill| {
            let purged = k.borrow().resource() == key;
            if purged {
                fill.doom();
            }
            !purged
        });
        self.stored.remove(&key);
        self.passes.remove(&key);
    }

    /// Forgets everything, as [`Cache::purge`] does it for one path.
    pub fn purge_everything(&self) {
        for shard in &self.fills {
            let mut fills = shard.lock();
            for fill in fills.values() {
                fill.doom();
            }
            fills.clear();
        }
        self.stored.clear();
        self.passes.clear();
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.stored.len() as u64,
            bytes: self.stored.weight(),
        }
    }

    fn shard(&self, key: KeyRef<'_>) -> &Mutex<Fills> {
        let hash = self.hasher.hash_one(key.resource());
        &self.fills[hash as usize % FILL_SHARDS]
    }

    /// The fetch under way for a key, or a new one that the caller is to lead.
    fn join(&self, key: KeyRef<'_>, request: &HeaderMap) -> (Arc<Fill>, bool) {
        let mut fills = self.shard(key).lock();
        let owned = key.to_owned();
        if let Some(fill) = fills.get(&owned) {
            return (fill.clone(), false);
        }
        let fill = Arc::new(Fill::new(request.clone()));
        fills.insert(owned, fill.clone());
        (fill, true)
    }

    /// Ends a fetch: nobody joins it any more, and what it brought is stored unless a purge came first.
    fn leave(&self, key: &Key, fill: &Arc<Fill>, entry: Option<&Arc<Entry>>) {
        let mut fills = self.shard(key.borrow()).lock();
        if fills.get(key).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            fills.remove(key);
        }
        let Some(entry) = entry.filter(|_| !fill.is_doomed()) else {
            return;
        };
        let resource = key.borrow().resource();
        let new = match self.stored.get(&resource) {
            Some(old) => old.with(&key.query, entry.clone()),
            None => Resource {
                variants: vec![(key.query.clone(), entry.clone())],
            },
        };
        self.stored.insert(resource.to_owned(), Arc::new(new));
    }
}

fn same_variant(head: &ResponseHead, leader: &HeaderMap, follower: &HeaderMap) -> bool {
    let names = policy::vary_names(&head.headers).unwrap_or_default();
    names
        .iter()
        .all(|name| policy::vary_value(leader, name) == policy::vary_value(follower, name))
}

/// The task that runs a fetch and feeds its fill.
struct Leader {
    cache: Arc<Cache>,
    fill: Arc<Fill>,
    key: Key,
    stale: Option<Arc<Entry>>,
}

impl Drop for Leader {
    /// However the task ends, nobody joins its fill or waits for it after that.
    fn drop(&mut self) {
        self.cache.leave(&self.key, &self.fill, None);
        self.fill.abandon();
    }
}

impl Leader {
    async fn run(
        self,
        fetch: impl Future<Output = Result<FetchedResponse, FetchError>>,
        own: oneshot::Sender<FetchedResponse>,
    ) {
        let result = fetch.await;
        let now = Now::now();
        let settings = &self.cache.config.settings;
        let failed = match &result {
            Ok(response) => response.head.status.is_server_error(),
            Err(_) => true,
        };
        if let Some(stale) = self.stale.as_ref().filter(|stale| failed && stale.serves_on_error(now)) {
            self.fill.set(Progress::Entry(stale.clone(), FetchStatus::StaleIfError));
            return;
        }
        let mut response = match result {
            Ok(response) => response,
            Err(error) => {
                self.cache.leave(&self.key, &self.fill, None);
                self.fill.set(Progress::Failed(error));
                return;
            }
        };
        entry::strip(&mut response.head.headers);
        if let Some(stale) = self
            .stale
            .as_ref()
            .filter(|_| response.head.status == StatusCode::NOT_MODIFIED)
        {
            let entry = stale.revalidated(&response.head.headers, &self.fill.request, now, settings);
            if let Some(entry) = entry.map(Arc::new) {
                self.cache.leave(&self.key, &self.fill, Some(&entry));
                self.fill.set(Progress::Entry(entry, FetchStatus::Revalidated));
                return;
            }
        }
        let head = &response.head;
        let fits = response
            .length
            .is_none_or(|length| length <= self.cache.config.max_object_bytes);
        if !fits || !policy::storable(&Method::GET, &self.fill.request, head.status, &head.headers) {
            if !self.fill.is_doomed() {
                self.cache.passes.insert(self.key.clone(), now.mono);
            }
            self.cache.leave(&self.key, &self.fill, None);
            // Followers may see this before the leader takes its answer; its caller may be gone, too.
            let _ = own.send(response);
            self.fill.set(Progress::Unshared);
            return;
        }
        let head = Arc::new(response.head);
        self.fill.set(Progress::Streaming {
            head: head.clone(),
            length: response.length,
        });
        let end = self.stream(response.body, response.length).await;
        if end.is_ok() {
            let entry = Entry::new(
                ResponseHead::clone(&head),
                self.fill.whole(),
                &self.fill.request,
                now,
                settings,
            );
            self.cache.leave(&self.key, &self.fill, entry.map(Arc::new).as_ref());
        } else {
            self.cache.leave(&self.key, &self.fill, None);
        }
        self.fill.finish(end);
    }

    /// Feeds the fill until the body's end, and holds the body against its stated length (RFC 9112 §8).
    async fn stream(&self, mut body: crate::fill::BoxBody, length: Option<u64>) -> Result<(), BodyError> {
        // What has no length may be larger than is stored; readers still get it, up to this.
        let limit = self.cache.config.max_object_bytes.saturating_mul(2);
        let mut received = 0;
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            let Ok(chunk) = frame?.into_data() else { continue };
            if chunk.is_empty() {
                continue;
            }
            if length.is_some_and(|length| received + chunk.len() as u64 > length) {
                return Err(BodyError::Broken("the body is longer than its length".into()));
            }
            received = self.fill.push(chunk);
            if received > limit {
                self.cache.passes.insert(self.key.clone(), Instant::now());
                return Err(BodyError::TooLarge);
            }
        }
        match length {
            Some(length) if received < length => Err(BodyError::Short {
                missing: length - received,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
