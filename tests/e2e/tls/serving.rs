//! Which certificate is shown for which name, and what else is seen of it.

use super::{World, days_left, failures};
use bytes::Bytes;
use edgeweir_harness::{Call, Protocol, command_output, repository};
use http::Method;
use serde_json::Value;
use std::{path::Path, process::Command};

#[tokio::test(flavor = "multi_thread")]
async fn a_name_shows_its_own_certificate_and_an_unknown_one_none() {
    let world = World::start().await;
    for name in ["a.example.com", "b.example.com"] {
        world.issued(name).await;
    }
    let client = world.client(Protocol::H2).await;
    let shown = |name: &'static str| {
        let client = client.clone();
        async move { client.handshake(name).await }
    };
    let (a, b) = (
        shown("a.example.com").await.unwrap(),
        shown("b.example.com").await.unwrap(),
    );
    assert_ne!(a, b);
    let crossed = client
        .clone()
        .with_sni("a.example.com")
        .get("b.example.com", "/a.mp4")
        .await;
    assert_eq!(
        (crossed.status.as_u16(), crossed.error().as_str()),
        (421, "host_not_covered")
    );
    let orders = world.proxy.asked(Call::NewOrder);
    for n in 0..50 {
        let unknown = format!("{n}.example.net");
        let error = client.handshake(&unknown).await.unwrap_err();
        assert!(error.contains("alert"), "refused by the server itself: {error}");
    }
    assert_eq!(
        world.proxy.asked(Call::NewOrder),
        orders,
        "nothing is ordered for who asks"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_was_deleted_has_no_certificate_any_more() {
    let world = World::start().await;
    let (gone, stays) = ("gone.example.com", "stays.example.com");
    let id = world.issued(gone).await;
    world.issued(stays).await;
    let client = world.client(Protocol::H1).await;
    client.handshake(gone).await.unwrap();
    let domain = world.subscription(&id).await["domain_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/domains/{domain}");
    world.project.ok(Method::DELETE, &path, Bytes::new()).await;
    let shown = client.handshake(gone).await;
    assert!(shown.is_err(), "it is shown after the answer");
    client.handshake(stays).await.unwrap();
    let subscription = world
        .project
        .call(Method::GET, &format!("/v1/tls/subscriptions/{id}"), Bytes::new())
        .await;
    assert_eq!(subscription.status, 404);
    world
        .until_metrics("without it", |metrics| {
            !metrics.contains(gone) && metrics.contains(stays)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_what_there_is_and_for_how_long() {
    let world = World::start().await;
    let name = "video.example.com";
    let id = world.issued(name).await;
    let waiting = world.subscribe("waiting.example.com").await;
    world.until_told(&waiting, "pending", &["waiting.example.com"]).await;
    let prefix = days_left(name);
    let metrics = world.until_metrics("there", |metrics| metrics.contains(&prefix)).await;
    let days = metrics.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap();
    let days: f64 = days.parse().unwrap();
    assert!((89.0..=90.0).contains(&days), "{days}");
    assert!(failures(&metrics, 0), "{metrics}");

    let (ok, out, err) = command_output(&mut world.edge.cli(&["certs", "list", "--json"]));
    assert!(ok, "{err}");
    let listed: Value = serde_json::from_str(&out).unwrap();
    let listed = listed.as_array().unwrap();
    let of = |name: &str| {
        listed
            .iter()
            .find(|c| c["domain"] == name)
            .unwrap_or_else(|| panic!("{out}"))
    };
    let issued = world.subscription(&id).await;
    assert_eq!(of(name)["status"], "issued");
    assert_eq!(of(name)["not_after"], issued["not_after"]);
    assert_eq!(of("waiting.example.com")["status"], "pending");
    let (ok, out, err) = command_output(&mut world.edge.cli(&["certs", "list"]));
    assert!(ok && out.contains(name), "{out}{err}");
}

/// What testssl.sh says is kept in `target/testssl`.
#[tokio::test(flavor = "multi_thread")]
async fn testssl_gives_grade_a() {
    let world = World::start().await;
    let name = "video.example.com";
    world.issued(name).await;
    let mut command = Command::new(repository().join("scripts/testssl"));
    command.arg(world.https.to_string()).arg(name).arg(world.root().await);
    let (ok, out, err) = tokio::task::spawn_blocking(move || command_output(&mut command))
        .await
        .unwrap();
    assert!(ok && out.contains("grade A"), "{out}{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn private_keys_are_nowhere_in_the_clear() {
    let mut world = World::start().await;
    world.issued("video.example.com").await;
    // What a P-256 key in PKCS#8 begins with (RFC 5958, RFC 5915), up to the secret itself: as it is, and in base64.
    let der = [
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01, 0x04, 0x20,
    ];
    let searched = [
        der.as_slice(),
        b"AgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg",
        b"PRIVATE KEY",
        b"key_pkcs8",
    ];
    assert_nowhere(&world, &searched);
    world.kill_and_restart().await;
    let client = world.client(Protocol::H1).await;
    client.handshake("video.example.com").await.unwrap();
    assert_nowhere(&world, &searched);
    // The search finds what is there: the internal CA's own key.
    let own = std::fs::read(world.edge.data_dir().join("ca.key")).unwrap();
    assert!(searched.iter().any(|needle| holds(&own, needle)));
}

/// Searches everything that the server has written, but the internal CA's own key.
pub(super) fn assert_nowhere(world: &World, needles: &[&[u8]]) {
    fn search(folder: &Path, needles: &[&[u8]]) -> usize {
        let mut files = 0;
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                files += search(&path, needles);
            } else if path.file_name().is_some_and(|name| name != "ca.key") {
                let content = std::fs::read(&path).unwrap_or_default();
                for needle in needles {
                    assert!(
                        !holds(&content, needle),
                        "{}: {}",
                        path.display(),
                        needle.escape_ascii()
                    );
                }
                files += 1;
            }
        }
        files
    }
    assert!(search(world.edge.data_dir(), needles) > 1, "there is a database");
    for needle in needles {
        assert!(
            !holds(world.edge.log().as_bytes(), needle),
            "in the log: {}",
            needle.escape_ascii()
        );
    }
}

fn holds(content: &[u8], needle: &[u8]) -> bool {
    content.windows(needle.len()).any(|window| window == needle)
}
