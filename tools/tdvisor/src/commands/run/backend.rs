//! What runs the TD: the emulated machine, or Linux's KVM.

use tdvisor_runtime::kvm::host::{Asked, Error, Linux, uapi};

use super::args::{Args, USUAL_MAX_PAGE};
use crate::outcome::Failure;

/// What a user wants the TD to run on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendChoice {
    /// The emulated TDX module and the software CPU: on any machine.
    #[default]
    Emulated,
    /// Linux's KVM, on a TDX server whose kernel has KVM_TDX.
    Kvm,
    /// KVM where it offers TDs and no option asks for the emulated machine; the emulated machine where not.
    Auto,
}

/// What the TD runs on.
pub enum Backend {
    /// The emulated machine.
    Emulated,
    /// Linux's KVM.
    Kvm(Linux),
}

impl BackendChoice {
    /// Finds out.
    ///
    /// # Errors
    /// KVM cannot be opened, or an option asks for what only the emulated machine can do.
    pub fn choose(self, args: &Args) -> Result<Backend, Failure> {
        let only_emulated = args.only_emulated();
        match (self, only_emulated) {
            (Self::Emulated, _) | (Self::Auto, Some(_)) => Ok(Backend::Emulated),
            (Self::Kvm, Some(option)) => Err(Failure::input(
                option,
                "only the emulated machine can do it: leave it out, or take --backend emulated",
            )),
            (Self::Kvm, None) => Linux::open()
                .map(Backend::Kvm)
                .map_err(|errno| Failure::Input(Error::new(Asked::Open, errno).to_string())),
            (Self::Auto, None) => Ok(match Linux::open() {
                Ok(kernel) if offers_tds(&kernel) => Backend::Kvm(kernel),
                _ => Backend::Emulated,
            }),
        }
    }
}

/// Whether TDs are among the types of VM that KVM has.
fn offers_tds(kernel: &Linux) -> bool {
    kernel.vm_types() >> uapi::VM_TYPE_TDX & 1 == 1
}

impl Args {
    /// An option that only the emulated machine knows, if one was given.
    fn only_emulated(&self) -> Option<&'static str> {
        let given = [
            ("--gdb", self.gdb.is_given()),
            ("--inspectable", self.dump.is_given()),
            ("--snapshot", self.snapshots.is_wanted()),
            ("--resume", self.snapshots.is_resumed()),
            ("--metrics", self.told.wants_metrics()),
            ("--report", self.report.is_given()),
            ("--trace-events", self.report.wants_trace_events()),
            ("--profile, --cpu, --feature or --engine", !self.hardware.is_usual()),
            ("--deterministic", self.deterministic.is_some()),
            ("--trace", self.trace.is_some()),
            ("--inject", self.inject.is_some()),
            ("--max-page", self.max_page != USUAL_MAX_PAGE),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }
}
