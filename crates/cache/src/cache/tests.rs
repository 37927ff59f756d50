#![allow(clippy::unwrap_used)]
use super::*;
use crate::{
    entry::{Content, Validators},
    fill::{BodyError, FetchError, FetchStatus, Fetched, FetchedResponse, ResponseHead},
    policy::Settings,
};
use bytes::Bytes;
use edgeweir_model::{KeyPrefix, Purge, Purged, SurrogateKey};
use http::{HeaderName, HeaderValue, StatusCode, header::CONTENT_LENGTH};
use std::{
    future::poll_fn,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::SystemTime,
};
use tokio::sync::mpsc;

mod sharing;

/// A body fed by the test.
struct Fed(mpsc::UnboundedReceiver<Result<Bytes, BodyError>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        self.0
            .poll_recv(cx)
            .map(|item| item.map(|chunk| chunk.map(http_body::Frame::data)))
    }
}

type Feed = mpsc::UnboundedSender<Result<Bytes, BodyError>>;

fn response(status: u16, fields: &[(&'static str, &str)], length: Option<u64>) -> (FetchedResponse, Feed) {
    let mut headers: HeaderMap = fields
        .iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap()))
        .collect();
    if let Some(length) = length {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    let (feed, body) = mpsc::unbounded_channel();
    let head = ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
    };
    (
        FetchedResponse {
            head,
            body: Box::pin(Fed(body)),
            length,
            settings: Settings::storage(),
        },
        feed,
    )
}

fn whole(status: u16, fields: &[(&'static str, &str)], body: &'static str) -> FetchedResponse {
    let (response, feed) = response(status, fields, Some(body.len() as u64));
    feed.send(Ok(Bytes::from(body))).unwrap();
    response
}

fn cache() -> Arc<Cache> {
    Cache::new(CacheConfig {
        memory_bytes: 1 << 20,
        max_object_bytes: 1 << 16,
        slice_bytes: SLICE_BYTES,
        attached_bytes: 0,
    })
}

fn key(path: &str) -> KeyRef<'_> {
    KeyRef {
        site: 1,
        generation: 0,
        path,
        query: "",
    }
}

fn fields(list: &[(&'static str, &'static str)]) -> HeaderMap {
    list.iter()
        .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
        .collect()
}

fn content(entry: &Entry) -> Bytes {
    match entry.content() {
        Content::Whole(held) => held.bytes(),
        Content::Sliced(_) => panic!("in slices"),
    }
}

async fn body(fetched: Result<Fetched, FetchError>) -> Result<Bytes, BodyError> {
    match fetched.unwrap() {
        Fetched::Entry(entry, ..) => Ok(content(&entry)),
        Fetched::Stream(stream) => stream.body.collect(u64::MAX).await,
        other => panic!("{other:?}"),
    }
}

/// Fetches what is given, reads it to the end, and waits until the fill is over.
async fn fill(cache: &Arc<Cache>, key: KeyRef<'_>, request: &HeaderMap, response: FetchedResponse) {
    let fetched = cache.fetch(key, request, None, |_| async { Ok(response) }).await;
    body(fetched).await.unwrap();
}

fn is_fresh(cache: &Cache, key: KeyRef<'_>, request: &HeaderMap) -> bool {
    matches!(cache.lookup(key, request, Now::now()), Lookup::Fresh { .. })
}

const MAX_AGE: (&str, &str) = ("cache-control", "max-age=60");

#[tokio::test]
async fn who_looked_before_a_fetch_ended_and_asks_after_it_fetches_nothing() {
    let (cache, none) = (cache(), HeaderMap::new());
    assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss));
    fill(&cache, key("a"), &none, whole(200, &[MAX_AGE], "first")).await;
    let second = whole(200, &[MAX_AGE], "second");
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(second) }).await;
    assert_eq!(body(fetched).await.unwrap(), "first");
}

/// A body of a single part, which is its last, and of which no more is heard.
struct LastPart(Bytes);

