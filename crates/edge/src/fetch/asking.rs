//! What an origin is asked, and what it is told of the client.

use crate::{Edge, authorize::Authorized, live, lookup::Upstream};
use bytes::Bytes;
use edgeweir_cache::{
    BodyError, End, FetchError, FetchedResponse, Fetching, KeyRef, ResponseHead, SliceSource, Validator, Validators,
    policy::{self, SURROGATE_CAPABILITY, Settings as CacheSettings},
};
use edgeweir_manifest::Kind;
use edgeweir_model::{Bucket, ObjectKey, Origin, PullUrl, StreamId};
use edgeweir_origin::{
    CDN_LOOP, Error as OriginError, Interim, Origins, Request as OriginRequest, Response as OriginResponse,
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::{
        ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, COOKIE, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
        RANGE,
    },
};
use http_body_util::BodyExt;
use std::{ops::Range, sync::Arc};

/// What of a client's request an origin may know when its answer is for everybody.
pub(crate) const SHARED: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, CDN_LOOP];

/// An [`Upstream`] to keep.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Bucket(Arc<Bucket>),
    Pulled(StreamId, Arc<PullUrl>),
}

impl Source {
    pub(super) fn of(upstream: Upstream<'_>) -> Self {
        match upstream {
            Upstream::Bucket(bucket) => Self::Bucket(bucket.clone()),
            Upstream::Pulled(stream, url) => Self::Pulled(stream, url.clone()),
        }
    }

    pub(super) fn upstream(&self) -> Upstream<'_> {
        match self {
            Self::Bucket(bucket) => Upstream::Bucket(bucket),
            Self::Pulled(stream, url) => Upstream::Pulled(*stream, url),
        }
    }

    /// The request fields that its owner wants it to be told beside [`SHARED`].
    pub(super) fn told(&self) -> &[Box<str>] {
        match self {
            Self::Bucket(bucket) => told(bucket),
            Self::Pulled(..) => &[],
        }
    }

    /// What of a cache key's query the origin may see.
    pub(super) fn query(&self, query: &str) -> String {
        match self {
            Self::Bucket(_) => query.to_owned(),
            Self::Pulled(..) => live::origin_query(query),
        }
    }

    pub(super) async fn fetch(&self, origins: &Origins, request: OriginRequest) -> Result<OriginResponse, OriginError> {
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
pub(super) struct Asking {
    pub(super) origins: Origins,
    pub(super) source: Source,
    pub(super) key: ObjectKey,
    pub(super) query: String,
    /// The fields that choose a variant.
    pub(super) request: HeaderMap,
    /// Whom the origin's interim responses go to: the client that asks first.
    pub(super) interim: Option<Interim>,
}

impl Asking {
    pub(super) fn of(edge: &Edge, authorized: &Authorized) -> Self {
        let (upstream, key) = authorized.object().expect("only objects are fetched");
        let source = Source::of(upstream);
        let mut request = authorized.resolved().request.headers.clone();
        for name in [AUTHORIZATION, COOKIE] {
            if !source.told().iter().any(|told| **told == *name.as_str()) {
                // Not sent on, so that an answer does not depend on it.
                request.remove(name);
            }
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

    pub(super) fn cache_key(&self) -> KeyRef<'_> {
        self.source.upstream().cache_key(&self.key, &self.query)
    }

    /// Asks the origin, with these fields beside those that are for all.
    pub(super) fn ask(&self, fields: HeaderMap) -> Fetching {
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
        let settings = settings(&self.source, &self.key);
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

    /// Asks for the object, or a range of it, on the condition that it is not what is stored. The date is told only where
    /// there is no entity tag: an origin that goes by it in spite of one would confirm what it has replaced by an older file.
    pub(super) fn revalidate(&self, stored: Validators, range: Option<HeaderValue>) -> Fetching {
        let condition = match (stored.etag, stored.last_modified) {
            (Some(etag), _) => Some((IF_NONE_MATCH, etag)),
            (None, date) => date.map(|date| (IF_MODIFIED_SINCE, date)),
        };
        let range = range.map(|range| (RANGE, range));
        self.ask(range.into_iter().chain(condition).collect())
    }

    /// Asks for what comes before the end that there is; for the whole, if that is of another representation by now.
    pub(super) fn complete(&self, end: End) -> Fetching {
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
pub(super) fn of_range(range: &Range<u64>) -> HeaderValue {
    let text = format!("bytes={}-{}", range.start, range.end - 1);
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("ASCII")
}

/// What is sent along with a request whose answer is for everybody. A playlist is asked for as it is: a token cannot be
/// put into one that is compressed.
pub(super) fn for_all(headers: &HeaderMap, key: &ObjectKey, told: &[Box<str>]) -> HeaderMap {
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
            let told = policy::told(&name, value);
            let told = if told.len() < value.len() {
                HeaderValue::from_bytes(told).expect("it is of a value")
            } else {
                value.clone()
            };
            to.append(name.clone(), told);
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

/// What the cache does with the answers for an object. A playlist is kept in one piece, however the client takes it: tokens
/// are put into it.
pub(super) fn settings(source: &Source, key: &ObjectKey) -> CacheSettings {
    let settings = source.upstream().settings();
    let is_playlist = Kind::of_key(key.as_str()).is_some();
    let told = source.told().iter().filter_map(|name| name.parse().ok());
    let told = SHARED.into_iter().chain(told);
    CacheSettings {
        slices: settings.slices && !is_playlist,
        told: Some(told.filter(|name| !is_playlist || name != ACCEPT_ENCODING).collect()),
        ..settings
    }
}
