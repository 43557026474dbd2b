//! TDH.MEM.PAGE.DEMOTE (15): splits a blocked large page into 512 of the next smaller size. RCX GPA and level
//! (2M, 1G), RDX TDR (bit 0: R9 to R11 bring pages for L2 VMs), R8 new Secure-EPT page; with dynamic PAMT, R12
//! and R13 pages for the PAMT entries of the pieces.
//!
//! Up to the interrupt check nothing but the new page's contents has changed: an interrupted call is repeated
//! with the same operands.

use tdvisor_base::Level;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::{LARGE, Operands, context, lock_implicit, target, write_sept_page};
use crate::host::phymem::pamt::give_pair;
use crate::host::steps::{
    check_blocked, check_entry_state, check_tracked, lock_free_page, op_states, sept_states, tdmr_of,
};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;

const L2_PAGES: u64 = 1;
const RESERVED: u64 = 0xffe;

pub(in crate::host) fn page_demote(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    if operands.rdx & RESERVED != 0 {
        return Err(invalid(Operand::RDX));
    }
    let states = const { op_states(TdhLeaf::MEM_PAGE_DEMOTE) };
    let context = context(call, operands.rdx & !L2_PAGES, states)?;
    let target = target(&context.tdcs, operands.rcx, LARGE, Mode::Shared, regs)?;
    let slot = target.entry.slot();
    let state = check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_PAGE_DEMOTE) })?;
    check_blocked(&context.tdcs, regs, &slot)?;
    let level = target.what.level;
    let below = level.down().ok_or(invalid(Operand::RCX))?;
    let large = target.entry.entry().hpa().align_down(level.bytes());
    let bepoch = super::implicit_entry(call, large, level).map_or(0, |entry| entry.bepoch());
    check_tracked(&context.tdcs, bepoch, Operand::RCX)?;
    let (table, table_page) = lock_free_page(call, regs.r8, Operand::R8)?;
    let owner = &context.owner;
    write_sept_page(call, owner, table, |index| {
        let piece = large.wrapping_add(index * below.bytes());
        if state.is_pending() { SeptEntry::pending(piece) } else { SeptEntry::mapped(piece) }
    });
    if call.machine.config().profile.demote_is_interruptible() && call.interrupted() {
        operands.restore(regs);
        return Err(plain(StatusCode::INTERRUPTED_RESTARTABLE));
    }
    let page = lock_implicit(call, large, level, Operand::RCX)?;
    let tdmr = tdmr_of(call, large, Operand::RCX)?;
    if below == Level::L4K && tdmr.dynamic().is_some_and(|dynamic| dynamic.pair(large).is_none()) {
        give_pair(call, large, [(regs.r12, Operand::R12), (regs.r13, Operand::R13)])?;
    }
    for index in 0..512u64 {
        let piece = large.wrapping_add(index * below.bytes());
        if let Some(entry) = tdmr.entry(call.machine.memory(), below, piece) {
            entry.assign(PageType::REG, owner.tdr.hpa);
        }
    }
    page.entry.free();
    table_page.entry.assign(PageType::EPT, owner.tdr.hpa);
    owner.tdr.add_children(1);
    target.entry.set(SeptEntry::table(table));
    call.mapping_was_split(owner.tdr.hpa, target.what.gpa, level);
    Ok(())
}
