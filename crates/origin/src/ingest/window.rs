//! One stream's window.

mod contents;
mod saved;
mod upload;

pub use upload::Upload;

use super::{Document, IngestConfig, LiveFile, PushError, arriving::Arriving, disk::Writer};
use contents::{Counted, Held, Inner, Listing, Session, Stored, Version};
use edgeweir_model::{ObjectKey, StreamId};
use http::HeaderValue;
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
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
            inner: Mutex::new(Inner::empty(Instant::now())),
            changed: Notify::new(),
        }
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
}
