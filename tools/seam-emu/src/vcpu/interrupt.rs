//! What an interrupt of the host becomes while a guest runs.

use tdx_module_iface::exit::{ExitReason, ExitReasonField};
use x86_arch::{Event, InterruptionInfo};

use super::{Running, apic};
use crate::fields::{FieldStore, vmcs};
use crate::guest::VmExit;

/// The exit as the processor makes it, or `None` where the guest goes on: the interrupt was a notification that
/// interrupts are posted, or is gone. A machine without interrupt controllers knows no vectors, and one that has ended
/// gives none.
pub(super) fn settle(vcpu: &Running<'_, '_>, exit: VmExit) -> Option<VmExit> {
    if exit.reason.basic() != ExitReason::EXTERNAL_INTERRUPT {
        return Some(exit);
    }
    let Some(controller) = vcpu.machine.interrupt_controller() else { return Some(exit) };
    if controller.has_ended() {
        return Some(exit);
    }
    if controller.take_nmi(vcpu.lp) {
        let reason = ExitReasonField(ExitReason::EXCEPTION_NMI.0.into());
        return Some(VmExit { reason, ..with_event(exit, Event::nmi()) });
    }
    if let Some(vector) = notification_vector(vcpu)
        && controller.take_notification(vcpu.lp, vector)
    {
        if vcpu.vm().is_l2() {
            // It depends on what is posted whether L1 goes on.
            return Some(with_event(exit, Event::external(vector)));
        }
        apic::take_posted(vcpu);
        return None;
    }
    match controller.acknowledge(vcpu.lp) {
        Some(vector) => Some(with_event(exit, Event::external(vector))),
        None => {
            vcpu.machine.drop_pretended_interrupt(vcpu.lp);
            None
        }
    }
}

fn with_event(exit: VmExit, event: Event) -> VmExit {
    VmExit { interruption_info: InterruptionInfo::pack(Some(event)).info, ..exit }
}

/// POSTED_INTR_NV, where the VMM has turned posted interrupts on.
fn notification_vector(vcpu: &Running<'_, '_>) -> Option<u8> {
    const PROCESS_POSTED_INTERRUPTS: u64 = 1 << 7;
    let on = vcpu.tdvps.load_u64(vmcs::PINBASED) & PROCESS_POSTED_INTERRUPTS != 0;
    on.then(|| vcpu.tdvps.load_u64(vmcs::NOTIFICATION_VECTOR) as u8)
}
