//! What is stored: responses by key, and the keys whose answers cannot be shared.
//!
//! Looking up is one hash probe and takes no lock that all requests share. Whoever changes something holds the lock
//! of the path's [`Index`], so that a purge, which must find every query of a path, and the end of a fill have an order.

use crate::{
    cache::CacheConfig,
    entry::{Content, Entry},
    held::Held,
    key::{Key, KeyRef},
    range,
    slices::Slices,
    tier::Tier,
};
use foldhash::fast::RandomState;
use http::{HeaderMap, StatusCode};
use quick_cache::{
    Lifecycle, OptionsBuilder, UnitWeighter, Weighter,
    sync::{Cache as Map, DefaultLifecycle},
};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Instant,
};

/// The most `Vary` selections that are kept of one key; the oldest goes first.
const MAX_VARIANTS: usize = 64;

/// The most keys whose parts are found by another range.
const MAX_PARTS: usize = 4096;

/// The most keys that are known not to be sharable.
const MAX_PASSES: usize = 4096;

/// How many objects of the largest size a shard of the map has room for. The map refuses what is larger than a shard.
const OBJECTS_PER_SHARD: u64 = 4;

/// Of how many reads from disk one is taken into memory while that is full.
const TAKEN_ONE_IN: u32 = 8;

/// How many queries an index takes before it is swept for the first time.
const FIRST_SWEEP: usize = 64;

/// What one query takes in an index beside its text, in bytes.
const INDEXED_QUERY: u64 = 64;

/// The variants of one key, by `Vary`.
#[derive(Debug, Default)]
struct Variants(Vec<Arc<Entry>>);

impl Variants {
    /// The one that a request selects; of several, the one that came last (RFC 9111 §4).
    fn find(&self, request: &HeaderMap, is_live: impl Fn(&Entry) -> bool) -> Option<&Arc<Entry>> {
        let last = |selects: fn(&Entry, &HeaderMap) -> bool| {
            let mut newest_first = self.0.iter().rev();
            newest_first.find(|entry| selects(entry, request) && is_live(entry))
        };
        last(Entry::matches).or_else(|| last(Entry::matches_by_language))
    }

    /// With one more, in place of one that it replaces; the oldest goes where they are too many.
    fn with(&self, entry: Arc<Entry>) -> Self {
        let mut kept: Vec<_> = self.0.iter().filter(|old| !old.same_variant(&entry)).cloned().collect();
        if kept.len() >= MAX_VARIANTS {
            kept.remove(0);
        }
        kept.push(entry);
        Self(kept)
    }

    /// Without the oldest, as far as they have no more than `most` bytes together then; the last one stays.
    fn within(mut self, most: u64, weight: impl Fn(&Entry) -> u64) -> Self {
        let mut left = most;
        let fits = |entry: &&Arc<Entry>| {
            let room = left.checked_sub(weight(entry));
            left = room.unwrap_or(0);
            room.is_some()
        };
        let stay = self.0.iter().rev().take_while(fits).count().max(1);
        self.0.drain(..self.0.len().saturating_sub(stay));
        self
    }

    fn without(&self, entry: &Arc<Entry>) -> Self {
        Self(self.0.iter().filter(|old| !Arc::ptr_eq(old, entry)).cloned().collect())
    }
}

#[derive(Debug, Clone)]
struct ByBytes {
    /// Of what is attached to each response.
    attached: u64,
}

impl ByBytes {
    /// What a variant of a key takes.
    fn of(&self, key: KeyRef<'_>, entry: &Entry) -> u64 {
        entry.weight() + if key.is_slice() { 0 } else { self.attached }
    }
}

impl Weighter<Key, Arc<Variants>> for ByBytes {
    fn weight(&self, key: &Key, variants: &Arc<Variants>) -> u64 {
        let entries: u64 = variants.0.iter().map(|entry| self.of(key.borrow(), entry)).sum();
        // A query stands in the index, too, and its path with it.
        let indexed = if key.query.is_empty() {
            0
        } else {
            (key.path.len() + key.query.len()) as u64 + INDEXED_QUERY
        };
        (key.path.len() + key.query.len()) as u64 + indexed + entries
    }
}

