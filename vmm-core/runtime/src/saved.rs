//! Snapshots of a TD: written when its machine has frozen, and resumed by another process.
//!
//! # Protocol
//! A TD on a machine that takes turns is frozen by its machine's [`Freezer`], for example where its console
//! prints a text ([`FreezeAt`]). The present turn ends, every vCPU's thread leaves its loop, and [`Session::drive`] returns with
//! an [`Ended`] that is [frozen](Ended::is_frozen): the TD is *quiet*, which means that no thread has a vCPU, a processor, a seat at
//! its memory or a lock. [`Ended::save`] writes it then; [`Ended::teardown`] ends it.
//!
//! [`SavedTd::open`] reads a file, [`SavedTd::machine`] makes the machine with its memory, and [`Session::resume`] the TD with new
//! devices around it. The mirror is compared with the module's Secure EPT, entry by entry: what does not agree is refused. Nothing
//! has run until the session is driven, and it issues the calls that the first run would have issued next.
//!
//! A TD that was not started to be looked into is not saved: the file holds all that it keeps from its host.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use machine_emu::trace::Trace;
use machine_emu::{CannotSaveMachine, EmulatedMachine, Freezer, Hardware};
use mirror_ept::list::ListedKind;
use mirror_ept::{BadNumbers, Numbers, Reader};
use seam_emu::NotThisMachine;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use td_host::Host;
use td_host::host::hkid::HkidCounts;
use td_host::td::{NotSaved, Td};
use tdvisor_devices::{DeviceStateError, Devices, SavedDevice};
use tdvisor_monitor::{Monitor, QuoteSource};
use x86_emu::EngineKind;

use crate::bell::Bell;
use crate::dump::Secrecy;
use crate::inspect::{Inspection, Side};
use crate::machine::{Event, Machine};
use crate::pause::Pauser;
use crate::server::sought::Sought;
use crate::session::{Before, Ended, Session};
use crate::snapshot::{self, Kind, Opened, Rest, SnapshotError};

/// Hardware, as a snapshot holds it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct SavedHardware {
    module: seam_emu::ModuleProfile,
    processor: seam_emu::processor::EmulatedProcessor,
    is_compiled: bool,
    features: seam_emu::features::FeatureSet,
    random_seed: u64,
}

impl SavedHardware {
    fn of(hardware: &Hardware) -> Self {
        let Hardware { module, processor, engine, features, random_seed } = *hardware;
        Self { module, processor, is_compiled: engine == EngineKind::Compiler, features, random_seed }
    }

    fn hardware(self) -> Hardware {
        let Self { module, processor, is_compiled, features, random_seed } = self;
        let engine = if is_compiled { EngineKind::Compiler } else { EngineKind::Interpreter };
        Hardware { module, processor, engine, features, random_seed }
    }
}

/// The shape of a machine, which its TDs do not change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) hardware: Hardware,
    pub(crate) memory: u64,
    pub(crate) vcpus: u32,
}

/// What of a saved TD is not its machine's.
#[derive(Debug, Serialize, Deserialize)]
struct SavedSession {
    td: Vec<u64>,
    ports: Vec<(u64, Vec<u64>)>,
    mmio: Vec<(u64, Vec<u64>)>,
    notify: Vec<(u32, u8)>,
    frames: u64,
    hkids: [usize; 3],
}

/// All of a file but the memory.
#[derive(Debug, Serialize, Deserialize)]
struct State<W> {
    what: W,
    hardware: SavedHardware,
    memory: u64,
    vcpus: u32,
    machine: machine_emu::SavedMachine,
    host: Vec<u64>,
    session: SavedSession,
}

/// Why a TD cannot be saved.
#[derive(Debug)]
pub enum SaveTdError {
    /// The TD was not started to be looked into.
    NotInspectable,
    /// Its machine did not freeze.
    NotFrozen,
    /// The machine.
    Machine(CannotSaveMachine),
    /// The TD.
    Td(NotSaved),
    /// A device.
    Device(DeviceStateError),
    /// The file.
    Snapshot(SnapshotError),
}

