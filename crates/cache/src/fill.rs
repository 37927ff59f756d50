//! A fetch under way that several requests read from (collapsed forwarding).

mod budget;
mod reader;
mod response;

pub(crate) use budget::{Budget, Share};
pub use reader::FillBody;
pub(crate) use reader::Reader;
pub use response::{BodyError, BoxBody, FetchError, FetchStatus, Fetched, FetchedResponse, ResponseHead, SharedStream};
pub(crate) use response::{Progress, Streaming};

use crate::{key::Key, span::Ahead};
use bytes::Bytes;
use foldhash::fast::RandomState;
use http::HeaderMap;
use parking_lot::Mutex;
use std::{
    collections::{HashMap, VecDeque},
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Instant,
};

/// How far the slowest reader of a body that is only passed on may be behind, in bytes.
const WINDOW: u64 = 8 << 20;

/// The same while all fetches together hold all they may.
const NARROW_WINDOW: u64 = 256 << 10;

/// What a chunk takes beside its bytes: its place in a list, and in the buffer that it came in.
const CHUNK: u64 = 64;

/// What is fetched to its end for nobody, in bytes.
const SMALL_REST: u64 = 1 << 20;

#[derive(Debug)]
struct State {
    progress: Progress,
    /// The body, less the chunks that were dropped.
    chunks: VecDeque<Bytes>,
    /// How many chunks all readers had, and were dropped.
    dropped: usize,
    received: u64,
    /// What `chunks` takes, in bytes.
    held: u64,
    /// The length that was said of the body; else nought.
    stated: u64,
    /// What of the bound of all fills is used for this one, in bytes.
    reserved: u64,
    /// The chunk that each reader takes next.
    readers: HashMap<u64, usize, RandomState>,
    next_reader: u64,
    end: Option<Result<(), BodyError>>,
    /// How far readers may be behind, in bytes, of a body that is only passed on.
    window: Option<u64>,
    wakers: Vec<Waker>,
    /// The task that fetches, when it waits for readers.
    leader: Option<Waker>,
    /// Slices that are fetched for who leads.
    ahead: Ahead,
}

impl State {
    fn window(&self) -> u64 {
        self.window.unwrap_or(u64::MAX)
    }

    fn add(&mut self, chunk: Bytes, share: &Share) {
        self.received += chunk.len() as u64;
        self.held += chunk.len() as u64 + CHUNK;
        let more = self.held.saturating_sub(self.reserved);
        self.reserved += more;
        share.add(more);
        self.chunks.push_back(chunk);
    }

    fn drop_first(&mut self, share: &Share) {
        let Some(chunk) = self.chunks.pop_front() else { return };
        self.dropped += 1;
        self.held -= chunk.len() as u64 + CHUNK;
        let freed = self.reserved.saturating_sub(self.held);
        self.reserved -= freed;
        share.free(freed);
    }

    fn drop_read(&mut self, share: &Share) {
        let slowest = self.readers.values().copied().min().unwrap_or(usize::MAX);
        while self.dropped < slowest && !self.chunks.is_empty() {
            self.drop_first(share);
        }
    }
}

/// One fetch, its body so far, and who waits for more of it.
#[derive(Debug)]
pub(crate) struct Fill {
    state: Mutex<State>,
    doomed: AtomicBool,
    /// What its site's fetches hold.
    pub(crate) share: Arc<Share>,
    /// What it is joined by.
    pub(crate) key: Key,
    /// The request fields of the leader, which choose the variant.
    pub(crate) request: HeaderMap,
    /// The number of the last purge when it began.
    pub(crate) born: u64,
}

impl Fill {
    pub(crate) fn new(key: Key, request: HeaderMap, born: u64, share: Arc<Share>) -> Self {
        let state = State {
            progress: Progress::Waiting,
            chunks: VecDeque::new(),
            dropped: 0,
            received: 0,
            held: 0,
            stated: 0,
            reserved: 0,
            readers: HashMap::default(),
            next_reader: 0,
            end: None,
            window: None,
            wakers: Vec::new(),
            leader: None,
            ahead: Ahead::default(),
        };
        Self {
            state: Mutex::new(state),
            doomed: AtomicBool::new(false),
            share,
            key,
            request,
            born,
        }
    }

