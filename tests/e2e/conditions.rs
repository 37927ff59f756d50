//! Conditional requests of what is stored: what a cache answers by itself, and what only the origin may refuse.

use crate::{
    pulled::{Pulled, is_hit},
    sign,
};
use bytes::Bytes;
use edgeweir_harness::{Answer, Large, Reply};
use http::Method;
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

const MODIFIED: &str = "Mon, 01 Jan 2024 00:00:00 GMT";
const BEFORE: &str = "Sun, 31 Dec 2023 00:00:00 GMT";

fn told(reply: &Reply) -> (u16, &str, &str) {
    (
        reply.status.as_u16(),
        reply.header("etag"),
        reply.header("cache-status"),
    )
}

/// RFC 9111 §4.3.2: `If-Match` and `If-Unmodified-Since` are the origin's to evaluate.
#[tokio::test]
async fn a_condition_that_what_is_stored_does_not_meet_is_for_the_origin() {
    let version = Arc::new(AtomicU8::new(1));
    let at = version.clone();
    let object = Large {
        headers: format!("Cache-Control: max-age=600\r\nAccept-Ranges: bytes\r\nLast-Modified: {MODIFIED}\r\n"),
        ..Large::new(10)
    };
    let of = object.clone();
    let pulled = Pulled::start(&[], move |seen| of.version(at.load(Ordering::SeqCst)).answer(seen)).await;
    assert_eq!(pulled.get("/a").await.body, object.whole());
    pulled.stored(1).await;
    let new = object.version(2);
    version.store(2, Ordering::SeqCst);

    let hit = ["edgeweir; hit", "\"v1\""];
    let asked = ["edgeweir; fwd=request", "\"v2\""];
    let range = ("range", "bytes=2-4");
    let cases = [
        (vec![], 200, hit, object.whole()),
        (vec![("if-match", "\"v1\"")], 200, hit, object.whole()),
        (vec![("if-match", "*")], 200, hit, object.whole()),
        (vec![("if-unmodified-since", MODIFIED)], 200, hit, object.whole()),
        (vec![("if-match", "\"v2\"")], 200, asked, new.whole()),
        (vec![("if-match", "\"v1\""), range], 206, hit, object.bytes(2..5)),
        (vec![("if-match", "\"v2\""), range], 206, asked, new.bytes(2..5)),
        (vec![("if-match", "\"v0\"")], 412, asked, Bytes::new()),
        // It minds no dates.
        (vec![("if-unmodified-since", BEFORE)], 200, asked, new.whole()),
        (vec![], 200, hit, object.whole()),
    ];
    for (headers, status, [cache_status, etag], body) in cases {
        for method in [Method::GET, Method::HEAD] {
            let before = pulled.origin.seen().len();
            let client = pulled.edge.http();
            let reply = client
                .send(method.clone(), &pulled.host, "/a", &headers, Bytes::new())
                .await;
            let seen = pulled.origin.seen();
            let case = format!("{method} {headers:?}: {:?}", reply.headers);
            // A range of a HEAD is ignored where it is answered here.
            let as_get = method == Method::GET || cache_status == asked[0] || status != 206;
            assert_eq!(reply.status, if as_get { status } else { 200 }, "{case}");
            assert_eq!(reply.header("etag"), etag, "{case}");
            assert!(reply.header("cache-status").starts_with(cache_status), "{case}");
            assert!(method == Method::HEAD || reply.body == body, "{case}");
            let ones_own = cache_status == asked[0];
            assert_eq!(seen.len(), before + usize::from(ones_own), "{case}");
            if ones_own {
                let last = seen.last().unwrap();
                assert_eq!(last.method, method.as_str(), "{case}");
                for (name, value) in &headers {
                    assert!(
                        last.head.contains(&format!("{name}: {}\r\n", value.to_lowercase())),
                        "{case}"
                    );
                }
            }
        }
    }

    // Of what nobody has asked for yet.
    let before = pulled.origin.seen().len();
    let reply = pulled.get_with("/b", &[("if-match", "\"v1\"")]).await;
    assert_eq!(told(&reply), (412, "\"v2\"", "edgeweir; fwd=request"));
    assert_eq!(pulled.origin.seen().len(), before + 2);
    let reply = pulled.get_with("/b", &[("if-match", "\"v2\"")]).await;
    assert!(reply.status == 200 && is_hit(&reply), "{:?}", reply.headers);

    // Who wants nothing but what is stored gets nothing.
    let before = pulled.origin.seen().len();
    let cached = ("cache-control", "only-if-cached");
    for (tag, status) in [("\"v1\"", 200), ("\"v2\"", 504)] {
        let reply = pulled.get_with("/a", &[("if-match", tag), cached]).await;
        assert_eq!(reply.status, status, "{tag}");
    }
    assert_eq!(pulled.origin.seen().len(), before);
}

