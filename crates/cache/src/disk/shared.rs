//! What the callers of the disk tier and its writer share: the index, the open segments, the queue, and whether the tier
//! is on.

use std::{
    collections::{HashMap, VecDeque},
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, RwLock};

use super::{
    DiskConfig,
    doorkeeper::Doorkeeper,
    files::{Files, is_shortage},
    index::{Index, Queued},
    stats::Counts,
};

/// Reads in a row that fail before the disk is taken for failing.
const FAILURES: u32 = 16;
/// How long the tier stays off after a failure, and after many of them.
const OFF: Duration = Duration::from_secs(60);
const OFF_MOST: Duration = Duration::from_secs(600);

/// The index, which is memory, knows one record for each so many bytes of the bound; and so many in any case.
const BYTES_A_RECORD: u64 = 4 << 10;
const RECORDS_LEAST: u64 = 1 << 16;

/// A segment that can be read. Its file stays readable for whoever holds it, even when it is removed.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) salt: u64,
    pub(crate) file: File,
}

/// What the writer's thread is asked to do.
pub(crate) enum Task {
    Write(Arc<Queued>),
    Clear,
    /// A reader found that the disk fails.
    TurnedOff,
    /// Try to turn on again.
    Retry,
    Sync(mpsc::Sender<()>),
    End,
}

pub(crate) struct Shared {
    pub(crate) config: DiskConfig,
    /// The size that segments are written to.
    pub(crate) segment_bytes: u64,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) index: Index,
    pub(crate) segments: RwLock<HashMap<u32, Arc<Segment>, foldhash::fast::FixedState>>,
    pub(crate) queue: Queue,
    pub(crate) door: Mutex<Doorkeeper>,
    pub(crate) counts: Counts,
    /// Reads that wait for the disk.
    pub(crate) waiting: AtomicU32,
    on: AtomicBool,
    failures: AtomicU32,
    used: AtomicU64,
    limit: AtomicU64,
    off: Mutex<Off>,
}

/// When to try again.
struct Off {
    since_on: Instant,
    pause: Duration,
    /// None: somebody is at it.
    retry_at: Option<Instant>,
}

impl Shared {
    pub(crate) fn new(config: DiskConfig, files: Arc<dyn Files>) -> Self {
        // A key for each 16 KiB: small objects are many, and those of 64 KiB are remembered four times as long.
        let keys = (config.bytes / (16 << 10)).clamp(1 << 10, 8 << 20);
        let off = Off {
            since_on: (config.clock)(),
            pause: OFF,
            retry_at: None,
        };
        Self {
            segment_bytes: config.segment(),
            files,
            index: Index::new(),
            segments: RwLock::default(),
            queue: Queue::default(),
            door: Mutex::new(Doorkeeper::new(keys as usize)),
            counts: Counts::default(),
            waiting: AtomicU32::new(0),
            on: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            used: AtomicU64::new(0),
            limit: AtomicU64::new(config.bytes),
            off: Mutex::new(off),
            config,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Bytes of the files.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn set_used(&self, bytes: u64) {
        self.used.store(bytes, Ordering::Relaxed);
    }

    /// Most bytes of the files.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub(crate) fn set_limit(&self, bytes: u64) {
        self.limit.store(bytes, Ordering::Relaxed);
    }

    /// The room that the writer keeps when it begins a segment: for the segment, and for what is copied into the next
    /// one before an old one goes.
    pub(crate) fn headroom(&self) -> u64 {
        self.segment_bytes + self.segment_bytes / 3
    }

    /// Whether a record finds room without another having to go.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        self.used() + self.queue.bytes() + bytes + self.headroom() <= self.limit() && !self.is_full_of_records()
    }

    /// Whether there are as many records as the index is to know.
    pub(crate) fn is_full_of_records(&self) -> bool {
        self.index.len() >= self.most_records()
    }

    /// Whether there are too many, and this is one more of those that make it so. Segments go by age: those with many records
    /// may be the newest, and to have them go would take all others along.
    pub(crate) fn is_one_too_many(&self, bytes: u64) -> bool {
        bytes < BYTES_A_RECORD && self.index.len() >= 2 * self.most_records()
    }

    fn most_records(&self) -> u64 {
        (self.limit() / BYTES_A_RECORD).max(RECORDS_LEAST)
    }

