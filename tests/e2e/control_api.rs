//! The control API as a whole server's: over its own connections, and with what the edge makes of it.

use crate::BINARY;
use bytes::Bytes;
use edgeweir_harness::{Client, Edge, Protocol};
use http::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_read_by_a_client_that_sends_everything_first() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    project.bucket("videos").await;
    let right = format!("Authorization: Bearer {}\r\n", project.token);
    for (line, authorization, status) in [
        ("POST /v1/domains", right.as_str(), 413),
        ("POST /v1/domains", "", 401),
        ("PUT /v1/buckets/none/objects/a", &right, 404),
        ("PUT /v1/buckets/videos/objects/a%00", &right, 400),
        ("POST /v1/none", &right, 404),
    ] {
        let size = 2 << 20;
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{authorization}Content-Length: {size}\r\n\r\n");
        let mut client = TcpStream::connect(edge.address("api")).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b' '; size]).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer, format!("HTTP/1.1 {status}"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_stops_nothing_else() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let (fine, broken) = (project.bucket("fine").await, project.bucket("broken").await);
    project.put("fine", "a", "one").await;
    project.put("broken", "a", "one").await;
    let get = async |host: &str| edge.http().get(host, "/a").await.status.as_u16();
    assert_eq!((get(&fine).await, get(&broken).await), (200, 200));
    let script = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], timeout=30)\n\
                  db.execute(\"UPDATE buckets SET origin = '{\\\"type\\\":\\\"tape\\\"}' WHERE name = 'broken'\")\ndb.commit()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", script]).arg(edge.data_dir().join("edgeweir.db"));
    let (ok, _, err) = edgeweir_harness::command_output(&mut python);
    assert!(ok, "{err}");
    // Any change brings the state to the edge.
    project.policy("fine", "authenticated").await;
    assert_eq!((get(&fine).await, get(&broken).await), (403, 421));
    project.policy("fine", "public").await;
    assert_eq!(get(&fine).await, 200);
    let told = edge.log().matches("its row cannot be read").count();
    assert_eq!(told, 1, "{}", edge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_speaks_tls_with_the_zones_certificate_and_stops_gracefully() {
    let mut edge = Edge::start_with(BINARY, &[("api.tls", "true")]).await;
    let (ok, out, err) = edgeweir_harness::command_output(&mut edge.cli(&["project", "create", "p", "--json"]));
    assert!(ok, "{err}");
    let made: serde_json::Value = serde_json::from_str(&out).unwrap();
    let root = edge.data_dir().join("ca.pem");
    for protocol in [Protocol::H1, Protocol::H2] {
        let api = Client::tls(edge.address("api"), protocol, &root);
        let host = "api.edgeweir.localhost";
        let key = format!("Bearer {}", made["api_key"].as_str().unwrap());
        let headers = [("authorization", key.as_str())];
        let reply = api
            .send(Method::POST, host, "/v1/access_token", &headers, Bytes::new())
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let token = format!("Bearer {}", reply.json()["access_token"].as_str().unwrap());
        let headers = [("authorization", token.as_str())];
        let body = Bytes::from(json!({"name": format!("bucket-{protocol:?}").to_lowercase()}).to_string());
        let reply = api.send(Method::POST, host, "/v1/buckets", &headers, body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let plain = Client::plain(edge.address("api"), Protocol::H1);
    assert!(
        plain
            .try_send(Method::GET, "localhost", "/v1/domains", &[], Bytes::new())
            .await
            .is_err()
    );
    edge.signal("TERM");
    assert_eq!(edge.exited().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_keys_come_from_the_pool() {
    let ready = async |edge: &Edge| {
        let admin = Client::plain(edge.address("admin"), Protocol::H1);
        let metrics = admin.get("localhost", "/metrics").await;
        let mut lines = metrics.text().lines();
        let gauge = lines.find_map(|line| line.strip_prefix("edgeweir_key_pool_ready "));
        gauge.unwrap().parse::<u64>().unwrap()
    };
    // It answers while the pool is being filled.
    let filling = Edge::start_with(BINARY, &[("keys.pool", "64")]).await;
    assert!(ready(&filling).await < 64);
    drop(filling);
    let edge = Edge::start_with(BINARY, &[("keys.pool", "2")]).await;
    let project = edge.project().await;
    project.bucket("videos").await;
    while ready(&edge).await < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    project.signing_key("bucket_name", "videos").await;
    project.signing_key("bucket_name", "videos").await;
    let log = edge.log();
    let (pooled, waited) = (
        "a signing key's pair comes from the pool",
        "a signing key's pair is waited for",
    );
    assert_eq!((log.matches(pooled).count(), log.matches(waited).count()), (2, 0));
}
