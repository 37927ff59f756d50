//! The change log and the feed that tells of new entries.
//!
//! The log is the truth; the feed only says that it is time to look.

use crate::{Store, StoreError, page::parse};
use edgeweir_model::{BucketId, Change, KeyPrefix, ObjectKey, Purge, Purged, SurrogateKey, Timestamp};
use serde::{Deserialize, Serialize};
use sqlx::{SqliteConnection, query, query_as, query_scalar};
use std::{sync::atomic::Ordering, time::Duration};
use tokio::sync::watch;

/// How many entries are forgotten at once.
const PRUNED: i64 = 1000;
/// How often other processes' commits are looked for.
const POLL: Duration = Duration::from_millis(100);
/// How long [`Store::settled`] waits for the edge.
const SETTLE: Duration = Duration::from_secs(2);

/// A hard purge of one object: the one kind of purge that older versions know.
#[derive(Serialize, Deserialize)]
struct StoredObject {
    bucket: i64,
    key: String,
}

/// Any other purge.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPurge {
    bucket: i64,
    what: StoredScope,
    soft: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredScope {
    Object(String),
    Prefix(String),
    SurrogateKeys(Vec<String>),
    Everything,
}

fn purge_text(bucket: BucketId, purge: &Purge) -> Result<(&'static str, String), serde_json::Error> {
    let what = match &purge.what {
        Purged::Object(key) if !purge.soft => {
            let key = key.as_str().to_owned();
            let stored = StoredObject { bucket: bucket.0, key };
            return Ok(("purge_object", serde_json::to_string(&stored)?));
        }
        Purged::Object(key) => StoredScope::Object(key.as_str().to_owned()),
        Purged::Prefix(prefix) => StoredScope::Prefix(prefix.as_str().to_owned()),
        Purged::SurrogateKeys(keys) => StoredScope::SurrogateKeys(keys.iter().map(|k| k.as_str().to_owned()).collect()),
        Purged::Everything => StoredScope::Everything,
    };
    let stored = StoredPurge {
        bucket: bucket.0,
        what,
        soft: purge.soft,
    };
    Ok(("purge", serde_json::to_string(&stored)?))
}

/// Reads a purge of either kind; nothing, if it is none that this version understands.
fn purge(kind: &str, text: &str) -> Option<Change> {
    if kind == "purge_object" {
        let stored: StoredObject = serde_json::from_str(text).ok()?;
        return Some(Change::Purge {
            bucket: BucketId(stored.bucket),
            purge: Purge::hard(Purged::Object(ObjectKey::new(&stored.key).ok()?)),
        });
    }
    let stored: StoredPurge = serde_json::from_str(text).ok()?;
    let what = match stored.what {
        StoredScope::Object(key) => Purged::Object(ObjectKey::new(&key).ok()?),
        StoredScope::Prefix(prefix) => Purged::Prefix(KeyPrefix::new(&prefix).ok()?),
        StoredScope::SurrogateKeys(keys) => {
            let keys: Option<_> = keys.iter().map(|key| SurrogateKey::new(key).ok()).collect();
            Purged::SurrogateKeys(keys?)
        }
        StoredScope::Everything => Purged::Everything,
    };
    let soft = stored.soft;
    Some(Change::Purge {
        bucket: BucketId(stored.bucket),
        purge: Purge { what, soft },
    })
}

pub(crate) async fn append(db: &mut SqliteConnection, change: &Change, now: Timestamp) -> Result<u64, StoreError> {
    let (kind, payload) = match change {
        Change::Rows => ("rows", None),
        Change::Purge { bucket, purge } => {
            let (kind, text) = purge_text(*bucket, purge).map_err(|e| StoreError::Internal(e.into()))?;
            (kind, Some(text))
        }
    };
    let seq: i64 = query_scalar("INSERT INTO changes (kind, payload, created) VALUES (?, ?, ?) RETURNING seq")
        .bind(kind)
        .bind(payload)
        .bind(now.0)
        .fetch_one(db)
        .await?;
    Ok(seq as u64)
}

/// The number of the last entry ever written, pruned or not.
pub(crate) async fn last(db: &mut SqliteConnection) -> Result<u64, StoreError> {
    let seq: Option<i64> = query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'changes'")
        .fetch_optional(db)
        .await?;
    Ok(seq.unwrap_or(0) as u64)
}

fn read((seq, kind, payload): (i64, String, Option<String>)) -> Result<(u64, Change), StoreError> {
    let corrupt = || StoreError::Corrupt("change");
    let change = match kind.as_str() {
        "rows" => Change::Rows,
        "purge_object" | "purge" => payload.and_then(|text| purge(&kind, &text)).ok_or_else(corrupt)?,
        _ => return Err(corrupt()),
    };
    Ok((seq as u64, change))
}

