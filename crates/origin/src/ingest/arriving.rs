//! A file that arrives, and who reads it meanwhile.

use bytes::Bytes;
use foldhash::fast::RandomState;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Chunks are put together up to so many bytes: a byte at a time must not cost a block each.
const BLOCK: usize = 4096;

#[derive(Debug, Default)]
struct State {
    /// What came, each block with where it begins.
    blocks: Vec<(u64, Bytes)>,
    /// The whole file in one piece, in place of the blocks.
    whole: Option<Bytes>,
    received: u64,
    failed: bool,
    /// Who waits for more, by reader.
    wakers: HashMap<u64, Waker, RandomState>,
    next_reader: u64,
}

impl State {
    fn append(&mut self, chunk: Bytes) {
        let (mut start, mut block) = (self.received, chunk);
        self.received += block.len() as u64;
        // Equal sizes join, as in a binary counter: each byte is copied a few times, not once a chunk.
        while let Some((at, last)) = self.blocks.last()
            && last.len() <= block.len()
            && last.len() + block.len() <= BLOCK
        {
            start = *at;
            block = [&**last, &*block].concat().into();
            self.blocks.pop();
        }
        self.blocks.push((start, block));
    }

    fn from(&self, position: u64) -> Option<Bytes> {
        if position >= self.received {
            return None;
        }
        if let Some(whole) = &self.whole {
            return Some(whole.slice(position as usize..));
        }
        let next = self.blocks.partition_point(|(start, _)| *start <= position);
        let (start, block) = &self.blocks[next - 1];
        Some(block.slice((position - start) as usize..))
    }
}

/// The bytes of an upload so far.
#[derive(Debug)]
pub(super) struct Arriving {
    state: Mutex<State>,
    length: Option<u64>,
}

impl Arriving {
    pub(super) fn new(length: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            length,
        })
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.state.lock();
            change(&mut state);
            std::mem::take(&mut state.wakers)
        };
        for waker in wakers.into_values() {
            waker.wake();
        }
    }

    pub(super) fn push(&self, chunk: Bytes) {
        if !chunk.is_empty() {
            self.update(|state| state.append(chunk));
        }
    }

    /// All that came, in one piece.
    pub(super) fn joined(&self) -> Bytes {
        let blocks = self.state.lock().blocks.clone();
        // A copy also of a single block, which may be a small window on a large read buffer.
        let mut whole = Vec::with_capacity(blocks.iter().map(|(_, b)| b.len()).sum());
        for (_, block) in &blocks {
            whole.extend_from_slice(block);
        }
        whole.into()
    }

    /// It is whole: readers go on in the one piece.
    pub(super) fn finish(&self, whole: Bytes) {
        self.update(|state| {
            state.blocks = Vec::new();
            state.whole = Some(whole);
        });
    }

    /// It breaks off, unless it is whole.
    pub(super) fn break_off(&self) {
        self.update(|state| {
            if state.whole.is_none() {
                state.failed = true;
                state.blocks = Vec::new();
            }
        });
    }

    pub(super) fn body(self: &Arc<Self>) -> ArrivingBody {
        let reader = {
            let mut state = self.state.lock();
            state.next_reader += 1;
            state.next_reader
        };
        ArrivingBody {
            arriving: self.clone(),
            reader,
            position: 0,
            ended: false,
        }
    }
}

/// Reads a file from its begin while it arrives. It ends when the file is whole, and with an error when the upload is
/// cut or the stream deleted.
#[derive(Debug)]
pub struct ArrivingBody {
    arriving: Arc<Arriving>,
    reader: u64,
    position: u64,
    ended: bool,
}

impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = crate::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, crate::Error>>> {
        let this = &mut *self;
        if this.ended {
            return Poll::Ready(None);
        }
        let mut state = this.arriving.state.lock();
        if state.failed {
            this.ended = true;
            return Poll::Ready(Some(Err(crate::Error::Broken)));
        }
        if let Some(bytes) = state.from(this.position) {
            this.position += bytes.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if state.whole.is_some() {
            this.ended = true;
            return Poll::Ready(None);
        }
        state.wakers.insert(this.reader, cx.waker().clone());
        Poll::Pending
    }

    fn size_hint(&self) -> SizeHint {
        let whole = self.arriving.state.lock().whole.as_ref().map(|w| w.len() as u64);
        match self.arriving.length.or(whole) {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.position)),
            None => SizeHint::default(),
        }
    }
}

impl Drop for ArrivingBody {
    fn drop(&mut self) {
        self.arriving.state.lock().wakers.remove(&self.reader);
    }
}
