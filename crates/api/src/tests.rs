//! The control API over a real SQLite store, called as a client calls it.

#![allow(clippy::unwrap_used)]

mod access;
mod buckets;
mod domains;
mod live_streams;
mod objects;
mod refusals;
mod signing_keys;
mod whole;

use super::*;
use axum::body::Body;
use edgeweir_model::{Change, Content, KeyPrefix, ObjectKey, Purge, Purged, SurrogateKey};
use http::{Method, Request, StatusCode, header::AUTHORIZATION};
use http_body_util::BodyExt;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tower::ServiceExt;

/// Turns texts around.
#[derive(Debug)]
struct Turned;

impl Seal for Turned {
    fn seal(&self, _: &str, secret: &secrecy::SecretString) -> edgeweir_model::SealedSecret {
        edgeweir_model::SealedSecret(secret.expose_secret().bytes().rev().collect())
    }

    fn open(&self, _: &str, _: &edgeweir_model::SealedSecret) -> Option<secrecy::SecretString> {
        None
    }
}

struct Service {
    router: Router,
    store: Store,
    dir: tempfile::TempDir,
}

/// A project, as its owner's client sees it.
struct Client {
    router: Router,
    token: String,
}

type Answer = (StatusCode, Value);

async fn send(router: &Router, request: Request<Body>) -> (http::response::Parts, bytes::Bytes) {
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    assert_eq!(parts.headers["cache-control"], "no-store");
    (parts, body.collect().await.unwrap().to_bytes())
}

impl Service {
    async fn start() -> Self {
        Self::start_as(|_| {}).await
    }

    async fn start_as(change: impl FnOnce(&mut ApiConfig)) -> Self {
        Self::start_over(change, |storage| storage).await
    }

    async fn start_over(
        change: impl FnOnce(&mut ApiConfig),
        storage: impl FnOnce(LocalStorage) -> LocalStorage,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open("sqlite", dir.path()).await.unwrap();
        let mut config = ApiConfig {
            zone: "edgeweir.localhost".parse().unwrap(),
            regions: vec!["local".to_owned(), "eu".to_owned()],
            domain_limit: 20,
            failed_attempts_per_minute: 10,
            object_limit: 4 << 20,
            allow_private_origins: false,
            edge_target: "edge.edgeweir.localhost".to_owned(),
            edge_scheme: "https",
            edge_port: 8443,
            behind_proxy: true,
        };
        change(&mut config);
        let router = router(Parts {
            store: store.clone(),
            storage: storage(LocalStorage::open(dir.path()).unwrap()),
            config,
            keys: KeyPool::start(0),
            secret: NodeSecret::new([7; 32]),
            seal: Arc::new(Turned),
            tasks: TaskTracker::new(),
            arrivals: edgeweir_model::Arrivals::default(),
        });
        Self { router, store, dir }
    }

    async fn exchange(&self, api_key: &str, source: &str) -> (http::response::Parts, Value) {
        let request = Request::post(format!("/v1/access_token/{api_key}"))
            .header("x-forwarded-for", source)
            .body(Body::empty())
            .unwrap();
        let (parts, body) = send(&self.router, request).await;
        (parts, serde_json::from_slice(&body).unwrap())
    }

    async fn project(&self, name: &str) -> Client {
        let project = self.store.create_project(name).await.unwrap();
        let (_, body) = self.exchange(project.api_key.expose_secret(), "192.0.2.1").await;
        Client {
            router: self.router.clone(),
            token: body["access_token"].as_str().unwrap().to_owned(),
        }
    }
}

impl Client {
    async fn raw(&self, method: &str, path: &str, body: impl Into<Body>) -> (http::response::Parts, bytes::Bytes) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(body.into())
            .unwrap();
        send(&self.router, request).await
    }

    async fn call(&self, method: &str, path: &str, body: impl Into<Body>) -> Answer {
        let (parts, body) = self.raw(method, path, body).await;
        (parts.status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn ok(&self, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() {
            Body::empty()
        } else {
            body.to_string().into()
        };
        let (status, answer) = self.call(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{method} {path}: {answer}");
        answer
    }

    /// The status, code and field of a failure, whose shape is checked.
    async fn fails(&self, method: &str, path: &str, body: impl Into<Body>) -> (u16, String, Option<String>) {
        let (status, answer) = self.call(method, path, body).await;
        let text = |name: &str| answer[name].as_str().map(str::to_owned);
        assert_eq!(
            text("status").as_deref(),
            Some("failed"),
            "{method} {path}: {status} {answer}"
        );
        assert!(!text("message").unwrap().is_empty());
        let known = ["status", "error", "message", "field"];
        assert!(
            answer.as_object().unwrap().keys().all(|k| known.contains(&k.as_str())),
            "{answer}"
        );
        (status.as_u16(), text("error").unwrap(), text("field"))
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}
