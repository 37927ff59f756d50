//! The cache in front of HTTP origins and local buckets.

use crate::{BINARY, pulled::Pulled, sign};
use bytes::Bytes;
use edgeweir_harness::{Answer, Edge, Origin, Project, Seen};
use http::Method;
use serde_json::json;
use std::{
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn with_origin(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> (Edge, Project, String, Origin) {
    let Pulled {
        edge,
        project,
        host,
        origin,
    } = Pulled::start(&[], answer).await;
    (edge, project, host, origin)
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_misses_are_one_origin_request() {
    let (edge, _project, host, origin) =
        with_origin(|_| Answer::ok("Cache-Control: max-age=60\r\n", "content").held()).await;
    let clients: Vec<_> = (0..50)
        .map(|_| {
            let (client, host) = (edge.http(), host.clone());
            tokio::spawn(async move { client.get(&host, "/a.ts").await })
        })
        .collect();
    origin.asked(1).await;
    origin.release();
    for client in clients {
        let reply = client.await.unwrap();
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "content"));
    }
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(origin.seen()[0].target, "/base/a.ts");
}

#[tokio::test]
async fn nothing_of_a_viewer_reaches_the_origin_the_cache_or_the_log() {
    let playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsegment.ts?x=1\n#EXTINF:2,\nhttps://other.example/b.ts\n#EXT-X-ENDLIST\n";
    let manifest = "<MPD><Period><BaseURL>v/</BaseURL><AdaptationSet><SegmentTemplate media=\"s-$Number$.m4s\" initialization=\"i.m4s\"/></AdaptationSet></Period></MPD>";
    let (edge, project, host, origin) = with_origin(move |seen| match seen.target.split('?').next() {
        Some("/base/p.m3u8") => Answer::ok("Cache-Control: max-age=60\r\n", playlist),
        Some("/base/m.mpd") => Answer::ok("Cache-Control: max-age=60\r\n", manifest),
        _ => Answer::ok("Cache-Control: max-age=60\r\n", "bytes"),
    })
    .await;
    project.policy("pulled", "authenticated").await;
    let key = project.signing_key("bucket_name", "pulled").await;
    let (first, second) = (sign(&edge, &key, ""), sign(&edge, &key, "p"));
    let cookie = [
        ("cookie", "session=COOKIE"),
        ("authorization", "Basic BASIC"),
        ("x-forwarded-host", "evil.example"),
        ("referer", "https://site.example/?auth=REFERER"),
        ("connection", "x-custom"),
        ("x-custom", "CUSTOM"),
    ];
    for token in [&first, &second] {
        for _ in 0..2 {
            let reply = edge
                .http()
                .get_with(&host, &format!("/p.m3u8?auth={token}"), &cookie)
                .await;
            assert_eq!(reply.header("cache-control"), "private, no-store");
            assert!(
                reply.text().contains(&format!("segment.ts?x=1&auth={token}\n")),
                "{}",
                reply.text()
            );
            assert!(
                reply.text().contains("https://other.example/b.ts\n"),
                "a token went to another site"
            );
        }
    }
    let reply = edge.http().get(&host, &format!("/m.mpd?auth={first}")).await;
    assert!(
        reply.text().contains(&format!("media=\"s-$Number$.m4s?auth={first}\"")),
        "{}",
        reply.text()
    );
    assert_eq!(reply.header("cache-control"), "private, no-store");
    let segment = edge.http().get(&host, &format!("/segment.ts?x=1&auth={first}")).await;
    assert_eq!((segment.status.as_u16(), segment.text()), (200, "bytes"));
    assert!(segment.header("cache-control").starts_with("private"));
    // The other token's viewer gets the same copy.
    let all = sign(&edge, &key, "segment");
    assert!(
        edge.http()
            .get(&host, &format!("/segment.ts?auth={all}&x=1"))
            .await
            .header("cache-status")
            .contains("hit")
    );
    // Refused: logged by reason, never with the token.
    edge.http().get(&host, &format!("/other?auth={first}x")).await;

    assert_eq!(
        origin.seen().iter().map(|s| s.target.as_str()).collect::<Vec<_>>(),
        ["/base/p.m3u8", "/base/m.mpd", "/base/segment.ts?x=1"]
    );
    for seen in origin.seen() {
        for secret in [
            "auth",
            "cookie",
            "basic",
            "evil.example",
            "referer",
            "custom",
            "x-forwarded",
        ] {
            assert!(!seen.head.contains(secret), "{secret} in {}", seen.head);
        }
        assert_eq!(seen.method, "GET");
    }
    // The cached copy is bare: with the bucket public, everyone gets it as it came.
    project.policy("pulled", "public").await;
    let bare = edge.http().get(&host, "/p.m3u8").await;
    assert_eq!((bare.text(), origin.seen().len()), (playlist, 3));
    let metrics = edgeweir_harness::Client::plain(edge.address("admin"), edgeweir_harness::Protocol::H1)
        .get("localhost", "/metrics")
        .await;
    assert!(
        metrics.text().contains("edgeweir_edge_answers_total{cache=\"Hit\"}"),
        "{}",
        metrics.text()
    );
    for text in [edge.log(), metrics.text().to_owned()] {
        for secret in [&first, &second, &project.api_key, &project.token, "COOKIE"] {
            assert!(!text.contains(secret), "a secret was written down");
        }
        assert!(!text.contains("PRIVATE KEY"));
    }
}

#[tokio::test]
async fn purged_and_replaced_objects_are_new_at_the_next_request() {
    let counter = std::sync::atomic::AtomicU32::new(0);
    let (edge, project, host, origin) = with_origin(move |_| {
        let version = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Answer::ok("Cache-Control: max-age=600\r\n", &format!("v{version}"))
    })
    .await;
    let get = async |path: &str| edge.http().get(&host, path).await.text().to_owned();
    assert_eq!(
        (get("/a.ts").await, get("/a.ts").await, get("/b.ts").await),
        ("v0".into(), "v0".into(), "v1".into())
    );
    project
        .post("/v1/buckets/pulled/cache/purge", json!({"path": "a.ts"}))
        .await;
    assert_eq!((get("/a.ts").await, get("/b.ts").await), ("v2".into(), "v1".into()));
    project
        .ok(Method::POST, "/v1/buckets/pulled/cache/purge_all", Bytes::new())
        .await;
    assert_eq!((get("/a.ts").await, get("/b.ts").await), ("v3".into(), "v4".into()));
    assert_eq!(origin.seen().len(), 5);
    // Objects of local buckets purge themselves.
    let local = project.bucket("local").await;
    for version in ["one", "two", "three"] {
        project.put("local", "x.m3u8", version).await;
        assert_eq!(edge.http().get(&local, "/x.m3u8").await.text(), version);
        assert_eq!(edge.http().get(&local, "/x.m3u8").await.text(), version);
    }
    project
        .ok(Method::DELETE, "/v1/buckets/local/objects/x.m3u8", Bytes::new())
        .await;
    assert_eq!(edge.http().get(&local, "/x.m3u8").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_wins_over_a_fetch_that_began_before_it() {
    let counter = std::sync::atomic::AtomicU32::new(0);
    let (edge, project, host, origin) = with_origin(move |_| {
        let version = counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let answer = Answer::ok("Cache-Control: max-age=600\r\n", &format!("v{version}"));
        if version == 0 { answer.held() } else { answer }
    })
    .await;
    let slow = {
        let (client, host) = (edge.http(), host.clone());
        tokio::spawn(async move { client.get(&host, "/a.ts").await })
    };
    origin.asked(1).await;
    project
        .post("/v1/buckets/pulled/cache/purge", json!({"path": "a.ts"}))
        .await;
    assert_eq!(edge.http().get(&host, "/a.ts").await.text(), "v1");
    origin.release();
    assert_eq!(slow.await.unwrap().text(), "v0");
    assert_eq!(edge.http().get(&host, "/a.ts").await.text(), "v1");
}

#[tokio::test]
async fn broken_and_unshareable_answers_are_not_kept() {
    let (edge, _project, host, origin) = with_origin(|seen| match seen.target.as_str() {
        "/base/short" => Answer::Raw(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nCache-Control: max-age=60\r\n\r\nhalf",
        )),
        "/base/chunk" => Answer::Raw(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nCache-Control: max-age=60\r\n\r\n4\r\nhalf\r\n",
        )),
        "/base/garbage" => Answer::Raw(Bytes::from_static(b"not HTTP at all\r\n\r\n")),
        "/base/cookie" => Answer::ok("Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n", "own"),
        "/base/private" => Answer::ok("Cache-Control: private, max-age=60\r\n", "own"),
        "/base/no-store" => Answer::ok("Cache-Control: no-store\r\n", "own"),
        "/base/vary" => Answer::ok("Cache-Control: max-age=60\r\nVary: *\r\n", "own"),
        "/base/redirect" => Answer::Raw(Bytes::from_static(
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )),
        _ => Answer::ok("", ""),
    })
    .await;
    for path in ["/short", "/chunk"] {
        for _ in 0..2 {
            let reply = edge.http().try_send(Method::GET, &host, path, &[], Bytes::new()).await;
            assert!(
                !reply.is_ok_and(|r| r.complete),
                "{path}: the client does not see the break"
            );
        }
    }
    for _ in 0..2 {
        let reply = edge.http().get(&host, "/garbage").await;
        assert_eq!((reply.status.as_u16(), reply.error().as_str()), (502, "origin_error"));
    }
    for path in ["/cookie", "/private", "/no-store", "/vary"] {
        for _ in 0..2 {
            assert_eq!(edge.http().get(&host, path).await.text(), "own", "{path}");
        }
    }
    for path in ["/short", "/chunk", "/cookie", "/private", "/no-store", "/vary"] {
        let asked = origin
            .seen()
            .iter()
            .filter(|s| s.target == format!("/base{path}"))
            .count();
        assert!(asked >= 2, "{path} was kept");
    }
    // Redirects are the client's to follow.
    let reply = edge.http().get(&host, "/redirect").await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("location")),
        (302, "http://169.254.169.254/")
    );
}

