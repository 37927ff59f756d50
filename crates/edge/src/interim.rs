//! Answers that are still to come, and the interim responses on their way (RFC 9110 §15.2): an origin's 102 and 103 are
//! passed on to the client whose request it is asked for.

use crate::{body::Body, respond};
use edgeweir_origin::Interim;
use http::{Response, StatusCode, header::CONTENT_LENGTH};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// Interim responses of a request that are passed on; more of them are left out, as nothing rests on them.
const MOST: usize = 8;

/// What the way to an answer brings.
pub(crate) enum Progress {
    /// A response before it, without content.
    Interim(Response<()>),
    Final(Response<Body>),
}

/// An answer that is being got.
pub(crate) struct Later {
    answer: Pin<Box<dyn Future<Output = Response<Body>> + Send>>,
    interims: Option<mpsc::Receiver<Response<()>>>,
    passed_on: usize,
    /// The answer, while what came before it is passed on.
    got: Option<Response<Body>>,
}

impl Later {
    pub(crate) fn new(
        answer: impl Future<Output = Response<Body>> + Send + 'static,
        interims: Option<mpsc::Receiver<Response<()>>>,
    ) -> Self {
        Self {
            answer: Box::pin(answer),
            interims,
            passed_on: 0,
            got: None,
        }
    }

    /// What comes next; not to be called after the final answer.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        if self.got.is_none()
            && let Poll::Ready(response) = self.answer.as_mut().poll(cx)
        {
            self.got = Some(response);
        }
        if let Some(interims) = &mut self.interims
            && let Poll::Ready(Some(mut interim)) = interims.poll_recv(cx)
        {
            // An interim response has no content (RFC 9110 §8.6).
            interim.headers_mut().remove(CONTENT_LENGTH);
            self.passed_on += 1;
            if self.passed_on == MOST {
                self.interims = None;
            }
            return Poll::Ready(Progress::Interim(interim));
        }
        match self.got.take() {
            Some(response) => Poll::Ready(Progress::Final(response)),
            None => Poll::Pending,
        }
    }
}

/// A way for an origin's interim responses, and its end.
pub(crate) fn channel() -> (Interim, mpsc::Receiver<Response<()>>) {
    let (sender, receiver) = mpsc::channel(MOST);
    let pass_on = Interim::new(move |status, mut headers| {
        // 100 is between the origin and us, and 101 is never asked for.
        if !matches!(status, StatusCode::CONTINUE | StatusCode::SWITCHING_PROTOCOLS) {
            let mut interim = Response::new(());
            respond::for_caches_alone(&mut headers);
            *interim.status_mut() = status;
            *interim.headers_mut() = headers;
            let _ = sender.try_send(interim);
        }
    });
    (pass_on, receiver)
}
