//! Heads of hits: they are kept while they stay the same, and nobody gets another one than if they were not.

use crate::{
    BINARY,
    live::until,
    pulled::{Pulled, is_hit},
    sign,
};
use bytes::Bytes;
use edgeweir_harness::{Answer, Client, Edge, Protocol, Reply, Seen};
use http::{HeaderMap, Method};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const LIFETIME: u64 = 1000;

/// More often than it takes until a head is kept, also when a second passes meanwhile.
const OFTEN: usize = 8;

/// A server with one thread, which has the heads that all requests find.
async fn server(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Pulled {
    Pulled::before(Edge::start_on_one_thread(BINARY).await, answer).await
}

async fn stored() -> Pulled {
    let headers = "Cache-Control: max-age=1000\r\nETag: \"a\"\r\nContent-Type: video/mp4\r\nX-Own: 1\r\n";
    let pulled = server(move |_| Answer::ok(headers, "CONTENT")).await;
    assert_eq!(pulled.get("/a").await.text(), "CONTENT");
    pulled.stored(1).await;
    pulled
}

/// The fields but for those that count seconds, which belong together.
fn but_for_seconds(reply: &Reply) -> HeaderMap {
    let mut headers = reply.headers.clone();
    assert!(is_hit(reply), "{headers:?}");
    let age: u64 = reply.header("age").parse().unwrap();
    let ttl = reply.header("cache-status").split("ttl=").nth(1).unwrap();
    let ttl: u64 = ttl.parse().unwrap();
    // Each is rounded down.
    assert!((LIFETIME - 1..=LIFETIME).contains(&(age + ttl)), "{headers:?}");
    headers.remove("age");
    headers.remove("cache-status");
    headers
}

#[tokio::test]
async fn a_head_that_is_kept_is_what_it_would_be() {
    let pulled = stored().await;
    let range = [("range", "bytes=1-3")];
    let same = [("if-none-match", "\"a\"")];
    let other = [("if-none-match", "\"b\"")];
    let close = [("connection", "close")];
    let (plain, tls, h2, plain_h2) = (
        pulled.edge.http(),
        pulled.edge.https(Protocol::H1),
        pulled.edge.https(Protocol::H2),
        Client::plain(pulled.address(), Protocol::H2),
    );
    type Case<'a> = (&'a Client, Method, &'a [(&'a str, &'a str)], u16, &'a str);
    let cases: [Case<'_>; 12] = [
        (&plain, Method::GET, &[], 200, "CONTENT"),
        (&plain, Method::GET, &range, 206, "ONT"),
        (&plain, Method::GET, &same, 304, ""),
        (&plain, Method::GET, &other, 200, "CONTENT"),
        (&plain, Method::HEAD, &[], 200, ""),
        (&plain, Method::GET, &close, 200, "CONTENT"),
        (&tls, Method::GET, &[], 200, "CONTENT"),
        (&tls, Method::GET, &range, 206, "ONT"),
        (&h2, Method::GET, &[], 200, "CONTENT"),
        (&h2, Method::GET, &range, 206, "ONT"),
        (&h2, Method::HEAD, &[], 200, ""),
        (&plain_h2, Method::GET, &[], 200, "CONTENT"),
    ];
    let ask = async |(client, method, headers, status, body): &Case<'_>| {
        let reply = client
            .send(method.clone(), &pulled.host, "/a", headers, Bytes::new())
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.text()),
            (*status, *body),
            "{method} {headers:?}"
        );
        assert!(reply.complete);
        but_for_seconds(&reply)
    };
    // In turns each finds what another one has left; in a row, its own.
    let mut first = Vec::new();
    for case in &cases {
        first.push(ask(case).await);
    }
    for (round, times) in [1, OFTEN, 1].into_iter().enumerate() {
        for (case, first) in cases.iter().zip(&first) {
            for time in 0..times {
                assert_eq!(
                    ask(case).await,
                    *first,
                    "round {round}, time {time}: {} {:?}",
                    case.1,
                    case.2
                );
            }
        }
    }
    assert_eq!(first[0]["x-own"], "1");
    for (case, told) in [(0, false), (6, true), (8, true), (11, false)] {
        assert_eq!(first[case].contains_key("alt-svc"), told, "case {case}");
    }
    assert_eq!(pulled.origin.seen().len(), 1);
}

