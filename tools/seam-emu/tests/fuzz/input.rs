//! What a run is made from: a world to start in, and operations. Any bytes are an input.
//!
//! File format: one byte for the world, then sixteen bytes for each operation, whose first byte is its kind.

use tdvisor_test_data::chance::Chance;

pub const OP_BYTES: usize = 16;
/// Operations of one input. What lies behind is not read, so that an input cannot run for ever.
pub const MOST_OPS: usize = 400;

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A SEAMCALL: processor, leaf, version, six registers.
    Seamcall,
    /// Inside a guest: a TDCALL.
    Tdcall,
    /// Inside a guest: an external interrupt takes the vCPU off.
    Leave,
    /// Inside a guest: a read or write of memory.
    Access,
    /// Inside a guest: some VM exit.
    Exit,
    /// Inside a guest: instructions.
    Code,
    /// The host writes memory.
    HostWrite,
    /// The host clears a page.
    HostClear,
    /// The host flushes: INVEPT, WBINVD, or the freeing of a page.
    HostFlush,
    /// An interrupt becomes pending for the host, or no longer is.
    Interrupt,
    /// RDSEED and PCONFIG change their ways; time passes.
    Hardware,
    /// Calls fail on demand.
    Faults,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Op(pub [u8; OP_BYTES]);

impl Op {
    pub const fn kind(&self) -> Kind {
        match self.0[0] {
            0..=127 => Kind::Seamcall,
            128..=171 => Kind::Tdcall,
            172..=185 => Kind::Leave,
            186..=203 => Kind::Access,
            204..=217 => Kind::Exit,
            218..=231 => Kind::Code,
            232..=236 => Kind::HostWrite,
            237..=239 => Kind::HostClear,
            240..=243 => Kind::HostFlush,
            244..=249 => Kind::Interrupt,
            250..=253 => Kind::Hardware,
            _ => Kind::Faults,
        }
    }

    /// Byte `at`, zero behind the end.
    pub fn byte(&self, at: usize) -> u8 {
        self.0.get(at).copied().unwrap_or(0)
    }

    /// Eight bytes from `at` on.
    pub fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|i| self.byte(at + i)))
    }

    fn random(chance: &mut Chance) -> Self {
        let mut op = Self(std::array::from_fn(|_| chance.next() as u8));
        if op.kind() == Kind::Seamcall {
            // Versions and reserved bits of RAX are rare, and most operands are what the leaf wants.
            if !chance.one_in(16) {
                op.0[3] = 0;
            }
        }
        if matches!(op.kind(), Kind::Seamcall | Kind::Tdcall) {
            for register in 0..6 {
                if !chance.one_in(8) {
                    op.0[4 + 2 * register] = 0;
                }
            }
        }
        if op.kind() == Kind::Code {
            op.0[1] &= 0x3f;
            splice_instruction(&mut op, chance);
        }
        op
    }
}

/// Instructions that leave the guest, or that move much.
const INSTRUCTIONS: [&[u8]; 40] = [
    &[0x66, 0x0f, 0x01, 0xcc],             // TDCALL
    &[0x66, 0x0f, 0x01, 0xcf],             // SEAMCALL
    &[0x66, 0x0f, 0x01, 0xcd],             // SEAMRET
    &[0x0f, 0xa2],                         // CPUID
    &[0x0f, 0x32],                         // RDMSR
    &[0x0f, 0x30],                         // WRMSR
    &[0xf4],                               // HLT
    &[0xe4, 0x60],                         // IN
    &[0xe6, 0x80],                         // OUT
    &[0x0f, 0x01, 0xc1],                   // VMCALL
    &[0x0f, 0x22, 0xc0],                   // MOV CR0
    &[0x0f, 0x22, 0xe0],                   // MOV CR4
    &[0x0f, 0x22, 0xd8],                   // MOV CR3
    &[0x44, 0x0f, 0x22, 0xc0],             // MOV CR8
    &[0x0f, 0x20, 0xe0],                   // MOV from CR4
    &[0x0f, 0x01, 0xd1],                   // XSETBV
    &[0x0f, 0x09],                         // WBINVD
    &[0x0f, 0x01, 0x38],                   // INVLPG
    &[0x0f, 0x23, 0xf8],                   // MOV DR7
    &[0x0f, 0x01, 0x18],                   // LIDT
    &[0x0f, 0x01, 0x10],                   // LGDT
    &[0xcd, 0x20],                         // INT
    &[0xcc],                               // INT3
    &[0xcf],                               // IRET
    &[0x48, 0xcf],                         // IRETQ
    &[0xfb],                               // STI
    &[0x9c, 0x58, 0x50, 0x9d],             // PUSHF, POP, PUSH, POPF
    &[0xf3, 0x48, 0xa5],                   // REP MOVSQ
    &[0xf3, 0xaa],                         // REP STOSB
    &[0x48, 0xb8, 0, 0, 0, 0x80, 0, 0, 0], // MOV RAX, imm64 (first bytes)
    &[0xb8, 0, 0, 0, 0x80],                // MOV EAX, imm32
    &[0xb9, 0x1b, 0, 0, 0],                // MOV ECX, imm32
    &[0x88, 0x00],                         // MOV [RAX], AL
    &[0x8b, 0x00],                         // MOV EAX, [RAX]
    &[0xf0, 0x48, 0x0f, 0xb1, 0x08],       // LOCK CMPXCHG
    &[0x0f, 0xae, 0x00],                   // FXSAVE
    &[0x0f, 0xc7, 0x20],                   // XSAVEC
    &[0xeb, 0xfe],                         // JMP to itself
    &[0x0f, 0xc7, 0xf0],                   // RDRAND
    &[0x0f, 0x31],                         // RDTSC
];

