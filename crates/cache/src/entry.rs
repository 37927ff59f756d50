//! A stored response, immutable.

use crate::{
    fields::{unshared, unshared_value},
    fill::ResponseHead,
    held::Held,
    policy::{self, Settings},
    slices::Slices,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_LANGUAGE, AGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, DATE, ETAG,
        LAST_MODIFIED, SET_COOKIE,
    },
};
use std::{
    any::Any,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};
use uuid::Uuid;

/// The time, by both clocks. Ages are reckoned by the monotonic one: a wall clock that jumps expires nothing.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The wall clock.
    pub wall: SystemTime,
    /// The monotonic clock.
    pub mono: Instant,
}

impl Now {
    /// The system's clocks.
    pub fn now() -> Self {
        Self {
            wall: SystemTime::now(),
            mono: Instant::now(),
        }
    }
}

/// Header fields that a 304 does not change.
const OF_THE_BYTES: [HeaderName; 5] = [
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    HeaderName::from_static("content-md5"),
    CONTENT_RANGE,
    ETAG,
];

/// What a revalidation is made with (RFC 9110 §8.8).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag, as the origin wrote it.
    pub etag: Option<HeaderValue>,
    /// `Last-Modified`, as the origin wrote it.
    pub last_modified: Option<HeaderValue>,
}

/// How a stored response may be used now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Freshness {
    Fresh { ttl: Duration },
    StaleWhileRevalidate,
    Stale,
}

/// The content of a stored response.
#[derive(Debug, Clone)]
pub enum Content {
    /// All of it.
    Whole(Held),
    /// It is kept in slices, as far as it is kept.
    Sliced(Arc<Slices>),
}

impl Content {
    /// In bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Whole(held) => held.length() as u64,
            Self::Sliced(slices) => slices.length(),
        }
    }
}

/// When an answer came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came {
    pub(crate) now: Now,
    /// How long after it was asked for.
    pub(crate) delay: Duration,
    /// The number of the last purge when it was asked for.
    pub(crate) born: u64,
}

/// A stored response: status, header fields and content.
pub struct Entry {
    head: ResponseHead,
    content: Content,
    /// Tells the content from all others.
    content_id: u128,
    times: Times,
    vary: Box<[Selector]>,
    /// The number of the last purge when its fetch began. Later ones may take it.
    born: u64,
    /// The number of the last purge that it was held against.
    checked: AtomicU64,
    /// At which age a soft purge made it stale, in milliseconds.
    stale_at: AtomicU64,
    /// Whether it is kept on disk, too.
    persists: bool,
    attachment: OnceLock<Box<dyn Any + Send + Sync>>,
    revalidating: AtomicBool,
}

/// When a response was stored, how old it was then, and how old it may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) stored: Instant,
    pub(crate) initial_age: Duration,
    pub(crate) lifetime: Duration,
    pub(crate) while_revalidate: Duration,
    pub(crate) if_error: Duration,
}

impl Times {
    /// Those of a response that came so.
    pub(crate) fn of(head: &ResponseHead, Came { now, delay, .. }: Came, settings: &Settings) -> Self {
        let (while_revalidate, if_error) = policy::stale_windows(&head.headers);
        Self {
            stored: now.mono,
            initial_age: policy::initial_age(&head.headers, now.wall, delay),
            lifetime: policy::freshness_lifetime(head.status, &head.headers, now.wall, settings),
            while_revalidate,
            if_error,
        }
    }
}

/// A request field that selects this response, and the value that it was selected by.
#[derive(Debug)]
pub(crate) struct Selector {
    pub(crate) name: HeaderName,
    /// As the request had it; `None` when it had none, or several lines.
    pub(crate) raw: Option<HeaderValue>,
    pub(crate) value: Option<String>,
}

impl Selector {
    fn of(name: HeaderName, request: &HeaderMap) -> Self {
        Self {
            raw: only(request, &name).map(unshared_value),
            value: policy::vary_value(request, &name),
            name,
        }
    }

    /// What it takes of memory, in bytes.
    fn weight(&self) -> usize {
        let raw = self.raw.as_ref().map_or(0, HeaderValue::len);
        size_of::<Self>() + self.name.as_str().len() + raw + self.value.as_ref().map_or(0, String::len)
    }

    /// Nearly always the very same value comes, which needs no reading.
    fn matches(&self, request: &HeaderMap) -> bool {
        let same = self.raw.is_some() && only(request, &self.name) == self.raw.as_ref();
        same || policy::vary_value(request, &self.name) == self.value
    }
}

fn only<'a>(request: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = request.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// The right to revalidate an entry.
#[derive(Debug)]
pub struct Revalidation(Arc<Entry>);

