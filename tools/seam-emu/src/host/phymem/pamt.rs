//! TDH.PHYMEM.PAMT.ADD and .REMOVE (58, 59; release 2.0): memory for the 4 KiB PAMT entries of a 2 MiB range. RCX
//! level (1) and range, RDX and R8 the pair of pages.

use tdvisor_base::{Hpa, Level};
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use crate::host::steps::{lock_page, private_hpa, tdmr_of};
use crate::host::{Call, Step, at, busy, invalid};
use crate::lock::Mode;
use crate::module::dynamic_pamt::DynamicPamt;
use crate::module::tdmr::Tdmr;

const LEVEL_2M: u64 = Level::L2M as u64;
const LEVEL_BITS: u64 = 0xfff;

/// The range that RCX names, and its TDMR.
fn range<'m>(call: &Call<'m>, rcx: u64) -> Step<(Hpa, &'m Tdmr, &'m DynamicPamt)> {
    if rcx & LEVEL_BITS != LEVEL_2M {
        return Err(invalid(Operand::RCX));
    }
    let hpa = private_hpa(call, rcx & !LEVEL_BITS, Level::L2M.bytes(), Operand::RCX)?;
    let tdmr = tdmr_of(call, hpa, Operand::RCX)?;
    let dynamic = tdmr.dynamic().ok_or(invalid(Operand::RAX))?;
    Ok((hpa, tdmr, dynamic))
}

pub(in crate::host) fn add(call: &Call<'_>, regs: &Gprs) -> Step {
    let (hpa, _, dynamic) = range(call, regs.rcx)?;
    let page = lock_page(call, hpa, Level::L2M, Mode::Exclusive, Operand::RCX)?;
    if page.level != Level::L2M || !page.entry.is_free() || dynamic.pair(hpa).is_some() {
        return Err(at(StatusCode::HPA_RANGE_NOT_FREE, Operand::RCX));
    }
    give_pair(call, hpa, [(regs.rdx, Operand::RDX), (regs.r8, Operand::R8)])
}

/// Checks two pages and makes them the entries of a range. The caller holds the range's 2 MiB entry exclusively.
pub(in crate::host) fn give_pair(call: &Call<'_>, range: Hpa, pages: [(u64, Operand); 2]) -> Step {
    let memory = call.machine.memory();
    let tdmr = tdmr_of(call, range, Operand::RCX)?;
    let dynamic = tdmr.dynamic().ok_or(invalid(Operand::RAX))?;
    let [(low, low_operand), (high, high_operand)] = pages;
    let low = claim(call, low, low_operand, range)?;
    let high = match claim(call, high, high_operand, range) {
        Ok(high) => high,
        Err(status) => {
            release(call, low);
            return Err(status);
        }
    };
    for page in [low, high] {
        call.take_page(page, call.machine.global_key());
    }
    dynamic.set_pair(range, Some([low, high]));
    tdmr.mark_reserved(memory, range.get(), range.get().saturating_add(Level::L2M.bytes()));
    Ok(())
}

/// Claims a free page for PAMT entries. Its lock keeps away whoever would take it for something else meanwhile.
fn claim(call: &Call<'_>, pa: u64, operand: Operand, range: Hpa) -> Step<Hpa> {
    let hpa = private_hpa(call, pa, 4096, operand)?;
    let tdmr = tdmr_of(call, hpa, operand)?;
    let dynamic = tdmr.dynamic().ok_or(invalid(operand))?;
    let incorrect = at(StatusCode::PAGE_METADATA_INCORRECT, operand);
    if hpa.align_down(Level::L2M.bytes()) == range {
        return Err(incorrect);
    }
    // A page of a range without entries can be used as part of a larger one only.
    let page = if dynamic.pair(hpa).is_some() {
        lock_page(call, hpa, Level::L4K, Mode::Exclusive, operand)?
    } else {
        lock_page(call, hpa, Level::L2M, Mode::Shared, operand)?
    };
    if !page.entry.is_free() || !dynamic.claim(call.machine.memory(), hpa) {
        return Err(incorrect);
    }
    Ok(hpa)
}

fn release(call: &Call<'_>, hpa: Hpa) {
    if let Some(dynamic) = call.machine.module.tdmrs.of_page(hpa).and_then(Tdmr::dynamic) {
        dynamic.release(call.machine.memory(), hpa);
    }
}

pub(in crate::host) fn remove(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let rcx = regs.rcx;
    (regs.rdx, regs.r8) = (0, 0);
    let (hpa, tdmr, dynamic) = range(call, rcx)?;
    let page = lock_page(call, hpa, Level::L2M, Mode::Exclusive, Operand::RCX)?;
    if page.level != Level::L2M {
        return Err(busy(Operand::RCX));
    }
    let pair = dynamic.pair(hpa).ok_or(at(StatusCode::NO_PAMT_PAGE_PAIR, Operand::RCX))?;
    let memory = call.machine.memory();
    let empty = (0..512u64).all(|index| {
        tdmr.entry(memory, Level::L4K, hpa.wrapping_add(index << 12))
            .is_none_or(|entry| matches!(entry.page_type(), PageType::NDA | PageType::RSVD))
    });
    if !empty {
        return Err(at(StatusCode::PAMT_PAGE_NOT_EMPTY, Operand::RCX));
    }
    dynamic.set_pair(hpa, None);
    for page in pair {
        release(call, page);
        call.machine.note_page_left(page, Level::L4K);
    }
    [regs.rdx, regs.r8] = pair.map(Hpa::get);
    Ok(())
}
