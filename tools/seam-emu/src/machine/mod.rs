//! The machine: memory, processors, and the module that they share.

mod call;
mod env;
mod host;
mod interrupts;
mod limit;
mod log;
mod lp;
mod observer;
mod recent;
mod report;
mod saved;
mod shutdown;
mod snapshot;
mod stale;
mod tlb;
mod translate;
mod violation;

pub use env::{GuestEnv, GuestMemoryError, Translations};
pub(crate) use env::{GuestSpace, GuestTime};
pub use host::HostMemoryError;
pub use interrupts::InterruptController;
pub use limit::EmulatorLimit;
pub use lp::Lp;
pub use observer::TdcallObserver;
pub use recent::{GuestCall, GuestExit, Recent};
pub use saved::{CannotSave, NotThisMachine, SavedMachine};
pub use shutdown::GuestShutdown;
pub use snapshot::{MachineSnapshot, SnapshotRefused};
pub(crate) use tlb::{Asid, Tlb};
pub use violation::{HostViolation, StaleTranslation};

use phys_memory::{Arena, KeySpace};
use tdvisor_base::clock::{Clock, VirtualClock};
use tdvisor_base::sync::{Arc, AtomicBool, AtomicU8, AtomicU64, Mutex, Ordering};
use tdvisor_base::{Hpa, KeyId, Ticks};

use crate::config::{MachineConfig, TscSource};
use crate::guest::GuestCpu;
use crate::inject::Injector;
use crate::module::Module;
use log::Log;
use violation::ViolationLog;

/// What RDSEED does (fault injection).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum RdseedMode {
    /// Gives random numbers.
    #[default]
    Ok = 0,
    /// Never has one ready.
    NoEntropy = 1,
}

/// What PCONFIG does (fault injection).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub enum PconfigMode {
    /// Programs the key.
    #[default]
    Ok = 0,
    /// Fails because no random key could be made.
    EntropyError = 1,
    /// Fails because another processor programs a key.
    DeviceBusy = 2,
}

/// What the machine knows of one logical processor. The module's view of it is in [`Module`].
///
/// Processors are threads that write their own: none shares a cache line with another.
#[repr(align(128))]
pub(crate) struct Processor {
    pub(crate) package: u32,
    /// What processors and leaves look at: the line, or an interrupt that fault injection pretends.
    pub(crate) interrupt_pending: AtomicBool,
    /// What the outside world set.
    interrupt_line: AtomicBool,
    pub(crate) tlb: Tlb,
    /// Address of the TDR whose guest runs here; zero while none does.
    pub(crate) running: AtomicU64,
    /// Instructions that guests may still execute here before the processor leaves them.
    pub(crate) quantum: AtomicU64,
    /// The VMM's XMM registers.
    pub(crate) xmm: Mutex<[u128; 16]>,
    /// XFAM of the TD that exited here last, until somebody asks; zero for none.
    pub(crate) exit_xfam: AtomicU64,
    /// The last exits of guests to the module.
    guest_exits: Recent<GuestExit>,
    /// The CPU that executes guests on this processor, while it does not.
    pub(crate) guest_cpu: Mutex<Option<Box<dyn GuestCpu + Send>>>,
}

impl Processor {
    /// Whether a guest of this TD runs here now.
    pub(crate) fn runs(&self, tdr: Hpa) -> bool {
        self.running.load(Ordering::Acquire) == tdr.get()
    }
}

/// An emulated machine.
pub struct Machine {
    config: MachineConfig,
    memory: Arc<Arena>,
    processors: Box<[Processor]>,
    pub(crate) module: Module,
    violations: ViolationLog,
    limits: Log<EmulatorLimit>,
    shutdowns: Log<GuestShutdown>,
    dirty: stale::DirtyLines,
    rdseed: AtomicU8,
    pconfig: AtomicU8,
    faults: Injector,
    tdcalls: std::sync::OnceLock<Arc<dyn TdcallObserver>>,
    interrupts: std::sync::OnceLock<std::sync::Weak<dyn InterruptController>>,
    clock: VirtualClock,
    guest_retired: AtomicU64,
    started: std::time::Instant,
}

