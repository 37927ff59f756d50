//! Windows on disk, so that a restart finds them: `live/<stream id>/<number>` for each file, and an index.
//!
//! One thread writes behind: files first, then the index in place of the last one, then what is no more goes. However the
//! process ends, the index names files that are whole; each is held against its length and CRC-32 all the same. There is no
//! sync: what a failure of power takes is a minute of a live stream.

use super::Document;
use bytes::Bytes;
use edgeweir_model::{ObjectKey, StreamId};
use foldhash::fast::RandomState;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

const INDEX: &str = "index.json";

/// How long what changes is gathered before it is written.
const GATHERED: Duration = Duration::from_millis(50);

/// The list of what is in a window's folder.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Index {
    pub(super) session: u32,
    /// When each session began, and by which document; none in what was written before that was told.
    #[serde(default)]
    pub(super) begins: Vec<(SystemTime, Option<String>)>,
    pub(super) next_number: u64,
    pub(super) files: Vec<IndexEntry>,
    pub(super) documents: Vec<(String, SavedDocument)>,
}

/// A file in it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct IndexEntry {
    pub(super) number: u64,
    pub(super) path: String,
    pub(super) label: Option<u32>,
    pub(super) media_type: String,
    pub(super) length: u64,
    pub(super) crc: u32,
    pub(super) arrived: SystemTime,
    pub(super) was_listed: bool,
}

/// A document in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedDocument {
    body: String,
    state: String,
    listed: Vec<(String, u32)>,
    keep: Vec<String>,
    lasts: Duration,
}

impl From<&Document> for SavedDocument {
    fn from(document: &Document) -> Self {
        let text = |path: &ObjectKey| path.as_str().to_owned();
        Self {
            body: document.body.to_string(),
            state: document.state.to_string(),
            listed: document
                .listed
                .iter()
                .map(|(path, label)| (text(path), *label))
                .collect(),
            keep: document.keep.iter().map(text).collect(),
            lasts: document.lasts,
        }
    }
}

impl From<SavedDocument> for Document {
    fn from(saved: SavedDocument) -> Self {
        let path = |text: &str| ObjectKey::new(text).ok();
        Self {
            body: saved.body.into(),
            state: saved.state.into(),
            lasts: saved.lasts,
            listed: saved
                .listed
                .iter()
                .filter_map(|(text, label)| Some((path(text)?, *label)))
                .collect(),
            keep: saved.keep.iter().filter_map(|text| path(text)).collect(),
        }
    }
}

/// What is to be on disk of a window.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) index: Index,
    /// The files' contents, by number.
    pub(super) contents: Vec<(u64, Bytes)>,
    /// The documents, which the index gets when it is written.
    pub(super) documents: Vec<(ObjectKey, Document)>,
}

/// What was found of a window.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) index: Index,
    pub(super) files: Vec<(IndexEntry, Bytes)>,
}

/// Writes windows to disk. Cheap to clone; its thread ends with the last one.
#[derive(Debug, Clone)]
pub(super) struct Writer(Arc<Handle>);

#[derive(Debug)]
struct Handle(Arc<Queue>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.state.lock().closing = true;
        self.0.changed.notify_all();
    }
}

#[derive(Debug)]
struct Queue {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The last plan of each window; `None` to remove it.
    plans: HashMap<StreamId, Option<Plan>, RandomState>,
    writing: bool,
    /// How many wait for all to be written.
    flushing: usize,
    closing: bool,
}

