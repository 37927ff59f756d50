//! The disk tier's storage: a store of opaque records by key, bounded in bytes, that a crash cannot make lie.
//!
//! It is a log: one thread appends what it is given to segments, and the oldest segment goes when room is needed, its
//! records that were read copied to the front. An index in memory finds a record; a checksum over all of it, its key and
//! its place decides whether it is served. What a failure of power or of the disk takes is a miss, never an error.

mod buffer;
mod doorkeeper;
mod files;
mod format;
mod index;
pub(crate) mod journal;
mod read;
mod recovery;
mod shared;
mod stats;
mod writer;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Instant,
};

use bytes::Bytes;
use parking_lot::Mutex;

pub(crate) use self::files::{Files, System, is_full, make_folder, remove_oldest, remove_segments};
use self::{
    format::{Name, RECORD_MOST, SEGMENT_HEAD, UNIT, footer_bytes, record_bytes},
    index::Queued,
    shared::{Shared, Task},
    writer::Writer,
};
pub use self::{
    read::{Found, GivenUp, Record, Wait},
    stats::DiskStats,
};

/// Tells the time. Only how long the tier has been off is told by it.
pub type Clock = Arc<dyn Fn() -> Instant + Send + Sync>;

/// Where the tier lies and how large it may be.
#[derive(Clone)]
pub struct DiskConfig {
    /// Its folder: made if it is missing, and closed to other users. Files of others in it are left alone.
    pub dir: PathBuf,
    /// Most bytes of its files, all together.
    pub bytes: u64,
    /// Most bytes of a file, and so of a record. At least eight files fit into `bytes`.
    pub segment_bytes: u64,
    /// Most bytes that wait to be written; what comes beyond is not stored.
    pub queue_bytes: u64,
    /// The clock.
    pub clock: Clock,
}

impl DiskConfig {
    /// A tier of so many bytes: in segments of a 32nd of it, 64 MiB at most unless there would be more than 1024 (each
    /// is an open file), with a queue of 64 MiB at most.
    pub fn new(dir: impl Into<PathBuf>, bytes: u64) -> Self {
        let segment_bytes = (bytes / 32).min(64 << 20).max(bytes / 1024);
        Self {
            dir: dir.into(),
            bytes,
            segment_bytes,
            queue_bytes: (64 << 20).min(bytes),
            clock: Arc::new(Instant::now),
        }
    }

    /// The segments' size within what the format and `bytes` allow.
    fn segment(&self) -> u64 {
        let most = (self.bytes / 8).min(4 << 30);
        self.segment_bytes.min(most) / UNIT * UNIT
    }
}

impl fmt::Debug for DiskConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DiskConfig")
            .field("dir", &self.dir)
            .field("bytes", &self.bytes)
            .field("segment_bytes", &self.segment_bytes)
            .field("queue_bytes", &self.queue_bytes)
            .finish_non_exhaustive()
    }
}

/// What became of a record that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is found from now on, and will be written.
    Queued,
    /// The disk is full, and its key was not put before, of late.
    Refused,
    /// The writer is behind.
    Dropped,
    /// No segment can hold it.
    TooLarge,
    /// The tier is off.
    Off,
}

/// The disk tier. Cheap to clone; the last one that goes ends the writer, which writes what it has been given.
#[derive(Clone)]
pub struct Disk {
    shared: Arc<Shared>,
    writer: Arc<WriterThread>,
}

impl Disk {
    /// Opens the tier and recovers what is stored. Reads the footers of sealed segments and all of the one that was
    /// written to last.
    ///
    /// A folder that cannot be used gives a tier that is off, tries again from time to time, and says so in its
    /// [stats](Self::stats). Fails only if the writer's thread cannot be started. Blocks: call it before serving, or
    /// where blocking is allowed.
    pub fn open(config: DiskConfig) -> io::Result<Self> {
        Self::open_with(config, Arc::new(System))
    }

