//! What is broken, too much, too slow, or not where it belongs.

use super::{INGEST, World, entries, media_playlist, until};
use bytes::Bytes;
use edgeweir_harness::{Answer, Origin};
use http::Method;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The head of a media playlist.
const HEAD: &str = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n";

/// Playlists that nobody can play, or should.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let media = |rest: &str| format!("{HEAD}{rest}").into_bytes();
    let segment = |uri: &str| media(&format!("#EXTINF:1.0,\n{uri}\n"));
    let many = entries((0..100_000).map(|n| format!("{n}.ts")));
    vec![
        ("empty", Vec::new()),
        (
            "no header",
            b"#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\nseg0.ts\n".to_vec(),
        ),
        ("a page", b"<!doctype html><title>404</title>".to_vec()),
        ("no text", vec![0xff; 1000]),
        ("an endless line", segment(&"x".repeat(1 << 20))),
        ("100,000 entries", media(&many)),
        ("a climbing segment", segment("../../seg0.ts")),
        ("a climbing segment, encoded", segment("%2e%2e/%2e%2e/seg0.ts")),
        (
            "a climbing map",
            media("#EXT-X-MAP:URI=\"../../init.mp4\"\n#EXTINF:1.0,\nseg0.ts\n"),
        ),
        (
            "a climbing rendition",
            b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n../v0/playlist.m3u8\n".to_vec(),
        ),
        ("a file", segment("file:///etc/passwd")),
        ("a script", segment("javascript:alert(1)")),
        ("data", segment("data:video/mp2t;base64,AAAA")),
        ("no duration", media("#EXTINF:\nseg0.ts\n")),
        ("a negative duration", media("#EXTINF:-1,\nseg0.ts\n")),
        ("no target duration", b"#EXTM3U\n#EXTINF:1.0,\nseg0.ts\n".to_vec()),
        (
            "no number",
            b"#EXTM3U\n#EXT-X-TARGETDURATION:x\n#EXTINF:1.0,\nseg0.ts\n".to_vec(),
        ),
        (
            "too large a sequence",
            media("#EXT-X-MEDIA-SEQUENCE:18446744073709551615\n#EXTINF:1.0,\na.ts\n#EXTINF:1.0,\nb.ts\n"),
        ),
        (
            "both kinds",
            media("#EXTINF:1.0,\nseg0.ts\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv.m3u8\n"),
        ),
        (
            "a difference",
            media("#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n#EXTINF:1.0,\nseg0.ts\n"),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_playlist_that_is_pushed_replaces_nothing() {
    let world = World::start().await;
    let stream = world.pushed().await;
    world.put_all(&stream, &[("playlist.m3u8", media_playlist(0, 3))]).await;
    world.put_all(&stream, &[("seg2.ts", "content".to_owned())]).await;
    for (name, content) in broken() {
        for path in ["playlist.m3u8", "new.m3u8"] {
            let reply = world.put(&stream, path, content.clone()).await;
            let expected = match name {
                "100,000 entries" => (413, "limit_exceeded"),
                _ => (422, "bad_playlist"),
            };
            assert_eq!((reply.status.as_u16(), reply.error().as_str()), expected, "{name}");
            assert!(
                reply.body.len() < 1000,
                "{name}: the answer repeats what came: {}",
                reply.body.len()
            );
        }
        assert_eq!(world.get(&stream, "new.m3u8").await.status, 404, "{name}");
        assert_eq!(
            world.get(&stream, "playlist.m3u8").await.text(),
            media_playlist(0, 3),
            "{name}"
        );
    }
    for (name, content) in [
        ("no manifest", "<html></html>".to_owned()),
        ("not closed", "<MPD type=\"dynamic\"><Period>".to_owned()),
        (
            "an entity bomb",
            format!(
                "<!DOCTYPE a [<!ENTITY b \"{}\">]><MPD type=\"dynamic\">&b;</MPD>",
                "c".repeat(9999)
            ),
        ),
    ] {
        let reply = world.put(&stream, "manifest.mpd", content).await;
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (422, "bad_playlist"),
            "{name}"
        );
    }
    let vast = world.put(&stream, "vast.m3u8", vec![b'#'; 5 << 20]).await;
    assert_eq!((vast.status.as_u16(), vast.error().as_str()), (413, "limit_exceeded"));
    // The encoder goes on.
    world.put_all(&stream, &[("playlist.m3u8", media_playlist(1, 3))]).await;
}

/// An origin of a playlist that is good until it is told otherwise.
async fn origin_of(content: Vec<u8>, is_good: Arc<AtomicBool>) -> Origin {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        content.len()
    );
    let bad = Bytes::from([head.as_bytes(), &content].concat());
    Origin::serve(
        move |seen| match (seen.target.as_str(), is_good.load(Ordering::Relaxed)) {
            ("/live.m3u8", true) => Answer::ok("", &media_playlist(0, 3)),
            ("/live.m3u8", false) => Answer::Raw(bad.clone()),
            _ => Answer::ok("", "a segment"),
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_playlist_that_is_pulled_is_an_error_or_not_seen() {
    let world = World::start().await;
    let is_good = Arc::new(AtomicBool::new(true));
    let mut streams = Vec::new();
    for (name, content) in broken() {
        let origin = origin_of(content, is_good.clone()).await;
        let stream = world.pulled(&format!("{}/live.m3u8", origin.url())).await;
        assert_eq!(world.get(&stream, "live.m3u8").await.status, 200, "{name}");
        streams.push((name, origin, stream));
    }
    is_good.store(false, Ordering::Relaxed);
    for (name, origin, stream) in streams {
        // It was good once: the last version is served on.
        let before = origin.seen().len();
        until(name, async || {
            let reply = world.get(&stream, "live.m3u8").await;
            let answer = (reply.status.as_u16(), reply.text());
            assert_eq!(answer, (200, media_playlist(0, 3).as_str()), "{name}");
            (origin.seen().len() > before).then_some(())
        })
        .await;
        assert_eq!(world.get(&stream, "live.m3u8").await.status, 200, "{name}");
        // It was never.
        let stream = world.pulled(&format!("{}/live.m3u8", origin.url())).await;
        let reply = world.get(&stream, "live.m3u8").await;
        let answer = (reply.status.as_u16(), reply.error());
        assert_eq!(answer, (502, "origin_playlist".to_owned()), "{name}");
        assert_eq!(world.status(&stream).await, "idle", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_told_by_name() {
    let settings = [
        ("live.segment", "1MiB"),
        ("live.stream", "3MiB"),
        ("live.memory", "4MiB"),
    ];
    let world = World::with(&settings).await;
    let stream = world.pushed().await;
    let refused = |reply: &edgeweir_harness::Reply, name: &str| {
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (413, "limit_exceeded"),
            "{name}"
        );
        let message = reply.json()["message"].as_str().unwrap().to_owned();
        assert!(message.contains(name), "{name}: {message}");
    };
    // A segment that says how large it is, and one that does not.
    refused(
        &world.put(&stream, "seg0.ts", vec![1; (1 << 20) + 1]).await,
        "live.segment",
    );
    let mut upload = world.begin(&stream, "seg1.ts").await;
    let chunk = "x".repeat(600 << 10);
    upload.chunk(&chunk).await;
    let mut reader = world.reader(&stream, "seg1.ts").await;
    reader.until("xxx").await;
    upload.chunk(&chunk).await;
    assert!(upload.until("live.segment").await.starts_with("HTTP/1.1 413"));
    assert!(!reader.rest().await.ends_with("0\r\n\r\n"));
    for path in ["seg0.ts", "seg1.ts"] {
        assert_eq!(world.get(&stream, path).await.status, 404, "{path}");
    }
    // All of a stream, and all streams together.
    let most = vec![1; 1 << 20];
    for n in 0..3 {
        assert_eq!(
            world.put(&stream, &format!("big{n}.ts"), most.clone()).await.status,
            201
        );
    }
    refused(&world.put(&stream, "big3.ts", most.clone()).await, "live.stream");
    let other = world.pushed().await;
    assert_eq!(world.put(&other, "big0.ts", most.clone()).await.status, 201);
    refused(&world.put(&other, "big1.ts", most.clone()).await, "live.memory");
    // What goes makes room.
    assert_eq!(world.ingest(Method::DELETE, &stream, "big0.ts", "").await.status, 204);
    assert_eq!(world.put(&other, "big1.ts", most).await.status, 201);
    for stream in [stream, other] {
        world.delete(&stream).await;
    }
    // Playlists.
    let stream = world.pushed().await;
    for n in 0..256 {
        let reply = world.put(&stream, &format!("p{n}.m3u8"), media_playlist(0, 1)).await;
        assert_eq!(reply.status, 201);
    }
    let reply = world.put(&stream, "one-more.m3u8", media_playlist(0, 1)).await;
    refused(&reply, "live.playlists");
    // Uploads at a time.
    let stream = world.pushed().await;
    let mut uploads = Vec::new();
    for n in 0..64 {
        let mut upload = world.begin(&stream, &format!("u{n}.ts")).await;
        upload.chunk("a").await;
        let path = format!("u{n}.ts");
        world.reader(&stream, &path).await;
        uploads.push(upload);
    }
    refused(&world.put(&stream, "one-more.ts", "content").await, "live.uploads");
    drop(uploads);
    until("room for an upload", async || {
        (world.put(&stream, "one-more.ts", "content").await.status == 201).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_encoder_holds_nobody_up() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let mut slow = world.begin(&stream, "slow.ts").await;
    slow.chunk("begin").await;
    let mut reader = world.reader(&stream, "slow.ts").await;
    // Byte by byte: each is seen, and everything else goes on.
    for n in 0..20 {
        slow.chunk(&format!("[{n}]")).await;
        reader.until(&format!("[{n}]")).await;
        world
            .put_all(&stream, &[(&format!("seg{n}.ts"), format!("segment {n}"))])
            .await;
        world
            .put_all(&stream, &[("playlist.m3u8", media_playlist(n.max(5) - 5, 6))])
            .await;
        assert_eq!(
            world.get(&stream, &format!("seg{n}.ts")).await.text(),
            format!("segment {n}")
        );
    }
    slow.chunk("").await;
    slow.until("HTTP/1.1 201").await;
    assert!(reader.rest().await.ends_with("0\r\n\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_outside_the_streams_folder() {
    let world = World::start().await;
    let (stream, other) = (world.pushed().await, world.pushed().await);
    let http = world.edge.http();
    let key = &stream.key;
    for path in [
        format!("/{key}/../x.ts"),
        format!("/{key}/a/../../x.ts"),
        format!("/{key}/%2e%2e/x.ts"),
        format!("/{key}/.%2E/x.ts"),
        format!("/{key}/..%2fx.ts"),
        format!("/{key}/%2e%2e%2f{}/x.ts", other.key),
        format!("/{key}/a%2fb.ts"),
        format!("/{key}/a%00.ts"),
        format!("/{key}//x.ts"),
        format!("/{key}/a//x.ts"),
        format!("/{key}/./x.ts"),
        format!("/{key}/a%zz.ts"),
        format!("/{key}/{}", "a".repeat(5000)),
    ] {
        let reply = http.send(Method::PUT, INGEST, &path, &[], "content".into()).await;
        let short: String = path.replace(key.as_str(), "KEY").chars().take(60).collect();
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (400, "bad_path"),
            "{short}"
        );
    }
    for path in ["/../x.ts", "/%2e%2e/x.ts", "/", "/x"] {
        let reply = http.send(Method::PUT, INGEST, path, &[], "content".into()).await;
        assert_eq!(reply.status, 403, "{path}");
    }
    for stream in [&stream, &other] {
        assert_eq!(world.get(stream, "x.ts").await.status, 404);
        assert_eq!(world.status(stream).await, "idle");
    }
    // Names that are odd but right are one name on both sides.
    for (put, get) in [
        ("a%20b/%C3%A4.ts", "a b/ä.ts"),
        ("...ts", "...ts"),
        ("a+b&c=d.ts", "a%2Bb%26c%3Dd.ts"),
    ] {
        let path = format!("/{key}/{put}");
        let reply = http.send(Method::PUT, INGEST, &path, &[], "content".into()).await;
        assert_eq!(reply.status, 201, "{put}");
        let got = get.replace(' ', "%20").replace('ä', "%c3%a4");
        assert_eq!(world.get(&stream, &got).await.text(), "content", "{put}");
    }
    let mut found = Vec::new();
    let mut folders = vec![world.edge.data_dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.file_name().into_string().unwrap());
            }
        }
    }
    assert!(
        !found.iter().any(|name| name.contains("x.ts") || name.contains("ts")),
        "{found:?}"
    );
    assert!(!world.edge.log().contains(key.as_str()), "the stream key is in the log");
}
