//! One stream's window.

mod upload;

pub use upload::Upload;

use super::{
    Content, Document, IngestConfig, LiveFile, PushError,
    arriving::Arriving,
    disk::{Index, IndexEntry, Plan, Saved, Writer},
};
use bytes::Bytes;
use edgeweir_model::{ObjectKey, StreamId};
use foldhash::fast::RandomState;
use http::HeaderValue;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use tokio::sync::Notify;

/// The window of one stream.
#[derive(Debug)]
pub struct Window {
    stream: StreamId,
    config: Arc<IngestConfig>,
    held: Arc<Held>,
    writer: Writer,
    inner: Mutex<Inner>,
    /// A file has come, or the window has ended.
    changed: Notify,
}

/// Bytes that a window holds, and all windows.
#[derive(Debug)]
struct Held {
    own: AtomicU64,
    all: Arc<AtomicU64>,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
struct Counted {
    held: Arc<Held>,
    bytes: u64,
}

impl Counted {
    fn new(held: &Arc<Held>, bytes: u64) -> Self {
        let mut counted = Self {
            held: held.clone(),
            bytes: 0,
        };
        counted.add(bytes);
        counted
    }

    fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.held.own.fetch_add(bytes, Ordering::Relaxed);
        self.held.all.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.own.fetch_sub(self.bytes, Ordering::Relaxed);
        self.held.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// One time that a path was pushed.
#[derive(Debug)]
struct Version {
    /// Another one for each version of the stream.
    number: u64,
    /// The session in which a playlist listed it first.
    label: Option<u32>,
    media_type: HeaderValue,
    content: Stored,
    /// When it was whole, or began to arrive.
    arrived: Instant,
    listing: Listing,
    counted: Counted,
}

#[derive(Debug)]
enum Stored {
    Arriving(Arc<Arriving>),
    Whole { bytes: Bytes, crc: u32, etag: HeaderValue },
}

/// Whether a document lists a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    NotYet,
    Listed,
    /// Not any more, since then.
    Gone(Instant),
}

impl Version {
    fn is_whole(&self) -> bool {
        matches!(self.content, Stored::Whole { .. })
    }

    /// Since when nobody needs it.
    fn idle_since(&self) -> Option<Instant> {
        match self.listing {
            Listing::Listed => None,
            _ if !self.is_whole() => None,
            Listing::NotYet => Some(self.arrived),
            Listing::Gone(since) => Some(since),
        }
    }

    fn file(&self) -> LiveFile {
        let (etag, content) = match &self.content {
            Stored::Arriving(arriving) => (None, Content::Arriving(arriving.body())),
            Stored::Whole { bytes, etag, .. } => (Some(etag.clone()), Content::Whole(bytes.clone())),
        };
        LiveFile {
            media_type: self.media_type.clone(),
            etag,
            content,
        }
    }
}

impl Stored {
    /// The CRC tells versions apart whose number a crash has given twice.
    fn whole(number: u64, bytes: Bytes, crc: u32) -> Self {
        let etag = HeaderValue::from_str(&format!("\"{number:x}-{crc:08x}\"")).expect("it is ASCII");
        Self::Whole { bytes, crc, etag }
    }
}

type Files = HashMap<ObjectKey, Vec<Version>, RandomState>;

/// A run of an encoder as one document tells it from the run before: each document that does begins a session for it.
#[derive(Debug)]
struct Session {
    /// What came before is of an earlier one, unless a document has listed it since.
    began: Instant,
    /// The document; none for what the window began itself.
    document: Option<ObjectKey>,
}

impl Session {
    fn of_window(began: Instant) -> Self {
        Self { began, document: None }
    }
}

#[derive(Debug)]
struct Inner {
    /// The versions of each path, the oldest first.
    files: Files,
    documents: HashMap<ObjectKey, (Document, Counted), RandomState>,
    sessions: Vec<Session>,
    next_number: u64,
    uploads: usize,
    last_arrival: Option<Instant>,
    closed: bool,
}

impl Inner {
    fn empty() -> Self {
        Self {
            files: Files::default(),
            documents: HashMap::default(),
            sessions: vec![Session::of_window(Instant::now())],
            next_number: 1,
            uploads: 0,
            last_arrival: None,
            closed: false,
        }
    }

