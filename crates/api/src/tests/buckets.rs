//! Buckets: origins, policies, CORS and purges.

use super::*;

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
