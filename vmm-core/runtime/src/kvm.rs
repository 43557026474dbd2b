//! A TD on Linux's KVM, from its specification to its end, with the devices that every TD has.

use std::collections::BTreeMap;

use tdvisor_devices::Devices;
use tdvisor_kvm::{BuildError, Dropped, Ending, ExitKind, Linux, Td, TdSpec};
use tdvisor_monitor::{Monitor, QuoteSource};

use crate::bell::Bell;
use crate::drive::{Driver, Happening};
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
            live: None,
            has_begun: &|| (self.events)(KvmEvent::Running),
            hold: self.pauser.hold(),
            turns: None,
            told: &|happening| (self.events)(KvmEvent::Happened(happening)),
            has_ended: &|ending| (self.events)(KvmEvent::Ended(ending)),
            vcpu_done: &|_| {},
        };
        let ending = driver.drive(watch);
        KvmReport {
            ending,
            exits: ExitKind::ALL.iter().map(|kind| (*kind, self.td.exits(*kind))).collect(),
            frames_converted: self.td.frames_converted(),
            dropped_features: self.td.dropped_features().to_vec(),
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
