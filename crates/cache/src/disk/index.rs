//! What is on disk, and what is on its way there, by key: the only thing that a miss looks at.
//!
//! An entry is 24 bytes: it holds 64 bits of the key and 32 of the variant. That is enough to find a record by, since
//! the record itself says whose it is; two keys that fall together cost one of them a miss. Shards have a lock each,
//! held for a look or a change, never for a read.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use hashbrown::HashTable;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::format::{Name, Place, record_bytes};

/// Most records of a key.
pub(crate) const VARIANTS: usize = 8;

const SHARDS: usize = 256;
/// Bits of an entry's length; those above count its reads.
const LEN_BITS: u32 = 28;

/// A record that waits to be written. It is found like one that is on disk.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) name: Name,
    pub(crate) meta: Bytes,
    pub(crate) body: Bytes,
}

impl Queued {
    /// What it takes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        record_bytes(self.meta.len(), self.body.len())
    }
}

/// An entry: what a record is found by, where it lies, and how often it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u64,
    variant: u32,
    segment: u32,
    at: u32,
    /// Length in the lower bits, reads in the upper ones.
    len_reads: u32,
}

impl Entry {
    fn new(name: Name, place: Place) -> Self {
        Self {
            tag: tag(name.key),
            variant: variant(name.variant),
            segment: place.segment,
            at: place.at,
            len_reads: place.len,
        }
    }

    fn place(&self) -> Place {
        Place {
            segment: self.segment,
            at: self.at,
            len: self.len_reads & ((1 << LEN_BITS) - 1),
        }
    }

    fn reads(&self) -> u32 {
        self.len_reads >> LEN_BITS
    }

    fn was_read(&mut self) {
        if self.reads() < (1 << (32 - LEN_BITS)) - 1 {
            self.len_reads += 1 << LEN_BITS;
        }
    }

    fn is(&self, tag: u64, variant: u32) -> bool {
        self.tag == tag && self.variant == variant
    }
}

/// A record that its segment's removal found in use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    tag: u64,
    variant: u32,
    pub(crate) place: Place,
    /// How often it was read since it was written, up to 15.
    pub(crate) reads: u32,
}

/// What is known of a key.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// On disk.
    pub(crate) places: SmallVec<[Place; 2]>,
    /// In the writer's queue.
    pub(crate) queued: SmallVec<[Arc<Queued>; 1]>,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashTable<Entry>,
    /// Records in the queue by tag, oldest first.
    queued: HashMap<u64, SmallVec<[Arc<Queued>; 1]>, foldhash::fast::FixedState>,
}

/// The index.
#[derive(Debug)]
pub(crate) struct Index {
    shards: Box<[Mutex<Shard>]>,
    /// How many records are on disk.
    count: AtomicU64,
}

