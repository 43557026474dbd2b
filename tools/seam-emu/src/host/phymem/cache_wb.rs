//! TDH.PHYMEM.CACHE.WB (40): writes back this package's cache lines of all flushed key ids. RCX 0 begins, 1 goes
//! on after an interrupt.

use tdvisor_base::KeyId;
use tdx_module_iface::{Gprs, Operand, StatusCode};

use crate::host::{Call, Step, busy, invalid, plain};
use crate::lock::Mode;

pub(in crate::host) fn cache_wb(call: &Call<'_>, regs: &Gprs) -> Step {
    if regs.rcx > 1 {
        return Err(invalid(Operand::RCX));
    }
    let package = call.package();
    let module = &call.machine.module;
    let refused = busy(Operand::WBCACHE);
    let operation = module.write_back.get(package as usize).ok_or(refused)?;
    let _lock = operation.lock().map_err(|_| refused)?;
    let _kot = module.kot.lock(Mode::Shared).map_err(|_| busy(Operand::KOT))?;
    if regs.rcx == 0 {
        let hkids = module.kot.flushed();
        if hkids.is_empty() {
            return Err(plain(StatusCode::NO_HKID_READY_TO_WBCACHE));
        }
        operation.set_hkids(hkids);
        operation.set_position(0);
    } else if operation.position() == 0 {
        return Err(plain(StatusCode::WBCACHE_RESUME_ERROR));
    }
    let blocks = u64::from(call.machine.config().wbinvd_sub_blocks);
    let mut position = operation.position();
    while position < blocks {
        position += 1;
        if position < blocks && call.interrupted() {
            operation.set_position(position);
            return Err(plain(StatusCode::INTERRUPTED_RESUMABLE));
        }
    }
    operation.set_position(0);
    let hkids = operation.hkids();
    module.kot.mark_written(&hkids, package);
    for hkid in hkids {
        if module.kot.unwritten_packages(hkid) == 0 {
            call.machine.note_key_written_back(KeyId::new(hkid));
        }
    }
    Ok(())
}
