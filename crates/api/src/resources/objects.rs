//! The objects of local buckets.

use super::{Answer, Done, done, folder, in_effect, whole};
use crate::{Shared, auth::Project, error::ApiError, extract::Segment, paging::Paging};
use axum::{
    Json,
    body::Body as HttpBody,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use edgeweir_model::{BucketName, ObjectKey, Origin, ProjectId, Purge, Purged, Timestamp, entity_tag};
use edgeweir_origin::{Condition, LocalError, ObjectInfo, media_type};
use edgeweir_store::{BucketInfo, StoreError};
use http::{
    HeaderMap, HeaderName, HeaderValue, Uri,
    header::{
        CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH,
        IF_UNMODIFIED_SINCE, LAST_MODIFIED, X_CONTENT_TYPE_OPTIONS,
    },
};
use serde::Serialize;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
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

/// The condition of a change (RFC 9110 §13.1): without it, two who change an object at a time would undo each other's work.
fn condition(headers: &HeaderMap) -> Condition {
    let lists = |name: HeaderName| -> Option<Vec<HeaderValue>> {
        let values: Vec<_> = headers.get_all(name).iter().cloned().collect();
        (!values.is_empty()).then_some(values)
    };
    let names = |lists: &[HeaderValue], info: &ObjectInfo, same: fn(&[u8], &[u8]) -> bool| {
        let tag = Some(info.etag.as_bytes());
        lists
            .iter()
            .any(|list| entity_tag::is_listed(list.as_bytes(), tag, same))
    };
    let (matches, none_match) = (lists(IF_MATCH), lists(IF_NONE_MATCH));
    let since = headers.get(IF_UNMODIFIED_SINCE).filter(|_| matches.is_none());
    let since = since.and_then(|v| httpdate::parse_http_date(v.to_str().ok()?).ok());
    Condition::new(move |info| {
        let is_matched = |lists: &Vec<_>| info.is_some_and(|info| names(lists, info, entity_tag::strong));
        let is_new = |lists: &Vec<_>| info.is_none_or(|info| !names(lists, info, entity_tag::weak));
        let is_unmodified = |since: &SystemTime| info.is_none_or(|info| modified(info) <= *since);
        matches.as_ref().is_none_or(is_matched)
            && none_match.as_ref().is_none_or(is_new)
            && since.as_ref().is_none_or(is_unmodified)
    })
}

fn modified(info: &ObjectInfo) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(info.modified.0).unwrap_or(0))
}

/// Whether what is put is the whole object as it is: a part would take its place (RFC 9110 §14.5), and how it is coded is not
/// kept.
fn check_content(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.contains_key(CONTENT_RANGE) {
        let message = "a part of an object cannot be put: send the whole, without Content-Range";
        return Err(ApiError::malformed("partial_content", message));
    }
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        let message = "the object is kept as it comes: send it without Content-Encoding";
        return Err(ApiError::unsupported("content_encoding", message));
    }
    Ok(())
}

/// Puts an object; it is seen whole or not at all, and what was cached of an older one is purged. `If-Match`,
/// `If-None-Match` and `If-Unmodified-Since` are honoured.
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
    check_content(request.headers())?;
    let bucket = local(&state, project, &name).await?;
    let condition = condition(request.headers());
    let declared = request.headers().get(CONTENT_LENGTH);
    let length = declared.and_then(|v| v.to_str().ok()?.parse().ok());
    let work = {
        let state = state.clone();
        async move {
            let folder = folder(&bucket);
            let content = request.into_body().into_data_stream();
            state.storage.create_bucket(&folder).await?;
            let limit = state.config.object_limit;
            let put = state
                .storage
                .put(&folder, &key, content, length, limit, condition)
                .await;
            let lasts = seen(put)?;
            if let Err(e) = purge(&state, project, &bucket, &key).await {
                if e.is_refusal() {
                    // The bucket went while the object came.
                    state.storage.delete(&folder, &key, Condition::none()).await?;
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
    let text = |s: &str| HeaderValue::from_str(s).map_err(|_| ApiError::internal());
    let mut response = HttpBody::new(body).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(key.as_str())));
    headers.insert(CONTENT_LENGTH, info.size.into());
    headers.insert(ETAG, text(&info.etag)?);
    headers.insert(LAST_MODIFIED, text(&httpdate::fmt_http_date(modified(&info)))?);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

/// Deletes an object and purges it. Conditions are honoured as for a put.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_name}/objects/{*key}", tag = "objects",
    security(("access_token" = [])), params(("bucket_name" = String, Path), ("key" = String, Path)),
    responses((status = 200, body = Done)))]
async fn delete(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer<Done> {
    let key = key(&uri)?;
    let bucket = local(&state, project, &name).await?;
    let condition = condition(&headers);
    let work = {
        let state = state.clone();
        async move {
            let deleted = seen(state.storage.delete(&folder(&bucket), &key, condition).await)?;
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
