//! One vCPU's segments, interrupt table and stacks, all in one [`CpuArea`].

mod frame;
mod handlers;
mod idt;

pub use frame::Frame;

use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::segmentation::SegmentSelector;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

use idt::Idt;

core::arch::global_asm!(include_str!("exceptions.s"));

/// Which IST stack an exception runs on. Handlers nest (a #VE inside the #PF handler), so they do not share.
#[derive(Clone, Copy)]
pub(crate) enum IstStack {
    VirtualisationException = 0,
    PageFault = 1,
    DoubleFault = 2,
    Other = 3,
}

const IST_STACKS: usize = 4;
const IST_STACK_SIZE: usize = 0x2000;
#[cfg(not(feature = "heap"))]
const MAIN_STACK_SIZE: usize = 0x7000;
/// Signatures and certificates are verified on it.
#[cfg(feature = "heap")]
const MAIN_STACK_SIZE: usize = 0x2_7000;

#[repr(C, align(4096))]
struct Page<T>(T);

/// What one vCPU needs: tables, exception stacks, and at the end its stack (the reset stub counts on that).
#[repr(C, align(4096))]
pub struct CpuArea {
    tables: Page<[u8; 4096]>,
    exception_stacks: [[u8; IST_STACK_SIZE]; IST_STACKS],
    stack: [u8; MAIN_STACK_SIZE],
}

impl CpuArea {
    /// An area before its vCPU has come.
    pub const ZERO: Self = Self {
        tables: Page([0; 4096]),
        exception_stacks: [[0; IST_STACK_SIZE]; IST_STACKS],
        stack: [0; MAIN_STACK_SIZE],
    };
}

struct Tables {
    tss: TaskStateSegment,
    gdt: GlobalDescriptorTable,
    idt: Idt,
}

const _: () = assert!(size_of::<Tables>() <= 4096);
const _: () = assert!(size_of::<CpuArea>() == 0x9000 + MAIN_STACK_SIZE);

/// Loads this vCPU's own GDT, TSS and IDT.
///
/// # Safety
/// `area` is writable, identity mapped, belongs to this vCPU alone for ever, and is given once.
pub(crate) unsafe fn init(area: *mut CpuArea) {
    // SAFETY: the caller owns the area; only addresses are formed, and the tables' page is no stack.
    let (tables, stacks) =
        unsafe { ((&raw mut (*area).tables).cast::<Tables>(), &raw mut (*area).exception_stacks) };
    let mut tss = TaskStateSegment::new();
    // The TSS is packed, so its array is replaced as a whole.
    let mut tops = tss.interrupt_stack_table;
    for (slot, number) in tops.iter_mut().zip(1u64..=IST_STACKS as u64) {
        *slot = VirtAddr::new(stacks as u64 + number * IST_STACK_SIZE as u64);
    }
    tss.interrupt_stack_table = tops;
    // SAFETY: the page is aligned, large enough (asserted above) and nobody else's.
    let tables: &'static mut Tables = unsafe {
        tables.write(Tables { tss, gdt: GlobalDescriptorTable::new(), idt: Idt::new() });
        &mut *tables
    };
    let Tables { tss, gdt, idt } = tables;
    let code = gdt.add_entry(Descriptor::kernel_code_segment());
    let data = gdt.add_entry(Descriptor::kernel_data_segment());
    let task = gdt.add_entry(Descriptor::tss_segment(tss));
    gdt.load();
    // SAFETY: the selectors are those of the table just loaded, flat and of ring 0, as the code expects.
    unsafe {
        CS::set_reg(code);
        SS::set_reg(data);
        DS::set_reg(SegmentSelector(0));
        ES::set_reg(SegmentSelector(0));
        load_tss(task);
    }
    idt.load(code);
}

/// Loads an interrupt table of length zero, so that the next exception ends in a triple fault.
pub fn drop_exception_handlers() {
    Idt::load_empty();
}
