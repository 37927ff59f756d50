#![allow(clippy::unwrap_used)]
use super::*;
use http_body::Body as _;
use http_body_util::BodyExt;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

const WINDOW: Duration = Duration::from_secs(60);

struct Fixture {
    dir: tempfile::TempDir,
    ingest: Ingest,
    window: Arc<Window>,
    stream: StreamId,
}

fn fixture() -> Fixture {
    fixture_with(|_| {})
}

fn fixture_with(change: impl FnOnce(&mut IngestConfig)) -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    change(&mut config);
    let (ingest, stream) = (Ingest::open(config).unwrap(), StreamId::random());
    let window = ingest.window(stream);
    Fixture {
        dir,
        ingest,
        window,
        stream,
    }
}

fn config(dir: &Path) -> IngestConfig {
    IngestConfig {
        data_dir: dir.to_owned(),
        window: WINDOW,
        ..IngestConfig::default()
    }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

fn ts() -> HeaderValue {
    HeaderValue::from_static("video/mp2t")
}

fn document(listed: &[(&str, u32)]) -> Document {
    Document {
        body: "#EXTM3U".into(),
        state: "state".into(),
        listed: listed.iter().map(|(path, label)| (key(path), *label)).collect(),
        ..Document::default()
    }
}

impl Fixture {
    fn begin(&self, path: &str) -> Upload {
        self.window.begin(&key(path), ts(), None).unwrap()
    }

    fn try_push(&self, path: &str, content: &str) -> Result<(), PushError> {
        let mut upload = self.window.begin(&key(path), ts(), None)?;
        upload.push(Bytes::copy_from_slice(content.as_bytes()))?;
        upload.finish()
    }

    fn push(&self, path: &str, content: &str) {
        self.try_push(path, content).unwrap();
    }

    /// Pushes and has a playlist list it.
    fn push_listed(&self, path: &str, content: &str) -> u32 {
        self.push(path, content);
        self.list(&[path])[0]
    }

    fn list(&self, paths: &[&str]) -> Vec<u32> {
        let labels: Vec<_> = paths
            .iter()
            .map(|p| self.window.pin(&key(p), self.window.session()).unwrap())
            .collect();
        let listed: Vec<_> = paths.iter().copied().zip(labels.iter().copied()).collect();
        self.window.publish(&key("a.m3u8"), document(&listed)).unwrap();
        labels
    }

    fn get(&self, path: &str, label: Option<u32>) -> Option<String> {
        whole(&self.window, path, label)
    }

    fn arriving(&self, path: &str) -> ArrivingBody {
        match self.window.read(&key(path), None).unwrap().content {
            Content::Arriving(body) => body,
            Content::Whole(_) => panic!("it is whole"),
        }
    }

    fn held(&self) -> u64 {
        self.ingest.0.held.load(Ordering::Relaxed)
    }

    fn folder(&self) -> std::path::PathBuf {
        self.dir.path().join("live").join(self.stream.to_string())
    }

    /// What a process finds that starts when this one was killed just now.
    fn killed(&self) -> (tempfile::TempDir, Ingest) {
        let copy = tempfile::tempdir().unwrap();
        let to = copy.path().join("live").join(self.stream.to_string());
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(self.folder()).unwrap().flatten() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
        let ingest = Ingest::open(config(copy.path())).unwrap();
        (copy, ingest)
    }
}

fn whole(window: &Window, path: &str, label: Option<u32>) -> Option<String> {
    match window.read(&key(path), label)?.content {
        Content::Whole(bytes) => Some(String::from_utf8(bytes.into()).unwrap()),
        Content::Arriving(_) => None,
    }
}

fn etag(window: &Window, path: &str) -> HeaderValue {
    window.read(&key(path), None).unwrap().etag.unwrap()
}

async fn chunk(body: &mut ArrivingBody) -> Bytes {
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test]
async fn a_file_is_readable_while_it_arrives() {
    let f = fixture();
    let mut upload = f.begin("s.ts");
    let mut early = f.arriving("s.ts");
    let mut second = f.arriving("s.ts");
    upload.push(Bytes::from_static(b"one ")).unwrap();
    assert_eq!(chunk(&mut early).await, "one ");
    let waiting = tokio::spawn(async move { (chunk(&mut second).await, second.collect().await.unwrap().to_bytes()) });
    tokio::task::yield_now().await;
    upload.push(Bytes::from_static(b"two")).unwrap();
    let late = f.arriving("s.ts");
    assert_eq!(chunk(&mut early).await, "two");
    upload.finish().unwrap();
    assert!(early.frame().await.is_none());
    let (first, rest) = waiting.await.unwrap();
    assert_eq!([first, rest].concat(), b"one two");
    assert_eq!(late.size_hint().exact(), Some(7));
    assert_eq!(late.collect().await.unwrap().to_bytes(), "one two");
    assert_eq!(f.get("s.ts", None).as_deref(), Some("one two"));
}

#[tokio::test]
async fn chunks_of_every_size_come_in_order() {
    let f = fixture();
    let mut upload = f.begin("s.ts");
    let mut body = f.arriving("s.ts");
    let (mut sent, mut read) = (Vec::new(), Vec::new());
    for n in 0..2000_usize {
        let length = [1, 1, 3, 700, 0, 5000][n % 6];
        let chunk = vec![n as u8; length];
        sent.extend_from_slice(&chunk);
        upload.push(chunk.into()).unwrap();
        if n % 7 == 0 && read.len() < sent.len() {
            read.extend_from_slice(&super::tests::chunk(&mut body).await);
            assert!(sent.starts_with(&read), "after chunk {n}");
        }
    }
    upload.finish().unwrap();
    read.extend_from_slice(&body.collect().await.unwrap().to_bytes());
    assert!(read == sent);
}

#[tokio::test]
async fn a_cut_upload_is_never_whole() {
    let f = fixture();
    f.push("s.ts", "before");
    let mut upload = f.begin("s.ts");
    upload.push(Bytes::from_static(b"half")).unwrap();
    let mut body = f.arriving("s.ts");
    assert_eq!(chunk(&mut body).await, "half");
    drop(upload);
    assert_eq!(body.frame().await.unwrap().unwrap_err(), crate::Error::Broken);
    assert_eq!(f.get("s.ts", None).as_deref(), Some("before"));
    assert!(!f.window.is_uploading());
    f.window.delete(&key("s.ts"));
    assert!(f.window.read(&key("s.ts"), None).is_none());
    assert_eq!(f.held(), 0);
}

#[tokio::test]
async fn a_length_that_lies_is_an_error() {
    for (name, length, content) in [("short", 5, "four"), ("long", 3, "four"), ("nothing", 1, "")] {
        let f = fixture();
        let mut upload = f.window.begin(&key("s.ts"), ts(), Some(length)).unwrap();
        let mut body = f.arriving("s.ts");
        let end = match upload.push(Bytes::from(content)) {
            Ok(()) => upload.finish(),
            Err(error) => {
                assert_eq!(upload.push(Bytes::new()), Err(error), "{name}");
                assert_eq!(upload.finish(), Err(error), "{name}: refused once, refused for good");
                Err(error)
            }
        };
        assert_eq!(end, Err(PushError::Length), "{name}");
        let broken = loop {
            match body.frame().await {
                Some(Ok(_)) => {}
                other => break other,
            }
        };
        assert!(matches!(broken, Some(Err(crate::Error::Broken))), "{name}");
        assert!(f.window.read(&key("s.ts"), None).is_none(), "{name}");
        assert_eq!(f.held(), 0, "{name}");
    }
}

#[test]
fn limits_are_named() {
    type Case = (&'static str, u64, fn(&mut IngestConfig), fn(&Fixture) -> PushError);
    let cases: [Case; 8] = [
        (
            "live.segment",
            4,
            |c| c.file_bytes = 4,
            |f| f.window.begin(&key("s.ts"), ts(), Some(5)).unwrap_err(),
        ),
        (
            "live.segment",
            4,
            |c| c.file_bytes = 4,
            |f| f.try_push("s.ts", "12345").unwrap_err(),
        ),
        (
            "live.stream",
            8,
            |c| c.stream_bytes = 8,
            |f| {
                f.push("a.ts", "12345");
                f.window.begin(&key("s.ts"), ts(), Some(4)).unwrap_err()
            },
        ),
        (
            "live.stream",
            8,
            |c| c.stream_bytes = 8,
            |f| {
                f.push("a.ts", "12345");
                f.try_push("s.ts", "1234").unwrap_err()
            },
        ),
        (
            "live.memory",
            8,
            |c| c.memory_bytes = 8,
            |f| {
                f.push("a.ts", "12345");
                f.window.begin(&key("s.ts"), ts(), Some(4)).unwrap_err()
            },
        ),
        (
            "live.memory",
            8,
            |c| c.memory_bytes = 8,
            |f| {
                let other = f.ingest.window(StreamId::random());
                let mut upload = other.begin(&key("a.ts"), ts(), None).unwrap();
                upload.push(Bytes::from_static(b"12345")).unwrap();
                f.try_push("s.ts", "1234").unwrap_err()
            },
        ),
        (
            "live.files",
            2,
            |c| c.files = 2,
            |f| {
                f.push("a.ts", "1");
                f.push("b.ts", "1");
                f.try_push("s.ts", "1").unwrap_err()
            },
        ),
        (
            "live.uploads",
            1,
            |c| c.uploads = 1,
            |f| {
                let _upload = f.begin("a.ts");
                f.window.begin(&key("s.ts"), ts(), None).unwrap_err()
            },
        ),
    ];
    for (name, limit, change, refused) in cases {
        let f = fixture_with(change);
        assert_eq!(refused(&f), PushError::Limit { name, limit });
        assert!(f.window.read(&key("s.ts"), None).is_none(), "{name}");
        f.ingest.retain(|_| false);
        assert_eq!(f.held(), 0, "{name}");
    }
}

#[test]
fn what_was_listed_makes_room_first() {
    let f = fixture_with(|c| c.files = 4);
    for name in ["a.ts", "b.ts", "c.ts", "new.ts"] {
        f.push(name, name);
    }
    f.list(&["a.ts", "b.ts", "c.ts"]);
    f.list(&["b.ts", "c.ts"]);
    f.list(&["c.ts"]);
    f.push("d.ts", "d");
    let there = |names: &[&str]| names.iter().map(|n| f.get(n, None).is_some()).collect::<Vec<_>>();
    assert_eq!(
        there(&["a.ts", "b.ts", "c.ts", "new.ts", "d.ts"]),
        [false, true, true, true, true]
    );
    f.push("e.ts", "e");
    assert!(f.get("b.ts", None).is_none());
    assert!(matches!(
        f.try_push("f.ts", "f"),
        Err(PushError::Limit { name: "live.files", .. })
    ));
    assert!(f.get("c.ts", None).is_some(), "what is listed stays");
}

#[test]
fn names_used_again_by_a_later_session_are_other_versions() {
    let f = fixture();
    assert_eq!(f.push_listed("s0.ts", "old"), 1);
    assert_eq!(f.window.session(), 1);
    let began = Instant::now();
    f.push("s0.ts", "new");
    f.window.begin_session(&key("a.m3u8"), began);
    assert_eq!(f.window.session(), 2);
    assert_eq!(f.get("s0.ts", Some(2)).as_deref(), Some("new"), "announced");
    assert_eq!(f.window.pin(&key("s0.ts"), f.window.session()), Some(2));
    f.window
        .publish(&key("a.m3u8"), document(&[("s0.ts", 1), ("s0.ts", 2)]))
        .unwrap();
    for (label, content) in [
        (None, Some("old")),
        (Some(1), Some("old")),
        (Some(2), Some("new")),
        (Some(3), None),
    ] {
        assert_eq!(f.get("s0.ts", label).as_deref(), content, "{label:?}");
    }
    assert_eq!(
        f.window.pin(&key("s0.ts"), f.window.session()),
        Some(2),
        "a label stays"
    );
    assert_eq!(f.window.pin(&key("none.ts"), f.window.session()), None);
    f.window.publish(&key("a.m3u8"), document(&[("s0.ts", 2)])).unwrap();
    f.ingest.expire(Instant::now() + WINDOW);
    assert_eq!(f.get("s0.ts", Some(1)), None);
    assert_eq!(f.get("s0.ts", None).as_deref(), Some("new"));
}

#[test]
fn a_file_that_comes_after_the_playlist_that_lists_it_is_listed() {
    let f = fixture();
    let upload = f.begin("s0.ts");
    assert_eq!(
        f.window.pin(&key("s0.ts"), f.window.session()),
        None,
        "it has not come yet"
    );
    f.window.publish(&key("a.m3u8"), document(&[("s0.ts", 1)])).unwrap();
    upload.finish().unwrap();
    f.ingest.expire(Instant::now() + WINDOW * 2);
    assert_eq!(f.window.pin(&key("s0.ts"), f.window.session()), Some(1));
    assert_eq!(f.get("s0.ts", None).as_deref(), Some(""), "it is kept");
}

#[test]
fn what_the_session_before_left_unlisted_is_not_of_the_next() {
    let f = fixture();
    f.push("s1.ts", "old");
    f.window.begin_session(&key("a.m3u8"), Instant::now());
    assert_eq!(f.get("s1.ts", Some(2)), None);
    f.push("s1.ts", "new");
    assert_eq!(f.get("s1.ts", Some(2)).as_deref(), Some("new"));
}

#[test]
fn files_of_one_run_are_those_of_each_session_that_it_began() {
    // One run of an encoder begins a session for its manifest and one for its playlists, in either order.
    for manifest_first in [true, false] {
        let f = fixture();
        f.push_listed("a.m4s", "before");
        f.push("b.m4s", "before");
        f.list(&["b.m4s"]);
        let t0 = Instant::now();
        let (manifest, playlist);
        if manifest_first {
            manifest = f.window.begin_session(&key("a.mpd"), t0);
            f.push("a.m4s", "after");
            playlist = f.window.begin_session(&key("a.m3u8"), Instant::now());
        } else {
            f.push("a.m4s", "after");
            playlist = f.window.begin_session(&key("a.m3u8"), Instant::now());
            manifest = f.window.begin_session(&key("a.mpd"), t0);
        }
        assert_eq!(f.window.pin(&key("a.m4s"), playlist), Some(playlist));
        for session in [manifest, playlist] {
            let (new, old) = (f.get("a.m4s", Some(session)), f.get("b.m4s", Some(session)));
            assert_eq!(
                (new.as_deref(), old),
                (Some("after"), None),
                "{manifest_first} {session}"
            );
        }
        // What the run before had listed has not become the next one's, however late that was.
        f.push("c.m4s", "before");
        assert_eq!(f.window.pin(&key("c.m4s"), 1), Some(1));
        assert_eq!(f.get("c.m4s", Some(manifest)), None, "{manifest_first}");
        // Nor is what comes later an earlier run's, as soon as its document has begun another.
        let t1 = Instant::now();
        f.push("a.m4s", "later");
        let last = f.window.begin_session(&key("a.m3u8"), Instant::now());
        assert_eq!(f.window.pin(&key("a.m4s"), last), Some(last));
        f.window.begin_session(&key("a.mpd"), t1);
        f.window.publish(&key("a.m3u8"), document(&[("a.m4s", last)])).unwrap();
        f.ingest.expire(Instant::now() + WINDOW);
        assert_eq!(f.get("a.m4s", Some(manifest)), None, "{manifest_first}");
        assert_eq!(
            f.get("a.m4s", Some(last + 1)).as_deref(),
            Some("later"),
            "{manifest_first}"
        );
    }
}

#[test]
fn names_used_again_within_a_session_replace() {
    let f = fixture();
    f.push_listed("s0.ts", "old");
    f.push("s0.ts", "new");
    assert_eq!(f.list(&["s0.ts"]), [1]);
    assert_eq!(f.get("s0.ts", Some(1)).as_deref(), Some("new"));
    assert_eq!(
        f.held(),
        3 + document_bytes(&f),
        "the older one cannot be asked for any more"
    );
}

/// What the published documents count for, found by taking all files away.
fn document_bytes(f: &Fixture) -> u64 {
    f.window.delete(&key("s0.ts"));
    f.held()
}

#[test]
fn an_upload_that_is_under_way_keeps_others_off() {
    let f = fixture();
    let upload = f.begin("s.ts");
    assert_eq!(f.window.begin(&key("s.ts"), ts(), None).unwrap_err(), PushError::Busy);
    upload.finish().unwrap();
    f.push("s.ts", "again");
}

#[test]
fn expiry() {
    type Case = (&'static str, fn(&Fixture), bool);
    let cases: [Case; 6] = [
        ("never listed", |f| f.push("s.ts", "x"), false),
        ("listed", |f| assert_eq!(f.push_listed("s.ts", "x"), 1), true),
        (
            "listed once",
            |f| {
                f.push_listed("s.ts", "x");
                f.list(&[]);
            },
            false,
        ),
        (
            "its document is withdrawn",
            |f| {
                f.push_listed("s.ts", "x");
                assert!(f.window.withdraw(&key("a.m3u8")));
                assert!(!f.window.withdraw(&key("a.m3u8")));
            },
            false,
        ),
        (
            "listed by another document",
            |f| {
                f.push_listed("s.ts", "x");
                f.window.publish(&key("b.m3u8"), document(&[("s.ts", 1)])).unwrap();
                f.list(&[]);
            },
            true,
        ),
        (
            "kept whatever its version",
            |f| {
                f.push("s.ts", "x");
                let mut manifest = document(&[]);
                manifest.keep = [key("s.ts")].into();
                f.window.publish(&key("a.mpd"), manifest).unwrap();
            },
            true,
        ),
    ];
    for (name, act, stays) in cases {
        let f = fixture();
        act(&f);
        f.ingest.expire(Instant::now() + WINDOW / 2);
        assert!(f.get("s.ts", None).is_some(), "{name}: within the window");
        f.ingest.expire(Instant::now() + WINDOW);
        assert_eq!(f.get("s.ts", None).is_some(), stays, "{name}");
    }
}

#[test]
fn what_is_kept_is_the_newest_whole_version() {
    let f = fixture();
    f.push("init.mp4", "one");
    let mut manifest = document(&[]);
    manifest.keep = [key("init.mp4")].into();
    let upload = f.begin("init.mp4");
    f.window.publish(&key("a.mpd"), manifest).unwrap();
    drop(upload);
    f.ingest.expire(Instant::now() + WINDOW);
    assert_eq!(f.get("init.mp4", None).as_deref(), Some("one"));
    f.push("init.mp4", "two");
    f.ingest.expire(Instant::now() + WINDOW);
    assert_eq!(f.get("init.mp4", None).as_deref(), Some("two"));
}

#[tokio::test]
async fn delete_lets_readers_read_on() {
    let f = fixture();
    assert!(!f.window.delete(&key("s.ts")));
    f.push("s.ts", "whole");
    let file = f.window.read(&key("s.ts"), None).unwrap();
    assert!(f.window.delete(&key("s.ts")));
    assert!(f.window.read(&key("s.ts"), None).is_none());
    assert!(matches!(file.content, Content::Whole(bytes) if bytes == "whole"));
    assert_eq!(f.held(), 0);
}

#[tokio::test]
async fn closing_ends_who_waits_reads_and_uploads() {
    let f = fixture();
    f.push("whole.ts", "x");
    let mut upload = f.begin("s.ts");
    let other = f.begin("t.ts");
    upload.push(Bytes::from_static(b"x")).unwrap();
    let mut body = f.arriving("s.ts");
    chunk(&mut body).await;
    let reading = tokio::spawn(async move { body.frame().await.unwrap() });
    let window = f.window.clone();
    let waiting = tokio::spawn(async move { window.wait(&key("never.ts"), None).await });
    tokio::task::yield_now().await;
    f.ingest.retain(|_| false);
    assert!(reading.await.unwrap().is_err());
    assert!(waiting.await.unwrap().is_none());
    assert_eq!(upload.push(Bytes::new()), Err(PushError::Closed));
    assert_eq!(other.finish(), Err(PushError::Closed));
    assert_eq!(f.try_push("u.ts", "x"), Err(PushError::Closed));
    assert!(f.window.read(&key("whole.ts"), None).is_none());
    assert!(f.ingest.find(f.stream).is_none());
    drop(upload);
    assert_eq!(f.held(), 0);
    f.ingest.flush().await;
    assert!(!f.folder().exists());
}

#[tokio::test]
async fn waiting_for_what_is_announced() {
    let f = fixture();
    f.push_listed("s.ts", "old");
    let wait = |path: &'static str, label| {
        let window = f.window.clone();
        tokio::spawn(async move { window.wait(&key(path), label).await.unwrap() })
    };
    let (new, next) = (wait("t.ts", None), wait("s.ts", Some(2)));
    tokio::task::yield_now().await;
    let upload = f.begin("t.ts");
    assert!(matches!(new.await.unwrap().content, Content::Arriving(_)));
    upload.finish().unwrap();
    let began = Instant::now();
    f.push("s.ts", "new");
    f.window.begin_session(&key("a.m3u8"), began);
    assert!(matches!(next.await.unwrap().content, Content::Whole(bytes) if bytes == "new"));
}

#[tokio::test]
async fn a_window_survives_a_kill() {
    let f = fixture();
    f.push_listed("s0.ts", "zero");
    f.window.begin_session(&key("a.m3u8"), Instant::now());
    f.push("s0.ts", "again");
    f.push("s1.ts", "one");
    f.list(&["s0.ts", "s1.ts"]);
    f.push("bad\u{e9}.ts", "name");
    let upload = f.begin("arriving.ts");
    f.ingest.flush().await;
    for entry in fs::read_dir(f.folder()).unwrap().flatten() {
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    assert_eq!(fs::metadata(f.folder()).unwrap().permissions().mode() & 0o777, 0o700);
    let (_dir, ingest) = f.killed();
    drop(upload);
    let window = ingest.find(f.stream).unwrap();
    for (path, label, content) in [
        ("s0.ts", None, Some("zero")),
        ("s0.ts", Some(2), Some("again")),
        ("s1.ts", Some(2), Some("one")),
        ("bad\u{e9}.ts", None, Some("name")),
        ("arriving.ts", None, None),
    ] {
        assert_eq!(whole(&window, path, label).as_deref(), content, "{path} {label:?}");
    }
    assert_eq!(etag(&window, "s1.ts"), etag(&f.window, "s1.ts"));
    assert_eq!(window.read(&key("s1.ts"), None).unwrap().media_type, ts());
    assert_eq!(window.session(), 2);
    assert!(window.last_arrival().is_some());
    assert_eq!(window.documents(), f.window.documents());
    // What it lists is kept, the rest goes.
    ingest.expire(Instant::now() + WINDOW);
    assert!(whole(&window, "s1.ts", Some(2)).is_some());
    assert!(whole(&window, "bad\u{e9}.ts", None).is_none());
    // Other versions have other validators.
    let mut upload = window.begin(&key("s2.ts"), ts(), None).unwrap();
    upload.push(Bytes::from_static(b"two")).unwrap();
    upload.finish().unwrap();
    assert_ne!(etag(&window, "s2.ts"), etag(&window, "s1.ts"));
}

#[tokio::test]
async fn files_that_no_playlist_lists_are_of_their_session_after_a_kill() {
    let f = fixture();
    f.push("init.m4s", "before");
    f.push("old.m4s", "before");
    let session = f.window.begin_session(&key("a.m3u8"), Instant::now());
    f.push("init.m4s", "after");
    f.ingest.flush().await;
    let (_dir, ingest) = f.killed();
    let window = ingest.find(f.stream).unwrap();
    assert_eq!(whole(&window, "init.m4s", Some(session)).as_deref(), Some("after"));
    assert_eq!(whole(&window, "old.m4s", Some(session)), None);
    assert_eq!(window.begin_session(&key("a.m3u8"), Instant::now()), session + 1);
    assert_eq!(whole(&window, "init.m4s", Some(session + 1)), None);
    // As it was written before it told when sessions began: what there is may be of any.
    let index = f.folder().join("index.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("begins");
    fs::write(&index, json.to_string()).unwrap();
    let (_dir, ingest) = f.killed();
    let window = ingest.find(f.stream).unwrap();
    assert_eq!(whole(&window, "init.m4s", Some(session)).as_deref(), Some("after"));
}

#[tokio::test]
async fn what_is_damaged_on_disk_is_not_served() {
    type Damage = fn(&Path);
    let cases: [(&str, Damage); 4] = [
        ("torn", |file| fs::write(file, "on").unwrap()),
        ("longer", |file| fs::write(file, "one more").unwrap()),
        ("flipped", |file| fs::write(file, "onf").unwrap()),
        ("missing", |file| fs::remove_file(file).unwrap()),
    ];
    for (name, damage) in cases {
        let f = fixture();
        f.push("s0.ts", "zero");
        f.push("s1.ts", "one");
        f.list(&["s0.ts", "s1.ts"]);
        f.ingest.flush().await;
        damage(&f.folder().join("2"));
        fs::write(f.folder().join("77"), "nobody knows it").unwrap();
        fs::write(f.folder().join("78.part"), "nor this").unwrap();
        let (dir, ingest) = f.killed();
        let window = ingest.find(f.stream).unwrap();
        assert_eq!(whole(&window, "s0.ts", None).as_deref(), Some("zero"), "{name}");
        assert!(window.read(&key("s1.ts"), Some(1)).is_none(), "{name}");
        assert_eq!(window.documents().len(), 1, "{name}");
        window.publish(&key("b.m3u8"), document(&[])).unwrap();
        ingest.flush().await;
        let mut left: Vec<_> = fs::read_dir(dir.path().join("live").join(f.stream.to_string()))
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["1", "index.json"], "{name}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_begins_anew() {
    for (name, index) in [
        ("no index", None),
        ("empty", Some("")),
        ("broken", Some("{\"session\":")),
    ] {
        let f = fixture();
        f.push("s.ts", "x");
        f.ingest.flush().await;
        let file = f.folder().join("index.json");
        match index {
            None => fs::remove_file(file).unwrap(),
            Some(text) => fs::write(file, text).unwrap(),
        }
        let (dir, ingest) = f.killed();
        assert!(ingest.find(f.stream).is_none(), "{name}");
        assert_eq!(fs::read_dir(dir.path().join("live")).unwrap().count(), 0, "{name}");
    }
}

#[tokio::test]
async fn live_goes_on_without_a_disk() {
    let f = fixture();
    f.push_listed("s.ts", "x");
    f.ingest.flush().await;
    // Not a matter of permissions, which the superuser does not mind.
    fs::remove_dir_all(f.folder()).unwrap();
    fs::write(f.folder(), "in the way").unwrap();
    f.push_listed("t.ts", "y");
    f.ingest.flush().await;
    assert_eq!(f.get("t.ts", None).as_deref(), Some("y"));
}

#[tokio::test]
async fn what_goes_leaves_the_disk() {
    let f = fixture();
    f.push("s.ts", "x");
    f.push("t.ts", "y");
    f.ingest.flush().await;
    assert!(f.folder().join("1").exists());
    f.window.delete(&key("s.ts"));
    f.ingest.flush().await;
    assert!(!f.folder().join("1").exists());
    f.ingest.expire(Instant::now() + WINDOW);
    f.ingest.flush().await;
    assert!(!f.folder().join("2").exists());
}

#[tokio::test]
async fn after_clearing_no_label_is_used_again() {
    let f = fixture();
    f.window.clear();
    assert_eq!(f.window.session(), 1, "there was nothing");
    f.push_listed("s.ts", "x");
    f.window.clear();
    assert!(f.window.read(&key("s.ts"), None).is_none());
    assert!(f.window.documents().is_empty());
    assert_eq!(f.held(), 0);
    f.window.clear();
    assert_eq!(f.push_listed("s.ts", "y"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_uploads_and_readers() {
    let f = fixture_with(|c| c.files = 64);
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for stream in 0..4 {
        for _ in 0..4 {
            let (window, done) = (f.window.clone(), done.clone());
            readers.push(tokio::spawn(async move {
                let mut whole = 0;
                while !done.load(Ordering::Relaxed) {
                    for n in 0..16 {
                        let Some(file) = window.read(&key(&format!("{stream}/{n}.ts")), None) else {
                            continue;
                        };
                        let bytes = match file.content {
                            Content::Whole(bytes) => bytes,
                            Content::Arriving(body) => match body.collect().await {
                                Ok(all) => all.to_bytes(),
                                Err(_) => continue,
                            },
                        };
                        assert_eq!(bytes.len(), 4000);
                        assert!(bytes.iter().all(|b| *b == bytes[0]), "one version, not two");
                        whole += 1;
                    }
                    tokio::task::yield_now().await;
                }
                whole
            }));
        }
    }
    let mut writers = Vec::new();
    for stream in 0..4 {
        let window = f.window.clone();
        writers.push(tokio::spawn(async move {
            for n in 0..80_usize {
                let path = key(&format!("{stream}/{}.ts", n % 16));
                let mut upload = match window.begin(&path, ts(), None) {
                    Ok(upload) => upload,
                    Err(PushError::Limit { .. }) => {
                        window.delete(&path);
                        continue;
                    }
                    Err(error) => panic!("{error}"),
                };
                for _ in 0..8 {
                    upload.push(vec![n as u8; 500].into()).unwrap();
                    tokio::task::yield_now().await;
                }
                if n % 10 == 9 {
                    continue;
                }
                upload.finish().unwrap();
                if let Some(label) = window.pin(&path, window.session()) {
                    let playlist = document(&[(path.as_str(), label)]);
                    window.publish(&key(&format!("{stream}.m3u8")), playlist).unwrap();
                }
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    assert!(!f.window.is_uploading());
    f.ingest.flush().await;
    f.ingest.retain(|_| false);
    assert_eq!(f.held(), 0);
}
