//! Leases: who does a piece of work, so that one node does it at a time. Not state that anybody serves from, so they
//! write no change-log entry.

use crate::{Store, StoreError};
use sqlx::query;

/// A lease that ends later than this, in milliseconds, was taken by a clock that went wrong.
const LONGEST: i64 = 3_600_000;

impl Store {
    /// Takes or prolongs a lease at `now`, until then (milliseconds); whether it is the holder's. After taking it the
    /// holder must look again whether the work is still to be done.
    pub async fn take_lease(&self, name: &str, holder: &str, now: i64, until: i64) -> Result<bool, StoreError> {
        let done = query(
            "INSERT INTO leases (name, holder, until) VALUES (?, ?, ?)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE holder = excluded.holder OR until <= ? OR until > ?",
        )
        .bind(name)
        .bind(holder)
        .bind(until)
        .bind(now)
        .bind(now.saturating_add(LONGEST))
        .execute(&mut *self.writer().await?)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Gives a lease back, if it is the holder's.
    pub async fn release_lease(&self, name: &str, holder: &str) -> Result<(), StoreError> {
        query("DELETE FROM leases WHERE name = ? AND holder = ?")
            .bind(name)
            .bind(holder)
            .execute(&mut *self.writer().await?)
            .await?;
        Ok(())
    }
}
