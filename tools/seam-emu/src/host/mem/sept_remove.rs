//! TDH.MEM.SEPT.REMOVE (30): takes an empty Secure-EPT page away. RCX GPA and level of the entry, RDX TDR; RCX
//! receives the page, and in version 1 R9 to R11 those of the L2 VMs (all ones: none).

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Hpa, Level};
use tdx_module_iface::sept::{SeptEntry, SeptState};
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::{Context, Operands, context, implicit_entry, lock_implicit, target, up_to_root};
use crate::host::steps::{
    check_blocked, check_entry_state, check_tracked, op_states, report_entry, sept_states,
};
use crate::host::{Call, Step, at, invalid};
use crate::lock::Mode;
use crate::td::l2;

pub(in crate::host) fn sept_remove(call: &Call<'_>, regs: &mut Gprs, version: u8) -> Step {
    let operands = Operands::take(regs);
    if version > 0 {
        [regs.r9, regs.r10, regs.r11] = [u64::MAX; 3];
    }
    if version > 1 {
        return Err(invalid(Operand::RAX));
    }
    let context = context(call, operands.rdx, const { op_states(TdhLeaf::MEM_SEPT_REMOVE) })?;
    let levels = up_to_root(&context.tdcs, Level::L2M);
    let target = target(&context.tdcs, operands.rcx, levels, Mode::Exclusive, regs)?;
    let slot = target.entry.slot();
    check_entry_state(regs, &slot, const { sept_states(TdhLeaf::MEM_SEPT_REMOVE) })?;
    check_blocked(&context.tdcs, regs, &slot)?;
    let hpa = target.entry.entry().hpa();
    let page = lock_implicit(call, hpa, Level::L4K, Operand::RCX)?;
    check_tracked(&context.tdcs, page.entry.bepoch(), Operand::RCX)?;
    if !is_empty(&context, hpa) {
        report_entry(regs, &slot);
        return Err(at(StatusCode::EPT_PAGE_NOT_FREE, Operand::RCX));
    }
    target.entry.set(SeptEntry::FREE);
    page.entry.free();
    context.owner.tdr.remove_children(1);
    call.table_left_td(context.owner.tdr.hpa, target.what.gpa(), slot.level, hpa);
    let l2 = l2::unlink_tables(&context.tdcs, target.what);
    for l2_page in l2.into_iter().filter(|page| *page != u64::MAX) {
        if let Some(entry) = implicit_entry(call, Hpa::new(l2_page), Level::L4K) {
            entry.free();
            context.owner.tdr.remove_children(1);
        }
    }
    if version > 0 {
        [regs.r9, regs.r10, regs.r11] = l2;
    }
    regs.rcx = hpa.get();
    Ok(())
}

/// Whether every entry of a table page is FREE.
fn is_empty(context: &Context<'_>, hpa: Hpa) -> bool {
    context.tdcs.table(hpa).is_some_and(|table| {
        table.iter().all(|word| SeptEntry(word.load(Ordering::Acquire)).state() == Some(SeptState::Free))
    })
}
