//! One processor's own memory: its tables, its stacks, and the page that GS points to.
//!
//! **Why this is sound.** Everything that code and processor share is atomic words in statics, so the tables are filled in
//! without `unsafe`. What is left: two register loads per table, which make the processor use tables that live for ever and
//! have the form that the SDM asks for; the declarations of what `vectors.s` defines; and two reads through GS, which
//! [`Area::load`] points to an area before anybody reads.
//!
//! # Interrupts, red zone, XMM
//! The prebuilt core library keeps data below RSP and uses XMM registers. So every gate switches to an IST stack; IF is 0
//! but while a processor sleeps, or asks for what is pending; interrupts are served by a few instructions that touch no
//! XMM register and no lock; exceptions go to Rust and keep the interrupted code's XMM registers by FXSAVE.
#![expect(unsafe_code)]

use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;
use core::mem::offset_of;

use td_host::vcpu::posted::NOTIFICATION_VECTOR;
use tdvisor_base::sync::{AtomicU32, AtomicU64, Ordering};
use x86::dtables::{DescriptorTablePointer, lgdt, lidt};
use x86::msr::{IA32_GS_BASE, IA32_X2APIC_EOI};
use x86::segmentation::{SegmentSelector, load_cs, load_ds, load_es, load_fs, load_gs, load_ss};
use x86::task::load_tr;

use super::cpu;
use super::exceptions::exception;
use crate::acpi::MAX_PROCESSORS;

/// Vectors that the host uses for itself.
pub mod vectors {
    /// The interrupt by which another processor says that it wants something.
    pub const IPI: u8 = 0xE0;
    /// The local APIC's timer.
    pub const TIMER: u8 = 0xE1;
    /// What the local APIC raises for nothing.
    pub const SPURIOUS: u8 = 0xFF;
}

/// What interrupts leave in a processor's events.
pub mod events {
    /// [`super::vectors::IPI`] came.
    pub const IPI: u32 = 1;
    /// [`super::vectors::TIMER`] came.
    pub const TIMER: u32 = 1 << 1;
    /// The vector that tells a processor of posted interrupts came outside of a guest.
    pub const NOTIFICATION: u32 = 1 << 2;
}

global_asm!(
    include_str!("vectors.s"),
    exception = sym exception,
    EVENTS = const offset_of!(Own, events),
    NMIS = const offset_of!(Own, nmis),
    X2APIC_EOI = const IA32_X2APIC_EOI,
    IPI = const events::IPI,
    TIMER = const events::TIMER,
    NOTIFICATION = const events::NOTIFICATION,
);

// SAFETY: defined by vectors.s: entry points, which are only taken the address of, and a table of addresses that never
// changes.
unsafe extern "C" {
    fn bare_metal_interrupt_ipi();
    fn bare_metal_interrupt_timer();
    fn bare_metal_interrupt_notification();
    fn bare_metal_interrupt_other();
    fn bare_metal_interrupt_spurious();
    static bare_metal_exceptions: [u64; EXCEPTIONS];
}

const EXCEPTIONS: usize = 32;
const GATES: usize = 256;
/// Bytes of a processor's stack.
pub const STACK: usize = 0x2_0000;
/// Where in an area its stack begins, for whoever has no area yet.
pub const STACK_TOP: usize = offset_of!(Area, stack) + STACK;
const IST_STACK: usize = 0x2000;
const IST_STACKS: usize = 4;

/// Which IST stack a gate uses, from 1 on: those that may come while another is in use have their own.
mod ist {
    pub const ORDINARY: u64 = 1;
    pub const NMI: u64 = 2;
    pub const DOUBLE_FAULT: u64 = 3;
    pub const MACHINE_CHECK: u64 = 4;
}

/// What GS points to.
#[derive(Debug)]
#[repr(C)]
pub struct Own {
    /// [`events`] that have not been looked at.
    pub events: AtomicU32,
    index: AtomicU32,
    /// Non-maskable interrupts so far.
    pub nmis: AtomicU64,
}

/// Null, 64-bit code, flat data, and the task-state segment in two words.
const GDT_WORDS: usize = 5;
const CODE: SegmentSelector = SegmentSelector::from_raw(1 << 3);
const DATA: SegmentSelector = SegmentSelector::from_raw(2 << 3);
const TASK: SegmentSelector = SegmentSelector::from_raw(3 << 3);
const CODE_DESCRIPTOR: u64 = 0x00AF_9B00_0000_FFFF;
const DATA_DESCRIPTOR: u64 = 0x00CF_9300_0000_FFFF;
/// Present, available 64-bit TSS.
const TASK_DESCRIPTOR: u64 = 0x89 << 40;

/// 104 bytes of a task-state segment; IST 1 begins at byte 36.
const TSS_WORDS: usize = 26;
const TSS_IST_WORD: usize = 9;

#[repr(C, align(4096))]
struct Tables {
    own: Own,
    gdt: [AtomicU64; GDT_WORDS],
    tss: [AtomicU32; TSS_WORDS],
}

/// Pages that are not mapped: a stack that grows into one ends in a page fault.
#[repr(C, align(4096))]
struct Guard([u8; 4096]);

#[repr(C, align(4096))]
struct Stack<const N: usize>(UnsafeCell<[u8; N]>);

/// The memory of one processor.
#[repr(C, align(4096))]
pub struct Area {
    tables: Tables,
    guard: Guard,
    stack: Stack<STACK>,
    ist: [Stack<IST_STACK>; IST_STACKS],
}

