//! The architectural state that is neither flags nor memory.
//!
//! Fields are public: the owner of a [`crate::Cpu`] saves, restores and changes them between two runs. Mode
//! and privilege that follow from them are recomputed whenever [`crate::Cpu::run`] begins.

/// A general register, numbered as in ModRM with REX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the registers")]
pub enum Gpr {
    Rax,
    Rcx,
    Rdx,
    Rbx,
    Rsp,
    Rbp,
    Rsi,
    Rdi,
    R8,
    R9,
    R10,
    R11,
    R12,
    R13,
    R14,
    R15,
}

impl Gpr {
    /// All sixteen, in ModRM order.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The register with this ModRM number; the number is taken modulo 16.
    pub const fn from_index(index: u8) -> Self {
        Self::ALL[(index & 15) as usize]
    }
}

/// Slot of the register file that always reads zero: the base or index of an operand that has none.
pub(crate) const ZERO: u8 = 16;
/// Slot of RIP. While a block runs it holds the address of the block's first instruction.
pub(crate) const RIP: u8 = 17;
/// AH, CH, DH and BH as byte operands.
pub(crate) const HIGH_BYTES: u8 = 20;

/// General registers and RIP. Slots beyond the sixteen serve the executor; an index is reduced modulo 32, so
/// that no operation needs a bounds check.
#[derive(Clone, Debug, Default)]
#[repr(transparent)]
pub struct Registers(pub(crate) [u64; 32]);

impl Registers {
    /// Reads a register.
    pub const fn get(&self, register: Gpr) -> u64 {
        self.0[register as usize]
    }

    /// Writes all 64 bits of a register.
    pub const fn set(&mut self, register: Gpr, value: u64) {
        self.0[register as usize] = value;
    }

    /// The address of the next instruction.
    pub const fn rip(&self) -> u64 {
        self.0[RIP as usize]
    }

    /// Moves to another instruction.
    pub const fn set_rip(&mut self, rip: u64) {
        self.0[RIP as usize] = rip;
    }

    #[inline(always)]
    pub(crate) const fn slot(&self, index: u8) -> u64 {
        self.0[(index & 31) as usize]
    }

    #[inline(always)]
    pub(crate) const fn set_slot(&mut self, index: u8, value: u64) {
        self.0[(index & 31) as usize] = value;
    }
}

/// A segment register by number (SDM vol. 2, Sreg encoding).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are the registers")]
pub enum Seg {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

impl Seg {
    /// The register with this number, if there is one.
    pub const fn from_index(index: u8) -> Option<Self> {
        match index {
            0 => Some(Self::Es),
            1 => Some(Self::Cs),
            2 => Some(Self::Ss),
            3 => Some(Self::Ds),
            4 => Some(Self::Fs),
            5 => Some(Self::Gs),
            _ => None,
        }
    }
}

/// Attributes of a segment in the VMX access-rights format: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13,
/// D/B 14, G 15, unusable 16 (SDM vol. 3, "Guest Register State").
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(transparent)]
pub struct Attributes(pub u32);

impl Attributes {
    /// A segment register that holds a null selector.
    pub const UNUSABLE: Self = Self(1 << 16);
    /// 32-bit flat code, DPL 0, accessed.
    pub const CODE32: Self = Self(0xC09B);
    /// 64-bit code, DPL 0, accessed.
    pub const CODE64: Self = Self(0xA09B);
    /// Flat read-write data, DPL 0, accessed.
    pub const DATA: Self = Self(0xC093);
    /// A busy 32- or 64-bit TSS.
    pub const BUSY_TSS: Self = Self(0x8B);
    /// A local descriptor table.
    pub const LDT: Self = Self(0x82);

    /// Descriptor type, four bits.
    pub const fn kind(self) -> u8 {
        (self.0 & 15) as u8
    }
    /// Code or data (S = 1).
    pub const fn is_code_or_data(self) -> bool {
        self.0 & 1 << 4 != 0
    }
    /// Code (S = 1 and type bit 3).
    pub const fn is_code(self) -> bool {
        self.0 & 0x18 == 0x18
    }
    /// Descriptor privilege level.
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }
    /// Present.
    pub const fn present(self) -> bool {
        self.0 & 1 << 7 != 0
    }
    /// 64-bit code.
    pub const fn long(self) -> bool {
        self.0 & 1 << 13 != 0
    }
    /// Default operand size 32, or big stack.
    pub const fn big(self) -> bool {
        self.0 & 1 << 14 != 0
    }
    /// Limit counts pages.
    pub const fn granular(self) -> bool {
        self.0 & 1 << 15 != 0
    }
    /// Null.
    pub const fn unusable(self) -> bool {
        self.0 & 1 << 16 != 0
    }
    /// The same with another DPL.
    #[must_use]
    pub const fn with_dpl(self, dpl: u8) -> Self {
        Self(self.0 & !(3 << 5) | (dpl as u32 & 3) << 5)
    }
}

