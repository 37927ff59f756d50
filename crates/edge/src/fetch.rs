//! What the cache does not have, from the origin: the fifth phase (`LookedUp` → [`Answer`]).

use crate::{
    Edge,
    accept::Over,
    authorize::Authorized,
    live,
    lookup::{Found, LookedUp, Missing, Upstream},
    part::{self, Part},
    refusal::{Reason, Refusal},
    site::is_read,
};
use bytes::Bytes;
use edgeweir_cache::{
    Ahead, BodyError, Cache, End, Entry, FetchError, FetchStatus, Fetched, FetchedResponse, Fetching, Key, KeyRef,
    Lookup, Now, ResponseHead, SharedStream, SliceSource, SlicedBody, Validator,
    policy::{SURROGATE_CAPABILITY, Settings as CacheSettings},
};
use edgeweir_manifest::Kind;
use edgeweir_model::{Bucket, ObjectKey, Origin, PullUrl, StreamId};
use edgeweir_origin::{
    CDN_LOOP, Error as OriginError, Interim, Origins, Request as OriginRequest, Response as OriginResponse,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, IF_MATCH, IF_MODIFIED_SINCE,
        IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
    },
};
use http_body_util::BodyExt;
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
        }
    }
}

/// What of a client's request an origin may know when its answer is for everybody.
pub(crate) const SHARED: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CDN_LOOP];

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
                    let revalidation = shared(edge, &authorized, Some(entry.clone()), Wanted::Whole);
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
            Missing::Pass => through(edge, &authorized, Forward::Bypass).await?,
            Missing::Stale(_) | Missing::Absent if only_if_cached(&authorized) => {
                return Err(Refusal::at(Reason::OnlyIfCached, &authorized.resolved().site));
            }
            Missing::Absent => {
                let forward = Forward::of_absent(edge, &authorized, now);
                match part::answer(edge, &authorized, now, forward).await? {
                    Some(answer) => answer,
                    None => {
                        let wanted = wanted(edge, &authorized, forward, now);
                        let fetched = shared(edge, &authorized, None, wanted).await;
                        Answer::of(edge, &authorized, fetched, forward).await?
                    }
                }
            }
            Missing::Stale(entry) => {
                let fetched = shared(edge, &authorized, Some(entry), Wanted::Whole).await;
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

/// What to ask for of an object of which nothing was found that answers a request.
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

/// The slice to begin with when a range is asked for of an object that is not known.
fn first_slice_of(edge: &Edge, authorized: &Authorized) -> Option<Range<u64>> {
    let request = &authorized.resolved().request;
    let asked = request.headers.get(RANGE).filter(|_| request.method == Method::GET)?;
    let (upstream, key) = authorized.object()?;
    if !settings(upstream, key).slices {
        return None;
    }
    edgeweir_cache::first_slice(asked.to_str().ok()?, edge.cache.slice_bytes())
}

/// What the cache does with the answers for an object. A playlist is kept in one piece: tokens are put into it.
fn settings(upstream: Upstream<'_>, key: &ObjectKey) -> CacheSettings {
    let settings = upstream.settings();
    CacheSettings {
        slices: settings.slices && Kind::of_key(key.as_str()).is_none(),
        ..settings
    }
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
            Ok(Fetched::Pass) => through(edge, authorized, forward).await,
            Err(error) => Err(Refusal::at(Reason::of_fetch(&*error), &authorized.resolved().site)),
        }
    }
}

/// An [`Upstream`] to keep.
#[derive(Debug, Clone)]
enum Source {
    Bucket(Arc<Bucket>),
    Pulled(StreamId, Arc<PullUrl>),
}

impl Source {
    fn of(upstream: Upstream<'_>) -> Self {
        match upstream {
            Upstream::Bucket(bucket) => Self::Bucket(bucket.clone()),
            Upstream::Pulled(stream, url) => Self::Pulled(stream, url.clone()),
        }
    }

    fn upstream(&self) -> Upstream<'_> {
        match self {
            Self::Bucket(bucket) => Upstream::Bucket(bucket),
            Self::Pulled(stream, url) => Upstream::Pulled(*stream, url),
        }
    }

    /// The request fields that its owner wants it to be told beside [`SHARED`].
    fn told(&self) -> &[Box<str>] {
        match self {
            Self::Bucket(bucket) => told(bucket),
            Self::Pulled(..) => &[],
        }
    }

    /// What of a cache key's query the origin may see.
    fn query(&self, query: &str) -> String {
        match self {
            Self::Bucket(_) => query.to_owned(),
            Self::Pulled(..) => live::origin_query(query),
        }
    }

    async fn fetch(&self, origins: &Origins, request: OriginRequest) -> Result<OriginResponse, OriginError> {
        match self {
            Self::Bucket(bucket) => origins.fetch(bucket, request).await,
            Self::Pulled(_, url) => {
                let key = request.key.clone();
                let mut response = origins.fetch_from(&url.folder, request).await?;
                live::keep_longer(&key, response.status, &mut response.headers);
                Ok(response)
            }
        }
    }
}

/// What is asked for of an object, in requests whose answers may serve everybody: GETs without anything of this client's.
#[derive(Debug, Clone)]
struct Asking {
    origins: Origins,
    source: Source,
    key: ObjectKey,
    query: String,
    /// The fields that choose a variant.
    request: HeaderMap,
    /// Whom the origin's interim responses go to: the client that asks first.
    interim: Option<Interim>,
}

