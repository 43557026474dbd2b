//! The server: its parts, and its life from power-on to its end.

mod config;
mod error;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use seam_emu::Machine;
use seam_emu::guest::debug::DebugPort;
use seam_emu::machine::InterruptController;
use tdvisor_base::sync::{AtomicBool, AtomicU64, Ordering};
use tdvisor_base::{Gpa, Hpa};
use tdvisor_board::{address, pm};
use tdvisor_devices::Devices;
use x86_emu::exits::Unimplemented;

use crate::acpi::{self, Described, Description};
use crate::firmware;
use crate::freeze::Freeze;
use crate::interrupts::Interrupts;
use crate::layout::{
    self, MAILBOX, MAILBOX_BYTES, REMAPPING, REMAPPING_BYTES, SEAM_BASE, SEAM_BYTES, TABLES,
};
use crate::loader::{self, Boot, BootFiles};
use crate::mailbox::{Mailbox, Parking};
use crate::processor::{Processor, SavedProcessor};
use crate::record::Record;
use crate::remapping::RemappingRegisters;
use crate::report::Report;
use crate::threads::{self, thread};

pub use config::{
    FirmwareSetup, HostState, MAX_MEMORY, MAX_PACKAGES, MAX_PROCESSORS, MIN_MEMORY, Pace, ServerConfig,
};
pub use error::ServerError;

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
