//! What a run tells the CPU beside the guest's state: what the module owns, and which translations are void.

use x86_arch::{ControlRegisters, cr0};
use x86_emu::{Controls, Cpu};

use crate::guest::{GuestState, Window};
use crate::machine::GuestEnv;

/// What the module owns of the CPU's registers, and what it offers (VMCS of a TD).
pub(super) fn controls(env: &GuestEnv<'_>) -> Controls {
    let (owned, windows, intercepts) = (env.controls(), env.windows(), env.intercepts());
    let max_pa = env.machine().config().max_pa;
    Controls {
        cr0_owned: owned.cr0.mask,
        cr0_shadow: owned.cr0.shadow,
        cr4_owned: owned.cr4.mask,
        cr4_shadow: owned.cr4.shadow,
        physical_bits: u8::try_from(max_pa).unwrap_or(52),
        intercept_cr3_write: intercepts.cr3_load,
        intercept_dr: intercepts.mov_dr,
        intercept_cr8_write: true,
        intercept_cr8_read: intercepts.cr8_store,
        intercept_pause: env.takes_turns() || intercepts.pause,
        interrupt_window: windows.interrupt == Window::Wanted,
        nmi_window: windows.nmi == Window::Wanted,
        ..Controls::default()
    }
}

/// Puts a guest's state into the CPU, which has no memory of whose state it held before; `state` is void until
/// [`leave`]. Linear translations are dropped where they depend on a register that differs from the CPU's.
pub(super) fn enter(cpu: &mut Cpu, state: &mut GuestState) {
    // VM entry does not touch CR0.ET, which is always one.
    state.control.cr0 |= cr0::ET;
    let paging = |control: &ControlRegisters| (control.cr0, control.cr3, control.cr4, control.efer);
    if paging(&cpu.state.control) != paging(&state.control) {
        cpu.tlb.flush_linear();
    }
    core::mem::swap(&mut cpu.state, state);
}

/// Takes the guest's state out of the CPU, which keeps what its translations depend on.
pub(super) fn leave(cpu: &mut Cpu, state: &mut GuestState) {
    state.clone_from(&cpu.state);
}
