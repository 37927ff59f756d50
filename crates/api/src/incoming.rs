//! Request bodies: one on which nothing comes for a while has ended, and one that nobody has read is read before the answer.
//!
//! A connection that is closed with bytes unread is reset, and a client that was still sending may lose the answer with
//! it (RFC 9112 §9.6).

use axum::{BoxError, body::Body, extract::Request, middleware::Next, response::Response};
use bytes::Bytes;
use http::header::EXPECT;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, sleep, timeout},
};

/// How long a body may bring nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// How much of an unread body is read, in bytes, and for how long.
const UNREAD: usize = 8 << 20;
const READING: Duration = Duration::from_secs(2);

/// Lends the body to the handler, and reads what it leaves.
pub(crate) async fn each_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return next.run(Request::from_parts(parts, body)).await;
    }
    let waits = parts.headers.contains_key(EXPECT);
    let (back, left) = oneshot::channel();
    let response = next
        .run(Request::from_parts(parts, Body::new(Lent::new(body, back))))
        .await;
    if let Ok((body, asked)) = left.await
        // Asking would call for a body that the client holds back until then (RFC 9110 §10.1.1).
        && (asked || !waits)
    {
        let _ = timeout(READING, discard(body)).await;
    }
    response
}

async fn discard(mut body: Body) {
    let mut left = UNREAD;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else {
            return;
        };
        left = rest;
    }
}

/// A body that goes back when it is dropped, with whether it was asked for.
struct Lent {
    body: Body,
    asked: bool,
    silence: Pin<Box<Sleep>>,
    waiting: bool,
    back: Option<oneshot::Sender<(Body, bool)>>,
}

impl Lent {
    fn new(body: Body, back: oneshot::Sender<(Body, bool)>) -> Self {
        Self {
            body,
            asked: false,
            silence: Box::pin(sleep(SILENCE)),
            waiting: false,
            back: Some(back),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            let _ = back.send((std::mem::take(&mut self.body), self.asked));
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.asked = true;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.waiting = false;
            if !matches!(frame, Some(Ok(_))) {
                // At its end there is nothing to give back.
                this.back = None;
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // Counted while somebody waits: what takes the body may be slow itself.
        if !std::mem::replace(&mut this.waiting, true) {
            this.silence.as_mut().reset(Instant::now() + SILENCE);
        }
        ready!(this.silence.as_mut().poll(cx));
        Poll::Ready(Some(Err("nothing came for too long".into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures_util::{StreamExt, stream};

    fn lent(body: Body) -> (Body, oneshot::Receiver<(Body, bool)>) {
        let (back, left) = oneshot::channel();
        (Body::new(Lent::new(body, back)), left)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_falls_silent_ends_and_a_slow_reader_does_not_end_it() {
        let chunk = || Ok::<_, std::io::Error>(Bytes::from("x"));
        let chunks = stream::iter([chunk(), chunk()]).chain(stream::pending());
        let (mut body, _left) = lent(Body::from_stream(chunks));
        assert!(body.frame().await.unwrap().is_ok());
        sleep(2 * SILENCE).await;
        assert!(body.frame().await.unwrap().is_ok());
        let before = Instant::now();
        assert!(body.frame().await.unwrap().is_err());
        assert_eq!(before.elapsed().as_secs(), SILENCE.as_secs());
    }

    #[tokio::test]
    async fn a_body_comes_back_with_what_is_left_of_it() {
        let chunks = ["a", "b"].map(|text| Ok::<_, std::io::Error>(Bytes::from(text)));
        let (mut body, left) = lent(Body::from_stream(stream::iter(chunks)));
        body.frame().await.unwrap().unwrap();
        drop(body);
        let (rest, asked) = left.await.unwrap();
        assert!(asked);
        assert_eq!(rest.collect().await.unwrap().to_bytes(), "b");
        let (body, left) = lent(Body::from("c"));
        drop(body);
        assert!(!left.await.unwrap().1);
        let (body, left) = lent(Body::from_stream(stream::iter([Ok::<_, std::io::Error>(Bytes::from(
            "d",
        ))])));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "d");
        assert!(left.await.is_err());
    }
}
