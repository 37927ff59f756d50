//! Many viewers at a time of what the cache does not have yet.

use crate::pulled::{Pulled, is_hit};
use bytes::Bytes;
use edgeweir_harness::{Answer, Edge, Large};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};

/// How many files this process may open from now on.
fn set_open_files(files: u64) {
    let limit = getrlimit(Resource::Nofile);
    let current = Some(files.min(limit.maximum.unwrap_or(u64::MAX)));
    setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
}

/// So many viewers of one object. Each says when it has a first byte, and then compares all that comes.
struct Crowd {
    viewers: JoinSet<Result<(), String>>,
    /// A permit for each who has asked.
    asking: Arc<Semaphore>,
    /// A permit for each who has a byte.
    reading: Arc<Semaphore>,
}

impl Crowd {
    fn of(count: usize, address: SocketAddr, host: &str, path: &str, expected: &Bytes) -> Self {
        let request: Arc<str> = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into();
        let (asking, reading) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        // More at a time would wait for the system to retry.
        let connecting = Arc::new(Semaphore::new(128));
        let mut viewers = JoinSet::new();
        for _ in 0..count {
            let (request, expected) = (request.clone(), expected.clone());
            let (asking, reading, connecting) = (asking.clone(), reading.clone(), connecting.clone());
            viewers.spawn(async move {
                let mut stream = {
                    let _one = connecting.acquire().await;
                    let mut stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
                    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
                    stream
                };
                asking.add_permits(1);
                view(&mut stream, &expected, &reading).await
            });
        }
        Self {
            viewers,
            asking,
            reading,
        }
    }

    /// Waits until so many have sent their requests.
    async fn asking(&self, count: usize) {
        self.asking.acquire_many(count as u32).await.unwrap().forget();
    }

    /// Waits until so many have a first byte, or one has failed.
    async fn reading(&mut self, count: usize) {
        tokio::select! {
            all = self.reading.acquire_many(count as u32) => all.unwrap().forget(),
            Some(ended) = self.viewers.join_next() => panic!("one has ended before the others began: {ended:?}"),
        }
    }

    /// What became of each.
    async fn ended(self) -> Vec<Result<(), String>> {
        self.viewers.join_all().await
    }
}

/// Reads an answer, and compares its body with what it should be.
async fn view(stream: &mut TcpStream, expected: &[u8], reading: &Semaphore) -> Result<(), String> {
    let mut head = Vec::new();
    let end = loop {
        if stream.read_buf(&mut head).await.map_err(|e| e.to_string())? == 0 {
            return Err(format!("no answer: {}", String::from_utf8_lossy(&head)));
        }
        if let Some(at) = head.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let mut chunk = Vec::with_capacity(16 << 10);
    chunk.extend_from_slice(&head.split_off(end));
    let head = String::from_utf8(head).unwrap();
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(head);
    }
    let mut read = 0;
    loop {
        if expected.get(read..read + chunk.len()) != Some(&chunk[..]) {
            return Err(format!("wrong bytes after {read}"));
        }
        if read == 0 && !chunk.is_empty() {
            reading.add_permits(1);
        }
        read += chunk.len();
        chunk.clear();
        if stream.read_buf(&mut chunk).await.map_err(|e| e.to_string())? == 0 {
            break;
        }
    }
    if read == expected.len() {
        Ok(())
    } else {
        Err(format!("{read} bytes of {}", expected.len()))
    }
}

/// A server for crowds: it does not log what each does, and lets them wait.
const CALM: [(&str, &str); 2] = [("log.filter", "info"), ("limits.idle_seconds", "600")];

