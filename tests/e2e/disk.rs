//! The cache on disk: what is there after a restart, what is not, and what damage does.

use crate::{
    durability::SmallDisk,
    pulled::{Pulled, is_hit},
    sign,
};
use edgeweir_harness::{Answer, Client, Edge, Large, Protocol, Reply};
use http::Method;
use rustix::fs::{Advice, fadvise};
use serde_json::{Value, json};
use std::{
    fs::File,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

const SLICE: u64 = 1 << 20;
/// Small segments, so that there are several.
const DISK: (&str, &str) = ("cache.disk", "64MiB");

/// Where an object is large.
fn large(path: &str) -> Large {
    Large::new(if path.contains("film") {
        20_000_000_000
    } else {
        3 * SLICE + 5
    })
}

/// The objects of these tests, in a version: small ones with what selects them, and large ones.
async fn objects(version: &Arc<AtomicUsize>) -> Pulled {
    let at = version.clone();
    Pulled::start(&[DISK], move |seen| {
        let version = at.load(Ordering::SeqCst);
        let path = seen.target.split('?').next().unwrap_or_default();
        if path.contains("large") || path.contains("film") {
            return large(path).version(version as u8).answer(seen);
        }
        let language = seen.field("accept-language").unwrap_or("none");
        let fields = format!(
            "Cache-Control: max-age=600\r\nContent-Type: text/x-test\r\nVary: Accept-Language\r\nETag: \"{version}\"\r\n\
             Surrogate-Key: all\r\nX-Path: {path}\r\n"
        );
        Answer::ok(&fields, &format!("{} {language} v{version}", seen.target))
    })
    .await
}

/// Asks for all kinds of objects, and checks every byte.
async fn ask(pulled: &Pulled, version: usize) -> Vec<Reply> {
    let mut replies = Vec::new();
    for (path, language) in [
        ("/a", "none"),
        ("/a?x=1", "none"),
        ("/b/c", "de"),
        ("/b/c", "fr"),
        ("/b/c", "none"),
    ] {
        let fields = [("accept-language", language)];
        let reply = pulled
            .get_with(path, if language == "none" { &[] } else { &fields })
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("content-type")),
            (200, "text/x-test"),
            "{path}"
        );
        assert_eq!(reply.text(), format!("/base{path} {language} v{version}"));
        replies.push(reply);
    }
    let object = large("/large").version(version as u8);
    let reply = pulled.get("/large").await;
    assert!(reply.complete && reply.body == object.whole());
    assert_eq!(reply.header("etag"), object.etag());
    replies.push(reply);
    let film = large("/film").version(version as u8);
    for range in [10_000_000_000..10_000_000_010_u64, 5..15] {
        let reply = pulled.range("/film", range.clone()).await;
        assert_eq!(reply.body, film.bytes(range));
        replies.push(reply);
    }
    replies
}

/// How many records that makes: five small ones, two heads, and six slices.
const RECORDS: u64 = 13;