/// Leaves to the disk what memory has no room for any more although it was used.
#[derive(Debug, Clone)]
struct ToDisk(Option<Arc<Tier>>);

impl Lifecycle<Key, Arc<Variants>> for ToDisk {
    /// The key that is inserted. What had its place comes here, too, and was replaced or removed.
    type RequestState = Option<Key>;

    fn on_evict_hot(&self, inserted: &mut Self::RequestState, key: Key, variants: Arc<Variants>) {
        if let Some(tier) = self.0.as_ref().filter(|_| inserted.as_ref() != Some(&key)) {
            variants.0.iter().for_each(|entry| tier.take_over(key.borrow(), entry));
        }
    }
}

/// A stored part, which bytes of the whole it holds, and the length of the whole where it is known.
pub(crate) type Part = (Arc<Entry>, Range<u64>, Option<u64>);

/// Which bytes a stored 206 holds: as many as it has from where its `Content-Range` begins, which may be fewer than that
/// says (RFC 9111 §3.3).
fn held(entry: &Entry) -> Option<(Range<u64>, Option<u64>)> {
    let is_part = entry.status() == StatusCode::PARTIAL_CONTENT;
    let (range, length) = range::stated(entry.headers()).filter(|_| is_part)?;
    let end = range.end.min(range.start + entry.content().length());
    Some((range.start..end, length))
}

fn bounded<V: Clone>(items: usize) -> Map<Key, V, UnitWeighter, RandomState> {
    Map::with(
        items,
        items as u64,
        UnitWeighter,
        RandomState::default(),
        DefaultLifecycle::default(),
    )
}

/// The queries of every path of one shard under which something is stored; paths without a query need none.
#[derive(Debug, Default)]
pub(crate) struct Index {
    queries: HashMap<Key, HashSet<Box<str>, RandomState>, RandomState>,
    count: usize,
    /// What is evicted stays in the index until it has this many queries, at least twice what was left last time.
    sweep_at: usize,
}

impl Index {
    fn note(&mut self, key: &Key, stored: &Stored) {
        if key.query.is_empty() {
            return;
        }
        let path = key.borrow().resource();
        let added = match self.queries.get_mut(&path.to_owned()) {
            Some(queries) => queries.insert(key.query.clone()),
            None => {
                let queries = HashSet::from_iter([key.query.clone()]);
                self.queries.insert(path.to_owned(), queries);
                true
            }
        };
        self.count += usize::from(added);
        if self.count > self.sweep_at.max(FIRST_SWEEP) {
            self.sweep(stored);
        }
    }

    fn sweep(&mut self, stored: &Stored) {
        self.count = 0;
        self.queries.retain(|path, queries| {
            queries.retain(|query| stored.holds(path.borrow().with_query(query)));
            self.count += queries.len();
            !queries.is_empty()
        });
        self.sweep_at = self.count * 2;
    }

    fn take(&mut self, path: KeyRef<'_>) -> impl Iterator<Item = Box<str>> + use<> {
        let queries = self.queries.remove(&path.to_owned()).unwrap_or_default();
        self.count -= queries.len();
        queries.into_iter()
    }

