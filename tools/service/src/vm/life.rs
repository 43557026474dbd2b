//! A life of a VM: the thread that makes its machine, runs its TD and tears it down.

mod kvm;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use machine_emu::trace::Trace;
use machine_emu::{Hardware, Pace};
use td_host::td::Ending;
use td_image::digest::Digest384;
use tdvisor_devices::acpi_pm::Nanoseconds;
use tdvisor_devices::virtio::console::VirtioConsole;
use tdvisor_monitor::hold::{NotStill, Phase};
use tdvisor_runtime::backend::BackendKind;
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::boot_files::BootFiles;
use tdvisor_runtime::board::hvc::{Hvc, HvcInput};
use tdvisor_runtime::board::serial::SerialInput;
use tdvisor_runtime::board::{Board, BoardError, BoardSpec, Transport};
use tdvisor_runtime::dump::Secrecy;
use tdvisor_runtime::kvm::KvmReport;
use tdvisor_runtime::kvm::host::{BuildError, Ending as KvmEnding, Error as KvmError};
use tdvisor_runtime::pause::Pauser;
use tdvisor_runtime::worker::StopFlag;
use tdvisor_runtime::{Event, Machine, MachineSpec, Report, Session, TdSpec, Watch, events};

use super::board::{self, DeviceError};
use super::consoles::{Console, Keyboard, Screen, Terminal, Unplugged};
use super::counters::DeviceCounters;
use super::exit::{Exit, ExitReason};
use super::files::{FileError, Payload};
use super::{Quotes, VmCounters, WhenOff};
use crate::config::{ConsoleMode, VmConfig};
use crate::logged;

/// How long a request to stop may go unnoticed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why a life could not begin.
#[derive(Debug)]
pub enum StartError {
    /// A file of the payload.
    File(FileError),
    /// A device.
    Device(DeviceError),
    /// A console.
    Console(&'static str, io::Error),
    /// The board.
    Board(BoardError),
    /// The TD's host: a refusal of the module, exhausted memory.
    Host(Box<td_host::Error>),
    /// KVM cannot be opened.
    NoKvm(KvmError),
    /// KVM makes no such TD.
    Kvm(Box<BuildError>),
    /// Descriptors cannot be copied.
    Descriptors(io::Error),
    /// No thread can be had.
    Thread(io::Error),
    /// The VM was asked to end, or its time was up, before it ran.
    Interrupted,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => write!(f, "payload: {error}"),
            Self::Device(error) => error.fmt(f),
            Self::Console(which, error) => write!(f, "{which}: {error}"),
            Self::Board(error) => error.fmt(f),
            Self::Host(error) => error.fmt(f),
            Self::NoKvm(error) => error.fmt(f),
            Self::Kvm(error) => error.fmt(f),
            Self::Descriptors(error) => write!(f, "net.fds: {error}"),
            Self::Thread(error) => write!(f, "no thread: {error}"),
            Self::Interrupted => f.write_str("it did not come to run in time"),
        }
    }
}

impl std::error::Error for StartError {}

/// The facts of a session.
#[derive(Debug)]
pub enum Facts {
    /// Of one on the emulated machine.
    Emulated(Box<Report>),
    /// Of one on Linux's KVM.
    Kvm(KvmReport),
}

impl Facts {
    /// Whether the guest asked for a reboot.
    const fn is_reset(&self) -> bool {
        match self {
            Self::Emulated(report) => matches!(report.ending, Ending::Reset),
            Self::Kvm(report) => matches!(report.ending, KvmEnding::Reset),
        }
    }
}

/// How a life ended.
#[derive(Debug)]
pub struct End {
    /// The facts of the session.
    pub facts: Facts,
    /// MRTD by calculation alone.
    pub predicted: Digest384,
}

/// What a life is made from.
pub(super) struct Plan {
    pub(super) config: VmConfig,
    pub(super) cards: BTreeMap<String, Vec<OwnedFd>>,
    pub(super) backend: BackendKind,
    pub(super) hardware: Hardware,
    pub(super) transport: Transport,
    pub(super) when_off: WhenOff,
    pub(super) quotes: Arc<Quotes>,
    pub(super) terminal: Terminal,
}

/// How far a life has come.
#[derive(Debug)]
enum Stage {
    Starting,
    Running,
    NotStarted(Option<StartError>),
    Over,
}

struct State {
    stage: Stage,
    wants_end: bool,
    /// Ends the waits of this life's devices.
    stop: StopFlag,
    machine: Option<Arc<Machine>>,
    /// Pauses the session that is driven.
    pauser: Option<Pauser>,
    counters: BTreeMap<String, DeviceCounters>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn set(&self, stage: Stage) {
        self.lock().stage = stage;
        self.changed.notify_all();
    }
}

impl Watch for Shared {
    fn wants_stop(&self) -> bool {
        self.lock().wants_end
    }

    fn wait(&self) {
        drop(self.changed.wait_timeout(self.lock(), LOOK_AGAIN));
    }

