#![allow(clippy::unwrap_used)]
use super::*;
use futures_util::stream;
use http::StatusCode;
use http_body_util::StreamBody;
use hyper::body::Frame;
use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};

const SECOND: Duration = Duration::from_secs(1);

fn client(timeouts: Timeouts) -> HttpClient {
    HttpClient::new(true, timeouts)
}

fn request(method: Method, body: Option<RequestBody>) -> Request {
    Request {
        method,
        key: edgeweir_model::ObjectKey::new("a.ts").unwrap(),
        query: String::new(),
        headers: HeaderMap::new(),
        body,
        interim: None,
    }
}

/// An origin that answers the n-th connection with the n-th of these texts, the last one for ever: what it was asked,
/// and its URL.
async fn origin(answers: &'static [&'static str]) -> (OriginUrl, Arc<AtomicUsize>, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (asked, heads) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(String::new())));
    let (count, text) = (asked.clone(), heads.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let n = count.fetch_add(1, Ordering::SeqCst);
            text.lock().unwrap().push_str(&String::from_utf8_lossy(&head[..read]));
            let answer = answers[n.min(answers.len() - 1)];
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (url, asked, heads)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";

#[tokio::test]
async fn what_may_be_asked_twice_is_asked_once_more() {
    let content = |length: usize| Some(http_body_util::Full::new(Bytes::from(vec![b'x'; length])));
    let streamed = || Some(stream::iter([Ok(Frame::data(Bytes::from("x")))]));
    let of = |content: Option<http_body_util::Full<Bytes>>| content.map(|c| c.map_err(|e| match e {}).boxed_unsync());
    let of_stream = |s: Option<stream::Iter<_>>| s.map(|s| StreamBody::new(s).boxed_unsync());
    let short = KEPT as usize;
    for (case, method, body, answers, expected, asked) in [
        ("recovers", Method::GET, None, &["", OK][..], Ok(StatusCode::OK), 2),
        ("head", Method::HEAD, None, &["", OK], Ok(StatusCode::OK), 2),
        ("stays down", Method::GET, None, &[""], Err(Error::Broken), 2),
        ("put", Method::PUT, of(content(2)), &["", OK], Ok(StatusCode::OK), 2),
        (
            "the longest that is kept",
            Method::PUT,
            of(content(short)),
            &["", OK],
            Ok(StatusCode::OK),
            2,
        ),
        (
            "long",
            Method::PUT,
            of(content(short + 1)),
            &["", OK],
            Err(Error::Broken),
            1,
        ),
        (
            "no length",
            Method::PUT,
            of_stream(streamed()),
            &["", OK],
            Err(Error::Broken),
            1,
        ),
        ("delete", Method::DELETE, None, &["", OK], Ok(StatusCode::OK), 2),
        ("post", Method::POST, None, &["", OK], Err(Error::Broken), 1),
        (
            "post with a body",
            Method::POST,
            of(content(2)),
            &["", OK],
            Err(Error::Broken),
            1,
        ),
    ] {
        let (url, count, _) = origin(answers).await;
        let answer = client(Timeouts::default()).fetch(&url, request(method, body)).await;
        assert_eq!(answer.map(|r| r.status), expected, "{case}");
        assert_eq!(count.load(Ordering::SeqCst), asked, "{case}");
    }
}

#[tokio::test]
async fn a_change_on_a_condition_is_asked_for_once() {
    for (name, method, asked) in [
        (IF_MATCH, Method::PUT, 1),
        (IF_NONE_MATCH, Method::PUT, 1),
        (IF_UNMODIFIED_SINCE, Method::DELETE, 1),
        (IF_NONE_MATCH, Method::GET, 2),
    ] {
        let (url, count, _) = origin(&["", OK]).await;
        let mut request = request(method, None);
        request.headers.insert(&name, HeaderValue::from_static("\"a\""));
        let _ = client(Timeouts::default()).fetch(&url, request).await;
        assert_eq!(count.load(Ordering::SeqCst), asked, "{name}");
    }
}

/// A second request on a kept connection that the origin closes as it comes.
#[tokio::test]
async fn what_is_sent_again_is_all_of_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: OriginUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (tell, mut told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answers in [&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""][..], &[OK]] {
            let (mut stream, _) = listener.accept().await.unwrap();
            for answer in answers {
                let mut text = Vec::new();
                while !text.ends_with(b"content") {
                    assert!(stream.read_buf(&mut text).await.unwrap() > 0);
                }
                tell.send(String::from_utf8(text).unwrap()).unwrap();
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    let client = client(Timeouts::default());
    for _ in 0..2 {
        let content = http_body_util::Full::new(Bytes::from("content"));
        let body = Some(content.map_err(|e| match e {}).boxed_unsync());
        let answer = client.fetch(&url, request(Method::PUT, body)).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
    }
    for _ in 0..3 {
        let text = told.recv().await.unwrap();
        assert!(
            text.starts_with("PUT /a.ts ") && text.contains("content-length: 7\r\n"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_origin_that_is_down_is_not_asked_twice_as_often() {
    let (url, asked, _) = origin(&[""]).await;
    let client = client(Timeouts::default());
    for _ in 0..200 {
        assert!(client.fetch(&url, request(Method::GET, None)).await.is_err());
    }
    let retries = asked.load(Ordering::SeqCst) - 200;
    assert!((10..=31).contains(&retries), "{retries}");
}

#[tokio::test]
async fn the_time_for_the_head_begins_when_the_body_is_sent() {
    let timeouts = Timeouts {
        connect: SECOND * 5,
        first_byte: SECOND / 2,
        idle: SECOND / 2,
    };
    // It takes longer than the head may, and gets on all the time.
    let (feed, parts) = mpsc::unbounded_channel::<Bytes>();
    let upload = |parts: mpsc::UnboundedReceiver<Bytes>| {
        let frames = stream::unfold(parts, |mut parts| async {
            let part = parts.recv().await?;
            Some((Ok(Frame::data(part)), parts))
        });
        Some(StreamBody::new(frames).boxed_unsync())
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: OriginUrl = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"0\r\n\r\n") {
            stream.read_buf(&mut text).await.unwrap();
        }
        stream.write_all(OK.as_bytes()).await.unwrap();
        // The next one gets no answer.
        let silent = listener.accept().await.unwrap();
        std::future::pending::<()>().await;
        drop(silent);
    });
    tokio::spawn(async move {
        for _ in 0..5 {
            tokio::time::sleep(SECOND / 5).await;
            feed.send(Bytes::from("part")).unwrap();
        }
    });
    let client = client(timeouts);
    let answer = client.fetch(&url, request(Method::PUT, upload(parts))).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    // A body that stops.
    let (feed, parts) = mpsc::unbounded_channel();
    feed.send(Bytes::from("part")).unwrap();
    let answer = client.fetch(&url, request(Method::PUT, upload(parts))).await;
    assert_eq!(answer.err(), Some(Error::Timeout));
}

#[tokio::test]
async fn a_name_that_leads_to_loopback_is_refused() {
    let strict = HttpClient::new(false, Timeouts::default());
    let (url, asked, _) = origin(&[OK]).await;
    for host in [
        "localhost",
        "127.1",
        "2130706433",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
    ] {
        let url = format!("http://{host}:{}", url.port()).parse().unwrap();
        let answer = strict.fetch(&url, request(Method::GET, None)).await;
        assert_eq!(answer.err(), Some(Error::Refused), "{host}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn every_request_names_this_process_after_those_before_it() {
    let (url, _, heads) = origin(&[OK]).await;
    let client = client(Timeouts::default());
    let mut sent = request(Method::GET, None);
    sent.headers
        .insert(hop::CDN_LOOP, HeaderValue::from_static("other.example"));
    assert!(!client.loops(&sent.headers));
    client.fetch(&url, sent).await.unwrap();
    let text = heads.lock().unwrap().to_lowercase();
    let mut seen = HeaderMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("cdn-loop: ")) {
        seen.append(hop::CDN_LOOP, line.parse().unwrap());
    }
    assert_eq!(seen.get_all(hop::CDN_LOOP).iter().next().unwrap(), "other.example");
    assert!(client.loops(&seen), "{text}");
    assert!(!self::client(Timeouts::default()).loops(&seen));
}
