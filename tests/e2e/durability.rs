//! What was answered for survives; what was not is not half there.

use crate::BINARY;
use bytes::Bytes;
use edgeweir_harness::{Answer, Edge, Origin, Output, command_output};
use http::Method;
use serde_json::json;
use std::{path::Path, process::Command};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_during_an_upload_leaves_the_old_object() {
    let mut edge = Edge::start(BINARY).await;
    let mut project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "old").await;
    let head = format!(
        "PUT /v1/buckets/videos/objects/a.mp4 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 10000000\r\n\r\n",
        project.token
    );
    let mut upload = TcpStream::connect(edge.address("api")).await.unwrap();
    upload.write_all(head.as_bytes()).await.unwrap();
    upload.write_all(&vec![7; 5_000_000]).await.unwrap();
    let uploads = edge.data_dir().join("uploads");
    let begun = || {
        let mut files = std::fs::read_dir(&uploads).unwrap().flatten();
        files.any(|file| file.metadata().is_ok_and(|m| m.len() > 1_000_000))
    };
    while !begun() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    edge.kill();
    edge.restart().await;
    project.refresh(edge.address("api")).await;
    assert_eq!(edge.http().get(&host, "/a.mp4").await.text(), "old");
    assert_eq!(
        std::fs::read_dir(&uploads).unwrap().count(),
        0,
        "what the upload left is cleared"
    );
    let listed = project
        .ok(Method::GET, "/v1/buckets/videos/objects", Bytes::new())
        .await;
    assert_eq!(listed["objects"].as_array().unwrap().len(), 1);
    // A client that breaks off leaves as little.
    let mut upload = TcpStream::connect(edge.address("api")).await.unwrap();
    let head = head.replace(
        head.split("Bearer ").nth(1).unwrap().split('\r').next().unwrap(),
        &project.token,
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    upload.write_all(&vec![7; 5_000_000]).await.unwrap();
    while !begun() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    drop(upload);
    while begun() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(edge.http().get(&host, "/a.mp4").await.text(), "old");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_log_cannot_be_written_serves_on() {
    let mut edge = Edge::start_with_output(BINARY, [Output::Nowhere, Output::Full]).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "new").await;
    assert_eq!(edge.http().get(&host, "/a.mp4").await.text(), "new");
    edge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_addresses_cannot_be_printed_serves_on() {
    let mut edge = Edge::start_with_output(BINARY, [Output::Full, Output::Log]).await;
    let project = edge.project().await;
    project.bucket("videos").await;
    edge.stop().await;
    assert!(edge.log().contains("cannot be printed"), "{}", edge.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_during_writes_loses_nothing_that_was_answered_for() {
    let mut edge = Edge::start_with(BINARY, &[("limits.domains", "100000")]).await;
    let mut project = edge.project().await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let project = project.clone();
            let api = edge.address("api");
            tokio::spawn(async move {
                let client = edgeweir_harness::Client::plain(api, edgeweir_harness::Protocol::H1);
                let authorization = format!("Bearer {}", project.token);
                let mut answered = Vec::new();
                for n in 0.. {
                    let name = format!("w{writer}-{n}.example.com");
                    let body = Bytes::from(json!({"name": name, "type": "live"}).to_string());
                    let headers = [("authorization", authorization.as_str())];
                    match client
                        .try_send(Method::POST, "localhost", "/v1/domains", &headers, body)
                        .await
                    {
                        Ok(reply) if reply.complete && reply.status == 200 => answered.push(name),
                        _ => break,
                    }
                }
                answered
            })
        })
        .collect();
    loop {
        let listed = project.ok(Method::GET, "/v1/domains", Bytes::new()).await;
        if listed["domains"].as_array().unwrap().len() > 40 {
            break;
        }
    }
    edge.kill();
    let mut answered = Vec::new();
    for writer in writers {
        answered.extend(writer.await.unwrap());
    }
    // Of the more than 40 that were listed, each of the four writers may have one that it was not told of.
    assert!(answered.len() >= 37);
    edge.restart().await;
    project.refresh(edge.address("api")).await;
    let listed = project.ok(Method::GET, "/v1/domains", Bytes::new()).await;
    let names: std::collections::HashSet<_> = listed["domains"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["domain_name"].as_str().unwrap().to_owned())
        .collect();
    for name in &answered {
        assert!(names.contains(name), "{name} was answered for and is gone");
    }
    // At most the four that were under way are there besides.
    assert!(names.len() <= answered.len() + 4);
}

/// A small file system, unmounted when dropped.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    pub(crate) fn mount(bytes: u32) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        command_output(&mut mount).0.then(|| Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = command_output(Command::new("umount").arg(self.0.path()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_the_upload_and_keeps_the_old_object() {
    let disk = SmallDisk::mount(8 << 20).expect("mounting a tmpfs, which needs root");
    let edge = Edge::start_in(BINARY, &disk.path().join("data"), &[]).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "old").await;
    let full = project
        .call(Method::PUT, "/v1/buckets/videos/objects/a.mp4", vec![7; 12 << 20])
        .await;
    assert_eq!((full.status.as_u16(), full.error().as_str()), (507, "storage_full"));
    assert_eq!(edge.http().get(&host, "/a.mp4").await.text(), "old");
    // What did not fit takes no room.
    project.put("videos", "b.mp4", vec![7; 1 << 20]).await;
    // With not a byte left, writes of state fail as such, and delivery goes on.
    let filler = disk.path().join("filler");
    let _ = std::fs::write(&filler, vec![0; 16 << 20]);
    let refused = project
        .call(Method::POST, "/v1/domains", r#"{"name":"a.example.com","type":"live"}"#)
        .await;
    assert_eq!(
        (refused.status.as_u16(), refused.error().as_str()),
        (503, "unavailable")
    );
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(edge.http().get(&host, "/b.mp4").await.body.len(), 1 << 20);
    std::fs::remove_file(filler).unwrap();
    project
        .post("/v1/domains", json!({"name": "a.example.com", "type": "live"}))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_a_killed_server_are_not_told_on() {
    let mut edge = Edge::start(BINARY).await;
    edge.kill();
    let told = edge.data_dir().join("listen.json");
    assert!(told.exists(), "kill -9 leaves it");
    // A start that fails before it has an address.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("listen.http={}", taken.local_addr().unwrap());
    let failed = edge.cli(&["serve", "--set", &address]).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(!told.exists());
    edge.restart().await;
    assert_eq!(edge.http().get("unknown.example.com", "/").await.status, 421);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_in_flight_is_in_effect_when_it_is_answered_also_while_stopping() {
    let mut edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    project.bucket("videos").await;
    let mut upload = TcpStream::connect(edge.address("api")).await.unwrap();
    let head = format!(
        "PUT /v1/buckets/videos/objects/a HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 2\r\n\r\n",
        project.token
    );
    upload.write_all(head.as_bytes()).await.unwrap();
    upload.write_all(b"a").await.unwrap();
    let uploads = edge.data_dir().join("uploads");
    while std::fs::read_dir(&uploads).unwrap().count() == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    edge.signal("TERM");
    while TcpStream::connect(edge.address("api")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    upload.write_all(b"b").await.unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(edge.exited().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_finishes_after_the_order_to_stop() {
    let mut edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(|_| Answer::ok("", "finished").held()).await;
    let host = project
        .bucket_at("pulled", json!({"type": "http", "url": origin.url()}))
        .await;
    let second = edge.cli(&["serve"]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server runs on"));
    let request = {
        let client = edge.http();
        tokio::spawn(async move { client.get(&host, "/slow").await })
    };
    origin.asked(1).await;
    let admin = edgeweir_harness::Client::plain(edge.address("admin"), edgeweir_harness::Protocol::H1);
    assert_eq!(admin.get("localhost", "/readyz").await.status, 200);
    assert_eq!(admin.get("localhost", "/healthz").await.status, 200);
    edge.signal("TERM");
    // New connections are refused from now on.
    while TcpStream::connect(edge.address("http")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    origin.release();
    let reply = request.await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.text()), (200, "finished"));
    assert_eq!(edge.exited().await.code(), Some(0));
    assert!(!edge.data_dir().join("listen.json").exists());
}