impl Index {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            count: AtomicU64::new(0),
        }
    }

    /// Makes room for so many entries in all, so that a recovery does not grow tables again and again.
    pub(crate) fn reserve(&self, entries: usize) {
        for shard in &self.shards {
            shard.lock().entries.reserve(entries / SHARDS, |entry| entry.tag);
        }
    }

    /// What is known of `key`; its records count as read.
    pub(crate) fn find(&self, key: u128) -> Known {
        let tag = tag(key);
        let mut shard = self.shard(tag).lock();
        let shard = &mut *shard;
        let mut known = Known::default();
        if let Some(queued) = shard.queued.get(&tag) {
            known
                .queued
                .extend(queued.iter().filter(|queued| queued.name.key == key).cloned());
        }
        for entry in shard.entries.iter_hash_mut(tag).filter(|entry| entry.tag == tag) {
            if known
                .queued
                .iter()
                .all(|queued| variant(queued.name.variant) != entry.variant)
            {
                entry.was_read();
                known.places.push(entry.place());
            }
        }
        known.places.sort_unstable();
        let surplus = (known.places.len() + known.queued.len()).saturating_sub(VARIANTS);
        known.places.drain(..surplus);
        known
    }

    /// Whether a record of that name is on disk or on its way; counts as a read of it.
    pub(crate) fn touch(&self, name: Name) -> bool {
        let (tag, variant) = (tag(name.key), variant(name.variant));
        let mut shard = self.shard(tag).lock();
        let on_disk = shard.entries.find_mut(tag, |entry| entry.is(tag, variant));
        let on_disk = on_disk.map(Entry::was_read).is_some();
        on_disk || shard.is_queued(tag, name)
    }

    /// Whether a record of that name is on disk or on its way.
    pub(crate) fn holds(&self, name: Name) -> bool {
        let (tag, variant) = (tag(name.key), variant(name.variant));
        let shard = self.shard(tag).lock();
        shard.entries.find(tag, |entry| entry.is(tag, variant)).is_some() || shard.is_queued(tag, name)
    }

    /// Makes a record that goes into the queue known, in place of one of its name that is there: that one need not be
    /// written any more.
    pub(crate) fn queue(&self, record: &Arc<Queued>) {
        let tag = tag(record.name.key);
        let mut shard = self.shard(tag).lock();
        let queued = shard.queued.entry(tag).or_default();
        queued.retain(|queued| queued.name != record.name);
        if queued.len() == VARIANTS {
            queued.remove(0);
        }
        queued.push(record.clone());
    }

    /// Whether the record is to be written still.
    pub(crate) fn is_queued(&self, record: &Arc<Queued>) -> bool {
        let tag = tag(record.name.key);
        let shard = self.shard(tag).lock();
        shard
            .queued
            .get(&tag)
            .is_some_and(|queued| queued.iter().any(|queued| Arc::ptr_eq(queued, record)))
    }

    /// The record is on disk at `place` now, which counts unless it was replaced or forgotten in the meantime.
    pub(crate) fn written(&self, record: &Arc<Queued>, place: Place) {
        let tag = tag(record.name.key);
        self.change(self.shard(tag), |shard| {
            if shard.unqueue(tag, record) {
                shard.insert(Entry::new(record.name, place));
            }
        });
    }

    /// The record will not be written.
    pub(crate) fn unqueue(&self, record: &Arc<Queued>) {
        let tag = tag(record.name.key);
        self.shard(tag).lock().unqueue(tag, record);
    }

    /// A record that was found on disk; one of its name that lies further behind counts more.
    pub(crate) fn recover(&self, name: Name, place: Place) {
        let entry = Entry::new(name, place);
        self.change(self.shard(entry.tag), |shard| shard.insert(entry));
    }

    /// The record at `used` was copied to `place`, which counts if it is the current one still.
    pub(crate) fn moved(&self, used: Used, place: Place) {
        let mut shard = self.shard(used.tag).lock();
        let current = shard.entries.find_mut(used.tag, |entry| {
            entry.is(used.tag, used.variant) && entry.place() == used.place
        });
        if let Some(entry) = current {
            (entry.segment, entry.at, entry.len_reads) = (place.segment, place.at, place.len);
        }
    }

    /// Forgets all of a key.
    pub(crate) fn forget(&self, key: u128) {
        let tag = tag(key);
        self.change(self.shard(tag), |shard| {
            shard.queued.remove(&tag);
            while let Ok(entry) = shard.entries.find_entry(tag, |entry| entry.tag == tag) {
                entry.remove();
            }
        });
    }

    /// Forgets the record of that name, also one that waits to be written.
    pub(crate) fn forget_variant(&self, name: Name) {
        let (tag, variant) = (tag(name.key), variant(name.variant));
        self.change(self.shard(tag), |shard| {
            if let Some(queued) = shard.queued.get_mut(&tag) {
                queued.retain(|queued| queued.name != name);
            }
            if let Ok(entry) = shard.entries.find_entry(tag, |entry| entry.is(tag, variant)) {
                entry.remove();
            }
        });
    }

    /// Forgets the record of `key` at `place`.
    pub(crate) fn remove(&self, key: u128, place: Place) {
        let tag = tag(key);
        let is_it = |entry: &Entry| entry.tag == tag && entry.place() == place;
        self.change(self.shard(tag), |shard| {
            if let Ok(entry) = shard.entries.find_entry(tag, is_it) {
                entry.remove();
            }
        });
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            self.change(shard, |shard| *shard = Shard::default());
        }
    }

    /// The records of a segment that are current and were read since they were written.
    pub(crate) fn used(&self, segment: u32) -> Vec<Used> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let used = shard
                .entries
                .iter()
                .filter(|entry| entry.segment == segment && entry.reads() > 0);
            found.extend(used.map(|entry| Used {
                tag: entry.tag,
                variant: entry.variant,
                place: entry.place(),
                reads: entry.reads(),
            }));
        }
        found
    }

    /// Forgets what lies in a segment.
    pub(crate) fn remove_segment(&self, segment: u32) {
        for shard in &self.shards {
            self.change(shard, |shard| {
                shard.entries.retain(|entry| entry.segment != segment);
                // A scan of small objects may have grown the table to many times what it holds now.
                let (len, capacity) = (shard.entries.len(), shard.entries.capacity());
                if capacity > 1024 && len < capacity / 4 {
                    shard.entries.shrink_to(len * 2, |entry| entry.tag);
                }
            });
        }
    }

    /// How many records are on disk.
    pub(crate) fn len(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The bytes of memory that knowing them takes.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = |shard: &Mutex<Shard>| shard.lock().entries.allocation_size() as u64;
        self.shards.iter().map(bytes).sum()
    }

    /// Changes a shard, and counts what is in it.
    fn change(&self, shard: &Mutex<Shard>, change: impl FnOnce(&mut Shard)) {
        let mut shard = shard.lock();
        let before = shard.entries.len() as u64;
        change(&mut shard);
        // Wraps where there are fewer; the sum is right.
        let more = (shard.entries.len() as u64).wrapping_sub(before);
        self.count.fetch_add(more, Ordering::Relaxed);
    }

    fn shard(&self, tag: u64) -> &Mutex<Shard> {
        // The tables take the lowest and the highest seven bits.
        &self.shards[(tag >> 40) as usize % SHARDS]
    }
}

