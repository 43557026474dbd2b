//! Accesses to guest memory: the inline look-up in the TLB.

use core::mem::offset_of;

use phys_memory::Window;

use super::{AND, Emitter, NOT_EQUAL, SideAddress, T0, T1, T2};
use crate::ExitKind;
use crate::asm::{Host, Rm};
use crate::context::{READ_TABLE, WRITE_TABLE, base_of, host_of, register};
use crate::ir::{Address, Width};
use crate::tlb::{ENTRY_SHIFT, Entry, PAGES, Right};

const PAGE_MASK: i32 = !0xFFF;
const PAGE_SHIFT: u32 = 12;
/// The byte of the state word that holds [`Window::CODE`], and the bit there.
const CODE_BYTE: i32 = (Window::CODE.trailing_zeros() / 8) as i32;
const CODE_BIT: u8 = 1 << (Window::CODE.trailing_zeros() % 8);
const _: () = assert!(Window::KEY_MASK == 0xFFFF && Window::CODE.is_power_of_two());

pub(super) const ADDEND: i32 = offset_of!(Entry, addend) as i32;
const WORD: i32 = offset_of!(Entry, word) as i32;
const KEY: i32 = offset_of!(Entry, key) as i32;
const _: () = assert!(offset_of!(Entry, page) == 0);

/// Where an access is, once it may be done.
pub(super) const AT: Rm = Rm::Base(T0, 0);

impl Emitter<'_> {
    /// Computes an effective address, without a segment's base. Keeps the flags.
    pub(super) fn effective(&mut self, width: Width, to: Host, address: &Address) -> Option<()> {
        let displacement = if address.relative {
            self.unit.rip.wrapping_add(address.displacement)
        } else {
            address.displacement
        };
        if address.base.is_none() && address.index.is_none() {
            let value = if width == Width::Dword { displacement & 0xFFFF_FFFF } else { displacement };
            self.asm.constant(to, value);
            return (width != Width::Word).then_some(());
        }
        let displacement = i32::try_from(displacement as i64).ok()?;
        let base = address.base.map(|reg| self.get(reg, T0));
        let index = address.index.map(|reg| self.get(reg, T1));
        let from = match (base, index) {
            (base, Some(index)) => Rm::Indexed(base, index, address.scale & 3, displacement),
            (Some(base), None) => Rm::Base(base, displacement),
            (None, None) => return None,
        };
        self.asm.lea(width, to, from);
        Some(())
    }

    /// Finds where a memory operand is in this process: [`AT`]. Leaves at instruction `n` where that is not known. The flags are
    /// saved, and the host's go.
    pub(super) fn access(&mut self, n: usize, address: &Address, bytes: u8, right: Right) -> Option<()> {
        self.linear(address)?;
        self.access_at(n, bytes, right);
        Some(())
    }

    /// Computes the linear address of a memory operand: `T0`.
    pub(super) fn linear(&mut self, address: &Address) -> Option<()> {
        self.effective(Width::Qword, T0, address)?;
        if let Some(segment) = address.segment {
            self.clobber_flags();
            self.asm.op(Width::Qword, 0x02, T0, base_of(segment));
        }
        Some(())
    }

    /// As [`Self::access`], with the linear address in `T0`.
    pub(super) fn access_at(&mut self, n: usize, bytes: u8, right: Right) {
        let (kind, table) = match right {
            Right::Read => (ExitKind::SlowRead, READ_TABLE),
            Right::Write => (ExitKind::SlowWrite, WRITE_TABLE),
        };
        let slow = self.side(kind, n, SideAddress::Linear, None);
        self.clobber_flags();
        self.asm.copy(T1, T0);
        self.asm.op_full(Width::Qword, &[0xC1], 5, Rm::Reg(T1)); // shr
        self.asm.raw(&[(PAGE_SHIFT - ENTRY_SHIFT) as u8]);
        self.asm.group1(Width::Dword, AND, Rm::Reg(T1), ((PAGES - 1) << ENTRY_SHIFT) as i32);
        self.asm.op(Width::Qword, 0x02, T1, table);
        // The page of the last byte: an operand that crosses into another page matches no entry.
        self.asm.lea(Width::Qword, T2, Rm::Base(T0, i32::from(bytes) - 1));
        self.asm.group1(Width::Qword, AND, Rm::Reg(T2), PAGE_MASK);
        self.asm.op(Width::Qword, 0x3A, T2, Rm::Base(T1, 0));
        self.asm.jump_if(NOT_EQUAL, slow);
        self.asm.load(Width::Qword, T2, Rm::Base(T1, WORD));
        match right {
            Right::Read => self.asm.op_full(Width::Dword, &[0x0F, 0xB7], T2.0, Rm::Base(T2, 0)),
            Right::Write => {
                self.asm.load(Width::Dword, T2, Rm::Base(T2, 0));
                let asked = Window::KEY_MASK | Window::CODE | Window::WRITTEN;
                self.asm.group1(Width::Dword, AND, Rm::Reg(T2), asked as i32);
            }
        }
        self.asm.op(Width::Qword, 0x3A, T2, Rm::Base(T1, KEY));
        self.asm.jump_if(NOT_EQUAL, slow);
        self.asm.op(Width::Qword, 0x02, T0, Rm::Base(T1, ADDEND));
    }

    /// Leaves where the linear address in `T0` is no multiple of a power of two.
    pub(super) fn need_alignment(&mut self, n: usize, bytes: u8) {
        let misaligned = self.side(ExitKind::Interpret, n, SideAddress::None, None);
        self.clobber_flags();
        self.asm.op_full(Width::Byte, &[0xF6], 0, Rm::Reg(T0));
        self.asm.raw(&[bytes - 1]);
        self.asm.jump_if(NOT_EQUAL, misaligned);
    }

    /// Behind a store, with everything of instruction `n` done and its flags saved: leaves if the page holds watched code.
    /// `rip` is where the guest goes on, if not behind the instruction.
    pub(super) fn after_store(&mut self, n: usize, rip: Option<u64>) {
        let stored = self.side(ExitKind::Stored, n, SideAddress::Host, rip);
        self.clobber_flags();
        self.asm.load(Width::Qword, T2, Rm::Base(T1, WORD));
        self.asm.op_full(Width::Byte, &[0xF6], 0, Rm::Base(T2, CODE_BYTE));
        self.asm.raw(&[CODE_BIT]);
        self.asm.jump_if(NOT_EQUAL, stored);
    }

    /// Writes a guest register to [`AT`].
    pub(super) fn store_register(&mut self, width: Width, reg: crate::ir::Reg) {
        let from = match host_of(reg) {
            Some(host) => host,
            None => {
                self.asm.load(Width::Qword, T2, register(reg));
                T2
            }
        };
        self.asm.store(width, AT, from);
    }
}
