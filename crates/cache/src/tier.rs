//! The disk tier as the cache uses it: stored responses as records, and a journal of what was purged, so that nothing which
//! was purged comes back after a restart.
//!
//! It is a convenience: whatever fails of it is a miss, told by a metric and the log.

use crate::{
    disk::{self, Disk, DiskConfig, DiskStats, Found, Put, Record, Wait, journal::Journal},
    entry::Entry,
    key::KeyRef,
    purges::Purges,
    record::{self, Base},
};
use bytes::Bytes;
use parking_lot::Mutex;
use std::{
    io,
    time::{Duration, Instant},
};

/// The journal of purges, beside the segments.
const JOURNAL: &str = "purges.journal";

/// The largest journal that is not written anew, in bytes.
const JOURNAL_BYTES: u64 = 4 << 20;

/// How many entries of the change log, and how long, may pass until it is written down how far it was followed. What comes
/// twice after a restart harms nothing; the log is kept for days.
const SETTLE_AFTER: (u64, Duration) = (256, Duration::from_secs(60 * 60));

/// A body of fewer bytes than this is written once more when it is confirmed: a record takes hardly less without it.
const SMALL: u64 = 4 << 10;

#[derive(Debug)]
pub(crate) struct Tier {
    disk: Disk,
    base: Base,
    ledger: Mutex<Ledger>,
}

/// What is to be written down of purges.
#[derive(Debug)]
struct Ledger {
    journal: Journal,
    pending: Vec<Vec<u8>>,
    /// The last entry of the change log that was written down, and when.
    settled: Option<(u64, Instant)>,
}

impl Tier {
    /// Opens the tier, and what was purged before. Without a journal that can be read, what is stored cannot be told from
    /// what was purged, and goes.
    pub(crate) fn open(config: DiskConfig) -> io::Result<(Self, Purges)> {
        let dir = config.dir.clone();
        disk::make_folder(&dir)?;
        let path = dir.join(JOURNAL);
        let restored = Journal::open(&path).and_then(|(journal, records)| {
            let purges = Purges::restore(records.iter().map(|record| &**record));
            Ok((journal, purges.map_err(io::Error::other)?))
        });
        let (mut journal, purges) = match restored {
            Ok(restored) => restored,
            Err(error) => {
                let removed = disk::remove_segments(&dir)?;
                if removed > 0 {
                    tracing::warn!(%error, "the disk cache starts anew: its journal of purges is missing or damaged");
                }
                (Journal::create(&path)?, Purges::new())
            }
        };
        rewrite(&mut journal, &purges)?;
        let tier = Self {
            disk: Disk::open(config)?,
            base: Base::now(),
            ledger: Mutex::new(Ledger {
                journal,
                pending: Vec::new(),
                settled: None,
            }),
        };
        Ok((tier, purges))
    }

    /// Finds the records of a key: those that are at hand, or that must be waited for.
    pub(crate) fn get(&self, key: KeyRef<'_>) -> Found {
        self.disk.get(record::hash(key))
    }

    /// Whether there is a record of a slice.
    pub(crate) fn holds_slice(&self, key: KeyRef<'_>) -> bool {
        self.disk.touch(record::hash(key), record::SLICE)
    }

    /// The responses that records hold.
    pub(crate) fn entries(&self, key: KeyRef<'_>, records: &[Record]) -> Vec<Entry> {
        record::entries(key, records, &self.base)
    }

    /// Stores a response, or a slice, in place of what there is of it. If that cannot be, nothing older is left either.
    pub(crate) fn put(&self, key: KeyRef<'_>, entry: &Entry) {
        if !entry.persists() {
            return;
        }
        let (hash, variant) = (record::hash(key), record::variant(key, entry));
        let put = self.write(hash, variant, key, entry);
        self.or_nothing(hash, variant, put);
    }

    /// Stores what the origin has made of a response by confirming it: beside its body, if that is there and not small.
    pub(crate) fn confirm(&self, key: KeyRef<'_>, entry: &Entry) {
        let (hash, variant) = (record::hash(key), record::variant(key, entry));
        let body = entry.slices().map_or(entry.content().length(), |_| 0);
        if !entry.persists() || body < SMALL || !self.disk.touch(hash, variant) {
            return self.put(key, entry);
        }
        let meta = record::of_confirmed(key, entry, &self.base);
        let put = meta.map(|meta| self.disk.put(hash, record::confirmed(variant), meta, Bytes::new()));
        self.or_nothing(hash, variant, put);
    }

