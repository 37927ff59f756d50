//! What the cache does not have, from the origin: the fifth phase (`LookedUp` → [`Answer`]).

use crate::{
    Edge,
    authorize::Authorized,
    lookup::{LookedUp, Missing, cache_key},
    refusal::{Reason, Refusal},
    site::is_read,
};
use edgeweir_cache::{
    BodyError, Entry, FetchError, FetchStatus, Fetched, FetchedResponse, Now, ResponseHead, SharedStream,
};
use edgeweir_model::Origin;
use edgeweir_origin::{Error as OriginError, Request as OriginRequest, Response as OriginResponse};
use http::{
    HeaderMap, HeaderName, Method,
    header::{
        ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH,
        IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE,
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
    /// The same, asked for with the client's own range and conditions.
    Through(OriginResponse),
}

/// What of a client's request an origin may know when its answer is for everybody.
const SHARED: [HeaderName; 3] = [ACCEPT, ACCEPT_ENCODING, ACCEPT_LANGUAGE];

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
                    let revalidation = shared(edge.clone(), &authorized, Some(entry.clone()));
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
            Missing::Absent => fetch(edge, &authorized, None).await?,
            Missing::Stale(entry) => fetch(edge, &authorized, Some(entry)).await?,
        };
        Ok((authorized, answer, now))
    }
}

/// A method that changes something: passed on with its body, and what was stored of the object is forgotten when it
/// succeeds (RFC 9111 §4.4).
pub(crate) async fn pass_on(
    edge: &Arc<Edge>,
    authorized: Authorized,
) -> Result<(OriginResponse, Arc<crate::site::Site>), Refusal> {
    let query = authorized.query().to_owned();
    let Some((bucket, key)) = authorized.object().map(|(b, k)| (b.clone(), k.clone())) else {
        return Err(Refusal::at(Reason::NotFound, &authorized.resolved().site));
    };
    let resolved = authorized.into_resolved();
    let mut headers = chosen(&resolved.request.headers, &SHARED);
    for name in [CONTENT_TYPE, CONTENT_LENGTH, IF_MATCH, IF_UNMODIFIED_SINCE] {
        if let Some(value) = resolved.request.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let body = resolved.request.body.map_err(Into::into).boxed_unsync();
    let request = OriginRequest {
        method: resolved.request.method,
        key: key.clone(),
        query,
        headers,
        body: Some(body),
    };
    let response = edge
        .origins
        .fetch(&bucket, request)
        .await
        .map_err(|e| Refusal::at(reason(&e), &resolved.site))?;
    if response.status.is_success() || response.status.is_redirection() {
        edge.cache.purge(bucket.id.0, bucket.generation, key.as_str());
    }
    Ok((response, resolved.site))
}

async fn fetch(edge: &Arc<Edge>, authorized: &Authorized, stale: Option<Arc<Entry>>) -> Result<Answer, Refusal> {
    match shared(edge.clone(), authorized, stale).await {
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
            let reason = error.downcast_ref::<OriginError>().map_or(Reason::OriginBroken, reason);
            Err(Refusal::at(reason, &authorized.resolved().site))
        }
    }
}

/// A fetch whose answer may serve everybody: always a GET of the whole object, without anything of this client's.
fn shared(
    edge: Arc<Edge>,
    authorized: &Authorized,
    stale: Option<Arc<Entry>>,
) -> impl Future<Output = Result<Fetched, FetchError>> + Send + 'static {
    let (bucket, key) = authorized
        .object()
        .map(|(b, k)| (b.clone(), k.clone()))
        .expect("only objects are fetched");
    let query = authorized.query().to_owned();
    let mut request = authorized.resolved().request.headers.clone();
    // Never sent on, so that an answer does not depend on it.
    request.remove(AUTHORIZATION);
    async move {
        let cache_key = cache_key(&bucket, &key, &query);
        let origin_request = |validators: Option<edgeweir_cache::Validators>| {
            let mut headers = chosen(&request, &SHARED);
            let validators = validators.unwrap_or_default();
            for (name, value) in [
                (IF_NONE_MATCH, validators.etag),
                (IF_MODIFIED_SINCE, validators.last_modified),
            ] {
                if let Some(value) = value.and_then(|v| v.parse().ok()) {
                    headers.insert(name, value);
                }
            }
            let query = cache_key.query.to_owned();
            let request = OriginRequest {
                method: Method::GET,
                key: key.clone(),
                query,
                headers,
                body: None,
            };
            let (edge, bucket) = (edge.clone(), bucket.clone());
            async move {
                let response = edge
                    .origins
                    .fetch(&bucket, request)
                    .await
                    .map_err(|e| Arc::new(e) as FetchError)?;
                let head = ResponseHead {
                    status: response.status,
                    headers: response.headers,
                };
                let body = response.body.map_err(|e| BodyError::Broken(e.to_string().into()));
                Ok(FetchedResponse {
                    head,
                    body: Box::pin(body),
                    length: response.length,
                })
            }
        };
        edge.cache.fetch(cache_key, &request, stale, origin_request).await
    }
}

/// A fetch for this client alone, with its own range and conditions.
async fn through(edge: &Arc<Edge>, authorized: &Authorized) -> Result<Answer, Refusal> {
    let refuse = |reason| Refusal::at(reason, &authorized.resolved().site);
    let (bucket, key) = authorized.object().ok_or_else(|| refuse(Reason::NotFound))?;
    let request = &authorized.resolved().request;
    let mut headers = chosen(&request.headers, &SHARED);
    let method = match bucket.origin {
        // Ranges and conditions of files are served here.
        Origin::Local => Method::GET,
        Origin::Http(_) => {
            headers.extend(chosen(&request.headers, &OWN));
            request.method.clone()
        }
    };
    debug_assert!(is_read(&method), "other methods are passed on");
    let query = cache_key(bucket, key, authorized.query()).query.to_owned();
    let request = OriginRequest {
        method,
        key: key.clone(),
        query,
        headers,
        body: None,
    };
    let response = edge
        .origins
        .fetch(bucket, request)
        .await
        .map_err(|e| refuse(reason(&e)))?;
    Ok(Answer::Through(response))
}

fn chosen(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
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

fn reason(error: &OriginError) -> Reason {
    match error {
        OriginError::Refused => Reason::OriginRefused,
        OriginError::Timeout => Reason::OriginTimeout,
        OriginError::Connect | OriginError::Broken => Reason::OriginBroken,
        OriginError::Io => Reason::Internal,
    }
}
