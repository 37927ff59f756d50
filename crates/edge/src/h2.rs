//! A connection of HTTP/2 (RFC 9113): the library `h2` reads and writes frames and bounds what a client may ask for; here
//! its requests are answered. An answer that is there is handed over at once; only one that must be waited for, or
//! comes in pieces, is a task of its own.

use crate::{
    Edge,
    accept::Incoming,
    body::Body,
    connection::{Connection, Outcome},
    interim::{Later, Progress},
    limits,
    multiplexed::{self, Cut, within},
    upload as request,
    walk::Answering,
};
use ::h2::{Error, Reason, RecvStream, SendStream, server::SendResponse};
use bytes::Bytes;
use http::{Method, Request, Response, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use std::{
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes that a client may send of a request's content, and of all of a connection, before they are taken.
const WINDOW: u32 = 1024 * 1024;

/// The end of a piece of content, which is not handed over before there is room for it.
const END_BYTES: usize = 16 * 1024;

/// Streams that end with an error of the client's before the connection does (CVE-2023-44487).
const FAULTY_STREAMS: usize = 1024;

/// Serves a connection until it ends. `flush` is called whenever all that can be said for now has been written.
pub(crate) async fn serve<S>(
    edge: &Arc<Edge>,
    connection: &Arc<Connection>,
    stream: S,
    mut flush: impl FnMut(&mut Context<'_>) -> Poll<io::Result<()>>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = ::h2::server::Builder::new();
    builder
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_concurrent_streams(limits::STREAMS)
        .max_header_list_size(limits::HEAD_BUFFER_BYTES as u32)
        .max_local_error_reset_streams(Some(FAULTY_STREAMS))
        .max_send_buffer_size(limits::H2_SEND_BUFFER_BYTES);
    let mut handshake = pin!(builder.handshake::<_, Bytes>(stream));
    let handshaken = poll_fn(|cx| {
        let polled = handshake.as_mut().poll(cx);
        flushed(polled, flush(cx))
    });
    let Some(Ok(mut requests)) = handshaken.await else {
        return;
    };
    let (mut ending, mut cut) = (false, false);
    poll_fn(|cx| {
        let polled = loop {
            if !cut && connection.is_futile() {
                cut = true;
                requests.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            if !ending && edge.is_ending(connection) {
                ending = true;
                requests.graceful_shutdown();
            }
            match requests.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => answer(edge, connection, request, respond),
                // How a connection ends is the client's affair.
                Poll::Ready(_) => break Poll::Ready(()),
                Poll::Pending => break Poll::Pending,
            }
        };
        flushed(polled, flush(cx))
    })
    .await;
}

/// What a step comes to whose bytes were flushed; `None` where that failed.
fn flushed<T>(polled: Poll<T>, flush: Poll<io::Result<()>>) -> Poll<Option<T>> {
    match flush {
        Poll::Ready(Err(_)) => Poll::Ready(None),
        Poll::Ready(Ok(())) | Poll::Pending => polled.map(Some),
    }
}

fn answer(
    edge: &Arc<Edge>,
    connection: &Arc<Connection>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let (head, body) = request.into_parts();
    let (head_only, idle) = (head.method == Method::HEAD, edge.settings.idle);
    let upload = if body.is_end_stream() {
        request::Upload::Empty
    } else {
        // One that cannot be told has gone.
        if multiplexed::expects_continue(&head) {
            let _ = respond.send_informational(multiplexed::go_on());
        }
        let left = head.headers.get(CONTENT_LENGTH).and_then(request::content_length);
        request::Upload::H2(Upload { stream: body, left })
    };
    match edge.handle(connection, Incoming::new(head, upload)) {
        Answering::Now(response) => begin(connection, respond, response, head_only, idle),
        Answering::Later(later) => {
            let connection = connection.clone();
            drop(tokio::spawn(async move {
                match wait(later, &mut respond).await {
                    Some(response) => begin(&connection, respond, response, head_only, idle),
                    None => connection.ended(Outcome::Futile),
                }
            }));
        }
    }
}

/// Waits for an answer, passing interim ones on; `None` once the client has taken its request back.
async fn wait(mut later: Later, respond: &mut SendResponse<Bytes>) -> Option<Response<Body>> {
    poll_fn(|cx| {
        loop {
            if respond.poll_reset(cx).is_ready() {
                return Poll::Ready(None);
            }
            match ready!(later.poll(cx)) {
                Progress::Final(response) => return Poll::Ready(Some(response)),
                Progress::Interim(interim) => {
                    if respond.send_informational(interim).is_err() {
                        return Poll::Ready(None);
                    }
                }
            }
        }
    })
    .await
}

/// Sends an answer as far as the client takes it at once, and the rest in a task. An error says that the client has gone.
fn begin(
    connection: &Arc<Connection>,
    mut respond: SendResponse<Bytes>,
    response: Response<Body>,
    head_only: bool,
    idle: Duration,
) {
    let (head, body) = multiplexed::answer(response, head_only);
    let Ok(mut stream) = respond.send_response(head, body.is_end_stream()) else {
        return connection.ended(Outcome::Futile);
    };
    let sent = match body {
        Body::Empty => true,
        Body::Full(content) if takes(&mut stream, content.len()) => stream.send_data(content, true).is_ok(),
        body => {
            let connection = connection.clone();
            drop(tokio::spawn(async move {
                let outcome = send(&connection, stream, body, idle).await;
                connection.ended(outcome);
            }));
            return;
        }
    };
    connection.ended(if sent { Outcome::Answered } else { Outcome::Futile });
}

/// Whether the client's window and our buffer take so much now.
fn takes(stream: &mut SendStream<Bytes>, length: usize) -> bool {
    stream.reserve_capacity(length);
    stream.capacity() >= length
}

/// Sends content piece by piece, as fast as the client takes it.
async fn send(connection: &Arc<Connection>, mut stream: SendStream<Bytes>, body: Body, idle: Duration) -> Outcome {
    let mut taken = 0;
    let sent = send_content(connection, &mut stream, body, idle, &mut taken).await;
    match sent {
        Ok(()) | Err(Cut::Gone) => {}
        Err(Cut::Stalled) => stream.send_reset(Reason::CANCEL),
        // The client sees that it breaks off.
        Err(Cut::Broken) => stream.send_reset(Reason::INTERNAL_ERROR),
    }
    match sent {
        Ok(()) | Err(Cut::Broken) => Outcome::Answered,
        Err(Cut::Gone | Cut::Stalled) => Outcome::taken_back(taken),
    }
}

async fn send_content(
    connection: &Arc<Connection>,
    stream: &mut SendStream<Bytes>,
    mut body: Body,
    idle: Duration,
    taken: &mut u64,
) -> Result<(), Cut> {
    let mut left = body.size_hint().exact();
    while left != Some(0) {
        // Nothing is got from an origin before there is room for it.
        within(idle, room(stream, 1)).await?;
        let mut under_way = None;
        let frame = poll_fn(|cx| {
            if stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Cut::Gone));
            }
            let polled = Pin::new(&mut body).poll_frame(cx);
            connection.waits(polled, &mut under_way).map(Ok)
        });
        let mut data = match frame.await? {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return stream.send_trailers(trailers).map_err(|_| Cut::Gone);
                }
            },
            None if left.is_some_and(|left| left > 0) => return Err(Cut::Broken),
            None => break,
            Some(Err(_)) => return Err(Cut::Broken),
        };
        if let Some(left) = &mut left {
            *left = left.checked_sub(data.len() as u64).ok_or(Cut::Broken)?;
        }
        // All but the end of it at once, which costs least; that there is room for the end says that the rest was taken.
        let (length, patience) = (data.len() as u64, limits::patience(data.len(), idle));
        let end = data.split_off(data.len().saturating_sub(END_BYTES));
        if !data.is_empty() {
            stream.send_data(data, false).map_err(|_| Cut::Gone)?;
        }
        within(patience, hand_over(stream, end)).await?;
        *taken += length;
    }
    // It needs no window.
    stream.send_data(Bytes::new(), true).map_err(|_| Cut::Gone)
}

/// Hands content over as the client's window and our buffer take it.
async fn hand_over(stream: &mut SendStream<Bytes>, mut content: Bytes) -> Result<(), Cut> {
    while !content.is_empty() {
        room(stream, content.len()).await?;
        let part = content.split_to(stream.capacity().min(content.len()));
        stream.send_data(part, false).map_err(|_| Cut::Gone)?;
    }
    Ok(())
}

/// Waits until the client's window and our buffer take more: some of what is wanted.
async fn room(stream: &mut SendStream<Bytes>, wanted: usize) -> Result<(), Cut> {
    stream.reserve_capacity(wanted);
    poll_fn(|cx| {
        if stream.poll_reset(cx).is_ready() {
            return Poll::Ready(Err(Cut::Gone));
        }
        while stream.capacity() == 0 {
            match ready!(stream.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                _ => return Poll::Ready(Err(Cut::Gone)),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// A request's body.
pub(crate) struct Upload {
    stream: RecvStream,
    /// What is to come where its length was told.
    left: Option<u64>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                // What is passed on makes room for more; an error says that nothing more is to come.
                let _ = self.stream.flow_control().release_capacity(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => {
                let trailers = ready!(self.stream.poll_trailers(cx));
                Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
