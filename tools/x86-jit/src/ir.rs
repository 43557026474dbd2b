//! Guest instructions as data: what the compiler takes, and what can be known of an instruction without running it.

/// Size of an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Word,
    /// 32 bits: a register loses its upper half.
    Dword,
    /// 64 bits.
    Qword,
}

impl Width {
    /// The width of so many bytes.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }

    /// Bytes.
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }
}

/// A general register of the guest, numbered as in ModRM with REX.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reg(u8);

impl Reg {
    /// RAX.
    pub const RAX: Self = Self(0);
    /// RSP.
    pub const RSP: Self = Self(4);
    /// RBP.
    pub const RBP: Self = Self(5);

    /// The register with this number.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 { Some(Self(number)) } else { None }
    }

    /// The register's number, below 16.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A segment whose base counts in 64-bit mode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Segment {
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// A memory operand with a 64-bit address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Address {
    /// Base register.
    pub base: Option<Reg>,
    /// Index register.
    pub index: Option<Reg>,
    /// log2 of the index's scale, 0 to 3.
    pub scale: u8,
    /// Displacement, sign-extended.
    pub displacement: u64,
    /// The displacement counts from the block's first byte.
    pub relative: bool,
    /// The base of this segment is added.
    pub segment: Option<Segment>,
}

/// A register or memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operand {
    /// A register.
    Register(Reg),
    /// Memory.
    Memory(Address),
}

/// A register, memory, or a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A register.
    Register(Reg),
    /// Memory.
    Memory(Address),
    /// A value, sign-extended to 64 bits.
    Immediate(u64),
}

/// Two operands that set the arithmetic flags; numbered as in their opcodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the instructions")]
pub enum Arithmetic {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
    Test = 8,
}

/// One operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the instructions")]
pub enum Unary {
    Increment,
    Decrement,
    Negate,
    Not,
}

/// Whether other processors may come between the read and the write of an operand in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Atomicity {
    /// Other processors may come between.
    Plain,
    /// LOCK.
    Locked,
}

/// Operations on memory that give a register what was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fetch {
    /// XCHG.
    Exchange,
    /// XADD.
    Add,
    /// CMPXCHG: what was in memory goes to RAX.
    Compare,
}

/// What becomes of a bit that goes to CF; numbered as in ModRM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Bit {
    /// BT.
    Test = 4,
    /// BTS.
    Set = 5,
    /// BTR.
    Reset = 6,
    /// BTC.
    Complement = 7,
}

/// Which bit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BitOffset {
    /// Modulo the operand's width.
    Immediate(u8),
    /// In memory it counts, with its sign, from the operand's address; modulo the width in a register.
    Register(Reg),
}

/// What is counted or found in an operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scan {
    /// BSF.
    Forward,
    /// BSR.
    Reverse,
    /// TZCNT. The host has it.
    TrailingZeros,
    /// LZCNT. The host has it.
    LeadingZeros,
    /// POPCNT. The host has it.
    Population,
}

/// Operations of BMI1 and BMI2 that are made of general registers. The host has them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "the names are the instructions")]
pub enum BitField {
    Andn,
    Bextr,
    Bzhi,
    Blsr,
    Blsmsk,
    Blsi,
    Pdep,
    Pext,
    Sarx,
    Shlx,
    Shrx,
}

impl BitField {
    /// The arithmetic flags are set by the result; otherwise they stay.
    pub const fn sets_flags(self) -> bool {
        matches!(self, Self::Andn | Self::Bextr | Self::Bzhi | Self::Blsr | Self::Blsmsk | Self::Blsi)
    }
}

/// Waits for memory accesses before it; the host's own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the instructions")]
pub enum Fence {
    Lfence = 0xE8,
    Mfence = 0xF0,
    Sfence = 0xF8,
}

/// Shifts and rotates; numbered as in ModRM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the instructions")]
pub enum Shift {
    Rol = 0,
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

impl Shift {
    /// Only CF and OF change.
    pub const fn is_rotate(self) -> bool {
        matches!(self, Self::Rol | Self::Ror)
    }
}

/// How far a shift goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Count {
    /// 1 to the operand's width in bits, exclusive.
    Immediate(u8),
    /// CL, modulo 32 or 64.
    Cl,
}

