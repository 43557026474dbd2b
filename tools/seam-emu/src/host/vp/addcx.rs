//! TDH.VP.ADDCX (4): a further page for a vCPU. RCX page, RDX TDVPR.

use tdx_module_iface::lifecycle::VcpuState;
use tdx_module_iface::tdmr::{PageType, pages};
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use crate::host::steps::{check_and_lock_state, lock_free_page, lock_vcpu, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

pub(in crate::host) fn addcx(call: &Call<'_>, regs: &Gprs) -> Step {
    let vcpu = lock_vcpu(call, regs.rdx, Mode::Exclusive, Operand::RDX)?;
    let tdr = &vcpu.owner.tdr;
    let (_tdcs, _state) = check_and_lock_state(tdr, const { op_states(TdhLeaf::VP_ADDCX) }, Mode::Shared)?;
    if vcpu.tdvps.state() != VcpuState::UNINITIALIZED {
        return Err(plain(StatusCode::VCPU_STATE_INCORRECT));
    }
    if vcpu.tdvps.num_pages() >= pages::TDVPS_MAX {
        return Err(plain(StatusCode::TDCX_NUM_INCORRECT));
    }
    let (hpa, page) = lock_free_page(call, regs.rcx, Operand::RCX)?;
    call.take_page(hpa, tdr.key());
    page.entry.assign(PageType::TDCX, tdr.hpa);
    vcpu.tdvps.push_page(hpa);
    tdr.add_children(1);
    Ok(())
}
