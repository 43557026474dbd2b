//! Instructions made from encodings: every encoding of the decoder with every kind of operand.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use iced_x86::{
    Code, Decoder, DecoderOptions, Encoder, Instruction, Mnemonic, OpCodeOperandKind as K, OpCodeTableKind,
    OpKind, Register,
};
use tdvisor_test_data::chance::Chance;

use crate::native::{DATA, DATA_BYTES, SNIPPET, State, has_avx};

/// Values of registers and memory.
pub trait Values {
    /// A number with a taste for borders.
    fn value(&mut self) -> u64;
    /// A number for an x87 register: of any kind, rarely an encoding that is not supported.
    fn extended(&mut self) -> u128;
    /// Sixteen bytes, often floating-point numbers of one of the formats.
    fn vector(&mut self) -> u128;
}

impl Values for Chance {
    fn value(&mut self) -> u64 {
        const BORDERS: [u64; 14] = [
            0,
            1,
            2,
            0x7F,
            0x80,
            0xFF,
            0x7FFF,
            0x8000,
            0x7FFF_FFFF,
            0x8000_0000,
            0xFFFF_FFFF,
            0x7FFF_FFFF_FFFF_FFFF,
            0x8000_0000_0000_0000,
            u64::MAX,
        ];
        match self.below(4) {
            0 => self.pick(&BORDERS),
            1 => self.below(100),
            2 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }

    fn extended(&mut self) -> u128 {
        let exponent = match self.below(6) {
            0 => 0,
            1 => 0x7FFF,
            2 => self.next() & 0x7FFF,
            3 => [1, 2, 0x7FFE, 0x3F80, 0x3C00, 0x407F, 0x43FF, 0x3F6A][self.below(8) as usize],
            _ => 0x3FFF - 40 + self.below(110),
        };
        let run = match self.below(4) {
            0 => 0,
            1 => u64::MAX << self.below(64),
            2 => self.next() << self.below(64),
            _ => self.next(),
        };
        let integer = u64::from(exponent != 0 && !self.one_in(32)) << 63;
        u128::from(self.below(2) << 15 | exponent) << 64 | u128::from(integer | run >> 1)
    }

    fn vector(&mut self) -> u128 {
        const SINGLES: [u32; 16] = [
            0,
            0x8000_0000,
            0x3F80_0000,
            0xBF80_0000,
            0x7F80_0000,
            0xFF80_0000,
            0x7FC0_0001,
            0x7F80_0001,
            0x0000_0001,
            0x007F_FFFF,
            0x0080_0000,
            0x7F7F_FFFF,
            0x4F00_0000,
            0xCF00_0000,
            0x3F00_0000,
            0x4B80_0001,
        ];
        const DOUBLES: [u64; 17] = [
            0,
            1 << 63,
            0x3FF0_0000_0000_0000,
            0xBFF8_0000_0000_0000,
            0x7FF0_0000_0000_0000,
            0xFFF0_0000_0000_0000,
            0x7FF8_0000_0000_0001,
            0x7FF0_0000_0000_0001,
            1,
            0x000F_FFFF_FFFF_FFFF,
            0x0010_0000_0000_0000,
            0x7FEF_FFFF_FFFF_FFFF,
            0x41E0_0000_0000_0000,
            0xC1E0_0000_0000_0000,
            0x43E0_0000_0000_0000,
            0x3FE0_0000_0000_0000,
            0x47EF_FFFF_F000_0000,
        ];
        let single = |rng: &mut Self| match rng.below(3) {
            0 => rng.pick(&SINGLES),
            1 => ((rng.below(2000) as f32 - 1000.0) / 8.0).to_bits(),
            _ => rng.next() as u32,
        };
        let double = |rng: &mut Self| match rng.below(3) {
            0 => rng.pick(&DOUBLES),
            1 => ((rng.below(2000) as f64 - 1000.0) / 8.0).to_bits(),
            _ => rng.next(),
        };
        match self.below(3) {
            0 => (0..4).fold(0, |all, _| all << 32 | u128::from(single(self))),
            1 => (0..2).fold(0, |all, _| all << 64 | u128::from(double(self))),
            _ => u128::from(self.value()) << 64 | u128::from(self.value()),
        }
    }
}

/// A snippet and what it starts from.
pub struct Case {
    pub instruction: Instruction,
    pub snippet: Vec<u8>,
    pub before: State,
    pub data: Box<[u8; DATA_BYTES]>,
    /// Instructions that it takes at most.
    pub budget: u64,
}

const R8: [Register; 20] = [
    Register::AL,
    Register::CL,
    Register::DL,
    Register::BL,
    Register::AH,
    Register::CH,
    Register::DH,
    Register::BH,
    Register::SPL,
    Register::BPL,
    Register::SIL,
    Register::DIL,
    Register::R8L,
    Register::R9L,
    Register::R10L,
    Register::R11L,
    Register::R12L,
    Register::R13L,
    Register::R14L,
    Register::R15L,
];

fn numbered(base: Register, n: u64) -> Register {
    base + n as u32
}

/// Where memory operands may begin, so that whatever they reach is mapped.
fn address(rng: &mut Chance, align: u64) -> u64 {
    let offset = match rng.below(4) {
        // Around a page border.
        0 => 0x2000 - rng.below(24),
        1 => 0x1000 - rng.below(24),
        _ => 0xC00 + rng.below(0x1800),
    };
    (DATA + offset) & !(align - 1)
}

struct Operands<'a> {
    rng: &'a mut Chance,
    instruction: Instruction,
    before: State,
    /// How strictly memory operands are aligned.
    align: u64,
}

