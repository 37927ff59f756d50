//! The objects of local buckets.

use super::{Answer, Done, done, folder, in_effect, whole};
use crate::{Shared, auth::Project, error::ApiError, extract::Segment, paging::Paging};
use axum::{
    Json,
    body::Body as HttpBody,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use edgeweir_model::{BucketName, ObjectKey, Origin, ProjectId, Purge, Purged, Timestamp};
use edgeweir_origin::{LocalError, ObjectInfo, media_type};
use edgeweir_store::{BucketInfo, StoreError};
use http::{
    HeaderValue, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS},
};
use serde::Serialize;
use std::time::{Duration, UNIX_EPOCH};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get, put, delete))
}

/// An object.
#[derive(Serialize, ToSchema)]
struct ObjectBody {
    #[schema(value_type = String)]
    key: String,
    /// In bytes.
    size: u64,
    etag: String,
    #[schema(value_type = String)]
    modified: Timestamp,
}

impl From<ObjectInfo> for ObjectBody {
    fn from(info: ObjectInfo) -> Self {
        Self {
            key: info.key.as_str().to_owned(),
            size: info.size,
            etag: info.etag,
            modified: info.modified,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct One {
    object: ObjectBody,
}

#[derive(Serialize, ToSchema)]
struct Many {
    objects: Vec<ObjectBody>,
    /// Goes on after this key, when there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The key in a request's path, decoded once, as the edge does it.
fn key(uri: &Uri) -> Result<ObjectKey, ApiError> {
    // /v1/buckets/<name>/objects/<key>
    let path = uri.path();
    let start = path.match_indices('/').nth(4).map_or(path.len(), |(at, _)| at);
    ObjectKey::from_path(&path[start..]).map_err(|e| ApiError::malformed("invalid_key", e.to_string()).at("key"))
}

fn not_local() -> ApiError {
    ApiError::conflict(
        "bucket_not_local",
        "the bucket's objects are at its origin; only local buckets take them here",
    )
}

/// The bucket, which must be the project's, and local.
async fn local(state: &Shared, project: ProjectId, name: &BucketName) -> Result<BucketInfo, ApiError> {
    let bucket = state.store.get_bucket(project, name).await?;
    match bucket.origin {
        Origin::Local => Ok(bucket),
        Origin::Http(_) | Origin::S3(_) => Err(not_local()),
    }
}

/// Purges an object that has just changed, unless the bucket is not there any more, or not the same, or not local: under
/// the lock that a bucket is deleted under, once it is seen to be empty.
async fn purge(state: &Shared, project: ProjectId, bucket: &BucketInfo, key: &ObjectKey) -> Result<(), ApiError> {
    let unpurged = |e| match e {
        StoreError::NotFound => ApiError::not_found(),
        e => {
            tracing::error!(error = &e as &dyn std::error::Error, "a changed object is not purged");
            ApiError::not_purged()
        }
    };
    let locked = state.store.lock_bucket(project, &bucket.name).await.map_err(unpurged)?;
    if locked.info().id != bucket.id {
        return Err(ApiError::not_found());
    }
    if locked.info().origin != Origin::Local {
        return Err(not_local());
    }
    let purge = Purge::hard(Purged::Object(key.clone()));
    locked.purge(purge).await.map_err(unpurged)
}

/// Tells a change that is not seen from one that is, and has to be purged whether or not it is certain to last.
fn seen<T>(change: Result<T, LocalError>) -> Result<Result<T, LocalError>, LocalError> {
    match change {
        Ok(_) | Err(LocalError::Unsynced(_)) => Ok(change),
        Err(e) => Err(e),
    }
}

/// Puts an object; it is seen whole or not at all, and what was cached of an older one is purged.
#[utoipa::path(put, path = "/v1/buckets/{bucket_name}/objects/{*key}", tag = "objects",
    security(("access_token" = [])), params(("bucket_name" = String, Path), ("key" = String, Path)),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"), responses((status = 200, body = One)))]
async fn put(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    request: Request,
) -> Answer<One> {
    let key = key(request.uri())?;
    let bucket = local(&state, project, &name).await?;
    let declared = request.headers().get(CONTENT_LENGTH);
    let length = declared.and_then(|v| v.to_str().ok()?.parse().ok());
    let work = {
        let state = state.clone();
        async move {
            let folder = folder(&bucket);
            let content = request.into_body().into_data_stream();
            state.storage.create_bucket(&folder).await?;
            let limit = state.config.object_limit;
            let put = state.storage.put(&folder, &key, content, length, limit).await;
            let lasts = seen(put)?;
            if let Err(e) = purge(&state, project, &bucket, &key).await {
                if e.is_refusal() {
                    // The bucket went while the object came.
                    state.storage.delete(&folder, &key).await?;
                    // Another put may be about to do the same: the last one succeeds.
                    let _ = state.storage.remove_bucket(&folder).await;
                }
                return Err(e);
            }
            lasts?;
            let info = state.storage.head(&folder, &key).await?;
            Ok(info.ok_or_else(ApiError::not_found)?.into())
        }
    };
    let object = whole(&state, work).await?;
    in_effect(&state, One { object }).await
}

/// Gets an object, past the cache.
#[utoipa::path(get, path = "/v1/buckets/{bucket_name}/objects/{*key}", tag = "objects",
    security(("access_token" = [])), params(("bucket_name" = String, Path), ("key" = String, Path)),
    responses((status = 200, content_type = "application/octet-stream")))]
async fn get(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let key = key(&uri)?;
    let bucket = local(&state, project, &name).await?;
    let (info, body) = state
        .storage
        .read_object(&folder(&bucket), &key)
        .await?
        .ok_or_else(ApiError::not_found)?;
    let modified = UNIX_EPOCH + Duration::from_secs(u64::try_from(info.modified.0).unwrap_or(0));
    let text = |s: &str| HeaderValue::from_str(s).map_err(|_| ApiError::internal());
    let mut response = HttpBody::new(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(key.as_str())));
    headers.insert(CONTENT_LENGTH, info.size.into());
    headers.insert(ETAG, text(&info.etag)?);
    headers.insert(LAST_MODIFIED, text(&httpdate::fmt_http_date(modified))?);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// Deletes an object and purges it.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_name}/objects/{*key}", tag = "objects",
    security(("access_token" = [])), params(("bucket_name" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Done)))]
