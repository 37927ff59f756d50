//! What the suite's copy from npm lacks: `CDN-Cache-Control`, what else its present version asks for, parts, and what a
//! bucket's origin is told.

use crate::{BINARY, sign};
use edgeweir_harness::{Answer, Edge, Origin, Project, Reply};
use http::Method;
use serde_json::{Value, json};

/// An edge with a bucket at an origin, whose description `more` adds to.
pub(super) async fn with_origin(
    more: Value,
    answer: impl Fn(&edgeweir_harness::Seen) -> Answer + Send + Sync + 'static,
) -> (Edge, Project, String, Origin) {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(answer).await;
    let mut described = json!({"type": "http", "url": format!("{}/base", origin.url())});
    described
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let host = project.bucket_at("pulled", described).await;
    (edge, project, host, origin)
}

/// The reply to a request that joins no fetch: who has read an answer may be back before it is stored.
pub(super) async fn settled(edge: &Edge, host: &str, path: &str, fields: &[(&str, &str)]) -> Reply {
    loop {
        let reply = edge.http().get_with(host, path, fields).await;
        if !reply.header("cache-status").contains("; collapsed") {
            return reply;
        }
    }
}

fn partial(headers: &str, body: &str) -> Answer {
    let length = body.len();
    let head =
        format!("HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n{headers}Connection: close\r\n\r\n");
    Answer::Raw(format!("{head}{body}").into())
}

/// What it is, header lines of an answer, and whether a second request finds it fresh.
type Case = (&'static str, &'static str, bool);

const TARGETED: &[Case] = &[
    ("alone", "CDN-Cache-Control: max-age=60\r\n", true),
    (
        "over no-store",
        "CDN-Cache-Control: max-age=60\r\nCache-Control: no-store\r\n",
        true,
    ),
    (
        "over private",
        "Cache-Control: private\r\nCDN-Cache-Control: max-age=60\r\n",
        true,
    ),
    (
        "no-store over max-age",
        "CDN-Cache-Control: no-store\r\nCache-Control: max-age=60\r\n",
        false,
    ),
    (
        "private over max-age",
        "CDN-Cache-Control: private\r\nCache-Control: max-age=60\r\n",
        false,
    ),
    (
        "no-cache over max-age",
        "CDN-Cache-Control: no-cache\r\nCache-Control: max-age=60\r\n",
        false,
    ),
    (
        "a short one over a long one",
        "CDN-Cache-Control: max-age=0\r\nCache-Control: max-age=60\r\n",
        false,
    ),
    (
        "over Expires in the past",
        "CDN-Cache-Control: max-age=60\r\nExpires: 0\r\n",
        true,
    ),
    (
        "without a lifetime, and Expires",
        "CDN-Cache-Control: public\r\nExpires: Fri, 01 Jan 2100 00:00:00 GMT\r\n",
        false,
    ),
    (
        "older than it may be",
        "CDN-Cache-Control: max-age=60\r\nAge: 61\r\n",
        false,
    ),
    ("an extension", "CDN-Cache-Control: foobar, max-age=60\r\n", true),
    ("a parameter", "CDN-Cache-Control: max-age=60;a=b;c\r\n", true),
    ("a large number", "CDN-Cache-Control: max-age=99999999999\r\n", true),
    (
        "two lines, the last counts",
        "CDN-Cache-Control: max-age=0\r\nCDN-Cache-Control: max-age=60\r\n",
        true,
    ),
    (
        "empty is none",
        "CDN-Cache-Control: \r\nCache-Control: max-age=60\r\n",
        true,
    ),
    (
        "no dictionary is none",
        "CDN-Cache-Control: max-age=60, &&&&&\r\nCache-Control: no-store\r\n",
        false,
    ),
    (
        "no dictionary is none, the other way",
        "CDN-Cache-Control: no-store, &\r\nCache-Control: max-age=60\r\n",
        true,
    ),
    (
        "a space is no dictionary",
        "CDN-Cache-Control: max-age = 60\r\nCache-Control: max-age=0\r\n",
        false,
    ),
    (
        "upper case is no dictionary",
        "CDN-Cache-Control: MaX-aGe=60\r\nCache-Control: max-age=0\r\n",
        false,
    ),
    (
        "a comma at the end is no dictionary",
        "CDN-Cache-Control: max-age=60,\r\nCache-Control: max-age=0\r\n",
        false,
    ),
    (
        "a text is no number",
        "CDN-Cache-Control: max-age=\"60\"\r\nCache-Control: max-age=60\r\n",
        false,
    ),
    (
        "a decimal is no integer",
        "CDN-Cache-Control: max-age=60.5\r\nCache-Control: max-age=60\r\n",
        false,
    ),
    (
        "over Surrogate-Control",
        "CDN-Cache-Control: max-age=60\r\nSurrogate-Control: no-store\r\n",
        true,
    ),
    (
        "Surrogate-Control for another",
        "Surrogate-Control: no-store;other\r\nCache-Control: max-age=60\r\n",
        true,
    ),
    (
        "Surrogate-Control for this one",
        "Surrogate-Control: no-store;edgeweir\r\nCache-Control: max-age=60\r\n",
        false,
    ),
];

