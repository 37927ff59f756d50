//! Playback domains.

use super::{Answer, Done, Policy, PolicyName, done, settled};
use crate::{
    Shared,
    auth::Project,
    error::ApiError,
    extract::{Body, Segment},
};
use axum::{Json, extract::State};
use edgeweir_model::{BucketName, DomainId, Fqdn, Timestamp};
use edgeweir_store::{Domain, DomainKind, NewDomain};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(create, list))
        .routes(routes!(list_live))
        .routes(routes!(list_vod))
        .routes(routes!(get, delete))
        .routes(routes!(set_policy))
        .routes(routes!(get_policy))
}

/// A new playback domain.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewDomainBody {
    /// A fully qualified domain name.
    name: String,
    /// `live` or `vod`.
    r#type: String,
    /// The bucket to serve: for vod domains only, and then required.
    #[serde(alias = "bucket")]
    bucket_name: Option<String>,
}

/// A playback domain.
#[derive(Serialize, ToSchema)]
struct DomainBody {
    #[schema(value_type = String)]
    id: DomainId,
    r#type: &'static str,
    #[schema(value_type = String)]
    domain_name: Fqdn,
    #[schema(value_type = String)]
    created: Timestamp,
    /// For vod domains.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    bucket_name: Option<BucketName>,
}

impl From<Domain> for DomainBody {
    fn from(domain: Domain) -> Self {
        Self {
            id: domain.id,
            r#type: domain.kind.as_str(),
            domain_name: domain.name,
            created: domain.created,
            bucket_name: domain.bucket,
        }
    }
}

#[derive(Serialize, ToSchema)]
struct One {
    domain: DomainBody,
}

#[derive(Serialize, ToSchema)]
struct Many {
    domains: Vec<DomainBody>,
}

/// Creates a playback domain.
#[utoipa::path(post, path = "/v1/domains", tag = "domains", security(("access_token" = [])),
    request_body = NewDomainBody, responses((status = 200, body = One)))]
async fn create(
    State(state): State<Shared>,
    Project(project): Project,
    Body(body): Body<NewDomainBody>,
) -> Answer<One> {
    let content = match (body.r#type.as_str(), body.bucket_name) {
        ("live", None) => NewDomain::Live,
        ("live", Some(_)) => {
            return Err(ApiError::refused(
                "bucket_not_allowed",
                "bucket_name",
                "a live domain has no bucket; leave the field out, or make the domain of type vod",
            ));
        }
        ("vod", Some(bucket)) => NewDomain::Vod(bucket.parse().map_err(|_| ApiError::not_found().at("bucket_name"))?),
        ("vod", None) => {
            return Err(
                ApiError::malformed("missing_field", "a vod domain needs the name of the bucket to serve")
                    .at("bucket_name"),
            );
        }
        _ => return Err(ApiError::refused("invalid_domain_type", "type", "must be live or vod")),
    };
    let invalid = |message: String| ApiError::refused("invalid_domain_name", "name", message);
    let name = Fqdn::parse_public(&body.name).map_err(|e| invalid(e.to_string()))?;
    if name.is_within(&state.config.zone) {
        return Err(invalid("is within the service's own zone".to_owned()));
    }
    let domain = state
        .store
        .create_domain(project, name, content, state.config.domain_limit)
        .await?;
    settled(&state, One { domain: domain.into() }).await
}

async fn listed(state: &Shared, project: Project, kind: Option<DomainKind>) -> Answer<Many> {
    let domains = state.store.list_domains(project.0, kind).await?;
    Ok(Json(Many {
        domains: domains.into_iter().map(Into::into).collect(),
    }))
}

/// Lists every playback domain, newest first.
#[utoipa::path(get, path = "/v1/domains", tag = "domains", security(("access_token" = [])),
    responses((status = 200, body = Many)))]
async fn list(State(state): State<Shared>, project: Project) -> Answer<Many> {
    listed(&state, project, None).await
}

/// Lists the domains for live streams.
#[utoipa::path(get, path = "/v1/domains/live", tag = "domains", security(("access_token" = [])),
    responses((status = 200, body = Many)))]
async fn list_live(State(state): State<Shared>, project: Project) -> Answer<Many> {
    listed(&state, project, Some(DomainKind::Live)).await
}

/// Lists the domains for buckets.
#[utoipa::path(get, path = "/v1/domains/vod", tag = "domains", security(("access_token" = [])),
    responses((status = 200, body = Many)))]
async fn list_vod(State(state): State<Shared>, project: Project) -> Answer<Many> {
    listed(&state, project, Some(DomainKind::Vod)).await
}

/// Gets a playback domain.
#[utoipa::path(get, path = "/v1/domains/{domain_id}", tag = "domains", security(("access_token" = [])),
    params(("domain_id" = String, Path)), responses((status = 200, body = One)))]
async fn get(State(state): State<Shared>, Project(project): Project, Segment(id): Segment<DomainId>) -> Answer<One> {
    let domain = state.store.get_domain(project, id).await?;
    Ok(Json(One { domain: domain.into() }))
}

/// Deletes a playback domain with its TLS subscription, certificate and signing keys.
#[utoipa::path(delete, path = "/v1/domains/{domain_id}", tag = "domains", security(("access_token" = [])),
    params(("domain_id" = String, Path)), responses((status = 200, body = Done)))]
async fn delete(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<DomainId>,
) -> Answer<Done> {
    state.store.delete_domain(project, id).await?;
    done(&state).await
}

/// Sets whether a domain asks for a signed token. Making a signing key for it sets `authenticated`.
#[utoipa::path(put, path = "/v1/domains/{domain_id}/policy/{policy}", tag = "domains", security(("access_token" = [])),
    params(("domain_id" = String, Path), ("policy" = String, Path)), responses((status = 200, body = Done)))]
async fn set_policy(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<DomainId>,
    PolicyName(policy): PolicyName,
) -> Answer<Done> {
    state.store.set_domain_policy(project, id, policy).await?;
    done(&state).await
}

/// Gets whether a domain asks for a signed token.
#[utoipa::path(get, path = "/v1/domains/{domain_id}/policy", tag = "domains", security(("access_token" = [])),
    params(("domain_id" = String, Path)), responses((status = 200, body = Policy)))]
async fn get_policy(
    State(state): State<Shared>,
    Project(project): Project,
    Segment(id): Segment<DomainId>,
) -> Answer<Policy> {
    Ok(Json(state.store.get_domain(project, id).await?.policy.into()))
}
