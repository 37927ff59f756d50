//! What the cache does not have, from the origin: the fifth phase (`LookedUp` → [`Answer`]).

use crate::{
    Edge,
    authorize::Authorized,
    live,
    lookup::{LookedUp, Missing, Upstream},
    part::{self, Part},
    refusal::{Reason, Refusal},
    site::is_read,
};
use edgeweir_cache::{
    BodyError, Cache, Entry, FetchError, FetchStatus, Fetched, FetchedResponse, Now, ResponseHead, SharedStream,
    policy::SURROGATE_CAPABILITY,
};
use edgeweir_manifest::Kind;
use edgeweir_model::{Bucket, ObjectKey, Origin, PullUrl, StreamId};
use edgeweir_origin::{CDN_LOOP, Error as OriginError, Origins, Request as OriginRequest, Response as OriginResponse};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, IF_MATCH, IF_MODIFIED_SINCE,
        IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
    },
};
use http_body_util::BodyExt;
use std::sync::Arc;

/// Where an answer comes from.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The cache, stale, while it is revalidated.
    Stale(Arc<Entry>),
    /// The cache, after its origin was asked.
    Fetched(Arc<Entry>, FetchStatus),
    /// A fill under way.
    Stream(SharedStream),
    /// The origin's answer to this request alone.
    Own(FetchedResponse),
    /// A stored part of it.
    Part(Part),
    /// The same as `Own`, asked for with the client's own range and conditions.
    Through(OriginResponse),
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
        } = self;
        let answer = match missing {
            Missing::StaleWhileRevalidate(entry) => {
                // However many ask, one revalidates.
                if let Some(right) = entry.begin_revalidation() {
                    let revalidation = shared(edge, &authorized, Some(entry.clone()), None);
                    tokio::spawn(async move {
                        if let Ok(Fetched::Stream(stream)) = revalidation.await {
                            stream.body.ended().await;
                        }
                        drop(right);
                    });
                }
                Answer::Stale(entry)
            }
            Missing::Pass => through(edge, &authorized).await?,
            Missing::Stale(_) | Missing::Absent if only_if_cached(&authorized) => {
                return Err(Refusal::at(Reason::OnlyIfCached, &authorized.resolved().site));
            }
            Missing::Absent => match part::answer(edge, &authorized, now).await? {
                Some(answer) => answer,
                None => fetch(edge, &authorized, None).await?,
            },
            Missing::Stale(entry) => fetch(edge, &authorized, Some(entry)).await?,
        };
        Ok((authorized, answer, now))
    }
}

async fn fetch(edge: &Arc<Edge>, authorized: &Authorized, stale: Option<Arc<Entry>>) -> Result<Answer, Refusal> {
    let fetched = shared(edge, authorized, stale, None).await;
    Answer::of(edge, authorized, fetched).await
}

impl Answer {
    /// The answer that a fetch comes to.
    pub(crate) async fn of(
        edge: &Arc<Edge>,
        authorized: &Authorized,
        fetched: Result<Fetched, FetchError>,
    ) -> Result<Self, Refusal> {
        match fetched {
            Ok(Fetched::Entry(entry, status)) => Ok(Answer::Fetched(entry, status)),
            Ok(Fetched::Stream(stream)) => Ok(Answer::Stream(stream)),
            // The whole was asked for; a client that wants a part, or has it already, is served by a request of its own.
            Ok(Fetched::Own(_))
                if OWN
                    .iter()
                    .any(|n| authorized.resolved().request.headers.contains_key(n)) =>
            {
                through(edge, authorized).await
            }
            Ok(Fetched::Own(response)) => Ok(Answer::Own(response)),
            Ok(Fetched::Pass) => through(edge, authorized).await,
            Err(error) => {
                let reason = error.downcast_ref::<OriginError>();
                let reason = reason.map_or(Reason::OriginBroken, Reason::of_origin);
                Err(Refusal::at(reason, &authorized.resolved().site))
            }
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

/// A fetch whose answer may serve everybody: a GET of the whole object, or of a part with a key of its own, without
/// anything of this client's.
struct Shared {
    cache: Arc<Cache>,
    origins: Origins,
    source: Source,
    key: ObjectKey,
    query: String,
    part: Option<String>,
    /// The fields that choose a variant.
    request: HeaderMap,
}

impl Shared {
    async fn run(self, stale: Option<Arc<Entry>>) -> Result<Fetched, FetchError> {
        let Self {
            cache,
            origins,
            source,
            key,
            query,
            part,
            request,
        } = self;
        let whole = source.upstream().cache_key(&key, &query);
        let part = part.map(|range| (whole.part(&range), range));
        let cache_key = part.as_ref().map_or(whole, |(key, _)| key.borrow());
        let origin_request = |validators: Option<edgeweir_cache::Validators>| {
            let mut headers = for_all(&request, &key, source.told());
            let validators = validators.unwrap_or_default();
            let range = part.as_ref().map(|(_, range)| range.clone());
            for (name, value) in [
                (RANGE, range),
                (IF_NONE_MATCH, validators.etag),
                (IF_MODIFIED_SINCE, validators.last_modified),
            ] {
                if let Some(value) = value.and_then(|v| v.parse().ok()) {
                    headers.insert(name, value);
                }
            }
            let query = source.query(whole.query);
            let request = OriginRequest {
                method: Method::GET,
                key: key.clone(),
                query,
                headers,
                body: None,
            };
            let (origins, source) = (origins.clone(), source.clone());
            async move {
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
                    settings: source.upstream().settings(),
                })
            }
        };
        cache.fetch(cache_key, &request, stale, origin_request).await
    }
}

/// The [`Shared`] fetch of what a request asks for.
pub(crate) fn shared(
    edge: &Edge,
    authorized: &Authorized,
    stale: Option<Arc<Entry>>,
    part: Option<&str>,
) -> impl Future<Output = Result<Fetched, FetchError>> + Send + use<> {
    let (upstream, key) = authorized.object().expect("only objects are fetched");
    let source = Source::of(upstream);
    let mut request = authorized.resolved().request.headers.clone();
    if !source.told().iter().any(|name| **name == *AUTHORIZATION.as_str()) {
        // Not sent on, so that an answer does not depend on it.
        request.remove(AUTHORIZATION);
    }
    let shared = Shared {
        cache: edge.cache.clone(),
        origins: edge.origins.clone(),
        source,
        key: key.clone(),
        query: authorized.query().to_owned(),
        part: part.map(str::to_owned),
        request,
    };
    shared.run(stale)
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
        origins,
        source: Source::Pulled(stream, url),
        key,
        query,
        part: None,
        request: HeaderMap::new(),
    };
    // Whoever asks for it joins in, or gets the error of a fetch of its own.
    if let Ok(Fetched::Stream(file)) = shared.run(None).await {
        file.body.ended().await;
    }
}

/// A fetch for this client alone, with its own range and conditions.
pub(crate) async fn through(edge: &Arc<Edge>, authorized: &Authorized) -> Result<Answer, Refusal> {
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
    };
    let response = source.fetch(&edge.origins, request).await;
    let response = response.map_err(|e| refuse(Reason::of_origin(&e)))?;
    Ok(Answer::Through(response))
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
