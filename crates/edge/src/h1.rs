//! A connection of HTTP/1.1 (RFC 9112): one request after the other, each read whole before it is answered, and each
//! answer before the next request.
//!
//! The project's own, for three things that the server of the HTTP library has no way to do: interim answers are passed
//! on, an idle connection holds no buffers, and a request whose framing can be read in two ways is seen before anything
//! is made of it. A request is read from what has come; nothing more is read while it is answered than tells whether the
//! client is still there.

mod answer;
mod content;
mod head;
mod upload;

pub(crate) use answer::rendered;
pub(crate) use head::PREFACE;
pub(crate) use upload::{Upload, UploadError};

use crate::{
    Edge,
    accept::Incoming,
    body::Body,
    connection::Connection,
    interim::{Later, Progress},
    limits, multiplexed,
    refusal::{Reason, Refusal},
    stream::Stream,
    upload as request,
    walk::Answering,
};
use answer::{Asked, Framing, Out};
use bytes::{Bytes, BytesMut};
use content::{Decoder, Part};
use head::{Head, Malformed, Read};
use http::{Method, Response};
use http_body::Body as _;
use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::ReadBuf;
use upload::{Demand, Feed};

/// What is read at a time, in bytes: on the stack, so that a connection on which nothing comes holds nothing for it.
const READ_BYTES: usize = 16 * 1024;

/// Serves a connection until it ends; or, where its client speaks HTTP/2 (RFC 9113 §3.3), gives it back with what has been
/// read.
pub(crate) async fn serve<S>(edge: &Arc<Edge>, connection: &Arc<Connection>, stream: S) -> Option<(S, Bytes)>
where
    S: Stream,
{
    let mut this = Http1 {
        edge,
        connection,
        stream,
        read: BytesMut::new(),
        out: Out::default(),
        begun: false,
    };
    loop {
        match this.next().await {
            Next::Head(head) => {
                if !this.exchange(head).await {
                    return None;
                }
            }
            Next::Malformed(malformed) => {
                this.refuse(malformed).await;
                return None;
            }
            Next::Preface => return Some((this.stream, this.read.freeze())),
            Next::End => return None,
        }
    }
}

struct Http1<'a, S> {
    edge: &'a Arc<Edge>,
    connection: &'a Arc<Connection>,
    stream: S,
    /// What has been read, and is still to be looked at.
    read: BytesMut,
    out: Out,
    /// Whether there was a request.
    begun: bool,
}

/// What comes on a connection that waits for a request.
enum Next {
    Head(Head),
    Malformed(Malformed),
    Preface,
    End,
}

/// A request that is being answered.
struct Exchange {
    asked: Asked,
    keep_alive: bool,
    decoder: Decoder,
    /// Where the request's content goes, while there is some.
    feed: Option<Feed>,
    /// Whether the client waits to be told that its content is wanted.
    waits_to_go_on: bool,
}

/// The client has gone in the middle of its request, or before there was an answer.
struct Gone;

/// Why an answer is not all sent.
enum Cut {
    /// The client takes nothing any more. What it has sent before is still to be done.
    Deaf,
    /// The content breaks off, which the client sees by the connection's end.
    Broken,
}

