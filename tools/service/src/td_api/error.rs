//! Refusals as the API says them.

use std::error::Error;
use std::fmt;

use http::StatusCode;

use crate::fleet::FleetError;
use crate::http::{Allow, Answer};
use crate::worker::protocol::RefusalKind;

/// Why a request is refused.
#[derive(Debug)]
pub enum TdError {
    /// There is no such path.
    NoPath(String),
    /// The path has other methods.
    Method {
        /// The one that was tried.
        method: String,
        /// Those that it has.
        takes: Allow,
    },
    /// The route takes a body, and none came.
    NoBody,
    /// The route takes no body, and one came.
    NeedlessBody,
    /// The body is not what the route takes.
    Body {
        /// Where.
        path: String,
        /// Why.
        problem: String,
    },
    /// A part of the query is not one of the route's.
    Query(String),
    /// As many listen to events as may.
    TooManyListeners,
    /// The TDs.
    Fleet(FleetError),
}

impl From<FleetError> for TdError {
    fn from(error: FleetError) -> Self {
        Self::Fleet(error)
    }
}

impl fmt::Display for TdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPath(path) => write!(f, "there is nothing at {path}"),
            Self::Method { method, takes } => write!(f, "the path takes {takes}, not {method}"),
            Self::NoBody => f.write_str("a body is needed"),
            Self::NeedlessBody => f.write_str("no body is taken"),
            Self::Body { path, problem } if path == "." => write!(f, "the body cannot be read: {problem}"),
            Self::Body { path, problem } => write!(f, "the body cannot be read: {path}: {problem}"),
            Self::Query(part) => write!(f, "the query cannot be had: {part}"),
            Self::TooManyListeners => f.write_str("as many listen to events as may"),
            Self::Fleet(error) => error.fmt(f),
        }
    }
}

impl Error for TdError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Fleet(error) => error.source(),
            _ => None,
        }
    }
}

impl TdError {
    /// The error's status.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoPath(_) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoBody | Self::NeedlessBody | Self::Body { .. } | Self::Query(_) => StatusCode::BAD_REQUEST,
            Self::TooManyListeners => StatusCode::TOO_MANY_REQUESTS,
            Self::Fleet(error) => match error {
                FleetError::NoTd(_) => StatusCode::NOT_FOUND,
                FleetError::Exists(_)
                | FleetError::Phase(..)
                | FleetError::NotAskedFor(_)
                | FleetError::OnlyEmulated(_)
                | FleetError::NotDumped
                | FleetError::NotSaved => StatusCode::CONFLICT,
                FleetError::Config(_) => StatusCode::BAD_REQUEST,
                FleetError::Over(over) if over.for_now => StatusCode::TOO_MANY_REQUESTS,
                FleetError::Over(_) => StatusCode::UNPROCESSABLE_ENTITY,
                FleetError::Refused(refusal) => match refusal.kind {
                    RefusalKind::State => StatusCode::CONFLICT,
                    RefusalKind::Input => StatusCode::BAD_REQUEST,
                    RefusalKind::Full => StatusCode::TOO_MANY_REQUESTS,
                    RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
                    RefusalKind::Overdue => StatusCode::GATEWAY_TIMEOUT,
                },
                FleetError::WorkerGone => StatusCode::BAD_GATEWAY,
                FleetError::Overdue => StatusCode::GATEWAY_TIMEOUT,
                FleetError::NoWorker(_) | FleetError::Store(_) | FleetError::SaveFailed(_) => {
                    StatusCode::INTERNAL_SERVER_ERROR
                }
                FleetError::Ending => StatusCode::SERVICE_UNAVAILABLE,
            },
        }
    }

    /// The answer: its sentences, the outermost first.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let allow = match self {
            Self::Method { takes, .. } => Some(takes.clone()),
            _ => None,
        };
        Answer { allow, ..Answer::of_error(self.status(), self) }
    }
}
