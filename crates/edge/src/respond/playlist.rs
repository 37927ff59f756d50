//! The token carried into playlists.

use super::{
    apply::{Representation, Source},
    private::{CDN_CACHE_CONTROL, PRIVATE, SURROGATE_CONTROL, make_private},
};
use crate::{
    authorize::Authorized,
    body::Body,
    limits,
    refusal::{Reason, Refusal},
};
use bytes::Bytes;
use edgeweir_cache::policy;
use edgeweir_manifest::Kind;
use http::{
    HeaderMap, Method, StatusCode,
    header::{ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, LAST_MODIFIED},
};
use http_body_util::BodyExt;
use std::time::SystemTime;

/// A playlist with the token in it: as private as the token, and another one each time.
pub(super) fn playlist(mut headers: HeaderMap, body: Vec<u8>) -> Representation {
    for name in [ETAG, LAST_MODIFIED, ACCEPT_RANGES, AGE, CONTENT_LENGTH] {
        headers.remove(name);
    }
    headers.remove(CDN_CACHE_CONTROL);
    headers.remove(SURROGATE_CONTROL);
    headers.insert(CACHE_CONTROL, PRIVATE);
    let length = Some(body.len() as u64);
    Representation {
        status: StatusCode::OK,
        headers,
        source: Source::Bytes(body.into()),
        length,
    }
}

/// Carries the token into a playlist that is not in the cache yet, and makes other signed answers private.
pub(super) async fn carried(
    authorized: &Authorized,
    kind: Option<Kind>,
    signed: bool,
    mut whole: Representation,
) -> Result<Representation, Refusal> {
    if !signed {
        return Ok(whole);
    }
    let head_only = authorized.resolved().request.method == Method::HEAD;
    let Some((kind, token)) = kind.zip(authorized.token()).filter(|_| whole.status == StatusCode::OK) else {
        let lifetime = policy::freshness_lifetime(
            whole.status,
            &whole.headers,
            SystemTime::now(),
            &authorized
                .object()
                .map_or(policy::Settings::storage(), |(upstream, _)| upstream.settings()),
        );
        make_private(&mut whole.headers, lifetime);
        return Ok(whole);
    };
    if whole.headers.contains_key(CONTENT_ENCODING) {
        return Err(Refusal::at(Reason::OriginEncoded, &authorized.resolved().site));
    }
    if head_only && matches!(whole.source, Source::Final(_)) {
        whole.headers.remove(CONTENT_LENGTH);
        return Ok(playlist_head(whole));
    }
    let refuse = || Refusal::at(Reason::OriginBroken, &authorized.resolved().site);
    // What the origin made of the client's conditions and range stays.
    let is_final = matches!(whole.source, Source::Final(_));
    let body = match whole.source {
        Source::Bytes(bytes) => bytes,
        Source::Fill(fill) => fill.collect(limits::PLAYLIST_BYTES).await.map_err(|_| refuse())?,
        Source::Sliced(body) => limited(*body).await.map_err(|_| refuse())?,
        Source::File(file) => limited(file).await.map_err(|_| refuse())?,
        Source::Final(body) => limited(body).await.map_err(|_| refuse())?,
    };
    let rendered = match edgeweir_manifest::scan(kind, &body) {
        Ok(splices) => splices.render(&body, token, host(authorized)),
        Err(e) if e.is_no_playlist() => body.into(),
        Err(e) => return Err(unreadable(authorized, &e)),
    };
    let mut playlist = playlist(whole.headers, rendered);
    if is_final && let Source::Bytes(text) = playlist.source {
        playlist.source = Source::Final(Body::full(text, head_only));
    }
    Ok(playlist)
}

/// A playlist that no token can be put into: bare, it would lead to nothing but refusals.
pub(super) fn unreadable(authorized: &Authorized, error: &edgeweir_manifest::Error) -> Refusal {
    Refusal::at(Reason::OriginPlaylist(error.to_string()), &authorized.resolved().site)
}

fn playlist_head(whole: Representation) -> Representation {
    let mut head = playlist(whole.headers, Vec::new());
    head.source = Source::Final(Body::Empty);
    head.length = None;
    head
}

async fn limited<B>(body: B) -> Result<Bytes, ()>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let limited = http_body_util::Limited::new(body, limits::PLAYLIST_BYTES as usize);
    limited
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|_| ())
}

/// The request's host, as a playlist's absolute URIs are held against it.
pub(super) fn host(authorized: &Authorized) -> &str {
    &authorized.resolved().request.host
}
