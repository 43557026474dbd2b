//! TDH.MIG.STREAM.CREATE (96): RCX page, RDX TDR. The first stream is the one by which the receiver speaks.

use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::stream::MAX_STREAMS;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::host::steps::{check_and_lock_state, lock_free_page, lock_tdr, op_states};
use crate::host::{Call, Step, plain};
use crate::lock::Mode;

pub(crate) fn create(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rdx, Mode::Shared, Operand::RDX)?;
    let tdr = &owner.tdr;
    let (tdcs, _state) =
        check_and_lock_state(tdr, const { op_states(TdhLeaf::MIG_STREAM_CREATE) }, Mode::Exclusive)?;
    let streams = tdcs.load(tdcs::NUM_MIGS, Width::B2);
    if streams >= MAX_STREAMS {
        return Err(plain(StatusCode::MAX_MIGS_NUM_EXCEEDED));
    }
    let (hpa, page) = lock_free_page(call, regs.rcx, Operand::RCX)?;
    call.take_page(hpa, tdr.key());
    page.entry.assign(PageType::TDCX, tdr.hpa);
    tdcs.store_u64(tdcs::MIGSC_LINKS + 8 * streams as u32, hpa.get());
    tdcs.store(tdcs::NUM_MIGS, Width::B2, streams + 1);
    tdr.add_children(1);
    Ok(())
}
