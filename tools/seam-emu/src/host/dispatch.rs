//! From RAX to a leaf (leaves reference, section 1).

use tdx_module_iface::lifecycle::SysState;
use tdx_module_iface::{Gprs, LeafWord, Operand, Status, StatusCode, TdhLeaf};

use super::{Call, Step, invalid, mem, mng, mr, phymem, plain, sys, vp};
use crate::guest::GuestCpu;

/// Leaves that accept a version other than 0; the leaf itself refuses versions above 1.
const VERSIONED: [TdhLeaf; 5] = [
    TdhLeaf::MEM_SEPT_ADD,
    TdhLeaf::MEM_SEPT_REMOVE,
    TdhLeaf::MEM_PAGE_PROMOTE,
    TdhLeaf::MNG_RD,
    TdhLeaf::VP_RD,
];

/// Leaves that run before the module is ready.
const BEFORE_READY: [TdhLeaf; 9] = [
    TdhLeaf::SYS_KEY_CONFIG,
    TdhLeaf::SYS_INFO,
    TdhLeaf::SYS_INIT,
    TdhLeaf::SYS_RD,
    TdhLeaf::SYS_LP_INIT,
    TdhLeaf::SYS_RDALL,
    TdhLeaf::SYS_LP_SHUTDOWN,
    TdhLeaf::SYS_CONFIG,
    TdhLeaf::SYS_UPDATE,
];

/// Runs a SEAMCALL; RAX receives its status.
pub(crate) fn dispatch(call: &Call<'_>, regs: &mut Gprs, guest: Option<&mut dyn GuestCpu>) {
    let status = match run(call, regs, guest) {
        Ok(status) => status,
        Err(status) => status,
    };
    regs.rax = status.raw();
}

