//! Carries out the steps of a sequence on an emulated machine and compares what it answers.
//!
//! # Policies
//! The recordings were made on the module's own code over a simulated processor, and their notes say where the
//! processor around it was not real:
//! - it had no TLB: translations are flushed before every guest access;
//! - a difference in RAX means that the two machines are in different states: the rest of the sequence is
//!   abandoned and none of its calls agree;
//! - how often an interruptible leaf looks for interrupts is the implementation's business, its results are not.

mod bundle;
mod guest;
mod ledger;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tdvisor_base::Hpa;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::{Gprs, Reg, Status};

use crate::guest::{GuestCpu, GuestState, VmExit};
use crate::machine::{GuestEnv, Lp, Machine, PconfigMode, RdseedMode};

use super::compare::{CallSite, Difference, Side};
use super::model::{
    Action, Content, Contents, GuestRun, HwMode, IrqPending, Platform, Seamcall, Sequence, Step,
};
use super::symbols::{Bindings, Registers, Symbols};
use bundle::BundleProblem;
use guest::ScriptedVcpu;
pub use ledger::Balance;
use ledger::Ledger;

use crate::config::{Cmr, FixedBits, MachineConfig, SeamRange, TscSource};

/// The time-stamp counter where recordings begin: recorded machines have been up for some minutes. What a TD's time is
/// reckoned from shows in what the module refuses (recorded: a time of the TD's that counts from there has no 32 bits).
const UP_FOR: u64 = 1 << 40;

/// The machine that a platform describes, where its recordings begin.
pub fn power_on(platform: &Platform) -> Machine {
    let machine = Machine::new(MachineConfig {
        features: crate::features::FeatureSet::Recorded,
        max_pa: platform.max_pa,
        hkid_start_bit: platform.hkid_start_bit,
        private_hkids: platform.private_hkids.0..=platform.private_hkids.1,
        lp_packages: platform.lp_pkg.clone(),
        phys_mem_bytes: platform.phys_mem_bytes,
        cmrs: platform.cmrs.iter().map(|cmr| Cmr { base: cmr.base.get(), size: cmr.size }).collect(),
        seam_range: SeamRange { base: platform.seamrr.base.get(), size: platform.seamrr.size },
        attributes: FixedBits { fixed0: platform.attributes_fixed0, fixed1: platform.attributes_fixed1 },
        xfam: FixedBits { fixed0: platform.xfam_fixed0, fixed1: platform.xfam_fixed1 },
        processor: platform.processor.clone(),
        cpuid_fms: platform.cpuid_fms,
        tsc_hz: platform.tsc_hz,
        tsc_source: TscSource::Virtual,
        tsc_ticks_per_instruction: 1,
        wbinvd_sub_blocks: platform.wbinvd_sub_blocks,
        num_handoff_pages: platform.num_handoff_pages,
        profile: platform.module,
    });
    machine.advance_tsc(UP_FOR);
    machine
}

/// Replays the steps of a sequence on a machine that is in its starting state, where names have the meaning that
/// `symbols` gives them; gives what they mean afterwards, too.
pub fn replay(machine: &Machine, sequence: &Sequence, symbols: Symbols) -> (Balance, Symbols) {
    let run = Run {
        machine,
        ledger: Ledger::default(),
        rips: RefCell::new(BTreeMap::new()),
        symbols: RefCell::new(symbols),
    };
    for step in &sequence.steps {
        run.step(step);
        if run.ledger.is_abandoned() {
            break;
        }
    }
    (run.ledger.close(), run.symbols.into_inner())
}

/// A replay under way.
struct Run<'m> {
    machine: &'m Machine,
    ledger: Ledger,
    /// RIP of the last guest event of each VM of each VCPU, by TDVPR and VM.
    rips: RefCell<BTreeMap<(u64, u8), u64>>,
    symbols: RefCell<Symbols>,
}

