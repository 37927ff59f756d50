//! What HTTP clients rely on: conditions, ranges, CORS, hosts, framing.

use crate::{BINARY, pulled::Pulled};
use bytes::Bytes;
use edgeweir_harness::{Answer, Client, Edge, Origin, Project, Protocol};
use http::{Method, Version};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn public() -> (Edge, Project, String) {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    let content: Vec<u8> = (0..100_u8).collect();
    project.put("videos", "a.mp4", content).await;
    (edge, project, host)
}

#[tokio::test]
async fn every_protocol_serves_the_same() {
    let (edge, project, host) = public().await;
    for (key, media_type) in [
        ("x.m3u8", "application/vnd.apple.mpegurl"),
        ("x.ts", "video/mp2t"),
        ("x.m4s", "video/iso.segment"),
        ("x.mpd", "application/dash+xml"),
        ("x.mp4", "video/mp4"),
        ("x.vtt", "text/vtt"),
        ("z.m3u8/y.css", "text/css"),
        ("x.unknown", "application/octet-stream"),
    ] {
        project.put("videos", key, "#EXTM3U\n").await;
        let path = format!("/{key}");
        for (client, version) in [
            (edge.http(), Version::HTTP_11),
            (Client::plain(edge.address("http"), Protocol::H2), Version::HTTP_2),
            (edge.https(Protocol::H1), Version::HTTP_11),
            (edge.https(Protocol::H2), Version::HTTP_2),
        ] {
            let reply = client.get(&host, &path).await;
            assert_eq!(
                (reply.status.as_u16(), reply.version, reply.text()),
                (200, version, "#EXTM3U\n"),
                "{key}"
            );
            assert_eq!(
                reply.header("content-type").split(';').next(),
                Some(media_type),
                "{key}"
            );
            assert!(reply.header("cache-status").starts_with("edgeweir; "), "{key}");
            let head = client.send(Method::HEAD, &host, &path, &[], Bytes::new()).await;
            assert_eq!(
                (head.status.as_u16(), head.header("content-length"), head.body.len()),
                (200, "8", 0)
            );
        }
    }
    let hit = edge.http().get(&host, "/x.ts").await;
    assert!(
        hit.header("cache-status").starts_with("edgeweir; hit; ttl="),
        "{}",
        hit.header("cache-status")
    );
    assert!(hit.header("age").parse::<u32>().is_ok());
}

#[tokio::test]
async fn ranges_and_conditions() {
    let (edge, _project, host) = public().await;
    let first = edge.http().get(&host, "/a.mp4").await;
    let (etag, modified) = (
        first.header("etag").to_owned(),
        first.header("last-modified").to_owned(),
    );
    assert!(etag.starts_with('"') && !modified.is_empty());
    for (range, status, content_range, bytes) in [
        ("bytes=0-9", 206, "bytes 0-9/100", 0..10_u8),
        ("bytes=90-", 206, "bytes 90-99/100", 90..100),
        ("bytes=-5", 206, "bytes 95-99/100", 95..100),
        ("bytes=90-1000", 206, "bytes 90-99/100", 90..100),
        ("bytes=-1000", 206, "bytes 0-99/100", 0..100),
        ("bytes=5-4", 200, "", 0..100),
        ("bytes=x", 200, "", 0..100),
        ("items=0-1", 200, "", 0..100),
        (
            "bytes=0-0,6-6,12-12,18-18,24-24,30-30,36-36,42-42,48-48,54-54,60-60,66-66,72-72,78-78,84-84,90-90,96-96",
            200,
            "",
            0..100,
        ),
        ("bytes=18446744073709551615-", 416, "bytes */100", 0..0),
        ("bytes=100-", 416, "bytes */100", 0..0),
        ("bytes=-0", 416, "bytes */100", 0..0),
    ] {
        let reply = edge.http().get_with(&host, "/a.mp4", &[("range", range)]).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-range")),
            (status, content_range),
            "{range}"
        );
        if status != 416 {
            assert_eq!(reply.body, bytes.collect::<Vec<u8>>(), "{range}");
            assert_eq!(reply.header("content-length"), reply.body.len().to_string(), "{range}");
        }
    }
    let several = edge
        .http()
        .get_with(&host, "/a.mp4", &[("range", "bytes=0-1, 50-51")])
        .await;
    assert_eq!(several.status, 206);
    let boundary = several
        .header("content-type")
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap()
        .to_owned();
    let parts = several
        .body
        .windows(boundary.len())
        .filter(|w| *w == boundary.as_bytes())
        .count();
    assert_eq!(parts, 3);
    assert_eq!(several.header("content-length"), several.body.len().to_string());

    let weak = format!("W/{etag}");
    for (headers, status) in [
        (vec![("if-none-match", etag.as_str())], 304),
        (vec![("if-none-match", weak.as_str())], 304),
        (vec![("if-none-match", "\"x\", \"y\"")], 200),
        (vec![("if-none-match", "*")], 304),
        (vec![("if-modified-since", modified.as_str())], 304),
        (vec![("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT")], 200),
        (
            vec![("if-none-match", "\"x\""), ("if-modified-since", modified.as_str())],
            200,
        ),
        (vec![("if-match", etag.as_str())], 200),
        (vec![("if-match", weak.as_str())], 412),
        (vec![("if-match", "\"x\"")], 412),
        (vec![("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT")], 412),
        (vec![("range", "bytes=0-1"), ("if-range", etag.as_str())], 206),
        (vec![("range", "bytes=0-1"), ("if-range", weak.as_str())], 200),
        (vec![("range", "bytes=0-1"), ("if-range", "\"x\"")], 200),
    ] {
        let reply = edge.http().get_with(&host, "/a.mp4", &headers).await;
        assert_eq!(reply.status, status, "{headers:?}");
        if status == 304 {
            assert_eq!((reply.header("etag"), reply.body.len()), (etag.as_str(), 0));
        }
    }
}

