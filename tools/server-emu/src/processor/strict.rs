//! What a host may not rely on after a TD exit.
//!
//! The module restores of the host's state what its ABI names, and gives the rest up (Intel TDX Module ABI
//! Specification, TDH.VP.ENTER, "Host state"). A host that works only because an emulator left something alone fails on
//! hardware; with this it fails here.
//!
//! XCR0 and IA32_XSS hold the TD's XFAM after an exit, and hosts that know the TD's XFAM leave them alone where it is their
//! own value (Linux 7.3 does). They keep the host's value here, which is the same as long as both have x87 and SSE state.

use x86_arch::{CpuState, SimdState};

/// FMASK as a TD exit leaves it: IF and AC.
const FMASK: u64 = 0x2_0200;
/// DR7 as reset leaves it.
const DR7: u64 = 0x400;

/// Takes away what a TD exit gives up.
pub(super) fn give_up_after_td_exit(state: &mut CpuState) {
    state.msrs.fmask = FMASK;
    state.msrs.star = 0;
    state.msrs.lstar = 0;
    state.msrs.tsc_aux = 0;
    state.msrs.kernel_gs_base = 0;
    state.debug.dr7 = DR7;
    // XMM registers carry what the guest passed; x87 state is that of reset.
    let xmm = state.simd.xmm;
    state.simd = SimdState { xmm, ..SimdState::default() };
}
