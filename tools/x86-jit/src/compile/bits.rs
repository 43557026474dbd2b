//! Single bits and bit scans.

use super::flags::{AuxiliaryCarry, FlagState};
use super::memory::AT;
use super::{AND, Emitter, NOT_EQUAL, T0, T1, T2};
use crate::asm::{Host, Rm};
use crate::ir::{Address, Atomicity, Bit, BitOffset, Operand, Reg, Scan, Width};
use crate::tlb::Right;

/// The opcode of BT with the bit in a register; that of its kin by their number in ModRM.
const BY_REGISTER: u8 = 0x83;
/// SAR, in ModRM.
const SAR: u8 = 7;

/// log2 of the bits of a word, where it is one of those that are compiled.
fn log_bits(width: Width) -> Option<u8> {
    match width {
        Width::Dword => Some(5),
        Width::Qword => Some(6),
        _ => None,
    }
}

const fn writes(kind: Bit) -> bool {
    !matches!(kind, Bit::Test)
}

impl Emitter<'_> {
    /// CF is the bit; the other flags stay.
    pub(super) fn bit_of_register(
        &mut self,
        n: usize,
        kind: Bit,
        width: Width,
        of: Reg,
        bit: BitOffset,
    ) -> Option<()> {
        let mask = (1u8 << log_bits(width)?) - 1;
        let live = self.live(n + 1);
        if !live && !writes(kind) {
            return Some(());
        }
        if live {
            self.save_flags();
        }
        let host = self.get(of, T1);
        match bit {
            BitOffset::Immediate(bit) => {
                self.asm.op_full(width, &[0x0F, 0xBA], kind as u8, Rm::Reg(host));
                self.asm.raw(&[bit & mask]);
            }
            BitOffset::Register(bit) => {
                let bit = self.get(bit, T2);
                self.asm.op_full(width, &[0x0F, BY_REGISTER | (kind as u8) << 3], bit.0, Rm::Reg(host));
            }
        }
        if writes(kind) {
            self.put(of, host);
        }
        if live {
            self.merge_carry();
        } else {
            self.flags = FlagState::NOWHERE;
        }
        Some(())
    }

    pub(super) fn bit_of_memory(
        &mut self,
        n: usize,
        (kind, atomicity): (Bit, Atomicity),
        width: Width,
        of: &Address,
        bit: BitOffset,
    ) -> Option<()> {
        let log_bits = log_bits(width)?;
        let mask = (1u8 << log_bits) - 1;
        self.linear(of)?;
        if let BitOffset::Register(bit) = bit {
            // The word that the bit is in.
            self.clobber_flags();
            let bit = self.get(bit, T2);
            if width == Width::Qword {
                self.asm.copy(T2, bit);
            } else {
                self.asm.op_full(Width::Qword, &[0x63], T2.0, Rm::Reg(bit)); // movsxd
            }
            self.asm.op_full(Width::Qword, &[0xC1], SAR, Rm::Reg(T2));
            self.asm.raw(&[log_bits]);
            self.asm.lea(Width::Qword, T0, Rm::Indexed(Some(T0), T2, log_bits - 3, 0));
        }
        let right = if writes(kind) { Right::Write } else { Right::Read };
        self.access_at(n, width.bytes(), right);
        match bit {
            BitOffset::Immediate(bit) => {
                self.lock(atomicity);
                self.asm.op_full(width, &[0x0F, 0xBA], kind as u8, AT);
                self.asm.raw(&[bit & mask]);
            }
            BitOffset::Register(bit) => {
                let bit = self.get(bit, T2);
                self.asm.load(Width::Dword, T2, Rm::Reg(bit));
                self.asm.group1(Width::Dword, AND, Rm::Reg(T2), i32::from(mask));
                self.lock(atomicity);
                self.asm.op_full(width, &[0x0F, BY_REGISTER | (kind as u8) << 3], T2.0, AT);
            }
        }
        self.merge_carry();
        if writes(kind) {
            self.after_store(n, None);
        }
        Some(())
    }

    pub(super) fn scan(&mut self, n: usize, kind: Scan, width: Width, to: Reg, from: Operand) -> Option<()> {
        log_bits(width)?;
        let live = self.live(n + 1);
        if live && kind != Scan::Population {
            self.save_flags();
        }
        let from = match from {
            Operand::Register(reg) => Rm::Reg(self.get(reg, T2)),
            Operand::Memory(address) => {
                self.access(n, &address, width.bytes(), Right::Read)?;
                AT
            }
        };
        let wide = width == Width::Qword;
        match kind {
            Scan::Forward | Scan::Reverse => {
                let opcode = if kind == Scan::Forward { 0xBC } else { 0xBD };
                self.asm.op_full(width, &[0x0F, opcode], T1.0, from);
                // No bit found: the register keeps all that it has.
                let target = self.get(to, T2);
                self.asm.op_full(Width::Qword, &[0x0F, 0x40 | NOT_EQUAL], target.0, Rm::Reg(T1));
                self.put(to, target);
            }
            Scan::TrailingZeros => self.count(0xBC, wide, to, from),
            Scan::LeadingZeros => self.count(0xBD, wide, to, from),
            Scan::Population => self.count(0xB8, wide, to, from),
        }
        match kind {
            Scan::Population => self.flags = FlagState::host(AuxiliaryCarry::Valid),
            _ if !live => self.flags = FlagState::NOWHERE,
            Scan::Forward | Scan::Reverse => self.merge_zero(),
            Scan::TrailingZeros | Scan::LeadingZeros => self.merge_carry_and_zero(),
        }
        Some(())
    }

    fn count(&mut self, opcode: u8, wide: bool, to: Reg, from: Rm) {
        let target: Host = self.target(to, T1, if wide { Width::Qword } else { Width::Dword });
        self.asm.with_prefix(&[0xF3], &[0x0F, opcode], wide, target.0, from);
        self.put(to, target);
    }
}