impl core::fmt::Debug for Machine {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Machine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Machine {
    /// A machine at power-on: memory zero, the module loaded but not initialised.
    ///
    /// ```
    /// use seam_emu::{Machine, MachineConfig};
    /// use tdx_module_iface::{Gprs, SeamCall, Status, StatusCode, TdhLeaf};
    ///
    /// let machine = Machine::new(MachineConfig::small());
    /// let mut lp = machine.lp(0).expect("a processor");
    /// let mut call = |leaf: TdhLeaf| {
    ///     let mut gprs = Gprs { rax: leaf.0.into(), ..Gprs::ZERO };
    ///     lp.seamcall(&mut gprs).expect("a module that answers");
    ///     Status::from_raw(gprs.rax).code()
    /// };
    /// assert_eq!(call(TdhLeaf::MNG_CREATE), StatusCode::SYS_NOT_READY);
    /// assert_eq!(call(TdhLeaf::SYS_INIT), StatusCode::SUCCESS);
    /// assert_eq!(call(TdhLeaf::SYS_LP_INIT), StatusCode::SUCCESS);
    /// ```
    pub fn new(config: MachineConfig) -> Self {
        let config = config.presented();
        let module = Module::new(&config);
        Self::assemble_empty(config, module)
    }

    /// A machine with this module, whose memory is zero.
    fn assemble_empty(config: MachineConfig, module: Module) -> Self {
        let keys = KeySpace { first_private: *config.private_hkids.start() };
        let memory = Arena::new(config.phys_mem_bytes, keys);
        Self::assemble(config, memory, module)
    }

    fn assemble(config: MachineConfig, memory: Arena, module: Module) -> Self {
        let processors = config
            .lp_packages
            .iter()
            .map(|package| Processor {
                package: *package,
                interrupt_pending: AtomicBool::new(false),
                interrupt_line: AtomicBool::new(false),
                tlb: Tlb::default(),
                running: AtomicU64::new(0),
                xmm: Mutex::new([0; 16]),
                exit_xfam: AtomicU64::new(0),
                quantum: AtomicU64::new(u64::MAX),
                guest_exits: Recent::default(),
                guest_cpu: Mutex::new(None),
            })
            .collect();
        let clock = VirtualClock::new(config.tsc_hz);
        Self {
            config,
            memory: Arc::new(memory),
            processors,
            module,
            violations: ViolationLog::default(),
            limits: Log::default(),
            shutdowns: Log::default(),
            dirty: stale::DirtyLines::default(),
            rdseed: AtomicU8::new(0),
            pconfig: AtomicU8::new(0),
            faults: Injector::default(),
            tdcalls: std::sync::OnceLock::new(),
            interrupts: std::sync::OnceLock::new(),
            clock,
            guest_retired: AtomicU64::new(0),
            started: std::time::Instant::now(),
        }
    }

    /// What the machine was made from.
    pub fn config(&self) -> &MachineConfig {
        &self.config
    }

    /// Physical memory. Access through it is access by hardware: keys are checked, nothing else is.
    pub fn memory(&self) -> &Arc<Arena> {
        &self.memory
    }

    /// Logical processor `index`; `None` where the machine has fewer.
    pub fn lp(&self, index: usize) -> Option<Lp<&Self>> {
        Lp::new(self, index)
    }

    /// Number of logical processors.
    pub fn num_lps(&self) -> usize {
        self.processors.len()
    }

    pub(crate) fn processors(&self) -> &[Processor] {
        &self.processors
    }

    /// Makes an external interrupt for the VMM pending on a processor, or not. Interruptible leaves see it,
    /// and a guest that runs there on a [`crate::guest`] CPU that polls exits with reason 1.
    pub fn set_interrupt_pending(&self, lp: usize, pending: bool) {
        if let Some(processor) = self.processors.get(lp) {
            processor.interrupt_line.store(pending, Ordering::SeqCst);
            processor.interrupt_pending.store(pending, Ordering::SeqCst);
        }
    }

