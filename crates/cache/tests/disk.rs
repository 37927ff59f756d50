//! The disk tier as its users see it: what was put is found, after a restart, too, and the folder keeps its bound.
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bytes::Bytes;
use edgeweir_cache::disk::{Disk, DiskConfig, Found, Put, Record};

/// What is stored of a key, however it must be read.
async fn get(disk: &Disk, key: u128) -> Vec<Record> {
    match disk.get(key) {
        Found::Absent => Vec::new(),
        Found::Ready(records) => records,
        Found::Wait(wait) => wait.records().await.expect("the disk is read in time"),
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

/// The bytes of the tier's segments.
fn on_disk(dir: &Path) -> u64 {
    let files = fs::read_dir(dir).unwrap().flatten();
    files.filter_map(|file| Some(file.metadata().ok()?.len())).sum()
}

/// What is stored by each process that is killed.
const LENGTHS: [usize; 5] = [100, 65_536, 0, 9_999, 200_000];

fn killed_config(dir: &Path) -> DiskConfig {
    DiskConfig {
        segment_bytes: 1 << 20,
        ..DiskConfig::new(dir, 64 << 20)
    }
}

/// No test by itself: it writes, in a process of its own, until it is killed.
#[test]
#[ignore = "run by `a_kill_costs_no_record_of_a_sealed_segment`"]
fn writes_until_it_is_killed() {
    let Some(dir) = env::var_os("DISK_TEST_DIR") else {
        return;
    };
    let first: u128 = env::var("DISK_TEST_FIRST").unwrap().parse().unwrap();
    let disk = Disk::open(killed_config(Path::new(&dir))).unwrap();
    assert!(disk.stats().on);
    for key in first.. {
        put(&disk, key, LENGTHS[key as usize % LENGTHS.len()]);
        if key % 7 == 0 {
            disk.sync();
            // The records up to here are acknowledged.
            println!("\n{key}");
            io::stdout().flush().unwrap();
        }
    }
}

/// Kills the writer again and again, after each a moment later. What is found is right to the byte, and whatever was
/// written before is found.
#[tokio::test]
async fn a_kill_costs_no_record_of_a_sealed_segment() {
    let dir = tempfile::tempdir().unwrap();
    let tier = dir.path().join("tier");
    let mut expected: Vec<u128> = Vec::new();
    let mut first = 0;
    for round in 0..8 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env("DISK_TEST_DIR", &tier)
            .env("DISK_TEST_FIRST", first.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let acknowledged = lines.filter_map(|line| line.unwrap().parse().ok());
        let last: u128 = acknowledged.take(4 + 3 * round).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        expected.extend(first..=last);
        let disk = Disk::open(killed_config(&tier)).unwrap();
        // The page cache survives a kill, so that not even the open segment's records are lost.
        for key in &expected {
            let found = get(&disk, *key).await;
            assert_eq!(found.len(), 1, "round {round}: {key} of {last}");
            assert_eq!(found[0].meta, format!("meta of {key}"));
            assert_eq!(found[0].body, body(*key, LENGTHS[*key as usize % LENGTHS.len()]));
        }
        let mut beyond = last + 1;
        while let [found] = &get(&disk, beyond).await[..] {
            assert_eq!(found.body, body(beyond, LENGTHS[beyond as usize % LENGTHS.len()]));
            beyond += 1;
        }
        disk.shutdown();
        first = last + 1000;
    }
    assert!(on_disk(&tier) < 64 << 20);
}

/// A file system of 4 MiB, unmounted at the end.
struct Small(PathBuf);

impl Small {
    /// None where we may not mount.
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "edgeweir-test"])
            .arg(at)
            .stderr(Stdio::null())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(at.to_owned()))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Readers of the last test may hold a file still.
        Command::new("umount").arg("-l").arg(&self.0).status().ok();
    }
}

#[tokio::test]
async fn a_file_system_that_is_full_makes_the_tier_smaller() {
    let dir = tempfile::tempdir().unwrap();
    let Some(small) = Small::mount(dir.path()) else {
        eprintln!("not tested: a tmpfs cannot be mounted here");
        return;
    };
    let config = DiskConfig {
        segment_bytes: 256 << 10,
        ..DiskConfig::new(small.0.join("tier"), 16 << 20)
    };
    let disk = Disk::open(config.clone()).unwrap();
    for key in 0..1000 {
        put(&disk, key, 10_000);
        put(&disk, key, 10_000);
    }
    disk.sync();
    let stats = disk.stats();
    assert!(stats.on && stats.errors > 0 && stats.limit <= 4 << 20, "{stats:?}");
    assert_eq!(get(&disk, 999).await[0].body, body(999, 10_000));
    disk.shutdown();
    let disk = Disk::open(config).unwrap();
    assert_eq!(get(&disk, 999).await[0].body, body(999, 10_000));
    disk.clear();
    disk.sync();
    // Somebody else takes it all.
    let hog = fs::write(small.0.join("hog"), vec![1; 8 << 20]);
    assert!(hog.is_err());
    put(&disk, 1, 10_000);
    disk.sync();
    assert!(!disk.stats().on);
    assert!(get(&disk, 1).await.is_empty());
    disk.shutdown();
}

#[tokio::test]
async fn many_at_a_time_find_what_they_put_or_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::open(DiskConfig {
        segment_bytes: 64 << 10,
        ..DiskConfig::new(dir.path().join("tier"), 2 << 20)
    })
    .unwrap();
    let threads: Vec<_> = (0..4_u128)
        .map(|thread| {
            let disk = disk.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                let mut hits = 0;
                for step in 0..3000_u128 {
                    let key = (step * 7 + thread) % 500;
                    match step % 50 {
                        0 => disk.forget(key),
                        49 => disk.sync(),
                        _ => {
                            put(&disk, key, 3000);
                        }
                    }
                    let asked = (step * 13 + thread) % 500;
                    for record in runtime.block_on(get(&disk, asked)) {
                        assert_eq!(
                            (record.meta, record.body),
                            (format!("meta of {asked}").into(), body(asked, 3000))
                        );
                        hits += 1;
                    }
                    if step == 1500 && thread == 0 {
                        disk.clear();
                    }
                }
                hits
            })
        })
        .collect();
    let hits: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(hits > 1000, "{hits} hits");
    disk.sync();
    let stats = disk.stats();
    assert!(
        stats.on && stats.corrupt == 0 && stats.errors == 0 && stats.queued_bytes == 0,
        "{stats:?}"
    );
    assert!(on_disk(&dir.path().join("tier")) <= 2 << 20);
}
