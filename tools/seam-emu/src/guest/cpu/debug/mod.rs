//! A debugger's way into guests, and into a host that runs on the emulated processors itself: what a probe at their debug port would be. Only an emulator has one that looks
//! into a TD which is not in debug mode.
//!
//! # Protocol
//! - A [`DebugPort`] serves the processors of one machine whose CPUs are made by [`CpuGuest::debugged`]. It has an *order* for
//!   each: run, halt, or one step. At first all are halted: guests stop before their first instruction.
//! - A processor looks at its order between two slices of instructions. A halted one *parks*: it shows its state, and waits
//!   inside the guest. It leaves the guest for an interrupt of the host, as any processor does, and parks again when it comes
//!   back, so the host never waits for it.
//! - Whoever meets a stop point, completes its step or ends in a triple fault halts everybody and adds a [`Stop`]; so does one that
//!   leaves its guest for a reason, or calls the module for a leaf, that the debugger [catches](Catches). A guest's exit, and a
//!   call of its host, goes on meanwhile; a host that runs on the processors itself stands in front of its call.
//! - A processor that is outside of its guest (its vCPU waits in the host) cannot come back in while it is halted: its state is
//!   the one that it left with.
//!
//! Nothing is written into a guest's memory to stop it: stop points are addresses that the CPU compares.
//!
//! [`CpuGuest::debugged`]: super::CpuGuest::debugged

mod line;
mod memory;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tdvisor_base::sync::{AtomicU64, Ordering};
use tdx_module_iface::TdhLeaf;
use tdx_module_iface::exit::ExitReason;
use x86_arch::CpuState;
use x86_emu::StopPoint;

pub use line::{DebugLine, Debuggable, Next};
pub use memory::{HostMemory, Space};

/// How long a processor may take to park before a change of its state is refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a processor is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Execute until something stops it.
    Run,
    /// Execute nothing.
    Halt,
    /// Execute one instruction, or arrive in the handler of an event that comes before it.
    Step,
}

/// Why a processor stopped, and all others with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StopReason {
    /// A stop point.
    Point(StopPoint),
    /// The step that was asked for is done.
    Step,
    /// A triple fault: the guest is about to end.
    TripleFault,
    /// An instruction that the emulated processor does not implement: the guest is about to end.
    Unimplemented,
    /// It has left its guest by a VM exit that is caught.
    Exit(ExitReason),
    /// A SEAMCALL of this leaf, which is caught.
    Call(TdhLeaf),
}

/// What is caught of a kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Catch<T> {
    /// Nothing.
    #[default]
    None,
    /// Whatever there is of it; of exits, all but those for an interrupt of the host.
    All,
    /// This.
    Only(T),
}

/// What stops everybody beside stop points.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Catches {
    /// VM exits of guests, by their basic reason.
    pub exits: Catch<ExitReason>,
    /// SEAMCALLs.
    pub calls: Catch<TdhLeaf>,
}

impl Catches {
    fn has_exit(&self, reason: ExitReason) -> bool {
        match self.exits {
            Catch::None => false,
            Catch::All => reason != ExitReason::EXTERNAL_INTERRUPT,
            Catch::Only(only) => reason == only,
        }
    }

    fn has_call(&self, leaf: TdhLeaf) -> bool {
        match self.calls {
            Catch::None => false,
            Catch::All => true,
            Catch::Only(only) => leaf == only,
        }
    }
}

/// A processor that stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stop {
    /// The logical processor.
    pub lp: usize,
    /// Why.
    pub reason: StopReason,
}

/// The state of a processor that is not parked cannot be changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotParked;

impl core::fmt::Display for NotParked {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the vCPU is outside of its guest")
    }
}

impl core::error::Error for NotParked {}

/// The debug port of a machine's processors.
#[derive(Debug)]
pub struct DebugPort {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Moves on with every change of orders or stop points, so that a processor that runs looks at one word.
    generation: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    processors: Vec<Processor>,
    stop_points: Arc<[StopPoint]>,
    catches: Catches,
    stops: VecDeque<Stop>,
    last: Option<Stop>,
}

impl Inner {
    /// Halts everybody and notes why.
    fn stop(&mut self, stop: Stop) {
        for processor in &mut self.processors {
            processor.order = Order::Halt;
            processor.stepping = None;
        }
        self.last = Some(stop);
        self.stops.push_back(stop);
    }

    /// Whether a processor has anything to do, as far as the debugger is concerned.
    fn is_going(&self, lp: usize) -> bool {
        self.processors.get(lp).is_some_and(|own| own.order != Order::Halt)
    }
}

