//! Streams of low latency: reloads that are held until there is something new, parts, hints.

use super::{INGEST, Stream, World, tag, until, uris};
use edgeweir_harness::{
    LowLatencyEncoder, LowLatencyOptions, LowLatencyServer, LowLatencySource, Media, Pace, PushTarget, Reply, Stamp,
};
use serde_json::json;
use std::time::Duration;

/// A source whose first three segments are there, and whose next parts come when they are told to.
pub(super) fn manual() -> LowLatencySource {
    LowLatencySource::start(LowLatencyOptions {
        pace: Pace::Manual,
        ..LowLatencyOptions::default()
    })
}

pub(super) async fn pulled(world: &World, source: &LowLatencySource) -> (Stream, LowLatencyServer) {
    let server = source.serve().await;
    let stream = world.pulled(&server.url()).await;
    assert_eq!(world.get(&stream, "playlist.m3u8").await.status, 200);
    (stream, server)
}

async fn pushed(world: &World, source: &LowLatencySource) -> (Stream, LowLatencyEncoder) {
    let stream = world.pushed().await;
    let mut encoder = source.push(PushTarget {
        address: world.edge.address("http"),
        host: INGEST.to_owned(),
        folder: format!("/{}/", stream.key),
    });
    encoder.until_pushed(source.count()).await;
    (stream, encoder)
}

