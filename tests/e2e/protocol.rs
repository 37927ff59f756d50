//! What no library would send: malformed HTTP/2, floods, clients that stall. A stranger's connection may end; the server
//! and everybody else's do not notice (`h2.rs` of the harness writes the frames).

use crate::{BINARY, pulled::Pulled, sign};
use bytes::Bytes;
use edgeweir_harness::{
    Client, Edge, Large, Project, Protocol,
    h2::{END_HEADERS, END_STREAM, Frame, H2, INITIAL_WINDOW, Outcome, indexed_literal, kind, literals},
};
use http::Method;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{interval, timeout},
};

/// What a server that cuts after a second or two must have done by then, however busy the machine is.
pub(crate) const SOON: Duration = Duration::from_secs(30);

const MIB: usize = 1 << 20;

/// What is taken for not read after some ten seconds, in bytes.
const UNREAD: usize = 40_000;

/// What a flood may add to the server's memory.
pub(crate) const BOUND: u64 = 64 << 20;

/// A server that cuts idle connections after a second or two, and a public bucket.
pub(crate) async fn impatient() -> (Edge, Project, String) {
    let edge = Edge::start_with(BINARY, &[("limits.idle_seconds", "1")]).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "CONTENT").await;
    (edge, project, host)
}

pub(crate) async fn served(edge: &Edge, host: &str) {
    assert_eq!(edge.http().get(host, "/a.mp4").await.text(), "CONTENT");
}

/// The pseudo-header fields of a GET.
pub(crate) fn get<'a>(host: &'a str, path: &'a str) -> Vec<(&'a [u8], &'a [u8])> {
    vec![
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":authority", host.as_bytes()),
        (b":path", path.as_bytes()),
    ]
}

#[tokio::test]
async fn malformed_http2_requests_are_refused() {
    let (edge, _project, host) = impatient().await;
    let usual = get(&host, "/a.mp4");
    let with = |name: &'static [u8], value: &'static [u8]| [&usual[..], &[(name, value)]].concat();
    let without = |name: &[u8]| usual.iter().copied().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let instead = |name: &'static [u8], value: &'static [u8]| [&[(name, value)], &without(name)[..]].concat();
    let cases = [
        ("CR in a value", with(b"x", b"a\rb")),
        ("LF in a value", with(b"x", b"a\nb")),
        ("CR LF and a field", with(b"x", b"a\r\nhost: other")),
        ("NUL in a value", with(b"x", b"a\0b")),
        ("CR in a name", with(b"x\r", b"a")),
        ("LF in a name", with(b"x\ny", b"a")),
        ("NUL in a name", with(b"x\0", b"a")),
        ("a colon in a name", with(b"x:y", b"a")),
        ("a space in a name", with(b"x y", b"a")),
        ("no name", with(b"", b"a")),
        ("an upper-case name", with(b"X-Name", b"a")),
        ("transfer-encoding", with(b"transfer-encoding", b"chunked")),
        ("connection", with(b"connection", b"close")),
        ("keep-alive", with(b"keep-alive", b"timeout=5")),
        ("upgrade", with(b"upgrade", b"h2c")),
        ("te: gzip", with(b"te", b"gzip")),
        ("no :method", without(b":method")),
        ("no :scheme", without(b":scheme")),
        ("no :path", without(b":path")),
        ("neither :authority nor host", without(b":authority")),
        (":method twice", with(b":method", b"GET")),
        (":path twice", with(b":path", b"/a.mp4")),
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
        ("host differs", with(b"host", b"other.example.com")),
        ("a content-length without content", with(b"content-length", b"5")),
        (
            "content-length twice",
            [&with(b"content-length", b"0")[..], &[(b"content-length", b"5")]].concat(),
        ),
    ];
    let tls = edge.https(Protocol::H2);
    for (name, fields) in &cases {
        for mut connection in [
            H2::plain(edge.address("http"), &[]).await,
            H2::over(tls.handshaken(&host).await, &[]).await,
        ] {
            connection.send(&Frame::request(1, fields)).await;
            let outcome = timeout(SOON, connection.outcome(1)).await.expect(name);
            assert!(outcome.is_refusal(), "{name}: {outcome:?}");
        }
        served(&edge, &host).await;
    }
    let mut connection = H2::plain(edge.address("http"), &[]).await;
    connection.send(&Frame::request(1, &instead(b":path", b"*"))).await;
    assert_eq!(connection.outcome(1).await, Outcome::Status(400));
    // The writer itself is not what is refused.
    let mut connection = H2::plain(edge.address("http"), &[]).await;
    for (stream, fields) in [(1, usual.clone()), (3, with(b"te", b"trailers"))] {
        connection.send(&Frame::request(stream, &fields)).await;
        assert_eq!(connection.outcome(stream).await, Outcome::Status(200));
    }
}

