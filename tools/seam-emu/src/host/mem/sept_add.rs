//! TDH.MEM.SEPT.ADD (3): a page of the Secure EPT. RCX GPA and level of the entry, RDX TDR (bit 0: the page may
//! exist already), R8 new page; version 1: R9 to R11 new pages for the L2 VMs.
//!
//! Version 1 may be interrupted between two pages. An operand of all ones names no page: in R8 it says that the
//! TD's own page is there already, which is how an interrupted call goes on. Consumed operands come back as
//! all ones, operands that were not needed with bit 63 set; a host may give those again as they came back.

use tdvisor_base::{Hpa, Level};
use tdx_module_iface::sept::{SeptEntry, SeptState};
use tdx_module_iface::{Gprs, Operand, Reg, StatusCode, TdhLeaf};

use super::{Context, Operands, Target, context, make_sept_page, target, up_to_root};
use crate::host::steps::{check_entry_state, lock_free_page, op_states, sept_states, state_incorrect};
use crate::host::{Call, Step, invalid, plain};
use crate::l2::Vm;
use crate::lock::Mode;
use crate::module::pamt::PamtPage;
use crate::td::l2::{self, Existing, L2Slot};

const ALLOW_EXISTING: u64 = 1;
const RESERVED: u64 = 0xffe | 0xfff << 52;
/// An operand that names no page.
const NO_PAGE: u64 = u64::MAX;
/// Marks a supplied page that was not needed.
const NOT_USED: u64 = 1 << 63;

pub(in crate::host) fn sept_add(call: &Call<'_>, regs: &mut Gprs, version: u8) -> Step {
    let operands = Operands::take(regs);
    if version > 1 {
        return Err(invalid(Operand::RAX));
    }
    let own_page = without_mark(regs.r8);
    if version == 1 {
        for reg in [Reg::R8].into_iter().chain(L2_OPERANDS) {
            regs.set(reg, without_mark(regs.get(reg)));
        }
    }
    if operands.rdx & RESERVED & !ALLOW_EXISTING != 0 {
        return Err(invalid(Operand::RDX));
    }
    let existing = if operands.rdx & ALLOW_EXISTING != 0 { Existing::Allowed } else { Existing::Refused };
    let states = const { op_states(TdhLeaf::MEM_SEPT_ADD) };
    let context = context(call, operands.rdx & !ALLOW_EXISTING, states)?;
    let levels = up_to_root(&context.tdcs, Level::L2M);
    let target = target(&context.tdcs, operands.rcx, levels, Mode::Shared, regs)?;
    let slot = target.entry.slot();
    let state = check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_SEPT_ADD) })?;
    let exists = state != SeptState::Free;
    let own = if exists {
        if own_page == NO_PAGE {
            if version == 0 {
                return Err(invalid(Operand::R8));
            }
        } else if existing == Existing::Refused {
            return Err(state_incorrect(regs, &slot));
        } else if version == 1 {
            regs.r8 |= NOT_USED;
        }
        None
    } else if own_page == NO_PAGE {
        let refused = version == 0;
        return Err(if refused { invalid(Operand::R8) } else { state_incorrect(regs, &slot) });
    } else {
        Some(lock_free_page(call, own_page, Operand::R8)?)
    };
    let l2 =
        if version == 1 { l2_pages(call, &context, &target, existing, regs)? } else { [const { None }; 3] };
    if let Some((hpa, page)) = &own {
        add_page(call, &context, *hpa, page, SeptEntry::FREE);
        target.entry.set(SeptEntry::table(*hpa));
    }
    if version == 0 {
        return Ok(());
    }
    if own.is_some() {
        regs.r8 = NO_PAGE;
    }
    let mut added = own.is_some();
    for (reg, page) in L2_OPERANDS.into_iter().zip(l2) {
        let Some(L2Page { hpa, page, at }) = page else { continue };
        if added && call.interrupted() {
            operands.restore(regs);
            return Err(plain(StatusCode::INTERRUPTED_RESUMABLE));
        }
        add_page(call, &context, hpa, &page, l2::FREE);
        at.link(hpa);
        regs.set(reg, NO_PAGE);
        added = true;
    }
    Ok(())
}

/// An operand as it was before an earlier call gave it back.
const fn without_mark(page: u64) -> u64 {
    if page == NO_PAGE { NO_PAGE } else { page & !NOT_USED }
}

fn add_page(call: &Call<'_>, context: &Context<'_>, hpa: Hpa, page: &PamtPage<'_>, fill: SeptEntry) {
    make_sept_page(call, &context.owner, hpa, page, fill);
    context.owner.tdr.add_children(1);
}

const L2_OPERANDS: [Reg; 3] = [Reg::R9, Reg::R10, Reg::R11];

/// A free page to link into an L2 tree.
struct L2Page<'m> {
    hpa: Hpa,
    page: PamtPage<'m>,
    at: L2Slot<'m>,
}

/// Checks all L2 operands before any page is added; marks those that are not needed, also if a later one fails.
fn l2_pages<'m>(
    call: &Call<'m>,
    context: &Context<'m>,
    target: &Target<'m>,
    existing: Existing,
    regs: &mut Gprs,
) -> Step<[Option<L2Page<'m>>; 3]> {
    let mut pages = [const { None }; 3];
    for ((number, reg), page) in (1u8..).zip(L2_OPERANDS).zip(&mut pages) {
        let operand = Operand::from_reg(reg);
        let pa = regs.get(reg);
        if pa == NO_PAGE {
            continue;
        }
        let exists = u16::from(number) <= context.tdcs.num_l2_vms();
        let vm = Vm::l2(number).filter(|_| exists).ok_or(invalid(operand))?;
        match l2::entry_for_table(&context.tdcs, vm, target.what, existing, regs)? {
            None => regs.set(reg, pa | NOT_USED),
            Some(at) => {
                let (hpa, locked) = lock_free_page(call, pa, operand)?;
                *page = Some(L2Page { hpa, page: locked, at });
            }
        }
    }
    Ok(pages)
}
