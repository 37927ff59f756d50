//! The cache itself: look-up, collapsed fetch, purge.

use crate::{
    entry::{Entry, Freshness, Now, Validators},
    fill::{
        BodyError, FetchError, FetchStatus, Fetched, FetchedResponse, Fill, FillBody, Progress, Reader, ResponseHead,
        SharedStream,
    },
    key::{Key, KeyRef},
    leader::Leader,
    policy::{self, Settings},
    stored::{Index, Stored},
};
use bytes::Bytes;
use edgeweir_model::{Purge, Purged};
use foldhash::fast::RandomState;
use http::{HeaderMap, Method};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    future::Future,
    hash::BuildHasher,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

const SHARDS: usize = 64;

/// What fetches may hold at least, all together, in bytes; else a quarter of the memory for stored responses.
const MIN_FILLING: u64 = 64 << 20;

/// What a cache may hold.
#[derive(Debug, Clone, Copy)]
pub struct CacheConfig {
    /// Bytes of memory for stored responses.
    pub memory_bytes: u64,
    /// The largest body that is stored, in bytes. Larger ones pass through.
    pub max_object_bytes: u64,
}

impl CacheConfig {
    /// A cache of so many bytes, whose largest object is a sixteenth of it, 64 MiB at most.
    pub fn with_memory(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            max_object_bytes: (memory_bytes / 16).min(64 << 20),
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
    /// Keys with stored responses.
    pub entries: u64,
    /// Bytes that stored responses take.
    pub bytes: u64,
}

type Fills = HashMap<Key, Arc<Fill>, RandomState>;

/// What happens to the paths of one hash. Whoever stores or purges one of them holds its lock, so that a purge and the
/// end of a fill have an order.
#[derive(Debug, Default)]
struct Shard {
    /// Fetches under way.
    fills: Fills,
    index: Index,
    /// Changes under way, by path.
    changes: Vec<(Key, Mark)>,
}

/// A change of an object that is under way: see [`Cache::mark`].
#[derive(Debug, Clone, Default)]
pub struct Mark {
    /// Whether the object was purged since.
    purged: Arc<AtomicBool>,
}

impl Mark {
    fn purge(&self) {
        self.purged.store(true, Ordering::Release);
    }

    /// Whether whoever made the change has ended it.
    fn is_over(&self) -> bool {
        Arc::strong_count(&self.purged) == 1
    }
}

/// What the end of a fetch does to what is stored.
pub(crate) enum Outcome<'a> {
    /// Nothing.
    Nothing,
    /// This is stored.
    Store(&'a Arc<Entry>),
    /// The key's answers are not shared until then, and what was stored is not the object any more.
    Pass {
        until: Instant,
        instead_of: Option<&'a Arc<Entry>>,
    },
}

/// What a request that was not found fresh comes to.
enum Joined {
    /// A fetch of another's.
    Follows(Reader),
    /// A fetch that its caller is to lead.
    Leads(Reader),
    /// What a fetch that just ended has stored.
    Stored(Arc<Entry>),
    /// Fetches hold all they may.
    Full,
}

/// A shared HTTP cache in memory.
#[derive(Debug)]
pub struct Cache {
    pub(crate) config: CacheConfig,
    stored: Stored,
    shards: Box<[Mutex<Shard>]>,
    /// Bytes that all fetches under way hold.
    filling: Arc<AtomicU64>,
    hasher: RandomState,
}

impl Cache {
    /// An empty cache.
    pub fn new(config: CacheConfig) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        Self::with_shards(config, cores * 4)
    }

    fn with_shards(config: CacheConfig, shards: usize) -> Arc<Self> {
        Arc::new(Self {
            config,
            stored: Stored::new(config.memory_bytes, config.max_object_bytes, shards),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            filling: Arc::default(),
            hasher: RandomState::default(),
        })
    }

    /// What is stored for a GET of `key` with these request fields. Takes no lock that all requests share, does no I/O
    /// and does not allocate.
    pub fn lookup(&self, key: KeyRef<'_>, request: &HeaderMap, now: Now) -> Lookup {
        let Some(entry) = self.stored.get(key, request) else {
            return if self.stored.passes(key, now.mono) {
                Lookup::Pass
            } else {
                Lookup::Miss
            };
        };
        match entry.freshness(now) {
            Freshness::Fresh { ttl } => Lookup::Fresh { entry, ttl },
            Freshness::StaleWhileRevalidate => Lookup::StaleWhileRevalidate(entry),
            Freshness::Stale => Lookup::Stale(entry),
        }
    }

