//! TDH.MNG.INIT (21): RCX TDR, RDX TD_PARAMS in shared memory.

use tdx_module_iface::op_state::OpState;
use tdx_module_iface::td_params::TdParams;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};
use zerocopy::FromBytes;

use super::{Refusal, check, check_topology, extended_state, initial_fields};
use crate::host::steps::{check_state, lock_tdr, op_states, read_shared, shared_hpa};
use crate::host::{Call, Step, invalid};
use crate::lock::Mode;

/// Gives a TD its parameters; RCX is zero unless a CPUID configuration is refused.
pub(crate) fn init(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let tdr = regs.rcx;
    regs.rcx = 0;
    let td = lock_tdr(call, tdr, Mode::Exclusive, Operand::RCX)?;
    let tdcs = check_state(&td.tdr, op_states(TdhLeaf::MNG_INIT))?;
    let at = shared_hpa(call, regs.rdx, TdParams::ALIGN, Operand::RDX)?;
    let bytes: [u8; size_of::<TdParams>()] = read_shared(call, at);
    let params = TdParams::read_from_bytes(&bytes).map_err(|_| invalid(Operand::RDX))?;
    let config = call.machine.config();
    let refused = |regs: &mut Gprs, refusal: Refusal| {
        regs.rcx = refusal.rcx;
        refusal.status
    };
    check(&params, config, td.tdr.num_tdcx()).map_err(|refusal| refused(regs, refusal))?;
    // A TD whose topology is refused keeps this (recorded: offsets of components that its next XFAM does not have).
    extended_state(params.xfam, &tdcs);
    check_topology(&params, config).map_err(|refusal| refused(regs, refusal))?;
    initial_fields(&params, call.machine, tdcs.sept_root(), &tdcs);
    call.machine.module.start_mrtd(td.tdr.hpa);
    tdcs.set_op_state(OpState::Initialized);
    Ok(())
}