#[tokio::test]
async fn an_origin_that_is_away_is_told_from_one_that_may_not_be_asked() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    // Port 1 of loopback: nobody listens.
    let away = project
        .bucket_at("away", json!({"type": "http", "url": "http://127.0.0.1:1"}))
        .await;
    let reply = edge.http().get(&away, "/x").await;
    assert_eq!((reply.status.as_u16(), reply.error().as_str()), (502, "origin_error"));

    let strict = Edge::start_with(BINARY, &[("origins.allow_private", "false")]).await;
    let project = strict.project().await;
    let refused = project
        .call(
            Method::POST,
            "/v1/buckets",
            json!({"name": "bee", "origin": {"type": "http", "url": "http://127.0.0.1:1"}}).to_string(),
        )
        .await;
    assert_eq!(
        (refused.status.as_u16(), refused.error().as_str()),
        (422, "origin_private")
    );
}

#[tokio::test]
async fn other_methods_reach_an_origin_that_takes_them_and_invalidate() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(|seen| Answer::ok("Cache-Control: max-age=60\r\n", &seen.method)).await;
    let open = json!({"type": "http", "url": origin.url(), "methods": ["GET", "HEAD", "POST"]});
    let host = project.bucket_at("open", open).await;
    edge.http().get(&host, "/a").await;
    assert!(
        edge.http()
            .get(&host, "/a")
            .await
            .header("cache-status")
            .contains("hit")
    );
    let posted = edge
        .http()
        .send(Method::POST, &host, "/a", &[], Bytes::from_static(b"body"))
        .await;
    assert_eq!((posted.status.as_u16(), posted.text()), (200, "POST"));
    assert!(
        !edge
            .http()
            .get(&host, "/a")
            .await
            .header("cache-status")
            .contains("hit")
    );
    assert_eq!(
        edge.http()
            .send(Method::PUT, &host, "/a", &[], Bytes::new())
            .await
            .status,
        405
    );
}

