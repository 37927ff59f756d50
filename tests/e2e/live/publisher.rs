//! Encoders that come, go, come again, or may not come at all.

use super::{
    DOMAIN, INGEST, Stream, World, media_playlist,
    push::{push, segment},
    tag, until, uris,
};
use edgeweir_harness::Protocol;
use http::Method;

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_need_not_wait_for_answers() {
    let world = World::start().await;
    let stream = world.pushed().await;
    for n in 0..20 {
        let path = format!("seg{n}.ts");
        let mut upload = world.begin(&stream, &path).await;
        // Everything, and then the connection is closed with the answer unread.
        upload.chunk(&segment(n)).await;
        upload.chunk("").await;
        drop(upload);
        until(&path, async || {
            (world.get(&stream, &path).await.status == 200).then_some(())
        })
        .await;
        assert_eq!(world.get(&stream, &path).await.text(), segment(n));
        // A small file whose end comes with its head, and a deletion.
        for (method, body, status) in [("PUT", "3\r\nnew\r\n0\r\n\r\n", 200), ("DELETE", "0\r\n\r\n", 404)] {
            let mut request = world.connect().await;
            let target = format!("/{}/small{n}.ts", stream.key);
            let head = format!("{method} {target} HTTP/1.1\r\nHost: {INGEST}\r\nTransfer-Encoding: chunked");
            request.send(format!("{head}\r\n\r\n{body}")).await;
            drop(request);
            let path = format!("small{n}.ts");
            let done = async || (world.get(&stream, &path).await.status == status).then_some(());
            until(&format!("{method} {path}"), done).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_streams_key_lets_in_and_a_second_publisher_is_told_so() {
    let world = World::start().await;
    let (stream, other) = (world.pushed().await, world.pushed().await);
    let http = world.edge.http();
    for key in ["wrong", "", &stream.key[1..], &stream.id, &stream.playback_id] {
        let path = format!("/{key}/seg0.ts");
        let reply = http.send(Method::PUT, INGEST, &path, &[], segment(0).into()).await;
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (403, "stream_key"),
            "{key}"
        );
        assert_eq!(reply.json()["status"], "failed");
    }
    // Where viewers get it nothing is taken.
    let path = Stream::path("seg0.ts");
    let reply = http
        .send(Method::PUT, &stream.host, &path, &[], segment(0).into())
        .await;
    assert_eq!(reply.status, 405);
    for stream in [&stream, &other] {
        assert_eq!(world.get(stream, "seg0.ts").await.status, 404);
        assert_eq!(world.status(stream).await, "idle");
    }
    // Another encoder, which has just begun, while this one is on the air.
    push(&world, &stream, 100, 6).await;
    let reply = world.put(&stream, "playlist.m3u8", media_playlist(0, 1)).await;
    assert_eq!(
        (reply.status.as_u16(), reply.error().as_str()),
        (409, "publisher_conflict")
    );
    assert_eq!(world.get(&stream, "playlist.m3u8").await.text(), media_playlist(100, 6));
    // Two at once of one file.
    let mut first = world.begin(&stream, "seg106.ts").await;
    first.chunk("of the first").await;
    world.reader(&stream, "seg106.ts").await;
    let reply = world.put(&stream, "seg106.ts", "of the second").await;
    assert_eq!(
        (reply.status.as_u16(), reply.error().as_str()),
        (409, "publisher_conflict")
    );
    first.chunk("").await;
    assert!(first.until("\r\n\r\n").await.starts_with("HTTP/1.1 201"));
    assert_eq!(world.get(&stream, "seg106.ts").await.text(), "of the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_deleted_ends_for_its_viewers_and_its_encoder() {
    let world = World::start().await;
    world.domain().await;
    let stream = world.pushed().await;
    push(&world, &stream, 0, 3).await;
    let https = world.edge.https(Protocol::H1);
    let domain_path = stream.domain_path("playlist.m3u8");
    assert_eq!(world.edge.http().get(DOMAIN, &domain_path).await.status, 200);
    let mut upload = world.begin(&stream, "seg3.ts").await;
    upload.chunk("the beginning,").await;
    let mut reader = world.reader(&stream, "seg3.ts").await;
    reader.until("the beginning,").await;
    world.delete(&stream).await;
    assert!(!reader.rest().await.ends_with("0\r\n\r\n"));
    assert_eq!(world.get(&stream, "playlist.m3u8").await.status, 421);
    assert_eq!(world.get(&stream, "seg1.ts").await.status, 421);
    assert_eq!(https.get(&stream.host, &Stream::path("seg1.ts")).await.status, 421);
    for path in [&domain_path, &stream.domain_path("seg1.ts")] {
        assert_eq!(world.edge.http().get(DOMAIN, path).await.status, 404, "{path}");
    }
    let reply = world.put(&stream, "seg4.ts", segment(4)).await;
    assert_eq!((reply.status.as_u16(), reply.error().as_str()), (403, "stream_key"));
    let folder = world.edge.data_dir().join("live").join(&stream.id);
    until("nothing on disk", async || (!folder.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_begins_anew_goes_on_in_the_playlist() {
    let world = World::start().await;
    let stream = world.pushed().await;
    push(&world, &stream, 10, 6).await;
    let old = world.get(&stream, "playlist.m3u8").await.text().to_owned();
    let again = |n: u64| format!("again {}", segment(n));
    // The first playlist is taken once the encoder before is silent for as long as a segment lasts.
    world
        .put_all(&stream, &[("seg0.ts", again(0)), ("seg10.ts", again(10))])
        .await;
    until("the new encoder", async || {
        let reply = world.put(&stream, "playlist.m3u8", media_playlist(0, 1)).await;
        (reply.status == 204).then_some(())
    })
    .await;
    let mixed = world.get(&stream, "playlist.m3u8").await.text().to_owned();
    let (was, now) = (uris(&old), uris(&mixed));
    assert!(now.len() <= 7 && was.ends_with(&now[..now.len() - 1]), "{mixed}");
    // The new segment is number 16, after the discontinuity.
    assert_eq!(
        tag(&mixed, "#EXT-X-MEDIA-SEQUENCE") + now.len() as u64 - 1,
        16,
        "{mixed}"
    );
    let last = now.last().unwrap();
    let (before, after) = mixed.split_once("#EXT-X-DISCONTINUITY\n").expect("a discontinuity");
    assert!(
        !before.contains(last.as_str()) && after.contains(last.as_str()),
        "{mixed}"
    );
    assert_eq!(world.get(&stream, last).await.text(), again(0));
    // What was listed keeps its bytes, and so does what has its name now.
    assert_eq!(world.get(&stream, "seg15.ts").await.text(), segment(15));
    for n in 1..12 {
        let (first, segments) = (n.max(5) - 5, n.min(5) + 1);
        world.put_all(&stream, &[(&format!("seg{n}.ts"), again(n))]).await;
        world
            .put_all(&stream, &[("playlist.m3u8", media_playlist(first, segments))])
            .await;
    }
    let rolled = world.get(&stream, "playlist.m3u8").await.text().to_owned();
    assert_eq!(tag(&rolled, "#EXT-X-MEDIA-SEQUENCE"), 22, "{rolled}");
    assert_eq!(tag(&rolled, "#EXT-X-DISCONTINUITY-SEQUENCE"), 1, "{rolled}");
    let listed = uris(&rolled);
    assert_eq!(listed.len(), 6);
    for (n, uri) in (6..12).zip(&listed) {
        assert_eq!(world.get(&stream, uri).await.text(), again(n), "{uri}");
    }
    assert_eq!(
        world.get(&stream, "seg10.ts").await.text(),
        segment(10),
        "the first session's"
    );
}
