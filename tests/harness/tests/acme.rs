//! The ACME part of the harness is what it says it is.

#![allow(clippy::unwrap_used)]

use edgeweir_harness::{AcmeProxy, Before, Call, Client, Dns, Pebble, PebbleOptions, Protocol, own_ip};

/// A, CNAME and CAA (RFC 1035 §3.2.2, RFC 8659 §4).
const A: u16 = 1;
const CNAME: u16 = 5;
const CAA: u16 = 257;

#[tokio::test(flavor = "multi_thread")]
async fn dns_answers_with_what_was_set() {
    let dns = Dns::start().await;
    assert_eq!(dns.query("a.example.com", A).await, Some((0, 0)));
    dns.set_a("edge.example.net", &["127.0.0.1", "127.0.0.2"]).await;
    dns.set_cname("a.example.com", "edge.example.net").await;
    assert_eq!(dns.query("a.example.com", CNAME).await.unwrap().1, 1);
    assert_eq!(dns.query("a.example.com", A).await.unwrap().1, 3, "the alias and both");
    dns.clear_cname("a.example.com").await;
    dns.set_a("a.example.com", &[]).await;
    assert_eq!(dns.query("a.example.com", A).await, Some((0, 0)));
    dns.set_caa("a.example.com", &[";"]).await;
    assert_eq!(dns.query("a.example.com", CAA).await.unwrap().1, 1);
    dns.set_failing("a.example.com", true).await;
    assert_eq!(dns.query("a.example.com", A).await.unwrap().0, 2, "SERVFAIL");
}

#[tokio::test(flavor = "multi_thread")]
async fn pebble_is_reached_through_the_proxy_and_comes_back_with_another_root() {
    let dns = Dns::start().await;
    let mut pebble = Pebble::start(PebbleOptions::default(), &dns).await;
    let proxy = AcmeProxy::to(&pebble).await;
    let address = proxy.address();
    let client = Client::tls(address, Protocol::H1, &proxy.root()).with_sni(&own_ip().to_string());
    let host = address.to_string();
    let directory = client.get(&host, "/dir").await.json();
    let new_order = directory["newOrder"].as_str().unwrap();
    assert_eq!(new_order, format!("https://{host}/order-plz"));
    assert!(directory["renewalInfo"].is_null());
    proxy.offer_renewal_info(1);
    let directory = client.get(&host, "/dir").await.json();
    assert_eq!(directory["renewalInfo"], format!("https://{host}/renewal-info"));
    for (certificate, year) in [("a", "2020"), ("b", "2999"), ("a", "2020")] {
        let told = client.get(&host, &format!("/renewal-info/{certificate}")).await.json();
        assert_eq!(&told["suggestedWindow"]["start"].as_str().unwrap()[..4], year);
    }
    proxy.refuse(Call::Nonce, 1, 429, Some("7"), "rateLimited");
    let refused = client.get(&host, "/nonce-plz").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "7"));
    assert!(!client.get(&host, "/nonce-plz").await.header("replay-nonce").is_empty());
    let mut held = proxy.hold(Call::Nonce, Before::Request);
    let request = {
        let (client, host) = (client.clone(), host.clone());
        tokio::spawn(async move {
            let get = http::Method::GET;
            client
                .try_send(get, &host, "/nonce-plz", &[], bytes::Bytes::new())
                .await
        })
    };
    held.reached().await;
    held.abandon();
    assert!(request.await.unwrap().is_err());
    assert_eq!(proxy.asked(Call::Nonce), 3);

    let root = |file: std::path::PathBuf| std::fs::read(file).unwrap();
    let first = root(pebble.issuance_root().await);
    pebble.stop();
    let down = client.try_send(http::Method::GET, &host, "/dir", &[], bytes::Bytes::new());
    assert!(down.await.is_err());
    pebble.restart().await;
    assert_ne!(first, root(pebble.issuance_root().await));
    assert_eq!(client.get(&host, "/dir").await.status, 200);
}
