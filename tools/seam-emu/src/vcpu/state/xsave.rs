//! The XSAVE area of a TDVPS: x87 environment at 0, MXCSR at 24, ST registers from 32, XMM registers from 160 on.

use crate::cpuid::compacted_size;
use crate::fields::layout::tdvps::XBUFF;

pub(super) const FCW: u32 = XBUFF;
pub(super) const FSW: u32 = XBUFF + 2;
pub(super) const FTW: u32 = XBUFF + 4;
pub(super) const FOP: u32 = XBUFF + 6;
pub(super) const FIP: u32 = XBUFF + 8;
pub(super) const FDP: u32 = XBUFF + 16;
pub(super) const MXCSR: u32 = XBUFF + 24;
pub(super) const ST: u32 = XBUFF + 32;
pub(super) const XMM: u32 = XBUFF + 160;
const END_OF_XMM: u32 = XMM + 256;
/// The upper halves of the YMM registers, directly behind the header.
pub(super) const YMM_HIGH: u32 = XBUFF + 576;
const END_OF_YMM_HIGH: u32 = YMM_HIGH + 256;
/// PKRU, where the standard form has it; where it is follows from the components before it ([`place`]).
pub(super) const PKRU: u32 = XBUFF + 2688;
/// The header's word that says which components are not in their initial state.
pub(super) const XSTATE_BV: u32 = XBUFF + 512;
/// The header's word that says how components are laid out.
pub(super) const XCOMP_BV: u32 = XBUFF + 520;
/// Components, as XSTATE_BV has them.
pub(super) const X87: u64 = 1 << 0;
pub(super) const SSE: u64 = 1 << 1;
pub(super) const AVX: u64 = 1 << 2;
pub(super) const PKRU_STATE: u64 = 1 << 9;

/// The component that a field belongs to; zero for what XSAVES does not handle.
pub(super) const fn component(offset: u32) -> u64 {
    match offset {
        MXCSR | XMM..END_OF_XMM => SSE,
        XBUFF..XMM => X87,
        YMM_HIGH..END_OF_YMM_HIGH => AVX,
        PKRU => PKRU_STATE,
        _ => 0,
    }
}

/// Where a field is while a TD has these components: the area is compacted, so that PKRU lies behind all that come before.
pub(super) fn place(offset: u32, xfam: u64) -> u32 {
    if offset == PKRU { XBUFF + compacted_size(xfam & (PKRU_STATE - 1)) } else { offset }
}
