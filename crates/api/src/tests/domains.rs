//! Playback domains and their TLS subscriptions.

use super::*;

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
