//! TDH.MEM.PAGE.DEMOTE (15): splits a blocked large page into 512 of the next smaller size. RCX GPA and level
//! (2M, 1G), RDX TDR (bit 0: pages for L2 VMs in R9 to R11 are taken only where an L2 VM maps the page), R8 new Secure-EPT page; with dynamic PAMT, R12
//! and R13 pages for the PAMT entries of the pieces.
//!
//! Up to the interrupt check nothing but the new page's contents has changed: an interrupted call is repeated
//! with the same operands.

use tdvisor_base::{Hpa, Level};
use tdx_module_iface::leaf::Interruption;
use tdx_module_iface::sept::SeptEntry;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, Reg, StatusCode, TdhLeaf};

use super::{LARGE, Operands, context, lock_implicit, make_sept_page, target, write_sept_page};
use crate::host::phymem::pamt::give_pair;
use crate::host::steps::{
    GpaLevel, check_blocked, check_entry_state, check_tracked, lock_free_page, op_states, sept_states,
    tdmr_of,
};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;
use crate::module::pamt::PamtPage;
use crate::td::Tdcs;
use crate::td::l2::{self, L2Target};

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
    let only_where_mapped = operands.rdx & L2_PAGES != 0;
    let l2 = l2_pages(call, &context.tdcs, target.what, only_where_mapped, regs)?;
    write_sept_page(call, owner, table, |index| {
        let piece = large.wrapping_add(index * below.bytes());
        if state.is_pending() { SeptEntry::pending(piece) } else { SeptEntry::mapped(piece) }
    });
    if is_interruptible(call) && call.interrupted() {
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
    for new in l2.into_iter().flatten() {
        make_sept_page(call, owner, new.hpa, &new.page, l2::FREE);
        new.at.link(new.hpa);
        owner.tdr.add_children(1);
    }
    if only_where_mapped {
        give_back_l2_pages(&context.tdcs, regs);
    }
    call.mapping_was_split(owner.tdr.hpa, target.what.gpa, level);
    Ok(())
}

/// Whether the release looks for interrupts of the host before it commits.
fn is_interruptible(call: &Call<'_>) -> bool {
    let release = call.machine.config().profile.release();
    TdhLeaf::MEM_PAGE_DEMOTE.info().is_some_and(|info| info.interruption_in(release) != Interruption::Never)
}

/// An operand that names no page, and the mark of one that was not needed.
const NO_PAGE: u64 = u64::MAX;
const NOT_USED: u64 = 1 << 63;
const L2_OPERANDS: [Reg; 3] = [Reg::R9, Reg::R10, Reg::R11];

/// A page that becomes a table of an L2 VM.
struct L2Page<'m> {
    hpa: Hpa,
    page: PamtPage<'m>,
    at: L2Target<'m>,
}

/// Checks the pages for L2 VMs. Unless the caller left it to the module, all of them are used. No L2 VM maps
/// pages here, so the module would use none.
fn l2_pages<'m>(
    call: &Call<'m>,
    tdcs: &Tdcs<'m>,
    what: GpaLevel,
    only_where_mapped: bool,
    regs: &mut Gprs,
) -> Step<[Option<L2Page<'m>>; 3]> {
    let mut pages = [const { None }; 3];
    if only_where_mapped {
        return Ok(pages);
    }
    for ((vm, reg), page) in (1..=tdcs.num_l2_vms()).zip(L2_OPERANDS).zip(&mut pages) {
        let pa = regs.get(reg);
        if pa == NO_PAGE {
            continue;
        }
        if let Some(at) = l2::entry_for_table(tdcs, vm, what, l2::Existing::Refused, regs)? {
            let (hpa, locked) = lock_free_page(call, pa, Operand::from_reg(reg))?;
            *page = Some(L2Page { hpa, page: locked, at });
        }
    }
    Ok(pages)
}

/// Marks the operands that were not needed.
fn give_back_l2_pages(tdcs: &Tdcs<'_>, regs: &mut Gprs) {
    for (_, reg) in (1..=tdcs.num_l2_vms()).zip(L2_OPERANDS) {
        let pa = regs.get(reg);
        if pa != NO_PAGE {
            regs.set(reg, pa | NOT_USED);
        }
    }
}
