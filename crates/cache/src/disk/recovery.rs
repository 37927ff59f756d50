//! What is found again when the tier is opened: the footers of sealed segments are believed, the rest is scanned.
//!
//! No body of a sealed segment is read. A segment without a whole footer is read from end to end, record by record, and
//! what is damaged in it is left out.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, IoSlice},
    sync::Arc,
    thread,
};

use super::{
    files::{is_full, is_shortage, read_all, segment_path, segments, write_all},
    format::{
        self, FOOTER_ENTRY, FOOTER_TRAILER, Name, Place, RECORD_HEAD, RECORD_MOST, SEGMENT_HEAD, Trailer, UNIT,
        footer_bytes,
    },
    shared::{Segment, Shared},
};

/// Reading footers waits for the disk and fills tables, both of which two threads do in less time.
const THREADS: usize = 2;
/// How much of a damaged segment is searched at a time.
const SEARCH: usize = 1 << 20;

/// The segment that records are appended to.
pub(crate) struct Open {
    pub(crate) segment: Arc<Segment>,
    /// Where the next record goes.
    pub(crate) end: u64,
    /// What its footer will list.
    pub(crate) entries: Vec<u8>,
}

impl Open {
    pub(crate) fn records(&self) -> usize {
        self.entries.len() / FOOTER_ENTRY
    }

    /// Its length once it is sealed.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.end + footer_bytes(self.records())
    }

    /// Writes the footer. Gives the file's length. Where there is no room for one the segment does without: it will be
    /// scanned.
    pub(crate) fn seal(&self, shared: &Shared) -> io::Result<u64> {
        let trailer = format::trailer(self.segment.number, self.segment.salt, &self.entries);
        let mut footer = [IoSlice::new(&self.entries), IoSlice::new(&trailer)];
        match write_all(&*shared.files, &self.segment.file, &mut footer, self.end) {
            Ok(()) => Ok(self.sealed_bytes()),
            Err(error) if is_full(&error) => {
                shared.files.truncate(&self.segment.file, self.end)?;
                Ok(self.end)
            }
            Err(error) => Err(error),
        }
    }
}

/// The segments that were found, their records in the index.
#[derive(Default)]
pub(crate) struct Recovered {
    /// Numbers and lengths.
    pub(crate) sealed: BTreeMap<u32, u64>,
    /// The newest one, if there is room in it.
    pub(crate) open: Option<Open>,
    /// The first number that is free; none is left after the last one.
    pub(crate) next: Option<u32>,
}

/// A segment's file.
struct FoundFile {
    number: u32,
    file: File,
    len: u64,
    trailer: Option<Trailer>,
}

/// Fills the index and the segments of `shared` with what its folder holds.
pub(crate) fn recover(shared: &Shared) -> io::Result<Recovered> {
    let mut numbers = segments(&*shared.files, &shared.config.dir)?;
    numbers.sort_unstable();
    let newest = numbers.last().copied();
    let mut recovered = Recovered {
        next: newest.map_or(Some(1), |newest| newest.checked_add(1)),
        ..Recovered::default()
    };
    let found: Vec<FoundFile> = numbers
        .into_iter()
        .filter_map(|number| open(shared, number).transpose())
        .collect::<io::Result<_>>()?;
    let records = found
        .iter()
        .filter_map(|found| found.trailer)
        .map(|trailer| trailer.records as usize);
    // Trailers are checked by then, but what they say is still bounded by the files' lengths.
    let most = found
        .iter()
        .map(|found| found.len as usize / (FOOTER_ENTRY + RECORD_HEAD))
        .sum();
    shared.index.reserve(records.sum::<usize>().min(most));

    let chunk = found.len().div_ceil(THREADS).max(1);
    let mut unsealed = Vec::new();
    let mut rest = found.into_iter().peekable();
    let mut chunks = Vec::new();
    while rest.peek().is_some() {
        chunks.push(rest.by_ref().take(chunk).collect::<Vec<_>>());
    }
    let read: Vec<Vec<Result<(Open, u64), FoundFile>>> = thread::scope(|scope| {
        let threads: Vec<_> = chunks
            .into_iter()
            .map(|chunk| scope.spawn(move || chunk.into_iter().map(|found| sealed(shared, found, newest)).collect()))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("reading footers does not panic"))
            .collect()
    });
    for result in read.into_iter().flatten() {
        match result {
            Ok((open, len)) if Some(open.segment.number) == newest && has_room(shared, &open) => {
                resume(shared, &mut recovered, open, len)?;
            }
            Ok((open, len)) => add(shared, &mut recovered, &open, len),
            Err(found) => unsealed.push(found),
        }
    }
    for found in unsealed {
        let number = found.number;
        match scan(shared, found) {
            Ok(Some(open)) if Some(number) == newest => resume(shared, &mut recovered, open, u64::MAX)?,
            Ok(Some(open)) => {
                shared.files.truncate(&open.segment.file, open.end)?;
                let len = open.seal(shared)?;
                add(shared, &mut recovered, &open, len);
            }
            Ok(None) => remove(shared, number)?,
            Err(error) if is_shortage(&error) => return Err(error),
            Err(_) => {
                shared.counts.errors.add(1);
                remove(shared, number)?;
            }
        }
    }
    Ok(recovered)
}

