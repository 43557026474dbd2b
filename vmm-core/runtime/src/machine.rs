//! The machine under one or more sessions.

use std::sync::Arc;

use machine_emu::trace::{CallObserver, ObservedCall, Trace};
use machine_emu::{EmulatedMachine, Hardware, Pace};
use seam_emu::CpuGuest;
use seam_emu::guest::debug::DebugPort;
use seam_emu::guest::samples::Samples;
use seam_emu::inject::FaultPlan;
use td_host::host::Progress;
use td_host::platform::Frames;
use td_host::td::{BuildProgress, Ending};
use td_host::{Error, Host};
use tdx_module_iface::{LeafWord, TdhLeaf};

use crate::drive::Happening;
use crate::saved::Shape;

/// What happens to a machine and its TDs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// The module comes up.
    BringUp(Progress),
    /// A TD is being loaded.
    Build(BuildProgress),
    /// A TD is built: its vCPUs are about to run.
    Built,
    /// Every vCPU has its thread, named `vcpu` and its number, and runs.
    Running,
    /// Something happened while it runs.
    Happened(Happening),
    /// A TD has ended: its vCPUs leave.
    Ended(&'e Ending),
}

/// What a machine is, and what it is made for.
pub struct MachineSpec {
    /// The machine's module and processor.
    pub hardware: Hardware,
    /// Bytes of memory of its TDs together.
    pub memory: u64,
    /// vCPUs of its TDs together; each has a processor, beside one for management.
    pub vcpus: u32,
    /// How time passes.
    pub pace: Pace,
    /// Where calls are counted, and written.
    pub trace: Trace,
    /// Calls that fail on purpose.
    pub faults: Option<FaultPlan>,
    /// What can stop its processors. Guests wait before their first instruction until it lets them go.
    pub debug: Option<Arc<DebugPort>>,
    /// Where samples of what its guests execute are counted.
    pub samples: Option<Arc<Samples>>,
}

impl std::fmt::Debug for MachineSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MachineSpec").field("memory", &self.memory).finish_non_exhaustive()
    }
}

/// Tells a debugger of the host's calls.
struct CaughtCalls(Arc<DebugPort>);

impl CallObserver for CaughtCalls {
    fn called(&self, call: &ObservedCall<'_>) {
        self.0.called(call.lp.0 as usize, TdhLeaf(LeafWord(call.before.rax).leaf()));
    }
}

/// A machine whose module is ready.
pub struct Machine {
    host: Host<EmulatedMachine>,
    shape: Shape,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

impl Machine {
    /// Makes a machine and brings its module up.
    ///
    /// # Errors
    /// The module refuses, or there is not enough memory.
    pub fn bring_up(spec: MachineSpec, events: &dyn Fn(Event<'_>)) -> Result<Self, Error> {
        let trace = match &spec.debug {
            Some(port) => spec.trace.observed_by(Arc::new(CaughtCalls(port.clone()))),
            None => spec.trace,
        };
        let machine =
            EmulatedMachine::with_hardware(&spec.hardware, spec.memory, spec.vcpus, spec.pace, trace);
        if spec.debug.is_some() || spec.samples.is_some() {
            let (machine, engine) = (machine.machine(), spec.hardware.engine);
            for lp in 0..machine.num_lps() {
                let cpu = match &spec.debug {
                    Some(port) => CpuGuest::debugged(engine, port.clone()),
                    None => CpuGuest::with_engine(engine),
                };
                let cpu = match &spec.samples {
                    Some(samples) => cpu.sampled(samples.clone()),
                    None => cpu,
                };
                machine.set_guest_cpu(lp, Box::new(cpu));
            }
        }
        if let Some(plan) = spec.faults {
            machine.machine().faults().set_plan(plan);
        }
        let host = Host::bring_up(machine, |progress| events(Event::BringUp(progress)))?;
        Ok(Self { host, shape: Shape { hardware: spec.hardware, memory: spec.memory, vcpus: spec.vcpus } })
    }

    /// A machine whose host is there already.
    pub(crate) const fn of(host: Host<EmulatedMachine>, shape: Shape) -> Self {
        Self { host, shape }
    }

    /// What the machine was made for.
    pub(crate) const fn shape(&self) -> Shape {
        self.shape
    }

    /// The host that runs on it.
    pub fn host(&self) -> &Host<EmulatedMachine> {
        &self.host
    }

    /// Frames that no TD has: the free ones, and those that the host holds for the module's memory map (dynamic PAMT),
    /// of which it takes more as TDs need them and keeps what it has.
    pub(crate) fn frames(&self) -> u64 {
        self.platform().free_frames() + self.host.pamt_frames()
    }

    /// The machine as a platform.
    pub fn platform(&self) -> &EmulatedMachine {
        self.host.platform()
    }
}