impl Shard {
    fn is_queued(&self, tag: u64, name: Name) -> bool {
        let queued = self.queued.get(&tag);
        queued.is_some_and(|queued| queued.iter().any(|queued| queued.name == name))
    }

    fn unqueue(&mut self, tag: u64, record: &Arc<Queued>) -> bool {
        let Some(queued) = self.queued.get_mut(&tag) else {
            return false;
        };
        let before = queued.len();
        queued.retain(|queued| !Arc::ptr_eq(queued, record));
        let found = queued.len() < before;
        if queued.is_empty() {
            self.queued.remove(&tag);
        }
        found
    }

    /// Adds an entry in place of an older one of its name; the oldest goes if the key has too many.
    fn insert(&mut self, new: Entry) {
        let mut of_key = 0;
        let mut oldest = new.place();
        for entry in self.entries.iter_hash_mut(new.tag).filter(|entry| entry.tag == new.tag) {
            if entry.variant == new.variant {
                if entry.place() < new.place() {
                    *entry = new;
                }
                return;
            }
            of_key += 1;
            oldest = oldest.min(entry.place());
        }
        if of_key >= VARIANTS {
            if oldest == new.place() {
                return;
            }
            let full = self
                .entries
                .find_entry(new.tag, |entry| entry.tag == new.tag && entry.place() == oldest);
            if let Ok(entry) = full {
                entry.remove();
            }
        }
        self.entries.insert_unique(new.tag, new, |entry| entry.tag);
    }
}

/// 64 bits of a key, well mixed even if the key is not. What an entry is hashed by, too.
fn tag(key: u128) -> u64 {
    let (low, high) = (key as u64, (key >> 64) as u64);
    let folded = u128::from(low ^ 0x9e37_79b9_7f4a_7c15) * u128::from(high.rotate_left(32) ^ 0xd1b5_4a32_d192_ed03);
    let mixed = (folded as u64) ^ ((folded >> 64) as u64) ^ low.rotate_left(17) ^ high;
    let mixed = u128::from(mixed) * 0x9fb2_1c65_1e98_df25;
    (mixed as u64) ^ ((mixed >> 64) as u64)
}

/// 32 bits of a variant: a key has eight at most.
fn variant(variant: u64) -> u32 {
    (variant ^ (variant >> 32)) as u32
}