impl Asking {
    fn of(edge: &Edge, authorized: &Authorized) -> Self {
        let (upstream, key) = authorized.object().expect("only objects are fetched");
        let source = Source::of(upstream);
        let mut request = authorized.resolved().request.headers.clone();
        if !source.told().iter().any(|name| **name == *AUTHORIZATION.as_str()) {
            // Not sent on, so that an answer does not depend on it.
            request.remove(AUTHORIZATION);
        }
        Self {
            origins: edge.origins.clone(),
            source,
            key: key.clone(),
            query: authorized.query().to_owned(),
            request,
            interim: authorized.resolved().request.interim.clone(),
        }
    }

    fn cache_key(&self) -> KeyRef<'_> {
        self.source.upstream().cache_key(&self.key, &self.query)
    }

    /// Asks the origin, with these fields beside those that are for all.
    fn ask(&self, fields: HeaderMap) -> Fetching {
        let mut headers = for_all(&self.request, &self.key, self.source.told());
        headers.extend(fields);
        let request = OriginRequest {
            method: Method::GET,
            key: self.key.clone(),
            query: self.source.query(self.cache_key().query),
            headers,
            body: None,
            interim: self.interim.clone(),
        };
        let settings = settings(self.source.upstream(), &self.key);
        let (origins, source) = (self.origins.clone(), self.source.clone());
        Box::pin(async move {
            let response = source.fetch(&origins, request).await;
            let response = response.map_err(|e| Arc::new(e) as FetchError)?;
            let head = ResponseHead {
                status: response.status,
                headers: response.headers,
            };
            let body = response.body.map_err(|e| BodyError::Broken(e.to_string().into()));
            Ok(FetchedResponse {
                head,
                body: Box::pin(body),
                length: response.length,
                settings,
            })
        })
    }

    /// Asks for what comes before the end that there is; for the whole, if that is of another representation by now.
    fn complete(&self, end: End) -> Fetching {
        let fields = [(RANGE, of_range(&end.missing())), (IF_RANGE, end.validator().clone())];
        let (asking, begin) = (self.clone(), self.ask(fields.into_iter().collect()));
        Box::pin(async move {
            match end.join(begin.await?) {
                Err(other) if matches!(other.head.status.as_u16(), 206 | 412 | 416) => {
                    asking.ask(HeaderMap::new()).await
                }
                Err(other) => Ok(*other),
                Ok(whole) => Ok(whole),
            }
        })
    }
}

impl SliceSource for Asking {
    fn fetch(&self, range: Range<u64>, validator: &Validator) -> Fetching {
        let condition = validator.condition();
        self.ask([(RANGE, of_range(&range)), condition].into_iter().collect())
    }
}

/// The `Range` field that asks for these bytes.
fn of_range(range: &Range<u64>) -> HeaderValue {
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("ASCII")
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
    async fn run(self, stale: Option<Arc<Entry>>) -> Result<Fetched, FetchError> {
        let Self {
            cache,
            asking,
            part,
            slice,
            end,
        } = self;
        let whole = asking.cache_key();
        let key = part.as_ref().map(|range| whole.part(range));
        let asked = slice.clone().or_else(|| end.as_ref().map(End::whole));
        let fetch = |validators: Option<edgeweir_cache::Validators>| {
            if let Some(end) = end {
                return asking.complete(end);
            }
            let validators = validators.unwrap_or_default();
            let parse = |text: Option<String>| text.and_then(|text| text.parse().ok());
            let range = slice.as_ref().map(of_range).or_else(|| parse(part.clone()));
            let fields = [
                (RANGE, range),
                (IF_NONE_MATCH, parse(validators.etag)),
                (IF_MODIFIED_SINCE, parse(validators.last_modified)),
            ];
            asking.ask(fields.into_iter().filter_map(|(n, v)| Some((n, v?))).collect())
        };
        let key = key.as_ref().map_or(whole, Key::borrow);
        cache.fetch_from(key, &asking.request, stale, asked, fetch).await
    }
}

/// The [`Shared`] fetch of what a request asks for.
pub(crate) fn shared(
    edge: &Edge,
    authorized: &Authorized,
    stale: Option<Arc<Entry>>,
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
    shared.run(stale)
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
    if let Ok(Fetched::Stream(file)) = shared.run(None).await {
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

/// What is sent along with a request whose answer is for everybody. A playlist is asked for as it is: a token cannot be
/// put into one that is compressed.
fn for_all(headers: &HeaderMap, key: &ObjectKey, told: &[Box<str>]) -> HeaderMap {
    let mut chosen = chosen(headers, &SHARED);
    tell(headers, told, &mut chosen);
    let (name, capability) = SURROGATE_CAPABILITY;
    chosen.insert(name, capability);
    if Kind::of_key(key.as_str()).is_some() {
        chosen.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    chosen
}

/// The request fields that a bucket's owner wants its origin to be told beside [`SHARED`].
pub(crate) fn told(bucket: &Bucket) -> &[Box<str>] {
    if let Origin::Http(http) = &bucket.origin {
        &http.request_headers
    } else {
        &[]
    }
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

/// Adds the fields of these names that are not there yet.
pub(crate) fn tell(headers: &HeaderMap, names: &[Box<str>], to: &mut HeaderMap) {
    for name in names.iter().filter_map(|name| name.parse::<HeaderName>().ok()) {
        if to.contains_key(&name) {
            continue;
        }
        for value in headers.get_all(&name) {
            to.append(name.clone(), value.clone());
        }
    }
}

pub(crate) fn chosen(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let mut chosen = HeaderMap::new();
    for name in names {
        for value in headers.get_all(name) {
            chosen.append(name.clone(), value.clone());
        }
    }
    chosen
}

fn only_if_cached(authorized: &Authorized) -> bool {
    let values = authorized.resolved().request.headers.get_all(CACHE_CONTROL);
    values.iter().any(|v| {
        v.as_bytes()
            .to_ascii_lowercase()
            .windows(14)
            .any(|w| w == b"only-if-cached")
    })
}
