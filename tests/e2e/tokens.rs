//! Signed tokens: what opens, and every way in that must stay shut (RFC 8725).

use crate::{BINARY, sign};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use edgeweir_harness::{Edge, Project, Reply};
use http::Method;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// An RS256 signature over header and claims as they are.
fn raw_token(header: &str, claims: &str, private_pem: &str) -> String {
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_rsa_pem(private_pem.as_bytes()).unwrap();
    let signature = jsonwebtoken::crypto::sign(input.as_bytes(), &key, Algorithm::RS256).unwrap();
    format!("{input}.{signature}")
}

fn header(kid: &str) -> String {
    json!({"alg": "RS256", "typ": "JWT", "kid": kid}).to_string()
}

/// A private bucket with an object and a key.
struct Private {
    edge: Edge,
    project: Project,
    host: String,
    key: (String, String),
}

impl Private {
    async fn start() -> Self {
        let edge = Edge::start(BINARY).await;
        let project = edge.project().await;
        let host = project.bucket("videos").await;
        for key in ["a/1.mp4", "a/2.mp4", "b/1.mp4", "video", "video2"] {
            project.put("videos", key, key.to_owned()).await;
        }
        project.policy("videos", "authenticated").await;
        let key = project.signing_key("bucket_name", "videos").await;
        Self {
            edge,
            project,
            host,
            key,
        }
    }

    fn token(&self, claims: Value) -> String {
        raw_token(&header(&self.key.0), &claims.to_string(), &self.key.1)
    }

    async fn get(&self, path: &str, token: &str) -> Reply {
        self.edge.http().get(&self.host, &format!("{path}?auth={token}")).await
    }
}

