//! The HTTP/3 library's transport traits over quinn: what `h3-quinn` is for, which panics when a body is dropped while it
//! is read, with the stream's frames looked at ([`Frames`]) and its bytes counted.

use super::frames::{Fault, Frames};
use bytes::{Buf, Bytes};
use h3::{
    error::Code,
    quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf},
};
use parking_lot::Mutex;
use quinn::{ConnectionError, ReadError, StoppedError, VarInt, WriteError};
use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

type Opening<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send>>;

/// Ends when the client has all of an answer, or does not want it any more.
pub(super) type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send>>;

/// What goes on in a connection's streams. Shared by the streams, which are in tasks of their own.
#[derive(Default)]
pub(super) struct Watch {
    /// Bytes of streams that were written.
    pub(super) written: AtomicU64,
    /// Bytes of streams that were read.
    pub(super) read: AtomicU64,
    /// Whether further requests are rejected: the client may send them elsewhere (RFC 9114 §5.2).
    pub(super) rejecting: AtomicBool,
    /// Of the last request that came.
    pub(super) stopped: Mutex<Option<Stopped>>,
}

/// A connection.
pub(super) struct Transport {
    quic: quinn::Connection,
    watch: Arc<Watch>,
    requests: Option<Opening<(quinn::SendStream, quinn::RecvStream)>>,
    incoming: Option<Opening<quinn::RecvStream>>,
    outgoing: Option<Opening<quinn::SendStream>>,
}

impl Transport {
    pub(super) fn new(quic: quinn::Connection, watch: Arc<Watch>) -> Self {
        Self {
            quic,
            watch,
            requests: None,
            incoming: None,
            outgoing: None,
        }
    }
}

/// Polls what is being opened, and begins anew after it.
fn poll_opening<T, F>(
    opening: &mut Option<Opening<T>>,
    cx: &mut Context<'_>,
    open: impl FnOnce() -> F,
) -> Poll<Result<T, ConnectionError>>
where
    F: Future<Output = Result<T, ConnectionError>> + Send + 'static,
{
    let polled = opening.get_or_insert_with(|| Box::pin(open())).as_mut().poll(cx);
    if polled.is_ready() {
        *opening = None;
    }
    polled
}

impl quic::Connection<Bytes> for Transport {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let quic = &self.quic;
        let accepted = poll_opening(&mut self.incoming, cx, || {
            let quic = quic.clone();
            async move { quic.accept_uni().await }
        });
        let stream = ready!(accepted).map_err(lost)?;
        Poll::Ready(Ok(RecvStream::new(stream, Frames::unidirectional(), quic, &self.watch)))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, ConnectionErrorIncoming>> {
        loop {
            let quic = &self.quic;
            let accepted = poll_opening(&mut self.requests, cx, || {
                let quic = quic.clone();
                async move { quic.accept_bi().await }
            });
            let (mut send, mut recv) = ready!(accepted).map_err(lost)?;
            if self.watch.rejecting.load(Ordering::Relaxed) {
                let _ = send.reset(code(Code::H3_REQUEST_REJECTED));
                let _ = recv.stop(code(Code::H3_REQUEST_REJECTED));
                continue;
            }
            *self.watch.stopped.lock() = Some(Box::pin(send.stopped()));
            return Poll::Ready(Ok(Request {
                send: SendStream::new(send, &self.watch),
                recv: RecvStream::new(recv, Frames::request(), quic, &self.watch),
            }));
        }
    }

    fn opener(&self) -> Opener {
        Opener(Transport::new(self.quic.clone(), self.watch.clone()))
    }
}

impl quic::OpenStreams<Bytes> for Transport {
    type BidiStream = Request;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown("a server opens no requests".into())))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let quic = &self.quic;
        let opened = poll_opening(&mut self.outgoing, cx, || {
            let quic = quic.clone();
            async move { quic.open_uni().await }
        });
        let stream = ready!(opened).map_err(|e| StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: lost(e),
        })?;
        Poll::Ready(Ok(SendStream::new(stream, &self.watch)))
    }

    fn close(&mut self, error: Code, reason: &[u8]) {
        self.quic.close(code(error), reason);
    }
}

/// What opens streams beside a connection; the library asks for one.
pub(super) struct Opener(Transport);

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = Request;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Request, StreamErrorIncoming>> {
        self.0.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.0.poll_open_send(cx)
    }

    fn close(&mut self, error: Code, reason: &[u8]) {
        self.0.close(error, reason);
    }
}

/// A stream with a request and its answer.
pub(super) struct Request {
    send: SendStream,
    recv: RecvStream,
}

impl quic::BidiStream<Bytes> for Request {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(mut self) -> (SendStream, RecvStream) {
        self.send.unfinished = true;
        (self.send, self.recv)
    }
}