#[derive(Debug)]
struct Processor {
    order: Order,
    presence: Presence,
    /// Where the instruction was that the step in progress executes, once it has been begun.
    stepping: Option<u64>,
    state: Option<Box<CpuState>>,
    /// The state was changed here, and the processor has not taken it over yet.
    is_changed: bool,
    space: Option<Space>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Presence {
    Outside,
    Running,
    Parked,
}

impl DebugPort {
    /// A port for the processors 0 to `processors` - 1, all halted.
    pub fn new(processors: usize) -> Arc<Self> {
        let processor = || Processor {
            order: Order::Halt,
            presence: Presence::Outside,
            stepping: None,
            state: None,
            is_changed: false,
            space: None,
        };
        let inner = Inner {
            processors: (0..processors).map(|_| processor()).collect(),
            stop_points: Arc::new([]),
            catches: Catches::default(),
            stops: VecDeque::new(),
            last: None,
        };
        Arc::new(Self { inner: Mutex::new(inner), changed: Condvar::new(), generation: AtomicU64::new(1) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, inner: MutexGuard<'_, Inner>) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        drop(inner);
        self.changed.notify_all();
    }

    /// Gives every processor an order; those that `order_of` has none for are halted.
    pub fn command(&self, order_of: impl Fn(usize) -> Option<Order>) {
        let mut inner = self.lock();
        for (lp, processor) in inner.processors.iter_mut().enumerate() {
            processor.order = order_of(lp).unwrap_or(Order::Halt);
            // The step of one that is outside of its guest is the instruction that it left by.
            let is_outside = processor.order == Order::Step && processor.presence == Presence::Outside;
            let left_at = processor.state.as_deref().map(CpuState::rip);
            processor.stepping = left_at.filter(|_| is_outside);
        }
        self.announce(inner);
    }

    /// Halts every processor.
    pub fn halt(&self) {
        self.command(|_| None);
    }

    /// Lets every processor run without stop points: the debugger has gone.
    pub fn release(&self) {
        let mut inner = self.lock();
        inner.stop_points = Arc::new([]);
        inner.catches = Catches::default();
        inner.stops.clear();
        drop(inner);
        self.command(|_| Some(Order::Run));
    }

    /// Replaces the stop points, for all processors.
    pub fn set_stop_points(&self, points: &[StopPoint]) {
        let mut inner = self.lock();
        inner.stop_points = points.into();
        self.announce(inner);
    }

    /// Replaces what is caught, for all processors.
    pub fn set_catches(&self, catches: Catches) {
        self.lock().catches = catches;
    }

    /// What is caught.
    pub fn catches(&self) -> Catches {
        self.lock().catches
    }

    /// The last stop, whoever has taken it.
    pub fn last_stop(&self) -> Option<Stop> {
        self.lock().last
    }

    /// A host that is none of the port's own processors has made a SEAMCALL: if it is caught, everybody stops.
    pub fn called(&self, lp: usize, leaf: TdhLeaf) {
        let mut inner = self.lock();
        if inner.catches.has_call(leaf) && (0..inner.processors.len()).any(|lp| inner.is_going(lp)) {
            inner.stop(Stop { lp, reason: StopReason::Call(leaf) });
            self.announce(inner);
        }
    }

    /// Takes the oldest stop that nobody has taken; waits up to `patience` for one.
    pub fn take_stop(&self, patience: Duration) -> Option<Stop> {
        let inner = self.lock();
        let waits = |inner: &mut Inner| inner.stops.is_empty();
        let result = self.changed.wait_timeout_while(inner, patience, waits);
        result.unwrap_or_else(PoisonError::into_inner).0.stops.pop_front()
    }

    /// Waits until each of these processors has come into its guest and executes nothing of it. Whether that came within
    /// `patience`.
    pub fn wait_until_quiet(&self, lps: &[usize], patience: Duration) -> bool {
        let inner = self.lock();
        let runs = |inner: &mut Inner| {
            let mut of_guest = lps.iter().filter_map(|lp| inner.processors.get(*lp));
            of_guest.any(|at| at.presence == Presence::Running || at.state.is_none())
        };
        let result = self.changed.wait_timeout_while(inner, patience, runs);
        !result.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The state of a processor's guest, when it was last halted or left; `None` before it has come in.
    pub fn state(&self, lp: usize) -> Option<CpuState> {
        self.lock().processors.get(lp)?.state.as_deref().cloned()
    }

    /// Whether a processor is halted inside its guest, where its state can be changed and stepped from.
    pub fn is_parked(&self, lp: usize) -> bool {
        self.lock().processors.get(lp).is_some_and(|at| at.presence == Presence::Parked)
    }

    /// Changes the state of a parked processor's guest. Registers that the TDX module or translations depend on (control
    /// registers, segments) are the caller's to leave alone.
    ///
    /// # Errors
    /// [`NotParked`]: it is outside of its guest, and does not come back in at once.
    pub fn change_state(&self, lp: usize, change: impl FnOnce(&mut CpuState)) -> Result<(), NotParked> {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.lock();
        loop {
            let processor = inner.processors.get_mut(lp).ok_or(NotParked)?;
            if processor.presence == Presence::Parked
                && let Some(state) = processor.state.as_deref_mut()
            {
                change(state);
                processor.is_changed = true;
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NotParked);
            }
            inner = self.changed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
