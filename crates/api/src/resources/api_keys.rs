//! API keys: what a project's access tokens are made from.

use super::{Answer, Done, done, settled};
use crate::{Shared, auth::Project, error::ApiError};
use axum::{
    Json,
    extract::{Path, State, rejection::PathRejection},
};
use edgeweir_model::Timestamp;
use edgeweir_store::{ApiKeyId, ApiKeyInfo};
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(revoke))
}

/// An API key.
#[derive(Serialize, ToSchema)]
struct ApiKeyBody {
    id: i64,
    #[schema(value_type = String)]
    created: Timestamp,
    /// When it was revoked.
    #[schema(value_type = Option<String>)]
    revoked: Option<Timestamp>,
    /// The key itself, in the answer that makes it and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

impl From<ApiKeyInfo> for ApiKeyBody {
    fn from(key: ApiKeyInfo) -> Self {
        Self {
            id: key.id.0,
            created: key.created,
            revoked: key.revoked,
            api_key: None,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct One {
    api_key: ApiKeyBody,
}

#[derive(Serialize, ToSchema)]
struct Many {
    api_keys: Vec<ApiKeyBody>,
}

/// Makes another API key for the project. With 20 that are not revoked there is no more: 409 `api_key_limit_reached`.
#[utoipa::path(post, path = "/v1/api-keys", tag = "API keys", security(("access_token" = [])),
    responses((status = 200, body = One)))]
async fn create(State(state): State<Shared>, Project(project): Project) -> Answer<One> {
    let (info, key) = state.store.create_api_key(project).await?;
    let mut body = ApiKeyBody::from(info);
    body.api_key = Some(key.expose_secret().to_owned());
    settled(&state, One { api_key: body }).await
}

/// Lists the project's API keys, revoked ones too.
#[utoipa::path(get, path = "/v1/api-keys", tag = "API keys", security(("access_token" = [])),
    responses((status = 200, body = Many)))]
async fn list(State(state): State<Shared>, Project(project): Project) -> Answer<Many> {
    let keys = state.store.list_api_keys(project).await?;
    Ok(Json(Many {
        api_keys: keys.into_iter().map(Into::into).collect(),
    }))
}

/// Revokes an API key, which ends its access tokens at once. The last one cannot be revoked: 409 `last_api_key`.
#[utoipa::path(delete, path = "/v1/api-keys/{api_key_id}", tag = "API keys", security(("access_token" = [])),
    params(("api_key_id" = i64, Path)), responses((status = 200, body = Done)))]
async fn revoke(
    State(state): State<Shared>,
    Project(project): Project,
    id: Result<Path<i64>, PathRejection>,
) -> Answer<Done> {
    let Path(id) = id.map_err(|_| ApiError::not_found())?;
    state.store.revoke_api_key(project, ApiKeyId(id)).await?;
    done(&state).await
}
