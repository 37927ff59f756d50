//! Whatever is damaged in a file, nothing wrong is served, and what is whole is.

use std::fs;

use super::*;
use crate::disk::{
    files::segment_path,
    format::{RECORD_HEAD, SEGMENT_HEAD, record_bytes},
};

const LENGTHS: [usize; 4] = [30, 0, 77, 48];

/// A tier with one segment of four short records, and the places where they begin and end.
fn small(sealed: bool) -> (Bench, Vec<u8>, Vec<usize>) {
    let bench = Bench::new(1 << 20, 64 << 10);
    let disk = bench.open();
    let mut ends = vec![SEGMENT_HEAD];
    for (key, len) in LENGTHS.into_iter().enumerate() {
        put(&disk, key as u128, len);
        ends.push(ends[key] + record_bytes(meta(key as u128, 0).len(), len) as usize);
    }
    disk.sync();
    let file = segment_path(bench.tier(), 1);
    let unsealed = fs::read(&file).unwrap();
    disk.shutdown();
    let text = if sealed { fs::read(&file).unwrap() } else { unsealed };
    assert_eq!(text.len() > *ends.last().unwrap(), sealed);
    (bench, text, ends)
}

/// Opens the tier with `text` as its segment, and gives the keys that are found.
fn reopened(bench: &Bench, text: &[u8]) -> Vec<u128> {
    fs::write(segment_path(bench.tier(), 1), text).unwrap();
    let disk = bench.open();
    let found = found(&disk, 0..LENGTHS.len() as u128);
    // It goes on with what is left, and what is left stays.
    put(&disk, 99, 100);
    disk.shutdown();
    let disk = bench.open();
    assert!(has(&disk, 99));
    assert_eq!(super::found(&disk, 0..LENGTHS.len() as u128), found);
    disk.shutdown();
    found
}

/// The key whose record the byte at `at` belongs to, if a change there must be noticed.
fn hurt(ends: &[usize], at: usize) -> Option<u128> {
    let key = ends
        .iter()
        .rposition(|end| *end <= at)
        .filter(|key| *key < LENGTHS.len())?;
    let padding = ends[key] + RECORD_HEAD + meta(key as u128, 0).len() + LENGTHS[key];
    (at < padding).then_some(key as u128)
}

#[test]
fn a_flipped_byte_costs_its_record_alone() {
    for sealed in [false, true] {
        let (bench, text, ends) = small(sealed);
        for at in 0..text.len() {
            let mut wrong = text.clone();
            wrong[at] ^= 0x41;
            let hurt = hurt(&ends, at);
            let expected: Vec<_> = (0..LENGTHS.len() as u128).filter(|key| Some(*key) != hurt).collect();
            // A head's own checksum matters to scans alone.
            let spared = sealed && hurt.is_some_and(|key| (44..48).contains(&(at - ends[key as usize])));
            let kept: Vec<_> = (0..LENGTHS.len() as u128).collect();
            let expected = if spared { kept } else { expected };
            assert_eq!(reopened(&bench, &wrong), expected, "sealed {sealed}, at {at}");
        }
    }
}

#[test]
fn what_lies_before_a_cut_is_found() {
    for sealed in [false, true] {
        let (bench, text, ends) = small(sealed);
        for cut in 0..text.len() {
            let expected: Vec<_> = (0..LENGTHS.len() as u128)
                .filter(|key| ends[*key as usize + 1] <= cut)
                .collect();
            assert_eq!(
                reopened(&bench, &text[..cut]),
                expected,
                "sealed {sealed}, cut at {cut}"
            );
        }
    }
}

#[test]
fn a_file_that_is_changed_while_it_is_read_from_gives_misses() {
    let (bench, text, ends) = small(true);
    let file = segment_path(bench.tier(), 1);
    for at in 0..*ends.last().unwrap() {
        fs::write(&file, &text).unwrap();
        let disk = bench.open();
        let mut wrong = text.clone();
        wrong[at] ^= 0x41;
        fs::write(&file, &wrong).unwrap();
        let hurt = hurt(&ends, at);
        for key in 0..LENGTHS.len() as u128 {
            // The one checksum that does not count here is the head's own.
            let spared = Some(key) == hurt && (44..48).contains(&(at - ends[key as usize]));
            assert_eq!(has(&disk, key), Some(key) != hurt || spared, "at {at}, {key}");
        }
        let corrupt = disk.stats().corrupt;
        assert!(disk.stats().on);
        assert!(found(&disk, 0..LENGTHS.len() as u128).len() >= 3);
        assert_eq!(disk.stats().corrupt, corrupt, "a record is found to be corrupt once");
        disk.shutdown();
    }
}

#[test]
fn a_file_that_is_cut_or_removed_under_us_gives_misses() {
    let bench = Bench::new(8 << 20, 64 << 10);
    let disk = bench.open();
    for key in 0..100 {
        put(&disk, key, 10_000);
    }
    disk.sync();
    let files: Vec<_> = bench.segments().into_keys().collect();
    assert!(files.len() > 4);
    fs::OpenOptions::new()
        .write(true)
        .open(&files[0])
        .unwrap()
        .set_len(20_000)
        .unwrap();
    fs::remove_file(&files[1]).unwrap();
    let left = found(&disk, 0..100);
    assert!(left.len() > 80 && !left.contains(&2) && left.contains(&99), "{left:?}");
    // Room is made with them and without them.
    for round in 0..2 {
        for key in 1000..2000 {
            put(&disk, key, 10_000);
        }
        disk.sync();
        assert!(disk.stats().on, "round {round}");
    }
    assert!(disk.stats().evicted_segments > 4);
    assert!(on_disk(bench.tier()) <= 8 << 20);
}

#[test]
fn bytes_that_look_like_records_are_not_taken_for_some() {
    let bench = Bench::new(1 << 20, 64 << 10);
    let disk = bench.open();
    // What an origin could make: a record as it would be, but for the salt that it cannot know.
    let forged = crate::disk::format::record_head(
        7,
        SEGMENT_HEAD as u64 + RECORD_HEAD as u64 + 8,
        crate::disk::format::Name { key: 2, variant: 0 },
        b"",
        b"",
    );
    disk.put(1, 0, Bytes::from_static(b"01234567"), Bytes::copy_from_slice(&forged));
    disk.sync();
    disk.shutdown();
    let file = segment_path(bench.tier(), 1);
    let mut text = fs::read(&file).unwrap();
    text[SEGMENT_HEAD + 1] ^= 1;
    text.truncate(text.len() - 1);
    fs::write(&file, text).unwrap();
    let disk = bench.open();
    assert!(get(&disk, 1).is_empty() && get(&disk, 2).is_empty());
}
