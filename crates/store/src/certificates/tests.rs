//! What is promised of certificates on their way, over a real database.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::NewDomain;
use edgeweir_model::{DomainId, ProjectId};
use std::time::Duration;

struct Given {
    store: Store,
    project: ProjectId,
    domain: DomainId,
    id: SubscriptionId,
    _dir: tempfile::TempDir,
}

async fn given() -> Given {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open("sqlite", dir.path()).await.unwrap();
    let project = store.create_project("p").await.unwrap().project_id;
    let name = "x.example.com".parse().unwrap();
    let domain = store.create_domain(project, name, NewDomain::Live, 1).await.unwrap().id;
    let made = store
        .create_subscription(project, domain, |_| String::new())
        .await
        .unwrap();
    Given {
        store,
        project,
        domain,
        id: made.id,
        _dir: dir,
    }
}

fn progress(due: i64) -> Progress {
    Progress {
        state: format!("{{\"due\":{due}}}"),
        due,
        status: SubscriptionStatus::Processing,
        message: Some("Wait.".to_owned()),
        not_after: None,
    }
}

fn order(url: &str) -> StoredOrder {
    StoredOrder {
        url: url.to_owned(),
        private_key: url.as_bytes().to_vec(),
        csr: b"csr".to_vec(),
    }
}

fn certificate(chain: &str) -> Learned {
    Learned::Certificate {
        chain: chain.to_owned(),
        not_before: Timestamp(0),
        not_after: Timestamp(1000),
    }
}

#[tokio::test]
async fn each_step_is_there_after_a_crash() {
    let Given { store, id, .. } = &given().await;
    let (id, zone) = (*id, "edge.example.net".parse().unwrap());
    assert_eq!(store.due_issuances(0, 10).await.unwrap(), [id]);
    assert_eq!(store.issuance(id).await.unwrap().state, None);
    let save = async |learned| store.save_issuance(id, &progress(7), &learned).await;
    save(Learned::Order(order("o1"))).await.unwrap();
    assert_eq!(store.order(id).await.unwrap(), Some(order("o1")));
    assert_eq!(store.issuance(id).await.unwrap().state.as_deref(), Some("{\"due\":7}"));
    assert_eq!(store.due_issuances(6, 10).await.unwrap(), []);
    assert_eq!(store.next_issuance(6).await.unwrap(), Some(7));
    assert_eq!(store.due_issuances(7, 10).await.unwrap(), [id]);
    save(Learned::Challenges(vec![("t".to_owned(), "t.k".to_owned())]))
        .await
        .unwrap();
    let snapshot = store.snapshot(&zone).await.unwrap();
    assert_eq!(snapshot.challenges()[0].key_authorization.as_ref(), "t.k");
    assert_eq!(snapshot.challenges()[0].host.as_str(), "x.example.com");

    save(certificate("c1")).await.unwrap();
    let snapshot = store.snapshot(&zone).await.unwrap();
    assert!(snapshot.challenges().is_empty());
    let first = snapshot.certificates()[0].id;
    let stored = store.certificates(&[first, first + 1]).await.unwrap();
    assert_eq!((stored.len(), stored[0].chain.as_str()), (1, "c1"));
    assert_eq!(stored[0].private_key, b"o1");
    assert_eq!(store.order(id).await.unwrap(), None);

    // A certificate whose key is not there does not take the place of one that serves.
    assert!(save(certificate("lost")).await.is_err());
    assert_eq!(store.chain_of(id).await.unwrap().as_deref(), Some("c1"));

    save(Learned::Order(order("o2"))).await.unwrap();
    save(Learned::OrderOver).await.unwrap();
    assert_eq!(store.order(id).await.unwrap(), None);
    save(Learned::Order(order("o3"))).await.unwrap();
    save(certificate("c3")).await.unwrap();
    let renewed = store.snapshot(&zone).await.unwrap().certificates()[0].id;
    assert!(renewed > first);
}

#[tokio::test]
async fn a_certificate_goes_with_its_domain() {
    let given = given().await;
    let store = &given.store;
    for learned in [Learned::Order(order("o")), certificate("c"), Learned::Order(order("p"))] {
        store.save_issuance(given.id, &progress(0), &learned).await.unwrap();
    }
    store.delete_domain(given.project, given.domain).await.unwrap();
    let snapshot = store.snapshot(&"edge.example.net".parse().unwrap()).await.unwrap();
    assert!(snapshot.certificates().is_empty());
    assert_eq!(store.order(given.id).await.unwrap(), None);
    assert!(store.due_issuances(i64::MAX, 10).await.unwrap().is_empty());
    let late = store.save_issuance(given.id, &progress(0), &Learned::Nothing).await;
    assert!(matches!(late, Err(StoreError::NotFound)));
}

#[tokio::test]
async fn one_holder_at_a_time() {
    let store = given().await.store;
    let take = async |holder, now, until| store.take_lease("l", holder, now, until).await.unwrap();
    assert!(take("a", 0, 100).await);
    assert!(!take("b", 50, 150).await);
    assert!(take("a", 50, 200).await);
    assert!(!take("b", 150, 250).await);
    assert!(take("b", 200, 300).await);
    store.release_lease("l", "a").await.unwrap();
    assert!(!take("a", 250, 350).await);
    store.release_lease("l", "b").await.unwrap();
    assert!(take("a", 250, 350).await);
    // Taken by a clock that was a day ahead.
    assert!(take("a", 86_400_000, 86_500_000).await);
    assert!(take("b", 0, 100).await);
}

#[tokio::test]
async fn a_lease_is_no_change() {
    let given = given().await;
    let mut feed = given.store.feed().await.unwrap();
    assert!(given.store.take_lease("l", "a", 0, 100).await.unwrap());
    let told = tokio::time::timeout(Duration::from_millis(400), feed.next()).await;
    assert!(told.is_err());
    given.store.set_acme_account("https://ca", b"sealed").await.unwrap();
    feed.next().await;
    assert_eq!(
        given.store.acme_account("https://ca").await.unwrap().as_deref(),
        Some(&b"sealed"[..])
    );
    assert_eq!(given.store.acme_account("https://other").await.unwrap(), None);
}
