//! Two tiers: an edge whose bucket has another Edgeweir, the shield, as its HTTP origin.

use crate::{BINARY, main_job::ffmpeg, sign};
use edgeweir_harness::{Answer, Edge, Large, Origin, Project, Relay, Reply, Seen, demo};
use http::Method;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// An edge, the shield behind it, and the origin behind that.
struct Tiers {
    edge: Edge,
    edge_project: Project,
    /// The host of the edge's bucket.
    host: String,
    shield: Edge,
    shield_project: Project,
    /// What goes from the edge to the shield.
    between: Relay,
    origin: Origin,
}

impl Tiers {
    async fn before(answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(json!({}), answer).await
    }

    /// The same where the description of the shield's origin has `more`.
    async fn with(more: Value, answer: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let origin = Origin::serve(answer).await;
        let (shield, edge) = (Edge::start(BINARY).await, Edge::start(BINARY).await);
        let (shield_project, edge_project) = (shield.project().await, edge.project().await);
        let mut described = json!({"type": "http", "url": origin.url()});
        described
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let behind = shield_project.bucket_at("shielded", described).await;
        // The shield's name is in no DNS.
        let between = Relay::to_host(shield.address("http"), &behind).await;
        let host = edge_project
            .bucket_at("front", json!({"type": "http", "url": between.url()}))
            .await;
        Self {
            edge,
            edge_project,
            host,
            shield,
            shield_project,
            between,
            origin,
        }
    }

    async fn get(&self, path: &str) -> Reply {
        self.edge.http().get(&self.host, path).await
    }
}

