//! The emulated machine as the hypervisor's [`Platform`](platform::Platform).
//!
//! `seam-emu` has the processors, the memory and the module; this adapter adds what a host's kernel would: who
//! holds which processor, pending IPIs and timers, a page allocator, and a trace of SEAMCALLs.
//!
//! ```
//! use machine_emu::EmulatedMachine;
//! use machine_emu::trace::Trace;
//! use td_host::Host;
//! use td_host::td::Td;
//! use td_host::td::config::TdConfig;
//! use td_image::mrtd;
//! use td_image::tdvf::{HostContents, LoaderModel, TdvfImage};
//!
//! let config = TdConfig::default();
//! let image = td_image::testing::Image::hello().build();
//! let machine = EmulatedMachine::for_td(config.memory, config.vcpus, Trace::counting());
//! let host = Host::bring_up(machine, |_| ())?;
//! let td = Td::build(&host, &config, &image, |_| ())?;
//!
//! // The module measured what it was given: what the image alone predicts.
//! let parsed = TdvfImage::parse(&image).expect("an image");
//! let plan = parsed.build_plan(LoaderModel::INTERLEAVED, HostContents::default()).expect("a plan");
//! assert_eq!(td.mrtd()?, mrtd::of_plan(&plan).0);
//! # Ok::<(), td_host::Error>(())
//! ```

pub mod journal;
pub mod lp;
pub mod outlet;
mod saved;
mod timer;
pub mod trace;
mod turns;

use std::sync::Arc;

use seam_emu::features::FeatureSet;
use seam_emu::machine::HostMemoryError;
use seam_emu::processor::EmulatedProcessor;
use seam_emu::{
    Cmr, EmulatorLimit, EngineKind, GuestExit, GuestShutdown, HostViolation, Machine, MachineConfig,
    ModuleProfile, TscSource,
};
use td_host::frames::FreeFrames;
use td_host::host::MemoryRange;
use td_host::platform::{self, Clock, LpId, NotMemory, PackageId, PhysMem, PrivateKeyIds};
use tdvisor_base::table::Table;
use tdvisor_base::{Hpa, KeyId, Level, Pfn, Ticks};

pub use saved::{CannotSaveMachine, Freezer, SavedMachine};

use lp::{EmulatedLp, Processors, Timing};
use timer::Timers;
use trace::Trace;
use turns::Turns;

const GIB: u64 = 1 << 30;

/// The most memory that an emulated TD can have.
pub const MAX_TD_MEMORY: u64 = 64 * GIB;
/// The most vCPUs that an emulated TD can have.
pub const MAX_TD_VCPUS: u32 = 64;

/// Memory below this address is the host's own: the emulated module lives there.
const CONVERTIBLE_FROM: u64 = GIB;

/// How a deterministic machine's time-stamp counter moves with each instruction of a guest: at its 2 GHz, the
/// pace of the software CPU on an ordinary machine, so that a guest sees about as many timer ticks as otherwise.
const TICKS_PER_INSTRUCTION: u64 = 8;

/// How a machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Processors are threads that run side by side; time is the host's.
    Real,
    /// One processor at a time, in virtual time; the same seed gives the same run.
    Deterministic {
        /// Decides who runs for how long.
        seed: u64,
    },
}

/// What a machine is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// The release of the TDX module.
    pub module: ModuleProfile,
    /// The processor.
    pub processor: EmulatedProcessor,
    /// What runs its instructions; a guest does not notice.
    pub engine: EngineKind,
    /// Which features the module presents.
    pub features: FeatureSet,
    /// What its random numbers follow from, RDRAND and the module's keys. Machines that meet (a TD migrates from one to the
    /// other) need each its own, as real ones have.
    pub random_seed: u64,
}

/// An emulated machine.
pub struct EmulatedMachine {
    machine: Arc<Machine>,
    processors: Arc<Processors>,
    timing: Timing,
    frames: FreeFrames,
    memory_map: Vec<MemoryRange>,
    trace: Trace,
}

