//! Control-register accesses of an L2 VM: bits that L1 owns are L1's affair, those of the module are settled here.

use tdx_module_iface::metadata::{Field, vp};
use x86_arch::cr0;

use super::exit::{offset, to_l1};
use super::store::of_vm;
use crate::fields::FieldStore;
use crate::guest::{GuestState, VmExit};
use crate::vcpu::control::Owned;
use crate::vcpu::registers::{self, CrAccess};
use crate::vcpu::{Handled, Running, complete};

/// The bits of CR0 that LMSW writes in an L2 VM, which may run unpaged: PE, MP, EM, TS.
const LMSW_BITS: u64 = 0xf;

/// Handles a VM exit for an access to a control register.
pub(super) fn control_register(vcpu: &Running<'_, '_>, state: &mut GuestState, exit: &VmExit) -> Handled {
    match CrAccess::of(exit, state) {
        CrAccess::MovTo { register: 0, value } if !cr0_of_l1(vcpu).intercepts(value) => {
            registers::write_cr0(vcpu, state, value, exit)
        }
        CrAccess::MovTo { register: 4, value } if !cr4_of_l1(vcpu).intercepts(value) => {
            registers::write_cr4(vcpu, state, value, exit)
        }
        CrAccess::Lmsw { source } => {
            let owned = cr0_of_l1(vcpu);
            let value = source & LMSW_BITS;
            if (Owned { mask: owned.mask & LMSW_BITS, ..owned }).intercepts(value) {
                return to_l1(exit);
            }
            // Protection is turned on and never off by it.
            let protected = state.control.cr0 & cr0::PE;
            state.control.cr0 = state.control.cr0 & !LMSW_BITS | value | protected;
            complete(state, exit)
        }
        CrAccess::MovTo { .. } | CrAccess::Other => to_l1(exit),
    }
}

fn cr0_of_l1(vcpu: &Running<'_, '_>) -> Owned {
    owned_by_l1(vcpu, &vp::SHADOW_CR0_GUEST_HOST_MASK, &vp::SHADOW_CR0_READ_SHADOW)
}

fn cr4_of_l1(vcpu: &Running<'_, '_>) -> Owned {
    owned_by_l1(vcpu, &vp::SHADOW_CR4_GUEST_HOST_MASK, &vp::SHADOW_CR4_READ_SHADOW)
}

/// What L1 owns of a register of the VM that runs.
fn owned_by_l1(vcpu: &Running<'_, '_>, mask: &Field, shadow: &Field) -> Owned {
    let load = |field| vcpu.tdvps.load_u64(of_vm(offset(field), vcpu.vm()));
    Owned { mask: load(mask), shadow: load(shadow) }
}
