//! What stays and what goes.

use super::*;

#[test]
fn the_files_never_exceed_the_bound() {
    for (bytes, segment, len) in [
        (4 << 20, 256 << 10, 10_000),
        (4 << 20, 1 << 30, 500_000),
        (1 << 20, 1 << 14, 40),
    ] {
        let bench = Bench::new(bytes, segment);
        let disk = bench.open();
        let mut seen = 0;
        for key in 0..40 * u128::from(bytes) / len as u128 / 10 {
            // Twice, so that it is let in.
            put(&disk, key, len);
            put(&disk, key, len);
            if key % 50 == 0 || len > 100_000 {
                seen = seen.max(on_disk(bench.tier()));
                get(&disk, key / 2);
            }
        }
        disk.sync();
        seen = seen.max(on_disk(bench.tier()));
        assert!(seen <= bytes, "{seen} of {bytes}");
        assert!(seen > bytes * 7 / 10, "{seen} of {bytes}");
        let stats = disk.stats();
        assert_eq!(stats.bytes, on_disk(bench.tier()));
        assert!(stats.evicted_segments > 4 && stats.on);
        disk.shutdown();
        assert!(on_disk(bench.tier()) <= bytes);
    }
}

#[test]
fn what_is_read_stays_when_its_segment_goes() {
    let bench = Bench::new(4 << 20, 256 << 10);
    let disk = bench.open();
    for key in 0..40 {
        put(&disk, key, 10_000);
    }
    for key in 1000..4000 {
        put(&disk, key, 10_000);
        put(&disk, key, 10_000);
        if key % 20 == 0 {
            disk.sync();
            // The 41st is asked for by a tier above.
            assert_eq!(found(&disk, 0..4), [0, 1, 2, 3], "while {key} was written");
            assert!(disk.touch(4, 0));
        }
    }
    assert!(disk.stats().evicted_segments > 20);
    assert!(has(&disk, 4));
    assert!(found(&disk, 5..40).is_empty(), "what nobody reads goes");
    assert!(found(&disk, 3900..4000).len() > 95);
    let copied = disk.stats().copied;
    assert!(copied > 30, "{copied} were copied");
    disk.shutdown();
    let disk = bench.open();
    assert_eq!(found(&disk, 0..5), [0, 1, 2, 3, 4]);
}

#[test]
fn a_copy_never_brings_back_what_was_forgotten_or_replaced() {
    let bench = Bench::new(4 << 20, 256 << 10);
    let disk = bench.open();
    for key in 0..20 {
        put(&disk, key, 10_000);
    }
    disk.sync();
    assert_eq!(found(&disk, 0..20).len(), 20);
    disk.forget(3);
    disk.put(4, 0, meta(4, 0), body(4, 0, 77));
    for key in 1000..2000 {
        put(&disk, key, 10_000);
        put(&disk, key, 10_000);
        if key % 20 == 0 {
            disk.sync();
            assert!(get(&disk, 3).is_empty());
            assert_eq!(get(&disk, 4)[0].body.len(), 77);
        }
    }
    assert!(disk.stats().evicted_segments > 10);
}

#[test]
fn a_scan_leaves_what_is_asked_for() {
    const LEN: usize = 4000;
    let bench = Bench::new(4 << 20, 64 << 10);
    let disk = bench.open();
    let hot = 0..800;
    let whole = (4 << 20) / LEN as u128;
    for key in hot.clone() {
        assert_eq!(put(&disk, key, LEN), Put::Queued);
        // What is being written counts as queued, too: with much of it at a time there seems to be no room left.
        if key % 100 == 0 {
            disk.sync();
        }
    }
    // Five times the disk, each object once.
    for key in 10_000..10_000 + 5 * whole {
        put(&disk, key, LEN);
        if key % 10 == 0 {
            disk.sync();
            get(&disk, key % 800);
        }
    }
    disk.sync();
    let kept = found(&disk, hot).len();
    assert!(kept >= 760, "{kept} of 800 stayed");
    let stats = disk.stats();
    assert!(stats.refused > 4 * whole as u64, "{} were refused", stats.refused);
    // Who comes again is let in.
    let late: Vec<_> = (50_000..50_100).collect();
    for key in &late {
        put(&disk, *key, LEN);
    }
    for key in &late {
        assert_eq!(put(&disk, *key, LEN), Put::Queued);
    }
    disk.sync();
    assert_eq!(found(&disk, late).len(), 100);
}

#[test]
fn a_record_in_the_queue_is_found_replaced_and_forgotten() {
    let bench = Bench::new(4 << 20, 256 << 10);
    let disk = bench.open();
    bench.files.shut(true);
    put(&disk, 1, 10);
    put(&disk, 2, 10);
    put(&disk, 3, 10);
    disk.put(3, 0, meta(3, 0), body(3, 0, 20));
    assert!(has(&disk, 1) && has(&disk, 2));
    assert_eq!(get(&disk, 3)[0].body.len(), 20);
    assert!(disk.touch(3, 0) && !disk.touch(3, 1) && !disk.touch(4, 0));
    disk.forget(2);
    assert!(!has(&disk, 2));
    bench.files.shut(false);
    disk.sync();
    assert!(has(&disk, 1) && !has(&disk, 2));
    assert_eq!(get(&disk, 3)[0].body.len(), 20);
    assert_eq!(disk.stats().entries, 2);
    assert_eq!(disk.stats().queued_bytes, 0);
    disk.forget(1);
    assert!(!has(&disk, 1));
}

