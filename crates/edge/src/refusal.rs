//! Why a request gets no content, and how that looks over HTTP. The one place where an error becomes an answer.

use crate::{body::Body, site::Site};
use bytes::Bytes;
use edgeweir_cache::SliceError;
use edgeweir_model::token::TokenError;
use edgeweir_origin::Error as OriginError;
use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER},
};
use std::sync::Arc;

/// Whose fault a failed request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request is at fault; sending it again changes nothing.
    Client,
    /// The origin is at fault; a retry may work.
    Origin,
    /// We are at fault.
    Edge,
}

/// A request that is refused, by reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Reason {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("this server does not serve that host")]
    UnknownHost,
    #[error("the certificate of this connection does not cover that host")]
    HostNotCovered,
    #[error("the path {0}")]
    BadPath(edgeweir_model::KeyError),
    #[error("the query has more than one auth parameter")]
    DuplicateToken,
    #[error("path and query are longer than 8 KiB")]
    TargetTooLong,
    #[error("the header fields are longer than 8 KiB, or more than 100")]
    HeadersTooLong,
    #[error("{0}")]
    Token(TokenError),
    #[error("this method is not allowed here")]
    Method(String),
    #[error("there is nothing here")]
    NotFound,
    #[error("the stream is not live")]
    NotLive,
    #[error("that is in no stream's playlist yet")]
    NotYetAvailable,
    #[error("this stream key opens no stream")]
    StreamKey,
    #[error("another encoder pushes to this stream: stop it first")]
    PublisherConflict,
    #[error("this is over the limit {0}: {1}")]
    Limit(&'static str, u64),
    #[error("the playlist cannot be taken: {0}")]
    BadPlaylist(String),
    #[error("the origin's playlist cannot be taken: {0}")]
    OriginPlaylist(String),
    #[error("a precondition of the request does not hold")]
    PreconditionFailed,
    #[error("no byte of the object is in the requested range")]
    RangeNotSatisfiable(u64),
    #[error("the object is not in the cache, and only-if-cached was asked for")]
    OnlyIfCached,
    #[error("the origin may not be asked: its address is not public")]
    OriginRefused,
    #[error("the origin refuses the credentials or settings that it is asked with")]
    OriginDenied,
    #[error("the origin does not answer as it should")]
    OriginBroken,
    /// What is stored of an object is of an older representation: it must be asked for anew.
    #[error("the object changes at the origin while it is fetched")]
    ObjectChanged,
    #[error("the origin does not answer in time")]
    OriginTimeout,
    #[error("the origin compresses its playlist, so that the token cannot be carried into it: serve it as it is")]
    OriginEncoded,
    #[error("the bucket's origin leads back to this server")]
    Loop,
    #[error("the request cannot be served")]
    Internal,
}

impl Reason {
    /// Why an origin gave no answer.
    pub(crate) fn of_origin(error: &OriginError) -> Self {
        match error {
            OriginError::Refused => Self::OriginRefused,
            OriginError::Denied => Self::OriginDenied,
            OriginError::Timeout => Self::OriginTimeout,
            OriginError::Connect | OriginError::Broken => Self::OriginBroken,
            OriginError::Io => Self::Internal,
        }
    }

