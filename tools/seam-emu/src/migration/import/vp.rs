//! TDH.IMPORT.STATE.VP (87): the state of a VCPU. RCX TDVPR, R8 MBMD, R9 page list, R10 stream and command; RCX gets the
//! field at fault.

use tdx_module_iface::lifecycle::VcpuState;
use tdx_module_iface::metadata::StateList;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::mbmd::{BundleKind, MbmdBuffer};
use super::super::operands::{Command, StreamCommand};
use super::super::session::Session;
use super::super::stream::{self, StateCall, StatePlace};
use super::list::Reader;
use super::state::{Section, StateImport};
use super::td::is_next;
use super::vp_fields::VcpuTarget;
use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width};
use crate::host::mem::Operands;
use crate::host::steps::{LockedVcpu, check_and_lock_state, check_vcpu_pages, lock_vcpu, op_states};
use crate::host::vp::associate;
use crate::host::{Call, Step, plain};
use crate::lock::Mode;
use crate::metadata::Accessor;
use crate::metadata::vp::VpFields;
use crate::td::Tdcs;
use crate::vcpu::state;

const MIN_PAGES: u64 = 4;
/// Bits of the MBMD that hold the index of the VCPU.
const INDEX: u64 = 0xffff;

pub(crate) fn import(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let operands = Operands::take(regs);
    let vcpu = lock_vcpu(call, operands.rcx, Mode::Exclusive, Operand::RCX)?;
    let (tdr, tdvps) = (&vcpu.owner.tdr, &vcpu.tdvps);
    let states = const { op_states(TdhLeaf::IMPORT_STATE_VP) };
    let (tdcs, _state) = check_and_lock_state(tdr, states, Mode::Shared)?;
    check_vcpu_pages(tdvps, &tdcs)?;
    let command = StreamCommand::new(regs.r10, stream::forward_count(&tdcs))?;
    let stream = stream::lock_forward(&tdcs, command.stream)?;
    let session = Session(&tdcs);
    let import = StateImport {
        call,
        session,
        stream: &stream,
        tdr: tdr.hpa,
        kind: BundleKind::VcpuState,
        what: StateCall { leaf: regs.rax, list: regs.r9, vcpu: operands.rcx },
        operands: [operands.rcx, operands.rdx],
    };
    let place = match command.command() {
        Command::New => begin(&import, &vcpu, &tdcs, regs.r8)?,
        Command::Resume => resume(&import, &vcpu, &tdcs)?,
    };
    let who = Accessor::Importer(StateList::Mutable);
    let target = VcpuTarget { fields: VpFields::new(call.machine, tdr, tdvps, &tdcs, who), tdcs: &tdcs };
    let list = Section { reader: Reader::new(&target, StateList::Mutable), pages: u64::MAX };
    let result = import.read(regs, MIN_PAGES, place, &[list]);
    if let Err(status) = result {
        if status.code() == StatusCode::INTERRUPTED_RESUMABLE {
            tdvps.set_state(VcpuState::IMPORT);
        }
        return Err(status);
    }
    let imported = tdcs.update(tdcs::NUM_MIGRATED_VCPUS, Width::B4, |count| count.wrapping_add(1));
    if imported >= tdcs.load(tdcs::NUM_VCPUS, Width::B4) {
        return Err(session.fail(plain(StatusCode::ALL_VCPUS_IMPORTED)));
    }
    tdvps.set_state(VcpuState::READY);
    session.count_bundle();
    Ok(())
}

fn begin(import: &StateImport<'_, '_>, vcpu: &LockedVcpu<'_>, tdcs: &Tdcs<'_>, r8: u64) -> Step<StatePlace> {
    let (call, session, stream) = (import.call, import.session, import.stream);
    stream.initialize_once();
    stream.end_interruption();
    if vcpu.tdvps.state() != VcpuState::UNINITIALIZED {
        return Err(session.fail(plain(StatusCode::VCPU_STATE_INCORRECT)));
    }
    let header = MbmdBuffer::new(call, r8).map_err(|status| session.fail(status))?.read(call);
    if !is_next(import, &header) || header.details.get() & !INDEX != 0 {
        return Err(session.fail(plain(StatusCode::INVALID_MBMD)));
    }
    state::initialise(call.machine, &vcpu.owner.tdr, tdcs, &vcpu.tdvps, 0);
    associate(call, vcpu, tdcs).map_err(|status| session.fail(status))?;
    vcpu.tdvps.store_u64(tdvps::LAST_EXIT_TSC, call.machine.tsc());
    Ok(import.begin(&header))
}

fn resume(import: &StateImport<'_, '_>, vcpu: &LockedVcpu<'_>, tdcs: &Tdcs<'_>) -> Step<StatePlace> {
    let place = import.resume()?;
    let session = import.session;
    if !matches!(vcpu.tdvps.state(), VcpuState::IMPORT | VcpuState::DISABLED) {
        return Err(session.fail(plain(StatusCode::VCPU_STATE_INCORRECT)));
    }
    associate(import.call, vcpu, tdcs).map_err(|status| session.fail(status))?;
    Ok(place)
}