#[tokio::test]
async fn endless_header_blocks_end_the_connection() {
    let (edge, _project, host) = impatient().await;
    served(&edge, &host).await;
    let before = edge.resident();
    let crumbs = literals(&vec![(&b"cookie"[..], &b"a=b"[..]); 1300]);
    for (name, piece) in [("fields", crumbs.as_slice()), ("nothing", b"")] {
        let mut connection = H2::plain(edge.address("http"), &[]).await;
        let head = Frame::new(kind::HEADERS, END_STREAM, 1, literals(&get(&host, "/a.mp4")));
        connection.send(&head).await;
        let more = Frame::new(kind::CONTINUATION, 0, 1, piece).bytes();
        let sent = Instant::now();
        while connection.write(&more).await {
            assert!(sent.elapsed() < SOON, "{name}: it goes on");
        }
        timeout(SOON, connection.end()).await.expect(name);
        served(&edge, &host).await;
    }
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes");
}

#[tokio::test]
async fn header_fields_that_grow_when_they_are_decoded_are_refused() {
    let (edge, _project, host) = impatient().await;
    served(&edge, &host).await;
    let before = edge.resident();
    let fields = literals(&get(&host, "/a.mp4"));
    let references = vec![0x80 | 0x3e; 12_000];
    let bomb = [&fields, &indexed_literal(b"x", &[b'a'; 4000]), &references[..]].concat();
    let again = [&fields, &references[..]].concat();
    let mut connection = H2::plain(edge.address("http"), &[]).await;
    let mut answered = 0;
    for n in 0..50 {
        let block = if n == 0 { &bomb } else { &again };
        let request = Frame::new(kind::HEADERS, END_STREAM | END_HEADERS, 2 * n + 1, block.clone());
        connection.send(&request).await;
        match timeout(SOON, connection.outcome(2 * n + 1)).await.expect("an outcome") {
            Outcome::Status(431) | Outcome::Reset(_) => answered += 1,
            Outcome::GoAway(_) | Outcome::Closed => break,
            Outcome::Status(status) => panic!("status {status}"),
        }
    }
    let many = [(&b"x"[..], &b"a=b"[..])].repeat(1000);
    let fields = [&get(&host, "/a.mp4")[..], &many].concat();
    let mut connection = H2::plain(edge.address("http"), &[]).await;
    connection.send(&Frame::request(1, &fields)).await;
    let outcome = connection.outcome(1).await;
    assert!(
        matches!(outcome, Outcome::Status(431)) || outcome.is_refusal(),
        "{outcome:?}"
    );
    served(&edge, &host).await;
    let grown = edge.resident().saturating_sub(before);
    assert!(grown < BOUND, "{grown} bytes after {answered} answers");
}