#[tokio::test]
async fn a_condition_of_a_playlist_with_a_token_in_it_is_for_the_origin() {
    let pulled = Pulled::start(&[], |seen| {
        let fields = "Cache-Control: max-age=600\r\nETag: \"v1\"\r\n";
        if seen.field("if-match").is_some_and(|tag| tag != "\"v1\"") {
            let head =
                format!("HTTP/1.1 412 Precondition Failed\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n");
            return Answer::Raw(head.into());
        }
        Answer::ok(fields, "#EXTM3U\na.ts\n")
    })
    .await;
    pulled.project.policy("pulled", "authenticated").await;
    let key = pulled.project.signing_key("bucket_name", "pulled").await;
    let token = sign(&pulled.edge, &key, "");
    let path = format!("/p.m3u8?auth={token}");
    let text = format!("#EXTM3U\na.ts?auth={token}\n");
    assert_eq!(pulled.get(&path).await.text(), text);
    pulled.stored(1).await;
    for (tag, status) in [("\"v1\"", 200), ("\"v0\"", 412)] {
        let reply = pulled.get_with(&path, &[("if-match", tag)]).await;
        assert_eq!(reply.status, status, "{tag}");
        assert_eq!(reply.text(), if status == 200 { &*text } else { "" });
        assert!(reply.header("cache-control").contains("private"), "{:?}", reply.headers);
    }
    assert_eq!(pulled.origin.seen().len(), 3);
}

/// RFC 9110 §13.2.1: of answers that are neither 2xx nor 412 conditions are ignored, and of no others. A range is of a 200
/// alone here, which §14.2 allows.
#[tokio::test]
async fn conditions_are_of_every_answer_that_is_a_success() {
    let pulled = Pulled::start(&[], |seen| {
        let status = match seen.target.as_str() {
            "/base/203" => "203 Non-Authoritative Information",
            "/base/204" => "204 No Content",
            _ => "404 Not Found",
        };
        let body = if status.starts_with("204") {
            ""
        } else {
            "Content-Length: 7\r\n\r\nCONTENT"
        };
        let fields = "Cache-Control: max-age=600\r\nETag: \"a\"\r\nConnection: close";
        let end = if body.is_empty() { "\r\n\r\n" } else { "\r\n" };
        Answer::Raw(format!("HTTP/1.1 {status}\r\n{fields}{end}{body}").into())
    })
    .await;
    for (path, status, conditional) in [("/203", 203, 304), ("/204", 204, 304), ("/404", 404, 404)] {
        assert_eq!(pulled.get(path).await.status, status);
        for (name, value, status) in [
            ("if-none-match", "\"a\"", conditional),
            ("if-none-match", "\"b\"", status),
            ("if-match", "\"a\"", status),
            ("range", "bytes=0-1", status),
        ] {
            let reply = pulled.get_with(path, &[(name, value)]).await;
            assert!(is_hit(&reply), "{path} {name}: {:?}", reply.headers);
            assert_eq!(reply.status, status, "{path} {name}: {value}");
        }
    }
    assert_eq!(pulled.origin.seen().len(), 3);
}