impl http_body::Body for LastPart {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        if self.is_end_stream() {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(std::mem::take(&mut self.0)))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

#[tokio::test]
async fn who_has_the_last_byte_finds_it_stored() {
    let (cache, none) = (cache(), HeaderMap::new());
    let (mut response, _feed) = response(200, &[MAX_AGE], Some(7));
    response.body = Box::pin(LastPart("content".into()));
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
    let Ok(Fetched::Stream(mut stream)) = fetched else {
        panic!("{fetched:?}")
    };
    let mut had = 0;
    while had < 7 {
        had += poll_fn(|cx| stream.body.poll_chunk(cx)).await.unwrap().unwrap().len();
    }
    assert!(is_fresh(&cache, key("a"), &none));
}

/// Values and chunks are parts of the buffers that a connection is read into: one byte kept would keep all of it.
#[tokio::test]
async fn what_is_stored_keeps_no_buffer_of_a_connection() {
    let (read, asked) = (Bytes::from(vec![b'x'; 1 << 16]), Bytes::from(vec![b'q'; 1 << 16]));
    let part = |buffer: &Bytes| HeaderValue::from_maybe_shared(buffer.slice(..10)).unwrap();
    let mut request = fields(&[]);
    request.insert("x-selects", part(&asked));
    let mut headers = fields(&[MAX_AGE, ("vary", "x-selects")]);
    headers.insert("etag", part(&read));
    headers.insert("x-other", part(&read));
    let head = ResponseHead {
        status: StatusCode::OK,
        headers,
    };
    let cache = cache();
    let response = FetchedResponse::whole(head, read.slice(..10), Settings::storage());
    fill(&cache, key("a"), &request, response).await;
    assert!(is_fresh(&cache, key("a"), &request));
    drop(request);
    assert!(read.is_unique() && asked.is_unique());
}

#[tokio::test]
async fn a_thousand_misses_are_one_fetch_and_all_read_it_as_it_comes() {
    let cache = cache();
    let fetches = Arc::new(AtomicUsize::new(0));
    let (response, feed) = response(200, &[MAX_AGE], Some(10));
    let response = Arc::new(Mutex::new(Some(response)));
    let (ready, mut heads) = mpsc::unbounded_channel();
    let readers: Vec<_> = (0..1000)
        .map(|_| {
            let (cache, fetches, response, ready) = (cache.clone(), fetches.clone(), response.clone(), ready.clone());
            tokio::spawn(async move {
                let fetched = cache
                    .fetch(key("a"), &HeaderMap::new(), None, |_| async move {
                        fetches.fetch_add(1, Ordering::SeqCst);
                        Ok(response.lock().take().unwrap())
                    })
                    .await;
                ready.send(()).unwrap();
                body(fetched).await
            })
        })
        .collect();
    feed.send(Ok(Bytes::from("hello"))).unwrap();
    // Every reader has the head while the body is still on its way.
    for _ in 0..1000 {
        heads.recv().await.unwrap();
    }
    feed.send(Ok(Bytes::from("world"))).unwrap();
    drop(feed);
    for reader in readers {
        assert_eq!(reader.await.unwrap().unwrap(), "helloworld");
    }
    assert_eq!(fetches.load(Ordering::SeqCst), 1);
    assert!(is_fresh(&cache, key("a"), &HeaderMap::new()));
}

#[tokio::test]
async fn a_broken_body_is_seen_and_not_kept() {
    let none = HeaderMap::new();
    for (case, chunk, length) in [
        ("short", "abc", Some(10)),
        ("long", "abcdefghijkl", Some(10)),
        ("reset", "abc", None),
    ] {
        let cache = cache();
        let (response, feed) = response(200, &[MAX_AGE], length);
        feed.send(Ok(Bytes::from(chunk))).unwrap();
        if case == "reset" {
            feed.send(Err(BodyError::Broken("reset".into()))).unwrap();
        }
        drop(feed);
        let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
        assert!(body(fetched).await.is_err(), "{case}");
        assert!(
            matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss),
            "{case}"
        );
    }
}

/// Waits until fills have so many holders.
async fn joined(cache: &Cache, count: usize) {
    let holders = |shard: &Mutex<Shard>| shard.lock().fills.values().map(Arc::strong_count).sum::<usize>();
    while cache.shards.iter().map(holders).sum::<usize>() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn followers_of_a_failure_share_one_more_fetch() {
    let cache = cache();
    let attempts = Arc::new(AtomicUsize::new(0));
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let callers: Vec<_> = (0..100)
        .map(|_| {
            let (cache, attempts, gate) = (cache.clone(), attempts.clone(), gate.clone());
            tokio::spawn(async move {
                let result = cache
                    .fetch(key("a"), &HeaderMap::new(), None, |_| async move {
                        let _permit = gate.acquire().await.unwrap();
                        if attempts.fetch_add(1, Ordering::SeqCst) == 0 {
                            return Err(Arc::new(std::io::Error::other("down")) as FetchError);
                        }
                        Ok(whole(200, &[MAX_AGE], "ok"))
                    })
                    .await;
                match result {
                    Ok(fetched) => body(Ok(fetched)).await.is_ok(),
                    Err(_) => false,
                }
            })
        })
        .collect();
    // All have joined before the first fetch is let go.
    joined(&cache, 102).await;
    gate.add_permits(100);
    let mut good = 0;
    for caller in callers {
        good += usize::from(caller.await.unwrap());
    }
    assert_eq!((good, attempts.load(Ordering::SeqCst)), (99, 2));
}

#[tokio::test]
async fn a_purge_wins_over_a_fill_that_began_before_it() {
    let (cache, none) = (cache(), HeaderMap::new());
    let (old, feed) = response(200, &[MAX_AGE], Some(3));
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(old) }).await;
    cache.purge(1, 0, "a");
    // Who comes after the purge does not join the fill that began before it.
    fill(&cache, key("a"), &none, whole(200, &[MAX_AGE], "new")).await;
    feed.send(Ok(Bytes::from("old"))).unwrap();
    drop(feed);
    assert_eq!(body(fetched).await.unwrap(), "old");
    let Lookup::Fresh { entry, .. } = cache.lookup(key("a"), &none, Now::now()) else {
        panic!("not stored")
    };
    assert_eq!(content(&entry), "new");
}

