//! Buckets whose objects are on an S3 server: a real one, which checks every signature.

use crate::{BINARY, main_job::ffmpeg, sign};
use edgeweir_harness::{Edge, Project, Relay, S3, demo};
use http::Method;
use serde_json::{Value, json};
use std::path::Path;

/// An edge with the bucket `mine`, whose objects are in the bucket `there` of an S3 server, behind a relay.
struct Setup {
    server: S3,
    relay: Relay,
    edge: Edge,
    project: Project,
    host: String,
}

impl Setup {
    async fn with(objects: &[(&str, &[(&str, &str)], &str)]) -> Self {
        let server = S3::start("there").await;
        for (key, headers, content) in objects {
            server.put(&format!("/there/{key}"), headers, content.to_string()).await;
        }
        server.lock().await;
        let relay = Relay::to(server.address()).await;
        let edge = Edge::start(BINARY).await;
        let project = edge.project().await;
        let host = project.bucket_at("mine", origin(&server, &relay)).await;
        Self {
            server,
            relay,
            edge,
            project,
            host,
        }
    }

    /// Puts an object in place of another.
    async fn replace(&self, key: &str, headers: &[(&str, &str)], content: impl Into<bytes::Bytes>) {
        self.server.unlock().await;
        self.server.put(&format!("/there/{key}"), headers, content).await;
        self.server.lock().await;
    }
}

fn origin(server: &S3, relay: &Relay) -> Value {
    let (id, secret) = &server.credentials;
    json!({"type": "s3", "endpoint": relay.url(), "bucket": "there", "region": "us-east-1", "access_key_id": id,
        "secret_access_key": secret, "path_style": true})
}

/// Whether a text is in a file of a folder.
fn holds(folder: &Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, text);
        }
        let content = std::fs::read(path).unwrap_or_default();
        content.windows(text.len()).any(|w| w == text.as_bytes())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn private_video_plays_from_s3() {
    let mut setup = Setup::with(&[]).await;
    for (key, content) in demo() {
        setup.replace(&key, &[("cache-control", "max-age=60")], content).await;
    }
    setup.project.policy("mine", "authenticated").await;
    let key = setup.project.signing_key("bucket_name", "mine").await;
    let token = sign(&setup.edge, &key, "");
    let ca = setup.edge.data_dir().join("ca.pem");
    let proxy = format!("http://{}", setup.edge.address("http"));
    let play = |path: &str| {
        let url = format!("http://{}/{path}?auth={token}", setup.host);
        assert_eq!(ffmpeg(&proxy, &url, &ca), Ok(200), "{path}");
    };
    play("hls/master.m3u8");
    let asked = setup.relay.heads().len();
    play("hls/master.m3u8");
    assert_eq!(setup.relay.heads().len(), asked, "a second viewer costs nothing");
    for path in ["hls-ts/master.m3u8", "dash/manifest.mpd", "video.mp4"] {
        play(path);
    }
    let refused = setup.edge.http().get(&setup.host, "/video.mp4").await;
    assert_eq!(
        (refused.status.as_u16(), refused.error().as_str()),
        (403, "token_missing")
    );

    // Nothing of the viewer goes to S3, and the secret goes nowhere.
    let secret = setup.server.credentials.1.clone();
    let heads = setup.relay.heads().concat();
    assert!(!heads.contains(&token) && !heads.contains("auth=") && !heads.contains(&secret));
    let shown = setup.project.ok(Method::GET, "/v1/buckets/mine", "").await.to_string();
    assert!(
        shown.contains(&setup.server.credentials.0) && !shown.contains(&secret),
        "{shown}"
    );

    // It is still known after a crash.
    setup.edge.kill();
    assert!(!holds(setup.edge.data_dir(), &secret));
    assert!(holds(setup.edge.data_dir(), &setup.server.credentials.0));
    setup.edge.restart().await;
    let path = format!("/video.mp4?auth={token}");
    assert_eq!(setup.edge.http().get(&setup.host, &path).await.status, 200);
    assert!(!setup.edge.log().contains(&secret));
}

