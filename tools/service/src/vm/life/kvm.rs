//! A life of a VM on Linux's KVM.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use tdvisor_runtime::board::{Board, BoardSpec};
use tdvisor_runtime::dump::Secrecy;
use tdvisor_runtime::events;
use tdvisor_runtime::kvm::host::{Asked, Error, Linux};
use tdvisor_runtime::kvm::{KvmEvent, KvmSession, KvmSpec, clock, spec_of};

use super::{End, Facts, Plan, Shared, Stage, StartError, Wired};
use crate::logged;
use crate::vm::files::Payload;

impl Shared {
    /// One time from image to the end.
    pub(super) fn once_on_kvm(self: &Arc<Self>, plan: &Plan) -> Result<End, StartError> {
        let kernel = Linux::open().map_err(|errno| StartError::NoKvm(Error::new(Asked::Open, errno)))?;
        let config = &plan.config;
        let payload = Payload::load(&config.payload, config.memory.size, !config.disks().is_empty());
        let payload = payload.map_err(StartError::File)?;
        let stop = self.lock().stop.clone();
        let (log, started) = (logged::td_of_vm(), Instant::now());
        let events = |event: KvmEvent<'_>| {
            let at = started.elapsed();
            match event {
                KvmEvent::Running => {
                    logged::line(
                        &log,
                        &events::booted(config.cpus.boot_vcpus, plan.backend, Secrecy::Kept, at),
                    );
                    self.set(Stage::Running);
                }
                KvmEvent::Happened(happening) => logged::line(&log, &events::happened(&happening, at)),
                KvmEvent::Ended(ending) => {
                    logged::line(&log, &events::ended(ending, at));
                    stop.set();
                }
                KvmEvent::Added { .. } | KvmEvent::Built => {}
            }
        };
        let Wired { spec, bell, serial: (screen, serial_keys), hvc } = self.wire(plan, clock(), &stop)?;
        let spec = BoardSpec { boot: payload.files, ..spec };
        let board = Board::new(screen, io::sink(), spec).map_err(StartError::Board)?;
        let keyboards = self.plug_all(board.input, serial_keys, hvc)?;
        let spec = KvmSpec {
            td: spec_of(config.td_config()),
            image: &payload.image,
            devices: board.devices,
            bell,
            quotes: (plan.quotes)(None, stop.clone()),
        };
        let session = KvmSession::start(&kernel, spec, &events);
        let session = session.map_err(|error| StartError::Kvm(Box::new(error)))?;
        self.lock().pauser = Some(session.pauser());
        let report = session.drive(&**self);
        drop(keyboards);
        self.lock().pauser = None;
        Ok(End { facts: Facts::Kvm(report), predicted: payload.predicted })
    }
}
