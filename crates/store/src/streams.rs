//! Live streams.

use crate::{Page, Store, StoreError, changes::policy, page::parse, secret};
use edgeweir_model::{AccessPolicy, Change, ProjectId, PullUrl, StreamId, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{query, query_as};

/// Where a stream comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamOrigin {
    /// An encoder pushes it here.
    Ingest,
    /// It is pulled from this URL.
    Pull(PullUrl),
}

/// A live stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Its id.
    pub id: StreamId,
    /// Its public id.
    pub playback_id: String,
    /// The owner's name for it.
    pub name: String,
    /// Where it comes from.
    pub origin: StreamOrigin,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it asks for a token.
    pub policy: AccessPolicy,
}

type Row = (String, String, String, Option<String>, i64, String);

fn stream((id, playback_id, name, pull, created, access): Row) -> Result<Stream, StoreError> {
    Ok(Stream {
        id: parse(&id, "stream id")?,
        playback_id,
        name,
        origin: match pull {
            None => StreamOrigin::Ingest,
            Some(url) => StreamOrigin::Pull(parse(&url, "pull URL")?),
        },
        created: Timestamp(created),
        policy: policy(&access)?,
    })
}

impl Store {
    /// Makes a stream. The key that an encoder pushes with comes for ingest only, and only this once.
    pub async fn create_stream(
        &self,
        project: ProjectId,
        name: &str,
        origin: StreamOrigin,
    ) -> Result<(Stream, Option<SecretString>), StoreError> {
        let (pull, key) = match &origin {
            StreamOrigin::Ingest => (None, Some(secret::random("")?)),
            StreamOrigin::Pull(url) => (Some(url.to_string()), None),
        };
        let (id, playback_id, created) = (StreamId::random(), secret::playback_id()?, Timestamp::now());
        let mut w = self.begin().await?;
        query("INSERT INTO streams (id, project_id, playback_id, name, pull_url, key_hash, created) VALUES (?, ?, ?, ?, ?, ?, ?)")
            .bind(id.to_string())
            .bind(project.0)
            .bind(&playback_id)
            .bind(name)
            .bind(pull)
            .bind(key.as_ref().map(|k| secret::hash(k.expose_secret()).to_vec()))
            .bind(created.0)
            .execute(&mut *w.tx)
            .await?;
        w.commit(&Change::Rows).await?;
        let name = name.to_owned();
        Ok((
            Stream {
                id,
                playback_id,
                name,
                origin,
                created,
                policy: AccessPolicy::Public,
            },
            key,
        ))
    }

    /// A stream.
    pub async fn get_stream(&self, project: ProjectId, id: StreamId) -> Result<Stream, StoreError> {
        let row: Option<Row> = query_as(
            "SELECT id, playback_id, name, pull_url, created, policy FROM streams WHERE project_id = ? AND id = ?",
        )
        .bind(project.0)
        .bind(id.to_string())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        stream(row.ok_or(StoreError::NotFound)?)
    }

    /// A project's streams, newest first; also whether there are more.
    pub async fn list_streams(&self, project: ProjectId, page: &Page) -> Result<(Vec<Stream>, bool), StoreError> {
        let mut db = self.begin_read().await?;
        let start = page
            .start(
                &mut db,
                "SELECT pos FROM streams WHERE project_id = ? AND id = ?",
                project,
            )
            .await?;
        let rows: Vec<Row> = query_as(
            "SELECT id, playback_id, name, pull_url, created, policy FROM streams
             WHERE project_id = ? AND pos < ? ORDER BY pos DESC LIMIT ?",
        )
        .bind(project.0)
        .bind(start)
        .bind(page.fetch())
        .fetch_all(&mut *db)
        .await?;
        page.cut(rows, stream)
    }

    /// Deletes a stream with its signing keys.
    pub async fn delete_stream(&self, project: ProjectId, id: StreamId) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let done = query("DELETE FROM streams WHERE id = ? AND project_id = ?")
            .bind(id.to_string())
            .bind(project.0)
            .execute(&mut *w.tx)
            .await?;
        w.commit_found(&done).await
    }

    /// Sets whether a stream asks for a token.
    pub async fn set_stream_policy(
        &self,
        project: ProjectId,
        id: StreamId,
        policy: AccessPolicy,
    ) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let done = query("UPDATE streams SET policy = ? WHERE id = ? AND project_id = ?")
            .bind(policy.as_str())
            .bind(id.to_string())
            .bind(project.0)
            .execute(&mut *w.tx)
            .await?;
        w.commit_found(&done).await
    }
}