    pub(crate) fn segment(&self, number: u32) -> Option<Arc<Segment>> {
        self.segments.read().get(&number).cloned()
    }

    /// A read or write that went well.
    pub(crate) fn worked(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    /// A read that failed; many in a row turn the tier off.
    pub(crate) fn read_failed(&self, error: &io::Error) {
        self.counts.errors.add(1);
        if is_shortage(error) {
            return;
        }
        if self.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES && self.turn_off("reads", error) {
            self.queue.push(Task::TurnedOff);
        }
    }

    pub(crate) fn turn_on(&self) {
        self.failures.store(0, Ordering::Relaxed);
        self.off.lock().since_on = self.now();
        self.on.store(true, Ordering::Release);
    }

    /// Turns the tier off and forgets everything, unless it is off already. The writer must let go of its files.
    pub(crate) fn turn_off(&self, what: &str, error: &io::Error) -> bool {
        let turned = self.on.swap(false, Ordering::AcqRel);
        if turned {
            self.counts.turned_off.add(1);
            tracing::error!(dir = %self.config.dir.display(), what, %error, "the disk tier is off");
            self.forget_all();
            let now = self.now();
            let mut off = self.off.lock();
            if now.saturating_duration_since(off.since_on) >= OFF_MOST {
                off.pause = OFF;
            }
            off.retry_at = Some(now + off.pause);
            off.pause = (off.pause * 2).min(OFF_MOST);
        }
        turned
    }

    /// The tier could not be turned on, at the start or again.
    pub(crate) fn stays_off(&self) {
        let now = self.now();
        let mut off = self.off.lock();
        off.retry_at = Some(now + off.pause);
        off.pause = (off.pause * 2).min(OFF_MOST);
    }

    /// Ends the tier for good.
    pub(crate) fn end(&self) {
        self.off.lock().retry_at = None;
        self.on.store(false, Ordering::Release);
        self.forget_all();
    }

    /// Asks the writer to try again if it is time. Called as the tier is used: no timer is needed.
    pub(crate) fn retry_if_due(&self) {
        let now = self.now();
        if self.off.lock().retry_at.take_if(|at| now >= *at).is_some() {
            self.queue.push(Task::Retry);
        }
    }

    pub(crate) fn forget_all(&self) {
        self.index.clear();
        self.segments.write().clear();
    }

    fn now(&self) -> Instant {
        (self.config.clock)()
    }
}

/// The writer's queue, bounded in bytes by those who push.
#[derive(Default)]
pub(crate) struct Queue {
    tasks: Mutex<Tasks>,
    filled: Condvar,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Tasks {
    waiting: VecDeque<Task>,
    closed: bool,
}

impl Queue {
    /// Counts a record's bytes in, if they fit.
    pub(crate) fn admit(&self, bytes: u64, limit: u64) -> bool {
        let fits = |queued: u64| (queued + bytes <= limit).then_some(queued + bytes);
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .is_ok()
    }

    /// A record was written, or will not be.
    pub(crate) fn done(&self, record: &Queued) {
        self.bytes.fetch_sub(record.bytes(), Ordering::Relaxed);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Hands a task to the writer; once it has ended, tasks go nowhere.
    pub(crate) fn push(&self, task: Task) {
        let mut tasks = self.tasks.lock();
        if !tasks.closed {
            tasks.waiting.push_back(task);
            self.filled.notify_one();
        }
    }

    /// Drops all tasks, now and from now on.
    pub(crate) fn close(&self) {
        let mut tasks = self.tasks.lock();
        tasks.closed = true;
        tasks.waiting.clear();
    }

    /// Waits for a task.
    pub(crate) fn next(&self) -> Task {
        let mut tasks = self.tasks.lock();
        loop {
            if let Some(task) = tasks.waiting.pop_front() {
                return task;
            }
            self.filled.wait(&mut tasks);
        }
    }

    /// The next task if it is a record to write.
    pub(crate) fn next_write(&self) -> Option<Arc<Queued>> {
        let mut tasks = self.tasks.lock();
        match tasks.waiting.pop_front()? {
            Task::Write(record) => Some(record),
            other => {
                tasks.waiting.push_front(other);
                None
            }
        }
    }
}