    fn version(&mut self, path: &ObjectKey, number: u64) -> Option<&mut Version> {
        self.files.get_mut(path)?.iter_mut().find(|v| v.number == number)
    }

    fn session(&self) -> u32 {
        self.sessions.len() as u32
    }

    /// Whether it has come since this session began, and is listed by no document, or by another one of the same run.
    fn is_of(&self, session: u32, version: &Version) -> bool {
        let place = |session: u32| (session as usize).checked_sub(1).filter(|at| *at < self.sessions.len());
        let Some(own) = place(session) else { return false };
        let Session { began, document } = &self.sessions[own];
        if version.is_whole() && version.arrived < *began {
            return false;
        }
        let (Some(label), Some(document)) = (version.label, document) else {
            return version.label.is_none();
        };
        // The label's session began in the time of this one, before the document began another.
        let order = |at: usize| (self.sessions[at].began, at);
        let same = |at: &usize| self.sessions[*at].document.as_ref() == Some(document);
        let next = (own + 1..self.sessions.len()).filter(same).map(order).min();
        place(label).is_some_and(|at| self.sessions[at].began >= *began && next.is_none_or(|next| order(at) < next))
    }

    fn count(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    fn retain(&mut self, keep: impl Fn(&ObjectKey, &Version) -> bool) {
        self.files.retain(|path, versions| {
            versions.retain(|version| keep(path, version));
            !versions.is_empty()
        });
    }

    fn expire(&mut self, window: Duration, now: Instant) {
        let lasts = self.documents.values().map(|(document, _)| document.lasts).max();
        let window = window.max(lasts.unwrap_or_default());
        self.retain(|_, version| {
            let idle = version.idle_since();
            idle.is_none_or(|since| now.saturating_duration_since(since) < window)
        });
    }

    /// Drops the version that was listed once and is so no more for the longest time; whether there was one. Where documents
    /// list nothing by name, it is the oldest.
    fn drop_oldest(&mut self) -> bool {
        let listed = self.documents.values().any(|(document, _)| !document.listed.is_empty());
        let unnamed = !self.documents.is_empty() && !listed;
        let gone = |version: &Version| match version.listing {
            _ if !version.is_whole() => None,
            Listing::Gone(since) => Some((since, version.number)),
            Listing::NotYet if unnamed => Some((version.arrived, version.number)),
            _ => None,
        };
        let oldest = self.files.values().flatten().filter_map(gone).min();
        if let Some((_, number)) = oldest {
            self.retain(|_, version| version.number != number);
        }
        oldest.is_some()
    }

    /// Marks what documents list, and what they do not any more.
    fn list(&mut self, now: Instant) {
        let documents = || self.documents.values().map(|(document, _)| document);
        let mut listed: HashMap<&ObjectKey, Vec<u32>, RandomState> = HashMap::default();
        for (path, label) in documents().flat_map(|d| d.listed.iter()) {
            listed.entry(path).or_default().push(*label);
        }
        let kept: HashSet<&ObjectKey> = documents().flat_map(|d| d.keep.iter()).collect();
        for (path, versions) in &mut self.files {
            // Not one that still arrives: it may break off.
            let newest = versions.iter().rposition(Version::is_whole);
            // One that a playlist listed before it had come. What has come under that label already is another's.
            let labels = listed.get(path).map_or(&[][..], Vec::as_slice);
            let missing = labels
                .iter()
                .copied()
                .filter(|label| versions.iter().all(|v| v.label != Some(*label)));
            let missing = missing.max();
            if let Some(last) = versions.last_mut().filter(|v| v.label.is_none() && v.is_whole())
                && missing.is_some()
            {
                last.label = missing;
            }
            for (at, version) in versions.iter_mut().enumerate() {
                let is_listed = version.label.is_some_and(|label| labels.contains(&label))
                    || newest == Some(at) && kept.contains(path);
                version.listing = match version.listing {
                    _ if is_listed => Listing::Listed,
                    Listing::Listed => Listing::Gone(now),
                    other => other,
                };
            }
        }
    }
}

impl Window {
    pub(super) fn new(stream: StreamId, config: &Arc<IngestConfig>, held: &Arc<AtomicU64>, writer: &Writer) -> Self {
        Self {
            stream,
            config: config.clone(),
            held: Arc::new(Held {
                own: AtomicU64::new(0),
                all: held.clone(),
            }),
            writer: writer.clone(),
            inner: Mutex::new(Inner::empty()),
            changed: Notify::new(),
        }
    }