impl Operands<'_> {
    fn register(&mut self, operand: u32, register: Register) {
        self.instruction.set_op_kind(operand, OpKind::Register);
        self.instruction.set_op_register(operand, register);
    }

    fn general(&mut self, operand: u32, base: Register) {
        // RSP as a plain operand is as good as any other where the stack is not used.
        let n = self.rng.below(16);
        self.register(operand, numbered(base, n));
    }

    fn memory(&mut self, operand: u32) {
        let target = address(self.rng, self.align);
        self.instruction.set_op_kind(operand, OpKind::Memory);
        if self.rng.one_in(8) {
            self.instruction.set_memory_base(Register::RIP);
            self.instruction.set_memory_displ_size(8);
            self.instruction.set_memory_displacement64(target);
            return;
        }
        let narrow = self.rng.one_in(8);
        let file = if narrow { Register::EAX } else { Register::RAX };
        let base = self.rng.below(16);
        let displacement = match self.rng.below(3) {
            0 => 0i64,
            1 => self.rng.below(256) as i64 - 128,
            _ => self.rng.below(0x10000) as i64 - 0x8000,
        };
        let mut pointer = target.wrapping_sub(displacement as u64);
        self.instruction.set_memory_base(numbered(file, base));
        let index = self.rng.below(16);
        if self.rng.one_in(2) && index != 4 && index != base {
            let scale = 1 << self.rng.below(4);
            let value = self.rng.below(64);
            self.instruction.set_memory_index(numbered(file, index));
            self.instruction.set_memory_index_scale(scale);
            self.before.gpr[index as usize] = value;
            pointer = pointer.wrapping_sub(value * u64::from(scale));
        }
        if displacement != 0 {
            self.instruction.set_memory_displ_size(if (-128..128).contains(&displacement) { 1 } else { 8 });
            let displacement = if narrow { displacement as u32 as u64 } else { displacement as u64 };
            self.instruction.set_memory_displacement64(displacement);
        }
        let garbage = if narrow { self.rng.next() << 32 } else { 0 };
        self.before.gpr[base as usize] = pointer & if narrow { 0xFFFF_FFFF } else { u64::MAX } | garbage;
    }

    /// The memory operand of a gather: a register of indices of so many bits, small ones of either sign.
    fn indices(&mut self, operand: u32, file: Register, bits: u32) {
        let target = address(self.rng, 1);
        let (base, index) = (self.rng.below(16), self.rng.below(16));
        self.instruction.set_op_kind(operand, OpKind::Memory);
        self.instruction.set_memory_base(numbered(Register::RAX, base));
        self.instruction.set_memory_index(numbered(file, index));
        self.instruction.set_memory_index_scale(1 << self.rng.below(4));
        self.before.gpr[base as usize] = target;
        let lane = u128::MAX >> (128 - bits);
        let rng = &mut *self.rng;
        let mut half = || {
            (0..128 / bits).fold(0, |all, n| {
                let index = rng.below(256) as i128 - 128;
                all | (index as u128 & lane) << (bits * n)
            })
        };
        self.before.xmm[index as usize] = half();
        self.before.ymm_high[index as usize] = half();
    }

    fn immediate(&mut self, operand: u32, kind: OpKind) {
        let value = self.rng.value() as i64;
        self.instruction.set_op_kind(operand, kind);
        match kind {
            OpKind::Immediate8 => self.instruction.set_immediate8(value as u8),
            OpKind::Immediate8_2nd => self.instruction.set_immediate8_2nd(0),
            OpKind::Immediate16 => self.instruction.set_immediate16(value as u16),
            OpKind::Immediate32 => self.instruction.set_immediate32(value as u32),
            OpKind::Immediate64 => self.instruction.set_immediate64(value as u64),
            OpKind::Immediate8to16 => self.instruction.set_immediate8to16(i16::from(value as i8)),
            OpKind::Immediate8to32 => self.instruction.set_immediate8to32(i32::from(value as i8)),
            OpKind::Immediate8to64 => self.instruction.set_immediate8to64(i64::from(value as i8)),
            _ => self.instruction.set_immediate32to64(i64::from(value as i32)),
        }
    }

    /// Fills one operand; `None` if the kind is not one that is generated.
    fn fill(&mut self, operand: u32, kind: K) -> Option<()> {
        let memory = self.rng.one_in(2);
        match kind {
            K::mem | K::mem_mib => self.memory(operand),
            K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem
            | K::mm_or_mem
                if memory =>
            {
                self.memory(operand)
            }
            K::r8_or_mem | K::r8_reg | K::r8_opcode => {
                let register = self.rng.pick(&R8);
                self.register(operand, register);
            }
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => self.general(operand, Register::AX),
            K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_vvvv => {
                self.general(operand, Register::EAX)
            }
            K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_vvvv => {
                self.general(operand, Register::RAX)
            }
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 => {
                self.general(operand, Register::XMM0)
            }
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 => {
                self.general(operand, Register::YMM0)
            }
            K::mem_vsib32x => self.indices(operand, Register::XMM0, 32),
            K::mem_vsib64x => self.indices(operand, Register::XMM0, 64),
            K::mem_vsib32y => self.indices(operand, Register::YMM0, 32),
            K::mem_vsib64y => self.indices(operand, Register::YMM0, 64),
            K::mm_or_mem | K::mm_reg | K::mm_rm => {
                let n = self.rng.below(8);
                self.register(operand, numbered(Register::MM0, n));
            }
            K::st0 => self.register(operand, Register::ST0),
            K::sti_opcode => {
                let n = self.rng.below(8);
                self.register(operand, numbered(Register::ST0, n));
            }
            K::seg_reg => {
                let n = self.rng.below(6);
                self.register(operand, numbered(Register::ES, n));
            }
            K::fs => self.register(operand, Register::FS),
            K::gs => self.register(operand, Register::GS),
            K::al => self.register(operand, Register::AL),
            K::cl => self.register(operand, Register::CL),
            K::ax => self.register(operand, Register::AX),
            K::eax => self.register(operand, Register::EAX),
            K::rax => self.register(operand, Register::RAX),
            K::imm8_const_1 => {
                self.instruction.set_op_kind(operand, OpKind::Immediate8);
                self.instruction.set_immediate8(1);
            }
            K::imm8 if operand == 1 && self.instruction.mnemonic() == Mnemonic::Enter => {
                self.immediate(operand, OpKind::Immediate8_2nd)
            }
            K::imm8 => self.immediate(operand, OpKind::Immediate8),
            K::imm16 => self.immediate(operand, OpKind::Immediate16),
            K::imm32 => self.immediate(operand, OpKind::Immediate32),
            K::imm64 => self.immediate(operand, OpKind::Immediate64),
            K::imm8sex16 => self.immediate(operand, OpKind::Immediate8to16),
            K::imm8sex32 => self.immediate(operand, OpKind::Immediate8to32),
            K::imm8sex64 => self.immediate(operand, OpKind::Immediate8to64),
            K::imm32sex64 => self.immediate(operand, OpKind::Immediate32to64),
            K::seg_rSI => {
                self.instruction.set_op_kind(operand, OpKind::MemorySegRSI);
                self.before.gpr[6] = address(self.rng, 1);
            }
            K::seg_rDI => {
                self.instruction.set_op_kind(operand, OpKind::MemorySegRDI);
                self.before.gpr[7] = address(self.rng, 1);
            }
            K::es_rDI => {
                self.instruction.set_op_kind(operand, OpKind::MemoryESRDI);
                self.before.gpr[7] = address(self.rng, 1);
            }
            K::seg_rBX_al => {
                self.instruction.set_op_kind(operand, OpKind::Memory);
                self.instruction.set_memory_base(Register::RBX);
                self.instruction.set_memory_index(Register::AL);
                self.before.gpr[3] = address(self.rng, 1);
            }
            K::mem_offs => {
                let target = address(self.rng, 1);
                self.instruction.set_op_kind(operand, OpKind::Memory);
                self.instruction.set_memory_displ_size(8);
                self.instruction.set_memory_displacement64(target);
            }
            K::br64_1 | K::br64_4 => {
                self.instruction.set_op_kind(operand, OpKind::NearBranch64);
                self.instruction.set_near_branch64(SNIPPET);
            }
            _ => return None,
        }
        Some(())
    }
}

