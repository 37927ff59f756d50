//! What holds of every route.

use super::*;

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