/// What the present version of the suite has that the copy has not, or otherwise. Times that the suite waits for are in
/// `Age` here.
const PRESENT: &[Case] = &[
    // age-parse-*: the copy takes what RFC 9111 §5.1 ignores for old.
    ("no number", "Cache-Control: max-age=60\r\nAge: abc\r\n", true),
    ("negative", "Cache-Control: max-age=60\r\nAge: -7200\r\n", true),
    ("a decimal", "Cache-Control: max-age=60\r\nAge: 7200.0\r\n", true),
    (
        "nearly the largest age",
        "Cache-Control: max-age=60\r\nAge: 2147483647\r\n",
        false,
    ),
    (
        "the largest age",
        "Cache-Control: max-age=60\r\nAge: 2147483648\r\n",
        false,
    ),
    (
        "an age beyond that",
        "Cache-Control: max-age=60\r\nAge: 2147483649\r\n",
        false,
    ),
    ("old first", "Cache-Control: max-age=60\r\nAge: 7200, 0\r\n", false),
    ("young first", "Cache-Control: max-age=60\r\nAge: 0, 7200\r\n", true),
    (
        "an old line first",
        "Cache-Control: max-age=60\r\nAge: 7200\r\nAge: 0\r\n",
        false,
    ),
    (
        "a young line first",
        "Cache-Control: max-age=60\r\nAge: 0\r\nAge: 7200\r\n",
        true,
    ),
    ("young twice", "Cache-Control: max-age=60\r\nAge: 0, 0\r\n", true),
    (
        "young on two lines",
        "Cache-Control: max-age=60\r\nAge: 0\r\nAge: 0\r\n",
        true,
    ),
    (
        "not old on two lines",
        "Cache-Control: max-age=60\r\nAge: 30\r\nAge: 30\r\n",
        true,
    ),
    (
        "with a parameter",
        "Cache-Control: max-age=60\r\nAge: 7200;foo=bar\r\n",
        false,
    ),
    // freshness-max-age-stale
    ("has become stale", "Cache-Control: max-age=60\r\nAge: 60\r\n", false),
    // freshness-expires-*
    ("32 bits", "Expires: Tue, 19 Jan 2038 14:14:08 GMT\r\n", true),
    ("far away", "Expires: Sun, 21 Nov 2286 04:46:39 GMT\r\n", true),
    ("RFC 850", "Expires: Thursday, 18-Aug-50 02:01:18 GMT\r\n", true),
    ("asctime", "Expires: Thu Aug  8 02:01:18 2050\r\n", true),
    ("a weekday's case", "Expires: THU, 18 Aug 2050 02:01:18 GMT\r\n", true),
    ("a month's case", "Expires: Thu, 18 AUG 2050 02:01:18 GMT\r\n", true),
    ("the zone's case", "Expires: Thu, 18 Aug 2050 02:01:18 gMT\r\n", true),
    ("UTC", "Expires: Thu, 18 Aug 2050 02:01:18 UTC\r\n", false),
    ("another zone", "Expires: Thu, 18 Aug 2050 02:01:18 AEST\r\n", false),
    (
        "two digits of a year",
        "Expires: Thu, 18 Aug 50 02:01:18 GMT\r\n",
        false,
    ),
    ("no comma", "Expires: Thu 18 Aug 2050 02:01:18 GMT\r\n", false),
    ("two spaces", "Expires: Thu, 18  Aug  2050 02:01:18 GMT\r\n", false),
    ("dashes", "Expires: Thu, 18-Aug-2050 02:01:18 GMT\r\n", false),
    ("periods", "Expires: Thu, 18 Aug 2050 02.01.18 GMT\r\n", false),
    ("an hour's digit", "Expires: Thu, 18 Aug 2050 2:01:18 GMT\r\n", false),
    (
        "two lines",
        "Expires: Thu, 18 Aug 2050 2:01:18 GMT\r\nExpires: Thu, 18 Aug 2050 2:01:19 GMT\r\n",
        false,
    ),
    // status-200-must-understand
    (
        "a status that is understood",
        "Cache-Control: max-age=60, no-store, must-understand\r\n",
        true,
    ),
];