    fn ring(&self) {
        self.changed.notify_all();
    }
}

/// A life. It ends when it is dropped.
pub(super) struct Life {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Life {
    /// Begins a life, whose end by itself `exit` is told.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(super) fn begin(plan: Plan, exit: Arc<Exit>) -> Result<Self, StartError> {
        let state = State {
            stage: Stage::Starting,
            wants_end: false,
            stop: StopFlag::default(),
            machine: None,
            pauser: None,
            counters: BTreeMap::new(),
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let of_thread = shared.clone();
        let thread = std::thread::Builder::new()
            .name("vm".to_owned())
            .spawn(move || of_thread.live(&plan, &exit))
            .map_err(StartError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Waits until it runs.
    ///
    /// # Errors
    /// It could not begin, or not until the deadline.
    pub(super) fn await_running(&self, deadline: Instant) -> Result<(), StartError> {
        let mut state = self.shared.lock();
        loop {
            match &mut state.stage {
                Stage::Starting => {}
                Stage::NotStarted(error) => return Err(error.take().unwrap_or(StartError::Interrupted)),
                // A guest may have been quick.
                Stage::Running | Stage::Over => return Ok(()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StartError::Interrupted);
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether the VM has ended by itself.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.shared.lock().stage, Stage::Over | Stage::NotStarted(_))
    }

    /// What pauses it, while its TD runs.
    fn pauser(&self) -> Option<Pauser> {
        self.shared.lock().pauser.clone()
    }

    /// Whether its vCPUs stand still.
    pub(super) fn is_paused(&self) -> bool {
        self.pauser().is_some_and(|pauser| pauser.phase() == Phase::Still)
    }

    /// Makes its vCPUs stand still.
    ///
    /// # Errors
    /// It has ended, or a vCPU did not leave its guest in time: then it runs on.
    pub(super) fn pause(&self, within: Duration) -> Result<(), NotStill> {
        self.pauser().ok_or(NotStill::Ended)?.pause(within)
    }

    /// Lets them run on.
    pub(super) fn resume(&self) {
        if let Some(pauser) = self.pauser() {
            pauser.resume();
        }
    }

    /// What was counted so far.
    pub(super) fn counters(&self) -> VmCounters {
        let state = self.shared.lock();
        let mut all: VmCounters =
            state.counters.iter().map(|(name, counters)| (name.clone(), counters.read())).collect();
        if let Some(machine) = &state.machine {
            all.insert("_seamcalls".to_owned(), machine.platform().trace().calls());
        }
        all
    }

    /// Ends it, and waits until everything is given back.
    pub(super) fn end(self) {
        drop(self);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.wants_end = true;
        state.stop.set();
        drop(state);
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a board is made with, and what is plugged into it.
struct Wired {
    spec: BoardSpec,
    bell: Bell,
    serial: (Screen, Unplugged),
    hvc: Option<(HvcInput, Unplugged)>,
}

/// Says that a life is over even where its thread breaks one of its own rules.
struct OverAtLast<'a>(&'a Shared);

impl Drop for OverAtLast<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.set(Stage::NotStarted(None));
        }
    }
}

impl Shared {
    /// Lives until the end, through any number of reboots that the guest asks for.
    fn live(self: &Arc<Self>, plan: &Plan, exit: &Exit) {
        let _guard = OverAtLast(self);
        let end = loop {
            let lived = match plan.backend {
                BackendKind::Emulated => self.once(plan),
                BackendKind::Kvm => self.once_on_kvm(plan),
            };
            match lived {
                Ok(end) if end.facts.is_reset() && self.begins_again() => {}
                Ok(end) => break end,
                Err(error) => {
                    // When it ran before, nobody waits for the reason.
                    let was_running = matches!(self.lock().stage, Stage::Running);
                    if was_running && plan.when_off == WhenOff::Exit {
                        self.set(Stage::Over);
                        exit.ask(ExitReason::RebootFailed(error));
                    } else {
                        self.set(Stage::NotStarted(Some(error)));
                    }
                    return;
                }
            }
        };
        let by_itself = !self.lock().wants_end;
        self.set(Stage::Over);
        if by_itself && plan.when_off == WhenOff::Exit {
            exit.ask(ExitReason::GuestEnded(Box::new(end)));
        }
    }

    /// Prepares another life of the VM. Whether there is to be one: nobody wants its end.
    fn begins_again(&self) -> bool {
        let mut state = self.lock();
        state.stop = StopFlag::default();
        !state.wants_end
    }