impl fmt::Display for SaveTdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInspectable => f.write_str("the TD keeps its secrets: only an inspectable one is saved"),
            Self::NotFrozen => f.write_str("the TD did not stop at a point where it can be saved"),
            Self::Machine(error) => error.fmt(f),
            Self::Td(error) => error.fmt(f),
            Self::Device(error) => error.fmt(f),
            Self::Snapshot(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SaveTdError {}

impl From<SnapshotError> for SaveTdError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

/// Why a TD cannot be resumed.
#[derive(Debug)]
pub enum ResumeTdError {
    /// The file.
    Snapshot(SnapshotError),
    /// The parts of the saved state do not fit together.
    Parts,
    /// The host's mirror and the module's Secure EPT differ.
    Mirror,
    /// A device.
    Device(DeviceStateError),
}

impl fmt::Display for ResumeTdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot(error) => error.fmt(f),
            Self::Parts => f.write_str("the parts of the saved state do not fit together"),
            Self::Mirror => f.write_str("the saved mirror is not what the module's Secure EPT holds"),
            Self::Device(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ResumeTdError {}

impl From<SnapshotError> for ResumeTdError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

impl From<BadNumbers> for ResumeTdError {
    fn from(_: BadNumbers) -> Self {
        Self::Parts
    }
}

impl From<NotThisMachine> for ResumeTdError {
    fn from(_: NotThisMachine) -> Self {
        Self::Parts
    }
}

impl From<DeviceStateError> for ResumeTdError {
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

impl Ended<'_> {
    /// Whether the TD has not ended but its machine has frozen: it can be saved, once.
    pub fn is_frozen(&self) -> bool {
        self.machine.platform().is_frozen() && self.td.ending().is_none()
    }

    /// Writes a TD that froze to a file that only its owner may read, with what its owner wants to find again; gives the file's
    /// size.
    ///
    /// # Errors
    /// [`SaveTdError`]; the file is as it was.
    pub fn save(&self, path: &Path, what: &impl Serialize) -> Result<u64, SaveTdError> {
        let machine = self.machine.platform().machine();
        Ok(snapshot::write_file(path, Kind::Td, &self.state(what)?, machine.memory())?)
    }

    /// Writes a TD that froze, with what its owner wants to find again. It holds all that the TD keeps from its host: only its
    /// owner should read it.
    ///
    /// # Errors
    /// [`SaveTdError`]; what was written so far is no snapshot.
    pub fn save_to(&self, out: impl Write, what: &impl Serialize) -> Result<(), SaveTdError> {
        let machine = self.machine.platform().machine();
        Ok(snapshot::write(out, Kind::Td, &self.state(what)?, machine.memory())?)
    }

    /// All but the memory.
    fn state<'w, W: Serialize>(&self, what: &'w W) -> Result<State<&'w W>, SaveTdError> {
        if self.secrecy != Secrecy::Inspectable {
            return Err(SaveTdError::NotInspectable);
        }
        let (true, Some(monitor)) = (self.is_frozen(), &self.frozen) else {
            return Err(SaveTdError::NotFrozen);
        };
        let (mut td, mut host) = (Numbers::new(), Numbers::new());
        self.td.save(&mut td).map_err(SaveTdError::Td)?;
        self.machine.host().save(&mut host);
        let devices = monitor.devices();
        let HkidCounts { free, total, retired } = self.before.hkids;
        let session = SavedSession {
            td: td.into_vec(),
            ports: to_pairs(devices.ports.save().map_err(SaveTdError::Device)?),
            mmio: to_pairs(devices.mmio.save().map_err(SaveTdError::Device)?),
            notify: monitor.notify_vectors(),
            frames: self.before.frames,
            hkids: [free, total, retired],
        };
        let Shape { hardware, memory, vcpus } = self.machine.shape();
        Ok(State {
            what,
            hardware: SavedHardware::of(&hardware),
            memory,
            vcpus,
            machine: self.machine.platform().save().map_err(SaveTdError::Machine)?,
            host: host.into_vec(),
            session,
        })
    }
}

/// A saved TD that was opened; `W` is what its owner wrote beside it.
#[derive(Debug)]
pub struct SavedTd<W> {
    state: State<W>,
    rest: Rest<File>,
}

impl<W: DeserializeOwned> SavedTd<W> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let (state, rest) = Opened::<File, State<W>>::file(path, Kind::Td)?.into_parts();
        Ok(Self { state, rest })
    }
}

impl<W> SavedTd<W> {
    /// What its owner wrote beside it.
    pub const fn what(&self) -> &W {
        &self.state.what
    }

    /// The machine's hardware.
    pub fn hardware(&self) -> Hardware {
        self.state.hardware.hardware()
    }

