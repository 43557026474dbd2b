//! Why [`crate::Engine::run`] came back.
//!
//! An *instruction exit* leaves RIP at the instruction, with nothing of it done. The owner either performs it
//! (changes registers, then [`crate::Cpu::advance`] by `length`), or injects an event instead.

use core::fmt;

use tdvisor_base::{Gpa, Hpa};
use x86_arch::{Access, Event, Gpr};

use crate::bus::Refused;
use crate::cpu::CodeMode;
use crate::decode;
use crate::stop_points::StopPoint;

/// Why the CPU stopped. `R` is what the [`crate::Bus`] refuses with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Exit<R> {
    /// An instruction that the owner performs.
    Instruction {
        /// Which, with its decoded operands.
        what: InstructionExit,
        /// The instruction's length in bytes.
        length: u8,
    },
    /// The kick flag was seen set, between two instructions (or two steps of a REP). The flag is left set.
    ExternalInterrupt,
    /// As many instructions as the budget allowed have retired.
    BudgetExhausted,
    /// [`crate::Controls::interrupt_window`] was asked for, and an external interrupt can be taken now.
    InterruptWindow,
    /// [`crate::Controls::nmi_window`] was asked for, and an NMI can be taken now.
    NmiWindow,
    /// An exception while delivering a double fault. The CPU is in shutdown.
    TripleFault,
    /// An access that the second stage of translation, a device or memory itself refused. No part of the instruction
    /// has been done; running again repeats it.
    Refused(RefusedAccess<R>),
    /// The next instruction, or what it would do in this state, is not implemented. Nothing of it was done.
    Unimplemented(Box<Unimplemented>),
    /// A stop point of the owner ([`crate::Cpu::set_stop_points`]): before the instruction at its address, or behind one
    /// that accessed what it covers.
    StopPoint(StopPoint),
    /// The CPU is not active: the owner wakes it (inject, or the activity in its state) before it runs again.
    Inactive,
}

impl Exit<Refused> {
    /// Gives a refusal its reason back.
    pub(crate) fn because<R>(self, refusal: Option<R>) -> Exit<R> {
        match self {
            Self::Instruction { what, length } => Exit::Instruction { what, length },
            Self::ExternalInterrupt => Exit::ExternalInterrupt,
            Self::BudgetExhausted => Exit::BudgetExhausted,
            Self::InterruptWindow => Exit::InterruptWindow,
            Self::NmiWindow => Exit::NmiWindow,
            Self::TripleFault => Exit::TripleFault,
            Self::Unimplemented(what) => Exit::Unimplemented(what),
            Self::StopPoint(point) => Exit::StopPoint(point),
            Self::Inactive => Exit::Inactive,
            Self::Refused(access) => match (access.by, refusal) {
                (RefusedBy::Memory(hpa), _) => Exit::Refused(access.by(RefusedBy::Memory(hpa))),
                (RefusedBy::Bus(_), Some(refusal)) => Exit::Refused(access.by(RefusedBy::Bus(refusal))),
                // A `Refused` exists only where its reason was kept.
                (RefusedBy::Bus(_), None) => Exit::BudgetExhausted,
            },
        }
    }
}

/// Who refused an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RefusedBy<R> {
    /// The bus, for this reason.
    Bus(R),
    /// The memory controller: no memory at this address, or a key that does not fit the page. A machine check.
    Memory(Hpa),
}

/// A refused access with its context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefusedAccess<R> {
    /// The guest-physical address, byte-exact.
    pub gpa: Gpa,
    /// What was to be done there.
    pub access: Access,
    /// The linear address that was being translated or accessed.
    pub gla: u64,
    /// Who refused, and why.
    pub by: RefusedBy<R>,
    /// The event whose delivery was under way, if any: inject it again after the fault is repaired
    /// (VMX calls it IDT-vectoring information). `Event::instruction_length` is valid for software events.
    pub idt_vectoring: Option<Event>,
}

impl<R> RefusedAccess<R> {
    /// The access, refused by somebody else.
    fn by<T>(&self, by: RefusedBy<T>) -> RefusedAccess<T> {
        let Self { gpa, access, gla, idt_vectoring, .. } = *self;
        RefusedAccess { gpa, access, gla, by, idt_vectoring }
    }
}

