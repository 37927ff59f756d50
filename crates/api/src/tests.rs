//! The control API over a real SQLite store, called as a client calls it.

#![allow(clippy::unwrap_used)]

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

#[tokio::test]
async fn access_tokens_stand_for_an_api_key_until_it_is_revoked() {
    let service = Service::start().await;
    let project = service.store.create_project("a").await.unwrap();
    let (parts, body) = service.exchange(project.api_key.expose_secret(), "192.0.2.1").await;
    assert_eq!((parts.status, keys(&body)), (StatusCode::OK, vec!["access_token"]));
    let token = body["access_token"].as_str().unwrap();
    let header = jsonwebtoken::decode_header(token).unwrap();
    assert_eq!(
        (header.alg, header.typ.as_deref()),
        (jsonwebtoken::Algorithm::HS256, Some("JWT"))
    );
    let claims: Value = jsonwebtoken::dangerous::insecure_decode(token).unwrap().claims;
    assert_eq!(keys(&claims), ["exp", "iat", "sub"]);
    assert_eq!(claims["sub"], project.project_id.0);
    assert_eq!(
        claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(),
        86_400
    );

    let client = |token: &str| Client {
        router: service.router.clone(),
        token: token.to_owned(),
    };
    client(token).ok("GET", "/v1/domains", Value::Null).await;
    // The header form.
    let by_header = client(project.api_key.expose_secret());
    let made = by_header.ok("POST", "/v1/access_token", Value::Null).await;
    client(made["access_token"].as_str().unwrap())
        .ok("GET", "/v1/domains", Value::Null)
        .await;

    let sign = |alg, claims: Value, secret: &[u8]| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        jsonwebtoken::encode(&jsonwebtoken::Header::new(alg), &claims, &key).unwrap()
    };
    let none = format!(
        "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
        token.split('.').nth(1).unwrap()
    );
    let mut tampered = token.to_owned();
    tampered.replace_range(token.len() - 4.., "AAAA");
    for bad in [
        none,
        tampered,
        String::new(),
        "x".to_owned(),
        project.api_key.expose_secret().to_owned(),
        sign(jsonwebtoken::Algorithm::HS256, claims.clone(), b"guess"),
        sign(jsonwebtoken::Algorithm::HS512, claims.clone(), &[7; 32]),
        sign(
            jsonwebtoken::Algorithm::HS256,
            json!({"iat": 0, "sub": "1", "exp": 9_999_999_999_i64}),
            &[7; 32],
        ),
    ] {
        let failure = client(&bad).fails("GET", "/v1/domains", Body::empty()).await;
        assert_eq!((failure.0, failure.1.as_str()), (401, "invalid_access_token"), "{bad}");
    }
    let anonymous = Request::get("/v1/domains").body(Body::empty()).unwrap();
    let (parts, body) = send(&service.router, anonymous).await;
    assert_eq!(parts.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap()["error"],
        "access_token_missing"
    );

    // A second key, and the end of the first.
    let second = client(token).ok("POST", "/v1/api-keys", Value::Null).await;
    assert_eq!(keys(&second["api_key"]), ["api_key", "created", "id", "revoked"]);
    let listed = client(token).ok("GET", "/v1/api-keys", Value::Null).await;
    let first = listed["api_keys"][1]["id"].as_i64().unwrap();
    assert!(listed["api_keys"][1].get("api_key").is_none());
    client(token)
        .ok("DELETE", &format!("/v1/api-keys/{first}"), Value::Null)
        .await;
    assert_eq!(client(token).fails("GET", "/v1/domains", Body::empty()).await.0, 401);
    let (parts, _) = service.exchange(project.api_key.expose_secret(), "192.0.2.1").await;
    assert_eq!(parts.status, StatusCode::UNAUTHORIZED);
    let (parts, _) = service
        .exchange(second["api_key"]["api_key"].as_str().unwrap(), "192.0.2.1")
        .await;
    assert_eq!(parts.status, StatusCode::OK);
}

#[tokio::test]
async fn a_project_has_one_api_key_at_least_and_twenty_at_most() {
    let service = Service::start().await;
    let client = service.project("a").await;
    let only = client.ok("GET", "/v1/api-keys", Value::Null).await["api_keys"][0]["id"].clone();
    let refused = client
        .fails("DELETE", &format!("/v1/api-keys/{only}"), Body::empty())
        .await;
    assert_eq!((refused.0, refused.1.as_str()), (409, "last_api_key"));
    let mut made = Value::Null;
    for _ in 1..20 {
        made = client.ok("POST", "/v1/api-keys", Value::Null).await;
    }
    let refused = client.fails("POST", "/v1/api-keys", Body::empty()).await;
    assert_eq!((refused.0, refused.1.as_str()), (409, "api_key_limit_reached"));
    // One that is revoked makes room.
    let path = format!("/v1/api-keys/{}", made["api_key"]["id"]);
    client.ok("DELETE", &path, Value::Null).await;
    assert_eq!(client.fails("DELETE", &path, Body::empty()).await.0, 404);
    client.ok("POST", "/v1/api-keys", Value::Null).await;
}

