//! What can go wrong, by what the caller can do about it.

use edgeweir_model::CorsError;

/// Why a store operation failed. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Not there, or another project's: the two are never told apart.
    #[error("not found")]
    NotFound,
    /// Some project has a domain of this name, or gave it up less than 30 days ago.
    #[error("the domain name is taken")]
    DomainTaken,
    /// The project has as many domains as it may.
    #[error("the project already has {0} domains")]
    DomainLimitReached(usize),
    /// The project has as many API keys as it may that are not revoked.
    #[error("the project already has {0} API keys")]
    ApiKeyLimitReached(usize),
    /// The API key is the only one of its project that is not revoked.
    #[error("the project has no other API key")]
    LastApiKey,
    /// Some project has a bucket of this name.
    #[error("the bucket name is taken")]
    BucketTaken,
    /// Playback domains still serve the bucket.
    #[error("playback domains still serve the bucket")]
    BucketInUse,
    /// A domain names a bucket that is not there, or is another project's.
    #[error("bucket not found")]
    BucketNotFound,
    /// The domain has a TLS subscription already.
    #[error("the domain already has a TLS subscription")]
    SubscriptionExists,
    /// The id that a list was to go on after is not in it.
    #[error("the list has no such id")]
    UnknownCursor,
    /// What would be left is no valid CORS policy.
    #[error(transparent)]
    Cors(#[from] CorsError),
    /// The database URL names a database that this version cannot use.
    #[error("store.url: {0}")]
    Unsupported(&'static str),
    /// The database is busy, full or out of reach: a retry may succeed.
    #[error("the database is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database holds something that this version did not write.
    #[error("the database holds an invalid {0}")]
    Corrupt(&'static str),
    /// A defect of ours.
    #[error("internal error")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<sqlx::Error> for StoreError {
    fn from(e: sqlx::Error) -> Self {
        // SQLITE_BUSY, _FULL, _IOERR, _READONLY and _CANTOPEN come as database errors; a constraint that no caller
        // turned into its own variant is our defect.
        match &e {
            sqlx::Error::Database(d) if d.kind() == sqlx::error::ErrorKind::Other => Self::Unavailable(e.into()),
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Self::Unavailable(e.into())
            }
            _ => Self::Internal(e.into()),
        }
    }
}

/// `taken` when `e` is a unique constraint that did not hold.
pub(crate) fn unique(e: sqlx::Error, taken: StoreError) -> StoreError {
    match e.as_database_error() {
        Some(d) if d.is_unique_violation() => taken,
        _ => e.into(),
    }
}
