//! Answers of the local API, and how it says no: `{"error": {"code": …, "message": …}}`.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::json;

use crate::{
    core::access::Refusal,
    drive::{AddError, StatementRefused, SubmitError},
    shell::store::Trouble,
};

/// What a handler gives.
pub(super) type Answer = Result<Response, No>;

/// A refusal: a status, a stable word, and what to do.
#[derive(Debug)]
pub(super) struct No {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl No {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// The request is not one.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", message)
    }

    /// Ours to mend. The log says why.
    pub(super) fn ours(error: &anyhow::Error) -> Self {
        tracing::error!(error = format!("{error:#}"), "a local request failed");
        if let Some(trouble) = error.downcast_ref::<Trouble>() {
            return Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk", trouble.advice());
        }
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "failed",
            "the broker failed: see its log",
        )
    }
}

impl From<anyhow::Error> for No {
    fn from(error: anyhow::Error) -> Self {
        Self::ours(&error)
    }
}

impl IntoResponse for No {
    fn into_response(self) -> Response {
        let body = json!({ "error": { "code": self.code, "message": self.message } });
        let mut response = (self.status, Json(body)).into_response();
        response.extensions_mut().insert(Code(self.code));
        response
    }
}

/// Goes with a refusal on its way out, for whoever counts them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

/// The code of what is about another host than the asker's.
pub(super) const HOST_NOT_ALLOWED: &str = "host_not_allowed";

/// A good answer.
pub(super) fn ok(body: impl Serialize) -> Answer {
    Ok(Json(body).into_response())
}

/// A good answer to what made something.
pub(super) fn created(body: impl Serialize) -> Answer {
    Ok((StatusCode::CREATED, Json(body)).into_response())
}

/// Who asks may not.
impl From<Refusal> for No {
    fn from(refusal: Refusal) -> Self {
        let code = match &refusal {
            Refusal::Machine => "machine_only",
            Refusal::Role { .. } => "role_insufficient",
            Refusal::AllHosts(_) | Refusal::OtherHost(_) => HOST_NOT_ALLOWED,
        };
        Self::new(StatusCode::FORBIDDEN, code, refusal.to_string())
    }
}

impl From<SubmitError> for No {
    fn from(error: SubmitError) -> Self {
        let (status, code) = match &error {
            SubmitError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "command_too_large"),
            SubmitError::Malformed => (StatusCode::BAD_REQUEST, "command_malformed"),
            SubmitError::Bounds => (StatusCode::BAD_REQUEST, "command_out_of_bounds"),
            SubmitError::Dispatcher => (StatusCode::FORBIDDEN, "dispatcher_unknown"),
            SubmitError::OtherHost(_) => (StatusCode::FORBIDDEN, HOST_NOT_ALLOWED),
            SubmitError::Expired => (StatusCode::BAD_REQUEST, "command_expired"),
            SubmitError::Early => (StatusCode::BAD_REQUEST, "command_early"),
            SubmitError::HostUnknown(_) => (StatusCode::NOT_FOUND, "host_unknown"),
            SubmitError::HostLocked(_) => (StatusCode::CONFLICT, "host_locked"),
            SubmitError::HostRevoked(_) => (StatusCode::CONFLICT, "host_revoked"),
            SubmitError::SandboxExists(..) => (StatusCode::CONFLICT, "sandbox_exists"),
            SubmitError::SandboxUnknown(..) => (StatusCode::NOT_FOUND, "sandbox_unknown"),
            SubmitError::Disk(_) => (StatusCode::INSUFFICIENT_STORAGE, "disk"),
            SubmitError::IdTaken => (StatusCode::CONFLICT, "command_id_taken"),
            SubmitError::Failed(error) => return Self::ours(error),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<StatementRefused> for No {
    fn from(error: StatementRefused) -> Self {
        let (status, code) = match &error {
            StatementRefused::Statement(_) => (StatusCode::FORBIDDEN, "statement_refused"),
            StatementRefused::OtherTrail => (StatusCode::CONFLICT, "not_restored"),
            StatementRefused::Fork => (StatusCode::CONFLICT, "dispatcher_forked"),
            StatementRefused::NameTaken => (StatusCode::CONFLICT, "dispatcher_exists"),
            StatementRefused::Full => (StatusCode::CONFLICT, "too_many_statements"),
            StatementRefused::Failed(error) => return Self::ours(error),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<AddError> for No {
    fn from(error: AddError) -> Self {
        let (status, code) = match &error {
            AddError::NoDispatcher => (StatusCode::BAD_REQUEST, "dispatcher_missing"),
            AddError::ManyDispatchers => (StatusCode::BAD_REQUEST, "too_many_dispatchers"),
            AddError::NoAddress => (StatusCode::CONFLICT, "no_public_address"),
            AddError::NotCovered(_) => (StatusCode::CONFLICT, "certificate_does_not_cover"),
            AddError::Unknown(_) => (StatusCode::NOT_FOUND, "host_unknown"),
            AddError::Exists(_) => (StatusCode::CONFLICT, "host_exists"),
            AddError::Locked(_) => (StatusCode::CONFLICT, "host_locked"),
            AddError::Revoked(_) => (StatusCode::CONFLICT, "host_revoked"),
            AddError::OtherKind(_) => (StatusCode::CONFLICT, "host_other_kind"),
            AddError::Failed(error) => return Self::ours(error),
        };
        Self::new(status, code, error.to_string())
    }
}
