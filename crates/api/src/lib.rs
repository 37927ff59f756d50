//! The control API: JSON over HTTP under `/v1`, one module a resource.
//!
//! Every answer to a write comes when the write is durable and in effect on this node. A failure has one body shape
//! ([`error`]); what belongs to another project answers exactly as what is not there.

mod access_token;
mod attempts;
mod auth;
mod error;
mod extract;
mod incoming;
mod key_pool;
mod log;
mod paging;
mod resources;

pub use access_token::NodeSecret;
pub use key_pool::{KeyPair, KeyPool};

use attempts::FailedAttempts;
use axum::{Json, Router, extract::DefaultBodyLimit, middleware, response::IntoResponse, routing::get};
use edgeweir_model::{Arrivals, Fqdn, Seal};
use edgeweir_origin::LocalStorage;
use edgeweir_store::Store;
use error::ApiError;
use std::sync::Arc;
use tokio_util::task::TaskTracker;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_axum::router::OpenApiRouter;

/// What the control API needs to know of the service.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// The service's own DNS zone.
    pub zone: Fqdn,
    /// The regions that a bucket may be in; the first is the default.
    pub regions: Vec<String>,
    /// How many playback domains a project may have.
    pub domain_limit: usize,
    /// How many wrong API keys a source address may try a minute.
    pub failed_attempts_per_minute: u32,
    /// The largest object that can be put, in bytes.
    pub object_limit: u64,
    /// Whether origins may be on loopback, link-local and private addresses.
    pub allow_private_origins: bool,
    /// What customers' CNAMEs must point to.
    pub edge_target: String,
    /// How players reach the edge: `https` or `http`, and the port.
    pub edge_scheme: &'static str,
    /// The edge's port for that scheme.
    pub edge_port: u16,
    /// Whether the peer is a proxy of ours, so that `X-Forwarded-For` names the source.
    pub behind_proxy: bool,
}

/// The parts that the control API works with.
#[derive(Debug)]
pub struct Parts {
    /// The control state.
    pub store: Store,
    /// The objects of local buckets.
    pub storage: LocalStorage,
    /// The service.
    pub config: ApiConfig,
    /// Key pairs made ahead.
    pub keys: KeyPool,
    /// What access tokens are derived from.
    pub secret: NodeSecret,
    /// Seals the credentials of origins.
    pub seal: Arc<dyn Seal>,
    /// Takes work that goes on when its client has gone.
    pub tasks: TaskTracker,
    /// What the edge has seen of live streams.
    pub arrivals: Arrivals,
}

#[derive(Debug)]
struct State {
    store: Store,
    storage: LocalStorage,
    config: ApiConfig,
    keys: KeyPool,
    secret: NodeSecret,
    seal: Arc<dyn Seal>,
    tasks: TaskTracker,
    arrivals: Arrivals,
    attempts: FailedAttempts,
}

type Shared = Arc<State>;

#[derive(OpenApi)]
#[openapi(
    info(title = "Edgeweir control API", description = "Playback domains, TLS, signing keys, buckets and live streams."),
    modifiers(&AccessTokenScheme)
)]
struct Documentation;

struct AccessTokenScheme;

impl Modify for AccessTokenScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .build();
        openapi
            .components
            .get_or_insert_with(Default::default)
            .add_security_scheme("access_token", SecurityScheme::Http(scheme));
    }
}

/// The control API's routes. To be served with `ConnectInfo<SocketAddr>`.
pub fn router(parts: Parts) -> Router {
    let Parts {
        store,
        storage,
        config,
        keys,
        secret,
        seal,
        tasks,
        arrivals,
    } = parts;
    let attempts = FailedAttempts::per_minute(config.failed_attempts_per_minute);
    let state = Arc::new(State {
        store,
        storage,
        config,
        keys,
        secret,
        seal,
        tasks,
        arrivals,
        attempts,
    });
    let (router, openapi) = OpenApiRouter::with_openapi(Documentation::openapi())
        .merge(access_token::routes())
        .merge(resources::routes())
        .split_for_parts();
    router
        .route("/v1/openapi.json", get(async move || Json(openapi)))
        .fallback(async || ApiError::no_route().into_response())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed().into_response())
        .with_state(state)
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(|_| ApiError::internal().into_response()))
        .layer(middleware::from_fn(incoming::each_body))
        .layer(middleware::from_fn(log::each_request))
}

#[cfg(test)]
mod tests;
