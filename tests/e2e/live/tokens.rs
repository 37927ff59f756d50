//! Who may watch a live stream, and for how long.

use super::{DOMAIN, Stream, World, entries, media_playlist, push::gunzip, until};
use bytes::Bytes;
use edgeweir_harness::command_output;
use http::Method;

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_get_no_token() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let domain = world.domain().await;
    let key = world.project.signing_key("stream_id", &stream.id).await;
    let domain_key = world.project.signing_key("domain_id", &domain).await;
    let other = ["https://other.example.net/seg0.ts", "//other.example.net/seg1.ts"];
    let list = entries(other.iter());
    let keys = "#EXT-X-KEY:METHOD=AES-128,URI=\"https://keys.example.net/k\"\n";
    let playlist = format!("#EXTM3U\n#EXT-X-TARGETDURATION:1\n{keys}{list}#EXTINF:1.0,\nseg2.ts\n");
    world.put_all(&stream, &[("playlist.m3u8", playlist)]).await;
    let (own, shared) = (world.token(&key, &stream), world.token(&domain_key, &stream));
    for (host, path, token) in [
        (stream.host.as_str(), Stream::path("playlist.m3u8"), &own),
        (DOMAIN, stream.domain_path("playlist.m3u8"), &shared),
    ] {
        let reply = world.edge.http().get(host, &format!("{path}?auth={token}")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.text().matches("auth=").count(), 1, "{}", reply.text());
        for line in other
            .iter()
            .chain(&["#EXT-X-KEY:METHOD=AES-128,URI=\"https://keys.example.net/k\""])
        {
            assert!(reply.text().lines().any(|l| l == *line), "{line}: {}", reply.text());
        }
        assert!(
            reply.text().contains(&format!("seg2.ts?auth={token}")),
            "{}",
            reply.text()
        );
        // It is for this viewer alone, also when it is compressed.
        assert_eq!(reply.header("cache-control"), "private, no-store");
        let (http, signed) = (world.edge.http(), format!("{path}?auth={token}"));
        let packed = http.get_with(host, &signed, &[("accept-encoding", "gzip")]).await;
        assert_eq!(packed.header("content-encoding"), "gzip");
        assert_eq!(gunzip(&packed.body), reply.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_open_their_own_stream_for_as_long_as_they_last() {
    let world = World::start().await;
    let (stream, other) = (world.pushed().await, world.pushed().await);
    let domain = world.domain().await;
    let (stream_key, other_key) = (
        world.project.signing_key("stream_id", &stream.id).await,
        world.project.signing_key("stream_id", &other.id).await,
    );
    let domain_key = world.project.signing_key("domain_id", &domain).await;
    for stream in [&stream, &other] {
        world.put_all(stream, &[("playlist.m3u8", media_playlist(0, 3))]).await;
    }
    let own = world.token(&stream_key, &stream);
    let (theirs, for_them) = (world.token(&other_key, &other), world.token(&stream_key, &other));
    let (shared, shared_for_them) = (world.token(&domain_key, &stream), world.token(&domain_key, &other));
    let own_path = Stream::path("playlist.m3u8");
    let domain_path = stream.domain_path("playlist.m3u8");
    for (name, host, path, token, expected) in [
        ("its own", stream.host.as_str(), &own_path, &own, ""),
        ("the domain's", DOMAIN, &domain_path, &shared, ""),
        (
            "the other stream's",
            &stream.host,
            &own_path,
            &theirs,
            "token_key_unknown",
        ),
        (
            "for the other stream",
            &stream.host,
            &own_path,
            &for_them,
            "token_uri_mismatch",
        ),
        (
            "the domain's on its own host",
            &stream.host,
            &own_path,
            &shared,
            "token_key_unknown",
        ),
        (
            "the domain's for the other",
            DOMAIN,
            &domain_path,
            &shared_for_them,
            "token_uri_mismatch",
        ),
    ] {
        let reply = world.edge.http().get(host, &format!("{path}?auth={token}")).await;
        assert_eq!(reply.error(), expected, "{name}: {}", reply.text());
        assert_eq!(reply.status, if expected.is_empty() { 200 } else { 403 }, "{name}");
    }
    // A token that expires, and a key that is deleted, while an answer is under way.
    let file = world.edge.data_dir().join(format!("{}.pem", stream_key.0));
    let sign = [
        "sign",
        "--key-id",
        &stream_key.0,
        "--key",
        file.to_str().unwrap(),
        "--expires-in",
        "3",
        "--uri",
    ];
    let mut sign = world.edge.cli(&sign);
    let (ok, out, err) = command_output(sign.arg(&stream.playback_id));
    assert!(ok, "{err}");
    for (segment, token, refusal) in [
        ("seg3.ts", out.trim(), "token_expired"),
        ("seg4.ts", own.as_str(), "token_key_unknown"),
    ] {
        let path = format!("{segment}?auth={token}");
        let mut upload = world.begin(&stream, segment).await;
        upload.chunk("the beginning,").await;
        let mut reader = world.reader(&stream, &path).await;
        reader.until("the beginning,").await;
        if refusal == "token_key_unknown" {
            let key = format!("/v1/signing-keys/{}", stream_key.0);
            world.project.ok(Method::DELETE, &key, Bytes::new()).await;
        }
        let refused = until(refusal, async || {
            let mut reader = world.open(&stream, &path).await;
            reader
                .until("\r\n\r\n")
                .await
                .starts_with("HTTP/1.1 403")
                .then_some(reader)
        });
        assert!(refused.await.rest().await.contains(refusal));
        upload.chunk("the end").await;
        upload.chunk("").await;
        assert!(reader.rest().await.ends_with("the end\r\n0\r\n\r\n"), "{refusal}");
    }
    assert_eq!(
        world.get(&stream, "playlist.m3u8").await.error(),
        "token_missing",
        "it never opens by itself"
    );
}