#[tokio::test]
async fn guessing_api_keys_is_limited_by_source() {
    let service = Service::start().await;
    let project = service.store.create_project("a").await.unwrap();
    for _ in 0..10 {
        let (parts, body) = service.exchange("ew_wrong", "198.51.100.1").await;
        assert_eq!(
            (parts.status, &body["error"]),
            (StatusCode::UNAUTHORIZED, &json!("invalid_api_key"))
        );
    }
    for key in ["ew_wrong", project.api_key.expose_secret()] {
        let (parts, body) = service.exchange(key, "198.51.100.1").await;
        assert_eq!(
            (parts.status, &body["error"]),
            (StatusCode::TOO_MANY_REQUESTS, &json!("too_many_attempts"))
        );
        assert!(parts.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() <= 60);
    }
    let (parts, _) = service.exchange(project.api_key.expose_secret(), "198.51.100.2").await;
    assert_eq!(parts.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_made_at_once_do_not_pass_the_limit_together() {
    let service = Arc::new(Service::start().await);
    let guesses: Vec<_> = (0..50)
        .map(|_| {
            let service = service.clone();
            tokio::spawn(async move { service.exchange("ew_wrong", "198.51.100.1").await.0.status.as_u16() })
        })
        .collect();
    let mut answers = Vec::new();
    for guess in guesses {
        answers.push(guess.await.unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, [vec![401; 10], vec![429; 40]].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn right_api_keys_use_nothing_up_however_many_are_exchanged_at_once() {
    let service = Arc::new(Service::start_as(|config| config.failed_attempts_per_minute = 2).await);
    let project = service.store.create_project("a").await.unwrap();
    let (parts, _) = service.exchange("ew_wrong", "198.51.100.1").await;
    assert_eq!(parts.status, StatusCode::UNAUTHORIZED);
    let exchanges: Vec<_> = (0..50)
        .map(|_| {
            let (service, key) = (service.clone(), project.api_key.expose_secret().to_owned());
            tokio::spawn(async move { service.exchange(&key, "198.51.100.1").await.0.status.as_u16() })
        })
        .collect();
    for exchange in exchanges {
        assert_eq!(exchange.await.unwrap(), 200);
    }
    for wanted in [401, 429] {
        let (parts, _) = service.exchange("ew_wrong", "198.51.100.1").await;
        assert_eq!(parts.status.as_u16(), wanted);
    }
}

#[tokio::test]
async fn the_source_is_the_last_forwarded_address_and_the_peer_where_there_is_no_proxy() {
    let wrong =
        async |service: &Service, forwarded: &str| service.exchange("ew_wrong", forwarded).await.0.status.as_u16();
    let proxied = Service::start_as(|config| config.failed_attempts_per_minute = 1).await;
    // What a client itself claims stands before what our proxy adds.
    for (forwarded, status) in [
        ("192.0.2.9, 198.51.100.1", 401),
        ("192.0.2.8, 198.51.100.1", 429),
        ("198.51.100.1, 198.51.100.2", 401),
        ("198.51.100.2,  [nonsense", 401),
    ] {
        assert_eq!(wrong(&proxied, forwarded).await, status, "{forwarded}");
    }
    let direct = Service::start_as(|config| {
        config.failed_attempts_per_minute = 1;
        config.behind_proxy = false;
    })
    .await;
    assert_eq!(wrong(&direct, "198.51.100.1").await, 401);
    assert_eq!(wrong(&direct, "198.51.100.2").await, 429);
}

#[tokio::test]
async fn an_access_token_ends_after_a_day() {
    let service = Service::start().await;
    let project = service.store.create_project("a").await.unwrap();
    let live = service.store.live_api_keys(project.project_id).await.unwrap();
    let now = edgeweir_model::Timestamp::now().0;
    for (age, status) in [(86_400 - 60, 200), (86_400 + 1, 401)] {
        let secret = NodeSecret::new([7; 32]);
        let token = access_token::issue(&secret, &live[0], project.project_id, now - age).unwrap();
        let router = service.router.clone();
        let answer = Client { router, token }.call("GET", "/v1/domains", Body::empty()).await;
        assert_eq!(answer.0, status, "{age}");
    }
}

#[tokio::test]
async fn names_of_the_services_own_zone_are_refused() {
    let service = Service::start_as(|config| config.zone = "cdn.example.com".parse().unwrap()).await;
    let client = service.project("a").await;
    let body = |name: &str| json!({"name": name, "type": "live"});
    for (name, why) in [
        ("x.cdn.example.com", "own zone"),
        ("cdn.example.com", "own zone"),
        ("X.CDN.example.com.", "own zone"),
        ("a.internal", "reserved"),
    ] {
        let (status, answer) = client.call("POST", "/v1/domains", body(name).to_string()).await;
        assert_eq!(
            (status.as_u16(), &answer["error"]),
            (422, &json!("invalid_domain_name")),
            "{name}"
        );
        assert!(answer["message"].as_str().unwrap().contains(why), "{answer}");
    }
    client.ok("POST", "/v1/domains", body("xcdn.example.com")).await;
}

#[tokio::test]
async fn domains_and_their_subscriptions() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let live = client
        .ok(
            "POST",
            "/v1/domains",
            json!({"name": "Live.MyDomain.com.", "type": "live"}),
        )
        .await;
    assert_eq!(keys(&live), ["domain"]);
    let live = live["domain"].clone();
    assert_eq!(keys(&live), ["created", "domain_name", "id", "type"]);
    assert_eq!(
        (&live["domain_name"], &live["type"]),
        (&json!("live.mydomain.com"), &json!("live"))
    );
    assert_eq!(live["created"].as_str().unwrap().len(), "2023-06-07 14:17:25".len());
    let vod = client
        .ok(
            "POST",
            "/v1/domains",
            json!({"name": "vod.mydomain.com", "type": "vod", "bucket": "videos"}),
        )
        .await["domain"]
        .clone();
    assert_eq!(keys(&vod), ["bucket_name", "created", "domain_name", "id", "type"]);
    for (path, wanted) in [
        ("/v1/domains", vec![&vod, &live]),
        ("/v1/domains/live", vec![&live]),
        ("/v1/domains/vod", vec![&vod]),
    ] {
        assert_eq!(client.ok("GET", path, Value::Null).await, json!({ "domains": wanted }));
    }
    let path = format!("/v1/domains/{}", id(&live));
    assert_eq!(client.ok("GET", &path, Value::Null).await, json!({ "domain": live }));
    assert_eq!(
        client.ok("GET", &format!("{path}/policy"), Value::Null).await,
        json!({"policy": "public"})
    );
    client
        .ok("PUT", &format!("{path}/policy/authenticated"), Value::Null)
        .await;
    assert_eq!(
        client.ok("GET", &format!("{path}/policy"), Value::Null).await,
        json!({"policy": "authenticated"})
    );

    let made = client
        .ok("POST", "/v1/tls/subscriptions", json!({"domain_id": id(&live)}))
        .await;
    let made = made["tls_subscription"].clone();
    assert_eq!(keys(&made), ["created", "domain_id", "id", "message", "status"]);
    assert_eq!((&made["domain_id"], &made["status"]), (&live["id"], &json!("pending")));
    assert_eq!(
        made["message"],
        "TLS subscription created. You should verify your domain ownership. Create a CNAME for 'live.mydomain.com' \
         and point it to 'edge.edgeweir.localhost'."
    );
    let again = client
        .fails(
            "POST",
            "/v1/tls/subscriptions",
            json!({"domain_id": id(&live)}).to_string(),
        )
        .await;
    assert_eq!((again.0, again.1.as_str()), (409, "subscription_exists"));
    let one = format!("/v1/tls/subscriptions/{}", id(&made));
    assert_eq!(
        client.ok("GET", &one, Value::Null).await,
        json!({ "tls_subscription": made })
    );
    let all = client.ok("GET", "/v1/tls/subscriptions", Value::Null).await;
    assert_eq!(all, json!({ "tls_subscriptions": [made] }));
    assert_eq!(client.ok("DELETE", &one, Value::Null).await, json!({"status": "ok"}));
    assert_eq!(client.fails("GET", &one, Body::empty()).await.0, 404);
    client
        .ok("POST", "/v1/tls/subscriptions", json!({"domain_id": id(&live)}))
        .await;
    assert_eq!(client.ok("DELETE", &path, Value::Null).await, json!({"status": "ok"}));
    assert_eq!(client.fails("DELETE", &path, Body::empty()).await.0, 404);
    let all = client.ok("GET", "/v1/tls/subscriptions", Value::Null).await;
    assert_eq!(all, json!({ "tls_subscriptions": [] }));
    // The name stays its last owner's for a while.
    let other = service.project("b").await;
    let body = json!({"name": "live.mydomain.com", "type": "live"});
    assert_eq!(
        other.fails("POST", "/v1/domains", body.to_string()).await.1,
        "domain_taken"
    );
    client.ok("POST", "/v1/domains", body).await;
}

#[tokio::test]
async fn bodies_that_are_wrong_are_refused_by_field() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let label = "a".repeat(64);
    let deep = format!(
        r#"{{"name":"deep","origin":{{"type":"local","x":{}"#,
        "[".repeat(100_000)
    );
    let long = json!({"bucket_name": "videos", "name": "n".repeat(256)}).to_string();
    let domain = |name: &str| json!({"name": name, "type": "live"}).to_string();
    let cases: Vec<(&str, &str, String, u16, &str, Option<&str>)> = vec![
        ("POST", "/v1/domains", String::new(), 400, "malformed_json", None),
        ("POST", "/v1/domains", "{".into(), 400, "malformed_json", None),
        ("POST", "/v1/domains", "{} x".into(), 400, "missing_field", Some("name")),
        ("POST", "/v1/domains", "[]".into(), 400, "malformed_body", None),
        ("POST", "/v1/domains", "\"x\"".into(), 400, "malformed_body", None),
        ("POST", "/v1/buckets", deep, 400, "malformed_json", None),
        (
            "POST",
            "/v1/domains",
            r#"{"name":"a.b"}"#.into(),
            400,
            "missing_field",
            Some("type"),
        ),
        (
            "POST",
            "/v1/domains",
            r#"{"name":1,"type":"live"}"#.into(),
            400,
            "invalid_field",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            r#"{"name":"a.b","name":"a.b","type":"live"}"#.into(),
            400,
            "duplicate_field",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            r#"{"name":"a.b","type":"live","id":"1"}"#.into(),
            400,
            "unknown_field",
            Some("id"),
        ),
        (
            "POST",
            "/v1/domains",
            r#"{"name":"a.b","type":"live","project_id":1}"#.into(),
            400,
            "unknown_field",
            Some("project_id"),
        ),
        (
            "POST",
            "/v1/domains",
            r#"{"name":"a.b","type":"other"}"#.into(),
            422,
            "invalid_domain_type",
            Some("type"),
        ),
        (
            "POST",
            "/v1/domains",
            r#"{"name":"a.b","type":"vod"}"#.into(),
            400,
            "missing_field",
            Some("bucket_name"),
        ),
        (
            "POST",
            "/v1/domains",
            r#"{"name":"a.b","type":"live","bucket_name":"videos"}"#.into(),
            422,
            "bucket_not_allowed",
            Some("bucket_name"),
        ),
        (
            "POST",
            "/v1/domains",
            r#"{"name":"a.b","type":"vod","bucket_name":"none"}"#.into(),
            404,
            "not_found",
            Some("bucket_name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("com"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain(""),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("*.example.com"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("192.0.2.1"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("[::1]"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain(&format!("{label}.com")),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("a_b.example.com"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("-a.example.com"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("a..example.com"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("a\r\nb.example.com"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("localhost"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("x.edgeweir.localhost"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/domains",
            domain("edgeweir.localhost"),
            422,
            "invalid_domain_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/tls/subscriptions",
            "{}".into(),
            400,
            "missing_field",
            Some("domain_id"),
        ),
        (
            "POST",
            "/v1/tls/subscriptions",
            r#"{"domain_id":"x"}"#.into(),
            404,
            "not_found",
            Some("domain_id"),
        ),
        ("POST", "/v1/signing-keys", "{}".into(), 400, "one_scope_required", None),
        (
            "POST",
            "/v1/signing-keys",
            r#"{"bucket_name":"videos","domain_id":"x"}"#.into(),
            400,
            "one_scope_required",
            None,
        ),
        (
            "POST",
            "/v1/signing-keys",
            r#"{"bucket_name":"none"}"#.into(),
            404,
            "not_found",
            Some("bucket_name"),
        ),
        (
            "POST",
            "/v1/signing-keys",
            r#"{"stream_id":"' or 1=1 --"}"#.into(),
            404,
            "not_found",
            Some("stream_id"),
        ),
        ("POST", "/v1/signing-keys", long, 422, "invalid_name", Some("name")),
        (
            "POST",
            "/v1/signing-keys",
            r#"{"bucket_name":"videos","name":"a\u0000b"}"#.into(),
            422,
            "invalid_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"No"}"#.into(),
            422,
            "invalid_bucket_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"../etc"}"#.into(),
            422,
            "invalid_bucket_name",
            Some("name"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"videos"}"#.into(),
            409,
            "bucket_taken",
            Some("name"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","region":"mars"}"#.into(),
            422,
            "unknown_region",
            Some("region"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"ftp"}}"#.into(),
            400,
            "invalid_field",
            Some("origin.type"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"local","path":"/etc"}}"#.into(),
            400,
            "unknown_field",
            Some("path"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http"}}"#.into(),
            400,
            "missing_field",
            Some("url"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http","url":"file:///etc/passwd"}}"#.into(),
            422,
            "invalid_origin_url",
            Some("origin.url"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http","url":"http://127.0.0.1"}}"#.into(),
            422,
            "origin_private",
            Some("origin.url"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http","url":"http://[::ffff:10.0.0.1]/"}}"#.into(),
            422,
            "origin_private",
            Some("origin.url"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http","url":"http://169.254.169.254/"}}"#.into(),
            422,
            "origin_private",
            Some("origin.url"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http","url":"http://LOCALHOST./"}}"#.into(),
            422,
            "origin_private",
            Some("origin.url"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http","url":"http://o.example","methods":["CONNECT"]}}"#.into(),
            422,
            "invalid_methods",
            Some("origin.methods"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http","url":"http://o.example","methods":["connect"]}}"#.into(),
            422,
            "invalid_methods",
            Some("origin.methods"),
        ),
        (
            "POST",
            "/v1/buckets",
            r#"{"name":"more","origin":{"type":"http","url":"http://o.example","methods":["trace"]}}"#.into(),
            422,
            "invalid_methods",
            Some("origin.methods"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"path":"../x"}"#.into(),
            422,
            "invalid_path",
            Some("path"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"path":""}"#.into(),
            422,
            "invalid_path",
            Some("path"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            "{}".into(),
            400,
            "missing_field",
            Some("path"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"soft":true}"#.into(),
            400,
            "missing_field",
            Some("path"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"path":null}"#.into(),
            400,
            "invalid_field",
            Some("path"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"path":"a","prefix":"b"}"#.into(),
            400,
            "one_target_required",
            Some("prefix"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"prefix":"b","surrogate_keys":[]}"#.into(),
            400,
            "one_target_required",
            Some("surrogate_keys"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"path":"a","soft":"yes"}"#.into(),
            400,
            "invalid_field",
            Some("soft"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"paths":["a"]}"#.into(),
            400,
            "unknown_field",
            Some("paths"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"prefix":""}"#.into(),
            422,
            "invalid_prefix",
            Some("prefix"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"prefix":"/"}"#.into(),
            422,
            "invalid_prefix",
            Some("prefix"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"prefix":"a//"}"#.into(),
            422,
            "invalid_prefix",
            Some("prefix"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"prefix":["a"]}"#.into(),
            400,
            "invalid_field",
            Some("prefix"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"surrogate_keys":"a"}"#.into(),
            400,
            "invalid_field",
            Some("surrogate_keys"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"surrogate_keys":[]}"#.into(),
            422,
            "invalid_surrogate_keys",
            Some("surrogate_keys"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            json!({"surrogate_keys": vec!["a"; 65]}).to_string(),
            422,
            "invalid_surrogate_keys",
            Some("surrogate_keys"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"surrogate_keys":["a",7]}"#.into(),
            400,
            "invalid_field",
            Some("surrogate_keys[1]"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"surrogate_keys":["a","b c"]}"#.into(),
            422,
            "invalid_surrogate_keys",
            Some("surrogate_keys[1]"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"surrogate_keys":["a,b"]}"#.into(),
            422,
            "invalid_surrogate_keys",
            Some("surrogate_keys[0]"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            r#"{"surrogate_keys":[""]}"#.into(),
            422,
            "invalid_surrogate_keys",
            Some("surrogate_keys[0]"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge",
            json!({"surrogate_keys": ["k".repeat(257)]}).to_string(),
            422,
            "invalid_surrogate_keys",
            Some("surrogate_keys[0]"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge_all",
            r#"{"soft":1}"#.into(),
            400,
            "invalid_field",
            Some("soft"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge_all",
            r#"{"path":"a"}"#.into(),
            400,
            "unknown_field",
            Some("path"),
        ),
        (
            "POST",
            "/v1/buckets/videos/cache/purge_all",
            "[]".into(),
            400,
            "malformed_body",
            None,
        ),
        (
            "POST",
            "/v1/live-streams",
            r#"{"name":"s","origin":{"type":"pull","url":"http://localhost/x.m3u8"}}"#.into(),
            422,
            "origin_private",
            Some("origin.url"),
        ),
        (
            "POST",
            "/v1/live-streams",
            "{}".into(),
            400,
            "missing_field",
            Some("name"),
        ),
        (
            "PUT",
            "/v1/buckets/videos/policy/open",
            String::new(),
            422,
            "invalid_policy",
            Some("policy"),
        ),
        (
            "GET",
            "/v1/buckets?limit=0",
            String::new(),
            422,
            "invalid_limit",
            Some("limit"),
        ),
        (
            "GET",
            "/v1/buckets?limit=1001",
            String::new(),
            422,
            "invalid_limit",
            Some("limit"),
        ),
        (
            "GET",
            "/v1/buckets?after=none",
            String::new(),
            422,
            "invalid_after",
            Some("after"),
        ),
        (
            "GET",
            "/v1/buckets/videos/objects/..%2fx",
            String::new(),
            400,
            "invalid_key",
            Some("key"),
        ),
        (
            "PUT",
            "/v1/buckets/videos/objects/a/../b",
            "x".into(),
            400,
            "invalid_key",
            Some("key"),
        ),
        (
            "PUT",
            "/v1/buckets/videos/objects/a%00b",
            "x".into(),
            400,
            "invalid_key",
            Some("key"),
        ),
        ("GET", "/v1/nowhere", String::new(), 404, "not_found", None),
        ("GET", "/v1/domains/not-a-uuid", String::new(), 404, "not_found", None),
        ("GET", "/v1/domains/%ff", String::new(), 404, "not_found", None),
        ("PATCH", "/v1/domains", String::new(), 405, "method_not_allowed", None),
    ];
    for (method, path, body, status, code, field) in cases {
        let shown: String = body.chars().take(100).collect();
        let failure = client.fails(method, path, body).await;
        assert_eq!(
            (failure.0, failure.1.as_str(), failure.2.as_deref()),
            (status, code, field),
            "{method} {path} {shown}"
        );
    }
    let (parts, _) = client.raw("PATCH", "/v1/domains", Body::empty()).await;
    assert_eq!(parts.headers["allow"], "POST,GET,HEAD");
    // Too large, with and without a length.
    let large = format!("{{\"name\": \"{}\"}}", "a".repeat(1 << 20));
    assert_eq!(client.fails("POST", "/v1/domains", large.clone()).await.0, 413);
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(bytes::Bytes::from(large))]);
    assert_eq!(
        client.fails("POST", "/v1/domains", Body::from_stream(chunks)).await.1,
        "body_too_large"
    );
    // Nothing of all that was made.
    assert_eq!(
        client.ok("GET", "/v1/domains", Value::Null).await,
        json!({"domains": []})
    );
    assert_eq!(
        client.ok("GET", "/v1/buckets", Value::Null).await["buckets"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn the_domain_limit_holds_under_concurrent_creation() {
    let service = Service::start().await;
    let client = Arc::new(service.project("a").await);
    let tasks: Vec<_> = (0..25)
        .map(|n| {
            let client = client.clone();
            let body = json!({"name": format!("d{n}.example.com"), "type": "live"}).to_string();
            tokio::spawn(async move { client.call("POST", "/v1/domains", body).await })
        })
        .collect();
    let (mut made, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            (StatusCode::OK, _) => made += 1,
            (StatusCode::CONFLICT, body) if body["error"] == "domain_limit_reached" => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((made, refused), (20, 5));
    let listed = client.ok("GET", "/v1/domains", Value::Null).await;
    assert_eq!(listed["domains"].as_array().unwrap().len(), 20);
}

#[tokio::test]
async fn signing_keys_show_their_private_half_once() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let stream = client.ok("POST", "/v1/live-streams", json!({"name": "s"})).await["live_stream"].clone();
    let policy = format!("/v1/live-streams/{}/policy", id(&stream));
    assert_eq!(
        client.ok("GET", &policy, Value::Null).await,
        json!({"policy": "public"})
    );
    let of_stream = client
        .ok("POST", "/v1/signing-keys", json!({"stream_id": id(&stream)}))
        .await;
    let of_stream = of_stream["signing_key"].clone();
    assert_eq!(keys(&of_stream), ["created", "id", "name", "private_key", "stream_id"]);
    assert_eq!(of_stream["name"], Value::Null);
    assert!(
        of_stream["private_key"]
            .as_str()
            .unwrap()
            .starts_with("-----BEGIN RSA PRIVATE KEY-----\n")
    );
    assert_eq!(
        client.ok("GET", &policy, Value::Null).await,
        json!({"policy": "authenticated"})
    );

    let of_bucket = client
        .ok(
            "POST",
            "/v1/signing-keys",
            json!({"bucket_name": "videos", "name": "k"}),
        )
        .await;
    let of_bucket = of_bucket["signing_key"].clone();
    assert_eq!(
        keys(&of_bucket),
        ["bucket_name", "created", "id", "name", "private_key"]
    );
    let path = format!("/v1/signing-keys/{}", id(&of_bucket));
    let read = client.ok("GET", &path, Value::Null).await["signing_key"].clone();
    assert_eq!(keys(&read), ["bucket_name", "created", "id", "name"]);
    let renamed = client.ok("PUT", &path, json!({"name": "My signing key"})).await;
    assert_eq!(renamed["signing_key"]["name"], "My signing key");
    assert_eq!(
        client.ok("PUT", &path, json!({"name": null})).await["signing_key"]["name"],
        Value::Null
    );
    assert_eq!(client.fails("PUT", &path, "{}").await.1, "missing_field");
    let page = client.ok("GET", "/v1/signing-keys?limit=1", Value::Null).await;
    assert_eq!(keys(&page), ["next", "signing_keys"]);
    let rest = client
        .ok(
            "GET",
            &format!("/v1/signing-keys?limit=1&after={}", page["next"].as_str().unwrap()),
            Value::Null,
        )
        .await;
    assert_eq!(
        (keys(&rest), &rest["signing_keys"][0]["id"]),
        (vec!["signing_keys"], &of_stream["id"])
    );
    client.ok("DELETE", &path, Value::Null).await;
    assert_eq!(client.fails("DELETE", &path, Body::empty()).await.0, 404);
    // The stream does not open by itself when its last key goes.
    client
        .ok("DELETE", &format!("/v1/signing-keys/{}", id(&of_stream)), Value::Null)
        .await;
    assert_eq!(
        client.ok("GET", &policy, Value::Null).await,
        json!({"policy": "authenticated"})
    );
}

#[tokio::test]
async fn an_s3_origin_never_shows_its_secret() {
    let service = Service::start().await;
    let client = service.project("a").await;
    let shown = json!({"type": "s3", "endpoint": "https://s3.example.com", "bucket": "videos", "region": "eu-west-1",
        "access_key_id": "AKIA", "path_style": false});
    let with = |field: &str, value: Value| {
        let mut origin = shown.clone();
        origin["secret_access_key"] = json!("SECRETSECRET");
        origin[field] = value;
        origin
    };
    let given = with("endpoint", json!("https://S3.example.com/"));
    let made = client
        .ok("POST", "/v1/buckets", json!({"name": "mine", "origin": given}))
        .await;
    assert_eq!(made["bucket"]["origin"], shown);
    let path = "/v1/buckets/mine";
    assert_eq!(client.ok("GET", path, Value::Null).await["bucket"]["origin"], shown);
    assert_eq!(
        client.fails("GET", "/v1/buckets/mine/objects", Body::empty()).await.1,
        "bucket_not_local"
    );
    for (field, value, status, code, at) in [
        (
            "endpoint",
            json!("ftp://a"),
            422,
            "invalid_origin_url",
            "origin.endpoint",
        ),
        (
            "endpoint",
            json!("http://10.0.0.1"),
            422,
            "invalid_origin_bucket",
            "origin.bucket",
        ),
        (
            "endpoint",
            json!("http://localhost"),
            422,
            "origin_private",
            "origin.endpoint",
        ),
        ("bucket", json!("a/b"), 422, "invalid_origin_bucket", "origin.bucket"),
        ("region", json!(""), 422, "invalid_origin_region", "origin.region"),
        (
            "access_key_id",
            json!("a,b"),
            422,
            "invalid_credentials",
            "origin.access_key_id",
        ),
        (
            "secret_access_key",
            json!(""),
            422,
            "invalid_credentials",
            "origin.secret_access_key",
        ),
        (
            "secret_access_key",
            json!("SECRET\n"),
            422,
            "invalid_credentials",
            "origin.secret_access_key",
        ),
        ("secret_access_key", json!(123_456), 400, "invalid_field", "origin"),
        ("session_token", json!("SECRET"), 400, "unknown_field", "session_token"),
    ] {
        let body = json!({"origin": with(field, value.clone())}).to_string();
        let (parts, body) = client.raw("PUT", path, body).await;
        let text = String::from_utf8_lossy(&body).into_owned();
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(parts.status.as_u16(), status, "{field} {value}: {text}");
        assert_eq!(
            (body["error"].as_str(), body["field"].as_str()),
            (Some(code), Some(at)),
            "{field} {value}"
        );
        assert!(!text.contains("SECRET") && !text.contains("123456"), "{text}");
    }
    let mut without = shown.clone();
    without["path_style"] = json!(true);
    assert_eq!(
        client
            .fails("PUT", path, json!({"origin": without}).to_string())
            .await
            .1,
        "missing_field"
    );
    service.store.close().await;
    for file in std::fs::read_dir(service.dir.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap_or_default();
        assert!(!content.windows(6).any(|w| w == b"SECRET"));
    }
}

#[tokio::test]
async fn buckets_policies_cors_and_purges() {
    let service = Service::start().await;
    let client = service.project("a").await;
    let origin = json!({"type": "http", "url": "https://Origin.example.com/base/", "methods": ["POST"]});
    let made = client
        .ok(
            "POST",
            "/v1/buckets",
            json!({"name": "videos", "region": "eu", "origin": origin}),
        )
        .await;
    let made = made["bucket"].clone();
    assert_eq!(keys(&made), ["created", "host", "name", "origin", "policy", "region"]);
    assert_eq!(made["host"], "videos.media-storage.eu.edgeweir.localhost");
    assert_eq!(
        made["origin"],
        json!({"type": "http", "url": "https://origin.example.com/base", "methods": ["GET", "HEAD", "POST"]})
    );
    let path = "/v1/buckets/videos";
    assert_eq!(client.ok("GET", path, Value::Null).await["bucket"], made);
    assert_eq!(
        client.fails("GET", "/v1/buckets/videos/objects", Body::empty()).await.1,
        "bucket_not_local"
    );
    let changed = client.ok("PUT", path, json!({"origin": {"type": "local"}})).await;
    assert_eq!(changed["bucket"]["origin"], json!({"type": "local"}));

    assert_eq!(
        client.ok("GET", "/v1/buckets/videos/policy", Value::Null).await,
        json!({"policy": "public"})
    );
    client
        .ok("PUT", "/v1/buckets/videos/policy/authenticated", Value::Null)
        .await;
    assert_eq!(
        client.ok("GET", "/v1/buckets/videos/policy", Value::Null).await,
        json!({"policy": "authenticated"})
    );

    let cors = "/v1/buckets/videos/cors";
    assert_eq!(client.ok("GET", cors, Value::Null).await, json!({}));
    let given = json!({"access-control-allow-origin": "https://p.example", "Access-Control-Allow-Credentials": true,
        "ACCESS-CONTROL-MAX-AGE": 600, "Access-Control-Allow-Methods": "GET, PUT"});
    client.ok("POST", cors, given).await;
    let kept = json!({"Access-Control-Allow-Origin": "https://p.example", "Access-Control-Allow-Credentials": "true",
        "Access-Control-Max-Age": "600", "Access-Control-Allow-Methods": "GET, PUT"});
    assert_eq!(client.ok("GET", cors, Value::Null).await, kept);
    for (bad, field) in [
        (json!({"X-Other": "1"}), "X-Other"),
        (
            json!({"Access-Control-Allow-Origin": "a\r\nSet-Cookie: x"}),
            "Access-Control-Allow-Origin",
        ),
        (
            json!({"Access-Control-Allow-Origin": "https://a.example\t"}),
            "Access-Control-Allow-Origin",
        ),
        (
            json!({"Access-Control-Allow-Methods": "GET,\tPUT"}),
            "Access-Control-Allow-Methods",
        ),
        (
            json!({"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Credentials": true}),
            "Access-Control-Allow-Credentials",
        ),
        (
            json!({"Access-Control-Allow-Credentials": true}),
            "Access-Control-Allow-Credentials",
        ),
        (
            json!({"Access-Control-Allow-Methods": "GET, FETCH"}),
            "Access-Control-Allow-Methods",
        ),
        (json!({"Access-Control-Max-Age": -1}), "Access-Control-Max-Age"),
        (json!({"Access-Control-Max-Age": 1.5}), "Access-Control-Max-Age"),
    ] {
        let failure = client.fails("POST", cors, bad.to_string()).await;
        assert_eq!((failure.0, failure.2.as_deref()), (422, Some(field)), "{bad}");
    }
    let duplicate = r#"{"Access-Control-Max-Age": 1, "access-control-max-age": 2}"#;
    assert_eq!(client.fails("POST", cors, duplicate).await.0, 422);
    assert_eq!(
        client.fails("POST", cors, r#"{"Access-Control-Max-Age": [1]}"#).await.0,
        400
    );
    // Credentials for all cannot be reached over two writes either.
    let header = format!("{cors}/access-control-allow-origin");
    assert_eq!(client.fails("DELETE", &header, Body::empty()).await.1, "invalid_cors");
    assert_eq!(client.ok("GET", cors, Value::Null).await, kept);
    client
        .ok(
            "DELETE",
            &format!("{cors}/Access-Control-Allow-Credentials"),
            Value::Null,
        )
        .await;
    client.ok("DELETE", &header, Value::Null).await;
    assert_eq!(
        client
            .fails("DELETE", &format!("{cors}/X-Other"), Body::empty())
            .await
            .0,
        422
    );
    client.ok("DELETE", cors, Value::Null).await;
    assert_eq!(client.ok("GET", cors, Value::Null).await, json!({}));

    let ok = json!({"status": "ok"});
    assert_eq!(
        client
            .ok("POST", "/v1/buckets/videos/cache/purge_all", Value::Null)
            .await,
        ok
    );
    let purge = json!({"path": "path/to/object"});
    assert_eq!(client.ok("POST", "/v1/buckets/videos/cache/purge", purge).await, ok);
}

#[tokio::test]
async fn purges_reach_the_change_log_as_they_were_asked_for() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let object = |key: &str| Purged::Object(ObjectKey::new(key).unwrap());
    let prefix = |prefix: &str| Purged::Prefix(KeyPrefix::new(prefix).unwrap());
    let tags = |keys: &[&str]| Purged::SurrogateKeys(keys.iter().map(|key| SurrogateKey::new(key).unwrap()).collect());
    let longest = "k".repeat(256);
    let most = vec!["a"; 64];
    // What is none of these is a change of rows.
    let cases = [
        ("purge", json!({"path": "a/b"}), Some(Purge::hard(object("a/b")))),
        (
            "purge",
            json!({"path": "/a%20b", "soft": false}),
            Some(Purge::hard(object("a%20b"))),
        ),
        (
            "purge",
            json!({"path": "a", "soft": true}),
            Some(Purge::soft(object("a"))),
        ),
        (
            "purge",
            json!({"prefix": "/movies/2026-"}),
            Some(Purge::hard(prefix("movies/2026-"))),
        ),
        (
            "purge",
            json!({"prefix": "a", "soft": true}),
            Some(Purge::soft(prefix("a"))),
        ),
        (
            "purge",
            json!({"surrogate_keys": ["p-1", longest]}),
            Some(Purge::hard(tags(&["p-1", &longest]))),
        ),
        (
            "purge",
            json!({"surrogate_keys": most, "soft": true}),
            Some(Purge::soft(tags(&most))),
        ),
        ("purge_all", Value::Null, None),
        ("purge_all", json!({}), None),
        ("purge_all", json!({"soft": false}), None),
        (
            "purge_all",
            json!({"soft": true}),
            Some(Purge::soft(Purged::Everything)),
        ),
    ];
    let generation = async || {
        let snapshot = service
            .store
            .snapshot(&"edgeweir.localhost".parse().unwrap())
            .await
            .unwrap();
        match &snapshot
            .site("videos.media-storage.local.edgeweir.localhost")
            .unwrap()
            .content
        {
            Content::Bucket(bucket) => (bucket.id, bucket.generation),
            other => panic!("{other:?}"),
        }
    };
    for (endpoint, body, expected) in cases {
        let (bucket, before) = generation().await;
        let last = *service.store.commits().borrow();
        let path = format!("/v1/buckets/videos/cache/{endpoint}");
        let answer = client.ok("POST", &path, body.clone()).await;
        assert_eq!(answer, json!({"status": "ok"}), "{body}");
        let changes = service.store.changes_since(last).await.unwrap().unwrap();
        let raised = u64::from(expected.is_none());
        let change = expected.map_or(Change::Rows, |purge| Change::Purge { bucket, purge });
        assert_eq!(changes, [(last + 1, change)], "{endpoint} {body}");
        assert_eq!(generation().await.1, before + raised, "{endpoint} {body}");
    }
}

#[tokio::test]
async fn objects_are_put_read_listed_and_deleted() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let objects = "/v1/buckets/videos/objects";
    for (key, content) in [("a%20b.mp4", "one"), ("hls/x.m3u8", "#EXTM3U\n"), ("hls/y.ts", "three")] {
        let (status, body) = client.call("PUT", &format!("{objects}/{key}"), content).await;
        assert_eq!(
            (status, keys(&body["object"])),
            (StatusCode::OK, vec!["etag", "key", "modified", "size"])
        );
        assert_eq!(body["object"]["size"], content.len());
    }
    let (parts, body) = client.raw("GET", &format!("{objects}/a%20b.mp4"), Body::empty()).await;
    assert_eq!(
        (parts.status, &body[..], parts.headers["content-type"].as_bytes()),
        (StatusCode::OK, &b"one"[..], &b"video/mp4"[..])
    );
    let (parts, body) = client
        .raw("HEAD", &format!("{objects}/hls/x.m3u8"), Body::empty())
        .await;
    assert_eq!((parts.headers["content-length"].as_bytes(), body.len()), (&b"8"[..], 0));
    let listed = |list: &Value| -> Vec<String> {
        let all = list["objects"].as_array().unwrap();
        all.iter().map(|o| o["key"].as_str().unwrap().to_owned()).collect()
    };
    let list = client.ok("GET", objects, Value::Null).await;
    assert_eq!(
        (listed(&list), keys(&list)),
        (
            vec!["a b.mp4".into(), "hls/x.m3u8".into(), "hls/y.ts".into()],
            vec!["objects"]
        )
    );
    let list = client
        .ok("GET", &format!("{objects}?prefix=hls%2F&limit=1"), Value::Null)
        .await;
    assert_eq!(
        (listed(&list), &list["next"]),
        (vec!["hls/x.m3u8".into()], &json!("hls/x.m3u8"))
    );
    let list = client
        .ok("GET", &format!("{objects}?prefix=hls/&after=hls/x.m3u8"), Value::Null)
        .await;
    assert_eq!(listed(&list), ["hls/y.ts"]);

    let large = vec![0_u8; (4 << 20) + 1];
    assert_eq!(
        client.fails("PUT", &format!("{objects}/large"), large).await.1,
        "object_too_large"
    );
    assert_eq!(
        client.fails("PUT", &format!("{objects}/hls"), "x").await.1,
        "key_conflict"
    );
    // No file has a longer name.
    for key in ["n".repeat(256), format!("a/{}/b", "n".repeat(256)), "n".repeat(1024)] {
        let refused = client.fails("PUT", &format!("{objects}/{key}"), "x").await;
        assert_eq!(
            (refused.0, refused.1.as_str(), refused.2.as_deref()),
            (422, "invalid_key", Some("key")),
            "{key}"
        );
    }
    let longest = format!("{objects}/{}", "n".repeat(255));
    client.call("PUT", &longest, "x").await;
    client.ok("DELETE", &longest, Value::Null).await;
    assert_eq!(
        client.fails("GET", &format!("{objects}/none"), Body::empty()).await.0,
        404
    );
    assert_eq!(
        client.fails("DELETE", "/v1/buckets/videos", Body::empty()).await.1,
        "bucket_not_empty"
    );
    for key in ["a%20b.mp4", "hls/x.m3u8", "hls/y.ts"] {
        client.ok("DELETE", &format!("{objects}/{key}"), Value::Null).await;
        assert_eq!(
            client
                .fails("DELETE", &format!("{objects}/{key}"), Body::empty())
                .await
                .0,
            404
        );
    }
    client
        .ok(
            "POST",
            "/v1/domains",
            json!({"name": "v.example.com", "type": "vod", "bucket_name": "videos"}),
        )
        .await;
    assert_eq!(
        client.fails("DELETE", "/v1/buckets/videos", Body::empty()).await.1,
        "bucket_in_use"
    );
    // What was refused is whole: it still takes objects.
    client.call("PUT", &format!("{objects}/again"), "x").await;
    assert_eq!(
        client.ok("GET", objects, Value::Null).await["objects"][0]["key"],
        "again"
    );
}

/// The body of an upload that has begun: more comes when it is sent, and the end when the sender is dropped.
fn held_open() -> (tokio::sync::mpsc::Sender<Result<bytes::Bytes, std::io::Error>>, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let content = futures_util::stream::unfold(receiver, async |mut r| Some((r.recv().await?, r)));
    (sender, Body::from_stream(content))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_held_open_does_not_reach_the_next_owner_of_the_name() {
    let service = Service::start().await;
    let (a, b) = (Arc::new(service.project("a").await), service.project("b").await);
    let new = json!({"name": "videos"});
    let path = "/v1/buckets/videos/objects/a.mp4";
    for recreated in [false, true] {
        a.ok("POST", "/v1/buckets", new.clone()).await;
        let (sender, body) = held_open();
        let upload = {
            let a = a.clone();
            tokio::spawn(async move { a.fails("PUT", path, body).await })
        };
        sender.send(Ok("from a".into())).await.unwrap();
        // Taken once the upload has its place on the disk.
        sender.send(Ok("from a".into())).await.unwrap();
        a.ok("DELETE", "/v1/buckets/videos", Value::Null).await;
        if recreated {
            b.ok("POST", "/v1/buckets", new.clone()).await;
            b.call("PUT", path, "from b").await;
        }
        drop(sender);
        assert_eq!(upload.await.unwrap().0, 404);
    }
    assert_eq!(b.raw("GET", path, Body::empty()).await.1, "from b");
    let folders = std::fs::read_dir(service.dir.path().join("buckets")).unwrap();
    assert_eq!(folders.count(), 1, "nothing of a's buckets is left");
}

#[tokio::test]
async fn a_bucket_that_holds_objects_keeps_its_origin() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let (bucket, object) = ("/v1/buckets/videos", "/v1/buckets/videos/objects/a");
    client.call("PUT", object, "x").await;
    let pulled = json!({"origin": {"type": "http", "url": "https://origin.example.com"}});
    let refused = client.fails("PUT", bucket, pulled.to_string()).await;
    assert_eq!((refused.0, refused.1.as_str()), (409, "bucket_not_empty"));
    assert_eq!(client.raw("GET", object, Body::empty()).await.1, "x");
    client.ok("PUT", bucket, json!({"origin": {"type": "local"}})).await;
    client.ok("DELETE", object, Value::Null).await;
    client.ok("PUT", bucket, pulled).await;
    client.ok("DELETE", bucket, Value::Null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_purged_also_when_the_client_has_gone_or_the_file_was_gone() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let path = "/v1/buckets/videos/objects/a";
    // The client goes when everything is sent, and the handler with it.
    let (sender, body) = held_open();
    let request = Request::put(path)
        .header(AUTHORIZATION, format!("Bearer {}", client.token))
        .body(body)
        .unwrap();
    let upload = tokio::spawn(service.router.clone().oneshot(request));
    for _ in 0..3 {
        sender.send(Ok("x".into())).await.unwrap();
    }
    let mut commits = service.store.commits();
    let before = *commits.borrow_and_update();
    upload.abort();
    assert!(upload.await.unwrap_err().is_cancelled());
    drop(sender);
    commits.changed().await.unwrap();
    let changes = service.store.changes_since(before).await.unwrap().unwrap();
    let purged = match &changes[..] {
        [(_, Change::Purge { purge, .. })] => purge,
        other => panic!("{other:?}"),
    };
    assert_eq!(*purged, Purge::hard(Purged::Object(ObjectKey::new("a").unwrap())));
    // An earlier DELETE came as far as the file, and not to the purge.
    let folder = std::fs::read_dir(service.dir.path().join("buckets")).unwrap().next();
    std::fs::remove_file(folder.unwrap().unwrap().path().join("a")).unwrap();
    let before = *service.store.commits().borrow();
    assert_eq!(client.fails("DELETE", path, Body::empty()).await.0, 404);
    assert_eq!(*service.store.commits().borrow(), before + 1);
}

#[tokio::test]
async fn an_object_whose_change_may_not_last_is_purged_and_the_answer_says_so() {
    let failing = |storage: LocalStorage| storage.syncing(|_| Err(rustix::io::Errno::IO));
    let service = Service::start_over(|_| {}, failing).await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    let path = "/v1/buckets/videos/objects/a";
    for (method, there) in [("PUT", StatusCode::OK), ("DELETE", StatusCode::NOT_FOUND)] {
        let before = *service.store.commits().borrow();
        let failure = client.fails(method, path, "x").await;
        assert_eq!((failure.0, failure.1.as_str()), (503, "unavailable"), "{method}");
        assert_eq!(client.raw("GET", path, Body::empty()).await.0.status, there, "{method}");
        let changes = service.store.changes_since(before).await.unwrap().unwrap();
        let purged = matches!(&changes[..], [(_, Change::Purge { .. })]);
        assert!(purged, "{method}: {changes:?}");
    }
}

#[tokio::test]
async fn what_the_edge_has_not_applied_is_not_called_done() {
    let service = Service::start().await;
    let client = service.project("a").await;
    client.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    // An edge that follows, and never comes to anything.
    service.store.attach_applier();
    let delete = "/v1/buckets/videos/cache/purge_all";
    let (parts, body) = client.raw("POST", delete, Body::empty()).await;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (parts.status.as_u16(), &body["error"]),
        (503, &json!("not_yet_in_effect"))
    );
    assert_eq!(parts.headers["retry-after"], "1");
    let put = client.fails("PUT", "/v1/buckets/videos/objects/a", "x").await;
    assert_eq!(put.1, "not_yet_in_effect");
    client.ok("POST", "/v1/buckets", json!({"name": "others"})).await;
}

#[tokio::test]
async fn live_streams_are_registered() {
    let service = Service::start().await;
    let client = service.project("a").await;
    let made = client
        .ok(
            "POST",
            "/v1/live-streams",
            json!({"name": "cam", "origin": {"type": "ingest"}}),
        )
        .await;
    let made = made["live_stream"].clone();
    assert_eq!(
        keys(&made),
        [
            "created",
            "id",
            "ingest_url",
            "name",
            "origin",
            "playback_id",
            "playback_url",
            "status",
            "stream_key"
        ]
    );
    let playback = made["playback_id"].as_str().unwrap();
    assert!(playback.len() >= 22 && playback.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
    assert_eq!(
        made["playback_url"],
        format!("https://play-{playback}.edgeweir.localhost:8443/qhls/qlive/playlist.m3u8")
    );
    let key = made["stream_key"].as_str().unwrap();
    assert_eq!(
        made["ingest_url"],
        format!("https://ingest.edgeweir.localhost:8443/{key}/")
    );
    let path = format!("/v1/live-streams/{}", id(&made));
    let read = client.ok("GET", &path, Value::Null).await["live_stream"].clone();
    assert_eq!(
        keys(&read),
        [
            "created",
            "id",
            "name",
            "origin",
            "playback_id",
            "playback_url",
            "status"
        ]
    );
    assert_eq!(read["status"], "idle");
    let url = "https://origin.example.com/live/master.m3u8";
    let pulled = client
        .ok(
            "POST",
            "/v1/live-streams",
            json!({"name": "p", "origin": {"type": "pull", "url": url}}),
        )
        .await;
    assert_eq!(pulled["live_stream"]["origin"]["url"], url);
    assert!(pulled["live_stream"].get("stream_key").is_none());
    assert_eq!(
        client.ok("GET", "/v1/live-streams", Value::Null).await["live_streams"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    client.ok("DELETE", &path, Value::Null).await;
    assert_eq!(client.fails("GET", &path, Body::empty()).await.0, 404);
}

#[tokio::test]
async fn another_projects_ids_answer_as_unknown_ones() {
    let service = Service::start().await;
    let (owner, other) = (service.project("a").await, service.project("b").await);
    owner.ok("POST", "/v1/buckets", json!({"name": "videos"})).await;
    owner.call("PUT", "/v1/buckets/videos/objects/x", "x").await;
    let domain = id(&owner
        .ok("POST", "/v1/domains", json!({"name": "a.example.com", "type": "live"}))
        .await["domain"]);
    let tls = owner
        .ok("POST", "/v1/tls/subscriptions", json!({"domain_id": domain}))
        .await;
    let tls = id(&tls["tls_subscription"]);
    let stream = id(&owner.ok("POST", "/v1/live-streams", json!({"name": "s"})).await["live_stream"]);
    let key = id(&owner
        .ok("POST", "/v1/signing-keys", json!({"bucket_name": "videos"}))
        .await["signing_key"]);
    let api_key = owner.ok("GET", "/v1/api-keys", Value::Null).await["api_keys"][0]["id"].to_string();
    let unknown = "00000000-0000-4000-8000-000000000000";

    // (method, path with {} for the id, body with {} for the id, the owner's id, an unknown one)
    let mut cases: Vec<(&str, String, String, &str, &str)> = Vec::new();
    for (kind, own) in [
        ("domains", &domain),
        ("tls/subscriptions", &tls),
        ("signing-keys", &key),
        ("live-streams", &stream),
    ] {
        for method in ["GET", "DELETE", "HEAD"] {
            cases.push((method, format!("/v1/{kind}/{{}}"), String::new(), own, unknown));
        }
    }
    for (kind, own) in [
        ("domains", domain.as_str()),
        ("live-streams", &stream),
        ("buckets", "videos"),
    ] {
        let unknown = if kind == "buckets" { "unknown" } else { unknown };
        cases.push(("GET", format!("/v1/{kind}/{{}}/policy"), String::new(), own, unknown));
        cases.push((
            "PUT",
            format!("/v1/{kind}/{{}}/policy/public"),
            String::new(),
            own,
            unknown,
        ));
    }
    cases.push((
        "PUT",
        "/v1/signing-keys/{}".into(),
        r#"{"name":"x"}"#.into(),
        &key,
        unknown,
    ));
    cases.push(("DELETE", "/v1/api-keys/{}".into(), String::new(), &api_key, "999999"));
    for (method, rest, body) in [
        ("GET", "", ""),
        ("DELETE", "", ""),
        ("PUT", "", r#"{"origin":{"type":"local"}}"#),
        ("GET", "/cors", ""),
        ("POST", "/cors", r#"{"Access-Control-Allow-Origin":"*"}"#),
        ("DELETE", "/cors", ""),
        ("DELETE", "/cors/Access-Control-Allow-Origin", ""),
        ("POST", "/cache/purge_all", ""),
        ("POST", "/cache/purge_all", r#"{"soft":true}"#),
        ("POST", "/cache/purge", r#"{"path":"x"}"#),
        ("POST", "/cache/purge", r#"{"prefix":"x"}"#),
        ("POST", "/cache/purge", r#"{"surrogate_keys":["x"]}"#),
        ("GET", "/objects", ""),
        ("GET", "/objects/x", ""),
        ("HEAD", "/objects/x", ""),
        ("PUT", "/objects/x", "y"),
        ("DELETE", "/objects/x", ""),
    ] {
        cases.push((
            method,
            format!("/v1/buckets/{{}}{rest}"),
            body.into(),
            "videos",
            "unknown",
        ));
    }
    cases.push((
        "POST",
        "/v1/tls/subscriptions".into(),
        r#"{"domain_id":"{}"}"#.into(),
        &domain,
        unknown,
    ));
    cases.push((
        "POST",
        "/v1/signing-keys".into(),
        r#"{"domain_id":"{}"}"#.into(),
        &domain,
        unknown,
    ));
    cases.push((
        "POST",
        "/v1/signing-keys".into(),
        r#"{"stream_id":"{}"}"#.into(),
        &stream,
        unknown,
    ));
    cases.push((
        "POST",
        "/v1/signing-keys".into(),
        r#"{"bucket_name":"{}"}"#.into(),
        "videos",
        "unknown",
    ));
    cases.push((
        "POST",
        "/v1/domains".into(),
        r#"{"name":"q.example.com","type":"vod","bucket_name":"{}"}"#.into(),
        "videos",
        "unknown",
    ));
    for (kind, own) in [
        ("tls/subscriptions", &tls),
        ("signing-keys", &key),
        ("live-streams", &stream),
    ] {
        cases.push(("GET", format!("/v1/{kind}?after={{}}"), String::new(), own, unknown));
    }
    cases.push(("GET", "/v1/buckets?after={}".into(), String::new(), "videos", "unknown"));
    for (method, path, body, own, unknown) in cases {
        let ask = async |id: &str| {
            let (parts, answer) = other.raw(method, &path.replace("{}", id), body.replace("{}", id)).await;
            (parts.status, answer)
        };
        let (theirs, nobodys) = (ask(own).await, ask(unknown).await);
        assert!(theirs.0.is_client_error(), "{method} {path}: {theirs:?}");
        assert_eq!(theirs, nobodys, "{method} {path}");
    }
    for list in [
        "domains",
        "tls/subscriptions",
        "signing-keys",
        "live-streams",
        "buckets",
    ] {
        let all = other.ok("GET", &format!("/v1/{list}"), Value::Null).await;
        assert_eq!(all.as_object().unwrap().values().next().unwrap(), &json!([]), "{list}");
    }
    // The owner lost nothing.
    let (parts, body) = owner.raw("GET", "/v1/buckets/videos/objects/x", Body::empty()).await;
    assert_eq!((parts.status, &body[..]), (StatusCode::OK, &b"x"[..]));
    owner
        .ok("GET", &format!("/v1/tls/subscriptions/{tls}"), Value::Null)
        .await;
}

/// Every path with its methods, both sorted.
const ROUTES: &[&str] = &[
    "/v1/access_token post",
    "/v1/access_token/{api_key} post",
    "/v1/api-keys get post",
    "/v1/api-keys/{api_key_id} delete",
    "/v1/buckets get post",
    "/v1/buckets/{bucket_name} delete get put",
    "/v1/buckets/{bucket_name}/cache/purge post",
    "/v1/buckets/{bucket_name}/cache/purge_all post",
    "/v1/buckets/{bucket_name}/cors delete get post",
    "/v1/buckets/{bucket_name}/cors/{header} delete",
    "/v1/buckets/{bucket_name}/objects get",
    "/v1/buckets/{bucket_name}/objects/{*key} delete get put",
    "/v1/buckets/{bucket_name}/policy get",
    "/v1/buckets/{bucket_name}/policy/{policy} put",
    "/v1/domains get post",
    "/v1/domains/live get",
    "/v1/domains/vod get",
    "/v1/domains/{domain_id} delete get",
    "/v1/domains/{domain_id}/policy get",
    "/v1/domains/{domain_id}/policy/{policy} put",
    "/v1/live-streams get post",
    "/v1/live-streams/{stream_id} delete get",
    "/v1/live-streams/{stream_id}/policy get",
    "/v1/live-streams/{stream_id}/policy/{policy} put",
    "/v1/signing-keys get post",
    "/v1/signing-keys/{signing_key_id} delete get put",
    "/v1/tls/subscriptions get post",
    "/v1/tls/subscriptions/{tls_subscription_id} delete get",
];

#[tokio::test]
async fn openapi_lists_every_route() {
    let service = Service::start().await;
    let request = Request::builder()
        .method(Method::GET)
        .uri("/v1/openapi.json")
        .body(Body::empty())
        .unwrap();
    let (_, body) = send(&service.router, request).await;
    let document: Value = serde_json::from_slice(&body).unwrap();
    let listed: Vec<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, methods)| format!("{path} {}", keys(methods).join(" ")))
        .collect();
    assert_eq!(listed, ROUTES);
    assert_eq!(
        document["components"]["securitySchemes"]["access_token"]["scheme"],
        "bearer"
    );
}
