//! Clients and origins that take their time.

use crate::{
    BINARY,
    protocol::{SOON, get, impatient},
};
use edgeweir_harness::{
    Answer, Client, Edge, Origin, Project, Protocol,
    h2::{END_HEADERS, Frame, H2, Outcome, kind, literals},
    h3,
};
use serde_json::json;
use std::time::Duration;
use tokio::time::{interval, sleep, timeout};

/// A bucket whose origin takes content, all of it before it answers.
async fn taking(project: &Project) -> (Origin, String) {
    let origin = Origin::serve(|_| Answer::ok("", "taken")).await;
    let open = json!({"type": "http", "url": origin.url(), "methods": ["GET", "HEAD", "POST"]});
    let host = project.bucket_at("taking", open).await;
    (origin, host)
}

/// The fields of a POST of 100,000 bytes.
fn post(host: &str) -> Vec<(&[u8], &[u8])> {
    let mut fields = get(host, "/a");
    fields[0].1 = b"POST";
    fields.push((b"content-length", b"100000"));
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_trickles_is_given_up_while_its_client_asks_for_others() {
    let (edge, project, host) = impatient().await;
    let (_origin, taking) = taking(&project).await;

    let mut connection = H2::plain(edge.address("http"), &[]).await;
    let head = Frame::new(kind::HEADERS, END_HEADERS, 1, literals(&post(&taking)));
    connection.send(&head).await;
    let given_up = async {
        let (mut ticks, mut stream) = (interval(Duration::from_millis(100)), 1);
        loop {
            tokio::select! {
                outcome = connection.outcome(1) => return outcome,
                _ = ticks.tick() => {
                    stream += 2;
                    connection.send(&Frame::request(stream, &get(&host, "/a.mp4"))).await;
                    connection.send(&Frame::new(kind::DATA, 0, 1, "x")).await;
                }
            }
        }
    };
    let outcome = timeout(SOON, given_up).await.expect("an end, over HTTP/2");
    assert_eq!(outcome, Outcome::Status(400));

    let connection = edge.h3(&host).await;
    let mut exchange = connection.send(&h3::head(&post(&taking))).await.unwrap();
    let given_up = async {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                outcome = exchange.outcome() => return outcome,
                _ = ticks.tick() => {
                    assert_eq!(connection.outcome(&get(&host, "/a.mp4")).await, Outcome::Status(200));
                    let _ = exchange.send.write_all(&h3::framed(0, b"x")).await;
                }
            }
        }
    };
    let outcome = timeout(SOON, given_up).await.expect("an end, over HTTP/3");
    assert_eq!(outcome, Outcome::Status(400));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_rest_of_a_slow_answer_is_not_cut() {
    let edge = Edge::start_with(BINARY, &[("limits.idle_seconds", "1")]).await;
    let project = edge.project().await;
    let begun = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nCache-Control: no-store\r\nConnection: close\r\n\r\nCON";
    let origin = Origin::serve(move |_| Answer::Steps(vec![begun.into(), "TENT".into()])).await;
    let host = project
        .bucket_at("slow", json!({"type": "http", "url": origin.url()}))
        .await;
    let over_tcp = |client: Client| {
        let host = &host;
        async move {
            let reply = client.get(host, "/a").await;
            assert_eq!((reply.text(), reply.complete), ("CONTENT", true), "{:?}", reply.version);
        }
    };
    let over_quic = async {
        let connection = edge.h3(&host).await;
        let mut exchange = connection.send(&h3::head(&get(&host, "/a"))).await.unwrap();
        exchange.send.finish().unwrap();
        assert_eq!(exchange.outcome().await, Outcome::Status(200));
        let rest = exchange.receive.read_to_end(1000).await.unwrap();
        assert!(rest.ends_with(b"TENT"), "{rest:?}");
    };
    let released = async {
        origin.asked(3).await;
        // More than twice what a client may idle for.
        sleep(Duration::from_secs(4)).await;
        origin.release();
    };
    tokio::join!(
        over_tcp(edge.http()),
        over_tcp(Client::plain(edge.address("http"), Protocol::H2)),
        over_quic,
        released,
    );
}
