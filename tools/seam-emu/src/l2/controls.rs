//! What L1 asks of the processor that runs its L2 VM: VM-execution controls (SDM volume 3, "VM-Execution Control Fields").
//!
//! The processor that decodes instructions applies a part of them. A VM that L1 wants more of does not run on it: it stops,
//! and says what is missing. Nothing is left out in silence.

use tdx_module_iface::metadata::vmcs as own;

use super::Vm;
use crate::fields::{FieldStore, vmcs};
use crate::guest::{Window, Windows};
use crate::td::Tdcs;
use crate::td_params::vmx;
use crate::vcpu::Running;

const INTERRUPT_WINDOW: u64 = 1 << 2;
const CR3_LOAD: u64 = 1 << 15;
const NMI_WINDOW: u64 = 1 << 22;
const MOV_DR: u64 = 1 << 23;

const CR8_LOAD: u64 = 1 << 19;
const CR8_STORE: u64 = 1 << 20;
const PAUSE: u64 = 1 << 30;

/// Primary controls that the processor applies.
const APPLIED: u64 = INTERRUPT_WINDOW | CR3_LOAD | CR8_LOAD | CR8_STORE | NMI_WINDOW | MOV_DR | PAUSE;

/// Primary controls that it does not, with what they ask for.
const NOT_APPLIED: [(u64, &str); 4] = [
    (1 << 9, "exits of an L2 VM for INVLPG"),
    (1 << 12, "exits of an L2 VM for RDTSC"),
    (1 << 16, "exits of an L2 VM for reads of CR3"),
    (1 << 27, "the monitor trap flag of an L2 VM"),
];

/// Secondary controls that it applies: virtual-interrupt delivery; and those that enable instructions, which it executes
/// anyway: RDTSCP, INVPCID, XSAVES.
const APPLIED2: u64 = 1 << 9 | 1 << 3 | 1 << 12 | 1 << 20;

/// The exception bitmap that an L2 VM begins with: #MC, which is the host's.
const OWN_EXCEPTIONS: u64 = 1 << 18;

const PROCBASED_CTLS2: u32 = 0x48b;
const TRUE_PROCBASED: u32 = 0x48e;

/// What an L2 VM's processor is to do beside executing it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Intercepts {
    /// MOV to CR3 exits.
    pub(crate) cr3_load: bool,
    /// MOV to CR8 exits.
    pub(crate) cr8_load: bool,
    /// MOV from CR8 exits.
    pub(crate) cr8_store: bool,
    /// MOV to and from debug registers exits.
    pub(crate) mov_dr: bool,
    /// PAUSE exits.
    pub(crate) pause: bool,
    /// The time of the processor's clock at which the VM exits.
    pub(crate) deadline: Option<u64>,
    /// What L1 wants of it and it does not do.
    pub(crate) missing: Option<&'static str>,
}

impl Running<'_, '_> {
    /// What L1 wants for an L2 VM, and the windows for which it exits.
    pub(crate) fn l2_intercepts(&self, vm: Vm) -> (Intercepts, Windows) {
        let view = self.view(vm);
        let get = |field: tdx_module_iface::metadata::Field| {
            vmcs::offset(field.id.code()).map_or(0, |offset| view.load_u64(offset))
        };
        let primary = get(own::PROCBASED_CONTROLS);
        let wanted = primary & !always(self.tdcs, TRUE_PROCBASED);
        let secondary = get(own::PROCBASED_CONTROLS2) & !always(self.tdcs, PROCBASED_CTLS2) & !APPLIED2;
        let named = NOT_APPLIED.iter().find(|(bit, _)| wanted & bit != 0).map(|(_, what)| *what);
        let missing = named
            .or((wanted & !APPLIED != 0).then_some("a primary control of an L2 VM"))
            .or((secondary != 0).then_some("a secondary control of an L2 VM"))
            .or((primary & CR3_LOAD != 0 && get(own::CR3_TARGET_COUNT) != 0)
                .then_some("values of CR3 for which an L2 VM does not exit"))
            .or((get(own::EXCEPTION_BITMAP) & !OWN_EXCEPTIONS != 0)
                .then_some("exits of an L2 VM for exceptions"));
        let window = |bit: u64| if primary & bit != 0 { Window::Wanted } else { Window::Closed };
        let has = |control: u64| primary & control != 0;
        let intercepts = Intercepts {
            cr3_load: has(CR3_LOAD),
            cr8_load: has(CR8_LOAD),
            cr8_store: has(CR8_STORE),
            mov_dr: has(MOV_DR),
            pause: has(PAUSE),
            deadline: super::apic::deadline(self, vm),
            missing,
        };
        (intercepts, Windows { interrupt: window(INTERRUPT_WINDOW), nmi: window(NMI_WINDOW) })
    }
}

/// The controls that are one in every L2 VM of a TD.
fn always(tdcs: &Tdcs<'_>, msr: u32) -> u64 {
    vmx::place(msr).map_or(0, |offset| tdcs.load_u64(offset)) & 0xffff_ffff
}
