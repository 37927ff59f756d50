//! What a cache with a disk tier has after a restart of what the origin confirmed.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use edgeweir_cache::{
    BodyError, BoxBody, Cache, CacheConfig, Content, Entry, FetchStatus, Fetched, FetchedResponse, KeyRef, Lookup, Now,
    ResponseHead, disk::DiskConfig, policy::Settings,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use std::{path::Path, sync::Arc};

const LENGTH: usize = 100_000;

fn open(dir: &Path) -> Arc<Cache> {
    Cache::with_disk(CacheConfig::with_memory(16 << 20), DiskConfig::new(dir, 64 << 20)).unwrap()
}

const KEY: KeyRef<'_> = KeyRef {
    site: 1,
    generation: 0,
    path: "a",
    query: "",
};

type Fields<'a> = [(&'static str, &'a str)];

fn fields(list: &Fields<'_>) -> HeaderMap {
    list.iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap()))
        .collect()
}

fn response(status: u16, list: &Fields<'_>, byte: u8, length: usize) -> FetchedResponse {
    let body: BoxBody = Box::pin(Full::from(vec![byte; length]).map_err(|e| -> BodyError { match e {} }));
    FetchedResponse {
        head: ResponseHead {
            status: StatusCode::from_u16(status).unwrap(),
            headers: fields(list),
        },
        body,
        length: Some(length as u64),
        settings: Settings::http(),
    }
}

/// Stores a body of this byte, for requests with these fields.
async fn fill(cache: &Arc<Cache>, request: &Fields<'_>, list: &Fields<'_>, byte: u8) {
    let answer = response(200, list, byte, LENGTH);
    // As every fetch, after a look-up: what is stale and on disk comes into memory.
    let _ = found(cache, request).await;
    let fetched = cache.fetch(KEY, &fields(request), None, |_| async { Ok(answer) }).await;
    let Ok(Fetched::Stream(stream)) = fetched else {
        panic!("{fetched:?}")
    };
    stream.body.collect(u64::MAX).await.unwrap();
}

/// Has the origin confirm what is stored.
async fn confirm(cache: &Arc<Cache>, request: &Fields<'_>, list: &Fields<'_>) {
    assert!(found(cache, request).await.is_some());
    let answer = response(304, list, 0, 0);
    let fetched = cache.fetch(KEY, &fields(request), None, |_| async { Ok(answer) }).await;
    assert!(
        matches!(fetched, Ok(Fetched::Entry(_, FetchStatus::Revalidated, _))),
        "{fetched:?}"
    );
}

/// What is stored, and whether it is fresh.
async fn found(cache: &Cache, request: &Fields<'_>) -> Option<(Arc<Entry>, bool)> {
    let (request, now) = (fields(request), Now::now());
    let lookup = match cache.lookup(KEY, &request, now) {
        Lookup::OnDisk(on_disk) => cache.read(KEY, &request, now, on_disk).await,
        lookup => lookup,
    };
    match lookup {
        Lookup::Fresh { entry, .. } => Some((entry, true)),
        Lookup::Stale(entry) | Lookup::StaleWhileRevalidate(entry) => Some((entry, false)),
        Lookup::Miss => None,
        other => panic!("{other:?}"),
    }
}

fn content(entry: &Entry) -> Bytes {
    match entry.content() {
        Content::Whole(held) => held.bytes(),
        Content::Sliced(_) => panic!("in slices"),
    }
}

fn restarted(cache: Arc<Cache>, dir: &Path) -> Arc<Cache> {
    cache.shutdown();
    drop(cache);
    open(dir)
}

const STALE: [(&str, &str); 2] = [("cache-control", "max-age=0"), ("etag", "\"1\"")];
const FRESH: [(&str, &str); 2] = [("cache-control", "max-age=600"), ("x", "2")];