const FRESH: &str = "Cache-Control: max-age=600\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn signed_playback_through_both_and_the_token_stays_at_the_edge() {
    let files: Vec<_> = demo()
        .into_iter()
        .map(|(key, content)| (format!("/{key}"), content))
        .collect();
    let tiers = Tiers::before(move |seen| {
        let found = files.iter().find(|(path, _)| *path == seen.target);
        let Some((_, content)) = found else {
            return Answer::Raw("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".into());
        };
        let length = content.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{FRESH}Connection: close\r\n\r\n");
        Answer::Raw([head.as_bytes(), content].concat().into())
    })
    .await;
    tiers.edge_project.policy("front", "authenticated").await;
    let key = tiers.edge_project.signing_key("bucket_name", "front").await;
    let token = sign(&tiers.edge, &key, "");
    let (proxy, ca) = (
        format!("http://{}", tiers.edge.address("http")),
        tiers.edge.data_dir().join("ca.pem"),
    );
    for path in ["hls/master.m3u8", "dash/manifest.mpd"] {
        let url = format!("http://{}/{path}?auth={token}", tiers.host);
        assert_eq!(ffmpeg(&proxy, &url, &ca), Ok(200), "{path}");
    }
    assert_eq!(tiers.get("/hls/master.m3u8").await.error(), "token_missing");
    let between = tiers.between.heads().concat();
    let behind: String = tiers.origin.seen().iter().map(|seen| seen.head.clone()).collect();
    for heads in [&between, &behind] {
        assert!(!heads.is_empty() && !heads.contains(&token) && !heads.contains("auth="));
    }
    assert!(!tiers.shield.log().contains(&token));
    // Each object was asked for once, by either.
    let mut asked: Vec<_> = tiers.origin.seen().into_iter().map(|seen| seen.target).collect();
    let all = asked.len();
    asked.sort_unstable();
    asked.dedup();
    assert_eq!(asked.len(), all, "{asked:?}");
    assert_eq!(tiers.between.heads().len(), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_viewers_at_two_tiers_are_one_request_at_the_origin() {
    let tiers = Tiers::before(|_| Answer::ok(FRESH, "content").held()).await;
    let viewers: Vec<_> = (0..40)
        .map(|n| {
            // Some come to the shield itself.
            let (client, host) = if n % 4 == 0 {
                let host = "shielded.media-storage.local.edgeweir.localhost".to_owned();
                (tiers.shield.http(), host)
            } else {
                (tiers.edge.http(), tiers.host.clone())
            };
            tokio::spawn(async move { client.get(&host, "/a.ts").await })
        })
        .collect();
    tiers.origin.asked(1).await;
    tiers.origin.release();
    for viewer in viewers {
        assert_eq!(viewer.await.unwrap().text(), "content");
    }
    assert_eq!((tiers.origin.seen().len(), tiers.between.heads().len()), (1, 1));
}

#[tokio::test]
async fn both_tiers_tell_what_they_did_and_how_old_the_answer_is() {
    let tiers = Tiers::before(|seen| {
        let fields = format!("{FRESH}Age: 100\r\nCache-Status: other; hit\r\n");
        Answer::ok(&fields, &seen.target)
    })
    .await;
    let first = tiers.get("/a.ts").await;
    assert_eq!(
        first.header("cache-status"),
        "other; hit, edgeweir; fwd=uri-miss; stored, edgeweir; fwd=uri-miss; stored"
    );
    let hit = tiers.get("/a.ts").await;
    assert!(hit.header("cache-status").starts_with("edgeweir; hit; ttl="), "{hit:?}");
    let age: u64 = hit.header("age").parse().unwrap();
    assert!((100..160).contains(&age), "{age}");

    // What the shield has already: it says so, and the edge after it.
    let host = "shielded.media-storage.local.edgeweir.localhost";
    tiers.shield.http().get(host, "/b.ts").await;
    let second = tiers.get("/b.ts").await;
    let status = second.header("cache-status");
    assert!(status.starts_with("edgeweir; hit; ttl="), "{status}");
    assert!(status.ends_with(", edgeweir; fwd=uri-miss; stored"), "{status}");
    let age: u64 = tiers.get("/b.ts").await.header("age").parse().unwrap();
    assert!((100..160).contains(&age), "{age}");

    // Queries are told apart by both; the networks on the way are named.
    for query in ["?x=1", "?x=2", "?x=1"] {
        assert_eq!(tiers.get(&format!("/q{query}")).await.text(), format!("/q{query}"));
    }
    let asked = tiers.origin.seen();
    assert_eq!(asked.iter().filter(|seen| seen.target.starts_with("/q")).count(), 2);
    let networks = asked[0].head.matches("edgeweir-").count();
    assert_eq!(networks, 2, "{}", asked[0].head);
}

#[tokio::test]
async fn a_purge_counts_at_the_tier_that_it_is_made_at() {
    let version = Arc::new(AtomicUsize::new(1));
    let at = version.clone();
    let tiers = Tiers::before(move |_| Answer::ok(FRESH, &at.load(Ordering::SeqCst).to_string())).await;
    let purge = json!({"path": "a.ts"});
    let edge = async || {
        tiers
            .edge_project
            .post("/v1/buckets/front/cache/purge", purge.clone())
            .await;
    };
    let shield = async || {
        tiers
            .shield_project
            .post("/v1/buckets/shielded/cache/purge", purge.clone())
            .await;
    };
    assert_eq!(tiers.get("/a.ts").await.text(), "1");
    version.store(2, Ordering::SeqCst);
    // The shield has it still.
    edge().await;
    assert_eq!(tiers.get("/a.ts").await.text(), "1");
    shield().await;
    assert_eq!(tiers.get("/a.ts").await.text(), "1");
    // From the origin outwards.
    edge().await;
    assert_eq!(tiers.get("/a.ts").await.text(), "2");
    version.store(3, Ordering::SeqCst);
    for (project, bucket) in [(&tiers.shield_project, "shielded"), (&tiers.edge_project, "front")] {
        project
            .ok(Method::POST, &format!("/v1/buckets/{bucket}/cache/purge_all"), "")
            .await;
    }
    assert_eq!(tiers.get("/a.ts").await.text(), "3");
}

#[tokio::test]
async fn surrogate_keys_reach_the_edge_of_a_shield_that_shows_them_and_nobody_else() {
    const KEYS: &str = "Surrogate-Key: film-7 all\r\nCache-Tag: film-7\r\n";
    for (more, shown) in [(json!({}), false), (json!({"show_surrogate_keys": true}), true)] {
        let version = Arc::new(AtomicUsize::new(1));
        let at = version.clone();
        let tiers = Tiers::with(more, move |seen| {
            // A miss of a range is an answer of its own, and so is one that may not be kept.
            let control = if seen.target == "/own.ts" {
                "Cache-Control: no-store\r\n"
            } else {
                FRESH
            };
            Answer::ok(&format!("{control}{KEYS}"), &at.load(Ordering::SeqCst).to_string())
        })
        .await;
        for path in ["/a.ts", "/a.ts", "/own.ts", "/own.ts"] {
            let reply = tiers.get(path).await;
            assert_eq!(
                (reply.header("surrogate-key"), reply.header("cache-tag")),
                ("", ""),
                "{path}"
            );
            let host = "shielded.media-storage.local.edgeweir.localhost";
            let reply = tiers.shield.http().get(host, path).await;
            assert_eq!(
                reply.header("surrogate-key") == "film-7 all",
                shown,
                "{path}: {reply:?}"
            );
            assert_eq!(reply.header("cache-tag") == "film-7", shown, "{path}: {reply:?}");
        }
        version.store(2, Ordering::SeqCst);
        let purge = json!({"surrogate_keys": ["film-7"]});
        for (project, bucket) in [(&tiers.shield_project, "shielded"), (&tiers.edge_project, "front")] {
            project
                .post(&format!("/v1/buckets/{bucket}/cache/purge"), purge.clone())
                .await;
        }
        // Without the keys the edge does not know what the purge is of.
        assert_eq!(tiers.get("/a.ts").await.text(), if shown { "2" } else { "1" });
    }
    let tiers = Tiers::with(json!({"show_surrogate_keys": true}), |_| Answer::ok(FRESH, "1")).await;
    let bucket = tiers.shield_project.ok(Method::GET, "/v1/buckets/shielded", "").await;
    assert_eq!(bucket["bucket"]["origin"]["show_surrogate_keys"], true, "{bucket}");
}

#[tokio::test]
async fn a_shield_that_asks_for_tokens_refuses_the_edge() {
    let tiers = Tiers::before(|_| Answer::ok(FRESH, "content")).await;
    tiers.shield_project.policy("shielded", "authenticated").await;
    let refused = tiers.get("/a.ts").await;
    assert_eq!(refused.status, 403);
    assert_eq!(tiers.origin.seen().len(), 0);
    tiers.shield_project.policy("shielded", "public").await;
    assert_eq!(tiers.get("/a.ts").await.text(), "content");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seek_through_both_costs_a_slice_and_a_changed_object_is_not_mixed() {
    const SLICE: u64 = 1 << 20;
    let film = Large::new(20_000_000_000);
    let version = Arc::new(AtomicUsize::new(1));
    let (at, of) = (version.clone(), film.clone());
    let tiers = Tiers::before(move |seen| of.version(at.load(Ordering::SeqCst) as u8).answer(seen)).await;
    let seek = async |at: u64, version: u8| {
        let range = format!("bytes={at}-{}", at + 9);
        let reply = tiers
            .edge
            .http()
            .get_with(&tiers.host, "/film.mp4", &[("range", &range)])
            .await;
        assert_eq!(reply.status, 206, "{:?}", reply.headers);
        assert_eq!(reply.body, film.version(version).bytes(at..at + 10));
    };
    seek(10_000_000_000, 1).await;
    seek(0, 1).await;
    // Who seeks is answered before the slice is there.
    for server in [&tiers.edge, &tiers.shield] {
        server.until("edgeweir_cache_memory_entries", |n| n == 3).await;
    }
    assert_eq!((tiers.origin.seen().len(), tiers.origin.sent()), (2, 2 * SLICE));
    seek(10_000_000_005, 1).await;
    assert_eq!(tiers.between.heads().len(), 2);

    // Both find out at the next slice.
    version.store(2, Ordering::SeqCst);
    seek(5_000_000_000, 2).await;
    seek(0, 2).await;
    seek(10_000_000_000, 2).await;
}
