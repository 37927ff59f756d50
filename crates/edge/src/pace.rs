//! The content of requests that is passed on, each at a pace of its own: over HTTP/2 and HTTP/3, others would keep the
//! connection for one that trickles.

use crate::{connection::Uploading, limits, upload::Upload};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A request's content that must come as fast as [`limits::LEAST_RATE`] says, while somebody waits for it. Several on one
/// connection share that rate: a slow line may be all theirs.
pub(crate) struct Paced {
    content: Upload,
    pace: Pace,
    timer: Pin<Box<Sleep>>,
    fate: Fate,
    uploading: Uploading,
}

/// What became of a content, for who has handed it on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fate(Arc<OnceLock<&'static str>>);

impl Fate {
    /// What the client did wrong, if it did.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        self.0.get().copied()
    }
}

impl Paced {
    pub(crate) fn new(content: Upload, idle: Duration, uploading: Uploading) -> (Self, Fate) {
        let fate = Fate::default();
        let paced = Self {
            content,
            pace: Pace::new(idle),
            timer: Box::pin(sleep_until(Instant::now() + idle)),
            fate: fate.clone(),
            uploading,
        };
        (paced, fate)
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.content).poll_frame(cx) {
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            let bytes = data.map_or(0, Bytes::len) * this.uploading.count() as usize;
            this.pace.came(bytes, Instant::now());
            if let Some(Err(_)) = frame {
                let _ = this.fate.0.set("the body breaks off, or its framing is malformed");
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let end = this.pace.end(Instant::now());
        if this.timer.deadline() != end {
            this.timer.as_mut().reset(end);
        }
        ready!(this.timer.as_mut().poll(cx));
        let _ = this.fate.0.set("the body comes too slowly");
        Poll::Ready(Some(Err("the content comes too slowly".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

/// For how long a client may still be waited for: what comes earns time, and waiting costs it.
#[derive(Debug)]
struct Pace {
    most: Duration,
    left: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    fn new(most: Duration) -> Self {
        Self {
            most,
            left: most,
            waiting_since: None,
        }
    }

    fn came(&mut self, bytes: usize, now: Instant) {
        let waited = self.waiting_since.take().map_or(Duration::ZERO, |since| now - since);
        let earned = Duration::from_secs_f64(bytes as f64 / limits::LEAST_RATE as f64);
        self.left = (self.left.saturating_sub(waited) + earned).min(self.most);
    }

    /// When the client, who is waited for, has been for too long.
    fn end(&mut self, now: Instant) -> Instant {
        *self.waiting_since.get_or_insert(now) + self.left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_less_than_the_least_rate_is_given_up() {
        let idle = Duration::from_secs(30);
        // Bytes that come every tenth of a second; how many times.
        let lasts = |bytes, most| {
            let (mut pace, mut now) = (Pace::new(idle), Instant::now());
            (0..most)
                .take_while(|_| {
                    let end = pace.end(now);
                    now += Duration::from_millis(100);
                    pace.came(bytes, now);
                    now < end
                })
                .count()
        };
        assert_eq!(lasts(0, 10_000), 299, "nothing");
        assert!((300..310).contains(&lasts(1, 10_000)), "a trickle");
        assert!((590..610).contains(&lasts(205, 10_000)), "half the rate");
        assert_eq!(lasts(410, 10_000), 10_000, "the rate");
    }

    #[test]
    fn what_is_not_waited_for_costs_nothing_and_time_is_not_saved_up() {
        let idle = Duration::from_secs(30);
        let (mut pace, mut now) = (Pace::new(idle), Instant::now());
        assert_eq!(pace.end(now), now + idle);
        pace.came(1 << 30, now);
        // The origin takes its time.
        now += Duration::from_secs(3600);
        assert_eq!(pace.end(now), now + idle);
        now += Duration::from_secs(10);
        pace.came(0, now);
        assert_eq!(pace.end(now), now + Duration::from_secs(20));
    }
}
