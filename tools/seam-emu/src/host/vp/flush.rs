//! TDH.VP.FLUSH (18): takes a vCPU off this processor. RCX TDVPR. Works on a TD that is fatal, too.

use tdx_module_iface::lifecycle::LifecycleState;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use super::count_associated;
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::host::steps::{check_vcpu_pages, lock_vcpu};
use crate::host::{Call, Step, plain};
use crate::l2::Vm;
use crate::l2::state::forget_pages;
use crate::lock::Mode;

pub(in crate::host) fn flush(call: &Call<'_>, regs: &Gprs) -> Step {
    let vcpu = lock_vcpu(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdr = &vcpu.owner.tdr;
    if tdr.lifecycle() != LifecycleState::KEYS_CONFIGURED {
        return Err(plain(StatusCode::TD_KEYS_NOT_CONFIGURED));
    }
    let tdcs = tdr.tdcs();
    check_vcpu_pages(&vcpu.tdvps, &tdcs)?;
    if vcpu.tdvps.associated_lp() != Some(call.lp) {
        return Err(plain(StatusCode::VCPU_NOT_ASSOCIATED));
    }
    if let Some(processor) = call.machine.processors().get(call.lp) {
        processor.tlb.flush(tdr.hpa);
    }
    // VMCLEAR of each VM: the next entry launches again, and finds L1's pages anew.
    for vm in 0..=u32::from(Vm::MAX_L2) {
        vcpu.tdvps.store(tdvps::VM_LAUNCHED + vm, Width::B1, 0);
    }
    forget_pages(&vcpu.tdvps);
    vcpu.tdvps.set_associated_lp(None);
    count_associated(&tdcs, -1);
    Ok(())
}