    /// The window that was saved, as if it had come just now.
    pub(super) fn restored(
        stream: StreamId,
        saved: Saved,
        config: &Arc<IngestConfig>,
        held: &Arc<AtomicU64>,
        writer: &Writer,
    ) -> Self {
        let window = Self::new(stream, config, held, writer);
        let (now, wall) = (Instant::now(), SystemTime::now());
        let restored = |at: SystemTime| {
            let age = wall.duration_since(at).unwrap_or_default();
            now.checked_sub(age).unwrap_or(now)
        };
        // Where it is not told when a session began, what there is may be of it.
        let oldest = saved.files.iter().map(|(entry, _)| restored(entry.arrived)).min();
        let begins = saved.index.begins.iter().map(|(began, document)| Session {
            began: restored(*began),
            document: document.as_ref().and_then(|path| ObjectKey::new(path).ok()),
        });
        let untold = || Session::of_window(oldest.unwrap_or(now));
        let begins = begins.chain(std::iter::repeat_with(untold));
        let mut inner = Inner {
            sessions: begins.take(saved.index.session.max(1) as usize).collect(),
            next_number: saved.index.next_number.max(1),
            last_arrival: Some(now),
            ..Inner::empty()
        };
        for (entry, bytes) in saved.files {
            let (Ok(path), Ok(media_type)) = (ObjectKey::new(&entry.path), entry.media_type.parse()) else {
                continue;
            };
            inner.next_number = inner.next_number.max(entry.number + 1);
            inner.files.entry(path).or_default().push(Version {
                number: entry.number,
                label: entry.label,
                media_type,
                counted: Counted::new(&window.held, bytes.len() as u64),
                content: Stored::whole(entry.number, bytes, entry.crc),
                arrived: restored(entry.arrived),
                listing: if entry.was_listed {
                    Listing::Gone(now)
                } else {
                    Listing::NotYet
                },
            });
        }
        for versions in inner.files.values_mut() {
            versions.sort_unstable_by_key(|version| version.number);
        }
        for (path, document) in saved.index.documents {
            let Ok(path) = ObjectKey::new(&path) else { continue };
            let counted = window.weigh(&document.clone().into());
            inner.documents.insert(path, (document.into(), counted));
        }
        inner.list(now);
        *window.inner.lock() = inner;
        window
    }

    fn weigh(&self, document: &Document) -> Counted {
        let listed: usize = document.listed.iter().map(|(path, _)| path.as_str().len() + 32).sum();
        Counted::new(&self.held, (document.body.len() + document.state.len() + listed) as u64)
    }

    /// Whether there is room for so many bytes more, made where it can be.
    fn room(&self, inner: &mut Inner, bytes: u64, now: Instant) -> Result<(), PushError> {
        let limits = [
            ("live.stream", self.config.stream_bytes, &self.held.own),
            ("live.memory", self.config.memory_bytes, &*self.held.all),
        ];
        for (name, limit, held) in limits {
            let fits = || held.load(Ordering::Relaxed).saturating_add(bytes) <= limit;
            if !fits() {
                inner.expire(self.config.window, now);
            }
            while !fits() {
                if !inner.drop_oldest() {
                    return Err(PushError::Limit { name, limit });
                }
            }
        }
        Ok(())
    }

