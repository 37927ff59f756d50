//! The answer as the client gets it: conditions, ranges, CORS, and the token carried into playlists. The last phase.

mod apply;
mod heads;
mod hit;
mod playlist;
mod private;
mod room;
mod status;

pub(crate) use apply::{Representation, Source};
pub(crate) use hit::hit;
pub(crate) use private::{CDN_CACHE_CONTROL, PRIVATE, SURROGATE_CONTROL, for_caches_alone, make_private};
pub use room::ATTACHED_BYTES;

use crate::{
    Edge,
    authorize::Authorized,
    body::Body,
    fetch::{self, Answer},
    refusal::{Reason, Refusal},
};
use apply::apply;
use bytes::Bytes;
use edgeweir_cache::{Ahead, Entry, FetchStatus, Now, range};
use edgeweir_manifest::Kind;
use edgeweir_origin::Body as OriginBody;
use hit::of_entry;
use http::{
    HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ACCEPT_RANGES, AGE, CONTENT_LENGTH, CONTENT_RANGE},
};
use playlist::carried;
use private::hide_surrogate_keys;
use status::{after, answered, cache_status, upstream};
use std::{sync::Arc, time::Duration};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Makes the answer to what is not a fresh hit.
pub(crate) async fn respond(
    edge: &Edge,
    authorized: &Authorized,
    answer: Answer,
    now: Now,
) -> Result<Response<Body>, Refusal> {
    let signed = authorized.is_signed();
    let key = authorized.object().map_or("", |(_, key)| key.as_str());
    let kind = Kind::of_key(key).filter(|_| signed);
    let status = after(upstream(&answer), cache_status(&answer, now));
    let asked = !matches!(answer, Answer::Fresh(..));
    let answered = answered(&answer);
    let representation = match answer {
        Answer::Fresh(entry, _) | Answer::Stale(entry) => of_any(edge, &entry, authorized, now, Ahead::default())?,
        Answer::Fetched(entry, _, ahead, _) => of_any(edge, &entry, authorized, now, ahead)?,
        Answer::Part(part) => {
            let mut whole = of_any(edge, &part.entry, authorized, now, Ahead::default())?;
            if let Some(within) = part.within {
                let value = range::content_range(&within.object, within.length);
                whole
                    .headers
                    .insert(CONTENT_RANGE, HeaderValue::from_str(&value).expect("ASCII"));
                whole.headers.remove(CONTENT_LENGTH);
                whole.length = Some(within.body.end - within.body.start);
                whole.source = whole.source.range(within.body);
            }
            whole
        }
        Answer::Stream(stream, _) => {
            let mut headers = stream.head.headers.clone();
            headers.remove(CONTENT_LENGTH);
            // Who joined late has it from this cache, as if it had been stored by then.
            if stream.status == FetchStatus::Collapsed && stream.age >= Duration::from_secs(1) {
                headers.insert(AGE, stream.age.as_secs().into());
            }
            if stream.head.status == StatusCode::OK {
                headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
            }
            let whole = Representation {
                status: stream.head.status,
                headers,
                source: Source::Fill(stream.body),
                length: stream.length,
            };
            carried(authorized, kind, signed, whole).await?
        }
        Answer::Own(response, _) => {
            let source = Source::Final(Body::Own(response.body));
            let whole = Representation {
                status: response.head.status,
                headers: response.head.headers,
                source,
                length: response.length,
            };
            carried(authorized, kind, signed, whole).await?
        }
        Answer::Through(response, _) => {
            let source = match response.body {
                OriginBody::File(file) => Source::File(file),
                OriginBody::Whole(bytes) if response.status == StatusCode::OK => Source::Bytes(bytes),
                other => Source::Final(Body::Origin(other)),
            };
            let whole = Representation {
                status: response.status,
                headers: response.headers,
                source,
                length: response.length,
            };
            carried(authorized, kind, signed, whole).await?
        }
    };
    let mut response = finished(authorized, representation, status)?;
    hide_surrogate_keys(authorized, response.headers_mut());
    // What the client gets says it, too, unless a range or a condition was applied here.
    if let Some(answered) = answered.filter(|answered| *answered != response.status())
        && let Some(status) = response.headers().get(CACHE_STATUS)
    {
        let status = [status.as_bytes(), b"; fwd-status=", answered.as_str().as_bytes()].concat();
        let status = HeaderValue::from_maybe_shared(Bytes::from(status)).expect("it was one before");
        response.headers_mut().insert(CACHE_STATUS, status);
    }
    if fetch::only_if_cached(authorized) && !response.body().is_held() {
        return Err(Refusal::at(Reason::OnlyIfCached, &authorized.resolved().site));
    }
    // Nothing has been sent yet: what is wrong with the first byte can be told.
    let ready = response.body_mut().ready().await;
    let forwarded = ready.map_err(|error| Refusal::at(Reason::of_fetch(&*error), &authorized.resolved().site))?;
    if forwarded && !asked {
        let status = HeaderValue::from_static("edgeweir; fwd=partial; stored");
        response.headers_mut().insert(CACHE_STATUS, status);
    }
    Ok(response)
}

/// The answer that a representation makes: conditions, ranges, CORS.
pub(crate) fn finished(
    authorized: &Authorized,
    mut representation: Representation,
    cache_status: HeaderValue,
) -> Result<Response<Body>, Refusal> {
    let request = &authorized.resolved().request;
    representation.headers.insert(CACHE_STATUS, cache_status);
    let mut response = apply(&request.method, &request.headers, representation)
        .map_err(|reason| Refusal::at(reason, &authorized.resolved().site))?;
    authorized.resolved().site.cors.apply(response.headers_mut());
    Ok(response)
}

/// What is made of an entry, however its bytes are kept. `ahead` is what was begun to be fetched of them.
fn of_any(
    edge: &Edge,
    entry: &Arc<Entry>,
    authorized: &Authorized,
    now: Now,
    ahead: Ahead,
) -> Result<Representation, Refusal> {
    let mut representation = of_entry(entry, authorized, now)?;
    if authorized.resolved().request.method != Method::HEAD
        && let Some(body) = fetch::sliced(edge, authorized, entry, ahead)
    {
        representation.source = Source::Sliced(Box::new(body));
    }
    Ok(representation)
}

/// An origin's answer to a method that was passed on.
pub(crate) fn passed_on(response: edgeweir_origin::Response) -> Response<Body> {
    let mut passed = Response::new(Body::Origin(response.body));
    *passed.status_mut() = response.status;
    *passed.headers_mut() = response.headers;
    let own = HeaderValue::from_static("edgeweir; fwd=method");
    let status = after(Some(passed.headers()), own);
    passed.headers_mut().insert(CACHE_STATUS, status);
    for_caches_alone(passed.headers_mut());
    passed
}
