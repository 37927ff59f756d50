//! What goes on on a connection, so that a client is not waited for without end: one that asks for nothing, and one that
//! does not take its answer.
//!
//! Bytes on the socket would not tell: a client of HTTP/2 can keep its windows shut and go on answering PINGs (RFC 9113
//! §5.2, CVE-2026-49975). What counts is that a request comes, or that a part of an answer finds room.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// How much of an answer is given to hyper at once, in bytes: it asks for more when the client has made room.
const PART: usize = 64 << 10;

/// What goes on on a connection. Clones are of the same one.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// How many pieces of work are under way that are ours, not the client's.
    works: usize,
    asked: bool,
    /// When something happened last.
    moved: Instant,
}

impl Activity {
    /// Of a connection that begins.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(State {
            works: 0,
            asked: false,
            moved: Instant::now(),
        })))
    }

    /// A request has come, and is worked on until the value is dropped.
    pub(super) fn request(&self) -> Work {
        self.0.lock().asked = true;
        self.work()
    }

    fn work(&self) -> Work {
        self.0.lock().works += 1;
        Work(self.clone())
    }

    fn moved(&self) {
        self.0.lock().moved = Instant::now();
    }

    /// Waits until nothing has happened for a time that the client could have made happen: `first` until its first
    /// request, `later` after it.
    pub(super) async fn quiet(&self, first: Duration, later: Duration) {
        loop {
            let now = Instant::now();
            let due = {
                let state = self.0.lock();
                let since = if state.works > 0 { now } else { state.moved };
                since + if state.asked { later } else { first }
            };
            if due <= now {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// Work that is ours: the client is waiting for it, and not the other way round.
#[derive(Debug)]
pub(super) struct Work(Activity);

impl Drop for Work {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        state.works -= 1;
        state.moved = Instant::now();
    }
}

/// The body of an answer, given out in parts, each of which counts when it is taken.
#[derive(Debug)]
pub(super) struct Answer<B> {
    body: B,
    rest: Bytes,
    activity: Activity,
    /// While the body itself is waited for.
    work: Option<Work>,
}

impl<B> Answer<B> {
    pub(super) fn new(body: B, activity: Activity) -> Self {
        Self {
            body,
            rest: Bytes::new(),
            activity,
            work: None,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        if this.rest.is_empty() {
            let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
                this.work.get_or_insert_with(|| this.activity.work());
                return Poll::Pending;
            };
            this.work = None;
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(frame))) => return Poll::Ready(Some(Ok(frame))),
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => return Poll::Ready(None),
            }
        }
        this.activity.moved();
        let part = this.rest.split_to(this.rest.len().min(PART));
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}
