//! What is asked for so often that it is sent from pages of its own: byte for byte the same, for everyone.

use crate::{
    live::until,
    pulled::{Pulled, is_hit},
};
use edgeweir_harness::{Large, Protocol};
use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MIB: u64 = 1 << 20;

/// More often than it takes until an object is hot.
const OFTEN: usize = 40;

/// Objects that are stored whole, and one that is kept in slices.
fn object(path: &str) -> Large {
    Large::new(match path.trim_start_matches("/base") {
        "/film" => 3 * MIB + 5,
        // It fits into the socket of a viewer who reads nothing.
        "/part" => 160 << 10,
        _ => MIB,
    })
}

/// An origin with them in a version, which a test sets.
async fn objects() -> (Pulled, Arc<AtomicU8>) {
    let version = Arc::new(AtomicU8::new(1));
    let at = version.clone();
    let pulled = Pulled::start(&[], move |seen| {
        object(&seen.target).version(at.load(Ordering::SeqCst)).answer(seen)
    })
    .await;
    (pulled, version)
}

/// Waits until so many bytes lie in pages.
async fn in_pages(pulled: &Pulled, bytes: u64) {
    let what = format!("{bytes} bytes in pages");
    until(&what, async || (pulled.edge.in_pages() == bytes).then_some(())).await;
}

/// Asks for all of an object until it is hot, and compares every byte.
async fn heat(pulled: &Pulled, path: &str, version: u8) {
    let whole = object(path).version(version).whole();
    for time in 0..OFTEN {
        let reply = pulled.get(path).await;
        assert!(reply.complete && reply.body == whole, "{path}, time {time}");
        assert!(time < 2 || is_hit(&reply), "{path}, time {time}: {:?}", reply.headers);
    }
}

#[tokio::test]
async fn a_hot_object_is_the_same_to_everyone() {
    let (pulled, _) = objects().await;
    // Of the film all but the few bytes of its last slice.
    for (path, bytes) in [("/short", MIB), ("/film", 4 * MIB)] {
        heat(&pulled, path, 1).await;
        in_pages(&pulled, bytes).await;
        let object = object(path).version(1);
        for range in [0..1, 5..MIB - 1, MIB / 2..MIB / 2 + 4097, MIB - 1..MIB] {
            assert!(
                pulled.range(path, range.clone()).await.body == object.bytes(range.clone()),
                "{path} {range:?}"
            );
        }
        let parts = pulled.get_with(path, &[("range", "bytes=0-9,300000-300019")]).await;
        for range in [0..10, 300_000..300_020] {
            let part = object.bytes(range);
            assert!(parts.body.windows(part.len()).any(|window| window == part), "{path}");
        }
        for protocol in [Protocol::H1, Protocol::H2] {
            let reply = pulled.edge.https(protocol).get(&pulled.host, path).await;
            assert!(reply.complete && reply.body == object.whole(), "{path} {protocol:?}");
        }
        let old = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", pulled.host);
        let mut stream = TcpStream::connect(pulled.address()).await.unwrap();
        stream.write_all(old.as_bytes()).await.unwrap();
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).await.unwrap();
        assert!(reply.ends_with(&object.whole()), "{path} to HTTP/1.0");
    }
    let asked = pulled.origin.seen().len();
    heat(&pulled, "/film", 1).await;
    assert_eq!(pulled.origin.seen().len(), asked);
}

/// What lies in a viewer's socket is not touched when its object goes and another one takes its place.
#[tokio::test]
async fn a_slow_viewer_gets_the_object_that_it_asked_for() {
    let (pulled, version) = objects().await;
    let length = object("/part").version(1).whole().len() as u64;
    heat(&pulled, "/part", 1).await;
    in_pages(&pulled, length).await;
    let request = format!(
        "GET /part HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        pulled.host
    );
    let mut viewers = Vec::new();
    for _ in 0..8 {
        let mut stream = TcpStream::connect(pulled.address()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let first = stream.read_u8().await.unwrap();
        assert_eq!(first, b'H');
        viewers.push(stream);
    }
    for new in 2..6 {
        version.store(new, Ordering::SeqCst);
        pulled.purge(json!({"path": "part"})).await;
        // All of it has left the pages, but for what is in sockets.
        in_pages(&pulled, 0).await;
        heat(&pulled, "/part", new).await;
        in_pages(&pulled, length).await;
    }
    let expected = object("/part").version(1).whole();
    for mut viewer in viewers {
        let mut reply = Vec::new();
        viewer.read_to_end(&mut reply).await.unwrap();
        assert!(reply.ends_with(&expected));
    }
}