#[tokio::test]
async fn a_purge_takes_every_query_and_variant_of_its_path_alone() {
    let cache = cache();
    let vary = [MAX_AGE, ("vary", "accept-language")];
    let languages = [
        fields(&[("accept-language", "de")]),
        fields(&[("accept-language", "en")]),
    ];
    for language in &languages {
        for path in ["a", "b"] {
            for query in ["", "x=1"] {
                fill(&cache, KeyRef { query, ..key(path) }, language, whole(200, &vary, "v")).await;
            }
        }
    }
    let all = |path: &'static str| {
        let cache = &cache;
        let keys = ["", "x=1"].map(|query| KeyRef { query, ..key(path) });
        languages
            .iter()
            .flat_map(move |l| keys.map(move |k| is_fresh(cache, k, l)))
            .collect::<Vec<_>>()
    };
    assert_eq!((all("a"), all("b")), (vec![true; 4], vec![true; 4]));
    assert!(!is_fresh(&cache, key("a"), &fields(&[("accept-language", "fr")])));
    cache.purge(1, 0, "a");
    assert_eq!((all("a"), all("b")), (vec![false; 4], vec![true; 4]));
    assert!(!is_fresh(
        &cache,
        KeyRef {
            generation: 1,
            ..key("b")
        },
        &languages[0]
    ));
    assert!(!is_fresh(&cache, KeyRef { site: 2, ..key("b") }, &languages[0]));
}

#[tokio::test]
async fn the_leader_may_leave() {
    let (cache, none) = (cache(), HeaderMap::new());
    let (response, feed) = response(200, &[MAX_AGE], Some(2));
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
    drop(fetched);
    let follow = cache.fetch(key("a"), &none, None, |_| async { panic!("joins the fetch under way") });
    let (follower, ()) = tokio::join!(follow, async {
        feed.send(Ok(Bytes::from("ok"))).unwrap();
        drop(feed);
    });
    assert_eq!(body(follower).await.unwrap(), "ok");
}

#[tokio::test]
async fn what_cannot_be_shared_passes() {
    let none = HeaderMap::new();
    for (case, list, length) in [
        ("private", &[("cache-control", "private")][..], Some(2)),
        ("cookie", &[("set-cookie", "a=b"), MAX_AGE], Some(2)),
        ("large", &[MAX_AGE], Some((1 << 16) + 1)),
    ] {
        let cache = cache();
        let (response, _feed) = response(200, list, length);
        let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
        assert!(matches!(fetched, Ok(Fetched::Own(_))), "{case}");
        assert!(
            matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Pass),
            "{case}"
        );
        cache.purge(1, 0, "a");
        assert!(
            matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss),
            "{case}"
        );
    }
}

#[tokio::test]
async fn an_error_is_one_to_all_who_wait_and_changes_nothing_for_the_next() {
    let none = HeaderMap::new();
    for (status, list) in [
        (500, &[][..]),
        (503, &[("retry-after", "1")]),
        (503, &[("cache-control", "no-store")]),
        (404, &[("cache-control", "private")]),
        (302, &[]),
    ] {
        let (cache, answer) = (cache(), whole(status, list, "no"));
        let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(answer) }).await;
        if let Ok(Fetched::Stream(stream)) = fetched {
            stream.body.ended().await;
        }
        let found = cache.lookup(key("a"), &none, Now::now());
        assert!(matches!(found, Lookup::Miss), "{status} {list:?}: {found:?}");
    }
    let cache = cache();
    for status in [500, 429] {
        let (response, feed) = response(status, &[], Some(2));
        let lead = cache.fetch(key("a"), &none, None, |_| async { Ok(response) });
        let follow = cache.fetch(key("a"), &none, None, |_| async { panic!("shares the error") });
        let (lead, follow, ()) = tokio::join!(lead, follow, async {
            feed.send(Ok(Bytes::from("no"))).unwrap();
            drop(feed);
        });
        assert_eq!(
            (&*body(lead).await.unwrap(), &*body(follow).await.unwrap()),
            (&b"no"[..], &b"no"[..])
        );
        assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss));
    }
}

