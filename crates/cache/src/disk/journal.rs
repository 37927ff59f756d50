//! A short file of records that must not be lost: appended to, synced, now and then written anew.
//!
//! What [`Journal::append`] has confirmed is found by the next [`Journal::open`], in order. A tail that was torn off by
//! a crash is cut; damage before records that are whole is an error, since nobody knows what it said.

use std::{
    fmt,
    fs::{self, File},
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::files::{Files, write_all};

/// What a record begins with, so that whole records are found behind damaged ones.
const MARK: [u8; 4] = *b"EWj1";
/// Mark, length and checksum.
const HEAD: usize = 12;

/// An open journal.
pub(crate) struct Journal {
    files: Arc<dyn Files>,
    path: PathBuf,
    file: File,
    /// Bytes of whole records.
    len: u64,
    /// The file holds something behind `len` that could not be taken back.
    spoilt: bool,
    /// After a failure of power the file of before the last rewrite may be in its place.
    unsettled: bool,
}

impl Journal {
    /// Opens the journal at `path`, and gives its records in order.
    ///
    /// Fails with [`io::ErrorKind::InvalidData`] when records in its middle are damaged; [`Self::create`] then begins
    /// anew.
    pub(crate) fn open(files: Arc<dyn Files>, path: &Path) -> io::Result<(Self, Vec<Bytes>)> {
        let text = Bytes::from(fs::read(path)?);
        let (records, len) = records(&text);
        if (len + 1..text.len()).any(|at| record(&text, at).is_some()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a record of the journal is damaged",
            ));
        }
        let (file, _) = files.open(path)?;
        if len < text.len() {
            files.truncate(&file, len as u64)?;
            files.sync(&file)?;
        }
        let journal = Self {
            files,
            path: path.to_owned(),
            file,
            len: len as u64,
            spoilt: false,
            unsettled: false,
        };
        Ok((journal, records))
    }

    /// Makes a journal of `records` at `path`, in place of one that may be there.
    pub(crate) fn create(files: Arc<dyn Files>, path: &Path, records: &[&[u8]]) -> io::Result<Self> {
        let (file, len) = replace(&*files, path, records)?;
        files.sync_names(folder(path))?;
        Ok(Self {
            files,
            path: path.to_owned(),
            file,
            len,
            spoilt: false,
            unsettled: false,
        })
    }

    /// Adds `records` behind those that are there, and returns when they would survive a failure of power: one write,
    /// one sync. After an error none of them counts.
    pub(crate) fn append(&mut self, records: &[&[u8]]) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        if self.spoilt {
            self.take_back()?;
        }
        if self.unsettled {
            self.settle()?;
        }
        let text = encode(records)?;
        let written = write_all(&*self.files, &self.file, &mut [IoSlice::new(&text)], self.len)
            .and_then(|()| self.files.sync(&self.file));
        match written {
            Ok(()) => {
                self.len += text.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.spoilt = true;
                // If this fails too, the next append tries again before it writes.
                self.take_back().ok();
                Err(error)
            }
        }
    }

    /// Leaves `records` alone in the journal, all or nothing even if the power fails. After an error what it held before
    /// is there, or they are.
    pub(crate) fn rewrite(&mut self, records: &[&[u8]]) -> io::Result<()> {
        (self.file, self.len) = replace(&*self.files, &self.path, records)?;
        (self.spoilt, self.unsettled) = (false, true);
        self.settle()
    }

    /// Has the file that was put in its place stay there.
    fn settle(&mut self) -> io::Result<()> {
        self.files.sync_names(folder(&self.path))?;
        self.unsettled = false;
        Ok(())
    }

    /// Bytes of its records on disk, which tell when a rewrite is worth it.
    pub(crate) fn bytes(&self) -> u64 {
        self.len
    }

    /// Cuts off what a failed append left.
    fn take_back(&mut self) -> io::Result<()> {
        self.files.truncate(&self.file, self.len)?;
        self.files.sync(&self.file)?;
        self.spoilt = false;
        Ok(())
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("path", &self.path)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// Writes `records` beside `path`, and puts them in its place; the folder is not synced.
fn replace(files: &dyn Files, path: &Path, records: &[&[u8]]) -> io::Result<(File, u64)> {
    let text = encode(records)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // What an earlier one left.
    files.remove(&beside).ok();
    let file = files.create(&beside)?;
    let placed = write_all(files, &file, &mut [IoSlice::new(&text)], 0)
        .and_then(|()| files.sync(&file))
        .and_then(|()| files.rename(&beside, path));
    match placed {
        Ok(()) => Ok((file, text.len() as u64)),
        Err(error) => {
            files.remove(&beside).ok();
            Err(error)
        }
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().expect("a journal lies in a folder")
}

fn encode(records: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut text = Vec::with_capacity(records.iter().map(|record| HEAD + record.len()).sum());
    for record in records {
        let len = u32::try_from(record.len())
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a record of 4 GiB or more"))?;
        text.extend_from_slice(&MARK);
        text.extend_from_slice(&len.to_le_bytes());
        text.extend_from_slice(&checksum(len, record).to_le_bytes());
        text.extend_from_slice(record);
    }
    Ok(text)
}

/// The records that `text` begins with, and how far they reach.
fn records(text: &Bytes) -> (Vec<Bytes>, usize) {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some((payload, end)) = record(text, at) {
        found.push(payload);
        at = end;
    }
    (found, at)
}

/// The whole record at `at`, if there is one, and its end.
fn record(text: &Bytes, at: usize) -> Option<(Bytes, usize)> {
    let head = text.get(at..at.checked_add(HEAD)?)?;
    if head[..4] != MARK {
        return None;
    }
    let len = u32::from_le_bytes(head[4..8].try_into().ok()?);
    let sum = u32::from_le_bytes(head[8..].try_into().ok()?);
    let end = (at + HEAD).checked_add(usize::try_from(len).ok()?)?;
    let payload = text.get(at + HEAD..end)?;
    (checksum(len, payload) == sum).then(|| (text.slice(at + HEAD..end), end))
}

fn checksum(len: u32, payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new_with_initial(u32::from_le_bytes(MARK));
    sum.update(&len.to_le_bytes());
    sum.update(payload);
    sum.finalize()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt};

    use super::*;
    use crate::disk::System;

    const RECORDS: [&[u8]; 4] = [b"one", b"", b"a longer third record", b"4"];

    fn open(path: &Path) -> io::Result<(Journal, Vec<Bytes>)> {
        Journal::open(Arc::new(System), path)
    }

    fn create(path: &Path) -> io::Result<Journal> {
        Journal::create(Arc::new(System), path, &[])
    }

    fn written() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = create(&path).unwrap();
        journal.append(&RECORDS[..1]).unwrap();
        journal.append(&[]).unwrap();
        journal.append(&RECORDS[1..]).unwrap();
        let text = fs::read(&path).unwrap();
        assert_eq!(journal.bytes(), text.len() as u64);
        (dir, path, text)
    }

    /// How many records lie wholly before `at`.
    fn whole_before(at: usize) -> usize {
        let mut end = 0;
        RECORDS
            .iter()
            .take_while(|record| {
                end += HEAD + record.len();
                end <= at
            })
            .count()
    }

    #[test]
    fn is_read_in_order_and_goes_on() {
        let (_dir, path, _) = written();
        let (mut journal, found) = open(&path).unwrap();
        assert_eq!(found, RECORDS);
        journal.append(&[b"five"]).unwrap();
        drop(journal);
        let (mut journal, found) = open(&path).unwrap();
        assert_eq!(found[..4], RECORDS);
        assert_eq!(found[4..], [&b"five"[..]]);
        journal.rewrite(&[b"alone"]).unwrap();
        journal.append(&[b"and on"]).unwrap();
        let (_, found) = open(&path).unwrap();
        assert_eq!(found, [&b"alone"[..], b"and on"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_tail_cut_anywhere_leaves_the_records_before_it() {
        let (_dir, path, text) = written();
        for cut in 0..text.len() {
            fs::write(&path, &text[..cut]).unwrap();
            let (mut journal, found) = open(&path).unwrap();
            assert_eq!(found, RECORDS[..whole_before(cut)], "cut at {cut}");
            journal.append(&[b"later"]).unwrap();
            let (_, found) = open(&path).unwrap();
            assert_eq!(found.last().unwrap(), &b"later"[..], "cut at {cut}");
            assert_eq!(found.len(), whole_before(cut) + 1, "cut at {cut}");
        }
    }

    #[test]
    fn damage_is_told_unless_it_is_the_tail() {
        let (_dir, path, text) = written();
        let last = text.len() - HEAD - RECORDS[3].len();
        for at in 0..text.len() {
            let mut damaged = text.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            match open(&path) {
                Ok((_, found)) => {
                    assert!(at >= last, "damage at {at} was not noticed");
                    assert_eq!(found, RECORDS[..3], "damage at {at}");
                }
                Err(error) => {
                    assert!(at < last, "damage at {at}");
                    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
                    create(&path).unwrap();
                    assert!(open(&path).unwrap().1.is_empty());
                }
            }
        }
    }

    #[test]
    fn what_a_rewrite_left_half_done_is_not_read() {
        let (dir, path, _) = written();
        fs::write(dir.path().join("journal.new"), b"half").unwrap();
        let (mut journal, found) = open(&path).unwrap();
        assert_eq!(found, RECORDS);
        journal.rewrite(&[b"x"]).unwrap();
        assert_eq!(open(&path).unwrap().1, [&b"x"[..]]);
    }

    #[test]
    fn an_append_that_failed_does_not_count() {
        let (_dir, path, text) = written();
        let (mut journal, _) = open(&path).unwrap();
        let whole = std::mem::replace(&mut journal.file, File::open(&path).unwrap());
        journal.append(&[b"never"]).unwrap_err();
        assert!(journal.spoilt);
        // Half of it had reached the file.
        whole.write_all_at(&MARK, text.len() as u64).unwrap();
        journal.append(&[b"still not"]).unwrap_err();
        journal.file = whole;
        journal.append(&[b"now"]).unwrap();
        let (_, found) = open(&path).unwrap();
        assert_eq!(found[..4], RECORDS);
        assert_eq!(found[4..], [&b"now"[..]]);
    }
}
