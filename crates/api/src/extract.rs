//! From a request to typed values: JSON bodies, path segments. What does not fit is refused with the field's name.

use crate::error::ApiError;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use edgeweir_model::{BucketName, DomainId, SigningKeyId, StreamId, SubscriptionId};
use http::{header::CONTENT_LENGTH, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use std::str::FromStr;

/// The largest body of a request that is no upload, in bytes.
pub(crate) const BODY_LIMIT: u64 = 1 << 20;

/// A JSON body. The content type is not looked at: clients of this API send several.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        parse(&read(request).await?).map(Self)
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default, S: Send + Sync> FromRequest<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let body = read(request).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        parse(&body).map(Self)
    }
}

async fn read(request: Request) -> Result<bytes::Bytes, ApiError> {
    let declared = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: u64| length > BODY_LIMIT) {
        return Err(ApiError::too_large(BODY_LIMIT));
    }
    let body = request.into_body();
    match Limited::new(body, BODY_LIMIT as usize).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(ApiError::too_large(BODY_LIMIT)),
        Err(_) => Err(ApiError::malformed("body_incomplete", "the body broke off")),
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // serde would take an array for a struct, by position.
    if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(ApiError::malformed("malformed_body", "the body must be a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|e| {
        let path = e.path().to_string();
        explain(&e.into_inner(), &path)
    })?;
    json.end().map_err(|e| explain(&e, "."))?;
    Ok(value)
}

/// Tells what is wrong with a body. serde's own texts for these three are part of its interface
/// (`serde::de::Error::unknown_field` and its sisters).
fn explain(error: &serde_json::Error, path: &str) -> ApiError {
    let text = error.to_string();
    let named = |start: &str| {
        text.strip_prefix(start)
            .and_then(|t| t.split('`').next())
            .map(str::to_owned)
    };
    if !error.is_data() {
        return ApiError::malformed("malformed_json", format!("the body is not valid JSON: {text}"));
    }
    if let Some(field) = named("unknown field `") {
        ApiError::malformed("unknown_field", text).at(field)
    } else if let Some(field) = named("missing field `") {
        ApiError::malformed("missing_field", text).at(field)
    } else if let Some(field) = named("duplicate field `") {
        ApiError::malformed("duplicate_field", text).at(field)
    } else {
        ApiError::malformed("invalid_field", text).at(path.to_owned())
    }
}

/// A segment of the path. One that cannot be a `T` names nothing that is there.
#[derive(Debug)]
pub(crate) struct Segment<T>(pub(crate) T);

/// What a path segment can be.
pub(crate) trait PathSegment: FromStr {
    /// Its name in the route.
    const NAME: &'static str;
}

impl PathSegment for DomainId {
    const NAME: &'static str = "domain_id";
}
impl PathSegment for SubscriptionId {
    const NAME: &'static str = "tls_subscription_id";
}
impl PathSegment for SigningKeyId {
    const NAME: &'static str = "signing_key_id";
}
impl PathSegment for StreamId {
    const NAME: &'static str = "stream_id";
}
impl PathSegment for BucketName {
    const NAME: &'static str = "bucket_name";
}

impl<T: PathSegment, S: Send + Sync> FromRequestParts<S> for Segment<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::not_found())?;
        params
            .iter()
            .find_map(|(name, value)| (name == T::NAME).then(|| value.parse().ok())?)
            .map(Self)
            .ok_or_else(ApiError::not_found)
    }
}

/// Tells `null` (`Some(None)`-like, an explicit "none") from a field that is missing, which is an error.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer)
}

/// A field that may be left out, and is no `null`.
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
