//! Everything that a logical processor holds between two instructions.

use crate::{
    Attributes, ControlRegisters, DebugRegisters, Event, Flags, Gpr, Msrs, Registers, Seg, Segment,
    SimdState, TableRegister, dr6, efer, flags, vector,
};

/// What keeps events from being taken at the next instruction boundary.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interruptibility {
    /// The instruction before was one that holds events off for one boundary.
    pub shadow: Shadow,
    /// An NMI handler runs: NMIs wait for its IRET.
    pub nmi_blocked: bool,
}

impl Interruptibility {
    const STI: u32 = 1;
    const MOV_SS: u32 = 1 << 1;
    const NMI: u32 = 1 << 3;

    /// The form of the VMX interruptibility-state field.
    pub const fn pack(self) -> u32 {
        let shadow = match self.shadow {
            Shadow::None => 0,
            Shadow::Sti => Self::STI,
            Shadow::MovSs => Self::MOV_SS,
        };
        shadow | if self.nmi_blocked { Self::NMI } else { 0 }
    }

    /// From the VMX interruptibility-state field; its bits for SMM and enclaves are dropped.
    pub const fn unpack(bits: u32) -> Self {
        let shadow = match bits & (Self::STI | Self::MOV_SS) {
            0 => Shadow::None,
            Self::STI => Shadow::Sti,
            _ => Shadow::MovSs,
        };
        Self { shadow, nmi_blocked: bits & Self::NMI != 0 }
    }
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

impl Activity {
    /// The form of the VMX activity-state field.
    pub const fn pack(self) -> u32 {
        match self {
            Self::Active => 0,
            Self::Halted => 1,
            Self::Shutdown => 2,
            Self::WaitForSipi => 3,
        }
    }

    /// From the VMX activity-state field; a number that names no state is [`Self::Active`].
    pub const fn unpack(bits: u32) -> Self {
        match bits {
            1 => Self::Halted,
            2 => Self::Shutdown,
            3 => Self::WaitForSipi,
            _ => Self::Active,
        }
    }
}

/// The architectural state of a logical processor: what a snapshot, a migration or a debugger takes and gives back.
///
/// Every field is public; no rule of the architecture is checked here. What follows from these values (mode, privilege,
/// translations) is recomputed by whoever runs them.
#[derive(Clone, PartialEq, Debug)]
pub struct CpuState {
    /// General registers and RIP.
    pub regs: Registers,
    /// RFLAGS.
    pub flags: Flags,
    /// ES, CS, SS, DS, FS, GS, in this order; see [`Self::segment`].
    pub segments: [Segment; 6],
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Task register.
    pub tr: Segment,
    /// Global descriptor table.
    pub gdtr: TableRegister,
    /// Interrupt descriptor table.
    pub idtr: TableRegister,
    /// Control registers, EFER and XCR0.
    pub control: ControlRegisters,
    /// MSRs that instructions use.
    pub msrs: Msrs,
    /// Debug registers.
    pub debug: DebugRegisters,
    /// x87, SSE and AVX.
    pub simd: SimdState,
    /// PKRU: for each protection key, bit 2·key denies data accesses, bit 2·key + 1 denies writes.
    pub pkru: u32,
    /// Interrupt shadow and NMI blocking.
    pub interruptibility: Interruptibility,
    /// Whether instructions run.
    pub activity: Activity,
    /// What is delivered before the next instruction: injected by the owner, or a trap that is due.
    pub event: Option<Event>,
}

impl Default for CpuState {
    /// 32-bit flat protected mode with paging off, CPL 0, interrupts off, RIP 0, everything else as reset leaves it.
    fn default() -> Self {
        let data = Segment::flat(0, Attributes::DATA);
        Self {
            regs: Registers::default(),
            flags: Flags::default(),
            segments: [data, Segment::flat(0, Attributes::CODE32), data, data, data, data],
            ldtr: Segment { limit: 0xFFFF, attributes: Attributes::LDT, ..Segment::NULL },
            tr: Segment { limit: 0xFFFF, attributes: Attributes::BUSY_TSS, ..Segment::NULL },
            gdtr: TableRegister::default(),
            idtr: TableRegister::default(),
            control: ControlRegisters::default(),
            msrs: Msrs::default(),
            debug: DebugRegisters::default(),
            simd: SimdState::default(),
            pkru: 0,
            interruptibility: Interruptibility::default(),
            activity: Activity::Active,
            event: None,
        }
    }
}

impl CpuState {
    /// A general register.
    pub const fn gpr(&self, register: Gpr) -> u64 {
        self.regs.get(register)
    }

    /// Sets a general register.
    pub const fn set_gpr(&mut self, register: Gpr, value: u64) {
        self.regs.set(register, value);
    }

    /// The address of the next instruction.
    pub const fn rip(&self) -> u64 {
        self.regs.rip()
    }

    /// Continues elsewhere.
    pub const fn set_rip(&mut self, rip: u64) {
        self.regs.set_rip(rip);
    }

    /// A segment register with its hidden part.
    #[inline(always)]
    pub const fn segment(&self, register: Seg) -> &Segment {
        &self.segments[register as usize]
    }

    /// A segment register, to be changed.
    #[inline(always)]
    pub const fn segment_mut(&mut self, register: Seg) -> &mut Segment {
        &mut self.segments[register as usize]
    }

    /// The current privilege level: the DPL of SS, as in VMX.
    #[inline(always)]
    pub const fn cpl(&self) -> u8 {
        self.segment(Seg::Ss).attributes.dpl()
    }

    /// EFER.LMA: IA-32e mode, 64-bit or compatibility.
    pub const fn is_ia32e(&self) -> bool {
        self.control.efer & efer::LMA != 0
    }

    /// 64-bit mode: EFER.LMA and CS.L.
    pub const fn is_64_bit(&self) -> bool {
        self.is_ia32e() && self.segment(Seg::Cs).attributes.long()
    }

    /// Whether an external interrupt could be taken now.
    pub const fn interrupts_open(&self) -> bool {
        self.flags.rest() & flags::IF != 0 && matches!(self.interruptibility.shadow, Shadow::None)
    }

    /// Whether an NMI could be taken now.
    pub const fn nmis_open(&self) -> bool {
        !self.interruptibility.nmi_blocked && matches!(self.interruptibility.shadow, Shadow::None)
    }

    /// Makes the #DB of a single step due.
    pub const fn queue_single_step(&mut self) {
        self.debug.note(dr6::BS);
        self.event = Some(Event::exception(vector::DB));
    }

    /// Steps over an instruction of this length that somebody performed for the processor: RIP moves on, the interrupt
    /// shadow and RF end, and with TF set a single step is due unless another event already is.
    pub const fn complete_instruction(&mut self, length: u8) {
        let next = self.rip().wrapping_add(length as u64);
        self.set_rip(if self.is_64_bit() { next } else { next & 0xFFFF_FFFF });
        let rest = self.flags.rest();
        self.interruptibility.shadow = Shadow::None;
        self.flags.set_rest(rest & !flags::RF);
        if rest & flags::TF != 0 && self.event.is_none() {
            self.queue_single_step();
        }
    }
}