/// Asks twice for what is answered with the fields of each case.
async fn check(cases: &'static [Case]) {
    let (edge, _project, host, _origin) = with_origin(json!({}), |seen| {
        let at: usize = seen.target.trim_start_matches("/base/").parse().unwrap();
        Answer::ok(cases[at].1, "content")
    })
    .await;
    for (at, (name, fields, fresh)) in cases.iter().enumerate() {
        let path = format!("/{at}");
        let first = edge.http().get(&host, &path).await;
        assert_eq!((first.status.as_u16(), first.text()), (200, "content"), "{name}");
        // What browsers are told is what the origin tells them.
        for line in fields.lines().filter(|l| l.starts_with("Cache-Control")) {
            assert_eq!(Some(first.header("cache-control")), line.split(": ").nth(1), "{name}");
        }
        let second = settled(&edge, &host, &path, &[]).await;
        let status = second.header("cache-status");
        assert_eq!(status.starts_with("edgeweir; hit; ttl="), *fresh, "{name}: {status}");
    }
}

#[tokio::test]
async fn directives_for_cdns_outrank_the_others() {
    check(TARGETED).await;
}

#[tokio::test]
async fn ages_dates_and_statuses_as_the_present_version_has_them() {
    check(PRESENT).await;
}

/// `stale-close-*`: the copy asks for an answer that the origin has numbered although it gave none.
#[tokio::test]
async fn what_must_be_revalidated_is_not_served_when_the_origin_closes_the_connection() {
    let (edge, _project, host, origin) = with_origin(json!({}), |seen| {
        let control = seen.target.rsplit('/').next().unwrap();
        Answer::ok(
            &format!("Cache-Control: max-age=60, {control}\r\nAge: 61\r\nNumber: 1\r\n"),
            "1",
        )
    })
    .await;
    let paths = ["/must-revalidate", "/proxy-revalidate", "/no-cache", "/s-maxage=2"];
    for path in paths {
        assert_eq!(edge.http().get(&host, path).await.header("number"), "1");
    }
    origin.close();
    for path in paths {
        let reply = edge.http().get(&host, path).await;
        assert_eq!((reply.status.as_u16(), reply.header("number")), (502, ""), "{path}");
        assert_eq!(reply.error(), "origin_error");
    }
}