#[test]
fn one_variant_is_forgotten_and_the_others_stay() {
    let bench = Bench::new(4 << 20, 256 << 10);
    let disk = bench.open();
    bench.files.shut(true);
    for written in [false, true] {
        for variant in 0..3 {
            disk.put(1, variant, meta(1, variant), body(1, variant, 10));
        }
        if written {
            bench.files.shut(false);
            disk.sync();
        }
        disk.forget_variant(1, 1);
        disk.forget_variant(2, 0);
        let left: Vec<_> = get(&disk, 1).iter().map(|record| record.variant).collect();
        assert_eq!(left, [0, 2]);
    }
    disk.sync();
    assert_eq!(disk.stats().entries, 2);
}

#[test]
fn a_clear_leaves_nothing_but_what_comes_after() {
    let bench = Bench::new(4 << 20, 256 << 10);
    let disk = bench.open();
    for key in 0..100 {
        put(&disk, key, 10_000);
    }
    disk.sync();
    bench.files.shut(true);
    put(&disk, 100, 10);
    disk.clear();
    assert!(found(&disk, 0..101).is_empty(), "at once");
    bench.files.shut(false);
    disk.sync();
    assert!(found(&disk, 0..101).is_empty());
    assert_eq!(
        (on_disk(bench.tier()), disk.stats().entries, disk.stats().segments),
        (0, 0, 0)
    );
    put(&disk, 5, 10);
    disk.sync();
    assert!(has(&disk, 5));
    disk.shutdown();
    assert_eq!(found(&bench.open(), 0..101), [5]);
}

#[test]
fn what_the_writer_cannot_keep_up_with_is_dropped() {
    let mut bench = Bench::new(4 << 20, 256 << 10);
    bench.config.queue_bytes = 100_000;
    let disk = bench.open();
    bench.files.shut(true);
    let taken = (0..20).filter(|key| put(&disk, *key, 10_000) == Put::Queued).count();
    assert_eq!(taken, 9);
    assert_eq!(disk.stats().dropped, 11);
    assert!(disk.stats().queued_bytes <= 100_000);
    bench.files.shut(false);
    disk.sync();
    assert_eq!(put(&disk, 50, 10_000), Put::Queued);
    disk.sync();
    assert_eq!(found(&disk, 0..100).len(), 10);
}

#[test]
fn a_record_that_no_segment_holds_is_refused() {
    let bench = Bench::new(1 << 20, 64 << 10);
    let disk = bench.open();
    let most = (64 << 10) - 24 - 48 - 32 - 32;
    let len = most / 8 * 8;
    let bytes = |len: usize| Bytes::from(vec![1; len]);
    assert_eq!(disk.put(1, 0, Bytes::new(), bytes(len + 1)), Put::TooLarge);
    assert_eq!(disk.put(1, 0, Bytes::new(), bytes(len)), Put::Queued);
    disk.sync();
    assert_eq!(get(&disk, 1)[0].body, bytes(len));
    assert_eq!(bench.segments().len(), 1);
    assert_eq!(disk.put(2, 0, bytes(len), Bytes::new()), Put::Queued);
    assert_eq!(disk.put(3, 0, Bytes::new(), Bytes::new()), Put::Queued);
    disk.sync();
    assert_eq!(get(&disk, 2)[0].meta, bytes(len));
    assert_eq!(get(&disk, 3).len(), 1);
    assert!(bench.segments().values().all(|len| *len <= 64 << 10));
}

#[test]
fn keys_that_the_index_cannot_tell_apart_are_not_mixed_up() {
    let bench = Bench::new(1 << 20, 64 << 10);
    let disk = bench.open();
    // Neighbours, and keys that differ in few bits.
    let keys: Vec<u128> = (0..128).map(|bit| 1 << bit).chain(1000..2000).collect();
    for key in &keys {
        put(&disk, *key, 8);
    }
    disk.sync();
    assert_eq!(found(&disk, keys.clone()), keys);
}

#[test]
fn records_are_no_more_than_the_index_has_room_for() {
    let bench = Bench::new(64 << 20, 1 << 20);
    let disk = bench.open();
    for key in 0..200_000 {
        put(&disk, key, 10);
        put(&disk, key, 10);
        if key % 1000 == 0 {
            disk.sync();
        }
    }
    disk.sync();
    let stats = disk.stats();
    // A segment more, at most.
    assert!((60_000..75_000).contains(&stats.entries), "{}", stats.entries);
    assert!(stats.bytes < 32 << 20 && stats.on);
}

#[test]
fn many_small_records_do_not_take_all_large_ones_along() {
    let bench = Bench::new(64 << 20, 1 << 20);
    let disk = bench.open();
    for key in 0..300 {
        put(&disk, key, 100_000);
    }
    disk.sync();
    for key in 1_000..301_000 {
        put(&disk, key, 10);
        put(&disk, key, 10);
        if key % 1000 == 0 {
            disk.sync();
        }
    }
    disk.sync();
    let (stats, large) = (disk.stats(), found(&disk, 0..300).len());
    assert!(stats.entries < 3 << 16 && stats.on, "{}", stats.entries);
    assert!(large > 100, "{large} are left");
}
