//! A vCPU between TDH.VP.ENTER and its TD exit.
//!
//! # Protocol
//! [`run::run`] takes a vCPU that TDH.VP.ENTER has checked and locked, and gives the TD exit. In between the
//! guest's processor reports VM exits; each of them is handled here and ends in one of three ways: the guest
//! goes on (after a change of its registers or with an event to deliver), or it leaves the TD.

pub(crate) mod apic;
pub(crate) mod control;
mod cpuid;
mod ept;
pub(crate) mod exits;
mod interrupt;
pub(crate) mod msr;
pub(crate) mod registers;
pub(crate) mod run;
pub(crate) mod state;
pub(crate) mod ve;
pub(crate) mod zero_step;

use core::cell::Cell;

use tdvisor_base::Gpa;
use tdx_module_iface::exit::{ExitReasonField, ExtendedQualification};
use tdx_module_iface::lifecycle::LastTdExit;
use tdx_module_iface::{Status, StatusCode};
use x86_arch::{Event, vector};

pub(crate) use ept::violation_of_leaf;
pub(crate) use exits::not_accessible;

use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestState, VmExit, Window, Windows};
use crate::l2::exit::L1Exit;
use crate::l2::{self, Vm};
use crate::machine::{Asid, GuestEnv, GuestSpace, Machine};
use crate::metadata::td::TD_CTLS_ENUM_TOPOLOGY;
use crate::rules::Rules;
use crate::td::{Tdcs, Tdr, Tdvps};

/// A vCPU in its TD while it runs.
pub(crate) struct Running<'a, 'm> {
    pub(crate) machine: &'m Machine,
    pub(crate) lp: usize,
    pub(crate) tdr: &'a Tdr<'m>,
    pub(crate) tdcs: &'a Tdcs<'m>,
    pub(crate) tdvps: &'a Tdvps<'m>,
    /// The surroundings of the TD's own VM.
    pub(crate) env: GuestEnv<'m>,
    /// The VM that runs.
    pub(crate) running: Cell<Vm>,
    /// Where the host entered the guest.
    pub(crate) entered_at: u64,
}

impl<'m> Running<'_, 'm> {
    /// The rules of the release.
    pub(crate) fn rules(&self) -> &'static Rules {
        self.machine.config().profile.rules()
    }

    /// The VM that runs.
    pub(crate) fn vm(&self) -> Vm {
        self.running.get()
    }

    /// Says which VM runs from now on.
    pub(crate) fn set_vm(&self, vm: Vm) {
        self.running.set(vm);
        l2::state::set_current_vm(self.tdvps, vm);
    }

    /// Drops the translations of a VM on this processor.
    pub(crate) fn flush_vm(&self, vm: Vm) {
        if let Some(processor) = self.machine.processors().get(self.lp) {
            processor.tlb.flush_vm(Asid { tdr: self.tdr.hpa, vm });
        }
    }

    /// The surroundings of the VM that runs.
    fn surroundings(&self, windows: Windows) -> GuestEnv<'m> {
        let vm = self.vm();
        let Some(root) = self.tdcs.l2_sept_root(u16::from(vm.number())) else {
            return GuestEnv { windows, ..self.env };
        };
        let view = self.view(vm);
        let (intercepts, of_l1) = self.l2_intercepts(vm);
        let windows = Windows {
            interrupt: if windows.interrupt == Window::Wanted { Window::Wanted } else { of_l1.interrupt },
            nmi: of_l1.nmi,
        };
        GuestEnv {
            asid: Asid { tdr: self.tdr.hpa, vm },
            space: GuestSpace {
                sept_root: root,
                shared_root: l2::exit::shared_root(self, vm),
                ..self.env.space
            },
            windows,
            controls: control::OwnedControls::load(&view),
            intercepts,
            ..self.env
        }
    }

    /// The x2APIC id of this vCPU, where the guest has turned on that it is seen.
    pub(crate) fn visible_x2apic_id(&self) -> Option<u32> {
        let shown = self.tdcs.load_u64(tdcs::TD_CTLS) & TD_CTLS_ENUM_TOPOLOGY != 0;
        let index = self.tdvps.load(tdvps::VCPU_INDEX, Width::B4) as u32;
        shown.then(|| self.tdcs.x2apic_id(index))
    }
}

/// What the host gets of a vCPU that left its TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TdExit {
    /// TDG.VP.VMCALL with this register mask.
    Vmcall {
        /// RCX of the guest.
        mask: u64,
    },
    /// Anything else.
    Async(AsyncExit),
}

/// An exit that the guest did not ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct AsyncExit {
    /// RAX: a status with the exit reason as its details.
    pub(crate) status: Status,
    /// RCX.
    pub(crate) qualification: u64,
    /// RDX.
    pub(crate) extended: ExtendedQualification,
    /// R8: page of the guest-physical address.
    pub(crate) gpa: Gpa,
    /// R9.
    pub(crate) interruption_info: u32,
    /// Whether the hint bit is legal at the next entry.
    pub(crate) kind: LastTdExit,
}

impl AsyncExit {
    /// An exit with nothing but its reason.
    pub(crate) const fn new(code: StatusCode, reason: ExitReasonField) -> Self {
        Self {
            status: Status::with_details(code, reason.0),
            qualification: 0,
            extended: ExtendedQualification::NONE,
            gpa: Gpa::new(0),
            interruption_info: 0,
            kind: LastTdExit::ASYNC_FAULT,
        }
    }

    /// An exit with what the processor said of it: reason, qualification and interruption information.
    pub(crate) const fn with_status(code: StatusCode, exit: &VmExit) -> Self {
        let mut out = Self::new(code, exit.reason);
        out.qualification = exit.qualification & 0xffff_ffff;
        out.interruption_info = exit.interruption_info;
        out
    }

    /// An exit that passes on what the processor said.
    pub(crate) const fn pass(exit: &VmExit) -> Self {
        Self::with_status(StatusCode::SUCCESS, exit)
    }
}

/// How the handling of a VM exit ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handled {
    /// The guest goes on.
    Resume,
    /// The guest goes on with an event.
    Inject(Event),
    /// The guest leaves the TD.
    Exit(TdExit),
    /// L1 goes on instead of the L2 VM.
    ToL1(L1Exit),
}

impl Handled {
    /// #GP(0).
    pub(crate) const GENERAL_PROTECTION: Self = Self::Inject(Event::exception_with_code(vector::GP, 0));
    /// #UD.
    pub(crate) const UNDEFINED_OPCODE: Self = Self::Inject(Event::exception(vector::UD));

    /// An asynchronous exit.
    pub(crate) const fn exit(exit: AsyncExit) -> Self {
        Self::Exit(TdExit::Async(exit))
    }
}

/// Steps over the instruction that exited.
pub(crate) fn complete(state: &mut GuestState, exit: &VmExit) -> Handled {
    state.complete_instruction(exit.instruction_length as u8);
    Handled::Resume
}
