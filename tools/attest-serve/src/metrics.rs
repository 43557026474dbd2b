//! Counters, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::sync::PoisonError;

/// How evidence was judged: `accepted`, or the code of the refusal; both from fixed lists, so that the map is bounded.
type Verdict = (&'static str, &'static str);

/// What the service counts.
#[derive(Debug, Default)]
pub struct Metrics {
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// By method and gRPC status.
    requests: BTreeMap<(&'static str, i32), u64>,
    /// By verdict and TCB status.
    quotes: BTreeMap<Verdict, u64>,
}

impl Metrics {
    /// One answer to a call of a method.
    pub fn answered(&self, method: &'static str, code: tonic::Code) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.requests.entry((method, code as i32)).or_default() += 1;
    }

    /// One quote with its verdict. Both words come from fixed lists.
    pub fn judged(&self, verdict: &'static str, tcb_status: &'static str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.quotes.entry((verdict, tcb_status)).or_default() += 1;
    }

    /// All of it as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = write_text(&mut text, &counts);
        text
    }
}

fn write_text(out: &mut String, counts: &Counts) -> std::fmt::Result {
    writeln!(out, "# TYPE tdvisor_build_info gauge")?;
    writeln!(out, "tdvisor_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "# HELP tdvisor_grpc_requests_total Calls answered, by method and gRPC status.")?;
    writeln!(out, "# TYPE tdvisor_grpc_requests_total counter")?;
    for ((method, code), count) in &counts.requests {
        writeln!(out, "tdvisor_grpc_requests_total{{method=\"{method}\",code=\"{code}\"}} {count}")?;
    }
    writeln!(out, "# HELP tdvisor_quotes_verified_total Quotes judged, by verdict and TCB status.")?;
    writeln!(out, "# TYPE tdvisor_quotes_verified_total counter")?;
    for ((verdict, status), count) in &counts.quotes {
        writeln!(
            out,
            "tdvisor_quotes_verified_total{{verdict=\"{verdict}\",tcb_status=\"{status}\"}} {count}"
        )?;
    }
    Ok(())
}
