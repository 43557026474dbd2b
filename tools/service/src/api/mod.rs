//! Cloud Hypervisor's REST API: requests in, a [`Vm`] asked, answers out.
//!
//! # Form
//! `/api/v1/<endpoint>`, each with one method. Without something to say the answer is 204 and no body; an error is an array of
//! sentences, the outermost first. The statuses are those that Cloud Hypervisor sends: 400 for a request or a configuration
//! that cannot be, 404 where there is no VM or no such device or endpoint, 409 for two devices of one name, 500 for the rest.
//! [`openapi`] describes what is really sent.

mod endpoint;
mod error;
mod openapi;
mod schemas;

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::http::{Answer, Request, Response, Service};
use crate::logged::{self, Asked};
use crate::vm::{ExitReason, Vm};

pub use endpoint::{BodyKind, ENDPOINTS, Endpoint};
pub use error::ApiError;
pub use openapi::openapi;

/// Where all endpoints are.
pub const ROOT: &str = "/api/v1/";

/// The release of Cloud Hypervisor whose API this is a part of.
pub const API_VERSION: &str = "v54.0.0";

/// The API over one VM.
#[derive(Debug)]
pub struct Api {
    vm: Arc<Vm>,
}

/// A request that has found its endpoint.
pub struct Call<'a> {
    vm: &'a Vm,
    request: Request,
    deadline: Instant,
}

impl std::fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").field("request", &self.request).finish_non_exhaustive()
    }
}

impl Call<'_> {
    /// The body.
    ///
    /// # Errors
    /// [`ApiError::Body`] names the place where it is not what the endpoint takes.
    fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let mut json = serde_json::Deserializer::from_slice(&self.request.body);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            ApiError::Body { path, problem: error.into_inner().to_string() }
        })?;
        json.end().map_err(|error| ApiError::Body { path: ".".to_owned(), problem: error.to_string() })?;
        Ok(value)
    }
}

impl Api {
    /// The API over this VM.
    #[must_use]
    pub const fn new(vm: Arc<Vm>) -> Self {
        Self { vm }
    }

    fn call(&self, request: Request, deadline: Instant) -> Result<Option<Value>, ApiError> {
        let name = request.path.strip_prefix(ROOT).unwrap_or_default();
        let endpoint = ENDPOINTS.iter().find(|endpoint| endpoint.name == name);
        let endpoint = endpoint.ok_or_else(|| ApiError::NoEndpoint(request.path.clone()))?;
        if request.method != endpoint.method() {
            return Err(ApiError::Method { method: request.method.to_string(), takes: endpoint.method() });
        }
        let is_get = request.method == Method::GET;
        match (endpoint.body, request.body.is_empty()) {
            (BodyKind::None, false) if !is_get => return Err(ApiError::NeedlessBody),
            (BodyKind::Json(_), true) => return Err(ApiError::NoBody),
            _ => {}
        }
        (endpoint.call)(Call { vm: &self.vm, request, deadline })
    }
}

impl Service for Api {
    fn answer(&self, request: Request, deadline: Instant) -> Response {
        let log = Asked::new(&request);
        let said = log.run(|| self.call(request, deadline));
        let answer = match &said {
            Ok(None) => Answer::DONE,
            Ok(Some(value)) => Answer::json(StatusCode::OK, value.to_string().into_bytes()),
            Err(error) => error.answer(),
        };
        log.answered(answer.status, said.as_ref().err().map(|error| error as &(dyn Error + 'static)));
        answer.into()
    }

    fn refused(&self, status: StatusCode) {
        logged::refused(status);
    }
}

/// Ends the process, after the answer.
fn end_process(call: &Call<'_>) -> Result<Option<Value>, ApiError> {
    call.vm.delete(call.deadline)?;
    call.vm.exit().ask(ExitReason::Asked);
    Ok(None)
}
