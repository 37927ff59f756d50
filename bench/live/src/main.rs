//! Measures live streams on a real server: many viewers of one stream, and how long it takes from the source to a viewer.
//!
//! Everything runs on this machine: the server (a release build), ffmpeg as encoder, nginx as pulled origin, the viewers.

mod clock;
mod connection;
mod delay;
mod playlist;
mod viewers;

use clap::{Parser, Subcommand};
use edgeweir_harness::{
    Edge, Encoder, EncoderOptions, LowLatencyOptions, LowLatencySource, Nginx, Project, PushTarget, command_output,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use viewers::Show;

/// Measures live streams.
#[derive(Parser)]
struct Arguments {
    /// The server.
    #[arg(long, default_value = "target/release/edgeweir")]
    binary: String,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Viewers of one signed stream of two renditions, pushed and then pulled.
    Viewers {
        #[arg(long, default_value_t = 2000)]
        viewers: usize,
        /// How long they watch, once all have come.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How long it takes until all have come.
        #[arg(long, default_value_t = 15)]
        ramp: u64,
    },
    /// Parts of 200 ms, pushed and pulled, and playlists of segments of two seconds.
    Delay {
        #[arg(long, default_value_t = 300)]
        parts: usize,
        #[arg(long, default_value_t = 30)]
        segments: usize,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments = Arguments::parse();
    let result = match arguments.what {
        What::Viewers { viewers, seconds, ramp } => {
            let run = Run {
                viewers,
                ramp: Duration::from_secs(ramp),
                lasts: Duration::from_secs(seconds),
            };
            json!({
                "pushed": run.pushed(&arguments.binary).await,
                "pulled": run.pulled(&arguments.binary).await,
            })
        }
        What::Delay { parts, segments } => delays(&arguments.binary, parts, segments).await,
    };
    println!("{}", serde_json::to_string_pretty(&result).expect("it is plain"));
}

/// A server with a project.
struct World {
    edge: Edge,
    project: Project,
}

/// A stream, for who watches and for who pushes.
struct Stream {
    id: String,
    playback_id: String,
    key: String,
}

impl World {
    async fn start(binary: &str) -> Self {
        let edge = Edge::start_with(binary, &[("log.filter", "warn")]).await;
        let project = edge.project().await;
        Self { edge, project }
    }

    async fn stream(&self, origin: Value) -> Stream {
        let made = self
            .project
            .post("/v1/live-streams", json!({"name": "bench", "origin": origin}))
            .await;
        let text = |name: &str| made["live_stream"][name].as_str().unwrap_or_default().to_owned();
        Stream {
            id: text("id"),
            playback_id: text("playback_id"),
            key: text("stream_key"),
        }
    }

    /// The stream as a viewer with a token sees it.
    async fn signed(&self, stream: &Stream) -> Show {
        let (id, key) = self.project.signing_key("stream_id", &stream.id).await;
        let file = self.edge.data_dir().join("bench.pem");
        std::fs::write(&file, key).expect("a file");
        let file = file.to_str().expect("UTF-8");
        let sign = ["sign", "--key-id", &id, "--key", file, "--uri", &stream.playback_id];
        let (ok, token, error) = command_output(&mut self.edge.cli(&sign));
        assert!(ok, "{error}");
        Show {
            entry: format!("/qhls/qlive/playlist.m3u8?auth={}", token.trim()),
            ..self.public(stream)
        }
    }

    fn public(&self, stream: &Stream) -> Show {
        Show {
            address: self.edge.address("http"),
            host: format!("play-{}.edgeweir.localhost", stream.playback_id),
            entry: "/qhls/qlive/playlist.m3u8".to_owned(),
        }
    }

    fn ingest(&self, stream: &Stream) -> PushTarget {
        PushTarget {
            address: self.edge.address("http"),
            host: "ingest.edgeweir.localhost".to_owned(),
            folder: format!("/{}/", stream.key),
        }
    }

    /// Waits until there are so many segments to play.
    async fn plays(&self, show: &Show, segments: usize) {
        let client = self.edge.http();
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let entry = client.get(&show.host, &show.entry).await;
            if entry.status == 200 {
                let variants = playlist::variants(entry.text());
                let target = playlist::join(&show.entry, variants[0]);
                let list = client.get(&show.host, &target).await;
                let listed = playlist::Media::parse(std::str::from_utf8(&list.body).unwrap_or_default());
                if listed.is_some_and(|media| media.segments.len() >= segments) {
                    return;
                }
            }
            assert!(Instant::now() < end, "nothing to play: {}", entry.text());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// ffmpeg that sends a film over and over, in two renditions and segments of two seconds. It is encoded before, so that
/// this takes no part of the machine.
struct Broadcast {
    child: Child,
    folder: tempfile::TempDir,
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Broadcast {
    /// To the folder that it makes, or to a URL.
    fn start(proxy_and_url: Option<(&str, &str)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let film = folder.path().join("film.mp4");
        let encode = "-hide_banner -loglevel error -f lavfi -i testsrc2=size=640x360:rate=25 -f lavfi -i sine=440 \
            -map 0:v -map 0:v -map 1:a -map 1:a -t 60 -c:v libx264 -preset ultrafast -pix_fmt yuv420p -g 50 \
            -keyint_min 50 -sc_threshold 0 -b:v:0 800k -maxrate:v:0 800k -bufsize:v:0 800k -b:v:1 300k \
            -maxrate:v:1 300k -bufsize:v:1 300k -s:v:1 320x180 -c:a aac -b:a 64k";
        let mut command = Command::new("ffmpeg");
        command.args(encode.split_whitespace()).arg(&film);
        let (ok, _, error) = command_output(&mut command);
        assert!(ok, "{error}");
        let target = proxy_and_url.map_or_else(|| folder.path().display().to_string(), |(_, url)| url.to_owned());
        let mut command = Command::new("ffmpeg");
        command
            .args("-hide_banner -nostdin -loglevel warning -re -stream_loop -1 -i".split(' '))
            .arg(&film);
        command.args("-map 0 -c copy -f hls -hls_time 2 -hls_list_size 6 -master_pl_name playlist.m3u8".split(' '));
        let flags = match proxy_and_url {
            Some((proxy, _)) => {
                command.env("http_proxy", proxy);
                command.args(["-method", "PUT", "-http_persistent", "1"]);
                "independent_segments+delete_segments"
            }
            None => "independent_segments+delete_segments+temp_file",
        };
        command.args([
            "-hls_flags",
            flags,
            "-var_stream_map",
            "v:0,a:0 v:1,a:1",
            "-hls_segment_filename",
        ]);
        command
            .arg(format!("{target}/v%v/seg%d.ts"))
            .arg(format!("{target}/v%v/playlist.m3u8"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        Self {
            child: child.expect("ffmpeg"),
            folder,
        }
    }
}

/// A run of many viewers.
struct Run {
    viewers: usize,
    ramp: Duration,
    lasts: Duration,
}

impl Run {
    async fn pushed(&self, binary: &str) -> Value {
        let world = World::start(binary).await;
        let stream = world.stream(json!({"type": "ingest"})).await;
        let address = world.edge.address("http");
        let url = format!("http://ingest.edgeweir.localhost:{}/{}", address.port(), stream.key);
        let _broadcast = Broadcast::start(Some((&format!("http://{address}"), &url)));
        self.watched(&world, &stream).await
    }

    async fn pulled(&self, binary: &str) -> Value {
        let world = World::start(binary).await;
        let broadcast = Broadcast::start(None);
        let nginx = Nginx::serve(broadcast.folder.path()).await;
        let url = format!("{}/playlist.m3u8", nginx.url());
        let stream = world.stream(json!({"type": "pull", "url": url})).await;
        let mut result = self.watched(&world, &stream).await;
        let (mut playlists, mut segments) = (BTreeMap::<String, u64>::new(), BTreeMap::<String, u64>::new());
        for served in nginx.served() {
            let of = if served.target.contains("/seg") {
                &mut segments
            } else {
                &mut playlists
            };
            *of.entry(served.target).or_default() += 1;
        }
        let most = segments.values().max();
        result["origin"] = json!({
            "playlist_requests": playlists,
            "segments": segments.len(),
            "segment_requests": segments.values().sum::<u64>(),
            "most_of_one_segment": most,
        });
        result
    }

    async fn watched(&self, world: &World, stream: &Stream) -> Value {
        let show = world.signed(stream).await;
        world.plays(&show, 6).await;
        let (cpu, begun) = (world.edge.cpu_seconds(), Instant::now());
        let before = world.edge.resident();
        let summary = viewers::watch(&show, self.viewers, self.ramp, self.lasts).await;
        let took = begun.elapsed().as_secs_f64();
        json!({
            "viewers": self.viewers,
            "seconds": took,
            "server_cores": (world.edge.cpu_seconds() - cpu) / took,
            "server_mib": world.edge.resident() >> 20,
            "server_mib_before": before >> 20,
            "seen": summary,
        })
    }
}

async fn delays(binary: &str, parts: usize, segments: usize) -> Value {
    let world = World::start(binary).await;
    let source = LowLatencySource::start(LowLatencyOptions::default());
    let stream = world.stream(json!({"type": "ingest"})).await;
    let show = world.public(&stream);
    let mut encoder = source.push(world.ingest(&stream));
    encoder.until_pushed(1).await;
    let pushed = delay::of_parts(&source, &show, parts).await;
    drop(encoder);

    let server = source.serve().await;
    let stream = world.stream(json!({"type": "pull", "url": server.url()})).await;
    let pulled = delay::of_parts(&source, &world.public(&stream), parts).await;

    let stream = world.stream(json!({"type": "ingest"})).await;
    let target = world.ingest(&stream);
    let ingest = Show {
        address: target.address,
        host: target.host,
        entry: target.folder,
    };
    let playlist_pushed = delay::of_pushed_playlist(&world.public(&stream), &ingest, 200).await;

    let folder = tempfile::tempdir().expect("a folder");
    let options = EncoderOptions {
        segment: 2,
        ..EncoderOptions::default()
    };
    let _encoder = Encoder::to_folder(&options, folder.path());
    let nginx = Nginx::serve(folder.path()).await;
    let url = format!("{}/playlist.m3u8", nginx.url());
    let stream = world.stream(json!({"type": "pull", "url": url})).await;
    let show = world.public(&stream);
    world.plays(&show, 1).await;
    let first: &Path = &folder.path().join("v0");
    let playlist_pulled = delay::of_playlist(&show, first, segments).await;
    json!({
        "part_pushed": pushed,
        "part_pulled": pulled,
        "segment_to_playlist_pushed_ms": playlist_pushed,
        "segment_to_playlist_pulled_ms": playlist_pulled,
    })
}