#[tokio::test]
async fn what_becomes_unshared_is_forgotten() {
    let none = HeaderMap::new();
    for (case, status, control) in [
        ("304 private", 304, "private, max-age=60"),
        ("304 no-store", 304, "no-store"),
        ("200 private", 200, "private"),
    ] {
        let cache = cache();
        let old = [("cache-control", "max-age=0, stale-if-error=60"), ("etag", "\"1\"")];
        fill(&cache, key("a"), &none, whole(200, &old, "v1")).await;
        let Lookup::Stale(_) = cache.lookup(key("a"), &none, Now::now()) else {
            panic!("{case}")
        };
        let text = if status == 304 { "" } else { "v2" };
        let answer = whole(status, &[("cache-control", control)], text);
        let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(answer) }).await;
        let Ok(Fetched::Own(mut response)) = fetched else {
            panic!("{case}: {fetched:?}")
        };
        assert_eq!(response.head.status, 200, "{case}");
        assert_eq!(response.head.headers["cache-control"], control, "{case}");
        let frame = poll_fn(|cx| response.body.as_mut().poll_frame(cx))
            .await
            .unwrap()
            .unwrap();
        let expected = if status == 304 { "v1" } else { "v2" };
        assert_eq!(frame.into_data().unwrap(), expected, "{case}");
        let found = cache.lookup(key("a"), &none, Now::now());
        assert!(matches!(found, Lookup::Pass), "{case}: {found:?}");
        assert_eq!(cache.stats().entries, 0, "{case}");
    }
}

#[tokio::test]
async fn one_at_a_time_revalidates_what_is_served_stale() {
    let (cache, none) = (cache(), HeaderMap::new());
    let control = [("cache-control", "max-age=0, stale-while-revalidate=60")];
    fill(&cache, key("a"), &none, whole(200, &control, "v1")).await;
    let Lookup::StaleWhileRevalidate(entry) = cache.lookup(key("a"), &none, Now::now()) else {
        panic!("not stale")
    };
    let right = entry.begin_revalidation().unwrap();
    assert!(entry.begin_revalidation().is_none());
    drop(right);
    assert!(entry.begin_revalidation().is_some());
}

#[tokio::test]
async fn followers_without_a_byte_share_one_more_fetch_when_the_first_breaks() {
    for breaks_after_a_byte in [false, true] {
        let cache = cache();
        let fetches = Arc::new(AtomicUsize::new(0));
        let (first, feed) = response(200, &[MAX_AGE], Some(10));
        let responses = Arc::new(Mutex::new(vec![whole(200, &[MAX_AGE], "0123456789"), first]));
        let (begun, mut bodies) = mpsc::unbounded_channel();
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let (cache, fetches, responses, begun) =
                    (cache.clone(), fetches.clone(), responses.clone(), begun.clone());
                tokio::spawn(async move {
                    let fetched = cache
                        .fetch(key("a"), &HeaderMap::new(), None, |_| async move {
                            fetches.fetch_add(1, Ordering::SeqCst);
                            Ok(responses.lock().pop().unwrap())
                        })
                        .await;
                    begun.send(()).unwrap();
                    body(fetched).await
                })
            })
            .collect();
        // The task, the map and every reader hold the fill.
        joined(&cache, 22).await;
        if breaks_after_a_byte {
            feed.send(Ok(Bytes::from("012"))).unwrap();
            for _ in 0..20 {
                bodies.recv().await.unwrap();
            }
        }
        feed.send(Err(BodyError::Broken("reset".into()))).unwrap();
        let mut whole = 0;
        for reader in readers {
            whole += usize::from(reader.await.unwrap().is_ok_and(|b| b == "0123456789"));
        }
        let expected = if breaks_after_a_byte { (0, 1) } else { (19, 2) };
        assert_eq!((whole, fetches.load(Ordering::SeqCst)), expected);
        assert_eq!(is_fresh(&cache, key("a"), &HeaderMap::new()), !breaks_after_a_byte);
    }
}

#[tokio::test]
async fn the_largest_object_is_stored_on_a_machine_of_many_cores() {
    static BODY: [u8; 1 << 20] = [b'x'; 1 << 20];
    let text = std::str::from_utf8(&BODY).unwrap();
    let none = HeaderMap::new();
    for shards in [1, 8, 12, 128] {
        let cache = Cache::with_shards(CacheConfig::with_memory(16 << 20), shards, None, Purges::new());
        assert_eq!(cache.config.max_object_bytes, 1 << 20);
        for path in ["a", "b", "c", "d"] {
            fill(&cache, key(path), &none, whole(200, &[MAX_AGE], text)).await;
            assert!(is_fresh(&cache, key(path), &none), "{shards} {path}");
        }
    }
}