impl Run<'_> {
    fn step(&self, step: &Step) {
        let site = |leaf: &str| CallSite { step: step.index, lp: 0, event: None, leaf: Arc::from(leaf) };
        match &step.action {
            Action::WriteMem { at, content } => {
                if let Err(error) = self.machine.host_write(*at, &content.bytes()) {
                    self.ledger
                        .abandon(|| site("host write"), Difference::NotReplayed { why: error.to_string() });
                }
            }
            Action::ReadMem { at, len, must_be } => {
                let mut bytes = vec![0; usize::try_from(*len).unwrap_or(0)];
                let read = self.machine.host_read(*at, &mut bytes);
                if read.is_err() || !must_be.are(&bytes) {
                    let difference = Difference::HostMemory { at: *at, len: *len };
                    self.ledger.differ(|| site("host read"), difference);
                }
            }
            Action::Seal(seal) => self.bundle_step(|| site("sealed bundle"), self.seal(seal)),
            Action::CheckBundle(bundle) => {
                self.bundle_step(|| site("exported bundle"), self.check_bundle(bundle));
            }
            Action::IrqPending(irq) => self.irq_pending(*irq),
            Action::Hw(mode) => self.hardware(*mode),
            Action::Seamcall(call) => self.seamcall(step.index, call),
        }
    }

    fn bundle_step(&self, site: impl FnOnce() -> CallSite, result: Result<(), BundleProblem>) {
        let why = match result {
            Ok(()) => return,
            Err(BundleProblem::Differs(fault)) => {
                self.ledger.differ(site, Difference::Bundle(Box::new(fault)));
                return;
            }
            Err(BundleProblem::Unbound(problem)) => problem.to_string(),
            Err(BundleProblem::Memory(problem)) => problem.to_string(),
        };
        self.ledger.abandon(site, Difference::NotReplayed { why });
    }

    /// The values of registers; `None`, and the sequence is given up, where a name stands for nothing.
    fn values(&self, registers: &Registers, site: impl FnOnce() -> CallSite) -> Option<Gprs> {
        let values = registers.values(&self.symbols.borrow());
        match values {
            Ok(gprs) => Some(gprs),
            Err(unbound) => {
                self.ledger.abandon(site, Difference::NotReplayed { why: unbound.to_string() });
                None
            }
        }
    }

    /// Gives names to what a call that succeeded left in registers.
    fn bind(&self, bindings: &Bindings, after: &Gprs) {
        if Status::from_raw(after.rax).is_success() {
            let mut symbols = self.symbols.borrow_mut();
            for (reg, name) in bindings {
                symbols.bind(name, after.get(*reg));
            }
        }
    }

    fn irq_pending(&self, irq: IrqPending) {
        self.machine.set_interrupt_pending(irq.lp as usize, irq.pending);
    }

    fn hardware(&self, mode: HwMode) {
        match mode {
            HwMode::RdseedOk => self.machine.set_rdseed_mode(RdseedMode::Ok),
            HwMode::RdseedNoEntropy => self.machine.set_rdseed_mode(RdseedMode::NoEntropy),
            HwMode::PconfigOk => self.machine.set_pconfig_mode(PconfigMode::Ok),
            HwMode::PconfigEntropyError => self.machine.set_pconfig_mode(PconfigMode::EntropyError),
            HwMode::PconfigDeviceBusy => self.machine.set_pconfig_mode(PconfigMode::DeviceBusy),
        }
    }

    fn seamcall(&self, step: u32, call: &Seamcall) {
        let site = || CallSite { step, lp: call.lp, event: None, leaf: Arc::clone(&call.leaf) };
        let Some(lp) = Lp::new(self.machine, call.lp as usize) else {
            let why = format!("the machine has no logical processor {}", call.lp);
            self.ledger.abandon(site, Difference::NotReplayed { why });
            return;
        };
        let Some(input) = self.values(&call.input, site) else { return };
        match &call.guest {
            None => self.plain_call(&lp, call, input, site),
            Some(run) => self.entering_call(&lp, step, call, input, run, site),
        }
    }

    fn plain_call(&self, lp: &Lp<&Machine>, call: &Seamcall, input: Gprs, site: impl Fn() -> CallSite) {
        let mut gprs = input;
        let mut nobody = UnexpectedGuest::default();
        if let Err(fault) = lp.seamcall_with(&mut gprs, &mut nobody) {
            self.ledger.abandon(site, Difference::NotReplayed { why: fault.to_string() });
            return;
        }
        if nobody.ran {
            self.ledger.abandon(site, Difference::Entered { expected: false });
            return;
        }
        let _ = self.ledger.compare(site, Side::Host, &call.expected, &input, &gprs);
        self.bind(&call.binds, &gprs);
    }

    fn entering_call(
        &self,
        lp: &Lp<&Machine>,
        step: u32,
        call: &Seamcall,
        input: Gprs,
        run: &GuestRun,
        site: impl Fn() -> CallSite,
    ) {
        let mut gprs = input;
        let mut vcpu = ScriptedVcpu::new(self, step, call, tdvpr_of(&input), run);
        let result = lp.seamcall_with(&mut gprs, &mut vcpu);
        vcpu.left_guest(&gprs);
        if let Err(fault) = result {
            self.ledger.abandon(site, Difference::NotReplayed { why: fault.to_string() });
        } else if !self.ledger.is_abandoned() {
            let _ = self.ledger.compare(site, Side::Host, &call.expected, &input, &gprs);
        }
    }
}

/// The guest of a call that must not run one: it notes that it ran and wants to leave.
#[derive(Default)]
struct UnexpectedGuest {
    ran: bool,
}

impl GuestCpu for UnexpectedGuest {
    fn run(&mut self, state: &mut GuestState, _: &GuestEnv<'_>) -> VmExit {
        state.event = None;
        self.ran = true;
        VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
    }
}

impl Content {
    /// The bytes to be written.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Pattern(pattern) => pattern.bytes(),
            Self::Bytes(bytes) => bytes.to_vec(),
            Self::Fill { len, fill, set } => {
                let mut bytes = vec![*fill; usize::try_from(*len).unwrap_or(0)];
                for store in set {
                    let at = usize::try_from(store.offset).unwrap_or(usize::MAX);
                    let value = store.value.to_le_bytes();
                    if let (Some(target), Some(value)) = (
                        at.checked_add(store.size).and_then(|end| bytes.get_mut(at..end)),
                        value.get(..store.size),
                    ) {
                        target.copy_from_slice(value);
                    }
                }
                bytes
            }
        }
    }
}

impl Contents {
    /// Whether these are they.
    fn are(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Bytes(expected) => bytes == expected,
            Self::Sha256(expected) => Sha256::digest(bytes).as_slice() == expected,
        }
    }
}

/// The TDVPR that a VP.ENTER names.
fn tdvpr_of(input: &Gprs) -> u64 {
    Hpa::new(input.get(Reg::Rcx)).align_down(tdvisor_base::PAGE_SIZE).get()
}
