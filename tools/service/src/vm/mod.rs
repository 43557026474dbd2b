//! One VM: what it was asked for, and the life that it has.
//!
//! # Protocol
//! ```text
//! create(config)     what is asked for is checked and kept; nothing runs
//! boot               a life begins: a thread makes a machine, builds and measures the TD, and runs it; boot returns when
//!                    every vCPU has its thread, or the life could not begin
//! shutdown, delete   the life ends: its thread stops the TD, gives everything back and is joined
//! reboot             the life ends and another begins, with the same configuration and the same descriptors
//! ```
//! A guest that asks for a reboot gets another life by itself: a TD cannot be reset, it is built anew. When a guest ends
//! otherwise, whoever owns the [`Vm`] is told by its [`Exit`].
//!
//! # Who does what
//! Requests come on the threads of connections, one at a time ([`gate`](Gate)); the life's thread drives the session and tears
//! it down; devices have the threads that they need. All of them end with the life.

pub(crate) mod board;
mod consoles;
pub(crate) mod counters;
mod error;
mod exit;
pub(crate) mod files;
mod gate;
pub(crate) mod life;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use machine_emu::Hardware;
use seam_emu::Machine;
use serde::Serialize;
use tdvisor_monitor::QuoteSource;
use tdvisor_runtime::backend::BackendKind;
use tdvisor_runtime::board::Transport;
use tdvisor_runtime::worker::StopFlag;

use crate::config::{DiskConfig, FsConfig, NetConfig, TdPolicy, VmConfig, VsockConfig};

pub use board::DeviceError;
pub use counters::DeviceCounters;
pub use error::VmError;
pub use exit::{Exit, ExitReason};
pub use files::FileError;
pub use gate::{Entered, Gate};
pub use life::{End, Facts, StartError};

use consoles::Terminal;
use life::{Life, Plan};

/// Where the quotes of a TD come from, given the emulated module, if one is under it, and what ends waits.
pub type Quotes = dyn Fn(Option<Arc<Machine>>, StopFlag) -> Option<Box<dyn QuoteSource>> + Send + Sync;

/// What a guest's own end means for the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenOff {
    /// The process ends with its VM, as Cloud Hypervisor does.
    #[default]
    Exit,
    /// The process stays, and the VM can be booted again.
    Stay,
}

/// What all VMs of a process have in common.
pub struct VmOptions {
    /// What runs a TD.
    pub backend: BackendKind,
    /// The machine under a TD, if it is emulated.
    pub hardware: Hardware,
    /// Whether a VM has to ask to be a TD.
    pub policy: TdPolicy,
    /// How virtio devices are attached.
    pub transport: Transport,
    /// What a guest's own end means.
    pub when_off: WhenOff,
    /// Where quotes come from.
    pub quotes: Arc<Quotes>,
}

impl std::fmt::Debug for VmOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmOptions").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// How long vCPUs may take to leave their guest: more than a disk may take for a request.
const STAND_STILL: Duration = Duration::from_secs(35);

/// The states of a VM, by Cloud Hypervisor's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum VmState {
    /// The VM was asked for and does not run; it may have run before.
    Created,
    /// The VM runs.
    Running,
    /// The VM was running, and its vCPUs stand still.
    Paused,
    /// The VM ended by itself, and the process was told to stay.
    Shutdown,
}

/// What there is to say of a VM.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VmInfo {
    /// What the VM was asked for with, defaults filled in.
    pub config: VmConfig,
    /// What the VM does.
    pub state: VmState,
    /// Bytes of memory that the guest has.
    pub memory_actual_size: u64,
}

/// Counters of each device, and of the module.
pub type VmCounters = BTreeMap<String, BTreeMap<String, u64>>;

/// A device that is added.
#[derive(Debug)]
pub enum Added {
    /// A disk.
    Disk(DiskConfig),
    /// A network card, with the descriptors that came with the request.
    Net(NetConfig, Vec<OwnedFd>),
    /// A folder.
    Fs(FsConfig),
    /// Streams.
    Vsock(VsockConfig),
}

/// What was asked for.
struct Asked {
    config: VmConfig,
    /// The descriptors of cards, by the cards' names. They are kept: a life gets copies.
    cards: BTreeMap<String, Vec<OwnedFd>>,
}

#[derive(Default)]
struct Inner {
    asked: Option<Asked>,
    life: Option<Life>,
    ended_by_itself: bool,
}

/// The VM of a process.
pub struct Vm {
    options: VmOptions,
    terminal: Terminal,
    exit: Arc<Exit>,
    inner: Gate<Inner>,
}

