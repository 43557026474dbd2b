//! The routes: one table, for the requests as well as for their description.

use http::{Method, StatusCode};
use serde_json::Value;

use super::{Call, TdError, openapi};
use crate::http::{Allow, Source};
use crate::worker::TdRequest;
use crate::worker::protocol::Order;

/// The type of text.
const TEXT: &str = "text/plain; charset=utf-8";
/// The type of bytes that are whatever a guest wrote.
const BYTES: &str = "application/octet-stream";
/// The type of a JSON object a line.
const LINES: &str = "application/jsonl";
/// The type of a page for a browser.
const PAGE: &str = "text/html; charset=utf-8";
/// The type of numbers for Prometheus.
const NUMBERS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Entries of page tables in one answer, where nobody says otherwise, and at most.
const ENTRIES: u64 = 1024;
const ENTRIES_MAX: u64 = 16_384;
/// Bytes of a trace in one answer: far more than a line has, and at most.
const TRACE: u64 = 1 << 20;
const TRACE_MIN: u64 = 64 << 10;
const TRACE_MAX: u64 = 8 << 20;
/// Bytes of a dump in one answer, where nobody says otherwise, and at most.
const DUMP: u64 = 8 << 20;
const DUMP_MAX: u64 = 32 << 20;

/// What a route says when all went well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing: 204.
    Nothing,
    /// What was made, as JSON of this schema: 201.
    Made(&'static str),
    /// JSON of this schema: 200.
    Json(&'static str),
    /// Bytes of this type: 200.
    Text(&'static str),
    /// Server-sent events: 200.
    Events,
}

/// What came of a request.
pub(super) enum Reply {
    Done,
    Made(Value),
    Json(Value),
    Text(&'static str, Vec<u8>),
    Events(Box<dyn Source>),
}

impl Reply {
    /// The status by which HTTP says it.
    pub(super) const fn status(&self) -> StatusCode {
        match self {
            Self::Done => StatusCode::NO_CONTENT,
            Self::Made(_) => StatusCode::CREATED,
            Self::Json(_) | Self::Text(..) | Self::Events(_) => StatusCode::OK,
        }
    }
}

/// Methods of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// Says something.
    Get,
    /// Makes something.
    Post,
    /// Changes something.
    Put,
    /// Takes something away.
    Delete,
}

impl Verb {
    /// The method.
    #[must_use]
    pub const fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Delete => Method::DELETE,
        }
    }
}

/// A route.
#[derive(Clone, Copy)]
pub struct Route {
    /// What the route does.
    pub verb: Verb,
    /// The route's path; `{td}` stands for the name of a TD.
    pub path: &'static str,
    /// What the route is for, in a sentence.
    pub summary: &'static str,
    /// The schema of its body, if it takes one.
    pub body: Option<&'static str>,
    /// Numbers that its query may have.
    pub query: &'static [&'static str],
    /// What the route says when all went well.
    pub says: Says,
    /// The statuses of its errors, beside those of any request.
    pub errors: &'static [u16],
    pub(super) call: fn(&Call<'_>) -> Result<Reply, TdError>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Route").field("verb", &self.verb).field("path", &self.path).finish_non_exhaustive()
    }
}

impl Route {
    /// Whether a path is this one's; gives the TD that it names, or nothing where it names none.
    pub(super) fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        let mut td = "";
        let mut ours = self.path.split('/');
        let mut theirs = path.split('/');
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return Some(td),
                (Some("{td}"), Some(name)) => td = name,
                (Some(one), Some(other)) if one == other => {}
                _ => return None,
            }
        }
    }
}

/// Of a TD that is asked for by name.
const OF_TD: &[u16] = &[404];
/// Of a TD that has to do something.
const OF_CHANGE: &[u16] = &[404, 409, 500, 502, 504];

fn ask(call: &Call<'_>, order: Order) -> Result<Reply, TdError> {
    Ok(Reply::Json(call.fleet().ask(call.td, order, call.deadline)?))
}

const fn question(path: &'static str, summary: &'static str, schema: &'static str) -> Route {
    Route {
        verb: Verb::Get,
        path,
        summary,
        body: None,
        query: &[],
        says: Says::Json(schema),
        errors: OF_CHANGE,
        call: |_| Ok(Reply::Done),
    }
}

