//! The objects of local buckets.

use super::{Answer, Done, done, settled};
use crate::{Shared, auth::Project, error::ApiError, extract::Segment, paging::Paging};
use axum::{
    Json,
    body::Body as HttpBody,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use edgeweir_model::{BucketName, ObjectKey, Origin, ProjectId, Timestamp};
use edgeweir_origin::{ObjectInfo, media_type};
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

/// Makes sure that the bucket is the project's, and local.
async fn local(state: &Shared, project: ProjectId, name: &BucketName) -> Result<(), ApiError> {
    match state.store.get_bucket(project, name).await?.origin {
        Origin::Local => Ok(()),
        Origin::Http(_) => Err(ApiError::conflict(
            "bucket_not_local",
            "the bucket's objects are at its origin; only local buckets take them here",
        )),
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
    local(&state, project, &name).await?;
    let declared = request.headers().get(CONTENT_LENGTH);
    let length = declared.and_then(|v| v.to_str().ok()?.parse().ok());
    state.storage.create_bucket(&name).await?;
    state
        .storage
        .put(
            &name,
            &key,
            request.into_body().into_data_stream(),
            length,
            state.config.object_limit,
        )
        .await?;
    state.store.purge_object(project, &name, &key).await?;
    let info = state.storage.head(&name, &key).await?.ok_or_else(ApiError::not_found)?;
    settled(&state, One { object: info.into() }).await
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
    local(&state, project, &name).await?;
    let (info, body) = state
        .storage
        .read_object(&name, &key)
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
    local(&state, project, &name).await?;
    if !state.storage.delete(&name, &key).await? {
        return Err(ApiError::not_found());
    }
    state.store.purge_object(project, &name, &key).await?;
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
    local(&state, project, &name).await?;
    let (found, more) = state
        .storage
        .list(&name, &paging.prefix, paging.after.as_deref(), paging.limit as usize)
        .await?;
    let next = found.last().filter(|_| more).map(|o| o.key.as_str().to_owned());
    Ok(Json(Many {
        objects: found.into_iter().map(Into::into).collect(),
        next,
    }))
}