/// Removes a segment's file, if it is there.
pub(crate) fn remove(shared: &Shared, number: u32) -> io::Result<()> {
    match shared.files.remove(&segment_path(&shared.config.dir, number)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens a segment and reads its trailer. None: it cannot be used, and is out of the way unless it is a folder.
fn open(shared: &Shared, number: u32) -> io::Result<Option<FoundFile>> {
    let (file, len) = match shared.files.open(&segment_path(&shared.config.dir, number)) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Ok(None),
        // That says nothing about the file.
        Err(error) if is_shortage(&error) => return Err(error),
        Err(_) => {
            shared.counts.errors.add(1);
            return remove(shared, number).map(|()| None);
        }
    };
    let mut trailer = [0; FOOTER_TRAILER];
    let read = match len.checked_sub(FOOTER_TRAILER as u64) {
        Some(at) => read_all(&*shared.files, &file, &mut trailer, at),
        None => Ok(()),
    };
    let trailer = read.ok().and_then(|()| Trailer::read(&trailer, number));
    Ok(Some(FoundFile {
        number,
        file,
        len,
        trailer,
    }))
}

/// Reads a segment's footer into the index; gives the file back if it has none that is whole. The entries are kept only
/// of the newest segment.
fn sealed(shared: &Shared, found: FoundFile, newest: Option<u32>) -> Result<(Open, u64), FoundFile> {
    let number = found.number;
    let Some((trailer, mut entries, end)) = footer(shared, &found) else {
        return Err(found);
    };
    let Some(read) = trailer.entries(number, &entries, end) else {
        return Err(found);
    };
    for (name, place) in read {
        shared.index.recover(name, place);
    }
    if Some(number) != newest {
        entries = Vec::new();
    }
    let segment = Arc::new(Segment {
        number,
        salt: trailer.salt,
        file: found.file,
    });
    Ok((Open { segment, end, entries }, found.len))
}

/// The trailer, the entries before it, and where they begin.
fn footer(shared: &Shared, found: &FoundFile) -> Option<(Trailer, Vec<u8>, u64)> {
    let trailer = found.trailer?;
    let footer = footer_bytes(trailer.records as usize);
    let end = found
        .len
        .checked_sub(footer)
        .filter(|end| *end >= SEGMENT_HEAD as u64)?;
    let mut entries = vec![0; footer as usize - FOOTER_TRAILER];
    read_all(&*shared.files, &found.file, &mut entries, end).ok()?;
    Some((trailer, entries, end))
}

/// Whether it is worth going on with a segment that was sealed when the tier was closed.
fn has_room(shared: &Shared, open: &Open) -> bool {
    open.sealed_bytes() < shared.segment_bytes / 8 * 7
}

/// Goes on with the newest segment: its footer, or what follows its last whole record, is cut off.
fn resume(shared: &Shared, recovered: &mut Recovered, open: Open, len: u64) -> io::Result<()> {
    if open.end < len {
        shared.files.truncate(&open.segment.file, open.end)?;
    }
    shared
        .segments
        .write()
        .insert(open.segment.number, open.segment.clone());
    recovered.open = Some(open);
    Ok(())
}

fn add(shared: &Shared, recovered: &mut Recovered, open: &Open, len: u64) {
    recovered.sealed.insert(open.segment.number, len);
    shared
        .segments
        .write()
        .insert(open.segment.number, open.segment.clone());
}

/// Reads a segment's records into the index. None if there is not one.
fn scan(shared: &Shared, found: FoundFile) -> io::Result<Option<Open>> {
    let Some(salt) = salt(shared, &found)? else {
        shared.counts.corrupt.add(1);
        return Ok(None);
    };
    let FoundFile { number, file, len, .. } = found;
    let files = &*shared.files;
    let mut entries = Vec::new();
    let mut end = SEGMENT_HEAD as u64;
    let mut at = end;
    while at + RECORD_HEAD as u64 <= len {
        let mut head = [0; RECORD_HEAD];
        read_all(files, &file, &mut head, at)?;
        let Some(head) = format::head(salt, at, &head) else {
            shared.counts.corrupt.add(1);
            match search(shared, &file, salt, at + UNIT, len)? {
                Some(next) => at = next,
                None => break,
            }
            continue;
        };
        if at + head.bytes > len || head.bytes > RECORD_MOST * UNIT {
            // The tail was torn.
            break;
        }
        let mut text = vec![0; head.bytes as usize];
        read_all(files, &file, &mut text, at)?;
        if format::record(salt, at, text).is_some() {
            let place = Place {
                segment: number,
                at: (at / UNIT) as u32,
                len: (head.bytes / UNIT) as u32,
            };
            entries.push((head.name, place));
            end = at + head.bytes;
        } else {
            shared.counts.corrupt.add(1);
        }
        at += head.bytes;
    }
    if entries.is_empty() {
        return Ok(None);
    }
    let segment = Arc::new(Segment { number, salt, file });
    Ok(Some(Open {
        segment,
        end,
        entries: listed(shared, &entries),
    }))
}

/// Makes records known, and lists them for a footer.
fn listed(shared: &Shared, records: &[(Name, Place)]) -> Vec<u8> {
    let list = |(name, place): &(Name, Place)| {
        shared.index.recover(*name, *place);
        format::footer_entry(*name, *place)
    };
    records.iter().flat_map(list).collect()
}

/// The salt of a segment, from its head or its trailer; if both are damaged, from its first record.
fn salt(shared: &Shared, found: &FoundFile) -> io::Result<Option<u64>> {
    const BOTH: usize = SEGMENT_HEAD + RECORD_HEAD;
    let mut start = [0; BOTH];
    let have = (found.len as usize).min(BOTH);
    read_all(&*shared.files, &found.file, &mut start[..have], 0)?;
    let (head, record) = start.split_at(SEGMENT_HEAD);
    let head = head.try_into().expect("so long by the split");
    let record: &[u8; RECORD_HEAD] = record.try_into().expect("so long by the split");
    let said = u64::from_le_bytes(*record.first_chunk().expect("longer than that"));
    Ok(format::segment_salt(head, found.number)
        .or(found.trailer.map(|trailer| trailer.salt))
        .or_else(|| format::head(said, SEGMENT_HEAD as u64, record).map(|_| said)))
}

/// The next place from `at` on where a record begins. Bodies hold no salt, so that nobody can plant one there.
fn search(shared: &Shared, file: &File, salt: u64, mut at: u64, len: u64) -> io::Result<Option<u64>> {
    let mut text = vec![0; SEARCH + RECORD_HEAD];
    while at + RECORD_HEAD as u64 <= len {
        let have = text.len().min((len - at) as usize);
        read_all(&*shared.files, file, &mut text[..have], at)?;
        let windows = text[..have].windows(RECORD_HEAD).step_by(UNIT as usize);
        for (step, window) in windows.enumerate() {
            let offset = at + step as u64 * UNIT;
            let head = window.first_chunk().expect("windows are that long");
            if format::head(salt, offset, head).is_some() {
                return Ok(Some(offset));
            }
        }
        at += SEARCH as u64;
    }
    Ok(None)
}
