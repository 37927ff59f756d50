//! Projects and their API keys.

use crate::{Store, StoreError, backend::Write, secret};
use edgeweir_model::{Change, ProjectId, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{query, query_as, query_scalar};
use std::fmt;

/// How many API keys a project may have that are not revoked. Whoever shows an access token has each of them tried,
/// before it is known whether the token is any.
pub const API_KEYS: usize = 20;

/// An API key's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiKeyId(pub i64);

impl fmt::Display for ApiKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A project just made.
#[derive(Debug)]
pub struct NewProject {
    /// Its id.
    pub project_id: ProjectId,
    /// Its name.
    pub name: String,
    /// Its first API key, shown this once.
    pub api_key: SecretString,
}

/// An API key in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyInfo {
    /// The key.
    pub id: ApiKeyId,
    /// When it was made.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
}

/// A key that is not revoked, with what is stored of it.
#[derive(Clone)]
pub struct LiveApiKey {
    /// The key.
    pub id: ApiKeyId,
    /// SHA-256 of the key. Secret: access tokens' HMAC secrets are derived from it.
    pub hash: [u8; 32],
}

impl fmt::Debug for LiveApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveApiKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

async fn insert_key(
    w: &mut Write<'_>,
    project: ProjectId,
    key: &SecretString,
    now: i64,
) -> Result<ApiKeyId, StoreError> {
    let id = query_scalar("INSERT INTO api_keys (project_id, hash, created) VALUES (?, ?, ?) RETURNING id")
        .bind(project.0)
        .bind(&secret::hash(key.expose_secret())[..])
        .bind(now)
        .fetch_one(&mut *w.tx)
        .await
        .map_err(|e| match e.as_database_error() {
            Some(d) if d.is_foreign_key_violation() => StoreError::NotFound,
            _ => e.into(),
        })?;
    Ok(ApiKeyId(id))
}

/// How many keys a project has that are not revoked; under the write lock, so that it stays true.
async fn count_live(w: &mut Write<'_>, project: ProjectId) -> Result<usize, StoreError> {
    let count: i64 = query_scalar("SELECT count(*) FROM api_keys WHERE project_id = ? AND revoked IS NULL")
        .bind(project.0)
        .fetch_one(&mut *w.tx)
        .await?;
    Ok(count as usize)
}

impl Store {
    /// Makes a project with one API key.
    pub async fn create_project(&self, name: &str) -> Result<NewProject, StoreError> {
        let api_key = secret::random("ew_")?;
        let mut w = self.begin().await?;
        let now = Timestamp::now().0;
        let id: i64 = query_scalar("INSERT INTO projects (name, created) VALUES (?, ?) RETURNING id")
            .bind(name)
            .bind(now)
            .fetch_one(&mut *w.tx)
            .await?;
        insert_key(&mut w, ProjectId(id), &api_key, now).await?;
        w.commit(&Change::Rows).await?;
        Ok(NewProject {
            project_id: ProjectId(id),
            name: name.to_owned(),
            api_key,
        })
    }

    /// Makes another API key for a project, unless it has [`API_KEYS`] already; the key itself comes this once. `NotFound`
    /// when there is no such project.
    pub async fn create_api_key(&self, project: ProjectId) -> Result<(ApiKeyInfo, SecretString), StoreError> {
        let api_key = secret::random("ew_")?;
        let created = Timestamp::now();
        let mut w = self.begin().await?;
        let id = insert_key(&mut w, project, &api_key, created.0).await?;
        if count_live(&mut w, project).await? > API_KEYS {
            return Err(StoreError::ApiKeyLimitReached(API_KEYS));
        }
        w.commit(&Change::Rows).await?;
        let info = ApiKeyInfo {
            id,
            created,
            revoked: None,
        };
        Ok((info, api_key))
    }

    /// Whose API key this is, and which; `NotFound` for an unknown or revoked one.
    pub async fn authenticate(&self, api_key: &str) -> Result<(ProjectId, LiveApiKey), StoreError> {
        let hash = secret::hash(api_key);
        let row: Option<(i64, i64, Vec<u8>)> =
            query_as("SELECT id, project_id, hash FROM api_keys WHERE hash = ? AND revoked IS NULL")
                .bind(&hash[..])
                .fetch_optional(&mut *self.reader().await?)
                .await?;
        match row {
            Some((id, project, stored)) if secret::same(&stored, &hash) => {
                Ok((ProjectId(project), LiveApiKey { id: ApiKeyId(id), hash }))
            }
            _ => Err(StoreError::NotFound),
        }
    }

    /// Ends a key, and with it the access tokens that were made from it; not the last one, without which nobody could ask
    /// for anything any more.
    pub async fn revoke_api_key(&self, project: ProjectId, id: ApiKeyId) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let done = query("UPDATE api_keys SET revoked = ? WHERE id = ? AND project_id = ? AND revoked IS NULL")
            .bind(Timestamp::now().0)
            .bind(id.0)
            .bind(project.0)
            .execute(&mut *w.tx)
            .await?;
        if done.rows_affected() == 0 {
            return Err(StoreError::NotFound);
        }
        if count_live(&mut w, project).await? == 0 {
            return Err(StoreError::LastApiKey);
        }
        w.commit(&Change::Rows).await
    }

    /// A project's keys, newest first, revoked ones too.
    pub async fn list_api_keys(&self, project: ProjectId) -> Result<Vec<ApiKeyInfo>, StoreError> {
        let rows: Vec<(i64, i64, Option<i64>)> =
            query_as("SELECT id, created, revoked FROM api_keys WHERE project_id = ? ORDER BY id DESC")
                .bind(project.0)
                .fetch_all(&mut *self.reader().await?)
                .await?;
        let info = |(id, created, revoked): (i64, i64, Option<i64>)| ApiKeyInfo {
            id: ApiKeyId(id),
            created: Timestamp(created),
            revoked: revoked.map(Timestamp),
        };
        Ok(rows.into_iter().map(info).collect())
    }

    /// A project's keys that are not revoked.
    pub async fn live_api_keys(&self, project: ProjectId) -> Result<Vec<LiveApiKey>, StoreError> {
        let rows: Vec<(i64, Vec<u8>)> =
            query_as("SELECT id, hash FROM api_keys WHERE project_id = ? AND revoked IS NULL ORDER BY id")
                .bind(project.0)
                .fetch_all(&mut *self.reader().await?)
                .await?;
        let key = |(id, hash): (i64, Vec<u8>)| {
            let hash = hash.try_into().map_err(|_| StoreError::Corrupt("API key"))?;
            Ok(LiveApiKey { id: ApiKeyId(id), hash })
        };
        rows.into_iter().map(key).collect()
    }
}