/// `stale-while-revalidate`, `stale-while-revalidate-window`.
#[tokio::test]
async fn stale_answers_are_served_within_their_window_alone() {
    let (edge, _project, host, origin) = with_origin(json!({}), |seen| {
        let age = seen.target.rsplit('/').next().unwrap();
        let control = "Cache-Control: max-age=60, stale-while-revalidate=60";
        Answer::ok(&format!("{control}\r\nAge: {age}\r\nETag: \"abc\"\r\n"), "1")
    })
    .await;
    for (path, stale) in [("/90", true), ("/121", false)] {
        edge.http().get(&host, path).await;
        let asked = origin.seen().len();
        let second = edge.http().get(&host, path).await;
        let status = second.header("cache-status");
        let served = status.starts_with("edgeweir; hit; ttl=-") && status.ends_with("; detail=stale");
        assert_eq!(served, stale, "{path}: {status}");
        origin.asked(asked + 1).await;
        assert!(origin.seen()[asked].head.contains("if-none-match: \"abc\"\r\n"));
    }
}

/// `cdn-remove-age-exceed`, `cdn-date-update-exceed`, `cdn-expires-update-exceed`, `other-date-update-expires*`,
/// `partial-use-stored-headers`, `conditional-lm-fresh-no-lm` as RFC 9111 §4.3.2 has it.
#[tokio::test]
async fn a_hit_has_the_origins_own_times_and_fields() {
    const DATE: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
    const EXPIRES: &str = "Thu, 01 Jan 2026 00:00:01 GMT";
    let (edge, _project, host, _origin) = with_origin(json!({}), |seen| {
        let lifetime = match seen.target.as_str() {
            "/base/cdn" => "Cache-Control: max-age=1\r\nCDN-Cache-Control: max-age=2000000000\r\n",
            _ => "Cache-Control: max-age=2000000000\r\n",
        };
        Answer::ok(
            &format!("{lifetime}Date: {DATE}\r\nExpires: {EXPIRES}\r\nA: 1\r\n"),
            "0123456789",
        )
    })
    .await;
    for path in ["/cdn", "/all"] {
        edge.http().get(&host, path).await;
        for (field, status, body) in [
            (("range", "bytes=0-1"), 206, "01"),
            (("if-modified-since", DATE), 304, ""),
            (
                ("if-modified-since", "Wed, 31 Dec 2025 23:59:59 GMT"),
                200,
                "0123456789",
            ),
        ] {
            let hit = edge.http().get_with(&host, path, &[field]).await;
            let what = format!("{path} {field:?}: {hit:?}");
            assert_eq!((hit.status.as_u16(), hit.text()), (status, body), "{what}");
            assert!(hit.header("cache-status").starts_with("edgeweir; hit; ttl="), "{what}");
            assert_eq!(
                (hit.header("date"), hit.header("expires"), hit.header("a")),
                (DATE, EXPIRES, "1"),
                "{what}"
            );
            assert!(hit.header("age").parse::<u64>().unwrap() > 20_000_000, "{what}");
        }
    }
}

