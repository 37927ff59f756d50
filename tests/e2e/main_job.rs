//! Private video from a bucket, played to the end.

use crate::{BINARY, sign};
use bytes::Bytes;
use edgeweir_harness::{Client, Edge, Protocol, Proxy, command_output, demo, repository};
use http::Method;
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Plays a URL with ffmpeg through a proxy that finds the edge; the frames that were decoded.
pub(crate) fn ffmpeg(proxy: &str, url: &str, ca: &std::path::Path) -> Result<u32, String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-xerror", "-http_proxy", proxy]);
    if url.starts_with("https") {
        command.args(["-tls_verify", "1", "-ca_file"]).arg(ca);
    }
    command.args(["-i", url, "-map", "0:v:0", "-f", "null", "-"]);
    let (ok, _, log) = command_output(&mut command);
    let frames = log
        .rsplit("frame=")
        .next()
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    match frames {
        Some(frames) if ok => Ok(frames),
        _ => Err(log),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn private_hls_dash_and_mp4_play_with_a_token_and_not_without() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let bucket = project.bucket("videos").await;
    for (key, content) in demo() {
        project.put("videos", &key, content).await;
    }
    project.policy("videos", "authenticated").await;
    let key = project.signing_key("bucket_name", "videos").await;
    project
        .post(
            "/v1/domains",
            json!({"name": "watch.example.com", "type": "vod", "bucket_name": "videos"}),
        )
        .await;
    let token = sign(&edge, &key, "");
    let plain = format!("http://{}", edge.address("http"));
    let tunnel = Proxy::to(edge.address("https")).await.url();
    let ca = edge.data_dir().join("ca.pem");
    // Eight seconds at 25 frames each.
    for (proxy, base) in [
        (&plain, format!("http://{bucket}")),
        (&plain, "http://watch.example.com".to_owned()),
        (&tunnel, format!("https://{bucket}")),
        (&tunnel, "https://watch.example.com".to_owned()),
    ] {
        for path in [
            "hls/master.m3u8",
            "hls-ts/master.m3u8",
            "dash/manifest.mpd",
            "video.mp4",
        ] {
            let url = format!("{base}/{path}?auth={token}");
            assert_eq!(ffmpeg(proxy, &url, &ca), Ok(200), "{base}/{path}");
        }
        let refused = ffmpeg(proxy, &format!("{base}/hls/master.m3u8"), &ca).unwrap_err();
        assert!(refused.contains("403 Forbidden"), "{refused}");
    }
    for path in ["/hls/master.m3u8", "/hls/360p/segment0.m4s", "/video.mp4", "/not-there"] {
        let reply = edge.https(Protocol::H2).get(&bucket, path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (403, "token_missing"),
            "{path}"
        );
        assert_eq!(reply.header("cache-control"), "no-store");
    }
    // A token for a folder opens that folder alone.
    let folder = sign(&edge, &key, "hls/");
    for (path, status) in [
        ("/hls/360p/playlist.m3u8", 200),
        ("/hls-ts/master.m3u8", 403),
        ("/video.mp4", 403),
    ] {
        let reply = edge.http().get(&bucket, &format!("{path}?auth={folder}")).await;
        assert_eq!(reply.status, status, "{path}");
    }
}

/// `edgeweir quickstart` in a folder, stopped when dropped.
struct Quickstart {
    child: Child,
    lines: Vec<String>,
}

