//! A stored response, immutable.

use crate::{
    fill::ResponseHead,
    policy::{self, Directives, Settings},
    slices::Slices,
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_LANGUAGE, AGE, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LAST_MODIFIED,
        SET_COOKIE,
    },
};
use std::{
    any::Any,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

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
    pub etag: Option<String>,
    /// `Last-Modified`, as the origin wrote it.
    pub last_modified: Option<String>,
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
    Whole(Bytes),
    /// It is kept in slices, as far as it is kept.
    Sliced(Arc<Slices>),
}

impl Content {
    /// In bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Sliced(slices) => slices.length(),
        }
    }
}

/// A stored response: status, header fields and content.
pub struct Entry {
    head: ResponseHead,
    content: Content,
    etag: Option<String>,
    last_modified: Option<SystemTime>,
    stored: Instant,
    initial_age: Duration,
    lifetime: Duration,
    while_revalidate: Duration,
    if_error: Duration,
    vary: Box<[Selector]>,
    attachment: OnceLock<Box<dyn Any + Send + Sync>>,
    revalidating: AtomicBool,
}

/// A request field that selects this response, and the value that it was selected by.
#[derive(Debug)]
struct Selector {
    name: HeaderName,
    /// As the request had it; `None` when it had none, or several lines.
    raw: Option<HeaderValue>,
    value: Option<String>,
}

impl Selector {
    fn of(name: HeaderName, request: &HeaderMap) -> Self {
        Self {
            raw: only(request, &name).cloned(),
            value: policy::vary_value(request, &name),
            name,
        }
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
    /// The stored form of an answer to `request`, from when it came, and how long after it was asked for. `None` for
    /// `Vary: *`.
    pub(crate) fn new(
        head: ResponseHead,
        content: Content,
        request: &HeaderMap,
        (now, delay): (Now, Duration),
        settings: &Settings,
    ) -> Option<Self> {
        let directives = Directives::of(&head.headers).unwrap_or_default();
        let lifetime = policy::freshness_lifetime(head.status, &head.headers, now.wall, settings);
        let initial_age = policy::initial_age(&head.headers, now.wall, delay);
        let vary = policy::vary_names(&head.headers)?;
        let vary = vary.into_iter().map(|name| Selector::of(name, request)).collect();
        let window = |seconds| {
            if directives.forbids_stale() {
                Duration::ZERO
            } else {
                Duration::from_secs(seconds)
            }
        };
        let text = |name| head.headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok());
        Some(Self {
            etag: text(ETAG).map(str::to_owned),
            last_modified: text(LAST_MODIFIED).and_then(|v| httpdate::parse_http_date(v).ok()),
            stored: now.mono,
            initial_age,
            lifetime,
            while_revalidate: window(directives.stale_while_revalidate),
            if_error: window(directives.stale_if_error),
            vary,
            attachment: OnceLock::new(),
            revalidating: AtomicBool::new(false),
            head,
            content,
        })
    }

    /// The stored form of a slice of an object. Whether it is fresh, its object's entry tells.
    pub(crate) fn of_slice(bytes: Bytes) -> Self {
        let head = ResponseHead {
            status: StatusCode::PARTIAL_CONTENT,
            headers: HeaderMap::new(),
        };
        Self {
            head,
            content: Content::Whole(bytes),
            etag: None,
            last_modified: None,
            stored: Instant::now(),
            initial_age: Duration::ZERO,
            lifetime: Duration::ZERO,
            while_revalidate: Duration::ZERO,
            if_error: Duration::ZERO,
            vary: Box::default(),
            attachment: OnceLock::new(),
            revalidating: AtomicBool::new(false),
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
        if !not_modified.contains_key(AGE) {
            head.headers.remove(AGE);
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

    /// The entity tag.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// When it was last modified.
    pub fn last_modified(&self) -> Option<SystemTime> {
        self.last_modified
    }

    /// For how long from its generation it is fresh.
    pub fn freshness_lifetime(&self) -> Duration {
        self.lifetime
    }

    /// How long ago the origin generated or validated it (RFC 9111 §4.2.3).
    pub fn age(&self, now: Now) -> Duration {
        self.initial_age + now.mono.saturating_duration_since(self.stored)
    }

    /// Something made of this entry once, and kept with it. One type an entry.
    pub fn attach_with<T: Any + Send + Sync>(&self, init: impl FnOnce(&Self) -> T) -> &T {
        let any = self.attachment.get_or_init(|| Box::new(init(self)));
        any.downcast_ref().expect("one type an entry")
    }

    pub(crate) fn validators(&self) -> Validators {
        let text = |name| {
            self.head
                .headers
                .get(name)
                .and_then(|v: &http::HeaderValue| v.to_str().ok())
                .map(str::to_owned)
        };
        Validators {
            etag: text(ETAG),
            last_modified: text(LAST_MODIFIED),
        }
    }

    pub(crate) fn freshness(&self, now: Now) -> Freshness {
        let age = self.age(now);
        if let Some(ttl) = self.lifetime.checked_sub(age).filter(|ttl| !ttl.is_zero()) {
            Freshness::Fresh { ttl }
        } else if age < self.lifetime + self.while_revalidate {
            Freshness::StaleWhileRevalidate
        } else {
            Freshness::Stale
        }
    }

    /// Whether it may stand in for an origin that fails (RFC 5861 §4).
    pub(crate) fn serves_on_error(&self, now: Now) -> bool {
        self.age(now) < self.lifetime + self.if_error
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
        let selectors = |entry: &Self| {
            entry
                .vary
                .iter()
                .map(|s| (s.name.clone(), s.value.clone()))
                .collect::<Vec<_>>()
        };
        selectors(self) == selectors(other)
    }

    /// What it takes of memory, in bytes, the bookkeeping in round figures.
    pub(crate) fn weight(&self) -> u64 {
        let fields: usize = self
            .head
            .headers
            .iter()
            .map(|(n, v)| n.as_str().len() + v.len() + 64)
            .sum();
        let body = match &self.content {
            Content::Whole(bytes) => bytes.len(),
            Content::Sliced(_) => 0,
        };
        (body + fields + 512) as u64
    }
}
