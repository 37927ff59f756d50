//! A window on disk: what is written of it, and how it comes back. Times are told by the wall clock there.

use super::{
    Window,
    contents::{Counted, Inner, Listing, Session, Stored, Version},
};
use crate::ingest::{
    IngestConfig,
    disk::{Index, IndexEntry, Plan, Saved, Writer},
};
use edgeweir_model::{ObjectKey, StreamId};
use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Instant, SystemTime},
};

impl Window {
    /// The window that was saved, as if it had come just now.
    pub(in crate::ingest) fn restored(
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
            ..Inner::empty(now)
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

    /// Has the window written to disk, under its lock: plans come in the order of what they are of.
    pub(super) fn save(&self, inner: &Inner) {
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
