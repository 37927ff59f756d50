//! A bucket's CORS policy.

use super::{Answer, Done, done};
use crate::{
    Shared,
    auth::Project,
    error::ApiError,
    extract::{Body, Segment},
};
use axum::{Json, extract::State};
use edgeweir_model::{BucketName, CorsHeader, CorsPolicy};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(get, set, delete))
        .routes(routes!(delete_header))
}

/// The members of the object as they came, in order and with what is given twice, for the policy itself to judge.
struct Members(Vec<(String, String)>);

/// A string, boolean or number.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, boolean or number")
            }
            fn visit_str<E>(self, v: &str) -> Result<Scalar, E> {
                Ok(Scalar(v.to_owned()))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Scalar, E> {
                Ok(Scalar(v.to_string()))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of CORS headers")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((name, Scalar(value))) = map.next_entry()? {
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Replaces the CORS policy: an object of headers and values.
#[utoipa::path(post, path = "/v1/buckets/{bucket_name}/cors", tag = "CORS", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), request_body = BTreeMap<String, String>,
    responses((status = 200, body = Done)))]
async fn set(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    Body(Members(members)): Body<Members>,
) -> Answer<Done> {
    let policy = CorsPolicy::new(members.iter().map(|(n, v)| (n.as_str(), v.as_str())))
        .map_err(|(header, e)| ApiError::refused("invalid_cors", header, e.to_string()))?;
    state.store.set_cors(project, &name, policy).await?;
    done(&state).await
}

/// Gets the CORS policy; `{}` when none is set.
#[utoipa::path(get, path = "/v1/buckets/{bucket_name}/cors", tag = "CORS", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), responses((status = 200, body = BTreeMap<String, String>)))]
async fn get(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
) -> Answer<BTreeMap<&'static str, String>> {
    let policy = state.store.get_cors(project, &name).await?;
    Ok(Json(policy.iter().map(|(h, v)| (h.as_str(), v.to_owned())).collect()))
}

/// Drops the CORS policy.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_name}/cors", tag = "CORS", security(("access_token" = [])),
    params(("bucket_name" = String, Path)), responses((status = 200, body = Done)))]
async fn delete(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
) -> Answer<Done> {
    state.store.delete_cors(project, &name).await?;
    done(&state).await
}

/// Drops one header of the CORS policy.
#[utoipa::path(delete, path = "/v1/buckets/{bucket_name}/cors/{header}", tag = "CORS", security(("access_token" = [])),
    params(("bucket_name" = String, Path), ("header" = String, Path)), responses((status = 200, body = Done)))]
async fn delete_header(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(name): Segment<BucketName>,
    uri: http::Uri,
) -> Answer<Done> {
    let header: CorsHeader = uri
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .parse()
        .map_err(|e| ApiError::refused("invalid_cors", "header", format!("{e}")))?;
    state.store.delete_cors_header(project, &name, header).await?;
    done(&state).await
}