/// Sends `tick` over and over, and reads nothing of use, until the connection ends.
async fn until_cut(connection: &mut H2, every: Duration, tick: &[u8]) {
    let cut = async {
        let mut ticks = interval(every);
        loop {
            tokio::select! {
                frame = connection.next() => if frame.is_none() { return },
                _ = ticks.tick() => if !connection.write(tick).await { return },
            }
        }
    };
    timeout(SOON, cut).await.expect("the connection is cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_is_held_shut_is_not_waited_for() {
    let (edge, project, host) = impatient().await;
    project.put("videos", "large.mp4", vec![7; MIB]).await;
    let dribble: Vec<u8> = (0..3)
        .flat_map(|n| Frame::new(kind::WINDOW_UPDATE, 0, 2 * n + 1, 1_u32.to_be_bytes()).bytes())
        .collect();
    let settings = Frame::new(kind::SETTINGS, 0, 0, []).bytes();
    for (name, every, tick) in [
        ("pings", 50, Frame::ping().bytes()),
        ("many pings", 2, Frame::ping().bytes()),
        ("many settings", 2, settings),
        ("a byte at a time", 50, dribble),
    ] {
        let mut connection = H2::plain(edge.address("http"), &[(INITIAL_WINDOW, 0)]).await;
        for stream in [1, 3, 5] {
            connection
                .send(&Frame::request(stream, &get(&host, "/large.mp4")))
                .await;
        }
        let began = Instant::now();
        until_cut(&mut connection, Duration::from_millis(every), &tick).await;
        println!("{name}: cut after {:?}", began.elapsed());
        served(&edge, &host).await;
    }
}

/// A server whose origin has an object that is stored in one piece, and one that is kept in slices; both are in memory.
async fn stored() -> Pulled {
    let pulled = Pulled::start(&[("limits.idle_seconds", "1")], |seen| {
        let length = if seen.target.contains("film") { 3 * MIB } else { UNREAD };
        Large::new(length as u64).answer(seen)
    })
    .await;
    for path in ["/short", "/film"] {
        pulled.get(path).await;
    }
    pulled
}

/// Asks for something that it does not read, and for other things all the while, until the answer is given up; how many of
/// the others were answered.
async fn unread(pulled: &Pulled, path: &str, a_byte_at_a_time: bool) -> usize {
    let mut connection = H2::plain(pulled.address(), &[(INITIAL_WINDOW, 0)]).await;
    let range = format!("bytes=0-{}", UNREAD - 1);
    let request = [&get(&pulled.host, path)[..], &[(b"range", range.as_bytes())]].concat();
    connection.send(&Frame::request(1, &request)).await;
    let other = [&[(&b":method"[..], &b"HEAD"[..])], &get(&pulled.host, path)[1..]].concat();
    let mut answered = 0;
    let given_up = async {
        let (mut ticks, mut stream) = (interval(Duration::from_millis(100)), 1);
        loop {
            tokio::select! {
                frame = connection.next() => match frame.expect("the connection goes on") {
                    Frame { kind: kind::RST_STREAM, stream: 1, payload, .. } => return payload,
                    Frame { kind: kind::HEADERS, stream: 3.., .. } => answered += 1,
                    _ => {}
                },
                _ = ticks.tick() => {
                    stream += 2;
                    connection.send(&Frame::request(stream, &other)).await;
                    if a_byte_at_a_time {
                        connection.send(&Frame::new(kind::WINDOW_UPDATE, 0, 1, 1_u32.to_be_bytes())).await;
                    }
                }
            }
        }
    };
    let code = timeout(SOON, given_up).await.expect("the stream is reset");
    assert_eq!(code, 8_u32.to_be_bytes(), "CANCEL");
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_not_read_is_given_up_while_its_client_asks_for_others() {
    let pulled = stored().await;
    let answered = tokio::join!(
        unread(&pulled, "/short", false),
        unread(&pulled, "/film", false),
        unread(&pulled, "/short", true),
    );
    assert!(answered.0 > 3 && answered.1 > 3 && answered.2 > 3, "{answered:?}");
}

#[tokio::test]
async fn the_end_of_an_answer_waits_for_no_window() {
    let pulled = stored().await;
    let range = (&b"range"[..], &b"bytes=7-106"[..]);
    for path in ["/short", "/film"] {
        let mut connection = H2::plain(pulled.address(), &[(INITIAL_WINDOW, 100)]).await;
        let request = [&get(&pulled.host, path)[..], &[range]].concat();
        connection.send(&Frame::request(1, &request)).await;
        assert_eq!(connection.outcome(1).await, Outcome::Status(206), "{path}");
        let mut content = Vec::new();
        loop {
            let frame = connection.next().await.expect("the connection goes on");
            if frame.kind == kind::DATA {
                content.extend(frame.payload);
                if frame.flags & END_STREAM != 0 {
                    break;
                }
            }
        }
        assert!(content == pulled.range(path, 7..107).await.body, "{path}");
    }
}

/// Waits until a connection is cut, sending a byte of `bytes` ten times a second; what came before.
async fn dribbled(mut stream: TcpStream, bytes: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    let cut = async {
        let mut ticks = interval(Duration::from_millis(100));
        let mut bytes = bytes.iter().cycle();
        loop {
            tokio::select! {
                read = stream.read_buf(&mut answer) => if !matches!(read, Ok(1..)) { return },
                _ = ticks.tick() => {
                    let byte = bytes.next().expect("some bytes");
                    if stream.write_all(&[*byte]).await.is_err() { return }
                }
            }
        }
    };
    timeout(SOON, cut).await.expect("the connection is cut");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_handshakes_are_cut() {
    let (edge, _project, host) = impatient().await;
    let connect = async |listener| TcpStream::connect(edge.address(listener)).await.unwrap();
    // A request line that does not end, and header fields that do not.
    let first = dribbled(connect("http").await, b"GET-a-very-long-method");
    let mut begun = connect("http").await;
    let head = format!("GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\nX: ");
    begun.write_all(head.as_bytes()).await.unwrap();
    let second = dribbled(begun, b"x");
    // After an answer.
    let mut kept = connect("http").await;
    let request = format!("GET /a.mp4 HTTP/1.1\r\nHost: {host}\r\n\r\n");
    kept.write_all(request.as_bytes()).await.unwrap();
    let third = dribbled(kept, b"GET-a-very-long-method");
    // A ClientHello of 512 bytes, of which hardly any come, and nothing at all.
    let mut hello = connect("https").await;
    hello
        .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        .await
        .unwrap();
    let (fourth, fifth) = (dribbled(hello, b"\0"), async {
        let mut silent = connect("https").await;
        timeout(SOON, silent.read_to_end(&mut Vec::new()))
            .await
            .expect("it is cut")
    });
    // The preface of HTTP/2, and not all of it.
    let sixth = async {
        let mut half = connect("http").await;
        half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        timeout(SOON, half.read_to_end(&mut Vec::new()))
            .await
            .expect("it is cut")
    };
    let (first, second, third, fourth, ..) = tokio::join!(first, second, third, fourth, fifth, sixth);
    for answer in [first, second, fourth] {
        assert!(!String::from_utf8_lossy(&answer).contains("CONTENT"));
    }
    assert!(third.ends_with(b"CONTENT"));
    served(&edge, &host).await;
}

/// A connection whose system keeps little for it, so that what it does not read stays with the server.
async fn narrow(edge: &Edge, request: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let mut stream = socket.connect(edge.address("http")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_too_slowly_is_cut_and_who_reads_slowly_is_not() {
    let (edge, project, host) = impatient().await;
    let content: Vec<u8> = (0..8 * MIB).map(|n| (n >> 8) as u8).collect();
    project.put("videos", "large.mp4", content.clone()).await;
    let request = format!("GET /large.mp4 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");

    let starved = async {
        let mut stream = narrow(&edge, &request).await;
        let mut ticks = interval(Duration::from_millis(100));
        // What the server's system holds for the client still comes after the cut; but nobody takes bytes any more.
        while stream.write_all(b"x").await.is_ok() {
            ticks.tick().await;
            let _ = stream.read(&mut [0; 16]).await;
        }
    };
    let starved = async { timeout(SOON, starved).await.expect("the connection is cut") };
    let slow = async {
        let mut stream = narrow(&edge, &request).await;
        let mut answer = Vec::new();
        let mut ticks = interval(Duration::from_millis(100));
        // Half a MiB a second.
        loop {
            ticks.tick().await;
            let mut part = vec![0; MIB / 20];
            let mut filled = 0;
            while filled < part.len() {
                match stream.read(&mut part[filled..]).await {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) => panic!("{e} after {} bytes", answer.len()),
                }
            }
            answer.extend(&part[..filled]);
            if filled < part.len() {
                break;
            }
        }
        assert!(answer.ends_with(&content), "{} bytes came", answer.len());
    };
    tokio::join!(starved, slow);
}

/// Makes the bucket private; paths with tokens that name its key, which did not sign them.
async fn forged(edge: &Edge, project: &Project) -> Vec<String> {
    project.policy("videos", "authenticated").await;
    let key = project.signing_key("bucket_name", "videos").await;
    let good = sign(edge, &key, "");
    let (before, after) = good.split_at(good.len() - 40);
    ('a'..='l')
        .map(|other| format!("{before}{other}{}", &after[1..]))
        .filter(|token| *token != good)
        .map(|token| format!("/a.mp4?auth={token}"))
        .collect()
}

#[tokio::test]
async fn forged_tokens_end_their_connection() {
    let edge = Edge::start(BINARY).await;
    let project = edge.project().await;
    let host = project.bucket("videos").await;
    project.put("videos", "a.mp4", "CONTENT").await;
    let paths = forged(&edge, &project).await;
    assert!(paths.len() > 8);

    let requests: Vec<_> = paths
        .iter()
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
        .collect();
    let answers = timeout(SOON / 3, edge.http().raw(requests.concat().as_bytes()))
        .await
        .expect("the end");
    assert_eq!(answers.matches("HTTP/1.1 403 ").count(), 8, "{answers}");
    assert_eq!(answers.to_lowercase().matches("connection: close").count(), 1);
    assert!(!answers.contains("CONTENT"));

    let mut connection = H2::plain(edge.address("http"), &[]).await;
    let mut refused = 0;
    for (n, path) in paths.iter().enumerate() {
        let stream = 2 * n as u32 + 1;
        connection.send(&Frame::request(stream, &get(&host, path))).await;
        match timeout(SOON / 3, connection.outcome(stream)).await.expect("an outcome") {
            Outcome::Status(403) => refused += 1,
            Outcome::GoAway(_) | Outcome::Closed => break,
            other => panic!("{path}: {other:?}"),
        }
    }
    assert!((7..=9).contains(&refused), "{refused} answers");
    timeout(SOON / 3, connection.end()).await.expect("the end");
}

#[tokio::test]
async fn a_connection_for_one_project_does_not_serve_another() {
    let edge = Edge::start(BINARY).await;
    let (mine, theirs) = (edge.project().await, edge.project().await);
    let (first, second) = (mine.bucket("first").await, mine.bucket("second").await);
    let third = theirs.bucket("third").await;
    for (project, bucket) in [(&mine, "first"), (&mine, "second"), (&theirs, "third")] {
        project.put(bucket, "a.mp4", "CONTENT").await;
    }
    for protocol in [Protocol::H1, Protocol::H2] {
        let client = edge.https(protocol);
        for (sni, host, status, code) in [
            (&first, &second, 200, ""),
            (&first, &third, 421, "host_not_covered"),
            (&third, &first, 421, "host_not_covered"),
            (&third, &third, 200, ""),
        ] {
            let reply = client.clone().with_sni(sni).get(host, "/a.mp4").await;
            assert_eq!(
                (reply.status.as_u16(), reply.error().as_str()),
                (status, code),
                "{protocol:?}: {sni} and {host}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_refused_for_its_length_has_the_headers_of_cors() {
    let (edge, project, host) = impatient().await;
    let player = "https://player.example.com";
    let policy = json!({"Access-Control-Allow-Origin": player});
    project.post("/v1/buckets/videos/cors", policy).await;
    let long = "a".repeat(9 << 10);
    for client in [
        edge.http(),
        edge.https(Protocol::H2),
        Client::plain(edge.address("http"), Protocol::H2),
    ] {
        let path = format!("/{long}");
        for (path, headers, status) in [
            ("/a.mp4", vec![("origin", player), ("x-long", long.as_str())], 431),
            (path.as_str(), vec![("origin", player)], 414),
        ] {
            let reply = client.send(Method::GET, &host, path, &headers, Bytes::new()).await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("access-control-allow-origin")),
                (status, player)
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_not_waited_for() {
    let (edge, project, host) = impatient().await;
    let origin = edgeweir_harness::Origin::serve(|_| edgeweir_harness::Answer::ok("", "taken")).await;
    let open = json!({"type": "http", "url": origin.url(), "methods": ["GET", "HEAD", "POST"]});
    let taking = project.bucket_at("taking", open).await;
    let mut stream = TcpStream::connect(edge.address("http")).await.unwrap();
    let head = format!("POST /a HTTP/1.1\r\nHost: {taking}\r\nContent-Length: 100000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    dribbled(stream, b"x").await;
    served(&edge, &host).await;
}