    pub(crate) fn open_with(config: DiskConfig, files: Arc<dyn Files>) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(config, files));
        let mut writer = Writer::new(shared.clone());
        writer.start();
        let thread = std::thread::Builder::new()
            .name("disk-writer".into())
            .spawn(move || writer.run())?;
        let writer = Arc::new(WriterThread {
            shared: shared.clone(),
            thread: Mutex::new(Some(thread)),
        });
        Ok(Self { shared, writer })
    }

    /// The records of a key: its variants. Does nothing that can wait, except to copy and check what the system has in
    /// memory; what it has not is for [`Wait::records`] to read.
    pub fn get(&self, key: u128) -> Found {
        read::get(&self.shared, key)
    }

    /// Stores a record, in place of one of the same key and variant. Of a key's records the last eight are kept. Never
    /// waits: the writer's thread does the rest.
    ///
    /// As long as there is room all is taken; after that, what was put before.
    pub fn put(&self, key: u128, variant: u64, meta: Bytes, body: Bytes) -> Put {
        let shared = &self.shared;
        let name = Name { key, variant };
        let bytes = record_bytes(meta.len(), body.len());
        if !shared.is_on() {
            shared.retry_if_due();
            return Put::Off;
        }
        if bytes > largest(shared.segment_bytes) || bytes > shared.config.queue_bytes {
            shared.counts.too_large.add(1);
            return Put::TooLarge;
        }
        // A key that was refused is known from then on, so this comes even before a look at the queue.
        let known = shared.door.lock().seen(key);
        let is_refused = !known && !shared.has_room(bytes) || shared.is_one_too_many(bytes);
        if is_refused && !shared.index.holds(name) {
            shared.counts.refused.add(1);
            return Put::Refused;
        }
        if !shared.queue.admit(bytes, shared.config.queue_bytes) {
            shared.counts.dropped.add(1);
            return Put::Dropped;
        }
        let record = Arc::new(Queued { name, meta, body });
        shared.index.queue(&record);
        shared.queue.push(Task::Write(record));
        if !shared.is_on() {
            // It was turned off in between, and everything forgotten: this, too.
            shared.index.forget(key);
        }
        Put::Queued
    }

    /// Counts a read of a record, which keeps it when its segment goes, and tells whether it is there: for what is
    /// served from a tier above. No I/O.
    pub fn touch(&self, key: u128, variant: u64) -> bool {
        self.shared.index.touch(Name { key, variant })
    }

    /// Forgets the records of a key at once, also those that wait to be written.
    ///
    /// This lasts as long as the process: after the next [`Self::open`] they may be found again.
    pub fn forget(&self, key: u128) {
        self.shared.index.forget(key);
    }

    /// The same of one record.
    pub fn forget_variant(&self, key: u128, variant: u64) {
        self.shared.index.forget_variant(Name { key, variant });
    }

    /// Forgets everything at once, and removes the files, soon.
    pub fn clear(&self) {
        self.shared.index.clear();
        self.shared.queue.push(Task::Clear);
    }

    /// What the tier holds and has done.
    pub fn stats(&self) -> DiskStats {
        self.shared.stats()
    }

    /// Waits until what was put before is written to its file. Blocks.
    pub fn sync(&self) {
        let (done, wait) = mpsc::channel();
        self.shared.queue.push(Task::Sync(done));
        // A writer that has ended has written all.
        wait.recv().ok();
    }

    /// Writes what was put before, seals the segment, and ends the writer. The tier is off from then on. Blocks.
    pub fn shutdown(&self) {
        self.writer.end();
        if let Some(thread) = self.writer.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the disk tier's writer panicked");
        }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// The journal of what was purged, beside the segments.
pub(crate) const JOURNAL: &str = "purges.journal";

/// Has whoever opens the tier in `dir` next start anew: what this process purges without the tier will not be known to it.
pub fn abandon(dir: &Path) -> io::Result<()> {
    remove_journal(&System, &dir.join(JOURNAL))
}

/// Removes the journal at `path`, for good. That there is none is well.
pub(crate) fn remove_journal(files: &dyn Files, path: &Path) -> io::Result<()> {
    use io::ErrorKind::{NotADirectory, NotFound};
    let unless_gone = |result: io::Result<()>| match result {
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => Ok(()),
        result => result,
    };
    let folder = path.parent().expect("a journal lies in a folder");
    unless_gone(files.remove(path))?;
    unless_gone(files.sync_names(folder))
}

/// The largest record that a segment of so many bytes holds.
fn largest(segment_bytes: u64) -> u64 {
    segment_bytes
        .saturating_sub(SEGMENT_HEAD as u64 + footer_bytes(1))
        .min(RECORD_MOST * UNIT)
}

/// Ends the writer with the last [`Disk`].
struct WriterThread {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl WriterThread {
    fn end(&self) {
        self.shared.queue.push(Task::End);
    }
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
pub(crate) mod tests;
