//! A TD that is saved, and one that goes on.

use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::Instant;

use serde_json::{Value, json};

use super::{Inner, NoAnswer, Phase, Td};
use crate::fleet::FleetError;
use crate::fleet::store::Record;
use crate::worker::TdRequest;
use crate::worker::protocol::Order;

/// What a TD is not that is to be saved in another phase.
const NOT_SAVED: &str = "is not saved: it has to run";

impl Td {
    /// Saves it, which ends it.
    pub(in crate::fleet) fn save(&self, deadline: Instant) -> Result<Value, FleetError> {
        let _turn = self.take_turn(deadline)?;
        if !self.lock().record.request.snapshot {
            return Err(FleetError::NotAskedFor("snapshots"));
        }
        let worker = self.running()?;
        let phase = self.phase();
        if phase != Phase::Running {
            return Err(FleetError::Phase(phase, NOT_SAVED));
        }
        match worker.ask(Order::Save, deadline) {
            // Its last words may overtake the answer: they say what came of it.
            Ok(_) | Err(NoAnswer::Gone) => {}
            Err(problem) => return Err(problem.into()),
        }
        let inner = self.await_own_end(deadline)?;
        let said = inner.record.report.as_ref().ok_or(FleetError::WorkerGone)?;
        let said = &said["snapshot"];
        match said["failed"].as_str() {
            Some(why) => Err(FleetError::SaveFailed(why.to_owned())),
            None if said["bytes"].is_u64() => Ok(said.clone()),
            // Its guest was quicker.
            None => Err(FleetError::Phase(inner.phase, NOT_SAVED)),
        }
    }

    /// Waits until a worker that ends by itself has gone. One that takes longer is left to it.
    fn await_own_end(&self, deadline: Instant) -> Result<MutexGuard<'_, Inner>, FleetError> {
        let mut inner = self.lock();
        while inner.worker.is_some() {
            if deadline <= Instant::now() {
                return Err(FleetError::Overdue);
            }
            inner = self.wait(inner, deadline);
        }
        Ok(inner)
    }

    /// Takes what a worker wrote for the TD's snapshot, if it says that it is whole.
    pub(super) fn keep_snapshot(&self, report: &mut Value) {
        if report["snapshot"]["bytes"].is_u64()
            && let Err(error) = self.shared.store.keep_snapshot(&self.name)
        {
            let reason = error.to_string();
            report["snapshot"] = json!({"failed": reason});
            report["ending"] = json!({"event": "not-saved", "reason": reason});
        }
    }

    /// The file of a TD that was saved.
    pub(super) fn snapshot(&self, request: &TdRequest) -> Result<PathBuf, FleetError> {
        if !request.snapshot {
            return Err(FleetError::NotAskedFor("snapshots"));
        }
        self.shared.store.saved(&self.name).ok_or(FleetError::NotSaved)?;
        Ok(self.shared.store.snapshot_path(&self.name))
    }

    /// Takes a record back, if nothing has run since.
    pub(super) fn take_back(&self, before: Record) -> Result<(), FleetError> {
        let mut inner = self.lock();
        if inner.phase == Phase::Created {
            inner.phase = Phase::of(before.state);
            inner.record = before;
            self.shared.store.write(&inner.record).map_err(FleetError::Store)?;
        }
        Ok(())
    }
}