impl EmulatedMachine {
    /// A machine that has room for a TD with this much memory and this many vCPUs, one processor each and one
    /// for management, at the pace of the host's clock.
    pub fn for_td(memory: u64, vcpus: u32, trace: Trace) -> Self {
        Self::with_pace(memory, vcpus, Pace::Real, trace)
    }

    /// A machine with room for such a TD, as [`Self::for_td`] makes it, at a pace of choice.
    pub fn with_pace(memory: u64, vcpus: u32, pace: Pace, trace: Trace) -> Self {
        Self::with_hardware(&Hardware::default(), memory, vcpus, pace, trace)
    }

    /// A machine with room for such a TD, as [`Self::for_td`] makes it, with hardware of choice.
    pub fn with_hardware(hardware: &Hardware, memory: u64, vcpus: u32, pace: Pace, trace: Trace) -> Self {
        let (config, range) = shape(hardware, memory, vcpus, pace);
        let lps = config.lp_packages.len();
        let machine = Arc::new(Machine::new(config));
        machine.stir_random(hardware.random_seed);
        let turns = match pace {
            Pace::Real => None,
            Pace::Deterministic { seed } => Some(Turns::new(lps - 1, seed)),
        };
        Self::assemble(machine, hardware.engine, turns, FreeFrames::new(&[range]), range, trace)
    }

    fn assemble(
        machine: Arc<Machine>,
        engine: EngineKind,
        turns: Option<Turns>,
        frames: FreeFrames,
        range: MemoryRange,
        trace: Trace,
    ) -> Self {
        let lps = machine.num_lps();
        for index in 0..lps {
            machine.set_guest_cpu(index, Box::new(seam_emu::CpuGuest::with_engine(engine)));
        }
        if let Some(journal) = trace.journal() {
            let (journal, machine_of) = (journal.clone(), Arc::downgrade(&machine));
            machine.observe_tdcalls(Arc::new(journal::JournalOf { journal, machine: machine_of }));
        }
        let turns = turns.map(Arc::new);
        let processors = Arc::new(Processors::new(machine.clone(), lps, turns.clone()));
        Self {
            timing: match turns {
                None => Timing::Real(Timers::new(processors.clone())),
                Some(turns) => Timing::Turns(turns),
            },
            processors,
            frames,
            memory_map: vec![range],
            trace,
            machine,
        }
    }

    /// The emulated machine itself, for what an enclave on it would do.
    pub fn machine(&self) -> Arc<Machine> {
        self.machine.clone()
    }

    /// What the module and the memory noticed the host doing wrong.
    pub fn violations(&self) -> Vec<HostViolation> {
        self.machine.violations()
    }

    /// What a guest did that the emulated processors do not implement. Its vCPU has stopped there.
    pub fn limits(&self) -> Vec<EmulatorLimit> {
        self.machine.limits()
    }

    /// Where guests ended in a triple fault.
    pub fn shutdowns(&self) -> Vec<GuestShutdown> {
        self.machine.shutdowns()
    }

    /// The last exits of the guest on each processor to the module, oldest first; processors without any are left out.
    pub fn guest_exits(&self) -> Vec<(LpId, Vec<GuestExit>)> {
        (0..self.machine.num_lps())
            .map(|lp| (LpId(lp as u32), self.machine.guest_exits(lp)))
            .filter(|(_, exits)| !exits.is_empty())
            .collect()
    }

    /// The vCPU on a processor will not run any more: nobody waits for its turn.
    pub fn vcpu_has_ended(&self, lp: LpId) {
        if let Timing::Turns(turns) = &self.timing {
            turns.leave(lp, &self.machine);
        }
    }

    /// Whether its processors take turns.
    pub const fn takes_turns(&self) -> bool {
        matches!(self.timing, Timing::Turns(_))
    }

    /// Holds the turns, if processors take turns: when this returns, no vCPU is in its guest, and time stands still.
    pub fn hold_turns(&self) {
        if let Timing::Turns(turns) = &self.timing {
            turns.hold();
        }
    }

    /// Lets held turns go on.
    pub fn release_turns(&self) {
        if let Timing::Turns(turns) = &self.timing {
            turns.release(&self.machine);
        }
    }

    /// What was traced and counted.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }
}