#[tokio::test]
async fn large_files_are_served_in_parts_before_they_are_cached() {
    let (edge, project, host) = public().await;
    let content: Vec<u8> = (0..40 << 20).map(|n: u32| (n >> 8) as u8).collect();
    project.put("videos", "large.mp4", content.clone()).await;
    let part = edge
        .http()
        .get_with(&host, "/large.mp4", &[("range", "bytes=30000000-30000999")])
        .await;
    assert_eq!(
        (part.status.as_u16(), &part.body[..]),
        (206, &content[30_000_000..30_001_000])
    );
    let ranges = "bytes=10-19, 35000000-35000009";
    let several = edge.http().get_with(&host, "/large.mp4", &[("range", ranges)]).await;
    assert!(several.body.windows(10).any(|w| *w == content[35_000_000..35_000_010]));
    let whole = edge.https(Protocol::H2).get(&host, "/large.mp4").await;
    assert!(whole.complete && whole.body == content);
}

#[tokio::test]
async fn cors_is_on_every_answer_and_preflights_are_answered_here() {
    let (edge, project, host) = public().await;
    let player = "https://player.example.com";
    let policy = json!({"Access-Control-Allow-Origin": player, "Access-Control-Allow-Credentials": true,
        "Access-Control-Allow-Methods": "GET, HEAD", "Access-Control-Max-Age": 600});
    project.post("/v1/buckets/videos/cors", policy).await;
    let origin = [("origin", player)];
    let range = [("origin", player), ("range", "bytes=500-")];
    let cases = [
        ("/a.mp4", &origin[..], 200),
        ("/none", &origin[..], 404),
        ("/a%00", &origin[..], 400),
        ("/a.mp4", &range[..], 416),
    ];
    for (path, headers, status) in cases {
        let reply = edge.http().get_with(&host, path, headers).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("access-control-allow-origin"), player, "{path}");
        assert_eq!(reply.header("access-control-allow-credentials"), "true");
        assert!(reply.header("vary").to_lowercase().contains("origin"), "{path}");
    }
    project.policy("videos", "authenticated").await;
    let refused = edge.http().get_with(&host, "/a.mp4", &origin).await;
    assert_eq!(
        (refused.status.as_u16(), refused.header("access-control-allow-origin")),
        (403, player)
    );
    // A preflight has no token, and needs none.
    let preflight = [
        ("origin", player),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "range"),
    ];
    let reply = edge
        .http()
        .send(Method::OPTIONS, &host, "/a.mp4", &preflight, Bytes::new())
        .await;
    assert_eq!(reply.status, 204);
    assert_eq!(reply.header("access-control-allow-origin"), player);
    assert_eq!(reply.header("access-control-allow-methods"), "GET, HEAD");
    assert_eq!(reply.header("access-control-max-age"), "600");
    assert!(
        reply
            .header("access-control-allow-headers")
            .to_lowercase()
            .contains("range")
    );
    project
        .ok(Method::DELETE, "/v1/buckets/videos/cors", Bytes::new())
        .await;
    let without = edge.http().get_with(&host, "/a.mp4", &origin).await;
    assert_eq!(without.header("access-control-allow-origin"), "");
}

