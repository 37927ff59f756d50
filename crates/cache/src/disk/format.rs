//! What a segment's file holds, as pure functions over bytes. All numbers are little-endian, all lengths multiples of 8.
//!
//! A head with the segment's salt; records, each with a head of its own, meta and body; and once it is sealed, a footer:
//! an entry a record, and a trailer at the very end. A record's checksum covers its head, meta, body and place, so that
//! one read from elsewhere is refused. The salt is random: bytes that a client or origin chose are never taken for a record.

use bytes::Bytes;

/// What files of this version begin with.
const SEGMENT: [u8; 8] = *b"EWsegm01";
/// What their trailers begin with.
const TRAILER: [u8; 8] = *b"EWtrail1";

/// Bytes before the first record.
pub(crate) const SEGMENT_HEAD: usize = 24;
/// Bytes of a record before its meta.
pub(crate) const RECORD_HEAD: usize = 48;
/// Bytes of a footer for each record.
pub(crate) const FOOTER_ENTRY: usize = 32;
/// Bytes at the end of a sealed segment.
pub(crate) const FOOTER_TRAILER: usize = 32;
/// Lengths and offsets are multiples of this.
pub(crate) const UNIT: u64 = 8;
/// Longest record in [`UNIT`]s: what an index entry has bits for.
pub(crate) const RECORD_MOST: u64 = (1 << 28) - 1;

/// What a record is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Name {
    pub(crate) key: u128,
    pub(crate) variant: u64,
}

/// Where a record lies; later ones are greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment: u32,
    /// Its offset in [`UNIT`]s.
    pub(crate) at: u32,
    /// Its length with head and padding, in [`UNIT`]s.
    pub(crate) len: u32,
}

impl Place {
    pub(crate) fn offset(self) -> u64 {
        u64::from(self.at) * UNIT
    }

    pub(crate) fn bytes(self) -> usize {
        self.len as usize * UNIT as usize
    }
}

/// A record's bytes on disk, padding included.
pub(crate) fn record_bytes(meta: usize, body: usize) -> u64 {
    ((RECORD_HEAD + meta + body) as u64).next_multiple_of(UNIT)
}

/// The zeros behind a record of these lengths.
pub(crate) fn padding(meta: usize, body: usize) -> &'static [u8] {
    let used = (meta + body) % UNIT as usize;
    &[0; UNIT as usize - 1][..(UNIT as usize - used) % UNIT as usize]
}

