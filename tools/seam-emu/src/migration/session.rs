//! A migration session: what the TDCS knows of it.

use tdx_module_iface::op_state::OpState;
use tdx_module_iface::{Operand, Status};

use super::gcm::GcmKey;
use super::stream;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::host::{Call, Step, busy};
use crate::lock::{Guard, Mode, Side};
use crate::td::Tdcs;

/// The migration epoch after the in-order phase.
pub(crate) const OUT_OF_ORDER: u32 = u32::MAX;
/// Words of a key.
const KEY_WORDS: u32 = 4;

/// The lock of the session.
pub(crate) fn lock<'m>(tdcs: &Tdcs<'m>, mode: Mode) -> Step<Guard<'m>> {
    let refused = busy(Operand::MIG);
    tdcs.migration_lock().ok_or(refused)?.acquire(mode, Side::Host).map_err(|_| refused)
}

/// The session of a TD.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session<'a, 'm>(pub(crate) &'a Tdcs<'m>);

impl Session<'_, '_> {
    /// The MIG fields of both directions begin: keys, version, epoch, count, streams.
    pub(crate) fn begin(&self, call: &Call<'_>) {
        self.move_key(tdcs::MIG_ENC_KEY, tdcs::MIG_ENC_WORKING_KEY);
        for word in 0..KEY_WORDS {
            self.0.store_u64(tdcs::MIG_ENC_KEY + 8 * word, call.machine.module.random.next());
        }
        self.move_key(tdcs::MIG_DEC_KEY, tdcs::MIG_DEC_WORKING_KEY);
        self.0.store(tdcs::MIG_DEC_KEY_SET, Width::B1, 0);
        let version = self.0.load(tdcs::MIG_VERSION, Width::B2);
        self.0.store(tdcs::MIG_WORKING_VERSION, Width::B2, version);
        self.set_epoch(0);
        self.set_total(0);
        stream::forget_all(self.0);
    }

    fn move_key(&self, from: u32, to: u32) {
        for word in 0..KEY_WORDS {
            self.0.store_u64(to + 8 * word, self.0.load_u64(from + 8 * word));
        }
    }

    fn key(&self, field: u32) -> GcmKey {
        GcmKey::new([0, 1, 2, 3].map(|word| self.0.load_u64(field + 8 * word)))
    }

    /// The key of what this TD's side sends.
    pub(crate) fn sending_key(&self) -> GcmKey {
        self.key(tdcs::MIG_ENC_WORKING_KEY)
    }

    /// The key of what this TD's side receives.
    pub(crate) fn receiving_key(&self) -> GcmKey {
        self.key(tdcs::MIG_DEC_WORKING_KEY)
    }

    /// Whether a migration TD has given the key of the next session.
    pub(crate) fn has_key(&self) -> bool {
        self.0.load(tdcs::MIG_DEC_KEY_SET, Width::B1) != 0
    }

    pub(crate) fn version(&self) -> u16 {
        self.0.load(tdcs::MIG_WORKING_VERSION, Width::B2) as u16
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.0.load(tdcs::MIG_EPOCH, Width::B4) as u32
    }

    pub(crate) fn set_epoch(&self, epoch: u32) {
        self.0.store(tdcs::MIG_EPOCH, Width::B4, u64::from(epoch));
    }

    /// Bundles of the session.
    pub(crate) fn total(&self) -> u64 {
        self.0.load_u64(tdcs::TOTAL_MB_COUNT)
    }

    pub(crate) fn set_total(&self, total: u64) {
        self.0.store_u64(tdcs::TOTAL_MB_COUNT, total);
    }

    /// One bundle more; several streams count at once.
    pub(crate) fn count_bundle(&self) {
        self.change(tdcs::TOTAL_MB_COUNT, 1);
    }

    /// Pages that changed since they were exported.
    pub(crate) fn dirty(&self) -> u64 {
        self.0.load_u64(tdcs::DIRTY_COUNT)
    }

    pub(crate) fn change_dirty(&self, by: i64) {
        self.change(tdcs::DIRTY_COUNT, by);
    }

    pub(crate) fn reset_dirty(&self) {
        self.0.store_u64(tdcs::DIRTY_COUNT, 0);
    }

    /// Pages that are exported.
    pub(crate) fn exported_pages(&self) -> u64 {
        self.0.load_u64(tdcs::MIG_COUNT)
    }

    pub(crate) fn change_exported_pages(&self, by: i64) {
        self.change(tdcs::MIG_COUNT, by);
    }

    fn change(&self, field: u32, by: i64) {
        self.0.update(field, Width::B8, |old| old.wrapping_add_signed(by));
    }

    /// Export sessions that began.
    pub(crate) fn exports(&self) -> u32 {
        self.0.load(tdcs::EXPORT_COUNT, Width::B4) as u32
    }

    pub(crate) fn set_exports(&self, count: u32) {
        self.0.store(tdcs::EXPORT_COUNT, Width::B4, u64::from(count));
    }

    /// An import came to a good end.
    pub(crate) fn count_import(&self) {
        self.0.update(tdcs::IMPORT_COUNT, Width::B4, |old| old.wrapping_add(1));
    }

    /// The import fails: no TD comes of it.
    pub(crate) fn fail(&self, status: Status) -> Status {
        self.0.set_op_state(OpState::FailedImport);
        status.fatal()
    }

    /// The import fails, but for a TD that runs already: it goes on without the rest of its memory.
    pub(crate) fn abort(&self, status: Status) -> Status {
        if self.0.op_state() == OpState::LiveImport {
            self.0.set_op_state(OpState::Runnable);
            return status;
        }
        self.fail(status)
    }
}