impl Writer {
    /// Starts a writer for this folder, which is made.
    pub(super) fn start(folder: &Path) -> io::Result<Self> {
        make(folder)?;
        let queue = Arc::new(Queue {
            folder: folder.to_owned(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let thread = Thread {
            queue: queue.clone(),
            written: HashMap::default(),
            failing: false,
        };
        std::thread::Builder::new()
            .name("live-window".to_owned())
            .spawn(move || thread.run())?;
        Ok(Self(Arc::new(Handle(queue))))
    }

    /// Has a window written, or removed, in place of what was last asked for.
    pub(super) fn save(&self, stream: StreamId, plan: Option<Plan>) {
        self.0.0.state.lock().plans.insert(stream, plan);
        self.0.0.changed.notify_all();
    }

    /// Waits until everything so far is written, or could not be.
    pub(super) fn flush(&self) {
        let queue = &self.0.0;
        let mut state = queue.state.lock();
        state.flushing += 1;
        queue.changed.notify_all();
        while state.writing || !state.plans.is_empty() {
            queue.changed.wait(&mut state);
        }
        state.flushing -= 1;
    }

    /// What is on disk. A window that cannot be read is told, and is none.
    pub(super) fn saved(&self) -> Vec<(StreamId, Saved)> {
        let Ok(entries) = fs::read_dir(&self.0.0.folder) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        for entry in entries.flatten() {
            let Some(stream) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match read(&entry.path()) {
                Ok(saved) => found.push((stream, saved)),
                Err(error) => {
                    tracing::warn!(%stream, %error, "the window of a live stream cannot be read; it begins anew");
                    // The stream may be no more: nobody else would remove it.
                    if let Err(error) = fs::remove_dir_all(entry.path()) {
                        tracing::warn!(%stream, %error, "nor can it be removed");
                    }
                }
            }
        }
        found
    }
}

fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn read(folder: &Path) -> io::Result<Saved> {
    let mut index: Index = serde_json::from_slice(&fs::read(folder.join(INDEX))?)?;
    let mut files = Vec::new();
    for entry in std::mem::take(&mut index.files) {
        // One that is missing, torn or changed is none.
        let bytes = fs::read(folder.join(entry.number.to_string())).unwrap_or_default();
        if bytes.len() as u64 == entry.length && crc32fast::hash(&bytes) == entry.crc {
            files.push((entry, bytes.into()));
        }
    }
    Ok(Saved { index, files })
}

struct Thread {
    queue: Arc<Queue>,
    /// The numbers of the files that are on disk. What an earlier process left is not known, and goes with the first plan.
    written: HashMap<StreamId, HashSet<u64>, RandomState>,
    failing: bool,
}

impl Thread {
    fn run(mut self) {
        while let Some(plans) = self.next() {
            for (stream, plan) in plans {
                let done = match plan {
                    Some(mut plan) => self.write(stream, &mut plan),
                    None => self.remove(stream),
                };
                match done {
                    Err(error) if !self.failing => {
                        tracing::warn!(%error, "windows of live streams cannot be written; they go on in memory");
                        self.failing = true;
                    }
                    Err(_) => {}
                    Ok(()) => self.failing = false,
                }
            }
            self.queue.state.lock().writing = false;
            self.queue.changed.notify_all();
        }
    }

    /// The next plans, gathered for a while; `None` when nobody makes any more.
    fn next(&self) -> Option<HashMap<StreamId, Option<Plan>, RandomState>> {
        let mut state = self.queue.state.lock();
        while state.plans.is_empty() {
            if state.closing {
                return None;
            }
            self.queue.changed.wait(&mut state);
        }
        if !state.closing && state.flushing == 0 {
            drop(state);
            std::thread::sleep(GATHERED);
            state = self.queue.state.lock();
        }
        state.writing = true;
        Some(std::mem::take(&mut state.plans))
    }

    fn write(&mut self, stream: StreamId, plan: &mut Plan) -> io::Result<()> {
        let folder = self.queue.folder.join(stream.to_string());
        make(&folder)?;
        let is_new = !self.written.contains_key(&stream);
        let written = self.written.entry(stream).or_default();
        let mut put = || {
            for (number, bytes) in &plan.contents {
                if !written.contains(number) {
                    replace(&folder, &number.to_string(), bytes)?;
                    written.insert(*number);
                }
            }
            let documents = plan.documents.iter();
            plan.index.documents = documents
                .map(|(path, document)| (path.as_str().to_owned(), document.into()))
                .collect();
            replace(&folder, INDEX, &serde_json::to_vec(&plan.index)?)
        };
        let put = put();
        // Also when the disk is full: what goes is what makes room.
        let wanted: HashSet<u64> = plan.contents.iter().map(|(number, _)| *number).collect();
        let swept = if is_new { sweep(&folder, &wanted) } else { Ok(()) };
        for number in written.extract_if(|number| !wanted.contains(number)) {
            // One that stays is swept at the next start.
            let _ = fs::remove_file(folder.join(number.to_string()));
        }
        put.and(swept)
    }

    fn remove(&mut self, stream: StreamId) -> io::Result<()> {
        self.written.remove(&stream);
        match fs::remove_dir_all(self.queue.folder.join(stream.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}

/// Removes what an earlier process left and the window does not hold.
fn sweep(folder: &Path, wanted: &HashSet<u64>) -> io::Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        if name != INDEX && number.is_none_or(|number| !wanted.contains(&number)) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Writes a file in place of the one of its name, whole or not at all.
fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!("{name}.part"));
    let put = || {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&unfinished)?;
        file.write_all(bytes)?;
        fs::rename(&unfinished, folder.join(name))
    };
    let put = put();
    if put.is_err() {
        // A full disk needs its room; nobody else knows of it before the next start.
        let _ = fs::remove_file(&unfinished);
    }
    put
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        // Not a matter of permissions, which the superuser does not mind.
        fs::create_dir_all(folder.path().join("1/in the way")).unwrap();
        assert!(replace(folder.path(), "1", b"content").is_err());
        let left = fs::read_dir(folder.path())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name());
        assert_eq!(left.collect::<Vec<_>>(), ["1"]);
    }
}
