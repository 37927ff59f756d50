//! The answer as the client gets it: conditions, ranges, CORS, and the token carried into playlists. The last phase.

use crate::{
    Edge,
    accept::Over,
    authorize::Authorized,
    body::{Body, Piece},
    fetch::{self, Answer, Forward},
    h1, limits,
    refusal::{Reason, Refusal},
    rendered::{self, Slot},
    tell,
};
use bytes::Bytes;
use edgeweir_cache::{
    Ahead, Content, Entry, FetchStatus, FillBody, Now, SURROGATE_KEYS, SlicedBody,
    conditional::{self, Outcome},
    policy,
    range::{self, Multipart, Ranges},
    unshared,
};
use edgeweir_manifest::{Kind, Splices};
use edgeweir_origin::{Body as OriginBody, FileBody};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ACCEPT_RANGES, AGE, ALT_SVC, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
        DATE, ETAG, LAST_MODIFIED, RANGE,
    },
};
use http_body_util::BodyExt;
use std::{
    fmt::{self, Write},
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const SURROGATE_CONTROL: HeaderName = HeaderName::from_static("surrogate-control");
/// What is said of texts with a token in them.
pub(crate) const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-store");

/// An answer before the request's conditions and ranges are applied to it.
pub(crate) struct Representation {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) source: Source,
    /// In bytes, where it is known.
    pub(crate) length: Option<u64>,
}

/// Where a representation's content is.
pub(crate) enum Source {
    Bytes(Bytes),
    Fill(FillBody),
    Sliced(Box<SlicedBody>),
    File(FileBody),
    /// Answers to the request as it is: conditions and ranges are the origin's.
    Final(Body),
}

/// What is made of a stored response once, for all its hits.
struct Ready {
    fields: [Fields; PLACES],
    playlist: Option<Splices>,
    /// A playlist that came encoded although it was asked for as it is: no token can be put into it.
    encoded: bool,
}

/// The header fields of a stored response's answers, made when they are first wanted. A copy a thread, as far as there are
/// places: the values' reference counts would else travel between the cores with every answer.
#[derive(Default)]
struct Fields {
    /// For everyone.
    open: OnceLock<Box<HeaderMap>>,
    /// For who came with a token: to be kept by nobody but the client.
    signed: OnceLock<Box<HeaderMap>>,
    /// The head that was sent last.
    head: Slot,
}

const PLACES: usize = 8;

thread_local! {
    static PLACE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % PLACES
    };
}

impl Ready {
    fn find<'a>(entry: &'a Entry, authorized: &Authorized) -> &'a Self {
        entry.attach_with(|entry| Self::of(entry, authorized))
    }

    fn of(entry: &Entry, authorized: &Authorized) -> Self {
        let key = authorized.object().map_or("", |(_, key)| key.as_str());
        let kind = Kind::of_key(key).filter(|_| entry.status() == StatusCode::OK);
        let playlist = match (kind, entry.content()) {
            (Some(kind), Content::Whole(text)) => edgeweir_manifest::scan(kind, &text.bytes()).ok(),
            _ => None,
        };
        Self {
            fields: Default::default(),
            playlist,
            encoded: kind.is_some() && entry.headers().contains_key(CONTENT_ENCODING),
        }
    }

    /// This thread's copies.
    fn here(&self) -> &Fields {
        &self.fields[PLACE.with(|place| *place)]
    }

    /// This thread's copy of the fields that answer such a request.
    fn fields(&self, entry: &Entry, authorized: &Authorized) -> &HeaderMap {
        let fields = self.here();
        if authorized.is_signed() {
            fields.signed.get_or_init(|| {
                let mut signed = open_fields(entry, authorized);
                make_private(&mut signed, entry.freshness_lifetime());
                Box::new(signed)
            })
        } else {
            fields.open.get_or_init(|| Box::new(open_fields(entry, authorized)))
        }
    }
}