    /// Why a fetch gave no answer.
    pub(crate) fn of_fetch(error: &(dyn std::error::Error + 'static)) -> Self {
        let origin = error.downcast_ref::<OriginError>().map(Self::of_origin);
        let changed = || match error.downcast_ref::<SliceError>()? {
            SliceError::Changed | SliceError::NoRanges => Some(Self::ObjectChanged),
            SliceError::Failing => None,
        };
        origin.or_else(changed).unwrap_or(Self::OriginBroken)
    }

    /// Status and public code.
    pub(crate) fn status(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadRequest(_) => (StatusCode::BAD_REQUEST, "bad_request"),
            Self::UnknownHost => (StatusCode::MISDIRECTED_REQUEST, "unknown_host"),
            Self::HostNotCovered => (StatusCode::MISDIRECTED_REQUEST, "host_not_covered"),
            Self::BadPath(edgeweir_model::KeyError::Empty) | Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::BadPath(_) => (StatusCode::BAD_REQUEST, "bad_path"),
            // A check that cannot decide which token is meant refuses like one with a broken token.
            Self::DuplicateToken => (StatusCode::FORBIDDEN, TokenError::Malformed.code()),
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "uri_too_long"),
            Self::HeadersTooLong => (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large"),
            Self::Token(e) => (StatusCode::FORBIDDEN, e.code()),
            Self::Method(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NotLive => (StatusCode::NOT_FOUND, "not_live"),
            Self::NotYetAvailable => (StatusCode::SERVICE_UNAVAILABLE, "not_yet_available"),
            Self::StreamKey => (StatusCode::FORBIDDEN, "stream_key"),
            Self::PublisherConflict => (StatusCode::CONFLICT, "publisher_conflict"),
            Self::Limit(..) => (StatusCode::PAYLOAD_TOO_LARGE, "limit_exceeded"),
            Self::BadPlaylist(_) => (StatusCode::UNPROCESSABLE_ENTITY, "bad_playlist"),
            Self::OriginPlaylist(_) => (StatusCode::BAD_GATEWAY, "origin_playlist"),
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Self::RangeNotSatisfiable(_) => (StatusCode::RANGE_NOT_SATISFIABLE, "range_not_satisfiable"),
            Self::OnlyIfCached => (StatusCode::GATEWAY_TIMEOUT, "not_cached"),
            Self::OriginRefused => (StatusCode::BAD_GATEWAY, "origin_refused"),
            Self::OriginDenied => (StatusCode::BAD_GATEWAY, "origin_denied"),
            Self::OriginBroken | Self::ObjectChanged => (StatusCode::BAD_GATEWAY, "origin_error"),
            Self::OriginTimeout => (StatusCode::GATEWAY_TIMEOUT, "origin_timeout"),
            Self::OriginEncoded => (StatusCode::BAD_GATEWAY, "origin_encoded"),
            Self::Loop => (StatusCode::LOOP_DETECTED, "loop_detected"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
        }
    }

    /// Whose fault it is.
    pub(crate) fn fault(&self) -> Fault {
        match self {
            Self::OriginRefused
            | Self::OriginDenied
            | Self::OriginBroken
            | Self::ObjectChanged
            | Self::OriginTimeout
            | Self::OriginEncoded
            | Self::OriginPlaylist(_) => Fault::Origin,
            Self::Internal => Fault::Edge,
            _ => Fault::Client,
        }
    }
}

/// A refusal, with the site whose CORS headers it bears once the site is known.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) site: Option<Arc<Site>>,
    /// The connection is in no state to carry another request.
    pub(crate) close: bool,
}

impl Refusal {
    pub(crate) fn at(reason: Reason, site: &Arc<Site>) -> Self {
        Self {
            reason,
            site: Some(site.clone()),
            close: false,
        }
    }

    pub(crate) fn closing(reason: Reason) -> Self {
        Self {
            reason,
            site: None,
            close: true,
        }
    }

    /// The answer, `no-store`, with a JSON body.
    pub(crate) fn into_response(self, method: &Method) -> Response<Body> {
        let (status, code) = self.reason.status();
        let json = serde_json::json!({"status": "failed", "error": code, "message": self.reason.to_string()});
        let body = Bytes::from(json.to_string());
        let mut response = Response::new(Body::full(body, *method == Method::HEAD));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match &self.reason {
            Reason::Method(allow) => {
                headers.insert(ALLOW, HeaderValue::from_str(allow).expect("made of method tokens"));
            }
            Reason::RangeNotSatisfiable(length) => {
                let range = HeaderValue::from_str(&format!("bytes */{length}")).expect("ASCII");
                headers.insert(http::header::CONTENT_RANGE, range);
            }
            reason if reason.fault() == Fault::Origin => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        if self.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(site) = &self.site {
            site.cors.apply(headers);
        }
        response
    }
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            site: None,
            close: false,
        }
    }
}
