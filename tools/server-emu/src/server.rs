//! The server: its parts, and its life from power-on to its end.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use seam_emu::guest::debug::DebugPort;
use seam_emu::machine::InterruptController;
use seam_emu::processor::{EmulatedProcessor, Processor::Emulated};
use seam_emu::{Cmr, EngineKind, Machine, MachineConfig, ModuleProfile, SeamRange, TscSource};
use serde::{Deserialize, Serialize};
use tdvisor_base::sync::{AtomicBool, AtomicU64, Ordering};
use tdvisor_base::{Gpa, Hpa};
use tdvisor_board::{address, pm};
use tdvisor_devices::{AttachError, Devices};
use x86_emu::exits::Unimplemented;

use crate::acpi::{self, Described, Description, TooLarge};
use crate::firmware;
use crate::freeze::Freeze;
use crate::interrupts::Interrupts;
use crate::layout::{
    self, MAILBOX, MAILBOX_BYTES, REMAPPING, REMAPPING_BYTES, SEAM_BASE, SEAM_BYTES, TABLES,
};
use crate::loader::{self, Boot, BootFiles, LoadError};
use crate::mailbox::{Mailbox, Parking};
use crate::processor::{Processor, SavedProcessor};
use crate::record::Record;
use crate::remapping::RemappingRegisters;
use crate::report::Report;
use crate::threads::{self, thread};

/// The least memory of a server.
pub const MIN_MEMORY: u64 = 64 << 20;
/// The most memory of a server.
pub const MAX_MEMORY: u64 = 64 << 30;
/// The most processors of a server.
pub const MAX_PROCESSORS: u32 = 64;
/// The most packages of a server.
pub const MAX_PACKAGES: u32 = 2;

/// What happens to the host's state that a TD exit gives up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostState {
    /// The host's state is overwritten, as on hardware: hosts that rely on luck fail here as well.
    #[default]
    Strict,
    /// The host's state is left alone.
    Preserved,
}

impl HostState {
    pub(crate) const fn is_strict(self) -> bool {
        matches!(self, Self::Strict)
    }
}

/// What of TDX firmware set up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirmwareSetup {
    /// VMX, memory encryption, key ids for TDs, and the module in its range.
    #[default]
    Complete,
    /// VMX is locked off.
    WithoutVmx,
    /// Memory encryption is locked off: there are no key ids, and the module's range is disabled.
    WithoutMemoryEncryption,
    /// No key id is one of TDs, and the module's range is disabled.
    WithoutKeyIds,
    /// The module's range is disabled: SEAMCALL is #GP.
    WithoutSeamRange,
}

impl FirmwareSetup {
    /// Whether the module's range is enabled, and the module in it.
    pub(crate) const fn has_seam_range(self) -> bool {
        matches!(self, Self::Complete | Self::WithoutVmx)
    }
}

/// How a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pace {
    /// Processors are threads that run side by side; time is the host's.
    Real,
    /// One processor at a time, in virtual time; the same seed gives the same run.
    Deterministic {
        /// Decides who runs for how long.
        seed: u64,
    },
}

/// What a server is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerConfig {
    /// Logical processors, spread evenly over the packages.
    pub processors: u32,
    /// Processor packages.
    pub packages: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// The release of the TDX module.
    pub profile: ModuleProfile,
    /// The model of its processors.
    pub processor: EmulatedProcessor,
    /// What runs the instructions of hosts and guests; neither notices, and a snapshot does not say.
    #[serde(skip)]
    pub engine: EngineKind,
    /// Real time, or turns in virtual time.
    pub pace: Pace,
    /// What happens to the host's state that a TD exit gives up.
    pub host_state: HostState,
    /// What of TDX firmware set up.
    pub firmware: FirmwareSetup,
}

impl Default for ServerConfig {
    /// One processor, 2 GiB, the module release that Linux asks for (1.5.05), the host's clock.
    fn default() -> Self {
        Self {
            processors: 1,
            packages: 1,
            memory: 2 << 30,
            profile: ModuleProfile::default(),
            processor: EmulatedProcessor::default(),
            engine: EngineKind::default(),
            pace: Pace::Real,
            host_state: HostState::default(),
            firmware: FirmwareSetup::default(),
        }
    }
}

