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

/// Answers a write once it is in effect on this node.
async fn settled<T>(state: &Shared, body: T) -> Answer<T> {
    state.store.settled().await;
    Ok(Json(body))
}

async fn done(state: &Shared) -> Answer<Done> {
    settled(state, Done { status: "ok" }).await
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
