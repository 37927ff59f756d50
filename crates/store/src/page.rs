//! Lists, newest first, a page at a time.

use crate::StoreError;
use edgeweir_model::ProjectId;
use sqlx::{SqliteConnection, query_scalar};

/// Which part of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// How many entries at most.
    pub limit: u32,
    /// Go on after the entry of this id; from the newest when absent.
    pub after: Option<String>,
}

impl Page {
    /// The first `limit` entries.
    pub fn first(limit: u32) -> Self {
        Self { limit, after: None }
    }

    /// The position below which the page starts. `sql` finds a position by project and id.
    pub(crate) async fn start(
        &self,
        db: &mut SqliteConnection,
        sql: &'static str,
        project: ProjectId,
    ) -> Result<i64, StoreError> {
        let Some(after) = &self.after else { return Ok(i64::MAX) };
        query_scalar(sql)
            .bind(project.0)
            .bind(after)
            .fetch_optional(db)
            .await?
            .ok_or(StoreError::UnknownCursor)
    }

    /// One more than the page holds, to know whether there is more.
    pub(crate) fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// Cuts what was fetched to the page; also whether there is more.
    pub(crate) fn cut<R, T>(
        &self,
        rows: Vec<R>,
        each: impl Fn(R) -> Result<T, StoreError>,
    ) -> Result<(Vec<T>, bool), StoreError> {
        let more = rows.len() > self.limit as usize;
        let items = rows
            .into_iter()
            .take(self.limit as usize)
            .map(each)
            .collect::<Result<_, _>>()?;
        Ok((items, more))
    }
}

/// Reads a stored text back into the type it was written from.
pub(crate) fn parse<T: std::str::FromStr>(text: &str, what: &'static str) -> Result<T, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt(what))
}
