//! TDH.SYS.INFO (32), TDH.SYS.RD (34), TDH.SYS.RDALL (37).

use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::tdsysinfo::TdhSysInfo;
use tdx_module_iface::{Gprs, Operand, StatusCode};
use zerocopy::IntoBytes;

use super::Accessor;
use super::leaves::{NextField, read_field};
use super::list::{LIST_BYTES, write_list};
use super::sys::SysFields;
use crate::host::steps::shared_hpa;
use crate::host::{Call, Step, invalid, plain};
use crate::sysinfo::{MAX_CMRS, cmr_table, tdhsysinfo};

/// Alignment of the CMR table that SYS.INFO writes.
const CMR_TABLE_ALIGN: u64 = 512;

fn lp_initialised(call: &Call<'_>) -> Step {
    if call.machine.module.lp_is_initialised(call.lp) {
        Ok(())
    } else {
        Err(plain(StatusCode::SYS_LP_INIT_NOT_DONE))
    }
}

/// Writes to shared memory as the host would, under the key id in the address; addresses that no memory answers
/// swallow the write.
fn write_shared(call: &Call<'_>, pa: u64, bytes: &[u8]) {
    let _ = call.machine.host_write(tdvisor_base::Hpa::new(pa), bytes);
}

/// TDH.SYS.INFO: RCX TDHSYSINFO, RDX its bytes, R8 CMR table, R9 its entries; RDX and R9 get what was used.
pub(crate) fn info(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let (structure, bytes, table, entries) = (regs.rcx, regs.rdx, regs.r8, regs.r9);
    regs.rdx = 0;
    regs.r9 = 0;
    lp_initialised(call)?;
    shared_hpa(call, structure, TdhSysInfo::ALIGN, Operand::RCX)?;
    if bytes < size_of::<TdhSysInfo>() as u64 {
        return Err(invalid(Operand::RDX));
    }
    shared_hpa(call, table, CMR_TABLE_ALIGN, Operand::R8)?;
    if entries < MAX_CMRS as u64 {
        return Err(invalid(Operand::R9));
    }
    write_shared(call, structure, tdhsysinfo(call.machine.config()).as_bytes());
    write_shared(call, table, &cmr_table(call.machine.config()));
    regs.rdx = size_of::<TdhSysInfo>() as u64;
    regs.r9 = MAX_CMRS as u64;
    Ok(())
}

/// TDH.SYS.RD: RDX field, R8 value.
pub(crate) fn read(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let id = FieldId(regs.rdx);
    NextField::Returned.prepare(regs);
    lp_initialised(call)?;
    let fields = SysFields { config: call.machine.config() };
    read_field(&fields, Accessor::Host, NextField::Returned, id, regs)
}

/// TDH.SYS.RDALL: RDX page, R8 first field; R8 gets the field that did not fit.
pub(crate) fn read_all(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let start = FieldId(regs.r8);
    regs.r8 = FieldId::NULL.0;
    lp_initialised(call)?;
    let page = regs.rdx;
    shared_hpa(call, page, LIST_BYTES as u64, Operand::RDX)?;
    let fields = SysFields { config: call.machine.config() };
    let list = write_list(&fields, Accessor::Host, start)?;
    write_shared(call, page, &list.bytes);
    regs.r8 = list.next.0;
    Ok(())
}