    /// How many queries it holds.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

/// Stored responses, and the keys that are known not to be sharable.
#[derive(Debug)]
pub(crate) struct Stored {
    responses: Map<Key, Arc<Variants>, ByBytes, RandomState, ToDisk>,
    /// Until when a key's answers are not shared.
    passes: Map<Key, Instant, UnitWeighter, RandomState>,
    /// Until when a key's object is known to be kept in no slices.
    in_no_slices: Map<Key, Instant, UnitWeighter, RandomState>,
    /// The `Range` that the last stored part of a key was asked for with. A hint: it is not forgotten with the part.
    parts: Map<Key, Arc<str>, UnitWeighter, RandomState>,
    /// Reads from disk while memory was full.
    reads: AtomicU32,
    weight: ByBytes,
    /// The most bytes of one key's variants: most of a shard of the map, which takes nothing that is larger than it is.
    most_of_key: u64,
}

impl Stored {
    /// Room for so many bytes, in `shards` shards, or as many as can each hold a few of the largest objects.
    pub(crate) fn new(config: &CacheConfig, shards: usize, tier: Option<Arc<Tier>>) -> Self {
        let memory_bytes = config.memory_bytes;
        let most = memory_bytes / config.max_object_bytes.saturating_mul(OBJECTS_PER_SHARD).max(1);
        // Rounded down to a power of two, since the map rounds up.
        let shards = 1 << (shards as u64).min(most).max(1).ilog2();
        let options = OptionsBuilder::new()
            .estimated_items_capacity((memory_bytes / (64 << 10)).clamp(128, 1 << 20) as usize)
            .weight_capacity(memory_bytes)
            .shards(shards)
            .build()
            .expect("both capacities are given");
        let weight = ByBytes {
            attached: config.attached_bytes,
        };
        Self {
            responses: Map::with_options(options, weight.clone(), RandomState::default(), ToDisk(tier)),
            passes: bounded(MAX_PASSES),
            in_no_slices: bounded(MAX_PASSES),
            parts: bounded(MAX_PARTS),
            reads: AtomicU32::new(0),
            most_of_key: memory_bytes / shards as u64 / 8 * 7,
            weight,
        }
    }

    /// The part of a key that is known, and what it holds.
    pub(crate) fn part(&self, key: KeyRef<'_>, request: &HeaderMap) -> Option<Part> {
        let asked = self.parts.get(&key)?;
        let entry = self.get(key.part(&asked).borrow(), request, |_| true)?;
        let (range, length) = held(&entry)?;
        Some((entry, range, length))
    }

    /// Notes with which range a part was asked for.
    pub(crate) fn note_part(&self, key: KeyRef<'_>, asked: &str) {
        if self.parts.get(&key).is_none_or(|known| *known != *asked) {
            self.parts.insert(key.to_owned(), asked.into());
        }
    }