#[tokio::test]
async fn a_name_that_leads_to_a_private_address_is_refused_when_it_is_connected_to() {
    let edge = Edge::start_with(BINARY, &[("origins.allow_private", "false")]).await;
    let project = edge.project().await;
    let origin = Origin::serve(|_| Answer::ok("", "secret")).await;
    let port = origin.url().rsplit_once(':').unwrap().1.to_owned();
    // No addresses as the API reads them, but names that the system's resolver takes for 127.0.0.1.
    for (bucket, name) in [("short", "127.1"), ("number", "2130706433")] {
        let url = format!("http://{name}:{port}");
        let host = project.bucket_at(bucket, json!({"type": "http", "url": url})).await;
        let reply = edge.http().get(&host, "/x").await;
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (502, "origin_refused"),
            "{name}"
        );
    }
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_stale_copy_stands_in_for_an_origin_that_fails_within_its_window_and_for_nobody_else() {
    let down = Arc::new(AtomicBool::new(false));
    let state = down.clone();
    let (edge, project, host, _origin) = with_origin(move |seen| {
        let path = seen.target.as_str();
        match (state.load(Ordering::SeqCst), path) {
            (true, "/base/reset") => Answer::Raw(Bytes::new()),
            (true, _) => Answer::Raw(Bytes::from_static(
                b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            )),
            (false, "/base/old") => Answer::ok("Cache-Control: max-age=0, stale-if-error=60\r\nAge: 100\r\n", "copy"),
            (false, "/base/strict") => Answer::ok(
                "Cache-Control: max-age=0, must-revalidate, stale-if-error=60\r\n",
                "copy",
            ),
            (false, _) => Answer::ok("Cache-Control: max-age=0, stale-if-error=60\r\n", "copy"),
        }
    })
    .await;
    for path in ["/busy", "/reset", "/old", "/strict"] {
        assert_eq!(edge.http().get(&host, path).await.text(), "copy", "{path}");
    }
    down.store(true, Ordering::SeqCst);
    for path in ["/busy", "/reset"] {
        let reply = edge.http().get(&host, path).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (200, "copy"), "{path}");
    }
    for path in ["/old", "/strict"] {
        assert_eq!(edge.http().get(&host, path).await.status, 503, "{path}");
    }
    project.policy("pulled", "authenticated").await;
    let key = project.signing_key("bucket_name", "pulled").await;
    let token = sign(&edge, &key, "");
    for path in ["/busy", "/reset"] {
        assert_eq!(edge.http().get(&host, path).await.status, 403, "{path}");
        // What was stored when the bucket was open is out of reach for everybody.
        let reply = edge.http().get(&host, &format!("{path}?auth={token}")).await;
        assert!(reply.status.is_server_error(), "{path}: {}", reply.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_in_the_middle_of_a_body_is_seen_and_not_kept() {
    let (edge, _project, host, origin) = with_origin(|_| {
        Answer::Reset(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\nCache-Control: max-age=60\r\n\r\nhalf",
        ))
    })
    .await;
    let mut client = TcpStream::connect(edge.address("http")).await.unwrap();
    let request = format!("GET /a.ts HTTP/1.1\r\nHost: {host}\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"half") {
        assert!(client.read_buf(&mut answer).await.unwrap() > 0, "no answer");
    }
    origin.release();
    // Closed or reset, and not a byte more.
    let rest = client.read_buf(&mut answer).await;
    assert!(rest.is_err() || rest.is_ok_and(|n| n == 0));
    let reply = edge
        .http()
        .try_send(Method::GET, &host, "/a.ts", &[], Bytes::new())
        .await;
    assert!(!reply.is_ok_and(|r| r.complete && r.status == 200));
    assert!(origin.seen().len() >= 2, "it was kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_joins_the_fetch_of_a_signed_request_without_a_token() {
    let (edge, project, host, origin) =
        with_origin(|_| Answer::ok("Cache-Control: max-age=60\r\n", "content").held()).await;
    project.policy("pulled", "authenticated").await;
    let key = project.signing_key("bucket_name", "pulled").await;
    let path = format!("/a.ts?auth={}", sign(&edge, &key, ""));
    let signed = {
        let (client, host, path) = (edge.http(), host.clone(), path.clone());
        tokio::spawn(async move { client.get(&host, &path).await })
    };
    origin.asked(1).await;
    assert_eq!(edge.http().get(&host, "/a.ts").await.status, 403);
    origin.release();
    assert_eq!(signed.await.unwrap().text(), "content");
    assert_eq!(edge.http().get(&host, "/a.ts").await.status, 403);
    let hit = edge.http().get(&host, &path).await;
    assert!(hit.header("cache-status").contains("hit"));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn an_origin_that_takes_its_word_back_is_obeyed() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let (edge, _project, host, origin) = with_origin(move |seen| {
        let private = "Cache-Control: private, max-age=60\r\n";
        match seen.target.as_str() {
            // Hop-by-hop by its own word: still private.
            "/base/hop" => Answer::Raw(
                format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{private}Connection: close, cache-control\r\n\r\nown")
                    .into(),
            ),
            _ if asked.fetch_add(1, Ordering::SeqCst) == 0 => {
                Answer::ok("Cache-Control: max-age=0, stale-if-error=60\r\nETag: \"1\"\r\n", "v1")
            }
            _ if seen.head.contains("if-none-match") => {
                Answer::Raw(format!("HTTP/1.1 304 Not Modified\r\n{private}Connection: close\r\n\r\n").into())
            }
            _ => Answer::ok(private, "v2"),
        }
    })
    .await;
    for _ in 0..2 {
        let reply = edge.http().get(&host, "/hop").await;
        assert_eq!(
            (reply.text(), reply.header("cache-control")),
            ("own", "private, max-age=60")
        );
    }
    let mut texts = Vec::new();
    for _ in 0..3 {
        texts.push(edge.http().get(&host, "/a").await.text().to_owned());
    }
    assert_eq!(texts, ["v1", "v1", "v2"]);
    assert_eq!(origin.seen().len(), 5);
}

#[tokio::test]
async fn clients_that_an_origin_cannot_tell_apart_share_an_answer() {
    let varies = "Cache-Control: max-age=60\r\nVary: Origin, User-Agent, Accept-Language\r\n";
    let (edge, _project, host, origin) = with_origin(move |seen| {
        assert!(!seen.head.contains("one.example") && !seen.head.contains("two.example"));
        Answer::ok(varies, seen.field("accept-language").unwrap_or("none"))
    })
    .await;
    for (agent, site, language, requests) in [
        ("A/1", "https://one.example", "de", 1),
        ("B/2", "https://two.example", "de", 1),
        ("B/2", "https://two.example", "fr", 2),
    ] {
        let fields = [("user-agent", agent), ("origin", site), ("accept-language", language)];
        let reply = edge.http().get_with(&host, "/a.ts", &fields).await;
        assert_eq!((reply.text(), origin.seen().len()), (language, requests), "{fields:?}");
        // Caches behind are told what the origin says.
        assert!(reply.header("vary").contains("User-Agent"), "{}", reply.header("vary"));
    }
}

#[tokio::test]
async fn an_origin_that_goes_by_dates_confirms_no_file_that_it_has_replaced_by_an_older_one() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let (edge, _project, host, origin) = with_origin(move |seen| {
        let modified = "Cache-Control: max-age=0\r\nLast-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n";
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            Answer::ok(&format!("{modified}ETag: \"1\"\r\n"), "old")
        } else if seen.head.contains("if-modified-since") {
            Answer::Raw(format!("HTTP/1.1 304 Not Modified\r\n{modified}Connection: close\r\n\r\n").into())
        } else {
            Answer::ok(&format!("{modified}ETag: \"2\"\r\n"), "new")
        }
    })
    .await;
    for text in ["old", "new"] {
        assert_eq!(edge.http().get(&host, "/a").await.text(), text);
    }
    assert_eq!(origin.seen()[1].field("if-none-match"), Some("\"1\""));
}

