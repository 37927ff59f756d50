//! Buckets: origin, access policy, CORS policy, purges.
//!
//! The generation is part of every cache key, so raising it makes all cached answers unreachable at once.

use crate::{Page, Store, StoreError, backend::Write, changes::policy, error::unique, page::parse};
use base64::{Engine, engine::general_purpose::STANDARD};
use edgeweir_model::{
    AccessPolicy, BucketId, BucketName, Change, CorsHeader, CorsPolicy, HttpOrigin, Origin, ProjectId, Purge, S3Origin,
    S3Settings, SealedSecret, Timestamp,
};
use serde::{Deserialize, Serialize};
use sqlx::{query, query_as};
use std::{collections::BTreeMap, sync::Arc};

/// What a new bucket is to be.
#[derive(Debug, Clone)]
pub struct NewBucket {
    /// Its name.
    pub name: BucketName,
    /// One of the configured regions.
    pub region: String,
    /// Where its objects are.
    pub origin: Origin,
}

/// A bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketInfo {
    /// Its id, never used again.
    pub id: BucketId,
    /// Its name.
    pub name: BucketName,
    /// One of the configured regions.
    pub region: String,
    /// Where its objects are.
    pub origin: Origin,
    /// Whether a token is asked for.
    pub policy: AccessPolicy,
    /// Its CORS policy; empty when none is set.
    pub cors: CorsPolicy,
    /// How often everything cached was made unreachable.
    pub generation: u64,
    /// When it was made.
    pub created: Timestamp,
}

/// An origin as it is stored.
#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum StoredOrigin {
    Local,
    Http {
        url: String,
        methods: Vec<String>,
        #[serde(default)]
        request_headers: Vec<String>,
        #[serde(default)]
        store_set_cookie: bool,
        #[serde(default)]
        show_surrogate_keys: bool,
    },
    S3 {
        endpoint: String,
        bucket: String,
        region: String,
        access_key_id: String,
        /// Sealed, in base64.
        secret_access_key: String,
        path_style: bool,
    },
}

fn json<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Internal(e.into()))
}

fn origin_text(origin: &Origin) -> Result<String, StoreError> {
    json(&match origin {
        Origin::Local => StoredOrigin::Local,
        Origin::Http(http) => StoredOrigin::Http {
            url: http.url.to_string(),
            methods: http.methods.iter().map(ToString::to_string).collect(),
            request_headers: http.request_headers.iter().map(ToString::to_string).collect(),
            store_set_cookie: http.store_set_cookie,
            show_surrogate_keys: http.show_surrogate_keys,
        },
        Origin::S3(s3) => {
            let S3Settings {
                endpoint,
                bucket,
                region,
                access_key_id,
                path_style,
            } = s3.settings().clone();
            StoredOrigin::S3 {
                endpoint,
                bucket,
                region,
                access_key_id,
                secret_access_key: STANDARD.encode(&s3.secret_access_key().0),
                path_style,
            }
        }
    })
}

pub(crate) fn origin(text: &str) -> Result<Origin, StoreError> {
    Ok(
        match serde_json::from_str(text).map_err(|_| StoreError::Corrupt("origin"))? {
            StoredOrigin::Local => Origin::Local,
            StoredOrigin::Http {
                url,
                methods,
                request_headers,
                store_set_cookie,
                show_surrogate_keys,
            } => Origin::Http(HttpOrigin {
                url: parse(&url, "origin URL")?,
                methods: methods.into_iter().map(Into::into).collect(),
                request_headers: request_headers.into_iter().map(Into::into).collect(),
                store_set_cookie,
                show_surrogate_keys,
            }),
            StoredOrigin::S3 {
                endpoint,
                bucket,
                region,
                access_key_id,
                secret_access_key,
                path_style,
            } => {
                let corrupt = || StoreError::Corrupt("S3 origin");
                let settings = S3Settings {
                    endpoint,
                    bucket,
                    region,
                    access_key_id,
                    path_style,
                };
                let sealed = STANDARD.decode(secret_access_key).map_err(|_| corrupt())?;
                let origin = S3Origin::new(settings, SealedSecret(sealed.into())).map_err(|_| corrupt())?;
                Origin::S3(Arc::new(origin))
            }
        },
    )
}

