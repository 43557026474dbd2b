//! CPUID of a TD: the virtual values that TDH.MNG.INIT computed, or #VE.

use super::{Handled, Running, complete, ve};
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestState, VmExit};
use crate::metadata::cpuid_position;

/// The highest basic and extended leaves of a TD.
const MAX_BASIC: u32 = 0x23;
const MAX_EXTENDED: u32 = 0x8000_0008;
/// Leaves that belong to software.
const SOFTWARE: core::ops::RangeInclusive<u32> = 0x4000_0000..=0x4fff_ffff;
/// Bit 27 of leaf 1 ECX: CR4.OSXSAVE of the moment; bit 4 of leaf 7 ECX: CR4.PKE.
const OSXSAVE: u32 = 1 << 27;
const OSPKE: u32 = 1 << 4;
const CR4_OSXSAVE: u64 = 1 << 18;
const CR4_PKE: u64 = 1 << 22;

pub(super) fn cpuid(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let supervisor = state.segments[2].access >> 5 & 3 == 0;
    let switch = if supervisor { tdvps::CPUID_SUPERVISOR_VE } else { tdvps::CPUID_USER_VE };
    if vcpu.tdvps.load(switch, Width::B1) != 0 {
        return ve::inject(vcpu, exit);
    }
    let leaf = effective_leaf(state.gprs.rax as u32);
    let subleaf = state.gprs.rcx as u32;
    let position = cpuid_position(leaf, subleaf).and_then(|position| u32::try_from(position).ok());
    let valid = position.filter(|p| vcpu.tdcs.load(tdcs::CPUID_VALID + p, Width::B1) != 0);
    let Some(position) = valid else { return ve::inject(vcpu, exit) };
    let low = vcpu.tdcs.load_u64(tdcs::CPUID_VALUES + 16 * position);
    let high = vcpu.tdcs.load_u64(tdcs::CPUID_VALUES + 16 * position + 8);
    let [mut ebx, mut ecx] = [(low >> 32) as u32, high as u32];
    match leaf {
        1 => {
            ecx = with_bit(ecx, OSXSAVE, state.cr4 & CR4_OSXSAVE != 0);
            let index = vcpu.tdvps.load(tdvps::VCPU_INDEX, Width::B4) as u32;
            ebx = ebx & 0x00ff_ffff | index << 24;
        }
        7 if subleaf == 0 => ecx = with_bit(ecx, OSPKE, state.cr4 & CR4_PKE != 0),
        _ => {}
    }
    state.gprs.rax = low & 0xffff_ffff;
    state.gprs.rbx = u64::from(ebx);
    state.gprs.rcx = u64::from(ecx);
    state.gprs.rdx = high >> 32;
    complete(state, exit)
}

/// A leaf above the highest one answers as the highest basic leaf does.
fn effective_leaf(leaf: u32) -> u32 {
    let beyond_basic = leaf > MAX_BASIC && leaf < 0x8000_0000 && !SOFTWARE.contains(&leaf);
    if beyond_basic || leaf > MAX_EXTENDED { MAX_BASIC } else { leaf }
}

const fn with_bit(value: u32, bit: u32, set: bool) -> u32 {
    if set { value | bit } else { value & !bit }
}
