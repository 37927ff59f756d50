//! Signing keys. Only the public half ever comes here.

use crate::{Page, Store, StoreError, page::parse};
use edgeweir_model::{BucketName, Change, DomainId, ProjectId, SigningKeyId, StreamId, Timestamp};
use sqlx::{query, query_as, query_scalar};

/// The one thing that a key opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyScope {
    /// A playback domain.
    Domain(DomainId),
    /// A live stream.
    Stream(StreamId),
    /// A bucket.
    Bucket(BucketName),
}

/// A signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Its id, the `kid` of its tokens.
    pub id: SigningKeyId,
    /// What it opens.
    pub scope: KeyScope,
    /// The owner's name for it.
    pub name: Option<String>,
    /// When it was made.
    pub created: Timestamp,
}

type Row = (
    String,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    i64,
);

fn signing_key((id, domain, stream, bucket, name, created): Row) -> Result<SigningKey, StoreError> {
    let scope = match (domain, stream, bucket) {
        (Some(id), None, None) => KeyScope::Domain(parse(&id, "domain id")?),
        (None, Some(id), None) => KeyScope::Stream(parse(&id, "stream id")?),
        (None, None, Some(name)) => KeyScope::Bucket(parse(&name, "bucket name")?),
        _ => return Err(StoreError::Corrupt("signing key")),
    };
    Ok(SigningKey {
        id: parse(&id, "signing key id")?,
        scope,
        name,
        created: Timestamp(created),
    })
}

impl Store {
    /// Keeps a public key (PKCS#1 DER). A domain or stream asks for tokens from then on, also after its last key is deleted.
    pub async fn create_signing_key(
        &self,
        project: ProjectId,
        scope: KeyScope,
        name: Option<String>,
        public_key_der: &[u8],
    ) -> Result<SigningKey, StoreError> {
        let mut w = self.begin().await?;
        // The sticky policy: finding the owner and closing it are one statement.
        let (mut domain, mut stream, mut bucket) = (None, None, None);
        let found = match &scope {
            KeyScope::Domain(id) => {
                domain = query_scalar::<_, String>(
                    "UPDATE domains SET policy = 'authenticated' WHERE id = ? AND project_id = ? RETURNING id",
                )
                .bind(id.to_string())
                .bind(project.0)
                .fetch_optional(&mut *w.tx)
                .await?;
                domain.is_some()
            }
            KeyScope::Stream(id) => {
                stream = query_scalar::<_, String>(
                    "UPDATE streams SET policy = 'authenticated' WHERE id = ? AND project_id = ? RETURNING id",
                )
                .bind(id.to_string())
                .bind(project.0)
                .fetch_optional(&mut *w.tx)
                .await?;
                stream.is_some()
            }
            KeyScope::Bucket(name) => {
                bucket = query_scalar::<_, i64>("SELECT id FROM buckets WHERE name = ? AND project_id = ?")
                    .bind(name.as_str())
                    .bind(project.0)
                    .fetch_optional(&mut *w.tx)
                    .await?;
                bucket.is_some()
            }
        };
        if !found {
            return Err(StoreError::NotFound);
        }
        let (id, created) = (SigningKeyId::random(), Timestamp::now());
        query(
            "INSERT INTO signing_keys (id, project_id, domain_id, stream_id, bucket_id, name, public_key, created)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.to_string())
        .bind(project.0)
        .bind(domain)
        .bind(stream)
        .bind(bucket)
        .bind(&name)
        .bind(public_key_der)
        .bind(created.0)
        .execute(&mut *w.tx)
        .await?;
        w.commit(&Change::Rows).await?;
        Ok(SigningKey {
            id,
            scope,
            name,
            created,
        })
    }

    /// A signing key.
    pub async fn get_signing_key(&self, project: ProjectId, id: SigningKeyId) -> Result<SigningKey, StoreError> {
        let row: Option<Row> = query_as(
            "SELECT k.id, k.domain_id, k.stream_id, b.name, k.name, k.created
             FROM signing_keys k LEFT JOIN buckets b ON b.id = k.bucket_id WHERE k.project_id = ? AND k.id = ?",
        )
        .bind(project.0)
        .bind(id.to_string())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        signing_key(row.ok_or(StoreError::NotFound)?)
    }

    /// A project's signing keys, newest first; also whether there are more.
    pub async fn list_signing_keys(
        &self,
        project: ProjectId,
        page: &Page,
    ) -> Result<(Vec<SigningKey>, bool), StoreError> {
        let mut db = self.begin_read().await?;
        let start = page
            .start(
                &mut db,
                "SELECT pos FROM signing_keys WHERE project_id = ? AND id = ?",
                project,
            )
            .await?;
        let rows: Vec<Row> = query_as(
            "SELECT k.id, k.domain_id, k.stream_id, b.name, k.name, k.created
             FROM signing_keys k LEFT JOIN buckets b ON b.id = k.bucket_id
             WHERE k.project_id = ? AND k.pos < ? ORDER BY k.pos DESC LIMIT ?",
        )
        .bind(project.0)
        .bind(start)
        .bind(page.fetch())
        .fetch_all(&mut *db)
        .await?;
        page.cut(rows, signing_key)
    }

    /// Gives a key another name, or none.
    pub async fn rename_signing_key(
        &self,
        project: ProjectId,
        id: SigningKeyId,
        name: Option<String>,
    ) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let done = query("UPDATE signing_keys SET name = ? WHERE id = ? AND project_id = ?")
            .bind(name)
            .bind(id.to_string())
            .bind(project.0)
            .execute(&mut *w.tx)
            .await?;
        w.commit_found(&done).await
    }

    /// Deletes a key: its tokens open nothing any more, and nothing opens by itself.
    pub async fn delete_signing_key(&self, project: ProjectId, id: SigningKeyId) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let done = query("DELETE FROM signing_keys WHERE id = ? AND project_id = ?")
            .bind(id.to_string())
            .bind(project.0)
            .execute(&mut *w.tx)
            .await?;
        w.commit_found(&done).await
    }
}