fn cors_text(cors: &CorsPolicy) -> Result<String, StoreError> {
    json(&cors.iter().map(|(h, v)| (h.as_str(), v)).collect::<BTreeMap<_, _>>())
}

pub(crate) fn cors(text: &str) -> Result<CorsPolicy, StoreError> {
    let corrupt = || StoreError::Corrupt("CORS policy");
    let headers: BTreeMap<String, String> = serde_json::from_str(text).map_err(|_| corrupt())?;
    CorsPolicy::new(headers.iter().map(|(h, v)| (h.as_str(), v.as_str()))).map_err(|_| corrupt())
}

type Row = (i64, String, String, String, String, String, i64, i64);

fn bucket((id, name, region, from, access, headers, generation, created): Row) -> Result<BucketInfo, StoreError> {
    Ok(BucketInfo {
        id: BucketId(id),
        name: parse(&name, "bucket name")?,
        region,
        origin: origin(&from)?,
        policy: policy(&access)?,
        cors: cors(&headers)?,
        generation: generation as u64,
        created: Timestamp(created),
    })
}

const GET: &str =
    "SELECT id, name, region, origin, policy, cors, generation, created FROM buckets WHERE project_id = ? AND name = ?";

/// The bucket as it stands under the write lock.
async fn locked(w: &mut Write<'_>, project: ProjectId, name: &BucketName) -> Result<BucketInfo, StoreError> {
    let row: Option<Row> = query_as(GET)
        .bind(project.0)
        .bind(name.as_str())
        .fetch_optional(&mut *w.tx)
        .await?;
    bucket(row.ok_or(StoreError::NotFound)?)
}

/// Writes back what may change of a bucket.
async fn save(mut w: Write<'_>, b: &BucketInfo) -> Result<(), StoreError> {
    query("UPDATE buckets SET origin = ?, policy = ?, cors = ?, generation = ? WHERE id = ?")
        .bind(origin_text(&b.origin)?)
        .bind(b.policy.as_str())
        .bind(cors_text(&b.cors)?)
        .bind(b.generation as i64)
        .bind(b.id.0)
        .execute(&mut *w.tx)
        .await?;
    w.commit(&Change::Rows).await
}

impl Store {
    /// Makes a bucket.
    pub async fn create_bucket(&self, project: ProjectId, new: NewBucket) -> Result<BucketInfo, StoreError> {
        let mut w = self.begin().await?;
        query("INSERT INTO buckets (project_id, name, region, origin, created) VALUES (?, ?, ?, ?, ?)")
            .bind(project.0)
            .bind(new.name.as_str())
            .bind(&new.region)
            .bind(origin_text(&new.origin)?)
            .bind(Timestamp::now().0)
            .execute(&mut *w.tx)
            .await
            .map_err(|e| unique(e, StoreError::BucketTaken))?;
        let made = locked(&mut w, project, &new.name).await?;
        w.commit(&Change::Rows).await?;
        Ok(made)
    }

    /// A bucket.
    pub async fn get_bucket(&self, project: ProjectId, name: &BucketName) -> Result<BucketInfo, StoreError> {
        let row: Option<Row> = query_as(GET)
            .bind(project.0)
            .bind(name.as_str())
            .fetch_optional(&mut *self.reader().await?)
            .await?;
        bucket(row.ok_or(StoreError::NotFound)?)
    }

    /// A project's buckets, newest first; also whether there are more. A page goes on after a bucket's name.
    pub async fn list_buckets(&self, project: ProjectId, page: &Page) -> Result<(Vec<BucketInfo>, bool), StoreError> {
        let mut db = self.begin_read().await?;
        let start = page
            .start(
                &mut db,
                "SELECT id FROM buckets WHERE project_id = ? AND name = ?",
                project,
            )
            .await?;
        let rows: Vec<Row> = query_as(
            "SELECT id, name, region, origin, policy, cors, generation, created FROM buckets
             WHERE project_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
        )
        .bind(project.0)
        .bind(start)
        .bind(page.fetch())
        .fetch_all(&mut *db)
        .await?;
        page.cut(rows, bucket)
    }