    /// Faults that calls get on demand.
    pub fn faults(&self) -> &Injector {
        &self.faults
    }

    /// Runs `act` with an interrupt pending on a processor, whether one is or not.
    pub(crate) fn with_interrupt<R>(&self, lp: usize, act: impl FnOnce() -> R) -> R {
        let Some(processor) = self.processors.get(lp) else { return act() };
        processor.interrupt_pending.store(true, Ordering::SeqCst);
        let result = act();
        processor.interrupt_pending.store(false, Ordering::SeqCst);
        // One that became pending meanwhile must not get lost.
        if processor.interrupt_line.load(Ordering::SeqCst) {
            processor.interrupt_pending.store(true, Ordering::SeqCst);
        }
        result
    }

    /// Whether an external interrupt for the VMM is pending on a processor.
    pub fn interrupt_pending(&self, lp: usize) -> bool {
        self.processors.get(lp).is_some_and(|p| p.interrupt_pending.load(Ordering::Acquire))
    }

    /// Plugs in the CPU that executes guests on a processor.
    pub fn set_guest_cpu(&self, lp: usize, cpu: Box<dyn GuestCpu + Send>) {
        if let Some(processor) = self.processors.get(lp) {
            *processor.guest_cpu.lock() = Some(cpu);
        }
    }

    /// The VMM's XMM registers on a processor. A TD exit leaves zeros there, but for those that the guest passes
    /// with TDG.VP.VMCALL; the next TDH.VP.ENTER passes the same ones back.
    pub fn host_xmm(&self, lp: usize) -> [u128; 16] {
        self.processors.get(lp).map_or([0; 16], |processor| *processor.xmm.lock())
    }

    /// Sets the VMM's XMM registers on a processor.
    pub fn set_host_xmm(&self, lp: usize, registers: [u128; 16]) {
        if let Some(processor) = self.processors.get(lp) {
            *processor.xmm.lock() = registers;
        }
    }

    /// XFAM of the TD that has exited on a processor since the last question: a TD exit leaves it in the VMM's XCR0 and
    /// IA32_XSS. `None` where no guest was entered.
    pub fn take_exit_xfam(&self, lp: usize) -> Option<u64> {
        let xfam = self.processors.get(lp)?.exit_xfam.swap(0, Ordering::AcqRel);
        (xfam != 0).then_some(xfam)
    }

    /// Gives this machine random numbers of its own: machines that are made alike draw alike, RDRAND as well as the module's
    /// keys, until they are told apart. The same seed gives the same numbers; 0 those of a machine that is told nothing.
    pub fn stir_random(&self, seed: u64) {
        self.module.random.stir(seed);
    }

    /// A number as RDRAND and RDSEED give it; `None` while there is no entropy.
    pub fn random(&self) -> Option<u64> {
        self.rdseed_has_entropy().then(|| self.module.random.next())
    }

    /// Chooses what RDSEED does from now on.
    pub fn set_rdseed_mode(&self, mode: RdseedMode) {
        self.rdseed.store(mode as u8, Ordering::Release);
    }

    /// Chooses what PCONFIG does from now on.
    pub fn set_pconfig_mode(&self, mode: PconfigMode) {
        self.pconfig.store(mode as u8, Ordering::Release);
    }

    pub(crate) fn pconfig_mode(&self) -> PconfigMode {
        match self.pconfig.load(Ordering::Acquire) {
            1 => PconfigMode::EntropyError,
            2 => PconfigMode::DeviceBusy,
            _ => PconfigMode::Ok,
        }
    }

    pub(crate) fn rdseed_has_entropy(&self) -> bool {
        self.rdseed.load(Ordering::Acquire) == RdseedMode::Ok as u8
    }

    /// The time-stamp counter.
    pub fn tsc(&self) -> u64 {
        match self.config.tsc_source {
            TscSource::Virtual => self.clock.ticks().get(),
            TscSource::Host => {
                ticks_of(self.started.elapsed(), self.config.tsc_hz).wrapping_add(self.clock.ticks().get())
            }
        }
    }