/// A segment's first bytes.
pub(crate) fn segment_head(number: u32, salt: u64) -> [u8; SEGMENT_HEAD] {
    let mut head = [0; SEGMENT_HEAD];
    head[..8].copy_from_slice(&SEGMENT);
    head[8..16].copy_from_slice(&salt.to_le_bytes());
    head[16..20].copy_from_slice(&number.to_le_bytes());
    let sum = crc32fast::hash(&head[..20]);
    head[20..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// The salt of the segment that begins with `head`.
pub(crate) fn segment_salt(head: &[u8; SEGMENT_HEAD], number: u32) -> Option<u64> {
    let salt = u64_at(head, 8);
    (*head == segment_head(number, salt)).then_some(salt)
}

/// A record's first bytes, for its place at `offset` of the segment with `salt`.
pub(crate) fn record_head(salt: u64, offset: u64, name: Name, meta: &[u8], body: &[u8]) -> [u8; RECORD_HEAD] {
    let mut head = [0; RECORD_HEAD];
    head[..8].copy_from_slice(&salt.to_le_bytes());
    head[8..24].copy_from_slice(&name.key.to_le_bytes());
    head[24..32].copy_from_slice(&name.variant.to_le_bytes());
    head[32..36].copy_from_slice(&(meta.len() as u32).to_le_bytes());
    head[36..40].copy_from_slice(&(body.len() as u32).to_le_bytes());
    let sum = record_sum(offset, &head, &[meta, body]);
    head[40..44].copy_from_slice(&sum.to_le_bytes());
    let sum = head_sum(offset, &head);
    head[44..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// What a record's head says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) name: Name,
    /// The record's bytes with head and padding.
    pub(crate) bytes: u64,
}

/// The head of a record at `offset` of the segment with `salt`, if there is one: what it says can be relied on, while the
/// rest of the record may be damaged still.
pub(crate) fn head(salt: u64, offset: u64, head: &[u8; RECORD_HEAD]) -> Option<Head> {
    if head[..8] != salt.to_le_bytes() || u32_at(head, 44) != head_sum(offset, head) {
        return None;
    }
    Some(Head {
        name: name(head),
        bytes: record_bytes(u32_at(head, 32) as usize, u32_at(head, 36) as usize),
    })
}

/// A record as it was read, proven whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    pub(crate) name: Name,
    pub(crate) meta: Bytes,
    pub(crate) body: Bytes,
}

/// The record that `text` is, all of it, if not a bit of it is wrong.
pub(crate) fn record<T>(salt: u64, offset: u64, text: T) -> Option<Whole>
where
    T: AsRef<[u8]> + Into<Bytes>,
{
    let whole = text;
    let text = whole.as_ref();
    let head: &[u8; RECORD_HEAD] = text.first_chunk()?;
    let (meta, body) = (u32_at(head, 32) as usize, u32_at(head, 36) as usize);
    let body_at = RECORD_HEAD.checked_add(meta)?;
    let end = body_at.checked_add(body)?;
    if head[..8] != salt.to_le_bytes()
        || text.len() as u64 != record_bytes(meta, body)
        || u32_at(head, 40) != record_sum(offset, head, &[&text[RECORD_HEAD..end]])
    {
        return None;
    }
    let name = name(head);
    let text: Bytes = whole.into();
    Some(Whole {
        name,
        meta: text.slice(RECORD_HEAD..body_at),
        body: text.slice(body_at..end),
    })
}

/// A footer's entry.
pub(crate) fn footer_entry(name: Name, place: Place) -> [u8; FOOTER_ENTRY] {
    let mut entry = [0; FOOTER_ENTRY];
    entry[..16].copy_from_slice(&name.key.to_le_bytes());
    entry[16..24].copy_from_slice(&name.variant.to_le_bytes());
    entry[24..28].copy_from_slice(&place.at.to_le_bytes());
    entry[28..].copy_from_slice(&place.len.to_le_bytes());
    entry
}

/// A footer's bytes for so many records.
pub(crate) fn footer_bytes(records: usize) -> u64 {
    (records * FOOTER_ENTRY + FOOTER_TRAILER) as u64
}

/// The end of a segment, behind the footer's `entries`.
pub(crate) fn trailer(number: u32, salt: u64, entries: &[u8]) -> [u8; FOOTER_TRAILER] {
    let mut trailer = [0; FOOTER_TRAILER];
    trailer[..8].copy_from_slice(&TRAILER);
    trailer[8..16].copy_from_slice(&salt.to_le_bytes());
    trailer[16..20].copy_from_slice(&number.to_le_bytes());
    trailer[20..24].copy_from_slice(&((entries.len() / FOOTER_ENTRY) as u32).to_le_bytes());
    let sum = trailer_sum(&trailer);
    trailer[24..28].copy_from_slice(&sum.to_le_bytes());
    trailer[28..].copy_from_slice(&crc32fast::hash(entries).to_le_bytes());
    trailer
}

/// What a trailer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) salt: u64,
    /// How many records the segment has.
    pub(crate) records: u32,
    sum: u32,
}

impl Trailer {
    /// Reads the trailer of segment `number`.
    pub(crate) fn read(trailer: &[u8; FOOTER_TRAILER], number: u32) -> Option<Self> {
        let whole =
            trailer[..8] == TRAILER && u32_at(trailer, 16) == number && u32_at(trailer, 24) == trailer_sum(trailer);
        whole.then(|| Self {
            salt: u64_at(trailer, 8),
            records: u32_at(trailer, 20),
            sum: u32_at(trailer, 28),
        })
    }

    /// The records that `entries` name, unless they are damaged or one is said to reach beyond `end`.
    pub(crate) fn entries(self, number: u32, entries: &[u8], end: u64) -> Option<impl Iterator<Item = (Name, Place)>> {
        let (entries, rest) = entries.as_chunks::<FOOTER_ENTRY>();
        if !rest.is_empty() || crc32fast::hash(entries.as_flattened()) != self.sum {
            return None;
        }
        let read = move |entry: &[u8; FOOTER_ENTRY]| {
            let name = Name {
                key: u128_at(entry, 0),
                variant: u64_at(entry, 16),
            };
            let place = Place {
                segment: number,
                at: u32_at(entry, 24),
                len: u32_at(entry, 28),
            };
            (name, place)
        };
        let sound = entries.iter().map(read).all(|(_, place)| {
            place.offset() >= SEGMENT_HEAD as u64
                && place.bytes() >= RECORD_HEAD
                && u64::from(place.len) <= RECORD_MOST
                && place.offset() + place.bytes() as u64 <= end
        });
        sound.then(|| entries.iter().map(read))
    }
}

fn name(head: &[u8; RECORD_HEAD]) -> Name {
    Name {
        key: u128_at(head, 8),
        variant: u64_at(head, 24),
    }
}

fn record_sum(offset: u64, head: &[u8; RECORD_HEAD], rest: &[&[u8]]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&offset.to_le_bytes());
    sum.update(&head[..40]);
    for part in rest {
        sum.update(part);
    }
    sum.finalize()
}

