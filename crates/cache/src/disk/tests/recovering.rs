//! What is found after a restart, and what finding it costs.

use std::{fs, os::unix::fs::PermissionsExt};

use super::*;
use crate::disk::format::{FOOTER_ENTRY, FOOTER_TRAILER, footer_bytes};

#[test]
fn sealed_segments_cost_their_footers_alone() {
    let bench = Bench::new(64 << 20, 1 << 20);
    let disk = bench.open();
    for key in 0..300 {
        put(&disk, key, 50_000 + key as usize);
    }
    disk.sync();
    disk.shutdown();
    let segments = bench.segments().len() as u64;
    assert!(segments > 10);
    let disk = bench.open();
    let read = bench.files.read.load(Ordering::Relaxed);
    assert_eq!(read, segments * FOOTER_TRAILER as u64 + 300 * FOOTER_ENTRY as u64);
    assert_eq!(disk.stats().entries, 300);
    assert_eq!(found(&disk, 0..300).len(), 300);
}

#[test]
fn a_crash_costs_a_scan_of_the_last_segment() {
    let bench = Bench::new(64 << 20, 1 << 20);
    let disk = bench.open();
    for key in 0..300 {
        put(&disk, key, 50_000);
    }
    disk.sync();
    // A copy is what a crash leaves: the last segment is not sealed.
    let crashed = Bench::new(64 << 20, 1 << 20);
    fs::create_dir(crashed.tier()).unwrap();
    for path in bench.segments().keys() {
        fs::copy(path, crashed.tier().join(path.file_name().unwrap())).unwrap();
    }
    let disk = crashed.open();
    let (segments, last) = (
        crashed.segments().len() as u64,
        *crashed.segments().last_entry().unwrap().get(),
    );
    let read = crashed.files.read.load(Ordering::Relaxed);
    assert!(
        read > last && read < 2 * last + segments * footer_bytes(25),
        "{read} bytes were read"
    );
    assert_eq!(found(&disk, 0..300).len(), 300);
    assert_eq!(disk.stats().corrupt, 0);
}

#[test]
fn a_start_on_a_full_disk_finds_what_a_crash_left() {
    let bench = Bench::new(64 << 20, 1 << 20);
    let disk = bench.open();
    for key in 0..300 {
        put(&disk, key, 50_000);
    }
    disk.shutdown();
    for (path, len) in bench.segments() {
        // Without a whole footer.
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .set_len(len - 8)
            .unwrap();
    }
    bench.files.set(|faults| faults.full = Some((bench.tier().into(), 0)));
    let disk = bench.open();
    let stats = disk.stats();
    assert!(stats.on);
    assert_eq!((stats.entries, stats.bytes), (300, on_disk(bench.tier())));
    assert_eq!(found(&disk, 0..300).len(), 300);
    bench.files.set(|faults| faults.full = None);
    put(&disk, 300, 50_000);
    disk.shutdown();
    assert_eq!(found(&bench.open(), 0..301).len(), 301);
}

#[test]
fn many_restarts_go_on_with_one_segment() {
    let bench = Bench::new(64 << 20, 1 << 20);
    for key in 0..20 {
        let disk = bench.open();
        put(&disk, key, 1000);
        disk.sync();
        disk.shutdown();
    }
    assert_eq!(bench.segments().len(), 1);
    let disk = bench.open();
    assert_eq!(found(&disk, 0..20).len(), 20);
}

#[test]
fn the_newest_of_a_name_is_found_and_no_more_than_eight() {
    let bench = Bench::new(64 << 20, 64 << 10);
    let disk = bench.open();
    // Over several segments.
    for round in 0..5 {
        for variant in 0..8 {
            disk.put(1, variant, meta(1, round), body(1, variant, 5000));
        }
    }
    disk.put(1, 8, meta(1, 4), body(1, 8, 5000));
    let check = |disk: &Disk, when: &str| {
        let found = get(disk, 1);
        let variants: Vec<_> = found.iter().map(|record| record.variant).collect();
        assert_eq!(variants, [1, 2, 3, 4, 5, 6, 7, 8], "{when}");
        for record in found {
            assert_eq!(
                (record.meta, record.body),
                (meta(1, 4), body(1, record.variant, 5000)),
                "{when}"
            );
        }
    };
    check(&disk, "queued, or written in part");
    disk.sync();
    check(&disk, "written");
    disk.shutdown();
    check(&bench.open(), "recovered");
}

#[test]
fn a_smaller_bound_is_kept_from_the_start() {
    let mut bench = Bench::new(16 << 20, 256 << 10);
    let disk = bench.open();
    for key in 0..1000 {
        put(&disk, key, 10_000);
    }
    disk.sync();
    disk.shutdown();
    assert!(on_disk(bench.tier()) > 9 << 20);
    bench.config.bytes = 2 << 20;
    let disk = bench.open();
    assert!(on_disk(bench.tier()) <= 2 << 20);
    let left = found(&disk, 0..1000);
    assert!(left.len() > 120 && left.contains(&999), "{} are left", left.len());
    disk.shutdown();
    bench.config.bytes = 16 << 10;
    let disk = bench.open();
    assert!(disk.stats().on);
    assert!(on_disk(bench.tier()) <= 16 << 10);
}

#[test]
fn rubbish_is_survived_and_files_of_others_are_left() {
    let bench = Bench::new(1 << 20, 64 << 10);
    let tier = bench.tier();
    fs::create_dir_all(tier.join("0000000007.seg")).unwrap();
    fs::write(tier.join("journal"), "not ours").unwrap();
    fs::write(tier.join("12.seg"), "not ours").unwrap();
    fs::write(tier.join("0000000001.seg"), "").unwrap();
    fs::write(tier.join("0000000002.seg"), "rubbish").unwrap();
    fs::write(tier.join("0000000003.seg"), vec![0xff; 100_000]).unwrap();
    std::os::unix::fs::symlink(tier.join("journal"), tier.join("0000000004.seg")).unwrap();
    let disk = bench.open();
    assert!(disk.stats().on);
    put(&disk, 1, 100);
    disk.sync();
    let mut names = System.names(tier).unwrap();
    names.sort();
    assert_eq!(names, ["0000000007.seg", "0000000008.seg", "12.seg", "journal", "lock"]);
    assert_eq!(fs::read_to_string(tier.join("journal")).unwrap(), "not ours");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(tier), 0o700);
    assert_eq!(mode(&tier.join("0000000008.seg")), 0o600);
    assert_eq!(mode(&tier.join("lock")), 0o600);
}

#[test]
fn a_folder_that_another_process_uses_is_waited_for() {
    let bench = Bench::new(1 << 20, 64 << 10);
    let first = bench.open();
    put(&first, 1, 100);
    let second = bench.open();
    assert!(!second.stats().on);
    assert_eq!(put(&second, 2, 100), Put::Off);
    assert!(!has(&second, 1));
    first.shutdown();
    bench.pass(Duration::from_secs(60));
    put(&second, 2, 100);
    second.sync();
    assert!(second.stats().on);
    assert!(has(&second, 1), "what the other one stored is found");
}

#[test]
fn after_its_end_the_tier_is_off() {
    let bench = Bench::new(1 << 20, 64 << 10);
    let disk = bench.open();
    put(&disk, 1, 100);
    disk.shutdown();
    disk.shutdown();
    disk.sync();
    disk.clear();
    assert!(!has(&disk, 1));
    assert_eq!(put(&disk, 1, 100), Put::Off);
    bench.pass(Duration::from_secs(10_000));
    assert_eq!(put(&disk, 1, 100), Put::Off);
    assert!(!disk.stats().on);
}
