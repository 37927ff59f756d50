//! Purges and the disk that they are written to: what hangs, fails or is full.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    cache::{CacheConfig, Lookup},
    disk::{
        DiskConfig, JOURNAL,
        tests::{Faulty, on_disk},
    },
    fill::{BodyError, BoxBody, Fetched, FetchedResponse},
    tier::Tier,
};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use rustix::io::Errno;
use std::{fs, path::Path};
use tempfile::TempDir;

const LENGTH: usize = 50_000;

/// A cache whose disk's files are these, in small segments.
fn open(dir: &Path, files: &Arc<Faulty>) -> Arc<Cache> {
    let disk = DiskConfig::new(dir, 16 << 20);
    let (tier, purges) = Tier::open_with(disk, files.clone()).unwrap();
    Cache::with_tier(CacheConfig::with_memory(64 << 20), Some(Arc::new(tier)), purges)
}

fn new() -> (TempDir, Arc<Faulty>, Arc<Cache>) {
    let (dir, files) = (tempfile::tempdir().unwrap(), Arc::default());
    let cache = open(dir.path(), &files);
    (dir, files, cache)
}

fn key(path: &str) -> KeyRef<'_> {
    of_path(1, 0, path)
}

async fn fill(cache: &Arc<Cache>, path: &str) {
    let body: BoxBody = Box::pin(Full::from(vec![7; LENGTH]).map_err(|e| -> BodyError { match e {} }));
    let fresh = (
        HeaderName::from_static("cache-control"),
        HeaderValue::from_static("max-age=600"),
    );
    let answer = FetchedResponse {
        head: ResponseHead {
            status: StatusCode::OK,
            headers: [fresh].into_iter().collect(),
        },
        body,
        length: Some(LENGTH as u64),
        settings: Settings::http(),
    };
    let fetched = cache
        .fetch(key(path), &HeaderMap::new(), None, |_| async { Ok(answer) })
        .await;
    let Ok(Fetched::Stream(stream)) = fetched else {
        panic!("{fetched:?}")
    };
    stream.body.collect(u64::MAX).await.unwrap();
}

/// Waits until all that was stored is written.
async fn written(cache: &Cache) {
    while cache.stats().disk.unwrap().queued_bytes > 0 {
        tokio::task::yield_now().await;
    }
}

async fn has(cache: &Cache, path: &str) -> bool {
    let (none, now) = (HeaderMap::new(), Now::now());
    let lookup = match cache.lookup(key(path), &none, now) {
        Lookup::OnDisk(on_disk) => cache.read(key(path), &none, now, on_disk).await,
        lookup => lookup,
    };
    matches!(lookup, Lookup::Fresh { .. })
}

