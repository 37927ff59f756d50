//! The body of an object that is kept in slices: from memory, from disk, from fetches under way, and else from its origin,
//! a few slices ahead of who reads it.

use crate::{
    cache::{Begun, Cache},
    disk::GivenUp,
    entry::Entry,
    fill::{BodyError, BoxBody, FetchError, FetchedResponse, FillBody, Progress, Reader},
    held::Held,
    key::{Key, KeyRef},
    slices::{SliceError, Slices, Validator},
    span::{Ahead, Span},
};
use bytes::Bytes;
use http::StatusCode;
use http_body::{Frame, SizeHint};
use std::{
    future::{Future, poll_fn},
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// How many slices one fetch brings at most, and how far ahead of a reader they are fetched.
pub(crate) const MOST_AHEAD: u64 = 8;

/// How often a slice is asked for once more when its fetch fails or breaks.
const MORE_TRIES: u32 = 2;

/// A fetch that is under way.
pub type Fetching = Pin<Box<dyn Future<Output = Result<FetchedResponse, FetchError>> + Send>>;

/// Where the slices of an object come from.
pub trait SliceSource: Send + Sync {
    /// Asks for these bytes, on the condition that the representation is still the same.
    fn fetch(&self, range: Range<u64>, validator: &Validator) -> Fetching;
}

struct Object {
    cache: Arc<Cache>,
    key: Key,
    slices: Arc<Slices>,
    source: Box<dyn SliceSource>,
}

impl Object {
    fn fetch(&self, range: Range<u64>) -> Fetching {
        self.source.fetch(range, &self.slices.validator)
    }

    /// Runs a fetch of slices, in a task of its own that outlives its reader.
    fn lead(&self, span: Span) {
        let fetch = self.fetch(span.range());
        tokio::spawn(span.run(fetch));
    }
}

/// What a slice is read from.
enum Piece {
    /// The whole slice.
    Stored(Held),
    /// What is wanted of it, as it comes.
    Fill(FillBody),
    /// The same, for this reader alone: up to this byte of the object.
    Own(BoxBody, u64),
}

/// What it comes to to wait for a piece.
enum Opened {
    Piece(Piece),
    /// It is not where it was on disk: to be looked for elsewhere.
    Gone,
    /// The same, and whatever else is on disk is not waited for either.
    DiskTooSlow,
}

type Opening = Pin<Box<dyn Future<Output = Result<Opened, FetchError>> + Send>>;

enum State {
    Idle,
    Opening(Opening),
    Reading(Piece),
}

/// A reader of an object that is kept in slices: of the whole, or of a range of it.
pub struct SlicedBody {
    object: Arc<Object>,
    /// What is still to be read.
    range: Range<u64>,
    state: State,
    ahead: Ahead,
    /// The first slice that was not looked for ahead.
    next: u64,
    /// How many slices are fetched at a time: more and more while they are read.
    window: u64,
    /// Whether slices are looked for on disk, which they are until it proves too slow.
    tier: bool,
    /// How often the slice that is read has failed.
    failures: u32,
    /// Whether something had to be fetched.
    forwarded: bool,
    /// Whether it is sent over a connection as it is.
    bare: bool,
    /// Whether it is too late to tell of an error otherwise than by breaking off.
    begun: bool,
}

impl std::fmt::Debug for SlicedBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SlicedBody({:?} of {})", self.range, self.object.slices.length)
    }
}

impl SlicedBody {
    /// A reader of all of `entry`, which is stored under `key`; `None` if it is not kept in slices. `ahead` is what the
    /// fetch that found it has begun.
    pub fn new(
        cache: &Arc<Cache>,
        key: KeyRef<'_>,
        entry: &Entry,
        source: impl SliceSource + 'static,
        ahead: Ahead,
    ) -> Option<Self> {
        let slices = entry.slices()?.clone();
        let range = 0..slices.length;
        let next = ahead.0.back().map_or(0, |(slice, _)| slice + 1);
        Some(Self {
            range,
            state: State::Idle,
            window: 1.max(ahead.0.len() as u64),
            forwarded: !ahead.0.is_empty(),
            ahead,
            next,
            tier: true,
            failures: 0,
            bare: false,
            begun: false,
            object: Arc::new(Object {
                cache: cache.clone(),
                key: key.to_owned(),
                slices,
                source: Box::new(source),
            }),
        })
    }

    /// The same, whose bytes go over a connection as they are: neither encrypted nor in frames.
    #[must_use]
    pub fn bare(self, bare: bool) -> Self {
        Self { bare, ..self }
    }

    /// A reader of a range of it, counted from the object's begin; what was begun ahead goes to it.
    #[must_use]
    pub fn range(&mut self, range: Range<u64>) -> Self {
        let mut ahead = std::mem::take(&mut self.ahead);
        ahead.end_at(self.object.slices.at(range.end.saturating_sub(1)) + 1);
        Self {
            object: self.object.clone(),
            range,
            state: State::Idle,
            ahead,
            next: self.next,
            window: self.window,
            tier: self.tier,
            failures: 0,
            bare: self.bare,
            begun: false,
            forwarded: self.forwarded,
        }
    }