/// Something that this crate does not implement, exactly named: a limit of the emulator, not a fault of the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unimplemented {
    /// The bytes of the instruction (of all 15 possible ones where it has no decoding).
    pub bytes: Vec<u8>,
    /// The instruction's linear address.
    pub address: u64,
    /// How the bytes are decoded.
    pub(crate) mode: CodeMode,
    /// What of it is missing.
    pub missing: &'static str,
}

impl Unimplemented {
    /// The 64-bit instruction that these bytes are.
    pub const fn in_64_bit_code(bytes: Vec<u8>, address: u64, missing: &'static str) -> Self {
        Self { bytes, address, mode: CodeMode::Code64, missing }
    }

    /// The 32-bit instruction that these bytes are.
    pub const fn in_32_bit_code(bytes: Vec<u8>, address: u64, missing: &'static str) -> Self {
        Self { bytes, address, mode: CodeMode::Code32, missing }
    }

    /// The instruction as text; `None` where the bytes have no decoding.
    pub(crate) fn text(&self) -> Option<String> {
        decode::text(self.mode, &self.bytes, self.address)
    }

    /// The mnemonic in lower case; `None` where the bytes have no decoding.
    pub fn mnemonic(&self) -> Option<String> {
        decode::mnemonic(self.mode, &self.bytes)
    }
}

impl fmt::Display for Unimplemented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not implemented: ")?;
        match self.text() {
            Some(instruction) => f.write_str(&instruction)?,
            None => f.write_str("(no decoding)")?,
        }
        write!(f, ": {} at {:#x}, bytes", self.missing, self.address)?;
        for byte in &self.bytes {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

/// Why a CPU shut down, and where it was.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shutdown {
    /// The event whose delivery began it.
    pub first: Event,
    /// The exception that arose while #DF was delivered.
    pub last: Event,
    /// RIP.
    pub rip: u64,
    /// CR2.
    pub cr2: u64,
    /// The bytes of the instruction at RIP; none where they cannot be read.
    pub bytes: Vec<u8>,
    /// The instruction; `None` where its bytes have no decoding.
    pub instruction: Option<String>,
}

impl fmt::Display for Shutdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, rip, cr2, bytes, instruction } = self;
        write!(
            f,
            "vector {} could not be delivered, and vector {} on the way to #DF; ",
            first.vector, last.vector
        )?;
        write!(
            f,
            "RIP {rip:#x}, CR2 {cr2:#x}: {}, bytes",
            instruction.as_deref().unwrap_or("(no decoding)")
        )?;
        bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// Direction of a port access.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum IoDirection {
    /// IN, INS.
    In,
    /// OUT, OUTS.
    Out,
}

/// IN, OUT, INS or OUTS, after its I/O permission was checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Io {
    /// The port.
    pub port: u16,
    /// Operand size in bytes: 1, 2 or 4.
    pub size: u8,
    /// In or out.
    pub direction: IoDirection,
    /// For OUT, the value (zero-extended); 0 otherwise.
    pub value: u32,
    /// Whether the port number is an immediate (exit qualification bit 6) instead of DX.
    pub immediate: bool,
    /// Set for INS and OUTS.
    pub string: Option<StringIo>,
}

/// The string part of INS and OUTS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct StringIo {
    /// Whether a REP prefix is there (RCX is then not zero: a REP with nothing to do does not exit).
    pub rep: bool,
    /// Linear address of the (first) memory operand.
    pub address: u64,
    /// The bits of RCX, RSI and RDI that the instruction's address size uses.
    pub index_mask: u64,
}

/// A control-register access that the owner's masks intercept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct CrAccess {
    /// 0, 3, 4 or 8.
    pub register: u8,
    /// What is done to it.
    pub operation: CrOperation,
}

/// What an intercepted control-register access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum CrOperation {
    /// MOV to the register (or LMSW, with the full new CR0); finish with [`crate::Cpu::write_cr`].
    Write {
        /// The new value.
        value: u64,
        /// The general register it comes from, numbered as in ModRM; 0 for LMSW.
        gpr: u8,
    },
    /// MOV from the register into this general register.
    Read {
        /// Numbered as in ModRM.
        gpr: u8,
    },
    /// CLTS.
    Clts,
}