fn answer_of(content: &Bytes) -> Answer {
    let length = content.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: max-age=600\r\nConnection: close\r\n\r\n"
    );
    Answer::Raw([head.as_bytes(), content].concat().into())
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_viewers_of_a_cold_object_are_one_request_to_the_origin() {
    // As usual where it is started: it has to help itself.
    set_open_files(1024);
    let edge = Edge::start_with(crate::BINARY, &CALM).await;
    set_open_files(u64::MAX);
    // The server keeps a quarter of its files for other things, and this process some for itself.
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let viewers = (files / 4 * 3)
        .saturating_sub(100)
        .min(files.saturating_sub(1_000))
        .min(10_000) as usize;
    println!("{viewers} viewers");
    let content = Large::new(64 << 10).whole();
    let answer = answer_of(&content);
    let held_at = 1_000;
    let pulled = Pulled::before(edge, move |_| answer.clone().held_after(held_at)).await;
    let mut crowd = Crowd::of(viewers, pulled.address(), &pulled.host, "/a.ts", &content);
    crowd.reading(viewers).await;
    pulled.origin.release();
    let ended = crowd.ended().await;
    let failed: Vec<_> = ended.iter().filter_map(|end| end.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed: {:?}", failed.len(), failed[0]);
    assert_eq!((ended.len(), pulled.origin.seen().len()), (viewers, 1));
    let answers = async |how: &str| {
        pulled
            .edge
            .metric(&format!("edgeweir_edge_answers_total{{cache=\"{how}\"}}"))
            .await
    };
    assert_eq!(
        (answers("Miss").await, answers("Collapsed").await),
        (1, viewers as u64 - 1)
    );
    assert!(is_hit(&pulled.get("/a.ts").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_viewers_of_a_cold_large_object_are_one_request_a_slice() {
    const VIEWERS: usize = 1_000;
    const LENGTH: u64 = 5 << 19;
    set_open_files(u64::MAX);
    let object = Large {
        at_once: 1_000,
        ..Large::new(LENGTH)
    };
    let of = object.clone();
    let pulled = Pulled::start(&CALM, move |seen| of.answer(seen)).await;
    let mut crowd = Crowd::of(VIEWERS, pulled.address(), &pulled.host, "/film.mp4", &object.whole());
    crowd.reading(VIEWERS).await;
    pulled.origin.release();
    for end in crowd.ended().await {
        assert_eq!(end, Ok(()));
    }
    let asked = pulled.origin.seen();
    assert!(asked[0].range().is_none());
    let mut slices: Vec<_> = asked[1..]
        .iter()
        .map(|seen| seen.range().unwrap().start >> 20)
        .collect();
    slices.dedup();
    assert_eq!(slices.len(), asked.len() - 1, "{slices:?}");
    assert!(pulled.origin.sent() <= LENGTH, "{} bytes", pulled.origin.sent());
    pulled.stored(4).await;
    assert!(is_hit(&pulled.get("/film.mp4").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_drips_from_the_origin_reaches_every_viewer_as_it_comes() {
    const VIEWERS: usize = 100;
    let drops: Vec<Bytes> = ["a", "b", "c", "d", "e"].map(Bytes::from).into();
    let content: Bytes = drops.concat().into();
    let answer = answer_of(&content);
    let pulled = Pulled::start(&CALM, move |_| {
        let Answer::Raw(all) = &answer else {
            return answer.clone();
        };
        let mut steps: Vec<_> = (all.len() - 4..all.len()).map(|at| all.slice(at..=at)).collect();
        steps.insert(0, all.slice(..all.len() - 4));
        Answer::Steps(steps)
    })
    .await;
    let mut viewers = Vec::new();
    for _ in 0..VIEWERS {
        let mut stream = TcpStream::connect(pulled.address()).await.unwrap();
        let request = format!("GET /a.ts HTTP/1.1\r\nHost: {}\r\n\r\n", pulled.host);
        stream.write_all(request.as_bytes()).await.unwrap();
        viewers.push((stream, Vec::new()));
    }
    for drop in drops {
        for (stream, read) in &mut viewers {
            while !(read.ends_with(&drop) && read.windows(4).any(|w| w == b"\r\n\r\n")) {
                assert!(
                    stream.read_buf(read).await.unwrap() > 0,
                    "{}",
                    String::from_utf8_lossy(read)
                );
            }
        }
        pulled.origin.step();
    }
    assert!(viewers.iter().all(|(_, read)| read.ends_with(b"\r\n\r\nabcde")));
    assert_eq!(pulled.origin.seen().len(), 1);
    pulled.stored(1).await;
    assert!(is_hit(&pulled.get("/a.ts").await));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_dies_before_a_byte_costs_the_followers_one_more_request() {
    const VIEWERS: usize = 200;
    let content = Large::new(10_000).whole();
    let answer = answer_of(&content);
    for with_head in [false, true] {
        let (answer, asked) = (answer.clone(), AtomicUsize::new(0));
        let pulled = Pulled::start(&CALM, move |_| match (&answer, asked.fetch_add(1, Ordering::SeqCst)) {
            (Answer::Raw(all), 0) => {
                let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
                Answer::Reset(all.slice(..if with_head { end } else { 0 }))
            }
            _ => answer.clone(),
        })
        .await;
        let crowd = Crowd::of(VIEWERS, pulled.address(), &pulled.host, "/a.ts", &content);
        crowd.asking(VIEWERS).await;
        pulled.origin.asked(1).await;
        pulled.origin.step();
        let ended = crowd.ended().await;
        let whole = ended.iter().filter(|end| end.is_ok()).count();
        // All but, perhaps, the one whose request went to the origin.
        assert!(whole >= VIEWERS - 1, "{with_head}: {whole} of {VIEWERS}");
        assert_eq!(pulled.origin.seen().len(), 2, "{with_head}");
        pulled.stored(1).await;
        let hit = pulled.get("/a.ts").await;
        assert!(hit.body == content && is_hit(&hit), "{with_head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_that_dies_in_the_middle_breaks_its_viewers_and_leaves_nothing() {
    const VIEWERS: usize = 200;
    let content = Large::new(100_000).whole();
    let answer = answer_of(&content);
    let asked = AtomicUsize::new(0);
    let pulled = Pulled::start(&CALM, move |_| match (&answer, asked.fetch_add(1, Ordering::SeqCst)) {
        (Answer::Raw(all), 0) => Answer::Reset(all.slice(..50_000)),
        _ => answer.clone(),
    })
    .await;
    let mut crowd = Crowd::of(VIEWERS, pulled.address(), &pulled.host, "/a.ts", &content);
    crowd.reading(VIEWERS).await;
    pulled.origin.step();
    for end in crowd.ended().await {
        // What came was right, and its end was no end.
        let error = end.unwrap_err();
        assert!(!error.contains("wrong"), "{error}");
    }
    assert_eq!(pulled.origin.seen().len(), 1);
    assert_eq!(pulled.edge.metric("edgeweir_cache_memory_entries").await, 0);
    let reply = pulled.get("/a.ts").await;
    assert!(reply.complete && reply.body == content && !is_hit(&reply));
    assert_eq!(pulled.origin.seen().len(), 2);
}