    /// One time from machine to teardown.
    fn once(self: &Arc<Self>, plan: &Plan) -> Result<End, StartError> {
        let host = |error| StartError::Host(Box::new(error));
        let config = &plan.config;
        let memory = config.memory.size;
        let payload = Payload::load(&config.payload, memory, !config.disks().is_empty());
        let payload = payload.map_err(StartError::File)?;
        let stop = self.lock().stop.clone();
        let td = config.td_config();
        let (log, clock) = (logged::td_of_vm(), Mutex::new(None::<Nanoseconds>));
        let events = |event: Event<'_>| {
            let at = Duration::from_nanos(lock(&clock).as_ref().map_or(0, |now| now()));
            match &event {
                Event::Running => {
                    logged::line(
                        &log,
                        &events::booted(config.cpus.boot_vcpus, plan.backend, Secrecy::Kept, at),
                    );
                    self.set(Stage::Running);
                }
                Event::Happened(happening) => logged::line(&log, &events::happened(happening, at)),
                Event::Ended(ending) => {
                    logged::line(&log, &events::ended(ending, at));
                    stop.set();
                }
                Event::BringUp(_) | Event::Build(_) | Event::Built => {}
            }
        };
        let spec = MachineSpec {
            hardware: plan.hardware,
            memory,
            vcpus: td.vcpus,
            pace: Pace::Real,
            trace: Trace::counting(),
            faults: None,
            debug: None,
            samples: None,
        };
        let machine = Arc::new(Machine::bring_up(spec, &events).map_err(host)?);
        *lock(&clock) = Some(nanoseconds_of(&machine));
        let Wired { spec, bell, serial: (screen, serial_keys), hvc } =
            self.wire(plan, nanoseconds_of(&machine), &stop)?;
        let spec = BoardSpec { boot: payload.files, ..spec };
        let board = Board::new(screen, io::sink(), spec).map_err(StartError::Board)?;
        let keyboards = self.plug_all(board.input, serial_keys, hvc)?;
        let quotes = (plan.quotes)(Some(machine.platform().machine()), stop.clone());
        let spec = TdSpec {
            config: td,
            image: &payload.image,
            devices: board.devices,
            bell,
            quotes,
            debugger: None,
            secrecy: Secrecy::Kept,
        };
        let session = Session::start(&machine, spec, &events).map_err(host)?;
        logged::is_at(&log, session.td().tdr().hpa());
        {
            let mut state = self.lock();
            (state.machine, state.pauser) = (Some(machine.clone()), Some(session.pauser()));
        }
        let ended = session.drive(&**self);
        drop(keyboards);
        self.lock().pauser = None;
        let report = ended.teardown();
        self.lock().machine = None;
        Ok(End { facts: Facts::Emulated(Box::new(report)), predicted: payload.predicted })
    }

    /// Plugs in what is typed on serial port and console.
    fn plug_all(
        self: &Arc<Self>,
        input: SerialInput,
        serial: Unplugged,
        hvc: Option<(HvcInput, Unplugged)>,
    ) -> Result<Vec<Keyboard>, StartError> {
        let ringer = self.clone();
        let push = move |bytes: &[u8]| {
            let taken = input.push(bytes);
            ringer.ring();
            taken
        };
        let mut keyboards = vec![plug("serial", serial, push)?];
        if let Some((input, keys)) = hvc {
            keyboards.push(plug("console", keys, move |bytes| input.push(bytes))?);
        }
        Ok(keyboards)
    }

    /// Opens devices and consoles.
    fn wire(&self, plan: &Plan, now: Nanoseconds, stop: &StopFlag) -> Result<Wired, StartError> {
        let config = &plan.config;
        let bell = Bell::default();
        let opened = board::open(config, &plan.cards, Pace::Real, stop, &bell).map_err(StartError::Device)?;
        self.lock().counters = opened.counters;
        let mut virtio = opened.virtio;
        let open = |which, console| {
            Console::open(console, &plan.terminal).map_err(|error| StartError::Console(which, error))
        };
        let serial = open("serial", &config.serial)?.split();
        let hvc = if config.console.mode == ConsoleMode::Off {
            None
        } else {
            let input = HvcInput::new(bell.clone());
            let (screen, keys) = open("console", &config.console)?.split();
            let hvc = Box::new(Hvc::new(screen, input.clone()));
            virtio.push(Box::new(VirtioConsole::new(hvc, None)));
            Some((input, keys))
        };
        let spec = BoardSpec {
            pace: Pace::Real,
            now,
            memory: config.memory.size,
            vcpus: config.cpus.boot_vcpus,
            boot: BootFiles::None,
            virtio,
            transport: plan.transport,
        };
        Ok(Wired { spec, bell, serial, hvc })
    }
}

fn plug(
    which: &'static str,
    keys: Unplugged,
    push: impl Fn(&[u8]) -> usize + Send + 'static,
) -> Result<Keyboard, StartError> {
    keys.plug(push).map_err(|error| StartError::Console(which, error))
}

/// The machine's time, for the timers of its board.
pub(crate) fn nanoseconds_of(machine: &Machine) -> Nanoseconds {
    const NANOSECONDS: u128 = 1_000_000_000;
    let machine = machine.platform().machine();
    let hertz = u128::from(machine.config().tsc_hz.max(1));
    Box::new(move || (u128::from(machine.tsc()) * NANOSECONDS / hertz) as u64)
}