#[tokio::test]
async fn a_stale_entry_is_not_even_asked_after_without_a_token() {
    let (edge, project, host, origin) = with_origin(|_| {
        let stale = "Cache-Control: max-age=0, stale-if-error=60, stale-while-revalidate=60\r\nETag: \"1\"\r\n";
        Answer::ok(stale, "content")
    })
    .await;
    project.policy("pulled", "authenticated").await;
    let key = project.signing_key("bucket_name", "pulled").await;
    let path = format!("/a.ts?auth={}", sign(&edge, &key, ""));
    assert_eq!(edge.http().get(&host, &path).await.text(), "content");
    for headers in [
        vec![],
        vec![("if-none-match", "\"1\"")],
        vec![("range", "bytes=0-1")],
        vec![("cache-control", "only-if-cached")],
        vec![("cache-control", "max-stale=60")],
    ] {
        for method in [Method::GET, Method::HEAD] {
            let reply = edge.http().send(method, &host, "/a.ts", &headers, Bytes::new()).await;
            assert_eq!(reply.status, 403, "{headers:?}");
            assert!(reply.header("etag").is_empty() && !reply.text().contains("content"));
        }
    }
    assert_eq!(origin.seen().len(), 1);
    // It was there, and stale: with a token it is asked after.
    edge.http().get(&host, &path).await;
    origin.asked(2).await;
    assert!(origin.seen()[1].head.contains("if-none-match: \"1\""));
}

