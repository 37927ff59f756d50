//! What the store promises, over a real database in a folder of its own.

#![allow(clippy::unwrap_used)]

use crate::{API_KEYS, ApiKeyId, DomainKind, KeyScope, NewBucket, NewDomain, Page, Store, StoreError, StreamOrigin};
use edgeweir_model::{
    AccessPolicy, BucketId, BucketName, Change, Content, CorsHeader, CorsPolicy, DomainId, Fqdn, KeyPrefix, ObjectKey,
    Origin, ProjectId, Purge, Purged, S3Origin, S3Settings, SealedSecret, SurrogateKey, Timestamp,
};
use secrecy::ExposeSecret;
use std::sync::Arc;

async fn open() -> (Store, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (Store::open("sqlite", dir.path()).await.unwrap(), dir)
}

async fn project(store: &Store) -> ProjectId {
    store.create_project("p").await.unwrap().project_id
}

fn bucket(name: &str) -> BucketName {
    name.parse().unwrap()
}

async fn make_bucket(store: &Store, project: ProjectId, name: &str) {
    let new = NewBucket {
        name: bucket(name),
        region: "local".to_owned(),
        origin: Origin::Local,
    };
    store.create_bucket(project, new).await.unwrap();
}

async fn live(store: &Store, project: ProjectId, name: &str) -> Result<DomainId, StoreError> {
    let name: Fqdn = name.parse().unwrap();
    Ok(store.create_domain(project, name, NewDomain::Live, 20).await?.id)
}

fn zone() -> Fqdn {
    "edgeweir.localhost".parse().unwrap()
}

#[tokio::test]
async fn api_keys_are_stored_hashed_and_end_when_revoked() {
    let (store, dir) = open().await;
    let made = store.create_project("p").await.unwrap();
    let key = made.api_key.expose_secret();
    let (project, found) = store.authenticate(key).await.unwrap();
    assert_eq!(project, made.project_id);
    for wrong in ["", "ew_x", &key[1..], &format!("{key} ")] {
        assert!(
            matches!(store.authenticate(wrong).await, Err(StoreError::NotFound)),
            "{wrong}"
        );
    }
    let last = store.revoke_api_key(made.project_id, found.id).await;
    assert!(matches!(last, Err(StoreError::LastApiKey)), "{last:?}");
    assert!(store.authenticate(key).await.is_ok());
    let of_nobody = store.create_api_key(ProjectId(made.project_id.0 + 1)).await;
    assert!(matches!(of_nobody, Err(StoreError::NotFound)), "{of_nobody:?}");
    let (other, _) = store.create_api_key(made.project_id).await.unwrap();
    store.revoke_api_key(made.project_id, found.id).await.unwrap();
    assert!(matches!(store.authenticate(key).await, Err(StoreError::NotFound)));
    let live = store.live_api_keys(made.project_id).await.unwrap();
    assert_eq!(live.iter().map(|key| key.id).collect::<Vec<_>>(), [other.id]);
    store.close().await;
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let content = std::fs::read(file.unwrap().path()).unwrap();
        assert!(
            !content.windows(key.len()).any(|w| w == key.as_bytes()),
            "the key itself is on the disk"
        );
    }
}

#[tokio::test]
async fn concurrent_creations_stop_exactly_at_the_limit() {
    let (store, _dir) = open().await;
    let project = project(&store).await;
    let tasks: Vec<_> = (0..25)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let key = store.create_api_key(project).await;
                (key, live(&store, project, &format!("d{n}.example.com")).await)
            })
        })
        .collect();
    let (mut keys, mut made) = (0, 0);
    for task in tasks {
        let (key, domain) = task.await.unwrap();
        match key {
            Ok(_) => keys += 1,
            Err(e) => assert!(matches!(e, StoreError::ApiKeyLimitReached(API_KEYS)), "{e}"),
        }
        match domain {
            Ok(_) => made += 1,
            Err(e) => assert!(matches!(e, StoreError::DomainLimitReached(20)), "{e}"),
        }
    }
    // The first came with the project.
    assert_eq!((1 + keys, made), (API_KEYS, 20));
    assert_eq!(store.live_api_keys(project).await.unwrap().len(), API_KEYS);
    assert_eq!(store.list_domains(project, None).await.unwrap().len(), 20);
}

