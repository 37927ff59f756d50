//! The live part of the harness is what it says it is.

#![allow(clippy::unwrap_used)]

use edgeweir_harness::{Encoder, EncoderOptions, Nginx, Packaging, command_output};
use std::{path::Path, process::Command};

/// Waits until a file is there.
async fn there(path: &Path) {
    while !path.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_serves_what_ffmpeg_writes_and_comes_back_on_its_port() {
    for (packaging, entry, media, segment) in [
        (Packaging::HlsTs, "playlist.m3u8", "v1/playlist.m3u8", "v1/seg1.ts"),
        (Packaging::HlsFmp4, "playlist.m3u8", "v1/playlist.m3u8", "v1/seg1.m4s"),
        (
            Packaging::Dash,
            "manifest.mpd",
            "manifest.mpd",
            "chunk-stream0-00002.m4s",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let options = EncoderOptions {
            packaging,
            seconds: Some(3),
            ..EncoderOptions::default()
        };
        let mut encoder = Encoder::to_folder(&options, folder.path());
        there(&folder.path().join(media)).await;
        let mut nginx = Nginx::serve(folder.path()).await;
        assert!(encoder.ended().await, "{}", encoder.log());
        nginx.kill();
        nginx.restart().await;
        let url = format!("{}/{entry}", nginx.url());
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-nostdin", "-xerror", "-i", &url, "-map", "0:v:0", "-f", "null", "-"]);
        let (ok, _, log) = command_output(&mut ffmpeg);
        assert!(ok && log.contains("frame=   30"), "{packaging:?}: {log}");
        let served = nginx.served();
        let is = |path: &str| {
            served
                .iter()
                .any(|s| matches!(s.status, 200 | 206) && s.target == format!("/{path}"))
        };
        assert!(is(entry) && is(segment.replace("v1", "v0").as_str()), "{served:?}");
    }
}
