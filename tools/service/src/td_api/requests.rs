//! How many requests there were, by what they asked for and what that was answered with.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;

use super::routes::{Route, Verb};

const NAME: &str = "tdvisor_http_requests";

/// What a request asked for: a route, or nothing that there is.
type Asked = Option<(Verb, &'static str)>;

/// Numbers of requests. There are as many as routes have statuses, whatever clients send.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<BTreeMap<(Asked, u16), u64>>);

impl Requests {
    /// Counts one.
    pub(super) fn count(&self, route: Option<&'static Route>, status: StatusCode) {
        let asked = route.map(|route| (route.verb, route.path));
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((asked, status.as_u16())).or_default() += 1;
    }

    /// The numbers in the OpenMetrics form, without an end.
    pub(super) fn text(&self) -> String {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = format!(
            "# HELP {NAME} Requests by route and status; no route is what none asks for.\n# TYPE {NAME} counter\n"
        );
        for ((asked, status), count) in counts {
            let method = asked.map(|(verb, _)| verb.method().to_string()).unwrap_or_default();
            let route = asked.map(|(_, path)| path).unwrap_or_default();
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "{NAME}_total{{method=\"{method}\",route=\"{route}\",status=\"{status}\"}} {count}"
            );
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::td_api::ROUTES;

    #[test]
    fn requests_are_counted_by_route_and_status() {
        let requests = Requests::default();
        let route = ROUTES.iter().find(|route| route.path == "/td/v1/tds/{td}/boot");
        requests.count(route, StatusCode::NO_CONTENT);
        requests.count(route, StatusCode::NO_CONTENT);
        requests.count(None, StatusCode::UNAUTHORIZED);
        let text = requests.text();
        for line in [
            "tdvisor_http_requests_total{method=\"PUT\",route=\"/td/v1/tds/{td}/boot\",status=\"204\"} 2",
            "tdvisor_http_requests_total{method=\"\",route=\"\",status=\"401\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in:\n{text}");
        }
    }
}