/// A segment register (or LDTR, TR) with its hidden part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment {
    /// The visible part.
    pub selector: u16,
    /// First linear address.
    pub base: u64,
    /// Last valid offset, in bytes whatever the granularity.
    pub limit: u32,
    /// Everything else of the descriptor.
    pub attributes: Attributes,
}

impl Segment {
    /// A null segment.
    pub const NULL: Self = Self { selector: 0, base: 0, limit: 0, attributes: Attributes::UNUSABLE };

    /// A flat 4 GiB segment.
    pub const fn flat(selector: u16, attributes: Attributes) -> Self {
        Self { selector, base: 0, limit: u32::MAX, attributes }
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TableRegister {
    /// Linear address of the first descriptor.
    pub base: u64,
    /// Last valid offset.
    pub limit: u16,
}

/// Control and extended control registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR2: the linear address of the last page fault.
    pub cr2: u64,
    /// CR3, with the PCID where CR4.PCIDE is set.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// CR8: the task priority, 0 to 15.
    pub cr8: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// XCR0.
    pub xcr0: u64,
}

/// Bits of CR0.
#[allow(missing_docs, reason = "the names are the bits")]
pub mod cr0 {
    pub const PE: u64 = 1;
    pub const MP: u64 = 1 << 1;
    pub const EM: u64 = 1 << 2;
    pub const TS: u64 = 1 << 3;
    pub const ET: u64 = 1 << 4;
    pub const NE: u64 = 1 << 5;
    pub const WP: u64 = 1 << 16;
    pub const AM: u64 = 1 << 18;
    pub const NW: u64 = 1 << 29;
    pub const CD: u64 = 1 << 30;
    pub const PG: u64 = 1 << 31;
    /// Every defined bit.
    pub const DEFINED: u64 = PE | MP | EM | TS | ET | NE | WP | AM | NW | CD | PG;
}

/// Bits of CR4.
#[allow(missing_docs, reason = "the names are the bits")]
pub mod cr4 {
    pub const VME: u64 = 1;
    pub const PVI: u64 = 1 << 1;
    pub const TSD: u64 = 1 << 2;
    pub const DE: u64 = 1 << 3;
    pub const PSE: u64 = 1 << 4;
    pub const PAE: u64 = 1 << 5;
    pub const MCE: u64 = 1 << 6;
    pub const PGE: u64 = 1 << 7;
    pub const PCE: u64 = 1 << 8;
    pub const OSFXSR: u64 = 1 << 9;
    pub const OSXMMEXCPT: u64 = 1 << 10;
    pub const UMIP: u64 = 1 << 11;
    pub const LA57: u64 = 1 << 12;
    pub const VMXE: u64 = 1 << 13;
    pub const SMXE: u64 = 1 << 14;
    pub const FSGSBASE: u64 = 1 << 16;
    pub const PCIDE: u64 = 1 << 17;
    pub const OSXSAVE: u64 = 1 << 18;
    pub const SMEP: u64 = 1 << 20;
    pub const SMAP: u64 = 1 << 21;
    pub const PKE: u64 = 1 << 22;
    pub const CET: u64 = 1 << 23;
    pub const PKS: u64 = 1 << 24;
}

/// Bits of IA32_EFER.
#[allow(missing_docs, reason = "the names are the bits")]
pub mod efer {
    pub const SCE: u64 = 1;
    pub const LME: u64 = 1 << 8;
    pub const LMA: u64 = 1 << 10;
    pub const NXE: u64 = 1 << 11;
}

/// The MSRs that instructions use by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs, reason = "the names are those of the SDM")]
pub struct Msrs {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub tsc_aux: u64,
    pub pat: u64,
    pub xss: u64,
    pub debugctl: u64,
    pub misc_enable: u64,
    pub spec_ctrl: u64,
}

/// Debug registers. DR4 and DR5 are aliases and have no state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DebugRegisters {
    /// Breakpoint addresses.
    pub address: [u64; 4],
    /// Status.
    pub dr6: u64,
    /// Control.
    pub dr7: u64,
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self { address: [0; 4], dr6: 0xFFFF_0FF0, dr7: 0x400 }
    }
}

