//! Signing keys.

use super::*;

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
