//! Our own API, `/td/v1`: requests in, a [`Fleet`] asked, answers out.
//!
//! # Form
//! Resources under `/td/v1`, with the methods of [`ROUTES`]. Every error, also one of the socket's protocol, is an array of
//! sentences, the outermost first. Statuses: 400 a request or a TD that cannot be, 401 a client of a TCP port that does not know
//! the token, 404 no such TD or path, 405 another method (`Allow` names those that the path has),
//! 409 a TD in another phase or a name that is taken, 422 more than one TD may have, 429 more than is left for now, 500 a fault
//! of the host, 502 a worker that died meanwhile, 503 the service ends, 504 a TD that is busy for too long. Where there is
//! nothing to say the answer is 204. [`openapi`] describes what is really sent.
//!
//! # What it does not give
//! What a TD holds: answers are numbers, places and reasons, the words that the guest writes on its console, and quotes that it
//! asked for. More is had of a TD that was asked for as inspectable, which its description, events and report say: by its dump, if
//! it was asked for with one, and by its debugger, at a socket of the service's user.

mod asked;
mod error;
mod number;
mod openapi;
mod requests;
mod routes;
mod schemas;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::fleet::{EventTail, Fleet};
use crate::http::{Answer, Request, Response, Service, Source};
use crate::logged::{self, Asked};

pub use error::TdError;
pub use openapi::openapi;
pub use routes::{ROUTES, Route, Says, Verb};

use requests::Requests;
use routes::{Reply, methods};

/// Where all resources are.
pub const ROOT: &str = "/td/v1";
/// Clients that may listen to events at a time: each has a connection.
pub const LISTENERS_MAX: usize = 16;

/// The API over a fleet.
#[derive(Debug)]
pub struct TdApi {
    fleet: Arc<Fleet>,
    listeners: Arc<AtomicUsize>,
    requests: Requests,
}

/// A request that has found its route.
struct Call<'a> {
    api: &'a TdApi,
    td: &'a str,
    request: &'a Request,
    deadline: Instant,
}

/// Events for one of the clients that may listen.
struct Listener {
    tail: EventTail,
    listeners: Arc<AtomicUsize>,
}

impl Source for Listener {
    fn next(&mut self, deadline: Instant) -> Option<Vec<u8>> {
        self.tail.next(deadline)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Call<'_> {
    fn fleet(&self) -> &Fleet {
        &self.api.fleet
    }

    /// The body.
    fn body<T: DeserializeOwned>(&self) -> Result<T, TdError> {
        let mut json = serde_json::Deserializer::from_slice(&self.request.body);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = error.path().to_string();
            TdError::Body { path, problem: error.into_inner().to_string() }
        })?;
        json.end().map_err(|error| TdError::Body { path: ".".to_owned(), problem: error.to_string() })?;
        Ok(value)
    }

    /// A number of the query; a name that the route does not have is refused.
    fn number(&self, name: &'static str, others: &[&str], default: u64) -> Result<u64, TdError> {
        let mut found = default;
        for pair in
            self.request.query.as_deref().unwrap_or_default().split('&').filter(|pair| !pair.is_empty())
        {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let bad = || TdError::Query(pair.to_owned());
            if key == name {
                found = number::parse(value).ok_or_else(bad)?;
            } else if !others.contains(&key) {
                return Err(bad());
            }
        }
        Ok(found)
    }

    /// The events of the TD, if one more client may listen.
    fn listen(&self) -> Result<Reply, TdError> {
        let after = self.number("after", &[], 0)?;
        let tail = self.fleet().events(self.td, after)?;
        let listeners = self.api.listeners.clone();
        let one_more = |count: usize| (count < LISTENERS_MAX).then_some(count + 1);
        if listeners.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_err() {
            return Err(TdError::TooManyListeners);
        }
        Ok(Reply::Events(Box::new(Listener { tail, listeners })))
    }
}

impl TdApi {
    /// The API over these TDs.
    #[must_use]
    pub fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet, listeners: Arc::default(), requests: Requests::default() }
    }

    fn route(request: &Request) -> Result<(&'static Route, &str), TdError> {
        let mut of_path =
            ROUTES.iter().filter_map(|route| Some((route, route.matches(&request.path)?))).peekable();
        let Some(path) = of_path.peek().map(|(route, _)| route.path) else {
            return Err(TdError::NoPath(request.path.clone()));
        };
        let found = of_path.find(|(route, _)| route.verb.method() == request.method);
        found.ok_or_else(|| TdError::Method { method: request.method.to_string(), takes: methods(path) })
    }

    fn call(&self, route: &Route, td: &str, request: &Request, deadline: Instant) -> Result<Reply, TdError> {
        match (route.body, request.body.is_empty()) {
            (None, false) if request.method != Method::GET => return Err(TdError::NeedlessBody),
            (Some(_), true) => return Err(TdError::NoBody),
            _ => {}
        }
        if let (Some(query), true) = (&request.query, route.query.is_empty()) {
            return Err(TdError::Query(query.clone()));
        }
        (route.call)(&Call { api: self, td, request, deadline })
    }

    /// The numbers of all TDs and of the requests.
    fn numbers(&self, deadline: Instant) -> String {
        self.fleet.metrics(&self.requests.text(), deadline)
    }
}

impl Service for TdApi {
    fn answer(&self, request: Request, deadline: Instant) -> Response {
        let log = Asked::new(&request);
        let route = Self::route(&request);
        let asked = route.as_ref().ok().map(|(route, _)| *route);
        let reply = route.and_then(|(route, td)| {
            log.names(td);
            log.run(|| self.call(route, td, &request, deadline))
        });
        let (status, error) = match &reply {
            Ok(reply) => (reply.status(), None),
            Err(error) => (error.status(), Some(error as &(dyn Error + 'static))),
        };
        log.answered(status, error);
        self.requests.count(asked, status);
        let answer = match reply {
            Ok(Reply::Done) => Answer::DONE,
            Ok(Reply::Made(value) | Reply::Json(value)) => {
                Answer::json(status, value.to_string().into_bytes())
            }
            Ok(Reply::Text(content_type, body)) => Answer { content_type, ..Answer::json(status, body) },
            Ok(Reply::Events(source)) => return Response::Events(source),
            Err(error) => error.answer(),
        };
        answer.into()
    }

    fn refused(&self, status: StatusCode) {
        logged::refused(status);
        self.requests.count(None, status);
    }
}
