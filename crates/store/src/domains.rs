//! Playback domains.

use crate::{Store, StoreError, changes::policy, error::unique, page::parse};
use edgeweir_model::{AccessPolicy, BucketName, Change, DomainId, Fqdn, ProjectId, Timestamp};
use sqlx::{query, query_as, query_scalar};

/// How long a deleted name is kept for its last owner: a CNAME that still points here must not become another's.
const KEPT_SECONDS: i64 = 30 * 24 * 3600;

/// What a domain serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainKind {
    /// The project's live streams.
    Live,
    /// A bucket.
    Vod,
}

impl DomainKind {
    /// The name used in URLs and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Vod => "vod",
        }
    }
}

/// What a new domain is to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewDomain {
    /// The project's live streams.
    Live,
    /// This bucket.
    Vod(BucketName),
}

/// A playback domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// What it serves.
    pub kind: DomainKind,
    /// Its name.
    pub name: Fqdn,
    /// The bucket that it serves; `Some` exactly for vod domains.
    pub bucket: Option<BucketName>,
    /// When it was made.
    pub created: Timestamp,
    /// Whether it asks for a token.
    pub policy: AccessPolicy,
}

type Row = (String, String, Option<String>, i64, String);

fn domain((id, name, bucket, created, access): Row) -> Result<Domain, StoreError> {
    Ok(Domain {
        id: parse(&id, "domain id")?,
        kind: if bucket.is_some() {
            DomainKind::Vod
        } else {
            DomainKind::Live
        },
        name: parse(&name, "domain name")?,
        bucket: bucket.map(|b| parse(&b, "bucket name")).transpose()?,
        created: Timestamp(created),
        policy: policy(&access)?,
    })
}

impl Store {
    /// Makes a domain, unless the project has `limit` already.
    pub async fn create_domain(
        &self,
        project: ProjectId,
        name: Fqdn,
        content: NewDomain,
        limit: usize,
    ) -> Result<Domain, StoreError> {
        let mut w = self.begin().await?;
        let now = Timestamp::now();
        let (kind, bucket, bucket_id) = match content {
            NewDomain::Live => (DomainKind::Live, None, None),
            NewDomain::Vod(bucket) => {
                let id: Option<i64> = query_scalar("SELECT id FROM buckets WHERE name = ? AND project_id = ?")
                    .bind(bucket.as_str())
                    .bind(project.0)
                    .fetch_optional(&mut *w.tx)
                    .await?;
                (
                    DomainKind::Vod,
                    Some(bucket),
                    Some(id.ok_or(StoreError::BucketNotFound)?),
                )
            }
        };
        let kept: Option<i64> =
            query_scalar("SELECT 1 FROM released_names WHERE name = ? AND until > ? AND project_id <> ?")
                .bind(name.as_str())
                .bind(now.0)
                .bind(project.0)
                .fetch_optional(&mut *w.tx)
                .await?;
        if kept.is_some() {
            return Err(StoreError::DomainTaken);
        }
        let id = DomainId::random();
        query("INSERT INTO domains (id, project_id, name, bucket_id, created) VALUES (?, ?, ?, ?, ?)")
            .bind(id.to_string())
            .bind(project.0)
            .bind(name.as_str())
            .bind(bucket_id)
            .bind(now.0)
            .execute(&mut *w.tx)
            .await
            .map_err(|e| unique(e, StoreError::DomainTaken))?;
        // Counted under the write lock, so that concurrent creations cannot pass the limit together.
        let count: i64 = query_scalar("SELECT count(*) FROM domains WHERE project_id = ?")
            .bind(project.0)
            .fetch_one(&mut *w.tx)
            .await?;
        if count as usize > limit {
            return Err(StoreError::DomainLimitReached(limit));
        }
        query("DELETE FROM released_names WHERE name = ?")
            .bind(name.as_str())
            .execute(&mut *w.tx)
            .await?;
        w.commit(&Change::Rows).await?;
        Ok(Domain {
            id,
            kind,
            name,
            bucket,
            created: now,
            policy: AccessPolicy::Public,
        })
    }

    /// A project's domains, newest first.
    pub async fn list_domains(&self, project: ProjectId, kind: Option<DomainKind>) -> Result<Vec<Domain>, StoreError> {
        let rows: Vec<Row> = query_as(
            "SELECT d.id, d.name, b.name, d.created, d.policy FROM domains d LEFT JOIN buckets b ON b.id = d.bucket_id
             WHERE d.project_id = ? ORDER BY d.pos DESC",
        )
        .bind(project.0)
        .fetch_all(&mut *self.reader().await?)
        .await?;
        let wanted = |d: &Result<Domain, _>| d.as_ref().map_or(true, |d| kind.is_none_or(|k| k == d.kind));
        rows.into_iter().map(domain).filter(wanted).collect()
    }

    /// A domain.
    pub async fn get_domain(&self, project: ProjectId, id: DomainId) -> Result<Domain, StoreError> {
        let row: Option<Row> = query_as(
            "SELECT d.id, d.name, b.name, d.created, d.policy FROM domains d LEFT JOIN buckets b ON b.id = d.bucket_id
             WHERE d.project_id = ? AND d.id = ?",
        )
        .bind(project.0)
        .bind(id.to_string())
        .fetch_optional(&mut *self.reader().await?)
        .await?;
        domain(row.ok_or(StoreError::NotFound)?)
    }

    /// Deletes a domain with its subscription and signing keys; its name stays the project's for 30 days.
    pub async fn delete_domain(&self, project: ProjectId, id: DomainId) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let name: Option<String> = query_scalar("DELETE FROM domains WHERE id = ? AND project_id = ? RETURNING name")
            .bind(id.to_string())
            .bind(project.0)
            .fetch_optional(&mut *w.tx)
            .await?;
        let now = Timestamp::now().0;
        query("INSERT OR REPLACE INTO released_names (name, project_id, until) VALUES (?, ?, ?)")
            .bind(name.ok_or(StoreError::NotFound)?)
            .bind(project.0)
            .bind(now + KEPT_SECONDS)
            .execute(&mut *w.tx)
            .await?;
        // Here, where rows are added: so the table holds those of 30 days, and a few.
        query("DELETE FROM released_names WHERE until <= ?")
            .bind(now)
            .execute(&mut *w.tx)
            .await?;
        w.commit(&Change::Rows).await
    }

    /// Sets whether a domain asks for a token.
    pub async fn set_domain_policy(
        &self,
        project: ProjectId,
        id: DomainId,
        policy: AccessPolicy,
    ) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let done = query("UPDATE domains SET policy = ? WHERE id = ? AND project_id = ?")
            .bind(policy.as_str())
            .bind(id.to_string())
            .bind(project.0)
            .execute(&mut *w.tx)
            .await?;
        w.commit_found(&done).await
    }
}
