//! Whatever an encoder or an origin calls its playlists, a stream is played from one URL.

use super::{DOMAIN, Stream, World, media_playlist, pull::Source, uris};
use edgeweir_harness::{EncoderOptions, FRAME_RATE};

/// A multivariant playlist of one rendition.
fn multivariant(uri: &str) -> String {
    format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100000\n{uri}\n")
}

/// Follows the first URIs from a URL until there is no playlist any more: the content at the end.
async fn follow(world: &World, host: &str, path: &str) -> String {
    let mut path = path.to_owned();
    loop {
        let reply = world.edge.http().get(host, &path).await;
        assert_eq!(reply.status, 200, "{host}{path}: {}", reply.text());
        if reply.header("content-type") != "application/vnd.apple.mpegurl" {
            return reply.text().to_owned();
        }
        let next = uris(reply.text()).remove(0);
        let bare = path.split('?').next().unwrap();
        let folder = bare.rfind('/').unwrap();
        path = format!("{}/{next}", &bare[..folder]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entry_of_a_pushed_stream_is_found() {
    let world = World::start().await;
    let domain = world.domain().await;
    let media = || media_playlist(0, 3);
    for (name, files) in [
        (
            "by its name",
            vec![("playlist.m3u8", media()), ("seg0.ts", "right".to_owned())],
        ),
        (
            "by its name, before a multivariant one",
            vec![
                ("playlist.m3u8", media()),
                ("seg0.ts", "right".to_owned()),
                ("a/seg0.ts", "wrong".to_owned()),
                ("a/index.m3u8", media()),
                ("master.m3u8", multivariant("a/index.m3u8")),
            ],
        ),
        (
            "the multivariant one",
            vec![
                ("a/seg0.ts", "right".to_owned()),
                ("a/index.m3u8", media()),
                ("master.m3u8", multivariant("a/index.m3u8")),
            ],
        ),
        (
            "a multivariant one in a folder",
            vec![
                ("show/a/seg0.ts", "right".to_owned()),
                ("show/a/index.m3u8", media()),
                ("show/master.m3u8", multivariant("a/index.m3u8")),
            ],
        ),
        (
            "the only one",
            vec![("index.m3u8", media()), ("seg0.ts", "right".to_owned())],
        ),
        (
            "the only one, in a folder with an odd name",
            vec![("a%20b/c%23d.m3u8", media()), ("a%20b/seg0.ts", "right".to_owned())],
        ),
    ] {
        let stream = world.pushed().await;
        world.put_all(&stream, &files).await;
        let own = follow(&world, &stream.host, &Stream::path("playlist.m3u8")).await;
        let on_domain = follow(&world, DOMAIN, &stream.domain_path("playlist.m3u8")).await;
        assert_eq!((own.as_str(), on_domain.as_str()), ("right", "right"), "{name}");
    }
    // With a token all the way.
    let stream = world.pushed().await;
    let files = [
        ("show/a/seg0.ts", "right".to_owned()),
        ("show/a/index.m3u8", media()),
        ("show/master.m3u8", multivariant("a/index.m3u8")),
    ];
    world.put_all(&stream, &files).await;
    let own_key = world.project.signing_key("stream_id", &stream.id).await;
    let domain_key = world.project.signing_key("domain_id", &domain).await;
    for (host, path, key) in [
        (stream.host.as_str(), Stream::path("playlist.m3u8"), &own_key),
        (DOMAIN, stream.domain_path("playlist.m3u8"), &domain_key),
    ] {
        let token = world.token(key, &stream);
        assert_eq!(
            follow(&world, host, &format!("{path}?auth={token}")).await,
            "right",
            "{host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_playlists_without_a_name_or_a_multivariant_one_are_no_entry() {
    let world = World::start().await;
    let stream = world.pushed().await;
    world.put_all(&stream, &[("a.m3u8", media_playlist(0, 3))]).await;
    assert_eq!(world.get(&stream, "playlist.m3u8").await.status, 200);
    world.put_all(&stream, &[("b.m3u8", media_playlist(0, 3))]).await;
    for path in ["a.m3u8", "b.m3u8"] {
        assert_eq!(world.get(&stream, path).await.status, 200, "{path}");
    }
    assert_eq!(world.get(&stream, "playlist.m3u8").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entry_of_a_pulled_stream_is_its_url() {
    let world = World::start().await;
    world.domain().await;
    let source = Source::start(&EncoderOptions::default()).await;
    let stream = world.pulled(&format!("{}/v1/playlist.m3u8", source.nginx.url())).await;
    let index = source.folder.path().join("index.m3u8");
    std::fs::copy(source.folder.path().join("playlist.m3u8"), index).unwrap();
    let renamed = world.pulled(&format!("{}/index.m3u8", source.nginx.url())).await;
    for (stream, host, path) in [
        (&stream, stream.host.as_str(), Stream::path("playlist.m3u8")),
        (&stream, DOMAIN, stream.domain_path("playlist.m3u8")),
        (&renamed, renamed.host.as_str(), Stream::path("playlist.m3u8")),
        (&renamed, renamed.host.as_str(), Stream::path("index.m3u8")),
        (&renamed, DOMAIN, renamed.domain_path("playlist.m3u8")),
        (&renamed, DOMAIN, renamed.domain_path("index.m3u8")),
    ] {
        let frames = world.watch(&world.proxy(), &world.url(host, &path), 1).await;
        assert_eq!(frames, FRAME_RATE, "{host}{path}");
        assert_eq!(world.status(stream).await, "live");
    }
    // Nothing beside the URL's folder, or that no playlist lists as one, is a playlist of it.
    for path in [
        "../playlist.m3u8",
        "%2e%2e/playlist.m3u8",
        "v0/playlist.m3u8",
        "other.m3u8",
    ] {
        let reply = world.get(&stream, path).await;
        assert!(matches!(reply.status.as_u16(), 400 | 404), "{path}: {}", reply.status);
    }
}