impl Drop for Revalidation {
    fn drop(&mut self) {
        self.0.revalidating.store(false, Ordering::Release);
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Entry({}, {} bytes)", self.head.status, self.content.length())
    }
}

impl Entry {
    /// The stored form of an answer to `request`. `None` for `Vary: *`. What does not say when it was generated was so now
    /// (RFC 9110 §6.6.1).
    pub(crate) fn new(
        ResponseHead { status, headers }: ResponseHead,
        content: Content,
        request: &HeaderMap,
        came: Came,
        settings: &Settings,
    ) -> Option<Self> {
        let mut head = ResponseHead {
            status,
            headers: unshared(&headers, 1),
        };
        head.headers.entry(DATE).or_insert_with(|| {
            let date = httpdate::fmt_http_date(came.now.wall);
            HeaderValue::from_maybe_shared(Bytes::from(date)).expect("ASCII")
        });
        let times = Times::of(&head, came, settings);
        let vary = settings.selecting(&head.headers)?;
        let vary = vary.into_iter().map(|name| Selector::of(name, request)).collect();
        Some(Self {
            persists: settings.persist,
            content_id: Uuid::new_v4().as_u128(),
            ..Self::restored(head, content, times, vary, came.born)
        })
    }

    /// One that was stored before.
    pub(crate) fn restored(
        head: ResponseHead,
        content: Content,
        times: Times,
        vary: Box<[Selector]>,
        born: u64,
    ) -> Self {
        Self {
            times,
            vary,
            born,
            checked: AtomicU64::new(born),
            stale_at: AtomicU64::new(u64::MAX),
            persists: true,
            attachment: OnceLock::new(),
            revalidating: AtomicBool::new(false),
            head,
            content,
            content_id: 0,
        }
    }

    pub(crate) fn with_content_id(self, content_id: u128) -> Self {
        Self { content_id, ..self }
    }

    /// The same with the content of another one, whose it is.
    pub(crate) fn with_content_of(self, other: &Self) -> Self {
        Self {
            content: other.content.clone(),
            content_id: other.content_id,
            ..self
        }
    }

    /// The stored form of a slice of an object. Whether it is fresh, its object's entry tells.
    pub(crate) fn of_slice(content: impl Into<Held>, born: u64, persists: bool) -> Self {
        let head = ResponseHead {
            status: StatusCode::PARTIAL_CONTENT,
            headers: HeaderMap::new(),
        };
        let times = Times {
            stored: Instant::now(),
            initial_age: Duration::ZERO,
            lifetime: Duration::ZERO,
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
        };
        Self {
            persists,
            ..Self::restored(head, Content::Whole(content.into()), times, Box::default(), born)
        }
    }

    /// This response's head with the header fields of a 304 (RFC 9111 §3.2), less those that tell what the stored bytes
    /// are: with others of them the body would be another one.
    pub(crate) fn updated(&self, not_modified: &HeaderMap, settings: &Settings) -> ResponseHead {
        let mut head = self.head.clone();
        let updates =
            |name: &&HeaderName| !OF_THE_BYTES.contains(name) && (settings.store_set_cookie || **name != SET_COOKIE);
        for name in not_modified.keys().filter(updates) {
            head.headers.remove(name);
            for value in not_modified.get_all(name) {
                head.headers.append(name.clone(), value.clone());
            }
        }
        // These are of the message, and not of what it is about.
        for name in [AGE, DATE] {
            if !not_modified.contains_key(&name) {
                head.headers.remove(name);
            }
        }
        head
    }

    /// The right to revalidate this entry behind a stale answer (RFC 5861 §3): for one caller at a time, until it drops
    /// what it got.
    pub fn begin_revalidation(self: &Arc<Self>) -> Option<Revalidation> {
        let begins = !self.revalidating.swap(true, Ordering::AcqRel);
        begins.then(|| Revalidation(self.clone()))
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status
    }

    /// The header fields. `Set-Cookie` is among them only of an origin whose owner wants that.
    pub fn headers(&self) -> &HeaderMap {
        &self.head.headers
    }

    /// The content.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// The slices that it is kept in, if it is.
    pub fn slices(&self) -> Option<&Arc<Slices>> {
        match &self.content {
            Content::Sliced(slices) => Some(slices),
            Content::Whole(_) => None,
        }
    }

    /// For how long from its generation it is fresh.
    pub fn freshness_lifetime(&self) -> Duration {
        self.times.lifetime
    }