    /// The machine, with its memory, and what makes the TD on it.
    ///
    /// # Errors
    /// [`ResumeTdError`]; nothing is left.
    pub fn machine(self, trace: Trace) -> Result<(Machine, TdOnMachine), ResumeTdError> {
        let Self { state, rest } = self;
        let State { what: _, hardware, memory, vcpus, machine, host, session } = state;
        let hardware = hardware.hardware();
        let platform = EmulatedMachine::restore(&hardware, memory, vcpus, machine, trace)?;
        rest.fill(platform.machine().memory())?;
        let mut reader = Reader::new(&host);
        let host = Host::restore(platform, &mut reader)?;
        reader.end()?;
        Ok((Machine::of(host, Shape { hardware, memory, vcpus }), TdOnMachine(session)))
    }
}

/// A saved TD whose machine is there again.
#[derive(Debug)]
pub struct TdOnMachine(SavedSession);

/// What is around a TD that is resumed. The devices are those that it had, as they were when they were made.
pub struct ResumeSpec {
    /// What the guest finds around it.
    pub devices: Devices,
    /// What whoever feeds a device rings.
    pub bell: Bell,
    /// Where the TD's quotes come from.
    pub quotes: Option<Box<dyn QuoteSource>>,
}

impl fmt::Debug for ResumeSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResumeSpec")
    }
}

impl<'m, 'e> Session<'m, 'e> {
    /// The TD, as it was saved. It is one that may be looked into.
    ///
    /// # Errors
    /// [`ResumeTdError`]; the machine is not to be used.
    pub fn resume(
        machine: &'m Machine,
        saved: TdOnMachine,
        spec: ResumeSpec,
        events: &'e (dyn Fn(Event<'_>) + Sync),
    ) -> Result<Self, ResumeTdError> {
        let SavedSession { td, ports, mmio, notify, frames, hkids } = saved.0;
        let mut reader = Reader::new(&td);
        let td = Td::restore(machine.host(), &mut reader)?;
        reader.end()?;
        if !agree(&td, machine.platform()) {
            return Err(ResumeTdError::Mirror);
        }
        let ResumeSpec { devices, bell, quotes } = spec;
        // A port may raise its line when it takes its state over; what was raised is the I/O APIC's, which comes later.
        devices.ports.restore(&of_pairs(ports))?;
        devices.mmio.restore(&of_pairs(mmio))?;
        let monitor = Monitor::new(devices, quotes);
        monitor.restore_notify_vectors(&notify);
        let [free, total, retired] = hkids;
        let before = Before { frames, hkids: HkidCounts { free, total, retired } };
        let vcpus = u32::try_from(td.vcpus().len()).map_err(|_| ResumeTdError::Parts)?;
        let pauser = Pauser::new(vcpus, bell.clone());
        events(Event::Built);
        let (debugger, secrecy) = (None, Secrecy::Inspectable);
        Ok(Self { machine, td, monitor, bell, pauser, debugger, secrecy, events, before })
    }
}

/// Whether every entry of the mirror is one of the Secure EPT for the same page, and the other way round.
fn agree(td: &Td<'_, EmulatedMachine>, platform: &EmulatedMachine) -> bool {
    let Ok(inspection) = Inspection::of(td, platform) else { return false };
    let mut private = inspection.entries.iter().filter(|entry| entry.side == Side::Private);
    private.all(|entry| {
        let page = entry.host.and_then(|host| match host.kind {
            ListedKind::Leaf(page) | ListedKind::Table(Some(page)) => Some(page.base()),
            ListedKind::Table(None) | ListedKind::Other => None,
        });
        page.is_some() && page == entry.secure.and_then(|secure| secure.page)
    })
}

/// A console whose machine is frozen where a text was printed.
pub struct FreezeAt<W> {
    console: W,
    sought: Sought,
    freezer: Option<Freezer>,
}

impl<W: fmt::Debug> fmt::Debug for FreezeAt<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreezeAt").field("sought", &self.sought).finish_non_exhaustive()
    }
}

impl<W> FreezeAt<W> {
    /// Watches for this text; for none if it is empty.
    pub fn new(console: W, text: &str, freezer: Option<Freezer>) -> Self {
        Self { console, sought: Sought::new(text), freezer }
    }
}

impl<W: Write> Write for FreezeAt<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.console.write(bytes)?;
        if self.sought.found_in(bytes.get(..written).unwrap_or_default())
            && let Some(freezer) = &self.freezer
        {
            freezer.freeze();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.console.flush()
    }
}
