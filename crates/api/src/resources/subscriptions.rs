//! TLS subscriptions.

use super::{Answer, Done, done, settled};
use crate::{
    Shared,
    auth::Project,
    error::ApiError,
    extract::{Body, Segment},
    paging::Paging,
};
use axum::extract::State;
use edgeweir_model::{DomainId, SubscriptionId, Timestamp};
use edgeweir_store::Subscription;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, delete))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSubscription {
    /// A playback domain of the project.
    domain_id: String,
}

/// A TLS subscription.
#[derive(Serialize, ToSchema)]
struct SubscriptionBody {
    #[schema(value_type = String)]
    id: SubscriptionId,
    #[schema(value_type = String)]
    domain_id: DomainId,
    /// `pending`, `processing`, `issued`, `renewing` or `failed`.
    status: &'static str,
    #[schema(value_type = String)]
    created: Timestamp,
    /// What is to be done, or what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// When the certificate ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    not_after: Option<Timestamp>,
}

impl From<Subscription> for SubscriptionBody {
    fn from(s: Subscription) -> Self {
        Self {
            id: s.id,
            domain_id: s.domain_id,
            status: s.status.as_str(),
            created: s.created,
            message: s.message,
            not_after: s.not_after,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct One {
    tls_subscription: SubscriptionBody,
}

#[derive(Serialize, ToSchema)]
struct Many {
    tls_subscriptions: Vec<SubscriptionBody>,
    /// Goes on after this id, when there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Subscribes a playback domain to a certificate.
#[utoipa::path(post, path = "/v1/tls/subscriptions", tag = "TLS subscriptions", security(("access_token" = [])),
    request_body = NewSubscription, responses((status = 200, body = One)))]
async fn create(
    State(state): State<Shared>,
    Project(project): Project,
    Body(body): Body<NewSubscription>,
) -> Answer<One> {
    let domain = body
        .domain_id
        .parse()
        .map_err(|_| ApiError::not_found().at("domain_id"))?;
    let message = |name: &str| {
        format!(
            "TLS subscription created. You should verify your domain ownership. \
             Create a CNAME for '{name}' and point it to '{}'.",
            state.config.edge_target
        )
    };
    let made = match state.store.create_subscription(project, domain, message).await {
        Err(edgeweir_store::StoreError::NotFound) => return Err(ApiError::not_found().at("domain_id")),
        other => other?,
    };
    settled(
        &state,
        One {
            tls_subscription: made.into(),
        },
    )
    .await
}

/// Lists TLS subscriptions, newest first.
#[utoipa::path(get, path = "/v1/tls/subscriptions", tag = "TLS subscriptions", security(("access_token" = [])),
    params(("limit" = Option<u32>, Query), ("after" = Option<String>, Query)), responses((status = 200, body = Many)))]
async fn list(State(state): State<Shared>, Project(project): Project, paging: Paging) -> Answer<Many> {
    let (found, more) = state.store.list_subscriptions(project, &paging.page()).await?;
    let next = found.last().filter(|_| more).map(|s| s.id.to_string());
    let tls_subscriptions = found.into_iter().map(Into::into).collect();
    // What is told as issued serves.
    settled(
        &state,
        Many {
            tls_subscriptions,
            next,
        },
    )
    .await
}

/// Gets a TLS subscription.
#[utoipa::path(get, path = "/v1/tls/subscriptions/{tls_subscription_id}", tag = "TLS subscriptions",
    security(("access_token" = [])), params(("tls_subscription_id" = String, Path)),
    responses((status = 200, body = One)))]
async fn get(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<SubscriptionId>,
) -> Answer<One> {
    let tls_subscription = state.store.get_subscription(project, id).await?.into();
    settled(&state, One { tls_subscription }).await
}

/// Ends a TLS subscription.
#[utoipa::path(delete, path = "/v1/tls/subscriptions/{tls_subscription_id}", tag = "TLS subscriptions",
    security(("access_token" = [])), params(("tls_subscription_id" = String, Path)),
    responses((status = 200, body = Done)))]
async fn delete(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<SubscriptionId>,
) -> Answer<Done> {
    state.store.delete_subscription(project, id).await?;
    done(&state).await
}
