//! Slices on a disk that hangs.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::{
    cache::{CacheConfig, Lookup},
    disk::{DiskConfig, tests::Faulty},
    entry::Now,
    fill::{BodyError, BoxBody, Fetched, ResponseHead},
    key::KeyRef,
    policy::Settings,
    sliced::{Fetching, SliceSource, SlicedBody},
    slices::Validator,
    tier::Tier,
};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use std::time::Duration;

const SLICE: u64 = 1 << 10;
const LENGTH: u64 = 8 * SLICE;

const KEY: KeyRef<'_> = KeyRef {
    site: 1,
    generation: 0,
    path: "film.mp4",
    query: "",
};

fn bytes(range: Range<u64>) -> Vec<u8> {
    range.map(|at| ((at * 31) >> 3) as u8).collect()
}

/// What the origin was asked for.
#[derive(Debug, Clone, Default)]
struct Asked(Arc<Mutex<Vec<Range<u64>>>>);

impl Asked {
    fn answer(&self, range: Range<u64>) -> FetchedResponse {
        self.0.lock().push(range.clone());
        let content_range = format!("bytes {}-{}/{LENGTH}", range.start, range.end - 1);
        let fields = [
            ("etag", "\"1\""),
            ("cache-control", "max-age=600"),
            ("content-range", &content_range),
        ];
        let field = |(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        let body: BoxBody = Box::pin(Full::from(bytes(range.clone())).map_err(|e| -> BodyError { match e {} }));
        FetchedResponse {
            head: ResponseHead {
                status: StatusCode::PARTIAL_CONTENT,
                headers: fields.into_iter().map(field).collect(),
            },
            body,
            length: Some(range.end - range.start),
            settings: Settings::http(),
        }
    }
}

impl SliceSource for Asked {
    fn fetch(&self, range: Range<u64>, _: &Validator) -> Fetching {
        let answer = self.answer(range);
        Box::pin(async { Ok(answer) })
    }
}

fn open(cache: &Arc<Cache>, origin: &Asked, entry: &Entry) -> SlicedBody {
    SlicedBody::new(cache, KEY, entry, origin.clone(), Ahead::default()).unwrap()
}

/// Reads it while the time passes in which the disk is waited for.
async fn read(body: SlicedBody) -> Vec<u8> {
    let reading = tokio::spawn(body.collect());
    while !reading.is_finished() {
        tokio::time::advance(Duration::from_millis(100)).await;
        tokio::task::yield_now().await;
    }
    reading.await.unwrap().unwrap().to_bytes().into()
}

#[tokio::test(start_paused = true)]
async fn a_reader_turns_to_the_origin_when_the_disk_hangs() {
    let (dir, files, none) = (tempfile::tempdir().unwrap(), Arc::<Faulty>::default(), HeaderMap::new());
    let (tier, purges) = Tier::open_with(DiskConfig::new(dir.path(), 16 << 20), files.clone()).unwrap();
    let config = CacheConfig {
        slice_bytes: SLICE,
        attached_bytes: 0,
        ..CacheConfig::with_memory(64 << 20)
    };
    let cache = Cache::with_tier(config, Some(Arc::new(tier)), purges);
    let origin = Asked::default();
    let first = origin.answer(0..SLICE);
    let fetched = cache.fetch(KEY, &none, Some(0..SLICE), |_| async { Ok(first) }).await;
    let Ok(Fetched::Entry(entry, ..)) = fetched else {
        panic!("{fetched:?}")
    };
    assert_eq!(read(open(&cache, &origin, &entry)).await, bytes(0..LENGTH));
    // All of it is on disk, and there alone.
    while cache.stats().disk.unwrap().queued_bytes > 0 {
        tokio::task::yield_now().await;
    }
    cache.stored.clear();
    origin.0.lock().clear();
    files.hang(true);
    assert!(matches!(cache.lookup(KEY, &none, Now::now()), Lookup::OnDisk(_)));
    assert_eq!(read(open(&cache, &origin, &entry)).await, bytes(0..LENGTH));
    files.hang(false);
    // It was waited for once.
    assert_eq!(cache.stats().disk.unwrap().reads_given_up, 1);
    assert_eq!(
        origin.0.lock().iter().map(|range| range.end - range.start).sum::<u64>(),
        LENGTH
    );
}
