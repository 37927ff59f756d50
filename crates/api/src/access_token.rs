//! Access tokens: JWTs (RFC 7519) that stand for an API key for a day.
//!
//! Each is signed (HS256) with a secret derived from the node secret and the API key's stored hash, so that revoking
//! the key ends its tokens, with no list of them kept.

use crate::{
    Shared,
    auth::{Source, bearer},
    error::ApiError,
};
use aws_lc_rs::hmac;
use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use edgeweir_model::{ProjectId, Timestamp};
use edgeweir_store::{LiveApiKey, StoreError};
use http::{HeaderMap, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::time::Instant;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use zeroize::Zeroizing;

/// How long an access token is valid, in seconds.
const LIFETIME: i64 = 86_400;

/// The server's own secret: 32 random bytes.
pub struct NodeSecret(Zeroizing<[u8; 32]>);

impl NodeSecret {
    /// The secret of these bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes, for another derivation.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The secret that signs the access tokens of one API key.
    fn of_key(&self, key: &LiveApiKey) -> Zeroizing<Vec<u8>> {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &*self.0));
        context.update(b"access-token");
        context.update(&key.id.0.to_be_bytes());
        context.update(&key.hash);
        Zeroizing::new(context.sign().as_ref().to_vec())
    }
}

impl std::fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeSecret")
    }
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iat: i64,
    sub: i64,
    exp: i64,
}

pub(crate) fn issue(secret: &NodeSecret, key: &LiveApiKey, project: ProjectId, now: i64) -> Result<String, ApiError> {
    let claims = Claims {
        iat: now,
        sub: project.0,
        exp: now + LIFETIME,
    };
    let header = Header::new(Algorithm::HS256);
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(&secret.of_key(key)))
        .map_err(|_| ApiError::internal())
}

/// Whose access token this is; `None` when it is not valid.
pub(crate) async fn verify(state: &Shared, token: &str) -> Result<Option<ProjectId>, StoreError> {
    // Only to find the keys that may have made it; nothing is believed before a signature holds.
    let Ok(claims) = jsonwebtoken::dangerous::insecure_decode::<Claims>(token) else {
        return Ok(None);
    };
    let project = ProjectId(claims.claims.sub);
    let mut validation = Validation::new(Algorithm::HS256);
    validation.leeway = 0;
    let valid = |key: &LiveApiKey| {
        let secret = DecodingKey::from_secret(&state.secret.of_key(key));
        jsonwebtoken::decode::<Claims>(token, &secret, &validation).is_ok()
    };
    Ok(state
        .store
        .live_api_keys(project)
        .await?
        .iter()
        .any(valid)
        .then_some(project))
}

/// An access token.
#[derive(Serialize, ToSchema)]
struct AccessToken {
    /// To be sent as `Authorization: Bearer`, for 24 hours.
    access_token: String,
}

async fn exchange(state: &Shared, source: Source, api_key: Option<&str>) -> Result<Json<AccessToken>, ApiError> {
    let attempt = state.attempts.take(source.0, Instant::now()).await.map_err(|wait| {
        ApiError::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_attempts",
            "too many wrong API keys from this address; wait as long as Retry-After says",
        )
        .retry_after(wait.as_secs() + 1)
    })?;
    let found = match api_key {
        Some(api_key) => state.store.authenticate(api_key).await,
        None => Err(StoreError::NotFound),
    };
    let (project, key) = match found {
        Err(StoreError::NotFound) => {
            attempt.failed();
            return Err(ApiError::new(
                StatusCode::UNAUTHORIZED,
                "invalid_api_key",
                "the API key is not valid: it is unknown or was revoked",
            ));
        }
        found => found?,
    };
    let access_token = issue(&state.secret, &key, project, Timestamp::now().0)?;
    Ok(Json(AccessToken { access_token }))
}

/// Exchanges an API key in the path for an access token. The header form keeps the key out of URLs.
#[utoipa::path(post, path = "/v1/access_token/{api_key}", tag = "access tokens",
    params(("api_key" = String, Path)), responses((status = 200, body = AccessToken)))]
async fn by_path(
    State(state): State<Shared>,
    source: Source,
    api_key: Result<Path<String>, PathRejection>,
) -> Result<Json<AccessToken>, ApiError> {
    exchange(&state, source, api_key.ok().as_deref().map(String::as_str)).await
}

/// Exchanges the API key in `Authorization: Bearer` for an access token.
#[utoipa::path(post, path = "/v1/access_token", tag = "access tokens", responses((status = 200, body = AccessToken)))]
async fn by_header(
    State(state): State<Shared>,
    source: Source,
    headers: HeaderMap,
) -> Result<Json<AccessToken>, ApiError> {
    exchange(&state, source, bearer(&headers)).await
}

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(by_path)).routes(routes!(by_header))
}
