//! TDH.VP.INIT (22): a vCPU gets its index and its initial state. RCX TDVPR, RDX what the guest finds in RCX and
//! R8; in version 1, R8 its x2APIC id.

use tdx_module_iface::lifecycle::VcpuState;
use tdx_module_iface::{Gprs, Operand, Status, StatusCode, TdhLeaf};

use super::associate;
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width};
use crate::host::steps::{check_and_lock_state, check_vcpu_pages, lock_vcpu_of, op_states};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;
use crate::td::Tdcs;
use crate::vcpu::state;

/// What version of the leaf gives the vCPU an x2APIC id.
const WITH_X2APIC_ID: u8 = 1;

pub(in crate::host) fn init(call: &Call<'_>, regs: &mut Gprs, version: u8) -> Step {
    if version > WITH_X2APIC_ID {
        return Err(invalid(Operand::RAX));
    }
    let chosen = (version == WITH_X2APIC_ID).then_some(regs.r8);
    // Ids are unique in their TD: nobody else may give one meanwhile.
    let owner = if chosen.is_some() { Mode::Exclusive } else { Mode::Shared };
    let vcpu = lock_vcpu_of(call, regs.rcx, Mode::Exclusive, owner, Operand::RCX)?;
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
    match chosen {
        Some(id) => give_x2apic_id(&tdcs, index as u32, id)?,
        None => tdcs.set_topology_configured(false),
    }
    vcpu.tdvps.store(tdvps::VCPU_INDEX, Width::B4, index);
    state::initialise(call.machine, &vcpu.owner.tdr, &tdcs, &vcpu.tdvps, regs.rdx);
    associate(call, &vcpu, &tdcs)?;
    vcpu.tdvps.set_state(VcpuState::READY);
    Ok(())
}

/// Checks an id against those of the vCPUs before this one. A duplicate costs the index (recorded).
fn give_x2apic_id(tdcs: &Tdcs<'_>, index: u32, id: u64) -> Step {
    let Ok(id) = u32::try_from(id) else {
        tdcs.update(tdcs::NUM_VCPUS, Width::B4, |count| count.saturating_sub(1));
        return Err(invalid(Operand::R8));
    };
    if (0..index).any(|before| tdcs.x2apic_id(before) == id) {
        return Err(Status::with_details(StatusCode::X2APIC_ID_NOT_UNIQUE, id));
    }
    tdcs.set_x2apic_id(index, id);
    Ok(())
}
