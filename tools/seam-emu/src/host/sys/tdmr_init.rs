//! TDH.SYS.TDMR.INIT (36): makes the next 4 MiB of a TDMR usable. RCX is the TDMR's base; RDX receives the
//! next address to initialise, rounded down to 1 GiB: the memory below it may be used.

use tdx_module_iface::tdmr::TDMR_ALIGN;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use crate::host::{Call, Step, busy, invalid, plain};

pub(in crate::host) fn tdmr_init(call: &Call<'_>, regs: &mut Gprs) -> Step {
    regs.rdx = 0;
    let base = regs.rcx;
    let module = &call.machine.module;
    let tdmr = module.tdmrs.all().iter().find(|tdmr| tdmr.info.base == base);
    let tdmr = tdmr.ok_or(invalid(Operand::RCX))?;
    let _lock = tdmr.lock().map_err(|_| busy(Operand::RCX))?;
    if tdmr.next_to_initialise() >= tdmr.end() {
        return Err(plain(StatusCode::TDMR_ALREADY_INITIALIZED));
    }
    let next = tdmr.initialise_step(call.machine.memory(), call.machine.global_key());
    regs.rdx = next & !(TDMR_ALIGN - 1);
    Ok(())
}
