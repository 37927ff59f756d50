//! `Cache-Status` says what the cache did (RFC 9211).

use super::beyond::{settled, with_origin};
use edgeweir_harness::{Answer, Seen};
use http::Method;
use serde_json::json;

fn answer(status: &str, fields: &str) -> Answer {
    Answer::Raw(format!("HTTP/1.1 {status}\r\n{fields}Content-Length: 4\r\nConnection: close\r\n\r\nbody").into())
}

fn origin(seen: &Seen) -> Answer {
    let asked_again = seen.head.contains("if-none-match: \"1\"\r\n");
    match (seen.target.as_str(), asked_again) {
        ("/base/vary", _) => answer("200 OK", "Cache-Control: max-age=60\r\nVary: Accept\r\n"),
        ("/base/no-store", _) => answer("200 OK", "Cache-Control: no-store\r\n"),
        ("/base/failing", _) => answer("500 Failing", ""),
        ("/base/changed", _) => answer("200 OK", "Cache-Control: max-age=0\r\n"),
        ("/base/confirmed", true) => answer("304 Not Modified", "Cache-Control: max-age=60\r\n"),
        ("/base/taken-back", true) => answer("304 Not Modified", "Cache-Control: no-store\r\n"),
        ("/base/failed", true) => answer("503 Failing", ""),
        ("/base/while", true) => answer(
            "304 Not Modified",
            "Cache-Control: max-age=60, stale-while-revalidate=60\r\n",
        ),
        ("/base/while", false) => answer(
            "200 OK",
            "Cache-Control: max-age=60, stale-while-revalidate=60\r\nAge: 90\r\nETag: \"1\"\r\n",
        ),
        ("/base/failed" | "/base/confirmed" | "/base/taken-back", false) => answer(
            "200 OK",
            "Cache-Control: max-age=0, stale-if-error=60\r\nETag: \"1\"\r\n",
        ),
        ("/base/suffix", _) if seen.head.contains("range: bytes=-2\r\n") => Answer::Raw(
            "HTTP/1.1 206 Partial Content\r\nCache-Control: max-age=60\r\nContent-Range: bytes 2-3/4\r\n\
             Content-Length: 2\r\nConnection: close\r\n\r\ndy"
                .into(),
        ),
        _ => answer("200 OK", "Cache-Control: max-age=60\r\nETag: \"1\"\r\n"),
    }
}

/// A request in turn: path, a field, and what the status then is. What follows `ttl=` is another each second.
const REQUESTS: &[(&str, (&str, &str), u16, &str)] = &[
    ("/plain", ("a", "b"), 200, "edgeweir; fwd=uri-miss; stored"),
    ("/plain", ("a", "b"), 200, "edgeweir; hit; ttl="),
    ("/plain", ("range", "bytes=0-1"), 206, "edgeweir; hit; ttl="),
    (
        "/plain?range",
        ("range", "bytes=0-1"),
        206,
        "edgeweir; fwd=uri-miss; stored; fwd-status=200",
    ),
    (
        "/plain?condition",
        ("if-none-match", "\"1\""),
        304,
        "edgeweir; fwd=uri-miss; stored; fwd-status=200",
    ),
    ("/vary", ("accept", "a"), 200, "edgeweir; fwd=uri-miss; stored"),
    ("/vary", ("accept", "a"), 200, "edgeweir; hit; ttl="),
    ("/vary", ("accept", "b"), 200, "edgeweir; fwd=vary-miss; stored"),
    ("/vary", ("accept", "b"), 200, "edgeweir; hit; ttl="),
    ("/no-store", ("a", "b"), 200, "edgeweir; fwd=uri-miss"),
    ("/no-store", ("a", "b"), 200, "edgeweir; fwd=bypass"),
    ("/failing", ("a", "b"), 500, "edgeweir; fwd=uri-miss"),
    ("/failing", ("a", "b"), 500, "edgeweir; fwd=uri-miss"),
    ("/changed", ("a", "b"), 200, "edgeweir; fwd=uri-miss; stored"),
    ("/changed", ("a", "b"), 200, "edgeweir; fwd=stale; stored"),
    ("/confirmed", ("a", "b"), 200, "edgeweir; fwd=uri-miss; stored"),
    (
        "/confirmed",
        ("a", "b"),
        200,
        "edgeweir; fwd=stale; fwd-status=304; stored",
    ),
    ("/confirmed", ("a", "b"), 200, "edgeweir; hit; ttl="),
    ("/taken-back", ("a", "b"), 200, "edgeweir; fwd=uri-miss; stored"),
    ("/taken-back", ("a", "b"), 200, "edgeweir; fwd=stale"),
    ("/failed", ("a", "b"), 200, "edgeweir; fwd=uri-miss; stored"),
    (
        "/failed",
        ("a", "b"),
        200,
        "edgeweir; fwd=stale; fwd-status=503; detail=stale-if-error",
    ),
    ("/while", ("a", "b"), 200, "edgeweir; fwd=uri-miss; stored"),
    ("/while", ("a", "b"), 200, "edgeweir; hit; ttl=-; detail=stale"),
    ("/suffix", ("range", "bytes=-2"), 206, "edgeweir; fwd=uri-miss; stored"),
    ("/suffix", ("range", "bytes=-2"), 206, "edgeweir; hit; ttl="),
    ("/suffix", ("a", "b"), 200, "edgeweir; fwd=partial; stored"),
];

#[tokio::test]
async fn cache_status_says_what_was_done() {
    let (edge, _project, host, _origin) = with_origin(json!({"methods": ["POST"]}), origin).await;
    for (path, field, status, expected) in REQUESTS {
        let reply = settled(&edge, &host, path, &[*field]).await;
        let said = reply.header("cache-status").replace(|c: char| c.is_ascii_digit(), "");
        let without_digits = expected.replace(|c: char| c.is_ascii_digit(), "");
        assert_eq!((reply.status.as_u16(), &*said), (*status, &*without_digits), "{path}");
        for parameter in expected.split("; ").filter(|p| p.starts_with("fwd-status=")) {
            assert!(reply.header("cache-status").contains(parameter), "{path}: {reply:?}");
        }
    }
    let reply = edge.http().send(Method::POST, &host, "/plain", &[], "new".into()).await;
    assert_eq!(reply.header("cache-status"), "edgeweir; fwd=method");
}

#[tokio::test]
async fn a_fetch_for_several_says_so_and_is_not_called_stored_when_it_fails() {
    for (path, stored) in [("/plain", "; stored"), ("/failing", "")] {
        let (edge, _project, host, origin) = with_origin(json!({}), |seen| origin(seen).held()).await;
        let ask = || {
            let (client, host) = (edge.http(), host.clone());
            tokio::spawn(async move { client.get(&host, path).await })
        };
        let first = ask();
        origin.asked(1).await;
        let others: Vec<_> = (0..4).map(|_| ask()).collect();
        // Whoever is counted has joined, or will find it stored.
        origin.release();
        let expected = format!("edgeweir; fwd=uri-miss{stored}");
        assert_eq!(first.await.unwrap().header("cache-status"), expected);
        for other in others {
            let reply = other.await.unwrap();
            let status = reply.header("cache-status");
            let collapsed = format!("{expected}; collapsed");
            let alone = status == expected && stored.is_empty();
            assert!(
                status == collapsed || status.starts_with("edgeweir; hit") || alone,
                "{status}"
            );
        }
    }
}
