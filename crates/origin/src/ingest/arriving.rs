//! A file that arrives, and its readers.

use crate::Error;
use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// A file that arrives.
#[derive(Debug)]
pub(super) struct Arriving {
    length: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chunks: Vec<Bytes>,
    end: Option<End>,
    wakers: Vec<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

impl Arriving {
    pub(super) fn new(length: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            length,
            state: Mutex::default(),
        })
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let wakers = {
            let mut state = self.state.lock();
            change(&mut state);
            std::mem::take(&mut state.wakers)
        };
        for waker in wakers {
            waker.wake();
        }
    }

    pub(super) fn push(&self, chunk: Bytes) {
        self.update(|state| state.chunks.push(chunk));
    }

    /// Ends it well; its content in one piece.
    pub(super) fn finish(&self) -> Bytes {
        let mut content = Bytes::new();
        self.update(|state| {
            content = match &state.chunks[..] {
                [] => Bytes::new(),
                [one] => one.clone(),
                chunks => {
                    let mut all = BytesMut::with_capacity(chunks.iter().map(Bytes::len).sum());
                    for chunk in chunks {
                        all.extend_from_slice(chunk);
                    }
                    all.freeze()
                }
            };
            state.end = Some(End::Whole);
        });
        content
    }

    /// Ends it badly, unless it has ended.
    pub(super) fn break_off(&self) {
        self.update(|state| {
            state.end.get_or_insert(End::Broken);
        });
    }

    pub(super) fn body(self: &Arc<Self>) -> ArrivingBody {
        ArrivingBody {
            file: self.clone(),
            next: 0,
            read: 0,
        }
    }
}

/// The content of a file that arrives: what is there, then what comes. An error when it breaks off.
#[derive(Debug)]
pub struct ArrivingBody {
    file: Arc<Arriving>,
    next: usize,
    read: u64,
}

impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let chunk = {
            let mut state = self.file.state.lock();
            match (state.chunks.get(self.next), state.end) {
                (Some(chunk), _) => chunk.clone(),
                (None, Some(End::Whole)) => return Poll::Ready(None),
                (None, Some(End::Broken)) => return Poll::Ready(Some(Err(Error::Broken))),
                (None, None) => {
                    state.wakers.push(cx.waker().clone());
                    return Poll::Pending;
                }
            }
        };
        self.next += 1;
        self.read += chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> SizeHint {
        match self.file.length {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.read)),
            None => SizeHint::default(),
        }
    }
}
