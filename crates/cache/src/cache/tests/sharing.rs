//! Who shares a fetch, for how long, and what it may hold.

use super::*;
use crate::policy;
use std::time::Duration;

fn streamed(fetched: Result<Fetched, FetchError>) -> crate::SharedStream {
    match fetched.unwrap() {
        Fetched::Stream(stream) => stream,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_purged_after_a_look_up_is_neither_revalidated_nor_stands_in() {
    let (cache, none) = (cache(), HeaderMap::new());
    let old = [("etag", "\"1\""), ("cache-control", "max-age=0, stale-if-error=60")];
    for purged in [false, true] {
        fill(&cache, key("a"), &none, whole(200, &old, "old")).await;
        assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Stale(_)));
        if purged {
            cache.purge(1, 0, "a");
        }
        let fetched = cache
            .fetch(key("a"), &none, None, |validators| async move {
                assert_eq!(validators.is_none(), purged);
                Ok(whole(503, &[], "down"))
            })
            .await;
        assert_eq!(body(fetched).await.unwrap(), if purged { "down" } else { "old" });
    }
}

#[tokio::test]
async fn each_variant_is_fetched_once() {
    let cache = cache();
    let languages = [
        fields(&[("accept-language", "de")]),
        fields(&[("accept-language", "fr")]),
    ];
    let vary = [MAX_AGE, ("vary", "accept-language")];
    let (of_first, feed) = response(200, &vary, None);
    let lead = cache
        .fetch(key("a"), &languages[0], None, |_| async { Ok(of_first) })
        .await;
    let (of_second, second_feed) = response(200, &vary, None);
    let second = cache.fetch(key("a"), &languages[1], None, |_| async { Ok(of_second) });
    let third = cache.fetch(key("a"), &languages[1], None, |_| async {
        panic!("follows the second")
    });
    let (second, third, ()) = tokio::join!(second, third, async {
        second_feed.send(Ok(Bytes::from("fr"))).unwrap();
        drop(second_feed);
        feed.send(Ok(Bytes::from("de"))).unwrap();
        drop(feed);
    });
    assert_eq!(body(lead).await.unwrap(), "de");
    assert_eq!(body(second).await.unwrap(), "fr");
    assert_eq!(body(third).await.unwrap(), "fr");
    for language in &languages {
        while !is_fresh(&cache, key("a"), language) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_fetch_of_a_variant_loses_against_a_purge() {
    let cache = cache();
    let languages = [
        fields(&[("accept-language", "de")]),
        fields(&[("accept-language", "fr")]),
    ];
    let vary = [MAX_AGE, ("vary", "accept-language")];
    let mut fetches = Vec::new();
    for language in &languages {
        let (response, feed) = response(200, &vary, None);
        let fetched = cache.fetch(key("a"), language, None, |_| async { Ok(response) }).await;
        fetches.push((streamed(fetched), feed));
    }
    cache.purge(1, 0, "a");
    for (stream, feed) in fetches {
        feed.send(Ok(Bytes::from("old"))).unwrap();
        drop(feed);
        assert_eq!(stream.body.collect(9).await.unwrap(), "old");
    }
    for language in &languages {
        assert!(matches!(cache.lookup(key("a"), language, Now::now()), Lookup::Miss));
    }
}

/// Begins a fetch of an object that brings some of it, and passes the time in which others share it whatever it says.
async fn begun(cache: &Arc<Cache>, control: &str) -> (Result<Fetched, FetchError>, Feed) {
    let none = HeaderMap::new();
    let (first, feed) = response(200, &[("cache-control", control), ("age", "7")], None);
    let lead = cache.fetch(key("a"), &none, None, |_| async { Ok(first) });
    let waiting = cache.fetch(key("a"), &none, None, |_| async { panic!("waits already") });
    let (lead, waiting, ()) = tokio::join!(lead, waiting, async {
        feed.send(Ok(Bytes::from("first"))).unwrap();
    });
    assert_eq!(streamed(waiting).status, FetchStatus::Collapsed);
    let soon = cache.fetch(key("a"), &none, None, |_| async { panic!("comes soon enough") });
    assert_eq!(streamed(soon.await).status, FetchStatus::Collapsed);
    // Freshness is reckoned by the system's clock.
    tokio::time::sleep(Duration::from_millis(1050)).await;
    (lead, feed)
}

#[tokio::test]
async fn who_comes_when_what_arrives_could_not_be_served_any_more_asks_the_origin() {
    for (control, shared) in [
        ("max-age=60", true),
        ("max-age=7, stale-while-revalidate=9", true),
        ("no-cache, stale-while-revalidate=9", false),
        ("max-age=8", false),
    ] {
        let (cache, none) = (cache(), HeaderMap::new());
        let (lead, feed) = begun(&cache, control).await;
        let late = cache
            .fetch(key("a"), &none, None, |_| async { Ok(whole(200, &[], "second")) })
            .await;
        let late = streamed(late);
        assert_eq!(late.status == FetchStatus::Collapsed, shared, "{control}");
        assert_eq!(late.age.as_secs(), if shared { 8 } else { 0 }, "{control}");
        drop(feed);
        assert_eq!(body(lead).await.unwrap(), "first");
        let expected = if shared { "first" } else { "second" };
        assert_eq!(late.body.collect(9).await.unwrap(), expected, "{control}");
    }
}

#[tokio::test]
async fn what_was_overtaken_takes_no_place_and_survives_no_purge() {
    let none = HeaderMap::new();
    for purged in [false, true] {
        let cache = cache();
        let (lead, feed) = begun(&cache, "max-age=0").await;
        let second = whole(200, &[MAX_AGE], "second");
        let second = cache.fetch(key("a"), &none, None, |_| async { Ok(second) }).await;
        assert_eq!(body(second).await.unwrap(), "second");
        if purged {
            cache.purge(1, 0, "a");
        }
        drop(feed);
        assert_eq!(body(lead).await.unwrap(), "first");
        match cache.lookup(key("a"), &none, Now::now()) {
            Lookup::Fresh { entry, .. } if !purged => assert_eq!(content(&entry), "second"),
            Lookup::Miss if purged => {}
            found => panic!("{purged}: {found:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_reads_on_is_waited_for_when_memory_is_short() {
    let (cache, none) = (roomy(), HeaderMap::new());
    let (response, feed) = response(200, &[MAX_AGE], None);
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
    let mut reader = streamed(fetched).body;
    let held = |bytes: u64| cache.filling.held() < bytes;
    for _ in 0..10 {
        feed.send(Ok(Bytes::from(vec![7; 1 << 20]))).unwrap();
    }
    while held(10 << 20) {
        tokio::task::yield_now().await;
    }
    // Others take all there is.
    let others = cache.filling.share(2);
    others.add(64 << 20);
    feed.send(Ok(Bytes::from_static(b"the end"))).unwrap();
    drop(feed);
    let mut read = 0;
    while let Some(chunk) = poll_fn(|cx| reader.poll_chunk(cx)).await {
        read += chunk.unwrap().len();
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(read, (10 << 20) + 7);
}

#[tokio::test]
async fn the_error_of_a_user_is_that_users() {
    for who in [("authorization", "Basic eDp5"), ("cookie", "user=1")] {
        let answer = whole(500, &[], "no");
        let fetched = cache()
            .fetch(key("a"), &fields(&[who]), None, |_| async { Ok(answer) })
            .await;
        assert!(matches!(fetched, Ok(Fetched::Own(_))), "{fetched:?}");
    }
}

/// A cache whose fetches may hold 64 MiB, those of one site 48 MiB, which is less than its largest object.
fn roomy() -> Arc<Cache> {
    Cache::new(CacheConfig {
        memory_bytes: 256 << 20,
        max_object_bytes: 128 << 20,
        slice_bytes: SLICE_BYTES,
        attached_bytes: 0,
    })
}

#[tokio::test]
async fn what_says_no_length_holds_no_more_than_the_bound_either() {
    const BOUND: u64 = 48 << 20;
    let (cache, none) = (roomy(), HeaderMap::new());
    let (response, feed) = response(200, &[MAX_AGE], None);
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
    let mut reader = streamed(fetched).body;
    let chunk = Bytes::from(vec![7; 1 << 20]);
    let mut most = 0;
    for _ in 0..100 {
        feed.send(Ok(chunk.clone())).unwrap();
        let read = poll_fn(|cx| reader.poll_chunk(cx)).await.unwrap().unwrap();
        assert_eq!(read, chunk);
        most = most.max(cache.filling.held());
    }
    assert!((BOUND - (1 << 20)..=BOUND + (1 << 20)).contains(&most), "{most}");
    drop(feed);
    assert!(poll_fn(|cx| reader.poll_chunk(cx)).await.is_none());
    drop(reader);
    while cache.filling.held() > 0 {
        tokio::task::yield_now().await;
    }
    // Not kept, and not taken for too large either.
    assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss));
}

#[tokio::test(start_paused = true)]
async fn a_body_without_end_is_not_fetched_for_nobody() {
    let (cache, none) = (cache(), HeaderMap::new());
    for ends in [true, false] {
        let (response, feed) = response(200, &[MAX_AGE], None);
        let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
        feed.send(Ok(Bytes::from("some"))).unwrap();
        drop(streamed(fetched));
        if ends {
            drop(feed);
            while !is_fresh(&cache, key("a"), &none) {
                tokio::task::yield_now().await;
            }
            cache.purge(1, 0, "a");
        } else {
            feed.closed().await;
            assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss));
        }
    }
}

#[tokio::test]
async fn what_an_origin_is_not_told_selects_no_variant() {
    let cache = cache();
    let request = |agent| fields(&[("user-agent", agent), ("accept", "video/mp4")]);
    let (mut answer, feed) = response(200, &[MAX_AGE, ("vary", "user-agent, accept")], None);
    answer.settings.told = Some([http::header::ACCEPT].into());
    let lead = cache
        .fetch(key("a"), &request("one"), None, |_| async { Ok(answer) })
        .await;
    let other = request("other");
    let follow = cache.fetch(key("a"), &other, None, |_| async { panic!("it is the same one") });
    let (follow, ()) = tokio::join!(follow, async {
        feed.send(Ok(Bytes::from("all"))).unwrap();
        drop(feed);
    });
    assert_eq!(
        (&*body(lead).await.unwrap(), &*body(follow).await.unwrap()),
        (&b"all"[..], &b"all"[..])
    );
    while !is_fresh(&cache, key("a"), &request("a third")) {
        tokio::task::yield_now().await;
    }
    assert!(!is_fresh(&cache, key("a"), &fields(&[("accept", "video/webm")])));
}

#[tokio::test]
async fn what_selects_a_variant_counts_as_memory() {
    let (cache, value) = (cache(), "x".repeat(8000));
    let request = HeaderMap::from_iter([("x-long".parse().unwrap(), value.parse().unwrap())]);
    let vary = [MAX_AGE, ("vary", "x-long, X-Long")];
    fill(&cache, key("a"), &request, whole(200, &vary, "1")).await;
    while !is_fresh(&cache, key("a"), &request) {
        tokio::task::yield_now().await;
    }
    // As it came, and as it is compared.
    assert!((16_000..20_000).contains(&cache.stats().bytes), "{:?}", cache.stats());
    assert_eq!(policy::vary_names(&fields(&vary)).map(|names| names.len()), Some(1));
}

#[tokio::test(start_paused = true)]
async fn nor_is_one_that_is_fetched_in_the_background() {
    let (cache, none) = (cache(), HeaderMap::new());
    let (response, feed) = response(200, &[MAX_AGE], None);
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
    let in_background = tokio::spawn(streamed(fetched).body.ended());
    let chunk = Bytes::from(vec![7; 1 << 12]);
    while !feed.is_closed() {
        let _ = feed.send(Ok(chunk.clone()));
        tokio::task::yield_now().await;
    }
    in_background.await.unwrap();
}

/// Each chunk takes memory beside its bytes.
#[tokio::test]
async fn tiny_chunks_hold_no_more_than_the_bound_either() {
    const LENGTH: u64 = 1 << 18;
    let (cache, none) = (roomy(), HeaderMap::new());
    let others = cache.filling.share(1);
    others.add(40 << 20);
    let (response, feed) = response(200, &[MAX_AGE], Some(LENGTH));
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(response) }).await;
    let mut reader = streamed(fetched).body;
    let mut most = 0;
    for _ in 0..LENGTH {
        feed.send(Ok(Bytes::from_static(b"x"))).unwrap();
        poll_fn(|cx| reader.poll_chunk(cx)).await.unwrap().unwrap();
        most = most.max(cache.filling.held());
    }
    assert!((47 << 20..50 << 20).contains(&most), "{most}");
    others.free(40 << 20);
    drop(feed);
    assert!(poll_fn(|cx| reader.poll_chunk(cx)).await.is_none());
    assert!(matches!(cache.lookup(key("a"), &none, Now::now()), Lookup::Miss));
}

