//! A disk that fails costs the tier, never its users.

use std::fs;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A tier with a hundred records in several segments.
fn filled() -> (Bench, Disk) {
    let bench = Bench::new(4 << 20, 256 << 10);
    let disk = bench.open();
    for key in 0..100 {
        put(&disk, key, 10_000);
    }
    disk.sync();
    assert_eq!(found(&disk, 0..100).len(), 100);
    (bench, disk)
}

/// The tier is off, and nothing of it is to be seen.
fn assert_off(disk: &Disk, why: &str) {
    let stats = disk.stats();
    assert!(!stats.on, "{why}");
    assert_eq!(
        (stats.entries, stats.segments, stats.bytes, stats.queued_bytes),
        (0, 0, 0, 0),
        "{why}"
    );
    assert!(found(disk, 0..100).is_empty(), "{why}");
    assert_eq!(put(disk, 1, 10), Put::Off, "{why}");
}

#[test]
fn a_write_that_fails_turns_the_tier_off_until_it_works_again() {
    for (why, set) in [
        (
            "writes",
            (|faults, error| faults.write = error) as fn(&mut Faults, Option<Errno>),
        ),
        ("new files", |faults, error| faults.create = error),
        ("syncs", |faults, error| faults.sync = error),
        ("removals", |faults, error| faults.remove = error),
    ] {
        let (bench, disk) = filled();
        bench.files.set(|faults| set(faults, Some(Errno::IO)));
        for key in 1000..2000 {
            put(&disk, key, 10_000);
            put(&disk, key, 10_000);
        }
        disk.sync();
        assert_off(&disk, why);
        assert_eq!(disk.stats().turned_off, 1);
        bench.files.set(|faults| set(faults, None));
        bench.pass(Duration::from_secs(59));
        put(&disk, 1, 10);
        disk.sync();
        assert_off(&disk, why);
        bench.pass(Duration::from_secs(1));
        assert_eq!(put(&disk, 1, 10), Put::Off);
        disk.sync();
        assert!(disk.stats().on, "{why}");
        assert!(found(&disk, 0..3000).is_empty(), "{why}: nothing of before");
        assert!(bench.segments().is_empty(), "{why}");
        assert_eq!(put(&disk, 1, 10), Put::Queued);
        disk.sync();
        assert!(has(&disk, 1), "{why}");
        disk.shutdown();
        assert_eq!(found(&bench.open(), 0..3000), [1], "{why}");
    }
}

#[test]
fn errors_that_say_nothing_about_the_disk_cost_what_was_to_be_written() {
    for error in [Errno::MFILE, Errno::NFILE, Errno::NOMEM] {
        for (why, set) in [
            (
                "writes",
                (|faults, error| faults.write = error) as fn(&mut Faults, Option<Errno>),
            ),
            ("new files", |faults, error| faults.create = error),
            ("syncs", |faults, error| faults.sync = error),
            ("reads", |faults, error| faults.read = error),
        ] {
            let (bench, disk) = filled();
            bench.files.set(|faults| set(faults, Some(error)));
            for key in 1000..2000 {
                put(&disk, key, 10_000);
                put(&disk, key, 10_000);
            }
            put(&disk, 7, 20_000);
            get(&disk, 8);
            disk.sync();
            let stats = disk.stats();
            assert!(stats.on, "{why}: {error}");
            assert_eq!((stats.bytes, stats.queued_bytes), (on_disk(bench.tier()), 0), "{why}");
            assert!(stats.bytes <= 4 << 20, "{why}");
            bench.files.set(|faults| set(faults, None));
            if why != "reads" {
                assert_eq!(found(&disk, 0..100).len(), 99, "{why}: all but what was replaced");
                assert!(!has(&disk, 7), "{why}: nothing older is left");
            }
            put(&disk, 3000, 10_000);
            put(&disk, 3000, 10_000);
            disk.sync();
            assert!(has(&disk, 3000), "{why}: {error}");
            assert_eq!(disk.stats().bytes, on_disk(bench.tier()), "{why}");
            let left = found(&disk, 0..4000);
            disk.shutdown();
            assert_eq!(found(&bench.open(), left.iter().copied()), left, "{why}");
        }
    }
}

