//! TDH.MNG.RD (11) and TDH.MNG.WR (13).

use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::{Gprs, Operand, TdhLeaf};

use super::leaves::{NextField, read_field, write_field};
use super::td::TdFields;
use super::{Accessor, LATEST_VERSION};
use crate::host::steps::{check_and_lock_state, lock_tdr, op_states};
use crate::host::{Call, Step, invalid};
use crate::lock::Mode;

/// RCX TDR, RDX field; R8 value and, in version 1, RDX next field.
pub(crate) fn read(call: &Call<'_>, regs: &mut Gprs, version: u8) -> Step {
    let mode = NextField::by_version(version);
    let id = FieldId(regs.rdx);
    mode.prepare(regs);
    if version > LATEST_VERSION {
        return Err(invalid(Operand::RAX));
    }
    let td = lock_tdr(call, regs.rcx, Mode::Shared, Operand::RCX)?;
    let (tdcs, _state) = check_and_lock_state(&td.tdr, op_states(TdhLeaf::MNG_RD), Mode::Shared)?;
    let fields = TdFields::new(call.machine, &td.tdr, &tdcs);
    read_field(&fields, Accessor::host_of(tdcs.attributes()), mode, id, regs)
}

/// RCX TDR, RDX field, R8 value, R9 mask; R8 gets the old value.
pub(crate) fn write(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let (id, value, mask) = (FieldId(regs.rdx), regs.r8, regs.r9);
    regs.r8 = 0;
    let td = lock_tdr(call, regs.rcx, Mode::Shared, Operand::RCX)?;
    let (tdcs, _state) = check_and_lock_state(&td.tdr, op_states(TdhLeaf::MNG_WR), Mode::Shared)?;
    let fields = TdFields::new(call.machine, &td.tdr, &tdcs);
    write_field(&fields, Accessor::host_of(tdcs.attributes()), id, value, mask, regs)
}