fn splice_instruction(op: &mut Op, chance: &mut Chance) {
    let mut at = 2;
    while at < OP_BYTES && !chance.one_in(4) {
        for byte in INSTRUCTIONS[chance.index(INSTRUCTIONS.len())] {
            if at < OP_BYTES {
                op.0[at] = *byte;
                at += 1;
            }
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Input {
    pub world: u8,
    pub ops: Vec<Op>,
}

impl Input {
    pub fn decode(bytes: &[u8]) -> Self {
        let (world, rest) = bytes.split_first().map_or((0, &[][..]), |(world, rest)| (*world, rest));
        let ops = rest.as_chunks::<OP_BYTES>().0.iter().take(MOST_OPS).map(|op| Op(*op)).collect();
        Self { world, ops }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![self.world];
        bytes.extend(self.ops.iter().flat_map(|op| op.0));
        bytes
    }

    pub fn random(chance: &mut Chance) -> Self {
        let ops = (0..1 + chance.index(60)).map(|_| Op::random(chance)).collect();
        Self { world: chance.next() as u8, ops }
    }

    /// A few changes; `other` gives a piece now and then.
    pub fn mutate(&self, other: &Self, chance: &mut Chance) -> Self {
        let mut input = self.clone();
        for _ in 0..1 + chance.index(6) {
            input.change(other, chance);
        }
        input.ops.truncate(MOST_OPS);
        input
    }

    fn change(&mut self, other: &Self, chance: &mut Chance) {
        let at = chance.index(self.ops.len() + 1);
        match chance.index(10) {
            0 | 1 => self.ops.insert(at, Op::random(chance)),
            2 | 3 => {
                if let Some(op) = self.ops.get_mut(at) {
                    op.0[chance.index(OP_BYTES)] = chance.next() as u8;
                }
            }
            4 => {
                if let Some(op) = self.ops.get_mut(at) {
                    op.0[chance.index(OP_BYTES)] ^= 1 << chance.index(8);
                }
            }
            5 => {
                let end = (at + 1 + chance.index(4)).min(self.ops.len());
                self.ops.drain(at.min(end)..end);
            }
            6 => {
                let from = chance.index(other.ops.len());
                let piece =
                    other.ops.iter().skip(from).take(1 + chance.index(24)).copied().collect::<Vec<_>>();
                self.ops.splice(at..at, piece);
            }
            7 => {
                let to = chance.index(self.ops.len());
                if at < self.ops.len() {
                    self.ops.swap(at, to);
                }
            }
            8 => self.ops.extend((0..chance.index(12)).map(|_| Op::random(chance)).collect::<Vec<_>>()),
            _ if chance.one_in(8) => self.world = chance.next() as u8,
            _ => {
                // The same again, perhaps with another leaf.
                if let Some(mut op) = self.ops.get(at).copied() {
                    if chance.one_in(2) {
                        op.0[2] = chance.next() as u8;
                    }
                    self.ops.insert(at, op);
                }
            }
        }
    }
}