const fn change(
    path: &'static str,
    summary: &'static str,
    call: fn(&Call<'_>) -> Result<Reply, TdError>,
) -> Route {
    Route {
        verb: Verb::Put,
        path,
        summary,
        body: None,
        query: &[],
        says: Says::Nothing,
        errors: OF_CHANGE,
        call,
    }
}

/// All routes.
pub static ROUTES: &[Route] = &[
    Route {
        verb: Verb::Get,
        path: "/td/v1/openapi.json",
        summary: "This document",
        body: None,
        query: &[],
        says: Says::Json("Document"),
        errors: &[],
        call: |_| Ok(Reply::Json(openapi())),
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/service",
        summary: "What the service is, its limits, and what of them is in use",
        body: None,
        query: &[],
        says: Says::Json("Service"),
        errors: &[],
        call: |call| Ok(Reply::Json(call.fleet().about())),
    },
    Route {
        verb: Verb::Get,
        path: "/metrics",
        summary: "The numbers of all TDs, for Prometheus",
        body: None,
        query: &[],
        says: Says::Text(NUMBERS),
        errors: &[],
        call: |call| Ok(Reply::Text(NUMBERS, call.api.numbers(call.deadline).into_bytes())),
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/tds",
        summary: "All TDs",
        body: None,
        query: &[],
        says: Says::Json("Tds"),
        errors: &[],
        call: |call| Ok(Reply::Json(call.fleet().list())),
    },
    Route {
        verb: Verb::Post,
        path: "/td/v1/tds",
        summary: "Keeps what a TD is asked for with; nothing runs",
        body: Some("TdRequest"),
        query: &[],
        says: Says::Made("Td"),
        errors: &[409, 422, 429, 500, 503],
        call: |call| {
            let request: TdRequest = call.body()?;
            Ok(Reply::Made(call.fleet().create(request)?))
        },
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/tds/{td}",
        summary: "A TD: its phase, what it was asked for with, how it is confined, and how it ended",
        body: None,
        query: &[],
        says: Says::Json("Td"),
        errors: OF_TD,
        call: |call| Ok(Reply::Json(call.fleet().describe(call.td)?)),
    },
    Route {
        verb: Verb::Delete,
        path: "/td/v1/tds/{td}",
        summary: "Ends a TD, and leaves nothing of it",
        body: None,
        query: &[],
        says: Says::Nothing,
        errors: &[404, 500, 504],
        call: |call| Ok(call.fleet().delete(call.td, call.deadline).map(|()| Reply::Done)?),
    },
    Route {
        errors: &[404, 409, 429, 500, 502, 503, 504],
        ..change(
            "/td/v1/tds/{td}/boot",
            "Builds, measures and runs a TD in a process of its own; answers when its vCPUs run",
            |call| Ok(call.fleet().boot(call.td, call.deadline).map(|()| Reply::Done)?),
        )
    },
    change("/td/v1/tds/{td}/pause", "Makes the vCPUs of a TD stand still", |call| {
        Ok(call.fleet().pause(call.td, call.deadline).map(|()| Reply::Done)?)
    }),
    change("/td/v1/tds/{td}/resume", "Lets vCPUs that stand still run on", |call| {
        Ok(call.fleet().resume(call.td, call.deadline).map(|()| Reply::Done)?)
    }),
    change("/td/v1/tds/{td}/stop", "Ends a TD; it can be booted again", |call| {
        Ok(call.fleet().stop(call.td, call.deadline).map(|()| Reply::Done)?)
    }),
    Route {
        says: Says::Json("Saved"),
        call: |call| Ok(Reply::Json(call.fleet().save(call.td, call.deadline)?)),
        ..change(
            "/td/v1/tds/{td}/save",
            "Saves a TD that runs and was asked for with snapshots, which ends it",
            |_| Ok(Reply::Done),
        )
    },
    Route {
        errors: &[404, 409, 429, 500, 502, 503, 504],
        ..change(
            "/td/v1/tds/{td}/restore",
            "Runs a TD on from where it was saved last, in a process of its own",
            |call| Ok(call.fleet().restore(call.td, call.deadline).map(|()| Reply::Done)?),
        )
    },
    Route {
        call: |call| ask(call, Order::Measurements),
        ..question(
            "/td/v1/tds/{td}/measurements",
            "MRTD as the module has it and by calculation alone, and RTMRs",
            "Measurements",
        )
    },
    Route {
        call: |call| ask(call, Order::Quotes),
        ..question(
            "/td/v1/tds/{td}/quotes",
            "The last quotes that the guest of a TD that runs asked for",
            "Quotes",
        )
    },
    Route {
        call: |call| ask(call, Order::Exits),
        ..question("/td/v1/tds/{td}/exits", "How often each vCPU left its guest and why, and pages", "Exits")
    },
    Route {
        call: |call| ask(call, Order::Seamcalls),
        ..question("/td/v1/tds/{td}/seamcalls", "SEAMCALLs by leaf", "Seamcalls")
    },
    Route {
        call: |call| ask(call, Order::Audit),
        ..question(
            "/td/v1/tds/{td}/audit",
            "Whether mirror, Secure EPT and PAMT agree: of a TD that is paused, or as they did when it ended",
            "Audit",
        )
    },
    Route {
        query: &["from", "limit"],
        call: |call| {
            let from = call.number("from", &["limit"], 0)?;
            let limit = call.number("limit", &["from"], ENTRIES)?.clamp(1, ENTRIES_MAX);
            ask(call, Order::PageTables { from, limit: limit as usize })
        },
        ..question(
            "/td/v1/tds/{td}/page-tables",
            "Entries of the page tables of a TD that is paused, as mirror, Secure EPT and PAMT have them",
            "PageTables",
        )
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/tds/{td}/inspector",
        summary: "The inspector's page of a TD that was asked for with it, for a browser: as it stands while it is paused, or at its end",
        body: None,
        query: &[],
        says: Says::Text(PAGE),
        errors: OF_CHANGE,
        call: |call| Ok(Reply::Text(PAGE, call.fleet().inspector(call.td, call.deadline)?)),
    },
    Route {
        says: Says::Json("Dump"),
        call: |call| Ok(Reply::Json(call.fleet().dump(call.td, call.deadline)?)),
        ..change(
            "/td/v1/tds/{td}/dump",
            "Writes memory and registers of a TD that is paused, inspectable and was asked for with a dump",
            |_| Ok(Reply::Done),
        )
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/tds/{td}/dump",
        summary: "What a TD held when it was dumped last, or at its end, as an ELF core file for crash, drgn and gdb: a piece from a byte on, none at the end",
        body: None,
        query: &["from", "limit"],
        says: Says::Text(BYTES),
        errors: &[404, 409, 500],
        call: |call| {
            let from = call.number("from", &["limit"], 0)?;
            let limit = call.number("limit", &["from"], DUMP)?.clamp(1, DUMP_MAX);
            Ok(Reply::Text(BYTES, call.fleet().dumped(call.td, from, limit)?))
        },
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/tds/{td}/console",
        summary: "What the guest said on its console",
        body: None,
        query: &[],
        says: Says::Text(BYTES),
        errors: &[404, 500],
        call: |call| Ok(Reply::Text(BYTES, call.fleet().console(call.td)?)),
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/tds/{td}/trace",
        summary: "SEAMCALLs of a TD that is traced, as `tdvisor decode` explains them: whole lines from a byte on, none at the end",
        body: None,
        query: &["from", "limit"],
        says: Says::Text(LINES),
        errors: &[404, 409, 500],
        call: |call| {
            let from = call.number("from", &["limit"], 0)?;
            let limit = call.number("limit", &["from"], TRACE)?.clamp(TRACE_MIN, TRACE_MAX);
            Ok(Reply::Text(LINES, call.fleet().trace(call.td, from, limit)?))
        },
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/tds/{td}/events",
        summary: "What happened to a TD, and what happens, until it does not run any more",
        body: None,
        query: &["after"],
        says: Says::Events,
        errors: &[404, 429],
        call: |call| call.listen(),
    },
    Route {
        verb: Verb::Get,
        path: "/td/v1/version",
        summary: "The version of the service",
        body: None,
        query: &[],
        says: Says::Text(TEXT),
        errors: &[],
        call: |_| Ok(Reply::Text(TEXT, concat!(env!("CARGO_PKG_VERSION"), "\n").as_bytes().to_vec())),
    },
];

/// The methods that a path of the table has.
pub(super) fn methods(path: &str) -> Allow {
    Allow(ROUTES.iter().filter(|route| route.path == path).map(|route| route.verb.method()).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::td_api::ROOT;

    #[test]
    fn every_route_is_under_the_root_or_where_prometheus_looks_and_none_is_there_twice() {
        let mut seen = BTreeSet::new();
        for route in ROUTES {
            assert!(route.path.starts_with(ROOT) || route.path == "/metrics", "{}", route.path);
            assert!(seen.insert((route.verb, route.path)), "{route:?}");
        }
    }

    #[test]
    fn a_path_names_its_td() {
        let route = ROUTES.iter().find(|route| route.path.ends_with("{td}/boot")).unwrap();
        assert_eq!(route.matches("/td/v1/tds/one/boot"), Some("one"));
        for other in ["/td/v1/tds/one", "/td/v1/tds/one/boot/", "/td/v1/tds/one/two/boot", "/td/v1/tds//x"] {
            assert_eq!(route.matches(other), None, "{other}");
        }
    }
}