    /// How long ago the origin generated or validated it (RFC 9111 §4.2.3).
    pub fn age(&self, now: Now) -> Duration {
        self.times.initial_age + now.mono.saturating_duration_since(self.times.stored)
    }

    /// Something made of this entry once, and kept with it. One type an entry.
    pub fn attach_with<T: Any + Send + Sync>(&self, init: impl FnOnce(&Self) -> T) -> &T {
        let any = self.attachment.get_or_init(|| Box::new(init(self)));
        any.downcast_ref().expect("one type an entry")
    }

    pub(crate) fn validators(&self) -> Validators {
        let field = |name| self.head.headers.get(name).cloned();
        Validators {
            etag: field(ETAG),
            last_modified: field(LAST_MODIFIED),
        }
    }

    pub(crate) fn times(&self) -> &Times {
        &self.times
    }

    pub(crate) fn selectors(&self) -> &[Selector] {
        &self.vary
    }

    pub(crate) fn content_id(&self) -> u128 {
        self.content_id
    }

    /// Whether its answer came later.
    pub(crate) fn came_after(&self, other: &Self) -> bool {
        self.times.stored > other.times.stored
    }

    pub(crate) fn born(&self) -> u64 {
        self.born
    }

    pub(crate) fn persists(&self) -> bool {
        self.persists
    }

    /// Whether it has been held against every purge up to this one.
    pub(crate) fn is_checked(&self, purge: u64) -> bool {
        self.checked.load(Ordering::Acquire) == purge
    }

    pub(crate) fn check(&self, purge: u64) {
        self.checked.store(purge, Ordering::Release);
    }

    /// Stale from this moment on.
    pub(crate) fn soften(&self, since: SystemTime) {
        let ago = SystemTime::now().duration_since(since).unwrap_or_default();
        let age = self.age(Now::now()).saturating_sub(ago);
        self.stale_at.fetch_min(age.as_millis() as u64, Ordering::AcqRel);
    }

    /// Up to which age it is fresh.
    fn fresh_for(&self) -> Duration {
        self.times
            .lifetime
            .min(Duration::from_millis(self.stale_at.load(Ordering::Acquire)))
    }

    /// For how many seconds it stays fresh; below nought, for how many it has not been.
    pub fn ttl(&self, now: Now) -> i64 {
        let (age, lifetime) = (self.age(now), self.fresh_for());
        lifetime.as_secs() as i64 - age.as_secs() as i64
    }

    pub(crate) fn freshness(&self, now: Now) -> Freshness {
        let (age, lifetime) = (self.age(now), self.fresh_for());
        if let Some(ttl) = lifetime.checked_sub(age).filter(|ttl| !ttl.is_zero()) {
            Freshness::Fresh { ttl }
        } else if age < lifetime + self.times.while_revalidate {
            Freshness::StaleWhileRevalidate
        } else {
            Freshness::Stale
        }
    }

    /// Whether it may stand in for an origin that fails (RFC 5861 §4).
    pub(crate) fn serves_on_error(&self, now: Now) -> bool {
        self.age(now) < self.fresh_for() + self.times.if_error
    }

    pub(crate) fn matches(&self, request: &HeaderMap) -> bool {
        self.vary.iter().all(|selector| selector.matches(request))
    }

    /// Whether it is in the language that a request prefers to all others, and matches it but for that: what the origin
    /// would choose, too (RFC 9110 §12.5.4).
    pub(crate) fn matches_by_language(&self, request: &HeaderMap) -> bool {
        let Some(language) = self.head.headers.get(CONTENT_LANGUAGE).and_then(|v| v.to_str().ok()) else {
            return false;
        };
        let (by_language, others): (Vec<_>, Vec<_>) = self.vary.iter().partition(|s| s.name == ACCEPT_LANGUAGE);
        !by_language.is_empty()
            && others.iter().all(|selector| selector.matches(request))
            && policy::preferred_language(request).is_some_and(|preferred| preferred.eq_ignore_ascii_case(language))
    }

    pub(crate) fn same_variant(&self, other: &Self) -> bool {
        let same = |(one, other): (&Selector, &Selector)| one.name == other.name && one.value == other.value;
        self.vary.len() == other.vary.len() && self.vary.iter().zip(&other.vary).all(same)
    }

    /// What it takes of memory, in bytes, the bookkeeping in round figures.
    pub(crate) fn weight(&self) -> u64 {
        let fields: usize = self
            .head
            .headers
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len() + 64)
            .sum();
        let selectors: usize = self.vary.iter().map(Selector::weight).sum();
        let body = match &self.content {
            Content::Whole(held) => held.length(),
            Content::Sliced(_) => 0,
        };
        (body + fields + selectors + 512) as u64
    }
}