    /// A fresh stored part of a response, which bytes of it that holds, and the length of the whole where it is known. A
    /// part is stored by a fetch of [`KeyRef::part`].
    pub fn part(
        &self,
        key: KeyRef<'_>,
        request: &HeaderMap,
        now: Now,
    ) -> Option<(Arc<Entry>, Range<u64>, Option<u64>)> {
        let found = self.stored.part(key, request)?;
        matches!(found.0.freshness(now), Freshness::Fresh { .. }).then_some(found)
    }

    /// Notes that a part was asked for with this `Range`, so that [`Cache::part`] finds it.
    pub fn note_part(&self, key: KeyRef<'_>, asked: &str) {
        self.stored.note_part(key, asked);
    }

    /// Fetches what a look-up did not find fresh. Of the callers that ask for one key at a time, one runs `fetch`, in a
    /// task of its own that outlives its caller; the others read from that fetch. When it fails or breaks before they
    /// have a byte of it, they share one more. `stale` is revalidated, and stands in where `stale-if-error` lets it.
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
            let (reader, leads) = match self.join(key, request) {
                Joined::Follows(reader) => (reader, false),
                Joined::Leads(reader) => (reader, true),
                Joined::Stored(entry) => return Ok(Fetched::Entry(entry, FetchStatus::Collapsed)),
                Joined::Full => return Ok(Fetched::Pass),
            };
            let fill = &reader.fill;
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
            // A follower waits for a first byte, too: until then it can still turn to another fetch.
            let progress = if leads {
                fill.head().await
            } else {
                fill.first_byte().await
            };
            return match progress {
                Progress::Waiting => unreachable!("the head was waited for"),
                Progress::Failed(_) if !leads && !followed_a_failure => {
                    followed_a_failure = true;
                    continue;
                }
                Progress::Failed(error) => Err(error),
                Progress::Entry(entry, status) if leads || entry.matches(request) => Ok(Fetched::Entry(entry, status)),
                Progress::Streaming { head, length } if leads || same_variant(&head, &fill.request, request) => {
                    Ok(Fetched::Stream(SharedStream {
                        head,
                        body: FillBody::new(reader, length),
                        length,
                        status,
                    }))
                }
                Progress::Unshared if leads => match own.expect("a leader listens").await {
                    Ok(response) => Ok(Fetched::Own(response)),
                    Err(_) => Err(Arc::new(BodyError::Broken("the fetch was given up".into()))),
                },
                Progress::Entry(..) | Progress::Streaming { .. } | Progress::Unshared => Ok(Fetched::Pass),
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
        self.purge_in(&mut self.shard(key).lock(), key);
    }

    fn purge_in(&self, shard: &mut Shard, path: KeyRef<'_>) {
        shard.changes.retain(|(changing, mark)| {
            let purged = changing.borrow() == path;
            if purged {
                mark.purge();
            }
            !purged && !mark.is_over()
        });
        shard.fills.retain(|k, fill| {
            let purged = k.borrow().resource() == path;
            if purged {
                fill.doom();
            }
            !purged
        });
        self.stored.purge(&mut shard.index, path);
    }

    /// Notes a change of an object before it is asked for, so that a purge until [`Cache::replace`] is known to it.
    pub fn mark(&self, key: KeyRef<'_>) -> Mark {
        let mark = Mark::default();
        let mut shard = self.shard(key).lock();
        shard.changes.retain(|(_, mark)| !mark.is_over());
        shard.changes.push((key.resource().to_owned(), mark.clone()));
        mark
    }

