//! HTTP/3, spoken to by aioquic, by Chromium, and by a client of our own that sends what no library would.

mod hostile;

use crate::{BINARY, main_job::tools, pulled::Pulled, sign};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use edgeweir_harness::{Answer, Edge, Large, Origin, Protocol, command_output, demo, repository};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{
    io::Write,
    process::{Command, Stdio},
};
use tokio::net::TcpListener;

/// An answer that aioquic had.
#[derive(Debug)]
struct Had {
    status: u64,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Had {
    fn of(answer: &Value) -> Self {
        assert_eq!(answer["reset"], Value::Null, "{answer}");
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        let headers = answer["headers"].as_array().unwrap();
        Self {
            status: answer["status"].as_u64().unwrap(),
            headers: headers.iter().map(|h| (text(&h[0]), text(&h[1]))).collect(),
            body: STANDARD.decode(text(&answer["body"])).unwrap(),
        }
    }

    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v)
    }

    fn error(&self) -> String {
        let json: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        json["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// What aioquic says of a job (`http3/client.py`).
async fn asked(edge: &Edge, sni: &str, requests: Vec<Value>, in_turn: bool) -> Value {
    let address = edge.address("https");
    let job = json!({
        "address": [address.ip().to_string(), address.port()],
        "ca": edge.data_dir().join("ca.pem"),
        "sni": sni,
        "requests": requests,
        "in_turn": in_turn,
    });
    let mut python = Command::new(tools().join("venv/bin/python"));
    python.arg(repository().join("tests/e2e/http3/client.py"));
    python
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || {
        let mut child = python.spawn().expect("scripts/test installs it");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(job.to_string().as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)))
    })
    .await
    .unwrap()
}

/// The answers to requests that are made at once.
async fn answers(edge: &Edge, sni: &str, requests: Vec<Value>) -> Vec<Had> {
    let told = asked(edge, sni, requests, false).await;
    told["answers"].as_array().unwrap().iter().map(Had::of).collect()
}

fn get(host: &str, path: &str) -> Value {
    json!({"authority": host, "path": path})
}

