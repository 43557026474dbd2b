//! TDH.MEM.PAGE.ADD (2): a page with contents, while the TD is being built. RCX GPA, RDX TDR, R8 new page, R9
//! source page.
//!
//! The TDR is held exclusively, so neither the tree nor the entry is locked.

use tdvisor_base::{Level, PAGE_SIZE};
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::Operands;
use crate::host::mr::{self};
use crate::host::steps::{
    check_entry_state, check_state, gpa_level, lock_entry, lock_free_page, lock_tdr, op_states, sept_states,
    shared_hpa, walk,
};
use crate::host::{Call, Step};
use crate::lock::Mode;

pub(in crate::host) fn page_add(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let owner = lock_tdr(call, operands.rdx, Mode::Exclusive, Operand::RDX)?;
    let tdcs = check_state(&owner.tdr, const { op_states(TdhLeaf::MEM_PAGE_ADD) })?;
    let what = gpa_level(&tdcs, operands.rcx, Level::L4K..=Level::L4K)?;
    let slot = walk(&tdcs, what, regs)?;
    check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_PAGE_ADD) })?;
    let source = shared_hpa(call, regs.r9, PAGE_SIZE, Operand::R9)?;
    let (hpa, page) = lock_free_page(call, regs.r8, Operand::R8)?;
    call.copy_into_td(source, hpa, owner.tdr.key());
    lock_entry(slot)?.set(SeptEntry::mapped(hpa));
    page.entry.assign(PageType::REG, owner.tdr.hpa);
    owner.tdr.add_children(1);
    mr::measure_page_add(call, owner.tdr.hpa, what.gpa());
    Ok(())
}
