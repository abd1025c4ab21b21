//! Failures as HTTP status and JSON.

use axum::{
    Json,
    extract::rejection::{JsonRejection, QueryRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::requests::{ErrorBody, ErrorCode, ErrorDetail, MAX_SERVICE_REQUEST, PlacedError};
use crate::{
    chain::chain,
    config::{ConfigError, values::ValueError},
    config_file::FileError,
    control::ControlError,
    datapath::DatapathError,
    state::change::ChangeError,
};

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct ApiError {
    detail: ErrorDetail,
    /// Whether the request only asked what a change would do.
    is_trial: bool,
}

/// Why a change or report was refused; an extension of the answer.
#[derive(Clone, Debug)]
pub(super) struct Failure(pub(super) ErrorDetail);

impl ApiError {
    /// An error with its code.
    pub(super) fn new(code: ErrorCode, message: impl Into<String>, hint: Option<String>) -> Self {
        Self::from(ErrorDetail {
            code,
            message: message.into(),
            hint,
            details: Vec::new(),
        })
    }

    /// The same for a request that, if `is_trial`, only asked what a change would do.
    pub(super) fn of_trial(self, is_trial: bool) -> Self {
        Self { is_trial, ..self }
    }

    /// Every error of a file.
    pub(super) fn file(file: &str, errors: Vec<ConfigError>) -> Self {
        let count = errors.len();
        let details = errors.into_iter().map(PlacedError::from).collect();
        Self::from(ErrorDetail {
            code: ErrorCode::Invalid,
            message: format!(
                "{file}: {count} {}; nothing was changed",
                if count == 1 { "error" } else { "errors" }
            ),
            hint: None,
            details,
        })
    }

    /// The same as the body of an answer.
    pub(crate) fn into_body(self) -> ErrorBody {
        ErrorBody { error: self.detail }
    }

    fn status(&self) -> StatusCode {
        match self.detail.code {
            ErrorCode::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::Conflict | ErrorCode::Unconfirmed => StatusCode::CONFLICT,
            ErrorCode::Forbidden => StatusCode::FORBIDDEN,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::Failed => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let failure = (!self.is_trial).then(|| Failure(self.detail.clone()));
        let mut answer = (status, Json(self.into_body())).into_response();
        if let Some(failure) = failure {
            answer.extensions_mut().insert(failure);
        }
        answer
    }
}

impl From<ErrorDetail> for ApiError {
    fn from(detail: ErrorDetail) -> Self {
        Self {
            detail,
            is_trial: false,
        }
    }
}

impl From<FileError> for ApiError {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Content { files, errors } => Self::file(&files, errors),
            FileError::Read { .. } | FileError::NoFile { .. } => Self::new(
                ErrorCode::Invalid,
                format!("{}; nothing was changed", chain(&error)),
                Some("the daemon reads the file that `lb run --config` named".to_owned()),
            ),
        }
    }
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let code = match &error {
            ControlError::Change(change) => return change.clone().into(),
            ControlError::Moved { .. } => ErrorCode::Conflict,
            ControlError::NoServices { .. } | ControlError::Unconfirmed { .. } => ErrorCode::Unconfirmed,
            ControlError::Values(_) | ControlError::OwnAddress { .. } => ErrorCode::Invalid,
            ControlError::Save(_)
            | ControlError::Program(_)
            | ControlError::NotTakenBack { .. }
            | ControlError::Internal(_) => ErrorCode::Failed,
            ControlError::Closed => ErrorCode::Unavailable,
        };
        Self::new(code, chain(&error), error.hint())
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let code = match &error {
            ChangeError::NotFound { .. } => ErrorCode::NotFound,
            ChangeError::Conflict { .. } => ErrorCode::Conflict,
            ChangeError::Invalid { .. } => ErrorCode::Invalid,
        };
        Self::new(code, error.to_string(), error.hint().map(str::to_owned))
    }
}

impl From<ValueError> for ApiError {
    fn from(error: ValueError) -> Self {
        Self::new(ErrorCode::Invalid, error.message, error.hint)
    }
}

impl From<DatapathError> for ApiError {
    fn from(error: DatapathError) -> Self {
        Self::new(
            ErrorCode::Failed,
            format!("cannot read counters: {}", chain(&error)),
            None,
        )
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let what = format!(
                "a request about one service is at most {} MiB large",
                MAX_SERVICE_REQUEST >> 20
            );
            return Self::new(
                ErrorCode::TooLarge,
                what,
                Some("apply a file: `lb apply FILE`".into()),
            );
        }
        Self::new(
            ErrorCode::Invalid,
            rejection.body_text(),
            Some("see /openapi.json".into()),
        )
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(
            ErrorCode::Invalid,
            rejection.body_text(),
            Some("see /openapi.json".into()),
        )
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::new(
            ErrorCode::Failed,
            format!("an internal task failed: {error}"),
            None,
        )
    }
}
