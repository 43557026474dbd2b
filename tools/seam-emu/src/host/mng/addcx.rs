//! TDH.MNG.ADDCX (1): a page for the TDCS. RCX page, RDX TDR.
//!
//! The pages have fixed uses in order: 0 and 1 fields, 2 MSR bitmap (all ones), 3 Secure-EPT root, 4 a page of
//! zeros, 5 migration streams, then one Secure-EPT root for each L2 VM.

use tdvisor_base::sync::Ordering;
use tdx_module_iface::op_state::OpStates;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::tdmr::{PageType, pages};
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use crate::host::steps::{check_keys, lock_free_page, lock_tdr, op_states};
use crate::host::{Call, Step, busy, plain};
use crate::lock::Mode;

const ALLOWED: OpStates = op_states(TdhLeaf::MNG_ADDCX);
const MSR_BITMAP: usize = 2;
const SEPT_ROOT: usize = 3;

pub(in crate::host) fn addcx(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rdx, Mode::Exclusive, Operand::RDX)?;
    let tdr = &owner.tdr;
    check_keys(tdr)?;
    let index = tdr.num_tdcx();
    if index >= pages::TDCX_MAX {
        return Err(plain(StatusCode::TDCX_NUM_INCORRECT));
    }
    let (hpa, page) = lock_free_page(call, regs.rcx, Operand::RCX)?;
    if index + 1 == pages::TDCX_MIN && !call.machine.rdseed_has_entropy() {
        return Err(plain(StatusCode::RND_NO_ENTROPY));
    }
    if index >= pages::TDCX_MIN && !ALLOWED.contains(tdr.tdcs().op_state()) {
        return Err(plain(StatusCode::OP_STATE_INCORRECT));
    }
    call.take_page(hpa, tdr.key());
    let fill = match index {
        MSR_BITMAP => u64::MAX,
        SEPT_ROOT => SeptEntry::FREE.0,
        _ => 0,
    };
    if fill != 0 {
        let table = call.machine.memory().table(hpa.frame()).map_err(|_| busy(Operand::RCX))?;
        for word in table {
            word.store(fill, Ordering::Release);
        }
    }
    page.entry.assign(PageType::TDCX, tdr.hpa);
    tdr.push_tdcx(hpa);
    tdr.add_children(1);
    Ok(())
}
