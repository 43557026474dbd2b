//! Virtual processors: where they are, how they run, what they exit for.

mod counts;
pub(crate) mod create;
mod halt;
pub(crate) mod mtrr;
mod next;
pub(crate) mod park;
pub mod posted;
pub mod presence;
pub(crate) mod run;
mod saved;
pub mod sleep;
pub(crate) mod standing;
mod state;

use alloc::collections::BTreeMap;

use tdvisor_base::sync::{AtomicBool, Mutex, MutexGuard, Ordering};
use tdx_module_iface::handles::Tdvpr;

pub use counts::ExitKind;
pub use next::NextEntry;
pub use run::RunningVcpu;

use crate::interrupts::local_apic::LocalApic;
use crate::platform::LpId;
use create::VcpuControl;
use mtrr::Mtrrs;
use park::Place;
use standing::Stand;

/// One vCPU of a TD.
#[derive(Debug)]
pub struct Vcpu {
    index: u32,
    pub(crate) control: VcpuControl,
    exits: Mutex<BTreeMap<ExitKind, u64>>,
    apic: Mutex<LocalApic>,
    mtrrs: Mutex<Mtrrs>,
    halted_for_good: AtomicBool,
    place: Mutex<Place>,
    stand: Stand,
}

impl Vcpu {
    /// `tsc_hz` is the guest's TSC frequency.
    pub(crate) fn new(index: u32, control: VcpuControl, tsc_hz: u64) -> Self {
        Self {
            index,
            control,
            exits: Mutex::new(BTreeMap::new()),
            apic: Mutex::new(LocalApic::new(index, tsc_hz)),
            mtrrs: Mutex::new(Mtrrs::default()),
            halted_for_good: AtomicBool::new(false),
            place: Mutex::default(),
            stand: Stand::default(),
        }
    }

    /// The registers of its APIC that the host models.
    pub(crate) fn apic(&self) -> MutexGuard<'_, LocalApic> {
        self.apic.lock()
    }

    /// The vCPU's memory-type range registers.
    pub(crate) fn mtrrs(&self) -> MutexGuard<'_, Mtrrs> {
        self.mtrrs.lock()
    }

    /// Whether the vCPU halted with interrupts blocked, and the TD ended before anything woke it.
    pub fn is_halted_for_good(&self) -> bool {
        self.halted_for_good.load(Ordering::Relaxed)
    }

    /// The vCPU's number in the TD.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The LP that it runs on.
    pub fn lp(&self) -> LpId {
        self.control.lp
    }

    /// The vCPU, as the module knows it.
    pub fn tdvpr(&self) -> Tdvpr {
        self.control.tdvpr
    }

    /// How often the vCPU left the guest so far, by reason.
    pub fn exits(&self) -> BTreeMap<ExitKind, u64> {
        self.exits.lock().clone()
    }

    pub(crate) fn count_exit(&self, kind: ExitKind) {
        *self.exits.lock().entry(kind).or_insert(0) += 1;
    }
}
