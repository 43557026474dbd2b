//! TDG.VP.ENTER (25): L1 runs an L2 VM. RCX VM in bits 53:52 and which translations are dropped in bits 1:0, RDX where
//! the VM's state is.
//!
//! The instruction completes when L1 goes on ([`Running::resume_l1`]); where something is missing that the host must
//! bring, L1 executes it again.

use tdvisor_base::PAGE_SIZE;
use tdx_module_iface::exit::{ExitReason, ExitReasonField};
use tdx_module_iface::{Operand, Status, StatusCode};
use x86_arch::Gpr;

use super::exit::stops_before_entry;
use super::state::{self, L1Page, NotMapped};
use super::{Vm, vm_of_flags};
use crate::guest::GuestState;
use crate::guest_leaf::{Call, End, Step, check_operand};
use crate::host::invalid;
use crate::vcpu::{AsyncExit, Handled, Running, apic};

/// RCX bits 1:0: which translations of the VM are dropped.
const INVALIDATE: u64 = 3;

pub(crate) fn enter(call: &Call<'_, '_, '_>, guest: &mut GuestState) -> Step {
    let vcpu = call.vcpu;
    let (rcx, rdx) = (guest.regs[Gpr::Rcx], guest.regs[Gpr::Rdx]);
    let gpa = check_operand(call, rdx, state::ALIGN, Operand::RDX)?;
    let vm = vm_of_flags(vcpu.tdcs, rcx, INVALIDATE).ok_or(End::from(invalid(Operand::RCX)))?;
    if L1Page::Apic.gpa(vcpu.tdvps, vm).is_none() {
        return Err(invalid(Operand::L2_VAPIC_GPA).into());
    }
    if apic::interrupts_l1(vcpu, apic::task_priority(guest)) {
        return Err(Status::new(StatusCode::PENDING_INTERRUPT).into());
    }
    if stops_before_entry(vcpu, vm) {
        let exit = AsyncExit::new(StatusCode::TD_EXIT_BEFORE_L2_ENTRY, ExitReasonField(0));
        return Err(End::Fault(Handled::exit(exit)));
    }
    state::set_guest_state(vcpu.tdvps, vm, gpa);
    for page in [L1Page::GuestState, L1Page::Apic] {
        page.find(vcpu.tdcs, vcpu.tdvps, vm).map_err(|NotMapped(gpa)| {
            let mut exit =
                AsyncExit::new(StatusCode::SUCCESS, ExitReasonField(ExitReason::EPT_VIOLATION.0.into()));
            exit.gpa = gpa.align_down(PAGE_SIZE);
            End::Fault(Handled::exit(exit))
        })?;
    }
    if rcx & INVALIDATE != 0 {
        vcpu.flush_vm(vm);
    }
    start(vcpu, guest, vm);
    Err(End::Fault(Handled::Resume))
}

/// From here on the vCPU is in the L2 VM.
fn start(vcpu: &Running<'_, '_>, guest: &mut GuestState, vm: Vm) {
    vcpu.switch(guest, vm);
    vcpu.load_from_l1(guest, vm);
}
