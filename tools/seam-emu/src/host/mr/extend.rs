//! TDH.MR.EXTEND (16): adds 256 bytes of a page to MRTD. RCX GPA, RDX TDR.

use tdvisor_base::{Gpa, Level};
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::record;
use crate::host::steps::{check_state, lock_tdr, op_states, private_gpa, report_entry, sept_states};
use crate::host::{Call, Step, at, invalid};
use crate::lock::Mode;
use crate::td::sept::Walk;

pub(in crate::host) fn extend(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let rcx = core::mem::take(&mut regs.rcx);
    let rdx = core::mem::take(&mut regs.rdx);
    let owner = lock_tdr(call, rdx, Mode::Exclusive, Operand::RDX)?;
    let tdcs = check_state(&owner.tdr, const { op_states(TdhLeaf::MR_EXTEND) })?;
    let gpa = Gpa::new(rcx);
    if !gpa.is_aligned(256) {
        return Err(invalid(Operand::RCX));
    }
    private_gpa(&tdcs, gpa)?;
    let not_present = at(StatusCode::EPT_ENTRY_NOT_PRESENT, Operand::RCX);
    let slot = match tdcs.walk(gpa, Level::L4K).ok_or(not_present)? {
        Walk::Found(slot) | Walk::Stopped(slot) => slot,
    };
    if !const { sept_states(TdhLeaf::MR_EXTEND) }.contains(slot.state()) {
        report_entry(regs, &slot);
        return Err(not_present);
    }
    let offset = gpa.get() & (slot.level.bytes() - 1);
    let hpa = slot.entry().hpa().align_down(slot.level.bytes()).wrapping_add(offset);
    let mut chunk = [0; 256];
    // A page that the host broke measures as zero; its owner finds out at its first access.
    let _ = call.read_td(hpa, owner.tdr.key(), &mut chunk);
    call.machine.module.extend_mrtd(owner.tdr.hpa, &[&record(b"MR.EXTEND", gpa), &chunk]);
    Ok(())
}