/// The reset state or any: rounding, DAZ, FTZ, unmasked exceptions.
fn mxcsr(rng: &mut Chance) -> u32 {
    let random = rng.next() as u32;
    match rng.below(4) {
        0 => 0x1F80 | random & 0x3F,
        1 => 0x1F80 | random & 0xE07F,
        2 => 0x1F80 & !(0x80 << rng.below(6)) | random & 0xE07F,
        _ => random & 0xFFFF,
    }
}

fn initial(rng: &mut Chance) -> State {
    State {
        gpr: std::array::from_fn(|_| rng.value()),
        // Arithmetic flags, the direction flag and ID.
        flags: rng.next() & 0x0020_0CD5 | 2,
        xmm: std::array::from_fn(|_| rng.vector()),
        ymm_high: std::array::from_fn(|_| if has_avx() && !rng.one_in(4) { rng.vector() } else { 0 }),
        mxcsr: mxcsr(rng),
        fcw: control_word(rng),
        fsw: 0,
        ftw: 0,
        st: std::array::from_fn(|_| rng.extended()),
    }
}

/// The reset state or any: precision, rounding, unmasked exceptions. Precision control 1 is reserved.
fn control_word(rng: &mut Chance) -> u16 {
    let precision = [0, 2, 3, 3][rng.below(4) as usize] << 8;
    let rounding = (rng.below(4) as u16) << 10;
    let masks = if rng.one_in(3) { rng.next() as u16 & 0x3F } else { 0x3F };
    0x40 | precision | rounding | masks
}