    /// Begins to take a file. `length` is what was stated of its length, in bytes.
    pub fn begin(
        self: &Arc<Self>,
        path: &ObjectKey,
        media_type: HeaderValue,
        length: Option<u64>,
    ) -> Result<Upload, PushError> {
        let now = Instant::now();
        let limit = |name, limit: u64| Err(PushError::Limit { name, limit });
        if length.is_some_and(|length| length > self.config.file_bytes) {
            return limit("live.segment", self.config.file_bytes);
        }
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(PushError::Closed);
        }
        inner.expire(self.config.window, now);
        if inner.uploads >= self.config.uploads {
            return limit("live.uploads", self.config.uploads as u64);
        }
        if inner.count() >= self.config.files && !inner.drop_oldest() {
            return limit("live.files", self.config.files as u64);
        }
        if inner
            .files
            .get(path)
            .and_then(|versions| versions.last())
            .is_some_and(|v| !v.is_whole())
        {
            return Err(PushError::Busy);
        }
        self.room(&mut inner, length.unwrap_or(0), now)?;
        let (number, arriving) = (inner.next_number, Arriving::new(length));
        inner.next_number += 1;
        inner.uploads += 1;
        inner.last_arrival = Some(now);
        inner.files.entry(path.clone()).or_default().push(Version {
            number,
            label: None,
            media_type,
            content: Stored::Arriving(arriving.clone()),
            arrived: now,
            listing: Listing::NotYet,
            counted: Counted::new(&self.held, 0),
        });
        drop(inner);
        self.changed.notify_waiters();
        Ok(Upload {
            window: self.clone(),
            path: path.clone(),
            number,
            arriving,
            length,
            received: 0,
            refused: None,
            finished: false,
        })
    }

    /// Forgets every version of a path. Who reads one reads on.
    pub fn delete(&self, path: &ObjectKey) -> bool {
        let mut inner = self.inner.lock();
        let Some(versions) = inner.files.get_mut(path) else {
            return false;
        };
        // What arrives is its upload's to end.
        versions.retain(|version| !version.is_whole());
        if versions.is_empty() {
            inner.files.remove(path);
        }
        self.save(&inner);
        true
    }

    /// A file, by the label that a playlist names it with. Without one: the first session's version, else the newest.
    pub fn read(&self, path: &ObjectKey, label: Option<u32>) -> Option<LiveFile> {
        let inner = self.inner.lock();
        let versions = inner.files.get(path)?;
        let labelled = versions.iter().rev().find(|v| v.label == Some(label.unwrap_or(1)));
        let newest = || match label {
            None => versions.last(),
            // What that session's playlists will list next; a manifest of DASH lists nothing by name.
            Some(label) => versions.iter().rev().find(|v| inner.is_of(label, v)),
        };
        labelled.or_else(newest).map(Version::file)
    }