#[tokio::test]
async fn what_was_confirmed_is_fresh_after_a_restart_and_its_body_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open(dir.path());
    fill(&cache, &[], &STALE, 1).await;
    for _ in 0..10 {
        confirm(&cache, &[], &STALE).await;
    }
    cache = restarted(cache, dir.path());
    assert!(!found(&cache, &[]).await.unwrap().1);
    // What is read from disk is confirmed, too.
    confirm(&cache, &[], &FRESH).await;
    cache = restarted(cache, dir.path());
    let (entry, fresh) = found(&cache, &[]).await.unwrap();
    assert_eq!((entry.headers()["x"].to_str().unwrap(), fresh), ("2", true));
    assert_eq!(content(&entry), vec![1; LENGTH]);
    assert!(entry.age(Now::now()).as_secs() < 60);
    let held = cache.stats().disk.unwrap().bytes;
    assert!(held < 2 * LENGTH as u64, "{held}");
}

#[tokio::test]
async fn what_was_confirmed_and_then_changed_is_what_it_changed_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open(dir.path());
    fill(&cache, &[], &STALE, 1).await;
    confirm(&cache, &[], &[("cache-control", "max-age=0"), ("x", "2")]).await;
    fill(&cache, &[], &STALE, 3).await;
    cache = restarted(cache, dir.path());
    let (entry, fresh) = found(&cache, &[]).await.unwrap();
    assert_eq!((content(&entry), fresh), (vec![3; LENGTH].into(), false));
    assert!(!entry.headers().contains_key("x"));
}

#[tokio::test]
async fn each_variant_is_confirmed_for_itself_and_purged_with_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open(dir.path());
    let vary = |control| [("cache-control", control), ("etag", "\"1\""), ("vary", "accept")];
    let (one, two) = ([("accept", "1")], [("accept", "2")]);
    fill(&cache, &one, &vary("max-age=0"), 1).await;
    fill(&cache, &two, &vary("max-age=0"), 2).await;
    confirm(&cache, &two, &vary("max-age=600")).await;
    cache = restarted(cache, dir.path());
    for (request, byte, expected) in [(&one, 1, false), (&two, 2, true)] {
        let (entry, fresh) = found(&cache, request).await.unwrap();
        assert_eq!((content(&entry), fresh), (vec![byte; LENGTH].into(), expected));
    }
    cache.purge(1, 0, "a");
    cache = restarted(cache, dir.path());
    for request in [&one, &two] {
        assert!(found(&cache, request).await.is_none());
    }
}

/// Of two variants one becomes somebody's own: it is gone from the disk, too, however memory keeps the other.
#[tokio::test]
async fn what_is_not_shared_any_more_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open(dir.path());
    let vary = [
        ("cache-control", "max-age=0, stale-while-revalidate=600"),
        ("etag", "\"1\""),
        ("vary", "accept"),
    ];
    let (one, two) = ([("accept", "1")], [("accept", "2")]);
    fill(&cache, &one, &vary, 1).await;
    fill(&cache, &two, &vary, 2).await;
    cache = restarted(cache, dir.path());
    assert!(found(&cache, &one).await.is_some());
    let answer = response(200, &[("cache-control", "private")], 3, LENGTH);
    let fetched = cache.fetch(KEY, &fields(&one), None, |_| async { Ok(answer) }).await;
    assert!(matches!(fetched, Ok(Fetched::Own(_))), "{fetched:?}");
    cache = restarted(cache, dir.path());
    assert!(found(&cache, &one).await.is_none());
    assert_eq!(content(&found(&cache, &two).await.unwrap().0), vec![2; LENGTH]);
}

/// Memory keeps what came last, and the disk nothing older, also when what came last has no place there.
#[tokio::test]
async fn what_was_replaced_does_not_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut cache = open(dir.path());
    fill(&cache, &[], &STALE, 1).await;
    cache = restarted(cache, dir.path());
    assert!(found(&cache, &[]).await.is_some());
    let mut answer = response(200, &FRESH, 2, LENGTH);
    answer.settings.persist = false;
    let fetched = cache.fetch(KEY, &fields(&[]), None, |_| async { Ok(answer) }).await;
    let Ok(Fetched::Stream(stream)) = fetched else {
        panic!("{fetched:?}")
    };
    stream.body.collect(u64::MAX).await.unwrap();
    assert_eq!(content(&found(&cache, &[]).await.unwrap().0), vec![2; LENGTH]);
    cache = restarted(cache, dir.path());
    assert!(found(&cache, &[]).await.is_none());
}
