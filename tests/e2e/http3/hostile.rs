//! What no library would send over HTTP/3, and clients that waste, stall or take back.

use crate::{BINARY, sign};
use bytes::Bytes;
use edgeweir_harness::{
    Answer, Edge, Origin, Project,
    h2::Outcome,
    h3::{CANCELLED, begin, framed, head},
};
use http::Method;
use serde_json::json;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    net::UdpSocket,
    time::{interval, timeout},
};

/// What a server that cuts after a second or two must have done by then, however busy the machine is.
const SOON: Duration = Duration::from_secs(30);

/// What a flood may add to the server's memory.
const BOUND: u64 = 64 << 20;

/// H3_MESSAGE_ERROR.
const MESSAGE_ERROR: u32 = 0x10e;
/// H3_FRAME_UNEXPECTED.
const FRAME_UNEXPECTED: u32 = 0x105;
/// H3_FRAME_ERROR.
const FRAME_ERROR: u32 = 0x106;
/// H3_EXCESSIVE_LOAD.
const EXCESSIVE_LOAD: u32 = 0x107;

/// A server that cuts idle connections after a second or two, and a public bucket.
async fn impatient() -> (Edge, Project, String) {
    let edge = Edge::start_with(BINARY, &[("limits.idle_seconds", "1")]).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "CONTENT").await;
    (edge, project, host)
}

/// The pseudo-header fields of a GET.
fn get<'a>(host: &'a str, path: &'a str) -> Vec<(&'a [u8], &'a [u8])> {
    vec![
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", host.as_bytes()),
        (b":path", path.as_bytes()),
    ]
}

