//! One file on its way into a window.

use super::{Window, contents::Stored};
use crate::ingest::{PushError, arriving::Arriving};
use bytes::Bytes;
use edgeweir_model::ObjectKey;
use std::{sync::Arc, time::Instant};

/// A file that arrives. Dropped before it is finished, it was never there, and its readers see it break off.
#[derive(Debug)]
pub struct Upload {
    pub(super) window: Arc<Window>,
    pub(super) path: ObjectKey,
    pub(super) number: u64,
    pub(super) arriving: Arc<Arriving>,
    pub(super) length: Option<u64>,
    pub(super) received: u64,
    /// Why no more is taken.
    pub(super) refused: Option<PushError>,
    pub(super) finished: bool,
}

impl Upload {
    /// Takes more of it; readers have it at once. An error breaks it off, and is given again after that.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), PushError> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let received = self.received + chunk.len() as u64;
        if let Err(error) = self.grow(received) {
            self.refused = Some(error);
            self.abandon();
            return Err(error);
        }
        self.received = received;
        self.arriving.push(chunk);
        Ok(())
    }

    /// Makes room for so many bytes in all.
    fn grow(&self, received: u64) -> Result<(), PushError> {
        if self.length.is_some_and(|length| received > length) {
            return Err(PushError::Length);
        }
        let limit = self.window.config.file_bytes;
        if received > limit {
            let name = "live.segment";
            return Err(PushError::Limit { name, limit });
        }
        let (now, bytes) = (Instant::now(), received - self.received);
        let mut inner = self.window.inner.lock();
        if inner.closed {
            return Err(PushError::Closed);
        }
        self.window.room(&mut inner, bytes, now)?;
        inner.last_arrival = Some(now);
        if let Some(version) = inner.version(&self.path, self.number) {
            version.counted.add(bytes);
        }
        Ok(())
    }

    /// Ends it: from now on it is a file.
    pub fn finish(mut self) -> Result<(), PushError> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        if self.length.is_some_and(|length| self.received != length) {
            return Err(PushError::Length);
        }
        let bytes = self.arriving.joined();
        let crc = crc32fast::hash(&bytes);
        let now = Instant::now();
        let mut inner = self.window.inner.lock();
        if inner.closed {
            return Err(PushError::Closed);
        }
        self.finished = true;
        self.arriving.finish(bytes.clone());
        inner.last_arrival = Some(now);
        if let Some(version) = inner.version(&self.path, self.number) {
            version.content = Stored::whole(self.number, bytes, crc);
            // A slow one may have taken longer than unlisted files are kept.
            version.arrived = now;
        }
        // One that was kept whatever its version may be another now.
        inner.list(now);
        self.window.save(&inner);
        drop(inner);
        self.window.changed.notify_waiters();
        Ok(())
    }

    /// Takes away what came of it, and ends its readers.
    fn abandon(&self) {
        self.window
            .inner
            .lock()
            .retain(|_, version| version.number != self.number);
        self.arriving.break_off();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.finished {
            self.abandon();
        }
        self.window.inner.lock().uploads -= 1;
    }
}
