//! Buckets and their access policy.

use super::{Answer, Done, Policy, PolicyName, done, folder, in_effect, origin::OriginBody, settled, whole};
use crate::{
    Shared,
    auth::Project,
    error::ApiError,
    extract::{Body, Segment},
    paging::Paging,
};
use axum::{Json, extract::State};
use edgeweir_model::{BucketName, Origin, Timestamp};
use edgeweir_origin::LocalError;
use edgeweir_store::{BucketInfo, NewBucket};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, update, delete))
        .routes(routes!(set_policy))
        .routes(routes!(get_policy))
}

/// A new bucket.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewBucketBody {
    /// By the naming rules of S3; unique across projects.
    name: String,
    /// One of the configured regions; the first when left out.
    region: Option<String>,
    /// `{"type": "local"}` when left out.
    origin: Option<OriginBody>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Update {
    /// What was cached from the old origin is not served any more.
    origin: OriginBody,
}

/// A bucket.
#[derive(Serialize, ToSchema)]
struct BucketBody {
    #[schema(value_type = String)]
    name: BucketName,
    region: String,
    origin: OriginBody,
    /// `public` or `authenticated`.
    policy: &'static str,
    #[schema(value_type = String)]
    created: Timestamp,
    /// The host name that its objects are served on.
    host: String,
}

impl BucketBody {
    fn new(bucket: BucketInfo, state: &Shared) -> Self {
        Self {
            host: format!("{}.media-storage.{}.{}", bucket.name, bucket.region, state.config.zone),
            origin: (&bucket.origin).into(),
            policy: bucket.policy.as_str(),
            created: bucket.created,
            name: bucket.name,
            region: bucket.region,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct One {
    bucket: BucketBody,
}

#[derive(Serialize, ToSchema)]
struct Many {
    buckets: Vec<BucketBody>,
    /// Goes on after this name, when there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Creates a bucket.
#[utoipa::path(post, path = "/v1/buckets", tag = "buckets", security(("access_token" = [])),
    request_body = NewBucketBody, responses((status = 200, body = One)))]
async fn create(
    State(state): State<Shared>,
    Project(project): Project,
    Body(body): Body<NewBucketBody>,
) -> Answer<One> {
    let name: BucketName = body
        .name
        .parse()
        .map_err(|e| ApiError::refused("invalid_bucket_name", "name", format!("{e}")))?;
    let regions = &state.config.regions;
    let region = match body.region {
        None => regions[0].clone(),
        Some(region) if regions.contains(&region) => region,
        Some(_) => {
            let message = format!("must be one of: {}", regions.join(", "));
            return Err(ApiError::refused("unknown_region", "region", message));
        }
    };
    let origin = body
        .origin
        .map_or(Ok(Origin::Local), |origin| origin.check(&state, &name))?;
    let made = state
        .store
        .create_bucket(project, NewBucket { name, region, origin })
        .await?;
    settled(
        &state,
        One {
            bucket: BucketBody::new(made, &state),
        },
    )
    .await
}

/// Lists buckets, newest first.
#[utoipa::path(get, path = "/v1/buckets", tag = "buckets", security(("access_token" = [])),
    params(("limit" = Option<u32>, Query), ("after" = Option<String>, Query)), responses((status = 200, body = Many)))]
async fn list(State(state): State<Shared>, Project(project): Project, paging: Paging) -> Answer<Many> {
    let (found, more) = state.store.list_buckets(project, &paging.page()).await?;
    let next = found.last().filter(|_| more).map(|b| b.name.to_string());
    Ok(Json(Many {
        buckets: found.into_iter().map(|b| BucketBody::new(b, &state)).collect(),
        next,
    }))
}

/// Gets a bucket.
#[utoipa::path(get, path = "/v1/buckets/{bucket_name}", tag = "buckets", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), responses((status = 200, body = One)))]
async fn get(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
) -> Answer<One> {
    let bucket = BucketBody::new(state.store.get_bucket(project, &name).await?, &state);
    Ok(Json(One { bucket }))
}

/// Makes sure that no object is lost sight of when the bucket goes or gets another origin. To be asked under the
/// bucket's lock: a put ends under the same (see `objects`), so that none comes in between.
async fn must_be_empty(state: &Shared, bucket: &BucketInfo) -> Result<(), ApiError> {
    if bucket.origin == Origin::Local && !state.storage.is_empty(&folder(bucket)).await? {
        return Err(LocalError::NotEmpty.into());
    }
    Ok(())
}

/// Gives a bucket another origin; one that holds objects keeps its own.
#[utoipa::path(put, path = "/v1/buckets/{bucket_name}", tag = "buckets", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), request_body = Update, responses((status = 200, body = One)))]
async fn update(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    Body(body): Body<Update>,
) -> Answer<One> {
    let origin = body.origin.check(&state, &name)?;
    let locked = state.store.lock_bucket(project, &name).await?;
    if origin != Origin::Local {
        must_be_empty(&state, locked.info()).await?;
    }
    let bucket = locked.set_origin(origin).await?;
    in_effect(
        &state,
        One {
            bucket: BucketBody::new(bucket, &state),
        },
    )
    .await
}

/// Deletes an empty bucket that no domain serves, with its signing keys.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_name}", tag = "buckets", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), responses((status = 200, body = Done)))]
async fn delete(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
) -> Answer<Done> {
    let work = {
        let state = state.clone();
        async move {
            let locked = state.store.lock_bucket(project, &name).await?;
            must_be_empty(&state, locked.info()).await?;
            let deleted = locked.delete().await?;
            if let Err(e) = state.storage.remove_bucket(&folder(&deleted)).await {
                // Nothing leads to it any more: it takes room, and that is all.
                tracing::warn!(error = &e as &dyn std::error::Error, bucket = %name, "a deleted bucket's folder stays");
            }
            Ok(())
        }
    };
    whole(&state, work).await?;
    done(&state).await
}

/// Sets whether a bucket asks for a signed token.
#[utoipa::path(put, path = "/v1/buckets/{bucket_name}/policy/{policy}", tag = "buckets",
    security(("access_token" = [])), params(("bucket_name" = String, Path), ("policy" = String, Path)),
    responses((status = 200, body = Done)))]
async fn set_policy(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    PolicyName(policy): PolicyName,
) -> Answer<Done> {
    state.store.set_bucket_policy(project, &name, policy).await?;
    done(&state).await
}

/// Gets whether a bucket asks for a signed token.
#[utoipa::path(get, path = "/v1/buckets/{bucket_name}/policy", tag = "buckets", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), responses((status = 200, body = Policy)))]
async fn get_policy(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
) -> Answer<Policy> {
    Ok(Json(state.store.get_bucket_policy(project, &name).await?.into()))
}