// SAFETY: everything in an area is atomic, except for the stacks, which Rust code never names: only the processor whose
// area it is uses them, by RSP and by its task-state segment.
unsafe impl Sync for Area {}

impl core::fmt::Debug for Area {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.tables.own.fmt(f)
    }
}

/// The areas of all processors, zero until their processor comes: they take no room in the image.
pub static AREAS: [Area; MAX_PROCESSORS] = [const { Area::new() }; MAX_PROCESSORS];

static IDT: Idt = Idt([const { AtomicU64::new(0) }; 2 * GATES]);

#[repr(C, align(4096))]
struct Idt([AtomicU64; 2 * GATES]);

impl Area {
    const fn new() -> Self {
        Self {
            tables: Tables {
                own: Own { events: AtomicU32::new(0), index: AtomicU32::new(0), nmis: AtomicU64::new(0) },
                gdt: [const { AtomicU64::new(0) }; GDT_WORDS],
                tss: [const { AtomicU32::new(0) }; TSS_WORDS],
            },
            guard: Guard([0; 4096]),
            stack: Stack(UnsafeCell::new([0; STACK])),
            ist: [const { Stack(UnsafeCell::new([0; IST_STACK])) }; IST_STACKS],
        }
    }

    /// What GS points to.
    pub const fn own(&self) -> &Own {
        &self.tables.own
    }

    /// Where the page is that must not be mapped.
    pub fn guard(&self) -> u64 {
        (&raw const self.guard).addr() as u64
    }

    /// Where RSP begins.
    pub fn stack_top(&self) -> u64 {
        (&raw const *self).addr() as u64 + STACK_TOP as u64
    }

    /// Makes this the area of the processor that runs this code, which has this number.
    ///
    /// # Safety
    /// It is called once for each area, in ring 0, with IF 0, on the processor that has the area's stack.
    pub unsafe fn load(&'static self, index: u32) {
        self.tables.own.index.store(index, Ordering::Relaxed);
        for (number, stack) in self.ist.iter().enumerate() {
            let top = (&raw const *stack).addr() as u64 + IST_STACK as u64;
            for (half, value) in [(top & 0xffff_ffff) as u32, (top >> 32) as u32].into_iter().enumerate() {
                if let Some(word) = self.tables.tss.get(TSS_IST_WORD + 2 * number + half) {
                    word.store(value, Ordering::Relaxed);
                }
            }
        }
        let tss = (&raw const self.tables.tss).addr() as u64;
        let limit = size_of_val(&self.tables.tss) as u64 - 1;
        let task = TASK_DESCRIPTOR | limit | (tss & 0xff_ffff) << 16 | (tss >> 24 & 0xff) << 56;
        for (word, value) in
            self.tables.gdt.iter().zip([0, CODE_DESCRIPTOR, DATA_DESCRIPTOR, task, tss >> 32])
        {
            word.store(value, Ordering::Relaxed);
        }
        fill_idt();
        // SAFETY: both tables live for ever, are complete, and have the SDM's form; the selectors are those of the table
        // just loaded, flat and of ring 0. GS gets the area's first bytes, which are its `Own`.
        unsafe {
            lgdt(&DescriptorTablePointer::new(&self.tables.gdt));
            load_cs(CODE);
            load_ss(DATA);
            let null = SegmentSelector::from_raw(0);
            load_ds(null);
            load_es(null);
            load_fs(null);
            load_gs(null);
            load_tr(TASK);
            lidt(&DescriptorTablePointer::new(&IDT.0));
        }
        cpu::write_msr(IA32_GS_BASE, (&raw const self.tables.own).addr() as u64);
    }
}

/// All gates. Each processor writes the same values.
fn fill_idt() {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8E << 40;
    // SAFETY: a table of addresses that never changes.
    let exceptions = unsafe { &bare_metal_exceptions };
    for (number, gate) in IDT.0.chunks_exact(2).enumerate() {
        let stack = match number {
            2 => ist::NMI,
            8 => ist::DOUBLE_FAULT,
            18 => ist::MACHINE_CHECK,
            _ => ist::ORDINARY,
        };
        let entry = match (exceptions.get(number), u8::try_from(number)) {
            (Some(entry), _) => *entry,
            (None, Ok(vectors::IPI)) => bare_metal_interrupt_ipi as *const () as u64,
            (None, Ok(vectors::TIMER)) => bare_metal_interrupt_timer as *const () as u64,
            (None, Ok(NOTIFICATION_VECTOR)) => bare_metal_interrupt_notification as *const () as u64,
            (None, Ok(vectors::SPURIOUS)) => bare_metal_interrupt_spurious as *const () as u64,
            (None, _) => bare_metal_interrupt_other as *const () as u64,
        };
        let low = (entry & 0xffff)
            | u64::from(CODE.bits()) << 16
            | stack << 32
            | PRESENT_INTERRUPT_GATE
            | (entry >> 16 & 0xffff) << 48;
        for (word, value) in gate.iter().zip([low, entry >> 32]) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// The number of the processor that runs this code, once it has its area.
pub fn current() -> u32 {
    let index: u32;
    // SAFETY: GS points to the `Own` of this processor's area; its number does not change any more.
    unsafe {
        asm!("mov {0:e}, gs:[{1}]", out(reg) index, const offset_of!(Own, index),
            options(nostack, preserves_flags, readonly));
    }
    index
}

/// What GS points to on the processor that runs this code.
pub fn own() -> &'static Own {
    // A number outside of the list cannot have been loaded.
    let index = current() as usize % MAX_PROCESSORS;
    AREAS[index].own()
}
