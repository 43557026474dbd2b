//! The registers of a vCPU as gdb numbers them, and the description that tells it so.
//!
//! The order is that of gdb's features `org.gnu.gdb.i386.core`, `.sse`, `.segments` and `.avx` ("Standard Target Features" of its
//! manual), with the control registers behind them in a feature of our own. Of a YMM register gdb is sent both halves, and puts
//! them together itself.

use gdbstub::arch::{Arch, Registers};
use x86_arch::{CpuState, Gpr, Seg};

/// General registers in gdb's order.
const GPRS: [Gpr; 16] = [
    Gpr::Rax,
    Gpr::Rbx,
    Gpr::Rcx,
    Gpr::Rdx,
    Gpr::Rsi,
    Gpr::Rdi,
    Gpr::Rbp,
    Gpr::Rsp,
    Gpr::R8,
    Gpr::R9,
    Gpr::R10,
    Gpr::R11,
    Gpr::R12,
    Gpr::R13,
    Gpr::R14,
    Gpr::R15,
];
/// Segment registers in gdb's order.
const SEGMENTS: [Seg; 6] = [Seg::Cs, Seg::Ss, Seg::Ds, Seg::Es, Seg::Fs, Seg::Gs];
/// Bytes of an x87 register.
const X87_BYTES: usize = 10;

/// x86-64 as gdb knows it.
#[derive(Debug)]
pub(super) enum X86_64 {}

impl Arch for X86_64 {
    type Usize = u64;
    type Registers = GdbRegisters;
    type BreakpointKind = usize;
    type RegId = ();

    fn target_description_xml() -> Option<&'static str> {
        Some(include_str!("target.xml"))
    }
}

/// A vCPU's registers, or what a client wants them to be.
#[derive(Clone, Debug, PartialEq, Default)]
pub(super) struct GdbRegisters {
    /// The registers' values.
    pub(super) state: Box<CpuState>,
    /// What was sent, in the form in which they are shown.
    sent: Vec<u8>,
}

/// A change that a debugger may not make: of registers that the TDX module or the CPU's translations depend on, or of x87.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotChangeable;

impl Registers for GdbRegisters {
    type ProgramCounter = u64;

    fn pc(&self) -> u64 {
        self.state.rip()
    }

    fn gdb_serialize(&self, mut write_byte: impl FnMut(Option<u8>)) {
        self.bytes().into_iter().for_each(|byte| write_byte(Some(byte)));
    }

    fn gdb_deserialize(&mut self, bytes: &[u8]) -> Result<(), ()> {
        self.sent = bytes.to_vec();
        Ok(())
    }
}

impl GdbRegisters {
    /// A vCPU's registers, to be shown.
    pub(super) fn of(state: CpuState) -> Self {
        Self { state: Box::new(state), sent: Vec::new() }
    }