/// How far a virtual time-stamp counter moves with each instruction: at 2 GHz, the pace of the software CPU.
const TICKS_PER_INSTRUCTION: u64 = 8;

impl ServerConfig {
    /// The machine under the server.
    pub(crate) fn machine(&self) -> MachineConfig {
        let top = layout::memory_map(self.memory).last().map_or(0, |range| range.base + range.bytes);
        let cmrs =
            layout::convertible(self.memory).into_iter().map(|(base, size)| Cmr { base, size }).collect();
        MachineConfig {
            lp_packages: self.places().map(|(package, _)| package).collect(),
            phys_mem_bytes: top.next_multiple_of(1 << 21),
            cmrs,
            seam_range: SeamRange { base: SEAM_BASE, size: SEAM_BYTES },
            tsc_source: match self.pace {
                Pace::Real => TscSource::Host,
                Pace::Deterministic { .. } => TscSource::Virtual,
            },
            tsc_ticks_per_instruction: TICKS_PER_INSTRUCTION,
            profile: self.profile,
            cpuid_fms: self.processor.model.family_model_stepping(),
            processor: Emulated(self.processor),
            ..MachineConfig::small()
        }
    }

    /// Package, and number in it, of each processor.
    fn places(&self) -> impl Iterator<Item = (u32, u32)> {
        let each = self.processors.div_ceil(self.packages.max(1)).max(1);
        (0..self.processors).map(move |index| (index / each, index % each))
    }

    /// x2APIC ids: the package above, the number in it in the low eight bits.
    pub(crate) fn apic_ids(&self) -> Vec<u32> {
        self.places().map(|(package, number)| package << 8 | number).collect()
    }

    pub(crate) fn check(&self) -> Result<(), ServerError> {
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&self.memory) || !self.memory.is_multiple_of(1 << 20) {
            return Err(ServerError::Memory(self.memory));
        }
        let packages = (1..=MAX_PACKAGES).contains(&self.packages);
        if !(1..=MAX_PROCESSORS).contains(&self.processors) || !packages || self.packages > self.processors {
            return Err(ServerError::Processors { processors: self.processors, packages: self.packages });
        }
        Ok(())
    }
}

/// Why there is no server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerError {
    /// A size that a server cannot have.
    Memory(u64),
    /// Processors or packages that a server cannot have.
    Processors {
        /// Processors.
        processors: u32,
        /// Packages.
        packages: u32,
    },
    /// Two devices at one place.
    Attach(AttachError),
    /// More ACPI tables than fit.
    Acpi(TooLarge),
    /// Files that cannot be booted.
    Load(LoadError),
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(bytes) => write!(
                f,
                "a server cannot have {bytes} bytes of memory: whole MiB from {} MiB to {} GiB",
                MIN_MEMORY >> 20,
                MAX_MEMORY >> 30
            ),
            Self::Processors { processors, packages } => write!(
                f,
                "a server cannot have {processors} processors in {packages} packages: 1 to {MAX_PROCESSORS} processors, 1 to {MAX_PACKAGES} packages"
            ),
            Self::Attach(error) => error.fmt(f),
            Self::Acpi(error) => error.fmt(f),
            Self::Load(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for ServerError {}

impl From<AttachError> for ServerError {
    fn from(error: AttachError) -> Self {
        Self::Attach(error)
    }
}

impl From<TooLarge> for ServerError {
    fn from(error: TooLarge) -> Self {
        Self::Acpi(error)
    }
}

impl From<LoadError> for ServerError {
    fn from(error: LoadError) -> Self {
        Self::Load(error)
    }
}

/// How a server ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The host switched it off; 0 is success.
    PowerOff {
        /// The host's own code.
        code: u8,
    },
    /// The host asked for a reset.
    Reset,
    /// The host's kernel says that it panicked.
    Panicked,
    /// Whoever runs the server stopped it.
    Stopped,
    /// The server froze, as somebody asked ([`Server::freeze`]): it can be saved.
    Frozen,
    /// A processor met an exception while it delivered a double fault.
    TripleFault {
        /// Which.
        processor: usize,
        /// Where.
        rip: u64,
    },
    /// A processor met an instruction that the software CPU does not implement: a limit of this emulator.
    Unimplemented {
        /// Which.
        processor: usize,
        /// The instruction.
        what: Box<Unimplemented>,
    },
}

