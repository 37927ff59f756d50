//! The cache itself: look-up, collapsed fetch, purge.

use crate::{
    disk::{DiskConfig, DiskStats, Found, Record},
    entry::{Came, Content, Entry, Freshness, Now, Validators},
    fill::{
        BodyError, FetchError, FetchStatus, Fetched, FetchedResponse, Fill, FillBody, Progress, Reader, ResponseHead,
        SharedStream,
    },
    held::Held,
    key::{Key, KeyRef},
    leader::{Leader, PASS_LARGE},
    policy::{self, Settings},
    purges::{Purges, Rule, Scope, Subject, SurrogateKeys, Verdict},
    record,
    slices::{SliceError, Slices},
    span::{Ahead, Span},
    stored::{Index, Stored},
    tier::{OnDisk, Tier},
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
    time::{Duration, Instant, SystemTime},
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
    /// The largest body that is stored whole, in bytes. Larger ones pass through, unless they can be kept in slices.
    pub max_object_bytes: u64,
    /// The size of the slices that larger objects are kept in, in bytes.
    pub slice_bytes: u64,
}

/// The size of slices where nobody chose one, in bytes.
pub const SLICE_BYTES: u64 = 1 << 20;

impl CacheConfig {
    /// A cache of so many bytes, whose largest object is a sixteenth of it, 64 MiB at most.
    pub fn with_memory(memory_bytes: u64) -> Self {
        Self {
            memory_bytes,
            max_object_bytes: (memory_bytes / 16).min(64 << 20),
            slice_bytes: SLICE_BYTES,
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
    /// To be read from disk: see [`Cache::read`].
    OnDisk(OnDisk),
}

impl Lookup {
    fn of(entry: Arc<Entry>, now: Now) -> Self {
        match entry.freshness(now) {
            Freshness::Fresh { ttl } => Self::Fresh { entry, ttl },
            Freshness::StaleWhileRevalidate => Self::StaleWhileRevalidate(entry),
            Freshness::Stale => Self::Stale(entry),
        }
    }
}

/// Figures for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Keys with responses stored in memory.
    pub entries: u64,
    /// Bytes that stored responses take in memory.
    pub bytes: u64,
    /// The disk tier's, if there is one.
    pub disk: Option<DiskStats>,
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

impl Shard {
    /// Nobody joins this fetch any more.
    fn end(&mut self, key: &Key, fill: &Arc<Fill>) {
        if self.fills.get(key).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            self.fills.remove(key);
        }
    }
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
    /// This is stored in place of what it confirms, whose content it has.
    Confirm(&'a Arc<Entry>),
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

/// What a slice is read from.
pub(crate) enum Begun {
    /// Memory.
    Stored(Held),
    /// The disk, which must be waited for: see [`Cache::read_slice`].
    OnDisk(OnDisk, Key),
    /// The fetch of another.
    Follows(Reader),
    /// A fetch that the caller is to run, of this slice and perhaps those that follow it.
    Leads(Span, Ahead),
    /// Fetches hold all they may.
    Full,
}

/// A shared HTTP cache: in memory, and on disk if it has a tier there.
#[derive(Debug)]
pub struct Cache {
    pub(crate) config: CacheConfig,
    stored: Stored,
    tier: Option<Arc<Tier>>,
    purges: Purges,
    shards: Box<[Mutex<Shard>]>,
    /// Bytes that all fetches under way hold.
    filling: Arc<AtomicU64>,
    hasher: RandomState,
}

impl Cache {
    /// An empty cache in memory.
    pub fn new(config: CacheConfig) -> Arc<Self> {
        Self::with_tier(config, None, Purges::new())
    }

    /// A cache that keeps on disk, too, what `disk` has room for, and has what was kept there before. Blocks while it
    /// reads what is there.
    pub fn with_disk(config: CacheConfig, mut disk: DiskConfig) -> std::io::Result<Arc<Self>> {
        // A slice and its head must fit into a file.
        disk.segment_bytes = disk.segment_bytes.max(2 * config.slice_bytes);
        let (tier, purges) = Tier::open(disk)?;
        Ok(Self::with_tier(config, Some(Arc::new(tier)), purges))
    }

    fn with_tier(config: CacheConfig, tier: Option<Arc<Tier>>, purges: Purges) -> Arc<Self> {
        let cores = std::thread::available_parallelism().map_or(4, usize::from);
        Self::with_shards(config, cores * 4, tier, purges)
    }

    fn with_shards(config: CacheConfig, shards: usize, tier: Option<Arc<Tier>>, purges: Purges) -> Arc<Self> {
        Arc::new(Self {
            config,
            stored: Stored::new(config.memory_bytes, config.max_object_bytes, shards, tier.clone()),
            tier,
            purges,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            filling: Arc::default(),
            hasher: RandomState::default(),
        })
    }

    /// What is stored for a GET of `key` with these request fields. Takes no lock that all requests share; what is found in
    /// memory costs no I/O and no allocation.
    pub fn lookup(&self, key: KeyRef<'_>, request: &HeaderMap, now: Now) -> Lookup {
        if let Some(entry) = self.find(key, request) {
            return Lookup::of(entry, now);
        }
        if self.stored.passes(key, now.mono) {
            return Lookup::Pass;
        }
        match self.on_disk(key) {
            Found::Absent => Lookup::Miss,
            Found::Ready(records) => self.restore(key, request, now, &records),
            Found::Wait(wait) => Lookup::OnDisk(OnDisk(wait)),
        }
    }

    /// The same when what is on disk has been waited for.
    pub async fn read(&self, key: KeyRef<'_>, request: &HeaderMap, now: Now, on_disk: OnDisk) -> Lookup {
        let records = on_disk.0.records().await;
        self.restore(key, request, now, &records)
    }

    fn on_disk(&self, key: KeyRef<'_>) -> Found {
        self.tier.as_ref().map_or(Found::Absent, |tier| tier.get(key))
    }

    /// Takes what was read from disk into memory, where there is room or its turn has come.
    fn restore(&self, key: KeyRef<'_>, request: &HeaderMap, now: Now, records: &[Record]) -> Lookup {
        let Some(tier) = &self.tier else { return Lookup::Miss };
        let mut entries = tier.entries(key, records);
        entries.retain(|entry| self.is_live(key, entry));
        let entries: Vec<_> = entries.into_iter().map(Arc::new).collect();
        if let [entry] = &*entries
            && entry.selectors().is_empty()
            && let lookup @ Lookup::Fresh { .. } = Lookup::of(entry.clone(), now)
            && !self.stored.is_to_take()
        {
            return lookup;
        }
        let found = {
            let mut shard = self.shard(key).lock();
            self.stored.restore(&mut shard.index, &key.to_owned(), entries, request)
        };
        match found.filter(|entry| self.is_live(key, entry)) {
            Some(entry) => Lookup::of(entry, now),
            None => Lookup::Miss,
        }
    }

    /// What memory has, and no purge took.
    fn find(&self, key: KeyRef<'_>, request: &HeaderMap) -> Option<Arc<Entry>> {
        let entry = self.stored.get(key, request)?;
        self.is_live(key, &entry).then_some(entry)
    }

    /// Whether no purge took a stored response. One that softened it makes it stale here.
    fn is_live(&self, key: KeyRef<'_>, entry: &Entry) -> bool {
        let purge = self.purges.now();
        if entry.is_checked(purge) {
            return true;
        }
        let keys = SurrogateKeys::of(entry.headers());
        match self.verdict(key, entry.born(), &keys) {
            Verdict::Gone => return false,
            Verdict::Soft { since } => entry.soften(since),
            Verdict::Kept => {}
        }
        entry.check(purge);
        true
    }

    fn verdict(&self, key: KeyRef<'_>, born: u64, keys: &SurrogateKeys) -> Verdict {
        let subject = Subject {
            site: key.site,
            path: key.path,
            keys,
        };
        self.purges.check(born, &subject)
    }

    /// Whether somebody who comes now may read what a fetch brings that began then: no purge since may be of it, whatever
    /// surrogate keys it turns out to have.
    fn is_joinable(&self, key: KeyRef<'_>, born: u64) -> bool {
        born == self.purges.now() || self.verdict(key, born, &SurrogateKeys::any()) == Verdict::Kept
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
        let is_usable = self.is_live(key, &found.0) && matches!(found.0.freshness(now), Freshness::Fresh { .. });
        is_usable.then_some(found)
    }

    /// Whether any response of a key is stored, whatever selects it.
    pub fn has_variants(&self, key: KeyRef<'_>) -> bool {
        self.stored.any(key, |entry| self.is_live(key, entry))
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
        self.fetch_from(key, request, stale, None, fetch).await
    }

    /// The same where `fetch` asks for a slice, which may turn out to be all there is: see [`crate::first_slice`].
    pub async fn fetch_from<F, Fut>(
        self: &Arc<Self>,
        key: KeyRef<'_>,
        request: &HeaderMap,
        stale: Option<Arc<Entry>>,
        asked: Option<Range<u64>>,
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
                Joined::Stored(entry) => {
                    return Ok(Fetched::Entry(entry, FetchStatus::Stored, Ahead::default()));
                }
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
                    asked: asked.clone(),
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
                Progress::Entry(entry, how) if leads || entry.matches(request) => {
                    let how = match how {
                        FetchStatus::Miss => status,
                        FetchStatus::Revalidated if !leads => FetchStatus::Confirmed,
                        how => how,
                    };
                    let ahead = if leads { fill.take_ahead() } else { Ahead::default() };
                    Ok(Fetched::Entry(entry, how, ahead))
                }
                Progress::Streaming {
                    head,
                    length,
                    answered,
                    stored,
                } if leads || same_variant(&head, &fill.request, request) => Ok(Fetched::Stream(SharedStream {
                    head,
                    body: FillBody::new(reader, length),
                    length,
                    status,
                    answered,
                    stored,
                })),
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
        let key = of_path(site, generation, path);
        self.purge_in(&mut self.shard(key).lock(), key);
    }

    /// Purges what is named of a site, whose present generation this is. Costs the same however much is stored.
    pub fn purge_by(&self, site: i64, generation: u64, purge: &Purge) {
        match &purge.what {
            Purged::Object(key) if !purge.soft => self.purge(site, generation, key.as_str()),
            _ => Rule::of(site, purge).for_each(|rule| self.add(&rule)),
        }
    }

    /// The same of a site of which nothing is kept on disk, see [`Settings::memory_only`]: the purge of an object leaves
    /// nothing behind.
    pub fn purge_in_memory(&self, site: i64, generation: u64, purge: &Purge) {
        match &purge.what {
            Purged::Object(key) if !purge.soft => {
                let key = of_path(site, generation, key.as_str());
                self.forget(&mut self.shard(key).lock(), key);
            }
            _ => self.purge_by(site, generation, purge),
        }
    }

    fn add(&self, rule: &Rule<'_>) {
        let record = self.purges.add(rule, SystemTime::now());
        if let Some(tier) = &self.tier {
            tier.note(record);
        }
    }

    /// The change-log entry up to which everything that outlives this process is purged; `None` when nothing is held from
    /// before.
    pub fn position(&self) -> Option<u64> {
        self.purges.position()
    }

    /// Notes that what the change log purges up to this entry is purged, so that a later process goes on after it, and
    /// writes down what was purged. Blocks for a disk's sync.
    pub fn settle(&self, sequence: u64) {
        if let Some(tier) = &self.tier {
            tier.settle(&self.purges, sequence);
        }
    }

    /// Waits until what was purged is written down.
    pub async fn persist(self: &Arc<Self>) {
        if self.tier.as_ref().is_some_and(|tier| tier.is_behind()) {
            let cache = self.clone();
            let flushed = tokio::task::spawn_blocking(move || {
                if let Some(tier) = &cache.tier {
                    tier.flush(&cache.purges);
                }
            });
            if flushed.await.is_err() {
                tracing::error!("purges could not be written down");
            }
        }
    }

    /// Writes what is to be kept on disk, and what was purged; nothing more is kept there after that. Blocks.
    pub fn shutdown(&self) {
        if let Some(tier) = &self.tier {
            tier.shutdown(&self.purges);
        }
    }

    fn purge_in(&self, shard: &mut Shard, path: KeyRef<'_>) {
        if let Some(tier) = &self.tier {
            // Queries and what is read at this moment are out of reach by hash.
            self.add(&Rule {
                site: path.site,
                scope: Scope::Path(path.path),
                soft: false,
            });
            tier.forget(path);
        }
        self.forget(shard, path);
    }

    /// Forgets what memory has of a path, and what is under way to it.
    fn forget(&self, shard: &mut Shard, path: KeyRef<'_>) {
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
        body: &[u8],
        settings: &Settings,
    ) {
        let now = Now::now();
        let explicit = policy::is_explicit(&head.headers)
            && policy::storable(&Method::GET, request, head.status, &head.headers, settings);
        let fits = body.len() as u64 <= self.config.max_object_bytes;
        let mut shard = self.shard(key).lock();
        let purged = mark.purged.load(Ordering::Acquire);
        self.purge_in(&mut shard, key.resource());
        if !explicit || !fits || purged {
            return;
        }
        let came = Came {
            now,
            delay: Duration::ZERO,
            born: self.purges.now(),
        };
        // A copy: what came is a window on a large read buffer.
        let content = Content::Whole(Bytes::copy_from_slice(body).into());
        if let Some(entry) = Entry::new(head, content, request, came, settings) {
            self.store(&mut shard, &key.to_owned(), Arc::new(entry));
        }
    }

    /// Forgets everything, as [`Cache::purge`] does it for one path.
    pub fn purge_everything(&self) {
        let record = self.purges.add_everything();
        if let Some(tier) = &self.tier {
            tier.note(record);
            tier.clear();
        }
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

    /// Keeps a response, in memory and on disk.
    fn store(&self, shard: &mut Shard, key: &Key, entry: Arc<Entry>) {
        if let Some(tier) = &self.tier {
            tier.put(key.borrow(), &entry);
        }
        self.stored.insert(&mut shard.index, key, entry);
    }

    /// The same of one whose content is kept already.
    fn confirm(&self, shard: &mut Shard, key: &Key, entry: Arc<Entry>) {
        if let Some(tier) = &self.tier {
            tier.confirm(key.borrow(), &entry);
        }
        self.stored.insert(&mut shard.index, key, entry);
    }

    /// Forgets a response of a key, if it is still there.
    fn remove(&self, key: &Key, entry: &Arc<Entry>) {
        if let Some(tier) = &self.tier {
            tier.forget_one(key.borrow(), entry);
        }
        self.stored.remove(key, entry);
    }

    /// The size of the slices that large objects are kept in, in bytes.
    pub fn slice_bytes(&self) -> u64 {
        self.config.slice_bytes
    }

    /// Figures for metrics.
    pub fn stats(&self) -> Stats {
        Stats {
            disk: self.tier.as_ref().map(|tier| tier.stats()),
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
        if let Some(fill) = shard.fills.get(&owned).filter(|fill| self.is_joinable(key, fill.born)) {
            return Joined::Follows(Reader::new(fill.clone()));
        }
        // One may have ended since the caller's look-up; what it came to was stored under this lock.
        let stored = self.find(key, request);
        if let Some(entry) = stored.filter(|e| matches!(e.freshness(Now::now()), Freshness::Fresh { .. })) {
            return Joined::Stored(entry);
        }
        if !self.has_room(0) {
            return Joined::Full;
        }
        let fill = Arc::new(Fill::new(request.clone(), self.purges.now(), self.filling.clone()));
        shard.fills.insert(owned, fill.clone());
        Joined::Leads(Reader::new(fill))
    }

    /// Finds a slice, or begins a fetch of it and of those that follow, as far as they are neither stored nor under way;
    /// `most` slices at most.
    pub(crate) fn begin(self: &Arc<Self>, object: &Key, slices: &Arc<Slices>, first: u64, most: u64) -> Begun {
        let first_key = object.borrow().slice(slices.id, first);
        if let Some(bytes) = self.stored.slice(&first_key) {
            return Begun::Stored(bytes);
        }
        match self.on_disk(first_key.borrow()) {
            Found::Absent => {}
            Found::Ready(records) => {
                if let Some(bytes) = self.restore_slice(&first_key, &records) {
                    return Begun::Stored(bytes);
                }
            }
            Found::Wait(wait) => return Begun::OnDisk(OnDisk(wait), first_key),
        }
        let mut shard = self.shard(object.borrow()).lock();
        if let Some(fill) = shard.fills.get(&first_key) {
            return Begun::Follows(Reader::new(fill.clone()));
        }
        // Its fetch may have ended in between.
        if let Some(bytes) = self.stored.slice(&first_key) {
            return Begun::Stored(bytes);
        }
        let room = |count: u64| self.has_room(count * slices.size);
        let Some(most) = [most, 1].into_iter().find(|count| room(*count)) else {
            return Begun::Full;
        };
        let (span, ahead) = self.begin_in(&mut shard, object, slices, first, most);
        Begun::Leads(span, ahead)
    }

    /// Takes a slice that was read from disk into memory.
    fn restore_slice(&self, key: &Key, records: &[Record]) -> Option<Held> {
        let (held, born) = records.iter().find_map(|r| record::slice(key.borrow(), r))?;
        if self.stored.is_to_take() {
            let slice = Entry::of_slice(held.clone(), born, true);
            self.stored.insert_slice(key, slice);
        }
        Some(held)
    }

    /// A slice that must be waited for; `None` if it proves not to be there.
    pub(crate) async fn read_slice(&self, key: &Key, on_disk: OnDisk) -> Option<Held> {
        self.restore_slice(key, &on_disk.0.records().await)
    }

    /// The same for what a response turned out to be, of which it brings this slice and those after it.
    pub(crate) fn begin_with(
        self: &Arc<Self>,
        object: &Key,
        slices: &Arc<Slices>,
        first: u64,
        most: u64,
    ) -> (Span, Ahead) {
        let most = if self.has_room(most * slices.size) { most } else { 1 };
        let mut shard = self.shard(object.borrow()).lock();
        self.begin_in(&mut shard, object, slices, first, most)
    }

    fn begin_in(
        self: &Arc<Self>,
        shard: &mut Shard,
        object: &Key,
        slices: &Arc<Slices>,
        first: u64,
        most: u64,
    ) -> (Span, Ahead) {
        let mut span = Span {
            cache: self.clone(),
            key: object.clone(),
            slices: slices.clone(),
            first,
            fills: [].into(),
        };
        let (mut ahead, born) = (Ahead::default(), self.purges.now());
        for slice in first..slices.count().min(first + most) {
            let key = object.borrow().slice(slices.id, slice);
            if slice > first && (shard.fills.contains_key(&key) || self.holds_slice(&key)) {
                break;
            }
            let fill = Arc::new(Fill::new(HeaderMap::new(), born, self.filling.clone()));
            ahead.0.push_back((slice, Reader::new(fill.clone())));
            span.fills.push_back(fill.clone());
            shard.fills.insert(key, fill);
        }
        (span, ahead)
    }

    /// Whether a slice is stored, in memory or on disk.
    pub(crate) fn holds_slice(&self, key: &Key) -> bool {
        self.stored.slice(key).is_some() || self.tier.as_ref().is_some_and(|tier| tier.holds_slice(key.borrow()))
    }

    /// Ends the fetch of a slice, which is whole.
    pub(crate) fn keep_slice(&self, key: &Key, fill: &Arc<Fill>, persists: bool) {
        let entry = Entry::of_slice(fill.whole(), fill.born, persists);
        let mut shard = self.shard(key.borrow()).lock();
        shard.end(key, fill);
        if !fill.is_doomed() {
            if let Some(tier) = &self.tier {
                tier.put(key.borrow(), &entry);
            }
            self.stored.insert_slice(key, entry);
        }
    }

    /// Ends the fetch of a slice, of which nothing is kept.
    pub(crate) fn drop_slice(&self, key: &Key, fill: &Arc<Fill>) {
        self.shard(key.borrow()).lock().end(key, fill);
    }

    /// The answer to a request for these bytes of an object in slices, if it is one.
    pub(crate) fn checked(
        &self,
        key: &Key,
        slices: &Slices,
        asked: &Range<u64>,
        response: FetchedResponse,
    ) -> Result<FetchedResponse, FetchError> {
        match slices.check(&response, asked) {
            Ok(()) => Ok(response),
            Err(reason) => {
                self.lose(key, slices, reason);
                Err(Arc::new(reason))
            }
        }
    }

    /// Forgets an object whose slices cannot be had any more.
    fn lose(&self, key: &Key, slices: &Slices, reason: SliceError) {
        let mut shard = self.shard(key.borrow()).lock();
        let Some(entry) = self.stored.sliced(key, slices) else {
            return;
        };
        match reason {
            SliceError::Failing => {}
            SliceError::Changed => self.remove(key, &entry),
            SliceError::NoRanges => {
                self.remove(key, &entry);
                self.stored.pass(&mut shard.index, key, Instant::now() + PASS_LARGE);
            }
        }
    }

    /// Ends a fetch: nobody joins it any more, and what it comes to is kept unless a purge came first.
    pub(crate) fn leave(&self, key: &Key, fill: &Arc<Fill>, outcome: Outcome<'_>) {
        let mut shard = self.shard(key.borrow()).lock();
        shard.end(key, fill);
        if fill.is_doomed() {
            return;
        }
        match outcome {
            Outcome::Nothing => {}
            // It was purged meanwhile, and somebody else has fetched what is right now.
            Outcome::Store(entry) | Outcome::Confirm(entry)
                if self
                    .find(key.borrow(), &fill.request)
                    .is_some_and(|stored| stored.born() > entry.born()) => {}
            Outcome::Store(entry) => self.store(&mut shard, key, entry.clone()),
            Outcome::Confirm(entry) => self.confirm(&mut shard, key, entry.clone()),
            Outcome::Pass { until, instead_of } => {
                if let Some(entry) = instead_of {
                    self.remove(key, entry);
                }
                self.stored.pass(&mut shard.index, key, until);
            }
        }
    }
}

fn of_path(site: i64, generation: u64, path: &str) -> KeyRef<'_> {
    KeyRef {
        site,
        generation,
        path,
        query: "",
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
