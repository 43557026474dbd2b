//! The loop between TD entry and TD exit.

use tdvisor_base::sync::Ordering;

use super::{Handled, Running, TdExit, apic, exits};
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width, vmcs};
use crate::guest::{GuestCpu, GuestState, Injection, InjectionKind, VmExit, Window};
use crate::machine::Tlb;

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
    begin(vcpu, state);
    loop {
        let flushes = tlb.map(Tlb::flushes);
        if flushes != seen_flushes {
            seen_flushes = flushes;
            cpu.flush_translations(None);
        }
        if let Some(interrupt) = apic::deliverable(vcpu, state) {
            state.injection = Some(interrupt);
        }
        state.windows.interrupt = apic::window(vcpu, state);
        let exit = cpu.run(state, &vcpu.env);
        record(vcpu, &exit);
        let interrupted = vectoring(&exit);
        match exits::handle(vcpu, state, &exit) {
            Handled::Resume => state.injection = state.injection.or(interrupted),
            Handled::Inject(event) => state.injection = Some(event),
            Handled::Exit(td_exit) => {
                // An event whose delivery the exit cut short is delivered when the vCPU comes back.
                state.injection = state.injection.or(interrupted);
                keep_injection(vcpu, state.injection.take());
                apic::publish(vcpu, state);
                return td_exit;
            }
        }
    }
}

/// What TD entry gives to the guest: posted interrupts, an event that the last exit cut short, and an NMI that
/// the VMM asked for as soon as the guest can take it.
fn begin(vcpu: &Running<'_, '_>, state: &mut GuestState) {
    apic::take_posted(vcpu);
    state.injection = kept_injection(vcpu);
    if vcpu.tdvps.load(tdvps::PEND_NMI, Width::B1) != 0 {
        state.windows.nmi = Window::Wanted;
    }
}

/// Puts the exit information where VP.RD of a debuggable TD finds it.
fn record(vcpu: &Running<'_, '_>, exit: &VmExit) {
    let set = |offset: u32, value: u64| vcpu.tdvps.store_u64(offset, value);
    set(vmcs::EXIT_REASON, u64::from(exit.reason.0));
    set(vmcs::EXIT_QUALIFICATION, exit.qualification);
    set(vmcs::GUEST_PHYSICAL_ADDRESS, exit.gpa.get());
    set(vmcs::GUEST_LINEAR_ADDRESS, exit.gla);
    set(vmcs::EXIT_INTERRUPTION_INFO, u64::from(exit.interruption_info));
    set(vmcs::IDT_VECTORING_INFO, u64::from(exit.idt_vectoring_info));
    set(vmcs::EXIT_INSTRUCTION_LENGTH, u64::from(exit.instruction_length));
    if !exit.reason.is_entry_failure() {
        vcpu.tdvps.store(tdvps::VM_LAUNCHED, Width::B1, 1);
    }
}

/// Interruption information as VMX lays it out: vector 7:0, kind 10:8, error code valid 11, valid 31.
const INFO_VALID: u32 = 1 << 31;
const INFO_ERROR_CODE: u32 = 1 << 11;

fn unpack(info: u32, error: u32, length: u32) -> Option<Injection> {
    if info & INFO_VALID == 0 {
        return None;
    }
    let kind = match info >> 8 & 7 {
        0 => InjectionKind::ExternalInterrupt,
        2 => InjectionKind::Nmi,
        3 => InjectionKind::HardwareException,
        4 => InjectionKind::SoftwareInterrupt,
        5 => InjectionKind::PrivilegedSoftwareException,
        6 => InjectionKind::SoftwareException,
        _ => return None,
    };
    Some(Injection {
        vector: info as u8,
        kind,
        error_code: (info & INFO_ERROR_CODE != 0).then_some(error),
        instruction_length: length as u8,
    })
}

fn vectoring(exit: &VmExit) -> Option<Injection> {
    unpack(exit.idt_vectoring_info, exit.idt_vectoring_error, exit.instruction_length)
}

/// VMX encodings of the VM-entry interruption fields.
const ENTRY_INFO: u32 = 0x4016;
const ENTRY_ERROR: u32 = 0x4018;
const ENTRY_LENGTH: u32 = 0x401a;

fn keep_injection(vcpu: &Running<'_, '_>, event: Option<Injection>) {
    let set = |encoding: u32, value: u32| {
        if let Some(offset) = vmcs::offset(encoding) {
            vcpu.tdvps.store_u64(offset, u64::from(value));
        }
    };
    let info = event.map_or(0, |event| {
        let error = if event.error_code.is_some() { INFO_ERROR_CODE } else { 0 };
        INFO_VALID | error | (event.kind as u32) << 8 | u32::from(event.vector)
    });
    set(ENTRY_INFO, info);
    set(ENTRY_ERROR, event.and_then(|event| event.error_code).unwrap_or(0));
    set(ENTRY_LENGTH, event.map_or(0, |event| u32::from(event.instruction_length)));
}

fn kept_injection(vcpu: &Running<'_, '_>) -> Option<Injection> {
    let get = |encoding: u32| vmcs::offset(encoding).map_or(0, |offset| vcpu.tdvps.load_u64(offset) as u32);
    unpack(get(ENTRY_INFO), get(ENTRY_ERROR), get(ENTRY_LENGTH))
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