#[tokio::test]
async fn a_name_exists_once_and_stays_its_last_owners_for_a_while() {
    let (store, _dir) = open().await;
    let (a, b) = (project(&store).await, project(&store).await);
    let id = live(&store, a, "x.example.com").await.unwrap();
    assert!(matches!(
        live(&store, b, "x.example.com").await,
        Err(StoreError::DomainTaken)
    ));
    store.delete_domain(a, id).await.unwrap();
    assert!(matches!(
        live(&store, b, "x.example.com").await,
        Err(StoreError::DomainTaken)
    ));
    live(&store, a, "x.example.com").await.unwrap();
}

#[tokio::test]
async fn names_whose_time_is_over_are_free_and_forgotten() {
    let (store, _dir) = open().await;
    let (a, b) = (project(&store).await, project(&store).await);
    for name in ["x.example.com", "y.example.com"] {
        let id = live(&store, a, name).await.unwrap();
        store.delete_domain(a, id).await.unwrap();
    }
    let mut db = store.connect().await.unwrap();
    let over = "UPDATE released_names SET until = unixepoch() WHERE name = 'x.example.com'";
    sqlx::query(over).execute(&mut db).await.unwrap();
    let id = live(&store, b, "z.example.com").await.unwrap();
    store.delete_domain(b, id).await.unwrap();
    let kept: Vec<String> = sqlx::query_scalar("SELECT name FROM released_names ORDER BY name")
        .fetch_all(&mut db)
        .await
        .unwrap();
    assert_eq!(kept, ["y.example.com", "z.example.com"]);
    live(&store, b, "x.example.com").await.unwrap();
}

#[tokio::test]
async fn what_hangs_on_a_thing_goes_with_it() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    make_bucket(&store, p, "videos").await;
    let domain = live(&store, p, "x.example.com").await.unwrap();
    let subscription = store.create_subscription(p, domain, |_| String::new()).await.unwrap();
    let (stream, _) = store.create_stream(p, "s", StreamOrigin::Ingest).await.unwrap();
    let mut keys = Vec::new();
    for scope in [
        KeyScope::Domain(domain),
        KeyScope::Stream(stream.id),
        KeyScope::Bucket(bucket("videos")),
    ] {
        keys.push(store.create_signing_key(p, scope, None, b"der").await.unwrap().id);
    }
    // The sticky policy: a key closes a domain and a stream, and not a bucket.
    assert_eq!(
        store.get_domain(p, domain).await.unwrap().policy,
        AccessPolicy::Authenticated
    );
    assert_eq!(
        store.get_stream(p, stream.id).await.unwrap().policy,
        AccessPolicy::Authenticated
    );
    assert_eq!(
        store.get_bucket_policy(p, &bucket("videos")).await.unwrap(),
        AccessPolicy::Public
    );
    store.delete_domain(p, domain).await.unwrap();
    store.delete_stream(p, stream.id).await.unwrap();
    let locked = store.lock_bucket(p, &bucket("videos")).await.unwrap();
    locked.delete().await.unwrap();
    assert!(matches!(
        store.get_subscription(p, subscription.id).await,
        Err(StoreError::NotFound)
    ));
    for key in keys {
        assert!(matches!(store.get_signing_key(p, key).await, Err(StoreError::NotFound)));
    }
}

#[tokio::test]
async fn a_bucket_that_a_domain_serves_cannot_go() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    make_bucket(&store, p, "videos").await;
    let vod = NewDomain::Vod(bucket("videos"));
    let made = store
        .create_domain(p, "v.example.com".parse().unwrap(), vod, 20)
        .await
        .unwrap();
    assert_eq!((made.kind, made.bucket), (DomainKind::Vod, Some(bucket("videos"))));
    let locked = store.lock_bucket(p, &bucket("videos")).await.unwrap();
    assert!(matches!(locked.delete().await, Err(StoreError::BucketInUse)));
    store.get_bucket(p, &bucket("videos")).await.unwrap();
}