#[tokio::test]
async fn who_wants_what_is_cached_alone_costs_the_origin_nothing() {
    let (edge, _project, host, origin) = with_origin(|seen| match seen.target.as_str() {
        "/base/own" => Answer::ok("Cache-Control: private\r\n", "own"),
        _ => Answer::ok("Cache-Control: max-age=60\r\n", "all"),
    })
    .await;
    let cached = [("cache-control", "only-if-cached")];
    for (path, before, after) in [("/all", 504, 200), ("/own", 504, 504)] {
        let seen = origin.seen().len();
        assert_eq!(
            edge.http().get_with(&host, path, &cached).await.status,
            before,
            "{path}"
        );
        assert_eq!(origin.seen().len(), seen, "{path}");
        assert_eq!(edge.http().get(&host, path).await.status, 200, "{path}");
        assert_eq!(edge.http().get_with(&host, path, &cached).await.status, after, "{path}");
        assert_eq!(origin.seen().len(), seen + 1, "{path}");
    }
    for (directives, status) in [
        ("no-cache, Only-If-Cached", 504),
        ("not-only-if-cached", 200),
        ("x=\"a, only-if-cached\"", 200),
    ] {
        let reply = edge
            .http()
            .get_with(&host, "/own", &[("cache-control", directives)])
            .await;
        assert_eq!(reply.status, status, "{directives}");
    }
}

