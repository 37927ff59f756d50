//! Who is asking: the project of the access token, the source address.

use crate::{Shared, access_token, error::ApiError};
use axum::extract::{ConnectInfo, FromRequestParts};
use edgeweir_model::ProjectId;
use http::{HeaderMap, StatusCode, header::AUTHORIZATION, request::Parts};
use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

/// The project of a valid access token (RFC 6750 §2.1).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Project(pub(crate) ProjectId);

/// The credentials of `Authorization: Bearer`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else {
        return None;
    };
    let (scheme, credentials) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

impl FromRequestParts<Shared> for Project {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        let unauthorized = |code, message| ApiError::new(StatusCode::UNAUTHORIZED, code, message);
        let Some(token) = bearer(&parts.headers) else {
            return Err(unauthorized(
                "access_token_missing",
                "send an access token as `Authorization: Bearer`; POST /v1/access_token makes one from an API key",
            ));
        };
        let project = access_token::verify(state, token).await?;
        project.map(Self).ok_or_else(|| {
            unauthorized(
                "invalid_access_token",
                "the access token is not valid: it is malformed, has expired, or its API key was revoked",
            )
        })
    }
}

/// The address that the request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source(pub(crate) IpAddr);

impl FromRequestParts<Shared> for Source {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, Infallible> {
        let forwarded = || {
            // The last entry is the one that our own proxy added.
            let value = parts
                .headers
                .get_all("x-forwarded-for")
                .iter()
                .next_back()?
                .to_str()
                .ok()?;
            value.rsplit(',').next()?.trim().parse().ok()
        };
        let peer = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
        let forwarded = if state.config.behind_proxy { forwarded() } else { None };
        Ok(Self(forwarded.unwrap_or(peer)))
    }
}