#[tokio::test]
async fn a_suffix_is_asked_for_as_it_is_and_serves_what_lies_in_it() {
    let fields = "Cache-Control: max-age=60\r\nETag: \"1\"\r\nContent-Range: bytes 5-9/10\r\n";
    let (edge, project, host, origin) = with_origin(json!({}), move |seen| {
        if seen.head.contains("range: bytes=-5") {
            partial(fields, "56789")
        } else {
            Answer::ok("Cache-Control: max-age=60\r\nETag: \"1\"\r\n", "0123456789")
        }
    })
    .await;
    let get = async |range: &str| edge.http().get_with(&host, "/a.bin", &[("range", range)]).await;
    for (range, content_range, body, asked) in [
        ("bytes=-5", "bytes 5-9/10", "56789", 1),
        ("bytes=-5", "bytes 5-9/10", "56789", 1),
        ("bytes=6-7", "bytes 6-7/10", "67", 1),
        ("bytes=8-", "bytes 8-9/10", "89", 1),
        ("bytes=-1", "bytes 9-9/10", "9", 1),
        // Not in it: what is missing of the whole is fetched.
        ("bytes=4-6", "bytes 4-6/10", "456", 2),
        ("bytes=-7", "bytes 3-9/10", "3456789", 2),
    ] {
        let reply = get(range).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-range"), reply.text()),
            (206, content_range, body),
            "{range}"
        );
        assert_eq!(origin.seen().len(), asked, "{range}");
    }
    project
        .post("/v1/buckets/pulled/cache/purge", json!({"path": "a.bin"}))
        .await;
    assert_eq!(get("bytes=-5").await.text(), "56789");
    assert_eq!(origin.seen().len(), 3);
    // Behind a token it is as private as any other answer, and nothing without one.
    project.policy("pulled", "authenticated").await;
    let key = project.signing_key("bucket_name", "pulled").await;
    let token = sign(&edge, &key, "");
    for _ in 0..2 {
        let path = format!("/a.bin?auth={token}");
        let reply = edge.http().get_with(&host, &path, &[("range", "bytes=-5")]).await;
        assert_eq!((reply.status.as_u16(), reply.text()), (206, "56789"));
        assert!(reply.header("cache-control").starts_with("private"));
    }
    assert_eq!(get("bytes=-5").await.status.as_u16(), 403);
}