impl quic::RecvStream for Request {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let polled = self.recv.poll_data(cx);
        if let Some(fault) = self.recv.fault {
            quic::SendStream::reset(&mut self.send, fault.value());
        }
        polled
    }

    fn stop_sending(&mut self, error: u64) {
        self.recv.stop_sending(error);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

impl quic::SendStream<Bytes> for Request {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, error: u64) {
        self.send.reset(error);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// The half that is read.
pub(super) struct RecvStream {
    stream: quinn::RecvStream,
    quic: quinn::Connection,
    watch: Arc<Watch>,
    frames: Frames,
    passed: VecDeque<Bytes>,
    ended: bool,
    /// Why the stream was stopped.
    fault: Option<Code>,
}

impl RecvStream {
    fn new(stream: quinn::RecvStream, frames: Frames, quic: &quinn::Connection, watch: &Arc<Watch>) -> Self {
        Self {
            stream,
            quic: quic.clone(),
            watch: watch.clone(),
            frames,
            passed: VecDeque::new(),
            ended: false,
            fault: None,
        }
    }

    fn refuse(&mut self, fault: Fault) -> StreamErrorIncoming {
        self.ended = true;
        self.passed.clear();
        match fault {
            Fault::Stream(error) => {
                self.fault = Some(error);
                let _ = self.stream.stop(code(error));
                StreamErrorIncoming::Unknown("malformed".into())
            }
            Fault::Connection(error) => {
                self.quic.close(code(error), b"");
                StreamErrorIncoming::ConnectionErrorIncoming {
                    connection_error: lost(ConnectionError::LocallyClosed),
                }
            }
        }
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        loop {
            if let Some(bytes) = self.passed.pop_front() {
                return Poll::Ready(Ok(Some(bytes)));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            // It leaves its waker with the connection, and may be dropped.
            let read = ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx));
            let looked_at = match read {
                Ok(Some(chunk)) => {
                    self.watch.read.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
                    self.frames.push(chunk.bytes, &mut self.passed)
                }
                Ok(None) => {
                    self.ended = true;
                    self.frames.end()
                }
                Err(e) => {
                    self.ended = true;
                    return Poll::Ready(Err(match e {
                        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated {
                            error_code: code.into_inner(),
                        },
                        ReadError::ConnectionLost(e) => StreamErrorIncoming::ConnectionErrorIncoming {
                            connection_error: lost(e),
                        },
                        other => StreamErrorIncoming::Unknown(Box::new(other)),
                    }));
                }
            };
            if let Err(fault) = looked_at {
                return Poll::Ready(Err(self.refuse(fault)));
            }
        }
    }

    fn stop_sending(&mut self, error: u64) {
        self.ended = true;
        let _ = VarInt::from_u64(error).map(|error| self.stream.stop(error));
    }

    fn recv_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        // The rest is not wanted, which is no error (RFC 9114 §4.1).
        if !self.ended {
            let _ = self.stream.stop(code(Code::H3_NO_ERROR));
        }
    }
}

/// The half that is written.
pub(super) struct SendStream {
    stream: quinn::SendStream,
    watch: Arc<Watch>,
    writing: Option<WriteBuf<Bytes>>,
    /// Whether it carries an answer whose end was not written yet.
    unfinished: bool,
}

impl SendStream {
    fn new(stream: quinn::SendStream, watch: &Arc<Watch>) -> Self {
        Self {
            stream,
            watch: watch.clone(),
            writing: None,
            unfinished: false,
        }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        // Else it would look like an answer's end.
        if self.unfinished {
            let _ = self.stream.reset(code(Code::H3_INTERNAL_ERROR));
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk()));
                let written = written.map_err(|e| match e {
                    WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated {
                        error_code: code.into_inner(),
                    },
                    WriteError::ConnectionLost(e) => StreamErrorIncoming::ConnectionErrorIncoming {
                        connection_error: lost(e),
                    },
                    other => StreamErrorIncoming::Unknown(Box::new(other)),
                })?;
                self.watch.written.fetch_add(written as u64, Ordering::Relaxed);
                data.advance(written);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        debug_assert!(self.writing.is_none(), "the library waits until it is ready");
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.unfinished = false;
        let finished = self.stream.finish();
        Poll::Ready(finished.map_err(|e| StreamErrorIncoming::Unknown(Box::new(e))))
    }

    fn reset(&mut self, error: u64) {
        self.unfinished = false;
        let _ = VarInt::from_u64(error).map(|error| self.stream.reset(error));
    }

    fn send_id(&self) -> StreamId {
        id(self.stream.id())
    }
}

/// An error code as QUIC has it.
pub(super) fn code(code: Code) -> VarInt {
    VarInt::from_u64(code.value()).expect("a code of HTTP/3 is short")
}

fn id(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("one of QUIC's")
}

fn lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => ConnectionErrorIncoming::ApplicationClose {
            error_code: close.error_code.into_inner(),
        },
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}
