//! Large objects in slices, against an origin that counts what it is asked for.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use edgeweir_cache::{
    Ahead, BodyError, Cache, CacheConfig, FetchError, Fetched, FetchedResponse, Fetching, KeyRef, Lookup, Now,
    ResponseHead, SliceError, SliceSource, SlicedBody, Validator, disk::DiskConfig, first_slice, policy::Settings,
};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use std::{
    future::pending,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

const SLICE: u64 = 1 << 10;
const LENGTH: u64 = 20 * SLICE + 100;

/// How the origin answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Well,
    /// Ranges are answered with the whole.
    WithoutRanges,
    /// The next answer to a range breaks off in the middle of it.
    Breaking,
    /// 503.
    Down,
}

#[derive(Debug)]
struct State {
    version: u64,
    length: u64,
    mode: Mode,
    asked: Vec<Option<Range<u64>>>,
}

#[derive(Debug, Clone)]
struct Origin(Arc<Mutex<State>>);

fn byte(version: u64, at: u64) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 8) ^ version.wrapping_mul(97)) as u8
}

impl Origin {
    fn new(length: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            version: 1,
            length,
            mode: Mode::Well,
            asked: Vec::new(),
        })))
    }

    fn set(&self, mode: Mode) {
        self.0.lock().mode = mode;
    }

    fn change(&self) {
        self.0.lock().version += 1;
    }

    /// What it was asked for since the last time.
    fn asked(&self) -> Vec<Option<Range<u64>>> {
        std::mem::take(&mut self.0.lock().asked)
    }

    fn ask(&self, range: Option<Range<u64>>, condition: Option<&Validator>) -> Result<FetchedResponse, FetchError> {
        let mut state = self.0.lock();
        state.asked.push(range.clone());
        let etag = format!("\"{}\"", state.version);
        let mut headers = HeaderMap::new();
        let answer = |status, headers, length, body| {
            Ok(FetchedResponse {
                head: ResponseHead { status, headers },
                body,
                length: Some(length),
                settings: Settings::http(),
            })
        };
        let nothing = || Box::pin(StreamBody::new(stream::empty()));
        if state.mode == Mode::Down {
            return answer(StatusCode::SERVICE_UNAVAILABLE, headers, 0, nothing());
        }
        if condition.is_some_and(|c| c.condition().1 != etag.as_str()) {
            return answer(StatusCode::PRECONDITION_FAILED, headers, 0, nothing());
        }
        headers.insert("etag", etag.parse().unwrap());
        headers.insert("accept-ranges", "bytes".parse().unwrap());
        headers.insert("cache-control", "max-age=60".parse().unwrap());
        let served = range.filter(|_| state.mode != Mode::WithoutRanges);
        let (status, range) = match served {
            None => (StatusCode::OK, 0..state.length),
            Some(range) => {
                let range = range.start..range.end.min(state.length);
                let value = format!("bytes {}-{}/{}", range.start, range.end - 1, state.length);
                headers.insert("content-range", value.parse().unwrap());
                (StatusCode::PARTIAL_CONTENT, range)
            }
        };
        let breaks = state.mode == Mode::Breaking && status == StatusCode::PARTIAL_CONTENT;
        if breaks {
            state.mode = Mode::Well;
        }
        let (version, length) = (state.version, range.end - range.start);
        let end = if breaks { range.start + length / 2 } else { range.end };
        let chunks = (range.start..end).step_by(300).map(move |at| {
            let chunk: Bytes = (at..end.min(at + 300)).map(|at| byte(version, at)).collect();
            Ok(http_body::Frame::data(chunk))
        });
        let broken = breaks.then(|| Err(BodyError::Broken("reset".into())));
        let body = Box::pin(StreamBody::new(stream::iter(chunks.chain(broken))));
        answer(status, headers, length, body)
    }
}

impl SliceSource for Origin {
    fn fetch(&self, range: Range<u64>, validator: &Validator) -> Fetching {
        let answer = self.ask(Some(range), Some(validator));
        Box::pin(async { answer })
    }
}

fn cache() -> Arc<Cache> {
    Cache::new(CacheConfig {
        memory_bytes: 4 << 20,
        max_object_bytes: 1 << 16,
        slice_bytes: SLICE,
        attached_bytes: 0,
    })
}

const KEY: KeyRef<'_> = KeyRef {
    site: 1,
    generation: 0,
    path: "film.mp4",
    query: "",
};

