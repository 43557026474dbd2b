//! The TD of a worker that Linux's KVM runs.
//!
//! # Protocol
//! KVM is opened before the worker is confined to the files of its TD. The TD is built, which runs nothing of the guest; then
//! the worker gives up all requests but those of a TD that runs, and the guest's first instruction follows. What the kernel
//! does not tell is not known of the TD: its page tables, its registers, its SEAMCALLs; nobody looks into it. The kernel takes
//! back its pages and its key id when its descriptors are closed, however the worker ends.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use machine_emu::Pace;
use serde_json::Value;
use tdvisor_devices::virtio::console::VirtioConsole;
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::hvc::{Hvc, HvcInput};
use tdvisor_runtime::board::{Board, BoardSpec};
use tdvisor_runtime::events;
use tdvisor_runtime::inspect::live::RunningKvmTd;
use tdvisor_runtime::kvm::host::{Asked, BuildError, Error, Linux};
use tdvisor_runtime::kvm::{KvmEvent, KvmSession, KvmSpec, clock, spec_of};

use super::super::confine::Beside;
use super::super::protocol::{Order, Refusal, RefusalKind};
use super::super::report;
use super::{Facts, Maker, Shared, lock};
use crate::vm::board;
use crate::vm::files::Payload;

/// Opens KVM.
pub(super) fn open() -> Result<Linux, Refusal> {
    Linux::open().map_err(|errno| Refusal::new(RefusalKind::Input, Error::new(Asked::Open, errno)))
}

/// Whose fault it is that there is no TD.
fn refusal(error: &BuildError) -> Refusal {
    let kind = match error {
        BuildError::Refused(error) if error.is_full() => RefusalKind::Full,
        BuildError::Refused(error) if error.asked != Asked::CreateTd => RefusalKind::Failed,
        // What it is asked for with, or a KVM that offers no TDs.
        _ => RefusalKind::Input,
    };
    Refusal::new(kind, error)
}

impl Shared {
    /// What is seen of a TD on KVM.
    pub(super) fn look_at_kvm(&self, td: &dyn RunningKvmTd, order: &Order) -> Result<Value, Refusal> {
        let seen = td.look();
        match order {
            Order::Exits => Ok(report::kvm_exits(&seen.exits, seen.frames_converted)),
            Order::Metrics => {
                self.td.kvm_exits(&seen.exits);
                Ok(self.numbers())
            }
            _ => Err(Refusal::new(RefusalKind::State, "only of a TD on the emulated machine it can be had")),
        }
    }
}

impl Maker {
    /// From image to the end.
    pub(super) fn run_on_kvm(&self, kernel: Linux) -> Result<(Value, String), Refusal> {
        let input = |error: &dyn ToString| Refusal::new(RefusalKind::Input, error.to_string());
        let (config, stop) = (&self.config, &self.shared.stop);
        let memory = config.memory.size;
        let payload = Payload::load(&config.payload, memory, !config.disks().is_empty());
        let payload = payload.map_err(|error| input(&error))?;
        let (started, last) = (Instant::now(), Mutex::new(Value::Null));
        let events = |event: KvmEvent<'_>| {
            self.shared.td.kvm_event(&event);
            let at = started.elapsed();
            match event {
                KvmEvent::Added { .. } | KvmEvent::Built => {}
                KvmEvent::Running => {
                    self.tell(&self.booted(at));
                    self.has_begun();
                }
                KvmEvent::Happened(happening) => drop(self.tell(&events::happened(&happening, at))),
                KvmEvent::Ended(ending) => {
                    *lock(&last) = self.tell(&events::ended(ending, at));
                    stop.set();
                }
            }
        };
        let bell = Bell::default();
        let opened = board::open(config, &Default::default(), Pace::Real, stop, &bell)
            .map_err(|error| input(&error))?;
        let console = self.console()?;
        let mut virtio = opened.virtio;
        let hvc = Hvc::new(console.clone(), HvcInput::new(bell.clone()));
        virtio.push(Box::new(VirtioConsole::new(Box::new(hvc), None)));
        let td = spec_of(config.td_config());
        let spec = BoardSpec {
            pace: Pace::Real,
            now: clock(),
            memory,
            vcpus: td.vcpus,
            boot: payload.files,
            virtio,
            transport: self.transport,
        };
        let board = Board::new(console, io::sink(), spec).map_err(|error| input(&error))?;
        let quotes = self.quotes(None);
        let spec = KvmSpec { td, image: &payload.image, devices: board.devices, bell, quotes };
        let session = KvmSession::start(&kernel, spec, &events).map_err(|error| refusal(&error))?;
        // It makes no other TD.
        drop(kernel);
        self.confine(Beside::Kvm)?;
        let _ = self.shared.facts.set(Facts { predicted: payload.predicted, emulated: None });
        self.shared.lock().pauser = Some(session.pauser());
        let ended = session.drive(&*self.shared);
        self.close();
        self.shared.td.kvm_exits(&ended.exits);
        let ending = last.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok((report::of_kvm(&ended, payload.predicted, ending), self.shared.metrics.text()))
    }
}

#[cfg(test)]
mod tests {
    use tdvisor_runtime::kvm::host::Errno;

    use super::*;

    #[test]
    fn a_machine_that_is_full_is_told_from_one_that_failed_and_both_from_what_cannot_be() {
        let refused = |asked, errno| BuildError::Refused(Error::new(asked, Errno(errno)));
        for (error, kind) in [
            (refused(Asked::InitVm, libc::EBUSY), RefusalKind::Full),
            (refused(Asked::InitVm, libc::ENOSPC), RefusalKind::Full),
            (refused(Asked::InitVm, libc::EIO), RefusalKind::Failed),
            (refused(Asked::Finalize, libc::EBUSY), RefusalKind::Failed),
            (refused(Asked::CreateTd, libc::EINVAL), RefusalKind::Input),
            (BuildError::Vcpus { asked: 9, limit: 2 }, RefusalKind::Input),
        ] {
            let refusal = refusal(&error);
            assert_eq!((refusal.kind, refusal.text), (kind, error.to_string()));
        }
    }
}
