//! Origins as the API takes and shows them.

use crate::{Shared, error::ApiError};
use edgeweir_model::{BucketName, HttpOrigin, Origin, OriginUrl, PullUrl, S3Origin, S3OriginError, S3Settings};
use edgeweir_origin::is_public;
use http::{HeaderName, Method};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};
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
        /// Whether clients are shown `Surrogate-Key` and `Cache-Tag`, by which another Edgeweir in front of this one purges.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        show_surrogate_keys: bool,
    },
    /// A bucket of an S3 server, read with signed requests.
    S3 {
        /// The server's URL, without the bucket.
        endpoint: String,
        /// The bucket's name there.
        bucket: String,
        /// The region that requests are signed for.
        region: String,
        /// The public half of the credentials. They need to read objects, and to list them: else S3 does not tell an
        /// object that is not there from one that may not be read.
        access_key_id: String,
        /// The secret half. It is kept encrypted, and never shown.
        #[serde(skip_serializing, deserialize_with = "secret")]
        #[schema(value_type = String, write_only)]
        secret_access_key: SecretString,
        /// Whether the bucket is named in the path rather than in the host.
        #[serde(default)]
        path_style: bool,
    },
}

/// A secret; what is none is not told back.
fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    match serde_json::Value::deserialize(deserializer)? {
        serde_json::Value::String(text) => Ok(text.into()),
        _ => Err(D::Error::custom("it must be a string")),
    }
}

fn reads() -> Vec<String> {
    vec!["GET".to_owned(), "HEAD".to_owned()]
}

impl OriginBody {
    /// The origin of the bucket of this name.
    pub(super) fn check(self, state: &Shared, name: &BucketName) -> Result<Origin, ApiError> {
        match self {
            Self::Local {} => Ok(Origin::Local),
            Self::Http {
                url,
                methods,
                request_headers,
                store_set_cookie,
                show_surrogate_keys,
            } => Ok(Origin::Http(HttpOrigin {
                url: origin_url(&url, state)?,
                methods: allowed_methods(methods)?,
                request_headers: told_headers(request_headers)?,
                store_set_cookie,
                show_surrogate_keys,
            })),
            Self::S3 {
                endpoint,
                bucket,
                region,
                access_key_id,
                secret_access_key,
                path_style,
            } => {
                let settings = S3Settings {
                    endpoint,
                    bucket,
                    region,
                    access_key_id,
                    path_style,
                };
                s3(settings, &secret_access_key, state, name)
            }
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
                show_surrogate_keys: http.show_surrogate_keys,
            },
            Origin::S3(s3) => {
                let S3Settings {
                    endpoint,
                    bucket,
                    region,
                    access_key_id,
                    path_style,
                } = s3.settings().clone();
                Self::S3 {
                    endpoint,
                    bucket,
                    region,
                    access_key_id,
                    secret_access_key: SecretString::default(),
                    path_style,
                }
            }
        }
    }
}

/// The longest secret, in bytes; S3's own have 40.
const SECRET_LENGTH: usize = 1024;

fn s3(settings: S3Settings, secret: &SecretString, state: &Shared, name: &BucketName) -> Result<Origin, ApiError> {
    let text = secret.expose_secret();
    if text.is_empty() || text.len() > SECRET_LENGTH || text.chars().any(char::is_control) {
        let message = format!("must be 1 to {SECRET_LENGTH} bytes without control characters");
        return Err(ApiError::refused(
            "invalid_credentials",
            "origin.secret_access_key",
            message,
        ));
    }
    let sealed = state.seal.seal(&S3Origin::purpose(name), secret);
    let origin = S3Origin::new(settings, sealed).map_err(|e| {
        let code = match e {
            S3OriginError::Endpoint(_) | S3OriginError::EndpointPath => "invalid_origin_url",
            S3OriginError::Bucket | S3OriginError::VirtualHost => "invalid_origin_bucket",
            S3OriginError::Region => "invalid_origin_region",
            S3OriginError::AccessKeyId => "invalid_credentials",
        };
        ApiError::refused(code, format!("origin.{}", e.field()), e.to_string())
    })?;
    public(origin.base(), state, "origin.endpoint")?;
    Ok(Origin::S3(Arc::new(origin)))
}

/// The URL of an origin. A name may still lead to a private address: that is checked when it is connected to.
pub(super) fn origin_url(url: &str, state: &Shared) -> Result<OriginUrl, ApiError> {
    let url: OriginUrl = url.parse().map_err(invalid)?;
    public(&url, state, "origin.url")?;
    Ok(url)
}

/// The URL that a live stream is pulled from, as [`origin_url`].
pub(super) fn pull_url(url: &str, state: &Shared) -> Result<PullUrl, ApiError> {
    let url: PullUrl = url.parse().map_err(invalid)?;
    public(&url.folder, state, "origin.url")?;
    Ok(url)
}

fn invalid(error: impl std::fmt::Display) -> ApiError {
    ApiError::refused("invalid_origin_url", "origin.url", error.to_string())
}

fn public(url: &OriginUrl, state: &Shared, field: &'static str) -> Result<(), ApiError> {
    let host = url.host().trim_end_matches('.');
    let private = match host.parse::<IpAddr>() {
        Ok(address) => !is_public(address),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    };
    if private && !state.config.allow_private_origins {
        return Err(ApiError::refused(
            "origin_private",
            field,
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
        // What is refused below must be refused in every spelling.
        let upper = method.to_ascii_uppercase();
        let known = Method::from_bytes(upper.as_bytes()).map_err(|_| refused(format!("{method:?} is no method")))?;
        // These two are not requests for a resource of the origin (RFC 9110 §9.3.6, §9.3.8).
        if known == Method::CONNECT || known == Method::TRACE {
            return Err(refused(format!("{known} cannot be passed on")));
        }
        all.insert(upper);
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