impl std::fmt::Debug for Vm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vm").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Inner {
    /// Buries a life that has ended by itself.
    fn settle(&mut self) {
        if self.life.as_ref().is_some_and(Life::has_ended) {
            self.life = None;
            self.ended_by_itself = true;
        }
    }

    fn asked(&mut self) -> Result<&mut Asked, VmError> {
        self.asked.as_mut().ok_or(VmError::NotCreated)
    }

    fn running(&self) -> Result<&Life, VmError> {
        self.life.as_ref().ok_or(VmError::NotRunning)
    }
}

impl Vm {
    /// No VM yet.
    #[must_use]
    pub fn new(options: VmOptions, exit: Arc<Exit>) -> Self {
        Self { options, terminal: Terminal::of_process(), exit, inner: Gate::default() }
    }

    /// Who is told when the guest ends by itself.
    pub const fn exit(&self) -> &Arc<Exit> {
        &self.exit
    }

    /// Does something with the VM, when nobody else does.
    fn with<T>(
        &self,
        deadline: Instant,
        what: impl FnOnce(&mut Inner) -> Result<T, VmError>,
    ) -> Result<T, VmError> {
        let mut inner = self.inner.enter(deadline).ok_or(VmError::Busy)?;
        inner.settle();
        what(&mut inner)
    }