/// What a start finds after the power failed now: of these paths, and how far the change log was followed.
async fn after_a_crash(dir: &Path, paths: &[&str]) -> (Vec<bool>, Option<u64>) {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(dir).unwrap().flatten() {
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let cache = open(copy.path(), &Arc::default());
    let mut found = Vec::new();
    for path in paths {
        found.push(has(&cache, path).await);
    }
    (found, cache.position())
}

#[test]
fn a_disk_that_hangs_stops_nobody_but_who_waits_for_it() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(2)
        .enable_all()
        .build();
    runtime.unwrap().block_on(async {
        let (dir, files, cache) = new();
        fill(&cache, "a").await;
        written(&cache).await;
        files.shut(true);
        cache.purge(1, 0, "a");
        cache.settle(5);
        let waiting: Vec<_> = (0..10)
            .map(|_| {
                let cache = cache.clone();
                tokio::spawn(async move { cache.persist().await })
            })
            .collect();
        tokio::task::yield_now().await;
        // One of them is at it; the others hold no thread.
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        assert!(!has(&cache, "a").await);
        fill(&cache, "b").await;
        assert!(has(&cache, "b").await);
        cache.purge(1, 0, "b");
        assert!(!has(&cache, "b").await);
        cache.settle(6);
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        files.shut(false);
        for waiting in waiting {
            waiting.await.unwrap();
        }
        assert_eq!(after_a_crash(dir.path(), &["a"]).await, (vec![false], Some(5)));
        cache.persist().await;
        written(&cache).await;
        assert_eq!(after_a_crash(dir.path(), &["a", "b"]).await, (vec![false; 2], Some(6)));
    });
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_anew_costs_nothing() {
    let (dir, files, cache) = new();
    fill(&cache, "a").await;
    fill(&cache, "b").await;
    written(&cache).await;
    let journal = || fs::metadata(dir.path().join(JOURNAL)).unwrap().len();
    let long = "x".repeat(100_000);
    let purge = async || {
        cache.purge(1, 0, &long);
        cache.persist().await;
    };
    files.set(|faults| faults.create = Some(Errno::NOSPC));
    while journal() < 5 << 20 {
        purge().await;
    }
    cache.purge(1, 0, "b");
    cache.persist().await;
    assert!(cache.stats().disk.unwrap().entries > 0);
    assert_eq!(after_a_crash(dir.path(), &["a", "b"]).await.0, [true, false]);
    files.set(|faults| faults.create = None);
    for _ in 0..20 {
        purge().await;
    }
    assert!(journal() < 4 << 20, "tried again");
    assert_eq!(after_a_crash(dir.path(), &["a", "b"]).await.0, [true, false]);
}

#[tokio::test]
async fn a_purge_that_cannot_be_written_down_costs_what_is_stored_only_at_a_restart() {
    let (dir, files, cache) = new();
    for path in ["a", "b", "c"] {
        fill(&cache, path).await;
    }
    written(&cache).await;
    files.set(|faults| faults.sync = Some(Errno::IO));
    cache.purge(1, 0, "a");
    cache.persist().await;
    // The folder cannot be synced either, so that the journal might come back: everything goes.
    assert_eq!(cache.stats().disk.unwrap().entries, 0);
    files.set(|faults| faults.sync = None);
    cache.stored.clear();
    fill(&cache, "b").await;
    written(&cache).await;
    files.set(|faults| faults.write = Some(Errno::NOSPC));
    cache.purge(1, 0, "c");
    cache.persist().await;
    assert!(cache.stats().disk.unwrap().entries > 0);
    assert_eq!(after_a_crash(dir.path(), &["a", "b", "c"]).await.0, [false; 3]);
    files.set(|faults| faults.write = None);
    cache.settle(1);
    cache.persist().await;
    assert_eq!(
        after_a_crash(dir.path(), &["a", "b", "c"]).await,
        (vec![false, true, false], Some(1))
    );
}

#[tokio::test]
async fn a_start_on_a_full_disk_has_what_was_stored_and_notes_what_is_purged() {
    let (dir, files, cache) = new();
    let paths: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    for path in &paths {
        fill(&cache, path).await;
    }
    cache.shutdown();
    drop(cache);
    // Less than the oldest segment is wanted, and then more than there is.
    for (room, at_once) in [(on_disk(dir.path()), true), (0, false)] {
        files.set(|faults| faults.full = Some((dir.path().to_owned(), room)));
        let cache = open(dir.path(), &files);
        assert!(cache.stats().disk.unwrap().on);
        assert!(has(&cache, "90").await && has(&cache, "95").await);
        let purged = if at_once { "98" } else { "99" };
        cache.purge(1, 0, purged);
        cache.persist().await;
        let (found, _) = after_a_crash(dir.path(), &["90", purged]).await;
        assert_eq!(found, [at_once, false]);
        files.set(|faults| faults.full = None);
        cache.settle(1);
        cache.persist().await;
        let (found, _) = after_a_crash(dir.path(), &["90", "98", purged]).await;
        assert_eq!(found, [true, false, false]);
        cache.shutdown();
    }
}