    /// Purges a path, and stores under one query of it what a request that changed it was answered with, unless somebody
    /// else purged it since `mark` or it may not be stored. `request` holds the fields that choose a variant.
    pub fn replace(
        &self,
        key: KeyRef<'_>,
        mark: &Mark,
        request: &HeaderMap,
        head: ResponseHead,
        body: Bytes,
        settings: &Settings,
    ) {
        let now = Now::now();
        let explicit = policy::is_explicit(&head.headers)
            && policy::storable(&Method::GET, request, head.status, &head.headers, settings);
        let fits = body.len() as u64 <= self.config.max_object_bytes;
        let entry = (explicit && fits)
            .then(|| Entry::new(head, body, request, (now, Duration::ZERO), settings))
            .flatten();
        let mut shard = self.shard(key).lock();
        let purged = mark.purged.load(Ordering::Acquire);
        self.purge_in(&mut shard, key.resource());
        if let Some(entry) = entry.filter(|_| !purged) {
            self.stored.insert(&mut shard.index, &key.to_owned(), Arc::new(entry));
        }
    }

    /// Does what somebody asks for: forgets what it names, or takes it for stale. `generation` is the site's present one.
    pub fn purge_by(&self, site: i64, generation: u64, purge: &Purge) {
        match &purge.what {
            Purged::Object(key) if !purge.soft => self.purge(site, generation, key.as_str()),
            // More than was asked for, until there are rules.
            _ => self.purge_everything(),
        }
    }

    /// The change-log entry up to which everything that outlives this process is purged; `None` when nothing is held from
    /// before.
    pub fn position(&self) -> Option<u64> {
        None
    }

    /// Notes that what the change log purges up to this entry is purged, so that a later process goes on after it.
    pub fn settle(&self, _sequence: u64) {}

    /// Forgets everything, as [`Cache::purge`] does it for one path.
    pub fn purge_everything(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            for fill in shard.fills.values() {
                fill.doom();
            }
            shard.changes.iter().for_each(|(_, mark)| mark.purge());
            *shard = Shard::default();
        }
        self.stored.clear();
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.stored.len() as u64,
            bytes: self.stored.bytes(),
        }
    }

    fn shard(&self, key: KeyRef<'_>) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(key.resource());
        &self.shards[hash as usize % SHARDS]
    }

    /// Whether fetches may hold so many bytes more.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let bound = (self.config.memory_bytes / 4).max(MIN_FILLING);
        self.filling.load(Ordering::Relaxed).saturating_add(bytes) <= bound
    }

    /// Finds the fetch under way for a key, or begins one.
    fn join(&self, key: KeyRef<'_>, request: &HeaderMap) -> Joined {
        let mut shard = self.shard(key).lock();
        let owned = key.to_owned();
        if let Some(fill) = shard.fills.get(&owned) {
            return Joined::Follows(Reader::new(fill.clone()));
        }
        // One may have ended since the caller's look-up; what it came to was stored under this lock.
        let stored = self.stored.get(key, request);
        if let Some(entry) = stored.filter(|e| matches!(e.freshness(Now::now()), Freshness::Fresh { .. })) {
            return Joined::Stored(entry);
        }
        if !self.has_room(0) {
            return Joined::Full;
        }
        let fill = Arc::new(Fill::new(request.clone(), self.filling.clone()));
        shard.fills.insert(owned, fill.clone());
        Joined::Leads(Reader::new(fill))
    }

    /// Ends a fetch: nobody joins it any more, and what it comes to is kept unless a purge came first.
    pub(crate) fn leave(&self, key: &Key, fill: &Arc<Fill>, outcome: Outcome<'_>) {
        let mut shard = self.shard(key.borrow()).lock();
        if shard.fills.get(key).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            shard.fills.remove(key);
        }
        if fill.is_doomed() {
            return;
        }
        match outcome {
            Outcome::Nothing => {}
            Outcome::Store(entry) => self.stored.insert(&mut shard.index, key, entry.clone()),
            Outcome::Pass { until, instead_of } => {
                if let Some(entry) = instead_of {
                    self.stored.remove(key, entry);
                }
                self.stored.pass(&mut shard.index, key, until);
            }
        }
    }
}

fn same_variant(head: &ResponseHead, leader: &HeaderMap, follower: &HeaderMap) -> bool {
    let names = policy::vary_names(&head.headers).unwrap_or_default();
    names
        .iter()
        .all(|name| policy::vary_value(leader, name) == policy::vary_value(follower, name))
}

#[cfg(test)]
mod tests;
