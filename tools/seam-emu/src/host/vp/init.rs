//! TDH.VP.INIT (22): a vCPU gets its index and its initial state. RCX TDVPR, RDX what the guest finds in RCX and
//! R8.

use tdx_module_iface::lifecycle::VcpuState;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::associate;
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width};
use crate::host::steps::{check_and_lock_state, check_vcpu_pages, lock_vcpu, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;
use crate::vcpu::state;

pub(in crate::host) fn init(call: &Call<'_>, regs: &Gprs) -> Step {
    let vcpu = lock_vcpu(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let states = const { op_states(TdhLeaf::VP_INIT) };
    let (tdcs, _state) = check_and_lock_state(&vcpu.owner.tdr, states, Mode::Shared)?;
    check_vcpu_pages(&vcpu.tdvps, &tdcs)?;
    if vcpu.tdvps.state() != VcpuState::UNINITIALIZED {
        return Err(plain(StatusCode::VCPU_STATE_INCORRECT));
    }
    let max = tdcs.load(tdcs::MAX_VCPUS, Width::B4);
    let index = tdcs.update(tdcs::NUM_VCPUS, Width::B4, |count| if count < max { count + 1 } else { count });
    if index >= max {
        return Err(plain(StatusCode::MAX_VCPUS_EXCEEDED));
    }
    vcpu.tdvps.store(tdvps::VCPU_INDEX, Width::B4, index);
    state::initialise(call.machine, &vcpu.owner.tdr, &tdcs, &vcpu.tdvps, regs.rdx);
    associate(call, &vcpu, &tdcs)?;
    vcpu.tdvps.set_state(VcpuState::READY);
    Ok(())
}
