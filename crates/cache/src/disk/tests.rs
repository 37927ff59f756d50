//! Tests from inside: with a file system that fails as told, a clock that is set, and files that are damaged.

mod damage;
mod faults;
mod keeping;
mod measure;
mod recovering;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;

use super::{
    Disk, DiskConfig, Found, Put, Record,
    files::{Files, System},
};

/// The system's files, some of whose operations fail.
#[derive(Default)]
pub(crate) struct Faulty {
    faults: Mutex<Faults>,
    /// Writes wait while this is set.
    gate: (Mutex<bool>, Condvar),
    /// Reads wait while this is set.
    hang: (Mutex<bool>, Condvar),
    /// Nothing is in the system's memory.
    cold: AtomicBool,
    /// Bytes read.
    read: AtomicU64,
}

#[derive(Default, Clone)]
pub(crate) struct Faults {
    claim: Option<Errno>,
    pub(crate) create: Option<Errno>,
    pub(crate) remove: Option<Errno>,
    read: Option<Errno>,
    pub(crate) write: Option<Errno>,
    pub(crate) sync: Option<Errno>,
    /// The folder, and the bytes that its disk has.
    pub(crate) full: Option<(PathBuf, u64)>,
}

impl Faulty {
    pub(crate) fn set(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.faults.lock());
    }

    fn fails(&self, which: impl Fn(&Faults) -> Option<Errno>) -> io::Result<()> {
        which(&self.faults.lock()).map_or(Ok(()), |error| Err(error.into()))
    }

    pub(crate) fn shut(&self, shut: bool) {
        *self.gate.0.lock() = shut;
        self.gate.1.notify_all();
    }

    /// Whether reads wait; they must be let go before the test ends. Nothing is in the system's memory from now on.
    pub(crate) fn hang(&self, hangs: bool) {
        self.cold.store(true, Ordering::Relaxed);
        *self.hang.0.lock() = hangs;
        self.hang.1.notify_all();
    }

    /// How many of `wanted` bytes the disk has room for.
    fn room(&self, wanted: usize) -> io::Result<usize> {
        let Some((dir, bytes)) = self.faults.lock().full.clone() else {
            return Ok(wanted);
        };
        match wanted.min(bytes.saturating_sub(on_disk(&dir)) as usize) {
            0 => Err(Errno::NOSPC.into()),
            room => Ok(room),
        }
    }
}

impl Files for Faulty {
    fn claim(&self, dir: &Path) -> io::Result<File> {
        self.fails(|faults| faults.claim)?;
        System.claim(dir)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        System.names(dir)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        self.fails(|faults| faults.create)?;
        System.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<(File, u64)> {
        System.open(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.fails(|faults| faults.remove)?;
        System.remove(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        System.rename(from, to)
    }

    fn sync_names(&self, dir: &Path) -> io::Result<()> {
        self.fails(|faults| faults.sync)?;
        System.sync_names(dir)
    }

    fn read_now(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.cold.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.fails(|faults| faults.read)?;
        System.read_now(file, into, offset)
    }

    fn read(&self, file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut hangs = self.hang.0.lock();
        while *hangs {
            self.hang.1.wait(&mut hangs);
        }
        drop(hangs);
        self.fails(|faults| faults.read)?;
        let read = System.read(file, into, offset)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn write(&self, file: &File, from: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut shut = self.gate.0.lock();
        while *shut {
            self.gate.1.wait(&mut shut);
        }
        drop(shut);
        self.fails(|faults| faults.write)?;
        let room = self.room(from.iter().map(|part| part.len()).sum())?;
        let whole: Vec<u8> = from.iter().flat_map(|part| part.iter().copied()).take(room).collect();
        System.write(file, &[IoSlice::new(&whole)], offset)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        self.fails(|faults| faults.write)?;
        System.truncate(file, len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.fails(|faults| faults.sync)?;
        System.sync(file)
    }
}

/// A tier in a folder of its own, and what it stands on.
struct Bench {
    files: Arc<Faulty>,
    clock: Arc<Mutex<Instant>>,
    config: DiskConfig,
    dir: tempfile::TempDir,
}

impl Bench {
    /// Of so many bytes, in segments of so many.
    fn new(bytes: u64, segment_bytes: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(Mutex::new(Instant::now()));
        let config = DiskConfig {
            segment_bytes,
            queue_bytes: 64 << 20,
            clock: {
                let clock = clock.clone();
                Arc::new(move || *clock.lock())
            },
            ..DiskConfig::new(dir.path().join("tier"), bytes)
        };
        Self {
            files: Arc::default(),
            clock,
            config,
            dir,
        }
    }

    fn open(&self) -> Disk {
        Disk::open_with(self.config.clone(), self.files.clone()).unwrap()
    }

    fn pass(&self, time: Duration) {
        *self.clock.lock() += time;
    }

    fn tier(&self) -> &Path {
        &self.config.dir
    }

    /// The segments' files by name.
    fn segments(&self) -> BTreeMap<PathBuf, u64> {
        segments(self.tier())
    }
}

fn segments(dir: &Path) -> BTreeMap<PathBuf, u64> {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter(|file| file.path().extension().is_some_and(|extension| extension == "seg"))
        // One that goes in between has no length.
        .filter_map(|file| Some((file.path(), file.metadata().ok()?.len())))
        .collect()
}

pub(crate) fn on_disk(dir: &Path) -> u64 {
    segments(dir).values().sum()
}

fn meta(key: u128, variant: u64) -> Bytes {
    format!("meta of {key}, {variant}").into()
}

/// A body that tells what it is of.
fn body(key: u128, variant: u64, len: usize) -> Bytes {
    let mark = [&key.to_le_bytes()[..], &variant.to_le_bytes()].concat();
    mark.into_iter().cycle().take(len).collect()
}

fn put(disk: &Disk, key: u128, len: usize) -> Put {
    disk.put(key, 0, meta(key, 0), body(key, 0, len))
}

/// What is found of a key, however it must be read.
fn get(disk: &Disk, key: u128) -> Vec<Record> {
    match disk.get(key) {
        Found::Absent => Vec::new(),
        Found::Ready(records) => records,
        Found::Wait(wait) => wait.finish(),
    }
}

/// Whether the record that [`put`] stored is found; it must be the right one then.
fn has(disk: &Disk, key: u128) -> bool {
    let found = get(disk, key);
    for record in &found {
        assert_eq!(
            (&record.meta, record.variant),
            (&meta(key, 0), 0),
            "meta of another record"
        );
        assert_eq!(record.body, body(key, 0, record.body.len()), "another body");
    }
    assert!(found.len() <= 1);
    !found.is_empty()
}

/// The keys among `keys` that are found.
fn found(disk: &Disk, keys: impl IntoIterator<Item = u128>) -> Vec<u128> {
    keys.into_iter().filter(|key| has(disk, *key)).collect()
}
