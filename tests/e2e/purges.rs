//! Purges over the API: what is purged counts at the next request, and nothing else does.

use crate::pulled::{Pulled, is_hit};
use bytes::Bytes;
use edgeweir_harness::{Answer, Large, Seen};
use http::Method;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

const PURGE: &str = "/v1/buckets/pulled/cache/purge";
const PURGE_ALL: &str = "/v1/buckets/pulled/cache/purge_all";

/// The surrogate keys of a path: what it has of `film` and `news` in its name, in one field or the other.
fn keys(path: &str) -> String {
    let field = if path.contains("tagged") {
        "Cache-Tag: all, "
    } else {
        "Surrogate-Key: all "
    };
    let keys: Vec<_> = ["film", "news"].into_iter().filter(|key| path.contains(key)).collect();
    let between = if path.contains("tagged") { "," } else { " " };
    format!("{field}{}\r\n", keys.join(between))
}

/// An origin whose objects are of one version, which a test counts up.
async fn versioned() -> (Pulled, Arc<AtomicUsize>) {
    let version = Arc::new(AtomicUsize::new(1));
    let at = version.clone();
    let pulled = Pulled::start(&[], move |seen| {
        let version = at.load(Ordering::SeqCst);
        let etag = format!("\"{version}\"");
        let fields = format!("Cache-Control: max-age=600\r\nETag: {etag}\r\n{}", keys(&seen.target));
        if seen.field("if-none-match") == Some(&*etag) {
            let head = format!("HTTP/1.1 304 Not Modified\r\n{fields}Connection: close\r\n\r\n");
            return Answer::Raw(head.into());
        }
        Answer::ok(&fields, &format!("v{version}"))
    })
    .await;
    (pulled, version)
}

const PATHS: [&str; 7] = [
    "/a/film",
    "/a/film?x=1",
    "/a/news",
    "/a/tagged-news",
    "/ab/film-news",
    "/b/film",
    "/b/x",
];

