//! TDH.IMPORT.TRACK (84): takes over a migration epoch. RCX TDR, R8 MBMD, R10 zero.

use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Gprs, Operand, StatusCode, TdhLeaf};

use super::super::mbmd::{BundleKind, MbmdBuffer};
use super::super::session::{OUT_OF_ORDER, Session};
use super::super::stream;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::host::steps::{check_state, lock_tdr, op_states};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;

pub(crate) fn track(call: &Call<'_>, regs: &Gprs) -> Step {
    let owner = lock_tdr(call, regs.rcx, Mode::Exclusive, Operand::RCX)?;
    let tdcs = check_state(&owner.tdr, const { op_states(TdhLeaf::IMPORT_TRACK) })?;
    if regs.r10 != 0 {
        return Err(invalid(Operand::R10));
    }
    let buffer = MbmdBuffer::new(call, regs.r8)?;
    let stream = stream::lock_forward(&tdcs, 0)?;
    if !stream.is_initialized() {
        return Err(plain(StatusCode::MIGRATION_STREAM_STATE_INCORRECT));
    }
    stream.end_interruption();
    let session = Session(&tdcs);
    let token = buffer.read(call);
    let epoch = token.epoch.get();
    let valid = token.is_of(BundleKind::EpochToken, session.version(), 0)
        && token.counter.get() == 0
        && epoch > session.epoch()
        // Nothing of the epochs before it is missing.
        && token.details.get() == session.total().wrapping_add(1);
    if !valid {
        return Err(session.fail(plain(StatusCode::INVALID_MBMD)));
    }
    token
        .check_lone_tag(BundleKind::EpochToken, &session.receiving_key())
        .map_err(|status| session.fail(status))?;
    if epoch == OUT_OF_ORDER {
        let imported = tdcs.load(tdcs::NUM_MIGRATED_VCPUS, Width::B4);
        if imported != tdcs.load(tdcs::NUM_VCPUS, Width::B4) {
            return Err(session.fail(plain(StatusCode::SOME_VCPUS_NOT_MIGRATED)));
        }
        tdcs.set_op_state(OpState::PostImport);
    }
    stream.set_expected(1);
    session.count_bundle();
    session.set_epoch(epoch);
    Ok(())
}
