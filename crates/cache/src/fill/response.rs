//! What a fetch brings: an origin's response, and what becomes of it for who asked.

use super::FillBody;
use crate::{
    entry::Entry,
    policy::{self, Settings},
    span::Ahead,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use http_body::Frame;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// Why a body broke off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It ended before its stated length.
    #[error("the body ended {missing} bytes early")]
    Short {
        /// How many bytes were still to come.
        missing: u64,
    },
    /// The source failed.
    #[error("the body broke off: {0}")]
    Broken(Arc<str>),
    /// It grew past what is held for it.
    #[error("the body is larger than the cache takes")]
    TooLarge,
    /// Others read it so much faster that they could not wait.
    #[error("the body was read too slowly")]
    TooSlow,
}

/// A body from an origin.
pub type BoxBody = Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError> + Send>>;

/// Why a fetch failed; what the fetching closure returned, shared by all who waited for it.
pub type FetchError = Arc<dyn std::error::Error + Send + Sync>;

/// Status and header fields of a response.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
}

/// What an origin answered.
pub struct FetchedResponse {
    /// Status and header fields, hop-by-hop ones left out.
    pub head: ResponseHead,
    /// The body.
    pub body: BoxBody,
    /// The body's length in bytes, where the origin said it.
    pub length: Option<u64>,
    /// What the cache does with answers of this origin.
    pub settings: Settings,
}

impl FetchedResponse {
    /// A response whose body is all there.
    pub(crate) fn whole(head: ResponseHead, body: Bytes, settings: Settings) -> Self {
        Self {
            head,
            settings,
            length: Some(body.len() as u64),
            body: Box::pin(Whole(body)),
        }
    }
}

/// A body that is all there.
struct Whole(Bytes);

impl http_body::Body for Whole {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = std::mem::take(&mut self.0);
        Poll::Ready((!body.is_empty()).then(|| Ok(Frame::data(body))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for FetchedResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FetchedResponse({}, {:?} bytes)", self.head.status, self.length)
    }
}

/// How an answer came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FetchStatus {
    /// This request's own fetch.
    Miss,
    /// The fetch of another request.
    Collapsed,
    /// What the fetch of another request had stored just then.
    Stored,
    /// The origin confirmed what was stored.
    Revalidated,
    /// The same, to another request.
    Confirmed,
    /// The origin confirmed what was stored, and has it stored no more.
    Unkept,
    /// The origin failed, with this answer or none; what was stored stands in.
    StaleIfError(Option<StatusCode>),
}

/// A response that others read, too, while it arrives.
#[derive(Debug)]
pub struct SharedStream {
    /// Status and header fields.
    pub head: Arc<ResponseHead>,
    /// The body, from its begin.
    pub body: FillBody,
    /// The body's length in bytes, where the origin said it.
    pub length: Option<u64>,
    /// How it came about.
    pub status: FetchStatus,
    /// What the origin answered with.
    pub answered: StatusCode,
    /// Whether it will be stored if it comes whole.
    pub stored: bool,
    /// How long ago the origin generated it (RFC 9111 §4.2.3).
    pub age: Duration,
}

/// What a fetch comes to.
#[derive(Debug)]
pub enum Fetched {
    /// A stored response, and the slices of it that the fetch has begun to bring.
    Entry(Arc<Entry>, FetchStatus, Ahead),
    /// A response in progress that will be stored.
    Stream(SharedStream),
    /// A response that is this request's alone.
    Own(FetchedResponse),
    /// The slice that was asked for is of an object that cannot be kept in slices: fetch the whole, or what you want of it.
    InNoSlices,
    /// The response cannot be shared: fetch for yourself.
    Pass,
}

/// A response whose body comes: see [`SharedStream`].
#[derive(Debug, Clone)]
pub(crate) struct Streaming {
    pub(crate) head: Arc<ResponseHead>,
    pub(crate) length: Option<u64>,
    pub(crate) answered: StatusCode,
    pub(crate) stored: bool,
    /// The request fields that select it.
    pub(crate) selecting: Arc<[HeaderName]>,
    /// When it came, and how old it was then.
    pub(crate) came: Instant,
    pub(crate) initial_age: Duration,
    /// Until when who asks may have it without asking the origin.
    pub(crate) fresh_until: Instant,
}

/// What is known of a fill.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    Waiting,
    /// The head is there and the body comes.
    Streaming(Streaming),
    /// A stored response is the answer.
    Entry(Arc<Entry>, FetchStatus),
    /// See [`Fetched::InNoSlices`].
    InNoSlices,
    /// The answer belongs to the request that asked for it.
    Unshared,
    Failed(FetchError),
}

impl Streaming {
    /// How long ago the origin generated it.
    pub(crate) fn age(&self, now: Instant) -> Duration {
        self.initial_age + now.saturating_duration_since(self.came)
    }
}

impl Progress {
    /// Whether it answers `leader`, and selects another response for `follower`.
    pub(crate) fn is_another_variant(&self, leader: &HeaderMap, follower: &HeaderMap) -> bool {
        let differs = |name| policy::vary_value(leader, name) != policy::vary_value(follower, name);
        match self {
            Self::Entry(entry, _) => !entry.matches(follower),
            Self::Streaming(streaming) => streaming.selecting.iter().any(differs),
            Self::Waiting | Self::InNoSlices | Self::Unshared | Self::Failed(_) => false,
        }
    }

    /// The request fields that select a response.
    pub(crate) fn selecting(&self) -> Vec<HeaderName> {
        match self {
            Self::Entry(entry, _) => entry.selectors().iter().map(|s| s.name.clone()).collect(),
            Self::Streaming(streaming) => streaming.selecting.to_vec(),
            Self::Waiting | Self::InNoSlices | Self::Unshared | Self::Failed(_) => Vec::new(),
        }
    }
}