/// Where the processors of a server stand while it does not run.
#[derive(Debug)]
pub(crate) enum Start {
    /// The first one at a kernel's entry, the others parked.
    Boot(Boot),
    /// Where a server froze or ended, in the order of their numbers.
    Saved(Vec<SavedProcessor>),
    /// The server runs, or has run.
    Spent,
}

/// A server.
#[derive(Debug)]
pub struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) machine: Arc<Machine>,
    pub(crate) devices: Devices,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) parking: Arc<Parking>,
    pub(crate) report: Arc<Report>,
    pub(crate) record: Record,
    pub(crate) freeze: Freeze,
    /// What can stop its processors.
    pub(crate) debug: Option<Arc<DebugPort>>,
    pub(crate) apic_ids: Vec<u32>,
    /// Where the processors begin; of a server that has ended, where they stand.
    pub(crate) start: Mutex<Start>,
    has_ended: AtomicBool,
    ending: Mutex<Option<Ending>>,
    retired: AtomicU64,
}

impl Server {
    /// A server at power-on: memory filled, the first processor at the kernel's entry, the others parked.
    ///
    /// It brings wake-up mailbox, I/O APIC and interrupt remapping itself. Of `devices`, an operating system learns of those that are
    /// `described`, and of those whose place is known by convention.
    ///
    /// # Errors
    /// [`ServerError`].
    pub fn new(
        config: ServerConfig,
        devices: Devices,
        described: &[Described],
        record: Record,
        files: &BootFiles<'_>,
    ) -> Result<Self, ServerError> {
        config.check()?;
        let parking = Parking::new(&config.apic_ids());
        let machine = Machine::new(config.machine());
        let tables = acpi::tables(&Description {
            apic_ids: config.apic_ids(),
            io_apic: address::IO_APIC as u32,
            reset_vector: firmware::RESET_VECTOR,
            power_ports: [pm::SLEEP_CONTROL, pm::SLEEP_STATUS, address::RESET_CONTROL],
            reset_value: pm::RESET_VALUE,
            sleep_type_off: pm::S5_TYPE,
            devices: described.to_vec(),
        })?;
        for (at, bytes) in firmware::contents().into_iter().chain([(Hpa::new(TABLES), tables)]) {
            let _ = machine.host_write(at, &bytes);
        }
        let boot = loader::load(&machine, config.memory, files)?;
        let notes = (record, Report::default());
        Self::assemble(config, machine, parking, devices, notes, Start::Boot(boot))
    }

    /// Puts the parts of a server together.
    pub(crate) fn assemble(
        config: ServerConfig,
        machine: Machine,
        parking: Parking,
        mut devices: Devices,
        (record, report): (Record, Report),
        start: Start,
    ) -> Result<Self, ServerError> {
        let apic_ids = config.apic_ids();
        let (machine, parking) = (Arc::new(machine), Arc::new(parking));
        machine.observe_stores();
        let seed = match config.pace {
            Pace::Real => None,
            Pace::Deterministic { seed } => Some(seed),
        };
        let io_apic = devices.io_apic.clone();
        let report = Arc::new(report);
        let interrupts = Arc::new(Interrupts::new(machine.clone(), &apic_ids, io_apic, report.clone(), seed));
        let bells = interrupts.clone();
        let mailbox = Mailbox::new(parking.clone(), move |processor| bells.ring(processor));
        devices.mmio.attach(Gpa::new(MAILBOX), MAILBOX_BYTES, Box::new(mailbox))?;
        let io_apic = Box::new(devices.io_apic.clone());
        devices.mmio.attach(Gpa::new(address::IO_APIC), address::IO_APIC_BYTES, io_apic)?;
        let remapping = Box::new(RemappingRegisters(interrupts.remapping().clone()));
        devices.mmio.attach(Gpa::new(REMAPPING), REMAPPING_BYTES, remapping)?;
        for lp in 0..machine.num_lps() {
            machine.set_guest_cpu(lp, Box::new(seam_emu::CpuGuest::with_engine(config.engine)));
        }
        let controller: Weak<Interrupts> = Arc::downgrade(&interrupts);
        machine.attach_interrupt_controller(controller as Weak<dyn InterruptController>);
        Ok(Self {
            config,
            machine,
            devices,
            interrupts,
            parking,
            report,
            record,
            freeze: Freeze::default(),
            debug: None,
            apic_ids,
            start: Mutex::new(start),
            has_ended: AtomicBool::new(false),
            ending: Mutex::new(None),
            retired: AtomicU64::new(0),
        })
    }

