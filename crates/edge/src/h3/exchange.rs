//! One request over HTTP/3 and its answer (RFC 9114 §4.1).

use super::{
    fields,
    transport::{RecvStream, SendStream, Stopped, Transport},
};
use crate::{
    Edge,
    accept::Incoming,
    body::Body,
    connection::{Connection, Outcome},
    interim::Progress,
    limits,
    multiplexed::{self, Cut, within},
    upload,
    walk::Answering,
};
use bytes::{Buf, Bytes};
use h3::{
    error::{Code, StreamError},
    server::{RequestResolver, RequestStream},
};
use http::{Method, Response};
use http_body::{Body as _, Frame, SizeHint};
use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::timeout;

type Sending = RequestStream<SendStream, Bytes>;

/// Reads a request, answers it, and waits until the client has it all.
pub(super) async fn run(
    edge: Arc<Edge>,
    connection: Arc<Connection>,
    resolver: RequestResolver<Transport, Bytes>,
    mut stopped: Stopped,
) -> Outcome {
    let taken = AtomicU64::new(0);
    let answered = tokio::select! {
        answered = answer(&edge, &connection, resolver, &taken) => answered,
        // What it waits for is dropped with it.
        _ = &mut stopped => false,
    };
    // A connection that is closed sends nothing again that was lost.
    if answered && stopped.await.is_ok_and(|code| code.is_none()) {
        Outcome::Answered
    } else {
        Outcome::taken_back(taken.into_inner())
    }
}

/// Whether there was a request to be answered, and the answer was sent.
async fn answer(
    edge: &Arc<Edge>,
    connection: &Arc<Connection>,
    resolver: RequestResolver<Transport, Bytes>,
    taken: &AtomicU64,
) -> bool {
    // The timer is set only where the head is not all there.
    let Ok(Ok((request, stream))) = timeout(edge.settings.idle, resolver.resolve_request()).await else {
        return false;
    };
    let (mut send, receive) = stream.split();
    let (head, ()) = request.into_parts();
    let method = head.method.clone();
    let Ok(length) = fields::content_length(&head) else {
        send.stop_stream(Code::H3_MESSAGE_ERROR);
        return false;
    };
    if multiplexed::expects_continue(&head) && send.send_response(multiplexed::go_on()).await.is_err() {
        return false;
    }
    let body = upload::Upload::H3(Box::new(Upload::new(receive, length)));
    let response = match edge.handle(connection, Incoming::new(head, body)) {
        Answering::Now(response) => response,
        Answering::Later(mut later) => loop {
            match poll_fn(|cx| later.poll(cx)).await {
                Progress::Final(response) => break response,
                Progress::Interim(interim) => {
                    if send.send_response(interim).await.is_err() {
                        return false;
                    }
                }
            }
        },
    };
    let head_only = method == Method::HEAD;
    match send_response(connection, &mut send, response, head_only, edge.settings.idle, taken).await {
        Ok(()) => true,
        Err(Cut::Broken) => {
            send.stop_stream(Code::H3_INTERNAL_ERROR);
            true
        }
        Err(Cut::Stalled) => {
            send.stop_stream(Code::H3_REQUEST_CANCELLED);
            false
        }
        Err(Cut::Gone) => false,
    }
}

impl From<StreamError> for Cut {
    fn from(_: StreamError) -> Self {
        Self::Gone
    }
}

/// Sends an answer.
async fn send_response(
    connection: &Arc<Connection>,
    send: &mut Sending,
    response: Response<Body>,
    head_only: bool,
    idle: Duration,
    taken: &AtomicU64,
) -> Result<(), Cut> {
    let (head, mut body) = multiplexed::answer(response, head_only);
    within(idle, send.send_response(head)).await?;
    if !head_only {
        loop {
            let mut under_way = None;
            let polled = poll_fn(|cx| connection.waits(Pin::new(&mut body).poll_frame(cx), &mut under_way));
            let Some(frame) = polled.await else { break };
            match frame.map_err(|_| Cut::Broken)?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    let (length, patience) = (data.len() as u64, limits::patience(data.len(), idle));
                    within(patience, send.send_data(data)).await?;
                    taken.fetch_add(length, Ordering::Relaxed);
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        send.send_trailers(trailers).await?;
                    }
                }
            }
        }
    }
    Ok(send.finish().await?)
}

/// A request's body.
pub(crate) struct Upload {
    stream: RequestStream<RecvStream, Bytes>,
    /// What is to come where its length was told.
    left: Option<u64>,
    /// The last of as much: whether more comes is seen before it is passed on, for who reads by the length stops there.
    last: Option<Bytes>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Ended,
}

/// Why a request's body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the body is not as long as its Content-Length")]
    Length,
}

impl Upload {
    fn new(stream: RequestStream<RecvStream, Bytes>, length: Option<u64>) -> Self {
        Self {
            stream,
            left: length,
            last: None,
            state: State::Data,
        }
    }

    fn broken(&mut self, error: UploadError) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        self.state = State::Ended;
        if matches!(error, UploadError::Length) {
            self.stream.stop_sending(Code::H3_MESSAGE_ERROR);
        }
        Poll::Ready(Some(Err(error)))
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = self.get_mut();
        loop {
            match this.state {
                State::Data => {
                    let received = ready!(this.stream.poll_recv_data(cx));
                    let data = received.map(|data| data.map(|mut data| data.copy_to_bytes(data.remaining())));
                    match data {
                        Ok(Some(data)) => {
                            if let Some(left) = &mut this.left {
                                let Some(rest) = left.checked_sub(data.len() as u64) else {
                                    return this.broken(UploadError::Length);
                                };
                                *left = rest;
                                if rest == 0 {
                                    this.last = Some(data);
                                    continue;
                                }
                            }
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                        Ok(None) if this.left.is_some_and(|left| left > 0) => return this.broken(UploadError::Length),
                        Ok(None) => {
                            this.state = State::Trailers;
                            if let Some(last) = this.last.take() {
                                return Poll::Ready(Some(Ok(Frame::data(last))));
                            }
                        }
                        Err(e) => return this.broken(e.into()),
                    }
                }
                State::Trailers => {
                    let trailers = ready!(this.stream.poll_recv_trailers(cx));
                    this.state = State::Ended;
                    match trailers {
                        Ok(trailers) => return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t)))),
                        Err(e) => return this.broken(e.into()),
                    }
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.state == State::Ended
    }

    fn size_hint(&self) -> SizeHint {
        let held = self.last.as_ref().map_or(0, Bytes::len) as u64;
        self.left
            .map_or_else(SizeHint::default, |left| SizeHint::with_exact(left + held))
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("left", &self.left)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