#[tokio::test]
async fn ranges_conditions_keys_and_what_is_missing() {
    let setup = Setup::with(&[
        ("a.txt", &[("x-amz-meta-title", "t")], "0123456789"),
        ("a%20b/%C3%A9%2B%26%3D%40%3A~%27.txt", &[], "odd"),
        ("video.mp4", &[("content-type", "binary/octet-stream")], "video"),
        ("never", &[("cache-control", "no-store")], "0123456789"),
    ])
    .await;
    let (client, host) = (setup.edge.http(), &*setup.host);
    for from in ["S3", "the cache"] {
        let reply = client.get_with(host, "/a.txt", &[("range", "bytes=2-4")]).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (206, "234"), "{from}");
        assert_eq!(reply.header("content-range"), "bytes 2-4/10", "{from}");
    }
    let reply = client.get(host, "/a.txt").await;
    assert_eq!((reply.header("x-amz-meta-title"), reply.header("server")), ("t", ""));
    assert!(
        reply.headers.keys().all(|n| !n.as_str().starts_with("x-amzn")),
        "{reply:?}"
    );
    let tag = reply.header("etag").to_owned();
    let unchanged = client.get_with(host, "/a.txt", &[("if-none-match", &tag)]).await;
    assert_eq!(unchanged.status, 304);
    let head = client
        .send(Method::HEAD, host, "/a.txt", &[], bytes::Bytes::new())
        .await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "10"));

    let reply = client.get(host, "/a%20b/%C3%A9%2B%26%3D%40%3A~%27.txt").await;
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "odd"));
    assert_eq!(client.get(host, "/video.mp4").await.header("content-type"), "video/mp4");
    let missing = client.get(host, "/missing").await;
    assert_eq!((missing.status.as_u16(), missing.text()), (404, ""));
    // To S3 it would be a question about the object's rights.
    let asked = setup.relay.heads().len();
    assert_eq!(client.get(host, "/a.txt?acl").await.text(), "0123456789");
    assert_eq!(setup.relay.heads().len(), asked);
    let refused = client.send(Method::PUT, host, "/a.txt", &[], "x".into()).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("allow")),
        (405, "GET, HEAD, OPTIONS")
    );

    // What may not be kept is asked for as the client asks.
    client.get(host, "/never").await;
    let tag = client.get(host, "/never").await.header("etag").to_owned();
    for (if_range, status, text) in [(tag.as_str(), 206, "23"), ("\"other\"", 200, "0123456789")] {
        let sent = [("range", "bytes=2-3"), ("if-range", if_range)];
        let reply = client.get_with(host, "/never", &sent).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (status, text), "{if_range}");
    }
    let sent = [("if-none-match", tag.as_str())];
    assert_eq!(client.get_with(host, "/never", &sent).await.status, 304);
    let head = client
        .send(Method::HEAD, host, "/never", &[], bytes::Bytes::new())
        .await;
    assert_eq!((head.status.as_u16(), head.header("content-length")), (200, "10"));
}

#[tokio::test]
async fn an_object_is_as_fresh_as_it_says_and_then_revalidated() {
    let setup = Setup::with(&[
        ("says", &[("cache-control", "no-cache")], "old"),
        ("says-nothing", &[], "content"),
    ])
    .await;
    let (client, host) = (setup.edge.http(), &*setup.host);
    assert_eq!(client.get(host, "/says").await.text(), "old");
    let again = client.get(host, "/says").await;
    assert_eq!(again.text(), "old");
    assert!(again.header("cache-status").contains("fwd-status=304"), "{again:?}");
    let heads = setup.relay.heads();
    assert!(heads[1].to_lowercase().contains("if-none-match: \""), "{heads:?}");
    setup.replace("says", &[("cache-control", "no-cache")], "new").await;
    assert_eq!(client.get(host, "/says").await.text(), "new");
    setup.server.unlock().await;
    setup.server.delete("/there/says").await;
    setup.server.lock().await;
    assert_eq!(client.get(host, "/says").await.status, 404);

    client.get(host, "/says-nothing").await;
    let hit = client.get(host, "/says-nothing").await;
    let status = hit.header("cache-status");
    let ttl: u64 = status.split("ttl=").nth(1).unwrap().parse().unwrap();
    assert!(status.contains("hit") && (50..=60).contains(&ttl), "{status}");
    setup.replace("says-nothing", &[], "changed").await;
    assert_eq!(client.get(host, "/says-nothing").await.text(), "content");
    let purge = json!({"path": "says-nothing"});
    setup.project.post("/v1/buckets/mine/cache/purge", purge).await;
    assert_eq!(client.get(host, "/says-nothing").await.text(), "changed");
}

