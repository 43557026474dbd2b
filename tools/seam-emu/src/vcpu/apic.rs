//! The virtual APIC of a TD: interrupt delivery without the VMM, as posted interrupts need it.
//!
//! The module (the processor, on hardware) keeps TPR, PPR, ISR, TMR and IRR and handles EOI and SELF-IPI; every
//! other register of the x2APIC raises #VE, and the guest asks its VMM. The VMM posts interrupts by setting
//! bits in a posted-interrupt descriptor in shared memory (SDM volume 3, "Posted-Interrupt Processing") and
//! notifying the processor; they move to IRR at the notification and at every TD entry.

use tdvisor_base::{Hpa, KeyId};
use x86_arch::Event;

use super::Running;
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width, vmcs};
use crate::guest::{GuestState, Window};
use crate::td::Tdvps;

/// Register offsets in the virtual-APIC page.
pub(crate) const TPR: u32 = 0x80;
pub(crate) const PPR: u32 = 0xa0;
pub(crate) const ISR: u32 = 0x100;
const TMR: u32 = 0x180;
pub(crate) const IRR: u32 = 0x200;

/// MSR numbers of the registers that need no VMM.
pub(crate) const MSR_TPR: u32 = 0x808;
pub(crate) const MSR_PPR: u32 = 0x80a;
pub(crate) const MSR_EOI: u32 = 0x80b;
const MSR_ISR: u32 = 0x810;
const MSR_TMR: u32 = 0x818;
const MSR_IRR: u32 = 0x820;
pub(crate) const MSR_SELF_IPI: u32 = 0x83f;

/// The descriptor: 256 request bits, then ON (bit 256) and SN (bit 257).
const PIR_WORDS: u64 = 4;
const DESCRIPTOR_ON: u64 = 1;

/// A descriptor address that nobody set.
const NOT_SET: u64 = u64::MAX;

/// One 32-bit register of a 256-bit bank.
fn bank(vcpu: &dyn FieldStore, base: u32, index: u32) -> u32 {
    vcpu.load(tdvps::VAPIC + base + 0x10 * index, Width::B4) as u32
}

fn set_bank(vcpu: &dyn FieldStore, base: u32, index: u32, value: u32) {
    vcpu.store(tdvps::VAPIC + base + 0x10 * index, Width::B4, u64::from(value));
}

/// The highest vector of a bank of a virtual APIC.
pub(crate) fn highest(vcpu: &dyn FieldStore, base: u32) -> Option<u8> {
    (0..8u32).rev().find_map(|index| {
        let bits = bank(vcpu, base, index);
        (bits != 0).then(|| (32 * index + 31 - bits.leading_zeros()) as u8)
    })
}

/// Sets a vector in a bank.
pub(crate) fn set_bit(vcpu: &dyn FieldStore, base: u32, vector: u8) {
    let index = u32::from(vector) / 32;
    set_bank(vcpu, base, index, bank(vcpu, base, index) | 1 << (vector % 32));
}

/// Clears a vector in a bank.
pub(crate) fn clear_bit(vcpu: &dyn FieldStore, base: u32, vector: u8) {
    let index = u32::from(vector) / 32;
    set_bank(vcpu, base, index, bank(vcpu, base, index) & !(1 << (vector % 32)));
}

/// The processor priority: the higher class of the task priority and of what is being serviced.
fn processor_priority(tdvps: &Tdvps<'_>, state: &GuestState) -> u8 {
    priority(tdvps, task_priority(state))
}

/// The task priority of a VM that runs.
pub(crate) const fn task_priority(state: &GuestState) -> u8 {
    (state.control.cr8 as u8 & 0xf) << 4
}

/// The task priority of L1 while an L2 VM runs.
pub(crate) fn saved_task_priority(vcpu: &Running<'_, '_>) -> u8 {
    vcpu.tdvps.load(tdvps::VAPIC + TPR, Width::B4) as u8
}

/// Whether L1, with this task priority, has an interrupt to take.
pub(crate) fn interrupts_l1(vcpu: &Running<'_, '_>, task: u8) -> bool {
    /// The module takes no vector below for an interrupt (recorded).
    const FIRST_VECTOR: u8 = 31;
    highest(vcpu.tdvps, IRR)
        .filter(|vector| *vector >= FIRST_VECTOR)
        .is_some_and(|vector| vector >> 4 > priority(vcpu.tdvps, task) >> 4)
}

/// The processor priority of a VM with this task priority.
pub(crate) fn priority(vcpu: &dyn FieldStore, task: u8) -> u8 {
    let in_service = highest(vcpu, ISR).unwrap_or(0);
    if task >> 4 >= in_service >> 4 { task } else { in_service & 0xf0 }
}

