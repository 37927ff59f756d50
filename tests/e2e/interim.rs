//! Interim responses of an origin reach the client that it is asked for, over every version of HTTP, and are not stored.

use crate::{BINARY, sign};
use edgeweir_harness::{
    Answer, Client, Edge, Origin, Project, Protocol,
    h2::{Frame, H2, Outcome},
    h3,
};
use http::Method;
use serde_json::json;

const EARLY: &str = "HTTP/1.1 102 Processing\r\n\r\n\
     HTTP/1.1 103 Early Hints\r\nLink: </first.m4s>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\n\
     Surrogate-Key: film\r\n\r\n";

/// An origin that says what is to come before it answers.
async fn talkative() -> (Edge, Project, String, Origin) {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(|seen| {
        let fields = if seen.target.contains("stored") {
            "Cache-Control: max-age=60\r\n"
        } else {
            "Cache-Control: no-store\r\n"
        };
        let last = format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n{fields}Connection: close\r\n\r\nfinal");
        Answer::Raw(format!("HTTP/1.1 100 Continue\r\n\r\n{EARLY}{last}").into())
    })
    .await;
    let described = json!({"type": "http", "url": origin.url(), "methods": ["GET", "HEAD", "POST"]});
    let host = project.bucket_at("pulled", described).await;
    (edge, project, host, origin)
}

/// The statuses of what is answered to bytes, and the answers.
async fn answered(client: &Client, request: &str) -> (Vec<String>, String) {
    let answer = client.raw(request.as_bytes()).await;
    let statuses = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| answer[at + 9..at + 12].to_owned());
    (statuses.collect(), answer)
}

#[tokio::test]
async fn early_hints_reach_whoever_asks_first_and_are_not_stored() {
    let (edge, _project, host, origin) = talkative().await;
    let get = format!("GET /stored HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let (statuses, answer) = answered(&edge.http(), &get).await;
    assert_eq!(statuses, ["102", "103", "200"], "{answer}");
    let hints = answer.split("HTTP/1.1 ").nth(2).unwrap();
    assert!(hints.contains("link: </first.m4s>; rel=preload\r\n"), "{answer}");
    for word in ["x-hop", "connection", "surrogate-key", "content-length"] {
        assert!(!hints.contains(word), "{word}: {answer}");
    }
    assert!(answer.ends_with("\r\n\r\nfinal"), "{answer}");

    let (statuses, answer) = answered(&edge.http(), &get).await;
    assert_eq!(statuses, ["200"], "{answer}");
    assert!(
        !answer.contains("link:") && answer.contains("edgeweir; hit"),
        "{answer}"
    );
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn interim_responses_over_every_protocol() {
    let (edge, _project, host, _origin) = talkative().await;
    let all = [102, 103, 200].map(Outcome::Status);

    let get: &[(&[u8], &[u8])] = &[
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", host.as_bytes()),
        (b":path", b"/own"),
    ];
    let mut plain = H2::plain(edge.address("http"), &[]).await;
    let tls = edge.https(Protocol::H2).handshaken(&host).await;
    let mut over_tls = H2::over(tls, &[]).await;
    for connection in [&mut plain, &mut over_tls] {
        assert!(connection.send(&Frame::request(1, get)).await);
        for wanted in all {
            assert_eq!(connection.outcome(1).await, wanted);
        }
    }

    let connection = edge.h3(&host).await;
    let mut exchange = connection.send(&h3::head(get)).await.unwrap();
    exchange.send.finish().unwrap();
    for wanted in all {
        assert_eq!(exchange.outcome().await, wanted);
    }

    let tls = edge.https(Protocol::H1).get(&host, "/own").await;
    assert_eq!((tls.status.as_u16(), tls.text()), (200, "final"));
}

#[tokio::test]
async fn interim_responses_go_to_clients_that_know_them_alone() {
    let (edge, _project, host, _origin) = talkative().await;
    let old = format!("GET /own HTTP/1.0\r\nHost: {host}\r\n\r\n");
    let (statuses, answer) = answered(&edge.http(), &old).await;
    assert_eq!(statuses, ["200"], "{answer}");

    let post = format!("POST /own HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nab");
    let (statuses, answer) = answered(&edge.http(), &post).await;
    assert_eq!(statuses, ["102", "103", "200"], "{answer}");
}

#[tokio::test]
async fn no_hint_without_a_token() {
    let (edge, project, host, origin) = talkative().await;
    project.policy("pulled", "authenticated").await;
    let key = project.signing_key("bucket_name", "pulled").await;
    let get = |query: &str| format!("GET /own{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let (statuses, answer) = answered(&edge.http(), &get("")).await;
    assert_eq!(statuses, ["403"], "{answer}");
    assert!(origin.seen().is_empty());
    let token = sign(&edge, &key, "own");
    let (statuses, answer) = answered(&edge.http(), &get(&format!("?auth={token}"))).await;
    assert_eq!(statuses, ["102", "103", "200"], "{answer}");
}

/// A client that asks before it sends content is told to go on when the content is wanted, and only then
/// (RFC 9110 §10.1.1).
#[tokio::test]
async fn who_asks_first_is_told_to_go_on() {
    let (edge, _project, host, _origin) = talkative().await;
    let ask = |path: &str, length: usize| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
    };
    let (statuses, answer) = answered(&edge.http(), &format!("{}ab", ask("/own", 2))).await;
    assert_eq!(statuses.last().unwrap(), "200", "{answer}");
    assert!(!answer.contains("content-length: 0"), "{answer}");
    let refused = ask("/../x", 2);
    let (statuses, answer) = answered(&edge.http(), &refused).await;
    assert_eq!(statuses, ["400"], "{answer}");
    let reply = edge
        .https(Protocol::H2)
        .send(Method::POST, &host, "/own", &[("expect", "100-continue")], "ab".into())
        .await;
    assert_eq!(reply.status, 200);
}