#[tokio::test]
async fn who_wants_what_is_cached_alone_gets_the_part_that_is() {
    let (edge, _project, host, origin) = with_origin(|_| {
        let fields = "Cache-Control: max-age=60\r\nETag: \"1\"\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n";
        Answer::Raw(format!("HTTP/1.1 206 Partial Content\r\n{fields}Connection: close\r\n\r\n56789").into())
    })
    .await;
    let suffix = edge.http().get_with(&host, "/a", &[("range", "bytes=-5")]).await;
    assert_eq!((suffix.status.as_u16(), suffix.text()), (206, "56789"));
    for (range, status, content) in [
        ("bytes=-5", 206, "56789"),
        ("bytes=6-7", 206, "67"),
        ("bytes=4-6", 504, ""),
        ("bytes=-6", 504, ""),
        ("none", 504, ""),
    ] {
        let headers = [("cache-control", "only-if-cached"), ("range", range)];
        let reply = edge.http().get_with(&host, "/a", &headers).await;
        assert_eq!(reply.status, status, "{range}");
        assert!(status == 504 || reply.text() == content, "{range}");
    }
    assert_eq!(origin.seen().len(), 1);
}

/// What the origin is not told, no answer of it can depend on.
#[tokio::test]
async fn a_cookie_that_the_origin_is_not_told_makes_no_answer_ones_own() {
    let (edge, _project, host, origin) = with_origin(|seen| {
        let fields = "ETag: \"1\"\r\nCache-Control: no-cache\r\n";
        if seen.field("if-none-match").is_some() {
            return Answer::Raw(format!("HTTP/1.1 304 Not Modified\r\n{fields}Connection: close\r\n\r\n").into());
        }
        Answer::ok(fields, "content")
    })
    .await;
    for expected in [
        "edgeweir; fwd=uri-miss; stored",
        "edgeweir; fwd=stale; fwd-status=304; stored",
    ] {
        let reply = edge.http().get_with(&host, "/a", &[("cookie", "a=b")]).await;
        assert_eq!((reply.text(), reply.header("cache-status")), ("content", expected));
    }
    assert!(origin.seen().iter().all(|seen| seen.field("cookie").is_none()));
}

/// What is kept with an entry beside what came is no more than what is counted for it.
#[tokio::test]
async fn playlists_of_many_lines_take_no_more_memory_than_is_counted() {
    const PLAYLISTS: u64 = 64;
    let playlist = format!("#EXTM3U\n{}", "a\n".repeat(100_000));
    let length = playlist.len() as u64;
    let pulled = Pulled::start(&[], move |_| Answer::ok("Cache-Control: max-age=60\r\n", &playlist)).await;
    for n in 0..PLAYLISTS {
        for _ in 0..2 {
            let reply = pulled.get(&format!("/p.m3u8?n={n}")).await;
            assert_eq!((reply.status.as_u16(), reply.body.len() as u64), (200, length));
        }
    }
    let counted = pulled.edge.metric("edgeweir_cache_memory_bytes").await;
    assert!(counted > PLAYLISTS * length);
    // A server holds some 40 MiB before it has anything stored; what is freed is kept for a while.
    let resident = pulled.edge.resident();
    assert!(resident < counted + (128 << 20), "{resident} for {counted}");
}

