//! What encoders push to live streams: a window of files for each, in memory first, bounded, and written to disk behind.
//!
//! A file can be read while it arrives. One that breaks off is never served as whole. A name that is pushed again is
//! another version of it; playlists list versions, and keep those that they list. What the files mean is not known here.

mod arriving;
mod disk;
mod window;

pub use arriving::ArrivingBody;
pub use window::{Upload, Window};

use bytes::Bytes;
use disk::Writer;
use edgeweir_model::{ObjectKey, StreamId};
use foldhash::fast::RandomState;
use http::HeaderValue;
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

/// What windows may hold.
#[derive(Debug, Clone)]
pub struct IngestConfig {
    /// The folder that holds `live/`.
    pub data_dir: PathBuf,
    /// Bytes of all windows together.
    pub memory_bytes: u64,
    /// Bytes of one stream's window.
    pub stream_bytes: u64,
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Files of one stream, by count.
    pub files: usize,
    /// Files of one stream that may arrive at a time.
    pub uploads: usize,
    /// For how long a file is kept that no playlist lists.
    pub window: Duration,
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("."),
            memory_bytes: 1 << 30,
            stream_bytes: 256 << 20,
            file_bytes: 64 << 20,
            files: 4096,
            uploads: 64,
            window: Duration::from_secs(60),
        }
    }
}

/// Why a file is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// It would go over a limit.
    #[error("over the limit {name}: {limit}")]
    Limit {
        /// The limit's name in the configuration.
        name: &'static str,
        /// The limit, in bytes or by count.
        limit: u64,
    },
    /// A file of this name is arriving from somebody else.
    #[error("a file of this name is arriving already")]
    Busy,
    /// It ended before its stated length, or went on past it.
    #[error("the file is not as long as was stated")]
    Length,
    /// The stream is no more.
    #[error("the stream is no more")]
    Closed,
}

/// A playlist or manifest as it is published. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    /// The text.
    pub body: Arc<str>,
    /// Whatever its publisher needs to go on after a restart.
    pub state: Arc<str>,
    /// The versions that it lists, by path and label. They are kept.
    pub listed: Arc<[(ObjectKey, u32)]>,
    /// Paths that it needs, whatever their version.
    pub keep: Arc<[ObjectKey]>,
    /// For how long it needs what it does not list, where that is longer than a window's time.
    pub lasts: Duration,
}

/// A file of a window.
#[derive(Debug)]
pub struct LiveFile {
    /// Its media type.
    pub media_type: HeaderValue,
    /// Another one for each version (RFC 9110 §8.8.3). `None` while it arrives.
    pub etag: Option<HeaderValue>,
    /// Its content.
    pub content: Content,
}

/// The content of a [`LiveFile`].
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Bytes),
    /// From its first byte on, as it comes.
    Arriving(ArrivingBody),
}

type Windows = HashMap<StreamId, Arc<Window>, RandomState>;

/// The windows of all streams. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Arc<IngestConfig>,
    windows: RwLock<Windows>,
    /// Bytes that all windows hold.
    held: Arc<AtomicU64>,
    writer: Writer,
}

impl Ingest {
    /// Takes back what survived of the windows. Reads files; to be called once, at the start.
    pub fn open(config: IngestConfig) -> io::Result<Self> {
        let (config, held) = (Arc::new(config), Arc::default());
        let writer = Writer::start(&config.data_dir.join("live"))?;
        let mut windows = Windows::default();
        for (stream, saved) in writer.saved() {
            let window = Window::restored(stream, saved, &config, &held, &writer);
            windows.insert(stream, Arc::new(window));
        }
        Ok(Self(Arc::new(Shared {
            config,
            windows: RwLock::new(windows),
            held,
            writer,
        })))
    }

    /// A stream's window, made when there is none.
    pub fn window(&self, stream: StreamId) -> Arc<Window> {
        if let Some(window) = self.find(stream) {
            return window;
        }
        let mut windows = self.0.windows.write();
        let new = || Arc::new(Window::new(stream, &self.0.config, &self.0.held, &self.0.writer));
        windows.entry(stream).or_insert_with(new).clone()
    }

    /// A stream's window, if there is one.
    pub fn find(&self, stream: StreamId) -> Option<Arc<Window>> {
        self.0.windows.read().get(&stream).cloned()
    }

    /// Ends the windows of all other streams: uploads and readers see that, and the files go.
    pub fn retain(&self, keep: impl Fn(StreamId) -> bool) {
        // Closed under the lock: a window made anew for the same stream must be written after this one is removed.
        self.0.windows.write().retain(|stream, window| {
            let stays = keep(*stream);
            if !stays {
                window.close();
            }
            stays
        });
    }

    /// Drops what has been kept for long enough.
    pub fn expire(&self, now: Instant) {
        let windows: Vec<_> = self.0.windows.read().values().cloned().collect();
        for window in windows {
            window.expire(now);
        }
    }

    /// Waits until everything that came so far is on disk, or the disk has failed.
    pub async fn flush(&self) {
        let this = self.clone();
        // It ends early only when the runtime does.
        let _ = tokio::task::spawn_blocking(move || this.0.writer.flush()).await;
    }
}

#[cfg(test)]
mod tests;
