//! A stored response as a record of the disk tier: what it is stored under, its head and its times, beside its content.
//!
//! Times are told by the wall clock, as nothing else outlives a process. What was stored by a clock that was ahead is
//! stale.

use crate::{
    disk::Record,
    entry::{Content, Entry, Selector, Times},
    fill::ResponseHead,
    held::Held,
    key::KeyRef,
    slices::{Slices, Validator},
};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// The format. A record of another one is none.
const VERSION: u8 = 2;

/// What a record is found by, which nobody can make meet another's.
pub(crate) fn hash(key: KeyRef<'_>) -> u128 {
    let mut hash = Context::new(&SHA256);
    hash.update(&key.site.to_be_bytes());
    hash.update(&key.generation.to_be_bytes());
    hash.update(&(key.path.len() as u64).to_be_bytes());
    hash.update(key.path.as_bytes());
    hash.update(key.query.as_bytes());
    let digest = hash.finish();
    u128::from_be_bytes(digest.as_ref()[..16].try_into().expect("a digest has 32 bytes"))
}

/// The two clocks at one moment. What this process stored is of the age that its monotonic clock tells, also when the
/// wall clock jumps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base {
    mono: Instant,
    wall: SystemTime,
}

impl Base {
    pub(crate) fn now() -> Self {
        Self {
            mono: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// The wall clock's time at a moment, if it had not jumped since.
    pub(crate) fn wall(&self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.mono) {
            Some(after) => self.wall + after,
            None => self.wall - self.mono.duration_since(at),
        }
    }

    /// How long ago that was; `None` if it is still to come.
    fn since(&self, wall: SystemTime, now: Instant) -> Option<Duration> {
        self.wall(now).duration_since(wall).ok()
    }
}

#[derive(Serialize, Deserialize)]
struct Meta<'a> {
    version: u8,
    site: i64,
    generation: u64,
    path: &'a str,
    query: &'a str,
    born: u64,
    kind: Kind<'a>,
}

#[derive(Serialize, Deserialize)]
enum Kind<'a> {
    Slice,
    #[serde(borrow)]
    Response(Response<'a>),
    /// What the origin has made of a response by confirming it (RFC 9111 §4.3.4). Its content is that response's.
    #[serde(borrow)]
    Confirmed(Response<'a>),
    /// There is no such response any more.
    None,
}

#[derive(Serialize, Deserialize)]
struct Response<'a> {
    status: u16,
    content_id: u128,
    #[serde(borrow)]
    fields: Vec<(&'a str, &'a [u8])>,
    /// When its age was nought, in milliseconds since 1970.
    generated: u64,
    lifetime: u64,
    while_revalidate: u64,
    if_error: u64,
    #[serde(borrow)]
    vary: Vec<(&'a str, Option<&'a [u8]>, Option<&'a str>)>,
    /// Id, length and size of slices.
    slices: Option<(u128, u64, u64)>,
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

fn encode(key: KeyRef<'_>, born: u64, kind: Kind<'_>) -> Option<Bytes> {
    let meta = Meta {
        version: VERSION,
        site: key.site,
        generation: key.generation,
        path: key.path,
        query: key.query,
        born,
        kind,
    };
    postcard::to_stdvec(&meta).ok().map(Bytes::from)
}

/// The meta data and the body of a response, or of a slice.
pub(crate) fn of_entry(key: KeyRef<'_>, entry: &Entry, base: &Base) -> Option<(Bytes, Bytes)> {
    let (kind, body) = match entry.content() {
        Content::Whole(body) if key.is_slice() => (Kind::Slice, body.bytes()),
        Content::Whole(body) => (Kind::Response(response(entry, base)), body.bytes()),
        Content::Sliced(_) => (Kind::Response(response(entry, base)), Bytes::new()),
    };
    Some((encode(key, entry.born(), kind)?, body))
}

/// The meta data of a response whose content has a record already.
pub(crate) fn of_confirmed(key: KeyRef<'_>, entry: &Entry, base: &Base) -> Option<Bytes> {
    encode(key, entry.born(), Kind::Confirmed(response(entry, base)))
}

/// The meta data that says that a response is gone.
pub(crate) fn of_none(key: KeyRef<'_>, born: u64) -> Option<Bytes> {
    encode(key, born, Kind::None)
}

fn response<'a>(entry: &'a Entry, base: &Base) -> Response<'a> {
    let times = entry.times();
    let generated = base.wall(times.stored) - times.initial_age;
    let slices = entry.slices().map(|slices| (slices.id, slices.length, slices.size));
    let selectors = entry.selectors().iter();
    Response {
        status: entry.status().as_u16(),
        content_id: entry.content_id(),
        fields: entry
            .headers()
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_bytes()))
            .collect(),
        generated: millis(generated.duration_since(UNIX_EPOCH).unwrap_or_default()),
        lifetime: millis(times.lifetime),
        while_revalidate: millis(times.while_revalidate),
        if_error: millis(times.if_error),
        vary: selectors
            .map(|s| {
                (
                    s.name.as_str(),
                    s.raw.as_ref().map(HeaderValue::as_bytes),
                    s.value.as_deref(),
                )
            })
            .collect(),
        slices,
    }
}