#[tokio::test]
async fn tokens_open_what_they_name_and_nothing_else() {
    let private = Private::start().await;
    for (claims, path, wanted) in [
        (json!({"uri": "a/1.mp4"}), "/a/1.mp4", "ok"),
        (json!({"uri": "/a/1.mp4"}), "/a/1.mp4", "ok"),
        (json!({"uri": "a/"}), "/a/2.mp4", "ok"),
        (json!({"uri": ""}), "/b/1.mp4", "ok"),
        (json!({"uri": "/"}), "/b/1.mp4", "ok"),
        (json!({"uri": "video"}), "/video2", "ok"),
        (
            json!({"uri": "a/", "sub": "viewer", "custom": [1, {"x": null}]}),
            "/a/1.mp4",
            "ok",
        ),
        (json!({"uri": "a/", "exp": now() + 60}), "/a/1.mp4", "ok"),
        (json!({"uri": "a/", "exp": now() as f64 + 60.5}), "/a/1.mp4", "ok"),
        (json!({"uri": "a/", "nbf": now() - 60}), "/a/1.mp4", "ok"),
        (json!({"uri": "a/"}), "/b/1.mp4", "token_uri_mismatch"),
        (json!({"uri": "A/"}), "/a/1.mp4", "token_uri_mismatch"),
        (json!({"uri": "//a/"}), "/a/1.mp4", "token_uri_mismatch"),
        (json!({"uri": "a/1.mp4x"}), "/a/1.mp4", "token_uri_mismatch"),
        (json!({"uri": "a/%31.mp4"}), "/a/1.mp4", "token_uri_mismatch"),
        (json!({"uri": "a/", "exp": now() - 1}), "/a/1.mp4", "token_expired"),
        (json!({"uri": "a/", "exp": 0}), "/a/1.mp4", "token_expired"),
        (json!({"uri": "a/", "exp": -1}), "/a/1.mp4", "token_expired"),
        (json!({"uri": "a/", "exp": -1e300}), "/a/1.mp4", "token_expired"),
        (
            json!({"uri": "a/", "nbf": now() + 3600}),
            "/a/1.mp4",
            "token_not_yet_valid",
        ),
        (json!({"uri": "a/", "nbf": 1e300}), "/a/1.mp4", "token_not_yet_valid"),
        (
            json!({"uri": "a/", "exp": (now() + 60).to_string()}),
            "/a/1.mp4",
            "token_malformed",
        ),
        (json!({"uri": "a/", "exp": null}), "/a/1.mp4", "token_malformed"),
        (json!({"uri": "a/", "exp": [1]}), "/a/1.mp4", "token_malformed"),
        (json!({"uri": "a/", "nbf": "now"}), "/a/1.mp4", "token_malformed"),
        (json!({}), "/a/1.mp4", "token_malformed"),
        (json!({"uri": null}), "/a/1.mp4", "token_malformed"),
        (json!({"uri": ["a/"]}), "/a/1.mp4", "token_malformed"),
        (json!({"uri": 1}), "/a/1.mp4", "token_malformed"),
        (json!([]), "/a/1.mp4", "token_malformed"),
    ] {
        let reply = private.get(path, &private.token(claims.clone())).await;
        if wanted == "ok" {
            assert_eq!((reply.status.as_u16(), reply.text()), (200, &path[1..]), "{claims}");
            assert!(reply.header("cache-control").contains("private"), "{claims}");
        } else {
            assert_eq!(
                (reply.status.as_u16(), reply.error().as_str()),
                (403, wanted),
                "{claims} {path}"
            );
            assert_eq!(reply.header("cache-control"), "no-store");
        }
    }
    // A huge `exp` is far away, and no overflow.
    let far = raw_token(&header(&private.key.0), r#"{"uri":"","exp":1e300}"#, &private.key.1);
    assert_eq!(private.get("/video", &far).await.status, 200);
}

#[tokio::test]
async fn forged_and_foreign_tokens_are_refused() {
    let private = Private::start().await;
    let Private {
        edge,
        project,
        host,
        key,
    } = &private;
    let good = sign(edge, key, "");
    assert_eq!(private.get("/video", &good).await.status, 200);
    let parts: Vec<&str> = good.split('.').collect();

    let public_pem = {
        let file = edge.data_dir().join("forge.pem");
        std::fs::write(&file, &key.1).unwrap();
        let args = ["rsa", "-in", file.to_str().unwrap(), "-pubout"];
        edgeweir_harness::command_output(std::process::Command::new("openssl").args(args)).1
    };
    assert!(public_pem.contains("BEGIN PUBLIC KEY"));
    let hs256 = |secret: &str| {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(key.0.clone());
        jsonwebtoken::encode(
            &header,
            &json!({"uri": ""}),
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .unwrap()
    };
    let unsigned = |alg: &str| {
        let header = json!({"alg": alg, "kid": key.0}).to_string();
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), parts[1])
    };
    let with_header = |header: Value| raw_token(&header.to_string(), r#"{"uri":""}"#, &key.1);
    let with_kid = |kid: &str| raw_token(&header(kid), r#"{"uri":""}"#, &key.1);
    let mut broken_signature = good.clone();
    broken_signature.replace_range(good.len() - 12..good.len() - 8, "AAAA");

    project.bucket("others").await;
    let others = project.signing_key("bucket_name", "others").await;
    let stranger = edge.project().await;
    stranger.bucket("strangers").await;
    let strangers = stranger.signing_key("bucket_name", "strangers").await;

    let cases: Vec<(&str, String, &str)> = vec![
        ("alg none", unsigned("none"), "token_algorithm"),
        ("alg None", unsigned("None"), "token_algorithm"),
        ("alg RS256 without a signature", unsigned("RS256"), "token_signature"),
        ("HS256 with the private PEM", hs256(&key.1), "token_algorithm"),
        ("HS256 with the public PEM", hs256(&public_pem), "token_algorithm"),
        ("alg missing", with_header(json!({"kid": key.0})), "token_malformed"),
        (
            "alg RS512",
            with_header(json!({"alg": "RS512", "kid": key.0})),
            "token_algorithm",
        ),
        ("kid missing", with_header(json!({"alg": "RS256"})), "token_key_unknown"),
        (
            "kid a number",
            with_header(json!({"alg": "RS256", "kid": 1})),
            "token_malformed",
        ),
        (
            "crit unknown",
            with_header(json!({"alg": "RS256", "kid": key.0, "crit": ["exp"]})),
            "token_malformed",
        ),
        ("kid of another bucket", sign(edge, &others, ""), "token_key_unknown"),
        (
            "kid of another project",
            sign(edge, &strangers, ""),
            "token_key_unknown",
        ),
        (
            "kid of another bucket, own key",
            with_kid(&others.0),
            "token_key_unknown",
        ),
        (
            "own kid, another's key",
            raw_token(&header(&key.0), r#"{"uri":""}"#, &others.1),
            "token_signature",
        ),
        ("kid with SQL", with_kid("' or '1'='1"), "token_key_unknown"),
        ("kid a path", with_kid("../../etc/passwd"), "token_key_unknown"),
        ("kid with NUL", with_kid("a\0b"), "token_key_unknown"),
        ("kid upper-case", with_kid(&key.0.to_uppercase()), "token_key_unknown"),
        ("signature broken", broken_signature, "token_signature"),
        (
            "claims changed",
            format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(r#"{"uri":"b"}"#), parts[2]),
            "token_signature",
        ),
        (
            "claims twice",
            raw_token(&header(&key.0), r#"{"uri":"b/","uri":""}"#, &key.1),
            "token_malformed",
        ),
        ("two parts", format!("{}.{}", parts[0], parts[1]), "token_malformed"),
        ("four parts", format!("{good}.x"), "token_malformed"),
        ("padding", format!("{good}="), "token_malformed"),
        ("not base64", "a!.b!.c!".into(), "token_malformed"),
        (
            "not JSON",
            format!("{0}.{0}.{0}", URL_SAFE_NO_PAD.encode("x")),
            "token_malformed",
        ),
        ("empty", String::new(), "token_malformed"),
    ];
    for (name, token, wanted) in cases {
        let reply = private.get("/video", &token).await;
        assert_eq!((reply.status.as_u16(), reply.error().as_str()), (403, wanted), "{name}");
        assert_eq!(reply.header("cache-control"), "no-store", "{name}");
    }
    // Embedded keys are never used, and nothing is fetched for them.
    let fetched = edgeweir_harness::Origin::serve(|_| edgeweir_harness::Answer::ok("", "{}")).await;
    let urls =
        json!({"alg": "RS256", "kid": others.0, "jku": fetched.url(), "x5u": fetched.url(), "jwk": {"kty": "RSA"}});
    let token = raw_token(&urls.to_string(), r#"{"uri":""}"#, &others.1);
    assert_eq!(private.get("/video", &token).await.error(), "token_key_unknown");
    assert!(fetched.seen().is_empty());
    // Two tokens, however alike; a huge one.
    let twice = edge.http().get(host, &format!("/video?auth={good}&auth={good}")).await;
    assert_eq!(
        (twice.status.as_u16(), twice.error().as_str()),
        (403, "token_malformed")
    );
    let huge = private.get("/video", &"a".repeat(16 << 10)).await;
    assert_eq!(huge.status, 414);
    // A token in the path or a header is none.
    let reply = edge
        .http()
        .get_with(host, "/video", &[("authorization", &format!("Bearer {good}"))])
        .await;
    assert_eq!(reply.error(), "token_missing");
}

#[tokio::test]
async fn a_key_opens_what_it_was_made_for() {
    let private = Private::start().await;
    let Private {
        edge,
        project,
        host,
        key,
    } = &private;
    let domain = |name: &str| json!({"name": name, "type": "vod", "bucket_name": "videos"});
    let first = project.post("/v1/domains", domain("one.example.com")).await["domain"]["id"].clone();
    project.post("/v1/domains", domain("two.example.com")).await;
    let of_domain = project.signing_key("domain_id", first.as_str().unwrap()).await;
    let (of_bucket, of_domain) = (sign(edge, key, ""), sign(edge, &of_domain, ""));
    for (host, token, status) in [
        (host.as_str(), &of_bucket, 200),
        ("one.example.com", &of_bucket, 200),
        ("two.example.com", &of_bucket, 200),
        ("one.example.com", &of_domain, 200),
        ("two.example.com", &of_domain, 403),
        (host.as_str(), &of_domain, 403),
    ] {
        let reply = edge.http().get(host, &format!("/video?auth={token}")).await;
        assert_eq!(reply.status, status, "{host}");
    }
    // A domain asks for tokens once it has had a key, also over a public bucket and after the key is gone.
    project.policy("videos", "public").await;
    assert_eq!(edge.http().get("two.example.com", "/video").await.status, 200);
    assert_eq!(
        edge.http().get("one.example.com", "/video").await.error(),
        "token_missing"
    );
    let keys = project.ok(Method::GET, "/v1/signing-keys?limit=1", Bytes::new()).await;
    let id = keys["signing_keys"][0]["id"].as_str().unwrap().to_owned();
    project
        .ok(Method::DELETE, &format!("/v1/signing-keys/{id}"), Bytes::new())
        .await;
    assert_eq!(
        edge.http().get("one.example.com", "/video").await.error(),
        "token_missing"
    );
    let path = format!("/v1/domains/{}/policy/public", first.as_str().unwrap());
    project.ok(Method::PUT, &path, Bytes::new()).await;
    assert_eq!(edge.http().get("one.example.com", "/video").await.status, 200);
}

#[tokio::test]
async fn a_deleted_key_and_a_closed_bucket_count_from_the_next_request() {
    let private = Private::start().await;
    let Private {
        edge,
        project,
        host,
        key,
    } = &private;
    let token = sign(edge, key, "");
    for _ in 0..3 {
        assert_eq!(private.get("/video", &token).await.status, 200);
    }
    assert!(
        private
            .get("/video", &token)
            .await
            .header("cache-status")
            .contains("hit")
    );
    project
        .ok(Method::DELETE, &format!("/v1/signing-keys/{}", key.0), Bytes::new())
        .await;
    assert_eq!(private.get("/video", &token).await.error(), "token_key_unknown");

    for round in 0..3 {
        project.policy("videos", "public").await;
        let open = edge.http().get(host, "/video").await;
        assert_eq!(open.status, 200, "round {round}");
        let etag = open.header("etag").to_owned();
        edge.http().get(host, "/video").await;
        project.policy("videos", "authenticated").await;
        let shut = [
            edge.http().get(host, "/video").await,
            edge.http().send(Method::HEAD, host, "/video", &[], Bytes::new()).await,
            edge.http().get_with(host, "/video", &[("if-none-match", &etag)]).await,
            edge.http().get_with(host, "/video", &[("range", "bytes=0-1")]).await,
        ];
        for reply in shut {
            assert_eq!(reply.status, 403, "round {round}");
        }
    }
}