    /// A bucket under the write lock, for changes that depend on what its folder holds.
    pub async fn lock_bucket(&self, project: ProjectId, name: &BucketName) -> Result<LockedBucket<'_>, StoreError> {
        let mut w = self.begin().await?;
        let bucket = locked(&mut w, project, name).await?;
        Ok(LockedBucket { w, bucket })
    }

    /// Sets whether a bucket asks for a token; closing it makes what was cached while it was open unreachable.
    pub async fn set_bucket_policy(
        &self,
        project: ProjectId,
        name: &BucketName,
        policy: AccessPolicy,
    ) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let mut b = locked(&mut w, project, name).await?;
        if (b.policy, policy) == (AccessPolicy::Public, AccessPolicy::Authenticated) {
            b.generation += 1;
        }
        b.policy = policy;
        save(w, &b).await
    }

    /// Whether a bucket asks for a token.
    pub async fn get_bucket_policy(&self, project: ProjectId, name: &BucketName) -> Result<AccessPolicy, StoreError> {
        Ok(self.get_bucket(project, name).await?.policy)
    }

    /// Replaces a bucket's CORS policy.
    pub async fn set_cors(&self, project: ProjectId, name: &BucketName, cors: CorsPolicy) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let mut b = locked(&mut w, project, name).await?;
        b.cors = cors;
        save(w, &b).await
    }

    /// A bucket's CORS policy; empty when none is set.
    pub async fn get_cors(&self, project: ProjectId, name: &BucketName) -> Result<CorsPolicy, StoreError> {
        Ok(self.get_bucket(project, name).await?.cors)
    }

    /// Drops a bucket's CORS policy.
    pub async fn delete_cors(&self, project: ProjectId, name: &BucketName) -> Result<(), StoreError> {
        self.set_cors(project, name, CorsPolicy::default()).await
    }

    /// Drops one header of a bucket's CORS policy; refused when the rest would be invalid.
    pub async fn delete_cors_header(
        &self,
        project: ProjectId,
        name: &BucketName,
        header: CorsHeader,
    ) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let mut b = locked(&mut w, project, name).await?;
        b.cors = b.cors.without(header)?;
        save(w, &b).await
    }

    /// Makes everything cached of a bucket unreachable.
    pub async fn purge_all(&self, project: ProjectId, name: &BucketName) -> Result<(), StoreError> {
        let mut w = self.begin().await?;
        let mut b = locked(&mut w, project, name).await?;
        b.generation += 1;
        save(w, &b).await
    }

    /// Has the edges drop cached copies, or take them for stale.
    pub async fn purge(&self, project: ProjectId, name: &BucketName, purge: Purge) -> Result<(), StoreError> {
        self.lock_bucket(project, name).await?.purge(purge).await
    }
}

/// A bucket under the write lock: nothing is written elsewhere until this ends. Dropping it changes nothing.
pub struct LockedBucket<'a> {
    w: Write<'a>,
    bucket: BucketInfo,
}

impl std::fmt::Debug for LockedBucket<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LockedBucket").field(&self.bucket).finish()
    }
}

impl LockedBucket<'_> {
    /// The bucket as it is.
    pub fn info(&self) -> &BucketInfo {
        &self.bucket
    }

    /// Gives the bucket another origin; what was cached from the old one becomes unreachable.
    pub async fn set_origin(mut self, origin: Origin) -> Result<BucketInfo, StoreError> {
        self.bucket.origin = origin;
        self.bucket.generation += 1;
        save(self.w, &self.bucket).await?;
        Ok(self.bucket)
    }

    /// Deletes the bucket with its signing keys, unless a domain serves it.
    pub async fn delete(mut self) -> Result<BucketInfo, StoreError> {
        query("DELETE FROM buckets WHERE id = ?")
            .bind(self.bucket.id.0)
            .execute(&mut *self.w.tx)
            .await
            .map_err(|e| match e.as_database_error() {
                Some(d) if d.is_foreign_key_violation() => StoreError::BucketInUse,
                _ => e.into(),
            })?;
        self.w.commit(&Change::Rows).await?;
        Ok(self.bucket)
    }

    /// Has the edges drop cached copies, or take them for stale.
    pub async fn purge(self, purge: Purge) -> Result<(), StoreError> {
        let bucket = self.bucket.id;
        self.w.commit(&Change::Purge { bucket, purge }).await
    }
}