    /// The state of a vCPU with the registers that were sent.
    ///
    /// # Errors
    /// [`NotChangeable`]; also for what is not a whole set of registers.
    pub(super) fn over(&self, now: &CpuState) -> Result<CpuState, NotChangeable> {
        let shown = Self::of(now.clone());
        let mut wanted = now.clone();
        let mut rest = Reader(&self.sent);
        for register in GPRS {
            wanted.set_gpr(register, u64::from_le_bytes(rest.take()?));
        }
        wanted.set_rip(u64::from_le_bytes(rest.take()?));
        wanted.flags.set(u64::from(u32::from_le_bytes(rest.take()?)));
        for segment in SEGMENTS {
            if u32::from_le_bytes(rest.take()?) != u32::from(now.segment(segment).selector) {
                return Err(NotChangeable);
            }
        }
        let x87: [u8; 8 * X87_BYTES + 8 * 4] = rest.take()?;
        for register in &mut wanted.simd.xmm {
            *register = u128::from_le_bytes(rest.take()?);
        }
        wanted.simd.mxcsr = u32::from_le_bytes(rest.take()?);
        for segment in [Seg::Fs, Seg::Gs] {
            wanted.segment_mut(segment).base = u64::from_le_bytes(rest.take()?);
        }
        for half in &mut wanted.simd.ymm_high {
            *half = u128::from_le_bytes(rest.take()?);
        }
        // A client sends back what it was told of what is shown only.
        if shown.x87_bytes() == x87 && shown.control_bytes() == rest.0 {
            Ok(wanted)
        } else {
            Err(NotChangeable)
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let state = &*self.state;
        let mut bytes = Vec::new();
        for register in GPRS {
            bytes.extend(state.gpr(register).to_le_bytes());
        }
        bytes.extend(state.rip().to_le_bytes());
        bytes.extend(low_half(state.flags.get()).to_le_bytes());
        for segment in SEGMENTS {
            bytes.extend(u32::from(state.segment(segment).selector).to_le_bytes());
        }
        bytes.extend(self.x87_bytes());
        for register in state.simd.xmm {
            bytes.extend(register.to_le_bytes());
        }
        bytes.extend(state.simd.mxcsr.to_le_bytes());
        for segment in [Seg::Fs, Seg::Gs] {
            bytes.extend(state.segment(segment).base.to_le_bytes());
        }
        for half in state.simd.ymm_high {
            bytes.extend(half.to_le_bytes());
        }
        bytes.extend(self.control_bytes());
        bytes
    }

    /// ST0 to ST7, and FCTRL to FOP.
    fn x87_bytes(&self) -> Vec<u8> {
        let x87 = &self.state.simd.x87;
        let mut bytes = Vec::new();
        for n in 0..8 {
            bytes.extend(x87.st(n).to_le_bytes().iter().take(X87_BYTES));
        }
        let [control, status, opcode] = [x87.control, x87.status, x87.opcode].map(u32::from);
        let (instruction, data) = (x87.instruction, x87.data);
        let tag = u32::from(tag_word(x87));
        let high = |pointer: u64| (pointer >> 32) as u32;
        for word in [
            control,
            status,
            tag,
            high(instruction),
            low_half(instruction),
            high(data),
            low_half(data),
            opcode,
        ] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    /// What is shown and cannot be changed.
    fn control_bytes(&self) -> Vec<u8> {
        let state = &*self.state;
        let control = &state.control;
        let values = [
            state.msrs.kernel_gs_base,
            control.cr0,
            control.cr2,
            control.cr3,
            control.cr4,
            control.cr8,
            control.efer,
        ];
        values.into_iter().flat_map(u64::to_le_bytes).collect()
    }
}

/// Bits 31:0 of a register of which gdb has no more.
const fn low_half(register: u64) -> u32 {
    (register & 0xffff_ffff) as u32
}

/// The tag word with two bits a register, which the processor keeps one of: 0 valid, 1 zero, 2 special, 3 empty.
fn tag_word(x87: &x86_arch::X87State) -> u16 {
    const INTEGER_BIT: u128 = 1 << 63;
    (0..8u8).zip(x87.registers).fold(0, |word, (n, register)| {
        let exponent = register >> 64 & 0x7FFF;
        let tag = if x87.tags >> n & 1 == 0 {
            3
        } else if exponent == 0 && register & u128::from(u64::MAX) == 0 {
            1
        } else if exponent == 0 || exponent == 0x7FFF || register & INTEGER_BIT == 0 {
            2
        } else {
            0
        };
        word | tag << (2 * n)
    })
}

struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], NotChangeable> {
        let (head, rest) = self.0.split_first_chunk().ok_or(NotChangeable)?;
        self.0 = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> CpuState {
        let mut state = CpuState::default();
        for (register, value) in GPRS.into_iter().zip(1u64..) {
            state.set_gpr(register, value);
        }
        state.simd.xmm[3] = 0x1234;
        state.simd.ymm_high[15] = 0x5678 << 64;
        state.control.cr3 = 0x5000;
        state
    }

    fn sent(bytes: &[u8]) -> GdbRegisters {
        let mut registers = GdbRegisters::default();
        registers.gdb_deserialize(bytes).expect("bytes are kept");
        registers
    }

    /// Bytes of all registers of the description.
    fn described() -> usize {
        let xml = X86_64::target_description_xml().unwrap();
        let sizes = xml.split("<reg ").skip(1).map(|register| {
            let bits = register.split("bitsize=\"").nth(1).unwrap().split('"').next().unwrap();
            bits.parse::<usize>().unwrap() / 8
        });
        sizes.sum()
    }

    #[test]
    fn the_description_has_the_registers_that_are_sent() {
        assert_eq!(GdbRegisters::of(state()).bytes().len(), described());
    }

    #[test]
    fn what_was_read_can_be_written_back_and_changes_nothing() {
        let bytes = GdbRegisters::of(state()).bytes();
        assert_eq!(sent(&bytes).over(&state()), Ok(state()));
    }

    #[test]
    fn general_registers_change_and_control_registers_segments_and_x87_do_not() {
        let bytes = GdbRegisters::of(state()).bytes();
        let with = |at: usize| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 0x70;
            sent(&bytes).over(&state())
        };
        let changed = with(8).expect("RBX can be changed");
        assert_eq!(changed.gpr(Gpr::Rbx), 2 ^ 0x70);
        // Behind the upper halves are the control registers, of eight bytes each.
        let upper_half = bytes.len() - 7 * 8 - 16;
        let changed = with(upper_half).expect("YMM15 can be changed");
        assert_eq!(changed.simd.ymm_high[15], 0x5678 << 64 | 0x70);
        for (what, at) in [("EFER", bytes.len() - 1), ("CS", 17 * 8 + 4), ("ST0", 17 * 8 + 4 + 6 * 4)] {
            assert_eq!(with(at), Err(NotChangeable), "{what}");
        }
        assert_eq!(sent(&[0; 12]).over(&state()), Err(NotChangeable), "too short");
    }
}
