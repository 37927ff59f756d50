#![allow(clippy::unwrap_used)]
use super::{change::Upload, *};
use http_body_util::BodyExt;
use std::{convert::Infallible, os::unix::fs::symlink};

struct Fixture {
    dir: tempfile::TempDir,
    storage: LocalStorage,
    bucket: BucketFolder,
}

async fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let storage = LocalStorage::open(dir.path()).unwrap();
    let bucket = BucketFolder::new(&"films".parse().unwrap(), BucketId(7));
    storage.create_bucket(&bucket).await.unwrap();
    Fixture { dir, storage, bucket }
}

fn key(text: &str) -> ObjectKey {
    ObjectKey::new(text).unwrap()
}

impl Fixture {
    async fn put(&self, name: &str, content: &str) -> Result<PutOutcome, LocalError> {
        let chunks = futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from(content.to_owned()))]);
        self.storage
            .put(&self.bucket, &key(name), chunks, None, 1 << 20, Condition::none())
            .await
    }

    async fn get(&self, name: &str) -> (StatusCode, Bytes) {
        let response = self
            .storage
            .get(&self.bucket, &key(name), &HeaderMap::new())
            .await
            .unwrap();
        (response.status, response.body.collect().await.unwrap().to_bytes())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("buckets/films@7").join(name)
    }

    fn uploads(&self) -> usize {
        fs::read_dir(self.dir.path().join("uploads")).unwrap().count()
    }

    /// Waits until nothing is left of uploads.
    async fn cleared(&self) {
        while self.uploads() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn put_get_replace_delete() {
    let f = fixture().await;
    let first = f.put("a/b/c.mp4", "one").await.unwrap();
    assert_eq!(f.get("a/b/c.mp4").await, (StatusCode::OK, Bytes::from("one")));
    let second = f.put("a/b/c.mp4", "two").await.unwrap();
    assert_ne!(first.etag, second.etag);
    assert_eq!(f.get("a/b/c.mp4").await.1, "two");
    assert_eq!(f.get("a/b").await.0, StatusCode::NOT_FOUND);
    assert_eq!(f.get("a/b/").await.0, StatusCode::NOT_FOUND);
    assert!(
        f.storage
            .delete(&f.bucket, &key("a/b/c.mp4"), Condition::none())
            .await
            .unwrap()
    );
    assert!(
        !f.storage
            .delete(&f.bucket, &key("a/b/c.mp4"), Condition::none())
            .await
            .unwrap()
    );
    assert!(!f.path("a").exists(), "empty folders go");
    f.cleared().await;
}

#[tokio::test]
async fn an_object_is_revalidated_by_its_tag() {
    let f = fixture().await;
    let put = f.put("a", "one").await.unwrap();
    let mut request = HeaderMap::new();
    request.insert(IF_NONE_MATCH, put.etag.parse().unwrap());
    let get = async || f.storage.get(&f.bucket, &key("a"), &request).await.unwrap().status;
    assert_eq!(get().await, StatusCode::NOT_MODIFIED);
    f.put("a", "one").await.unwrap();
    assert_eq!(get().await, StatusCode::OK);
}

#[tokio::test]
async fn no_link_leads_out_of_a_bucket() {
    let f = fixture().await;
    f.put("in", "inside").await.unwrap();
    fs::write(f.dir.path().join("secret"), "secret").unwrap();
    symlink(f.dir.path().join("secret"), f.path("file")).unwrap();
    symlink(f.dir.path(), f.path("folder")).unwrap();
    symlink("in", f.path("within")).unwrap();
    for name in ["file", "folder/secret", "within"] {
        assert_eq!(f.get(name).await.0, StatusCode::NOT_FOUND, "{name}");
    }
    assert!(matches!(f.put("folder/new", "x").await, Err(LocalError::Conflict)));
    assert!(!f.dir.path().join("new").exists());
    let (listed, _) = f.storage.list(&f.bucket, "", None, 10).await.unwrap();
    assert_eq!(listed.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(), ["in"]);
}

#[tokio::test]
async fn what_is_no_file_is_not_there_and_does_not_hang() {
    let f = fixture().await;
    rustix::fs::mknodat(rustix::fs::CWD, f.path("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(f.get("fifo").await.0, StatusCode::NOT_FOUND);
    assert_eq!(f.get(&"n".repeat(300)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_failed_upload_leaves_the_old_object() {
    let f = fixture().await;
    f.put("a", "old").await.unwrap();
    let broken = futures_util::stream::iter([Ok(Bytes::from("new")), Err("gone")]);
    let put = f
        .storage
        .put(&f.bucket, &key("a"), broken, None, 100, Condition::none())
        .await;
    assert!(matches!(put, Err(LocalError::Aborted)));
    let chunks = |text: &'static str| futures_util::stream::iter([Ok::<_, Infallible>(Bytes::from(text))]);
    let short = f
        .storage
        .put(&f.bucket, &key("a"), chunks("new"), Some(10), 100, Condition::none())
        .await;
    assert!(matches!(short, Err(LocalError::Aborted)));
    let large = f
        .storage
        .put(
            &f.bucket,
            &key("a"),
            chunks("much too large"),
            None,
            5,
            Condition::none(),
        )
        .await;
    assert!(matches!(large, Err(LocalError::TooLarge)));
    assert_eq!(f.get("a").await.1, "old");
    f.cleared().await;
}

#[tokio::test]
async fn an_object_and_a_folder_do_not_share_a_name() {
    let f = fixture().await;
    f.put("a", "x").await.unwrap();
    f.put("b/c", "x").await.unwrap();
    for name in ["a/b", "b", "b/c/d"] {
        assert!(matches!(f.put(name, "x").await, Err(LocalError::Conflict)), "{name}");
    }
    for name in ["b/", "new/"] {
        assert!(matches!(f.put(name, "x").await, Err(LocalError::FolderName)), "{name}");
    }
}

#[tokio::test]
async fn a_key_that_no_file_can_have_is_refused_before_anything_is_made_for_it() {
    let f = fixture().await;
    let long = "n".repeat(256);
    for name in [long.clone(), format!("a/{long}/b")] {
        let refused = f.put(&name, "x").await;
        assert!(matches!(refused, Err(LocalError::NameTooLong)), "{refused:?}");
        assert!(!f.path("a").exists());
    }
    f.put(&long[1..], "x").await.unwrap();
}

#[tokio::test]
async fn a_change_that_is_seen_and_may_not_last_is_told_apart_from_none() {
    let mut f = fixture().await;
    f.put("a", "old").await.unwrap();
    f.storage = f.storage.syncing(|_| Err(Errno::IO));
    assert!(matches!(f.put("a", "new").await, Err(LocalError::Unsynced(_))));
    assert_eq!(f.get("a").await.1, "new");
    let deleted = f.storage.delete(&f.bucket, &key("a"), Condition::none()).await;
    assert!(matches!(deleted, Err(LocalError::Unsynced(_))), "{deleted:?}");
    assert_eq!(f.get("a").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_reader_sees_one_object_or_the_other() {
    let f = fixture().await;
    let (old, new) = ("o".repeat(300_000), "n".repeat(200_000));
    f.put("a", &old).await.unwrap();
    let write = async {
        for i in 0..30 {
            f.put("a", if i % 2 == 0 { &new } else { &old }).await.unwrap();
        }
    };
    let read = async {
        for _ in 0..100 {
            let (_, got) = f.get("a").await;
            assert!(got == old || got == new, "{} bytes", got.len());
        }
    };
    tokio::join!(write, read);
}

#[tokio::test]
async fn lists_are_in_byte_order_and_paged() {
    let f = fixture().await;
    let keys = ["a", "a-b", "a.txt", "a/x", "b/1", "b/2", "c"];
    for name in ["b/2", "c", "a-b", "b/1", "a.txt"] {
        f.put(name, "x").await.unwrap();
    }
    let list = async |prefix: &str, after: Option<&str>, limit| {
        let (objects, more) = f.storage.list(&f.bucket, prefix, after, limit).await.unwrap();
        (objects.into_iter().map(|o| o.key.to_string()).collect::<Vec<_>>(), more)
    };
    let all: Vec<_> = keys
        .iter()
        .filter(|k| !["a", "a/x"].contains(*k))
        .map(ToString::to_string)
        .collect();
    assert_eq!(list("", None, 100).await, (all.clone(), false));
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let (page, more) = list("", after.as_deref(), 2).await;
        after = page.last().cloned();
        paged.extend(page);
        if !more {
            break;
        }
    }
    assert_eq!(paged, all);
    assert_eq!(list("b/", None, 100).await.0, ["b/1", "b/2"]);
    assert_eq!(list("a", None, 100).await.0, ["a-b", "a.txt"]);
}

#[tokio::test]
async fn a_large_file_streams_and_can_be_read_in_part() {
    let f = fixture().await;
    let content: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    fs::write(f.path("large"), &content).unwrap();
    let response = f
        .storage
        .get(&f.bucket, &key("large"), &HeaderMap::new())
        .await
        .unwrap();
    let Body::File(body) = response.body else {
        panic!("streams")
    };
    let part = Body::File(body.part(1_000_000..1_900_001));
    assert_eq!(part.collect().await.unwrap().to_bytes(), content[1_000_000..1_900_001]);
    assert_eq!(Body::File(body).collect().await.unwrap().to_bytes(), content);
}

#[tokio::test]
async fn a_bucket_goes_with_the_empty_folders_that_a_crash_left_and_not_with_objects() {
    let f = fixture().await;
    fs::create_dir_all(f.path("a/b/c")).unwrap();
    assert!(f.storage.is_empty(&f.bucket).await.unwrap());
    f.storage.remove_bucket(&f.bucket).await.unwrap();
    assert!(!f.path("").exists());
    f.storage.remove_bucket(&f.bucket).await.unwrap();
    f.storage.create_bucket(&f.bucket).await.unwrap();
    f.put("a/b", "x").await.unwrap();
    assert!(!f.storage.is_empty(&f.bucket).await.unwrap());
    assert!(matches!(
        f.storage.remove_bucket(&f.bucket).await,
        Err(LocalError::NotEmpty)
    ));
    assert_eq!(f.get("a/b").await.1, "x");
}

#[tokio::test]
async fn an_upload_to_a_bucket_that_is_gone_goes_nowhere() {
    let f = fixture().await;
    f.storage.remove_bucket(&f.bucket).await.unwrap();
    // The name's next owner.
    let next = BucketFolder::new(&"films".parse().unwrap(), BucketId(8));
    f.storage.create_bucket(&next).await.unwrap();
    assert!(matches!(f.put("a", "x").await, Err(LocalError::BucketGone)));
    assert!(f.storage.is_empty(&next).await.unwrap());
    f.cleared().await;
}

#[test]
fn an_upload_that_is_given_up_keeps_no_thread_that_serves() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build();
    runtime.unwrap().block_on(async {
        let f = fixture().await;
        let path = f.dir.path().join("uploads/1");
        fs::write(&path, "x").unwrap();
        // The disk hangs.
        let (free, hangs) = std::sync::mpsc::channel::<()>();
        let busy = tokio::task::spawn_blocking(move || hangs.recv());
        drop(Upload(path));
        assert_eq!(f.uploads(), 1);
        drop(free);
        assert!(busy.await.unwrap().is_err());
        f.cleared().await;
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn of_those_who_delete_an_object_at_once_one_does() {
    let f = fixture().await;
    for _ in 0..50 {
        f.put("a/b/c", "x").await.unwrap();
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let (storage, bucket) = (f.storage.clone(), f.bucket.clone());
                tokio::spawn(async move { storage.delete(&bucket, &key("a/b/c"), Condition::none()).await })
            })
            .collect();
        let mut deleted = 0;
        for task in tasks {
            deleted += u32::from(task.await.unwrap().unwrap());
        }
        assert_eq!(deleted, 1);
    }
}