/// A request that may be held.
pub(super) fn get(world: &World, stream: &Stream, path: &str) -> tokio::task::JoinHandle<Reply> {
    let (http, host, path) = (world.edge.http(), stream.host.clone(), Stream::path(path));
    tokio::spawn(async move { http.get(&host, &path).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_held_reloads_are_one_request_to_the_origin() {
    let world = World::start().await;
    let source = manual();
    let (stream, server) = pulled(&world, &source).await;
    let bare = world.get(&stream, "v0/playlist.m3u8").await;
    assert_eq!(bare.text(), source.playlist(0));
    for part in 0..3 {
        let reload = format!("v0/playlist.m3u8?_HLS_msn=3&_HLS_part={part}");
        let hint = format!("v0/seg3.{part}.m4s");
        let reloads: Vec<_> = (0..100).map(|_| get(&world, &stream, &reload)).collect();
        let hints: Vec<_> = (0..20).map(|_| get(&world, &stream, &hint)).collect();
        server.until_asked(&format!("/{reload}"), 1).await;
        server.until_asked(&format!("/{hint}"), 1).await;
        assert!(
            reloads.iter().chain(&hints).all(|held| !held.is_finished()),
            "none is answered ahead"
        );
        source.advance(1);
        for held in reloads {
            let reply = held.await.unwrap();
            assert_eq!(
                (reply.status.as_u16(), reply.text()),
                (200, source.playlist(0).as_str())
            );
        }
        for held in hints {
            let reply = held.await.unwrap();
            assert_eq!(reply.status, 200, "{}", reply.text());
            assert_eq!(Stamp::read(&reply.body).map(|stamp| stamp.part), Some(15 + part));
        }
        assert_eq!(server.count(&format!("/{reload}")), 1, "part {part}");
        assert_eq!(server.count(&format!("/{hint}")), 1, "part {part}");
    }
    // A part that is known, an old segment, and the other rendition, which goes on by itself.
    assert_eq!(
        world.get(&stream, "v0/seg3.1.m4s").await.body,
        source.part(0, 16).unwrap()
    );
    assert_eq!(
        world.get(&stream, "v0/seg1.m4s").await.body,
        source.segment(0, 1).unwrap()
    );
    assert_eq!(world.get(&stream, "v1/playlist.m3u8").await.text(), source.playlist(1));
    assert_eq!(world.get(&stream, "v1/init.mp4").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_stream_holds_reloads_and_hinted_parts_too() {
    let world = World::start().await;
    let source = manual();
    let (stream, mut encoder) = pushed(&world, &source).await;
    assert_eq!(world.get(&stream, "v1/playlist.m3u8").await.text(), source.playlist(1));
    for part in 0..5 {
        let last = part == 4;
        // The last part of a segment completes it: the reload without a part waits for that.
        let reload = if last {
            "3".to_owned()
        } else {
            format!("3&_HLS_part={part}")
        };
        let reloads: Vec<_> = (0..20)
            .map(|n| get(&world, &stream, &format!("v{}/playlist.m3u8?_HLS_msn={reload}", n % 2)))
            .collect();
        let hint = get(&world, &stream, &format!("v0/seg3.{part}.m4s"));
        source.advance(1);
        for (n, held) in reloads.into_iter().enumerate() {
            let reply = held.await.unwrap();
            assert_eq!(
                (reply.status.as_u16(), reply.text()),
                (200, source.playlist(n % 2).as_str())
            );
        }
        assert_eq!(hint.await.unwrap().body, source.part(0, 15 + part).unwrap());
        encoder.until_pushed(16 + part).await;
    }
    assert_eq!(
        world.get(&stream, "v0/seg3.m4s").await.body,
        source.segment(0, 3).unwrap()
    );
    assert_eq!(encoder.refused(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_of_parts_that_begins_anew_goes_on() {
    let world = World::start().await;
    let (old, new) = (manual(), manual());
    let (stream, mut encoder) = pushed(&world, &old).await;
    // It has come far, and stops in the middle of a segment.
    for _ in 0..27 {
        old.advance(1);
        encoder.until_pushed(old.count()).await;
    }
    drop(encoder);
    // Its first playlists may be refused, while the one before may still be there.
    let mut encoder = new.push(PushTarget {
        address: world.edge.address("http"),
        host: INGEST.to_owned(),
        folder: format!("/{}/", stream.key),
    });
    let over = |playlist: &str| playlist.contains("#EXT-X-DISCONTINUITY\n");
    for path in ["v0/playlist.m3u8", "v1/playlist.m3u8"] {
        until(path, async || {
            if over(world.get(&stream, path).await.text()) {
                return Some(());
            }
            new.advance(1);
            encoder.until_pushed(new.count()).await;
            None
        })
        .await;
    }
    for rendition in [0, 1] {
        let path = format!("v{rendition}/playlist.m3u8");
        let get_listed = async |uri: &str| world.get(&stream, &format!("v{rendition}/{uri}")).await.body;
        let playlist = world.get(&stream, &path).await.text().to_owned();
        let (before, after) = playlist.split_once("#EXT-X-DISCONTINUITY\n").unwrap();
        // Everything that is listed is what it was listed as, on either side.
        for (source, lines) in [(&old, before), (&new, after)] {
            assert!(!uris(lines).is_empty() || !part_uris(lines).is_empty(), "{playlist}");
            for uri in uris(lines) {
                let (msn, _) = numbers(&uri);
                assert_eq!(get_listed(&uri).await, source.segment(rendition, msn).unwrap(), "{uri}");
            }
            for uri in part_uris(lines) {
                let (msn, part) = numbers(&uri);
                assert_eq!(
                    get_listed(&uri).await,
                    source.part(rendition, msn * 5 + part).unwrap(),
                    "{uri}"
                );
            }
        }
        // The numbers are the published ones.
        let whole = tag(&playlist, "#EXT-X-MEDIA-SEQUENCE") + uris(&playlist).len() as u64;
        let listed = new.count() % 5;
        let reload = get(&world, &stream, &format!("{path}?_HLS_msn={whole}&_HLS_part={listed}"));
        let hint = playlist
            .lines()
            .find_map(|line| line.strip_prefix("#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\""));
        let hint = hint.unwrap().trim_end_matches('"');
        let hinted = get(&world, &stream, &format!("v{rendition}/{hint}"));
        let number = new.count();
        new.advance(1);
        assert_eq!(
            hinted.await.unwrap().body,
            new.part(rendition, number).unwrap(),
            "{hint}"
        );
        let reloaded = reload.await.unwrap();
        assert_eq!(reloaded.status, 200, "{}", reloaded.text());
        assert!(
            reloaded.text().contains(&format!("URI=\"{hint}\"")),
            "{hint}: {}",
            reloaded.text()
        );
        encoder.until_pushed(new.count()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_of_parts_that_starts_over_is_followed() {
    let world = World::start().await;
    let source = manual();
    source.advance(30);
    let (stream, _server) = pulled(&world, &source).await;
    let before = world.get(&stream, "v0/playlist.m3u8").await.text().to_owned();
    assert!(
        before.contains("\"seg8.4.m4s\"") && !before.contains("DISCONTINUITY"),
        "{before}"
    );
    // Viewers wait for what this run of the origin never makes.
    let held = get(&world, &stream, "v0/playlist.m3u8?_HLS_msn=9&_HLS_part=2");
    source.begin_anew(7);
    let over = |playlist: &str| playlist.contains("#EXT-X-DISCONTINUITY\n");
    let mixed = world.until_playlist(&stream, "v0/playlist.m3u8", over).await;
    let (old, new) = mixed.split_once("#EXT-X-DISCONTINUITY\n").unwrap();
    assert!(uris(old).contains(&"seg8.m4s".to_owned()), "{mixed}");
    for uri in part_uris(new) {
        let (msn, part) = numbers(&uri);
        let content = world.get(&stream, &format!("v0/{uri}")).await.body;
        assert_eq!(content, source.part(0, msn * 5 + part).unwrap(), "{uri}");
    }
    // The wait ends with what is published under those numbers, or in an error that says to come again.
    let reply = held.await.unwrap();
    assert!(matches!(reply.status.as_u16(), 200 | 503), "{}", reply.status);
    // On it goes, in published numbers.
    let whole = tag(&mixed, "#EXT-X-MEDIA-SEQUENCE") + uris(&mixed).len() as u64;
    let reload = get(
        &world,
        &stream,
        &format!("v0/playlist.m3u8?_HLS_msn={whole}&_HLS_part=2"),
    );
    source.advance(1);
    let reloaded = reload.await.unwrap();
    assert_eq!(reloaded.status, 200, "{}", reloaded.text());
    assert!(reloaded.text().contains("seg1.2.m4s"), "{}", reloaded.text());
}

/// The URIs of a playlist's parts.
fn part_uris(playlist: &str) -> Vec<String> {
    let parts = playlist.lines().filter(|line| line.starts_with("#EXT-X-PART:"));
    parts.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
}

/// The numbers in `seg<n>.m4s` or `seg<n>.<part>.m4s`, whatever follows.
fn numbers(uri: &str) -> (u64, u64) {
    let mut numbers = uri.strip_prefix("seg").unwrap().split('.');
    let mut next = || numbers.next().unwrap().parse();
    (next().unwrap(), next().unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_waited_for_is_refused() {
    let world = World::start().await;
    let source = manual();
    let (pulled, _server) = pulled(&world, &source).await;
    let (pushed, _encoder) = pushed(&world, &source).await;
    for stream in [&pulled, &pushed] {
        for (name, query, status, error) in [
            ("listed already", "_HLS_msn=2&_HLS_part=4", 200, ""),
            ("long gone", "_HLS_msn=0", 200, ""),
            (
                "a part past the segment's last is the next one's first",
                "_HLS_msn=1&_HLS_part=9",
                200,
                "",
            ),
            ("with a parameter of the viewer's", "x=1&_HLS_msn=2", 404, "not_found"),
            ("too far ahead", "_HLS_msn=6", 400, "bad_request"),
            ("much too far", "_HLS_msn=18446744073709551615", 400, "bad_request"),
            ("a part without a segment", "_HLS_part=0", 400, "bad_request"),
            ("no number", "_HLS_msn=x", 400, "bad_request"),
            ("negative", "_HLS_msn=-1", 400, "bad_request"),
            ("nothing", "_HLS_msn=", 400, "bad_request"),
            ("too large", "_HLS_msn=18446744073709551616", 400, "bad_request"),
            ("no part's number", "_HLS_msn=3&_HLS_part=1.5", 400, "bad_request"),
            ("twice", "_HLS_msn=3&_HLS_msn=4", 400, "bad_request"),
        ] {
            if status == 404 && stream.id == pushed.id {
                continue;
            }
            let reply = world.get(stream, &format!("v0/playlist.m3u8?{query}")).await;
            assert_eq!(
                (reply.status.as_u16(), reply.error().as_str()),
                (status, error),
                "{name}"
            );
        }
    }
    // Nothing comes for three target durations, which are of a second.
    let held = [&pulled, &pushed].map(|stream| get(&world, stream, "v0/playlist.m3u8?_HLS_msn=3&_HLS_part=0"));
    for held in held {
        let reply = held.await.unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (503, "not_yet_available")
        );
        assert_eq!(reply.header("cache-control"), "no-store");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn held_requests_of_a_deleted_stream_end() {
    let world = World::start().await;
    // A target duration so long that a time-out is none.
    let source = LowLatencySource::start(LowLatencyOptions {
        pace: Pace::Manual,
        part: Duration::from_secs(4),
        ..LowLatencyOptions::default()
    });
    let (pulled, server) = pulled(&world, &source).await;
    let (pushed, _encoder) = pushed(&world, &source).await;
    let reload = "v0/playlist.m3u8?_HLS_msn=3&_HLS_part=0";
    for stream in [&pulled, &pushed] {
        assert_eq!(world.get(stream, "v0/playlist.m3u8").await.status, 200);
        let held = [reload, "v0/seg3.0.m4s"].map(|path| get(&world, stream, path));
        if stream.id == pulled.id {
            server.until_asked(&format!("/{reload}"), 1).await;
        }
        world.delete(stream).await;
        for held in held {
            let reply = tokio::time::timeout(super::PATIENCE, held)
                .await
                .expect("it ends")
                .unwrap();
            assert!(!reply.status.is_success(), "{}", reply.status);
        }
        assert_eq!(world.get(stream, reload).await.status, 421);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_plays_parts_as_they_come() {
    let world = World::start().await;
    let part = Duration::from_millis(200);
    let source = LowLatencySource::start(LowLatencyOptions {
        media: Media::encode(60, part, 5),
        ..LowLatencyOptions::default()
    });
    let (pulled, server) = pulled(&world, &source).await;
    let (pushed, encoder) = pushed(&world, &source).await;
    let key = world.project.signing_key("stream_id", &pulled.id).await;
    let token = world.token(&key, &pulled);
    let own_path = Stream::path("playlist.m3u8");
    let mut players = [
        world.player(
            "hls",
            &world.url(&pulled.host, &format!("{own_path}?auth={token}")),
            json!({"lowLatencyMode": true}),
        ),
        world.player(
            "hls",
            &world.url(&pushed.host, &own_path),
            json!({"lowLatencyMode": true}),
        ),
    ];
    for player in &mut players {
        player.plays_on(4.0).await;
    }
    for player in players {
        let seen = player.stop().await;
        assert!(seen["fatal"].is_null(), "{seen}");
        assert!(seen["parts"].as_u64().unwrap() > 10, "{seen}");
        let requests = seen["requests"].as_array().unwrap();
        let is_reload = |request: &&serde_json::Value| request.as_str().unwrap().contains("_HLS_part=");
        assert!(requests.iter().filter(is_reload).count() > 10, "{requests:?}");
    }
    assert_eq!(encoder.refused(), []);
    for asked in server.asked() {
        assert!(!asked.target.contains("auth"), "{asked:?}");
    }
    until("the status", async || {
        (world.status(&pulled).await == "live").then_some(())
    })
    .await;
}