#[tokio::test]
async fn wrong_credentials_are_told_from_what_is_missing_and_show_nothing() {
    let setup = Setup::with(&[("a.txt", &[], "content")]).await;
    let (client, host) = (setup.edge.http(), &*setup.host);
    let right = origin(&setup.server, &setup.relay);
    for (field, value) in [
        ("secret_access_key", "WRONGSECRET"),
        ("access_key_id", "AKIAUNKNOWN"),
        ("bucket", "elsewhere"),
    ] {
        let mut wrong = right.clone();
        wrong[field] = json!(value);
        let set = json!({"origin": wrong}).to_string();
        setup.project.ok(Method::PUT, "/v1/buckets/mine", set).await;
        let reply = client.get(host, "/a.txt").await;
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (502, "origin_denied"),
            "{field}"
        );
        for text in [value, &setup.server.credentials.1, &setup.server.credentials.0, "there"] {
            assert!(!reply.text().contains(text), "{}", reply.text());
        }
    }
    let log = setup.edge.log();
    assert!(log.contains("an S3 origin does not give what it is asked for"), "{log}");
    assert!(!log.contains("WRONGSECRET") && !log.contains(&setup.server.credentials.1));
    let set = json!({"origin": right}).to_string();
    setup.project.ok(Method::PUT, "/v1/buckets/mine", set).await;
    assert_eq!(client.get(host, "/a.txt").await.text(), "content");
}

#[tokio::test]
async fn a_server_that_is_away_takes_along_only_what_may_not_be_stale() {
    let setup = Setup::with(&[
        ("kept", &[("cache-control", "max-age=0, stale-if-error=600")], "content"),
        ("other", &[], "other"),
    ])
    .await;
    let (client, host) = (setup.edge.http(), &*setup.host);
    assert_eq!(client.get(host, "/kept").await.text(), "content");
    setup.relay.set_away(true);
    let stale = client.get(host, "/kept").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "content"));
    assert!(stale.header("cache-status").contains("stale"), "{stale:?}");
    let away = client.get(host, "/other").await;
    assert_eq!((away.status.as_u16(), away.error().as_str()), (502, "origin_error"));
    setup.relay.set_away(false);
    assert_eq!(client.get(host, "/other").await.text(), "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_within_an_object_is_not_seen_by_the_viewer() {
    let setup = Setup::with(&[]).await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    setup.replace("large.mp4", &[], content.clone()).await;
    setup.relay.cut_next(1_000_000);
    let reply = setup.edge.http().get(&setup.host, "/large.mp4").await;
    assert!(reply.complete && reply.status == 200 && reply.body == content);
    let heads: Vec<_> = setup.relay.heads().iter().map(|h| h.to_lowercase()).collect();
    assert!(
        heads
            .iter()
            .any(|h| h.contains("range: bytes=") && h.contains("if-match: \"")),
        "{heads:?}"
    );
    let asked = heads.len();
    let hit = setup.edge.http().get(&setup.host, "/large.mp4").await;
    assert!(hit.body == content);
    assert_eq!(setup.relay.heads().len(), asked, "what was mended is kept");
}
