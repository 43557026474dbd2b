//! `--report` and `--trace-events`: the run as a page of the inspector, and its calls as a time line.

use std::path::PathBuf;
use std::sync::Arc;

use machine_emu::journal::Journal;
use machine_emu::trace::Trace;
use tdvisor_inspector::About;
use tdvisor_runtime::inspect::Inspection;
use tdvisor_runtime::{Ended, Report};

use crate::files::{Claims, Output};
use crate::outcome::Failure;

/// Options of what is written of a run for people to look at.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Write a page to FILE that shows the run in any browser: the TD's mirror, Secure EPT and PAMT entry by entry, every call
    /// that touched a page, the exits, and why a TD died. It holds nothing of the guest's memory.
    #[arg(long, value_name = "FILE.html")]
    report: Option<PathBuf>,
    /// Write the run's calls to FILE as a time line, in the trace-event form that ui.perfetto.dev and chrome://tracing open: a
    /// lane for each vCPU with its stays in the guest, why it left, the SEAMCALLs and ACCEPTs; and, over time, private memory by the size of
    /// its pages, shared memory, conversions, and how many SEAMCALLs and EPT violations there were in each millisecond. The
    /// last 100,000 calls about memory and the last 20,000 others are in it.
    #[arg(long, value_name = "FILE.json")]
    trace_events: Option<PathBuf>,
}

/// Files that are not written yet.
pub struct ReportFiles {
    page: Option<Output>,
    trace_events: Option<Output>,
    journal: Arc<Journal>,
}

impl ReportArgs {
    /// Whether a page was asked for.
    pub const fn is_given(&self) -> bool {
        self.report.is_some()
    }

    /// Whether a time line was asked for.
    pub const fn wants_trace_events(&self) -> bool {
        self.trace_events.is_some()
    }

    /// Notes which files are written.
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        for (what, path) in [("--report", &self.report), ("--trace-events", &self.trace_events)] {
            path.as_deref().map_or(Ok(()), |path| claims.writes(what, path))?;
        }
        Ok(())
    }

    /// Opens the files, if any is asked for.
    pub fn open(&self) -> Result<Option<ReportFiles>, Failure> {
        if self.report.is_none() && self.trace_events.is_none() {
            return Ok(None);
        }
        let open = |path: &Option<PathBuf>| path.as_deref().map(Output::open).transpose();
        let (page, trace_events) = (open(&self.report)?, open(&self.trace_events)?);
        Ok(Some(ReportFiles { page, trace_events, journal: Arc::default() }))
    }
}

impl ReportFiles {
    /// The trace of a machine whose calls are shown.
    pub fn keep_calls(&self, trace: Trace) -> Trace {
        trace.with_journal(self.journal.clone())
    }

    /// What is left of a TD that has ended, before it is torn down.
    pub fn inspect(&self, ended: &Ended<'_>) -> Result<Inspection, Failure> {
        ended
            .inspect()
            .map_err(|error| Failure::Internal(format!("what the run leaves cannot be read: {error}")))
    }

    /// Writes the files.
    pub fn write(self, inspection: &Inspection, report: &Report, attributes: u64) -> Result<(), Failure> {
        if let Some(file) = self.trace_events {
            file.write(tdvisor_inspector::trace_events(inspection).to_string().as_bytes())?;
        }
        let Some(page) = self.page else { return Ok(()) };
        page.write(tdvisor_inspector::page(inspection, &About::of_ended(report, attributes)).as_bytes())
    }
}
