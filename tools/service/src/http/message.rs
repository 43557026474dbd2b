//! What is asked and what is answered.

use std::error::Error;
use std::fmt;
use std::iter::successors;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use http::{Method, StatusCode};

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine, as it was when it connected.
    Local {
        /// The process.
        pid: i32,
        /// The peer's user.
        uid: u32,
        /// The peer's group.
        gid: u32,
    },
    /// Somebody who knows the token, from this address.
    Remote(SocketAddr),
}

/// A whole request.
#[derive(Debug)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// The path: no scheme, no host, no query.
    pub path: String,
    /// What stands behind the question mark, if there is one.
    pub query: Option<String>,
    /// The body; empty where there is none.
    pub body: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
    /// Who asks.
    pub peer: Peer,
}

/// The type of a JSON body.
pub(super) const JSON: &str = "application/json";

/// The methods that a path has, as the field `Allow` names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow(pub Vec<Method>);

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().map(Method::as_str).collect::<Vec<_>>().join(", "))
    }
}

/// An error's sentence, and those of what it comes from.
pub(crate) fn sentences(error: &(dyn Error + 'static)) -> impl Iterator<Item = String> {
    successors(Some(error), |error| Error::source(*error)).map(ToString::to_string)
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// What the path would have been asked for by, where it was asked for by another method.
    pub allow: Option<Allow>,
    /// The type of the body.
    pub content_type: &'static str,
    /// The body; `None` is no body at all.
    pub body: Option<Vec<u8>>,
}

impl Answer {
    /// Done, and nothing to say: 204.
    pub const DONE: Self =
        Self { status: StatusCode::NO_CONTENT, allow: None, content_type: JSON, body: None };

    /// An answer of JSON.
    #[must_use]
    pub const fn json(status: StatusCode, body: Vec<u8>) -> Self {
        Self { status, allow: None, content_type: JSON, body: Some(body) }
    }

    /// A refusal: an array of sentences, the outermost first.
    #[must_use]
    pub fn refusal(status: StatusCode, sentences: &[&str]) -> Self {
        Self::json(status, serde_json::Value::from(sentences.to_vec()).to_string().into_bytes())
    }

    /// A refusal for an error: its sentence, and those of what it comes from.
    #[must_use]
    pub fn of_error(status: StatusCode, error: &(dyn Error + 'static)) -> Self {
        let sentences: Vec<String> = sentences(error).collect();
        Self::refusal(status, &sentences.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The bytes on the wire. `last` says that the connection ends.
    pub(super) fn to_bytes(&self, last: Last) -> Vec<u8> {
        let mut bytes = self.head(last);
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        bytes
    }

    /// The bytes in front of the body, which are all that is said to whoever asks by HEAD. There is no reason behind the status:
    /// Cloud Hypervisor's own client takes the line's rest for a number.
    pub(super) fn head(&self, last: Last) -> Vec<u8> {
        let mut head = format!(
            "HTTP/1.1 {} \r\nServer: tdvisor/{}\r\nConnection: {}\r\n",
            self.status.as_str(),
            env!("CARGO_PKG_VERSION"),
            last.word(),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            head.push_str("WWW-Authenticate: Bearer\r\n");
        }
        if let Some(allow) = &self.allow {
            head.push_str(&format!("Allow: {allow}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!(
                "Content-Type: {}\r\nContent-Length: {}\r\n",
                self.content_type,
                body.len()
            ));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// What is said bit by bit, until there is no more of it.
pub trait Source: Send {
    /// The next bytes, which are none if nothing came until the deadline; `None` at the end.
    fn next(&mut self, deadline: Instant) -> Option<Vec<u8>>;
}

/// What a service says.
pub enum Response {
    /// All of it at once.
    Whole(Answer),
    /// Events as they come (`text/event-stream`), after which the connection ends.
    Events(Box<dyn Source>),
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        Self::Whole(answer)
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(answer) => answer.fmt(f),
            Self::Events(_) => f.write_str("Events"),
        }
    }
}

/// The head in front of events: they have no length, and the connection ends with them.
pub(super) fn head_of_events() -> Vec<u8> {
    format!(
        "HTTP/1.1 200 \r\nServer: tdvisor/{}\r\nConnection: close\r\nContent-Type: text/event-stream\r\n\
         Cache-Control: no-store\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes()
}

/// Whether an answer is the last one of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// The connection is kept.
    No,
    /// The connection ends after this message.
    Yes,
}

impl Last {
    const fn word(self) -> &'static str {
        match self {
            Self::No => "keep-alive",
            Self::Yes => "close",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_title_case_and_nothing_is_said_of_a_body_that_is_not_there() {
        let done = String::from_utf8(Answer::DONE.to_bytes(Last::No)).unwrap();
        let server = concat!("Server: tdvisor/", env!("CARGO_PKG_VERSION"));
        assert_eq!(done, format!("HTTP/1.1 204 \r\n{server}\r\nConnection: keep-alive\r\n\r\n"));
        let answer = Answer::refusal(StatusCode::NOT_FOUND, &["no \"VM\"", "create one"]);
        let bytes = String::from_utf8(answer.to_bytes(Last::Yes)).unwrap();
        assert_eq!(
            bytes,
            format!(
                "HTTP/1.1 404 \r\n{server}\r\nConnection: close\r\nContent-Type: application/json\r\n\
                 Content-Length: 26\r\n\r\n[\"no \\\"VM\\\"\",\"create one\"]"
            )
        );
    }

    #[test]
    fn an_answer_names_the_methods_that_its_path_has_where_it_knows_them() {
        let mut answer = Answer::refusal(StatusCode::METHOD_NOT_ALLOWED, &["not by PUT"]);
        answer.allow = Some(Allow(vec![Method::GET, Method::DELETE]));
        let bytes = String::from_utf8(answer.to_bytes(Last::No)).unwrap();
        assert!(bytes.contains("\r\nAllow: GET, DELETE\r\n"), "{bytes}");
    }
}
