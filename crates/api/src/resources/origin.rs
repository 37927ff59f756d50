//! Origins as the API takes and shows them.

use crate::{Shared, error::ApiError};
use edgeweir_model::{HttpOrigin, Origin, OriginUrl, PullUrl};
use edgeweir_origin::is_public;
use http::{HeaderName, Method};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, net::IpAddr};
use utoipa::ToSchema;

/// Where a bucket's objects are.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum OriginBody {
    /// Files under the data folder.
    Local {},
    /// Another HTTP server.
    Http {
        /// The base URL.
        url: String,
        /// The methods that clients may use; GET and HEAD when left out.
        #[serde(default = "reads")]
        methods: Vec<String>,
        /// Request header fields that the origin is told beside the usual ones. An answer that depends on one must name
        /// it in `Vary`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        request_headers: Vec<String>,
        /// Whether answers that set cookies may be stored, and served to everybody with their `Set-Cookie`.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        store_set_cookie: bool,
    },
    /// An S3 bucket. Not supported by this version.
    S3 {
        endpoint: String,
        bucket: String,
        region: String,
        access_key_id: String,
        #[serde(skip_serializing)]
        secret_access_key: String,
        #[serde(default)]
        path_style: bool,
    },
}

fn reads() -> Vec<String> {
    vec!["GET".to_owned(), "HEAD".to_owned()]
}

impl OriginBody {
    pub(super) fn check(self, state: &Shared) -> Result<Origin, ApiError> {
        match self {
            Self::Local {} => Ok(Origin::Local),
            Self::Http {
                url,
                methods,
                request_headers,
                store_set_cookie,
            } => Ok(Origin::Http(HttpOrigin {
                url: origin_url(&url, state)?,
                methods: allowed_methods(methods)?,
                request_headers: told_headers(request_headers)?,
                store_set_cookie,
            })),
            Self::S3 { .. } => Err(ApiError::refused(
                "origin_unsupported",
                "origin.type",
                "this version has no S3 origins; use local or http",
            )),
        }
    }
}

impl From<&Origin> for OriginBody {
    fn from(origin: &Origin) -> Self {
        match origin {
            Origin::Local => Self::Local {},
            Origin::Http(http) => Self::Http {
                url: http.url.to_string(),
                methods: http.methods.iter().map(ToString::to_string).collect(),
                request_headers: http.request_headers.iter().map(ToString::to_string).collect(),
                store_set_cookie: http.store_set_cookie,
            },
        }
    }
}

/// The URL of an origin. A name may still lead to a private address: that is checked when it is connected to.
pub(super) fn origin_url(url: &str, state: &Shared) -> Result<OriginUrl, ApiError> {
    let url: OriginUrl = url.parse().map_err(invalid)?;
    public(&url, state)?;
    Ok(url)
}

/// The URL that a live stream is pulled from, as [`origin_url`].
pub(super) fn pull_url(url: &str, state: &Shared) -> Result<PullUrl, ApiError> {
    let url: PullUrl = url.parse().map_err(invalid)?;
    public(&url.folder, state)?;
    Ok(url)
}

fn invalid(error: impl std::fmt::Display) -> ApiError {
    ApiError::refused("invalid_origin_url", "origin.url", error.to_string())
}

fn public(url: &OriginUrl, state: &Shared) -> Result<(), ApiError> {
    let host = url.host().trim_end_matches('.');
    let private = match host.parse::<IpAddr>() {
        Ok(address) => !is_public(address),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    };
    if private && !state.config.allow_private_origins {
        return Err(ApiError::refused(
            "origin_private",
            "origin.url",
            "the address is not public; the operator can allow such with origins.allow_private",
        ));
    }
    Ok(())
}

/// Upper-case, each once, GET and HEAD always among them.
fn allowed_methods(methods: Vec<String>) -> Result<Box<[Box<str>]>, ApiError> {
    let refused = |message: String| ApiError::refused("invalid_methods", "origin.methods", message);
    let mut all: BTreeSet<String> = reads().into_iter().collect();
    for method in methods {
        let known = Method::from_bytes(method.as_bytes()).map_err(|_| refused(format!("{method:?} is no method")))?;
        // These two are not requests for a resource of the origin (RFC 9110 §9.3.6, §9.3.8).
        if known == Method::CONNECT || known == Method::TRACE {
            return Err(refused(format!("{known} cannot be passed on")));
        }
        all.insert(known.as_str().to_ascii_uppercase());
    }
    if all.len() > 32 {
        return Err(refused("are more than 32".to_owned()));
    }
    Ok(all.into_iter().map(String::into_boxed_str).collect())
}

/// Request fields that are not for a bucket's owner to pass on: those of one hop, those that frame a message, those that
/// the edge acts on or writes by itself, and those that tell of other hops (RFC 9110 §7.6).
const NOT_TOLD: [&str; 22] = [
    "cdn-loop",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "keep-alive",
    "max-forwards",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
];

/// Lower-case, each once.
fn told_headers(names: Vec<String>) -> Result<Box<[Box<str>]>, ApiError> {
    let refused = |message: String| ApiError::refused("invalid_request_headers", "origin.request_headers", message);
    let mut all = BTreeSet::new();
    for name in names {
        let known =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| refused(format!("{name:?} is no field name")))?;
        if NOT_TOLD.contains(&known.as_str()) || known.as_str().starts_with("x-forwarded-") {
            return Err(refused(format!("{known} cannot be passed on")));
        }
        all.insert(known.as_str().into());
    }
    if all.len() > 32 {
        return Err(refused("are more than 32".to_owned()));
    }
    Ok(all.into_iter().collect())
}