/// Moves posted requests to IRR. Called at TD entry and at a notification.
pub(crate) fn take_posted(vcpu: &Running<'_, '_>) {
    let descriptor = vcpu.tdvps.load_u64(vmcs::PID_ADDRESS);
    if descriptor == NOT_SET || vcpu.tdvps.load_u64(vmcs::PINBASED) & 1 << 7 == 0 {
        return;
    }
    let (at, key) = vcpu.machine.split_pa(descriptor);
    vcpu.machine.note_host_write(at, 8 * (PIR_WORDS + 1));
    let memory = vcpu.machine.memory();
    let take = |offset: u64, mask: u64| -> u64 {
        let hpa = Hpa::new(at.get().wrapping_add(offset));
        // A descriptor outside memory never has a request.
        memory.fetch_update(hpa, key, |old: u64| old & !mask).map_or(0, |(old, _)| old & mask)
    };
    if take(8 * PIR_WORDS, DESCRIPTOR_ON) == 0 && key == KeyId::DEFAULT {
        // ON clear: nothing was posted since the last time. Requests without ON wait for it.
        return;
    }
    for word in 0..PIR_WORDS {
        let requests = take(8 * word, u64::MAX);
        for half in 0..2u32 {
            let index = 2 * word as u32 + half;
            let bits = (requests >> (32 * half)) as u32;
            if bits != 0 {
                set_bank(vcpu.tdvps, IRR, index, bank(vcpu.tdvps, IRR, index) | bits);
            }
        }
    }
}

/// Leaves the virtual APIC as the processor does at a VM exit: TPR and PPR in its page, the highest requested and
/// the highest serviced vector in the guest interrupt status. VCPU_STATE_DETAILS.VMXIP follows from these.
pub(super) fn publish(vcpu: &Running<'_, '_>, state: &GuestState) {
    let register = |offset: u32, value: u64| vcpu.tdvps.store(tdvps::VAPIC + offset, Width::B4, value);
    register(TPR, state.control.cr8 << 4);
    register(PPR, u64::from(processor_priority(vcpu.tdvps, state)));
    let requested = highest(vcpu.tdvps, IRR).unwrap_or(0);
    let serviced = highest(vcpu.tdvps, ISR).unwrap_or(0);
    vcpu.tdvps.store_u64(vmcs::INTERRUPT_STATUS, u64::from(serviced) << 8 | u64::from(requested));
}

/// The interrupt that the guest would take now, moved from IRR to ISR.
pub(super) fn deliverable(vcpu: &Running<'_, '_>, state: &GuestState) -> Option<Event> {
    if state.event.is_some() || !state.interrupts_open() {
        return None;
    }
    let vector = highest(vcpu.tdvps, IRR)?;
    if vector >> 4 <= processor_priority(vcpu.tdvps, state) >> 4 {
        return None;
    }
    clear_bit(vcpu.tdvps, IRR, vector);
    set_bit(vcpu.tdvps, ISR, vector);
    Some(Event::external(vector))
}

/// Whether an interrupt waits for the guest to become able to take it.
pub(super) fn window(vcpu: &Running<'_, '_>, state: &GuestState) -> Window {
    match highest(vcpu.tdvps, IRR) {
        Some(vector) if vector >> 4 > processor_priority(vcpu.tdvps, state) >> 4 => Window::Wanted,
        _ => Window::Closed,
    }
}

/// Reads an x2APIC register; `None` where that is #VE.
pub(super) fn read(vcpu: &Running<'_, '_>, state: &GuestState, msr: u32) -> Option<u64> {
    let in_bank = |base: u32, first: u32| u64::from(bank(vcpu.tdvps, base, msr - first));
    match msr {
        MSR_TPR => Some(state.control.cr8 << 4),
        MSR_PPR => Some(u64::from(processor_priority(vcpu.tdvps, state))),
        MSR_ISR..=0x817 => Some(in_bank(ISR, MSR_ISR)),
        MSR_TMR..=0x81f => Some(in_bank(TMR, MSR_TMR)),
        MSR_IRR..=0x827 => Some(in_bank(IRR, MSR_IRR)),
        _ => None,
    }
}

/// Writes an x2APIC register; false where that is #VE.
pub(super) fn write(vcpu: &Running<'_, '_>, state: &mut GuestState, msr: u32, value: u64) -> bool {
    match msr {
        MSR_TPR if value <= 0xff => state.control.cr8 = value >> 4,
        MSR_EOI if value == 0 => {
            if let Some(vector) = highest(vcpu.tdvps, ISR) {
                clear_bit(vcpu.tdvps, ISR, vector);
            }
        }
        MSR_SELF_IPI if value <= 0xff => set_bit(vcpu.tdvps, IRR, value as u8),
        _ => return false,
    }
    true
}
