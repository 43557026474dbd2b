//! A TD on Linux's KVM, from its specification to its end, with the devices that every TD has.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Instant;

use td_host::td::config::TdConfig;
use tdvisor_devices::Devices;
use tdvisor_devices::acpi_pm::Nanoseconds;
use tdvisor_kvm::doctor::{Diagnosis, KvmAnswer, Link};
use tdvisor_kvm::{BuildError, Dropped, Ending, ExitKind, Linux, Td, TdSpec};
use tdvisor_monitor::{Monitor, QuoteSource};

use crate::bell::Bell;
use crate::drive::{Driver, Happening};
use crate::inspect::live::{Live, LiveKvmTd, RunningKvmTd};
use crate::pause::Pauser;
use crate::session::Watch;

pub use tdvisor_kvm as host;

/// What a TD on KVM is made of.
pub struct KvmSpec<'i> {
    /// Memory, vCPUs and attributes.
    pub td: TdSpec,
    /// A TDVF image.
    pub image: &'i [u8],
    /// What the guest finds around it.
    pub devices: Devices,
    /// What whoever feeds a device rings.
    pub bell: Bell,
    /// Where the TD's quotes come from.
    pub quotes: Option<Box<dyn QuoteSource>>,
}

impl std::fmt::Debug for KvmSpec<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvmSpec").field("td", &self.td).finish_non_exhaustive()
    }
}

/// Why the KVM of this machine runs no TDs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOffered {
    /// This link of the chain is missing.
    Missing(Link),
    /// The link that is missing cannot be seen from here.
    Unseen,
}

impl NotOffered {
    /// What a diagnosis of a machine says whose KVM offers no TDs.
    pub fn of(diagnosis: &Diagnosis) -> Self {
        diagnosis.first_missing().cloned().map_or(Self::Unseen, Self::Missing)
    }
}

impl fmt::Display for NotOffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the KVM of this machine runs no TDs: ")?;
        match self {
            Self::Missing(Link { kind, found, .. }) => {
                write!(f, "the first missing link is {} ({found}); to do: {}", kind.name(), kind.advice())
            }
            Self::Unseen => f.write_str("'tdvisor doctor' as root says which link is missing"),
        }
    }
}

impl std::error::Error for NotOffered {}

/// Asks the KVM of this machine whether it runs TDs. Whether there is room for one more now is another question.
///
/// # Errors
/// It does not.
pub fn offers_tds() -> Result<(), NotOffered> {
    let answer = KvmAnswer::of_this_machine();
    if answer.offers_tds() { Ok(()) } else { Err(NotOffered::of(&Diagnosis::of(Path::new("/"), answer))) }
}

/// What a TD is asked for, as KVM is told. The largest page and L2 VMs are not KVM's to choose.
pub fn spec_of(config: TdConfig) -> TdSpec {
    TdSpec {
        memory: config.memory,
        vcpus: config.vcpus,
        attributes: config.attributes,
        hob_extensions: config.hob_extensions,
        config_id: config.ids.config_id,
        owner: config.ids.owner,
        owner_config: config.ids.owner_config,
    }
}

/// Nanoseconds since now, for the timers of the board: a TD on KVM has no other clock of its host.
pub fn clock() -> Nanoseconds {
    let started = Instant::now();
    Box::new(move || u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// What happens to a TD on KVM.
#[derive(Clone, Copy, Debug)]
pub enum KvmEvent<'e> {
    /// Pages of the TD's image were added.
    Added {
        /// Pages.
        pages: u64,
    },
    /// The TD is built: its vCPUs are about to run.
    Built,
    /// Every vCPU has its thread, named `vcpu` and its number, and runs.
    Running,
    /// Something happened while it runs.
    Happened(Happening),
    /// The TD has ended: its vCPUs leave.
    Ended(&'e Ending),
}

/// A TD that is built and measured, with its devices around it.
pub struct KvmSession<'e> {
    td: Td<Linux>,
    monitor: Monitor,
    bell: Bell,
    pauser: Pauser,
    events: &'e (dyn Fn(KvmEvent<'_>) + Sync),
}

