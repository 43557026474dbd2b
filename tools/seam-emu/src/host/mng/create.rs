//! TDH.MNG.CREATE (9): a new TD. RCX page for the TDR, RDX key id.

use tdx_module_iface::lifecycle::{HkidState, LifecycleState};
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use crate::fields::FieldStore;
use crate::fields::layout::tdr::TD_UUID;
use crate::host::steps::lock_free_page;
use crate::host::{Call, Step, busy, invalid, plain};
use crate::lock::Mode;
use crate::td::Tdr;

pub(in crate::host) fn create(call: &Call<'_>, regs: &Gprs) -> Step {
    let hkid = regs.rdx as u16;
    if regs.rdx >> 16 != 0 || !call.machine.config().private_hkids.contains(&hkid) {
        return Err(invalid(Operand::RDX));
    }
    let (hpa, page) = lock_free_page(call, regs.rcx, Operand::RCX)?;
    let module = &call.machine.module;
    let _kot = module.kot.lock(Mode::Exclusive).map_err(|_| busy(Operand::KOT))?;
    if module.kot.state(hkid) != HkidState::FREE {
        return Err(plain(StatusCode::HKID_NOT_FREE));
    }
    if !call.machine.rdseed_has_entropy() {
        return Err(plain(StatusCode::RND_NO_ENTROPY));
    }
    call.take_page(hpa, call.machine.global_key());
    let tdr = Tdr::at(call.machine.memory(), hpa).ok_or(busy(Operand::RCX))?;
    tdr.set_hkid(hkid);
    tdr.set_lifecycle(LifecycleState::HKID_ASSIGNED);
    for word in 0..4 {
        tdr.store_u64(TD_UUID + 8 * word, module.random.next());
    }
    module.kot.set(hkid, HkidState::ASSIGNED, 0);
    page.entry.assign(PageType::TDR, tdvisor_base::Hpa::new(0));
    Ok(())
}