#[tokio::test]
async fn queries_push_nothing_out_and_are_all_purged() {
    let (cache, none) = (cache(), HeaderMap::new());
    fn query(query: &str) -> KeyRef<'_> {
        KeyRef { query, ..key("a") }
    }
    fill(&cache, key("a"), &none, whole(200, &[MAX_AGE], "hot")).await;
    fill(&cache, query("hot"), &none, whole(200, &[MAX_AGE], "hot")).await;
    for i in 0..500 {
        fill(&cache, query(&format!("{i}")), &none, whole(200, &[MAX_AGE], "cold")).await;
    }
    assert!(is_fresh(&cache, key("a"), &none) && is_fresh(&cache, query("hot"), &none));
    let unshared = whole(200, &[("cache-control", "private")], "own");
    let own = cache.fetch(query("own"), &none, None, |_| async { Ok(unshared) }).await;
    assert!(matches!(own, Ok(Fetched::Own(_))));
    assert!(matches!(cache.lookup(query("own"), &none, Now::now()), Lookup::Pass));
    cache.purge(1, 0, "a");
    assert_eq!(cache.stats().entries, 0);
    assert!(matches!(cache.lookup(query("own"), &none, Now::now()), Lookup::Miss));
    let indexed = |cache: &Cache| cache.shards.iter().map(|s| s.lock().index.len()).sum::<usize>();
    assert_eq!(indexed(&cache), 0);
    // Far more queries than there is room for: the index follows what is stored.
    static BODY: [u8; 8 << 10] = [b'x'; 8 << 10];
    let text = std::str::from_utf8(&BODY).unwrap();
    for i in 0..2000 {
        fill(&cache, query(&format!("{i}")), &none, whole(200, &[MAX_AGE], text)).await;
    }
    let stored = cache.stats().entries as usize;
    assert!(
        stored < 150 && indexed(&cache) <= stored * 2 + 65,
        "{stored} {}",
        indexed(&cache)
    );
    cache.purge(1, 0, "a");
    assert_eq!(cache.stats().entries, 0);
}

#[tokio::test]
async fn stale_responses_are_revalidated_or_stand_in() {
    let none = HeaderMap::new();
    let stale_entry = async |cache: &Arc<Cache>, control: &str| {
        fill(
            cache,
            key("a"),
            &none,
            whole(200, &[("cache-control", control), ("etag", "\"1\""), ("x", "1")], "v1"),
        )
        .await;
        match cache.lookup(key("a"), &none, Now::now()) {
            Lookup::Stale(entry) | Lookup::StaleWhileRevalidate(entry) => entry,
            other => panic!("{other:?}"),
        }
    };
    let down = |_: Option<Validators>| async { Err(Arc::new(std::io::Error::other("down")) as FetchError) };

    let cache1 = cache();
    stale_entry(&cache1, "max-age=0").await;
    let fetched = cache1
        .fetch(key("a"), &none, None, |validators| async move {
            assert_eq!(validators.unwrap().etag.unwrap(), "\"1\"");
            Ok(whole(304, &[MAX_AGE, ("x", "2")], ""))
        })
        .await;
    let Ok(Fetched::Entry(entry, FetchStatus::Revalidated, _)) = fetched else {
        panic!("{fetched:?}")
    };
    assert_eq!(
        (&entry.headers()["x"], &*content(&entry)),
        (&HeaderValue::from_static("2"), &b"v1"[..])
    );
    assert!(is_fresh(&cache1, key("a"), &none));

    let cache2 = cache();
    stale_entry(&cache2, "max-age=0, stale-if-error=60").await;
    let fetched = cache2.fetch(key("a"), &none, None, down).await;
    assert!(matches!(
        fetched,
        Ok(Fetched::Entry(_, FetchStatus::StaleIfError(None), _))
    ));
    let fetched = cache2
        .fetch(key("a"), &none, None, |_| async { Ok(whole(503, &[], "")) })
        .await;
    assert!(matches!(
        fetched,
        Ok(Fetched::Entry(
            _,
            FetchStatus::StaleIfError(Some(StatusCode::SERVICE_UNAVAILABLE)),
            _
        ))
    ));

    for control in ["max-age=0", "max-age=0, must-revalidate, stale-if-error=60"] {
        let cache = cache();
        stale_entry(&cache, control).await;
        assert!(cache.fetch(key("a"), &none, None, down).await.is_err(), "{control}");
    }
    let cache4 = cache();
    stale_entry(&cache4, "max-age=0, stale-while-revalidate=60").await;
    assert!(matches!(
        cache4.lookup(key("a"), &none, Now::now()),
        Lookup::StaleWhileRevalidate(_)
    ));
}

#[tokio::test]
async fn what_says_no_date_is_of_the_date_when_it_came() {
    const LONG_AGO: (&str, &str) = ("date", "Mon, 01 Jan 2024 00:00:00 GMT");
    let none = HeaderMap::new();
    let cache = cache();
    let begun = SystemTime::now() - Duration::from_secs(1);
    let came = |entry: &Entry| {
        let date = httpdate::parse_http_date(entry.headers()["date"].to_str().unwrap()).unwrap();
        date >= begun && date <= SystemTime::now()
    };
    fill(&cache, key("a"), &none, whole(200, &[MAX_AGE], "v1")).await;
    let Lookup::Fresh { entry, .. } = cache.lookup(key("a"), &none, Now::now()) else {
        panic!("not fresh")
    };
    assert!(came(&entry));

    // Long ago is when the first answer was generated; the origin does not say when it confirmed that.
    fill(
        &cache,
        key("b"),
        &none,
        whole(200, &[MAX_AGE, LONG_AGO, ("etag", "\"1\"")], "v1"),
    )
    .await;
    let Lookup::Stale(entry) = cache.lookup(key("b"), &none, Now::now()) else {
        panic!("not stale")
    };
    assert_eq!(entry.headers()["date"], LONG_AGO.1);
    let fetched = cache
        .fetch(key("b"), &none, None, |_| async { Ok(whole(304, &[], "")) })
        .await;
    let Ok(Fetched::Entry(entry, FetchStatus::Revalidated, _)) = fetched else {
        panic!("{fetched:?}")
    };
    assert!(came(&entry));
    assert!(is_fresh(&cache, key("b"), &none));
}

