//! One fetch of neighbouring slices of an object: each becomes readable as it comes, and is stored when it is whole.
//! Slices that nobody waits for when those before them are done are not fetched.

use crate::{
    cache::Cache,
    fill::{
        BodyError, BoxBody, FetchError, FetchedResponse, Fill, Progress, Reader, ResponseHead, Streaming, deserted,
    },
    key::Key,
    slices::Slices,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use std::{
    collections::VecDeque,
    future::poll_fn,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// Who began to read ahead: the slices, and readers of their fetches.
#[derive(Debug, Default)]
pub struct Ahead(pub(crate) VecDeque<(u64, Reader)>);

impl Ahead {
    /// The reader of a slice, if there is one; those before it are let go.
    pub(crate) fn take(&mut self, slice: u64) -> Option<Reader> {
        while self.0.front().is_some_and(|(ahead, _)| *ahead < slice) {
            self.0.pop_front();
        }
        let (_, reader) = self.0.pop_front_if(|(ahead, _)| *ahead == slice)?;
        Some(reader)
    }

    /// Lets go of the slices from this one on.
    pub(crate) fn end_at(&mut self, end: u64) {
        self.0.retain(|(slice, _)| *slice < end);
    }
}

/// A fetch of slices.
pub(crate) struct Span {
    pub(crate) cache: Arc<Cache>,
    /// The object.
    pub(crate) key: Key,
    pub(crate) slices: Arc<Slices>,
    /// The number of the slice that comes first of those that are still to come.
    pub(crate) first: u64,
    pub(crate) fills: VecDeque<Arc<Fill>>,
}

impl Drop for Span {
    /// However the fetch ends, nobody joins it or waits for it after that.
    fn drop(&mut self) {
        self.fail(&(Arc::new(deserted()) as FetchError));
    }
}

impl Span {
    /// The bytes that are still to come.
    pub(crate) fn range(&self) -> Range<u64> {
        let last = self.first + self.fills.len() as u64 - 1;
        self.slices.range(self.first).start..self.slices.range(last).end
    }

    pub(crate) async fn run(mut self, fetch: impl Future<Output = Result<FetchedResponse, FetchError>>) {
        let checked = |response| self.cache.checked(&self.key, &self.slices, &self.range(), response);
        match fetch.await.and_then(checked) {
            Ok(response) => self.feed(response.body, response.settings.persist).await,
            Err(error) => self.fail(&error),
        }
    }

    /// Feeds the slices with a body that begins where the first of them does.
    pub(crate) async fn feed(mut self, mut body: BoxBody, persist: bool) {
        let head = Arc::new(ResponseHead {
            status: StatusCode::PARTIAL_CONTENT,
            headers: HeaderMap::new(),
        });
        // Whether it is fresh, its object's entry tells.
        let came = Instant::now();
        for (slice, fill) in (self.first..).zip(&self.fills) {
            let range = self.slices.range(slice);
            let length = range.end - range.start;
            fill.set(Progress::Streaming(Streaming {
                head: head.clone(),
                length: Some(length),
                answered: head.status,
                stored: true,
                selecting: [].into(),
                came,
                initial_age: Duration::ZERO,
                fresh_until: came,
            }));
        }
        let mut received = 0;
        while let Some(fill) = self.fills.front().cloned() {
            if fill.is_over() {
                return self.fail(&(Arc::new(BodyError::TooLarge) as FetchError));
            }
            let chunk = match poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
                Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return self.fail(&(Arc::new(error) as FetchError)),
                None => {
                    let range = self.range();
                    let missing = range.end - range.start - received;
                    return self.fail(&(Arc::new(BodyError::Short { missing }) as FetchError));
                }
            };
            let before = self.fills.len();
            received = self.take(fill, received, chunk, persist);
            let is_done = self.fills.len() < before;
            if is_done && !self.fills.iter().any(|fill| fill.is_read()) {
                return;
            }
        }
    }

    /// Adds what came to the slices; how much of the last one is there then.
    fn take(&mut self, mut fill: Arc<Fill>, mut received: u64, mut chunk: Bytes, persist: bool) -> u64 {
        while !chunk.is_empty() {
            let range = self.slices.range(self.first);
            let length = range.end - range.start;
            let part = chunk.split_to((length - received).min(chunk.len() as u64) as usize);
            if received + (part.len() as u64) < length {
                received = fill.push(part);
                break;
            }
            // Stored before anybody has all of it: who then asks again finds it.
            self.cache.keep_slice(&fill, &part, persist);
            fill.finish(part, Ok(()));
            self.fills.pop_front();
            self.first += 1;
            received = 0;
            // What comes after the last is not ours: of an answer for the whole, or too much.
            let Some(next) = self.fills.front() else { break };
            fill = next.clone();
        }
        received
    }

    fn fail(&mut self, error: &FetchError) {
        for fill in self.fills.drain(..) {
            self.cache.drop_slice(&fill);
            fill.fail(error);
        }
    }
}
