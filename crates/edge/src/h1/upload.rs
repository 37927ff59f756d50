//! A request's body on its way from the connection that reads it to whoever takes it, who may be another task.

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Bytes that are held for who does not take them, those of the queue counted; a connection is read no further then.
const HELD_BYTES: usize = 64 * 1024;

/// Why a request's body broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UploadError {
    #[error("the connection ended before the body did")]
    Gone,
    #[error("the body is malformed")]
    Malformed,
}

#[derive(Debug, Default)]
struct Shared {
    frames: VecDeque<Frame<Bytes>>,
    held: usize,
    end: Option<Result<(), UploadError>>,
    /// Whether anybody has asked for it.
    wanted: bool,
    /// Whether nobody will ask any more.
    unwanted: bool,
    reader: Option<Waker>,
    connection: Option<Waker>,
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct Upload {
    shared: Arc<Mutex<Shared>>,
    /// What is to come where its length was told.
    left: Option<u64>,
    ended: bool,
}

/// The connection's end of it.
#[derive(Debug)]
pub(super) struct Feed(Arc<Mutex<Shared>>);

/// What a connection may do for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// Nobody has asked for it yet; so much may be read ahead.
    Unasked,
    /// It is asked for.
    Wanted,
    /// So much is held that no more may be read now.
    Full,
    /// Nobody takes it.
    Unwanted,
}

/// What a frame takes, in bytes: parts may be a byte long each.
fn held(frame: &Frame<Bytes>) -> usize {
    size_of::<Frame<Bytes>>() + frame.data_ref().map_or(0, Bytes::len)
}

/// A body of this length, where it was told, and where its parts are put.
pub(super) fn channel(length: Option<u64>) -> (Feed, Upload) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let upload = Upload {
        shared: shared.clone(),
        left: length,
        ended: false,
    };
    (Feed(shared), upload)
}

impl Feed {
    /// What is to be done; where that is nothing, the task is woken when it changes.
    pub(super) fn demand(&self, cx: &Context<'_>) -> Demand {
        let mut shared = self.0.lock();
        let demand = if shared.unwanted {
            Demand::Unwanted
        } else if shared.held >= HELD_BYTES {
            Demand::Full
        } else if shared.wanted {
            Demand::Wanted
        } else {
            Demand::Unasked
        };
        let registered = shared.connection.as_ref().is_some_and(|w| w.will_wake(cx.waker()));
        if !registered {
            shared.connection = Some(cx.waker().clone());
        }
        demand
    }

    /// Whether nobody takes it.
    pub(super) fn is_unwanted(&self) -> bool {
        self.0.lock().unwanted
    }

    pub(super) fn data(&self, data: Bytes) {
        self.push(Frame::data(data));
    }

    pub(super) fn trailers(&self, trailers: HeaderMap) {
        self.push(Frame::trailers(trailers));
    }

    fn push(&self, frame: Frame<Bytes>) {
        self.change(|shared| {
            shared.held += held(&frame);
            shared.frames.push_back(frame);
        });
    }

    /// The end, or the break. The first that is told counts.
    pub(super) fn end(&self, end: Result<(), UploadError>) {
        self.change(|shared| shared.end = shared.end.or(Some(end)));
    }

    fn change(&self, change: impl FnOnce(&mut Shared)) {
        let reader = {
            let mut shared = self.0.lock();
            change(&mut shared);
            shared.reader.take()
        };
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.end(Err(UploadError::Gone));
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let connection = {
            let mut shared = self.shared.lock();
            shared.unwanted = true;
            shared.frames.clear();
            shared.connection.take()
        };
        if let Some(connection) = connection {
            connection.wake();
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        let mut shared = this.shared.lock();
        let first = !std::mem::replace(&mut shared.wanted, true);
        let Some(frame) = shared.frames.pop_front() else {
            if let Some(end) = shared.end {
                this.ended = true;
                return Poll::Ready(end.err().map(Err));
            }
            shared.reader = Some(cx.waker().clone());
            let connection = if first { shared.connection.take() } else { None };
            drop(shared);
            if let Some(connection) = connection {
                connection.wake();
            }
            return Poll::Pending;
        };
        let was_full = shared.held >= HELD_BYTES;
        shared.held -= held(&frame);
        let has_room = was_full && shared.held < HELD_BYTES;
        let connection = if first || has_room {
            shared.connection.take()
        } else {
            None
        };
        this.ended = shared.frames.is_empty() && shared.end == Some(Ok(()));
        drop(shared);
        if let Some(connection) = connection {
            connection.wake();
        }
        if let (Some(left), Some(data)) = (&mut this.left, frame.data_ref()) {
            *left = left.saturating_sub(data.len() as u64);
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use http_body::Body as _;
    use http_body_util::BodyExt;

    fn demand(feed: &Feed) -> Demand {
        feed.demand(&Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn what_is_fed_is_taken_and_the_end_is_told() {
        let (feed, mut upload) = channel(Some(3));
        feed.data(Bytes::from_static(b"abc"));
        feed.end(Ok(()));
        drop(feed);
        assert_eq!(upload.size_hint().exact(), Some(3));
        assert_eq!(upload.frame().await.unwrap().unwrap().into_data().unwrap(), "abc");
        assert!(upload.is_end_stream());
        assert!(upload.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_connection_that_goes_breaks_the_body() {
        let (feed, mut upload) = channel(None);
        feed.data(Bytes::from_static(b"abc"));
        drop(feed);
        assert!(upload.frame().await.unwrap().is_ok());
        assert_eq!(upload.frame().await.unwrap().unwrap_err(), UploadError::Gone);
    }

    #[tokio::test]
    async fn what_is_not_taken_is_bounded_and_what_nobody_wants_is_told() {
        let (feed, mut upload) = channel(None);
        assert_eq!(demand(&feed), Demand::Unasked);
        feed.data(Bytes::from(vec![0; HELD_BYTES]));
        assert_eq!(demand(&feed), Demand::Full);
        assert!(upload.frame().await.unwrap().is_ok());
        assert_eq!(demand(&feed), Demand::Wanted);
        drop(upload);
        assert_eq!(demand(&feed), Demand::Unwanted);
    }

    #[tokio::test]
    async fn what_is_held_of_small_parts_is_more_than_their_bytes() {
        let (feed, mut upload) = channel(None);
        let mut parts = 0;
        while demand(&feed) != Demand::Full {
            feed.data(Bytes::from_static(b"x"));
            parts += 1;
        }
        assert!(parts * size_of::<Frame<Bytes>>() <= HELD_BYTES, "{parts} parts");
        for _ in 0..parts {
            assert!(upload.frame().await.unwrap().is_ok());
        }
        feed.data(Bytes::from(vec![0; HELD_BYTES - 1000]));
        assert_eq!(demand(&feed), Demand::Wanted, "nothing else is held");
    }

    #[tokio::test]
    async fn a_reader_in_another_task_is_woken() {
        let (feed, upload) = channel(None);
        let read = tokio::spawn(upload.collect());
        tokio::task::yield_now().await;
        feed.data(Bytes::from_static(b"abc"));
        feed.end(Ok(()));
        assert_eq!(read.await.unwrap().unwrap().to_bytes(), "abc");
    }
}
