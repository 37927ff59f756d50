//! Live streams: real encoders and real origins, real players.

mod encoders;
mod entry;
mod hostile;
mod low_latency;
mod outage;
mod player;
mod publisher;
mod pull;
mod push;
mod runs;
mod tokens;

use crate::{BINARY, sign};
use bytes::Bytes;
use edgeweir_harness::{Edge, Encoder, EncoderOptions, Project, Reply, command_output};
use http::Method;
use player::Player;
use serde_json::{Value, json};
use std::{
    fmt::{Display, Write as _},
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Where encoders push to.
const INGEST: &str = "ingest.edgeweir.localhost";

/// The live domain of the tests.
const DOMAIN: &str = "live.example.com";

/// After this long without what is waited for, a test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// An edge and a project on it.
struct World {
    edge: Edge,
    project: Project,
}

/// A live stream as it was made.
#[derive(Clone)]
struct Stream {
    id: String,
    playback_id: String,
    /// Its own host.
    host: String,
    /// Empty for one that is pulled.
    key: String,
    ingest_url: String,
}

impl Stream {
    /// The path on the stream's own host of a file in its folder.
    fn path(path: &str) -> String {
        format!("/qhls/qlive/{path}")
    }

    /// The same on a live domain.
    fn domain_path(&self, path: &str) -> String {
        match path {
            "playlist.m3u8" => format!("/{}.m3u8", self.playback_id),
            _ => format!("/{}/{path}", self.playback_id),
        }
    }
}

/// Waits until `look` finds something.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl World {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(settings: &[(&str, &str)]) -> Self {
        let edge = Edge::start_with(BINARY, settings).await;
        let project = edge.project().await;
        Self { edge, project }
    }

    /// A stream that encoders push.
    async fn pushed(&self) -> Stream {
        self.stream(json!({"name": "show", "origin": {"type": "ingest"}})).await
    }

    /// A stream that is pulled from a playlist's URL.
    async fn pulled(&self, url: &str) -> Stream {
        self.stream(json!({"name": "show", "origin": {"type": "pull", "url": url}}))
            .await
    }

    async fn stream(&self, body: Value) -> Stream {
        let made = self.project.post("/v1/live-streams", body).await;
        let text = |name: &str| made["live_stream"][name].as_str().unwrap_or_default().to_owned();
        Stream {
            host: format!("play-{}.edgeweir.localhost", text("playback_id")),
            id: text("id"),
            playback_id: text("playback_id"),
            key: text("stream_key"),
            ingest_url: text("ingest_url"),
        }
    }

    /// A live domain's id.
    async fn domain(&self) -> String {
        let body = json!({"name": DOMAIN, "type": "live"});
        let made = self.project.post("/v1/domains", body).await;
        made["domain"]["id"].as_str().unwrap().to_owned()
    }

    /// Has the server end in order, and starts it again.
    async fn restart(&mut self) {
        self.edge.stop().await;
        self.edge.restart().await;
        self.project.refresh(self.edge.address("api")).await;
    }

    async fn delete(&self, stream: &Stream) {
        let path = format!("/v1/live-streams/{}", stream.id);
        self.project.ok(Method::DELETE, &path, Bytes::new()).await;
    }

    async fn status(&self, stream: &Stream) -> String {
        let path = format!("/v1/live-streams/{}", stream.id);
        let got = self.project.ok(Method::GET, &path, Bytes::new()).await;
        got["live_stream"]["status"].as_str().unwrap().to_owned()
    }

    async fn until_status(&self, stream: &Stream, wanted: &str) {
        until(wanted, async || (self.status(stream).await == wanted).then_some(())).await;
    }

    /// The port of plain HTTP.
    fn port(&self) -> u16 {
        self.edge.address("http").port()
    }

    /// The edge as a proxy, for clients that cannot resolve its hosts.
    fn proxy(&self) -> String {
        format!("http://{}", self.edge.address("http"))
    }

    /// A URL of plain HTTP on one of the edge's hosts.
    fn url(&self, host: &str, path: &str) -> String {
        format!("http://{host}:{}{path}", self.port())
    }

    /// Starts a real encoder that pushes over plain HTTP.
    fn encoder(&self, stream: &Stream, options: &EncoderOptions) -> Encoder {
        let url = self.url(INGEST, &format!("/{}/", stream.key));
        Encoder::to_url(options, &url, Some(&self.proxy()))
    }

    /// Sends a whole file as an encoder does.
    async fn put(&self, stream: &Stream, path: &str, content: impl Into<Bytes>) -> Reply {
        self.ingest(Method::PUT, stream, path, content).await
    }

    async fn ingest(&self, method: Method, stream: &Stream, path: &str, content: impl Into<Bytes>) -> Reply {
        let path = format!("/{}/{path}", stream.key);
        let http = self.edge.http();
        http.send(method, INGEST, &path, &[], content.into()).await
    }

    /// Sends files that must be taken.
    async fn put_all(&self, stream: &Stream, files: &[(&str, String)]) {
        for (path, content) in files {
            let reply = self.put(stream, path, content.clone()).await;
            assert!(
                matches!(reply.status.as_u16(), 201 | 204),
                "{path}: {} {}",
                reply.status,
                reply.text()
            );
        }
    }

    /// Gets a file of a stream's folder from the stream's own host; `path` may have a query.
    async fn get(&self, stream: &Stream, path: &str) -> Reply {
        self.edge.http().get(&stream.host, &Stream::path(path)).await
    }

    /// Waits until a playlist is there and as it should be.
    async fn until_playlist(&self, stream: &Stream, path: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(path, async || {
            let reply = self.get(stream, path).await;
            (reply.status == 200 && wanted(reply.text())).then(|| reply.text().to_owned())
        })
        .await
    }

    /// A raw connection to plain HTTP.
    async fn connect(&self) -> Conversation {
        Conversation {
            stream: TcpStream::connect(self.edge.address("http")).await.unwrap(),
            got: Vec::new(),
        }
    }

    /// Begins an upload whose body is yet to be sent, in chunks.
    async fn begin(&self, stream: &Stream, path: &str) -> Conversation {
        let mut upload = self.connect().await;
        upload
            .send(format!(
                "PUT /{}/{path} HTTP/1.1\r\nHost: {INGEST}\r\nTransfer-Encoding: chunked\r\n\r\n",
                stream.key
            ))
            .await;
        upload
    }

    /// Begins a GET on a stream's own host.
    async fn open(&self, stream: &Stream, path: &str) -> Conversation {
        let mut reader = self.connect().await;
        reader
            .send(format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
                Stream::path(path),
                stream.host
            ))
            .await;
        reader
    }

    /// A GET of what arrives, once its answer has begun: one that comes before the first byte finds nothing.
    async fn reader(&self, stream: &Stream, path: &str) -> Conversation {
        until("an upload that is seen", async || {
            let mut reader = self.open(stream, path).await;
            let head = reader.until("\r\n\r\n").await;
            head.starts_with("HTTP/1.1 200").then_some(reader)
        })
        .await
    }

    /// Plays a URL for so many seconds of the stream with ffmpeg: the frames that came out. No request may fail, and nothing
    /// be wrong with what comes.
    fn watch(&self, proxy: &str, url: &str, seconds: u32) -> impl Future<Output = u32> + use<> {
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-hide_banner", "-nostdin", "-xerror", "-http_proxy", proxy]);
        if url.starts_with("https") {
            let ca = self.edge.data_dir().join("ca.pem");
            ffmpeg.args(["-tls_verify", "1", "-ca_file"]).arg(ca);
        }
        ffmpeg.args([
            "-i",
            url,
            "-map",
            "0:v:0",
            "-t",
            &seconds.to_string(),
            "-f",
            "null",
            "-",
        ]);
        async {
            let played = tokio::task::spawn_blocking(move || command_output(&mut ffmpeg));
            let (ok, _, log) = played.await.unwrap();
            for wrong in ["HTTP error", "Failed to open", "skipping", "corrupt", "Invalid data"] {
                assert!(!log.contains(wrong), "{wrong}: {log}");
            }
            let frames = log.rsplit("frame=").next();
            let frames = frames.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            assert!(ok, "{log}");
            frames.unwrap_or_else(|| panic!("{log}"))
        }
    }

    /// Opens a URL in a browser.
    fn player(&self, engine: &str, url: &str, options: Value) -> Player {
        Player::start(engine, url, self.edge.address("http").ip(), &options)
    }

    /// A token that opens a stream.
    fn token(&self, key: &(String, String), stream: &Stream) -> String {
        sign(&self.edge, key, &stream.playback_id)
    }
}