impl std::fmt::Debug for KvmSession<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KvmSession").field("td", &self.td).finish_non_exhaustive()
    }
}

impl<'e> KvmSession<'e> {
    /// Builds the TD.
    ///
    /// # Errors
    /// [`BuildError`]. Nothing is left of the TD.
    pub fn start(
        kernel: &Linux,
        spec: KvmSpec<'_>,
        events: &'e (dyn Fn(KvmEvent<'_>) + Sync),
    ) -> Result<Self, BuildError> {
        let td = Td::build(kernel, &spec.td, spec.image, |pages| events(KvmEvent::Added { pages }))?;
        events(KvmEvent::Built);
        let monitor = Monitor::new(spec.devices, spec.quotes);
        let pauser = Pauser::new(spec.td.vcpus, spec.bell.clone());
        Ok(Self { td, monitor, bell: spec.bell, pauser, events })
    }

    /// What pauses the session while another thread drives it.
    pub fn pauser(&self) -> Pauser {
        self.pauser.clone()
    }

    /// Runs every vCPU on a thread of its own until the TD has ended, or is stopped because the watch wants it. The TD is
    /// gone afterwards: the kernel reclaims its pages and its key id when its descriptors are closed.
    pub fn drive(self, watch: &impl Watch) -> KvmReport {
        let driver = Driver {
            vm: &self.td,
            monitor: &self.monitor,
            bell: &self.bell,
            live: Live::Kvm(&self),
            has_begun: &|| (self.events)(KvmEvent::Running),
            hold: self.pauser.hold(),
            turns: None,
            told: &|happening| (self.events)(KvmEvent::Happened(happening)),
            has_ended: &|ending| (self.events)(KvmEvent::Ended(ending)),
            vcpu_done: &|_| {},
        };
        let ending = driver.drive(watch);
        let LiveKvmTd { exits, frames_converted } = self.look();
        KvmReport { ending, exits, frames_converted, dropped_features: self.td.dropped_features().to_vec() }
    }
}

impl RunningKvmTd for KvmSession<'_> {
    fn look(&self) -> LiveKvmTd {
        LiveKvmTd {
            exits: ExitKind::ALL.iter().map(|kind| (*kind, self.td.exits(*kind))).collect(),
            frames_converted: self.td.frames_converted(),
        }
    }
}

/// The facts of a session on KVM.
#[derive(Clone, Debug)]
pub struct KvmReport {
    /// How the TD ended.
    pub ending: Ending,
    /// How often KVM came back, by kind.
    pub exits: BTreeMap<ExitKind, u64>,
    /// 4 KiB frames that changed sides.
    pub frames_converted: u64,
    /// Features that KVM or the module has and the TD had not.
    pub dropped_features: Vec<Dropped>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_kvm_is_told_its_first_missing_link_and_what_to_do() {
        let root = std::env::temp_dir().join(format!("tdvisor-no-kvm-{}", std::process::id()));
        std::fs::create_dir_all(root.join("proc")).unwrap();
        let cpu = "processor : 0\nvendor_id : AuthenticAMD\nmodel name : of another vendor\nflags : fpu\n\n";
        std::fs::write(root.join("proc/cpuinfo"), cpu).unwrap();
        let diagnosis = Diagnosis::of(&root, KvmAnswer::Closed(tdvisor_kvm::Errno(2)));
        let said = NotOffered::of(&diagnosis).to_string();
        std::fs::remove_dir_all(root).unwrap();
        let first = diagnosis.first_missing().unwrap();
        assert!(said.contains(first.kind.name()) && said.contains(first.kind.advice()), "{said}");
        assert!(!said.contains('\n') && !said.ends_with('.'), "{said}");
        assert!(NotOffered::Unseen.to_string().contains("tdvisor doctor"));
    }
}
