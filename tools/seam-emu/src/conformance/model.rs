//! A recording as typed data.
//!
//! One [`Sequence`] is a header, a list of steps, and nothing else: it says from which state it starts
//! ([`After`]) and what every call must answer. Numbers keep the width they have in the file.

use std::sync::Arc;

use tdvisor_base::{Gpa, Hpa};
use tdx_module_iface::{Gprs, Reg};

use super::bundle::{CheckBundle, Seal};
use super::symbols::{Bindings, Registers};
use crate::config::ModuleProfile;
use crate::guest::VmExit;
use crate::processor::Processor;

/// A set of general-purpose registers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct RegSet(u16);

impl RegSet {
    /// Adds a register.
    pub fn insert(&mut self, reg: Reg) {
        self.0 |= 1 << reg.index();
    }

    /// Whether the register is in the set.
    pub const fn contains(self, reg: Reg) -> bool {
        self.0 >> reg.index() & 1 != 0
    }

    /// The registers in order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Reg> {
        Reg::ALL.into_iter().filter(move |reg| self.contains(*reg))
    }
}

/// What a call must leave in the registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    /// The values; registers outside [`Expected::listed`] are meaningless here.
    pub values: Gprs,
    /// Registers whose value the recording gives.
    pub listed: RegSet,
    /// Outputs whose value must not be compared.
    pub masked: RegSet,
    /// Listed registers that may legitimately differ: reported, not failed.
    pub soft: RegSet,
}

impl Expected {
    /// What `reg` must hold after a call that was given `input`; `None` where nothing is said.
    pub fn of(&self, reg: Reg, input: &Gprs) -> Option<u64> {
        if self.masked.contains(reg) {
            None
        } else if self.listed.contains(reg) {
            Some(self.values.get(reg))
        } else {
            Some(input.get(reg))
        }
    }
}

/// The state that a sequence starts from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum After {
    /// Power-on: no call was made.
    Reset,
    /// The final state of the prefix sequence with this id.
    Prefix(Arc<str>),
}

/// Base and size in bytes of a range of physical memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MemoryRange {
    /// First byte.
    pub base: Hpa,
    /// Bytes.
    pub size: u64,
}

/// The machine that a recording was made on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform {
    /// The release of the module.
    pub module: ModuleProfile,
    /// The name of the processor in `platforms.json`; recordings of 1.5.01 name none.
    pub native: Option<Arc<str>>,
    /// The processor.
    pub processor: Processor,
    /// Physical address bits.
    pub max_pa: u32,
    /// Lowest physical address bit of the key id.
    pub hkid_start_bit: u32,
    /// Private key ids, both ends included.
    pub private_hkids: (u16, u16),
    /// Package of each logical processor.
    pub lp_pkg: Vec<u32>,
    /// Packages.
    pub num_pkgs: u32,
    /// Bytes of physical memory.
    pub phys_mem_bytes: u64,
    /// Convertible memory.
    pub cmrs: Vec<MemoryRange>,
    /// The SEAM range, which holds the module.
    pub seamrr: MemoryRange,
    /// ATTRIBUTES bits that may be one.
    pub attributes_fixed0: u64,
    /// ATTRIBUTES bits that must be one.
    pub attributes_fixed1: u64,
    /// XFAM bits that may be one.
    pub xfam_fixed0: u64,
    /// XFAM bits that must be one.
    pub xfam_fixed1: u64,
    /// CPUID.1.EAX.
    pub cpuid_fms: u32,
    /// TSC frequency in Hz.
    pub tsc_hz: u64,
    /// Value of NUM_HANDOFF_PAGES; recordings of 1.5.01 do not show it.
    pub num_handoff_pages: u16,
    /// Steps after which PHYMEM.CACHE.WB looks for interrupts.
    pub wbinvd_sub_blocks: u32,
}

/// One recorded sequence.
#[derive(Debug)]
pub struct Sequence {
    /// Id, unique in its folder.
    pub id: Arc<str>,
    /// Family: `mem`, `vcpu`, ..., `prefix`.
    pub family: Arc<str>,
    /// Name of the generator's shape.
    pub shape: Arc<str>,
    /// The machine.
    pub platform: Arc<Platform>,
    /// Starting state.
    pub after: After,
    /// The steps in order.
    pub steps: Vec<Step>,
    /// Line of the header.
    pub line: u64,
}

/// One step of the host side.
#[derive(Debug)]
pub struct Step {
    /// Number of the step in its sequence, in order of start.
    pub index: u32,
    /// What is done.
    pub action: Action,
}

