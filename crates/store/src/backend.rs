//! The database behind the store: SQLite, one connection that writes and a few that read (<https://sqlite.org/wal.html>).

use crate::{StoreError, changes};
use edgeweir_model::{Change, Timestamp};
use sqlx::{
    ConnectOptions, Sqlite, SqliteConnection, SqlitePool, Transaction,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteQueryResult, SqliteSynchronous},
};
use std::{
    collections::BTreeSet,
    fmt,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};
use tokio::sync::watch;

/// The control state. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

pub(crate) struct Inner {
    options: SqliteConnectOptions,
    write: SqlitePool,
    read: SqlitePool,
    /// The last change-log entry that this process committed.
    pub(crate) committed: watch::Sender<u64>,
    /// The last change-log entry that the attached edge has applied.
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) attached: AtomicBool,
    /// What the last snapshot had to leave out.
    pub(crate) left_out: Mutex<BTreeSet<String>>,
}

impl Store {
    /// Opens the database, made and migrated when need be. `sqlite` is `edgeweir.db` in `data_dir`, `sqlite:PATH` another file.
    pub async fn open(url: &str, data_dir: &Path) -> Result<Self, StoreError> {
        let file = file_of(url, data_dir)?;
        create(&file).map_err(|e| StoreError::Unavailable(e.into()))?;
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .journal_mode(SqliteJournalMode::Wal)
            // A change is answered for once it survives a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10))
            .disable_statement_logging();
        // One writer in this process: writes queue here, fairly, instead of spinning on SQLITE_BUSY.
        let write = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await?;
        migrate(&write).await?;
        let read = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options.clone().pragma("query_only", "on"))
            .await?;
        Ok(Self(Arc::new(Inner {
            options,
            write,
            read,
            committed: watch::Sender::new(0),
            applied: watch::Sender::new(0),
            attached: AtomicBool::new(false),
            left_out: Mutex::default(),
        })))
    }

    /// Closes the connections; what was committed is on disk already.
    pub async fn close(&self) {
        self.0.read.close().await;
        self.0.write.close().await;
    }

    /// Begins a write; it holds the database's write lock from here, so that what it reads stays true.
    pub(crate) async fn begin(&self) -> Result<Write<'_>, StoreError> {
        const BEGIN: &str = "BEGIN IMMEDIATE";
        let tx = match self.0.write.begin_with(BEGIN).await {
            // When the disk is full, SQLite ends the transaction by itself, and sqlx's count of open ones stays behind:
            // that connection is of no use any more.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.0.write.acquire().await?.close().await?;
                self.0.write.begin_with(BEGIN).await?
            }
            other => other?,
        };
        Ok(Write { tx, store: self })
    }

    /// Begins a read of one state of the database.
    pub(crate) async fn begin_read(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.0.read.begin().await?)
    }

    pub(crate) async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.0.read.acquire().await?)
    }

    /// The connection that writes, for what is no change: an edge serves nothing from it.
    pub(crate) async fn writer(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.0.write.acquire().await?)
    }

    /// A connection of its own, outside the pools.
    pub(crate) async fn connect(&self) -> Result<SqliteConnection, StoreError> {
        Ok(self.0.options.connect().await?)
    }
}

/// A write under way; dropping it undoes it. There is no way to commit without a change-log entry.
pub(crate) struct Write<'a> {
    pub(crate) tx: Transaction<'static, Sqlite>,
    store: &'a Store,
}

impl Write<'_> {
    /// Commits what was done to rows that are there; `NotFound`, and nothing written, when it found none.
    pub(crate) async fn commit_found(self, done: &SqliteQueryResult) -> Result<(), StoreError> {
        if done.rows_affected() == 0 {
            return Err(StoreError::NotFound);
        }
        self.commit(&Change::Rows).await
    }

    /// Writes the change-log entry, commits, and tells this process.
    pub(crate) async fn commit(mut self, change: &Change) -> Result<(), StoreError> {
        let seq = changes::append(&mut self.tx, change, Timestamp::now()).await?;
        self.tx.commit().await?;
        self.store.0.committed.send_modify(|last| *last = seq.max(*last));
        Ok(())
    }
}

/// Whether this version can open a database of this URL.
pub fn is_supported(url: &str) -> bool {
    file_of(url, Path::new("")).is_ok()
}

fn file_of(url: &str, data_dir: &Path) -> Result<PathBuf, StoreError> {
    if url == "sqlite" {
        return Ok(data_dir.join("edgeweir.db"));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Err(StoreError::Unsupported(
            "PostgreSQL is not supported yet; use \"sqlite\"",
        ));
    }
    match url.strip_prefix("sqlite:") {
        Some(path) if !path.trim_start_matches('/').is_empty() => Ok(path.strip_prefix("//").unwrap_or(path).into()),
        _ => Err(StoreError::Unsupported("must be \"sqlite\" or \"sqlite:PATH\"")),
    }
}

/// Makes the file readable by its owner only; SQLite gives its side files the same mode.
fn create(file: &Path) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(file)
        .map(drop)
}

async fn migrate(pool: &SqlitePool) -> Result<(), StoreError> {
    let migrator = sqlx::migrate!("./migrations/sqlite");
    // SQLite has no advisory lock for migrations: when two processes open a new database at once, the second one's
    // migration fails, and finds the work done when it looks again.
    if migrator.run(pool).await.is_ok() {
        return Ok(());
    }
    migrator.run(pool).await.map_err(|e| StoreError::Unavailable(e.into()))
}