async fn served(edge: &Edge, host: &str) {
    let connection = edge.h3(host).await;
    assert_eq!(connection.outcome(&get(host, "/a.mp4")).await, Outcome::Status(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused() {
    let (edge, _project, host) = impatient().await;
    let usual = get(&host, "/a.mp4");
    let with = |name: &'static [u8], value: &'static [u8]| [&usual[..], &[(name, value)]].concat();
    let without = |name: &[u8]| usual.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let instead = |name: &'static [u8], value: &'static [u8]| [&[(name, value)], &without(name)[..]].concat();
    for (name, fields) in [
        ("CR in a value", with(b"x", b"a\rb")),
        ("LF in a value", with(b"x", b"a\nb")),
        ("CR LF and a field", with(b"x", b"a\r\nhost: other")),
        ("NUL in a value", with(b"x", b"a\0b")),
        ("CR in a name", with(b"x\r", b"a")),
        ("LF in a name", with(b"x\ny", b"a")),
        ("a colon in a name", with(b"x:y", b"a")),
        ("a space in a name", with(b"x y", b"a")),
        ("no name", with(b"", b"a")),
        ("an upper-case name", with(b"X-Name", b"a")),
        ("transfer-encoding", with(b"transfer-encoding", b"chunked")),
        ("connection", with(b"connection", b"close")),
        ("keep-alive", with(b"keep-alive", b"timeout=5")),
        ("proxy-connection", with(b"proxy-connection", b"close")),
        ("upgrade", with(b"upgrade", b"h2c")),
        ("te: gzip", with(b"te", b"gzip")),
        ("no :method", without(b":method")),
        ("no :scheme", without(b":scheme")),
        ("no :path", without(b":path")),
        ("neither :authority nor host", without(b":authority")),
        (":method twice", with(b":method", b"GET")),
        (":path twice", with(b":path", b"/a.mp4")),
        (":scheme twice", with(b":scheme", b"https")),
        (":authority twice", with(b":authority", b"other")),
        ("an unknown pseudo-header", with(b":edge", b"x")),
        (":status", with(b":status", b"200")),
        (":protocol", with(b":protocol", b"websocket")),
        ("a late pseudo-header", [&[(&b"x"[..], &b"a"[..])], &usual[..]].concat()),
        (":path empty", instead(b":path", b"")),
        (":path without a slash", instead(b":path", b"a.mp4")),
        (":path with a space", instead(b":path", b"/a.mp4 HTTP/1.1")),
        (":path with CR LF", instead(b":path", b"/a.mp4\r\nx: y")),
        (":method with CR LF", instead(b":method", b"GET\r\n")),
        (":scheme with a space", instead(b":scheme", b"ht tp")),
        (":authority empty", instead(b":authority", b"")),
        (":authority with a user", instead(b":authority", b"u@videos")),
        ("host differs", with(b"host", b"other.example.com")),
        ("a content-length without content", with(b"content-length", b"5")),
        ("a content-length that is none", with(b"content-length", b"+0")),
        (
            "content-length twice",
            [&with(b"content-length", b"0")[..], &[(b"content-length", b"0")]].concat(),
        ),
    ] {
        let connection = edge.h3(&host).await;
        let outcome = timeout(SOON, connection.outcome(&fields)).await.expect(name);
        assert!(
            matches!(outcome, Outcome::Reset(MESSAGE_ERROR) | Outcome::Status(400)),
            "{name}: {outcome:?}"
        );
        // It was that stream alone.
        assert_eq!(connection.outcome(&usual).await, Outcome::Status(200), "{name}");
    }
    for fields in [with(b"te", b"trailers"), with(b"content-length", b"0")] {
        assert_eq!(edge.h3(&host).await.outcome(&fields).await, Outcome::Status(200));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_out_of_place_end_the_connection() {
    let (edge, _project, host) = impatient().await;
    let request = head(&get(&host, "/a.mp4"));
    let cut = &request[..request.len() - 1];
    for (name, stream, code) in [
        ("a body first", framed(0, b"x"), FRAME_UNEXPECTED),
        ("settings", framed(4, b""), FRAME_UNEXPECTED),
        ("a frame of HTTP/2", framed(6, b""), FRAME_UNEXPECTED),
        ("half a head", cut.to_vec(), FRAME_ERROR),
        ("half a type", vec![0x40], FRAME_ERROR),
    ] {
        let connection = edge.h3(&host).await;
        let mut exchange = connection.send(&stream).await.unwrap();
        let _ = exchange.send.finish();
        let outcome = timeout(SOON, exchange.outcome()).await.expect(name);
        assert_eq!(outcome, Outcome::GoAway(code), "{name}");
        served(&edge, &host).await;
    }
    // What has no meaning is passed over (RFC 9114 §9).
    let connection = edge.h3(&host).await;
    let stream = [framed(0x21, &[7; 100]), request].concat();
    let mut exchange = connection.send(&stream).await.unwrap();
    assert_eq!(exchange.outcome().await, Outcome::Status(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_an_end_are_not_collected() {
    let (edge, _project, host) = impatient().await;
    served(&edge, &host).await;
    let before = edge.resident();
    // A frame that says it has a GiB.
    let begun = [0x01, 0xc0, 0, 0, 0, 0x40, 0, 0, 0];
    for (name, kind) in [("a head", 1), ("a frame without a meaning", 0x21)] {
        let connection = edge.h3(&host).await;
        let stream = [&[kind], &begun[1..]].concat();
        let mut exchange = connection.send(&stream).await.unwrap();
        let zeros = vec![0; 64 << 10];
        let flood = async { while exchange.send.write_all(&zeros).await.is_ok() {} };
        // The head is refused at once; of the other nothing is kept, until the connection is cut.
        timeout(SOON, flood).await.expect(name);
        served(&edge, &host).await;
    }
    let mut connection = edge.h3(&host).await;
    let flood = async { while connection.control.write_all(&[0x07, 0x80, 1, 0, 0]).await.is_ok() {} };
    timeout(SOON, flood).await.expect("settings");
    // Fields that are one byte each, and large once decoded.
    let bomb = [&[0, 0][..], &vec![0xf4; 60_000]].concat();
    let connection = edge.h3(&host).await;
    for _ in 0..50 {
        let mut exchange = connection.send(&framed(1, &bomb)).await.unwrap();
        let outcome = timeout(SOON, exchange.outcome()).await.expect("an outcome");
        assert!(
            matches!(outcome, Outcome::Status(431) | Outcome::Reset(_)),
            "{outcome:?}"
        );
    }
    served(&edge, &host).await;
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_requests_that_are_taken_back_ends_its_connection() {
    let (edge, _project, host) = impatient().await;
    let connection = edge.h3(&host).await;
    let request = head(&get(&host, "/a.mp4"));
    let flood = async {
        loop {
            let Ok(mut exchange) = connection.send(&request).await else {
                return;
            };
            let _ = exchange.send.reset(CANCELLED.into());
            let _ = exchange.receive.stop(CANCELLED.into());
        }
    };
    timeout(SOON, flood).await.expect("the connection ends");
    let reason = connection.quic.close_reason().unwrap();
    let quinn::ConnectionError::ApplicationClosed(close) = reason else {
        panic!("{reason}")
    };
    assert_eq!(close.error_code.into_inner(), u64::from(EXCESSIVE_LOAD));
    served(&edge, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_stalled_readers_are_cut() {
    let (edge, project, host) = impatient().await;
    project.put("videos", "large.mp4", vec![7; 8 << 20]).await;
    let idle = edge.h3(&host).await;
    let stalled = edge.try_h3(&host, Some(1000)).await.unwrap();
    let request = head(&get(&host, "/large.mp4"));
    let mut exchange = stalled.send(&request).await.unwrap();
    assert_eq!(exchange.outcome().await, Outcome::Status(200));
    let begun = edge.h3(&host).await;
    let _head = begun.send(&request[..20]).await.unwrap();
    for (name, connection) in [("idle", &idle), ("stalled", &stalled), ("a head that stops", &begun)] {
        timeout(SOON, connection.quic.closed()).await.expect(name);
    }
    served(&edge, &host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_read_is_given_up_while_its_client_asks_for_others() {
    let (edge, project, host) = impatient().await;
    // It is given ten seconds for as much.
    project.put("videos", "unread.mp4", vec![7; 40_000]).await;
    let connection = edge.try_h3(&host, Some(1000)).await.unwrap();
    let mut unread = connection.send(&head(&get(&host, "/unread.mp4"))).await.unwrap();
    unread.send.finish().unwrap();
    assert_eq!(unread.outcome().await, Outcome::Status(200));
    let reset = async {
        let mut ticks = interval(Duration::from_millis(100));
        loop {
            tokio::select! {
                // Told also to who reads nothing.
                reset = unread.receive.received_reset() => return reset.unwrap().unwrap().into_inner(),
                _ = ticks.tick() => {
                    assert_eq!(connection.outcome(&get(&host, "/a.mp4")).await, Outcome::Status(200));
                }
            }
        }
    };
    assert_eq!(
        timeout(SOON, reset).await.expect("the stream is reset"),
        u64::from(CANCELLED)
    );
    assert_eq!(connection.outcome(&get(&host, "/a.mp4")).await, Outcome::Status(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_tokens_end_their_connection() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "CONTENT").await;
    project.policy("videos", "authenticated").await;
    let key = project.signing_key("bucket_name", "videos").await;
    let good = sign(&edge, &key, "");
    let (before, after) = good.split_at(good.len() - 40);
    let connection = edge.h3(&host).await;
    let mut refused = 0;
    for other in ('a'..='l').filter(|other| !after.starts_with(*other)) {
        let path = format!("/a.mp4?auth={before}{other}{}", &after[1..]);
        match timeout(SOON, connection.outcome(&get(&host, &path)))
            .await
            .expect("an outcome")
        {
            Outcome::Status(403) => refused += 1,
            _ => break,
        }
    }
    assert_eq!(refused, 8);
    timeout(SOON, connection.quic.closed()).await.expect("the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_says_so_and_answers_what_it_took() {
    let mut edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let origin = Origin::serve(|_| Answer::ok("", "CONTENT").held()).await;
    let host = project
        .bucket_at("videos", json!({"type": "http", "url": origin.url()}))
        .await;
    let connection = edge.h3(&host).await;
    let mut exchange = connection.send(&head(&get(&host, "/a.mp4"))).await.unwrap();
    exchange.send.finish().unwrap();
    origin.asked(1).await;
    edge.signal("TERM");
    assert_eq!(
        timeout(SOON, connection.goaway()).await.expect("GOAWAY"),
        4,
        "the second request"
    );
    let late = connection.outcome(&get(&host, "/b.mp4")).await;
    assert_eq!(late, Outcome::Reset(0x10b), "rejected, to be sent elsewhere");
    origin.release();
    assert_eq!(exchange.outcome().await, Outcome::Status(200));
    let rest = exchange.receive.read_to_end(100).await.unwrap();
    assert!(rest.is_empty() || rest.ends_with(b"CONTENT"));
    timeout(SOON, connection.quic.closed()).await.expect("the end");
    assert!(edge.exited().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_break_off_are_not_taken_for_whole() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let url = super::counting_origin().await;
    let open = json!({"type": "http", "url": url, "methods": ["GET", "HEAD", "POST"]});
    let host = project.bucket_at("taking", open).await;
    let post = |more: &[(&[u8], &[u8])]| {
        let mut fields = get(&host, "/a");
        fields[0].1 = b"POST";
        head(&[&fields[..], more].concat())
    };
    let (plain, ten) = (post(&[]), post(&[(b"content-length", b"10")]));
    let data = framed(0, b"12345");
    for (name, stream) in [
        ("too short", [&ten[..], &data].concat()),
        ("too long", [&ten[..], &data, &data, &data].concat()),
        ("cut in a frame", [&plain[..], &data[..data.len() - 1]].concat()),
        ("cut before its content", [&plain[..], &data[..5]].concat()),
    ] {
        let connection = edge.h3(&host).await;
        let mut exchange = connection.send(&stream).await.unwrap();
        let _ = exchange.send.finish();
        let outcome = timeout(SOON, exchange.outcome()).await.expect(name);
        assert_ne!(outcome, Outcome::Status(200), "{name}");
    }
    let trailers = head(&[(b"x-checksum", b"1")]);
    let whole = [&ten[..], &data, &framed(0, b""), &data, &trailers].concat();
    let connection = edge.h3(&host).await;
    let mut exchange = connection.send(&whole).await.unwrap();
    exchange.send.finish().unwrap();
    assert_eq!(exchange.outcome().await, Outcome::Status(200));
    // One that asks first.
    let mut exchange = connection.send(&post(&[(b"expect", b"100-continue")])).await.unwrap();
    assert_eq!(exchange.outcome().await, Outcome::Status(100));
    // Taken back while it is read.
    let mut exchange = connection.send(&[&plain[..], &data].concat()).await.unwrap();
    exchange.send.reset(CANCELLED.into()).unwrap();
    exchange.receive.stop(CANCELLED.into()).unwrap();
    let last = connection.send(&[&plain[..], &data].concat()).await;
    let mut last = last.unwrap();
    last.send.finish().unwrap();
    assert_eq!(last.outcome().await, Outcome::Status(200));
}

/// A way to the edge on which its packets are counted, and get lost.
struct Void {
    address: SocketAddr,
    counting: tokio::task::JoinHandle<()>,
    counted: std::sync::Arc<std::sync::Mutex<Counted>>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    sent: usize,
    received: usize,
    retries: usize,
    worst: f64,
}

impl Void {
    async fn before(edge: SocketAddr) -> Self {
        let (outer, inner) = (udp().await, udp().await);
        let address = outer.local_addr().unwrap();
        inner.connect(edge).await.unwrap();
        let counted = std::sync::Arc::<std::sync::Mutex<Counted>>::default();
        let counts = counted.clone();
        let counting = tokio::spawn(async move {
            let (mut from_client, mut from_edge) = (vec![0; 2048], vec![0; 2048]);
            loop {
                tokio::select! {
                    Ok((length, _)) = outer.recv_from(&mut from_client) => {
                        counts.lock().unwrap().sent += length;
                        inner.send(&from_client[..length]).await.unwrap();
                    }
                    Ok(length) = inner.recv(&mut from_edge) => {
                        let mut counts = counts.lock().unwrap();
                        counts.received += length;
                        counts.worst = counts.worst.max(counts.received as f64 / counts.sent as f64);
                        // A long header, and the type of a Retry (RFC 9000 §17.2.5).
                        counts.retries += usize::from(from_edge[0] & 0xf0 == 0xf0);
                    }
                }
            }
        });
        Self {
            address,
            counting,
            counted,
        }
    }
}

impl Drop for Void {
    fn drop(&mut self) {
        self.counting.abort();
    }
}

async fn udp() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_show_its_address_gets_little() {
    let (edge, _project, host) = impatient().await;
    let root = edge.data_dir().join("ca.pem");
    // One whose packets from the server go astray: three times what it sent, and no more (RFC 9000 §8.1).
    let void = Void::before(edge.address("h3")).await;
    let (endpoint, connecting) = begin(void.address, &root, &host, None);
    let _ = timeout(Duration::from_secs(4), connecting).await;
    drop(endpoint);
    let counted = *void.counted.lock().unwrap();
    assert!(counted.received > 0 && counted.worst <= 3.0, "{counted:?}");
    assert_eq!(counted.retries, 0);
    // Many of them: the others must show first that they are there, and then are served.
    let clients: Vec<_> = (0..80).map(|_| begin(void.address, &root, &host, None)).collect();
    let retried = async {
        while void.counted.lock().unwrap().retries == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, retried).await.expect("a Retry");
    served(&edge, &host).await;
    drop(clients);
    let reply = edge.http().send(Method::GET, &host, "/a.mp4", &[], Bytes::new()).await;
    assert_eq!(reply.text(), "CONTENT");
}