/// A connection, byte by byte.
struct Conversation {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Conversation {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Sends a chunk of a chunked body; an empty one ends it.
    async fn chunk(&mut self, content: &str) {
        self.send(format!("{:x}\r\n{content}\r\n", content.len())).await;
    }

    /// Reads until this has come.
    async fn until(&mut self, wanted: &str) -> String {
        let read = async {
            while !self.text().contains(wanted) {
                let mut buffer = [0; 4096];
                let length = self.stream.read(&mut buffer).await.unwrap();
                assert!(length > 0, "closed without {wanted}: {}", self.text());
                self.got.extend_from_slice(&buffer[..length]);
            }
        };
        let read = tokio::time::timeout(PATIENCE, read).await;
        assert!(read.is_ok(), "no {wanted}: {}", self.text());
        self.text()
    }

    /// Reads until the other side closes or breaks off.
    async fn rest(mut self) -> String {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_to_end(&mut self.got)).await;
        assert!(read.is_ok(), "goes on: {}", self.text());
        self.text()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.got).into_owned()
    }
}

/// A media playlist of segments of a second, `seg<n>.ts`, from this media sequence on.
fn media_playlist(first: u64, segments: u64) -> String {
    let list = entries((first..first + segments).map(|n| format!("seg{n}.ts")));
    format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:{first}\n{list}")
}

/// The lines of segments of a second.
fn entries(uris: impl Iterator<Item = impl Display>) -> String {
    let mut text = String::new();
    for uri in uris {
        let _ = writeln!(text, "#EXTINF:1.0,\n{uri}");
    }
    text
}

/// The URIs of a playlist's lines: segments, or variants.
fn uris(playlist: &str) -> Vec<String> {
    let lines = playlist
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(ToOwned::to_owned).collect()
}

/// A numeric tag's value, or 0, as its absence means.
fn tag(playlist: &str, name: &str) -> u64 {
    let value = playlist
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.map_or(0, |value| value.parse().unwrap())
}