/// The fields of a stored response's answers to everyone.
fn open_fields(entry: &Entry, authorized: &Authorized) -> HeaderMap {
    // Some are to be added.
    let mut open = unshared(entry.headers(), 5);
    hide_surrogate_keys(authorized, &mut open);
    // In place for each hit to overwrite: a map that has to grow is made anew.
    open.insert(AGE, HeaderValue::from_static("0"));
    open.insert(CACHE_STATUS, HeaderValue::from_static("edgeweir"));
    open.insert(CONTENT_LENGTH, entry.content().length().into());
    if let Some(alternative) = &authorized.resolved().site.alternative {
        open.insert(ALT_SVC, alternative.clone());
    }
    if entry.status() == StatusCode::OK {
        open.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    open
}

/// Takes out what names for caches what is behind an object, unless its bucket is a shield's.
fn hide_surrogate_keys(authorized: &Authorized, headers: &mut HeaderMap) {
    if !fetch::shows_surrogate_keys(authorized) {
        for_caches_alone(headers);
    }
}

/// Takes out what names for caches what is behind an object.
pub(crate) fn for_caches_alone(headers: &mut HeaderMap) {
    for name in &SURROGATE_KEYS {
        headers.remove(name);
    }
}

/// Shared caches on the way must not keep what a token opened (RFC 9111 §5.2.2.7). What the origin says to browsers
/// stays; what it says to shared caches alone goes, and counts for nobody else.
pub(crate) fn make_private(headers: &mut HeaderMap, lifetime: Duration) {
    let mut value = String::from("private");
    let mut for_shared = headers.remove(CDN_CACHE_CONTROL).is_some();
    for_shared |= headers.remove(SURROGATE_CONTROL).is_some();
    let mut says = false;
    for field in headers.get_all(CACHE_CONTROL) {
        for directive in policy::split_list(field.as_bytes()).filter_map(|d| std::str::from_utf8(d).ok()) {
            let name = directive.split('=').next().unwrap_or_default().trim();
            let is = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n));
            if is(&["s-maxage", "proxy-revalidate"]) {
                for_shared = true;
            } else if !directive.is_empty() && !is(&["public", "private"]) {
                says |= is(&["max-age", "no-cache", "no-store"]);
                value.push_str(", ");
                value.push_str(directive);
            }
        }
    }
    headers.remove(http::header::EXPIRES);
    if !says && !for_shared {
        let _ = write!(value, ", max-age={}", lifetime.as_secs());
    }
    // Made of a field's own text.
    let value = HeaderValue::from_str(&value).unwrap_or(PRIVATE);
    headers.insert(CACHE_CONTROL, value);
}

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
    // Nothing has been sent yet: what is wrong with the first byte can be told.
    let ready = response.body_mut().ready().await;
    let forwarded = ready.map_err(|error| Refusal::at(Reason::of_fetch(&*error), &authorized.resolved().site))?;
    if forwarded && !asked {
        let status = HeaderValue::from_static("edgeweir; fwd=partial; stored");
        response.headers_mut().insert(CACHE_STATUS, status);
    }
    Ok(response)
}

/// The answer to a hit: nothing to wait for.
pub(crate) fn hit(
    authorized: &Authorized,
    entry: &Arc<Entry>,
    ttl: Duration,
    now: Now,
) -> Result<Response<Body>, Refusal> {
    let ready = Ready::find(entry, authorized);
    let asked = asked(authorized, entry, ready, ttl, now);
    let kept = &ready.here().head;
    let response = match asked.map(|asked| (asked, kept.find(asked))) {
        Some((_, rendered::Found::Text(head))) => Response::new(Body::Rendered(head, whole(entry))),
        found => {
            let mut response = finished(authorized, of_entry(entry, authorized, now)?, hit_status(ttl))?;
            if let Some((asked, rendered::Found::Again)) = found {
                let trusts = asked.over != Over::Plain;
                tell(asked.site.alternative.as_ref(), trusts, response.headers_mut());
                if let Some(head) = h1::rendered(&response) {
                    kept.keep(asked, head);
                }
            }
            response
        }
    };
    if authorized.resolved().request.over == Over::Plain
        && let (Content::Whole(held), Body::Full(bytes) | Body::Rendered(_, bytes)) = (entry.content(), response.body())
    {
        held.sent(bytes.len());
    }
    Ok(response)
}

/// What the head of a hit is found by, where it can be kept: of answers with all the content, over HTTP/1.1.
fn asked<'a>(
    authorized: &'a Authorized,
    entry: &Entry,
    ready: &Ready,
    ttl: Duration,
    now: Now,
) -> Option<rendered::Asked<'a>> {
    let request = &authorized.resolved().request;
    let signed = authorized.is_signed();
    let is_plain = request.over != Over::Frames
        && request.method == Method::GET
        && entry.status() == StatusCode::OK
        && entry.content().length() > 0
        && !(signed && (ready.encoded || ready.playlist.is_some()))
        && !request.headers.keys().any(is_conditional);
    is_plain.then(|| rendered::Asked {
        site: &authorized.resolved().site,
        over: request.over,
        signed,
        age: entry.age(now).as_secs(),
        ttl: ttl.as_secs(),
    })
}

fn hit_status(ttl: Duration) -> HeaderValue {
    own_status(format_args!("hit; ttl={}", ttl.as_secs()))
}