/// RFC 9111 §3.4: a part is completed under its strong validator, if the origin still has that representation.
#[tokio::test]
async fn an_end_is_completed_by_what_comes_before_it_and_never_by_another_objects() {
    const END: &str = "Cache-Control: max-age=60\r\nX-Kept: 1\r\nContent-Range: bytes 5-9/10\r\n";
    const WHOLE: &str = "Cache-Control: max-age=60\r\nETag: \"2\"\r\n";
    let (edge, _project, host, origin) = with_origin(json!({}), |seen| {
        let case = seen.target.trim_start_matches("/base/").trim_end_matches("?range");
        let begin = |etag: &str, range: &str, body: &str| {
            partial(
                &format!("Cache-Control: max-age=60\r\nETag: {etag}\r\nContent-Range: bytes {range}\r\n"),
                body,
            )
        };
        if seen.head.contains("range: bytes=-5\r\n") {
            let etag = if case == "weak" { "W/\"1\"" } else { "\"1\"" };
            return partial(&format!("{END}ETag: {etag}\r\n"), "56789");
        }
        let asks_for_begin = seen.head.contains("range: bytes=0-4\r\n");
        assert!(
            !asks_for_begin || seen.head.contains("if-range: \"1\"\r\n"),
            "{}",
            seen.head
        );
        match (case, asks_for_begin) {
            ("same", true) => begin("\"1\"", "0-4/10", "01234"),
            // It ends too early, and then comes whole.
            ("short", true) => Answer::Raw(
                "HTTP/1.1 206 Partial Content\r\nETag: \"1\"\r\nContent-Range: bytes 0-4/10\r\n\
                 Connection: close\r\n\r\n012"
                    .into(),
            ),
            ("changed", true) => begin("\"2\"", "0-4/10", "abcde"),
            ("longer", true) => begin("\"1\"", "0-4/11", "01234"),
            ("elsewhere", true) => begin("\"1\"", "1-5/10", "12345"),
            ("away", true) => Answer::Raw("HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into()),
            _ => Answer::ok(WHOLE, "abcdefghij"),
        }
    })
    .await;
    let get = async |path: &str, range: &str| edge.http().get_with(&host, path, &[("range", range)]).await;
    for (case, body, requests) in [
        ("same", "0123456789", 1),
        ("changed", "abcdefghij", 2),
        ("longer", "abcdefghij", 2),
        ("elsewhere", "abcdefghij", 2),
        ("away", "abcdefghij", 2),
        // If-Range is obeyed.
        ("whole", "abcdefghij", 1),
        ("weak", "abcdefghij", 1),
    ] {
        // Both the whole and a range of it.
        for (at, range) in [("", None), ("?range", Some("bytes=3-6"))] {
            let path = format!("/{case}{at}");
            for _ in 0..2 {
                let end = settled(&edge, &host, &path, &[("range", "bytes=-5")]).await;
                assert_eq!(end.text(), "56789", "{path}");
            }
            let asked = origin.seen().len();
            let first = match range {
                Some(range) => get(&path, range).await,
                None => edge.http().get(&host, &path).await,
            };
            let expected = if range.is_some() { &body[3..7] } else { body };
            assert_eq!(first.text(), expected, "{path}: {first:?}");
            assert_eq!(origin.seen().len() - asked, requests, "{path}");
            // It is stored as a whole.
            let hit = settled(&edge, &host, &path, &[]).await;
            assert_eq!((hit.status.as_u16(), hit.text()), (200, body), "{path}");
            assert!(
                hit.header("cache-status").starts_with("edgeweir; hit"),
                "{path}: {hit:?}"
            );
            assert_eq!((hit.header("content-range"), hit.header("content-length")), ("", "10"));
            if case == "same" {
                let status = first.header("cache-status");
                assert!(status.starts_with("edgeweir; fwd=partial; stored"), "{status}");
                // What the origin did not repeat.
                assert_eq!(hit.header("x-kept"), "1");
            }
        }
    }
    for _ in 0..2 {
        let end = settled(&edge, &host, "/short", &[("range", "bytes=-5")]).await;
        assert_eq!(end.text(), "56789");
    }
    let broken = edge.http().try_send(Method::GET, &host, "/short", &[], "".into()).await;
    assert!(!broken.is_ok_and(|reply| reply.complete));
    assert_eq!(get("/short", "bytes=-5").await.text(), "56789");
}

/// RFC 9110 §6.5.1: trailer fields are no header fields, and may be dropped. RFC 9110 §7.6.1: what `Connection` names is
/// between the origin and us.
#[tokio::test]
async fn trailers_and_hop_by_hop_fields_end_here() {
    let (edge, _project, host, origin) = with_origin(json!({}), |_| {
        Answer::Raw(
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\nTrailer: Digest, Cache-Control\r\n\
             Connection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n\
             7\r\ncontent\r\n0\r\nDigest: x\r\nCache-Control: no-store\r\n\r\n"
                .into(),
        )
    })
    .await;
    for _ in 0..2 {
        let reply = settled(&edge, &host, "/a", &[]).await;
        assert_eq!((reply.text(), reply.header("cache-control")), ("content", "max-age=60"));
        for name in ["digest", "trailer", "x-hop", "keep-alive"] {
            assert_eq!(reply.header(name), "", "{name}");
        }
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn an_origin_is_told_the_fields_that_its_owner_names() {
    let more = json!({"request_headers": ["X-Told", "authorization"]});
    let (edge, project, host, origin) = with_origin(more, |seen| {
        let public = if seen.target.ends_with("public") {
            ", public"
        } else {
            ""
        };
        Answer::ok(
            &format!("Cache-Control: max-age=60{public}\r\nVary: X-Told\r\n"),
            "content",
        )
    })
    .await;
    let fields = [("x-told", "1"), ("x-other", "2"), ("authorization", "Basic x")];
    for (path, second) in [("/private", "fwd=uri-miss"), ("/public", "hit")] {
        edge.http().get_with(&host, path, &fields).await;
        let head = origin.seen().pop().unwrap().head;
        assert!(
            head.contains("x-told: 1\r\n") && head.contains("authorization: basic x\r\n"),
            "{head}"
        );
        assert!(!head.contains("x-other"), "{head}");
        let again = edge.http().get_with(&host, path, &[("x-told", "1")]).await;
        let status = again.header("cache-status").to_owned();
        assert!(status.contains(second), "{path}: {status}");
    }
    for name in ["Host", "x-forwarded-host", "Range", "Connection", "a b", ""] {
        let origin = json!({"type": "http", "url": origin.url(), "request_headers": [name]});
        let body = json!({"name": "another", "origin": origin}).to_string();
        let reply = project.call(Method::POST, "/v1/buckets", body).await;
        assert_eq!(reply.status.as_u16(), 422, "{name}: {}", reply.text());
        assert!(reply.text().contains("invalid_request_headers"), "{}", reply.text());
    }
}

#[tokio::test]
async fn cookies_are_for_one_client_unless_the_owner_wants_otherwise() {
    for (more, hit) in [(json!({}), false), (json!({"store_set_cookie": true}), true)] {
        let (edge, _project, host, _origin) = with_origin(more, |_| {
            Answer::ok("Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n", "content")
        })
        .await;
        edge.http().get(&host, "/a").await;
        let second = edge.http().get(&host, "/a").await;
        assert_eq!(second.header("cache-status").contains("hit"), hit);
        assert_eq!(second.header("set-cookie"), "a=b");
    }
}

#[tokio::test]
async fn a_change_invalidates_what_its_answer_names() {
    let more = json!({"methods": ["POST"]});
    let (edge, _project, host, origin) = with_origin(more, |seen| {
        if seen.method != "POST" {
            return Answer::ok("Cache-Control: max-age=60\r\n", "content");
        }
        let named = "Location: /base/x/made\r\nContent-Location: ../y\r\n";
        match seen.target.as_str() {
            "/base/x/refused" => Answer::Raw(
                format!("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n{named}Connection: close\r\n\r\n").into(),
            ),
            "/base/x/elsewhere" => Answer::ok("Location: http://other.example/x/made\r\n", ""),
            _ => Answer::ok(named, ""),
        }
    })
    .await;
    let is_hit = async |path: &str| {
        let reply = edge.http().get(&host, path).await;
        reply.header("cache-status").contains("hit")
    };
    for (target, invalidates) in [("/x/refused", false), ("/x/elsewhere", false), ("/x/list", true)] {
        for path in ["/x/made", "/y", "/z"] {
            edge.http().get(&host, path).await;
        }
        let reply = edge.http().send(Method::POST, &host, target, &[], "new".into()).await;
        assert_eq!(reply.header("cache-status"), "edgeweir; fwd=method");
        assert_eq!(is_hit("/x/made").await, !invalidates, "{target}");
        assert_eq!(is_hit("/y").await, !invalidates, "{target}");
        assert!(is_hit("/z").await, "{target}");
    }
    assert!(origin.seen().iter().any(|seen| seen.method == "POST"));
}

/// RFC 9110 §9.2.2. The origin closes the connection without an answer the first time, as it may close a kept one at any
/// moment.
#[tokio::test]
async fn a_change_that_may_be_made_twice_survives_a_connection_that_closes() {
    let more = json!({"methods": ["POST", "PUT", "DELETE"]});
    let (edge, _project, host, origin) = with_origin(more, {
        let first = std::sync::Mutex::new(std::collections::HashSet::new());
        move |seen| {
            if first.lock().unwrap().insert(seen.method.clone()) {
                return Answer::Raw("".into());
            }
            Answer::ok("", "done")
        }
    })
    .await;
    for (method, content, status, asked) in [
        (Method::PUT, "content", 200, 2),
        (Method::DELETE, "", 200, 2),
        (Method::POST, "content", 502, 1),
    ] {
        let before = origin.seen().len();
        let reply = edge.http().send(method.clone(), &host, "/x", &[], content.into()).await;
        assert_eq!(reply.status, status, "{method}");
        assert_eq!(origin.seen().len() - before, asked, "{method}");
    }
    let length = |seen: &edgeweir_harness::Seen| seen.field("content-length").map(str::to_owned);
    let puts: Vec<_> = origin.seen().iter().filter(|s| s.method == "PUT").map(length).collect();
    assert_eq!(puts, [Some("7".to_owned()), Some("7".to_owned())]);
}