impl Quickstart {
    fn start(dir: &std::path::Path) -> Self {
        let mut command = Command::new(BINARY);
        command.arg("quickstart").arg("--dir").arg(dir).stdout(Stdio::piped());
        // The flag goes over it.
        command.env("EDGEWEIR_DATA_DIR", dir.join("not-here"));
        for listener in ["HTTP", "HTTPS", "API", "ADMIN"] {
            command.env(format!("EDGEWEIR_LISTEN__{listener}"), "127.0.0.1:0");
        }
        let mut child = command.spawn().unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            lines.push(line.unwrap());
            if lines.last().unwrap().contains("signing key") {
                break;
            }
        }
        Self { child, lines }
    }

    /// The value of a printed line; `nth` where there are several of its name.
    fn value(&self, name: &str, nth: usize) -> String {
        let mut found = self.lines.iter().filter_map(|line| line.strip_prefix(name));
        found
            .nth(nth)
            .unwrap_or_else(|| panic!("{name}: {:?}", self.lines))
            .trim()
            .to_owned()
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The folder of the tools that scripts/test installs.
pub(crate) fn tools() -> PathBuf {
    let set = std::env::var_os("EDGEWEIR_TEST_TOOLS");
    set.map_or_else(|| repository().join("target/test-tools"), PathBuf::from)
}

/// Opens a page in headless Chromium, and tells how playing went.
fn play(url: &str) -> Value {
    let script = repository().join("tests/e2e/browser/play.cjs");
    let mut node = Command::new("node");
    node.arg(script)
        .arg(url)
        .env("NODE_PATH", tools().join("node/node_modules"));
    let (_, out, err) = command_output(&mut node);
    serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quickstart_whose_key_was_revoked_goes_on_with_its_project_and_another() {
    let dir = tempfile::tempdir().unwrap();
    let first = Quickstart::start(dir.path());
    let key = first.value("API key", 0);
    let api = Client::plain(first.value("control API     http://", 0).parse().unwrap(), Protocol::H1);
    let call = async |method: Method, path: &str, bearer: &str| {
        let authorization = format!("Bearer {bearer}");
        let headers = [("authorization", authorization.as_str())];
        api.send(method, "localhost", path, &headers, Bytes::new()).await
    };
    let token = call(Method::POST, "/v1/access_token", &key).await.json();
    let token = token["access_token"].as_str().unwrap();
    let keys = call(Method::GET, "/v1/api-keys", token).await.json();
    let printed = format!("/v1/api-keys/{}", keys["api_keys"][0]["id"]);
    assert_eq!(call(Method::POST, "/v1/api-keys", token).await.status, 200);
    assert_eq!(call(Method::DELETE, &printed, token).await.status, 200);
    drop(first);
    let second = Quickstart::start(dir.path());
    let other = second.value("API key", 0);
    assert_ne!(other, key);
    drop(second);
    let third = Quickstart::start(dir.path());
    assert_eq!(third.value("API key", 0), other);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quickstart_page_plays_public_and_signed_video_in_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    let first = Quickstart::start(dir.path());
    let (public, signed) = (first.value("player", 0), first.value("player", 1));
    assert!(signed.contains("#http://demo-private.") && signed.contains("?auth="));
    for page in [&public, &signed] {
        let seen = play(page);
        assert_eq!(seen["state"], "ended", "{seen}");
        assert!(seen["currentTime"].as_f64().unwrap() > 7.5, "{seen}");
        let requests = seen["requests"].as_array().unwrap();
        assert!(requests.len() > 5);
        for request in requests {
            let url = request.as_str().unwrap();
            let own = url.starts_with("data:")
                || url.starts_with("blob:")
                || url.split('/').nth(2).unwrap().contains(".edgeweir.localhost:");
            assert!(own, "a third-party host was asked: {url}");
        }
    }
    assert!(!dir.path().join("not-here").exists());
    // The line for players whose resolver knows no *.localhost works as it is printed.
    let line = first
        .lines
        .iter()
        .find(|line| line.contains("ffmpeg -http_proxy"))
        .unwrap();
    let (ok, _, log) = command_output(Command::new("sh").args(["-c", line]).stdin(Stdio::null()));
    assert!(ok, "{log}");
    let refused = play(&signed.replace("?auth=", "?other="));
    assert_eq!(refused["state"], "error");
    assert!(
        refused["error"].as_str().unwrap().contains("token_missing"),
        "{refused}"
    );
    // A second run goes on with what is there.
    let api_key = first.value("API key", 0);
    drop(first);
    let second = Quickstart::start(dir.path());
    assert_eq!(second.value("API key", 0), api_key);
}