/// The room of slices is taken as they are asked for, not when they come.
#[tokio::test]
async fn slices_that_are_asked_for_hold_no_more_than_the_bound_either() {
    let (cache, none) = (roomy(), HeaderMap::new());
    let large = [MAX_AGE, ("etag", "\"1\""), ("accept-ranges", "bytes")];
    let (first, feed) = response(200, &large, Some(1 << 30));
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(first) }).await;
    let Ok(Fetched::Entry(entry, _, ahead)) = fetched else {
        panic!("{fetched:?}")
    };
    drop((ahead, feed));
    while cache.filling.held() > 0 {
        tokio::task::yield_now().await;
    }
    let slices = entry.slices().unwrap();
    let of_a = key("a").to_owned();
    let begun: Vec<_> = (0..100)
        .map(|slice| cache.begin(&of_a, slices, slice, 1, true))
        .collect();
    let led = begun.iter().filter(|begun| matches!(begun, Begun::Leads(..))).count();
    assert_eq!((led, cache.filling.held()), (48, 48 << 20));
    assert!(begun[48..].iter().all(|begun| matches!(begun, Begun::Full)));
    // What turns out large goes to who asked for it, and says nothing of the next ones.
    let (second, _feed) = response(200, &large, Some(1 << 30));
    let fetched = cache.fetch(key("b"), &none, None, |_| async { Ok(second) }).await;
    assert!(matches!(fetched, Ok(Fetched::Own(_) | Fetched::Pass)), "{fetched:?}");
    assert!(matches!(cache.lookup(key("b"), &none, Now::now()), Lookup::Miss));
    drop(begun);
    assert_eq!(cache.filling.held(), 0);
}