#[tokio::test]
async fn the_generation_rises_with_whatever_makes_cached_answers_wrong() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    make_bucket(&store, p, "videos").await;
    let name = bucket("videos");
    let generation = async || store.get_bucket(p, &name).await.unwrap().generation;
    let start = generation().await;
    store
        .set_bucket_policy(p, &name, AccessPolicy::Authenticated)
        .await
        .unwrap();
    assert_eq!(generation().await, start + 1);
    store
        .set_bucket_policy(p, &name, AccessPolicy::Authenticated)
        .await
        .unwrap();
    store.set_bucket_policy(p, &name, AccessPolicy::Public).await.unwrap();
    assert_eq!(generation().await, start + 1);
    store.purge_all(p, &name).await.unwrap();
    assert_eq!(generation().await, start + 2);
    let locked = store.lock_bucket(p, &name).await.unwrap();
    locked.set_origin(Origin::Local).await.unwrap();
    assert_eq!(generation().await, start + 3);
}

#[tokio::test]
async fn an_s3_origin_keeps_its_settings_and_its_sealed_secret() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    let settings = S3Settings {
        endpoint: "https://s3.example.com".to_owned(),
        bucket: "videos".to_owned(),
        region: "eu-west-1".to_owned(),
        access_key_id: "AKIA".to_owned(),
        path_style: true,
    };
    let sealed = SealedSecret(Box::new([0, 255, 7]));
    let origin = Origin::S3(Arc::new(S3Origin::new(settings, sealed).unwrap()));
    let name = bucket("mine");
    let new = NewBucket {
        name: name.clone(),
        region: "local".to_owned(),
        origin: origin.clone(),
    };
    assert_eq!(store.create_bucket(p, new).await.unwrap().origin, origin);
    assert_eq!(store.get_bucket(p, &name).await.unwrap().origin, origin);
    let snapshot = store.snapshot(&zone()).await.unwrap();
    let site = snapshot.site("mine.media-storage.local.edgeweir.localhost").unwrap();
    let Content::Bucket(served) = &site.content else {
        panic!("{site:?}")
    };
    assert_eq!(served.origin, origin);
}

#[tokio::test]
async fn a_cors_policy_stays_valid_over_several_writes() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    make_bucket(&store, p, "videos").await;
    let name = bucket("videos");
    let policy = CorsPolicy::new([
        ("Access-Control-Allow-Origin", "https://a.example"),
        ("Access-Control-Allow-Credentials", "true"),
    ])
    .unwrap();
    store.set_cors(p, &name, policy.clone()).await.unwrap();
    let refused = store.delete_cors_header(p, &name, CorsHeader::AllowOrigin).await;
    assert!(matches!(refused, Err(StoreError::Cors(_))));
    assert_eq!(store.get_cors(p, &name).await.unwrap(), policy);
}

#[tokio::test]
async fn lists_come_in_pages_newest_first() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    for n in 0..5 {
        make_bucket(&store, p, &format!("bucket-{n}")).await;
    }
    let mut seen = Vec::new();
    let mut page = Page::first(2);
    loop {
        let (found, more) = store.list_buckets(p, &page).await.unwrap();
        seen.extend(found.iter().map(|b| b.name.to_string()));
        page.after = seen.last().cloned();
        if !more {
            break;
        }
    }
    assert_eq!(seen, ["bucket-4", "bucket-3", "bucket-2", "bucket-1", "bucket-0"]);
    page.after = Some("unknown".to_owned());
    assert!(matches!(
        store.list_buckets(p, &page).await,
        Err(StoreError::UnknownCursor)
    ));
}