#[test]
fn it_is_tried_less_and_less_often() {
    let bench = Bench::new(1 << 20, 64 << 10);
    bench.files.set(|faults| faults.claim = Some(Errno::ROFS));
    let disk = bench.open();
    let mut tries = disk.stats().errors;
    assert_eq!(tries, 1);
    for pause in [60, 120, 240, 480, 600, 600] {
        bench.pass(Duration::from_secs(pause - 1));
        put(&disk, 1, 10);
        disk.sync();
        assert_eq!(disk.stats().errors, tries, "before {pause} s");
        bench.pass(Duration::from_secs(1));
        put(&disk, 1, 10);
        put(&disk, 1, 10);
        disk.sync();
        tries += 1;
        assert_eq!(disk.stats().errors, tries, "after {pause} s");
    }
    assert_off(&disk, "read-only");
}

#[test]
fn a_folder_that_cannot_be_used_at_the_start_is_recovered_later() {
    let (bench, disk) = filled();
    disk.shutdown();
    for error in [Errno::ROFS, Errno::ACCESS, Errno::IO, Errno::NOSPC] {
        bench.files.set(|faults| faults.claim = Some(error));
        let disk = bench.open();
        assert_off(&disk, &error.to_string());
        bench.files.set(|faults| faults.claim = None);
        bench.pass(MINUTE);
        put(&disk, 1, 10);
        disk.sync();
        assert_eq!(found(&disk, 0..100).len(), 100, "{error}");
        disk.shutdown();
    }
}

#[test]
fn one_record_that_cannot_be_read_is_a_miss_and_many_turn_the_tier_off() {
    for cold in [false, true] {
        let (bench, disk) = filled();
        bench.files.cold.store(cold, Ordering::Relaxed);
        bench.files.set(|faults| faults.read = Some(Errno::IO));
        assert!(found(&disk, 0..15).is_empty());
        bench.files.set(|faults| faults.read = None);
        // One that is read in between shows that the disk is well.
        assert!(has(&disk, 50));
        bench.files.set(|faults| faults.read = Some(Errno::IO));
        assert!(found(&disk, 15..30).is_empty());
        assert!(disk.stats().on);
        assert!(!has(&disk, 30));
        disk.sync();
        assert_off(&disk, "sixteen in a row");
        assert_eq!(disk.stats().errors, 31);
        bench.files.set(|faults| faults.read = None);
        bench.pass(MINUTE);
        put(&disk, 1, 10);
        disk.sync();
        assert!(disk.stats().on);
        assert!(found(&disk, 0..100).is_empty());
    }
}

#[test]
fn a_disk_that_is_full_early_makes_the_tier_smaller() {
    let (bench, disk) = filled();
    let room = 2 << 20;
    bench
        .files
        .set(|faults| faults.full = Some((bench.tier().into(), room)));
    for key in 1000..2000 {
        put(&disk, key, 10_000);
        put(&disk, key, 10_000);
        assert!(on_disk(bench.tier()) <= room);
    }
    disk.sync();
    let stats = disk.stats();
    assert!(stats.on);
    assert!(stats.limit <= room && stats.limit > room / 2, "{}", stats.limit);
    let left = found(&disk, 1000..2000);
    assert!(
        left.len() > 80 && left.ends_with(&[1998, 1999]),
        "{} are left",
        left.len()
    );
    // Others make room, and after a while it is used.
    bench.files.set(|faults| faults.full = None);
    bench.pass(10 * MINUTE);
    for key in 3000..4000 {
        put(&disk, key, 10_000);
        put(&disk, key, 10_000);
    }
    disk.sync();
    assert_eq!(disk.stats().limit, 4 << 20);
    assert!(on_disk(bench.tier()) > 3 << 20);
    disk.shutdown();
    assert!(found(&bench.open(), 3000..4000).len() > 250);
}

