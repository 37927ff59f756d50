//! The disk tier as the cache uses it: stored responses as records, and a journal of what was purged, so that nothing which
//! was purged comes back after a restart.
//!
//! It is a convenience: whatever fails of it is a miss, told by a metric and the log.

mod ledger;

use crate::{
    disk::{self, Disk, DiskConfig, DiskStats, Files, Found, Put, Record, System, Wait},
    entry::Entry,
    key::KeyRef,
    purges::Purges,
    record::{self, Base},
};
use bytes::Bytes;
use ledger::Ledger;
use std::{io, sync::Arc};

/// A body of fewer bytes than this is written once more when it is confirmed: a record takes hardly less without it.
const SMALL: u64 = 4 << 10;

#[derive(Debug)]
pub(crate) struct Tier {
    disk: Disk,
    base: Base,
    ledger: Ledger,
}

impl Tier {
    /// Opens the tier, and what was purged before.
    pub(crate) fn open(config: DiskConfig) -> io::Result<(Self, Purges)> {
        Self::open_with(config, Arc::new(System))
    }

    pub(crate) fn open_with(config: DiskConfig, files: Arc<dyn Files>) -> io::Result<(Self, Purges)> {
        disk::make_folder(&config.dir)?;
        let (ledger, purges) = Ledger::open(files.clone(), &config.dir)?;
        let tier = Self {
            disk: Disk::open_with(config, files)?,
            base: Base::now(),
            ledger,
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
            return self.forget_one(key, entry);
        }
        let (hash, variant) = name(key, entry);
        let put = self.write(hash, variant, key, entry);
        self.or_nothing(hash, variant, put);
    }

    /// Stores what the origin has made of a response by confirming it: beside its body, if that is there and not small.
    pub(crate) fn confirm(&self, key: KeyRef<'_>, entry: &Entry) {
        let (hash, variant) = name(key, entry);
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
            Some(Put::Queued | Put::Off) => {}
            Some(Put::Refused | Put::Dropped | Put::TooLarge) | None => {
                self.disk.forget_variant(hash, variant);
                self.disk.forget_variant(hash, record::confirmed(variant));
            }
        }
    }

    /// Keeps what memory has no room for any more although it was used, if it is not kept yet.
    pub(crate) fn take_over(&self, key: KeyRef<'_>, entry: &Entry) {
        if !entry.persists() {
            return;
        }
        let (hash, variant) = name(key, entry);
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

    /// Forgets one response of a key: a record says so in its place, for the next process. Where the writer is behind, this
    /// one alone forgets it.
    pub(crate) fn forget_one(&self, key: KeyRef<'_>, entry: &Entry) {
        let (hash, variant) = name(key, entry);
        if self.disk.touch(hash, variant) {
            let put = record::of_none(key, entry.born()).map(|meta| self.disk.put(hash, variant, meta, Bytes::new()));
            self.or_nothing(hash, variant, put);
        }
    }

    /// Notes a purge, which [`Tier::flush`] writes down.
    pub(crate) fn note(&self, record: Vec<u8>) {
        self.ledger.note(record);
    }

    /// Forgets everything. What was purged by it must have been noted.
    pub(crate) fn clear(&self) {
        self.disk.clear();
    }

    /// Notes how far the change log was followed, when that is worth it.
    pub(crate) fn settle(&self, purges: &Purges, sequence: u64) {
        self.ledger.settle(purges, sequence);
    }

    /// Waits until what was noted before is written down. `flush` calls [`Tier::flush`], and may block.
    pub(crate) async fn persist(&self, flush: impl FnOnce() + Send + 'static) {
        let noted = self.ledger.noted();
        if self.ledger.has_kept(noted) {
            return;
        }
        let turn = self.ledger.turn().await;
        // Those before may have written it.
        if self.ledger.has_kept(noted) {
            return;
        }
        let flushed = tokio::task::spawn_blocking(move || {
            flush();
            // Not sooner, whoever has given up waiting: threads are not to queue behind a disk that hangs.
            drop(turn);
        });
        if flushed.await.is_err() {
            tracing::error!("purges could not be written down");
        }
    }

    /// Writes down what was purged, to survive a failure of power. Blocks for a disk's sync.
    pub(crate) fn flush(&self, purges: &Purges) {
        if let Err(error) = self.ledger.flush(purges) {
            // What is not written down must not be needed either.
            tracing::error!(%error, "a purge cannot be written down; the disk cache starts anew");
            self.disk.clear();
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

/// What a response's record is found by: its key, and its variant.
fn name(key: KeyRef<'_>, entry: &Entry) -> (u128, u64) {
    (record::hash(key), record::variant(key, entry))
}

/// What is still to be read from the disk of a key.
#[derive(Debug)]
pub struct OnDisk(pub(crate) Wait);