    /// Keeps what is asked for.
    ///
    /// # Errors
    /// There is a VM already, or the configuration cannot be had.
    pub fn create(&self, mut config: VmConfig, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| {
            if inner.asked.is_some() {
                return Err(VmError::AlreadyCreated);
            }
            // Descriptors come with a request of their own: what is written here are numbers of another process.
            config.net.iter_mut().flatten().for_each(|net| net.fds = None);
            config.check(self.options.policy)?;
            config.name_devices();
            inner.asked = Some(Asked { config, cards: BTreeMap::new() });
            inner.ended_by_itself = false;
            Ok(())
        })
    }

    /// Begins a life.
    ///
    /// # Errors
    /// There is none to begin, it runs already, or it cannot begin.
    pub fn boot(&self, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| {
            if inner.life.is_some() {
                return Err(VmError::AlreadyRunning);
            }
            let plan = self.plan(inner.asked()?)?;
            inner.ended_by_itself = false;
            let life = Life::begin(plan, self.exit.clone())?;
            // A life whose beginning was not waited for ends when it is dropped.
            life.await_running(deadline)?;
            inner.life = Some(life);
            Ok(())
        })
    }

    /// What a life is made from.
    fn plan(&self, asked: &Asked) -> Result<Plan, VmError> {
        let mut cards = BTreeMap::new();
        for (name, fds) in &asked.cards {
            let copies: std::io::Result<Vec<OwnedFd>> = fds.iter().map(OwnedFd::try_clone).collect();
            cards.insert(name.clone(), copies.map_err(StartError::Descriptors)?);
        }
        Ok(Plan {
            config: asked.config.clone(),
            cards,
            backend: self.options.backend,
            hardware: self.options.hardware,
            transport: self.options.transport,
            when_off: self.options.when_off,
            quotes: self.options.quotes.clone(),
            terminal: self.terminal.clone(),
        })
    }

    /// What there is to say.
    ///
    /// # Errors
    /// There is no VM.
    pub fn info(&self, deadline: Instant) -> Result<VmInfo, VmError> {
        self.with(deadline, |inner| {
            let state = match &inner.life {
                Some(life) if life.is_paused() => VmState::Paused,
                Some(_) => VmState::Running,
                None if inner.ended_by_itself => VmState::Shutdown,
                None => VmState::Created,
            };
            let config = inner.asked()?.config.clone();
            Ok(VmInfo { state, memory_actual_size: config.memory.size, config })
        })
    }

    /// What the VM's devices and the module under it have counted.
    ///
    /// # Errors
    /// It does not run.
    pub fn counters(&self, deadline: Instant) -> Result<VmCounters, VmError> {
        self.with(deadline, |inner| Ok(inner.running()?.counters()))
    }

    /// Makes its vCPUs stand still.
    ///
    /// # Errors
    /// It does not run, is paused already, or a vCPU did not leave its guest in time.
    pub fn pause(&self, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| {
            let life = inner.running()?;
            if life.is_paused() {
                return Err(VmError::AlreadyPaused);
            }
            life.pause(deadline.saturating_duration_since(Instant::now()).min(STAND_STILL))
                .map_err(VmError::NotStill)
        })
    }

    /// Lets vCPUs that stand still run on.
    ///
    /// # Errors
    /// It does not run, or is not paused.
    pub fn resume(&self, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| {
            let life = inner.running()?;
            if !life.is_paused() {
                return Err(VmError::NotPaused);
            }
            life.resume();
            Ok(())
        })
    }

    /// Ends its life.
    ///
    /// # Errors
    /// It does not run.
    pub fn shutdown(&self, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| inner.life.take().map(Life::end).ok_or(VmError::NotRunning))
    }

    /// Ends its life and forgets what was asked for. Without a VM nothing happens.
    ///
    /// # Errors
    /// Somebody else was busy with it for too long.
    pub fn delete(&self, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| {
            if let Some(life) = inner.life.take() {
                life.end();
            }
            inner.asked = None;
            inner.ended_by_itself = false;
            Ok(())
        })
    }

    /// Ends its life and begins another.
    ///
    /// # Errors
    /// It does not run, or cannot begin again.
    pub fn reboot(&self, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| {
            // Cloud Hypervisor says of a VM that does not run that there is none.
            inner.life.take().map(Life::end).ok_or(VmError::NotCreated)?;
            let life = Life::begin(self.plan(inner.asked()?)?, self.exit.clone())?;
            life.await_running(deadline)?;
            inner.life = Some(life);
            Ok(())
        })
    }

    /// Asks something of a running VM that it does not have.
    ///
    /// # Errors
    /// Always: it does not run, or does not have it.
    pub fn refuse(&self, what: &'static str, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| inner.running().and(Err(VmError::Unsupported(what))))
    }

    /// Adds a device to a VM that does not run.
    ///
    /// # Errors
    /// There is no VM, the device cannot be had, or the VM runs: it has no places for devices that come later.
    pub fn add(&self, device: Added, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| {
            let is_running = inner.life.is_some();
            let asked = inner.asked()?;
            let mut config = asked.config.clone();
            let mut card = None;
            match device {
                Added::Disk(disk) => config.disks.get_or_insert_default().push(disk),
                Added::Fs(fs) => config.fs.get_or_insert_default().push(fs),
                Added::Vsock(_) if config.vsock.is_some() => return Err(VmError::SecondVsock),
                Added::Vsock(vsock) => config.vsock = Some(vsock),
                Added::Net(mut net, fds) => {
                    net.fds = None;
                    board::check_card(&net, &fds)?;
                    card = Some(fds);
                    config.net.get_or_insert_default().push(net);
                }
            }
            config.check(self.options.policy)?;
            if is_running {
                return Err(VmError::Unsupported("devices that are added while the VM runs"));
            }
            config.name_devices();
            let name = config.net().last().and_then(|net| net.id.clone());
            if let (Some(fds), Some(name)) = (card, name) {
                asked.cards.insert(name, fds);
            }
            asked.config = config;
            Ok(())
        })
    }

    /// Takes a device from a VM that does not run.
    ///
    /// # Errors
    /// There is no VM, no such device, or the VM runs.
    pub fn remove(&self, id: &str, deadline: Instant) -> Result<(), VmError> {
        fn take<T>(list: &mut Option<Vec<T>>, id: impl Fn(&T) -> bool) {
            if let Some(devices) = list {
                devices.retain(|device| !id(device));
            }
        }
        self.with(deadline, |inner| {
            let is_running = inner.life.is_some();
            let asked = inner.asked()?;
            if !asked.config.ids().contains(&id) {
                return Err(VmError::NoSuchDevice(id.to_owned()));
            }
            if is_running {
                return Err(VmError::Unsupported("devices that are taken away while the VM runs"));
            }
            let config = &mut asked.config;
            take(&mut config.disks, |disk| disk.id.as_deref() == Some(id));
            take(&mut config.net, |net| net.id.as_deref() == Some(id));
            take(&mut config.fs, |fs| fs.id.as_deref() == Some(id));
            if config.vsock.as_ref().is_some_and(|vsock| vsock.id.as_deref() == Some(id)) {
                config.vsock = None;
            }
            asked.cards.remove(id);
            Ok(())
        })
    }

    /// Changes vCPUs and memory of a VM that does not run.
    ///
    /// # Errors
    /// There is no VM, it cannot have that, or it runs: a TD stays as it was measured.
    pub fn resize(&self, vcpus: Option<u32>, memory: Option<u64>, deadline: Instant) -> Result<(), VmError> {
        self.with(deadline, |inner| {
            let is_running = inner.life.is_some();
            let asked = inner.asked()?;
            let mut config = asked.config.clone();
            if let Some(vcpus) = vcpus {
                (config.cpus.boot_vcpus, config.cpus.max_vcpus) = (vcpus, vcpus);
            }
            if let Some(memory) = memory {
                config.memory.size = memory;
            }
            config.check(self.options.policy)?;
            if is_running && config != asked.config {
                return Err(VmError::Unsupported("another size of a TD that runs"));
            }
            asked.config = config;
            Ok(())
        })
    }
}
