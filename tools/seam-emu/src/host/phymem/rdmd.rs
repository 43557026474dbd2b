//! TDH.PHYMEM.PAGE.RDMD (24): what the PAMT knows about a page. RCX page; out: RCX type, RDX owner, R8 size, R9
//! BEPOCH of pages that are mapped. Owner and BEPOCH of a free page are left over from its last use.

use tdvisor_base::Level;
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Operand};

use super::size_number;
use crate::host::steps::{lock_page, private_hpa};
use crate::host::{Call, Step};
use crate::lock::Mode;

pub(in crate::host) fn rdmd(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let rcx = core::mem::take(&mut regs.rcx);
    (regs.rdx, regs.r8, regs.r9, regs.r10, regs.r11) = (0, 0, 0, 0, 0);
    let hpa = private_hpa(call, rcx, 4096, Operand::RCX)?;
    let page = lock_page(call, hpa, Level::L4K, Mode::Shared, Operand::RCX)?;
    let page_type = page.entry.page_type();
    regs.rcx = u64::from(page_type.0);
    regs.rdx = page.entry.owner().get();
    regs.r8 = size_number(page.level);
    if matches!(page_type, PageType::REG | PageType::EPT) {
        regs.r9 = page.entry.bepoch();
    }
    Ok(())
}