#[tokio::test]
async fn only_known_hosts_and_methods_are_served() {
    let (edge, project, host) = public().await;
    for unknown in [
        "127.0.0.1",
        "example.com",
        "none.media-storage.local.edgeweir.localhost",
        "edgeweir.localhost",
    ] {
        let reply = edge.http().get(unknown, "/a.mp4").await;
        assert_eq!(
            (reply.status.as_u16(), reply.error().as_str()),
            (421, "unknown_host"),
            "{unknown}"
        );
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::TRACE] {
        let reply = edge
            .http()
            .send(method.clone(), &host, "/a.mp4", &[], Bytes::new())
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("allow")),
            (405, "GET, HEAD, OPTIONS"),
            "{method}"
        );
    }
    // TLS: a certificate for known names only, and only for the host that it covers.
    project
        .post(
            "/v1/domains",
            json!({"name": "a.example.com", "type": "vod", "bucket_name": "videos"}),
        )
        .await;
    project
        .post(
            "/v1/domains",
            json!({"name": "b.example.com", "type": "vod", "bucket_name": "videos"}),
        )
        .await;
    let tls = edge.https(Protocol::H2);
    assert_eq!(tls.get("a.example.com", "/a.mp4").await.status, 200);
    let crossed = tls
        .clone()
        .with_sni("a.example.com")
        .get("b.example.com", "/a.mp4")
        .await;
    assert_eq!(
        (crossed.status.as_u16(), crossed.error().as_str()),
        (421, "host_not_covered")
    );
    let stranger = tls
        .clone()
        .try_send(Method::GET, "c.example.com", "/", &[], Bytes::new())
        .await;
    assert!(stranger.is_err(), "{stranger:?}");
    // One certificate covers the zone's buckets.
    project.bucket("second").await;
    let zone = "second.media-storage.local.edgeweir.localhost";
    assert_eq!(tls.clone().with_sni(zone).get(&host, "/a.mp4").await.status, 200);
}

#[tokio::test]
async fn plain_http_redirects_when_it_is_told_to() {
    let edge = Edge::start_with(BINARY, &[("http.mode", "redirect")]).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "x").await;
    let reply = edge.http().get(&host, "/a.mp4?x=1").await;
    let port = edge.address("https").port();
    assert_eq!(reply.status, 308);
    assert_eq!(reply.header("location"), format!("https://{host}:{port}/a.mp4?x=1"));
    assert_eq!(edge.https(Protocol::H1).get(&host, "/a.mp4").await.text(), "x");
    // A preflight must not be redirected (Fetch Standard), and what follows the redirect must be readable.
    let player = "https://player.example.com";
    let policy = json!({"Access-Control-Allow-Origin": player, "Access-Control-Allow-Methods": "GET, HEAD"});
    project.post("/v1/buckets/videos/cors", policy).await;
    let origin = [("origin", player), ("access-control-request-method", "GET")];
    let preflight = edge
        .http()
        .send(Method::OPTIONS, &host, "/a.mp4", &origin, Bytes::new())
        .await;
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), player);
    assert_eq!(preflight.header("access-control-allow-methods"), "GET, HEAD");
    let redirect = edge.http().get_with(&host, "/a.mp4", &origin[..1]).await;
    assert_eq!(
        (redirect.status.as_u16(), redirect.header("access-control-allow-origin")),
        (308, player)
    );
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_closed() {
    let (edge, project, local) = public().await;
    project.put("videos", "admin", "SMUGGLED").await;
    let origin = Origin::serve(|seen| {
        let smuggled = seen.target.contains("admin");
        Answer::ok(
            "Cache-Control: no-store\r\n",
            if smuggled { "SMUGGLED" } else { "taken" },
        )
    })
    .await;
    let open = json!({"type": "http", "url": origin.url(), "methods": ["GET", "HEAD", "POST"]});
    let taking = project.bucket_at("taking", open).await;
    refuses_what_is_ambiguous(&edge, &local, "405").await;
    refuses_what_is_ambiguous(&edge, &taking, "200").await;
    let asked = origin.seen();
    assert!(asked.iter().all(|seen| !seen.target.contains("admin")), "{asked:?}");
}

/// Not the origin's: it is well.
#[tokio::test]
async fn a_body_whose_framing_is_malformed_is_its_clients_fault() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(|_| Answer::ok("", "taken")).await;
    let open = json!({"type": "http", "url": origin.url(), "methods": ["POST"]});
    let host = project.bucket_at("taking", open).await;
    for body in ["ZZ\r\n\r\n", "5\r\nhelloXX\r\n0\r\n\r\n"] {
        let head = format!("POST /a HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
        let answer = ended(&edge, &format!("{head}{body}")).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{body:?}: {answer}");
    }
}