/// Opens the object as a request for `asked` does.
async fn open(cache: &Arc<Cache>, origin: &Origin, asked: Option<&str>) -> SlicedBody {
    let none = HeaderMap::new();
    if let Lookup::Fresh { entry, .. } = cache.lookup(KEY, &none, Now::now()) {
        return SlicedBody::new(cache, KEY, &entry, origin.clone(), Ahead::default()).unwrap();
    }
    let slice = asked.and_then(|asked| first_slice(asked, SLICE));
    let answer = origin.ask(slice.clone(), None);
    match cache.fetch(KEY, &none, slice, |_| async { answer }).await {
        Ok(Fetched::Entry(entry, _, ahead)) => {
            assert_eq!(entry.status(), StatusCode::OK);
            assert!(!entry.headers().contains_key("content-range"));
            SlicedBody::new(cache, KEY, &entry, origin.clone(), ahead).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

/// Stores a small object.
async fn store(cache: &Arc<Cache>, path: &str) {
    let answer = Origin::new(1000).ask(None, None);
    let key = KeyRef { path, ..KEY };
    match cache.fetch(key, &HeaderMap::new(), None, |_| async { answer }).await {
        Ok(Fetched::Stream(stream)) => drop(stream.body.collect(1000).await.unwrap()),
        other => panic!("{other:?}"),
    }
}

async fn read(body: SlicedBody) -> Result<Bytes, BodyError> {
    body.collect().await.map(http_body_util::Collected::to_bytes)
}

fn bytes(version: u64, range: Range<u64>) -> Bytes {
    range.map(|at| byte(version, at)).collect()
}

fn slices(range: Range<u64>) -> Range<u64> {
    range.start * SLICE..(range.end * SLICE).min(LENGTH)
}

#[tokio::test]
async fn the_whole_begins_with_one_fetch_and_goes_on_with_larger_ones_ahead() {
    let (cache, origin) = (cache(), Origin::new(LENGTH));
    assert_eq!(
        read(open(&cache, &origin, None).await).await.unwrap(),
        bytes(1, 0..LENGTH)
    );
    let asked = origin.asked();
    assert_eq!(asked, [None, Some(slices(8..16)), Some(slices(16..21))]);
    assert_eq!(
        read(open(&cache, &origin, None).await).await.unwrap(),
        bytes(1, 0..LENGTH)
    );
    assert_eq!(origin.asked(), []);
}

#[tokio::test]
async fn a_seek_costs_its_slices_and_no_byte_more() {
    let (cache, origin) = (cache(), Origin::new(20 << 30));
    let start = (10 << 30) + 5;
    let range = start..start + 10;
    let mut body = open(&cache, &origin, Some("bytes=10737418245-10737418254")).await;
    assert_eq!(read(body.range(range.clone())).await.unwrap(), bytes(1, range));
    assert_eq!(origin.asked(), [Some(10 << 30..(10 << 30) + SLICE)]);
    // Over the edge of the slice: the next one is missing.
    let range = start..(10 << 30) + SLICE + 1;
    let mut body = open(&cache, &origin, None).await;
    assert_eq!(read(body.range(range.clone())).await.unwrap(), bytes(1, range));
    assert_eq!(origin.asked(), [Some((10 << 30) + SLICE..(10 << 30) + 2 * SLICE)]);
    // The last byte.
    let range = (20 << 30) - 1..20 << 30;
    let mut body = open(&cache, &origin, None).await;
    assert_eq!(read(body.range(range.clone())).await.unwrap(), bytes(1, range));
    assert_eq!(origin.asked(), [Some((20 << 30) - SLICE..20 << 30)]);
}

#[tokio::test]
async fn however_many_read_a_cold_object_each_slice_is_fetched_once() {
    let (cache, origin) = (cache(), Origin::new(LENGTH));
    let read = stream::iter(0..200)
        .map(|_| async { read(open(&cache, &origin, None).await).await.unwrap() })
        .buffer_unordered(200);
    let whole = bytes(1, 0..LENGTH);
    read.for_each(|got| {
        assert_eq!(got, whole);
        std::future::ready(())
    })
    .await;
    let asked = origin.asked();
    // `open` asks before it knows whether it leads; only one of those answers is read.
    let mut fetched: Vec<_> = asked.into_iter().flatten().collect();
    fetched.sort_by_key(|range| range.start);
    for pair in fetched.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:?}");
    }
    assert_eq!(fetched.first().map(|range| range.start), Some(8 * SLICE));
}

#[tokio::test]
async fn a_changed_object_is_never_mixed() {
    let (cache, origin) = (cache(), Origin::new(LENGTH));
    let mut old = open(&cache, &origin, None).await;
    assert_eq!(read(old.range(0..SLICE)).await.unwrap(), bytes(1, 0..SLICE));
    origin.change();
    // What is stored is fresh; what is missing of it cannot be had any more.
    let mut stored = open(&cache, &origin, None).await;
    let mut seek = stored.range(9 * SLICE..10 * SLICE);
    let error = seek.ready().await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&SliceError::Changed));
    origin.asked();
    let mut new = open(&cache, &origin, Some("bytes=9216-10239")).await;
    assert_eq!(
        read(new.range(9 * SLICE..10 * SLICE)).await.unwrap(),
        bytes(2, 9 * SLICE..10 * SLICE)
    );
    assert_eq!(
        read(open(&cache, &origin, None).await).await.unwrap(),
        bytes(2, 0..LENGTH)
    );
}

