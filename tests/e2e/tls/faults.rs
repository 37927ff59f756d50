//! A CA that is away, refuses, forgets or slows down.

use super::{World, failures};
use edgeweir_harness::{Call, PebbleOptions, Protocol, own_address};
use edgeweir_model::Timestamp;

#[tokio::test(flavor = "multi_thread")]
async fn rejected_nonces_are_nobodys_failure() {
    let options = PebbleOptions {
        nonces_refused: 15,
        ..PebbleOptions::default()
    };
    let world = World::with(options, &[]).await;
    let names: Vec<_> = (0..5).map(|n| format!("video{n}.example.com")).collect();
    let mut ids = Vec::new();
    for name in &names {
        world.lead_here(name).await;
        ids.push(world.subscribe(name).await);
    }
    for id in &ids {
        world.until_issued(id).await;
    }
    for name in &names {
        assert_eq!(world.proxy.orders(name), 1, "{}", world.proxy.story());
    }
    let refused = |call: &&edgeweir_harness::AcmeCall| call.answer["type"] == "urn:ietf:params:acme:error:badNonce";
    assert!(world.proxy.seen().iter().filter(refused).count() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_away_stops_nothing_and_is_used_when_it_is_back() {
    let mut world = World::start().await;
    let serving = world.issued("serving.example.com").await;
    let old = world.client(Protocol::H1).await;
    world.pebble.stop();
    let name = "video.example.com";
    world.lead_here(name).await;
    let id = world.subscribe(name).await;
    world.until_told(&id, "failed", &["The next try is at"]).await;
    // Neither a start nor what has its certificate needs the CA.
    world.kill_and_restart().await;
    assert_eq!(world.subscription(&serving).await["status"], "issued");
    assert_eq!(old.get("serving.example.com", "/a.mp4").await.text(), "content");
    assert_eq!(world.edge.http().get(name, "/a.mp4").await.text(), "content");
    // It has lost everything, the account too.
    world.pebble.restart().await;
    world.until_issued(&id).await;
    let client = world.client(Protocol::H1).await;
    assert_eq!(client.get(name, "/a.mp4").await.text(), "content");
    assert_eq!(world.proxy.orders(name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_ca_has_lost_is_made_anew() {
    let mut world = World::start().await;
    world.issued("first.example.com").await;
    world.pebble.restart().await;
    world.issued("second.example.com").await;
    assert_eq!(world.proxy.certificates("second.example.com"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_ca_does_not_authorize_costs_no_account() {
    let world = World::start().await;
    for (n, call) in [Call::NewOrder, Call::Finalize].into_iter().enumerate() {
        let name = format!("video{n}.example.com");
        world.proxy.refuse(call, usize::MAX, 403, None, "unauthorized");
        world.lead_here(&name).await;
        let id = world.subscribe(&name).await;
        world.until_told(&id, "failed", &["The next try is at"]).await;
        let accounts = world.proxy.asked(Call::Account);
        assert_eq!(accounts, 1, "{call:?}: {}", world.proxy.story());
        world.proxy.mend();
    }
    // One that is deactivated is told in the same words (RFC 8555 §7.3.6).
    world.proxy.refuse(Call::NewOrder, 1, 401, None, "unauthorized");
    world.proxy.refuse(Call::Other, 1, 401, None, "unauthorized");
    world.issued("last.example.com").await;
    assert_eq!(world.proxy.asked(Call::Account), 2, "{}", world.proxy.story());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_that_the_ca_cannot_reach_is_told_in_plain_words_and_tried_again() {
    // The CA looks where nobody listens.
    let (http, https) = (own_address(), own_address());
    let lost = PebbleOptions {
        http_port: own_address().port(),
        https_port: own_address().port(),
        ..PebbleOptions::default()
    };
    let mut world = World::at(http, https, lost, &[]).await;
    let name = "video.example.com";
    world.lead_here(name).await;
    let id = world.subscribe(name).await;
    let message = world.until_told(&id, "failed", &["The next try is at"]).await;
    for word in ["urn:", "{", "Error("] {
        assert!(!message.contains(word), "plain words: {message}");
    }
    assert!(
        message.to_lowercase().contains("refused"),
        "the CA's own reason: {message}"
    );
    world.until_metrics("one failure", |metrics| failures(metrics, 1)).await;
    world
        .pebble
        .restart_with(PebbleOptions {
            http_port: http.port(),
            https_port: https.port(),
            ..PebbleOptions::default()
        })
        .await;
    world.until_issued(&id).await;
    assert_eq!(
        (world.proxy.orders(name), world.proxy.certificates(name)),
        (2, 1),
        "{}",
        world.proxy.story()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_obeyed_and_told() {
    let world = World::start().await;
    let name = "video.example.com";
    world
        .proxy
        .refuse(Call::NewOrder, usize::MAX, 429, Some("7200"), "rateLimited");
    world.lead_here(name).await;
    let id = world.subscribe(name).await;
    let before = Timestamp::now().0;
    let message = world.until_told(&id, "failed", &["The next try is at"]).await;
    let next = message.split("The next try is at ").nth(1).unwrap();
    // Times in this form compare as text.
    let earliest = Timestamp(before + 7190).to_string();
    assert!(next > earliest.as_str(), "{message}, before {earliest}");
    assert_eq!(world.proxy.asked(Call::NewOrder), 1, "it is not asked again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_the_ca_will_not_have_is_told_why() {
    let options = PebbleOptions {
        blocked: vec!["example.org".to_owned()],
        ..PebbleOptions::default()
    };
    let world = World::with(options, &[]).await;
    world.lead_here("video.example.org").await;
    let id = world.subscribe("video.example.org").await;
    let message = world.until_told(&id, "failed", &["The next try is at"]).await;
    assert!(message.contains("example.org"), "{message}");
    // Others are not held up by it.
    world.issued("video.example.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trouble_at_the_ca_in_the_middle_of_an_order_does_not_end_it() {
    let world = World::start().await;
    for (n, call) in [Call::Authorization, Call::Challenge, Call::Finalize, Call::Certificate]
        .into_iter()
        .enumerate()
    {
        let name = format!("video{n}.example.com");
        world.proxy.refuse(call, 1, 500, None, "serverInternal");
        world.issued(&name).await;
        assert_eq!(
            (world.proxy.orders(&name), world.proxy.certificates(&name)),
            (1, 1),
            "{call:?}: {}",
            world.proxy.story()
        );
    }
}