#[tokio::test]
async fn every_write_is_in_the_change_log_and_a_refused_one_is_not() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    make_bucket(&store, p, "videos").await;
    let name = bucket("videos");
    let domain = live(&store, p, "x.example.com").await.unwrap();
    let (stream, _) = store.create_stream(p, "s", StreamOrigin::Ingest).await.unwrap();
    let key = store
        .create_signing_key(p, KeyScope::Bucket(name.clone()), None, b"der")
        .await
        .unwrap()
        .id;
    let last = async || store.snapshot(&zone()).await.unwrap().sequence();
    let object = ObjectKey::new("a/b").unwrap();
    macro_rules! writes {
        ($($write:expr),* $(,)?) => {$(
            let before = last().await;
            $write.await.unwrap();
            assert_eq!(last().await, before + 1, stringify!($write));
        )*};
    }
    writes!(
        store.set_domain_policy(p, domain, AccessPolicy::Public),
        store.set_stream_policy(p, stream.id, AccessPolicy::Public),
        store.set_bucket_policy(p, &name, AccessPolicy::Authenticated),
        store.set_cors(p, &name, CorsPolicy::default()),
        store.delete_cors(p, &name),
        store.delete_cors_header(p, &name, CorsHeader::MaxAge),
        store.rename_signing_key(p, key, Some("n".to_owned())),
        store.delete_signing_key(p, key),
        store.purge_all(p, &name),
        store.create_api_key(p),
        store.revoke_api_key(p, ApiKeyId(1)),
        store.create_subscription(p, domain, |_| String::new()),
        store.delete_stream(p, stream.id),
        store.delete_domain(p, domain),
        store.purge(p, &name, Purge::hard(Purged::Object(object.clone()))),
    );
    let at = last().await;
    assert!(store.delete_domain(p, domain).await.is_err());
    assert!(live(&store, ProjectId(999), "y.example.com").await.is_err());
    assert_eq!(last().await, at);
    let changes = store.changes_since(at - 1).await.unwrap().unwrap();
    let bucket = store.get_bucket(p, &name).await.unwrap().id;
    let purge = Purge::hard(Purged::Object(object));
    assert_eq!(changes, [(at, Change::Purge { bucket, purge })]);
    assert_eq!(store.changes_since(at).await.unwrap(), Some(Vec::new()));
    assert_eq!(
        store.changes_since(at + 1).await.unwrap(),
        None,
        "a number from the future is a gap"
    );
}

fn purges() -> Vec<Purge> {
    let keys = ["a", "b"].map(|key| SurrogateKey::new(key).unwrap());
    [
        Purged::Object(ObjectKey::new("a/b").unwrap()),
        Purged::Prefix(KeyPrefix::new("a/").unwrap()),
        Purged::SurrogateKeys(keys.into()),
        Purged::Everything,
    ]
    .into_iter()
    .flat_map(|what| [Purge::hard(what.clone()), Purge::soft(what)])
    .collect()
}

