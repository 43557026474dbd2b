//! What of a run's output did not get out.

use machine_emu::outlet::{Loss, Outlet};
use machine_emu::trace::Trace;

use super::args::Args;
use super::supervisor::Supervisor;
use super::told::Told;
use crate::streams::Streams;

/// What of a run's output may have been lost.
pub(super) struct Losses<'a> {
    /// Bytes of console over its allowance.
    pub(super) console: u64,
    /// Bytes of log over its allowance.
    pub(super) log: u64,
    pub(super) streams: &'a Streams,
}

impl Losses<'_> {
    /// Waits until everything is out, or has had its time; says what is lost. Whether nothing is.
    pub(super) fn drain(
        self,
        supervisor: &Supervisor,
        trace: Option<&Trace>,
        told: Told,
        args: &Args,
    ) -> bool {
        let give_up = supervisor.give_up();
        let mut lost = Vec::new();
        for (what, bytes) in [("console", self.console), ("guest log", self.log)] {
            if bytes != 0 {
                lost.push(format!("{what}: {bytes} bytes beyond what is shown of one run were dropped"));
            }
        }
        if let Some((trace, outlet)) = trace.and_then(|trace| Some((trace, trace.outlet()?))) {
            let name = args.trace.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
            let loss = outlet.drain(&give_up);
            // A trace has no reader that may leave: what did not get into it is missing.
            if let Some(text) = in_words(&loss, outlet).or_else(|| outlet.error()) {
                lost.push(format!("{name}: the trace is incomplete: {text}"));
            } else if trace.dropped() != 0 {
                lost.push(format!("{name}: the trace is full: {} bytes are missing", trace.dropped()));
            }
        }
        lost.extend(told.finish(&give_up));
        let out = self.streams.out.drain(&give_up);
        if let Some(text) = in_words(&out, &self.streams.out) {
            lost.push(format!("standard output: {text}"));
        }
        for text in &lost {
            self.streams.say(format_args!("tdvisor: {text}"));
        }
        // What was said last has a time of its own: the others may have used up theirs.
        let err = self.streams.err.drain(supervisor.give_up());
        lost.is_empty() && err.is_none()
    }
}

/// What was lost, if something was.
fn in_words(loss: &Loss, outlet: &Outlet) -> Option<String> {
    if loss.is_none() {
        return None;
    }
    Some(outlet.error().unwrap_or_else(|| format!("{} bytes or more were not taken in time", loss.not_taken)))
}
