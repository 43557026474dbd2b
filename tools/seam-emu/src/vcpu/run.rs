//! The loop between TD entry and TD exit.

use tdvisor_base::sync::Ordering;
use x86_arch::{Event, InterruptionInfo};

use tdx_module_iface::StatusCode;
use tdx_module_iface::exit::{ExitReason, ExitReasonField};

use super::{AsyncExit, Handled, Running, TdExit, apic, exits, interrupt, state, zero_step};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width, vmcs};
use crate::guest::{GuestCpu, GuestState, VmExit, Window, Windows};
use crate::l2::{self, Vm};
use crate::machine::{GuestExit, Tlb};

impl Running<'_, '_> {
    /// The time-stamp counter as the guest sees it.
    pub(crate) fn guest_tsc(&self) -> u64 {
        self.env.guest_tsc()
    }
}

/// Runs a guest until it leaves the TD.
pub(crate) fn run(vcpu: &Running<'_, '_>, state: &mut GuestState, cpu: &mut dyn GuestCpu) -> TdExit {
    let tlb = vcpu.machine.processors().get(vcpu.lp).map(|processor| &processor.tlb);
    let mut seen_flushes = tlb.map(Tlb::flushes);
    if vcpu.machine.interrupt_controller().is_none() && cpu.takes_posted_interrupts() {
        // Nobody is there who could take a notification.
        apic::take_posted(vcpu);
    }
    loop {
        let flushes = tlb.map(Tlb::flushes);
        if flushes != seen_flushes {
            seen_flushes = flushes;
            cpu.flush_translations(None);
        }
        let has_l2_apic = vcpu.vm().is_l2() && cpu.takes_posted_interrupts();
        let due = if has_l2_apic { l2::apic::due(vcpu, state) } else { None };
        let exit = match due {
            Some(exit) => exit,
            None => {
                let windows = match vcpu.vm().is_l2() {
                    true if has_l2_apic => {
                        state.event = state.event.or(l2::apic::deliverable(vcpu, state));
                        Windows { interrupt: l2::apic::window(vcpu, state), ..Windows::default() }
                    }
                    true => Windows::default(),
                    false => {
                        state.event = state.event.or(apic::deliverable(vcpu, state));
                        Windows { interrupt: apic::window(vcpu, state), nmi: nmi_window(vcpu) }
                    }
                };
                if let Some(event) = state.event {
                    state::note_entry_event(&vcpu.view(vcpu.vm()), event);
                }
                cpu.run(state, &vcpu.surroundings(windows))
            }
        };
        let Some(exit) = interrupt::settle(vcpu, exit) else { continue };
        let exit = match has_l2_apic {
            true => l2::apic::settle(vcpu, state, exit),
            false => Some(exit),
        };
        let Some(exit) = exit else { continue };
        record(vcpu, &exit);
        zero_step::note_exit(vcpu.tdvps, vcpu.entered_at, state.rip());
        vcpu.machine.note_guest_exit(vcpu.lp, GuestExit::new(&exit, state));
        let interrupted = vectoring(&exit);
        let handled = match vcpu.vm().is_l2() {
            true => l2::exit::handle(vcpu, state, &exit),
            false => exits::handle(vcpu, state, &exit),
        };
        match after_bus_lock(handled, state, &exit) {
            Handled::Resume => state.event = state.event.or(interrupted),
            Handled::Inject(event) => state.event = Some(event),
            Handled::ToL1(l1) => {
                vcpu.store_to_l1(state, vcpu.vm());
                vcpu.resume_l1(state, &l1);
            }
            Handled::Exit(td_exit) => {
                vcpu.machine.note_td_exit(vcpu.lp);
                // An event whose delivery the exit cut short is delivered when the vCPU comes back.
                state.event = state.event.or(interrupted);
                match (vcpu.vm(), &td_exit) {
                    (Vm::L1, _) => apic::publish(vcpu, state),
                    (vm, TdExit::Async(_)) => vcpu.store_to_l1(state, vm),
                    (_, TdExit::Vmcall { .. }) => {}
                }
                return td_exit;
            }
        }
    }
}

