//! What comes with a request: one type for every version of HTTP, so that the request path is the same for all.

use crate::{h1, h2, h3};
use bytes::Bytes;
use http::HeaderValue;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// The length in bytes that a `Content-Length` says, which is digits alone (RFC 9110 §8.6).
pub(crate) fn content_length(value: &HeaderValue) -> Option<u64> {
    let text = value.as_bytes();
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    digits.then(|| value.to_str().ok()?.parse().ok())?
}

/// A request's body.
#[derive(Debug)]
pub(crate) enum Upload {
    /// None.
    Empty,
    /// Over HTTP/1.1.
    H1(h1::Upload),
    /// Over HTTP/2.
    H2(h2::Upload),
    /// Over HTTP/3. Few requests have one there that is read: it is not to make the others larger.
    H3(Box<h3::Upload>),
}

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UploadError {
    #[error(transparent)]
    H1(#[from] h1::UploadError),
    #[error(transparent)]
    H2(#[from] ::h2::Error),
    #[error(transparent)]
    H3(#[from] h3::UploadError),
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::H1(body) => Pin::new(body).poll_frame(cx).map_err(UploadError::from),
            Self::H2(body) => Pin::new(body).poll_frame(cx).map_err(UploadError::from),
            Self::H3(body) => Pin::new(body).poll_frame(cx).map_err(UploadError::from),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::H1(body) => body.is_end_stream(),
            Self::H2(body) => body.is_end_stream(),
            Self::H3(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::H1(body) => body.size_hint(),
            Self::H2(body) => body.size_hint(),
            Self::H3(body) => body.size_hint(),
        }
    }
}
