//! Control registers and XCR0 of a TD: what the module lets a guest set.

use super::{Handled, Running, complete};
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::guest::{GuestState, VmExit};
use tdx_module_iface::Reg;

const CR0_PE: u64 = 1;
const CR0_NE: u64 = 1 << 5;
const CR0_NW: u64 = 1 << 29;
const CR0_CD: u64 = 1 << 30;
const CR0_PG: u64 = 1 << 31;
const CR0_WP: u64 = 1 << 16;
/// PE, MP, EM, TS, ET, NE, WP, AM, NW, CD, PG.
const CR0_DEFINED: u64 = 0xe005_003f;
const CR4_MCE: u64 = 1 << 6;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_VMXE: u64 = 1 << 13;
const CR4_SMXE: u64 = 1 << 14;
const CR4_CET: u64 = 1 << 23;
const CR4_PKE: u64 = 1 << 22;
const CR4_PKS: u64 = 1 << 24;
/// Architectural bits up to PKS that a TD may change.
const CR4_DEFINED: u64 = 0x01ff_7fff & !(1 << 19 | 1 << 15);
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

/// Bits 17:16 of the access type of the qualification are in bits 5:4.
enum Access {
    Write { value: u64 },
    Clts,
    Other,
}

/// MOV to CR0 and CR4, CLTS and LMSW that touch bits which the module owns.
pub(super) fn control_register(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    let register = exit.qualification & 0xf;
    let access = match exit.qualification >> 4 & 3 {
        0 => {
            let number = (exit.qualification >> 8 & 0xf) as u8;
            let value = Reg::from_index(number).map_or(state.rsp, |reg| state.gprs.get(reg));
            Access::Write { value }
        }
        2 => Access::Clts,
        3 => {
            let source = exit.qualification >> 16 & 0xf;
            Access::Write { value: state.cr0 & !0xe | source | state.cr0 & CR0_PE }
        }
        _ => Access::Other,
    };
    match (register, access) {
        (0, Access::Write { value }) => write_cr0(state, value, exit),
        (0, Access::Clts) => {
            state.cr0 &= !(1 << 3);
            complete(state, exit)
        }
        (4, Access::Write { value }) => write_cr4(vcpu, state, value, exit),
        _ => Handled::GENERAL_PROTECTION,
    }
}

fn write_cr0(state: &mut GuestState, value: u64, exit: &VmExit) -> Handled {
    // PE and NE stay set; CD and NW may not be set; paging in 64-bit mode cannot be left.
    let forced = CR0_PE | CR0_NE;
    if value & !CR0_DEFINED != 0
        || value & forced != forced
        || value & (CR0_NW | CR0_CD) != 0
        || (state.is_64_bit() && value & CR0_PG == 0)
        || (value & CR0_PG != 0 && state.efer & EFER_LME != 0 && state.cr4 & CR4_PAE == 0)
        || (state.cr4 & CR4_CET != 0 && value & CR0_WP == 0)
    {
        return Handled::GENERAL_PROTECTION;
    }
    state.cr0 = value;
    if value & CR0_PG != 0 && state.efer & EFER_LME != 0 {
        state.efer |= EFER_LMA;
    } else {
        state.efer &= !EFER_LMA;
    }
    complete(state, exit)
}

fn write_cr4(vcpu: &Running<'_, '_>, state: &mut GuestState, value: u64, exit: &VmExit) -> Handled {
    let xfam = vcpu.tdcs.load_u64(tdcs::XFAM);
    let attributes = vcpu.tdcs.attributes();
    let mut refused = !CR4_DEFINED | CR4_SMXE;
    if xfam & 3 << 11 == 0 {
        refused |= CR4_CET;
    }
    if xfam & 1 << 9 == 0 {
        refused |= CR4_PKE;
    }
    if attributes & tdx_module_iface::td_params::attributes::PKS == 0 {
        refused |= CR4_PKS;
    }
    let in_long_mode = state.efer & EFER_LMA != 0;
    if value & refused != 0
        || value & CR4_MCE == 0
        // It is one, but reads as zero: a guest that writes what it reads leaves it alone.
        || value & CR4_VMXE != 0
        || (in_long_mode && (value ^ state.cr4) & CR4_LA57 != 0)
        || (in_long_mode && value & CR4_PAE == 0)
        || (value & CR4_CET != 0 && state.cr0 & CR0_WP == 0)
    {
        return Handled::GENERAL_PROTECTION;
    }
    state.cr4 = value | CR4_VMXE;
    complete(state, exit)
}

/// XSETBV: XCR0 within the TD's XFAM.
pub(super) fn xsetbv(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    const USER_COMPONENTS: u64 = 0x6_02ff;
    let value = state.gprs.rax & 0xffff_ffff | state.gprs.rdx << 32;
    let allowed = vcpu.tdcs.load_u64(tdcs::XFAM) & USER_COMPONENTS;
    if state.gprs.rcx as u32 != 0
        || value & !allowed != 0
        || value & 1 == 0
        || !tdx_module_iface::td_params::xfam_is_consistent(value | 3)
        || value & 6 == 4
    {
        return Handled::GENERAL_PROTECTION;
    }
    state.xcr0 = value;
    complete(state, exit)
}
