//! A whole server as a snapshot holds it: processors, APICs, devices, the TDX module. Memory is apart.
//!
//! # Protocol
//! A server that ended with [`Ending::Frozen`] is saved ([`Server::save`]); its memory stays where it is
//! ([`seam_emu::Machine::memory`]), and whoever saves it keeps each page with its key. [`Server::resume`] makes the server
//! again, on the same devices, with empty memory; the caller fills that before the server runs. What runs then is, instruction by
//! instruction, what would have run without the freeze, where processors take turns.
//!
//! What the host's outside holds is not saved: input that nobody has read, the end of a console's last line.
//!
//! [`Ending::Frozen`]: crate::Ending::Frozen

use std::fmt;

use seam_emu::{CannotSave, Machine, NotThisMachine, SavedMachine};
use serde::{Deserialize, Serialize};
use tdvisor_devices::{DeviceStateError, Devices, SavedDevice};
use tdx_module_iface::{StatusCode, TdhLeaf};

use crate::apic::SavedApic;
use crate::mailbox::{Parking, State};
use crate::processor::SavedProcessor;
use crate::record::{Counts, Record};
use crate::report::{Notice, Report};
use crate::server::{Server, ServerConfig, ServerError, Start};
use crate::turns::SavedTurns;

/// A server's state without its memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedServer {
    config: ServerConfig,
    machine: SavedMachine,
    processors: Vec<SavedProcessor>,
    apics: Vec<SavedApic>,
    turns: Option<SavedTurns>,
    parking: Vec<State>,
    ports: Vec<(u64, Vec<u64>)>,
    mmio: Vec<(u64, Vec<u64>)>,
    counts: SavedCounts,
    notices: Vec<Notice>,
    lost_notices: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedCounts {
    /// Leaf, status, how often.
    by_leaf: Vec<(u16, u32, u64)>,
    failed_invalid: u64,
    others: u64,
}

/// Why a server cannot be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveError {
    /// The server did not end by freezing.
    NotFrozen,
    /// The machine.
    Machine(CannotSave),
    /// A device.
    Device(DeviceStateError),
}

impl fmt::Display for SaveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFrozen => f.write_str("the server did not stop at a point where it can be saved"),
            Self::Machine(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for SaveError {}

/// Why a server cannot be resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResumeError {
    /// There can be no such server.
    Server(ServerError),
    /// The machine.
    Machine(NotThisMachine),
    /// A device.
    Device(DeviceStateError),
    /// The parts are not of one server.
    Parts,
}

impl fmt::Display for ResumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(f),
            Self::Machine(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
            Self::Parts => f.write_str("the parts of the saved state are not of one server"),
        }
    }
}

impl core::error::Error for ResumeError {}

impl From<ServerError> for ResumeError {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<NotThisMachine> for ResumeError {
    fn from(error: NotThisMachine) -> Self {
        Self::Machine(error)
    }
}

impl From<DeviceStateError> for ResumeError {
    fn from(error: DeviceStateError) -> Self {
        Self::Device(error)
    }
}

fn to_pairs(devices: Vec<SavedDevice>) -> Vec<(u64, Vec<u64>)> {
    devices.into_iter().map(|SavedDevice { at, state }| (at, state)).collect()
}

fn of_pairs(pairs: Vec<(u64, Vec<u64>)>) -> Vec<SavedDevice> {
    pairs.into_iter().map(|(at, state)| SavedDevice { at, state }).collect()
}

impl SavedCounts {
    fn of(counts: Counts) -> Self {
        let Counts { by_leaf, failed_invalid, others } = counts;
        let by_leaf = by_leaf.into_iter().map(|((leaf, status), count)| (leaf.0, status.0, count)).collect();
        Self { by_leaf, failed_invalid, others }
    }

    fn counts(self) -> Counts {
        let Self { by_leaf, failed_invalid, others } = self;
        let of = |(leaf, status, count)| ((TdhLeaf(leaf), StatusCode(status)), count);
        Counts { by_leaf: by_leaf.into_iter().map(of).collect(), failed_invalid, others }
    }
}

impl SavedServer {
    /// What the server is made from.
    pub const fn config(&self) -> &ServerConfig {
        &self.config
    }
}

impl Server {
    /// The state of a server that has frozen, without its memory. It is taken once.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save(&self) -> Result<SavedServer, SaveError> {
        if !self.is_frozen() {
            return Err(SaveError::NotFrozen);
        }
        let machine = self.machine.save().map_err(SaveError::Machine)?;
        let ports = self.devices.ports.save().map_err(SaveError::Device)?;
        let mmio = self.devices.mmio.save().map_err(SaveError::Device)?;
        let Start::Saved(processors) = std::mem::replace(&mut *self.lock_start(), Start::Spent) else {
            return Err(SaveError::NotFrozen);
        };
        let (notices, lost_notices) = self.report.notices();
        Ok(SavedServer {
            config: self.config.clone(),
            machine,
            processors,
            apics: self.interrupts.save(),
            turns: self.freeze.take_turns(),
            parking: self.parking.save(),
            ports: to_pairs(ports),
            mmio: to_pairs(mmio),
            counts: SavedCounts::of(self.record.counts()),
            notices,
            lost_notices,
        })
    }

    /// A server in a saved state, with devices as new as [`Server::new`] takes them, and with empty memory, which is to be filled
    /// before it runs.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub fn resume(saved: SavedServer, devices: Devices, record: Record) -> Result<Self, ResumeError> {
        let SavedServer {
            config,
            machine,
            processors,
            apics,
            turns,
            parking,
            ports,
            mmio,
            counts,
            notices,
            lost_notices,
        } = saved;
        config.check()?;
        if processors.len() != config.processors as usize {
            return Err(ResumeError::Parts);
        }
        let parking = Parking::restore(&config.apic_ids(), &parking).ok_or(ResumeError::Parts)?;
        let machine = Machine::restore(config.machine(), machine)?;
        record.restore(counts.counts());
        let report = Report::restore(notices, lost_notices);
        let start = Start::Saved(processors);
        let server = Self::assemble(config, machine, parking, devices, (record, report), start)?;
        server.interrupts.restore(apics, turns).ok_or(ResumeError::Parts)?;
        // A port may raise its line when it takes its state over; what was raised is the I/O APIC's, which comes later.
        server.devices.ports.restore(&of_pairs(ports))?;
        server.devices.mmio.restore(&of_pairs(mmio))?;
        Ok(server)
    }
}
