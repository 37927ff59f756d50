//! A stream that is pulled: a real encoder writes a folder, a real nginx serves it.

use super::{DOMAIN, Stream, World, until, uris};
use edgeweir_harness::{Encoder, EncoderOptions, FRAME_RATE, Nginx, Packaging};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// An encoder, the folder it writes, and the server of that folder.
pub(super) struct Source {
    pub(super) encoder: Encoder,
    pub(super) nginx: Nginx,
    pub(super) folder: tempfile::TempDir,
}

impl Source {
    /// One whose first playlists are there.
    pub(super) async fn start(options: &EncoderOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let encoder = Encoder::to_folder(options, folder.path());
        let entry = match options.packaging {
            Packaging::Dash => "manifest.mpd".to_owned(),
            _ => format!("v{}/playlist.m3u8", options.renditions - 1),
        };
        until("the encoder", async || {
            folder.path().join(&entry).exists().then_some(())
        })
        .await;
        let nginx = Nginx::serve(folder.path()).await;
        Self { encoder, nginx, folder }
    }

    /// A playlist as it is in the folder now.
    pub(super) fn playlist(&self, path: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(path)).unwrap_or_default()
    }

    /// How often each path was asked for.
    fn asked(&self) -> BTreeMap<String, usize> {
        let mut asked = BTreeMap::new();
        for served in self.nginx.served() {
            *asked.entry(served.target).or_default() += 1;
        }
        asked
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_stream_plays_from_both_hosts_and_the_origin_sees_no_token() {
    let world = World::start().await;
    let source = Source::start(&EncoderOptions::default()).await;
    let stream = world.pulled(&format!("{}/playlist.m3u8", source.nginx.url())).await;
    let domain = world.domain().await;
    assert_eq!(source.asked(), BTreeMap::new(), "nobody watches");
    let stream_key = world.project.signing_key("stream_id", &stream.id).await;
    let domain_key = world.project.signing_key("domain_id", &domain).await;
    let (own, shared) = (world.token(&stream_key, &stream), world.token(&domain_key, &stream));
    let own_url = world.url(&stream.host, &format!("{}?auth={own}", Stream::path("playlist.m3u8")));
    let domain_url = world.url(
        DOMAIN,
        &format!("{}?auth={shared}", stream.domain_path("playlist.m3u8")),
    );
    for path in ["playlist.m3u8", "v0/playlist.m3u8", "v0/seg0.ts"] {
        assert_eq!(world.get(&stream, path).await.error(), "token_missing", "{path}");
    }
    assert_eq!(source.asked(), BTreeMap::new(), "nobody may watch");
    let mut browser = world.player("hls", &domain_url, json!({}));
    let (a, b) = tokio::join!(
        world.watch(&world.proxy(), &own_url, 6),
        world.watch(&world.proxy(), &domain_url, 6)
    );
    assert_eq!((a, b), (6 * FRAME_RATE, 6 * FRAME_RATE));
    browser.plays_on(3.0).await;
    let seen = browser.stop().await;
    assert_eq!(seen["errors"], json!([]), "{seen}");
    assert_eq!(world.status(&stream).await, "live");
    let served = source.nginx.served();
    for served in &served {
        assert_eq!(served.secrets, "---", "{served:?}");
        assert!(!served.target.contains('?'), "{served:?}");
        assert!(matches!(served.status, 200 | 304), "{served:?}");
    }
    // Three viewers are one to the origin.
    for (path, count) in source.asked() {
        assert!(count == 1 || !path.contains("/seg"), "{path}: {count}");
    }
}

/// Writes down each version of a playlist in a folder, until it is told to stop.
fn versions(path: PathBuf, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<BTreeSet<String>> {
    tokio::task::spawn_blocking(move || {
        let mut seen = BTreeSet::new();
        while !stop.load(Ordering::Relaxed) {
            seen.insert(std::fs::read_to_string(&path).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(10));
        }
        seen
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_viewers_cost_the_origin_one() {
    let world = World::start().await;
    let source = Source::start(&EncoderOptions::default()).await;
    let stream = world.pulled(&format!("{}/playlist.m3u8", source.nginx.url())).await;
    let playlists = ["v0/playlist.m3u8", "v1/playlist.m3u8"];
    let stop = Arc::new(AtomicBool::new(false));
    let written = playlists.map(|path| versions(source.folder.path().join(path), stop.clone()));
    let viewers: Vec<_> = (0..50)
        .map(|n| {
            let (http, stream, stop) = (world.edge.http(), stream.clone(), stop.clone());
            let rendition = playlists[n % 2];
            tokio::spawn(async move {
                let mut fetched = BTreeSet::new();
                while !stop.load(Ordering::Relaxed) {
                    let playlist = http.get(&stream.host, &Stream::path(rendition)).await;
                    assert_eq!(playlist.status, 200, "{}", playlist.text());
                    for segment in uris(playlist.text()) {
                        let path = format!("{}/{segment}", Path::new(rendition).parent().unwrap().display());
                        if fetched.insert(path.clone()) {
                            let reply = http.get(&stream.host, &Stream::path(&path)).await;
                            assert!(reply.status == 200 && reply.complete, "{path}: {}", reply.status);
                        }
                    }
                    // Twice as often as a player may with segments of a second.
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                fetched.len()
            })
        })
        .collect();
    let last = |path: &str| uris(&source.playlist(path)).pop();
    let begun = last(playlists[0]);
    let mut rounds = BTreeSet::from([begun]);
    until("thirty segments", async || {
        rounds.insert(last(playlists[0]));
        (rounds.len() > 30).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for viewer in viewers {
        assert!(viewer.await.unwrap() >= 29);
    }
    let asked = source.asked();
    for (path, written) in playlists.iter().zip(written) {
        let versions = written.await.unwrap().len();
        let requests = asked[&format!("/{path}")];
        println!("{path}: {requests} requests for {versions} versions");
        assert!(
            requests as f64 <= versions as f64 * 1.2,
            "{path}: {requests} for {versions} versions"
        );
        assert!(
            requests + 2 >= versions,
            "{path}: {requests} for {versions} versions: viewers lag behind"
        );
    }
    for (path, count) in &asked {
        assert!(*count == 1 || !path.contains("/seg"), "{path}: {count}");
    }
    // Nobody watches any more: one version may be on its way, and then it is quiet.
    let count = |asked: &BTreeMap<String, usize>| asked.values().sum::<usize>();
    let before = count(&asked);
    let mut rounds = BTreeSet::new();
    until("four more segments", async || {
        rounds.insert(last(playlists[0]));
        (rounds.len() > 4).then_some(())
    })
    .await;
    let after = count(&source.asked());
    assert!(
        after <= before + 2,
        "{before} requests, and {after} after all were gone"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pulled_dash_plays_in_ffmpeg_and_in_shaka_player() {
    let world = World::start().await;
    let options = EncoderOptions {
        packaging: Packaging::Dash,
        renditions: 1,
        ..EncoderOptions::default()
    };
    let source = Source::start(&options).await;
    let stream = world.pulled(&format!("{}/manifest.mpd", source.nginx.url())).await;
    let url = world.url(&stream.host, &Stream::path("manifest.mpd"));
    let mut browser = world.player("shaka", &url, json!({}));
    browser.plays_on(4.0).await;
    let seen = browser.stop().await;
    assert_eq!(
        (&seen["errors"], &seen["videoWidth"]),
        (&json!([]), &json!(320)),
        "{seen}"
    );
    assert!(world.watch(&world.proxy(), &url, 3).await >= 3 * FRAME_RATE - 1);
    for (path, count) in source.asked() {
        assert!(count == 1 || path == "/manifest.mpd", "{path}: {count}");
    }
}
