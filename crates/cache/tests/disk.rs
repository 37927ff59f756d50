//! The disk tier as its users see it: what was put is found, after a restart, too, and the folder keeps its bound.

use bytes::Bytes;
use edgeweir_cache::disk::{Disk, DiskConfig, Found, Put, Record};

/// What is stored of a key, however it must be read.
async fn get(disk: &Disk, key: u128) -> Vec<Record> {
    match disk.get(key) {
        Found::Absent => Vec::new(),
        Found::Ready(records) => records,
        Found::Wait(wait) => wait.records().await,
    }
}

/// A body that tells which key it is of.
fn body(key: u128, len: usize) -> Bytes {
    key.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn put(disk: &Disk, key: u128, len: usize) -> Put {
    disk.put(key, 0, Bytes::from(format!("meta of {key}")), body(key, len))
}

#[tokio::test]
async fn a_record_is_found_before_and_after_it_is_written_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let config = DiskConfig::new(dir.path().join("tier"), 4 << 20);
    let disk = Disk::open(config.clone()).unwrap();
    assert_eq!(put(&disk, 1, 10_000), Put::Queued);
    let expected = [Record {
        variant: 0,
        meta: "meta of 1".into(),
        body: body(1, 10_000),
    }];
    assert_eq!(get(&disk, 1).await, expected, "queued");
    disk.sync();
    assert_eq!(get(&disk, 1).await, expected, "written");
    assert!(get(&disk, 2).await.is_empty());
    disk.shutdown();
    let disk = Disk::open(config).unwrap();
    assert_eq!(get(&disk, 1).await, expected, "recovered");
}