    /// Moves the time-stamp counter forward.
    pub fn advance_tsc(&self, ticks: u64) {
        self.clock.advance(Ticks::new(ticks));
    }

    /// Instructions that guests have retired, to the end of the slice that each is in. Goes on where a restored machine stood.
    pub fn guest_retired(&self) -> u64 {
        self.guest_retired.load(Ordering::Acquire)
    }

    pub(crate) fn note_guest_retired(&self, instructions: u64) {
        self.guest_retired.fetch_add(instructions, Ordering::AcqRel);
    }

    /// Lets guests on a processor execute this many more instructions; then it leaves them as for an external
    /// interrupt, at every VP.ENTER until it is set anew. `None`, and the start, is without limit. It is how a
    /// machine takes turns: an interrupt at a chosen instruction, not at a moment of the host's clock.
    pub fn set_quantum(&self, lp: usize, instructions: Option<u64>) {
        if let Some(processor) = self.processors.get(lp) {
            processor.quantum.store(instructions.unwrap_or(u64::MAX), Ordering::Release);
        }
    }

    /// What the host did wrong so far, oldest first.
    pub fn violations(&self) -> Vec<HostViolation> {
        self.violations.all()
    }

    /// What the emulated processors were asked to do and cannot, oldest first. A vCPU that met one of these has
    /// stopped, whatever its TD exit says.
    pub fn limits(&self) -> Vec<EmulatorLimit> {
        self.limits.all()
    }

    /// A processor met something that it does not implement.
    pub fn report_limit(&self, limit: EmulatorLimit) {
        self.limits.push(limit);
    }

    /// Where guests ended in a triple fault, oldest first.
    pub fn shutdowns(&self) -> Vec<GuestShutdown> {
        self.shutdowns.all()
    }

    /// The last exits of guests on a processor to the module, oldest first.
    pub fn guest_exits(&self, lp: usize) -> Vec<GuestExit> {
        self.processors.get(lp).map_or_else(Vec::new, |processor| processor.guest_exits.all())
    }

    /// Remembers an exit of the guest on a processor.
    pub(crate) fn note_guest_exit(&self, lp: usize, exit: GuestExit) {
        if let Some(processor) = self.processors.get(lp) {
            processor.guest_exits.push(exit);
        }
    }

    /// The last exit that was noted on a processor ended in the host.
    pub(crate) fn note_td_exit(&self, lp: usize) {
        if let Some(processor) = self.processors.get(lp) {
            processor.guest_exits.amend(|exit| exit.reached_host = true);
        }
    }

    /// Records where a guest ended in a triple fault.
    pub(crate) fn report_shutdown(&self, shutdown: GuestShutdown) {
        self.shutdowns.push(shutdown);
    }

    pub(crate) fn report(&self, violation: HostViolation) {
        self.violations.push(violation);
    }

    /// The key id of the module's own structures (the global private key); the default key before SYS.CONFIG.
    pub(crate) fn global_key(&self) -> KeyId {
        self.module.global_key()
    }
}

/// Ticks that a clock of up to 18 GHz makes in this time, rounded down. Guests that wait read it in a loop, so it
/// does without the 128-bit division.
fn ticks_of(time: core::time::Duration, hz: u64) -> u64 {
    let in_part_of_second = u64::from(time.subsec_nanos()).saturating_mul(hz) / 1_000_000_000;
    time.as_secs().saturating_mul(hz).saturating_add(in_part_of_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_time_by_frequency_rounded_down() {
        for hz in [1, 25_000_000, 2_000_000_000, 2_593_502_917, 18_000_000_000] {
            for nanos in [0, 1, 999_999_999, 1_000_000_000, 3_700_000_000_123_456_789] {
                let exact = u128::from(nanos) * u128::from(hz) / 1_000_000_000;
                let expected = u64::try_from(exact).unwrap_or(u64::MAX);
                assert_eq!(ticks_of(core::time::Duration::from_nanos(nanos), hz), expected, "{nanos} {hz}");
            }
        }
    }
}