/// Sign extensions of the accumulator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SignExtension {
    /// CBW, CWDE, CDQE: within RAX.
    Within,
    /// CWD, CDQ, CQO: into RDX.
    Across,
}

/// A condition: the low four bits of the opcodes of Jcc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Condition(u8);

impl Condition {
    /// The condition with this number.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 { Some(Self(number)) } else { None }
    }

    /// The condition's number, below 16.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// An XMM register of the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Xmm(u8);

impl Xmm {
    /// The register with this number.
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 { Some(Self(number)) } else { None }
    }

    /// The register's number, below 16.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// An XMM register or memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VectorOperand {
    /// A register.
    Register(Xmm),
    /// Memory.
    Memory(Address),
}

/// Which bytes stand before an opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpcodeMap {
    /// 0F.
    Map0F,
    /// 0F 38.
    Map0F38,
    /// 0F 3A.
    Map0F3A,
}

/// An SSE operation by its encoding, which is the host's as well. The owner has seen to it that the host has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VectorEncoding {
    /// 66, F2 or F3.
    pub prefix: Option<u8>,
    /// Before the opcode.
    pub map: OpcodeMap,
    /// The opcode.
    pub opcode: u8,
    /// The immediate.
    pub immediate: Option<u8>,
    /// Bytes of an operand in memory: 4, 8 or 16.
    pub bytes: u8,
    /// An operand in memory must be aligned to 16 bytes.
    pub aligned: bool,
    /// MXCSR decides about the result, or changes.
    pub floating: bool,
}

/// How much of a YMM register an AVX instruction makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Length {
    /// The lower half; the upper becomes zero.
    Half,
    /// All of it.
    Whole,
}

impl Length {
    /// Bytes of an operand of this length.
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Half => 16,
            Self::Whole => 32,
        }
    }
}

/// An AVX instruction that does in each half what an SSE instruction does: the host needs no AVX for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "operands are named for what they are")]
pub enum Avx {
    /// `to = op(first, from)`, where an SSE instruction would have `first` in its destination. An operand in memory of 16 bytes
    /// by its encoding is as long as the instruction.
    Lanes { encoding: VectorEncoding, to: Xmm, first: Option<Xmm>, from: VectorOperand, length: Length },
    /// A shift by an immediate; the number of the operation is where ModRM has a register.
    Shift { encoding: VectorEncoding, group: u8, to: Xmm, of: Xmm, length: Length },
    /// A store of the low bytes: 4, 8, 16 or 32.
    Store { from: Xmm, to: Address, bytes: u8, aligned: bool },
    /// VPMOVMSKB.
    Mask { encoding: VectorEncoding, to: Reg, from: Xmm, length: Length },
    /// VMOVD and VMOVQ into a register whose other bytes become zero.
    FromGeneral { width: Width, to: Xmm, from: Operand },
    /// VMOVD and VMOVQ of the low bytes.
    ToGeneral { width: Width, to: Reg, from: Xmm },
    /// VPBROADCASTB from a register.
    Broadcast { to: Xmm, from: Xmm, length: Length },
    /// VZEROUPPER.
    ZeroUpper,
}

