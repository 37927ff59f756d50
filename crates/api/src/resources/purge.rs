//! Purging the cache.

use super::{Answer, Done, done};
use crate::{
    Shared,
    auth::Project,
    error::ApiError,
    extract::{Body, Segment},
};
use axum::extract::State;
use edgeweir_model::{BucketName, ObjectKey};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(purge_all)).routes(routes!(purge))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Purge {
    /// The object's key, as it is stored (not percent-encoded); one leading slash is dropped.
    path: String,
}

/// Purges every cached object of a bucket.
#[utoipa::path(post, path = "/v1/buckets/{bucket_name}/cache/purge_all", tag = "purge",
    security(("access_token" = [])), params(("bucket_name" = String, Path)), responses((status = 200, body = Done)))]
async fn purge_all(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
) -> Answer<Done> {
    state.store.purge_all(project, &name).await?;
    done(&state).await
}

/// Purges one cached object of a bucket, whether the bucket has it or not.
#[utoipa::path(post, path = "/v1/buckets/{bucket_name}/cache/purge", tag = "purge", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), request_body = Purge, responses((status = 200, body = Done)))]
async fn purge(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    Body(body): Body<Purge>,
) -> Answer<Done> {
    let key = ObjectKey::new(body.path.strip_prefix('/').unwrap_or(&body.path))
        .map_err(|e| ApiError::refused("invalid_path", "path", e.to_string()))?;
    state.store.purge_object(project, &name, &key).await?;
    done(&state).await
}
