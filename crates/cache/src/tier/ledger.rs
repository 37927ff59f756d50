//! What was purged, written down so that it stays so after a restart.
//!
//! Noting a purge never waits for the disk. Who must know that it is durable waits for [`Ledger::flush`], which one thread
//! runs at a time. No journal at all is safe, too: a start without one uses nothing that is stored. So where a purge cannot
//! be written down, the journal goes, and comes back with all that was purged once it can be written again.

use crate::{
    disk::{self, Files, is_full, journal::Journal},
    purges::Purges,
};
use parking_lot::Mutex;
use std::{
    fmt, io, mem,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::OwnedMutexGuard;

/// The largest journal that is not written anew, in bytes, and by how much it may grow until that is tried again.
const JOURNAL_BYTES: u64 = 4 << 20;
const RETRY_BYTES: u64 = JOURNAL_BYTES / 4;

/// How many entries of the change log, and how long, may pass until it is written down how far it was followed. What comes
/// twice after a restart harms nothing; the log is kept for days.
const SETTLE_AFTER: (u64, Duration) = (256, Duration::from_secs(60 * 60));

#[derive(Debug)]
pub(super) struct Ledger {
    /// Locked for moments alone, also where requests are served.
    notes: Mutex<Notes>,
    /// Locked while the disk is waited for.
    file: Mutex<JournalFile>,
    /// Who is to write next, waited for without a thread.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What is to be written down.
#[derive(Debug, Default)]
struct Notes {
    waiting: Vec<Vec<u8>>,
    /// How many there have been, and how many of them a restart would know or need not know.
    noted: u64,
    kept: u64,
    /// The last entry of the change log that was noted, and when.
    settled: Option<(u64, Instant)>,
    /// There is no journal.
    is_lost: bool,
}

impl Notes {
    fn note(&mut self, record: Vec<u8>) {
        self.waiting.push(record);
        self.noted += 1;
    }
}

impl Ledger {
    /// Opens the journal in `dir`, and gives what was purged before. Without one that can be read, what is stored cannot be
    /// told from what was purged, and goes. Where there is no room to begin it for this process, the oldest segment goes.
    pub(super) fn open(files: Arc<dyn Files>, dir: &Path) -> io::Result<(Self, Purges)> {
        let path = dir.join(disk::JOURNAL);
        let restored = Journal::open(files.clone(), &path).and_then(|(journal, records)| {
            let purges = Purges::restore(records.iter().map(|record| &**record));
            Ok((journal, purges.map_err(io::Error::other)?))
        });
        let (journal, purges) = match restored {
            Ok((journal, purges)) => (Some(journal), purges),
            Err(error) => {
                let removed = disk::remove_segments(&*files, dir)?;
                if removed > 0 {
                    tracing::warn!(%error, "the disk cache starts anew: its journal of purges is missing or damaged");
                }
                (None, Purges::new())
            }
        };
        let limit = JOURNAL_BYTES;
        let mut file = JournalFile {
            files,
            path,
            journal,
            limit,
        };
        let begun = match file.begin(&purges) {
            Err(error) if is_full(&error) && disk::remove_oldest(&*file.files, dir)? => file.begin(&purges),
            begun => begun,
        };
        if let Err(error) = begun {
            file.give_up(&error)?;
        }
        let notes = Notes {
            is_lost: file.journal.is_none(),
            ..Notes::default()
        };
        let ledger = Self {
            notes: Mutex::new(notes),
            file: Mutex::new(file),
            turn: Arc::default(),
        };
        Ok((ledger, purges))
    }

    /// Notes a purge.
    pub(super) fn note(&self, record: Vec<u8>) {
        self.notes.lock().note(record);
    }

    /// Notes how far the change log was followed, when that is worth it.
    pub(super) fn settle(&self, purges: &Purges, sequence: u64) {
        let mut notes = self.notes.lock();
        let is_due = notes
            .settled
            .is_none_or(|(last, at)| last.saturating_add(SETTLE_AFTER.0) < sequence || at.elapsed() > SETTLE_AFTER.1);
        if is_due || notes.is_lost || !notes.waiting.is_empty() {
            notes.note(purges.settle(sequence));
            notes.settled = Some((sequence, Instant::now()));
        }
    }

    /// How much was noted until now.
    pub(super) fn noted(&self) -> u64 {
        self.notes.lock().noted
    }

    /// Whether a restart comes to nothing that so much of what was noted purges.
    pub(super) fn has_kept(&self, noted: u64) -> bool {
        self.notes.lock().kept >= noted
    }

    /// Waits for the others that write.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        self.turn.clone().lock_owned().await
    }

    /// Writes down what was noted, to survive a failure of power. Blocks for a disk's sync. After an error, what is stored
    /// must go.
    pub(super) fn flush(&self, purges: &Purges) -> io::Result<()> {
        let mut file = self.file.lock();
        let (records, noted) = {
            let mut notes = self.notes.lock();
            (mem::take(&mut notes.waiting), notes.noted)
        };
        if records.is_empty() && file.journal.is_some() {
            return Ok(());
        }
        let written = file.write(&records, purges);
        let mut notes = self.notes.lock();
        notes.is_lost = file.journal.is_none();
        match written {
            Ok(()) => notes.kept = noted,
            Err(_) => {
                notes.waiting.splice(0..0, records);
                notes.settled = None;
            }
        }
        written
    }
}

/// The journal, if there is one.
struct JournalFile {
    files: Arc<dyn Files>,
    path: PathBuf,
    journal: Option<Journal>,
    /// It is written anew when it is larger.
    limit: u64,
}

impl JournalFile {
    fn write(&mut self, records: &[Vec<u8>], purges: &Purges) -> io::Result<()> {
        let written = match &mut self.journal {
            Some(journal) => journal.append(&slices(records)),
            None => self.begin(purges),
        };
        match written {
            Ok(()) => self.compact(purges),
            Err(error) => self.give_up(&error)?,
        }
        Ok(())
    }

    /// Leaves everything that was purged in the journal, as few records as possible.
    fn begin(&mut self, purges: &Purges) -> io::Result<()> {
        let records = purges.records();
        let records = slices(&records);
        match &mut self.journal {
            Some(journal) => journal.rewrite(&records),
            None => {
                self.journal = Some(Journal::create(self.files.clone(), &self.path, &records)?);
                Ok(())
            }
        }
    }

    /// Does so when it is worth it. That it cannot be harms nothing.
    fn compact(&mut self, purges: &Purges) {
        let bytes = self.journal.as_ref().map_or(0, Journal::bytes);
        if bytes <= self.limit || bytes <= 4 * bytes_of(purges) {
            return;
        }
        self.limit = match self.begin(purges) {
            Ok(()) => JOURNAL_BYTES,
            Err(error) => {
                tracing::warn!(%error, "the journal of purges cannot be written anew, and grows on");
                bytes + RETRY_BYTES
            }
        };
    }

    /// Has a restart find no journal rather than one that lacks something.
    fn give_up(&mut self, error: &io::Error) -> io::Result<()> {
        if self.journal.take().is_some() {
            tracing::error!(%error, "purges cannot be written down: a restart before they can be starts the disk cache anew");
        }
        disk::remove_journal(&*self.files, &self.path)
    }
}

impl fmt::Debug for JournalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JournalFile")
            .field("journal", &self.journal)
            .finish_non_exhaustive()
    }
}

fn slices(records: &[Vec<u8>]) -> Vec<&[u8]> {
    records.iter().map(|record| &**record).collect()
}

/// About how large a journal of the rules alone would be.
fn bytes_of(purges: &Purges) -> u64 {
    const RECORD: u64 = 64;
    purges.len() as u64 * RECORD
}