    /// Waits for a file that is announced. `None` when the window has ended.
    pub async fn wait(&self, path: &ObjectKey, label: Option<u32>) -> Option<LiveFile> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            // From here on nothing is missed.
            changed.as_mut().enable();
            if let Some(file) = self.read(path, label) {
                return Some(file);
            }
            if self.inner.lock().closed {
                return None;
            }
            changed.await;
        }
    }

    /// The label of the newest version of a path: the one that it has, else this session's, which it gets.
    /// `None` when there is no such file, or it has not come to its end: it gets that label when it has, if a document
    /// lists it with it.
    pub fn pin(&self, path: &ObjectKey, session: u32) -> Option<u32> {
        let mut inner = self.inner.lock();
        let versions = inner.files.get_mut(path)?;
        let newest = versions.last_mut().filter(|v| v.is_whole())?;
        let (number, label) = (newest.number, *newest.label.get_or_insert(session));
        // An encoder that uses a name again within a session: the older one cannot be asked for any more.
        versions.retain(|v| v.number == number || v.label != Some(label));
        Some(label)
    }

    /// How often an encoder has begun anew, and one.
    pub fn session(&self) -> u32 {
        self.inner.lock().session()
    }

    /// An encoder has begun anew, as the document at `path` shows: the session from now on. What has come since `began` is
    /// its own.
    pub fn begin_session(&self, path: &ObjectKey, began: Instant) -> u32 {
        let mut inner = self.inner.lock();
        inner.sessions.push(Session {
            began,
            document: Some(path.clone()),
        });
        let session = inner.session();
        drop(inner);
        self.changed.notify_waiters();
        session
    }

    /// Publishes a document, in place of the last one of its path: what it lists is kept, what it does not list any more
    /// is kept for a window's time.
    pub fn publish(&self, path: &ObjectKey, document: Document) -> Result<(), PushError> {
        let now = Instant::now();
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(PushError::Closed);
        }
        let counted = self.weigh(&document);
        self.room(&mut inner, 0, now)?;
        inner.documents.insert(path.clone(), (document, counted));
        inner.list(now);
        inner.expire(self.config.window, now);
        inner.last_arrival = Some(now);
        self.save(&inner);
        Ok(())
    }

    /// What is published.
    pub fn documents(&self) -> Vec<(ObjectKey, Document)> {
        let inner = self.inner.lock();
        let documents = inner.documents.iter();
        documents
            .map(|(path, (document, _))| (path.clone(), document.clone()))
            .collect()
    }

    /// Takes a document back; whether there was one.
    pub fn withdraw(&self, path: &ObjectKey) -> bool {
        let mut inner = self.inner.lock();
        let withdrawn = inner.documents.remove(path).is_some();
        if withdrawn {
            inner.list(Instant::now());
            self.save(&inner);
        }
        withdrawn
    }

    /// Forgets all that has come. Labels are not used again: viewers may hold files of the same names.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        if inner.documents.is_empty() && !inner.files.values().flatten().any(Version::is_whole) {
            return;
        }
        inner.sessions.push(Session::of_window(Instant::now()));
        inner.documents.clear();
        inner.retain(|_, version| !version.is_whole());
        self.save(&inner);
    }

    /// When a byte came last.
    pub fn last_arrival(&self) -> Option<Instant> {
        self.inner.lock().last_arrival
    }

    /// Whether a file is arriving.
    pub fn is_uploading(&self) -> bool {
        self.inner.lock().uploads > 0
    }

    pub(super) fn expire(&self, now: Instant) {
        let mut inner = self.inner.lock();
        let before = inner.count();
        inner.expire(self.config.window, now);
        if inner.count() < before {
            self.save(&inner);
        }
    }

    /// Ends it for everybody.
    pub(super) fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        for version in inner.files.values().flatten() {
            if let Stored::Arriving(arriving) = &version.content {
                arriving.break_off();
            }
        }
        inner.files.clear();
        inner.documents.clear();
        self.save(&inner);
        drop(inner);
        self.changed.notify_waiters();
    }

    /// Has the window written to disk, under its lock: plans come in the order of what they are of.
    fn save(&self, inner: &Inner) {
        self.writer.save(self.stream, Self::plan(inner));
    }

    /// What is to be on disk. `None` when the stream is no more.
    fn plan(inner: &Inner) -> Option<Plan> {
        if inner.closed {
            return None;
        }
        let (now, wall) = (Instant::now(), SystemTime::now());
        let told = |at: Instant| {
            let age = now.saturating_duration_since(at);
            wall.checked_sub(age).unwrap_or(wall)
        };
        let mut plan = Plan {
            index: Index {
                session: inner.session(),
                begins: inner
                    .sessions
                    .iter()
                    .map(|session| {
                        (
                            told(session.began),
                            session.document.as_ref().map(|path| path.as_str().to_owned()),
                        )
                    })
                    .collect(),
                next_number: inner.next_number,
                files: Vec::new(),
                documents: Vec::new(),
            },
            contents: Vec::new(),
            documents: inner
                .documents
                .iter()
                .map(|(path, (document, _))| (path.clone(), document.clone()))
                .collect(),
        };
        for (path, version) in inner
            .files
            .iter()
            .flat_map(|(path, all)| all.iter().map(move |v| (path, v)))
        {
            let Stored::Whole { bytes, crc, .. } = &version.content else {
                continue;
            };
            plan.index.files.push(IndexEntry {
                number: version.number,
                path: path.as_str().to_owned(),
                label: version.label,
                media_type: version.media_type.to_str().unwrap_or_default().to_owned(),
                length: bytes.len() as u64,
                crc: *crc,
                arrived: told(version.arrived),
                was_listed: version.listing != Listing::NotYet,
            });
            plan.contents.push((version.number, bytes.clone()));
        }
        Some(plan)
    }
}