/// What a step does.
#[derive(Debug)]
pub enum Action {
    /// The host writes memory.
    WriteMem {
        /// First byte.
        at: Hpa,
        /// What is written.
        content: Content,
    },
    /// Host memory must have these contents.
    ReadMem {
        /// First byte.
        at: Hpa,
        /// Bytes.
        len: u64,
        /// What must be read.
        must_be: Contents,
    },
    /// An external interrupt for the VMM is, or is no longer, pending.
    IrqPending(IrqPending),
    /// The hardware starts or stops to fail.
    Hw(HwMode),
    /// The host encrypts.
    Seal(Box<Seal>),
    /// What the last export call wrote must be this.
    CheckBundle(Box<CheckBundle>),
    /// A SEAMCALL.
    Seamcall(Box<Seamcall>),
}

/// An external interrupt becomes or stops being pending on an LP.
#[derive(Clone, Copy, Debug)]
pub struct IrqPending {
    /// The logical processor.
    pub lp: u32,
    /// Whether an interrupt is pending now.
    pub pending: bool,
}

/// How RDSEED or PCONFIG behave from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HwMode {
    /// RDSEED gives numbers.
    RdseedOk,
    /// RDSEED gives nothing.
    RdseedNoEntropy,
    /// PCONFIG works.
    PconfigOk,
    /// PCONFIG finds no entropy.
    PconfigEntropyError,
    /// PCONFIG finds the key table busy.
    PconfigDeviceBusy,
}

/// What a write stores.
#[derive(Debug)]
pub enum Content {
    /// `len` times the byte, and then some words over it.
    Fill {
        /// Bytes.
        len: u64,
        /// The byte.
        fill: u8,
        /// Stores over the filled bytes.
        set: Vec<Store>,
    },
    /// The seeded pattern.
    Pattern(Pattern),
    /// The content is these bytes.
    Bytes(Arc<[u8]>),
}

/// A little-endian store inside a filled range.
#[derive(Clone, Copy, Debug)]
pub struct Store {
    /// Offset from the first filled byte.
    pub offset: u64,
    /// 1, 2, 4 or 8 bytes.
    pub size: usize,
    /// The value; bytes above `size` are ignored.
    pub value: u64,
}

/// The seeded pattern and its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pattern {
    /// The seed.
    pub seed: u64,
    /// Bytes.
    pub len: u64,
}

/// A recorded SEAMCALL.
#[derive(Debug)]
pub struct Seamcall {
    /// The logical processor that executes it.
    pub lp: u32,
    /// Name of the leaf, or `UNKNOWN`.
    pub leaf: Arc<str>,
    /// Registers before the instruction.
    pub input: Registers,
    /// Registers after it.
    pub expected: Expected,
    /// Registers whose values get names, if the call succeeds.
    pub binds: Bindings,
    /// What happened in the guest, for a VP.ENTER that reached it.
    pub guest: Option<GuestRun>,
}

/// One stay in the guest.
#[derive(Debug)]
pub struct GuestRun {
    /// The VM that is entered: 0, or the number of an L2 VM.
    pub vm: u8,
    /// The guest's registers when it starts to run.
    pub entry: Registers,
    /// Vector that the module injects with this entry.
    pub inject: Option<u8>,
    /// What happens then, in order. The last guest event, and no other, leaves the guest.
    pub events: Vec<GuestEvent>,
}

/// One thing that happens while an LP is in the guest.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "most events are TDCALLs, the large variant")]
pub enum GuestEvent {
    /// A step that another LP executes meanwhile.
    Host(Step),
    /// An interrupt becomes or stops being pending; no time passes.
    IrqPending(IrqPending),
    /// The guest does something, or something happens to it.
    Guest {
        /// Whether RIP is that of the event before.
        same_rip: bool,
        /// The VM in which it happens: 0, or the number of an L2 VM.
        vm: u8,
        /// The privilege level.
        privilege: Privilege,
        /// What.
        event: GuestAct,
        /// What the module must make of it.
        result: GuestResult,
        /// The registers of the VM that goes on, where the event ends in another one.
        after: Option<Gprs>,
    },
}

