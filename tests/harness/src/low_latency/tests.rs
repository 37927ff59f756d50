use super::*;
use crate::{Client, Protocol};

fn manual(lead: u64) -> LowLatencySource {
    LowLatencySource::start(LowLatencyOptions {
        pace: Pace::Manual,
        lead,
        ..LowLatencyOptions::default()
    })
}

#[tokio::test]
async fn a_playlist_lists_what_is_finished_and_hints_the_next() {
    let source = manual(17);
    let playlist = source.playlist(0);
    for line in [
        "#EXT-X-MEDIA-SEQUENCE:0",
        "seg2.m4s",
        "#EXT-X-PART:DURATION=0.20000,URI=\"seg0.0.m4s\",INDEPENDENT=YES",
        "#EXT-X-PART:DURATION=0.20000,URI=\"seg3.1.m4s\"",
        "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"seg3.2.m4s\"",
        "#EXT-X-RENDITION-REPORT:URI=\"../v1/playlist.m3u8\",LAST-MSN=3,LAST-PART=1",
    ] {
        assert!(playlist.lines().any(|l| l == line), "{line}\n{playlist}");
    }
    assert!(!playlist.contains("seg3.m4s"));
    source.advance(23);
    let playlist = source.playlist(1);
    assert!(playlist.contains("#EXT-X-MEDIA-SEQUENCE:2\n") && playlist.contains("\"seg8.0.m4s\""));
    assert!(
        playlist.contains("\"seg5.0.m4s\"") && !playlist.contains("\"seg4.0.m4s\""),
        "{playlist}"
    );
}

#[tokio::test]
async fn reloads_and_hinted_parts_are_held() {
    let source = manual(15);
    let server = source.serve().await;
    let client = Client::plain(server.address(), Protocol::H1);
    let get = |path: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.get("origin", path).await })
    };
    let reload = "/v0/playlist.m3u8?_HLS_msn=3&_HLS_part=1";
    let (playlist, part) = (get(reload), get("/v1/seg3.0.m4s"));
    server.until_asked(reload, 1).await;
    server.until_asked("/v1/seg3.0.m4s", 1).await;
    source.advance(1);
    let part = part.await.expect("an answer");
    let stamp = Stamp::read(&part.body).expect("a stamp");
    assert_eq!((stamp.rendition, stamp.part), (1, 15));
    assert!(!playlist.is_finished());
    source.advance(1);
    assert!(playlist.await.expect("an answer").text().contains("seg3.1.m4s"));
    for (path, status) in [
        ("/playlist.m3u8", 200),
        ("/v0/init.mp4", 200),
        ("/v0/seg2.m4s", 200),
        ("/v0/seg3.m4s", 404),
        ("/v0/seg3.4.m4s", 404),
        ("/v2/playlist.m3u8", 404),
        ("/v0/playlist.m3u8?_HLS_msn=6", 400),
    ] {
        assert_eq!(client.get("origin", path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn real_video_is_cut_into_parts_that_ffmpeg_plays() {
    let options = LowLatencyOptions {
        pace: Pace::Manual,
        lead: u64::MAX,
        media: Media::encode(6, Duration::from_millis(200), 5),
        ..LowLatencyOptions::default()
    };
    let source = LowLatencySource::start(options);
    assert_eq!(source.count(), 30);
    let server = source.serve().await;
    let mut ffmpeg = std::process::Command::new("ffmpeg");
    ffmpeg.args([
        "-nostdin",
        "-xerror",
        "-i",
        &server.url(),
        "-map",
        "0:v:0",
        "-f",
        "null",
        "-",
    ]);
    let played = tokio::task::spawn_blocking(move || crate::command_output(&mut ffmpeg));
    let (ok, _, log) = played.await.expect("no panic");
    assert!(ok && log.contains("frame=   60"), "{log}");
}