/// A guest instruction of 64-bit mode. Targets of branches count from the block's first byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "operands are named for what they are")]
pub enum Insn {
    Nothing,
    Move {
        width: Width,
        to: Operand,
        from: Source,
    },
    Extend {
        signed: bool,
        from_width: Width,
        from: Operand,
        width: Width,
        to: Reg,
    },
    LoadAddress {
        width: Width,
        to: Reg,
        address: Address,
    },
    Arithmetic {
        kind: Arithmetic,
        width: Width,
        to: Operand,
        from: Source,
        atomicity: Atomicity,
    },
    Unary {
        kind: Unary,
        width: Width,
        to: Operand,
        atomicity: Atomicity,
    },
    /// An operation on memory that gives back what was there. XCHG is locked whatever this says.
    Fetch {
        kind: Fetch,
        width: Width,
        at: Address,
        register: Reg,
        atomicity: Atomicity,
    },
    /// CMPXCHG16B.
    ExchangeWide {
        at: Address,
        atomicity: Atomicity,
    },
    /// An operation on AH, CH, DH or BH, which are parts of the first four registers. Not one with carry.
    HighByte {
        kind: Arithmetic,
        of: Reg,
        value: u8,
    },
    Shift {
        kind: Shift,
        width: Width,
        to: Reg,
        count: Count,
    },
    /// SHLD (`Shl`) and SHRD (`Shr`): bits of another register move in.
    ShiftDouble {
        kind: Shift,
        width: Width,
        to: Reg,
        from: Reg,
        count: Count,
    },
    /// IMUL with two or three operands.
    Multiply {
        width: Width,
        to: Reg,
        from: Operand,
        by: Option<i32>,
    },
    /// MUL and IMUL of RAX into RDX and RAX.
    MultiplyWide {
        signed: bool,
        width: Width,
        by: Operand,
    },
    /// DIV and IDIV of RDX and RAX.
    Divide {
        signed: bool,
        width: Width,
        by: Operand,
    },
    ConditionalMove {
        condition: Condition,
        width: Width,
        to: Reg,
        from: Operand,
    },
    Set {
        condition: Condition,
        to: Operand,
    },
    Bit {
        kind: Bit,
        width: Width,
        of: Operand,
        bit: BitOffset,
        atomicity: Atomicity,
    },
    Scan {
        kind: Scan,
        width: Width,
        to: Reg,
        from: Operand,
    },
    /// An operation with a second source in a register; the lowest-bit ones have none and name their destination.
    BitField {
        kind: BitField,
        width: Width,
        to: Reg,
        from: Operand,
        other: Reg,
    },
    /// RORX. The host has it.
    RotateRight {
        width: Width,
        to: Reg,
        from: Operand,
        count: u8,
    },
    Fence {
        kind: Fence,
    },
    /// CLFLUSH and its kin: a line is translated as for a read.
    Touch {
        address: Address,
    },
    /// PUSHF of 64 bits.
    PushFlags,
    /// CLI.
    ClearInterrupts,
    /// CLD.
    ClearDirection,
    Exchange {
        width: Width,
        a: Reg,
        b: Reg,
    },
    SwapBytes {
        width: Width,
        of: Reg,
    },
    SignExtend {
        kind: SignExtension,
        width: Width,
    },
    /// PUSH of 64 bits.
    Push {
        from: Source,
    },
    /// POP of 64 bits.
    Pop {
        to: Reg,
    },
    Leave,
    Jump {
        to: u64,
    },
    JumpIf {
        condition: Condition,
        to: u64,
    },
    Call {
        to: u64,
    },
    JumpIndirect {
        to: Operand,
    },
    CallIndirect {
        to: Operand,
    },
    Return {
        drop: u16,
    },
    /// An operation on a register, with a register or memory.
    Vector {
        encoding: VectorEncoding,
        to: Xmm,
        from: VectorOperand,
    },
    /// A shift by an immediate; the number of the operation is where ModRM has a register.
    VectorShift {
        encoding: VectorEncoding,
        group: u8,
        of: Xmm,
    },
    /// A store of the low or the high bytes: 4, 8 or 16.
    VectorStore {
        from: Xmm,
        to: Address,
        bytes: u8,
        high: bool,
        aligned: bool,
    },
    /// MOVD and MOVQ into a register whose other bytes become zero.
    VectorFromGeneral {
        width: Width,
        to: Xmm,
        from: Operand,
    },
    /// MOVD and MOVQ of the low bytes.
    VectorToGeneral {
        width: Width,
        to: Reg,
        from: Xmm,
    },
    /// MOVMSKPS and its kin.
    VectorMask {
        encoding: VectorEncoding,
        to: Reg,
        from: Xmm,
    },
    /// COMISD and its kin, which set the arithmetic flags.
    VectorCompare {
        encoding: VectorEncoding,
        a: Xmm,
        b: VectorOperand,
    },
    /// CVTSI2SD and its kin.
    VectorFromInteger {
        encoding: VectorEncoding,
        width: Width,
        to: Xmm,
        from: Operand,
    },
    /// CVTTSD2SI and its kin.
    VectorToInteger {
        encoding: VectorEncoding,
        width: Width,
        to: Reg,
        from: VectorOperand,
    },
    /// AVX.
    Avx(Avx),
}