    /// Purged: may finish for those who read it, is not to be stored.
    pub(crate) fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }

    pub(crate) fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Acquire)
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

    pub(crate) fn set(&self, progress: Progress) {
        self.update(|state| state.progress = progress);
    }

    /// Adds to the body; its length so far.
    pub(crate) fn push(&self, chunk: Bytes) -> u64 {
        let mut received = 0;
        self.update(|state| {
            state.add(chunk, &self.share);
            received = state.received;
        });
        received
    }

    /// Takes room for a body of this length among its site's.
    pub(crate) fn reserve(&self, length: u64) {
        let mut state = self.state.lock();
        state.stated = length;
        state.reserved += length;
        self.share.add(length);
    }

    /// Whether it holds more than it has room for: fetches hold all they may, and its body, which said no length or comes in
    /// tiny chunks, more than it said.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.held > state.stated.saturating_mul(2) && !self.share.has_room(0)
    }

    /// Waits until no reader is more than the window behind, of a body that is only passed on by now: what all have read
    /// is dropped. An error when nobody reads it.
    pub(crate) async fn room(&self, narrow: bool) -> Result<(), BodyError> {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if state.readers.is_empty() {
                return Poll::Ready(Err(deserted()));
            }
            state.drop_read(&self.share);
            state.window = Some(if narrow { NARROW_WINDOW } else { WINDOW });
            if state.held <= state.window() {
                return Poll::Ready(Ok(()));
            }
            state.leader = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Bytes of the body that came.
    pub(crate) fn received(&self) -> u64 {
        self.state.lock().received
    }

    /// How many chunks all readers had.
    pub(crate) fn dropped(&self) -> usize {
        self.state.lock().dropped
    }

    /// Gives up on the readers that hold all others.
    pub(crate) fn cut_off(&self) {
        self.update(|state| {
            while state.held > state.window() {
                state.drop_first(&self.share);
            }
            let dropped = state.dropped;
            state.readers.retain(|_, next| *next >= dropped);
        });
    }

    /// Whether so much is still to come that it is not fetched for the cache alone.
    pub(crate) fn has_long_rest(&self, length: Option<u64>) -> bool {
        let received = self.state.lock().received;
        length.is_some_and(|length| length.saturating_sub(received) > received.max(SMALL_REST))
    }

    /// Whether somebody reads it, or is going to.
    pub(crate) fn is_read(&self) -> bool {
        !self.state.lock().readers.is_empty()
    }

    /// The same; the task is woken when that has changed.
    pub(crate) fn poll_read(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state.lock();
        state.leader = Some(cx.waker().clone());
        !state.readers.is_empty()
    }

    /// Whether who comes now may have what it brings without asking the origin: everybody until that is known, then as
    /// long as it could be served if it were stored (RFC 9111 §4).
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        match &self.state.lock().progress {
            Progress::Streaming(streaming) => now < streaming.fresh_until,
            _ => true,
        }
    }

    /// Leaves what is fetched ahead to who leads.
    pub(crate) fn leave_ahead(&self, ahead: Ahead) {
        self.state.lock().ahead = ahead;
    }

    /// Takes what is fetched ahead.
    pub(crate) fn take_ahead(&self) -> Ahead {
        std::mem::take(&mut self.state.lock().ahead)
    }

    /// Nothing more comes.
    pub(crate) fn fail(&self, error: &FetchError) {
        self.update(|state| {
            if matches!(state.progress, Progress::Waiting) {
                state.progress = Progress::Failed(error.clone());
            }
            state
                .end
                .get_or_insert_with(|| Err(BodyError::Broken(error.to_string().into())));
        });
    }

    /// Ends the body, well or not, after what is still to be added to it. Only the first end counts.
    pub(crate) fn finish(&self, last: Bytes, end: Result<(), BodyError>) {
        self.update(|state| {
            if !last.is_empty() {
                state.add(last, &self.share);
            }
            state.end.get_or_insert(end);
        });
    }

    /// The fetching task is gone: whoever still waits must not wait for ever.
    pub(crate) fn abandon(&self) {
        self.fail(&(Arc::new(BodyError::Broken("the fetch was given up".into())) as FetchError));
    }

    /// The body in one piece, with what is still to be added to it.
    pub(crate) fn whole(&self, last: &Bytes) -> Bytes {
        // Readers are not to wait for the copy.
        let (received, chunks) = {
            let state = self.state.lock();
            debug_assert_eq!(state.dropped, 0, "a body whose begin was let go is not kept");
            (state.received, state.chunks.clone())
        };
        // A copy also of a single chunk, which may be a small window on a large read buffer.
        let mut whole = Vec::with_capacity(received as usize + last.len());
        for chunk in chunks.iter().chain([last]) {
            whole.extend_from_slice(chunk);
        }
        whole.into()
    }

    /// Waits until something is known.
    pub(crate) async fn head(&self) -> Progress {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            if matches!(state.progress, Progress::Waiting) {
                state.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(state.progress.clone())
        })
        .await
    }

    /// Waits until something is known, and of a body the first byte or the end. One that has broken off by then is a
    /// failure.
    pub(crate) async fn first_byte(&self) -> Progress {
        poll_fn(|cx| {
            let mut state = self.state.lock();
            let waits = match (&state.progress, &state.end) {
                (Progress::Waiting, _) => true,
                (Progress::Streaming(_), Some(Err(e))) => {
                    return Poll::Ready(Progress::Failed(Arc::new(e.clone())));
                }
                (Progress::Streaming(_), None) => state.received == 0,
                _ => false,
            };
            if waits {
                state.wakers.push(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(state.progress.clone())
        })
        .await
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.share.free(self.state.get_mut().reserved);
    }
}

pub(crate) fn deserted() -> BodyError {
    BodyError::Broken("nobody reads it any more".into())
}