fn own_status(parameters: fmt::Arguments<'_>) -> HeaderValue {
    let mut status = String::with_capacity(40);
    let _ = write!(status, "edgeweir; {parameters}");
    HeaderValue::from_maybe_shared(Bytes::from(status)).expect("ASCII")
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

fn of_entry(entry: &Arc<Entry>, authorized: &Authorized, now: Now) -> Result<Representation, Refusal> {
    let ready = Ready::find(entry, authorized);
    if !authorized.is_signed() {
        return Ok(stored(entry, ready.fields(entry, authorized), now));
    }
    if ready.encoded {
        return Err(Refusal::at(Reason::OriginEncoded, &authorized.resolved().site));
    }
    // The token is asked for where it is needed only: finding it takes the query apart again.
    let token = ready.playlist.as_ref().and_then(|_| authorized.token());
    Ok(match ready.playlist.as_ref().zip(token) {
        Some((splices, token)) => {
            let body = splices.render(&whole(entry), token, host(authorized));
            playlist(ready.fields(entry, authorized).clone(), body)
        }
        None => stored(entry, ready.fields(entry, authorized), now),
    })
}

fn stored(entry: &Arc<Entry>, headers: &HeaderMap, now: Now) -> Representation {
    let mut headers = headers.clone();
    headers.insert(AGE, entry.age(now).as_secs().into());
    Representation {
        status: entry.status(),
        headers,
        length: Some(entry.content().length()),
        source: Source::Bytes(whole(entry)),
    }
}

/// The bytes of an entry that is kept in one piece; none of one that is kept in slices.
fn whole(entry: &Entry) -> Bytes {
    match entry.content() {
        Content::Whole(held) => held.bytes(),
        Content::Sliced(_) => Bytes::new(),
    }
}

/// A playlist with the token in it: as private as the token, and another one each time.
fn playlist(mut headers: HeaderMap, body: Vec<u8>) -> Representation {
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
async fn carried(
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
    let body = match whole.source {
        Source::Bytes(bytes) => bytes,
        Source::Fill(fill) => fill.collect(limits::PLAYLIST_BYTES).await.map_err(|_| refuse())?,
        Source::Sliced(body) => limited(*body).await.map_err(|_| refuse())?,
        Source::File(file) => limited(file).await.map_err(|_| refuse())?,
        Source::Final(body) => limited(body).await.map_err(|_| refuse())?,
    };
    let rendered = match edgeweir_manifest::scan(kind, &body) {
        Ok(splices) => splices.render(&body, token, host(authorized)),
        Err(_) => body.into(),
    };
    Ok(playlist(whole.headers, rendered))
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
fn host(authorized: &Authorized) -> &str {
    &authorized.resolved().request.host
}

/// Whether a field may make an answer something else than all the content.
fn is_conditional(name: &HeaderName) -> bool {
    name.as_str().starts_with("if-") || *name == RANGE
}

/// Conditions first, then ranges (RFC 9110 §13.2.2).
fn apply(method: &Method, request: &HeaderMap, whole: Representation) -> Result<Response<Body>, Reason> {
    let head_only = *method == Method::HEAD;
    let Representation {
        status,
        mut headers,
        source,
        length,
    } = whole;
    let selectable = status == StatusCode::OK && !matches!(source, Source::Final(_));
    if !selectable || !request.keys().any(is_conditional) {
        return Ok(finish(status, headers, source, length, head_only));
    }
    let etag = headers.get(ETAG).and_then(|v| v.to_str().ok());
    let time = |name| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok();
    let modified = time(LAST_MODIFIED);
    match conditional::evaluate(request, etag, modified, time(DATE)) {
        Outcome::Proceed => {}
        Outcome::PreconditionFailed => return Err(Reason::PreconditionFailed),
        Outcome::NotModified => {
            for name in [CONTENT_LENGTH, CONTENT_TYPE, ACCEPT_RANGES] {
                headers.remove(name);
            }
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = headers;
            return Ok(response);
        }
    }
    // A range of a HEAD request is ignored (RFC 9110 §14.2), and so is one of a length that is not known.
    let ranges = match (request.get(RANGE).and_then(|v| v.to_str().ok()), length) {
        (Some(value), Some(length)) if !head_only && conditional::range_applies(request, etag, modified) => {
            range::parse(value, length)
        }
        _ => Ranges::Ignored,
    };
    let total = length.unwrap_or_default();
    match ranges {
        Ranges::Ignored => Ok(finish(status, headers, source, length, head_only)),
        Ranges::Unsatisfiable => Err(Reason::RangeNotSatisfiable(total)),
        Ranges::Satisfiable(ranges) => match (&ranges[..], source) {
            ([range], source) => {
                headers.remove(CONTENT_LENGTH);
                let value = HeaderValue::from_str(&range::content_range(range, total)).expect("ASCII");
                headers.insert(CONTENT_RANGE, value);
                let length = Some(range.end - range.start);
                Ok(finish(
                    StatusCode::PARTIAL_CONTENT,
                    headers,
                    source.range(range.clone()),
                    length,
                    false,
                ))
            }
            // A fill is read once, from front to back: several ranges of it are the whole (RFC 9110 §14.2 allows it).
            (_, source @ Source::Fill(_)) => Ok(finish(status, headers, source, length, false)),
            (ranges, source) => Ok(multipart(headers, source, ranges, total)),
        },
    }
}

impl Source {
    fn range(self, range: Range<u64>) -> Self {
        match self {
            Self::Bytes(bytes) => Self::Bytes(bytes.slice(range.start as usize..range.end as usize)),
            Self::Fill(fill) => Self::Fill(fill.range(range)),
            Self::Sliced(mut body) => Self::Sliced(Box::new(body.range(range))),
            Self::File(file) => Self::File(file.part(range)),
            done @ Self::Final(_) => done,
        }
    }
}

fn multipart(mut headers: HeaderMap, mut source: Source, ranges: &[Range<u64>], total: u64) -> Response<Body> {
    // Unguessable is not asked of a boundary, only that the content does not hold it; the length makes that sure enough.
    let boundary = format!("edgeweir-{total:016x}-{:08x}-byteranges", ranges.len());
    let content_type = headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned);
    let framing = Multipart::new(ranges, total, content_type.as_deref(), &boundary);
    let length = framing.len(ranges);
    let mut pieces = std::collections::VecDeque::new();
    for (header, range) in framing.headers.into_iter().zip(ranges) {
        pieces.push_back(Piece::Bytes(header));
        match &mut source {
            Source::Bytes(bytes) => {
                pieces.push_back(Piece::Bytes(bytes.slice(range.start as usize..range.end as usize)));
            }
            Source::File(file) => pieces.push_back(Piece::File(file.part(range.clone()))),
            Source::Sliced(body) => pieces.push_back(Piece::Sliced(Box::new(body.range(range.clone())))),
            Source::Fill(_) | Source::Final(_) => unreachable!("these have no several ranges"),
        }
    }
    pieces.push_back(Piece::Bytes(framing.close));
    let content_type = format!("multipart/byteranges; boundary={boundary}");
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(&content_type).expect("ASCII"));
    headers.insert(CONTENT_LENGTH, length.into());
    let mut response = Response::new(Body::Pieces(pieces));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    *response.headers_mut() = headers;
    response
}

fn finish(
    status: StatusCode,
    mut headers: HeaderMap,
    source: Source,
    length: Option<u64>,
    head_only: bool,
) -> Response<Body> {
    if let Some(length) = length
        && !headers.contains_key(CONTENT_LENGTH)
    {
        headers.insert(CONTENT_LENGTH, length.into());
    }
    let body = match source {
        _ if head_only => Body::Empty,
        Source::Bytes(bytes) => Body::full(bytes, false),
        Source::Fill(fill) => Body::Fill(fill),
        Source::Sliced(body) => Body::Sliced(body),
        Source::File(file) => Body::file(file),
        Source::Final(body) => body,
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// How the cache took part (RFC 9211).
fn cache_status(answer: &Answer, now: Now) -> HeaderValue {
    let hit = |entry: &Entry| own_status(format_args!("hit; ttl={}", entry.ttl(now)));
    let forwarded = |forward: &Forward, more: &str| own_status(format_args!("fwd={}{more}", forward.token()));
    match answer {
        Answer::Fresh(_, ttl) => hit_status(*ttl),
        Answer::Stale(entry) => own_status(format_args!("hit; ttl={}; detail=stale", entry.ttl(now))),
        Answer::Part(part) => hit(&part.entry),
        Answer::Fetched(entry, how, _, forward) => match how {
            FetchStatus::Miss => forwarded(forward, "; stored"),
            FetchStatus::Collapsed => forwarded(forward, "; stored; collapsed"),
            FetchStatus::Stored => hit(entry),
            FetchStatus::Revalidated => forwarded(forward, "; fwd-status=304; stored"),
            FetchStatus::Confirmed => forwarded(forward, "; fwd-status=304; stored; collapsed"),
            FetchStatus::Unkept => forwarded(forward, "; fwd-status=304"),
            FetchStatus::StaleIfError(Some(status)) => forwarded(
                forward,
                &format!("; fwd-status={}; detail=stale-if-error", status.as_u16()),
            ),
            FetchStatus::StaleIfError(None) => forwarded(forward, "; detail=stale-if-error"),
        },
        Answer::Stream(stream, forward) => match (stream.stored, stream.status == FetchStatus::Collapsed) {
            (true, true) => forwarded(forward, "; stored; collapsed"),
            (true, false) => forwarded(forward, "; stored"),
            (false, true) => forwarded(forward, "; collapsed"),
            (false, false) => forwarded(forward, ""),
        },
        Answer::Own(_, forward) | Answer::Through(_, forward) => forwarded(forward, ""),
    }
}

/// The status of what the origin was asked for this answer, where it is known.
fn answered(answer: &Answer) -> Option<StatusCode> {
    match answer {
        Answer::Stream(stream, _) => Some(stream.answered),
        Answer::Own(response, _) => Some(response.head.status),
        Answer::Through(response, _) => Some(response.status),
        Answer::Fresh(..) | Answer::Stale(_) | Answer::Part(_) | Answer::Fetched(..) => None,
    }
}

/// What the caches on the way to the origin say of this answer. Those had no part in what is served without them.
fn upstream(answer: &Answer) -> Option<&HeaderMap> {
    match answer {
        Answer::Fresh(..)
        | Answer::Stale(_)
        | Answer::Fetched(_, FetchStatus::StaleIfError(_) | FetchStatus::Stored, ..)
        | Answer::Part(_) => None,
        Answer::Fetched(entry, ..) => Some(entry.headers()),
        Answer::Stream(stream, _) => Some(&stream.head.headers),
        Answer::Own(response, _) => Some(&response.head.headers),
        Answer::Through(response, _) => Some(&response.headers),
    }
}

/// What this cache says, after what those before it have said: the list ends with the one nearest to the client
/// (RFC 9211 §2).
fn after(upstream: Option<&HeaderMap>, own: HeaderValue) -> HeaderValue {
    let before = upstream.into_iter().flat_map(|headers| headers.get_all(CACHE_STATUS));
    let mut list: Vec<_> = before.map(HeaderValue::as_bytes).filter(|v| !v.is_empty()).collect();
    if list.is_empty() {
        return own;
    }
    list.push(own.as_bytes());
    HeaderValue::from_bytes(&list.join(&b", "[..])).unwrap_or(own)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_listed_from_the_origin_on() {
        for (before, expected) in [
            (&[][..], "edgeweir; hit"),
            (&[""], "edgeweir; hit"),
            (&["a; hit"], "a; hit, edgeweir; hit"),
            (
                &["a; hit, b; fwd=uri-miss", "c"],
                "a; hit, b; fwd=uri-miss, c, edgeweir; hit",
            ),
        ] {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append(CACHE_STATUS, HeaderValue::from_static(value));
            }
            let own = HeaderValue::from_static("edgeweir; hit");
            assert_eq!(after(Some(&headers), own), expected, "{before:?}");
        }
    }

    #[test]
    fn signed_answers_are_private_and_else_what_the_origin_says_to_browsers() {
        for (fields, expected) in [
            (&[][..], "private, max-age=60"),
            (
                &[("cache-control", "public, max-age=30, immutable")],
                "private, max-age=30, immutable",
            ),
            (&[("cache-control", "max-age=0, s-maxage=86400")], "private, max-age=0"),
            (&[("cache-control", "s-maxage=86400")], "private"),
            (
                &[("cache-control", "no-cache, max-age=9")],
                "private, no-cache, max-age=9",
            ),
            (
                &[("cache-control", "public"), ("cache-control", "must-revalidate")],
                "private, must-revalidate, max-age=60",
            ),
            (&[("cdn-cache-control", "max-age=86400")], "private"),
            (
                &[("cdn-cache-control", "max-age=86400"), ("cache-control", "no-store")],
                "private, no-store",
            ),
            (
                &[
                    ("cdn-cache-control", "no-store"),
                    ("cache-control", "public, max-age=600"),
                ],
                "private, max-age=600",
            ),
        ] {
            let mut headers: HeaderMap = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_static(value));
            }
            headers.insert("expires", HeaderValue::from_static("Mon, 01 Jan 2024 00:00:00 GMT"));
            make_private(&mut headers, Duration::from_secs(60));
            assert_eq!(headers[CACHE_CONTROL], expected, "{fields:?}");
            assert!(!headers.contains_key(CDN_CACHE_CONTROL) && !headers.contains_key("expires"));
        }
    }
}