/// What an instruction does with the six arithmetic flags.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlagUse {
    /// Nothing.
    None,
    /// Reads some.
    Reads,
    /// Sets all, and reads none.
    Sets,
    /// Sets some and keeps the others, or reads and sets.
    Changes,
}

impl Operand {
    const fn memory(&self) -> Option<&Address> {
        match self {
            Self::Memory(address) => Some(address),
            Self::Register(_) => None,
        }
    }
}

impl VectorOperand {
    const fn memory(&self) -> Option<&Address> {
        match self {
            Self::Memory(address) => Some(address),
            Self::Register(_) => None,
        }
    }
}

impl Source {
    const fn memory(&self) -> Option<&Address> {
        match self {
            Self::Memory(address) => Some(address),
            _ => None,
        }
    }
}

impl Insn {
    /// What the instruction does with the arithmetic flags.
    pub const fn flags(&self) -> FlagUse {
        match self {
            Self::Arithmetic { kind: Arithmetic::Adc | Arithmetic::Sbb, .. } => FlagUse::Changes,
            Self::Arithmetic { .. }
            | Self::Unary { kind: Unary::Negate, .. }
            | Self::Shift {
                kind: Shift::Shl | Shift::Shr | Shift::Sar, count: Count::Immediate(_), ..
            }
            | Self::ShiftDouble { count: Count::Immediate(_), .. }
            | Self::Multiply { .. }
            | Self::MultiplyWide { .. }
            | Self::VectorCompare { .. }
            | Self::HighByte { .. }
            | Self::Scan { kind: Scan::Population, .. }
            | Self::Fetch { kind: Fetch::Add | Fetch::Compare, .. } => FlagUse::Sets,
            Self::BitField { kind, .. } => {
                if kind.sets_flags() {
                    FlagUse::Sets
                } else {
                    FlagUse::None
                }
            }
            Self::Unary { kind: Unary::Not, .. } => FlagUse::None,
            Self::Unary { .. }
            | Self::Shift { .. }
            | Self::ShiftDouble { .. }
            | Self::Bit { .. }
            | Self::Scan { .. }
            | Self::ExchangeWide { .. } => FlagUse::Changes,
            Self::ConditionalMove { .. } | Self::Set { .. } | Self::JumpIf { .. } | Self::PushFlags => {
                FlagUse::Reads
            }
            _ => FlagUse::None,
        }
    }

    /// The operand in memory that it names, the stack excepted.
    pub const fn memory(&self) -> Option<&Address> {
        match self {
            Self::Move { to: Operand::Memory(address), .. }
            | Self::Arithmetic { to: Operand::Memory(address), .. } => Some(address),
            Self::Move { from, .. } | Self::Arithmetic { from, .. } | Self::Push { from } => from.memory(),
            Self::Extend { from, .. }
            | Self::Multiply { from, .. }
            | Self::ConditionalMove { from, .. }
            | Self::BitField { from, .. }
            | Self::RotateRight { from, .. } => from.memory(),
            Self::Unary { to, .. }
            | Self::JumpIndirect { to }
            | Self::CallIndirect { to }
            | Self::Set { to, .. }
            | Self::Bit { of: to, .. }
            | Self::Scan { from: to, .. } => to.memory(),
            Self::MultiplyWide { by, .. } | Self::Divide { by, .. } => by.memory(),
            Self::VectorStore { to: address, .. }
            | Self::Fetch { at: address, .. }
            | Self::ExchangeWide { at: address, .. }
            | Self::Touch { address } => Some(address),
            Self::VectorFromGeneral { from, .. } | Self::VectorFromInteger { from, .. } => from.memory(),
            Self::Avx(Avx::Store { to, .. }) => Some(to),
            Self::Avx(Avx::FromGeneral { from, .. }) => from.memory(),
            Self::Avx(Avx::Lanes { from, .. })
            | Self::Vector { from, .. }
            | Self::VectorToInteger { from, .. }
            | Self::VectorCompare { b: from, .. } => from.memory(),
            _ => None,
        }
    }

