//! A certificate is replaced before it ends, and nobody notices.

use super::{World, days_left};
use edgeweir_harness::{Before, Call, PebbleOptions, Protocol};
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

#[tokio::test(flavor = "multi_thread")]
async fn renewals_go_unnoticed_by_who_connects_all_the_time() {
    let options = PebbleOptions {
        validity: Duration::from_secs(20),
        ..PebbleOptions::default()
    };
    let world = World::with(options, &[]).await;
    let name = "video.example.com";
    let id = world.issued(name).await;
    let enough = Arc::new(AtomicBool::new(false));
    let mut running = Vec::new();
    for protocol in [Protocol::H1, Protocol::H2, Protocol::H2] {
        let (client, enough) = (world.client(protocol).await, enough.clone());
        running.push(tokio::spawn(async move {
            let (mut shown, mut count) = (HashSet::new(), 0);
            while !enough.load(Ordering::Relaxed) {
                let certificate = client.handshake(name).await;
                shown.insert(certificate.unwrap_or_else(|e| panic!("handshake {count}: {e}")));
                count += 1;
            }
            (shown, count)
        }));
    }
    let first = world.subscription(&id).await["not_after"].clone();
    world.proxy.answered(Call::Certificate, 3).await;
    world
        .until(&id, "renewed", |s| s["status"] == "issued" && s["not_after"] != first)
        .await;
    enough.store(true, Ordering::Relaxed);
    for client in running {
        let (shown, count) = client.await.unwrap();
        assert!(shown.len() >= 2, "{count} handshakes, {} certificates", shown.len());
    }
    // The next renewal may have begun.
    let (orders, certificates) = (world.proxy.orders(name), world.proxy.certificates(name));
    assert!(
        orders == certificates || orders == certificates + 1,
        "one order a renewal: {}",
        world.proxy.story()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_when_the_ca_says_so() {
    let world = World::start().await;
    let name = "video.example.com";
    let (id, asked) = world.about_to_renew(name).await;
    let client = world.client(Protocol::H1).await;
    let first = client.handshake(name).await.unwrap();
    let mut ordering = world.proxy.hold(Call::Finalize, Before::Request);
    asked.release();
    ordering.reached().await;
    let renewing = world.subscription(&id).await;
    assert_eq!(renewing["status"], "renewing");
    assert!(renewing["not_after"].is_string(), "the old one serves: {renewing}");
    assert_eq!(client.handshake(name).await.unwrap(), first);
    ordering.release();
    world.until_issued(&id).await;
    assert_ne!(client.handshake(name).await.unwrap(), first);
    // The window of the second lies ahead: that is seen, and nothing is ordered.
    world.proxy.answered(Call::RenewalInfo, 2).await;
    assert_eq!(world.proxy.orders(name), 2);
    let second = world.proxy.seen();
    let second = second.iter().filter(|call| call.call == Call::NewOrder).nth(1).unwrap();
    assert!(
        second.payload["replaces"].is_string(),
        "RFC 9773 §5: {}",
        second.payload
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_by_a_ca_that_does_half_of_renewal_information() {
    let world = World::start().await;
    world.proxy.offer_renewal_info(1);
    world.proxy.forget_replaced();
    let name = "video.example.com";
    let id = world.issued(name).await;
    world.proxy.answered(Call::Certificate, 2).await;
    world.until_issued(&id).await;
    assert_eq!(world.proxy.certificates(name), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_that_fails_leaves_the_old_certificate_serving() {
    let mut world = World::start().await;
    let name = "video.example.com";
    let (id, asked) = world.about_to_renew(name).await;
    world
        .proxy
        .refuse(Call::NewOrder, usize::MAX, 503, None, "serverInternal");
    asked.release();
    world.until_told(&id, "failed", &["The next try is at"]).await;
    let client = world.client(Protocol::H1).await;
    let first = client.handshake(name).await.unwrap();
    world.kill_and_restart().await;
    assert_eq!(client.handshake(name).await.unwrap(), first);
    let failed = world.subscription(&id).await;
    assert!(failed["not_after"].is_string(), "{failed}");
    let prefix = days_left(name);
    world
        .until_metrics("told of the old one", |metrics| metrics.contains(&prefix))
        .await;
    world.proxy.mend();
    world.until_issued(&id).await;
    assert_ne!(client.handshake(name).await.unwrap(), first);
}
