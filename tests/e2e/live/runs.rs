//! One run of an encoder or origin after another: what each has made stays what it is, and playlists go on.

use super::{DOMAIN, INGEST, Stream, World, low_latency, media_playlist, until};
use edgeweir_harness::{Answer, Origin};
use http::{Method, header::LOCATION};
use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// A media playlist of fragmented MP4 with three segments from this number on.
fn fragments(first: u64) -> String {
    let mut text = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-MAP:URI=\"init.mp4\"\n\
             #EXT-X-KEY:METHOD=AES-128,URI=\"key{first}.bin\"\n#EXT-X-KEY:METHOD=AES-128,URI=\"key.bin\",KEYFORMAT=\"x\"\n"
    );
    for number in first..first + 3 {
        let _ = write!(text, "#EXTINF:1.0,\ns{number}.m4s\n");
    }
    text
}

/// The URIs of a playlist's files, those of EXT-X-MAP and EXT-X-KEY among them.
fn files(playlist: &str) -> Vec<String> {
    let uri = |line: &str| match line.split_once("URI=\"") {
        Some((_, rest)) => rest.split('"').next().map(str::to_owned),
        None => (!line.starts_with('#')).then(|| line.to_owned()),
    };
    playlist.lines().filter_map(uri).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rendition_of_an_origin_that_starts_over_keeps_its_files() {
    let world = World::start().await;
    let run = Arc::new(AtomicUsize::new(0));
    let present = run.clone();
    let origin = Origin::serve(move |seen| {
        let run = present.load(Ordering::Relaxed);
        let playlist = |text: &str| Answer::ok("Content-Type: application/vnd.apple.mpegurl\r\n", text);
        match seen.target.as_str() {
            "/live/master.m3u8" => playlist(
                "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv0/p.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=2\nv1/p.m3u8\n",
            ),
            target if target.contains(".m3u8") => playlist(&fragments(if run == 0 { 10 } else { 0 })),
            target => Answer::ok("", &format!("run {run} {target}")),
        }
    })
    .await;
    let stream = world.pulled(&format!("{}/live/master.m3u8", origin.url())).await;
    assert_eq!(world.get(&stream, "playlist.m3u8").await.status, 200);
    for rendition in ["v0", "v1"] {
        let playlist = world.get(&stream, &format!("{rendition}/p.m3u8")).await;
        assert_eq!(playlist.text(), fragments(10));
        // Seen by somebody while they were there.
        assert_eq!(world.get(&stream, &format!("{rendition}/s12.m4s")).await.status, 200);
    }
    run.store(1, Ordering::Relaxed);
    let over = |playlist: &str| playlist.contains("#EXT-X-DISCONTINUITY\n");
    let first = world.until_playlist(&stream, "v0/p.m3u8", over).await;
    let second = world.until_playlist(&stream, "v1/p.m3u8", over).await;
    for (rendition, playlist) in [("v0", first), ("v1", second)] {
        let (_, new) = playlist.split_once("#EXT-X-DISCONTINUITY\n").unwrap();
        let new = files(new);
        assert_eq!(new.len(), 6, "{playlist}");
        for uri in new {
            let reply = world.get(&stream, &format!("{rendition}/{uri}")).await;
            let name = uri.split('?').next().unwrap();
            assert_eq!(reply.text(), format!("run 1 /live/{rendition}/{name}"), "{uri}");
        }
        let old = world.get(&stream, &format!("{rendition}/s12.m4s")).await;
        assert_eq!(old.text(), format!("run 0 /live/{rendition}/s12.m4s"));
        // The key of what is listed still may be there, as only the origin knows.
        let key = world.get(&stream, &format!("{rendition}/key10.bin")).await;
        assert_eq!(key.text(), format!("run 1 /live/{rendition}/key10.bin"));
        // What is of no run, and what is gone with its run.
        for uri in ["s12.m4s?_ew_v=99", "s11.m4s"] {
            assert_eq!(
                world.get(&stream, &format!("{rendition}/{uri}")).await.status,
                404,
                "{uri}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_is_held_over_an_origin_that_fails() {
    let world = World::start().await;
    let stage = Arc::new(AtomicUsize::new(0));
    let present = stage.clone();
    let list = |segments: u64| {
        let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n".to_owned();
        for number in 0..segments {
            let _ = write!(text, "#EXTINF:4.0,\ns{number}.ts\n");
        }
        text
    };
    let origin = Origin::serve(move |_| match present.load(Ordering::Relaxed) {
        0 => Answer::ok("", &list(3)),
        1 => Answer::Raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into()),
        _ => Answer::ok("", &list(4)),
    })
    .await;
    let stream = world.pulled(&format!("{}/p.m3u8", origin.url())).await;
    assert_eq!(world.get(&stream, "p.m3u8").await.status, 200);
    stage.store(1, Ordering::Relaxed);
    let before = origin.seen().len();
    let held = low_latency::get(&world, &stream, "p.m3u8?_HLS_msn=3");
    origin.asked(before + 3).await;
    assert!(!held.is_finished());
    let asked: Vec<_> = origin.seen()[before..].iter().map(|seen| seen.target.clone()).collect();
    assert!(
        asked[1..].iter().all(|target| !target.contains("_HLS")),
        "after a failure the origin is asked for what it has: {asked:?}"
    );
    stage.store(2, Ordering::Relaxed);
    let reply = held.await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.text().contains("s3.ts"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rendition_that_nobody_watched_is_ready_for_who_changes_to_it() {
    let world = World::start().await;
    let source = low_latency::manual();
    let (stream, _server) = low_latency::pulled(&world, &source).await;
    assert_eq!(world.get(&stream, "v1/playlist.m3u8").await.status, 200);
    source.advance(40);
    // The last segment of eleven, as a rendition report of the other one tells it. In truth they took their time.
    let playlist = until("what is known to be old", async || {
        let reply = world.get(&stream, "v1/playlist.m3u8?_HLS_msn=10").await;
        (reply.status == 200).then(|| reply.text().to_owned())
    })
    .await;
    assert_eq!(playlist, source.playlist(1));
}

/// A manifest with one representation.
fn manifest(attributes: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" {attributes}><Period id=\"0\"><AdaptationSet>\
         <SegmentTemplate timescale=\"1\" duration=\"1\" startNumber=\"1\" initialization=\"init-$RepresentationID$.m4s\" \
         media=\"chunk-$RepresentationID$-$Number$.m4s?a=1&amp;b=2\"/><Representation id=\"v\" bandwidth=\"1\"/>\
         </AdaptationSet></Period></MPD>"
    )
}

fn begun_at(second: u32) -> String {
    let start = format!("availabilityStartTime=\"2026-01-01T00:00:{second:02}Z\"");
    manifest(&format!("type=\"dynamic\" minimumUpdatePeriod=\"PT500S\" {start}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_run_is_refused_and_the_last_one_of_a_run_is_not() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let manifests = [("init-v.m4s", "init".to_owned()), ("live/manifest.mpd", begun_at(0))];
    world.put_all(&stream, &manifests).await;
    world.until_status(&stream, "live").await;
    let other = world.put(&stream, "live/manifest.mpd", begun_at(7)).await;
    assert_eq!(
        (other.status.as_u16(), other.error().as_str()),
        (409, "publisher_conflict")
    );
    let served = world.get(&stream, "live/manifest.mpd").await;
    assert_eq!(served.text(), begun_at(0), "nothing is replaced");
    let end = manifest("type=\"static\" mediaPresentationDuration=\"PT9S\"");
    world.put_all(&stream, &[("live/manifest.mpd", end)]).await;
    assert_eq!(world.status(&stream).await, "ended");
    // Whoever asks for the stream by its playlist's name is led to the manifest.
    world.domain().await;
    for (host, path, expected) in [
        (
            &*stream.host,
            Stream::path("playlist.m3u8"),
            "live/manifest.mpd".to_owned(),
        ),
        (
            DOMAIN,
            format!("/{}.m3u8", stream.playback_id),
            format!("{}/live/manifest.mpd", stream.playback_id),
        ),
    ] {
        let reply = world.edge.http().get(host, &path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header(LOCATION.as_str())),
            (307, expected.as_str())
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dash_origin_that_starts_over_is_not_served_from_its_last_run() {
    let world = World::start().await;
    let run = Arc::new(AtomicUsize::new(0));
    let present = run.clone();
    let origin = Origin::serve(move |seen| {
        let run = present.load(Ordering::Relaxed);
        match seen.target.as_str() {
            "/manifest.mpd" => Answer::ok("", &begun_at(run as u32).replace("PT500S", "PT1S")),
            target => Answer::ok("", &format!("run {run} {target}")),
        }
    })
    .await;
    let stream = world.pulled(&format!("{}/manifest.mpd", origin.url())).await;
    assert_eq!(world.get(&stream, "manifest.mpd").await.status, 200);
    assert_eq!(world.get(&stream, "init-v.m4s").await.text(), "run 0 /init-v.m4s");
    run.store(1, Ordering::Relaxed);
    let again = world
        .until_playlist(&stream, "manifest.mpd", |text| text.contains("00:01Z"))
        .await;
    assert!(
        again.contains("initialization=\"init-$RepresentationID$.m4s?_ew_v=2\""),
        "{again}"
    );
    assert!(again.contains("$Number$.m4s?a=1&amp;b=2&amp;_ew_v=2\""), "{again}");
    let new = world.get(&stream, "init-v.m4s?_ew_v=2").await;
    assert_eq!(new.text(), "run 1 /init-v.m4s");
    let chunk = world.get(&stream, "chunk-v-1.m4s?a=1&b=2&_ew_v=2").await;
    assert_eq!(chunk.text(), "run 1 /chunk-v-1.m4s?a=1&b=2");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_playlist_and_a_manifest_share_are_of_the_present_run_of_both() {
    let world = World::start().await;
    for order in [["p.m3u8", "manifest.mpd"], ["manifest.mpd", "p.m3u8"]] {
        let stream = world.pushed().await;
        for n in 0..2 {
            for path in ["init-v.m4s", "chunk-v-1.m4s"] {
                world.put_all(&stream, &[(path, format!("{path} {n}"))]).await;
            }
            for path in order {
                let text = match path {
                    "p.m3u8" => format!(
                        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MAP:URI=\"init-v.m4s\"\n#EXTINF:1.{n},\nchunk-v-1.m4s\n"
                    ),
                    _ => begun_at(n).replace("PT500S", "PT1S"),
                };
                // Another run is taken once the one before is silent.
                until("the playlist is taken", async || {
                    let reply = world.put(&stream, path, text.clone()).await;
                    (reply.status != 409).then_some(())
                })
                .await;
            }
        }
        for label in [2, 3] {
            for path in ["init-v.m4s", "chunk-v-1.m4s"] {
                let reply = world.get(&stream, &format!("{path}?_ew_v={label}")).await;
                assert_eq!(reply.text(), format!("{path} 1"), "{order:?} {label}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_manifest_are_its_runs_also_over_restarts_of_the_server() {
    let mut world = World::start().await;
    let stream = world.pushed().await;
    let run = |n: u32| [("init-v.m4s", format!("init {n}")), ("manifest.mpd", begun_at(n))];
    world.put_all(&stream, &run(0)).await;
    world.restart().await;
    // The encoder has begun anew meanwhile; its first file comes before its first manifest.
    world.put_all(&stream, &run(1)).await;
    for _ in 0..2 {
        let manifest = world.get(&stream, "manifest.mpd").await;
        assert!(
            manifest.text().contains("$RepresentationID$.m4s?_ew_v=2\""),
            "{}",
            manifest.text()
        );
        assert_eq!(world.get(&stream, "init-v.m4s?_ew_v=2").await.text(), "init 1");
        world.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ingest_host_says_what_it_takes() {
    let world = World::start().await;
    let stream = world.pushed().await;
    for method in [Method::OPTIONS, Method::GET, Method::PATCH] {
        let reply = world.ingest(method.clone(), &stream, "a.ts", "").await;
        assert_eq!(reply.header("allow"), "PUT, POST, DELETE, OPTIONS", "{method}");
    }
    let mut wrong = world.connect().await;
    let head = "PUT /wrong/a.ts HTTP/1.1\r\nHost: ingest.edgeweir.localhost\r\nTransfer-Encoding: chunked\r\n";
    let put = |last| format!("{head}{last}\r\n1\r\nx\r\n0\r\n\r\n");
    // A refusal ends no connection whose requests can be told apart.
    wrong.send(put("") + &put("Connection: close\r\n")).await;
    let answer = wrong.rest().await;
    assert_eq!(answer.matches("HTTP/1.1 403").count(), 2, "{answer}");
    assert!(
        answer.starts_with("HTTP/1.1 403") && answer.contains("stream_key"),
        "{answer}"
    );
}

/// ffmpeg sends its files one after the other on a connection, reads no answer, and closes it behind the last one: a reset,
/// as answers are unread.
#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_leaves_without_a_look_at_its_answers_has_pushed_all_that_it_sent() {
    let world = World::start().await;
    // More than a connection holds for who takes it.
    let large = "b".repeat(80 << 10);
    for round in 0..10 {
        let stream = world.pushed().await;
        let put = |name: &str, content: &str| {
            let head = format!("PUT /{}/{name} HTTP/1.1\r\nHost: {INGEST}\r\n", stream.key);
            format!(
                "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{content}\r\n0\r\n\r\n",
                content.len()
            )
        };
        let mut leaving = world.connect().await;
        leaving.send(put("seg1.ts", &large)).await;
        drop(leaving);
        let mut leaving = world.connect().await;
        if round % 2 == 0 {
            leaving.send(put("seg0.ts", "a")).await;
            leaving.stream.readable().await.unwrap();
        }
        let ended = format!("{}#EXT-X-ENDLIST\n", media_playlist(0, 2));
        leaving.send(put("seg0.ts", "a") + &put("playlist.m3u8", &ended)).await;
        drop(leaving);
        world.until_status(&stream, "ended").await;
        assert!(world.get(&stream, "seg1.ts").await.text() == large);
    }
}