    /// The server with a debug port: its processors wait before their first instruction until the port lets them go.
    #[must_use]
    pub fn debugged_by(mut self, port: Arc<DebugPort>) -> Self {
        self.debug = Some(port);
        self
    }

    /// Runs the server until it ends; one thread for each processor. A server runs once.
    pub fn run(&self) -> Ending {
        let start = std::mem::replace(&mut *self.lock_start(), Start::Spent);
        let mut processors: Vec<Processor<'_>> = self
            .apic_ids
            .iter()
            .enumerate()
            .filter_map(|(index, apic_id)| {
                let lp = self.machine.lp(index)?;
                Some(Processor::new(self, index, *apic_id, lp))
            })
            .collect();
        match start {
            Start::Boot(boot) => {
                if let Some(first) = processors.first_mut() {
                    first.boot(boot.entry, boot.zero_page);
                }
            }
            Start::Saved(saved) => {
                processors.iter_mut().zip(saved).for_each(|(processor, saved)| processor.restore(saved));
            }
            Start::Spent => self.end(Ending::Stopped),
        }
        let states = thread::scope(|scope| {
            let mut threads = Vec::new();
            for (index, processor) in processors.into_iter().enumerate() {
                match threads::spawn(scope, format!("cpu{index}"), || processor.run()) {
                    Ok(thread) => threads.push(thread),
                    Err(_) => self.end(Ending::Stopped),
                }
            }
            threads.into_iter().map_while(|thread| thread.join().ok()).collect()
        });
        *self.lock_start() = Start::Saved(states);
        self.ending().unwrap_or(Ending::Stopped)
    }

    pub(crate) fn lock_start(&self) -> MutexGuard<'_, Start> {
        self.start.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the server to stop as soon as no TD runs, and to end with [`Ending::Frozen`]; then it can be saved. May be called
    /// from any thread.
    pub fn freeze(&self) {
        self.freeze.request();
        // Who takes turns looks when its turn begins: nobody's sleep or slice ends for it.
        if !self.interrupts.takes_turns() {
            (0..self.machine.num_lps()).for_each(|processor| self.interrupts.ring(processor));
        }
    }

    /// How the server ended, if it has.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the server ended by freezing.
    pub(crate) fn is_frozen(&self) -> bool {
        self.ending() == Some(Ending::Frozen)
    }

    /// Ends the server; the first ending counts. May be called from any thread.
    pub fn end(&self, ending: Ending) {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(ending);
        self.has_ended.store(true, Ordering::SeqCst);
        self.interrupts.end();
    }

    /// How the server runs.
    pub const fn pace(&self) -> Pace {
        self.config.pace
    }

    /// Whether the server has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// The machine under the server: the module, its audit, its violations, its fault injection.
    pub fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// The interrupt controllers, for devices that raise their lines on their own.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Delivers what devices have raised on their own, outside of an access: typed input, for one. May be called from any
    /// thread; where processors take turns it is what makes a run differ from the next.
    pub fn deliver_lines(&self) {
        self.interrupts.deliver_lines();
    }

    /// What the host did that a person should know.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The host's SEAMCALLs.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Instructions that the host's processors have retired, to the end of the slice that each is in; those of TDs are not
    /// among them ([`Machine::guest_retired`]).
    pub fn retired(&self) -> u64 {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn note_retired(&self, instructions: u64) {
        self.retired.fetch_add(instructions, Ordering::AcqRel);
    }

    pub(crate) fn seam_range_enabled(&self) -> bool {
        self.config.firmware.has_seam_range()
    }

    /// Whether an address is memory that the host reaches, and no device.
    pub(crate) fn is_memory(&self, hpa: Hpa) -> bool {
        let at = hpa.get();
        let seam = (SEAM_BASE..SEAM_BASE + SEAM_BYTES).contains(&at);
        let hole = (layout::LOW_RAM_LIMIT..layout::HIGH_RAM).contains(&at);
        at < self.machine.memory().bytes() && !seam && !hole
    }
}