/// The variant of slices: a slice has no other.
pub(crate) const SLICE: u64 = 0;

/// Which of a key's responses it is: a hash of what selects it.
pub(crate) fn variant(key: KeyRef<'_>, entry: &Entry) -> u64 {
    if key.is_slice() {
        return SLICE;
    }
    let mut hash = Context::new(&SHA256);
    for selector in entry.selectors() {
        let value = selector.value.as_deref();
        for text in [Some(selector.name.as_str()), value].into_iter().flatten() {
            hash.update(&(text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
        hash.update(&[u8::from(value.is_some())]);
    }
    let digest = hash.finish();
    u64::from_be_bytes(digest.as_ref()[..8].try_into().expect("a digest has 32 bytes"))
}

/// The variant of the record that confirms a response of this one.
pub(crate) fn confirmed(variant: u64) -> u64 {
    variant.wrapping_add(1)
}

/// The bytes of a slice, and when its fetch began; `None` if the record is of something else.
pub(crate) fn slice(key: KeyRef<'_>, record: &Record) -> Option<(Held, u64)> {
    let meta = meta(key, &record.meta)?;
    matches!(meta.kind, Kind::Slice).then(|| (record.body.clone().into(), meta.born))
}

/// The responses of a key's records.
pub(crate) fn entries(key: KeyRef<'_>, records: &[Record], base: &Base) -> Vec<Entry> {
    let (mut entries, mut confirmed) = (Vec::new(), Vec::new());
    for record in records {
        // Its fields share one copy of it: the body's memory may be given back before them.
        let text = Bytes::copy_from_slice(&record.meta);
        let Some(meta) = meta(key, &text) else { continue };
        match meta.kind {
            Kind::Slice | Kind::None => {}
            Kind::Response(response) => entries.extend(restored(response, &text, record.body.clone(), meta.born, base)),
            Kind::Confirmed(response) => confirmed.extend(restored(response, &text, Bytes::new(), meta.born, base)),
        }
    }
    for confirmed in confirmed {
        let of = entries
            .iter_mut()
            .find(|entry| entry.content_id() == confirmed.content_id());
        if let Some(entry) = of {
            *entry = confirmed.with_content_of(entry);
        }
    }
    entries
}

/// A response whose fields lie in `text`.
fn restored(response: Response<'_>, text: &Bytes, body: Bytes, born: u64, base: &Base) -> Option<Entry> {
    // Some are to be added.
    let mut headers = HeaderMap::with_capacity(response.fields.len() + 5);
    for (name, value) in response.fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_maybe_shared(text.slice_ref(value)).ok()?,
        );
    }
    let vary = response.vary.into_iter().map(|(name, raw, value)| {
        Some(Selector {
            name: HeaderName::from_bytes(name.as_bytes()).ok()?,
            raw: raw.map(HeaderValue::from_bytes).transpose().ok()?,
            value: value.map(str::to_owned),
        })
    });
    let vary = vary.collect::<Option<Box<[_]>>>()?;
    let content = match response.slices {
        None => Content::Whole(body.into()),
        Some((id, length, size)) if size > 0 => Content::Sliced(Arc::new(Slices {
            id,
            length,
            size,
            validator: Validator::strong(&headers)?,
        })),
        Some(_) => return None,
    };
    let now = Instant::now();
    let lifetime = Duration::from_millis(response.lifetime);
    let generated = UNIX_EPOCH.checked_add(Duration::from_millis(response.generated))?;
    // From the future: nobody knows how old it is.
    let age = base.since(generated, now).unwrap_or(lifetime);
    let times = Times {
        stored: now,
        initial_age: age,
        lifetime,
        while_revalidate: Duration::from_millis(response.while_revalidate),
        if_error: Duration::from_millis(response.if_error),
    };
    let head = ResponseHead {
        status: StatusCode::from_u16(response.status).ok()?,
        headers,
    };
    Some(Entry::restored(head, content, times, vary, born).with_content_id(response.content_id))
}

/// What a record says, if it is of this key.
fn meta<'a>(key: KeyRef<'_>, text: &'a [u8]) -> Option<Meta<'a>> {
    let meta: Meta<'a> = postcard::from_bytes(text).ok()?;
    let stored = KeyRef {
        site: meta.site,
        generation: meta.generation,
        path: meta.path,
        query: meta.query,
    };
    (meta.version == VERSION && stored == key).then_some(meta)
}
