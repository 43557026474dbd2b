//! What is written down of a service's work, by `tracing`: who asked for what and what came of it, and what happened to TDs.
//!
//! # Form
//! A span `request` has the `id` of a request, by which its lines belong together, its `method`, its `path`, the `peer`, and the
//! `td` that it names. A span `td` has the name of a TD as `td`, or its root page as `tdr` where it has no name. Answers and events are `info`;
//! conversions and quotes `debug`; an answer of 500 or more, and a TD whose process died, are `warn`. Nobody listens unless a program says who.
//!
//! # What is not written
//! Bodies, queries, tokens, what a guest holds, and what it says: of an event there is its name and its time.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use http::StatusCode;
use serde_json::Value;
use tdvisor_base::Hpa;
use tracing::field::{Empty, display};
use tracing::{Span, debug, info, warn};

use crate::http::{Peer, Request, sentences};

/// The number of the next request of this process.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A request that is being answered.
pub(crate) struct Asked {
    span: Span,
    begin: Instant,
}

impl Asked {
    pub(crate) fn new(request: &Request) -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let peer = match request.peer {
            Peer::Local { pid, uid, .. } => format!("pid {pid} uid {uid}"),
            Peer::Remote(address) => address.to_string(),
        };
        let (method, path) = (request.method.as_str(), request.path.as_str());
        // As loud as the loudest line in it, which else would not have it.
        let span = tracing::warn_span!("request", id, method, path, peer, td = Empty);
        Self { span, begin: Instant::now() }
    }

    /// The TD that it names.
    pub(crate) fn names(&self, td: &str) {
        if !td.is_empty() {
            self.span.record("td", td);
        }
    }

    /// What is done for it.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        self.span.in_scope(work)
    }

    /// What came of it, and why where it was refused.
    pub(crate) fn answered(self, status: StatusCode, error: Option<&(dyn Error + 'static)>) {
        let microseconds = u64::try_from(self.begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let error = error.map(|error| display(sentences(error).collect::<Vec<_>>().join(": ")));
        let status = status.as_u16();
        self.span.in_scope(|| match status {
            500.. => warn!(status, microseconds, error, "answered"),
            _ => info!(status, microseconds, error, "answered"),
        });
    }
}

/// What came was no request, or nobody's who may ask.
pub(crate) fn refused(status: StatusCode) {
    info!(status = status.as_u16(), "refused");
}

/// The span of a TD that has a name.
pub(crate) fn td(name: &str) -> Span {
    tracing::warn_span!(parent: None, "td", td = name)
}

/// The span of the TD of a process that has one, until it [is at](is_at) some place.
pub(crate) fn td_of_vm() -> Span {
    tracing::warn_span!(parent: None, "td", tdr = Empty)
}

/// Says by which page the TD of a span is known.
pub(crate) fn is_at(td: &Span, tdr: Hpa) {
    td.record("tdr", format_args!("{:#x}", tdr.get()));
}

/// Something that happened, as a line of `tdvisor_runtime::events`.
pub(crate) fn line(td: &Span, line: &str) {
    happened(td, &serde_json::from_str(line).unwrap_or_default());
}

/// Something that happened to the TD of a span, as `tdvisor_runtime::events` has it.
pub(crate) fn happened(td: &Span, event: &Value) {
    let (name, seconds) = (event["event"].as_str().unwrap_or_default(), event["seconds"].as_f64());
    td.in_scope(|| match name {
        "worker-died" | "not-kept" => warn!(event = name, reason = event["reason"].as_str(), "happened"),
        // What a guest may do as often as it likes fills no disk unless somebody wants to see it.
        "conversion" | "quote" => debug!(event = name, seconds, "happened"),
        _ => info!(event = name, seconds, "happened"),
    });
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use http::Method;
    use serde_json::json;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that are written at this level, as JSON.
    fn lines(level: tracing::Level, work: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let to = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(level)
            .with_writer(move || to.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn request(path: &str) -> Request {
        Request {
            method: Method::PUT,
            path: path.to_owned(),
            query: Some("secret=1".to_owned()),
            body: b"a secret".to_vec(),
            fds: Vec::new(),
            peer: Peer::Local { pid: 7, uid: 0, gid: 0 },
        }
    }

    #[test]
    fn an_answer_is_one_line_with_the_request_and_its_td_and_nothing_of_its_body() {
        let lines = lines(tracing::Level::INFO, || {
            let asked = Asked::new(&request("/td/v1/tds/one/boot\nx"));
            asked.names("one");
            asked.run(|| info!("inside"));
            asked.answered(StatusCode::NO_CONTENT, None);
        });
        let [inside, answer] = &lines[..] else { panic!("{lines:?}") };
        let span = &answer["span"];
        assert_eq!((&answer["message"], &answer["status"]), (&json!("answered"), &json!(204)));
        assert_eq!((&span["td"], &span["path"]), (&json!("one"), &json!("/td/v1/tds/one/boot\nx")));
        assert_eq!(span["id"], inside["span"]["id"], "they belong together");
        assert!(!format!("{lines:?}").contains("secret"), "{lines:?}");
    }

    #[test]
    fn at_the_level_of_warnings_only_what_failed_is_said_and_of_whom() {
        let lines = lines(tracing::Level::WARN, || {
            Asked::new(&request("/good")).answered(StatusCode::OK, None);
            let error = io::Error::other("no room");
            Asked::new(&request("/bad")).answered(StatusCode::INTERNAL_SERVER_ERROR, Some(&error));
            let td = td("one");
            happened(&td, &json!({"event": "booted", "seconds": 1.5}));
            happened(&td, &json!({"event": "worker-died", "reason": "killed"}));
        });
        let [bad, died] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&bad["span"]["path"], &bad["error"]), (&json!("/bad"), &json!("no room")));
        assert_eq!((&died["span"]["td"], &died["reason"]), (&json!("one"), &json!("killed")));
    }

    #[test]
    fn what_a_guest_may_do_without_end_is_not_said_unless_somebody_wants_to_debug() {
        let conversion = || happened(&td("one"), &json!({"event": "conversion", "seconds": 1.5}));
        assert_eq!(lines(tracing::Level::INFO, conversion).len(), 0);
        assert_eq!(lines(tracing::Level::DEBUG, conversion).len(), 1);
    }

    #[test]
    fn of_an_event_there_is_its_name_and_its_time_and_not_what_the_guest_says() {
        let event = json!({"event": "fatal-error", "code": 1, "message": "a secret", "seconds": 1.5});
        let lines = lines(tracing::Level::TRACE, || happened(&td("one"), &event));
        assert_eq!((&lines[0]["event"], &lines[0]["seconds"]), (&json!("fatal-error"), &json!(1.5)));
        assert!(!format!("{lines:?}").contains("secret"), "{lines:?}");
    }
}