/// RFC 9110 §8.8.3: an entity tag may have bytes that are no ASCII.
#[tokio::test]
async fn entity_tags_are_any_bytes() {
    let (edge, _project, host, origin) = with_origin(|seen| {
        let fields = "ETag: \"ü\"\r\nCache-Control: max-age=0\r\n";
        let status = if seen.head.contains("if-none-match: \"ü\"") {
            "304 Not Modified"
        } else if seen.head.contains("if-match: \"u\"") {
            "412 Precondition Failed"
        } else {
            return Answer::ok(fields, "content");
        };
        Answer::Raw(format!("HTTP/1.1 {status}\r\n{fields}Connection: close\r\n\r\n").into())
    })
    .await;
    assert_eq!(edge.http().get(&host, "/a").await.text(), "content");
    for (name, tags, status) in [
        ("if-none-match", "\"ü\"", 304),
        ("if-none-match", "\"u\"", 200),
        ("if-match", "\"a\", \"ü\"", 200),
        ("if-match", "\"u\"", 412),
    ] {
        let reply = edge.http().get_with(&host, "/a", &[(name, tags)]).await;
        assert_eq!(reply.status, status, "{name}: {tags}");
    }
    let confirmed = origin
        .seen()
        .iter()
        .filter(|seen| seen.head.contains("if-none-match: \"ü\""))
        .count();
    // Each time the cache asks, and the last time for the client, too.
    assert_eq!((origin.seen().len(), confirmed), (6, 4));
}

/// Bare, it would have every segment refused, and nobody told why.
#[tokio::test]
async fn a_playlist_that_no_token_can_be_put_into_is_the_origins_fault() {
    let (edge, project, host, _origin) = with_origin(|_| {
        let playlist = b"#EXTM3U\n#EXTINF:4,Caf\xe9\na.ts\n";
        let length = playlist.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: max-age=60\r\n\r\n");
        Answer::Raw([head.as_bytes(), playlist].concat().into())
    })
    .await;
    assert_eq!(edge.http().get(&host, "/a.m3u8").await.status, 200);
    project.policy("pulled", "authenticated").await;
    let key = project.signing_key("bucket_name", "pulled").await;
    // The first is a miss, as the policy has changed.
    for _ in 0..2 {
        let reply = edge
            .http()
            .get(&host, &format!("/a.m3u8?auth={}", sign(&edge, &key, "")))
            .await;
        assert_eq!(reply.status, 502, "{reply:?}");
        assert!(
            reply.text().contains("origin_playlist") && reply.text().contains("UTF-8"),
            "{reply:?}"
        );
    }
}

/// Sends on to the edge what it asks of its origin, for the host of the bucket that it came from.
fn back_to(edge: SocketAddr, host: &str, seen: &Seen) -> Answer {
    use std::io::{Read, Write};
    let lines = seen.head.lines().skip(1);
    let fields: Vec<_> = lines.filter(|l| !l.is_empty() && !l.starts_with("host:")).collect();
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{}\r\n\r\n",
        seen.target,
        fields.join("\r\n")
    );
    let mut stream = std::net::TcpStream::connect(edge).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    Answer::Raw(answer.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_whose_origin_leads_back_to_it_is_found_out() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let address = edge.address("http");
    let hosts: Arc<OnceLock<String>> = Arc::default();
    let looping = hosts.clone();
    let relay = Origin::serve(move |seen| back_to(address, looping.get().unwrap(), seen)).await;
    let host = project
        .bucket_at("looping", json!({"type": "http", "url": relay.url()}))
        .await;
    hosts.set(host.clone()).unwrap();
    let reply = edge.http().get(&host, "/a.ts").await;
    assert_eq!((reply.status.as_u16(), reply.error().as_str()), (508, "loop_detected"));
    assert_eq!(relay.seen().len(), 1);
}
