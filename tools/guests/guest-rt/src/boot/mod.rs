//! From the reset vector to [`guest_main`]: the stub, and the first Rust code on each vCPU.
//!
//! Protocol between the stub and this module:
//! * the first vCPU arrives with the identity map on, the bss zero, and the stack of `boot_area`;
//! * vCPU *n* arrives on the stack of area *n* once [`Mailbox::released`] exceeds *n*; whoever raises it has
//!   filled in the other two fields before.

use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::cpu::{self, CpuArea};
use crate::layout;
use crate::paging::{self, Table};
use crate::td::Td;
use crate::{exit, smp};

core::arch::global_asm!(
    include_str!("reset.s"),
    BFV = const layout::section::BFV,
    TD_HOB = const layout::section::TD_HOB,
    TEMP_MEM = const layout::section::TEMP_MEM,
    PERM_MEM = const layout::section::PERM_MEM,
    MR_EXTEND = const layout::section::MR_EXTEND,
    PAGE_AUG = const layout::section::PAGE_AUG,
    TD_HOB_BASE = const layout::TD_HOB_BASE,
    TD_HOB_SIZE = const layout::TD_HOB_SIZE,
    POOL_BASE = const layout::POOL_BASE,
    POOL_SIZE = const layout::POOL_SIZE,
    AREA_SIZE = const size_of::<CpuArea>(),
);

/// Where the other vCPUs wait. It lies in the measured volume, so the host cannot have set it.
#[repr(C)]
pub(crate) struct Mailbox {
    /// vCPUs with a smaller index may run.
    pub released: AtomicU32,
    /// Bytes from one vCPU's area to the next.
    pub stride: AtomicU32,
    /// Address of vCPU 1's area.
    pub first_area: AtomicU64,
}

unsafe extern "C" {
    static ap_mailbox_address: u64;
}

/// The mailbox of the reset stub.
pub(crate) fn mailbox() -> &'static Mailbox {
    // SAFETY: the stub's assembly defines both the address and, there, sixteen aligned bytes of this layout in
    // the image's own writable memory, which nothing but atomics touches; the identity map covers them.
    unsafe { &*(ap_mailbox_address as *const Mailbox) }
}

// What may outlive the guest's own code lies together; see guest.x.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.resident")]
pub(crate) static boot_pml4: Table = Table::new();
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.resident")]
pub(crate) static boot_pdpt: Table = Table::new();
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.resident")]
static boot_pd: [Table; 4] = [const { Table::new() }; 4];
#[unsafe(no_mangle)]
static mut boot_area: CpuArea = CpuArea::ZERO;

unsafe extern "Rust" {
    /// The guest's program, defined by [`guest!`](crate::guest).
    safe fn guest_main(td: &'static Td) -> exit::Outcome;
}

/// First Rust code of the first vCPU; `hob` is the GPA that the host gave to TDH.VP.INIT.
#[unsafe(no_mangle)]
extern "C" fn rt_first_vcpu(hob: u64) -> ! {
    // SAFETY: this vCPU owns `boot_area`, runs on its stack, and comes here once.
    unsafe { cpu::init(&raw mut boot_area) };
    paging::init();
    let outcome = guest_main(Td::discover(hob));
    exit::power_off(outcome)
}

/// First Rust code of every other vCPU.
#[unsafe(no_mangle)]
extern "C" fn rt_other_vcpu(index: u32) -> ! {
    let mailbox = mailbox();
    let offset = u64::from(index - 1) * u64::from(mailbox.stride.load(core::sync::atomic::Ordering::Acquire));
    let area = mailbox.first_area.load(core::sync::atomic::Ordering::Acquire) + offset;
    // SAFETY: whoever released this vCPU set aside one accepted, identity-mapped area for each index below the
    // released count, for good; this vCPU runs on its stack and comes here once.
    unsafe { cpu::init(area as *mut CpuArea) };
    smp::run_task(index)
}
