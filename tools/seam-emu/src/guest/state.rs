//! The architectural state of a vCPU while it is on a processor.

use tdx_module_iface::Gprs;

/// A segment register with its hidden part, in VMCS form.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentState {
    /// Selector.
    pub selector: u16,
    /// Base.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
    /// VMX access rights.
    pub access: u32,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DescriptorTable {
    /// Linear base.
    pub base: u64,
    /// Limit in bytes.
    pub limit: u32,
}

/// How an injected event enters the guest (VMX interruption types).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum InjectionKind {
    /// External interrupt.
    ExternalInterrupt = 0,
    /// NMI.
    Nmi = 2,
    /// Hardware exception.
    HardwareException = 3,
    /// INT n.
    SoftwareInterrupt = 4,
    /// INT1.
    PrivilegedSoftwareException = 5,
    /// INT3, INTO.
    SoftwareException = 6,
}

/// An event that the processor delivers to the guest at its next entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Injection {
    /// The vector.
    pub vector: u8,
    /// Its kind.
    pub kind: InjectionKind,
    /// The error code of an exception that has one.
    pub error_code: Option<u32>,
    /// Length of the instruction behind a software event.
    pub instruction_length: u8,
}

impl Injection {
    /// A hardware exception.
    pub const fn exception(vector: u8, error_code: Option<u32>) -> Self {
        Self { vector, kind: InjectionKind::HardwareException, error_code, instruction_length: 0 }
    }

    /// An external interrupt.
    pub const fn interrupt(vector: u8) -> Self {
        Self { vector, kind: InjectionKind::ExternalInterrupt, error_code: None, instruction_length: 0 }
    }

    /// An NMI.
    pub const fn nmi() -> Self {
        Self { vector: 2, kind: InjectionKind::Nmi, error_code: None, instruction_length: 0 }
    }
}

/// x87 state beyond the control word, as FXSAVE stores it. The default is that of FNINIT.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct X87State {
    /// Status word.
    pub fsw: u16,
    /// Tags, abridged: a bit per register, set where it is not empty.
    pub ftw: u8,
    /// Last opcode.
    pub fop: u16,
    /// Last instruction pointer.
    pub fip: u64,
    /// Last data pointer.
    pub fdp: u64,
    /// ST0 to ST7: 80-bit values in the low bits.
    pub st: [u128; 8],
}

/// Everything that a guest's processor holds between two instructions.
///
/// Between two TDH.VP.ENTERs the same values lie in the vCPU's TDVPS.
#[derive(Clone, PartialEq, Debug, Default)]
#[allow(missing_docs, reason = "the names are those of the registers")]
pub struct GuestState {
    pub gprs: Gprs,
    pub rsp: u64,
    pub rip: u64,
    pub rflags: u64,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub xcr0: u64,
    pub xss: u64,
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [SegmentState; 6],
    pub ldtr: SegmentState,
    pub tr: SegmentState,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    pub dr: [u64; 4],
    pub dr6: u64,
    pub dr7: u64,
    pub star: u64,
    pub lstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub tsc_aux: u64,
    pub pat: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub spec_ctrl: u64,
    pub debugctl: u64,
    /// XMM0 to XMM15.
    pub xmm: [u128; 16],
    pub mxcsr: u32,
    pub fcw: u16,
    pub x87: X87State,
    /// VMX interruptibility state.
    pub interruptibility: u32,
    /// VMX activity state.
    pub activity: u32,
    /// An event to deliver when the guest starts to run; the processor takes it out.
    pub injection: Option<Injection>,
    /// What the processor shall exit for as soon as the guest could take it.
    pub windows: Windows,
}

/// Exits that the module asks for, to inject an event that the guest cannot take yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Windows {
    /// Exit with reason 7 when an external interrupt could be delivered.
    pub interrupt: Window,
    /// Exit with reason 8 when an NMI could be delivered.
    pub nmi: Window,
}

/// Whether a window exit is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Window {
    /// No.
    #[default]
    Closed,
    /// Yes.
    Wanted,
}

impl GuestState {
    /// Puts the vCPU into 64-bit mode at CPL 0, as a script that issues TDCALLs at once needs it. Paging stays as
    /// it is: a script does not use it.
    pub const fn enter_64_bit_mode(&mut self) {
        const CODE64: u32 = 0xa09b;
        self.efer |= 1 << 10;
        self.segments[1].access = CODE64;
    }

    /// Whether the guest executes 64-bit code: EFER.LMA and CS.L. TDCALL demands it.
    pub const fn is_64_bit(&self) -> bool {
        self.efer & 1 << 10 != 0 && self.segments[1].access & 1 << 13 != 0
    }
}
