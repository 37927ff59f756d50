//! Purging the cache.

use super::{Answer, Done, done};
use crate::{
    Shared,
    auth::Project,
    error::ApiError,
    extract::{Body, OptionalBody, Segment, present},
};
use axum::extract::State;
use edgeweir_model::{BucketName, KeyPrefix, ObjectKey, PrefixError, Purge, Purged, SurrogateKey};
use serde::Deserialize;
use std::borrow::Cow;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

/// The most surrogate keys of a request.
const MAX_SURROGATE_KEYS: usize = 64;

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new().routes(routes!(purge_all)).routes(routes!(purge))
}

/// How everything is purged.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
struct PurgeAll {
    /// See `soft` of a purge.
    #[serde(default)]
    soft: bool,
}

/// What is purged: exactly one of `path`, `prefix` and `surrogate_keys`.
#[derive(Deserialize, ToSchema)]
#[schema(as = Purge)]
#[serde(deny_unknown_fields)]
struct PurgeBody {
    /// An object's key, as it is stored (not percent-encoded); one leading slash is dropped.
    #[serde(default, deserialize_with = "present")]
    path: Option<String>,
    /// What the keys of objects begin with, a plain string such as `movies/2026-`; one leading slash is dropped.
    #[serde(default, deserialize_with = "present")]
    prefix: Option<String>,
    /// 1 to 64 of the keys that the origin gave its answers in `Surrogate-Key` or `Cache-Tag`; what has one of them is
    /// purged. Of visible ASCII characters without comma, at most 256 each.
    #[serde(default, deserialize_with = "present")]
    surrogate_keys: Option<Vec<String>>,
    /// Copies are kept and are stale from now on: they are revalidated, and may be served meanwhile, or while the origin
    /// fails, for as long as the origin's `stale-while-revalidate` and `stale-if-error` say.
    #[serde(default)]
    soft: bool,
}

fn without_slash(text: &str) -> &str {
    text.strip_prefix('/').unwrap_or(text)
}

fn surrogate_keys(keys: &[String]) -> Result<Purged, ApiError> {
    let refused = |field: Cow<'static, str>, why: String| ApiError::refused("invalid_surrogate_keys", field, why);
    if !(1..=MAX_SURROGATE_KEYS).contains(&keys.len()) {
        let why = format!("must list 1 to {MAX_SURROGATE_KEYS} keys");
        return Err(refused("surrogate_keys".into(), why));
    }
    let parse = |(n, key): (usize, &String)| {
        SurrogateKey::new(key).map_err(|e| refused(format!("surrogate_keys[{n}]").into(), e.to_string()))
    };
    let keys: Result<_, ApiError> = keys.iter().enumerate().map(parse).collect();
    Ok(Purged::SurrogateKeys(keys?))
}

impl PurgeBody {
    fn check(&self) -> Result<Purge, ApiError> {
        const ONE: &str = "give exactly one of path, prefix and surrogate_keys";
        let what = match (&self.path, &self.prefix, &self.surrogate_keys) {
            (Some(path), None, None) => ObjectKey::new(without_slash(path))
                .map(Purged::Object)
                .map_err(|e| ApiError::refused("invalid_path", "path", e.to_string()))?,
            (None, Some(prefix), None) => KeyPrefix::new(without_slash(prefix)).map(Purged::Prefix).map_err(|e| {
                let purge_all = if e == PrefixError::Empty { "; use purge_all" } else { "" };
                ApiError::refused("invalid_prefix", "prefix", format!("{e}{purge_all}"))
            })?,
            (None, None, Some(keys)) => surrogate_keys(keys)?,
            (None, None, None) => return Err(ApiError::malformed("missing_field", ONE).at("path")),
            (_, _, keys) => {
                let field = if keys.is_some() { "surrogate_keys" } else { "prefix" };
                return Err(ApiError::malformed("one_target_required", ONE).at(field));
            }
        };
        Ok(Purge { what, soft: self.soft })
    }
}

/// Purges every cached object of a bucket. The body may be left out.
#[utoipa::path(post, path = "/v1/buckets/{bucket_name}/cache/purge_all", tag = "purge",
    security(("access_token" = [])), params(("bucket_name" = String, Path)), request_body = Option<PurgeAll>,
    responses((status = 200, body = Done)))]
async fn purge_all(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    OptionalBody(body): OptionalBody<PurgeAll>,
) -> Answer<Done> {
    if body.soft {
        let purge = Purge::soft(Purged::Everything);
        state.store.purge(project, &name, purge).await?;
    } else {
        state.store.purge_all(project, &name).await?;
    }
    done(&state).await
}

/// Purges cached objects of a bucket, whether the bucket has them or not.
#[utoipa::path(post, path = "/v1/buckets/{bucket_name}/cache/purge", tag = "purge", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), request_body = PurgeBody, responses((status = 200, body = Done)))]
async fn purge(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    Body(body): Body<PurgeBody>,
) -> Answer<Done> {
    state.store.purge(project, &name, body.check()?).await?;
    done(&state).await
}
