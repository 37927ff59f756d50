//! What viewers see when the other side goes away and comes back: nothing.

use super::{Stream, World, media_playlist, pull::Source, tag, until, uris};
use edgeweir_harness::{
    Answer, EncoderOptions, FRAME_RATE, LowLatencyOptions, LowLatencySource, Origin, Pace, own_address,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

/// A viewer of the first rendition: it fetches the playlist, and what it lists that is new.
struct Viewer<'a> {
    world: &'a World,
    stream: &'a Stream,
    fetched: BTreeSet<String>,
}

impl Viewer<'_> {
    /// One round, in which nothing may fail; whether there was anything new.
    async fn round(&mut self) -> bool {
        let playlist = self.world.get(self.stream, "v0/playlist.m3u8").await;
        assert_eq!(playlist.status, 200, "{}", playlist.text());
        let mut new = false;
        for segment in uris(playlist.text()) {
            if !self.fetched.contains(&segment) {
                let reply = self.world.get(self.stream, &format!("v0/{segment}")).await;
                assert!(reply.status == 200 && reply.complete, "{segment}: {}", reply.text());
                self.fetched.insert(segment);
                new = true;
            }
        }
        new
    }

    /// Goes on until there was something new so often.
    async fn news(&mut self, count: usize) {
        let mut seen = 0;
        until("new segments", async || {
            seen += usize::from(self.round().await);
            (seen >= count).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_dies_for_less_than_the_window_is_missed_by_nobody() {
    let world = World::start().await;
    let mut source = Source::start(&EncoderOptions::default()).await;
    let stream = world.pulled(&format!("{}/playlist.m3u8", source.nginx.url())).await;
    let url = world.url(&stream.host, &Stream::path("playlist.m3u8"));
    let mut browser = world.player("hls", &url, json!({}));
    browser.plays_on(1.0).await;
    let mut viewer = Viewer {
        world: &world,
        stream: &stream,
        fetched: BTreeSet::new(),
    };
    viewer.news(3).await;
    until("six segments that are listed", async || {
        let listed = uris(&source.playlist("v0/playlist.m3u8")).len();
        (listed >= 6).then_some(())
    })
    .await;
    viewer.news(1).await;
    for _ in 0..2 {
        source.nginx.kill();
        // Three segments of the six that are listed.
        let mut missed = BTreeSet::new();
        until("three segments that are not served", async || {
            assert!(!viewer.round().await, "the origin is away");
            missed.insert(uris(&source.playlist("v0/playlist.m3u8")).pop());
            (missed.len() > 3).then_some(())
        })
        .await;
        source.nginx.restart().await;
        viewer.news(2).await;
    }
    assert_eq!(world.status(&stream).await, "live");
    browser.plays_on(2.0).await;
    let seen = browser.stop().await;
    // It may run out of what nobody could have; nothing that it asks for may fail.
    let errors = seen["errors"].as_array().unwrap();
    let is_own = |error: &Value| error.as_str().unwrap().starts_with("buffer");
    assert!(errors.iter().all(is_own), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_is_away_for_longer_is_no_live_stream() {
    let world = World::start().await;
    let options = EncoderOptions {
        list: 3,
        renditions: 1,
        ..EncoderOptions::default()
    };
    let mut source = Source::start(&options).await;
    let stream = world.pulled(&format!("{}/playlist.m3u8", source.nginx.url())).await;
    let ready = |playlist: &str| uris(playlist).len() == 3;
    world.until_playlist(&stream, "v0/playlist.m3u8", ready).await;
    source.nginx.kill();
    let refused = until("an error", async || {
        let reply = world.get(&stream, "v0/playlist.m3u8").await;
        (reply.status != 200).then_some(reply)
    })
    .await;
    assert!(refused.status.is_server_error(), "{}", refused.text());
    assert_eq!(refused.header("cache-control"), "no-store");
    source.nginx.restart().await;
    world.until_playlist(&stream, "v0/playlist.m3u8", ready).await;
    let url = world.url(&stream.host, &Stream::path("playlist.m3u8"));
    assert_eq!(world.watch(&world.proxy(), &url, 2).await, 2 * FRAME_RATE);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_hangs_is_missed_by_nobody_either() {
    let world = World::start().await;
    let hangs = Arc::new(AtomicBool::new(false));
    let (is_hung, version) = (hangs.clone(), Arc::new(AtomicU64::new(0)));
    let next = version.clone();
    let origin = Origin::serve(move |seen| {
        if !seen.target.starts_with("/live.m3u8") {
            return Answer::ok("", &seen.target);
        }
        let playlist = Answer::ok("", &media_playlist(next.load(Ordering::Relaxed), 6));
        if is_hung.load(Ordering::Relaxed) {
            playlist.held()
        } else {
            playlist
        }
    })
    .await;
    let stream = world.pulled(&format!("{}/live.m3u8", origin.url())).await;
    world.until_playlist(&stream, "live.m3u8", |_| true).await;
    hangs.store(true, Ordering::Relaxed);
    let asked = origin.seen().len();
    until("a request that hangs", async || {
        assert_eq!(world.get(&stream, "live.m3u8").await.status, 200);
        (origin.seen().len() > asked).then_some(())
    })
    .await;
    assert_eq!(world.get(&stream, "live.m3u8").await.text(), media_playlist(0, 6));
    // It answers at last.
    version.store(1, Ordering::Relaxed);
    hangs.store(false, Ordering::Relaxed);
    origin.release();
    world
        .until_playlist(&stream, "live.m3u8", |text| text == media_playlist(1, 6))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn players_recover_from_an_origin_that_starts_over() {
    let world = World::start().await;
    let options = EncoderOptions::default();
    let mut source = Source::start(&options).await;
    let stream = world.pulled(&format!("{}/playlist.m3u8", source.nginx.url())).await;
    let url = world.url(&stream.host, &Stream::path("playlist.m3u8"));
    let mut browser = world.player("hls", &url, json!({}));
    browser.plays_on(2.0).await;
    let ready = |playlist: &str| tag(playlist, "#EXT-X-MEDIA-SEQUENCE") > 1;
    world.until_playlist(&stream, "v0/playlist.m3u8", ready).await;
    source.encoder.kill();
    let before = world.get(&stream, "v0/playlist.m3u8").await.text().to_owned();
    source.encoder = edgeweir_harness::Encoder::to_folder(&options, source.folder.path());
    let over = |playlist: &str| playlist.contains("#EXT-X-DISCONTINUITY\n");
    let mixed = world.until_playlist(&stream, "v0/playlist.m3u8", over).await;
    assert!(tag(&source.playlist("v0/playlist.m3u8"), "#EXT-X-MEDIA-SEQUENCE") < 5);
    let sequence = |playlist: &str| tag(playlist, "#EXT-X-MEDIA-SEQUENCE");
    assert!(sequence(&mixed) >= sequence(&before), "{before}{mixed}");
    // A name that is used again is not what was cached of it.
    let new = uris(&mixed).pop().unwrap();
    let bare = new.split('?').next().unwrap();
    let written = until("the new segment", async || {
        std::fs::read(source.folder.path().join("v0").join(bare)).ok()
    })
    .await;
    assert_eq!(world.get(&stream, &format!("v0/{new}")).await.body, written);
    browser
        .until("over the discontinuity", |state| state["discontinuities"] == 1)
        .await;
    browser.plays_on(3.0).await;
    let seen = browser.stop().await;
    assert!(seen["fatal"].is_null(), "{seen}");
    assert!(world.watch(&world.proxy(), &url, 5).await >= 4 * FRAME_RATE);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_window_survives_kill_9() {
    let mut world = World::start().await;
    let stream = world.pushed().await;
    let content = |n: u64| format!("segment {n} {}", "x".repeat(5000));
    for n in 0..6 {
        world.put_all(&stream, &[(&format!("seg{n}.ts"), content(n))]).await;
    }
    world.put_all(&stream, &[("playlist.m3u8", media_playlist(0, 6))]).await;
    let etag = world.get(&stream, "seg3.ts").await.header("etag").to_owned();
    // It is written behind the answers: the segments, the playlist, and what says which is which.
    let folder = world.edge.data_dir().join("live").join(&stream.id);
    until("the window on disk", async || {
        let size = |file: std::fs::DirEntry| file.metadata().map_or(0, |m| m.len());
        let files = std::fs::read_dir(&folder).ok()?.flatten().map(size);
        (files.sum::<u64>() > 6 * 5000 + 100).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.edge.kill();
    world.edge.restart().await;
    world.project.refresh(world.edge.address("api")).await;
    assert_eq!(world.get(&stream, "playlist.m3u8").await.text(), media_playlist(0, 6));
    for n in 0..6 {
        assert_eq!(
            world.get(&stream, &format!("seg{n}.ts")).await.text(),
            content(n),
            "{n}"
        );
    }
    assert_eq!(world.get(&stream, "seg3.ts").await.header("etag"), etag);
    // The encoder goes on as if nothing had been.
    world.put_all(&stream, &[("seg6.ts", content(6))]).await;
    world.put_all(&stream, &[("playlist.m3u8", media_playlist(1, 6))]).await;
    assert_eq!(world.get(&stream, "playlist.m3u8").await.text(), media_playlist(1, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_nobody_and_loses_nothing() {
    let mut world = World::start().await;
    let stream = world.pushed().await;
    let source = LowLatencySource::start(LowLatencyOptions {
        pace: Pace::Manual,
        part: Duration::from_secs(4),
        ..LowLatencyOptions::default()
    });
    let origin = source.serve().await;
    let pulled = world.pulled(&origin.url()).await;
    assert_eq!(world.get(&pulled, "v0/playlist.m3u8").await.status, 200);
    world.put_all(&stream, &[("seg0.ts", "content".to_owned())]).await;
    world.put_all(&stream, &[("playlist.m3u8", media_playlist(0, 1))]).await;
    // An upload in the middle, its reader, and two who wait.
    let mut upload = world.begin(&stream, "seg1.ts").await;
    upload.chunk("the beginning,").await;
    let reader = world.reader(&stream, "seg1.ts").await;
    let held = world.open(&pulled, "v0/playlist.m3u8?_HLS_msn=3&_HLS_part=0").await;
    let hint = world.open(&pulled, "v0/seg3.0.m4s").await;
    origin.until_asked("/v0/seg3.0.m4s", 1).await;
    world.edge.signal("TERM");
    assert!(world.edge.exited().await.success());
    for waiting in [reader, held, hint] {
        assert!(
            !waiting.rest().await.ends_with("0\r\n\r\n"),
            "what is not whole is not ended as whole"
        );
    }
    world.edge.restart().await;
    assert_eq!(world.get(&stream, "playlist.m3u8").await.text(), media_playlist(0, 1));
    assert_eq!(world.get(&stream, "seg0.ts").await.text(), "content");
    assert_eq!(world.get(&stream, "seg1.ts").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_and_a_player_go_on_over_kill_9() {
    let http = own_address().to_string();
    let mut world = World::with(&[("listen.http", &http)]).await;
    let stream = world.pushed().await;
    let options = EncoderOptions {
        stubborn: true,
        persistent: false,
        list: 10,
        ..EncoderOptions::default()
    };
    let _encoder = world.encoder(&stream, &options);
    let ready = |playlist: &str| uris(playlist).len() >= 5;
    let before = world.until_playlist(&stream, "v0/playlist.m3u8", ready).await;
    let url = world.url(&stream.host, &Stream::path("playlist.m3u8"));
    let mut browser = world.player("hls", &url, json!({}));
    browser.plays_on(1.0).await;
    world.edge.kill();
    world.edge.restart().await;
    world.project.refresh(world.edge.address("api")).await;
    let sequence = |playlist: &str| tag(playlist, "#EXT-X-MEDIA-SEQUENCE") + uris(playlist).len() as u64;
    let goes_on = |playlist: &str| sequence(playlist) > sequence(&before) + 2;
    let after = world.until_playlist(&stream, "v0/playlist.m3u8", goes_on).await;
    assert!(!after.contains("#EXT-X-DISCONTINUITY"), "{after}");
    browser.plays_on(3.0).await;
    let seen = browser.stop().await;
    assert!(seen["fatal"].is_null(), "{seen}");
}
