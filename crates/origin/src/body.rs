//! The bodies of origins' answers, and of what is sent to them.

use crate::{Error, RequestBody, ResumedBody};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    fs::File,
    future::Future,
    ops::Range,
    os::unix::fs::FileExt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, Sleep},
};

/// How much of a large file is read at a time, in bytes.
const CHUNK: u64 = 256 << 10;

/// A body.
#[derive(Debug)]
pub enum Body {
    /// All there already, or empty.
    Whole(Bytes),
    /// A large file.
    File(FileBody),
    /// What comes from an HTTP origin.
    Http(HttpBody),
    /// What comes from an S3 bucket.
    S3(Box<ResumedBody>),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::File(file) => Pin::new(file).poll_frame(cx),
            Self::Http(body) => body.poll_frame(cx),
            Self::S3(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::File(file) => file.is_end_stream(),
            Self::Http(body) => body.is_end_stream(),
            Self::S3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::File(file) => SizeHint::with_exact(file.remaining()),
            Self::Http(body) => http_body::Body::size_hint(&body.incoming),
            Self::S3(body) => SizeHint::with_exact(body.remaining()),
        }
    }
}

/// A range of a file, read as it is taken, one chunk ahead. The file stays the one that was opened, also when another
/// is put in its place.
#[derive(Debug)]
pub struct FileBody {
    file: Arc<File>,
    range: Range<u64>,
    reading: Option<JoinHandle<std::io::Result<Bytes>>>,
}

impl FileBody {
    pub(crate) fn new(file: Arc<File>, range: Range<u64>) -> Self {
        Self {
            file,
            range,
            reading: None,
        }
    }

    /// Another reader of the same file, of a range counted from the file's begin.
    #[must_use]
    pub fn part(&self, range: Range<u64>) -> Self {
        Self::new(self.file.clone(), range)
    }

    /// How many bytes are still to be read, in the state before the first is.
    pub fn remaining(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn read(&mut self) -> JoinHandle<std::io::Result<Bytes>> {
        let (file, at) = (self.file.clone(), self.range.start);
        let length = CHUNK.min(self.range.end - at) as usize;
        self.range.start += length as u64;
        tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; length];
            // A file that became shorter meanwhile is an error here, not a short body.
            file.read_exact_at(&mut chunk, at)?;
            Ok(chunk.into())
        })
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        let mut reading = match self.reading.take() {
            Some(reading) => reading,
            None if self.range.is_empty() => return Poll::Ready(None),
            None => self.read(),
        };
        match Pin::new(&mut reading).poll(cx) {
            Poll::Pending => {
                self.reading = Some(reading);
                Poll::Pending
            }
            Poll::Ready(Ok(Ok(chunk))) => {
                if !self.range.is_empty() {
                    self.reading = Some(self.read());
                }
                Poll::Ready(Some(Ok(chunk)))
            }
            Poll::Ready(_) => {
                self.range.start = self.range.end;
                Poll::Ready(Some(Err(Error::Io)))
            }
        }
    }
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.poll_chunk(cx).map(|chunk| chunk.map(|c| c.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.range.is_empty() && self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}

/// An HTTP origin's body, with a limit on the time between two parts.
#[derive(Debug)]
pub struct HttpBody {
    incoming: Incoming,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
}

impl HttpBody {
    pub(crate) fn new(incoming: Incoming, idle: Duration) -> Self {
        Self {
            incoming,
            idle,
            deadline: Box::pin(tokio::time::sleep(idle)),
        }
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            let deadline = Instant::now() + self.idle;
            self.deadline.as_mut().reset(deadline);
            return Poll::Ready(frame.map(|f| f.map_err(|_| Error::Broken)));
        }
        ready!(self.deadline.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::Timeout)))
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }
}

/// How far a request's body is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing of it.
    Begun,
    /// So many parts of it.
    Sending(u64),
    /// All of it, or all that will be.
    Sent,
}

/// A request's body that tells how far it is sent.
#[derive(Debug)]
pub(crate) struct Upload {
    body: RequestBody,
    stage: watch::Sender<Stage>,
    parts: u64,
}

impl Upload {
    pub(crate) fn new(body: RequestBody) -> (Self, watch::Receiver<Stage>) {
        let (stage, told) = watch::channel(Stage::Begun);
        (Self { body, stage, parts: 0 }, told)
    }
}

impl Drop for Upload {
    /// A body of known length is let go with its last byte, not asked for its end.
    fn drop(&mut self) {
        self.stage.send_replace(Stage::Sent);
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = <RequestBody as http_body::Body>::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.parts += 1;
        let stage = if frame.is_some() && !self.body.is_end_stream() {
            Stage::Sending(self.parts)
        } else {
            Stage::Sent
        };
        self.stage.send_replace(stage);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