    /// The live response for a key and these request fields.
    pub(crate) fn get(
        &self,
        key: KeyRef<'_>,
        request: &HeaderMap,
        is_live: impl Fn(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        self.responses.get(&key)?.find(request, is_live).cloned()
    }

    /// Whether this holds of a response for a key, whatever selects it.
    pub(crate) fn any(&self, key: KeyRef<'_>, holds: impl FnMut(&Arc<Entry>) -> bool) -> bool {
        self.responses
            .get(&key)
            .is_some_and(|variants| variants.0.iter().any(holds))
    }

    /// Whether a key's answers are known not to be sharable.
    pub(crate) fn passes(&self, key: KeyRef<'_>, now: Instant) -> bool {
        self.passes.get(&key).is_some_and(|until| now < until)
    }

    /// Whether a key's object is known to be kept in no slices.
    pub(crate) fn is_in_no_slices(&self, key: KeyRef<'_>, now: Instant) -> bool {
        self.in_no_slices.get(&key).is_some_and(|until| now < until)
    }

    pub(crate) fn note_in_no_slices(&self, key: &Key, until: Instant) {
        self.in_no_slices.insert(key.clone(), until);
    }

    pub(crate) fn insert(&self, index: &mut Index, key: &Key, entry: Arc<Entry>) {
        let variants = match self.responses.get(key) {
            Some(old) => old.with(entry),
            None => Variants(vec![entry]),
        };
        self.put(key, variants);
        index.note(key, self);
    }

    /// Keeps these variants of a key, and no others of it.
    fn put(&self, key: &Key, variants: Variants) {
        let variants = variants.within(self.most_of_key, |entry| self.weight.of(key.borrow(), entry));
        let mut inserted = Some(key.clone());
        self.responses
            .insert_with_lifecycle(key.clone(), Arc::new(variants), &mut inserted);
    }

    /// Whether what is read from disk now is to be taken into memory. Where that means that something else has to go, one
    /// read in a few is: what is read often is taken soon all the same, and what is not costs no more than it is worth.
    pub(crate) fn is_to_take(&self) -> bool {
        let full = self.responses.weight() > self.responses.capacity() / 16 * 15;
        !full || self.reads.fetch_add(1, Ordering::Relaxed).is_multiple_of(TAKEN_ONE_IN)
    }

    /// Adds what was read from disk, unless something else is stored meanwhile, and gives the live one that a request selects.
    pub(crate) fn restore(
        &self,
        index: &mut Index,
        key: &Key,
        entries: Vec<Arc<Entry>>,
        request: &HeaderMap,
        is_live: impl Fn(&Entry) -> bool,
    ) -> Option<Arc<Entry>> {
        let mut variants = Variants::default();
        for entry in entries {
            variants = variants.with(entry);
        }
        // What is in memory came later.
        for entry in self.responses.get(key).iter().flat_map(|stored| &stored.0) {
            variants = variants.with(entry.clone());
        }
        let found = variants.find(request, is_live).cloned();
        if !variants.0.is_empty() {
            self.put(key, variants);
            index.note(key, self);
        }
        found
    }

    /// A slice. It stands in no index: once its object's entry is gone, nothing leads to it.
    pub(crate) fn insert_slice(&self, key: &Key, entry: Entry) {
        self.put(key, Variants(vec![Arc::new(entry)]));
    }

    /// The bytes of a slice.
    pub(crate) fn slice(&self, key: &Key) -> Option<Held> {
        let variants = self.responses.get(key)?;
        match variants.0.first()?.content() {
            Content::Whole(held) => Some(held.clone()),
            Content::Sliced(_) => None,
        }
    }

    /// The entry of a key that is kept in these slices.
    pub(crate) fn sliced(&self, key: &Key, slices: &Slices) -> Option<Arc<Entry>> {
        let variants = self.responses.get(key)?;
        let of = |entry: &&Arc<Entry>| entry.slices().is_some_and(|s| s.id == slices.id);
        variants.0.iter().find(of).cloned()
    }

    /// Forgets one response of a key, if it is still there.
    pub(crate) fn remove(&self, key: &Key, entry: &Arc<Entry>) {
        let Some(old) = self.responses.get(key) else { return };
        let left = old.without(entry);
        if left.0.is_empty() {
            self.responses.remove(key);
        } else if left.0.len() < old.0.len() {
            self.put(key, left);
        }
    }

    pub(crate) fn pass(&self, index: &mut Index, key: &Key, until: Instant) {
        self.passes.insert(key.clone(), until);
        index.note(key, self);
    }

    /// Forgets every query of a path.
    pub(crate) fn purge(&self, index: &mut Index, path: KeyRef<'_>) {
        self.forget(path);
        for query in index.take(path) {
            self.forget(path.with_query(&query));
        }
    }

    fn forget(&self, key: KeyRef<'_>) {
        self.responses.remove(&key);
        self.passes.remove(&key);
        self.in_no_slices.remove(&key);
    }

    fn holds(&self, key: KeyRef<'_>) -> bool {
        self.responses.contains_key(&key) || self.passes.contains_key(&key)
    }

    pub(crate) fn clear(&self) {
        self.responses.clear();
        self.passes.clear();
        self.in_no_slices.clear();
        self.parts.clear();
    }

    /// Keys with stored responses.
    pub(crate) fn len(&self) -> usize {
        self.responses.len()
    }

    /// Bytes that stored responses take.
    pub(crate) fn bytes(&self) -> u64 {
        self.responses.weight()
    }
}