/// A stack with something on it, and flags; rarely an exception that waits.
fn x87(rng: &mut Chance, before: &mut State) {
    before.ftw = match rng.below(6) {
        0 => rng.next() as u8,
        1 => 0xFF,
        _ => 0x1F,
    };
    let top = if before.ftw == 0x1F { 0 } else { (rng.below(8) as u16) << 11 };
    before.fsw = rng.next() as u16 & 0x4700 | top;
    let flags = rng.next() as u16 & 0x7F;
    let waits = flags & !before.fcw & 0x3F != 0;
    if !waits {
        before.fsw |= flags;
    } else if rng.one_in(8) {
        before.fsw |= flags | 0x8080;
    }
}

fn uses_stack(code: Code, m: Mnemonic) -> bool {
    code.op_code().instruction_string().starts_with("CALL")
        || matches!(
            m,
            Mnemonic::Push
                | Mnemonic::Pop
                | Mnemonic::Pushf
                | Mnemonic::Pushfq
                | Mnemonic::Popf
                | Mnemonic::Popfq
                | Mnemonic::Ret
                | Mnemonic::Enter
                | Mnemonic::Leave
        )
}

/// `lea r15, [r15 + 1]`: shows whether it was jumped over.
const MARKER: [u8; 4] = [0x4D, 0x8D, 0x7F, 0x01];

/// Whether the encoding names MMX registers, or empties them.
pub fn uses_mmx(code: Code) -> bool {
    let info = code.op_code();
    let names = |kind| matches!(kind, K::mm_or_mem | K::mm_reg | K::mm_rm);
    code == Code::Emms || (0..info.op_count()).any(|n| names(info.op_kind(n)))
}

/// Whether the encoding names YMM registers.
fn uses_ymm(code: Code) -> bool {
    let info = code.op_code();
    let names = |kind| matches!(kind, K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv);
    (0..info.op_count()).any(|n| names(info.op_kind(n)))
}

