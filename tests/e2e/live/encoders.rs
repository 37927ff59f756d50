//! A real encoder pushes, real players play.

use super::{DOMAIN, INGEST, Stream, World, tag, until, uris};
use edgeweir_harness::{Encoder, EncoderOptions, FRAME_RATE, Packaging, Proxy, command_output};
use serde_json::json;
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_minute_of_two_renditions_is_played_from_both_hosts_with_tokens() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let domain = world.domain().await;
    let stream_key = world.project.signing_key("stream_id", &stream.id).await;
    let domain_key = world.project.signing_key("domain_id", &domain).await;
    assert_eq!(world.status(&stream).await, "idle");
    let options = EncoderOptions {
        seconds: Some(60),
        ..EncoderOptions::default()
    };
    let mut encoder = world.encoder(&stream, &options);
    world.until_status(&stream, "live").await;
    let own = world.token(&stream_key, &stream);
    let shared = world.token(&domain_key, &stream);
    let (own_path, domain_path) = (Stream::path("playlist.m3u8"), stream.domain_path("playlist.m3u8"));
    let signed = [
        (stream.host.as_str(), format!("{own_path}?auth={own}"), &own),
        (DOMAIN, format!("{domain_path}?auth={shared}"), &shared),
    ];
    // Every URI of every playlist carries the token, and leads somewhere.
    for (host, path, token) in &signed {
        let http = world.edge.http();
        let master = until("a multivariant playlist", async || {
            // Before it comes, the first media playlist is what is played.
            let reply = http.get(host, path).await;
            let is_multivariant = reply.status == 200 && reply.text().contains("#EXT-X-STREAM-INF");
            is_multivariant.then(|| reply.text().to_owned())
        })
        .await;
        let folder = if *host == DOMAIN {
            stream.domain_path("")
        } else {
            Stream::path("")
        };
        // A live domain's entry is beside the stream's folder, so that it names it.
        let at = |uri: &str| match uri.strip_prefix(&format!("{}/", stream.playback_id)) {
            Some(rest) => format!("{folder}{rest}"),
            None => format!("{folder}{uri}"),
        };
        assert_eq!(uris(&master).len(), 2, "{master}");
        for variant in uris(&master) {
            assert!(variant.contains(&format!("auth={token}")), "{variant}");
            let media = until("a media playlist", async || {
                let reply = http.get(host, &at(&variant)).await;
                (reply.status == 200).then(|| reply.text().to_owned())
            })
            .await;
            let (variant_folder, _) = variant.rsplit_once("/playlist.m3u8").unwrap();
            for segment in uris(&media) {
                assert!(segment.contains(&format!("auth={token}")), "{segment}");
                let reply = http.get(host, &at(&format!("{variant_folder}/{segment}"))).await;
                assert_eq!(reply.status, 200, "{segment}");
                let bare = segment.split('?').next().unwrap();
                let reply = http.get(host, &at(&format!("{variant_folder}/{bare}"))).await;
                assert_eq!((reply.status.as_u16(), reply.error().as_str()), (403, "token_missing"));
            }
        }
    }
    // Players of all kinds at once, for a while.
    let mut browsers: Vec<_> = signed
        .iter()
        .map(|(host, path, _)| world.player("hls", &world.url(host, path), json!({})))
        .collect();
    let tunnel = Proxy::to(world.edge.address("https")).await.url();
    let (plain, frames) = (world.proxy(), 10 * FRAME_RATE);
    let (a, b, c, d) = tokio::join!(
        world.watch(&plain, &world.url(&stream.host, &signed[0].1), 10),
        world.watch(&plain, &world.url(DOMAIN, &signed[1].1), 10),
        world.watch(&tunnel, &format!("https://{}{}", stream.host, signed[0].1), 10),
        world.watch(&tunnel, &format!("https://{DOMAIN}{}", signed[1].1), 10),
    );
    assert_eq!([a, b, c, d], [frames; 4]);
    for mut browser in browsers.drain(..) {
        browser.plays_on(10.0).await;
        let seen = browser.stop().await;
        assert_eq!(seen["errors"], json!([]), "{seen}");
        assert_eq!(seen["videoWidth"], 320);
    }
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-http_proxy", &plain, "-of", "json", "-show_streams"]);
    ffprobe.arg(world.url(&stream.host, &signed[0].1));
    let (ok, out, err) = command_output(&mut ffprobe);
    assert!(ok && err.is_empty(), "{err}");
    for (codec, count) in [("h264", 2), ("aac", 2)] {
        let found = out.matches(&format!("\"codec_name\": \"{codec}\"")).count();
        assert!(found >= count, "{codec}: {out}");
    }
    assert!(encoder.ended().await, "{}", encoder.log());
    let log = encoder.log();
    assert!(!log.contains("HTTP error") && !log.contains("Failed"), "{log}");
    world.until_status(&stream, "ended").await;
    let media = world.get(&stream, &format!("v0/playlist.m3u8?auth={own}")).await;
    assert!(media.text().contains("#EXT-X-ENDLIST"), "{}", media.text());
    assert_eq!(
        tag(media.text(), "#EXT-X-MEDIA-SEQUENCE") + uris(media.text()).len() as u64,
        60
    );
    // What it deleted is no more, and nobody was told a secret.
    assert_eq!(world.get(&stream, &format!("v0/seg0.ts?auth={own}")).await.status, 404);
    let log = world.edge.log();
    for secret in [&stream.key, &own, &shared] {
        assert!(!log.contains(secret.as_str()), "a secret is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fragmented_mp4_and_new_connections_for_each_file() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let options = EncoderOptions {
        packaging: Packaging::HlsFmp4,
        renditions: 1,
        persistent: false,
        // Straight to the address, as encoders do.
        host: Some(format!("{INGEST}:{}", world.port())),
        ..EncoderOptions::default()
    };
    let url = format!("{}/{}/", world.proxy(), stream.key);
    let _encoder = Encoder::to_url(&options, &url, None);
    let ready = |playlist: &str| uris(playlist).len() >= 3;
    let media = world.until_playlist(&stream, "v0/playlist.m3u8", ready).await;
    assert!(media.contains("#EXT-X-MAP:URI="), "{media}");
    let url = world.url(&stream.host, &Stream::path("playlist.m3u8"));
    assert_eq!(world.watch(&world.proxy(), &url, 5).await, 5 * FRAME_RATE);
    let mut browser = world.player("hls", &url, json!({}));
    browser.plays_on(3.0).await;
    let seen = browser.stop().await;
    assert_eq!(seen["errors"], json!([]), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_names_its_key_by_the_url_that_it_pushes_to_tells_viewers_nothing() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let options = EncoderOptions {
        renditions: 1,
        encrypts: true,
        ..EncoderOptions::default()
    };
    let encoder = world.encoder(&stream, &options);
    let ready = |playlist: &str| uris(playlist).len() >= 3;
    let media = world.until_playlist(&stream, "v0/playlist.m3u8", ready).await;
    assert!(media.contains("URI=\"../stream.key\""), "{media}");
    assert!(!media.contains(&stream.key), "{media}");
    let url = world.url(&stream.host, &Stream::path("playlist.m3u8"));
    let frames = world.watch(&world.proxy(), &url, 5).await;
    assert_eq!(frames, 5 * FRAME_RATE, "{}", encoder.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_may_push_over_tls() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let options = EncoderOptions {
        renditions: 1,
        ..EncoderOptions::default()
    };
    assert!(stream.ingest_url.starts_with("https://"), "{}", stream.ingest_url);
    let tunnel = Proxy::to(world.edge.address("https")).await.url();
    let _encoder = Encoder::to_url(&options, &stream.ingest_url, Some(&tunnel));
    let ready = |playlist: &str| uris(playlist).len() >= 3;
    world.until_playlist(&stream, "v0/playlist.m3u8", ready).await;
    let url = format!("https://{}{}", stream.host, Stream::path("playlist.m3u8"));
    assert_eq!(world.watch(&tunnel, &url, 4).await, 4 * FRAME_RATE);
}

#[tokio::test(flavor = "multi_thread")]
async fn dash_plays_in_ffmpeg_and_in_shaka_player() {
    let world = World::start().await;
    let stream = world.pushed().await;
    let key = world.project.signing_key("stream_id", &stream.id).await;
    let options = EncoderOptions {
        packaging: Packaging::Dash,
        ..EncoderOptions::default()
    };
    let mut encoder = world.encoder(&stream, &options);
    let token = world.token(&key, &stream);
    let path = format!("manifest.mpd?auth={token}");
    let ready = |manifest: &str| manifest.contains("<S ");
    world.until_playlist(&stream, &path, ready).await;
    let url = world.url(&stream.host, &Stream::path(&path));
    let mut browser = world.player("shaka", &url, json!({}));
    browser.plays_on(5.0).await;
    let seen = browser.stop().await;
    assert_eq!(
        (&seen["errors"], &seen["videoWidth"]),
        (&json!([]), &json!(320)),
        "{seen}"
    );
    for request in seen["requests"].as_array().unwrap() {
        let request = request.as_str().unwrap();
        let ours = request.contains(&stream.host);
        assert!(!ours || request.contains(&format!("auth={token}")), "{request}");
    }
    assert!(world.watch(&world.proxy(), &url, 3).await >= 3 * FRAME_RATE - 1);
    // Another run of the encoder, with files of the same names: who opens it now plays that.
    encoder.kill();
    let begun = |manifest: &str| {
        let begun = manifest.split("availabilityStartTime=\"").nth(1);
        begun.map(|rest| rest.split('"').next().unwrap().to_owned())
    };
    let before = begun(world.get(&stream, &path).await.text());
    let _encoder = world.encoder(
        &stream,
        &EncoderOptions {
            stubborn: true,
            ..options
        },
    );
    let again = |manifest: &str| ready(manifest) && begun(manifest) != before;
    world.until_playlist(&stream, &path, again).await;
    let mut browser = world.player("shaka", &url, json!({}));
    browser.plays_on(3.0).await;
    let seen = browser.stop().await;
    assert_eq!(seen["errors"], json!([]), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn players_go_on_over_an_encoder_that_begins_anew() {
    begins_anew(Packaging::HlsTs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn players_go_on_over_one_of_fragmented_mp4_too() {
    // Its initialization segment has the name of the one before.
    begins_anew(Packaging::HlsFmp4).await;
}

async fn begins_anew(packaging: Packaging) {
    let world = World::start().await;
    let stream = world.pushed().await;
    let options = EncoderOptions {
        packaging,
        stubborn: true,
        ..EncoderOptions::default()
    };
    let mut first = world.encoder(&stream, &options);
    let ready = |playlist: &str| uris(playlist).len() >= 4;
    world.until_playlist(&stream, "v0/playlist.m3u8", ready).await;
    let url = world.url(&stream.host, &Stream::path("playlist.m3u8"));
    let mut browser = world.player("hls", &url, json!({}));
    browser.plays_on(2.0).await;
    first.kill();
    let before = world.get(&stream, "v1/playlist.m3u8").await.text().to_owned();
    let next = tag(&before, "#EXT-X-MEDIA-SEQUENCE") + uris(&before).len() as u64;
    let _second = world.encoder(&stream, &options);
    let over = |playlist: &str| playlist.contains("#EXT-X-DISCONTINUITY\n");
    let mixed = world.until_playlist(&stream, "v1/playlist.m3u8", over).await;
    let old = mixed.split("#EXT-X-DISCONTINUITY\n").next().unwrap();
    assert_eq!(
        tag(&mixed, "#EXT-X-MEDIA-SEQUENCE") + uris(old).len() as u64,
        next,
        "{mixed}"
    );
    // One player is there all along; another begins after.
    browser
        .until("over the discontinuity", |state| state["discontinuities"] == 1)
        .await;
    browser.plays_on(3.0).await;
    let seen = browser.stop().await;
    assert!(seen["fatal"].is_null(), "{seen}");
    let frames = world.watch(&world.proxy(), &url, 4).await;
    assert!(frames >= 3 * FRAME_RATE, "{frames}");
}