#[test]
fn a_disk_that_fills_up_while_a_segment_is_copied_is_accounted_for() {
    // Where the room ends decides in which write it does.
    for room in (16_000..400_000).step_by(48_000) {
        let (bench, disk) = filled();
        for key in 0..500 {
            put(&disk, key, 10_000);
            put(&disk, key, 10_000);
        }
        disk.sync();
        assert!(found(&disk, 0..500).len() > 300);
        let full = on_disk(bench.tier()) + room;
        bench
            .files
            .set(|faults| faults.full = Some((bench.tier().into(), full)));
        for key in 1000..1100 {
            put(&disk, key, 10_000);
            put(&disk, key, 10_000);
        }
        disk.sync();
        let stats = disk.stats();
        assert!(stats.on, "{room}");
        assert_eq!(stats.bytes, on_disk(bench.tier()), "{room}");
        assert!(stats.bytes <= 4 << 20, "{room}");
    }
}

#[test]
fn a_disk_without_room_turns_the_tier_off() {
    let (bench, disk) = filled();
    bench
        .files
        .set(|faults| faults.full = Some((bench.tier().into(), 100_000)));
    for key in 1000..1100 {
        put(&disk, key, 10_000);
    }
    disk.sync();
    assert_off(&disk, "no room");
    assert!(bench.segments().is_empty(), "what is there is given back");
}

#[test]
fn a_folder_that_is_removed_is_made_again() {
    let (bench, disk) = filled();
    fs::remove_dir_all(bench.tier()).unwrap();
    // What is open stays readable.
    assert_eq!(found(&disk, 0..100).len(), 100);
    for key in 1000..1100 {
        put(&disk, key, 10_000);
    }
    disk.sync();
    assert_off(&disk, "no folder");
    bench.pass(MINUTE);
    put(&disk, 1, 10);
    disk.sync();
    put(&disk, 1, 10);
    disk.sync();
    assert!(has(&disk, 1));
    assert_eq!(bench.segments().len(), 1);
}

#[test]
fn a_folder_that_is_a_file_leaves_the_tier_off() {
    let bench = Bench::new(1 << 20, 64 << 10);
    fs::write(bench.dir.path().join("tier"), "a file").unwrap();
    let disk = bench.open();
    assert_off(&disk, "a file");
    disk.shutdown();
    assert_eq!(fs::read_to_string(bench.tier()).unwrap(), "a file");
}

#[tokio::test]
async fn what_is_large_is_read_by_another_thread_within_a_bound_of_all() {
    let bench = Bench::new(64 << 20, 8 << 20);
    let disk = bench.open();
    put(&disk, 1, 3 << 20);
    disk.sync();
    let wait = || match disk.get(1) {
        Found::Wait(wait) => wait.records(),
        found => panic!("{found:?}"),
    };
    assert_eq!(wait().await.unwrap()[0].body, body(1, 0, 3 << 20));
    // With its head it takes four of 256 places.
    for (taken, reads) in [(253, false), (252, true)] {
        disk.shared.waiting.store(taken, Ordering::Relaxed);
        assert_eq!(wait().await.is_ok(), reads, "{taken}");
        assert_eq!(disk.shared.waiting.load(Ordering::Relaxed), taken);
    }
    assert_eq!(disk.stats().reads_given_up, 1);
}

#[tokio::test]
async fn what_is_not_at_hand_is_read_by_another_thread() {
    let (bench, disk) = filled();
    bench.files.cold.store(true, Ordering::Relaxed);
    let Found::Wait(wait) = disk.get(7) else {
        panic!("nothing is in memory");
    };
    let records = wait.records().await.unwrap();
    assert_eq!((records.len(), &records[0].body), (1, &body(7, 0, 10_000)));
    assert_eq!(disk.stats().reads_waited, 1);
    // A wait that is given up is no read.
    let Found::Wait(wait) = disk.get(7) else {
        panic!("nothing is in memory");
    };
    drop(wait);
    assert_eq!(disk.stats().reads_waited, 1);
    // Its segment may go in between.
    let Found::Wait(wait) = disk.get(8) else {
        panic!("nothing is in memory");
    };
    disk.clear();
    disk.sync();
    assert_eq!(wait.records().await.unwrap()[0].body, body(8, 0, 10_000));
    assert!(matches!(disk.get(8), Found::Absent));
}
