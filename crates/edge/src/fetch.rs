//! What the cache does not have, from the origin: the fifth phase (`LookedUp` → [`Answer`]).

mod asking;

pub(crate) use asking::{SHARED, chosen, tell, told};

use crate::{
    Edge,
    accept::Over,
    authorize::Authorized,
    lookup::{Found, LookedUp, Missing, Upstream},
    part::{self, Part},
    refusal::{Reason, Refusal},
    site::is_read,
};
use asking::{Asking, Source, for_all, of_range, settings};
use edgeweir_cache::{
    Ahead, Cache, End, Entry, FetchError, FetchStatus, Fetched, FetchedResponse, Key, Lookup, Now, SharedStream,
    SlicedBody, policy::split_list, range,
};
use edgeweir_model::{ObjectKey, Origin, PullUrl, StreamId};
use edgeweir_origin::{Origins, Request as OriginRequest, Response as OriginResponse};
use http::{
    HeaderMap, HeaderName, Method,
    header::{CACHE_CONTROL, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE},
};
use std::{ops::Range, sync::Arc, time::Duration};

/// Where an answer comes from.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The cache, which may have to ask for some of the bytes. It stays fresh for so long.
    Fresh(Arc<Entry>, Duration),
    /// The cache, stale, while it is revalidated.
    Stale(Arc<Entry>),
    /// The cache, after its origin was asked.
    Fetched(Arc<Entry>, FetchStatus, Ahead, Forward),
    /// A fill under way.
    Stream(SharedStream, Forward),
    /// The origin's answer to this request alone.
    Own(FetchedResponse, Forward),
    /// A stored part of it.
    Part(Part),
    /// The same as `Own`, asked for with the client's own range and conditions.
    Through(OriginResponse, Forward),
}

/// Why the cache cannot answer by itself (RFC 9211 §2.2).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Forward {
    /// Nothing is stored of it.
    UriMiss,
    /// Other variants are.
    VaryMiss,
    /// A part is that does not hold what is asked for.
    Partial,
    /// What is has to be revalidated.
    Stale,
    /// Its answers are not for everybody.
    Bypass,
    /// The request has a condition that is not met by what is, and that is the origin's to evaluate.
    Request,
}

impl Forward {
    /// Of what was not found.
    fn of_absent(edge: &Edge, authorized: &Authorized, now: Now) -> Self {
        let Some((upstream, key)) = authorized.object() else {
            return Self::UriMiss;
        };
        let key = upstream.cache_key(key, authorized.query());
        if edge.cache.has_variants(key) {
            Self::VaryMiss
        } else if edge
            .cache
            .part(key, &authorized.resolved().request.headers, now)
            .is_some()
        {
            Self::Partial
        } else {
            Self::UriMiss
        }
    }

    /// As `Cache-Status` says it.
    pub(crate) fn token(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Partial => "partial",
            Self::Stale => "stale",
            Self::Bypass => "bypass",
            Self::Request => "request",
        }
    }
}

/// What it may know beside that when the answer is for this client alone.
const OWN: [HeaderName; 6] = [
    RANGE,
    IF_RANGE,
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
];

impl LookedUp {
    /// The answer, and the request that it is for.
    pub(crate) async fn answer(self, edge: &Arc<Edge>) -> Result<(Authorized, Answer, Now), Refusal> {
        let Self {
            authorized,
            missing,
            now,
        } = match self.read(edge).await {
            Found::Hit(authorized, entry, ttl) => return Ok((authorized, Answer::Fresh(entry, ttl), Now::now())),
            Found::LookedUp(looked_up) => looked_up,
        };
        let answer = match missing {
            Missing::Unread(_) => unreachable!("what is on disk has been read"),
            Missing::StaleWhileRevalidate(entry) => {
                // However many ask, one revalidates.
                if let Some(right) = entry.begin_revalidation() {
                    let revalidation = shared(edge, &authorized, Wanted::Whole);
                    tokio::spawn(async move {
                        if let Ok(Fetched::Stream(stream)) = revalidation.await {
                            stream.body.ended().await;
                        }
                        drop(right);
                    });
                }
                Answer::Stale(entry)
            }
            Missing::Slices(entry, ttl) => Answer::Fresh(entry, ttl),
            Missing::Stale | Missing::Absent | Missing::Pass | Missing::Match if only_if_cached(&authorized) => {
                // An object of which there is no whole may have the part that is wanted.
                let part = match missing {
                    Missing::Absent => part::stored(edge, &authorized, now).await,
                    _ => None,
                };
                let refuse = || Refusal::at(Reason::OnlyIfCached, &authorized.resolved().site);
                Answer::Part(part.ok_or_else(refuse)?)
            }
            Missing::Pass => through(edge, &authorized, Forward::Bypass).await?,
            Missing::Match => through(edge, &authorized, Forward::Request).await?,
            Missing::Absent => {
                let forward = Forward::of_absent(edge, &authorized, now);
                match part::answer(edge, &authorized, now, forward).await? {
                    Some(answer) => answer,
                    None => absent(edge, &authorized, forward, now).await?,
                }
            }
            Missing::Stale => {
                let fetched = shared(edge, &authorized, Wanted::Whole).await;
                Answer::of(edge, &authorized, fetched, Forward::Stale).await?
            }
        };
        Ok((authorized, answer, now))
    }
}