#[tokio::test]
async fn memory_stays_within_its_bound() {
    let (cache, none) = (cache(), HeaderMap::new());
    static BODY: [u8; 32 << 10] = [b'x'; 32 << 10];
    let text = std::str::from_utf8(&BODY).unwrap();
    for i in 0..200 {
        fill(&cache, key(&format!("o{i}")), &none, whole(200, &[MAX_AGE], text)).await;
    }
    let stats = cache.stats();
    assert!(stats.bytes <= 1 << 20 && stats.entries > 4, "{stats:?}");
}

#[tokio::test]
async fn what_is_attached_to_responses_counts() {
    let cache = Cache::new(CacheConfig {
        attached_bytes: 32 << 10,
        ..CacheConfig::with_memory(1 << 20)
    });
    for path in (0..100).map(|n| n.to_string()) {
        fill(&cache, key(&path), &HeaderMap::new(), whole(200, &[MAX_AGE], "small")).await;
    }
    let stats = cache.stats();
    assert!(stats.entries <= 32 && stats.bytes <= 1 << 20, "{stats:?}");
}

#[tokio::test]
async fn a_range_of_a_fill_under_way() {
    let (cache, none) = (cache(), HeaderMap::new());
    let (response, feed) = response(200, &[MAX_AGE], Some(10));
    for chunk in ["012", "345", "678", "9"] {
        feed.send(Ok(Bytes::from(chunk))).unwrap();
    }
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
    let Ok(Fetched::Stream(stream)) = fetched else {
        panic!("{fetched:?}")
    };
    assert_eq!(stream.body.range(2..7).collect(u64::MAX).await.unwrap(), "23456");
}

#[tokio::test]
async fn what_turns_out_too_large_goes_on_at_the_pace_of_its_readers() {
    static CHUNK: [u8; 1 << 20] = [b'x'; 1 << 20];
    let (cache, none) = (cache(), HeaderMap::new());
    let (response, feed) = response(200, &[MAX_AGE], None);
    for _ in 0..40 {
        feed.send(Ok(Bytes::from_static(&CHUNK))).unwrap();
    }
    let lead = cache.fetch(key("a"), &none, None, |_| async { Ok(response) });
    let follow = cache.fetch(key("a"), &none, None, |_| async { panic!("follows") });
    let (lead, follow) = tokio::join!(lead, follow);
    let (Ok(Fetched::Stream(lead)), Ok(Fetched::Stream(follow))) = (lead, follow) else {
        panic!("not shared")
    };
    let held = || cache.filling.held();
    // Nobody reads: the fetch waits at its window.
    while held() <= 8 << 20 {
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(held() < 9 << 20);
    assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Pass));
    drop(feed);
    let (one, other) = tokio::join!(lead.body.collect(u64::MAX), follow.body.collect(u64::MAX));
    assert_eq!((one.unwrap().len(), other.unwrap().len()), (40 << 20, 40 << 20));
    assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Pass));
    while held() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stands_still_is_cut_off_and_holds_nobody() {
    static CHUNK: [u8; 1 << 20] = [b'x'; 1 << 20];
    let (cache, none) = (cache(), HeaderMap::new());
    let (response, feed) = response(200, &[MAX_AGE], None);
    for _ in 0..40 {
        feed.send(Ok(Bytes::from_static(&CHUNK))).unwrap();
    }
    drop(feed);
    let lead = cache.fetch(key("a"), &none, None, |_| async { Ok(response) });
    let follow = cache.fetch(key("a"), &none, None, |_| async { panic!("follows") });
    let (lead, follow) = tokio::join!(lead, follow);
    let (Ok(Fetched::Stream(lead)), Ok(Fetched::Stream(still))) = (lead, follow) else {
        panic!("not shared")
    };
    assert_eq!(lead.body.collect(u64::MAX).await.unwrap().len(), 40 << 20);
    assert_eq!(still.body.collect(u64::MAX).await, Err(BodyError::TooSlow));
}