#[tokio::test]
async fn variants_that_have_no_room_together_push_out_the_oldest_of_them() {
    let cache = Cache::with_shards(
        CacheConfig {
            memory_bytes: 1 << 20,
            max_object_bytes: 1 << 16,
            slice_bytes: SLICE_BYTES,
            attached_bytes: 0,
        },
        1,
        None,
        Purges::new(),
    );
    let vary = [MAX_AGE, ("vary", "accept-language")];
    let language = |n: u32| -> HeaderMap {
        let value = HeaderValue::from_str(&format!("x-{n}")).unwrap();
        [(http::header::ACCEPT_LANGUAGE, value)].into_iter().collect()
    };
    let page: &'static str = Box::leak("x".repeat(40_000).into_boxed_str());
    for n in 0..60 {
        fill(&cache, key("a"), &language(n), whole(200, &vary, page)).await;
        assert!(is_fresh(&cache, key("a"), &language(n)), "{n}");
    }
    assert!(!is_fresh(&cache, key("a"), &language(0)));
}

/// Its framing may end with the connection, and that too soon.
#[tokio::test]
async fn a_part_of_another_length_than_it_says_is_not_kept() {
    let none = HeaderMap::new();
    let part = [MAX_AGE, ("content-range", "bytes 5-9/10")];
    for (content, whole) in [("567", false), ("56789", true), ("567890", false)] {
        let (cache, key) = (cache(), key("a").part("bytes=-5"));
        let (response, feed) = response(206, &part, None);
        let fetched = cache.fetch(key.borrow(), &none, None, |_| async { Ok(response) }).await;
        feed.send(Ok(Bytes::from(content))).unwrap();
        drop(feed);
        let read = streamed(fetched).body.collect(u64::MAX).await;
        assert_eq!(read.is_ok(), whole, "{content}");
        assert_eq!(is_fresh(&cache, key.borrow(), &none), whole, "{content}");
    }
}