    /// Forgets what is older than something that was not stored.
    fn or_nothing(&self, hash: u128, variant: u64, put: Option<Put>) {
        match put {
            Some(Put::Refused | Put::Dropped | Put::TooLarge) => {
                self.disk.forget_variant(hash, variant);
                self.disk.forget_variant(hash, record::confirmed(variant));
            }
            Some(Put::Queued | Put::Off) | None => {}
        }
    }

    /// Keeps what memory has no room for any more although it was used, if it is not kept yet.
    pub(crate) fn take_over(&self, key: KeyRef<'_>, entry: &Entry) {
        if !entry.persists() {
            return;
        }
        let (hash, variant) = (record::hash(key), record::variant(key, entry));
        if !self.disk.touch(hash, variant) {
            self.write(hash, variant, key, entry);
        }
    }

    fn write(&self, hash: u128, variant: u64, key: KeyRef<'_>, entry: &Entry) -> Option<Put> {
        let (meta, body) = record::of_entry(key, entry, &self.base)?;
        Some(self.disk.put(hash, variant, meta, body))
    }

    pub(crate) fn forget(&self, key: KeyRef<'_>) {
        self.disk.forget(record::hash(key));
    }

    /// Forgets one response of a key.
    pub(crate) fn forget_one(&self, key: KeyRef<'_>, entry: &Entry) {
        self.disk.forget_variant(record::hash(key), record::variant(key, entry));
    }

    /// Notes a purge, which [`Tier::flush`] writes down.
    pub(crate) fn note(&self, record: Vec<u8>) {
        self.ledger.lock().pending.push(record);
    }

    /// Forgets everything. What was purged by it must have been noted.
    pub(crate) fn clear(&self) {
        self.disk.clear();
    }

    /// Notes how far the change log was followed, when that is worth it, and writes down what was purged.
    pub(crate) fn settle(&self, purges: &Purges, sequence: u64) {
        {
            let mut ledger = self.ledger.lock();
            let is_due = ledger.settled.is_none_or(|(last, at)| {
                last.saturating_add(SETTLE_AFTER.0) < sequence || at.elapsed() > SETTLE_AFTER.1
            });
            if !is_due && ledger.pending.is_empty() {
                return;
            }
            let record = purges.settle(sequence);
            ledger.pending.push(record);
            ledger.settled = Some((sequence, Instant::now()));
        }
        self.flush(purges);
    }

    /// Whether something that was purged is not written down yet.
    pub(crate) fn is_behind(&self) -> bool {
        !self.ledger.lock().pending.is_empty()
    }

    /// Writes down what was purged, to survive a failure of power. Blocks for a disk's sync.
    pub(crate) fn flush(&self, purges: &Purges) {
        let mut ledger = self.ledger.lock();
        if ledger.pending.is_empty() {
            return;
        }
        let Ledger { journal, pending, .. } = &mut *ledger;
        let records: Vec<&[u8]> = pending.iter().map(|record| &**record).collect();
        let written = journal.append(&records).and_then(|()| {
            if journal.bytes() > JOURNAL_BYTES && journal.bytes() > 4 * bytes_of(purges) {
                return rewrite(journal, purges);
            }
            Ok(())
        });
        match written {
            Ok(()) => pending.clear(),
            Err(error) => {
                // What is not written down must not be needed either.
                tracing::error!(%error, "a purge cannot be written down; the disk cache starts anew");
                ledger.settled = None;
                self.disk.clear();
            }
        }
    }

    /// Writes what waits for it. Blocks.
    pub(crate) fn shutdown(&self, purges: &Purges) {
        self.flush(purges);
        self.disk.shutdown();
    }

    pub(crate) fn stats(&self) -> DiskStats {
        self.disk.stats()
    }
}

/// What is still to be read from the disk of a key.
#[derive(Debug)]
pub struct OnDisk(pub(crate) Wait);

fn rewrite(journal: &mut Journal, purges: &Purges) -> io::Result<()> {
    let records = purges.records();
    let records: Vec<&[u8]> = records.iter().map(|record| &**record).collect();
    journal.rewrite(&records)
}

/// About how large a journal of the rules alone would be.
fn bytes_of(purges: &Purges) -> u64 {
    const RECORD: u64 = 64;
    purges.len() as u64 * RECORD
}