#[tokio::test]
async fn fetches_hold_no_more_than_their_bound_and_end_when_nobody_reads() {
    let cache = Cache::new(CacheConfig {
        memory_bytes: 256 << 20,
        max_object_bytes: 64 << 20,
        slice_bytes: SLICE_BYTES,
        attached_bytes: 0,
    });
    let none = HeaderMap::new();
    let (big, feed) = response(200, &[MAX_AGE], Some(45 << 20));
    let first = cache.fetch(key("a"), &none, None, |_| async { Ok(big) }).await;
    assert!(matches!(first, Ok(Fetched::Stream(_))));
    // Its length says that it will not fit beside the first.
    let (second, _feed) = response(200, &[MAX_AGE], Some(10 << 20));
    let second = cache.fetch(key("b"), &none, None, |_| async { Ok(second) }).await;
    assert!(matches!(second, Ok(Fetched::Own(_))));
    assert!(matches!(cache.lookup(key("b"), &none, Now::now()), Lookup::Miss));
    // Another site has room left.
    let (other, _feed) = response(200, &[MAX_AGE], Some(10 << 20));
    let of_another = KeyRef { site: 2, ..key("b") };
    let other = cache.fetch(of_another, &none, None, |_| async { Ok(other) }).await;
    assert!(matches!(other, Ok(Fetched::Stream(_))));
    // With nothing left no fetch is shared.
    let others = cache.filling.share(3);
    others.add(10 << 20);
    let third = cache
        .fetch(key("c"), &none, None, |_| async { panic!("not asked") })
        .await;
    assert!(matches!(third, Ok(Fetched::Pass)));
    others.free(10 << 20);
    drop(other);
    // Given up: its body is let go, and what it held is free.
    drop(first);
    feed.closed().await;
    while cache.filling.held() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss));
}

#[tokio::test]
async fn what_a_change_was_answered_with_is_kept_unless_the_object_was_purged_meanwhile() {
    let (cache, none) = (cache(), HeaderMap::new());
    let head = |fields: &[(&'static str, &str)]| response(200, fields, None).0.head;
    let settings = Settings::http();
    let holds = |path| matches!(cache.lookup(key(path), &none, Now::now()), Lookup::Fresh { .. });
    for (fields, kept) in [
        (&[MAX_AGE][..], true),
        (&[], false),
        (&[("cache-control", "no-store")], false),
        (&[("cache-control", "public")], false),
    ] {
        let mark = cache.mark(key("a"));
        cache.replace(key("a"), &mark, &none, head(fields), b"new", &settings);
        assert_eq!(holds("a"), kept, "{fields:?}");
    }
    for (purged, kept) in [("a", false), ("b", true)] {
        let mark = cache.mark(key("a"));
        cache.purge(1, 0, purged);
        cache.replace(key("a"), &mark, &none, head(&[MAX_AGE]), b"new", &settings);
        assert_eq!(holds("a"), kept, "{purged}");
    }
    // By rules, too: of its path's begin, of what its answer is named, of its site.
    let named = head(&[MAX_AGE, ("surrogate-key", "x")]);
    let prefix = |prefix| Purged::Prefix(KeyPrefix::new(prefix).unwrap());
    let named_as = |name| Purged::SurrogateKeys([SurrogateKey::new(name).unwrap()].into());
    for (what, kept) in [
        (prefix("a"), false),
        (prefix("b"), true),
        (named_as("x"), false),
        (named_as("y"), true),
        (Purged::Everything, false),
    ] {
        for soft in [false, true] {
            let purge = Purge {
                what: what.clone(),
                soft,
            };
            let mark = cache.mark(key("a"));
            cache.purge_by(1, 0, &purge);
            cache.replace(key("a"), &mark, &none, named.clone(), b"new", &settings);
            assert_eq!(holds("a"), kept, "{purge:?}");
        }
    }
    let mark = cache.mark(key("a"));
    cache.purge_everything();
    cache.replace(key("a"), &mark, &none, head(&[MAX_AGE]), b"new", &settings);
    assert!(!holds("a"));
}

#[tokio::test]
async fn a_part_is_kept_beside_the_whole_and_purged_with_it() {
    let (cache, none) = (cache(), HeaderMap::new());
    let content_range = ("content-range", "bytes 4-8/9");
    let part = key("a").part("bytes=-5");
    for (fields, kept) in [
        (&[MAX_AGE, content_range][..], true),
        (&[MAX_AGE], false),
        (&[MAX_AGE, content_range, content_range], false),
    ] {
        let answer = whole(206, fields, "45678");
        let fetched = cache.fetch(part.borrow(), &none, None, |_| async { Ok(answer) }).await;
        match fetched {
            Ok(Fetched::Stream(stream)) if kept => assert_eq!(stream.body.collect(9).await.unwrap(), "45678"),
            Ok(Fetched::Own(_)) if !kept => {}
            other => panic!("{other:?}"),
        }
        cache.note_part(key("a"), "bytes=-5");
        while kept && cache.part(key("a"), &none, Now::now()).is_none() {
            tokio::task::yield_now().await;
        }
        let held = cache
            .part(key("a"), &none, Now::now())
            .map(|(_, range, length)| (range, length));
        assert_eq!(held, kept.then_some((4..9, Some(9))), "{fields:?}");
        assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss));
        cache.purge(1, 0, "a");
        assert!(cache.part(key("a"), &none, Now::now()).is_none());
    }
}

/// Whoever else asks for it wants another range, or none.
#[tokio::test]
async fn a_range_past_the_end_is_one_requests_alone() {
    let (cache, none) = (cache(), HeaderMap::new());
    let answer = whole(416, &[MAX_AGE, ("content-range", "bytes */5")], "none");
    let fetched = cache.fetch(key("a"), &none, Some(0..9), |_| async { Ok(answer) }).await;
    assert!(matches!(fetched, Ok(Fetched::Own(_))), "{fetched:?}");
    assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss));
}