/// A debug-register access, where [`crate::Controls::intercept_dr`] asks for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct DrAccess {
    /// 0 to 7.
    pub register: u8,
    /// The general register, numbered as in ModRM.
    pub gpr: u8,
    /// Whether the debug register is written.
    pub write: bool,
}

/// An instruction that the owner performs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum InstructionExit {
    /// HLT, at CPL 0. The owner decides whether the CPU sleeps.
    Hlt,
    /// Port I/O.
    Io(Io),
    /// CPUID; leaf in EAX, subleaf in ECX.
    Cpuid,
    /// RDMSR at CPL 0.
    Rdmsr {
        /// ECX.
        index: u32,
    },
    /// WRMSR at CPL 0.
    Wrmsr {
        /// ECX.
        index: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// TDCALL (66 0F 01 CC); CPL not checked.
    Tdcall,
    /// SEAMCALL (66 0F 01 CF); CPL not checked.
    Seamcall,
    /// SEAMRET (66 0F 01 CD).
    Seamret,
    /// SEAMOPS (66 0F 01 CE).
    Seamops,
    /// VMCALL; CPL not checked.
    Vmcall,
    /// Any other VMX instruction; neither its privilege was checked nor its memory operand read.
    Vmx {
        /// Which.
        what: VmxInstruction,
        /// The instruction's operands.
        operands: VmxOperands,
    },
    /// INVD at CPL 0.
    Invd,
    /// WBINVD or WBNOINVD at CPL 0.
    Wbinvd,
    /// MONITOR; the address was not translated.
    Monitor,
    /// MWAIT.
    Mwait,
    /// PCONFIG.
    Pconfig,
    /// ENCLS, ENCLU or ENCLV.
    Sgx,
    /// GETSEC.
    Getsec,
    /// RDPMC, after its CPL check.
    Rdpmc {
        /// ECX.
        index: u32,
    },
    /// XSETBV at CPL 0; finish with [`crate::Cpu::write_xcr0`].
    Xsetbv {
        /// ECX.
        index: u32,
        /// EDX:EAX.
        value: u64,
    },
    /// An intercepted MOV to or from CR0, CR3, CR4 or CR8, or LMSW or CLTS.
    CrAccess(CrAccess),
    /// An intercepted MOV to or from a debug register.
    DrAccess(DrAccess),
    /// PAUSE, where [`crate::Controls::intercept_pause`] asks for it.
    Pause,
    /// A task switch of 32-bit protected mode, after the checks that come before a VM exit; nothing was changed.
    TaskSwitch(TaskSwitch),
}

/// A task switch (SDM vol. 3, "Treatment of Task Switches").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct TaskSwitch {
    /// The selector of the new task's TSS.
    pub selector: u16,
    /// What asks for it.
    pub by: TaskSwitchBy,
}

/// What asks for a task switch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TaskSwitchBy {
    /// A far CALL to a TSS or a task gate.
    Call,
    /// IRET out of a nested task.
    Iret,
    /// A far JMP to a TSS or a task gate.
    Jump,
    /// A task gate in the IDT, on the way of this event.
    Gate(Event),
}

/// The operands of a VMX instruction, as far as it has any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct VmxOperands {
    /// The general register that ModRM.reg names; RAX where there is none.
    pub register: Gpr,
    /// What ModRM.rm names.
    pub place: VmxPlace,
}

/// A register or memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum VmxPlace {
    /// A general register; RAX where there is no operand.
    Register(Gpr),
    /// Memory at this linear address: see [`crate::Cpu::read_operand`].
    Memory(u64),
}

/// A VMX instruction other than VMCALL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the names are the mnemonics")]
pub enum VmxInstruction {
    Vmxon,
    Vmxoff,
    Vmclear,
    Vmptrld,
    Vmptrst,
    Vmread,
    Vmwrite,
    Vmlaunch,
    Vmresume,
    Vmfunc,
    Invept,
    Invvpid,
}