/// A body that says with its last byte that it has ended.
struct Ending {
    fed: Fed,
    left: usize,
}

impl http_body::Body for Ending {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BodyError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.fed).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.left -= frame.data_ref().map_or(0, Bytes::len);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }
}

#[tokio::test]
async fn what_has_let_go_of_its_begin_is_not_kept() {
    let (cache, none) = (roomy(), HeaderMap::new());
    let (feed, fed) = mpsc::unbounded_channel();
    let (mut answer, _) = response(200, &[MAX_AGE], Some(10));
    answer.body = Box::pin(Ending {
        fed: Fed(fed),
        left: 10,
    });
    let fetched = cache.fetch(key("a"), &none, None, |_| async { Ok(answer) }).await;
    let mut reader = streamed(fetched).body;
    // From now on there is no room.
    let others = cache.filling.share(2);
    others.add(64 << 20);
    for piece in ["12345", "6789", "0"] {
        feed.send(Ok(Bytes::from(piece))).unwrap();
        let read = poll_fn(|cx| reader.poll_chunk(cx)).await.unwrap().unwrap();
        assert_eq!(read, piece);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
    assert!(poll_fn(|cx| reader.poll_chunk(cx)).await.is_none());
    others.free(64 << 20);
    let found = cache.lookup(key("a"), &none, Now::now());
    assert!(matches!(found, Lookup::Miss), "{found:?}");
}