/// Sends bytes and reads to the connection's end, which must come long before an idle connection is cut.
async fn ended(edge: &Edge, request: &str) -> String {
    let client = edge.http();
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), client.raw(request.as_bytes())).await;
    answer.unwrap_or_else(|_| panic!("the connection does not end after {request}"))
}

async fn refuses_what_is_ambiguous(edge: &Edge, host: &str, post: &str) {
    let inner = format!("GET /admin HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let length = inner.len();
    for (name, head, body) in [
        (
            "CL.TE",
            format!(
                "POST /a.mp4 HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            &inner,
        ),
        (
            "TE.CL",
            format!(
                "POST /a.mp4 HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"
            ),
            &inner,
        ),
        (
            "CL.CL",
            format!("GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nContent-Length: {length}\r\n\r\n"),
            &inner,
        ),
        (
            "TE on 1.0",
            format!("POST /a.mp4 HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            &inner,
        ),
        (
            "TE unknown",
            format!("POST /a.mp4 HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
            &inner,
        ),
        (
            "GET with a body",
            format!("GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n"),
            &inner,
        ),
        (
            "CL signed",
            format!("GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\nContent-Length: +0\r\n\r\n"),
            &inner,
        ),
        (
            "space before the colon",
            format!("GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\nX : y\r\n\r\n"),
            &inner,
        ),
        ("no host", "GET /a.mp4 HTTP/1.1\r\n\r\n".to_owned(), &inner),
        (
            "two hosts",
            format!("GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\nHost: other\r\n\r\n"),
            &inner,
        ),
        (
            "bare CR",
            format!("GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\nX: a\rb\r\n\r\n"),
            &inner,
        ),
    ] {
        let answer = ended(edge, &format!("{head}{body}")).await;
        assert_eq!(answer.get(9..12), Some("400"), "{name}: {answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{name}: {answer}");
        assert!(!answer.contains("SMUGGLED"), "{name}: {answer}");
    }
    // A body that is not read does not become the next request.
    let unread = format!(
        "POST /a.mp4 HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n{inner}GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    );
    let answer = ended(edge, &unread).await;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {post}")) && !answer.contains("SMUGGLED"),
        "{answer}"
    );
    // Nor does what follows a chunk that cannot be read.
    let broken =
        format!("POST /a.mp4 HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n0\r\n\r\n{inner}");
    let answer = ended(edge, &broken).await;
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
    assert!(!answer.contains("SMUGGLED"), "{answer}");
    // An Upgrade is not taken: what follows is a request, or it ends the connection.
    for method in ["GET", "POST"] {
        let upgrade =
            format!("{method} /a.mp4 HTTP/1.1\r\nHost: {host}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let answer = ended(edge, &format!("{upgrade}\x01\x02{inner}")).await;
        let statuses: Vec<_> = answer
            .match_indices("HTTP/1.1 ")
            .map(|(at, _)| &answer[at + 9..at + 12])
            .collect();
        assert!(!statuses.contains(&"101") && !answer.contains("SMUGGLED"), "{answer}");
        assert_eq!(statuses[1..], ["400"], "{answer}");
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let (edge, _project, host) = public().await;
    let long = "a".repeat(9 << 10);
    for client in [edge.http(), edge.https(Protocol::H2)] {
        let path = format!("/{long}");
        assert_eq!(client.get(&host, &path).await.status, 414);
        let reply = client.get_with(&host, "/a.mp4", &[("x-long", &long)]).await;
        assert_eq!(reply.status, 431);
        assert_eq!(client.get(&host, "/a.mp4").await.status, 200);
    }
}

/// To HTTP/1.0 the connection's end is the content's (RFC 9112 §6.3): one that breaks off must not look like it.
#[tokio::test]
async fn content_that_breaks_off_is_not_taken_for_whole_by_http_1_0() {
    let pulled = Pulled::start(&[], |seen| {
        let last = if seen.target.contains("whole") { "0\r\n\r\n" } else { "" };
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        Answer::Raw(format!("{head}7\r\nCONTENT\r\n{last}").into())
    })
    .await;
    for (path, is_whole) in [("/whole", true), ("/broken", false)] {
        let mut stream = TcpStream::connect(pulled.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", pulled.host);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        let read = stream.read_to_end(&mut reply).await;
        assert_eq!(read.is_ok(), is_whole, "{path}: {}", String::from_utf8_lossy(&reply));
        assert!(!is_whole || reply.ends_with(b"\r\n\r\nCONTENT"), "{path}");
    }
}