/// Whether the instruction is one of x87 or MMX, so that its state is not the reset one.
fn has_x87_state(code: Code) -> bool {
    let info = code.op_code();
    let escape = if info.op_code() > 0xFF { info.op_code() >> 8 } else { info.op_code() };
    let x87 = info.table() == OpCodeTableKind::Normal && (0xD8..=0xDF).contains(&escape);
    uses_mmx(code) || x87 || code == Code::Wait
}

/// Makes one case of an encoding; `None` if this throw of the dice has no encoding.
pub fn case(code: Code, rng: &mut Chance) -> Option<Case> {
    let info = code.op_code();
    let mut instruction = Instruction::default();
    instruction.set_code(code);
    let mnemonic = instruction.mnemonic();
    let mut before = initial(rng);
    if has_x87_state(code) {
        x87(rng, &mut before);
    }
    let locks = mnemonic == Mnemonic::Xchg || info.can_use_lock_prefix() && rng.one_in(3);
    let align = match mnemonic {
        Mnemonic::Cmpxchg16b => 16,
        _ if locks => 8,
        _ if rng.one_in(8) => 1,
        _ if uses_ymm(code) => 32,
        _ if (0..info.op_count()).any(|n| info.op_kind(n) == K::xmm_or_mem) => 16,
        _ => 1,
    };
    let mut operands = Operands { rng, instruction, before, align };
    for n in 0..info.op_count() {
        operands.fill(n, info.op_kind(n))?;
    }
    let Operands { rng, mut instruction, mut before, .. } = operands;
    let memory_operand = (0..info.op_count()).find(|n| instruction.op_kind(*n) == OpKind::Memory);
    if locks && memory_operand == Some(0) && info.can_use_lock_prefix() {
        instruction.set_has_lock_prefix(true);
    }
    let mut data: Box<[u8; DATA_BYTES]> =
        vec![0u8; DATA_BYTES].into_boxed_slice().try_into().expect("the size is right");
    let extended = instruction.mnemonic() == Mnemonic::Fld && info.op_kind(0) == K::mem;
    for chunk in data.chunks_exact_mut(16) {
        let value = if extended && rng.one_in(2) { rng.extended() } else { rng.vector() };
        chunk.copy_from_slice(&value.to_le_bytes());
    }
    let mut budget = 4;

    if info.can_use_rep_prefix() && rng.one_in(2) {
        instruction.set_has_rep_prefix(true);
        before.gpr[1] = rng.below(40);
        budget = 200;
    } else if info.can_use_repne_prefix() && rng.one_in(2) {
        instruction.set_has_repne_prefix(true);
        before.gpr[1] = rng.below(40);
        budget = 200;
    }
    if uses_stack(code, mnemonic) {
        if (0..info.op_count()).any(|n| {
            instruction.op_kind(n) == OpKind::Register
                && instruction.op_register(n).full_register() == Register::RSP
        }) && mnemonic != Mnemonic::Push
        {
            return None;
        }
        let stack = address(rng, 1);
        let names_rsp = |r: Register| r.full_register() == Register::RSP;
        if memory_operand.is_some()
            && (names_rsp(instruction.memory_base()) || names_rsp(instruction.memory_index()))
        {
            return None;
        }
        before.gpr[4] = stack;
        if mnemonic == Mnemonic::Leave {
            before.gpr[5] = address(rng, 1);
        }
        if mnemonic == Mnemonic::Enter {
            instruction.set_immediate16(rng.below(0x300) as u16);
            let level = if rng.one_in(2) { rng.below(256) as u8 } else { rng.below(3) as u8 };
            instruction.set_immediate8_2nd(level);
            before.gpr[5] = if rng.one_in(3) {
                stack.wrapping_add(rng.below(64)).wrapping_sub(32)
            } else {
                address(rng, 1)
            };
        }
        if matches!(mnemonic, Mnemonic::Popf | Mnemonic::Popfq) {
            // No trap, no nested task, no alignment checks.
            let image = rng.next() & 0x0020_3ED5;
            put(&mut data, stack, &image.to_le_bytes());
        }
    }
    if matches!(mnemonic, Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && memory_operand == Some(0)
        && instruction.op1_kind() == OpKind::Register
    {
        let register = instruction.op1_register().full_register();
        if register == instruction.memory_base().full_register()
            || register == instruction.memory_index().full_register()
        {
            return None;
        }
        before.gpr[register.number()] = (rng.below(8192) as i64 - 4096) as u64;
    }
    if matches!(mnemonic, Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr) {
        // Bit 17 is AMD's misaligned-exception mask; Intel reserves it.
        let value = if rng.one_in(4) { rng.next() as u32 & !(1 << 17) } else { rng.next() as u32 & 0xFFFF };
        let at = operand_address(&instruction, &before)?;
        put(&mut data, at, &value.to_le_bytes());
    }
    let is_loop = matches!(
        mnemonic,
        Mnemonic::Loop | Mnemonic::Loope | Mnemonic::Loopne | Mnemonic::Jrcxz | Mnemonic::Jecxz
    );
    if is_loop && rng.one_in(2) {
        before.gpr[1] = rng.below(3) | if rng.one_in(2) { rng.next() << 32 } else { 0 };
    }
    if matches!(mnemonic, Mnemonic::Shld | Mnemonic::Shrd) && instruction.memory_size().size() != 8 {
        // Counts beyond 16 leave 16-bit results undefined.
        let narrow = instruction.op1_register().size() == 2;
        if narrow && instruction.op2_kind() == OpKind::Immediate8 {
            instruction.set_immediate8((rng.below(8) * 32 + rng.below(17)) as u8);
        } else if narrow {
            let named = (0..2).any(|n| {
                instruction.op_kind(n) == OpKind::Register
                    && instruction.op_register(n).full_register() == Register::RCX
            });
            let addressed = instruction.memory_base().full_register() == Register::RCX
                || instruction.memory_index().full_register() == Register::RCX;
            if named || addressed {
                return None;
            }
            before.gpr[1] = before.gpr[1] & !0xFF | rng.below(17);
        }
    }

    // Something in front, so that the instruction is not always the first of its block.
    let lead: &[u8] = match rng.below(3) {
        0 => &[],
        1 => &[0x90],
        _ => &[0x0F, 0x1F, 0x44, 0x00, 0x00, 0x4D, 0x87, 0xC0],
    };
    budget += 2;
    let at = SNIPPET + lead.len() as u64;
    let mut snippet = encode(&instruction, at)?;
    // Vendors read some encodings differently (a 16-bit near return in 64-bit mode): Intel's reading counts,
    // and an encoding that it never yields is not run.
    if Decoder::new(64, &snippet, DecoderOptions::NONE).decode().code() != code {
        return None;
    }
    let near_branch = instruction.op0_kind() == OpKind::NearBranch64;
    let indirect = matches!(mnemonic, Mnemonic::Jmp | Mnemonic::Call) && !near_branch;
    if near_branch || indirect || mnemonic == Mnemonic::Ret {
        let end = at + (snippet.len() + MARKER.len()) as u64;
        if near_branch {
            instruction.set_near_branch64(end);
            snippet = encode(&instruction, at)?;
        } else if mnemonic == Mnemonic::Ret {
            let stack = before.gpr[4];
            put(&mut data, stack, &end.to_le_bytes());
        } else if let Some(_memory) = memory_operand {
            let at = operand_address(&instruction, &before)?;
            put(&mut data, at, &end.to_le_bytes());
        } else {
            let target = instruction.op0_register().number();
            if target == 4 {
                return None;
            }
            before.gpr[target] = end;
        }
        snippet.extend_from_slice(&MARKER);
        budget += 2;
    }
    snippet.splice(0..0, lead.iter().copied());
    Some(Case { instruction, snippet, before, data, budget })
}

/// The linear address of the first operand.
fn operand_address(instruction: &Instruction, before: &State) -> Option<u64> {
    instruction.virtual_address(0, 0, |register, _, _| {
        if register == Register::RIP || register.is_segment_register() {
            return Some(0);
        }
        let value = before.gpr[register.full_register().number()];
        Some(if register.size() == 4 { value & 0xFFFF_FFFF } else { value })
    })
}

fn put(data: &mut [u8; DATA_BYTES], at: u64, bytes: &[u8]) {
    let at = at.wrapping_sub(DATA) as usize;
    if let Some(slot) = data.get_mut(at..at + bytes.len()) {
        slot.copy_from_slice(bytes);
    }
}

/// The bytes of an instruction at an address.
pub fn encode(instruction: &Instruction, at: u64) -> Option<Vec<u8>> {
    let mut encoder = Encoder::new(64);
    encoder.encode(instruction, at).ok()?;
    Some(encoder.take_buffer())
}
