//! The admin listener: `/healthz`, `/readyz`, `/metrics`. For the operator's own network only.

use axum::{Router, extract::State, response::IntoResponse, routing::get};
use http::{StatusCode, header::CONTENT_TYPE};
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// What the admin listener tells.
#[derive(Debug, Default)]
pub(crate) struct Status {
    /// Whether requests should be sent here.
    pub(crate) ready: AtomicBool,
    pub(crate) registry: Registry,
}

pub(crate) fn router(status: Arc<Status>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(status)
}

async fn readyz(State(status): State<Arc<Status>>) -> impl IntoResponse {
    if status.ready.load(Ordering::Acquire) {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(status): State<Arc<Status>>) -> Result<impl IntoResponse, StatusCode> {
    let mut text = String::new();
    encode(&mut text, &status.registry).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, content_type)], text))
}