#[tokio::test]
async fn purges_are_read_as_they_were_made_one_entry_each() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    make_bucket(&store, p, "videos").await;
    let name = bucket("videos");
    let before = store.get_bucket(p, &name).await.unwrap();
    let start = *store.commits().borrow();
    for purge in purges() {
        store.purge(p, &name, purge).await.unwrap();
    }
    let expected: Vec<_> = (start + 1..)
        .zip(purges().into_iter().map(|purge| Change::Purge {
            bucket: before.id,
            purge,
        }))
        .collect();
    assert_eq!(store.changes_since(start).await.unwrap(), Some(expected));
    assert_eq!(store.get_bucket(p, &name).await.unwrap(), before, "no row has changed");
    let unknown = store.purge(p, &bucket("other"), Purge::hard(Purged::Everything)).await;
    assert!(matches!(unknown, Err(StoreError::NotFound)));
    // Older versions know this kind, which their servers and ours may write beside each other.
    let mut db = store.connect().await.unwrap();
    let kinds: Vec<String> = sqlx::query_scalar("SELECT kind FROM changes WHERE seq > ? ORDER BY seq")
        .bind(start as i64)
        .fetch_all(&mut db)
        .await
        .unwrap();
    let mut expected = vec!["purge"; 8];
    expected[0] = "purge_object";
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn purges_of_other_versions_are_understood_or_known_not_to_be() {
    let (store, _dir) = open().await;
    project(&store).await;
    let start = *store.commits().borrow();
    let mut db = store.connect().await.unwrap();
    let object = |key: &str, soft| {
        let what = Purged::Object(ObjectKey::new(key).unwrap());
        Some(Purge { what, soft })
    };
    for (kind, payload, expected) in [
        ("purge_object", r#"{"bucket":7,"key":"a/b"}"#, object("a/b", false)),
        (
            "purge",
            r#"{"bucket":7,"what":{"object":"a"},"soft":true}"#,
            object("a", true),
        ),
        ("purge_object", r#"{"bucket":7,"key":"a//b"}"#, None),
        ("purge_object", "", None),
        ("purge", r#"{"bucket":7,"what":{"object":"a"}}"#, None),
        (
            "purge",
            r#"{"bucket":7,"what":{"object":"a"},"soft":true,"region":"eu"}"#,
            None,
        ),
        ("purge", r#"{"bucket":7,"what":{"suffix":"a"},"soft":true}"#, None),
        ("purge", r#"{"bucket":7,"what":{"prefix":""},"soft":false}"#, None),
        (
            "purge",
            r#"{"bucket":7,"what":{"surrogate_keys":["a","b c"]},"soft":false}"#,
            None,
        ),
        (
            "purge_suffix",
            r#"{"bucket":7,"what":{"prefix":"a"},"soft":false}"#,
            None,
        ),
    ] {
        let insert = "INSERT INTO changes (kind, payload, created) VALUES (?, ?, 9000000000)";
        let query = sqlx::query(insert).bind(kind).bind(payload);
        let seq = query.execute(&mut db).await.unwrap().last_insert_rowid() as u64;
        let bucket = BucketId(7);
        let expected = expected.map(|purge| vec![(seq, Change::Purge { bucket, purge })]);
        assert_eq!(
            store.changes_since(seq - 1).await.unwrap(),
            expected,
            "{kind} {payload}"
        );
    }
    assert_eq!(store.changes_since(start).await.unwrap(), None, "one of them is enough");
}

#[tokio::test]
async fn a_log_that_does_not_hold_what_came_after_a_number_says_so() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    for n in 0..5 {
        make_bucket(&store, p, &format!("bucket-{n}")).await;
    }
    let last = *store.commits().borrow();
    let since = async |seq| Some(store.changes_since(seq).await.unwrap()?.len());
    assert_eq!((since(last).await, since(last - 2).await), (Some(0), Some(2)));
    // Of another database, which came farther.
    assert_eq!((since(last + 1).await, since(u64::MAX).await), (None, None));
    let mut db = store.connect().await.unwrap();
    let old = sqlx::query("UPDATE changes SET created = 0 WHERE seq < ?").bind(last as i64);
    old.execute(&mut db).await.unwrap();
    assert!(!store.prune_changes(Timestamp(1)).await.unwrap());
    assert_eq!((since(last).await, since(last - 1).await), (Some(0), Some(1)));
    assert_eq!((since(last - 2).await, since(0).await), (None, None));
}

#[tokio::test]
async fn old_changes_are_forgotten_some_at_a_time_the_oldest_first() {
    let (store, _dir) = open().await;
    let mut db = store.connect().await.unwrap();
    let old = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500)
               INSERT INTO changes (kind, created) SELECT 'rows', n FROM n";
    sqlx::query(old).execute(&mut db).await.unwrap();
    project(&store).await;
    let last = *store.commits().borrow();
    let since = async |seq| Some(store.changes_since(seq).await.unwrap()?.len());
    let mut left = Vec::new();
    while store.prune_changes(Timestamp(2401)).await.unwrap() {
        left.push(since(1000).await);
    }
    assert_eq!(left, [Some(1501), None], "in two bites, and what was left of them");
    assert_eq!((since(2400).await, since(2399).await), (Some(101), None));
    assert_eq!((last, since(last).await), (2501, Some(0)));
}

#[tokio::test]
async fn a_snapshot_holds_hosts_policies_and_keys() {
    let (store, dir) = open().await;
    let p = project(&store).await;
    make_bucket(&store, p, "videos").await;
    let vod = NewDomain::Vod(bucket("videos"));
    let domain = store
        .create_domain(p, "v.example.com".parse().unwrap(), vod, 20)
        .await
        .unwrap();
    live(&store, p, "l.example.com").await.unwrap();
    let (stream, _) = store.create_stream(p, "s", StreamOrigin::Ingest).await.unwrap();
    let key = store
        .create_signing_key(p, KeyScope::Domain(domain.id), None, b"der")
        .await
        .unwrap();
    store
        .set_bucket_policy(p, &bucket("videos"), AccessPolicy::Authenticated)
        .await
        .unwrap();
    store.close().await;
    // As another process finds it.
    let store = Store::open("sqlite", dir.path()).await.unwrap();
    let snapshot = store.snapshot(&zone()).await.unwrap();
    let own = snapshot.site("videos.media-storage.local.edgeweir.localhost").unwrap();
    assert!(matches!(&own.content, Content::Bucket(b) if b.policy == AccessPolicy::Authenticated));
    let vod = snapshot.site("v.example.com").unwrap();
    assert_eq!(
        (vod.policy, &*vod.keys.get(key.id).unwrap().0),
        (AccessPolicy::Authenticated, &b"der"[..])
    );
    assert!(own.keys.get(key.id).is_none());
    let live = snapshot.site("l.example.com").unwrap();
    let playback = stream.playback_id.as_str();
    assert!(matches!(&live.content, Content::LiveDomain(d) if d.streams.contains_key(playback)));
    assert!(snapshot.site(&format!("play-{playback}.edgeweir.localhost")).is_some());
    assert!(snapshot.site("ingest.edgeweir.localhost").is_some());
    assert_eq!(snapshot.sites().count(), 5);
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_left_out_with_what_hangs_on_it() {
    let (store, _dir) = open().await;
    let p = project(&store).await;
    for name in ["fine", "origin", "cors"] {
        make_bucket(&store, p, name).await;
    }
    let vod = |name: &str| NewDomain::Vod(bucket(name));
    for (domain, name) in [("fine.example.com", "fine"), ("broken.example.com", "origin")] {
        let made = store.create_domain(p, domain.parse().unwrap(), vod(name), 20).await;
        made.unwrap();
    }
    live(&store, p, "live.example.com").await.unwrap();
    let (stream, _) = store.create_stream(p, "s", StreamOrigin::Ingest).await.unwrap();
    let of_bucket = KeyScope::Bucket(bucket("fine"));
    let kid = store
        .create_signing_key(p, of_bucket.clone(), None, b"der")
        .await
        .unwrap()
        .id;
    store.create_signing_key(p, of_bucket, None, b"der").await.unwrap();
    let before = store.snapshot(&zone()).await.unwrap().sequence();
    let mut db = store.connect().await.unwrap();
    for sql in [
        r#"UPDATE buckets SET origin = '{"type":"tape"}' WHERE name = 'origin'"#,
        "UPDATE buckets SET cors = '{' WHERE name = 'cors'",
        "UPDATE streams SET policy = 'maybe'",
        "UPDATE domains SET policy = 'maybe' WHERE name = 'live.example.com'",
        "UPDATE signing_keys SET id = 'no id' WHERE pos = 2",
        "INSERT INTO changes (kind, created) VALUES ('other', 9000000000)",
    ] {
        sqlx::query(sql).execute(&mut db).await.unwrap();
    }
    let snapshot = store.snapshot(&zone()).await.unwrap();
    let mut hosts: Vec<_> = snapshot.sites().map(|site| site.host.to_string()).collect();
    hosts.sort_unstable();
    assert_eq!(
        hosts,
        [
            "fine.example.com",
            "fine.media-storage.local.edgeweir.localhost",
            "ingest.edgeweir.localhost"
        ]
    );
    let site = snapshot.site("fine.media-storage.local.edgeweir.localhost").unwrap();
    assert!(matches!(&site.content, Content::Bucket(b) if b.keys.get(kid).is_some()));
    assert_eq!(store.changes_since(before).await.unwrap(), None);
    assert!(store.get_stream(p, stream.id).await.is_err());
    let left_out: Vec<_> = store.0.left_out.lock().unwrap().iter().cloned().collect();
    assert_eq!(left_out.len(), 6, "{left_out:?}");
    assert!(left_out.contains(&"bucket origin".to_owned()), "{left_out:?}");
}

#[tokio::test]
async fn commits_of_another_process_are_noticed() {
    let (store, dir) = open().await;
    let other = Store::open("sqlite", dir.path()).await.unwrap();
    let mut feed = store.feed().await.unwrap();
    let made = other.create_project("p").await.unwrap();
    feed.next().await;
    assert!(store.authenticate(made.api_key.expose_secret()).await.is_ok());
    store.create_project("q").await.unwrap();
    feed.next().await;
}

#[tokio::test]
async fn writes_wait_for_the_edge_that_follows() {
    let (store, _dir) = open().await;
    project(&store).await;
    assert!(store.settled().await, "nobody follows");
    store.attach_applier();
    let waiting = {
        let store = store.clone();
        tokio::spawn(async move { store.settled().await })
    };
    store.mark_applied(*store.commits().borrow());
    assert!(waiting.await.unwrap());
}

#[tokio::test]
async fn databases_that_cannot_be_used_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for url in ["postgres://localhost/x", "mysql://x", "", "sqlite:"] {
        let opened = Store::open(url, dir.path()).await;
        assert!(matches!(opened, Err(StoreError::Unsupported(_))), "{url}");
    }
    std::fs::write(
        dir.path().join("edgeweir.db"),
        "this is no database, and far longer than a header is",
    )
    .unwrap();
    assert!(Store::open("sqlite", dir.path()).await.is_err());
}
