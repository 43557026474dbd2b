//! TDH.PHYMEM.PAGE.WBINVD (41): writes back the cache lines of a free page. RCX page with any key id.

use tdvisor_base::Level;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use crate::host::steps::lock_page;
use crate::host::{Call, Step, at, invalid};
use crate::lock::Mode;

pub(in crate::host) fn wbinvd(call: &Call<'_>, regs: &Gprs) -> Step {
    let config = call.machine.config();
    if !regs.rcx.is_multiple_of(4096) || (config.max_pa < 64 && regs.rcx >> config.max_pa != 0) {
        return Err(invalid(Operand::RCX));
    }
    let (hpa, _) = call.machine.split_pa(regs.rcx);
    let page = lock_page(call, hpa, Level::L4K, Mode::Shared, Operand::RCX)?;
    if page.level != Level::L4K || !page.entry.is_free() {
        return Err(at(StatusCode::PAGE_METADATA_INCORRECT, Operand::RCX));
    }
    call.machine.note_page_written_back(hpa);
    Ok(())
}