/// What is not a whole answer of status 200, or is another one for each client, has no head to be kept.
#[tokio::test]
async fn what_is_something_else_each_time_has_no_head_that_is_kept() {
    let pulled = server(|seen| match seen.target.split('?').next() {
        Some("/base/none") => {
            Answer::Raw("HTTP/1.1 404 Not Found\r\nCache-Control: max-age=1000\r\nContent-Length: 4\r\n\r\nNONE".into())
        }
        _ => Answer::ok("Cache-Control: max-age=1000\r\n", "#EXTM3U\n#EXTINF:2,\na.ts\n"),
    })
    .await;
    let clients = [
        pulled.edge.http(),
        pulled.edge.https(Protocol::H1),
        pulled.edge.https(Protocol::H2),
    ];
    for client in &clients {
        for time in 0..OFTEN {
            let reply = client.get(&pulled.host, "/none").await;
            assert_eq!((reply.status.as_u16(), reply.text()), (404, "NONE"), "time {time}");
        }
    }
    pulled.project.policy("pulled", "authenticated").await;
    let key = pulled.project.signing_key("bucket_name", "pulled").await;
    let tokens = ["", "a"].map(|uri| sign(&pulled.edge, &key, uri));
    for client in &clients {
        for time in 0..OFTEN {
            for token in &tokens {
                let reply = client.get(&pulled.host, &format!("/a.m3u8?auth={token}")).await;
                assert!(
                    reply.text().ends_with(&format!("a.ts?auth={token}\n")),
                    "time {time}: {}",
                    reply.text()
                );
                assert_eq!(reply.header("cache-control"), "private, no-store", "time {time}");
            }
        }
    }
}

#[tokio::test]
async fn a_head_that_is_kept_grows_older() {
    let pulled = stored().await;
    let age = async || -> u64 {
        let reply = pulled.get("/a").await;
        but_for_seconds(&reply);
        reply.header("age").parse().unwrap()
    };
    let before = age().await;
    until("the answer is two seconds older", async || {
        (age().await >= before + 2).then_some(())
    })
    .await;
}

/// A connection to old clients, and one that is to end, say so.
#[tokio::test]
async fn a_head_that_is_kept_says_how_its_own_connection_goes_on() {
    let pulled = stored().await;
    for _ in 0..OFTEN {
        pulled.get("/a").await;
    }
    for (version, field, said) in [
        ("1.0", "", "connection: close"),
        ("1.0", "Connection: keep-alive\r\n", "connection: keep-alive"),
        ("1.1", "Connection: close\r\n", "connection: close"),
        ("1.1", "", ""),
    ] {
        let mut stream = TcpStream::connect(pulled.address()).await.unwrap();
        let request = format!("GET /a HTTP/{version}\r\nHost: {}\r\n{field}\r\n", pulled.host);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        while !reply.ends_with(b"\r\n\r\nCONTENT") {
            assert!(stream.read_buf(&mut reply).await.unwrap() > 0);
        }
        let reply = String::from_utf8(reply).unwrap();
        let about: Vec<_> = reply.lines().filter(|line| line.starts_with("connection")).collect();
        assert_eq!(about.join("; "), said, "{version} {field}");
        assert_eq!(reply.matches("content-length: 7\r\n").count(), 1, "{reply}");
        assert_eq!(reply.matches("\r\ndate: ").count(), 1, "{reply}");
    }
}

#[tokio::test]
async fn a_change_of_the_bucket_is_seen_in_the_next_head() {
    let pulled = stored().await;
    let path = "/v1/buckets/pulled/cors";
    for allowed in ["https://a.example.com", "https://b.example.com"] {
        for _ in 0..OFTEN {
            pulled.get("/a").await;
        }
        pulled
            .project
            .post(path, json!({"Access-Control-Allow-Origin": allowed}))
            .await;
        for _ in 0..OFTEN {
            let reply = pulled.get("/a").await;
            assert_eq!(reply.header("access-control-allow-origin"), allowed);
        }
    }
    pulled.project.policy("pulled", "authenticated").await;
    let key = pulled.project.signing_key("bucket_name", "pulled").await;
    let signed = format!("/a?auth={}", sign(&pulled.edge, &key, ""));
    for time in 0..OFTEN {
        assert_eq!(pulled.get("/a").await.status, 403);
        let reply = pulled.get(&signed).await;
        // What was stored before is out of reach.
        assert!(time == 0 || is_hit(&reply), "{:?}", reply.headers);
        assert!(reply.header("cache-control").contains("private"), "{:?}", reply.headers);
    }
    pulled.project.policy("pulled", "public").await;
    for _ in 0..OFTEN {
        assert_eq!(pulled.get("/a").await.header("cache-control"), "max-age=1000");
    }
}
