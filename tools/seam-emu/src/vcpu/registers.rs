//! Control registers and XCR0 of a TD: what the module lets a guest set.

use super::{Handled, Running, complete};
use crate::fields::FieldStore;
use crate::fields::layout::tdcs;
use crate::guest::{GuestState, VmExit};
use x86_arch::{Gpr, cr0, cr4, efer};

/// Bits of CR4 up to PKS that a TD may change.
const CR4_DEFINED: u64 = 0x01ff_7fff & !(cr4::KL | 1 << 15);

/// Bits 17:16 of the access type of the qualification are in bits 5:4.
enum CrAccess {
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
            let value = state.gpr(Gpr::from_index(number));
            CrAccess::Write { value }
        }
        2 => CrAccess::Clts,
        3 => {
            let source = exit.qualification >> 16 & 0xf;
            CrAccess::Write { value: state.control.cr0 & !0xe | source | state.control.cr0 & cr0::PE }
        }
        _ => CrAccess::Other,
    };
    match (register, access) {
        (0, CrAccess::Write { value }) => write_cr0(state, value, exit),
        (0, CrAccess::Clts) => {
            state.control.cr0 &= !cr0::TS;
            complete(state, exit)
        }
        (4, CrAccess::Write { value }) => write_cr4(vcpu, state, value, exit),
        _ => Handled::GENERAL_PROTECTION,
    }
}

fn write_cr0(state: &mut GuestState, value: u64, exit: &VmExit) -> Handled {
    // PE and NE stay set; CD and NW may not be set; paging in 64-bit mode cannot be left.
    let forced = cr0::PE | cr0::NE;
    if value & !cr0::DEFINED != 0
        || value & forced != forced
        || value & (cr0::NW | cr0::CD) != 0
        || (state.is_64_bit() && value & cr0::PG == 0)
        || (value & cr0::PG != 0 && state.control.efer & efer::LME != 0 && state.control.cr4 & cr4::PAE == 0)
        || (state.control.cr4 & cr4::CET != 0 && value & cr0::WP == 0)
    {
        return Handled::GENERAL_PROTECTION;
    }
    state.control.cr0 = value;
    if value & cr0::PG != 0 && state.control.efer & efer::LME != 0 {
        state.control.efer |= efer::LMA;
    } else {
        state.control.efer &= !efer::LMA;
    }
    complete(state, exit)
}

fn write_cr4(vcpu: &Running<'_, '_>, state: &mut GuestState, value: u64, exit: &VmExit) -> Handled {
    let xfam = vcpu.tdcs.load_u64(tdcs::XFAM);
    let attributes = vcpu.tdcs.attributes();
    let mut refused = !CR4_DEFINED | cr4::SMXE;
    if xfam & 3 << 11 == 0 {
        refused |= cr4::CET;
    }
    if xfam & 1 << 9 == 0 {
        refused |= cr4::PKE;
    }
    if attributes & tdx_module_iface::td_params::attributes::PKS == 0 {
        refused |= cr4::PKS;
    }
    let in_long_mode = state.control.efer & efer::LMA != 0;
    if value & refused != 0
        || value & cr4::MCE == 0
        // It is one, but reads as zero: a guest that writes what it reads leaves it alone.
        || value & cr4::VMXE != 0
        || (in_long_mode && (value ^ state.control.cr4) & cr4::LA57 != 0)
        || (in_long_mode && value & cr4::PAE == 0)
        || (value & cr4::CET != 0 && state.control.cr0 & cr0::WP == 0)
    {
        return Handled::GENERAL_PROTECTION;
    }
    state.control.cr4 = value | cr4::VMXE;
    complete(state, exit)
}

/// XSETBV: XCR0 within the TD's XFAM.
pub(super) fn xsetbv(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    const USER_COMPONENTS: u64 = 0x6_02ff;
    let value = state.regs[Gpr::Rax] & 0xffff_ffff | state.regs[Gpr::Rdx] << 32;
    let allowed = vcpu.tdcs.load_u64(tdcs::XFAM) & USER_COMPONENTS;
    if state.regs[Gpr::Rcx] as u32 != 0
        || value & !allowed != 0
        || value & 1 == 0
        || !tdx_module_iface::td_params::xfam_is_consistent(value | 3)
        || value & 6 == 4
    {
        return Handled::GENERAL_PROTECTION;
    }
    state.control.xcr0 = value;
    complete(state, exit)
}
