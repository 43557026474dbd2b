//! TDH.MEM.PAGE.AUG (6): a page without contents, which the guest has to accept. RCX GPA and level (4K, 2M),
//! RDX TDR, R8 new page. The contents are not touched before the guest accepts.

use tdvisor_base::Level;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::{Operands, context, lock_free_range, target};
use crate::host::steps::{check_entry_state, op_states, sept_states};
use crate::host::{Call, Step};
use crate::lock::Mode;

pub(in crate::host) fn page_aug(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let context = context(call, operands.rdx, const { op_states(TdhLeaf::MEM_PAGE_AUG) })?;
    let target = target(&context.tdcs, operands.rcx, Level::L4K..=Level::L2M, Mode::Shared, regs)?;
    check_entry_state(regs, &target.entry.slot(), const { sept_states(TdhLeaf::MEM_PAGE_AUG) })?;
    let level = target.what.level();
    let (hpa, page) = lock_free_range(call, regs.r8, level, Operand::R8)?;
    page.entry.assign(PageType::REG, context.owner.tdr.hpa);
    context.owner.tdr.add_children(level.frames());
    target.entry.set(SeptEntry::pending(hpa));
    Ok(())
}
