//! What the edge's answers are made of.

use bytes::Bytes;
use edgeweir_cache::{BoxBody, FetchError, FillBody, SlicedBody};
use edgeweir_origin::{FileBody, ingest::ArrivingBody};
use http_body::{Frame, SizeHint};
use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Why a body broke off. The client sees the break; the log, the reason.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error(transparent)]
    Fill(#[from] edgeweir_cache::BodyError),
    #[error(transparent)]
    Origin(#[from] edgeweir_origin::Error),
}

/// A piece of a body.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Bytes),
    File(FileBody),
    Sliced(Box<SlicedBody>),
}

/// An answer's body.
pub(crate) enum Body {
    Empty,
    Full(Bytes),
    /// The same behind a head that is rendered for HTTP/1.1 already.
    Rendered(Arc<[u8]>, Bytes),
    /// The framing and the ranges of a `multipart/byteranges` answer, or a file.
    Pieces(VecDeque<Piece>),
    Fill(FillBody),
    Sliced(Box<SlicedBody>),
    /// An answer that is this request's own.
    Own(BoxBody),
    Origin(edgeweir_origin::Body),
    /// A file that an encoder is pushing.
    Arriving(ArrivingBody),
}

impl Body {
    /// Bytes that are there, or none of them for HEAD.
    pub(crate) fn full(bytes: Bytes, head_only: bool) -> Self {
        if head_only || bytes.is_empty() {
            Self::Empty
        } else {
            Self::Full(bytes)
        }
    }

    pub(crate) fn file(file: FileBody) -> Self {
        Self::Pieces([Piece::File(file)].into())
    }

    /// Whether no origin need be asked for any of what is kept in slices.
    pub(crate) fn is_held(&self) -> bool {
        match self {
            Self::Sliced(sliced) => sliced.is_held(),
            Self::Pieces(pieces) => pieces.iter().all(|piece| match piece {
                Piece::Sliced(sliced) => sliced.is_held(),
                Piece::Bytes(_) | Piece::File(_) => true,
            }),
            _ => true,
        }
    }

    /// Waits for the first byte of what is kept in slices; whether its origin was asked for it.
    pub(crate) async fn ready(&mut self) -> Result<bool, FetchError> {
        let sliced = match self {
            Self::Sliced(sliced) => Some(sliced),
            Self::Pieces(pieces) => pieces.iter_mut().find_map(|piece| match piece {
                Piece::Sliced(sliced) => Some(sliced),
                Piece::Bytes(_) | Piece::File(_) => None,
            }),
            _ => None,
        };
        let Some(sliced) = sliced else { return Ok(false) };
        sliced.ready().await?;
        Ok(sliced.was_forwarded())
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) | Self::Rendered(_, bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Pieces(pieces) => loop {
                let polled = match pieces.front_mut() {
                    None => return Poll::Ready(None),
                    Some(Piece::Bytes(bytes)) => {
                        let bytes = std::mem::take(bytes);
                        pieces.pop_front();
                        return Poll::Ready(Some(Ok(Frame::data(bytes))));
                    }
                    Some(Piece::File(file)) => Pin::new(file).poll_frame(cx).map_err(BodyError::from),
                    Some(Piece::Sliced(sliced)) => Pin::new(sliced).poll_frame(cx).map_err(BodyError::from),
                };
                match polled {
                    Poll::Ready(None) => {
                        pieces.pop_front();
                    }
                    other => return other,
                }
            },
            Self::Fill(fill) => Pin::new(fill).poll_frame(cx).map_err(BodyError::from),
            Self::Sliced(sliced) => Pin::new(sliced).poll_frame(cx).map_err(BodyError::from),
            Self::Own(body) => body.as_mut().poll_frame(cx).map_err(BodyError::from),
            Self::Origin(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
            Self::Arriving(body) => Pin::new(body).poll_frame(cx).map_err(BodyError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) | Self::Rendered(_, bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(pieces) => {
                let length = pieces.iter().map(|piece| match piece {
                    Piece::Bytes(bytes) => bytes.len() as u64,
                    Piece::File(file) => file.remaining(),
                    Piece::Sliced(sliced) => sliced.remaining(),
                });
                SizeHint::with_exact(length.sum())
            }
            Self::Fill(fill) => fill.size_hint(),
            Self::Sliced(sliced) => sliced.size_hint(),
            Self::Own(body) => body.size_hint(),
            Self::Origin(body) => body.size_hint(),
            Self::Arriving(body) => body.size_hint(),
        }
    }
}
