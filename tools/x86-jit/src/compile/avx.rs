//! AVX by SSE: each half of a YMM register is an operand of its own, and what an instruction does not make becomes zero.
//!
//! The host's own AVX is not used: it need not have it, and its upper halves are never in use.

use super::memory::AT;
use super::vector::{HIGH_HALF, LOAD, STORE, X0, X1, place};
use super::{EQUAL, Emitter, SideAddress, T0, T1, T2};
use crate::ExitKind;
use crate::asm::{Host, Rm};
use crate::context;
use crate::ir::{Avx, Length, Operand, VectorEncoding, VectorOperand, Width, Xmm};
use crate::tlb::Right;

/// Where the halves of the guest's registers are.
const HALVES: [Rm; 2] = [context::XMM, context::UPPER];
/// PXOR, PUNPCKLBW, PSHUFLW and PSHUFD.
const PXOR: u8 = 0xEF;
const PUNPCKLBW: u8 = 0x60;
const PSHUF: u8 = 0x70;
const P66: &[u8] = &[0x66];
const PF2: &[u8] = &[0xF2];

/// A half of the memory operand.
const fn at(half: usize) -> Rm {
    Rm::Base(T0, 16 * half as i32)
}

impl Emitter<'_> {
    /// An AVX instruction.
    pub(super) fn avx(&mut self, n: usize, insn: &Avx) -> Option<()> {
        self.need_avx(n);
        match *insn {
            Avx::Lanes { encoding, to, first, from, length } => {
                self.need_floating_point(n, &encoding);
                if let VectorOperand::Memory(address) = from {
                    let bytes = if encoding.bytes == 16 { length.bytes() } else { encoding.bytes };
                    self.vector_access(n, &address, bytes, encoding.aligned, Right::Read)?;
                }
                self.each_half(to, length, |emitter, half| {
                    if let Some(first) = first {
                        emitter.packed(LOAD, X0, place(T1, first));
                    }
                    let from = match from {
                        VectorOperand::Register(from) => {
                            emitter.packed(LOAD, X1.0, place(T1, from));
                            Rm::Reg(X1)
                        }
                        // Memory of any alignment, which an SSE instruction would not take.
                        VectorOperand::Memory(_) if encoding.bytes == 16 => {
                            emitter.packed(LOAD, X1.0, at(half));
                            Rm::Reg(X1)
                        }
                        VectorOperand::Memory(_) => AT,
                    };
                    emitter.encoded(&encoding, false, X0, from);
                });
            }
            Avx::Shift { encoding, group, to, of, length } => {
                self.each_half(to, length, |emitter, _| {
                    emitter.packed(LOAD, X0, place(T1, of));
                    emitter.encoded(&encoding, false, group, Rm::Reg(Host(X0)));
                });
            }
            Avx::Store { from, to, bytes, aligned } => {
                self.vector_access(n, &to, bytes, aligned, Right::Write)?;
                if bytes < 16 {
                    let width = Width::from_bytes(usize::from(bytes))?;
                    self.asm.load(Width::Qword, T2, HALVES[0]);
                    self.asm.load(width, T2, place(T2, from));
                    self.asm.store(width, AT, T2);
                }
                for (half, registers) in HALVES.into_iter().enumerate().take(usize::from(bytes) / 16) {
                    self.asm.load(Width::Qword, T2, registers);
                    self.packed(LOAD, X0, place(T2, from));
                    self.packed(STORE, X0, at(half));
                }
                self.after_store(n, None);
            }
            Avx::Mask { encoding, to, from, length } => self.avx_mask(&encoding, to, from, length),
            Avx::FromGeneral { width, to, from } => {
                match from {
                    Operand::Register(reg) => {
                        let from = self.get(reg, T0);
                        self.asm.load(width, T0, Rm::Reg(from));
                    }
                    Operand::Memory(address) => {
                        self.access(n, &address, width.bytes(), Right::Read)?;
                        self.asm.load(width, T0, AT);
                    }
                }
                self.asm.load(Width::Qword, T1, context::XMM);
                let Rm::Base(base, low) = place(T1, to) else { return None };
                self.asm.store(Width::Qword, Rm::Base(base, low), T0);
                self.asm.constant(T0, 0);
                self.asm.store(Width::Qword, Rm::Base(base, low + HIGH_HALF), T0);
                self.zero_upper(to);
            }
            Avx::ToGeneral { width, to, from } => {
                self.asm.load(Width::Qword, T1, context::XMM);
                let target = self.target(to, T2, width);
                self.asm.load(width, target, place(T1, from));
                self.put(to, target);
            }
            Avx::Broadcast { to, from, length } => {
                self.asm.load(Width::Qword, T1, context::XMM);
                self.packed(LOAD, X1.0, place(T1, from));
                self.asm.with_prefix(P66, &[0x0F, PUNPCKLBW], false, X1.0, Rm::Reg(X1));
                self.asm.with_prefix(PF2, &[0x0F, PSHUF], false, X1.0, Rm::Reg(X1));
                self.asm.raw(&[0]);
                self.asm.with_prefix(P66, &[0x0F, PSHUF], false, X1.0, Rm::Reg(X1));
                self.asm.raw(&[0]);
                self.each_half(to, length, |emitter, _| emitter.packed(LOAD, X0, Rm::Reg(X1)));
            }
            Avx::ZeroUpper => {
                self.asm.load(Width::Qword, T1, context::UPPER);
                self.asm.with_prefix(P66, &[0x0F, PXOR], false, X0, Rm::Reg(Host(X0)));
                for number in 0..16 {
                    self.packed(STORE, X0, place(T1, Xmm::new(number)?));
                }
            }
        }
        Some(())
    }

    /// Makes each half of a register in its scratch register, with the address of that half of all registers in `T1`.
    fn each_half(&mut self, to: Xmm, length: Length, mut make: impl FnMut(&mut Self, usize)) {
        self.asm.load(Width::Qword, T1, HALVES[0]);
        make(self, 0);
        self.packed(STORE, X0, place(T1, to));
        if length == Length::Half {
            self.zero_upper(to);
            return;
        }
        self.asm.load(Width::Qword, T1, HALVES[1]);
        make(self, 1);
        self.packed(STORE, X0, place(T1, to));
    }

    fn zero_upper(&mut self, of: Xmm) {
        self.asm.load(Width::Qword, T1, context::UPPER);
        self.asm.with_prefix(P66, &[0x0F, PXOR], false, X0, Rm::Reg(Host(X0)));
        self.packed(STORE, X0, place(T1, of));
    }

    /// The signs of the bytes of the upper half stand above those of the lower.
    fn avx_mask(&mut self, encoding: &VectorEncoding, to: crate::ir::Reg, from: Xmm, length: Length) {
        self.asm.load(Width::Qword, T1, context::XMM);
        self.packed(LOAD, X1.0, place(T1, from));
        self.encoded(encoding, false, T0.0, Rm::Reg(X1));
        if length == Length::Whole {
            self.asm.load(Width::Qword, T1, context::UPPER);
            self.packed(LOAD, X1.0, place(T1, from));
            self.encoded(encoding, false, T1.0, Rm::Reg(X1));
            self.asm.op_full(Width::Dword, &[0xC1], 4, Rm::Reg(T1)); // shl
            self.asm.raw(&[16]);
            self.asm.op(Width::Dword, 0x0A, T0, Rm::Reg(T1)); // or
        }
        let target = self.target(to, T2, Width::Dword);
        self.asm.load(Width::Dword, target, Rm::Reg(T0));
        self.put(to, target);
    }

    /// Leaves where the guest may not use AVX now.
    fn need_avx(&mut self, n: usize) {
        if !core::mem::replace(&mut self.avx_checked, true) {
            let refused = self.side(ExitKind::Interpret, n, SideAddress::None, None);
            self.asm.op_full(Width::Byte, &[0xF6], 0, context::AVX);
            self.asm.raw(&[1]);
            self.asm.jump_if(EQUAL, refused);
        }
    }
}
