//! Figures, not checks: `cargo test --release -p edgeweir-cache --lib measure -- --ignored --nocapture --test-threads 1`.

use std::{fs::OpenOptions, os::unix::fs::FileExt};

use super::*;
use crate::disk::{
    files::segment_path,
    format::{self, Name, Place, UNIT},
};

const OBJECT: usize = 64 << 10;

fn report(what: &str, count: u64, bytes: u64, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    let (rate, megabytes) = (count as f64 / seconds, bytes as f64 / seconds / 1e6);
    println!("{what}: {count} in {seconds:.3} s, {rate:.0}/s, {megabytes:.0} MB/s");
}

/// 100 GB in sparse files whose footers are real.
#[test]
#[ignore = "a measurement"]
fn recovery_of_100_gb() {
    const SEGMENT: u64 = 64 << 20;
    let bench = Bench::new(110 << 30, SEGMENT);
    std::fs::create_dir(bench.tier()).unwrap();
    let record = format::record_bytes(300, OBJECT);
    let mut records = 0_u64;
    for number in 1..=1600 {
        let path = segment_path(bench.tier(), number);
        let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
        let (mut entries, mut at) = (Vec::new(), format::SEGMENT_HEAD as u64);
        while at + record + format::footer_bytes(entries.len() / format::FOOTER_ENTRY + 1) <= SEGMENT {
            records += 1;
            let place = Place {
                segment: number,
                at: (at / UNIT) as u32,
                len: (record / UNIT) as u32,
            };
            let key = u128::from(records).wrapping_mul(0x9e37_79b9_7f4a_7c15_d1b5_4a32_d192_ed03);
            entries.extend_from_slice(&format::footer_entry(Name { key, variant: 0 }, place));
            at += record;
        }
        let trailer = format::trailer(number, 7, &entries);
        file.write_all_at(&format::segment_head(number, 7), 0).unwrap();
        file.write_all_at(&[&entries[..], &trailer].concat(), at).unwrap();
    }
    for run in ["warm", "cold"] {
        if run == "cold" {
            for path in bench.segments().keys() {
                let file = File::open(path).unwrap();
                file.sync_all().unwrap();
                rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
        }
        let start = Instant::now();
        let disk = Disk::open(bench.config.clone()).unwrap();
        report(&format!("recovery, {run}"), records, on_disk(bench.tier()), start);
        let stats = disk.stats();
        assert_eq!(stats.entries, records);
        let a_record = stats.index_bytes as f64 / records as f64;
        println!("index: {} bytes, {a_record:.1} a record", stats.index_bytes);
        disk.shutdown();
    }
}

#[test]
#[ignore = "a measurement"]
fn writes_and_reads_of_64_kib() {
    let records: u64 = 8000;
    let mut bench = Bench::new(1 << 30, 64 << 20);
    bench.config.queue_bytes = 1 << 30;
    let disk = Disk::open(bench.config.clone()).unwrap();
    let text = body(1, 1, OBJECT);
    let start = Instant::now();
    for key in 0..records {
        disk.put(u128::from(key), 0, Bytes::from_static(&[7; 300]), text.clone());
    }
    println!("handed over after {:.3} s", start.elapsed().as_secs_f64());
    disk.sync();
    report("writes", records, records * OBJECT as u64, start);
    assert_eq!(disk.stats().writes, records);

    let (start, rounds) = (Instant::now(), 40_000);
    for round in 0..rounds {
        let key = round * 7919 % records;
        assert_eq!(get(&disk, u128::from(key))[0].body.len(), OBJECT);
    }
    let waited = disk.stats().reads_waited;
    report(
        &format!("reads, {waited} of them not at hand"),
        rounds,
        rounds * OBJECT as u64,
        start,
    );

    let start = Instant::now();
    for key in 0..1_000_000_u128 {
        assert!(matches!(disk.get(key + (1 << 64)), Found::Absent));
    }
    report("misses", 1_000_000, 0, start);

    let start = Instant::now();
    for _ in 0..rounds {
        assert_ne!(std::hint::black_box(crc32fast::hash(&text)), 0);
    }
    report("checksums", rounds, rounds * OBJECT as u64, start);

    let start = Instant::now();
    for _ in 0..rounds {
        std::hint::black_box(vec![0_u8; OBJECT]);
    }
    report("zeroed buffers", rounds, rounds * OBJECT as u64, start);
    println!("{:#?}", disk.stats());
}
