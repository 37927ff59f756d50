//! `?limit=` and `?after=` of lists.

use crate::error::ApiError;
use axum::extract::FromRequestParts;
use edgeweir_store::Page;
use http::request::Parts;
use percent_encoding::percent_decode_str;

/// The query of a list.
#[derive(Debug)]
pub(crate) struct Paging {
    /// 1 to 1000.
    pub(crate) limit: u32,
    /// The id to go on after.
    pub(crate) after: Option<String>,
    /// What keys begin with, for lists of objects.
    pub(crate) prefix: String,
}

impl Paging {
    pub(crate) fn page(&self) -> Page {
        Page {
            limit: self.limit,
            after: self.after.clone(),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut paging = Self {
            limit: 100,
            after: None,
            prefix: String::new(),
        };
        for pair in parts.uri.query().unwrap_or("").split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let plus = value.replace('+', " ");
            let value = percent_decode_str(&plus)
                .decode_utf8()
                .map_err(|_| ApiError::malformed("invalid_query", "the query is not UTF-8").at(name.to_owned()))?;
            match name {
                "limit" => {
                    paging.limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=1000).contains(limit))
                        .ok_or_else(|| {
                            ApiError::refused("invalid_limit", "limit", "must be a number from 1 to 1000")
                        })?;
                }
                "after" => paging.after = Some(value.into_owned()),
                "prefix" => paging.prefix = value.into_owned(),
                // A parameter that nobody knows changes nothing: clients add such to get past caches.
                _ => {}
            }
        }
        Ok(paging)
    }
}