impl LookedUp {
    /// The same once what is on disk has been read.
    async fn read(self, edge: &Edge) -> Found {
        let Missing::Unread(on_disk) = self.missing else {
            return Found::LookedUp(self);
        };
        let Self { authorized, now, .. } = self;
        let lookup = match authorized.object() {
            Some((upstream, key)) => {
                let key = upstream.cache_key(key, authorized.query());
                let request = &authorized.resolved().request.headers;
                edge.cache.read(key, request, now, on_disk).await
            }
            None => Lookup::Pass,
        };
        Self::of(authorized, lookup, now)
    }
}

/// Fetches an object of which nothing was found that answers a request.
async fn absent(edge: &Arc<Edge>, authorized: &Authorized, forward: Forward, now: Now) -> Result<Answer, Refusal> {
    let wanted = wanted(edge, authorized, forward, now);
    let mut fetched = match &wanted {
        Wanted::Slice(_) if is_in_no_slices(edge, authorized, now) => Ok(Fetched::InNoSlices),
        _ => shared(edge, authorized, wanted).await,
    };
    // Of what is in no slices no more is asked for than a client wants: a few bytes of many objects would have their origin
    // send them all.
    if matches!(fetched, Ok(Fetched::InNoSlices)) && wants_all(authorized) {
        fetched = shared(edge, authorized, Wanted::Whole).await;
    }
    Answer::of(edge, authorized, fetched, forward).await
}

/// What to ask for first of it.
fn wanted(edge: &Edge, authorized: &Authorized, forward: Forward, now: Now) -> Wanted<'static> {
    if matches!(forward, Forward::Partial)
        && let Some((upstream, key)) = authorized.object()
    {
        let key = upstream.cache_key(key, authorized.query());
        if let Some(end) = edge.cache.end(key, &authorized.resolved().request.headers, now) {
            return Wanted::Before(end);
        }
    }
    first_slice_of(edge, authorized).map_or(Wanted::Whole, Wanted::Slice)
}

fn is_in_no_slices(edge: &Edge, authorized: &Authorized, now: Now) -> bool {
    authorized.object().is_some_and(|(upstream, key)| {
        let key = upstream.cache_key(key, authorized.query());
        edge.cache.is_in_no_slices(key, now)
    })
}

/// Whether all of the object is asked for, if need be as a range of it, as players begin.
fn wants_all(authorized: &Authorized) -> bool {
    let asked = authorized.resolved().request.headers.get(RANGE);
    let asked = asked.and_then(|asked| asked.to_str().ok()).map(str::trim);
    asked.is_none_or(|asked| asked.ends_with('-') && range::first_position(asked) == Some(0))
}

/// The slice to begin with when a range is asked for of an object that is not known.
fn first_slice_of(edge: &Edge, authorized: &Authorized) -> Option<Range<u64>> {
    let request = &authorized.resolved().request;
    let asked = request.headers.get(RANGE).filter(|_| request.method == Method::GET)?;
    let (upstream, key) = authorized.object()?;
    if !settings(&Source::of(upstream), key).slices {
        return None;
    }
    edgeweir_cache::first_slice(asked.to_str().ok()?, edge.cache.slice_bytes())
}

impl Answer {
    /// The answer that a fetch comes to.
    pub(crate) async fn of(
        edge: &Arc<Edge>,
        authorized: &Authorized,
        fetched: Result<Fetched, FetchError>,
        forward: Forward,
    ) -> Result<Self, Refusal> {
        match fetched {
            Ok(Fetched::Entry(entry, status, ahead)) => Ok(Answer::Fetched(entry, status, ahead, forward)),
            Ok(Fetched::Stream(stream)) => Ok(Answer::Stream(stream, forward)),
            // The whole was asked for; a client that wants a part, or has it already, is served by a request of its own.
            Ok(Fetched::Own(_))
                if OWN
                    .iter()
                    .any(|n| authorized.resolved().request.headers.contains_key(n)) =>
            {
                through(edge, authorized, forward).await
            }
            Ok(Fetched::Own(response)) => Ok(Answer::Own(response, forward)),
            Ok(Fetched::InNoSlices | Fetched::Pass) => through(edge, authorized, forward).await,
            Err(error) => Err(Refusal::at(Reason::of_fetch(&*error), &authorized.resolved().site)),
        }
    }
}

/// What a fetch whose answer may serve everybody asks for.
#[derive(Debug, Clone)]
pub(crate) enum Wanted<'a> {
    /// The object.
    Whole,
    /// The slice that a client's range begins in. It tells of the object what there is to know.
    Slice(Range<u64>),
    /// What comes before the end that is stored of it.
    Before(End),
    /// A part with a key of its own.
    Part(&'a str),
}

/// A fetch whose answer may serve everybody.
struct Shared {
    cache: Arc<Cache>,
    asking: Asking,
    part: Option<String>,
    slice: Option<Range<u64>>,
    end: Option<End>,
}