impl<S: Stream> Http1<'_, S> {
    /// Reads what is there; so many bytes, none of them at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
        self.read.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// Waits for a request. A connection that is to end does so when it has none.
    async fn next(&mut self) -> Next {
        let mut unseen = self.read.len();
        poll_fn(|cx| {
            loop {
                if unseen > 0 {
                    match head::read(&mut self.read, std::mem::take(&mut unseen)) {
                        Ok(Read::Head(head)) => {
                            self.begun = true;
                            return Poll::Ready(Next::Head(head));
                        }
                        // With it a connection begins (RFC 9113 §3.4).
                        Ok(Read::Preface) if self.begun && self.read.len() >= PREFACE.len() => {
                            let malformed = Malformed::Bad("HTTP/2 begins with the connection");
                            return Poll::Ready(Next::Malformed(malformed));
                        }
                        Ok(Read::Preface) if self.read.len() >= PREFACE.len() => return Poll::Ready(Next::Preface),
                        Ok(Read::Preface | Read::Part) => {}
                        Err(malformed) => return Poll::Ready(Next::Malformed(malformed)),
                    }
                }
                match self.poll_read(cx) {
                    Poll::Ready(Ok(new @ 1..)) => unseen = new,
                    Poll::Ready(_) => return Poll::Ready(Next::End),
                    Poll::Pending => {
                        if self.read.is_empty() {
                            if self.edge.is_ending(self.connection) {
                                return Poll::Ready(Next::End);
                            }
                            self.read = BytesMut::new();
                            self.out.shrink();
                        }
                        return Poll::Pending;
                    }
                }
            }
        })
        .await
    }

    /// Answers a request; whether another one may come.
    async fn exchange(&mut self, head: Head) -> bool {
        let (asked, expects_more) = (Asked::of(&head), head.keep_alive);
        let (feed, upload) = match head.framing {
            head::Framing::Empty => (None, request::Upload::Empty),
            head::Framing::Length(length) => upload(Some(length)),
            head::Framing::Chunked => upload(None),
        };
        let mut exchange = Exchange {
            asked,
            keep_alive: head.keep_alive,
            decoder: Decoder::new(head.framing),
            feed,
            waits_to_go_on: head.expects_continue,
        };
        let request = Incoming {
            method: head.method,
            target: head.target,
            version: head.version,
            headers: head.headers,
            body: upload,
        };
        let response = match self.edge.handle(self.connection, request) {
            Answering::Now(response) => response,
            Answering::Later(later) => match self.wait(later, &mut exchange).await {
                Ok(response) => response,
                Err(Gone) => return false,
            },
        };
        match self.answer(response, &mut exchange).await {
            Ok(()) => {}
            Err(Cut::Deaf) => {
                self.out = Out::default();
                return exchange.keep_alive && exchange.decoder.has_ended();
            }
            Err(Cut::Broken) => {
                // What came before the break.
                let _ = poll_fn(|cx| Poll::Ready(self.poll_sent(cx))).await;
                return false;
            }
        }
        let keep_alive = exchange.keep_alive && exchange.decoder.has_ended();
        if !keep_alive {
            // A client whose last request this was has sent nothing more.
            let unread = expects_more || !exchange.decoder.has_ended() || !self.read.is_empty();
            self.close(unread).await;
        }
        keep_alive
    }

    /// Waits for an answer, passing the request's content on and interim answers back.
    async fn wait(&mut self, mut later: Later, exchange: &mut Exchange) -> Result<Response<Body>, Gone> {
        poll_fn(|cx| {
            loop {
                if self.poll_upload(cx, exchange).is_err() {
                    return Poll::Ready(Err(Gone));
                }
                match later.poll(cx) {
                    Poll::Ready(Progress::Final(response)) => return Poll::Ready(Ok(response)),
                    Poll::Ready(Progress::Interim(interim)) => {
                        // HTTP/1.0 has none (RFC 9110 §15.2).
                        if exchange.asked.is_11 {
                            self.out.interim(&interim);
                        }
                        continue;
                    }
                    Poll::Pending => {}
                }
                // What the answer waits for may just have been asked for.
                if self.poll_upload(cx, exchange).is_err() || self.poll_sent(cx).is_err() {
                    return Poll::Ready(Err(Gone));
                }
                if self.poll_gone(cx, exchange) {
                    return Poll::Ready(Err(Gone));
                }
                return Poll::Pending;
            }
        })
        .await
    }

    /// Sends an answer.
    async fn answer(&mut self, response: Response<Body>, exchange: &mut Exchange) -> Result<(), Cut> {
        let (head, mut body) = response.into_parts();
        let asked = exchange.asked;
        if std::mem::take(&mut exchange.waits_to_go_on) {
            // It sends nothing any more that belongs to this request, or cannot be known to.
            exchange.feed = None;
        }
        // A request that is not whole when its answer begins is the connection's last.
        self.skip(exchange);
        exchange.keep_alive &= exchange.decoder.has_ended() && !self.edge.is_ending(self.connection);
        let mut framing = self
            .out
            .head(head.status, &head.headers, &body, asked, &mut exchange.keep_alive);
        let mut ended = framing == Framing::Empty;
        // While the content is waited for, and nothing else is to be sent.
        let mut under_way = None;
        poll_fn(|cx| {
            loop {
                if ended || self.out.is_full() {
                    if ready!(self.out.poll_write(&mut self.stream, cx)).is_err() {
                        return Poll::Ready(Err(Cut::Deaf));
                    }
                    if ended {
                        return Pin::new(&mut self.stream).poll_flush(cx).map_err(|_| Cut::Deaf);
                    }
                }
                if self.poll_upload(cx, exchange).is_err() {
                    return Poll::Ready(Err(Cut::Deaf));
                }
                let polled = Pin::new(&mut body).poll_frame(cx);
                if polled.is_ready() {
                    under_way = None;
                }
                let whole = match polled {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => {
                            ended = matches!(framing, Framing::Length(left) if left == data.len() as u64);
                            self.out.content(data, &mut framing)
                        }
                        Err(frame) => {
                            ended = true;
                            let trailers = frame.into_trailers().ok().filter(|_| asked.takes_trailers);
                            self.out.end(framing, trailers.as_ref())
                        }
                    },
                    Poll::Ready(None) => {
                        ended = true;
                        self.out.end(framing, None)
                    }
                    Poll::Ready(Some(Err(_))) => false,
                    Poll::Pending => {
                        if self.poll_sent(cx).is_err() || self.poll_gone(cx, exchange) {
                            return Poll::Ready(Err(Cut::Deaf));
                        }
                        if self.out.is_empty() && under_way.is_none() {
                            under_way = Some(self.connection.answering());
                        }
                        return Poll::Pending;
                    }
                };
                if !whole {
                    if framing == Framing::UntilClose {
                        self.stream.reset();
                    }
                    return Poll::Ready(Err(Cut::Broken));
                }
            }
        })
        .await
    }

    /// Passes on what has come of the request's content.
    fn poll_upload(&mut self, cx: &mut Context<'_>, exchange: &mut Exchange) -> Result<(), Gone> {
        while let Some(feed) = &exchange.feed {
            // All of it has been handed over, however slowly it is taken.
            if exchange.decoder.has_ended() {
                feed.end(Ok(()));
                exchange.feed = None;
                return Ok(());
            }
            match feed.demand(cx) {
                Demand::Full => return Ok(()),
                Demand::Unasked if exchange.waits_to_go_on => return Ok(()),
                Demand::Unwanted => {
                    exchange.feed = None;
                    return Ok(());
                }
                Demand::Wanted if std::mem::take(&mut exchange.waits_to_go_on) => {
                    self.out.interim(&multiplexed::go_on());
                }
                Demand::Wanted | Demand::Unasked => {}
            }
            let part = exchange.decoder.next(&mut self.read);
            match part {
                Ok(Part::Data(data)) => feed.data(data),
                Ok(Part::Trailers(trailers)) => feed.trailers(trailers),
                Ok(Part::End) => {}
                Ok(Part::Unread) => match self.poll_read(cx) {
                    Poll::Ready(Ok(1..)) => {}
                    // Who takes the content is told by the feed's end.
                    Poll::Ready(_) => return Err(Gone),
                    Poll::Pending => return Ok(()),
                },
                Err(content::Malformed) => {
                    feed.end(Err(UploadError::Malformed));
                    exchange.feed = None;
                }
            }
        }
        Ok(())
    }

    /// Writes and flushes what it can.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Poll::Ready(written) = self.out.poll_write(&mut self.stream, cx) {
            written?;
            if let Poll::Ready(flushed) = Pin::new(&mut self.stream).poll_flush(cx) {
                flushed?;
            }
        }
        Ok(())
    }

    /// Whether the client has gone while its answer is got. Who has sent further requests is not asked: they are to be
    /// done, also for an encoder that looks at no answer and is gone already.
    fn poll_gone(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> bool {
        let waits = exchange.decoder.has_ended() && self.read.is_empty();
        waits && matches!(self.poll_read(cx), Poll::Ready(Ok(0) | Err(_)))
    }

    /// Passes over what is there of content that nobody takes.
    fn skip(&mut self, exchange: &mut Exchange) {
        if exchange.feed.as_ref().is_some_and(|feed| !feed.is_unwanted()) {
            return;
        }
        exchange.feed = None;
        while let Ok(Part::Data(_) | Part::Trailers(_)) = exchange.decoder.next(&mut self.read) {}
    }

    /// Says why there is no request to answer.
    async fn refuse(&mut self, malformed: Malformed) {
        let reason = match malformed {
            Malformed::Bad(what) => Reason::BadRequest(what),
            Malformed::TargetTooLong => Reason::TargetTooLong,
            Malformed::HeadersTooLong => Reason::HeadersTooLong,
        };
        let response = self.edge.refuse(Refusal::closing(reason), &Method::GET);
        let mut exchange = Exchange {
            asked: Asked {
                head_only: false,
                is_11: true,
                takes_trailers: false,
            },
            keep_alive: false,
            decoder: Decoder::new(head::Framing::Empty),
            feed: None,
            waits_to_go_on: false,
        };
        if self.answer(response, &mut exchange).await.is_ok() {
            self.close(true).await;
        }
    }

    /// Ends the connection. Where the client still sends, some of that is read: a connection that is closed with bytes
    /// unread is reset, and the answer lost with it (RFC 9112 §9.6).
    async fn close(&mut self, unread: bool) {
        let closed = poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
        if closed.is_err() || !unread {
            return;
        }
        let mut left = limits::DRAINED_BYTES;
        let read = poll_fn(|cx| {
            loop {
                self.read.clear();
                match ready!(self.poll_read(cx)) {
                    Ok(read @ 1..) if read <= left => left -= read,
                    _ => return Poll::Ready(()),
                }
            }
        });
        let _ = tokio::time::timeout(limits::DRAIN_TIME, read).await;
    }
}

fn upload(length: Option<u64>) -> (Option<Feed>, request::Upload) {
    let (feed, upload) = upload::channel(length);
    (Some(feed), request::Upload::H1(upload))
}
