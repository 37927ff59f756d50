//! Signing keys: made here, their private half shown once and kept nowhere.

use super::{Answer, Done, done, free_name, settled};
use crate::{
    Shared,
    auth::Project,
    error::ApiError,
    extract::{Body, Segment, nullable},
    paging::Paging,
};
use axum::{Json, extract::State};
use edgeweir_model::{BucketName, DomainId, SigningKeyId, StreamId, Timestamp};
use edgeweir_store::{KeyScope, SigningKey, StoreError};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(get, rename, delete))
}

/// A new signing key: exactly one of `domain_id`, `stream_id` and `bucket_name`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKey {
    domain_id: Option<String>,
    stream_id: Option<String>,
    bucket_name: Option<String>,
    /// At most 255 characters.
    name: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Rename {
    /// At most 255 characters, or null.
    #[serde(deserialize_with = "nullable")]
    #[schema(required = true)]
    name: Option<String>,
}

/// A signing key.
#[derive(Serialize, ToSchema)]
struct KeyBody {
    /// The `kid` of its tokens.
    #[schema(value_type = String)]
    id: SigningKeyId,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    domain_id: Option<DomainId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    stream_id: Option<StreamId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    bucket_name: Option<BucketName>,
    name: Option<String>,
    #[schema(value_type = String)]
    created: Timestamp,
    /// PKCS#1 PEM, in the answer that makes the key and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    private_key: Option<String>,
}

impl From<SigningKey> for KeyBody {
    fn from(key: SigningKey) -> Self {
        let (mut domain_id, mut stream_id, mut bucket_name) = (None, None, None);
        match key.scope {
            KeyScope::Domain(id) => domain_id = Some(id),
            KeyScope::Stream(id) => stream_id = Some(id),
            KeyScope::Bucket(name) => bucket_name = Some(name),
        }
        Self {
            id: key.id,
            domain_id,
            stream_id,
            bucket_name,
            name: key.name,
            created: key.created,
            private_key: None,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct One {
    signing_key: KeyBody,
}

#[derive(Serialize, ToSchema)]
struct Many {
    signing_keys: Vec<KeyBody>,
    /// Goes on after this id, when there is more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// The one thing that a new key is to open, and the field that names it.
fn scope(body: &NewKey) -> Result<(KeyScope, &'static str), ApiError> {
    let unknown = |field: &'static str| ApiError::not_found().at(field);
    Ok(match (&body.domain_id, &body.stream_id, &body.bucket_name) {
        (Some(id), None, None) => {
            let field = "domain_id";
            (KeyScope::Domain(id.parse().map_err(|_| unknown(field))?), field)
        }
        (None, Some(id), None) => {
            let field = "stream_id";
            (KeyScope::Stream(id.parse().map_err(|_| unknown(field))?), field)
        }
        (None, None, Some(name)) => {
            let field = "bucket_name";
            (KeyScope::Bucket(name.parse().map_err(|_| unknown(field))?), field)
        }
        _ => {
            return Err(ApiError::malformed(
                "one_scope_required",
                "give exactly one of domain_id, stream_id and bucket_name",
            ));
        }
    })
}

/// Makes a signing key. The answer is the only place where its private half is ever seen.
#[utoipa::path(post, path = "/v1/signing-keys", tag = "signing keys", security(("access_token" = [])),
    request_body = NewKey, responses((status = 200, body = One)))]
async fn create(State(state): State<Shared>, Project(project): Project, Body(body): Body<NewKey>) -> Answer<One> {
    let (scope, field) = scope(&body)?;
    let name = free_name(body.name)?;
    let unknown = |e| match e {
        StoreError::NotFound => ApiError::not_found().at(field),
        other => other.into(),
    };
    // Looked for before a key pair is spent on it.
    match &scope {
        KeyScope::Domain(id) => state.store.get_domain(project, *id).await.map(drop),
        KeyScope::Stream(id) => state.store.get_stream(project, *id).await.map(drop),
        KeyScope::Bucket(name) => state.store.get_bucket(project, name).await.map(drop),
    }
    .map_err(unknown)?;
    let pair = state.keys.take().await.map_err(|e| {
        tracing::error!(error = %e, "a signing key cannot be made");
        ApiError::internal()
    })?;
    let key = state
        .store
        .create_signing_key(project, scope, name, &pair.public_der)
        .await
        .map_err(unknown)?;
    let mut signing_key = KeyBody::from(key);
    signing_key.private_key = Some(pair.private_pem.expose_secret().to_owned());
    settled(&state, One { signing_key }).await
}

/// Lists signing keys, newest first.
#[utoipa::path(get, path = "/v1/signing-keys", tag = "signing keys", security(("access_token" = [])),
    params(("limit" = Option<u32>, Query), ("after" = Option<String>, Query)), responses((status = 200, body = Many)))]
async fn list(State(state): State<Shared>, Project(project): Project, paging: Paging) -> Answer<Many> {
    let (found, more) = state.store.list_signing_keys(project, &paging.page()).await?;
    let next = found.last().filter(|_| more).map(|k| k.id.to_string());
    Ok(Json(Many {
        signing_keys: found.into_iter().map(Into::into).collect(),
        next,
    }))
}

/// Gets a signing key.
#[utoipa::path(get, path = "/v1/signing-keys/{signing_key_id}", tag = "signing keys", security(("access_token" = [])),
    params(("signing_key_id" = String, Path)), responses((status = 200, body = One)))]
async fn get(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<SigningKeyId>,
) -> Answer<One> {
    let signing_key = state.store.get_signing_key(project, id).await?.into();
    Ok(Json(One { signing_key }))
}

/// Gives a signing key another name.
#[utoipa::path(put, path = "/v1/signing-keys/{signing_key_id}", tag = "signing keys", security(("access_token" = [])),
    params(("signing_key_id" = String, Path)), request_body = Rename, responses((status = 200, body = One)))]
async fn rename(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<SigningKeyId>,
    Body(body): Body<Rename>,
) -> Answer<One> {
    state
        .store
        .rename_signing_key(project, id, free_name(body.name)?)
        .await?;
    let signing_key = state.store.get_signing_key(project, id).await?.into();
    settled(&state, One { signing_key }).await
}

/// Deletes a signing key: its tokens open nothing from the next request on.
#[utoipa::path(delete, path = "/v1/signing-keys/{signing_key_id}", tag = "signing keys",
    security(("access_token" = [])), params(("signing_key_id" = String, Path)), responses((status = 200, body = Done)))]
async fn delete(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<SigningKeyId>,
) -> Answer<Done> {
    state.store.delete_signing_key(project, id).await?;
    done(&state).await
}