fn segments(edge: &Edge) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(edge.data_dir().join("cache")).unwrap();
    let files = folder.map(|entry| entry.unwrap().path());
    let other = |path: &PathBuf| path.ends_with("lock") || path.ends_with("purges.journal");
    files.filter(|path| !other(path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cached_is_served_after_a_restart_and_a_crash_without_the_origin() {
    let mut pulled = objects(&Arc::new(AtomicUsize::new(1))).await;
    ask(&pulled, 1).await;
    pulled.written(RECORDS).await;
    let asked = pulled.origin.seen().len();
    for crash in [true, false, true] {
        if crash {
            pulled.edge.kill();
        } else {
            pulled.edge.stop().await;
        }
        // Where the system lets go of them, they come from the disk itself.
        for path in segments(&pulled.edge) {
            let file = File::open(path).unwrap();
            file.sync_all().unwrap();
            fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        }
        pulled.start_again().await;
        assert_eq!(pulled.edge.metric("edgeweir_cache_disk_entries").await, RECORDS);
        assert_eq!(pulled.edge.metric("edgeweir_cache_memory_entries").await, 0);
        for reply in ask(&pulled, 1).await {
            assert!(is_hit(&reply), "{:?}", reply.headers);
            assert_eq!(reply.header("surrogate-key"), "");
        }
        let read = pulled.edge.metric("edgeweir_cache_disk_reads_at_hand_total").await
            + pulled.edge.metric("edgeweir_cache_disk_reads_waited_total").await;
        assert!(read >= RECORDS, "{read}");
    }
    assert_eq!(pulled.origin.seen().len(), asked);
    // What is missing of a large object is asked for, and nothing else.
    let range = 15_000_000_000..15_000_000_010;
    assert_eq!(
        pulled.range("/film", range.clone()).await.body,
        large("/film").bytes(range.clone())
    );
    let seen = pulled.origin.seen();
    assert_eq!(seen.len(), asked + 1);
    assert_eq!(seen[asked].range().unwrap().start, range.start / SLICE * SLICE);
    assert_eq!(seen[asked].field("if-match"), Some("\"v1\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_on_disk_costs_a_request_and_never_a_wrong_byte() {
    let version = Arc::new(AtomicUsize::new(1));
    let mut pulled = objects(&version).await;
    // From which byte on, one of how many is flipped; whether anything can be left.
    for (from, every, some) in [(0, 1, false), (40, 64, false), (2_000, 4_096, true), (0, 1 << 30, true)] {
        ask(&pulled, 1).await;
        pulled.edge.until("edgeweir_cache_disk_entries", |n| n == RECORDS).await;
        pulled.edge.stop().await;
        let files = segments(&pulled.edge);
        assert!(files.len() >= 2, "{files:?}");
        for file in files {
            let mut text = std::fs::read(&file).unwrap();
            text.iter_mut().skip(from).step_by(every).for_each(|byte| *byte ^= 0x55);
            std::fs::write(file, text).unwrap();
        }
        let asked = pulled.origin.seen().len();
        pulled.start_again().await;
        let hits = ask(&pulled, 1).await.iter().filter(|reply| is_hit(reply)).count();
        let asked = pulled.origin.seen().len() - asked;
        assert!(asked > 0 || some, "{from} {every}");
        assert!(hits == 0 || some, "{from} {every}: {hits}");
        let corrupt = pulled.edge.metric("edgeweir_cache_disk_corrupt_total").await;
        assert!(corrupt > 0 || asked == 0, "{from} {every}");
        pulled
            .project
            .post("/v1/buckets/pulled/cache/purge_all", json!({}))
            .await;
        pulled.edge.stop().await;
        for file in segments(&pulled.edge) {
            std::fs::remove_file(file).unwrap();
        }
        pulled.start_again().await;
    }
}

/// All ways to purge everything that [`ask`] asks for, one after another.
fn purges() -> Vec<Vec<(&'static str, Value)>> {
    let paths = ["a", "b/c", "large", "film"];
    let each = |soft: bool| {
        paths
            .iter()
            .map(move |path| ("purge", json!({"path": path, "soft": soft})))
            .collect()
    };
    let prefixes = |soft: bool| {
        let prefixes = ["a", "b/", "la", "f"];
        prefixes
            .iter()
            .map(|prefix| ("purge", json!({"prefix": prefix, "soft": soft})))
            .collect()
    };
    let by_key = vec![
        ("purge", json!({"surrogate_keys": ["all"]})),
        ("purge", json!({"path": "large"})),
        ("purge", json!({"path": "film"})),
    ];
    let all = |soft: bool| vec![("purge_all", json!({"soft": soft}))];
    vec![
        each(false),
        each(true),
        prefixes(false),
        prefixes(true),
        by_key,
        all(false),
        all(true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purge_that_was_answered_outlives_a_crash() {
    let version = Arc::new(AtomicUsize::new(1));
    let mut pulled = objects(&version).await;
    for (n, purges) in (1..).zip(purges()) {
        ask(&pulled, n).await;
        pulled.edge.until("edgeweir_cache_disk_queued_bytes", |n| n == 0).await;
        version.store(n + 1, Ordering::SeqCst);
        // It is fresh: the origin is not asked before the purge.
        assert!(is_hit(&pulled.get("/a").await));
        for (call, purge) in &purges {
            pulled
                .project
                .post(&format!("/v1/buckets/pulled/cache/{call}"), purge.clone())
                .await;
        }
        pulled.crash().await;
        ask(&pulled, n + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_purged_comes_back_however_often_the_server_crashes() {
    const OBJECTS: usize = 12;
    let versions: Arc<[AtomicUsize; OBJECTS]> = Arc::default();
    let at = versions.clone();
    let mut pulled = Pulled::start(&[DISK], move |seen| {
        let n: usize = seen
            .target
            .trim_start_matches("/base/o")
            .trim_end_matches(".ts")
            .parse()
            .unwrap();
        let fields = format!("Cache-Control: max-age=600\r\nSurrogate-Key: k{n}\r\n");
        Answer::ok(&fields, &at[n].load(Ordering::SeqCst).to_string())
    })
    .await;
    let read =
        async |pulled: &Pulled, n: usize| -> usize { pulled.get(&format!("/o{n}.ts")).await.text().parse().unwrap() };
    // With which version each was last purged, as the API has answered.
    let mut purged = [0; OBJECTS];
    for _ in 0..4 {
        // Each object is stored, and purged in one way or the other until the server dies.
        let purging: Vec<_> = (0..OBJECTS)
            .map(|n| {
                let (project, client, host) = (pulled.project.clone(), pulled.edge.http(), pulled.host.clone());
                let (api, versions) = (pulled.edge.address("api"), versions.clone());
                tokio::spawn(async move {
                    let authorization = format!("Bearer {}", project.token);
                    let api = Client::plain(api, Protocol::H1);
                    let mut purged = purged[n];
                    loop {
                        let path = format!("/o{n}.ts");
                        let stored = client.try_send(Method::GET, &host, &path, &[], "".into()).await;
                        match stored {
                            Ok(reply) if reply.complete => assert!(reply.text().parse::<usize>().unwrap() >= purged),
                            _ => return purged,
                        }
                        let version = versions[n].fetch_add(1, Ordering::SeqCst) + 1;
                        let purge = match version % 3 {
                            0 => json!({"path": format!("o{n}.ts")}),
                            1 => json!({"prefix": format!("o{n}.")}),
                            _ => json!({"surrogate_keys": [format!("k{n}")]}),
                        };
                        let headers = [("authorization", authorization.as_str())];
                        let purge = purge.to_string().into();
                        let path = "/v1/buckets/pulled/cache/purge";
                        match api.try_send(Method::POST, "localhost", path, &headers, purge).await {
                            Ok(reply) if reply.complete && reply.status == 200 => purged = version,
                            _ => return purged,
                        }
                    }
                })
            })
            .collect();
        let begun: usize = versions.iter().map(|version| version.load(Ordering::SeqCst)).sum();
        while versions
            .iter()
            .map(|version| version.load(Ordering::SeqCst))
            .sum::<usize>()
            < begun + 5 * OBJECTS
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        pulled.edge.kill();
        for (purged, task) in purged.iter_mut().zip(purging) {
            *purged = task.await.unwrap();
        }
        pulled.start_again().await;
        for (n, purged) in purged.iter().enumerate() {
            let read = read(&pulled, n).await;
            assert!(read >= *purged, "{n}: {read} was purged with {purged}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_journal_of_purges_nothing_that_is_on_disk_is_used() {
    let version = Arc::new(AtomicUsize::new(1));
    let mut pulled = objects(&version).await;
    for (n, damage) in (1..).zip(["removed", "cut", "flipped"]) {
        ask(&pulled, n).await;
        pulled.edge.until("edgeweir_cache_disk_entries", |n| n >= RECORDS).await;
        pulled.purge(json!({"path": "a"})).await;
        pulled.edge.stop().await;
        let journal = pulled.edge.data_dir().join("cache/purges.journal");
        let text = std::fs::read(&journal).unwrap();
        match damage {
            "removed" => std::fs::remove_file(&journal).unwrap(),
            "cut" => std::fs::write(&journal, &text[..10]).unwrap(),
            _ => std::fs::write(&journal, text.iter().map(|byte| byte ^ 0x55).collect::<Vec<_>>()).unwrap(),
        }
        version.store(n + 1, Ordering::SeqCst);
        pulled.start_again().await;
        assert_eq!(pulled.edge.metric("edgeweir_cache_disk_entries").await, 0, "{damage}");
        ask(&pulled, n + 1).await;
        pulled
            .project
            .post("/v1/buckets/pulled/cache/purge_all", json!({}))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_stays_within_its_bound() {
    const OBJECTS: usize = 700;
    const LENGTH: u64 = 60_000;
    let of = |n: usize| Large::new(LENGTH).version((n % 255) as u8);
    let settings = [
        ("cache.disk", "16MiB"),
        ("cache.memory", "1MiB"),
        ("log.filter", "info"),
    ];
    let pulled = Pulled::start(&settings, move |seen| {
        of(seen.target.trim_start_matches("/base/").parse().unwrap()).answer(seen)
    })
    .await;
    let bytes = || {
        segments(&pulled.edge)
            .iter()
            .map(|file| file.metadata().map_or(0, |m| m.len()))
            .sum::<u64>()
    };
    // Twice each, since a full disk takes what is asked for again.
    for n in (0..OBJECTS).flat_map(|n| [n, n.saturating_sub(30)]) {
        let reply = pulled.get(&format!("/{n}")).await;
        assert!(reply.complete && reply.body == of(n).whole(), "{n}");
        if n % 50 == 0 {
            assert!(bytes() <= 16 << 20, "{}", bytes());
        }
    }
    pulled.edge.until("edgeweir_cache_disk_queued_bytes", |n| n == 0).await;
    let (limit, used) = (16 << 20, bytes());
    assert!((limit / 2..=limit).contains(&used), "{used}");
    assert_eq!(pulled.edge.metric("edgeweir_cache_disk_bytes").await, used);
    assert_eq!(pulled.edge.metric("edgeweir_cache_disk_limit_bytes").await, limit);
    for name in ["refused", "copied"] {
        assert!(
            pulled.edge.metric(&format!("edgeweir_cache_disk_{name}_total")).await > 0,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_purged_while_the_disk_tier_was_off_stays_purged() {
    let version = Arc::new(AtomicUsize::new(1));
    let mut pulled = objects(&version).await;
    for (n, purges) in (1..).zip(purges()) {
        pulled.edge.set("cache.disk", "64MiB");
        pulled.edge.stop().await;
        pulled.start_again().await;
        ask(&pulled, n).await;
        pulled.edge.until("edgeweir_cache_disk_queued_bytes", |n| n == 0).await;
        pulled.edge.set("cache.disk", "0");
        pulled.restart().await;
        for (call, purge) in &purges {
            pulled
                .project
                .post(&format!("/v1/buckets/pulled/cache/{call}"), purge.clone())
                .await;
        }
        pulled.edge.set("cache.disk", "64MiB");
        pulled.crash().await;
        version.store(n + 1, Ordering::SeqCst);
        ask(&pulled, n + 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_deleted_while_the_disk_tier_was_off_stays_deleted() {
    let deleted = Arc::new(AtomicBool::new(false));
    let at = deleted.clone();
    let mut pulled = Pulled::start(&[DISK], move |seen| {
        if seen.method == "DELETE" {
            at.store(true, Ordering::SeqCst);
        }
        let answer = if at.load(Ordering::SeqCst) { "gone" } else { "here" };
        Answer::ok("Cache-Control: max-age=600\r\n", answer)
    })
    .await;
    let url = format!("{}/base", pulled.origin.url());
    let open = json!({"origin": {"type": "http", "url": url, "methods": ["GET", "HEAD", "DELETE"]}});
    pulled
        .project
        .ok(Method::PUT, "/v1/buckets/pulled", open.to_string())
        .await;
    assert_eq!(pulled.get("/a").await.text(), "here");
    pulled.written(1).await;
    pulled.edge.set("cache.disk", "0");
    pulled.restart().await;
    let reply = pulled
        .edge
        .http()
        .send(Method::DELETE, &pulled.host, "/a", &[], "".into())
        .await;
    assert_eq!(reply.status.as_u16(), 200);
    pulled.edge.set("cache.disk", "64MiB");
    pulled.restart().await;
    assert_eq!(pulled.get("/a").await.text(), "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_post_changed_is_not_brought_back_by_a_crash() {
    let version = Arc::new(AtomicUsize::new(1));
    let at = version.clone();
    let mut pulled = Pulled::start(&[DISK], move |seen| {
        if seen.method == "POST" {
            at.fetch_add(1, Ordering::SeqCst);
        }
        Answer::ok(
            "Cache-Control: max-age=600\r\n",
            &format!("v{}", at.load(Ordering::SeqCst)),
        )
    })
    .await;
    let url = format!("{}/base", pulled.origin.url());
    let open = json!({"origin": {"type": "http", "url": url, "methods": ["GET", "HEAD", "POST"]}});
    pulled
        .project
        .ok(Method::PUT, "/v1/buckets/pulled", open.to_string())
        .await;
    assert_eq!(pulled.get("/a").await.text(), "v1");
    pulled.written(1).await;
    let posted = pulled
        .edge
        .http()
        .send(Method::POST, &pulled.host, "/a", &[], "x".into())
        .await;
    assert_eq!((posted.status.as_u16(), posted.text()), (200, "v2"));
    pulled.crash().await;
    assert_eq!(pulled.get("/a").await.text(), "v2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_closed_stays_closed_for_what_is_on_disk() {
    let mut pulled = objects(&Arc::new(AtomicUsize::new(1))).await;
    ask(&pulled, 1).await;
    pulled.written(RECORDS).await;
    pulled.project.policy("pulled", "authenticated").await;
    let key = pulled.project.signing_key("bucket_name", "pulled").await;
    let token = sign(&pulled.edge, &key, "");
    let asked = pulled.origin.seen().len();
    for crash in [true, false] {
        if crash {
            pulled.crash().await;
        } else {
            pulled.restart().await;
        }
        for path in ["/a", "/a?x=1", "/b/c", "/large", "/film"] {
            for fields in [vec![], vec![("range", "bytes=5-14")], vec![("if-none-match", "\"v1\"")]] {
                let reply = pulled.get_with(path, &fields).await;
                assert_eq!(
                    (reply.status.as_u16(), reply.header("etag")),
                    (403, ""),
                    "{path} {fields:?}"
                );
            }
        }
        assert_eq!(pulled.origin.seen().len(), asked);
    }
    let signed = pulled.get(&format!("/a?auth={token}")).await;
    assert_eq!(
        (signed.status.as_u16(), is_hit(&signed)),
        (200, false),
        "{:?}",
        signed.headers
    );
    // What was fetched for who has a token is kept for them.
    pulled.written(1).await;
    pulled.crash().await;
    assert!(is_hit(&pulled.get(&format!("/a?auth={token}")).await));
    assert_eq!(pulled.get("/a").await.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_disk_tier_nothing_is_left_behind() {
    let mut pulled = Pulled::start(&[("cache.disk", "0")], |_| {
        Answer::ok("Cache-Control: max-age=600\r\n", "content")
    })
    .await;
    for n in 1..3 {
        assert_eq!(pulled.get("/a").await.text(), "content");
        assert!(is_hit(&pulled.get("/a").await));
        assert_eq!(pulled.origin.seen().len(), n);
        assert!(!pulled.edge.data_dir().join("cache").exists());
        assert_eq!(pulled.edge.metric("edgeweir_cache_disk_on").await, 0);
        pulled.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_origin_confirmed_is_fresh_after_a_restart() {
    // Stale as it comes, and fresh as it is confirmed.
    let mut pulled = Pulled::start(&[DISK], |seen| {
        let fields = "Cache-Control: max-age=600\r\nETag: \"v1\"\r\n";
        if seen.field("if-none-match").is_some() {
            Answer::Raw(
                format!("HTTP/1.1 304 Not Modified\r\n{fields}X-Confirmed: yes\r\nConnection: close\r\n\r\n").into(),
            )
        } else {
            Answer::ok(&format!("{fields}Age: 600\r\n"), "content")
        }
    })
    .await;
    pulled.get("/a").await;
    let confirmed = pulled.get("/a").await;
    assert!(
        confirmed.header("cache-status").contains("fwd-status=304"),
        "{:?}",
        confirmed.headers
    );
    pulled.written(2).await;
    for _ in 0..2 {
        pulled.crash().await;
        let reply = pulled.get("/a").await;
        assert_eq!(
            (reply.text(), reply.header("x-confirmed"), is_hit(&reply)),
            ("content", "yes", true)
        );
    }
    assert_eq!(pulled.origin.seen().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stale_stands_in_after_a_restart_for_an_origin_that_is_away() {
    let down = Arc::new(AtomicBool::new(false));
    let state = down.clone();
    let mut pulled = Pulled::start(&[DISK], move |_| {
        if state.load(Ordering::SeqCst) {
            return Answer::Raw("nothing\r\n\r\n".into());
        }
        Answer::ok(
            "Cache-Control: max-age=100, stale-if-error=600\r\nAge: 200\r\n",
            "content",
        )
    })
    .await;
    pulled.get("/a").await;
    pulled.written(1).await;
    down.store(true, Ordering::SeqCst);
    pulled.crash().await;
    let stale = pulled.get("/a").await;
    assert_eq!((stale.status.as_u16(), stale.text()), (200, "content"));
    let age: u64 = stale.header("age").parse().unwrap();
    assert!((200..300).contains(&age), "{age}");
    assert_eq!(pulled.get("/b").await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variant_that_is_too_large_for_the_disk_leaves_the_others_there() {
    // The largest record has 2 MiB.
    let mut pulled = Pulled::start(&[("cache.disk", "16MiB")], |seen| {
        let length = if seen.field("accept-language") == Some("fr") {
            3 * SLICE
        } else {
            10
        };
        let large = Large {
            ranges: false,
            headers: "Cache-Control: max-age=600\r\nVary: Accept-Language\r\n".to_owned(),
            ..Large::new(length)
        };
        large.answer(seen)
    })
    .await;
    let get = async |pulled: &Pulled, language: &str, length: u64| {
        let reply = pulled.get_with("/a", &[("accept-language", language)]).await;
        assert!(reply.complete && reply.body == Large::new(length).whole(), "{language}");
        is_hit(&reply)
    };
    for (language, length) in [("de", 10), ("en", 10), ("fr", 3 * SLICE)] {
        assert!(!get(&pulled, language, length).await, "{language}");
    }
    pulled.written(2).await;
    assert_eq!(pulled.edge.metric("edgeweir_cache_disk_too_large_total").await, 1);
    assert_eq!(pulled.edge.metric("edgeweir_cache_disk_entries").await, 2);
    pulled.crash().await;
    let hits = [
        get(&pulled, "de", 10).await,
        get(&pulled, "en", 10).await,
        get(&pulled, "fr", 3 * SLICE).await,
    ];
    assert_eq!(hits, [true, true, false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_leave_nothing_in_the_journal_of_purges() {
    let mut pulled = objects(&Arc::new(AtomicUsize::new(1))).await;
    let host = pulled.project.bucket("local").await;
    let journal = pulled.edge.data_dir().join("cache/purges.journal");
    let length = || std::fs::metadata(&journal).unwrap().len();
    pulled.purge(json!({"path": "a"})).await;
    let before = length();
    for n in 0..10 {
        pulled.project.put("local", "a", format!("v{n}")).await;
        assert_eq!(pulled.edge.http().get(&host, "/a").await.text(), format!("v{n}"));
    }
    assert_eq!(length(), before, "nothing of local buckets is in the cache's files");
    pulled.purge(json!({"path": "a"})).await;
    assert!(length() > before);
    pulled.project.put("local", "a", "last").await;
    pulled.crash().await;
    assert_eq!(pulled.edge.http().get(&host, "/a").await.text(), "last");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_memory_has_no_room_for_is_read_from_disk() {
    const OBJECTS: usize = 64;
    let of = |n: usize| Large::new(32 << 10).version(n as u8 + 1).whole();
    let pulled = Pulled::start(&[DISK, ("cache.memory", "1MiB")], move |seen| {
        let n = seen.target.trim_start_matches("/base/").parse().unwrap();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nCache-Control: max-age=600\r\n\r\n",
            32 << 10
        );
        Answer::Raw([head.as_bytes(), &of(n)].concat().into())
    })
    .await;
    let edge = &pulled.edge;
    let hits = edge.metric("edgeweir_edge_answers_total{cache=\"Hit\"}").await;
    for round in 0..3 {
        for n in 0..OBJECTS {
            let reply = pulled.get(&format!("/{n}")).await;
            assert!(reply.complete && reply.body == of(n), "{n}");
            assert_eq!(is_hit(&reply), round > 0, "{n}: {:?}", reply.headers);
        }
        assert!(edge.metric("edgeweir_cache_memory_bytes").await <= 1 << 20);
    }
    assert_eq!(pulled.origin.seen().len(), OBJECTS);
    let counted = edge.metric("edgeweir_edge_answers_total{cache=\"Hit\"}").await - hits;
    assert_eq!(counted, 2 * OBJECTS as u64);
    let read = edge.metric("edgeweir_cache_disk_reads_at_hand_total").await
        + edge.metric("edgeweir_cache_disk_reads_waited_total").await;
    assert!(
        read >= OBJECTS as u64,
        "{read} of {OBJECTS} cannot all have been in memory"
    );
    pulled.written(OBJECTS as u64).await;
    assert_eq!(edge.metric("edgeweir_cache_disk_entries").await, OBJECTS as u64);
    assert_eq!(edge.metric("edgeweir_cache_disk_on").await, 1);
    let bytes = edge.metric("edgeweir_cache_disk_bytes").await;
    assert!((OBJECTS as u64 * (32 << 10)..64 << 20).contains(&bytes), "{bytes}");
    let written = edge.metric("edgeweir_cache_disk_written_bytes_total").await;
    assert!(written >= OBJECTS as u64 * (32 << 10), "{written}");
    for name in ["corrupt", "errors", "turned_off", "dropped", "too_large", "refused"] {
        assert_eq!(
            edge.metric(&format!("edgeweir_cache_disk_{name}_total")).await,
            0,
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_turns_the_tier_off_and_delivery_goes_on() {
    let disk = SmallDisk::mount(48 << 20).expect("mounting a tmpfs, which needs root");
    let folder = disk.path().join("data");
    let edge = Edge::start_in(crate::BINARY, &folder, &[("cache.disk", "16MiB")]).await;
    let of = |n: usize| Large::new(256 << 10).version(n as u8 + 1);
    let mut pulled = Pulled::before(edge, move |seen| {
        of(seen.target.trim_start_matches("/base/").parse().unwrap()).answer(seen)
    })
    .await;
    let get = async |pulled: &Pulled, n: usize| {
        let reply = pulled.get(&format!("/{n}")).await;
        assert!(
            reply.status == 200 && reply.complete && reply.body == of(n).whole(),
            "{n}: {:?}",
            reply.headers
        );
        reply
    };
    for n in 0..4 {
        get(&pulled, n).await;
    }
    pulled.written(4).await;
    assert_eq!(pulled.edge.metric("edgeweir_cache_disk_on").await, 1);
    let filler = disk.path().join("filler");
    let _ = std::fs::write(&filler, vec![0; 64 << 20]);
    for n in 0..40 {
        get(&pulled, n).await;
    }
    pulled.edge.until("edgeweir_cache_disk_on", |on| on == 0).await;
    assert_eq!(pulled.edge.metric("edgeweir_cache_disk_turned_off_total").await, 1);
    assert_eq!(pulled.edge.metric("edgeweir_cache_disk_entries").await, 0);
    let asked = pulled.origin.seen().len();
    for n in 0..40 {
        assert!(is_hit(&get(&pulled, n).await), "memory has it");
    }
    assert_eq!(pulled.origin.seen().len(), asked);
    get(&pulled, 50).await;
    // With room again, a start turns it on.
    std::fs::remove_file(filler).unwrap();
    pulled.restart().await;
    assert_eq!(pulled.edge.metric("edgeweir_cache_disk_on").await, 1);
    for n in 0..4 {
        get(&pulled, n).await;
    }
    pulled.written(4).await;
    pulled.crash().await;
    for n in 0..4 {
        assert!(is_hit(&get(&pulled, n).await), "{n}");
    }
}