fn run(call: &Call<'_>, regs: &mut Gprs, guest: Option<&mut dyn GuestCpu>) -> Step<Status> {
    let word = LeafWord(regs.rax);
    let leaf = TdhLeaf(word.leaf());
    let version = word.version();
    if word.has_reserved_bits() || (version != 0 && !VERSIONED.contains(&leaf)) {
        return Err(invalid(Operand::RAX));
    }
    let state = call.machine.module.state();
    if state != SysState::READY {
        if state == SysState::SHUTDOWN && leaf != TdhLeaf::SYS_LP_SHUTDOWN {
            return Err(plain(StatusCode::SYS_SHUTDOWN));
        }
        if !BEFORE_READY.contains(&leaf) {
            return Err(plain(StatusCode::SYS_NOT_READY));
        }
    }
    let done = |()| Status::SUCCESS;
    match leaf {
        TdhLeaf::VP_ENTER => vp::enter::enter(call, regs, guest),
        TdhLeaf::MNG_ADDCX => mng::addcx::addcx(call, regs).map(done),
        TdhLeaf::MEM_PAGE_ADD => mem::page_add::page_add(call, regs).map(done),
        TdhLeaf::MEM_SEPT_ADD => mem::sept_add::sept_add(call, regs, version).map(done),
        TdhLeaf::VP_ADDCX => vp::addcx::addcx(call, regs).map(done),
        TdhLeaf::MEM_PAGE_RELOCATE => mem::page_relocate::page_relocate(call, regs).map(done),
        TdhLeaf::MEM_PAGE_AUG => mem::page_aug::page_aug(call, regs).map(done),
        TdhLeaf::MEM_RANGE_BLOCK => mem::range_block::range_block(call, regs).map(done),
        TdhLeaf::MNG_KEY_CONFIG => mng::key_config::key_config(call, regs).map(done),
        TdhLeaf::MNG_CREATE => mng::create::create(call, regs).map(done),
        TdhLeaf::VP_CREATE => vp::create::create(call, regs).map(done),
        TdhLeaf::MNG_RD => crate::metadata::td_leaves::read(call, regs, version).map(done),
        TdhLeaf::MEM_RD => mem::rd_wr::read(call, regs).map(done),
        TdhLeaf::MNG_WR => crate::metadata::td_leaves::write(call, regs).map(done),
        TdhLeaf::MEM_WR => mem::rd_wr::write(call, regs).map(done),
        TdhLeaf::MEM_PAGE_DEMOTE => mem::page_demote::page_demote(call, regs).map(done),
        TdhLeaf::MR_EXTEND => mr::extend::extend(call, regs).map(done),
        TdhLeaf::MR_FINALIZE => mr::finalize::finalize(call, regs).map(done),
        TdhLeaf::VP_FLUSH => vp::flush::flush(call, regs).map(done),
        TdhLeaf::MNG_VPFLUSHDONE => mng::vpflushdone::vpflushdone(call, regs).map(done),
        TdhLeaf::MNG_KEY_FREEID => mng::key_freeid::key_freeid(call, regs).map(done),
        TdhLeaf::MNG_INIT => crate::td_params::leaf::init(call, regs).map(done),
        TdhLeaf::VP_INIT => vp::init::init(call, regs).map(done),
        TdhLeaf::MEM_PAGE_PROMOTE => mem::page_promote::page_promote(call, regs, version).map(done),
        TdhLeaf::PHYMEM_PAGE_RDMD => phymem::rdmd::rdmd(call, regs).map(done),
        TdhLeaf::MEM_SEPT_RD => mem::sept_rd::sept_rd(call, regs).map(done),
        TdhLeaf::VP_RD => crate::metadata::vp_leaves::read(call, regs, version).map(done),
        // Kept for compatibility; the module does nothing (leaves reference, 6.3).
        TdhLeaf::MNG_KEY_RECLAIMID => Ok(Status::SUCCESS),
        TdhLeaf::PHYMEM_PAGE_RECLAIM => phymem::reclaim::reclaim(call, regs).map(done),
        TdhLeaf::MEM_PAGE_REMOVE => mem::page_remove::page_remove(call, regs).map(done),
        TdhLeaf::MEM_SEPT_REMOVE => mem::sept_remove::sept_remove(call, regs, version).map(done),
        TdhLeaf::SYS_KEY_CONFIG => sys::key_config::key_config(call).map(done),
        TdhLeaf::SYS_INFO => crate::metadata::sys::info(call, regs).map(done),
        TdhLeaf::SYS_INIT => sys::init::init(call, regs).map(done),
        TdhLeaf::SYS_RD => crate::metadata::sys::read(call, regs).map(done),
        TdhLeaf::SYS_LP_INIT => sys::lp_init::lp_init(call).map(done),
        TdhLeaf::SYS_TDMR_INIT => sys::tdmr_init::tdmr_init(call, regs).map(done),
        TdhLeaf::SYS_RDALL => crate::metadata::sys::read_all(call, regs).map(done),
        TdhLeaf::MEM_TRACK => mem::track::track(call, regs).map(done),
        TdhLeaf::MEM_RANGE_UNBLOCK => mem::range_unblock::range_unblock(call, regs).map(done),
        TdhLeaf::PHYMEM_CACHE_WB => phymem::cache_wb::cache_wb(call, regs).map(done),
        TdhLeaf::PHYMEM_PAGE_WBINVD => phymem::wbinvd::wbinvd(call, regs).map(done),
        TdhLeaf::PHYMEM_PAMT_ADD if call.machine.config().profile.has_dynamic_pamt() => {
            phymem::pamt::add(call, regs).map(done)
        }
        TdhLeaf::PHYMEM_PAMT_REMOVE if call.machine.config().profile.has_dynamic_pamt() => {
            phymem::pamt::remove(call, regs).map(done)
        }
        TdhLeaf::VP_WR => crate::metadata::vp_leaves::write(call, regs).map(done),
        // No state of the processor depends on it here (leaves reference, 6.5; recorded: no effect).
        TdhLeaf::SYS_LP_SHUTDOWN => Ok(Status::SUCCESS),
        TdhLeaf::SYS_CONFIG => sys::config::config(call, regs).map(done),
        TdhLeaf::SYS_SHUTDOWN => sys::shutdown::shutdown(call, regs).map(done),
        TdhLeaf::SYS_UPDATE => sys::update::update(call).map(done),
        _ => Err(invalid(Operand::RAX)),
    }
}
