//! kill -9 at every point of an order: it goes on, and nothing is ordered twice (RFC 8555 §7.1.6).

use super::World;
use edgeweir_harness::{Before, Call, Protocol};

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_waiting_for_the_records_loses_nothing() {
    let mut world = World::start().await;
    let name = "video.example.com";
    let id = world.subscribe(name).await;
    world.until_told(&id, "pending", &[name]).await;
    world.kill_and_restart().await;
    world.lead_here(name).await;
    world.until_issued(&id).await;
    world.kill_and_restart().await;
    assert_eq!(world.subscription(&id).await["status"], "issued");
    let client = world.client(Protocol::H1).await;
    assert_eq!(client.get(name, "/a.mp4").await.text(), "content");
    assert_eq!((world.proxy.orders(name), world.proxy.certificates(name)), (1, 1));
}

/// What the edge was killed at, and how many orders the CA may have made then.
async fn killed_at(points: &[(Call, Before, usize)]) {
    let mut world = World::start().await;
    for (n, (call, before, most)) in points.iter().enumerate() {
        let name = format!("video{n}.example.com");
        world.lead_here(&name).await;
        let mut held = world.proxy.hold(*call, *before);
        let id = world.subscribe(&name).await;
        held.reached().await;
        world.edge.kill();
        held.abandon();
        world.edge.restart().await;
        world.project.refresh(world.edge.address("api")).await;
        world.until_issued(&id).await;
        let client = world.client(Protocol::H1).await;
        assert_eq!(client.get(&name, "/a.mp4").await.text(), "content");
        let (orders, certificates) = (world.proxy.orders(&name), world.proxy.certificates(&name));
        let story = world.proxy.story();
        assert!(
            (1..=*most).contains(&orders),
            "{orders} orders, {call:?} {before:?}:\n{story}"
        );
        assert_eq!(certificates, 1, "{call:?} {before:?}:\n{story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_an_order_is_placed() {
    killed_at(&[
        (Call::Account, Before::Request, 1),
        (Call::NewOrder, Before::Request, 1),
        // What the CA did and never told, nobody can know: the order is left to lapse, and no certificate comes of it.
        (Call::NewOrder, Before::Answer, 2),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_after_the_account_was_made() {
    killed_at(&[(Call::Account, Before::Answer, 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_the_ca_validates() {
    killed_at(&[
        (Call::Authorization, Before::Request, 1),
        // Not before its answer: the CA may look while nobody is there, and end the order.
        (Call::Challenge, Before::Request, 1),
        (Call::Order, Before::Request, 1),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_while_the_certificate_is_made() {
    killed_at(&[
        (Call::Finalize, Before::Request, 1),
        (Call::Finalize, Before::Answer, 1),
        (Call::Certificate, Before::Request, 1),
        (Call::Certificate, Before::Answer, 1),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_in_a_renewal_keeps_the_old_certificate_and_orders_no_third() {
    let mut world = World::start().await;
    let name = "video.example.com";
    let (id, asked) = world.about_to_renew(name).await;
    let client = world.client(Protocol::H1).await;
    let first = client.handshake(name).await.unwrap();
    let mut finalizing = world.proxy.hold(Call::Finalize, Before::Answer);
    asked.release();
    finalizing.reached().await;
    let mut download = world.proxy.hold(Call::Certificate, Before::Request);
    world.edge.kill();
    finalizing.abandon();
    world.edge.restart().await;
    world.project.refresh(world.edge.address("api")).await;
    download.reached().await;
    assert_eq!(
        client.handshake(name).await.unwrap(),
        first,
        "the old one serves from the start"
    );
    download.release();
    world.until_issued(&id).await;
    assert_ne!(client.handshake(name).await.unwrap(), first);
    assert_eq!((world.proxy.orders(name), world.proxy.certificates(name)), (2, 2));
}
