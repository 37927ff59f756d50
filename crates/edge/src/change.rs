//! Requests that may change something: passed on to the origin with their body. What they changed is forgotten
//! (RFC 9111 §4.4).

use crate::{
    Edge,
    authorize::Authorized,
    connection::Uploading,
    fetch::{SHARED, chosen, tell, told},
    invalidate, limits,
    lookup::Upstream,
    pace::Paced,
    refusal::{Reason, Refusal},
    site::{Resolved, Site, Target},
};
use edgeweir_cache::{Mark, ResponseHead};
use edgeweir_model::{Bucket, ObjectKey, Origin};
use edgeweir_origin::{Body as OriginBody, Error as OriginError, Request as OriginRequest, Response as OriginResponse};
use http::{
    HeaderName, Method, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE,
    },
};
use http_body_util::BodyExt;
use std::sync::Arc;

/// What it may know beside [`SHARED`] of a request that changes something: its conditions, and what its content is.
const CHANGING: [HeaderName; 13] = [
    IF_MATCH,
    IF_NONE_MATCH,
    IF_MODIFIED_SINCE,
    IF_UNMODIFIED_SINCE,
    CACHE_CONTROL,
    CONTENT_DISPOSITION,
    CONTENT_ENCODING,
    CONTENT_LANGUAGE,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
];

/// A method that changes something: passed on with its body, and what was stored of the object is forgotten unless the
/// origin refused it (RFC 9111 §4.4). In a task of its own: the origin may have taken what a client that went away sent.
pub(crate) async fn pass_on(
    edge: &Arc<Edge>,
    authorized: Authorized,
    uploading: Uploading,
) -> Result<(OriginResponse, Arc<Site>), Refusal> {
    let query = authorized.query().to_owned();
    let Target::Object(bucket, key) = &authorized.resolved().target else {
        return Err(Refusal::at(Reason::NotFound, &authorized.resolved().site));
    };
    let (bucket, key) = (bucket.clone(), key.clone());
    let Resolved { request, site, .. } = authorized.into_resolved();
    let mut headers = chosen(&request.headers, &SHARED);
    headers.extend(chosen(&request.headers, &CHANGING));
    tell(&request.headers, told(&bucket), &mut headers);
    let host = request.host.clone();
    let (body, fate) = Paced::new(request.body, edge.settings.idle, uploading);
    let request = OriginRequest {
        method: request.method,
        key: key.clone(),
        query,
        headers,
        body: Some(body.boxed_unsync()),
        interim: request.interim,
    };
    let edge = edge.clone();
    let mark = edge
        .cache
        .mark(Upstream::Bucket(&bucket).cache_key(&key, &request.query));
    let passing = tokio::spawn(async move {
        let answer = change(&edge, &bucket, &host, request, mark).await;
        // What the client is told has happened does not come undone by a restart.
        edge.cache.persist().await;
        answer
    });
    match passing.await {
        Ok(Ok(response)) => Ok((response, site)),
        Ok(Err(e)) => Err(match fate.fault() {
            Some(fault) => Refusal {
                close: true,
                ..Refusal::at(Reason::BadRequest(fault), &site)
            },
            None => Refusal::at(Reason::of_origin(&e), &site),
        }),
        Err(_) => Err(Refusal::at(Reason::Internal, &site)),
    }
}

/// Sends a request that may change something, and forgets what it changed. The answer to a POST that says that it is
/// what a GET would get is kept as that (RFC 9110 §9.3.3).
async fn change(
    edge: &Edge,
    bucket: &Arc<Bucket>,
    host: &str,
    request: OriginRequest,
    mark: Mark,
) -> Result<OriginResponse, OriginError> {
    let (method, key, query) = (request.method.clone(), request.key.clone(), request.query.clone());
    let headers = request.headers.clone();
    let answer = edge.origins.fetch(bucket, request).await;
    let refused = |r: &OriginResponse| r.status.is_client_error() || r.status.is_server_error();
    if method.is_safe() || answer.as_ref().is_ok_and(refused) {
        return answer;
    }
    let purge = |key: &ObjectKey| edge.cache.purge(bucket.id.0, bucket.generation, key.as_str());
    let Origin::Http(origin) = &bucket.origin else {
        purge(&key);
        return answer;
    };
    if let Ok(answer) = &answer {
        invalidate::named(&answer.headers, host, &key, &origin.url)
            .iter()
            .filter(|named| **named != key)
            .for_each(purge);
    }
    let keepable = |r: &OriginResponse| {
        method == Method::POST
            && r.status == StatusCode::OK
            && r.length.is_some_and(|length| length <= limits::KEPT_POST_BYTES)
            && invalidate::is_of_target(&r.headers, host, &key, &query, &origin.url)
    };
    let mut answer = match answer {
        Ok(answer) if keepable(&answer) => answer,
        answer => {
            purge(&key);
            return answer;
        }
    };
    let body = match answer.body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(e) => {
            purge(&key);
            return Err(e);
        }
    };
    let head = ResponseHead {
        status: answer.status,
        headers: answer.headers.clone(),
    };
    let upstream = Upstream::Bucket(bucket);
    let of = upstream.cache_key(&key, &query);
    edge.cache
        .replace(of, &mark, &headers, head, &body, &upstream.settings());
    answer.body = OriginBody::Whole(body);
    Ok(answer)
}
