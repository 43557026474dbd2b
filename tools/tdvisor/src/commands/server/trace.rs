//! `--trace`: every SEAMCALL of the host in a file, as `run --trace` writes it.

use std::path::PathBuf;
use std::sync::Arc;

use machine_emu::outlet::Outlet;
use machine_emu::trace::Trace;

use crate::files::{Claims, Output};
use crate::outcome::Failure;

/// Option for a trace.
#[derive(Debug, clap::Args)]
pub struct TraceArgs {
    /// Write every SEAMCALL to this file, one JSON object a line; `tdvisor decode` explains it.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// The file that calls go to, if there is one.
#[derive(Clone)]
pub struct CallTrace(Option<Arc<Trace>>);

impl TraceArgs {
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        self.trace.iter().try_for_each(|file| claims.writes("--trace", file))
    }

    /// Opens the file and empties it; everything that is read was claimed before.
    pub fn open(&self) -> Result<CallTrace, Failure> {
        let Some(path) = &self.trace else { return Ok(CallTrace(None)) };
        let file = Output::open(path)?.into_stream()?;
        Ok(CallTrace(Some(Arc::new(Trace::to_file(file)))))
    }
}

impl CallTrace {
    /// Where each call is written, if they are.
    pub fn of_calls(&self) -> Option<Arc<Trace>> {
        self.0.clone()
    }

    pub fn outlet(&self) -> Option<Outlet> {
        self.0.as_ref().and_then(|trace| trace.outlet().cloned())
    }

    /// Waits until everything is written; what is missing, if something is.
    pub fn drain(&self, give_up: &dyn Fn() -> bool) -> Option<String> {
        let trace = self.0.as_ref()?;
        let outlet = trace.outlet()?;
        let loss = outlet.drain(give_up);
        let dropped = trace.dropped();
        match outlet.error() {
            Some(error) => Some(format!("the trace is incomplete: {error}")),
            None if !loss.is_none() => Some(format!("the trace is incomplete: {} bytes", loss.not_taken)),
            None if dropped != 0 => Some(format!("the trace is full: {dropped} bytes are missing")),
            None => None,
        }
    }
}
