//! The cache itself: look-up, and what is kept. Fetches, purges and slices are in files of their own.

mod fetching;
mod purging;
mod slicing;

pub use purging::Mark;
pub(crate) use {fetching::Outcome, slicing::Begun};

use crate::{
    disk::{DiskConfig, DiskStats, Found, GivenUp, Record},
    entry::{Entry, Freshness, Now},
    fill::{Budget, Fill},
    key::{Key, KeyRef},
    purges::{Purges, Subject, SurrogateKeys, Verdict},
    stored::{Index, Stored},
    tier::{OnDisk, Tier},
};
use foldhash::fast::RandomState;
use http::HeaderMap;
use parking_lot::Mutex;
use std::{collections::HashMap, hash::BuildHasher, ops::Range, sync::Arc, time::Duration};

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
    /// What is kept with each response by those who serve it ([`Entry::attach_with`]), in bytes: part of its memory.
    pub attached_bytes: u64,
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
            attached_bytes: 0,
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
    /// Those that nobody joins any more, and that others have taken the place of.
    superseded: Vec<Arc<Fill>>,
    index: Index,
    /// Changes under way, by path.
    changes: Vec<(Key, Mark)>,
}

impl Shard {
    /// Begins a fetch, in place of one that is not to be joined any more.
    fn begin(&mut self, fill: Arc<Fill>) {
        self.superseded.extend(self.fills.insert(fill.key.clone(), fill));
    }

    /// Nobody joins this fetch any more. Whether another one has taken its place.
    fn end(&mut self, fill: &Arc<Fill>) -> bool {
        let is_current = |current: &Arc<Fill>| Arc::ptr_eq(current, fill);
        if self.fills.get(&fill.key).is_some_and(is_current) {
            self.fills.remove(&fill.key);
        }
        let before = self.superseded.len();
        self.superseded.retain(|other| !is_current(other));
        self.superseded.len() < before
    }
}

/// A shared HTTP cache: in memory, and on disk if it has a tier there.
#[derive(Debug)]
pub struct Cache {
    pub(crate) config: CacheConfig,
    stored: Stored,
    tier: Option<Arc<Tier>>,
    purges: Purges,
    shards: Box<[Mutex<Shard>]>,
    /// What fetches under way hold.
    filling: Arc<Budget>,
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
            stored: Stored::new(&config, shards, tier.clone()),
            tier,
            purges,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            filling: Budget::of((config.memory_bytes / 4).max(MIN_FILLING)),
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
        match on_disk.0.records().await {
            Ok(records) => self.restore(key, request, now, &records),
            Err(GivenUp) => Lookup::Miss,
        }
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
            let is_live = |entry: &Entry| self.is_live(key, entry);
            self.stored
                .restore(&mut shard.index, &key.to_owned(), entries, request, is_live)
        };
        found.map_or(Lookup::Miss, |entry| Lookup::of(entry, now))
    }

    /// What memory has, and no purge took.
    fn find(&self, key: KeyRef<'_>, request: &HeaderMap) -> Option<Arc<Entry>> {
        self.stored.get(key, request, |entry| self.is_live(key, entry))
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
}

#[cfg(test)]
mod tests;