async fn delete(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    uri: Uri,
) -> Answer<Done> {
    let key = key(&uri)?;
    let bucket = local(&state, project, &name).await?;
    let work = {
        let state = state.clone();
        async move {
            let deleted = seen(state.storage.delete(&folder(&bucket), &key).await)?;
            // Also when the file is gone already: an earlier request may have come to that point, and not to this one.
            purge(&state, project, &bucket, &key).await?;
            Ok(deleted?)
        }
    };
    if !whole(&state, work).await? {
        return Err(ApiError::not_found());
    }
    done(&state).await
}

/// Lists objects in the byte order of their keys.
#[utoipa::path(get, path = "/v1/buckets/{bucket_name}/objects", tag = "objects", security(("access_token" = [])),
    params(("bucket_name" = String, Path), ("prefix" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("after" = Option<String>, Query)),
    responses((status = 200, body = Many)))]
async fn list(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    paging: Paging,
) -> Answer<Many> {
    let bucket = local(&state, project, &name).await?;
    let (found, more) = state
        .storage
        .list(
            &folder(&bucket),
            &paging.prefix,
            paging.after.as_deref(),
            paging.limit as usize,
        )
        .await?;
    let next = found.last().filter(|_| more).map(|o| o.key.as_str().to_owned());
    Ok(Json(Many {
        objects: found.into_iter().map(Into::into).collect(),
        next,
    }))
}