fn with(mut request: Value, more: Value) -> Value {
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn another_implementation_has_what_it_asks_for() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n >> 7) as u8).collect();
    project.put("videos", "large.mp4", content.clone()).await;
    project.put("videos", "a.txt", "CONTENT").await;
    for (key, content) in demo() {
        project.put("videos", &key, content).await;
    }
    // The second time all of it is in the cache.
    for cache in ["fwd=uri-miss", "hit"] {
        let had = answers(&edge, &host, vec![get(&host, "/large.mp4"), get(&host, "/a.txt")]).await;
        assert_eq!(had[0].status, 200);
        assert!(had[0].body == content, "{} bytes", had[0].body.len());
        assert_eq!(had[1].body, b"CONTENT");
        for had in &had {
            assert!(had.header("cache-status").contains(cache), "{had:?}");
            assert!(!had.header("date").is_empty() && had.header("connection").is_empty());
        }
        assert_eq!(had[1].header("content-length"), "7");
    }
    let range = |value: &str| json!({"headers": [["range", value]]});
    let had = answers(
        &edge,
        &host,
        vec![
            with(get(&host, "/a.txt"), json!({"method": "HEAD"})),
            with(get(&host, "/a.txt"), range("bytes=2-4")),
            with(get(&host, "/a.txt"), range("bytes=0-0,2-2")),
            with(get(&host, "/a.txt"), range("bytes=9-")),
            with(get(&host, "/a.txt"), json!({"headers": [["if-none-match", "*"]]})),
            with(get(&host, "/a.txt"), json!({"method": "OPTIONS"})),
            with(get(&host, "/a.txt"), json!({"method": "DELETE"})),
            with(get(&host, "/a.txt"), json!({"method": "POST", "body": "ignored"})),
            get(&host, "/not-there"),
            get(&host, "/a/../b"),
            get("other.example.com", "/a.txt"),
            get(&host, "/hls/master.m3u8"),
        ],
    )
    .await;
    let statuses: Vec<_> = had.iter().map(|had| had.status).collect();
    assert_eq!(statuses, [200, 206, 206, 416, 304, 204, 405, 405, 404, 400, 421, 200]);
    assert_eq!((had[0].body.len(), had[0].header("content-length")), (0, "7"));
    assert_eq!(
        (had[1].body.as_slice(), had[1].header("content-range")),
        (&b"NTE"[..], "bytes 2-4/7")
    );
    assert!(had[2].header("content-type").starts_with("multipart/byteranges"));
    assert_eq!(had[3].header("content-range"), "bytes */7");
    assert!(had[11].body.starts_with(b"#EXTM3U"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_in_slices_comes_whole() {
    let film = Large::new((3 << 20) + 5);
    let object = film.clone();
    let pulled = Pulled::start(&[], move |seen| object.answer(seen)).await;
    let range = |value: &str| with(get(&pulled.host, "/film"), json!({"headers": [["range", value]]}));
    let cold = answers(&pulled.edge, &pulled.host, vec![get(&pulled.host, "/film")]).await;
    assert!(
        cold[0].status == 200 && cold[0].body == film.whole(),
        "{} bytes",
        cold[0].body.len()
    );
    pulled.stored(5).await;
    let requests = vec![
        get(&pulled.host, "/film"),
        range("bytes=1048570-1048585"),
        range("bytes=-7"),
        range("bytes=0-9,2097150-2097159"),
    ];
    let had = answers(&pulled.edge, &pulled.host, requests).await;
    let statuses: Vec<_> = had.iter().map(|had| had.status).collect();
    assert_eq!(statuses, [200, 206, 206, 206]);
    assert!(had[0].body == film.whole());
    assert_eq!(had[1].body, film.bytes(1_048_570..1_048_586));
    assert_eq!(had[2].body, film.bytes(film.length - 7..film.length));
    for part in [film.bytes(0..10), film.bytes(2_097_150..2_097_160)] {
        assert!(had[3].body.windows(10).any(|window| window == part));
    }
    assert!(
        had.iter()
            .all(|had| had.header("cache-status").starts_with("edgeweir; hit"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_over_tls_tell_where_http3_is() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.txt", "CONTENT").await;
    let told = format!("h3=\":{}\"; ma=86400", edge.address("https").port());
    for path in ["/a.txt", "/a.txt", "/not-there"] {
        for protocol in [Protocol::H1, Protocol::H2] {
            let reply = edge.https(protocol).get(&host, path).await;
            assert_eq!(reply.header("alt-svc"), told, "{protocol:?} {path}");
        }
        assert_eq!(edge.http().get(&host, path).await.header("alt-svc"), "");
        // The last ones are answered with a head that is kept.
        let had = answers(&edge, &host, (0..8).map(|_| get(&host, path)).collect()).await;
        for later in &had {
            assert_eq!((later.status, &later.body), (had[0].status, &had[0].body), "{path}");
            assert_eq!(later.header("alt-svc"), told, "{path}");
        }
    }

    let off = Edge::start_with(BINARY, &[("listen.h3", "false")]).await;
    let origin = Origin::serve(|_| Answer::ok("Alt-Svc: h3=\":1\"\r\n", "CONTENT")).await;
    let project = off.project().await;
    let host = project
        .bucket_at("videos", json!({"type": "http", "url": origin.url()}))
        .await;
    let reply = off.https(Protocol::H2).get(&host, "/a.txt").await;
    assert_eq!((reply.text(), reply.header("alt-svc")), ("CONTENT", ""));
}

/// The URL of an origin that answers with the method, and how long the body is.
async fn counting_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = service_fn(async |request: http::Request<hyper::body::Incoming>| {
                let method = request.method().clone();
                let body = request.into_body().collect().await?.to_bytes();
                let text = format!("{method} {}", body.len());
                Ok::<_, hyper::Error>(http::Response::new(Full::new(Bytes::from(text))))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), count));
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn request_bodies_reach_the_origin() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let open = json!({"type": "http", "url": counting_origin().await, "methods": ["GET", "HEAD", "POST", "PUT"]});
    let host = project.bucket_at("taking", open).await;
    let body = "x".repeat(1_500_000);
    let post = |more: Value| with(with(get(&host, "/a"), json!({"method": "POST", "body": body})), more);
    let length = json!({"headers": [["content-length", body.len().to_string()]]});
    let requests = vec![
        post(json!({})),
        post(json!({"chunks": 20})),
        post(length),
        with(get(&host, "/a"), json!({"method": "PUT", "body": ""})),
    ];
    let had = answers(&edge, &host, requests).await;
    let texts: Vec<_> = had
        .iter()
        .map(|h| String::from_utf8_lossy(&h.body).into_owned())
        .collect();
    assert_eq!(
        texts,
        ["POST 1500000", "POST 1500000", "POST 1500000", "PUT 0"],
        "{had:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_for_the_name_of_its_handshake() {
    let edge = Edge::start(BINARY).await;
    let (mine, theirs) = (edge.project().await, edge.project().await);
    let (first, second) = (mine.bucket("first").await, mine.bucket("second").await);
    let third = theirs.bucket("third").await;
    for (project, bucket) in [(&mine, "first"), (&mine, "second"), (&theirs, "third")] {
        project.put(bucket, "a.mp4", "CONTENT").await;
    }
    for (sni, host, status, code) in [
        (&first, &second, 200, ""),
        (&first, &third, 421, "host_not_covered"),
        (&third, &first, 421, "host_not_covered"),
    ] {
        let had = answers(&edge, sni, vec![get(host, "/a.mp4")]).await;
        assert_eq!(
            (had[0].status, had[0].error().as_str()),
            (status, code),
            "{sni} and {host}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_content_and_lengths_are_limited_as_over_tcp() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "CONTENT").await;
    let player = "https://player.example.com";
    project
        .post(
            "/v1/buckets/videos/cors",
            json!({"Access-Control-Allow-Origin": player}),
        )
        .await;
    project.policy("videos", "authenticated").await;
    let key = project.signing_key("bucket_name", "videos").await;
    let token = sign(&edge, &key, "");
    let long = "a".repeat(9 << 10);
    let had = answers(
        &edge,
        &host,
        vec![
            get(&host, &format!("/a.mp4?auth={token}")),
            get(&host, "/a.mp4"),
            get(&host, &format!("/{long}")),
            with(get(&host, "/a.mp4"), json!({"headers": [["x-long", long]]})),
        ],
    )
    .await;
    let statuses: Vec<_> = had.iter().map(|had| had.status).collect();
    assert_eq!(statuses, [200, 403, 414, 431]);
    for had in &had {
        assert_eq!(had.header("access-control-allow-origin"), player, "{had:?}");
    }
    assert_eq!(had[0].header("cache-control").split(',').next(), Some("private"));
}

/// Opens a page of the edge in Chromium, which speaks HTTP/3 to it, and fetches the demo video's files.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_plays_over_http3() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    for (key, content) in demo() {
        project.put("videos", &key, content).await;
    }
    let origin = format!("{host}:{}", edge.address("https").port());
    let mut node = Command::new("node");
    node.arg(repository().join("tests/e2e/browser/http3.cjs"))
        .arg(format!("https://{origin}/player.html"))
        .arg(edge.data_dir().join("ca.pem"))
        .env("NODE_PATH", tools().join("node/node_modules"));
    let (_, out, err) = tokio::task::spawn_blocking(move || command_output(&mut node))
        .await
        .unwrap();
    let seen: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!(seen["state"], "ended", "{seen}");
    assert!(seen["currentTime"].as_f64().unwrap() > 7.5, "{seen}");
    let protocols = seen["protocols"].as_object().unwrap();
    assert!(protocols.len() > 5, "{seen}");
    for (url, protocol) in protocols {
        assert_eq!(protocol, "h3", "{url}");
    }
}
