//! What a host may not rely on after a TD exit.
//!
//! The module restores of the host's state what its ABI names, and gives the rest up (Intel TDX Module ABI
//! Specification, TDH.VP.ENTER, "Host state"). A host that works only because an emulator left something alone fails on
//! hardware; with this it fails here.
//!
//! XCR0 and IA32_XSS hold the TD's XFAM after an exit. The software CPU has no supervisor state, so that only XCR0 can
//! differ from what the host had. What a TD exit takes of IA32_DEBUGCTL is taken where MSRs are kept.

use x86_arch::{CpuState, SimdState, xss};

/// FMASK as a TD exit leaves it: IF and AC.
const FMASK: u64 = 0x2_0200;
/// DR7 as reset leaves it.
const DR7: u64 = 0x400;

/// XCR0 after the exit of a TD with this XFAM.
pub(super) const fn xcr0_after_exit(xfam: u64) -> u64 {
    xfam & !(xss::PT | xss::CET | xss::UINTR | xss::LBR)
}

/// Takes away what a TD exit gives up.
pub(super) fn give_up_after_td_exit(state: &mut CpuState) {
    state.msrs.fmask = FMASK;
    state.msrs.star = 0;
    state.msrs.lstar = 0;
    state.msrs.tsc_aux = 0;
    state.msrs.kernel_gs_base = 0;
    state.debug.dr7 = DR7;
    // XMM registers carry what the guest passed; x87 state and the upper halves of YMM registers are those of reset.
    let xmm = state.simd.xmm;
    state.simd = SimdState { xmm, ..SimdState::default() };
}