/// What a purge takes of [`PATHS`].
fn purges() -> Vec<(&'static str, Value, &'static [&'static str])> {
    vec![
        (PURGE, json!({"path": "a/film"}), &["/a/film", "/a/film?x=1"]),
        (PURGE, json!({"path": "/a/news"}), &["/a/news"]),
        (PURGE, json!({"path": "a"}), &[]),
        (
            PURGE,
            json!({"prefix": "a/"}),
            &["/a/film", "/a/film?x=1", "/a/news", "/a/tagged-news"],
        ),
        (
            PURGE,
            json!({"prefix": "/a"}),
            &["/a/film", "/a/film?x=1", "/a/news", "/a/tagged-news", "/ab/film-news"],
        ),
        (
            PURGE,
            json!({"surrogate_keys": ["film"]}),
            &["/a/film", "/a/film?x=1", "/ab/film-news", "/b/film"],
        ),
        (
            PURGE,
            json!({"surrogate_keys": ["news", "other"]}),
            &["/a/news", "/a/tagged-news", "/ab/film-news"],
        ),
        (PURGE, json!({"surrogate_keys": ["fil"]}), &[]),
        (PURGE_ALL, json!({}), &PATHS),
    ]
}

#[tokio::test]
async fn a_purge_takes_what_it_names_from_the_next_request_on() {
    let (pulled, version) = versioned().await;
    let mut held = [0; PATHS.len()];
    for (call, purge, purged) in purges() {
        for (path, held) in PATHS.iter().zip(&mut held) {
            if *held == 0 {
                pulled.get(path).await;
                *held = version.load(Ordering::SeqCst);
            }
            assert!(is_hit(&pulled.get(path).await), "{path}");
        }
        let new = version.fetch_add(1, Ordering::SeqCst) + 1;
        let asked = pulled.origin.seen().len();
        pulled.project.post(call, purge.clone()).await;
        for (path, held) in PATHS.iter().zip(&mut held) {
            let is_purged = purged.contains(path);
            let reply = pulled.get(path).await;
            assert_eq!(is_hit(&reply), !is_purged, "{path} after {purge}: {:?}", reply.headers);
            if is_purged {
                *held = new;
            }
            assert_eq!(reply.text(), format!("v{held}"), "{path} after {purge}");
        }
        let seen = pulled.origin.seen();
        assert_eq!(seen.len() - asked, purged.len(), "{purge}");
        assert!(
            seen[asked..].iter().all(|seen| seen.field("if-none-match").is_none()),
            "{purge}"
        );
    }
}

#[tokio::test]
async fn what_is_purged_softly_is_kept_if_the_origin_confirms_it() {
    let (pulled, version) = versioned().await;
    for (call, mut purge, purged) in purges() {
        purge["soft"] = json!(true);
        for path in PATHS {
            pulled.get(path).await;
        }
        let held = format!("v{}", version.load(Ordering::SeqCst));
        let mut asked = pulled.origin.seen().len();
        for (changes, status) in [(false, "fwd-status=304"), (true, "fwd")] {
            let text = if changes {
                format!("v{}", version.fetch_add(1, Ordering::SeqCst) + 1)
            } else {
                held.clone()
            };
            pulled.project.post(call, purge.clone()).await;
            for path in PATHS {
                let (reply, is_purged) = (pulled.get(path).await, purged.contains(&path));
                assert_eq!(is_hit(&reply), !is_purged, "{path} after {purge}: {:?}", reply.headers);
                let (status, text) = if is_purged { (status, &text) } else { ("hit", &held) };
                assert!(
                    reply.header("cache-status").contains(status),
                    "{path} after {purge}: {:?}",
                    reply.headers
                );
                assert_eq!(reply.text(), text, "{path} after {purge}");
                assert!(is_hit(&pulled.get(path).await), "{path} after {purge}");
            }
            let seen = pulled.origin.seen();
            assert_eq!(seen.len() - asked, purged.len(), "{purge}");
            assert!(
                seen[asked..].iter().all(|seen| seen.field("if-none-match").is_some()),
                "{purge}"
            );
            asked = seen.len();
        }
        // All of one version for the next one.
        pulled.project.post(PURGE_ALL, json!({})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_wins_over_an_answer_that_is_under_way_and_what_comes_after_it_is_kept() {
    let softly = |(call, mut purge, purged): (_, Value, _)| {
        purge["soft"] = json!(true);
        (call, purge, purged)
    };
    let all: Vec<_> = purges().into_iter().chain(purges().into_iter().map(softly)).collect();
    for (call, purge, _) in all.into_iter().filter(|(_, _, purged)| purged.contains(&"/a/film")) {
        let asked = AtomicUsize::new(0);
        let pulled = Pulled::start(&[], move |seen| {
            let version = asked.fetch_add(1, Ordering::SeqCst) + 1;
            let answer = Answer::ok(
                &format!("Cache-Control: max-age=600\r\n{}", keys(&seen.target)),
                &format!("v{version}"),
            );
            let Answer::Raw(bytes) = &answer else { return answer };
            let all_but_the_last = bytes.len() - 1;
            if version == 1 {
                answer.held_after(all_but_the_last)
            } else {
                answer
            }
        })
        .await;
        let first = {
            let (client, host) = (pulled.edge.http(), pulled.host.clone());
            tokio::spawn(async move { client.get(&host, "/a/film").await })
        };
        pulled.origin.asked(1).await;
        pulled.project.post(call, purge.clone()).await;
        assert_eq!(pulled.get("/a/film").await.text(), "v2", "{purge}");
        pulled.origin.release();
        assert_eq!(first.await.unwrap().text(), "v1", "{purge}");
        // What came first must not take the place of what came after the purge.
        for _ in 0..2 {
            let reply = pulled.get("/a/film").await;
            assert_eq!((reply.text(), is_hit(&reply)), ("v2", true), "{purge}");
        }
        assert_eq!(pulled.origin.seen().len(), 2, "{purge}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_takes_a_large_object_with_its_slices_also_while_one_is_under_way() {
    const SLICE: u64 = 1 << 20;
    let object = Large {
        headers: "Cache-Control: max-age=600\r\nAccept-Ranges: bytes\r\nSurrogate-Key: film\r\n".to_owned(),
        ..Large::new(20_000_000_000)
    };
    for purge in [
        json!({"path": "film.mp4"}),
        json!({"prefix": "fi"}),
        json!({"surrogate_keys": ["film"]}),
        json!({"surrogate_keys": ["film"], "soft": true}),
    ] {
        let version = Arc::new(AtomicUsize::new(1));
        let (at, of) = (version.clone(), object.clone());
        let pulled = Pulled::start(&[], move |seen: &Seen| {
            let object = of.version(at.load(Ordering::SeqCst) as u8);
            let is_held = seen.range().is_some_and(|range| range.start == 9 * SLICE);
            let at_once = if is_held { 1_000 } else { u64::MAX };
            Large { at_once, ..object }.answer(seen)
        })
        .await;
        for slice in [0, 5] {
            pulled.range("/film.mp4", slice * SLICE..slice * SLICE + 10).await;
        }
        let first = {
            let (client, host) = (pulled.edge.http(), pulled.host.clone());
            let range = format!("bytes={}-{}", 9 * SLICE, 10 * SLICE - 1);
            tokio::spawn(async move { client.get_with(&host, "/film.mp4", &[("range", &range)]).await })
        };
        pulled.origin.asked(3).await;
        version.store(2, Ordering::SeqCst);
        pulled.purge(purge.clone()).await;
        let new = object.version(2);
        for slice in [0, 5] {
            let range = slice * SLICE..slice * SLICE + 10;
            assert_eq!(
                pulled.range("/film.mp4", range.clone()).await.body,
                new.bytes(range),
                "{purge}"
            );
        }
        pulled.origin.release();
        let first = first.await.unwrap();
        assert!(
            first.complete && first.body == object.bytes(9 * SLICE..10 * SLICE),
            "{purge}"
        );
        for slice in [9, 0] {
            let range = slice * SLICE..slice * SLICE + 10;
            assert_eq!(
                pulled.range("/film.mp4", range.clone()).await.body,
                new.bytes(range),
                "{purge}"
            );
        }
    }
}

#[tokio::test]
async fn a_softly_purged_copy_serves_where_the_origin_lets_it_and_a_purged_one_never() {
    let down = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = down.clone();
    let pulled = Pulled::start(&[], move |_| {
        if state.load(Ordering::SeqCst) {
            return Answer::Raw("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into());
        }
        Answer::ok("Cache-Control: max-age=600, stale-if-error=600\r\n", "content")
    })
    .await;
    pulled.get("/a").await;
    down.store(true, Ordering::SeqCst);
    pulled.purge(json!({"path": "a", "soft": true})).await;
    let stale = pulled.get("/a").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "content"));
    assert!(stale.header("cache-status").contains("stale"), "{:?}", stale.headers);
    pulled.purge(json!({"path": "a"})).await;
    assert_eq!(pulled.get("/a").await.status, 503);
}

#[tokio::test]
async fn clients_see_no_surrogate_keys() {
    let tags = "Surrogate-Key: SECRET-a SECRET-b\r\nCache-Tag: SECRET-c\r\n";
    let pulled = Pulled::start(&[], move |seen| {
        let fields = format!("Cache-Control: max-age=600\r\nETag: \"v1\"\r\n{tags}");
        match seen.target.as_str() {
            "/base/large" | "/base/suffix" => Large {
                headers: format!("Cache-Control: max-age=600\r\nAccept-Ranges: bytes\r\n{tags}"),
                ..Large::new(3 << 20)
            }
            .answer(seen),
            "/base/private" => Answer::ok(&format!("Cache-Control: private\r\n{tags}"), "own"),
            "/base/missing" => Answer::Raw(
                format!("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n{tags}Connection: close\r\n\r\n").into(),
            ),
            "/base/revalidated" => {
                let stale = format!("Cache-Control: max-age=0\r\nETag: \"v1\"\r\n{tags}");
                if seen.field("if-none-match").is_some() {
                    Answer::Raw(format!("HTTP/1.1 304 Not Modified\r\n{stale}Connection: close\r\n\r\n").into())
                } else {
                    Answer::ok(&stale, "content")
                }
            }
            _ => Answer::ok(&fields, "content"),
        }
    })
    .await;
    for path in ["/a", "/large", "/private", "/missing", "/revalidated"] {
        for fields in [
            vec![],
            vec![],
            vec![("range", "bytes=1-2")],
            vec![("range", "bytes=1-2,5-6")],
            vec![("if-none-match", "\"v1\"")],
            vec![("if-match", "\"v0\"")],
            vec![("range", "bytes=9999999-")],
        ] {
            let head = pulled.head(path).await;
            let get = pulled.get_with(path, &fields).await;
            for reply in [head, get] {
                for (name, value) in &reply.headers {
                    let value = String::from_utf8_lossy(value.as_bytes());
                    assert!(
                        !value.contains("SECRET"),
                        "{path} {fields:?} {}: {name}: {value}",
                        reply.status
                    );
                }
            }
        }
    }
    let suffix = pulled.get_with("/suffix", &[("range", "bytes=-5")]).await;
    assert_eq!(
        (
            suffix.status.as_u16(),
            suffix.header("surrogate-key"),
            suffix.header("cache-tag")
        ),
        (206, "", "")
    );
}

#[tokio::test]
async fn a_purge_that_cannot_be_understood_says_why_and_purges_nothing() {
    let (pulled, _) = versioned().await;
    for path in PATHS {
        pulled.get(path).await;
    }
    let keys = |count: usize| json!({"surrogate_keys": vec!["film"; count]}).to_string();
    for (call, body, status, code, field) in [
        (
            PURGE,
            json!({"path": "a/film", "prefix": "a/"}).to_string(),
            400,
            "one_target_required",
            "prefix",
        ),
        (
            PURGE,
            json!({"path": "a/film", "surrogate_keys": ["film"]}).to_string(),
            400,
            "one_target_required",
            "surrogate_keys",
        ),
        (PURGE, json!({}).to_string(), 400, "missing_field", "path"),
        (PURGE, json!({"soft": true}).to_string(), 400, "missing_field", "path"),
        (PURGE, json!({"path": ""}).to_string(), 422, "invalid_path", "path"),
        (
            PURGE,
            json!({"path": "a/../b/x"}).to_string(),
            422,
            "invalid_path",
            "path",
        ),
        (
            PURGE,
            json!({"prefix": ""}).to_string(),
            422,
            "invalid_prefix",
            "prefix",
        ),
        (
            PURGE,
            json!({"prefix": "/"}).to_string(),
            422,
            "invalid_prefix",
            "prefix",
        ),
        (
            PURGE,
            json!({"surrogate_keys": []}).to_string(),
            422,
            "invalid_surrogate_keys",
            "surrogate_keys",
        ),
        (
            PURGE,
            json!({"surrogate_keys": ["film", ""]}).to_string(),
            422,
            "invalid_surrogate_keys",
            "surrogate_keys[1]",
        ),
        (
            PURGE,
            json!({"surrogate_keys": ["film news"]}).to_string(),
            422,
            "invalid_surrogate_keys",
            "surrogate_keys[0]",
        ),
        (PURGE, keys(65), 422, "invalid_surrogate_keys", "surrogate_keys"),
        (PURGE, json!({"surrogate_keys": "film"}).to_string(), 400, "", ""),
        (PURGE, json!({"path": ["a/film"]}).to_string(), 400, "", ""),
        (PURGE, json!({"path": "a/film", "soft": "yes"}).to_string(), 400, "", ""),
        (
            PURGE,
            json!({"path": "a/film", "hard": true}).to_string(),
            400,
            "",
            "hard",
        ),
        (PURGE, json!(["a/film"]).to_string(), 400, "", ""),
        (PURGE, "{\"path\": \"a/film\"".to_owned(), 400, "", ""),
        (PURGE_ALL, json!({"soft": 1}).to_string(), 400, "", ""),
        (PURGE_ALL, json!({"path": "a/film"}).to_string(), 400, "", "path"),
        (
            "/v1/buckets/other/cache/purge",
            json!({"path": "a/film"}).to_string(),
            404,
            "",
            "",
        ),
    ] {
        let reply = pulled.project.call(Method::POST, call, body.clone()).await;
        let error = reply.json();
        assert_eq!(reply.status.as_u16(), status, "{body}: {error}");
        assert!(
            error["message"].as_str().is_some_and(|text| text.len() > 5),
            "{body}: {error}"
        );
        for (name, expected) in [("error", code), ("field", field)] {
            assert!(expected.is_empty() || error[name] == expected, "{body}: {error}");
        }
    }
    for path in PATHS {
        assert!(is_hit(&pulled.get(path).await), "{path}");
    }
    // Somebody else's.
    let other = pulled.edge.project().await;
    let reply = other
        .call(Method::POST, PURGE, json!({"path": "a/film"}).to_string())
        .await;
    assert_eq!(reply.status, 404);
    let anybody = pulled.edge.address("api");
    let client = edgeweir_harness::Client::plain(anybody, edgeweir_harness::Protocol::H1);
    let reply = client
        .send(Method::POST, "localhost", PURGE_ALL, &[], Bytes::new())
        .await;
    assert_eq!(reply.status, 401);
    assert!(is_hit(&pulled.get("/a/film").await));
}