#[tokio::test]
async fn a_changed_object_is_forgotten_where_only_the_disk_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let config = CacheConfig {
        memory_bytes: 256 << 10,
        max_object_bytes: 16 << 10,
        slice_bytes: SLICE,
        attached_bytes: 0,
    };
    let start = || Cache::with_disk(config, DiskConfig::new(dir.path().join("tier"), 32 << 20)).unwrap();
    let (cache, origin, none) = (start(), Origin::new(LENGTH), HeaderMap::new());
    let mut body = open(&cache, &origin, Some("bytes=0-9")).await;
    assert_eq!(read(body.range(0..10)).await.unwrap(), bytes(1, 0..10));
    store(&cache, "another").await;
    cache.shutdown();
    // Memory is full of others by then: of what is read from disk, the first is taken into it, and then one in a few.
    let cache = start();
    for other in 0..400 {
        store(&cache, &format!("other-{other}")).await;
    }
    let first = KeyRef { path: "another", ..KEY };
    assert!(matches!(cache.lookup(first, &none, Now::now()), Lookup::Fresh { .. }));
    origin.asked();
    origin.change();
    let mut body = open(&cache, &origin, Some("bytes=5000-5009")).await;
    assert_eq!(origin.asked(), [], "its head is there");
    read(body.range(5000..5010)).await.unwrap_err();
    assert!(matches!(cache.lookup(KEY, &none, Now::now()), Lookup::Miss));
}

#[tokio::test]
async fn a_change_in_the_middle_of_a_download_breaks_it_off() {
    let (cache, origin) = (cache(), Origin::new(LENGTH));
    let mut body = open(&cache, &origin, None).await;
    let mut got = Vec::new();
    while got.len() < SLICE as usize {
        got.extend_from_slice(&body.frame().await.unwrap().unwrap().into_data().unwrap());
    }
    origin.change();
    let end = loop {
        match body.frame().await {
            Some(Ok(frame)) => got.extend_from_slice(&frame.into_data().unwrap()),
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(BodyError::Broken(_)))), "{end:?}");
    assert!(body.frame().await.is_none());
    assert_eq!(got, bytes(1, 0..got.len() as u64));
}

#[tokio::test]
async fn an_origin_that_stops_serving_ranges_is_passed_through() {
    let (cache, origin) = (cache(), Origin::new(LENGTH));
    let mut body = open(&cache, &origin, None).await;
    origin.set(Mode::WithoutRanges);
    let error = body.range(9 * SLICE..LENGTH).ready().await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&SliceError::NoRanges));
    let found = cache.lookup(KEY, &HeaderMap::new(), Now::now());
    assert!(matches!(found, Lookup::Pass), "{found:?}");
}

#[tokio::test]
async fn a_slice_that_breaks_off_is_gone_on_with() {
    let (cache, origin) = (cache(), Origin::new(LENGTH));
    let mut body = open(&cache, &origin, Some("bytes=0-")).await;
    assert_eq!(read(body.range(0..SLICE)).await.unwrap(), bytes(1, 0..SLICE));
    origin.set(Mode::Breaking);
    let mut body = open(&cache, &origin, None).await;
    origin.asked();
    let range = 5 * SLICE..6 * SLICE;
    assert_eq!(read(body.range(range.clone())).await.unwrap(), bytes(1, range.clone()));
    assert_eq!(origin.asked(), [Some(range.clone()), Some(range)]);
}

