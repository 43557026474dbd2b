//! TDG.VM.RD (7), TDG.VM.WR (8), TDG.VP.RD (9), TDG.VP.WR (10), TDG.SYS.RD (11).
//!
//! The guest asks about itself only: RCX is zero. Its TD is held by the VP.ENTER that runs it, so there are no
//! locks and no states to check.

use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::{Gprs, Operand};

use super::leaves::{NextField, read_field, write_field};
use super::list::{List, write_list};
use super::sys::SysFields;
use super::td::TdFields;
use super::vp::VpFields;
use super::{Accessor, LATEST_VERSION};
use crate::host::{Step, invalid};
use crate::machine::Machine;
use crate::td::{Tdcs, Tdr, Tdvps};

fn itself(rcx: u64) -> Step {
    if rcx == 0 { Ok(()) } else { Err(invalid(Operand::RCX)) }
}

/// TDG.VM.RD: RDX field; R8 value and, in version 1, RDX next field.
pub(crate) fn vm_read(
    machine: &Machine,
    tdr: &Tdr<'_>,
    tdcs: &Tdcs<'_>,
    regs: &mut Gprs,
    version: u8,
) -> Step {
    let mode = NextField::by_version(version);
    let id = FieldId(regs.rdx);
    mode.prepare(regs);
    if version > LATEST_VERSION {
        return Err(invalid(Operand::RAX));
    }
    itself(regs.rcx)?;
    read_field(&TdFields::new(machine, tdr, tdcs), Accessor::Guest, mode, id, regs)
}

/// TDG.VM.WR: RDX field, R8 value, R9 mask; R8 gets the old value.
pub(crate) fn vm_write(machine: &Machine, tdr: &Tdr<'_>, tdcs: &Tdcs<'_>, regs: &mut Gprs) -> Step {
    let (id, value, mask) = (FieldId(regs.rdx), regs.r8, regs.r9);
    regs.r8 = 0;
    itself(regs.rcx)?;
    write_field(&TdFields::new(machine, tdr, tdcs), Accessor::Guest, id, value, mask, regs)
}

/// TDG.VP.RD: RDX field; R8 value, RDX next field.
pub(crate) fn vp_read(
    machine: &Machine,
    tdr: &Tdr<'_>,
    tdvps: &Tdvps<'_>,
    tdcs: &Tdcs<'_>,
    regs: &mut Gprs,
) -> Step {
    let id = FieldId(regs.rdx);
    NextField::Returned.prepare(regs);
    itself(regs.rcx)?;
    let fields = VpFields::new(machine, tdr, tdvps, tdcs, Accessor::Guest);
    read_field(&fields, Accessor::Guest, NextField::Returned, id, regs)
}

/// TDG.VP.WR: RDX field, R8 value, R9 mask; R8 gets the old value.
pub(crate) fn vp_write(
    machine: &Machine,
    tdr: &Tdr<'_>,
    tdvps: &Tdvps<'_>,
    tdcs: &Tdcs<'_>,
    regs: &mut Gprs,
) -> Step {
    let (id, value, mask) = (FieldId(regs.rdx), regs.r8, regs.r9);
    regs.r8 = 0;
    itself(regs.rcx)?;
    write_field(
        &VpFields::new(machine, tdr, tdvps, tdcs, Accessor::Guest),
        Accessor::Guest,
        id,
        value,
        mask,
        regs,
    )
}

/// TDG.SYS.RD: RDX field; R8 value, RDX next field.
pub(crate) fn sys_read(machine: &Machine, regs: &mut Gprs) -> Step {
    let id = FieldId(regs.rdx);
    let fields = SysFields { config: machine.config() };
    read_field(&fields, Accessor::Guest, NextField::Returned, id, regs)
}

/// The list that TDG.SYS.RDALL writes to the guest's page, from field `start` (R8) on.
///
/// # Errors
/// As [`write_list`].
pub(crate) fn sys_list(machine: &Machine, start: FieldId) -> Step<List> {
    write_list(&SysFields { config: machine.config() }, Accessor::Guest, start)
}
