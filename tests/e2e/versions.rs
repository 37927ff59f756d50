//! What holds alike for every version of HTTP: limits, and how a request is understood.

use crate::BINARY;
use edgeweir_harness::{
    Answer, Edge, Origin,
    h2::{END_HEADERS, END_STREAM, Frame, H2, Outcome, kind, literals},
    h3,
};
use serde_json::json;

/// A request.
struct Asked<'a> {
    method: &'a str,
    path: &'a str,
    fields: Vec<(&'a str, &'a str)>,
    content: &'a str,
}

fn get<'a>(path: &'a str, fields: &[(&'a str, &'a str)]) -> Asked<'a> {
    Asked {
        method: "GET",
        path,
        fields: fields.to_vec(),
        content: "",
    }
}

impl Asked<'_> {
    async fn over_http1(&self, edge: &Edge, host: &str) -> u16 {
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let (method, path, fields, content) = (self.method, self.path, fields.concat(), self.content);
        let text = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n{content}");
        let answer = edge.http().raw(text.as_bytes()).await;
        answer.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap()
    }

    fn fields<'b>(&'b self, scheme: &'b str, host: &'b str) -> Vec<(&'b [u8], &'b [u8])> {
        let pseudo = [
            (":method", self.method),
            (":scheme", scheme),
            (":authority", host),
            (":path", self.path),
        ];
        let all = pseudo.iter().chain(&self.fields);
        all.map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
    }

    async fn over_http2(&self, edge: &Edge, host: &str) -> Outcome {
        let mut connection = H2::plain(edge.address("http"), &[]).await;
        let last = if self.content.is_empty() { END_STREAM } else { 0 };
        let block = literals(&self.fields("http", host));
        connection
            .send(&Frame::new(kind::HEADERS, END_HEADERS | last, 1, block))
            .await;
        if last == 0 {
            connection
                .send(&Frame::new(kind::DATA, END_STREAM, 1, self.content))
                .await;
        }
        connection.outcome(1).await
    }

    async fn over_http3(&self, edge: &Edge, host: &str) -> Outcome {
        let mut stream = h3::head(&self.fields("https", host));
        if !self.content.is_empty() {
            stream.extend(h3::framed(0, self.content.as_bytes()));
        }
        let connection = edge.h3(host).await;
        let mut exchange = connection.send(&stream).await.unwrap();
        let _ = exchange.send.finish();
        exchange.outcome().await
    }

    async fn is_answered_with(&self, status: u16, edge: &Edge, host: &str, name: &str) {
        assert_eq!(self.over_http1(edge, host).await, status, "{name}");
        let wanted = Outcome::Status(status);
        assert_eq!(self.over_http2(edge, host).await, wanted, "{name}");
        assert_eq!(self.over_http3(edge, host).await, wanted, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_as_a_whole_is_what_options_alone_asks_for() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    for (method, status) in [("OPTIONS", 204), ("GET", 400), ("DELETE", 400)] {
        let asked = Asked {
            method,
            ..get("*", &[])
        };
        asked.is_answered_with(status, &edge, &host, method).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_so_over_every_version() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "CONTENT").await;
    for (count, status) in [(90, 200), (101, 431)] {
        let asked = get("/a.mp4", &vec![("x", "y"); count]);
        asked.is_answered_with(status, &edge, &host, "fields").await;
    }
    for method in ["GET", "HEAD"] {
        let asked = Asked {
            method,
            content: "x",
            ..get("/a.mp4", &[("content-length", "1")])
        };
        asked.is_answered_with(400, &edge, &host, method).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_in_crumbs_is_one_for_the_cache_and_the_origin() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(|_| Answer::ok("Cache-Control: max-age=60\r\nVary: Cookie\r\n", "CONTENT")).await;
    let told = json!({"type": "http", "url": origin.url(), "request_headers": ["Cookie"]});
    let host = project.bucket_at("told", told).await;
    let crumbs = [("cookie", "a=b"), ("cookie", "c=d")];
    let wanted = Outcome::Status(200);
    // Of each object, one is a miss.
    assert_eq!(get("/a", &crumbs).over_http2(&edge, &host).await, wanted);
    assert_eq!(get("/b", &crumbs).over_http3(&edge, &host).await, wanted);
    for path in ["/a", "/b"] {
        let whole = get(path, &[("Cookie", "a=b; c=d")]);
        assert_eq!(whole.over_http1(&edge, &host).await, 200);
    }
    let seen = origin.seen();
    let cookies: Vec<_> = seen.iter().map(|seen| seen.field("cookie")).collect();
    assert_eq!(cookies, [Some("a=b; c=d"); 2]);
}

/// An origin's slips are not passed on as what they would be to a client.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_origin_may_not_answer_is_mended() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(|seen| {
        let (status, fields) = match &*seen.target {
            "/switches" => ("101 Switching Protocols", "Upgrade: x\r\nConnection: Upgrade\r\n"),
            _ => ("304 Not Modified", "Cache-Control: private\r\nETag: \"1\"\r\n"),
        };
        Answer::Raw(format!("HTTP/1.1 {status}\r\n{fields}\r\n").into())
    })
    .await;
    let host = project
        .bucket_at("slips", json!({"type": "http", "url": origin.url()}))
        .await;
    get("/switches", &[]).is_answered_with(502, &edge, &host, "101").await;
    let asked = get("/unchanged", &[("if-none-match", "\"1\"")]);
    asked.is_answered_with(304, &edge, &host, "304").await;
    let reply = edge
        .http()
        .get_with(&host, "/unchanged", &[("if-none-match", "\"1\"")])
        .await;
    assert_eq!((reply.status.as_u16(), reply.header("content-length")), (304, ""));
}

/// A page's address may have a token in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_referer_is_told_without_its_query() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(|_| Answer::ok("Cache-Control: max-age=60\r\nVary: Referer\r\n", "CONTENT")).await;
    let told = json!({"type": "http", "url": origin.url(), "request_headers": ["Referer"]});
    let host = project.bucket_at("told", told).await;
    for token in ["ONE", "TWO"] {
        let page = format!("https://{host}/page.html?auth={token}");
        let reply = edge.http().get_with(&host, "/a", &[("referer", &page)]).await;
        assert_eq!(reply.text(), "CONTENT");
    }
    let seen = origin.seen();
    let pages: Vec<_> = seen.iter().map(|seen| seen.field("referer")).collect();
    assert_eq!(pages, [Some(format!("https://{host}/page.html").as_str())]);
}
