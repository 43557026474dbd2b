//! The interrupt descriptor table: 32 gates, each with its entry stub and IST stack.
//!
//! `x86_64` types its handlers with an unstable calling convention, so the gates are written here.

use x86_64::VirtAddr;
use x86_64::instructions::tables::lidt;
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;

use super::IstStack;

const VECTORS: usize = 32;

unsafe extern "C" {
    static exception_entries: [u64; VECTORS];
}

/// Exception vectors that this runtime tells apart (SDM volume 3, table 6-1).
pub(crate) mod vector {
    pub const DOUBLE_FAULT: u64 = 8;
    pub const PAGE_FAULT: u64 = 14;
    pub const VIRTUALISATION: u64 = 20;
}

#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    const ABSENT: Self = Self { low: 0, high: 0 };

    /// A present ring-0 interrupt gate (SDM volume 3, figure 6-8).
    fn interrupt(entry: u64, code: SegmentSelector, stack: IstStack) -> Self {
        const PRESENT_INTERRUPT_GATE: u64 = 0x8E << 40;
        let ist = (stack as u64 + 1) << 32;
        let offset = (entry & 0xFFFF) | (entry & 0xFFFF_0000) << 32;
        Self { low: offset | u64::from(code.0) << 16 | ist | PRESENT_INTERRUPT_GATE, high: entry >> 32 }
    }
}

#[repr(C, align(16))]
pub(crate) struct Idt([Gate; VECTORS]);

impl Idt {
    pub fn new() -> Self {
        Self([Gate::ABSENT; VECTORS])
    }

    /// Fills in the gates and makes this the vCPU's table.
    pub fn load(&'static mut self, code: SegmentSelector) {
        // SAFETY: a read-only table of 32 addresses, defined by exceptions.s.
        let entries = unsafe { &exception_entries };
        for ((number, gate), entry) in (0u64..).zip(&mut self.0).zip(entries) {
            let stack = match number {
                vector::VIRTUALISATION => IstStack::VirtualisationException,
                vector::PAGE_FAULT => IstStack::PageFault,
                vector::DOUBLE_FAULT => IstStack::DoubleFault,
                _ => IstStack::Other,
            };
            *gate = Gate::interrupt(*entry, code, stack);
        }
        let pointer = DescriptorTablePointer {
            limit: (size_of::<Self>() - 1) as u16,
            base: VirtAddr::new(self as *const Self as u64),
        };
        // SAFETY: the table lives for ever and its gates lead to the stubs of exceptions.s.
        unsafe { lidt(&pointer) };
    }

    /// Makes every exception a triple fault.
    pub fn load_empty() {
        // SAFETY: with no gate at all no handler can run; the vCPU stops at its next exception, as asked.
        unsafe { lidt(&DescriptorTablePointer { limit: 0, base: VirtAddr::zero() }) };
    }
}