    /// In bytes, what is still to be read.
    pub fn remaining(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// Whether all that is to be read is stored, in memory or on disk.
    pub fn is_held(&self) -> bool {
        let object = &self.object;
        let key = |slice| object.key.borrow().slice(object.slices.id, slice);
        self.range.is_empty()
            || (object.slices.at(self.range.start)..self.last()).all(|slice| object.cache.holds_slice(&key(slice)))
    }

    /// Whether an origin was asked for what has been read so far.
    pub fn was_forwarded(&self) -> bool {
        self.forwarded
    }

    /// Waits for the first byte, so that an object which changed or failed is noticed before anything is sent of it.
    pub async fn ready(&mut self) -> Result<(), FetchError> {
        if self.range.is_empty() {
            return Ok(());
        }
        poll_fn(|cx| self.poll_ready(cx)).await
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), FetchError>> {
        loop {
            match &mut self.state {
                State::Idle => self.open(self.tier),
                State::Opening(opening) => {
                    let opened = ready!(opening.as_mut().poll(cx));
                    self.state = State::Idle;
                    match opened {
                        Ok(Opened::Gone) => self.open(false),
                        Ok(Opened::DiskTooSlow) => self.tier = false,
                        Ok(Opened::Piece(own @ Piece::Own(..))) => self.state = State::Reading(own),
                        Ok(Opened::Piece(piece)) => {
                            self.state = State::Reading(piece);
                            self.look_ahead();
                        }
                        Err(error) => self.failed(error)?,
                    }
                }
                State::Reading(_) => return Poll::Ready(Ok(())),
            }
        }
    }

    /// The slice that is read, and what of it is wanted.
    fn wanted(&self) -> (u64, Range<u64>) {
        let slice = self.object.slices.at(self.range.start);
        let end = self.object.slices.range(slice).end.min(self.range.end);
        (slice, self.range.start..end)
    }

    /// Begins with the slice that is wanted next; `tier` says whether it may be on disk.
    fn open(&mut self, tier: bool) {
        self.state = self.opened(tier);
        if matches!(self.state, State::Reading(_)) {
            self.look_ahead();
        }
    }

    fn opened(&mut self, tier: bool) -> State {
        let (slice, wanted) = self.wanted();
        let begin = self.object.slices.range(slice).start;
        let within = wanted.start - begin..wanted.end - begin;
        if let Some(reader) = self.ahead.take(slice) {
            return State::Opening(follow(reader, within));
        }
        let object = &self.object;
        let most = (self.last() - slice).min(self.window);
        match object.cache.begin(&object.key, &object.slices, slice, most, tier) {
            Begun::Stored(held) => State::Reading(Piece::Stored(held)),
            Begun::OnDisk(on_disk, key) => {
                let cache = object.cache.clone();
                State::Opening(Box::pin(async move {
                    Ok(match cache.read_slice(&key, on_disk).await {
                        Ok(Some(held)) => Opened::Piece(Piece::Stored(held)),
                        Ok(None) => Opened::Gone,
                        Err(GivenUp) => Opened::DiskTooSlow,
                    })
                }))
            }
            Begun::Follows(reader) => {
                self.forwarded = true;
                State::Opening(follow(reader, within))
            }
            Begun::Leads(span, ahead) => {
                self.forwarded = true;
                object.lead(span);
                self.next = slice + ahead.0.len() as u64;
                self.ahead = ahead;
                let reader = self.ahead.take(slice).expect("a span begins with its first slice");
                State::Opening(follow(reader, within))
            }
            Begun::Full => {
                self.forwarded = true;
                State::Opening(Box::pin(alone(object.clone(), wanted)))
            }
        }
    }

    /// The number after the last slice that is wanted.
    fn last(&self) -> u64 {
        self.object.slices.at(self.range.end - 1) + 1
    }

    /// Sees to the slices after the one that is read.
    fn look_ahead(&mut self) {
        let object = &self.object;
        let (slice, last) = (object.slices.at(self.range.start), self.last());
        self.next = self.next.max(slice + 1);
        // Half of what is fetched at a time is to be there when the other half has been read.
        while self.next < last.min(slice + 1 + self.window.div_ceil(2)) {
            // It is read when its turn comes.
            if object
                .cache
                .holds_slice(&object.key.borrow().slice(object.slices.id, self.next))
            {
                self.next += 1;
                continue;
            }
            let window = (self.window * 2).min(MOST_AHEAD);
            let most = (last - self.next).min(window);
            match object
                .cache
                .begin(&object.key, &object.slices, self.next, most, self.tier)
            {
                Begun::Leads(span, ahead) => {
                    self.window = window;
                    object.lead(span);
                    self.next += ahead.0.len() as u64;
                    self.ahead.0.extend(ahead.0);
                }
                Begun::Follows(reader) => {
                    self.ahead.0.push_back((self.next, reader));
                    self.next += 1;
                }
                Begun::Stored(_) | Begun::OnDisk(..) => self.next += 1,
                Begun::Full => return,
            }
        }
    }

    /// What comes of a fetch that failed: another one, or the error.
    fn failed(&mut self, error: FetchError) -> Result<(), FetchError> {
        self.failures += 1;
        let reason = error.downcast_ref::<SliceError>();
        let goes_on = match reason {
            None | Some(SliceError::Failing) => true,
            Some(SliceError::NoRanges) => self.begun,
            Some(SliceError::Changed) => false,
        };
        if !goes_on || self.failures > MORE_TRIES {
            self.range.start = self.range.end;
            return Err(error);
        }
        if reason == Some(&SliceError::NoRanges) {
            self.state = State::Opening(Box::pin(rest(self.object.clone(), self.range.clone())));
        }
        self.ahead = Ahead::default();
        self.next = self.object.slices.at(self.range.start);
        self.window = 1;
        Ok(())
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.begun = true;
        loop {
            if self.range.is_empty() {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_ready(cx)) {
                return Poll::Ready(Some(Err(BodyError::Broken(error.to_string().into()))));
            }
            let (slice, mut wanted) = self.wanted();
            let State::Reading(piece) = &mut self.state else {
                unreachable!("it is read when it is ready")
            };
            let chunk = match piece {
                Piece::Stored(held) => {
                    let begin = self.object.slices.range(slice).start;
                    if self.bare {
                        held.sent((wanted.end - wanted.start) as usize);
                    }
                    let within = (wanted.start - begin) as usize..(wanted.end - begin) as usize;
                    Some(Ok(held.bytes().slice(within)))
                }
                Piece::Fill(fill) => ready!(fill.poll_chunk(cx)),
                Piece::Own(body, end) => {
                    wanted.end = *end;
                    let frame = ready!(body.as_mut().poll_frame(cx));
                    frame.map(|frame| frame.map(|f| f.into_data().unwrap_or_default()))
                }
            };
            let missing = wanted.end - wanted.start;
            match chunk.unwrap_or(Err(BodyError::Short { missing })) {
                Ok(chunk) if chunk.is_empty() => {}
                // More than was asked for, which can only be of a body that is this reader's alone.
                Ok(chunk) if chunk.len() as u64 > missing => {
                    self.range.start = self.range.end;
                    return Poll::Ready(Some(Err(BodyError::TooLarge)));
                }
                Ok(chunk) => {
                    self.range.start += chunk.len() as u64;
                    if self.range.start == wanted.end {
                        self.state = State::Idle;
                        self.failures = 0;
                    }
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Err(error) => {
                    self.state = State::Idle;
                    let text = error.to_string();
                    if self.failed(Arc::new(error)).is_err() {
                        return Poll::Ready(Some(Err(BodyError::Broken(text.into()))));
                    }
                }
            }
        }
    }
}

/// Waits for the first byte of a slice that is fetched.
fn follow(reader: Reader, within: Range<u64>) -> Opening {
    Box::pin(async move {
        match reader.fill.first_byte().await {
            Progress::Streaming(streaming) => {
                let fill = FillBody::new(reader, streaming.length).range(within);
                Ok(Opened::Piece(Piece::Fill(fill)))
            }
            Progress::Failed(error) => Err(error),
            Progress::Waiting | Progress::Entry(..) | Progress::InNoSlices | Progress::Unshared => {
                unreachable!("slices stream or fail")
            }
        }
    })
}

/// Fetches what is wanted for one reader, when fetches hold all they may.
async fn alone(object: Arc<Object>, wanted: Range<u64>) -> Result<Opened, FetchError> {
    let response = object.fetch(wanted.clone()).await?;
    let checked = object.cache.checked(&object.key, &object.slices, &wanted, response)?;
    Ok(Opened::Piece(Piece::Own(checked.body, wanted.end)))
}

/// The rest of what one reader wants, who has some of it already, from an origin that turns out not to serve ranges.
async fn rest(object: Arc<Object>, wanted: Range<u64>) -> Result<Opened, FetchError> {
    let response = object.fetch(wanted.clone()).await?;
    let is_whole = response.head.status == StatusCode::OK;
    let body = match object.slices.check(&response, &wanted) {
        Ok(()) => response.body,
        // The same representation, from its begin.
        Err(SliceError::NoRanges) if is_whole => Box::pin(Part {
            whole: response.body,
            skip: wanted.start,
            left: wanted.end - wanted.start,
        }),
        Err(reason) => return Err(Arc::new(reason)),
    };
    Ok(Opened::Piece(Piece::Own(body, wanted.end)))
}

/// A part of a body that comes from its begin.
struct Part {
    whole: BoxBody,
    /// Bytes to be passed over.
    skip: u64,
    left: u64,
}

impl http_body::Body for Part {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match ready!(self.whole.as_mut().poll_frame(cx)) {
            Some(Ok(frame)) => frame,
            end => return Poll::Ready(end),
        };
        let mut chunk = frame.into_data().unwrap_or_default();
        let skipped = self.skip.min(chunk.len() as u64);
        self.skip -= skipped;
        let _ = chunk.split_to(skipped as usize);
        chunk.truncate(self.left as usize);
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }
}

impl http_body::Body for SlicedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.poll_chunk(cx).map(|chunk| chunk.map(|c| c.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining())
    }
}
