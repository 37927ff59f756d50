//! Reading records: at once if the system has them in memory, else on a thread that may wait for the disk.
//!
//! One system call a record; its body is a slice of what was read. No record is given whose checksum does not cover it.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::{
    buffer::Buffer,
    files::read_all,
    format::{self, Place},
    shared::{Segment, Shared},
};

/// Most bytes that are read at once, as they are at hand: to copy and check more takes a thread too long.
const AT_HAND: usize = 2 * MIB;
/// How much may be waited for at a time, in MiB, of which each read is one at least: a disk that hangs is not to hold every
/// thread and request, nor what is read all memory.
const WAITING: u32 = 256;
const MIB: usize = 1 << 20;
/// How long a reader waits for the disk; asking the origin is better then.
const PATIENCE: Duration = Duration::from_secs(5);

/// A record as it was put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The variant that it was put for.
    pub variant: u64,
    /// What the caller keeps about the body.
    pub meta: Bytes,
    /// The body. It shares its memory with `meta`.
    pub body: Bytes,
}

/// What is stored for a key.
#[derive(Debug)]
pub enum Found {
    /// Nothing.
    Absent,
    /// These records, at least one, the last one that was written at the end.
    Ready(Vec<Record>),
    /// They must be read from the disk first.
    Wait(Wait),
}

/// Records that must be waited for.
#[derive(Debug)]
#[must_use = "nothing is read until it is awaited"]
pub struct Wait {
    reader: Reader,
    reads: Vec<Read>,
}

/// The disk was not waited for any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the disk is too slow")]
pub struct GivenUp;

/// A read, in the order of the records.
#[derive(Debug)]
enum Read {
    Done(Option<Record>),
    /// So much of it is there.
    Partly(Arc<Segment>, Place, Buffer, usize),
}

/// Who reads, and what for.
#[derive(Clone)]
struct Reader {
    shared: Arc<Shared>,
    key: u128,
}

pub(crate) fn get(shared: &Arc<Shared>, key: u128) -> Found {
    if !shared.is_on() {
        return Found::Absent;
    }
    let mut known = shared.index.find(key);
    if known.places.iter().any(|place| shared.segment(place.segment).is_none()) {
        // Its segment went after it was found: it may have been copied to another.
        known = shared.index.find(key);
    }
    if known.places.is_empty() && known.queued.is_empty() {
        return Found::Absent;
    }
    let reader = Reader {
        shared: shared.clone(),
        key,
    };
    let mut reads: Vec<Read> = known.places.iter().map(|place| reader.begin(*place)).collect();
    reads.extend(known.queued.iter().map(|queued| {
        Read::Done(Some(Record {
            variant: queued.name.variant,
            meta: queued.meta.clone(),
            body: queued.body.clone(),
        }))
    }));
    match reads.iter().filter(|read| matches!(read, Read::Partly(..))).count() {
        0 => match done(reads) {
            records if records.is_empty() => Found::Absent,
            records => Found::Ready(records),
        },
        _ => Found::Wait(Wait { reader, reads }),
    }
}

impl Wait {
    /// Reads them on a thread of tokio's that may block. May be empty: a record that cannot be read is one that is not
    /// there. An error when too many reads wait already, or this one has waited too long: the records may be there all
    /// the same, and who asks again at once may be told the same again.
    pub async fn records(self) -> Result<Vec<Record>, GivenUp> {
        let shared = self.reader.shared.clone();
        let lengths = self.reads.iter().filter_map(|read| match read {
            Read::Partly(_, place, ..) => Some(place.bytes()),
            Read::Done(_) => None,
        });
        let (slow, size) = lengths.fold((0, 0), |(slow, size), len| (slow + 1, size + len.div_ceil(MIB) as u32));
        let given_up = || {
            shared.counts.reads_given_up.add(slow);
            GivenUp
        };
        let place = WaitingPlace::take(&shared, size).ok_or_else(given_up)?;
        let reading = tokio::task::spawn_blocking(move || {
            let _place = place;
            self.finish()
        });
        let read = tokio::time::timeout(PATIENCE, reading).await;
        // Without a result, the runtime ends or a thread panicked.
        read.map_err(|_| given_up())?.map_err(|_| GivenUp)
    }

    /// Reads them on this thread.
    pub(crate) fn finish(self) -> Vec<Record> {
        let finish = |read| match read {
            Read::Done(record) => record,
            Read::Partly(segment, place, text, have) => self.reader.wait(&segment, place, text, have),
        };
        self.reads.into_iter().filter_map(finish).collect()
    }
}

impl Reader {
    /// Reads what is at hand of a record.
    fn begin(&self, place: Place) -> Read {
        let Some(segment) = self.shared.segment(place.segment) else {
            return Read::Done(None);
        };
        let mut text = Buffer::new(place.bytes());
        if text.len() > AT_HAND {
            return Read::Partly(segment, place, text, 0);
        }
        match self.shared.files.read_now(&segment.file, &mut text, place.offset()) {
            Ok(read) if read == text.len() => {
                self.shared.counts.reads_at_hand.add(1);
                self.shared.worked();
                Read::Done(self.check(&segment, place, text))
            }
            Ok(read) => Read::Partly(segment, place, text, read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Read::Partly(segment, place, text, 0),
            Err(error) => {
                self.failed(place, &error);
                Read::Done(None)
            }
        }
    }

    /// Reads the rest of a record.
    fn wait(&self, segment: &Segment, place: Place, mut text: Buffer, have: usize) -> Option<Record> {
        let rest = place.offset() + have as u64;
        self.shared.counts.reads_waited.add(1);
        match read_all(&*self.shared.files, &segment.file, &mut text[have..], rest) {
            Ok(()) => {
                self.shared.worked();
                self.check(segment, place, text)
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.corrupt(place);
                None
            }
            Err(error) => {
                self.failed(place, &error);
                None
            }
        }
    }

    fn check(&self, segment: &Segment, place: Place, text: Buffer) -> Option<Record> {
        let Some(record) = format::record(segment.salt, place.offset(), text) else {
            self.corrupt(place);
            return None;
        };
        // Another key's, which the index cannot tell from this one.
        (record.name.key == self.key).then_some(Record {
            variant: record.name.variant,
            meta: record.meta,
            body: record.body,
        })
    }

    fn corrupt(&self, place: Place) {
        self.shared.counts.corrupt.add(1);
        self.shared.index.remove(self.key, place);
    }

    fn failed(&self, place: Place, error: &io::Error) {
        self.shared.index.remove(self.key, place);
        self.shared.read_failed(error);
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

fn done(reads: Vec<Read>) -> Vec<Record> {
    let done = |read| match read {
        Read::Done(record) => record,
        Read::Partly(..) => None,
    };
    reads.into_iter().filter_map(done).collect()
}

/// The place of what may be waited for, of so many MiB.
struct WaitingPlace(Arc<Shared>, u32);

impl WaitingPlace {
    fn take(shared: &Arc<Shared>, size: u32) -> Option<Self> {
        let before = shared.waiting.fetch_add(size, Ordering::Relaxed);
        let place = Self(shared.clone(), size);
        // However much one key has, it can be read.
        (before == 0 || before.saturating_add(size) <= WAITING).then_some(place)
    }
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(self.1, Ordering::Relaxed);
    }
}
