//! TDH.MEM.RD and .WR (12, 14): eight bytes of a debug TD's private memory. RCX GPA, RDX TDR, R8 the value (the
//! old one is returned).

use tdvisor_base::{Gpa, Hpa, Level};
use tdx_module_iface::op_state::OpStates;
use tdx_module_iface::sept::SeptStates;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::{Context, Operands, context};
use crate::host::steps::{
    lock_entry, lock_tree, op_states, private_gpa, report_entry, sept_states, state_incorrect,
};
use crate::host::{Call, Step, at, invalid, plain};
use crate::lock::{Guard, Mode};
use crate::td::sept::{SeptLock, Walk};

pub(in crate::host) fn read(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    regs.r8 = 0;
    let place = locate(
        call,
        &operands,
        const { op_states(TdhLeaf::MEM_RD) },
        const { sept_states(TdhLeaf::MEM_RD) },
        regs,
    )?;
    regs.r8 = call.load_td_word(place.hpa, place.context.owner.tdr.key());
    Ok(())
}

pub(in crate::host) fn write(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let value = core::mem::take(&mut regs.r8);
    let place = locate(
        call,
        &operands,
        const { op_states(TdhLeaf::MEM_WR) },
        const { sept_states(TdhLeaf::MEM_WR) },
        regs,
    )?;
    let key = place.context.owner.tdr.key();
    regs.r8 = call.load_td_word(place.hpa, key);
    call.store_td_word(place.hpa, key, value);
    Ok(())
}

/// The eight bytes, with everything locked that keeps them there.
struct Place<'m> {
    hpa: Hpa,
    context: Context<'m>,
    _tree: Guard<'m>,
    _entry: SeptLock<'m>,
}

fn locate<'m>(
    call: &Call<'m>,
    operands: &Operands,
    states: OpStates,
    allowed: SeptStates,
    regs: &mut Gprs,
) -> Step<Place<'m>> {
    let context = context(call, operands.rdx, states)?;
    if !context.tdcs.is_debug() {
        return Err(plain(StatusCode::TD_NON_DEBUG));
    }
    let gpa = Gpa::new(operands.rcx);
    if !gpa.is_aligned(8) {
        return Err(invalid(Operand::RCX));
    }
    private_gpa(&context.tdcs, gpa)?;
    let tree = lock_tree(&context.tdcs, Mode::Shared)?;
    let not_present = at(StatusCode::EPT_ENTRY_NOT_PRESENT, Operand::RCX);
    // The walk ends at a leaf of any size.
    let slot = match context.tdcs.walk(gpa, Level::L4K).ok_or(not_present)? {
        Walk::Found(slot) | Walk::Stopped(slot) => slot,
    };
    let entry = lock_entry(slot)?;
    let state = entry.state();
    if !SeptStates::GUEST_ACCESSIBLE_LEAF.contains(state) {
        report_entry(regs, &slot);
        return Err(not_present);
    }
    if !allowed.contains(state) {
        return Err(state_incorrect(regs, &slot));
    }
    let offset = gpa.get() & (slot.level.bytes() - 1);
    let hpa = entry.entry().hpa().align_down(slot.level.bytes()).wrapping_add(offset);
    Ok(Place { hpa, context, _tree: tree, _entry: entry })
}