fn head_sum(offset: u64, head: &[u8; RECORD_HEAD]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&offset.to_le_bytes());
    sum.update(&head[..44]);
    sum.finalize()
}

fn trailer_sum(trailer: &[u8; FOOTER_TRAILER]) -> u32 {
    crc32fast::hash(&trailer[..24])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(chunk(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(chunk(bytes, at))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(chunk(bytes, at))
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the caller's array reaches that far")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: Name = Name {
        key: 0x0123_4567_89ab_cdef_0011_2233_4455_6677,
        variant: 7,
    };

    fn written(salt: u64, offset: u64, meta: &[u8], body: &[u8]) -> Vec<u8> {
        let head = record_head(salt, offset, NAME, meta, body);
        [&head, meta, body, padding(meta.len(), body.len())].concat()
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        for (meta, body) in [(0, 0), (1, 0), (0, 1), (7, 9), (8, 8), (5, 3), (300, 70_001)] {
            let (meta, body) = (vec![1; meta], vec![2; body]);
            let text = written(3, 24, &meta, &body);
            assert_eq!(text.len() as u64, record_bytes(meta.len(), body.len()));
            let whole = record(3, 24, text.clone()).unwrap();
            assert_eq!(
                (whole.name, &whole.meta[..], &whole.body[..]),
                (NAME, &meta[..], &body[..])
            );
            let head = head(3, 24, text.first_chunk().unwrap()).unwrap();
            assert_eq!((head.name, head.bytes), (NAME, text.len() as u64));
        }
    }

    #[test]
    fn a_record_with_a_wrong_bit_or_in_a_wrong_place_is_refused() {
        let text = written(3, 24, b"meta", b"the body");
        assert!(record(4, 24, text.clone()).is_none());
        assert!(record(3, 32, text.clone()).is_none());
        for bit in 0..text.len() * 8 {
            let mut wrong = text.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            // The head's own checksum is for scans; a record is judged by the one over all of it.
            let tolerated = (44..48).contains(&(bit / 8)) || bit / 8 >= RECORD_HEAD + 12;
            assert_eq!(record(3, 24, wrong.clone()).is_some(), tolerated, "bit {bit}");
            if bit / 8 < RECORD_HEAD {
                assert!(head(3, 24, wrong.first_chunk().unwrap()).is_none(), "bit {bit}");
            }
        }
        for cut in 0..text.len() {
            assert!(record(3, 24, text[..cut].to_vec()).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn a_footer_with_a_wrong_bit_is_refused() {
        let place = |at, len| Place { segment: 9, at, len };
        let entries = [footer_entry(NAME, place(3, 100)), footer_entry(NAME, place(103, 10))].concat();
        let end = trailer(9, 3, &entries);
        let read = Trailer::read(&end, 9).unwrap();
        assert_eq!((read.salt, read.records), (3, 2));
        let found: Vec<_> = read.entries(9, &entries, 113 * UNIT).unwrap().collect();
        assert_eq!(found, [(NAME, place(3, 100)), (NAME, place(103, 10))]);
        assert!(read.entries(9, &entries, 113 * UNIT - 1).is_none(), "beyond the end");
        assert!(Trailer::read(&end, 8).is_none(), "another segment's");
        for bit in 0..end.len() * 8 {
            let mut wrong = end;
            wrong[bit / 8] ^= 1 << (bit % 8);
            let found = Trailer::read(&wrong, 9).is_some_and(|read| read.entries(9, &entries, 113 * UNIT).is_some());
            assert!(!found, "bit {bit}");
        }
        for bit in 0..entries.len() * 8 {
            let mut wrong = entries.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(read.entries(9, &wrong, 113 * UNIT).is_none(), "bit {bit}");
        }
    }
}
