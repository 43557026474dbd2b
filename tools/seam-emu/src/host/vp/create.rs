//! TDH.VP.CREATE (10): a new vCPU. RCX page for the TDVPR, RDX TDR.

use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use crate::fields::FieldStore;
use crate::fields::layout::tdvps::TDR_PA;
use crate::host::steps::{check_and_lock_state, lock_free_page, lock_tdr, op_states};
use crate::host::{Call, Step, busy};
use crate::lock::Mode;
use crate::td::Tdvps;

pub(in crate::host) fn create(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rdx, Mode::Shared, Operand::RDX)?;
    let states = const { op_states(TdhLeaf::VP_CREATE) };
    let (_tdcs, _state) = check_and_lock_state(&owner.tdr, states, Mode::Shared)?;
    let (hpa, page) = lock_free_page(call, regs.rcx, Operand::RCX)?;
    call.take_page(hpa, owner.tdr.key());
    let tdvps = Tdvps::at(call.machine.memory(), hpa).ok_or(busy(Operand::RCX))?;
    tdvps.push_page(hpa);
    tdvps.set_associated_lp(None);
    tdvps.store_u64(TDR_PA, owner.tdr.hpa.get());
    page.entry.assign(PageType::TDVPR, owner.tdr.hpa);
    owner.tdr.add_children(1);
    Ok(())
}
