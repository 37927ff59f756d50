//! The resources, one module each.

mod api_keys;
mod buckets;
mod cors;
mod domains;
mod live_streams;
mod objects;
mod origin;
mod purge;
mod signing_keys;
mod subscriptions;

use crate::{Shared, error::ApiError};
use axum::Json;
use edgeweir_model::AccessPolicy;
use edgeweir_origin::BucketFolder;
use edgeweir_store::BucketInfo;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;

pub(crate) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .merge(api_keys::routes())
        .merge(domains::routes())
        .merge(subscriptions::routes())
        .merge(signing_keys::routes())
        .merge(buckets::routes())
        .merge(cors::routes())
        .merge(purge::routes())
        .merge(objects::routes())
        .merge(live_streams::routes())
}

/// `{"status": "ok"}`.
#[derive(Serialize, ToSchema)]
struct Done {
    /// Always `ok`.
    status: &'static str,
}

type Answer<T> = Result<Json<T>, ApiError>;

/// Answers a write that makes something, once it is in effect on this node, or after a while: the answer may hold what
/// is shown this once.
async fn settled<T>(state: &Shared, body: T) -> Answer<T> {
    state.store.settled().await;
    Ok(Json(body))
}

/// Answers a write that closes, ends or purges something, once it is in effect on this node, and says so if it is not.
async fn in_effect<T>(state: &Shared, body: T) -> Answer<T> {
    if state.store.settled().await {
        Ok(Json(body))
    } else {
        Err(ApiError::not_yet_in_effect())
    }
}

async fn done(state: &Shared) -> Answer<Done> {
    in_effect(state, Done { status: "ok" }).await
}

/// Does work to its end, also when the client goes away and the handler with it.
async fn whole<T: Send + 'static>(
    state: &Shared,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    state.tasks.spawn(work).await.unwrap_or_else(|e| {
        tracing::error!(error = %e, "the work of a request broke off");
        Err(ApiError::internal())
    })
}

/// Where a local bucket's objects are.
fn folder(bucket: &BucketInfo) -> BucketFolder {
    BucketFolder::new(&bucket.name, bucket.id)
}

/// An access policy.
#[derive(Serialize, ToSchema)]
struct Policy {
    /// `public` or `authenticated`.
    policy: &'static str,
}

impl From<AccessPolicy> for Policy {
    fn from(policy: AccessPolicy) -> Self {
        Self {
            policy: policy.as_str(),
        }
    }
}

/// The last segment of the policy routes.
#[derive(Debug)]
struct PolicyName(AccessPolicy);

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for PolicyName {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut http::request::Parts, _: &S) -> Result<Self, ApiError> {
        let name = parts.uri.path().rsplit('/').next().unwrap_or_default();
        name.parse()
            .map(Self)
            .map_err(|_| ApiError::refused("invalid_policy", "policy", "must be public or authenticated"))
    }
}

/// The text of a name that its owner is free to choose.
fn free_name(name: Option<String>) -> Result<Option<String>, ApiError> {
    match name {
        Some(name) if name.chars().count() > 255 => Err(ApiError::refused(
            "invalid_name",
            "name",
            "must have at most 255 characters",
        )),
        Some(name) if name.chars().any(char::is_control) => Err(ApiError::refused(
            "invalid_name",
            "name",
            "must not hold control characters",
        )),
        other => Ok(other),
    }
}
