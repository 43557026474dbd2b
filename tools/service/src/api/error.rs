//! Refusals as the API says them.

use std::error::Error;
use std::fmt;

use http::{Method, StatusCode};

use crate::config::ConfigError;
use crate::http::{Allow, Answer};
use crate::vm::VmError;

/// Why a request is refused.
#[derive(Debug)]
pub enum ApiError {
    /// There is no such endpoint.
    NoEndpoint(String),
    /// The endpoint has another method.
    Method {
        /// The one that was tried.
        method: String,
        /// The one that it has.
        takes: Method,
    },
    /// The endpoint takes a body, and none came.
    NoBody,
    /// The endpoint takes no body, and one came.
    NeedlessBody,
    /// The body is not what the endpoint takes.
    Body {
        /// Where.
        path: String,
        /// Why.
        problem: String,
    },
    /// The answer cannot be written: a fault of this program.
    Answer(serde_json::Error),
    /// The VM refuses.
    Vm(VmError),
}

impl From<VmError> for ApiError {
    fn from(error: VmError) -> Self {
        Self::Vm(error)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoEndpoint(path) => write!(f, "there is no endpoint {path}"),
            Self::Method { method, takes } => write!(f, "the endpoint takes {takes}, not {method}"),
            Self::NoBody => f.write_str("the endpoint takes a body"),
            Self::NeedlessBody => f.write_str("the endpoint takes no body"),
            Self::Body { path, problem } if path == "." => write!(f, "the body cannot be read: {problem}"),
            Self::Body { path, problem } => write!(f, "the body cannot be read: {path}: {problem}"),
            Self::Answer(error) => write!(f, "the answer cannot be written: {error}"),
            Self::Vm(_) => f.write_str("the VM cannot do this"),
        }
    }
}

impl Error for ApiError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Vm(error) => Some(error),
            _ => None,
        }
    }
}

impl ApiError {
    /// The status by which HTTP says the error.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::NoEndpoint(_) => StatusCode::NOT_FOUND,
            Self::Method { .. } | Self::NoBody | Self::NeedlessBody | Self::Body { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::Answer(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Vm(error) => match error {
                VmError::NotCreated | VmError::NoSuchDevice(_) => StatusCode::NOT_FOUND,
                VmError::Config(ConfigError::SameId(_) | ConfigError::SamePath(_)) => StatusCode::CONFLICT,
                VmError::Config(_) => StatusCode::BAD_REQUEST,
                VmError::AlreadyCreated
                | VmError::NotRunning
                | VmError::AlreadyRunning
                | VmError::AlreadyPaused
                | VmError::NotPaused
                | VmError::NotStill(_)
                | VmError::SecondVsock
                | VmError::Unsupported(_)
                | VmError::Start(_)
                | VmError::Busy => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// The answer: its sentences, the outermost first.
    #[must_use]
    pub fn answer(&self) -> Answer {
        let allow = match self {
            Self::Method { takes, .. } => Some(Allow(vec![takes.clone()])),
            _ => None,
        };
        Answer { allow, ..Answer::of_error(self.status(), self) }
    }
}
