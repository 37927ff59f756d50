//! The one thread that changes files: it appends records, seals segments, and removes the oldest to make room.
//!
//! An error of a write or a removal turns the tier off; a full disk makes it smaller first. A lack of files or memory costs
//! what was to be written.

mod room;

use std::{
    collections::BTreeMap,
    fs::File,
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, IoSlice},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{
    files::{is_shortage, segment_path, segments, write_all},
    format::{self, Name, Place, SEGMENT_HEAD, UNIT, footer_bytes, record_bytes},
    index::{Queued, Used},
    recovery::{self, Open, Recovered},
    shared::{Segment, Shared, Task},
};

/// About so much is written at a time.
const BATCH: u64 = 4 << 20;
/// How long the tier stays smaller after the disk was full.
const SMALLER: Duration = Duration::from_secs(600);

pub(crate) struct Writer {
    shared: Arc<Shared>,
    /// The folder's lock.
    lock: Option<File>,
    /// Sealed segments by age: numbers and lengths.
    sealed: BTreeMap<u32, u64>,
    sealed_bytes: u64,
    open: Option<Open>,
    next: Option<u32>,
    batch: Vec<Item>,
    batch_bytes: u64,
    /// The tier was on once: what is in the folder later is not to be relied on.
    was_on: bool,
    /// When the disk was full.
    full_at: Option<Instant>,
    /// The last write lacked files or memory.
    is_short: bool,
    salts: RandomState,
}

/// A record that is about to be written.
struct Item {
    name: Name,
    meta: Bytes,
    body: Bytes,
    source: Source,
}

