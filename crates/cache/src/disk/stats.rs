//! What the disk tier counts.

use std::sync::atomic::{AtomicU64, Ordering};

use super::shared::Shared;

/// What the tier holds, and what it has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DiskStats {
    /// Whether it is in use. It is off while its disk fails.
    pub on: bool,
    /// Records that are found on disk.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Most bytes of its files: as configured, or less while the disk has not that much to give.
    pub limit: u64,
    /// Its files.
    pub segments: u64,
    /// Bytes that wait to be written.
    pub queued_bytes: u64,
    /// Bytes of memory that the index takes.
    pub index_bytes: u64,
    /// Records read at once, from the system's memory.
    pub reads_at_hand: u64,
    /// Records read by a thread that waited for the disk.
    pub reads_waited: u64,
    /// Records not read since too many others were waited for, or the disk took too long.
    pub reads_given_up: u64,
    /// Records written, copies aside.
    pub writes: u64,
    /// Bytes written, of copies and footers, too.
    pub written_bytes: u64,
    /// Records copied to the front since they were read.
    pub copied: u64,
    /// Segments removed to make room.
    pub evicted_segments: u64,
    /// Records dropped since the writer was behind.
    pub dropped: u64,
    /// Records not let onto the full disk.
    pub refused: u64,
    /// Records that no segment could hold.
    pub too_large: u64,
    /// Records that were not as they had been written, and segments that were not whole.
    pub corrupt: u64,
    /// Operations on files that failed.
    pub errors: u64,
    /// How often the tier was turned off.
    pub turned_off: u64,
}

/// A count that goes up.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts behind [`DiskStats`].
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) reads_at_hand: Count,
    pub(crate) reads_waited: Count,
    pub(crate) reads_given_up: Count,
    pub(crate) writes: Count,
    pub(crate) written_bytes: Count,
    pub(crate) copied: Count,
    pub(crate) evicted_segments: Count,
    pub(crate) dropped: Count,
    pub(crate) refused: Count,
    pub(crate) too_large: Count,
    pub(crate) corrupt: Count,
    pub(crate) errors: Count,
    pub(crate) turned_off: Count,
}

impl Shared {
    pub(crate) fn stats(&self) -> DiskStats {
        let counts = &self.counts;
        DiskStats {
            on: self.is_on(),
            entries: self.index.len(),
            bytes: self.used(),
            limit: self.limit(),
            segments: self.segments.read().len() as u64,
            queued_bytes: self.queue.bytes(),
            index_bytes: self.index.bytes(),
            reads_at_hand: counts.reads_at_hand.get(),
            reads_waited: counts.reads_waited.get(),
            reads_given_up: counts.reads_given_up.get(),
            writes: counts.writes.get(),
            written_bytes: counts.written_bytes.get(),
            copied: counts.copied.get(),
            evicted_segments: counts.evicted_segments.get(),
            dropped: counts.dropped.get(),
            refused: counts.refused.get(),
            too_large: counts.too_large.get(),
            corrupt: counts.corrupt.get(),
            errors: counts.errors.get(),
            turned_off: counts.turned_off.get(),
        }
    }
}
