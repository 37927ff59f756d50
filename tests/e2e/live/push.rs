//! What an encoder sends is what viewers get: file by file, byte by byte.

use super::{Conversation, INGEST, Stream, World, media_playlist, until};
use bytes::Bytes;
use edgeweir_harness::Protocol;
use http::Method;

/// A segment's content, different for each.
pub(super) fn segment(n: u64) -> String {
    format!("segment {n} {}", "x".repeat(2000))
}

/// Pushes segments and the playlist that lists them.
pub(super) async fn push(world: &World, stream: &Stream, first: u64, segments: u64) {
    for n in first..first + segments {
        world.put_all(stream, &[(&format!("seg{n}.ts"), segment(n))]).await;
    }
    let playlist = media_playlist(first, segments);
    world.put_all(stream, &[("playlist.m3u8", playlist)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_put_posted_replaced_and_deleted() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let nothing = world.get(&stream, "playlist.m3u8").await;
    assert_eq!((nothing.status.as_u16(), nothing.error().as_str()), (404, "not_live"));
    assert_eq!(world.status(&stream).await, "idle");
    for (name, method, path, content, status) in [
        ("new", Method::PUT, "seg0.ts", segment(0), 201),
        ("POST is as good", Method::POST, "seg1.ts", segment(1), 201),
        ("a playlist", Method::PUT, "playlist.m3u8", media_playlist(0, 2), 201),
        ("the next one", Method::POST, "playlist.m3u8", media_playlist(0, 2), 204),
        ("in a folder", Method::PUT, "a/b/c.ts", segment(9), 201),
        ("gone", Method::DELETE, "a/b/c.ts", String::new(), 204),
        ("gone already", Method::DELETE, "a/b/c.ts", String::new(), 404),
        ("no name", Method::PUT, "", segment(0), 404),
        ("a folder", Method::PUT, "a/", segment(0), 400),
    ] {
        let reply = world.ingest(method, &stream, path, content).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
    }
    let reply = world.ingest(Method::GET, &stream, "seg0.ts", "").await;
    assert_eq!(reply.status, 405);
    assert!(reply.header("allow").contains("PUT"), "{:?}", reply.headers);
    assert_eq!(world.status(&stream).await, "live");
    assert_eq!(world.get(&stream, "playlist.m3u8").await.text(), media_playlist(0, 2));
    assert_eq!(world.get(&stream, "seg1.ts").await.text(), segment(1));
    assert_eq!(world.get(&stream, "a/b/c.ts").await.status, 404);
    // As ffmpeg says it: with a body in chunks that is empty.
    let mut deletion = world.connect().await;
    let head = format!(
        "DELETE /{}/seg0.ts HTTP/1.1\r\nHost: {INGEST}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        stream.key
    );
    deletion.send(head).await;
    assert!(deletion.rest().await.starts_with("HTTP/1.1 204"));
    // As curl does: it asks first whether the file is wanted.
    let mut upload = world.connect().await;
    let head = "Content-Length: 7\r\nExpect: 100-continue";
    let target = format!("/{}/seg2.ts", stream.key);
    upload
        .send(format!("PUT {target} HTTP/1.1\r\nHost: {INGEST}\r\n{head}\r\n\r\n"))
        .await;
    upload.until("HTTP/1.1 100 Continue\r\n\r\n").await;
    upload.send("content").await;
    upload.until("HTTP/1.1 201").await;
    let mut unwanted = world.connect().await;
    unwanted
        .send(format!(
            "PUT /wrong/seg2.ts HTTP/1.1\r\nHost: {INGEST}\r\n{head}\r\n\r\n"
        ))
        .await;
    assert!(
        unwanted.rest().await.starts_with("HTTP/1.1 403"),
        "at once, and the end"
    );
    // Over HTTP/2 as well.
    let https = world.edge.https(Protocol::H2);
    let path = format!("/{}/seg3.ts", stream.key);
    let reply = https.send(Method::PUT, INGEST, &path, &[], segment(3).into()).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(world.get(&stream, "seg3.ts").await.text(), segment(3));
    assert_eq!(world.get(&stream, "seg0.ts").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_answered_whole_in_part_and_by_their_head() {
    let world = World::start().await;
    let stream = world.pushed().await;
    push(&world, &stream, 0, 3).await;
    let whole = segment(1);
    let get = async |headers: &[(&str, &str)]| {
        let http = world.edge.http();
        http.get_with(&stream.host, &Stream::path("seg1.ts"), headers).await
    };
    let reply = get(&[]).await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, whole.as_str()));
    assert_eq!(reply.header("content-type"), "video/mp2t");
    assert_eq!(reply.header("accept-ranges"), "bytes");
    let etag = reply.header("etag").to_owned();
    for (name, headers, status, expected) in [
        ("a range", vec![("range", "bytes=2-6")], 206, &whole[2..7]),
        ("the end", vec![("range", "bytes=-3")], 206, &whole[whole.len() - 3..]),
        ("past it", vec![("range", "bytes=9999-")], 416, ""),
        ("unchanged", vec![("if-none-match", etag.as_str())], 304, ""),
    ] {
        let reply = get(&headers).await;
        assert_eq!(reply.status, status, "{name}");
        if status < 400 {
            assert_eq!(reply.text(), expected, "{name}");
        }
    }
    for path in ["seg1.ts", "playlist.m3u8"] {
        let (http, path) = (world.edge.http(), Stream::path(path));
        let reply = http.send(Method::HEAD, &stream.host, &path, &[], Bytes::new()).await;
        let whole = http.get(&stream.host, &path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("content-length"), whole.body.len().to_string(), "{path}");
        assert!(reply.body.is_empty());
    }
    for protocol in [Protocol::H1, Protocol::H2] {
        let https = world.edge.https(protocol);
        assert_eq!(https.get(&stream.host, &Stream::path("seg1.ts")).await.text(), whole);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_page_may_play_and_playlists_are_compressed_for_who_asks() {
    let world = World::start().await;
    let stream = world.pushed().await;
    push(&world, &stream, 0, 100).await;
    let http = world.edge.http();
    let path = Stream::path("playlist.m3u8");
    let plain = http.get(&stream.host, &path).await;
    assert_eq!(plain.header("content-type"), "application/vnd.apple.mpegurl");
    assert_eq!(plain.header("content-encoding"), "");
    let small = http
        .get_with(&stream.host, &path, &[("accept-encoding", "br, gzip")])
        .await;
    assert_eq!(small.header("content-encoding"), "gzip");
    assert!(
        small.header("vary").to_lowercase().contains("accept-encoding"),
        "{:?}",
        small.headers
    );
    assert!(
        small.body.len() * 2 < plain.body.len(),
        "{} of {}",
        small.body.len(),
        plain.body.len()
    );
    assert_eq!(gunzip(&small.body), plain.text());
    let origin = [("origin", "https://player.example.net")];
    for path in ["playlist.m3u8", "seg1.ts", "not-there.ts"] {
        let reply = http.get_with(&stream.host, &Stream::path(path), &origin).await;
        assert_eq!(reply.header("access-control-allow-origin"), "*", "{path}");
    }
    let asked = [
        ("origin", "https://player.example.net"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "range"),
    ];
    let reply = http
        .send(Method::OPTIONS, &stream.host, &path, &asked, Bytes::new())
        .await;
    assert!(reply.status.is_success(), "{}", reply.status);
    assert_eq!(reply.header("access-control-allow-origin"), "*");
    assert!(
        reply
            .header("access-control-allow-headers")
            .to_lowercase()
            .contains("range")
    );
}

/// Unpacks with Debian's gzip.
pub(super) fn gunzip(packed: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), packed).unwrap();
    let mut gzip = std::process::Command::new("gzip");
    let gzip = gzip.arg("-dc").stdin(std::fs::File::open(file.path()).unwrap());
    let (ok, out, err) = edgeweir_harness::command_output(gzip);
    assert!(ok, "{err}");
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_segment_is_readable_while_it_arrives() {
    let world = World::start().await;
    let stream = world.pushed().await;
    push(&world, &stream, 0, 3).await;
    let mut upload = world.begin(&stream, "seg3.ts").await;
    upload.chunk("the beginning,").await;
    let mut readers: Vec<Conversation> = Vec::new();
    for _ in 0..3 {
        // The answer to a reader that comes before the first byte may be 404.
        let reader = world.reader(&stream, "seg3.ts");
        readers.push(reader.await);
    }
    // Players ask for the whole by a range too, or for the head alone.
    let mut reader = world.connect().await;
    let path = Stream::path("seg3.ts");
    reader
        .send(format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nRange: bytes=0-\r\nConnection: close\r\n\r\n",
            stream.host
        ))
        .await;
    readers.push(reader);
    let head = world.edge.http();
    let head = head.send(Method::HEAD, &stream.host, &path, &[], Bytes::new()).await;
    assert_eq!(head.status, 200);
    for reader in &mut readers {
        assert!(!reader.until("the beginning,").await.contains("the end"));
    }
    upload.chunk("the middle,").await;
    for reader in &mut readers {
        reader.until("the middle,").await;
    }
    upload.chunk("the end").await;
    upload.chunk("").await;
    assert!(upload.until("\r\n\r\n").await.starts_with("HTTP/1.1 201"));
    for reader in readers {
        // It ends as a whole one does.
        assert!(reader.rest().await.ends_with("the end\r\n0\r\n\r\n"));
    }
    let whole = world.get(&stream, "seg3.ts").await;
    assert_eq!(whole.text(), "the beginning,the middle,the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_is_never_served_as_whole() {
    let world = World::start().await;
    let stream = world.pushed().await;
    push(&world, &stream, 0, 3).await;
    let before = world.get(&stream, "playlist.m3u8").await;
    let key = &stream.key;
    for (name, path, head, body) in [
        (
            "in chunks",
            "seg3.ts",
            "Transfer-Encoding: chunked",
            "e\r\nthe beginning,\r\n",
        ),
        (
            "in a chunk",
            "seg4.ts",
            "Transfer-Encoding: chunked",
            "ff\r\nthe beginning,",
        ),
        (
            "shorter than it said",
            "seg5.ts",
            "Content-Length: 1000",
            "the beginning,",
        ),
        (
            "a playlist",
            "playlist.m3u8",
            "Content-Length: 1000",
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n",
        ),
    ] {
        let mut upload = world.connect().await;
        upload
            .send(format!(
                "PUT /{key}/{path} HTTP/1.1\r\nHost: {INGEST}\r\n{head}\r\n\r\n{body}"
            ))
            .await;
        if path.starts_with("seg") {
            let mut reader = world.reader(&stream, path).await;
            reader.until("the beginning,").await;
            drop(upload);
            let read = reader.rest().await;
            assert!(
                !read.ends_with("0\r\n\r\n"),
                "{name}: the reader must see that it is not whole: {read}"
            );
            until(name, async || {
                (world.get(&stream, path).await.status == 404).then_some(())
            })
            .await;
        } else {
            drop(upload);
            let after = world.get(&stream, path).await;
            assert_eq!(after.body, before.body, "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_viewer_learns_the_stream_key() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let folder = format!("http://{INGEST}/{}", stream.key);
    let playlist = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-KEY:METHOD=AES-128,URI=\"{folder}/v0/p.m3u8.key\"\n\
         #EXTINF:1.0,\nhttps://{INGEST}:8443/{}/v0/seg0.ts\n#EXTINF:1.0,\nseg1.ts\n",
        stream.key
    );
    let manifest = format!(
        "<MPD type=\"dynamic\"><BaseURL>{folder}/v0/</BaseURL><Period><AdaptationSet>\
         <SegmentTemplate media=\"seg$Number$.ts\"/></AdaptationSet></Period></MPD>"
    );
    let files = [
        ("v0/p.m3u8.key", "0123456789abcdef".to_owned()),
        ("v0/seg0.ts", segment(0)),
        ("v0/seg1.ts", segment(1)),
        ("v0/p.m3u8", playlist),
        ("manifest.mpd", manifest),
        (
            "playlist.m3u8",
            format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{folder}/v0/p.m3u8\n"),
        ),
    ];
    world.put_all(&stream, &files).await;
    for (path, expected) in [
        ("playlist.m3u8", "\n./v0/p.m3u8\n"),
        ("v0/p.m3u8", "URI=\"../v0/p.m3u8.key\""),
        ("v0/p.m3u8", "\n../v0/seg0.ts\n"),
        ("manifest.mpd", "<BaseURL>./v0/</BaseURL>"),
    ] {
        let reply = world.get(&stream, path).await;
        assert!(reply.text().contains(expected), "{path}: {}", reply.text());
        assert!(!reply.text().contains(&stream.key), "{path}: {}", reply.text());
    }
    assert_eq!(world.get(&stream, "v0/p.m3u8.key").await.text(), "0123456789abcdef");
    assert_eq!(world.get(&stream, "v0/seg0.ts").await.text(), segment(0));
    // Where it cannot be taken out, the playlist is not taken.
    for (path, text) in [
        ("v0/p.m3u8", format!("{}# {folder}/\n", media_playlist(0, 2))),
        (
            "v0/p.m3u8",
            format!("{}#EXTINF:1.0,\n../{}/v0/seg2.ts\n", media_playlist(0, 2), stream.key),
        ),
        ("manifest.mpd", format!("<MPD><Title>{}</Title></MPD>", stream.key)),
    ] {
        let before = world.get(&stream, path).await;
        let reply = world.put(&stream, path, text).await;
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (422, "bad_playlist"),
            "{path}"
        );
        assert!(reply.text().contains("stream key"), "{}", reply.text());
        assert_eq!(world.get(&stream, path).await.text(), before.text(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_playlist_names_beside_its_segments_is_kept() {
    let world = World::with(&[("live.window_seconds", "5")]).await;
    let stream = world.pushed().await;
    let list = |first: u64| {
        let text = media_playlist(first, 2);
        let beside = "#EXT-X-KEY:METHOD=AES-128,URI=\"k.bin\"\n\
                      #EXT-X-DATERANGE:ID=\"a\",START-DATE=\"2026-01-01T00:00:00Z\",X-ASSET-LIST=\"assets.json\"\n#EXTINF";
        text.replacen("#EXTINF", beside, 1)
    };
    let master =
        "#EXTM3U\n#EXT-X-SESSION-DATA:DATA-ID=\"d\",URI=\"data.json\"\n#EXT-X-STREAM-INF:BANDWIDTH=1\nv.m3u8\n";
    let files = ["k.bin", "assets.json", "data.json", "seg10.ts", "seg11.ts"];
    for path in files {
        world.put_all(&stream, &[(path, format!("first {path}"))]).await;
    }
    let playlists = [("v.m3u8", list(10)), ("playlist.m3u8", master.to_owned())];
    world.put_all(&stream, &playlists).await;
    // Something that came later and is in no playlist.
    world.put_all(&stream, &[("unlisted.bin", "x".to_owned())]).await;
    until("what is not listed goes", async || {
        (world.get(&stream, "unlisted.bin").await.status == 404).then_some(())
    })
    .await;
    for path in files {
        assert_eq!(world.get(&stream, path).await.text(), format!("first {path}"));
    }
    // The next run has a key of its own by the same name.
    for path in ["k.bin", "seg0.ts", "seg1.ts"] {
        world.put_all(&stream, &[(path, format!("second {path}"))]).await;
    }
    world
        .put_all(&stream, &[("v.m3u8", list(0)), ("seg2.ts", segment(2))])
        .await;
    let playlist = world.get(&stream, "v.m3u8").await;
    assert!(playlist.text().contains("URI=\"k.bin?_ew_v=2\""), "{}", playlist.text());
    for (path, content) in [
        ("k.bin", "first k.bin"),
        ("k.bin?_ew_v=2", "second k.bin"),
        ("seg0.ts?_ew_v=2", "second seg0.ts"),
        ("assets.json", "first assets.json"),
    ] {
        assert_eq!(world.get(&stream, path).await.text(), content, "{path}");
    }
}