/// What a guest does, or what happens to it.
#[derive(Debug)]
pub enum GuestAct {
    /// TDCALL.
    Tdcall {
        /// Name of the leaf, or `UNKNOWN`.
        leaf: Arc<str>,
        /// All registers before the instruction.
        input: Registers,
        /// Registers after it, where it returned to the guest.
        expected: Option<Expected>,
        /// Registers whose values get names, if the call succeeds.
        binds: Bindings,
    },
    /// Touches guest memory without data.
    Access {
        /// Guest-physical address, SHARED bit included.
        gpa: Gpa,
        /// What for.
        kind: AccessKind,
    },
    /// Stores data.
    Write {
        /// Guest-physical address.
        gpa: Gpa,
        /// What is stored.
        content: Content,
    },
    /// Reads memory that must have known contents.
    Read {
        /// Guest-physical address.
        gpa: Gpa,
        /// Bytes.
        len: u64,
        /// What must be read.
        must_be: Contents,
    },
    /// An instruction or event that may leave the guest.
    Exit {
        /// Which.
        cause: ExitCause,
        /// Registers after it, where the module emulated it and the recording says what it gave.
        expected: Option<Expected>,
    },
}

/// At which level the guest executes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    /// Level 0.
    Supervisor,
    /// Level 3.
    User,
}

/// A control register that a TD may write only in part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum ControlRegister {
    Cr0,
    Cr4,
}

/// Why guest memory is touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessKind {
    /// Data read.
    Read,
    /// Data write.
    Write,
    /// Instruction fetch.
    Fetch,
}

/// Known contents of memory.
#[derive(Debug)]
pub enum Contents {
    /// By SHA-256.
    Sha256([u8; 32]),
    /// Byte by byte.
    Bytes(Vec<u8>),
}

/// An instruction or event that may leave the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the instructions'")]
pub enum ExitCause {
    Hlt,
    Wbinvd,
    Invd,
    Vmcall,
    Monitor,
    Mwait,
    Vmxon,
    Seamcall,
    Cpuid {
        leaf: u64,
        subleaf: u64,
    },
    Rdmsr {
        index: u32,
    },
    Wrmsr {
        index: u32,
        value: u64,
    },
    /// MOV to a control register from RAX.
    MovToControl {
        /// Which register.
        register: ControlRegister,
        /// RAX.
        value: u64,
        /// The register's real value afterwards.
        after: u64,
    },
    Xsetbv {
        index: u64,
        value: u64,
    },
    /// A VM exit with exactly this information.
    VmExit {
        exit: VmExit,
        /// Registers before it.
        regs: Gprs,
    },
    /// Port I/O.
    Io {
        /// Exit qualification.
        qualification: u64,
    },
    /// An external interrupt.
    ExternalInterrupt {
        /// The VM-exit interruption information: zero where the interrupt is not acknowledged.
        info: u32,
    },
    /// A non-maskable interrupt.
    Nmi,
    /// A triple fault.
    TripleFault,
    /// The VM entry after the previous event fails.
    EntryFailure {
        /// The whole exit reason, bit 31 included.
        reason: u32,
    },
}

/// What the module makes of a guest event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestResult {
    /// A TDCALL completed.
    Ret,
    /// A TDCALL was interrupted: nothing changed, RIP did not advance.
    Retry,
    /// TD exit.
    Exit,
    /// The module injected an exception and resumed the guest.
    Inject {
        /// The vector.
        vector: u8,
        /// The error code, where the exception has one.
        error_code: Option<u32>,
    },
    /// No VM exit happened.
    Ok,
    /// VM exit, guest resumed without effect.
    Resume,
    /// The module emulated the instruction.
    Emulated,
    /// An L2 VM was entered.
    EntersL2 {
        /// The number of the VM.
        vm: u8,
    },
    /// An L2 VM was left for the TD's own VM.
    LeavesL2,
}

impl GuestEvent {
    /// Whether this event ends the stay in the guest.
    pub const fn leaves_guest(&self) -> bool {
        matches!(self, Self::Guest { result: GuestResult::Exit, .. })
    }
}

impl Step {
    /// SEAMCALLs and TDCALLs of this step, nested ones included.
    pub fn calls(&self) -> u64 {
        let Action::Seamcall(call) = &self.action else { return 0 };
        1 + call.guest.as_ref().map_or(0, |run| run.events.iter().map(GuestEvent::calls).sum())
    }
}

impl GuestEvent {
    /// SEAMCALLs and TDCALLs of this event, nested ones included.
    pub fn calls(&self) -> u64 {
        match self {
            Self::Host(step) => step.calls(),
            Self::Guest { event: GuestAct::Tdcall { .. }, .. } => 1,
            Self::IrqPending(_) | Self::Guest { .. } => 0,
        }
    }
}

impl Sequence {
    /// SEAMCALLs and TDCALLs of the sequence, nested ones included.
    pub fn calls(&self) -> u64 {
        self.steps.iter().map(Step::calls).sum()
    }
}
