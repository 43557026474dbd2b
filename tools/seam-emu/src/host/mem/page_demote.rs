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
use tdx_module_iface::{GpaLevel, Gprs, Operand, Reg, StatusCode, TdhLeaf};

use super::{LARGE, Operands, context, lock_implicit, make_sept_page, target, write_sept_page};
use crate::host::phymem::pamt::give_pair;
use crate::host::steps::{
    check_blocked, check_entry_state, check_tracked, lock_free_page, op_states, sept_states, tdmr_of,
};
use crate::host::{Call, Step, at, invalid, plain};
use crate::l2::Vm;
use crate::lock::Mode;
use crate::module::pamt::PamtPage;
use crate::td::Tdcs;
use crate::td::l2::{self, L2Slot, Use};

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
    let level = target.what.level();
    let below = level.down().ok_or(invalid(Operand::RCX))?;
    let large = target.entry.entry().hpa().align_down(level.bytes());
    let bepoch = super::implicit_entry(call, large, level).map_or(0, |entry| entry.bepoch());
    check_tracked(&context.tdcs, bepoch, Operand::RCX)?;
    let (table, table_page) = lock_free_page(call, regs.r8, Operand::R8)?;
    let owner = &context.owner;
    let aliases = target.entry.entry().0 & SeptEntry::L2_ALIASES;
    let split =
        Split { tdcs: &context.tdcs, what: target.what, aliases, unaliased: Unaliased::of(operands.rdx) };
    let pages = split.pages(call, regs)?;
    write_sept_page(call, owner, table, |index| {
        let piece = large.wrapping_add(index * below.bytes());
        let entry = if state.is_pending() { SeptEntry::pending(piece) } else { SeptEntry::mapped(piece) };
        SeptEntry(entry.0 | aliases)
    });
    if is_interruptible(call) && call.interrupted() {
        operands.restore(regs);
        return Err(plain(StatusCode::INTERRUPTED_RESTARTABLE));
    }
    let l2 = split.places(pages, regs)?;
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
    let how = if state.is_pending() { Use::Blocked } else { Use::Open };
    for new in l2.into_iter().flatten() {
        make_sept_page(call, owner, new.hpa, &new.page, l2::FREE);
        l2::split(&context.tdcs, &new.at, new.hpa, how);
        owner.tdr.add_children(1);
    }
    split.give_back(regs);
    call.mapping_was_split(owner.tdr.hpa, target.what.gpa(), level);
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

/// What becomes of pages for L2 VMs that do not map the page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unaliased {
    /// The pages become tables with nothing in them.
    Linked,
    /// The pages come back.
    Returned,
}

impl Unaliased {
    const fn of(rdx: u64) -> Self {
        if rdx & L2_PAGES != 0 { Self::Returned } else { Self::Linked }
    }
}

/// A page for each L2 VM that gets one.
type Pages<'m> = [Option<(Hpa, PamtPage<'m>)>; 3];

/// A page that becomes a table of an L2 VM.
struct L2Page<'m> {
    hpa: Hpa,
    page: PamtPage<'m>,
    at: L2Slot<'m>,
}

/// The split as far as it concerns L2 VMs.
struct Split<'a, 'm> {
    tdcs: &'a Tdcs<'m>,
    what: GpaLevel,
    /// The alias bits of the entry.
    aliases: u64,
    unaliased: Unaliased,
}

impl<'m> Split<'_, 'm> {
    fn vms(&self) -> impl Iterator<Item = (Vm, Reg)> + use<> {
        l2::vms(self.tdcs).zip(L2_OPERANDS)
    }

    fn is_aliased(&self, vm: Vm) -> bool {
        self.aliases & l2::alias(vm) != 0
    }

    /// Checks and locks the pages for L2 VMs: those that map the page need one each. Bit 63, with which an earlier call
    /// may have given one back, does not count.
    fn pages(&self, call: &Call<'m>, regs: &Gprs) -> Step<Pages<'m>> {
        let mut pages = [const { None }; 3];
        for ((vm, reg), page) in self.vms().zip(&mut pages) {
            let pa = regs.get(reg);
            if pa == NO_PAGE {
                if self.is_aliased(vm) {
                    return Err(at(StatusCode::L2_SEPT_PAGE_NOT_PROVIDED, Operand::from_reg(reg)));
                }
            } else if self.is_aliased(vm) || self.unaliased == Unaliased::Linked {
                *page = Some(lock_free_page(call, pa & !NOT_USED, Operand::from_reg(reg))?);
            }
        }
        Ok(pages)
    }

    /// Finds where they become tables.
    fn places(&self, pages: Pages<'m>, regs: &mut Gprs) -> Step<[Option<L2Page<'m>>; 3]> {
        let mut placed = [const { None }; 3];
        for (((vm, _), page), placed) in self.vms().zip(pages).zip(&mut placed) {
            let Some((hpa, page)) = page else { continue };
            let at = if self.is_aliased(vm) {
                l2::large_entry(self.tdcs, vm, self.what)
            } else {
                l2::entry_for_table(self.tdcs, vm, self.what, l2::Existing::Refused, regs)?
            };
            *placed = at.map(|at| L2Page { hpa, page, at });
        }
        Ok(placed)
    }

    /// Marks the operands that were not needed.
    fn give_back(&self, regs: &mut Gprs) {
        for (vm, reg) in self.vms() {
            let pa = regs.get(reg);
            if self.unaliased == Unaliased::Returned && !self.is_aliased(vm) && pa != NO_PAGE {
                regs.set(reg, pa | NOT_USED);
            }
        }
    }
}