enum Source {
    Queue(Arc<Queued>),
    Copy(Used),
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            lock: None,
            sealed: BTreeMap::new(),
            sealed_bytes: 0,
            open: None,
            next: None,
            batch: Vec::new(),
            batch_bytes: 0,
            was_on: false,
            full_at: None,
            is_short: false,
            salts: RandomState::new(),
        }
    }

    /// Turns the tier on, with what the folder holds.
    pub(crate) fn start(&mut self) {
        if let Err(error) = self.turn_on() {
            let dir = self.shared.config.dir.display();
            tracing::error!(%dir, %error, "the disk tier cannot be opened, and is off");
            self.stay_off();
        }
    }

    /// Works until the tier ends.
    pub(crate) fn run(mut self) {
        loop {
            match self.shared.queue.next() {
                Task::Write(record) => self.write(record),
                Task::Clear => {
                    let cleared = self.clear();
                    self.check("removing files", cleared);
                }
                Task::TurnedOff => self.let_go(),
                Task::Retry => {
                    if let Err(error) = self.turn_on() {
                        tracing::debug!(%error, "the disk tier stays off");
                        self.stay_off();
                    }
                }
                Task::Sync(done) => {
                    done.send(()).ok();
                }
                Task::End => break,
            }
        }
        if let Err(error) = self.seal() {
            tracing::warn!(%error, "the disk tier's last segment was not sealed");
        }
        self.shared.queue.close();
        self.shared.end();
    }

    fn turn_on(&mut self) -> io::Result<()> {
        if self.shared.is_on() {
            return Ok(());
        }
        // A lock of this process keeps itself out, too.
        self.lock = None;
        self.lock = Some(self.shared.files.claim(&self.shared.config.dir)?);
        let recovered = if self.was_on {
            self.wipe()?;
            Recovered {
                next: Some(1),
                ..Recovered::default()
            }
        } else {
            recovery::recover(&self.shared)?
        };
        self.shared.set_limit(self.shared.config.bytes);
        self.full_at = None;
        self.sealed = recovered.sealed;
        self.sealed_bytes = self.sealed.values().sum();
        self.open = recovered.open;
        self.next = recovered.next;
        while self.sealed_bytes + self.open_bytes() > self.shared.limit() && self.evict(false)? {}
        if self.open_bytes() > self.shared.limit() {
            self.clear()?;
        }
        self.note_used();
        self.was_on = true;
        self.shared.turn_on();
        Ok(())
    }

    /// Could not be turned on.
    fn stay_off(&mut self) {
        self.shared.counts.errors.add(1);
        self.forget();
        self.lock = None;
        self.shared.stays_off();
    }

    /// The tier was turned off: what it has written is worth nothing.
    fn let_go(&mut self) {
        if !self.shared.is_on() {
            self.forget();
            self.wipe().ok();
        }
    }

    fn forget(&mut self) {
        self.batch.clear();
        self.batch_bytes = 0;
        self.open = None;
        self.sealed.clear();
        self.sealed_bytes = 0;
        self.shared.forget_all();
        self.note_used();
    }

    /// Removes our files.
    fn wipe(&self) -> io::Result<()> {
        segments(&*self.shared.files, &self.shared.config.dir)?
            .into_iter()
            .try_for_each(|number| recovery::remove(&self.shared, number))
    }

    fn check(&mut self, what: &str, result: io::Result<()>) {
        if let Err(error) = result {
            self.shared.counts.errors.add(1);
            self.shared.turn_off(what, &error);
            self.let_go();
        }
    }

    /// Writes a record, and those that come right behind it.
    fn write(&mut self, first: Arc<Queued>) {
        let mut bytes = first.bytes();
        let mut records = vec![first];
        while bytes < BATCH
            && let Some(record) = self.shared.queue.next_write()
        {
            bytes += record.bytes();
            records.push(record);
        }
        match self.write_all(&records) {
            Err(error) if is_shortage(&error) => self.give_up(&records, &error),
            written => {
                self.is_short = false;
                self.check("writing", written);
            }
        }
        for record in records {
            self.shared.index.unqueue(&record);
            self.shared.queue.done(&record);
        }
    }

    /// Leaves unwritten what is not written, and nothing older of it.
    fn give_up(&mut self, records: &[Arc<Queued>], error: &io::Error) {
        self.shared.counts.errors.add(1);
        if !mem::replace(&mut self.is_short, true) {
            tracing::warn!(%error, "the disk tier cannot write now; what is stored stays");
        }
        self.batch.clear();
        self.batch_bytes = 0;
        if let Some(open) = &self.open {
            self.shared.files.truncate(&open.segment.file, open.end).ok();
        }
        for record in records.iter().filter(|record| self.shared.index.is_queued(record)) {
            self.shared.index.forget(record.name.key);
        }
    }

    fn write_all(&mut self, records: &[Arc<Queued>]) -> io::Result<()> {
        for record in records {
            // Replaced or forgotten in the meantime, or the tier was turned off.
            if !self.shared.index.is_queued(record) {
                continue;
            }
            if !self.fits(record.bytes()) {
                self.flush()?;
                self.begin_segment()?;
            }
            self.add(Item {
                name: record.name,
                meta: record.meta.clone(),
                body: record.body.clone(),
                source: Source::Queue(record.clone()),
            });
        }
        self.flush()
    }

    fn add(&mut self, item: Item) {
        self.batch_bytes += record_bytes(item.meta.len(), item.body.len());
        self.batch.push(item);
    }

    /// Whether the open segment has room for a record behind those of the batch, and for the footer.
    fn fits(&self, bytes: u64) -> bool {
        self.open.as_ref().is_some_and(|open| {
            let footer = footer_bytes(open.records() + self.batch.len() + 1);
            open.end + self.batch_bytes + bytes + footer <= self.shared.segment_bytes
        })
    }

    /// Writes the batch, and has its records found where they are now.
    fn flush(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let places = self.with_space(Self::write_batch)?;
        let shared = &self.shared;
        shared.counts.written_bytes.add(self.batch_bytes);
        self.batch_bytes = 0;
        for (item, place) in mem::take(&mut self.batch).into_iter().zip(places) {
            match item.source {
                Source::Queue(record) => {
                    shared.index.written(&record, place);
                    shared.counts.writes.add(1);
                }
                Source::Copy(used) => {
                    shared.index.moved(used, place);
                    shared.counts.copied.add(1);
                }
            }
        }
        self.note_used();
        Ok(())
    }

    fn write_batch(&mut self) -> io::Result<Vec<Place>> {
        if self.open.is_none() {
            self.create()?;
        }
        let open = self.open.as_mut().expect("it was just created");
        let Segment { number, salt, file } = &*open.segment;
        let mut at = open.end;
        let mut places = Vec::with_capacity(self.batch.len());
        let mut heads = Vec::with_capacity(self.batch.len());
        for item in &self.batch {
            let bytes = record_bytes(item.meta.len(), item.body.len());
            heads.push(format::record_head(*salt, at, item.name, &item.meta, &item.body));
            places.push(Place {
                segment: *number,
                at: (at / UNIT) as u32,
                len: (bytes / UNIT) as u32,
            });
            at += bytes;
        }
        let mut slices = Vec::with_capacity(self.batch.len() * 4);
        for (item, head) in self.batch.iter().zip(&heads) {
            let padding = format::padding(item.meta.len(), item.body.len());
            let parts = [&head[..], &item.meta, &item.body, padding];
            slices.extend(parts.into_iter().filter(|part| !part.is_empty()).map(IoSlice::new));
        }
        write_all(&*self.shared.files, file, &mut slices, open.end)?;
        open.end = at;
        for (item, place) in self.batch.iter().zip(&places) {
            open.entries.extend_from_slice(&format::footer_entry(item.name, *place));
        }
        Ok(places)
    }

    /// Seals the segment that is full, begins one, and makes room for what it will hold.
    fn begin_segment(&mut self) -> io::Result<()> {
        self.seal()?;
        let now = (self.shared.config.clock)();
        if self
            .full_at
            .is_some_and(|at| now.saturating_duration_since(at) >= SMALLER)
        {
            // Others may have made room.
            self.full_at = None;
            self.shared.set_limit(self.shared.config.bytes);
        }
        while self.sealed_bytes + SEGMENT_HEAD as u64 > self.shared.limit() && self.evict(false)? {}
        self.with_space(Self::create)?;
        while self.sealed_bytes + self.shared.headroom() > self.shared.limit() && self.evict(true)? {}
        // One, and one for the next time: as many as come, where they are alike.
        for _ in 0..2 {
            if !self.shared.is_full_of_records() || !self.evict(true)? {
                break;
            }
        }
        Ok(())
    }

    fn create(&mut self) -> io::Result<()> {
        let exhausted = || io::Error::other("segment numbers are exhausted");
        let number = self.next.ok_or_else(exhausted)?;
        self.next = number.checked_add(1);
        // Not to be guessed by those who choose what is stored: its hasher is keyed by the system's random source.
        let salt = {
            let mut salt = self.salts.build_hasher();
            salt.write_u32(number);
            salt.finish()
        };
        let file = self
            .shared
            .files
            .create(&segment_path(&self.shared.config.dir, number))?;
        let head = format::segment_head(number, salt);
        if let Err(error) = write_all(&*self.shared.files, &file, &mut [IoSlice::new(&head)], 0) {
            recovery::remove(&self.shared, number).ok();
            return Err(error);
        }
        let segment = Arc::new(Segment { number, salt, file });
        self.shared.segments.write().insert(number, segment.clone());
        self.open = Some(Open {
            segment,
            end: SEGMENT_HEAD as u64,
            entries: Vec::new(),
        });
        self.note_used();
        Ok(())
    }

    /// Ends the open segment with a footer, and has it reach the disk.
    fn seal(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let number = open.segment.number;
        if open.records() == 0 {
            recovery::remove(&self.shared, number)?;
            self.shared.segments.write().remove(&number);
            self.open = None;
            self.note_used();
            return Ok(());
        }
        let len = open.seal(&self.shared)?;
        self.shared.counts.written_bytes.add(len - open.end);
        self.shared.files.sync(&open.segment.file)?;
        self.open = None;
        self.sealed.insert(number, len);
        self.sealed_bytes += len;
        self.note_used();
        Ok(())
    }

    fn open_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, Open::sealed_bytes)
    }

    fn note_used(&self) {
        let open = self.open.as_ref().map_or(0, |open| open.end);
        self.shared.set_used(self.sealed_bytes + open);
    }
}