/// An origin may begin to say what its answers depend on.
#[tokio::test]
async fn of_responses_that_match_the_last_live_one_is_served() {
    let request = fields(&[("accept-language", "de")]);
    for (case, first, purge) in [("stale", "max-age=0", false), ("purged", "max-age=60", true)] {
        let cache = cache();
        fill(
            &cache,
            key("a"),
            &request,
            whole(200, &[("cache-control", first)], "old"),
        )
        .await;
        if purge {
            let prefix = Purged::Prefix(KeyPrefix::new("a").unwrap());
            cache.purge_by(
                1,
                0,
                &Purge {
                    what: prefix,
                    soft: false,
                },
            );
        }
        let vary = [MAX_AGE, ("vary", "accept-language")];
        fill(&cache, key("a"), &request, whole(200, &vary, "new")).await;
        let Lookup::Fresh { entry, .. } = cache.lookup(key("a"), &request, Now::now()) else {
            panic!("{case}")
        };
        assert_eq!(content(&entry), "new", "{case}");
    }
}

/// It may be made for who sent the cookie.
#[tokio::test]
async fn what_is_to_be_confirmed_and_came_of_a_cookie_is_one_requests_alone() {
    for (request, control, shared) in [
        (&[("cookie", "user=1")][..], "no-cache", false),
        (&[("cookie", "user=1")], "max-age=60", true),
        (&[], "no-cache", true),
    ] {
        let (cache, request) = (cache(), fields(request));
        let answer = whole(200, &[("cache-control", control)], "page");
        let fetched = cache.fetch(key("a"), &request, None, |_| async { Ok(answer) }).await;
        let is_shared = matches!(fetched, Ok(Fetched::Stream(_)));
        assert_eq!(is_shared, shared, "{control}: {fetched:?}");
        // The next ones need not wait for each other.
        assert_eq!(
            matches!(cache.lookup(key("a"), &request, Now::now()), Lookup::Pass),
            !shared
        );
    }
    // The same of what the origin confirms: the page of all stays theirs.
    let (cache, user, none) = (cache(), fields(&[("cookie", "user=1")]), HeaderMap::new());
    let page = [("cache-control", "no-cache"), ("etag", "\"1\"")];
    fill(&cache, key("a"), &none, whole(200, &page, "page")).await;
    let confirmed = whole(304, &page, "");
    let fetched = cache.fetch(key("a"), &user, None, |_| async { Ok(confirmed) }).await;
    assert!(matches!(fetched, Ok(Fetched::Own(_))), "{fetched:?}");
    assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Stale(_)));
    let page = [page[0], page[1], ("accept-ranges", "bytes")];
    let (large, _feed) = response(200, &page, Some(4 << 20));
    let fetched = cache.fetch(key("large"), &none, None, |_| async { Ok(large) }).await;
    assert!(matches!(fetched, Ok(Fetched::Entry(..))), "{fetched:?}");
    let confirmed = whole(304, &page, "");
    let fetched = cache
        .fetch(key("large"), &user, None, |_| async { Ok(confirmed) })
        .await;
    assert!(
        matches!(fetched, Ok(Fetched::Entry(_, FetchStatus::Unkept, _))),
        "{fetched:?}"
    );
    assert!(matches!(
        cache.lookup(key("large"), &none, Now::now()),
        Lookup::Stale(_)
    ));
    // And of what would be kept in slices.
    let large = [page[0], page[1], ("accept-ranges", "bytes")];
    let (response, _feed) = response(200, &large, Some(4 << 20));
    let fetched = cache.fetch(key("b"), &user, None, |_| async { Ok(response) }).await;
    assert!(matches!(fetched, Ok(Fetched::Own(_))), "{fetched:?}");
}

/// What the origin confirms and takes back in one is for who asked, also where it is kept in slices.
#[tokio::test]
async fn what_is_confirmed_and_not_shared_any_more_goes_to_its_request_alone() {
    let (cache, none) = (cache(), HeaderMap::new());
    let large = [
        ("cache-control", "max-age=0"),
        ("etag", "\"1\""),
        ("accept-ranges", "bytes"),
    ];
    let (first, _feed) = response(200, &large, Some(4 << 20));
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(first) }).await;
    assert!(matches!(fetched, Ok(Fetched::Entry(..))), "{fetched:?}");
    let taken_back = whole(304, &[("cache-control", "private")], "");
    let lead = cache.fetch(key("a"), &none, None, |_| async { Ok(taken_back) });
    let follow = cache.fetch(key("a"), &none, None, |_| async { panic!("follows") });
    let (lead, follow) = tokio::join!(lead, follow);
    assert!(
        matches!(lead, Ok(Fetched::Entry(_, FetchStatus::Unkept, _))),
        "{lead:?}"
    );
    assert!(matches!(follow, Ok(Fetched::Pass)), "{follow:?}");
}
