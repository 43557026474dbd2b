//! SSE: the guest's XMM registers are in its state, an operation is the host's own on scratch registers.

use super::memory::AT;
use super::{AND, EQUAL, Emitter, NOT_EQUAL, SideAddress, T0, T1, T2};
use crate::ExitKind;
use crate::asm::{Host, Label, Rm};
use crate::context::{self, FloatingPoint};
use crate::ir::{Insn, Operand, VectorEncoding, VectorOperand, Width, Xmm};
use crate::tlb::Right;

use super::flags::{AuxiliaryCarry, FlagState};

/// The destination's scratch register, and the source's.
pub(super) const X0: u8 = 0;
pub(super) const X1: Host = Host(1);
const VECTOR_BYTES: u8 = 16;
pub(super) const HIGH_HALF: i32 = 8;

/// Where floating point has to be made ready, written behind everything else.
pub(super) struct Enable {
    label: Label,
    back: Label,
    op: usize,
}

pub(super) fn place(base: Host, xmm: Xmm) -> Rm {
    Rm::Base(base, i32::from(xmm.number()) * i32::from(VECTOR_BYTES))
}

impl Emitter<'_> {
    /// Instructions of this file; `None` for others.
    pub(super) fn vector(&mut self, n: usize, insn: &Insn) -> Option<()> {
        if !insn.is_vector() {
            return None;
        }
        self.clobber_flags();
        if let Insn::Avx(insn) = insn {
            return self.avx(n, insn);
        }
        self.need_sse(n);
        match *insn {
            Insn::Vector { encoding, to, from } => {
                let from = self.vector_source(n, &encoding, from)?;
                self.asm.load(Width::Qword, T1, context::XMM);
                self.packed(LOAD, X0, place(T1, to));
                let from = self.loaded(from);
                self.encoded(&encoding, false, X0, from);
                self.packed(STORE, X0, place(T1, to));
            }
            Insn::VectorShift { encoding, group, of } => {
                self.asm.load(Width::Qword, T1, context::XMM);
                self.packed(LOAD, X0, place(T1, of));
                self.encoded(&encoding, false, group, Rm::Reg(Host(X0)));
                self.packed(STORE, X0, place(T1, of));
            }
            Insn::VectorStore { from, to, bytes, high, aligned } => {
                self.vector_access(n, &to, bytes, aligned, Right::Write)?;
                self.asm.load(Width::Qword, T2, context::XMM);
                let Rm::Base(base, at) = place(T2, from) else { return None };
                let from = Rm::Base(base, at + if high { HIGH_HALF } else { 0 });
                if bytes == VECTOR_BYTES {
                    self.packed(LOAD, X0, from);
                    self.packed(STORE, X0, AT);
                } else {
                    let width = Width::from_bytes(usize::from(bytes))?;
                    self.asm.load(width, T2, from);
                    self.asm.store(width, AT, T2);
                }
                self.after_store(n, None);
            }
            Insn::VectorFromGeneral { width, to, from } => {
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
                let Rm::Base(base, at) = place(T1, to) else { return None };
                self.asm.store(Width::Qword, Rm::Base(base, at), T0);
                self.asm.constant(T0, 0);
                self.asm.store(Width::Qword, Rm::Base(base, at + HIGH_HALF), T0);
            }
            Insn::VectorToGeneral { width, to, from } => {
                self.asm.load(Width::Qword, T1, context::XMM);
                let target = self.target(to, T2, width);
                self.asm.load(width, target, place(T1, from));
                self.put(to, target);
            }
            Insn::VectorMask { encoding, to, from } => {
                self.asm.load(Width::Qword, T1, context::XMM);
                self.packed(LOAD, X1.0, place(T1, from));
                let target = self.target(to, T2, Width::Dword);
                self.encoded(&encoding, false, target.0, Rm::Reg(X1));
                self.put(to, target);
            }
            Insn::VectorCompare { encoding, a, b } => {
                let b = self.vector_source(n, &encoding, b)?;
                self.asm.load(Width::Qword, T1, context::XMM);
                self.packed(LOAD, X0, place(T1, a));
                let b = self.loaded(b);
                self.encoded(&encoding, false, X0, b);
                self.flags = FlagState::host(AuxiliaryCarry::Valid);
            }
            Insn::VectorFromInteger { encoding, width, to, from } => {
                self.need_floating_point(n, &encoding);
                let from = match from {
                    Operand::Register(reg) => Rm::Reg(self.get(reg, T0)),
                    Operand::Memory(address) => {
                        self.access(n, &address, width.bytes(), Right::Read)?;
                        AT
                    }
                };
                self.asm.load(Width::Qword, T1, context::XMM);
                self.packed(LOAD, X0, place(T1, to));
                self.encoded(&encoding, width == Width::Qword, X0, from);
                self.packed(STORE, X0, place(T1, to));
            }
            Insn::VectorToInteger { encoding, width, to, from } => {
                let from = self.vector_source(n, &encoding, from)?;
                self.asm.load(Width::Qword, T1, context::XMM);
                let from = self.loaded(from);
                let target = self.target(to, T2, width);
                self.encoded(&encoding, width == Width::Qword, target.0, from);
                self.put(to, target);
            }
            _ => return None,
        }
        Some(())
    }

    /// Leaves where the guest may not use SSE now.
    fn need_sse(&mut self, n: usize) {
        if !core::mem::replace(&mut self.sse_checked, true) {
            let refused = self.side(ExitKind::Interpret, n, SideAddress::None, None);
            self.asm.op_full(Width::Byte, &[0xF6], 0, context::SSE);
            self.asm.raw(&[1]);
            self.asm.jump_if(EQUAL, refused);
        }
    }

    /// Sees to it that the guest's MXCSR is the host's, where it decides something.
    pub(super) fn need_floating_point(&mut self, n: usize, encoding: &VectorEncoding) {
        if !encoding.floating {
            return;
        }
        let (label, back) = (self.asm.label(), self.asm.label());
        self.asm.op_full(Width::Byte, &[0x80], super::CMP, context::FLOATING_POINT);
        self.asm.raw(&[FloatingPoint::Loaded as u8]);
        self.asm.jump_if(NOT_EQUAL, label);
        self.asm.bind(back);
        self.enables.push(Enable { label, back, op: n });
    }

    pub(super) fn write_enables(&mut self) {
        for Enable { label, back, op } in core::mem::take(&mut self.enables) {
            let refused = self.side(ExitKind::Interpret, op, SideAddress::None, None);
            self.asm.bind(label);
            self.asm.op_full(Width::Byte, &[0x80], super::CMP, context::FLOATING_POINT);
            self.asm.raw(&[FloatingPoint::Refused as u8]);
            self.asm.jump_if(EQUAL, refused);
            self.asm.op_full(Width::Dword, &[0x0F, 0xAE], 2, context::MXCSR); // ldmxcsr
            self.asm.op_full(Width::Byte, &[0xC6], 0, context::FLOATING_POINT);
            self.asm.raw(&[FloatingPoint::Loaded as u8]);
            self.asm.jump(back);
        }
    }

    /// Finds a source: [`AT`], or a register still to be loaded.
    fn vector_source(
        &mut self,
        n: usize,
        encoding: &VectorEncoding,
        from: VectorOperand,
    ) -> Option<Option<Xmm>> {
        self.need_floating_point(n, encoding);
        match from {
            VectorOperand::Register(xmm) => Some(Some(xmm)),
            VectorOperand::Memory(address) => {
                self.vector_access(n, &address, encoding.bytes, encoding.aligned, Right::Read)?;
                Some(None)
            }
        }
    }

    /// Brings a source into its scratch register, with the registers' address in `T1`.
    fn loaded(&mut self, from: Option<Xmm>) -> Rm {
        match from {
            Some(xmm) => {
                self.packed(LOAD, X1.0, place(T1, xmm));
                Rm::Reg(X1)
            }
            None => AT,
        }
    }

    pub(super) fn vector_access(
        &mut self,
        n: usize,
        address: &crate::ir::Address,
        bytes: u8,
        aligned: bool,
        right: Right,
    ) -> Option<()> {
        self.linear(address)?;
        if aligned {
            self.need_alignment(n, bytes);
        }
        self.access_at(n, bytes, right);
        Some(())
    }

    /// MOVUPS.
    pub(super) fn packed(&mut self, opcode: u8, xmm: u8, rm: Rm) {
        self.asm.op_full(Width::Dword, &[0x0F, opcode], xmm, rm);
    }

    pub(super) fn encoded(&mut self, encoding: &VectorEncoding, wide: bool, reg: u8, rm: Rm) {
        let prefix: &[u8] = encoding.prefix.as_slice();
        let opcode: &[u8] = match encoding.map {
            crate::ir::OpcodeMap::Map0F => &[0x0F, encoding.opcode],
            crate::ir::OpcodeMap::Map0F38 => &[0x0F, 0x38, encoding.opcode],
            crate::ir::OpcodeMap::Map0F3A => &[0x0F, 0x3A, encoding.opcode],
        };
        self.asm.with_prefix(prefix, opcode, wide, reg, rm);
        if let Some(value) = encoding.immediate {
            self.asm.raw(&[value]);
        }
    }
}

pub(super) const LOAD: u8 = 0x10;
pub(super) const STORE: u8 = 0x11;
const _: () = assert!(AND == 4);
