//! TDH.EXPORT.STATE.VP (74): the state of a VCPU of a paused TD. RCX TDVPR, R8 MBMD, R9 page list, R10 stream and
//! command; RDX gets the number of pages.

use tdx_module_iface::lifecycle::VcpuState;
use tdx_module_iface::metadata::StateList;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::mbmd::{BundleKind, MbmdBuffer};
use super::super::operands::{Command, PageList, StreamCommand};
use super::super::session::Session;
use super::super::stream::{self, StateCall};
use super::state::StateExport;
use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width};
use crate::host::steps::{check_and_lock_state, check_vcpu_pages, lock_vcpu, op_states};
use crate::host::vp::associate;
use crate::host::{Call, Step, plain};
use crate::lock::Mode;
use crate::metadata::vp::VpFields;
use crate::metadata::{Accessor, write_list};

/// Fewest pages that a page list must have room for.
const MIN_PAGES: u64 = 5;

pub(crate) fn export(call: &Call<'_>, regs: &mut Gprs) -> Step {
    regs.rdx = 0;
    let vcpu = lock_vcpu(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let (tdr, tdvps) = (&vcpu.owner.tdr, &vcpu.tdvps);
    let states = const { op_states(TdhLeaf::EXPORT_STATE_VP) };
    let (tdcs, _state) = check_and_lock_state(tdr, states, Mode::Shared)?;
    check_vcpu_pages(tdvps, &tdcs)?;
    if tdvps.state() != VcpuState::READY {
        return Err(plain(StatusCode::VCPU_STATE_INCORRECT));
    }
    associate(call, &vcpu, &tdcs)?;
    let session = Session(&tdcs);
    if tdvps.load(tdvps::EXPORT_COUNT, Width::B4) == u64::from(session.exports()) {
        return Err(plain(StatusCode::VCPU_ALREADY_EXPORTED));
    }
    let command = StreamCommand::new(regs.r10, stream::forward_count(&tdcs))?;
    let stream = stream::lock_forward(&tdcs, command.stream)?;
    let command = command.command();
    let list = PageList::new(regs.r9);
    match command {
        Command::New => {
            list.check_fields(MIN_PAGES)?;
            stream.initialize_once();
        }
        Command::Resume if !stream.is_initialized() => {
            return Err(plain(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
        }
        Command::Resume => {}
    }
    let export = StateExport {
        call,
        session,
        stream: &stream,
        tdr: tdr.hpa,
        kind: BundleKind::VcpuState,
        what: StateCall { leaf: regs.rax, list: list.raw(), vcpu: regs.rcx },
    };
    let place = export.place(command, tdvps.load(tdvps::VCPU_INDEX, Width::B2))?;
    let entries = list.check_address(call)?;
    let who = Accessor::Exporter(StateList::Mutable);
    let fields = VpFields::new(call.machine, tdr, tdvps, &tdcs, who);
    let mbmd = regs.r8;
    let list_of = |_, field| write_list(&fields, who, field);
    export.write(regs, entries, place, 1, list_of, || MbmdBuffer::new(call, mbmd))?;
    tdvps.store(tdvps::EXPORT_COUNT, Width::B4, u64::from(session.exports()));
    export.count();
    Ok(())
}