/// An NMI that the VMM asked for comes as soon as the guest can take it; first it reads what a #VE was about.
fn nmi_window(vcpu: &Running<'_, '_>) -> Window {
    let asked = vcpu.tdvps.load(tdvps::PEND_NMI, Width::B1) != 0;
    let unread = vcpu.tdvps.load(tdvps::VE_VALID, Width::B4) != 0;
    if asked && !unread { Window::Wanted } else { Window::Closed }
}

/// An exit that was taken in place of the one that a bus lock asks for tells the host of the bus lock, too: where the
/// module would have gone on by itself, the TD exits, and an exception comes with the next entry.
fn after_bus_lock(handled: Handled, state: &mut GuestState, exit: &VmExit) -> Handled {
    /// Exit reason bit 26.
    const BUS_LOCK_PREEMPTED: u32 = 1 << 26;
    if exit.reason.0 & BUS_LOCK_PREEMPTED == 0 {
        return handled;
    }
    match handled {
        Handled::Exit(_) | Handled::ToL1(_) => return handled,
        Handled::Inject(event) => state.event = Some(event),
        Handled::Resume => {}
    }
    let reason = ExitReasonField(u32::from(ExitReason::BUS_LOCK.0) | BUS_LOCK_PREEMPTED);
    Handled::exit(AsyncExit::new(StatusCode::SUCCESS, reason))
}

/// Puts the exit information where VP.RD of a debuggable TD finds it.
fn record(vcpu: &Running<'_, '_>, exit: &VmExit) {
    let view = vcpu.view(vcpu.vm());
    let set = |offset: u32, value: u64| view.store_u64(offset, value);
    set(vmcs::EXIT_REASON, u64::from(exit.reason.0));
    set(vmcs::EXIT_QUALIFICATION, exit.qualification);
    set(vmcs::GUEST_PHYSICAL_ADDRESS, exit.gpa.get());
    set(vmcs::GUEST_LINEAR_ADDRESS, exit.gla);
    set(vmcs::EXIT_INTERRUPTION_INFO, u64::from(exit.interruption_info));
    set(vmcs::IDT_VECTORING_INFO, u64::from(exit.idt_vectoring_info));
    set(vmcs::EXIT_INSTRUCTION_LENGTH, u64::from(exit.instruction_length));
    if vcpu.vm().is_l2() {
        // L1 may learn of the exit later.
        set(vmcs::EXIT_INTERRUPTION_ERROR, u64::from(exit.interruption_error));
        set(vmcs::IDT_VECTORING_ERROR, u64::from(exit.idt_vectoring_error));
        set(vmcs::EXIT_INSTRUCTION_INFO, u64::from(exit.instruction_info));
    }
    if !exit.reason.is_entry_failure() {
        vcpu.tdvps.store(tdvps::VM_LAUNCHED + u32::from(vcpu.vm().number()), Width::B1, 1);
    }
}

/// The event whose delivery the exit cut short.
fn vectoring(exit: &VmExit) -> Option<Event> {
    InterruptionInfo {
        info: exit.idt_vectoring_info,
        error_code: exit.idt_vectoring_error,
        instruction_length: exit.instruction_length,
    }
    .unpack()
}

/// Marks a processor as running a TD's guest for as long as this lives.
pub(crate) struct Presence<'a>(Option<&'a tdvisor_base::sync::AtomicU64>);

impl<'a> Presence<'a> {
    pub(crate) fn enter(vcpu: &Running<'_, 'a>) -> Self {
        let slot = vcpu.machine.processors().get(vcpu.lp).map(|processor| &processor.running);
        if let Some(slot) = slot {
            slot.store(vcpu.tdr.hpa.get(), Ordering::Release);
        }
        Self(slot)
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.0 {
            slot.store(0, Ordering::Release);
        }
    }
}