/// The machine that has room for such a TD, and its convertible memory.
fn shape(hardware: &Hardware, memory: u64, vcpus: u32, pace: Pace) -> (MachineConfig, MemoryRange) {
    // PAMTs take 1/256 and page tables about as much again; control pages are a few.
    let needed = memory.min(MAX_TD_MEMORY) + memory / 64 + (64 << 20);
    let convertible = needed.next_multiple_of(GIB);
    let lps = vcpus.clamp(1, MAX_TD_VCPUS) as usize + 1;
    let config = MachineConfig {
        lp_packages: vec![0; lps],
        phys_mem_bytes: CONVERTIBLE_FROM + convertible,
        cmrs: vec![Cmr { base: CONVERTIBLE_FROM, size: convertible }],
        tsc_source: match pace {
            Pace::Real => TscSource::Host,
            Pace::Deterministic { .. } => TscSource::Virtual,
        },
        tsc_ticks_per_instruction: TICKS_PER_INSTRUCTION,
        profile: hardware.module,
        features: hardware.features,
        cpuid_fms: hardware.processor.model.family_model_stepping(),
        processor: seam_emu::processor::Processor::Emulated(hardware.processor),
        ..MachineConfig::small()
    };
    (config, MemoryRange { base: Hpa::new(CONVERTIBLE_FROM), size: convertible })
}

fn not_memory(hpa: Hpa) -> impl Fn(HostMemoryError) -> NotMemory {
    move |_| NotMemory(hpa)
}

impl platform::Processors for EmulatedMachine {
    type Lp<'p> = EmulatedLp<'p>;

    fn lp_count(&self) -> u32 {
        self.processors.count() as u32
    }

    fn package_of(&self, lp: LpId) -> PackageId {
        PackageId(self.machine.config().lp_packages.get(lp.0 as usize).copied().unwrap_or_default())
    }

    fn take_lp(&self, lp: LpId) -> Option<EmulatedLp<'_>> {
        EmulatedLp::take(&self.machine, &self.processors, &self.timing, &self.trace, lp)
    }

    fn send_ipi(&self, lp: LpId) {
        self.processors.send_ipi(lp);
    }
}

impl Clock for EmulatedMachine {
    fn ticks(&self) -> Ticks {
        Ticks::new(self.machine.tsc())
    }

    fn frequency_hz(&self) -> u64 {
        self.machine.config().tsc_hz
    }
}

impl PhysMem for EmulatedMachine {
    fn private_key_ids(&self) -> PrivateKeyIds {
        let ids = &self.machine.config().private_hkids;
        PrivateKeyIds { first: KeyId::new(*ids.start()), last: KeyId::new(*ids.end()) }
    }

    fn key_id_shift(&self) -> u32 {
        self.machine.config().hkid_start_bit
    }

    fn read(&self, hpa: Hpa, out: &mut [u8]) -> Result<(), NotMemory> {
        self.machine.host_read(hpa, out).map_err(not_memory(hpa))
    }

    fn write(&self, hpa: Hpa, data: &[u8]) -> Result<(), NotMemory> {
        self.machine.host_write(hpa, data).map_err(not_memory(hpa))
    }

    fn clear_page(&self, pfn: Pfn) -> Result<(), NotMemory> {
        self.machine.movdir64b_clear(pfn.base()).map_err(not_memory(pfn.base()))
    }

    fn table(&self, pfn: Pfn) -> Result<&Table, NotMemory> {
        self.machine.memory().table(pfn).map_err(|_| NotMemory(pfn.base()))
    }
}

impl platform::Frames for EmulatedMachine {
    fn memory_map(&self) -> &[MemoryRange] {
        &self.memory_map
    }

    fn allocate_page(&self, level: Level) -> Option<Pfn> {
        self.frames.allocate(level.frames())
    }

    fn free_page(&self, pfn: Pfn, level: Level) {
        self.machine.note_host_page_freed(pfn, level);
        self.frames.free(pfn, level.frames());
    }

    fn allocate_contiguous(&self, frames: u64) -> Option<Pfn> {
        self.frames.allocate(frames)
    }

    fn free_frames(&self) -> u64 {
        self.frames.available()
    }
}
