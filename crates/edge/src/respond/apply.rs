//! What the request makes of a representation: conditions first, then ranges (RFC 9110 §13.2.2).

use crate::{
    body::{Body, Piece},
    refusal::Reason,
};
use bytes::Bytes;
use edgeweir_cache::{
    FillBody, SlicedBody,
    conditional::{self, Outcome},
    range::{self, Multipart, Ranges},
};
use edgeweir_origin::FileBody;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, DATE, ETAG, LAST_MODIFIED, RANGE},
};
use std::{ops::Range, time::SystemTime};

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

/// Whether a field may make an answer something else than all the content.
pub(super) fn is_conditional(name: &HeaderName) -> bool {
    name.as_str().starts_with("if-") || *name == RANGE
}

/// The answer to a request with these fields.
pub(super) fn apply(method: &Method, request: &HeaderMap, whole: Representation) -> Result<Response<Body>, Reason> {
    let head_only = *method == Method::HEAD;
    let Representation {
        status,
        mut headers,
        source,
        length,
    } = whole;
    // Of what is no success conditions are ignored (RFC 9110 §13.2.1).
    let selectable = status.is_success() && !matches!(source, Source::Final(_));
    if !selectable || !request.keys().any(is_conditional) {
        return Ok(finish(status, headers, source, length, head_only));
    }
    let etag = headers.get(ETAG);
    let time = |name| httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok();
    let (modified, date) = (time(LAST_MODIFIED), time(DATE));
    match conditional::evaluate(request, etag, modified, date) {
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
    // What says no date comes now (RFC 9110 §6.6.1).
    let date = date.or_else(|| (!headers.contains_key(DATE)).then(SystemTime::now));
    // A range of a HEAD request is ignored (RFC 9110 §14.2), and so is one of a length that is not known, or of anything but
    // a 200.
    let ranged = status == StatusCode::OK && !head_only;
    let ranges = match (request.get(RANGE).and_then(|v| v.to_str().ok()), length) {
        (Some(value), Some(length)) if ranged && conditional::range_applies(request, etag, modified, date) => {
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
    pub(super) fn range(self, range: Range<u64>) -> Self {
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
    // What these have no content of, they have no length of (RFC 9110 §8.6).
    if let Some(length) = length
        && !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
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
