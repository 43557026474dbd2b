//! From RAX to a leaf (Intel 348551, SEAMCALL).

use tdx_module_iface::leaf::Readiness;
use tdx_module_iface::lifecycle::SysState;
use tdx_module_iface::{Gprs, LeafWord, Operand, Status, StatusCode, TdhLeaf};

use super::leaves::{self, Run};
use super::{Call, Step, invalid, plain, vp};
use crate::guest::GuestCpu;

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
    let release = call.machine.config().profile.release();
    let leaf = leaves::find(TdhLeaf(word.leaf())).filter(|leaf| leaf.info.exists_in(release));
    let version = word.version();
    // A leaf that has versions refuses those above its greatest itself.
    let has_versions = || leaf.is_some_and(|leaf| leaf.info.max_version(release) > 0);
    if word.has_reserved_bits() || (version != 0 && !has_versions()) {
        return Err(invalid(Operand::RAX));
    }
    let readiness = leaf.map_or(Readiness::Ready, |leaf| leaf.info.ready);
    match call.machine.module.state() {
        SysState::READY => {}
        SysState::SHUTDOWN if readiness != Readiness::Always => return Err(plain(StatusCode::SYS_SHUTDOWN)),
        _ if readiness == Readiness::Ready => return Err(plain(StatusCode::SYS_NOT_READY)),
        _ => {}
    }
    let Some(leaf) = leaf else { return Err(invalid(Operand::RAX)) };
    match leaf.run {
        Run::Reads(run) => run(call, regs).map(|()| Status::SUCCESS),
        Run::Leaf(run) => run(call, regs).map(|()| Status::SUCCESS),
        Run::Versioned(run) => run(call, regs, version).map(|()| Status::SUCCESS),
        Run::Enter => vp::enter::enter(call, regs, guest),
        Run::Nothing => Ok(Status::SUCCESS),
        Run::Absent => Err(invalid(Operand::RAX)),
    }
}