impl Shared {
    async fn run(self) -> Result<Fetched, FetchError> {
        let Self {
            cache,
            asking,
            part,
            slice,
            end,
        } = self;
        let whole = asking.cache_key();
        let key = part.as_ref().map(|range| whole.part(range));
        let asked = slice.or_else(|| end.as_ref().map(End::whole));
        let fetch = |validators: Option<edgeweir_cache::Validators>| {
            // As it is now: what was purged since it was found is not to be put together with what comes.
            if let Some(end) = end.and_then(|_| cache.end(whole, &asking.request, Now::now())) {
                return asking.complete(end);
            }
            let range = asked.as_ref().map(of_range).or_else(|| part.as_ref()?.parse().ok());
            asking.revalidate(validators.unwrap_or_default(), range)
        };
        let key = key.as_ref().map_or(whole, Key::borrow);
        cache.fetch(key, &asking.request, asked.clone(), fetch).await
    }
}

/// The [`Shared`] fetch of what a request asks for.
pub(crate) fn shared(
    edge: &Edge,
    authorized: &Authorized,
    wanted: Wanted<'_>,
) -> impl Future<Output = Result<Fetched, FetchError>> + Send + use<> {
    let (part, slice, end) = match wanted {
        Wanted::Whole => (None, None, None),
        Wanted::Slice(range) => (None, Some(range), None),
        Wanted::Before(end) => (None, None, Some(end)),
        Wanted::Part(range) => (Some(range.to_owned()), None, None),
    };
    let shared = Shared {
        cache: edge.cache.clone(),
        asking: Asking::of(edge, authorized),
        part,
        slice,
        end,
    };
    shared.run()
}

/// The bytes of an entry that is kept in slices, asked for as they are needed.
pub(crate) fn sliced(edge: &Edge, authorized: &Authorized, entry: &Entry, ahead: Ahead) -> Option<SlicedBody> {
    let asking = Asking::of(edge, authorized);
    let (upstream, key) = authorized.object()?;
    let key = upstream.cache_key(key, authorized.query());
    let sliced = SlicedBody::new(&edge.cache, key, entry, asking, ahead)?;
    Some(sliced.bare(authorized.resolved().request.over == Over::Plain))
}

/// Fetches a file of a pulled stream into the cache before anybody asks for it.
pub(crate) async fn ahead(
    cache: Arc<Cache>,
    origins: Origins,
    stream: StreamId,
    url: Arc<PullUrl>,
    (key, query): (ObjectKey, String),
) {
    let shared = Shared {
        cache,
        asking: Asking {
            origins,
            source: Source::Pulled(stream, url),
            key,
            query,
            request: HeaderMap::new(),
            interim: None,
        },
        part: None,
        slice: None,
        end: None,
    };
    // Whoever asks for it joins in, or gets the error of a fetch of its own.
    if let Ok(Fetched::Stream(file)) = shared.run().await {
        file.body.ended().await;
    }
}

/// A fetch for this client alone, with its own range and conditions.
pub(crate) async fn through(edge: &Arc<Edge>, authorized: &Authorized, forward: Forward) -> Result<Answer, Refusal> {
    let refuse = |reason| Refusal::at(reason, &authorized.resolved().site);
    let (upstream, key) = authorized.object().ok_or_else(|| refuse(Reason::NotFound))?;
    let request = &authorized.resolved().request;
    let source = Source::of(upstream);
    let mut headers = for_all(&request.headers, key, source.told());
    let method = match upstream {
        // Ranges and conditions of files are served here.
        Upstream::Bucket(bucket) if bucket.origin == Origin::Local => Method::GET,
        Upstream::Bucket(_) | Upstream::Pulled(..) => {
            headers.extend(chosen(&request.headers, &OWN));
            request.method.clone()
        }
    };
    debug_assert!(is_read(&method), "other methods are passed on");
    let query = source.query(upstream.cache_key(key, authorized.query()).query);
    let request = OriginRequest {
        method,
        key: key.clone(),
        query,
        headers,
        body: None,
        interim: request.interim.clone(),
    };
    let response = source.fetch(&edge.origins, request).await;
    let response = response.map_err(|e| refuse(Reason::of_origin(&e)))?;
    Ok(Answer::Through(response, forward))
}

/// Whether clients are shown what names for caches what is behind an object: they are caches themselves then.
pub(crate) fn shows_surrogate_keys(authorized: &Authorized) -> bool {
    match authorized.object() {
        Some((Upstream::Bucket(bucket), _)) => match &bucket.origin {
            Origin::Http(http) => http.show_surrogate_keys,
            Origin::Local | Origin::S3(_) => false,
        },
        Some((Upstream::Pulled(..), _)) | None => false,
    }
}

/// Whether a client wants nothing but what is stored (RFC 9111 §5.2.1.7).
pub(crate) fn only_if_cached(authorized: &Authorized) -> bool {
    let values = authorized.resolved().request.headers.get_all(CACHE_CONTROL);
    let mut directives = values.iter().flat_map(|value| split_list(value.as_bytes()));
    directives.any(|directive| directive.eq_ignore_ascii_case(b"only-if-cached"))
}
