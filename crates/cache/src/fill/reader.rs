//! Those who read from a fetch, each at its own pace.

use super::{BodyError, Fill};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use std::{
    future::poll_fn,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Somebody who asked for what a fill brings: counted from its begin, also while there is nothing to read.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) fill: Arc<Fill>,
    id: u64,
}

impl Reader {
    pub(crate) fn new(fill: Arc<Fill>) -> Self {
        let id = {
            let mut state = fill.state.lock();
            state.next_reader += 1;
            let id = state.next_reader;
            state.readers.insert(id, 0);
            id
        };
        Self { fill, id }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let leader = {
            let mut state = self.fill.state.lock();
            state.readers.remove(&self.id);
            state.leader.take()
        };
        if let Some(leader) = leader {
            leader.wake();
        }
    }
}

/// A reader of a fill's body: the whole, or a range of it.
#[derive(Debug)]
pub struct FillBody {
    reader: Reader,
    next: usize,
    /// Where the next chunk begins in the body.
    position: u64,
    range: Range<u64>,
    length: Option<u64>,
}

impl FillBody {
    pub(crate) fn new(reader: Reader, length: Option<u64>) -> Self {
        Self {
            reader,
            next: 0,
            position: 0,
            range: 0..length.unwrap_or(u64::MAX),
            length,
        }
    }

    /// Narrows the body to a range of it.
    #[must_use]
    pub fn range(mut self, range: Range<u64>) -> Self {
        self.length = Some(range.end - range.start);
        self.range = range;
        self
    }

    /// Waits for the body's end, however it ends, without reading it; no longer than it may be stored.
    pub async fn ended(self) {
        poll_fn(|cx| {
            let mut state = self.reader.fill.state.lock();
            // It holds nobody, and is there: the fetch goes on.
            if let Some(next) = state.readers.get_mut(&self.reader.id) {
                *next = usize::MAX;
            }
            if let Some(leader) = state.leader.take() {
                leader.wake();
            }
            if state.end.is_some() || state.window.is_some() {
                return Poll::Ready(());
            }
            state.wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The whole body, once it is there; over `limit` bytes it is an error.
    pub async fn collect(mut self, limit: u64) -> Result<Bytes, BodyError> {
        let mut whole = Vec::new();
        while let Some(chunk) = poll_fn(|cx| self.poll_chunk(cx)).await {
            whole.extend_from_slice(&chunk?);
            if whole.len() as u64 > limit {
                return Err(BodyError::TooLarge);
            }
        }
        Ok(whole.into())
    }

    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        let mut state = self.reader.fill.state.lock();
        loop {
            if self.position >= self.range.end {
                return Poll::Ready(None);
            }
            let Some(at) = self.next.checked_sub(state.dropped) else {
                self.position = u64::MAX;
                return Poll::Ready(Some(Err(BodyError::TooSlow)));
            };
            let Some(chunk) = state.chunks.get(at).cloned() else {
                return match &state.end {
                    Some(Ok(())) => Poll::Ready(None),
                    Some(Err(e)) => {
                        self.position = u64::MAX;
                        Poll::Ready(Some(Err(e.clone())))
                    }
                    None => {
                        state.wakers.push(cx.waker().clone());
                        Poll::Pending
                    }
                };
            };
            let begin = self.position;
            self.next += 1;
            if let Some(next) = state.readers.get_mut(&self.reader.id) {
                *next = self.next;
            }
            if state.held > state.window()
                && let Some(leader) = state.leader.take()
            {
                leader.wake();
            }
            self.position += chunk.len() as u64;
            let from = self.range.start.saturating_sub(begin).min(chunk.len() as u64) as usize;
            let to = (self.range.end - begin).min(chunk.len() as u64) as usize;
            if from < to {
                return Poll::Ready(Some(Ok(chunk.slice(from..to))));
            }
        }
    }
}

impl http_body::Body for FillBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_chunk(cx).map(|chunk| chunk.map(|c| c.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) if self.position == 0 => SizeHint::with_exact(length),
            _ => SizeHint::default(),
        }
    }
}