impl Store {
    /// The entries after `seq`, oldest first; `None` when the log does not reach back that far (or never came that far), or
    /// cannot be read: the reader must forget what it has cached.
    pub async fn changes_since(&self, seq: u64) -> Result<Option<Vec<(u64, Change)>>, StoreError> {
        let mut db = self.begin_read().await?;
        let rows: Vec<(i64, String, Option<String>)> =
            query_as("SELECT seq, kind, payload FROM changes WHERE seq > ? ORDER BY seq")
                .bind(seq as i64)
                .fetch_all(&mut *db)
                .await?;
        // Numbers are given inside the transaction, so that committed entries have no gaps but pruned ones.
        let whole = last(&mut db).await?.checked_sub(seq) == Some(rows.len() as u64);
        if !whole {
            return Ok(None);
        }
        match rows.into_iter().map(read).collect() {
            // Nobody knows what it would have purged.
            Err(e) => {
                tracing::error!(error = %e, "the change log cannot be read");
                Ok(None)
            }
            changes => changes.map(Some),
        }
    }

    /// Forgets entries that were made before a time, 1000 of the oldest ones at most, so that writes hardly wait for it;
    /// whether there may be more. Not a change itself, so it writes no entry.
    pub async fn prune_changes(&self, before: Timestamp) -> Result<bool, StoreError> {
        let done =
            query("DELETE FROM changes WHERE seq IN (SELECT seq FROM changes ORDER BY seq LIMIT ?) AND created < ?")
                .bind(PRUNED)
                .bind(before.0)
                .execute(&mut *self.writer().await?)
                .await?;
        Ok(done.rows_affected() == PRUNED as u64)
    }

    /// The number of the last entry that this process committed; 0 before the first.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.0.committed.subscribe()
    }

    /// A feed of commits from now on, by any process.
    pub async fn feed(&self) -> Result<ChangeFeed, StoreError> {
        let commits = self.commits();
        let mut db = self.connect().await?;
        let version = data_version(&mut db).await?;
        let sequence = last(&mut db).await?;
        Ok(ChangeFeed {
            commits,
            db,
            version,
            sequence,
        })
    }

    /// Says that an edge of this process follows the log, so that [`Store::settled`] waits for it.
    pub fn attach_applier(&self) {
        self.0.attached.store(true, Ordering::Release);
    }

    /// Says that the attached edge has applied everything up to entry `seq`.
    pub fn mark_applied(&self, seq: u64) {
        self.0.applied.send_modify(|last| *last = seq.max(*last));
    }

    /// Waits until the attached edge has applied everything that this process has committed so far: at once when no edge
    /// is attached, for 2 s at most. Whether it has.
    pub async fn settled(&self) -> bool {
        if !self.0.attached.load(Ordering::Acquire) {
            return true;
        }
        let target = *self.0.committed.borrow();
        let mut applied = self.0.applied.subscribe();
        let settled = tokio::time::timeout(SETTLE, applied.wait_for(|seq| *seq >= target))
            .await
            .is_ok();
        if !settled {
            tracing::warn!(sequence = target, "the edge has not applied a change in time");
        }
        settled
    }
}

/// Tells that something was committed: at once for this process, within 100 ms for others.
#[derive(Debug)]
pub struct ChangeFeed {
    commits: watch::Receiver<u64>,
    db: SqliteConnection,
    version: i64,
    sequence: u64,
}

impl ChangeFeed {
    /// Waits for the next commit, by anyone; several may have come together. Cancel safe.
    pub async fn next(&mut self) {
        loop {
            let told = tokio::select! {
                changed = self.commits.changed() => changed.is_ok(),
                () = tokio::time::sleep(POLL) => false,
            };
            // Read after being told as well, so that one commit is not reported twice.
            match self.moved().await {
                Ok(moved) => {
                    if told || moved {
                        return;
                    }
                }
                Err(e) => {
                    tracing::warn!(error = %e, "cannot look for changes");
                    if told {
                        return;
                    }
                }
            }
        }
    }
}

impl ChangeFeed {
    /// Whether there are new entries. A commit without one, of a lease, is none of a reader's business.
    async fn moved(&mut self) -> Result<bool, StoreError> {
        let version = data_version(&mut self.db).await?;
        if std::mem::replace(&mut self.version, version) == version {
            return Ok(false);
        }
        let sequence = last(&mut self.db).await?;
        Ok(std::mem::replace(&mut self.sequence, sequence) != sequence)
    }
}

/// Goes up when another connection, of any process, has committed (<https://sqlite.org/pragma.html#pragma_data_version>).
async fn data_version(db: &mut SqliteConnection) -> Result<i64, StoreError> {
    Ok(query_scalar("PRAGMA data_version").fetch_one(db).await?)
}

/// As [`parse`], for a policy.
pub(crate) fn policy(text: &str) -> Result<edgeweir_model::AccessPolicy, StoreError> {
    parse(text, "policy")
}