    /// Whether the instruction may not complete, so that the state before it can be seen.
    pub const fn may_stop(&self) -> bool {
        self.memory().is_some()
            || self.is_vector()
            || matches!(
                self,
                Self::Push { .. }
                    | Self::Pop { .. }
                    | Self::Leave
                    | Self::Call { .. }
                    | Self::CallIndirect { .. }
                    | Self::JumpIndirect { .. }
                    | Self::Return { .. }
                    | Self::Divide { .. }
                    | Self::PushFlags
                    | Self::ClearInterrupts
                    | Self::ClearDirection
            )
    }

    /// Whether the instruction uses SSE or AVX, which may be off.
    pub const fn is_vector(&self) -> bool {
        matches!(
            self,
            Self::Vector { .. }
                | Self::VectorShift { .. }
                | Self::VectorStore { .. }
                | Self::VectorFromGeneral { .. }
                | Self::VectorToGeneral { .. }
                | Self::VectorMask { .. }
                | Self::VectorCompare { .. }
                | Self::VectorFromInteger { .. }
                | Self::VectorToInteger { .. }
                | Self::Avx(_)
        )
    }

    /// Whether the compiler has code for it: some forms are rare enough to be left out.
    pub const fn is_supported(&self) -> bool {
        let width = match self {
            // LOCK is for memory that is written; others are #UD.
            Self::Arithmetic { atomicity: Atomicity::Locked, to, kind, .. } => {
                let writes = !matches!(kind, Arithmetic::Cmp | Arithmetic::Test);
                return writes && matches!(to, Operand::Memory(_));
            }
            Self::Unary { atomicity: Atomicity::Locked, to, .. } => return matches!(to, Operand::Memory(_)),
            Self::Bit { atomicity: Atomicity::Locked, of: Operand::Register(_), .. } => return false,
            Self::HighByte { kind, of, .. } => {
                return of.number() < 4 && !matches!(kind, Arithmetic::Adc | Arithmetic::Sbb);
            }
            Self::ShiftDouble { kind, width, .. } => {
                return matches!(kind, Shift::Shl | Shift::Shr)
                    && matches!(width, Width::Dword | Width::Qword);
            }
            Self::Extend { from_width, from: _, width, signed, .. } => {
                let narrower = from_width.bytes() < width.bytes();
                return narrower && (*signed || !matches!(from_width, Width::Dword));
            }
            Self::ConditionalMove { width, .. } | Self::SignExtend { width, .. } => {
                return !matches!(width, Width::Byte);
            }
            Self::Avx(Avx::Lanes { encoding, length, .. }) => {
                let whole = matches!(length, Length::Whole);
                return matches!(encoding.bytes, 4 | 8) && !whole || encoding.bytes == 16;
            }
            Self::Avx(Avx::Store { bytes, .. }) => return matches!(bytes, 4 | 8 | 16 | 32),
            Self::Avx(Avx::FromGeneral { width, .. } | Avx::ToGeneral { width, .. }) => width,
            Self::VectorStore { bytes, .. } => return matches!(bytes, 4 | 8 | 16),
            Self::Vector { encoding, .. } | Self::VectorCompare { encoding, .. } => {
                return matches!(encoding.bytes, 4 | 8 | 16);
            }
            Self::VectorToInteger { encoding, width, .. } if matches!(encoding.bytes, 4 | 8) => width,
            Self::VectorToInteger { .. } => return false,
            Self::VectorFromGeneral { width, .. }
            | Self::VectorToGeneral { width, .. }
            | Self::VectorFromInteger { width, .. }
            | Self::LoadAddress { width, .. }
            | Self::Multiply { width, .. }
            | Self::MultiplyWide { width, .. }
            | Self::Divide { width, .. }
            | Self::Exchange { width, .. }
            | Self::SwapBytes { width, .. }
            | Self::Bit { width, .. }
            | Self::Scan { width, .. }
            | Self::BitField { width, .. }
            | Self::RotateRight { width, .. }
            | Self::Shift { width, count: Count::Cl, .. } => width,
            _ => return true,
        };
        matches!(width, Width::Dword | Width::Qword)
    }

    /// Whether the instruction sets RIP.
    pub const fn ends_block(&self) -> bool {
        matches!(
            self,
            Self::Jump { .. }
                | Self::JumpIf { .. }
                | Self::Call { .. }
                | Self::JumpIndirect { .. }
                | Self::CallIndirect { .. }
                | Self::Return { .. }
        )
    }
}
