//! From a subscription to a certificate.

use super::World;
use edgeweir_harness::{Before, CAA_IDENTITY, Call, PebbleOptions, Protocol, command_output, own_ip};
use std::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_ends_in_a_certificate_that_openssl_and_curl_trust() {
    let world = World::with(PebbleOptions::default(), &[("acme.challenge", "http-01")]).await;
    let name = "video.example.com";
    let id = world.subscribe(name).await;
    let shown = world.client(Protocol::H1).await.handshake(name).await;
    assert!(shown.is_err(), "a certificate of the CA's before it was ordered");
    let mut validation = world.proxy.hold(Call::Challenge, Before::Request);
    world.lead_here(name).await;
    validation.reached().await;
    let processing = world.subscription(&id).await;
    assert_eq!(processing["status"], "processing");
    assert!(processing.get("not_after").is_none(), "{processing}");
    validation.release();
    let issued = world.until_issued(&id).await;
    assert!(issued.get("message").is_none(), "{issued}");
    assert_eq!(world.challenges(), ["http-01"]);
    assert_eq!((world.proxy.orders(name), world.proxy.certificates(name)), (1, 1));

    let root = world.root().await;
    let (ok, out, err) = command_output(
        Command::new("openssl")
            .args(["s_client", "-verify_return_error", "-connect", &world.https.to_string()])
            .args(["-servername", name, "-verify_hostname", name, "-CAfile"])
            .arg(&root)
            .stdin(std::process::Stdio::null()),
    );
    assert!(ok && out.contains("Verify return code: 0 (ok)"), "{out}{err}");
    let to = format!("{name}:{}:{}", world.https.port(), world.https.ip());
    let url = format!("https://{name}:{}/a.mp4", world.https.port());
    let (ok, out, err) = command_output(
        Command::new("curl")
            .args(["-sS", "--resolve", &to, &url, "--cacert"])
            .arg(&root),
    );
    assert!(ok && out == "content", "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_plain_listener_the_challenge_is_met_in_tls() {
    let world = World::with(PebbleOptions::default(), &[("listen.http", "")]).await;
    world.issued("video.example.com").await;
    assert_eq!(world.challenges(), ["tls-alpn-01"]);
    let client = world.client(Protocol::H2).await;
    assert_eq!(client.get("video.example.com", "/a.mp4").await.text(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_alpn_01_is_used_when_it_is_asked_for() {
    let world = World::with(PebbleOptions::default(), &[("acme.challenge", "tls-alpn-01")]).await;
    world.issued("video.example.com").await;
    assert_eq!(world.challenges(), ["tls-alpn-01"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirecting_plain_listener_still_meets_challenges() {
    let settings = [("acme.challenge", "http-01"), ("http.mode", "redirect")];
    let world = World::with(PebbleOptions::default(), &settings).await;
    world.issued("video.example.com").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_leads_elsewhere_is_told_what_was_seen_and_goes_on_when_it_is_mended() {
    let world = World::start().await;
    let name = "video.example.com";
    world.dns.set_a(name, &["192.0.2.7"]).await;
    let id = world.subscribe(name).await;
    world.until_told(&id, "pending", &["192.0.2.7", super::TARGET]).await;
    world.dns.set_a(name, &[]).await;
    world.dns.set_cname(name, "cdn.example.net").await;
    world
        .until_told(&id, "pending", &["cdn.example.net", super::TARGET])
        .await;
    assert_eq!(world.proxy.asked(Call::NewOrder), 0, "nothing is ordered in vain");
    world.lead_here(name).await;
    world.until_issued(&id).await;
    assert_eq!(world.proxy.orders(name), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_of_an_alias_leads_here_too() {
    let world = World::start().await;
    world.lead_here("cdn.example.com").await;
    world.dns.set_cname("video.example.com", "cdn.example.com").await;
    // The CA's resolver follows one alias only.
    let ip = own_ip().to_string();
    world.dns.set_a("cdn.example.com", &[&ip]).await;
    let id = world.subscribe("video.example.com").await;
    world.until_issued(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apex_name_leads_here_by_its_addresses() {
    let ip = own_ip().to_string();
    let world = World::with(PebbleOptions::default(), &[("dns.addresses", &ip)]).await;
    let name = "example.com";
    // Half of it elsewhere will not do: the CA may look there.
    world.dns.set_a(name, &[&ip]).await;
    world.dns.set_aaaa(name, &["2001:db8::7"]).await;
    let id = world.subscribe(name).await;
    world.until_told(&id, "pending", &["2001:db8::7"]).await;
    world.dns.set_aaaa(name, &[]).await;
    world.until_issued(&id).await;
    let client = world.client(Protocol::H1).await;
    assert_eq!(client.get(name, "/a.mp4").await.text(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caa_record_that_forbids_is_told_before_anything_is_ordered() {
    let world = World::start().await;
    let name = "video.example.com";
    world.lead_here(name).await;
    // That of the parent counts for a name without one (RFC 8659 §3).
    world.dns.set_caa("example.com", &["other.example.net"]).await;
    let id = world.subscribe(name).await;
    world
        .until_told(
            &id,
            "pending",
            &["CAA", "'example.com'", "other.example.net", CAA_IDENTITY],
        )
        .await;
    assert_eq!(world.proxy.asked(Call::NewOrder), 0);
    let both = ["other.example.net", CAA_IDENTITY];
    world.dns.set_caa("example.com", &both).await;
    world.until_issued(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_bound_to_an_external_one() {
    let mac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let options = PebbleOptions {
        eab: Some(("kid-1".to_owned(), mac.to_owned())),
        ..PebbleOptions::default()
    };
    let settings = [("acme.eab_key_id", "kid-1"), ("acme.eab_hmac_key", mac)];
    let world = World::with(options, &settings).await;
    world.issued("video.example.com").await;
    let (ok, out, err) = command_output(&mut world.edge.cli(&[
        "config",
        "check",
        "--set",
        "acme.eab_key_id=kid-1",
        "--set",
        &format!("acme.eab_hmac_key={mac}"),
    ]));
    assert!(ok, "{err}");
    assert!(!out.contains(mac), "the key is masked: {out}");
    super::serving::assert_nowhere(&world, &[mac.as_bytes()]);
}
