//! What a window holds: the versions of each path, what documents list of them, and which run of the encoder each is of.
//! No lock and no clock: [`Window`](super::Window) has those.

use crate::ingest::{Content, Document, LiveFile, arriving::Arriving};
use bytes::Bytes;
use edgeweir_model::ObjectKey;
use foldhash::fast::RandomState;
use http::HeaderValue;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Bytes that a window holds, and all windows.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) own: AtomicU64,
    pub(super) all: Arc<AtomicU64>,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted {
    held: Arc<Held>,
    bytes: u64,
}

impl Counted {
    pub(super) fn new(held: &Arc<Held>, bytes: u64) -> Self {
        let mut counted = Self {
            held: held.clone(),
            bytes: 0,
        };
        counted.add(bytes);
        counted
    }

    pub(super) fn add(&mut self, bytes: u64) {
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
pub(super) struct Version {
    /// Another one for each version of the stream.
    pub(super) number: u64,
    /// The session in which a playlist listed it first.
    pub(super) label: Option<u32>,
    pub(super) media_type: HeaderValue,
    pub(super) content: Stored,
    /// When it was whole, or began to arrive.
    pub(super) arrived: Instant,
    pub(super) listing: Listing,
    pub(super) counted: Counted,
}

#[derive(Debug)]
pub(super) enum Stored {
    Arriving(Arc<Arriving>),
    Whole { bytes: Bytes, crc: u32, etag: HeaderValue },
}

/// Whether a document lists a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listing {
    NotYet,
    Listed,
    /// Not any more, since then.
    Gone(Instant),
}

impl Version {
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.content, Stored::Whole { .. })
    }

    /// Since when nobody needs it.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match self.listing {
            Listing::Listed => None,
            _ if !self.is_whole() => None,
            Listing::NotYet => Some(self.arrived),
            Listing::Gone(since) => Some(since),
        }
    }

    pub(super) fn file(&self) -> LiveFile {
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
    pub(super) fn whole(number: u64, bytes: Bytes, crc: u32) -> Self {
        let etag = HeaderValue::from_str(&format!("\"{number:x}-{crc:08x}\"")).expect("it is ASCII");
        Self::Whole { bytes, crc, etag }
    }
}

pub(super) type Files = HashMap<ObjectKey, Vec<Version>, RandomState>;

/// A run of an encoder as one document tells it from the run before: each document that does begins a session for it.
#[derive(Debug)]
pub(super) struct Session {
    /// What came before is of an earlier one, unless a document has listed it since.
    pub(super) began: Instant,
    /// The document; none for what the window began itself.
    pub(super) document: Option<ObjectKey>,
}

impl Session {
    pub(super) fn of_window(began: Instant) -> Self {
        Self { began, document: None }
    }
}

#[derive(Debug)]
pub(super) struct Inner {
    /// The versions of each path, the oldest first.
    pub(super) files: Files,
    pub(super) documents: HashMap<ObjectKey, (Document, Counted), RandomState>,
    pub(super) sessions: Vec<Session>,
    pub(super) next_number: u64,
    pub(super) uploads: usize,
    pub(super) last_arrival: Option<Instant>,
    pub(super) closed: bool,
}

impl Inner {
    pub(super) fn empty(now: Instant) -> Self {
        Self {
            files: Files::default(),
            documents: HashMap::default(),
            sessions: vec![Session::of_window(now)],
            next_number: 1,
            uploads: 0,
            last_arrival: None,
            closed: false,
        }
    }

    pub(super) fn version(&mut self, path: &ObjectKey, number: u64) -> Option<&mut Version> {
        self.files.get_mut(path)?.iter_mut().find(|v| v.number == number)
    }

    pub(super) fn session(&self) -> u32 {
        self.sessions.len() as u32
    }

    /// Whether it has come since this session began, and is listed by no document, or by another one of the same run.
    pub(super) fn is_of(&self, session: u32, version: &Version) -> bool {
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

    pub(super) fn count(&self) -> usize {
        self.files.values().map(Vec::len).sum()
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&ObjectKey, &Version) -> bool) {
        self.files.retain(|path, versions| {
            versions.retain(|version| keep(path, version));
            !versions.is_empty()
        });
    }

    pub(super) fn expire(&mut self, window: Duration, now: Instant) {
        let lasts = self.documents.values().map(|(document, _)| document.lasts).max();
        let window = window.max(lasts.unwrap_or_default());
        self.retain(|_, version| {
            let idle = version.idle_since();
            idle.is_none_or(|since| now.saturating_duration_since(since) < window)
        });
    }

    /// Drops the version that was listed once and is so no more for the longest time; whether there was one. Where documents
    /// list nothing by name, it is the oldest.
    pub(super) fn drop_oldest(&mut self) -> bool {
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
    pub(super) fn list(&mut self, now: Instant) {
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