/// x87 and SSE state. x87 arithmetic is not implemented; its state is kept for FXSAVE and XSAVE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SimdState {
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    /// SSE control and status.
    pub mxcsr: u32,
    /// x87 control word.
    pub fcw: u16,
    /// x87 status word.
    pub fsw: u16,
    /// x87 tag byte as FXSAVE abridges it: one bit per register, 1 = not empty.
    pub ftw: u8,
    /// Last x87 opcode.
    pub fop: u16,
    /// Last x87 instruction pointer.
    pub fip: u64,
    /// Last x87 data pointer.
    pub fdp: u64,
    /// ST0 to ST7 as 80-bit values in the low bits.
    pub st: [u128; 8],
}

impl Default for SimdState {
    fn default() -> Self {
        Self { xmm: [0; 16], mxcsr: 0x1F80, fcw: 0x37F, fsw: 0, ftw: 0, fop: 0, fip: 0, fdp: 0, st: [0; 8] }
    }
}

/// What keeps events from being taken at the next instruction boundary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interruptibility {
    /// The instruction before was one that holds events off for one boundary.
    pub shadow: Shadow,
    /// An NMI handler runs: NMIs wait for its IRET.
    pub nmi_blocked: bool,
}

/// The one-instruction interrupt shadow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shadow {
    /// None.
    #[default]
    None,
    /// After an STI that set IF.
    Sti,
    /// After a load of SS by MOV or POP.
    MovSs,
}

/// Whether instructions are executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Activity {
    /// Yes.
    #[default]
    Active,
    /// The owner halted the CPU; an injected event wakes it.
    Halted,
    /// After a triple fault.
    Shutdown,
    /// Until the owner starts it.
    WaitForSipi,
}

/// What the owner keeps for itself, and what the CPU it presents can do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controls {
    /// Bits of CR0 that the owner owns: reads see `cr0_shadow`, a write that would change one exits.
    pub cr0_owned: u64,
    /// What the guest reads in the owned bits of CR0.
    pub cr0_shadow: u64,
    /// Bits of CR4 that the owner owns.
    pub cr4_owned: u64,
    /// What the guest reads in the owned bits of CR4.
    pub cr4_shadow: u64,
    /// Bits of CR4 that may be set; a write of any other is #GP(0).
    pub cr4_supported: u64,
    /// Bits of XCR0 that may be set.
    pub xcr0_supported: u64,
    /// Physical-address width: bits at and above it are reserved in paging structures and CR3.
    pub physical_bits: u8,
    /// MOV to CR3 exits.
    pub intercept_cr3_write: bool,
    /// MOV to CR8 exits.
    pub intercept_cr8_write: bool,
    /// MOV from CR8 exits.
    pub intercept_cr8_read: bool,
    /// MOV to and from debug registers exits.
    pub intercept_dr: bool,
    /// PAUSE exits.
    pub intercept_pause: bool,
    /// Exit as soon as an external interrupt can be taken.
    pub interrupt_window: bool,
    /// Exit as soon as an NMI can be taken.
    pub nmi_window: bool,
}

impl Default for Controls {
    fn default() -> Self {
        use cr4::*;
        Self {
            cr0_owned: 0,
            cr0_shadow: 0,
            cr4_owned: 0,
            cr4_shadow: 0,
            cr4_supported: TSD
                | DE
                | PSE
                | PAE
                | MCE
                | PGE
                | PCE
                | OSFXSR
                | OSXMMEXCPT
                | UMIP
                | LA57
                | FSGSBASE
                | PCIDE
                | OSXSAVE
                | SMEP
                | SMAP,
            xcr0_supported: 3,
            physical_bits: 52,
            intercept_cr3_write: false,
            intercept_cr8_write: false,
            intercept_cr8_read: false,
            intercept_dr: false,
            intercept_pause: false,
            interrupt_window: false,
            nmi_window: false,
        }
    }
}
