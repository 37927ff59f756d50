//! A body that goes on where it broke off: the rest is asked for as a range of the same object (RFC 9110 §13.1.1, §14.2).

use crate::{Body, Error, body::HttpBody};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body::Frame;
use std::{
    fmt,
    ops::Range,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

/// How long is waited before each try to get the rest. After the last the body is broken.
const WAITS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(400),
    Duration::from_millis(1600),
];

/// A body that moves on by so much has the right to all tries again, in bytes.
const PROGRESS: u64 = 64 << 10;

/// What comes of asking for the rest.
pub(super) enum Rest {
    /// Here it is.
    Body(Body),
    /// There is another object now, or none; the rest of this one cannot be had.
    Gone,
    /// It may be had later.
    Failed(Error),
}

/// Asks for a range of the object, which is still the one that it was, or not.
pub(super) trait Ask: Send + Sync {
    fn ask(self: Arc<Self>, range: Range<u64>) -> BoxFuture<'static, Rest>;
}

enum State {
    Reading(HttpBody),
    Resuming(BoxFuture<'static, Result<HttpBody, Error>>),
    Ended,
}

/// The body of an object in an S3 bucket. When its connection breaks, the rest is got over another.
pub struct ResumedBody {
    state: State,
    /// What is still to come, in bytes of the object.
    range: Range<u64>,
    ask: Arc<dyn Ask>,
    tries: usize,
    /// Where the last break was.
    broke: u64,
}

impl fmt::Debug for ResumedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResumedBody({:?})", self.range)
    }
}

impl ResumedBody {
    pub(super) fn new(body: HttpBody, range: Range<u64>, ask: Arc<dyn Ask>) -> Self {
        Self {
            state: State::Reading(body),
            broke: range.start,
            range,
            ask,
            tries: 0,
        }
    }

    /// What is still to come, in bytes.
    pub fn remaining(&self) -> u64 {
        self.range.end - self.range.start
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Reading(body) => self.range.is_empty() && body.is_end_stream(),
            State::Resuming(_) => false,
            State::Ended => true,
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            let broken = match &mut self.state {
                State::Ended => return Poll::Ready(None),
                State::Resuming(rest) => match ready!(rest.as_mut().poll(cx)) {
                    Ok(body) => {
                        self.state = State::Reading(body);
                        continue;
                    }
                    Err(e) => {
                        self.state = State::Ended;
                        return Poll::Ready(Some(Err(e)));
                    }
                },
                State::Reading(body) => match ready!(body.poll_frame(cx)) {
                    Some(Ok(frame)) => {
                        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                        if length > self.remaining() {
                            self.state = State::Ended;
                            return Poll::Ready(Some(Err(Error::Broken)));
                        }
                        self.range.start += length;
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    _ if self.range.is_empty() => {
                        self.state = State::Ended;
                        return Poll::Ready(None);
                    }
                    Some(Err(e)) => e,
                    None => Error::Broken,
                },
            };
            if self.range.start - self.broke >= PROGRESS {
                self.tries = 0;
            }
            self.broke = self.range.start;
            if self.tries == WAITS.len() {
                self.state = State::Ended;
                return Poll::Ready(Some(Err(broken)));
            }
            let rest = rest(self.ask.clone(), self.range.clone(), self.tries, broken);
            self.state = State::Resuming(Box::pin(rest));
            self.tries += 1;
        }
    }
}

async fn rest(ask: Arc<dyn Ask>, range: Range<u64>, tried: usize, mut error: Error) -> Result<HttpBody, Error> {
    for wait in &WAITS[tried..] {
        if !wait.is_zero() {
            tokio::time::sleep(*wait).await;
        }
        match ask.clone().ask(range.clone()).await {
            Rest::Body(Body::Http(body)) => return Ok(body),
            Rest::Body(_) | Rest::Gone => return Err(Error::Broken),
            Rest::Failed(e) => error = e,
        }
    }
    Err(error)
}
