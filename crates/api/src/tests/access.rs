//! Access tokens and API keys: who is let in, and how often one may guess.

use super::*;

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