#[tokio::test]
async fn an_origin_that_is_down_loses_nothing() {
    let (cache, origin) = (cache(), Origin::new(LENGTH));
    let mut body = open(&cache, &origin, Some("bytes=0-")).await;
    assert_eq!(read(body.range(0..SLICE)).await.unwrap(), bytes(1, 0..SLICE));
    origin.set(Mode::Down);
    let mut body = open(&cache, &origin, None).await;
    let error = body.range(5 * SLICE..6 * SLICE).ready().await.unwrap_err();
    assert_eq!(error.downcast_ref(), Some(&SliceError::Failing));
    origin.asked();
    let mut body = open(&cache, &origin, None).await;
    assert_eq!(read(body.range(10..20)).await.unwrap(), bytes(1, 10..20));
    assert_eq!(origin.asked(), []);
}

#[tokio::test]
async fn a_slice_that_proves_to_be_the_whole_is_kept_as_such() {
    let (cache, origin) = (cache(), Origin::new(SLICE - 1));
    let none = HeaderMap::new();
    let answer = origin.ask(Some(0..SLICE), None);
    let fetched = cache.fetch(KEY, &none, Some(0..SLICE), |_| async { answer }).await;
    let Ok(Fetched::Stream(stream)) = fetched else {
        panic!("{fetched:?}")
    };
    assert_eq!(stream.head.status, StatusCode::OK);
    assert_eq!(stream.head.headers["content-length"], "1023");
    assert_eq!(stream.body.collect(SLICE).await.unwrap(), bytes(1, 0..SLICE - 1));
    let found = cache.lookup(KEY, &none, Now::now());
    assert!(
        matches!(found, Lookup::Fresh { ref entry, .. } if entry.slices().is_none()),
        "{found:?}"
    );
}

#[tokio::test]
async fn a_purged_object_goes_on_to_its_reader_and_is_not_kept() {
    let (cache, origin) = (cache(), Origin::new(LENGTH));
    let body = open(&cache, &origin, None).await;
    cache.purge(KEY.site, KEY.generation, KEY.path);
    assert_eq!(read(body).await.unwrap(), bytes(1, 0..LENGTH));
    let found = cache.lookup(KEY, &HeaderMap::new(), Now::now());
    assert!(matches!(found, Lookup::Miss), "{found:?}");
}

/// An origin that does not answer.
struct Silent;

impl SliceSource for Silent {
    fn fetch(&self, _: Range<u64>, _: &Validator) -> Fetching {
        Box::pin(pending())
    }
}

#[tokio::test]
async fn what_nobody_reads_on_is_not_fetched() {
    // Chunks end where slices do, or anywhere.
    for (chunk, most) in [(SLICE, SLICE), (SLICE - 100, 2 * (SLICE - 100))] {
        assert_eq!(taken_of_what_nobody_reads_on(chunk).await, most);
    }
}

/// How much is taken of a body in such chunks whose only reader wants the first bytes.
async fn taken_of_what_nobody_reads_on(size: u64) -> u64 {
    let cache = cache();
    let taken = Arc::new(AtomicU64::new(0));
    let origin = Origin::new(LENGTH);
    let mut answer = origin.ask(None, None).unwrap();
    let (count, (send, gate)) = (taken.clone(), tokio::sync::mpsc::unbounded_channel::<()>());
    let chunks = stream::unfold((gate, 0), move |(mut gate, at)| {
        let count = count.clone();
        async move {
            gate.recv().await?;
            count.fetch_add(size, Ordering::SeqCst);
            let chunk = bytes(1, at..at + size);
            Some((Ok(http_body::Frame::data(chunk)), (gate, at + size)))
        }
    });
    answer.body = Box::pin(StreamBody::new(chunks));
    let fetched = cache
        .fetch(KEY, &HeaderMap::new(), None, |_| async { Ok(answer) })
        .await;
    let Ok(Fetched::Entry(entry, _, ahead)) = fetched else {
        panic!("{fetched:?}")
    };
    let mut body = SlicedBody::new(&cache, KEY, &entry, Silent, ahead).unwrap();
    let first = body.range(0..10);
    drop(body);
    for _ in 0..4 {
        send.send(()).unwrap();
    }
    assert_eq!(read(first).await.unwrap(), bytes(1, 0..10));
    send.closed().await;
    taken.load(Ordering::SeqCst)
}

/// Of an origin that ignores suffixes.
#[tokio::test]
async fn a_part_that_proves_to_be_the_whole_is_in_no_slices_of_its_own() {
    let (cache, origin, none) = (cache(), Origin::new(LENGTH), HeaderMap::new());
    origin.set(Mode::WithoutRanges);
    let part = KEY.part("bytes=-5");
    let answer = origin.ask(Some(LENGTH - 5..LENGTH), None);
    let fetched = cache.fetch(part.borrow(), &none, None, |_| async { answer }).await;
    assert!(matches!(fetched, Ok(Fetched::Stream(_))), "{fetched:?}");
}
