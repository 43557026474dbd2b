//! TDH.PHYMEM.PAGE.RECLAIM (28): takes a page of a TD that is being torn down. RCX page; out: RCX type, RDX owner,
//! R8 size, also where the call fails after it has looked at the page.

use tdvisor_base::{Hpa, Level};
use tdx_module_iface::lifecycle::LifecycleState;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use super::size_number;
use crate::host::steps::{lock_owner, lock_page, private_hpa};
use crate::host::{Call, Step, at, busy, invalid, plain};
use crate::lock::Mode;
use crate::td::Tdr;

pub(in crate::host) fn reclaim(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let rcx = core::mem::take(&mut regs.rcx);
    (regs.rdx, regs.r8) = (0, 0);
    let hpa = private_hpa(call, rcx, 4096, Operand::RCX)?;
    let page = lock_page(call, hpa, Level::L4K, Mode::Exclusive, Operand::RCX)?;
    let page_type = page.entry.page_type();
    if matches!(page_type, PageType::NDA | PageType::RSVD) {
        return Err(at(StatusCode::PAGE_METADATA_INCORRECT, Operand::RCX));
    }
    regs.rcx = u64::from(page_type.0);
    regs.rdx = page.entry.owner().get();
    regs.r8 = size_number(page.level);
    if !hpa.is_aligned(page.level.bytes()) {
        return Err(invalid(Operand::RCX));
    }
    let wrong_state = plain(StatusCode::LIFECYCLE_STATE_INCORRECT);
    if page_type == PageType::TDR {
        let tdr = Tdr::at(call.machine.memory(), hpa).ok_or(busy(Operand::RCX))?;
        if tdr.lifecycle() != LifecycleState::TEARDOWN {
            return Err(wrong_state);
        }
        if tdr.child_count() != 0 {
            return Err(plain(StatusCode::TD_ASSOCIATED_PAGES_EXIST));
        }
        call.machine.module.drop_mrtd(hpa);
        call.machine.module.pending_bundles.forget(hpa);
    } else {
        let owner = lock_owner(call, &page, Mode::Shared)?;
        if owner.tdr.lifecycle() != LifecycleState::TEARDOWN {
            return Err(wrong_state);
        }
        owner.tdr.remove_children(page.level.frames());
    }
    page.entry.free();
    // The TD's key is written back by now; the TDR's is the module's own.
    if page_type == PageType::TDR {
        call.machine.note_page_left(Hpa::new(rcx), Level::L4K);
    }
    Ok(())
}
