//! The one shape of a failure: `{"status": "failed", "error", "message", "field"?}`.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use edgeweir_origin::LocalError;
use edgeweir_store::StoreError;
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde::Serialize;
use std::borrow::Cow;
use utoipa::ToSchema;

/// A refused or failed request, as the client is told of it.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: Cow<'static, str>,
    field: Option<Cow<'static, str>>,
    retry_after: Option<u64>,
}

/// A failure.
#[derive(Serialize, ToSchema)]
pub(crate) struct Failure {
    /// Always `failed`.
    status: &'static str,
    /// A code for programs, in snake case.
    error: &'static str,
    /// What is wrong and how to mend it.
    message: Cow<'static, str>,
    /// The input field at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<Cow<'static, str>>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            field: None,
            retry_after: None,
        }
    }

    /// Malformed: 400.
    pub(crate) fn malformed(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Well-formed, but not to be had: 422.
    pub(crate) fn refused(
        code: &'static str,
        field: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message).at(field)
    }

    /// At odds with what is there: 409.
    pub(crate) fn conflict(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// Content in a form that is not taken: 415.
    pub(crate) fn unsupported(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, code, message)
    }

    /// Whether asking again brings the same answer.
    pub(crate) fn is_refusal(&self) -> bool {
        self.status.is_client_error()
    }

    /// Names the input field at fault.
    #[must_use]
    pub(crate) fn at(mut self, field: impl Into<Cow<'static, str>>) -> Self {
        self.field = Some(field.into());
        self
    }

    #[must_use]
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Not there, or another project's.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", "this project has no such resource")
    }

    pub(crate) fn no_route() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no such endpoint; /v1/openapi.json lists them",
        )
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this endpoint does not have the method; the Allow header lists those it has",
        )
    }

    pub(crate) fn too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body is larger than {limit} bytes"),
        )
    }

    pub(crate) fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something went wrong on our side; the server's log says what",
        )
    }

    fn unavailable() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the change cannot be made durable at the moment; nothing was changed",
        )
        .retry_after(1)
    }

    /// The object is another, and what is cached of the one before may still be served.
    pub(crate) fn not_purged() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the object was changed, but copies of what was there before may still be served; send the request again",
        )
        .retry_after(1)
    }

    /// The object is another, and may be the one before after a power cut.
    fn not_certain_to_last() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "the object was changed, but the disk failed to make that last; send the request again",
        )
        .retry_after(1)
    }

    /// Stored, and not yet followed by the edge.
    pub(crate) fn not_yet_in_effect() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not_yet_in_effect",
            "the change is stored and will take effect, but the edge has not applied it yet; ask again",
        )
        .retry_after(1)
    }
}

impl From<StoreError> for ApiError {
    fn from(e: StoreError) -> Self {
        match e {
            StoreError::NotFound => Self::not_found(),
            StoreError::BucketNotFound => Self::not_found().at("bucket_name"),
            StoreError::DomainTaken => Self::conflict(
                "domain_taken",
                "the name is in use, or was another project's less than 30 days ago",
            )
            .at("name"),
            StoreError::DomainLimitReached(limit) => Self::conflict(
                "domain_limit_reached",
                format!("the project has {limit} domains already; delete one first"),
            ),
            StoreError::ApiKeyLimitReached(limit) => Self::conflict(
                "api_key_limit_reached",
                format!("the project has {limit} API keys already; revoke one first"),
            ),
            StoreError::LastApiKey => Self::conflict(
                "last_api_key",
                "the project has no other API key; make one before this one is revoked",
            ),
            StoreError::BucketTaken => {
                Self::conflict("bucket_taken", "a bucket of this name exists; choose another").at("name")
            }
            StoreError::BucketInUse => {
                Self::conflict("bucket_in_use", "playback domains serve this bucket; delete them first")
            }
            StoreError::SubscriptionExists => {
                Self::conflict("subscription_exists", "the domain has a TLS subscription already").at("domain_id")
            }
            StoreError::UnknownCursor => Self::refused("invalid_after", "after", "the list has no such id"),
            StoreError::Cors(e) => Self::refused("invalid_cors", "Access-Control-Allow-Credentials", e.to_string()),
            e @ StoreError::Unavailable(_) => {
                tracing::error!(error = &e as &dyn std::error::Error, "a request failed");
                Self::unavailable()
            }
            e @ (StoreError::Unsupported(_) | StoreError::Corrupt(_) | StoreError::Internal(_)) => {
                tracing::error!(error = &e as &dyn std::error::Error, "a request failed");
                Self::internal()
            }
        }
    }
}

impl From<LocalError> for ApiError {
    fn from(e: LocalError) -> Self {
        match e {
            LocalError::Full => Self::new(
                StatusCode::INSUFFICIENT_STORAGE,
                "storage_full",
                "there is no room left for the object; what was there before is unchanged",
            ),
            LocalError::Conflict => Self::conflict(
                "key_conflict",
                "the key is a folder of other objects, or one of its folders is an object",
            ),
            LocalError::ConditionFailed => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                "If-Match, If-None-Match or If-Unmodified-Since does not hold; what is there is unchanged",
            ),
            e @ (LocalError::NameTooLong | LocalError::FolderName) => {
                Self::refused("invalid_key", "key", e.to_string())
            }
            LocalError::Aborted => Self::malformed(
                "upload_incomplete",
                "the upload broke off; what was there before is unchanged",
            ),
            LocalError::TooLarge => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "object_too_large",
                "the object is larger than this server takes",
            ),
            LocalError::NotEmpty => {
                Self::conflict("bucket_not_empty", "the bucket still holds objects; delete them first")
            }
            LocalError::BucketGone => Self::not_found(),
            LocalError::Unsynced(e) => {
                tracing::error!(error = &e as &dyn std::error::Error, "an object's change may not last");
                Self::not_certain_to_last()
            }
            LocalError::Io(e) => {
                tracing::error!(error = &e as &dyn std::error::Error, "the storage failed");
                Self::internal()
            }
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Failure {
            status: "failed",
            error: self.code,
            message: self.message,
            field: self.field,
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response
                .headers_mut()
                .insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
