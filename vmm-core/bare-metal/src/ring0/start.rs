//! Starting the other processors, one after the other: by the multiprocessor wake-up mailbox (ACPI 6.5), or by INIT and a
//! start-up IPI (SDM volume 3, "Multiple-processor initialization").
//!
//! # Protocol
//! The first processor writes down whose turn it is (its number, its stack, the page tables), wakes it, and waits until the
//! number says that it is there. The other one loads its own tables, says so, and goes to the loop that it was given.
//!
//! **Why this is sound.** The assembly is entered by processors that execute nothing else, and gives each of them the stack of
//! the area with its number; that is the only one who uses it. The trampoline is copied to a page of usable memory below
//! 1 MiB that the caller took out of the memory map; the mailbox is firmware's, of which the specification says what may be
//! written where.
#![expect(unsafe_code)]

use core::arch::global_asm;
use core::ptr::null_mut;

use tdvisor_base::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering, spin_loop};
use tdvisor_base::{Hpa, PAGE_SIZE};

use super::apic::{Apic, Command};
use super::area::{self, AREAS};
use super::identity::ENTRY_LIMIT;
use super::{Ring0, cpu};
use crate::acpi::WakeUp;

global_asm!(include_str!("trampoline.s"), options(att_syntax));

global_asm!(
    include_str!("other_processor.s"),
    ROOT = sym ROOT,
    STACK = sym STACK,
    begin = sym begin,
);

// SAFETY: labels of the assembly above, of which addresses are taken; what lies between the first two is copied as bytes.
unsafe extern "C" {
    static bare_metal_trampoline: u8;
    static bare_metal_trampoline_end: u8;
    static bare_metal_trampoline_values: u8;
    fn bare_metal_other_processor();
}

/// The page tables that a processor loads.
static ROOT: AtomicU64 = AtomicU64::new(0);
/// The stack of the processor that starts.
static STACK: AtomicU64 = AtomicU64::new(0);
/// The number of the processor that starts.
static TURN: AtomicU32 = AtomicU32::new(0);
/// The number of the last processor that came; 0 is the first, which was always there.
static ARRIVED: AtomicU32 = AtomicU32::new(0);
/// Where the processor that starts goes on.
static GO_ON: AtomicPtr<()> = AtomicPtr::new(null_mut());

/// Pages that may hold the trampoline: a start-up IPI names one of the first 256.
pub const TRAMPOLINE_LIMIT: u64 = 0x10_0000;

/// A time-stamp counter is not faster than this, so waits are at least as long as they say.
const FASTEST_TSC: u64 = 5_000_000_000;
/// How long a processor may take until it is there.
const PATIENCE_MS: u64 = 2_000;

/// A processor did not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DidNotStart {
    /// The APIC id of the processor.
    pub apic_id: u32,
}

/// Where the mailbox's fields are.
mod mailbox {
    pub const COMMAND: u64 = 0;
    pub const APIC_ID: u64 = 4;
    pub const VECTOR: u64 = 8;
    pub const WAKE_UP: u16 = 1;
}

/// Sets this processor up: control bits, page tables, its area, its APIC. Gives the APIC.
///
/// # Safety
/// It is called once on each processor, which has the stack of area `index`; `root` maps everything to itself.
pub(crate) unsafe fn set_up(index: u32, root: u64) -> Option<Apic> {
    cpu::set_up();
    // SAFETY: the caller's promises.
    unsafe {
        cpu::load_page_tables(root);
        AREAS.get(index as usize)?.load(index);
    }
    Some(Apic::turn_on())
}

/// Starts processors.
#[derive(Debug)]
pub struct Starter {
    /// The first processor's APIC.
    pub apic: Apic,
    /// The page tables.
    pub root: u64,
    /// How they are woken.
    pub wake_up: WakeUp,
    /// A page below 1 MiB that is nobody else's.
    pub trampoline: Option<Hpa>,
}

impl Starter {
    /// Starts the processor with this APIC id as number `index`, and gives it `go_on` to run for ever.
    ///
    /// # Errors
    /// [`DidNotStart`] after two seconds. A processor that comes later than that is caught before it does anything.
    pub fn start(&self, _: Ring0, apic_id: u32, index: u32, go_on: fn() -> !) -> Result<(), DidNotStart> {
        let late = DidNotStart { apic_id };
        let area = AREAS.get(index as usize).ok_or(late)?;
        ROOT.store(self.root, Ordering::SeqCst);
        STACK.store(area.stack_top(), Ordering::SeqCst);
        GO_ON.store(go_on as *mut (), Ordering::SeqCst);
        TURN.store(index, Ordering::SeqCst);
        let there = || ARRIVED.load(Ordering::SeqCst) == index;
        match self.wake_up {
            WakeUp::Mailbox(mailbox) if mailbox < ENTRY_LIMIT - PAGE_SIZE => ring(mailbox, apic_id),
            // Where nothing is mapped.
            WakeUp::Mailbox(_) => return Err(late),
            WakeUp::InitSipi => self.init(apic_id, there).ok_or(late)?,
        }
        if wait_until(PATIENCE_MS * 1000, there) {
            return Ok(());
        }
        // Taken back in one step with the other's `begin`: either it is there now, or it will not get past its first step.
        match TURN.compare_exchange(index, 0, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => Err(late),
            Err(_) if wait_until(PATIENCE_MS * 1000, there) => Ok(()),
            Err(_) => Err(late),
        }
    }

    /// INIT, ten milliseconds, and up to two start-up IPIs.
    fn init(&self, apic_id: u32, there: impl Fn() -> bool) -> Option<()> {
        const AFTER_INIT_US: u64 = 10_000;
        const AFTER_START_UP_US: u64 = 200;
        let page = self.trampoline?;
        let number = u8::try_from(page.frame().get()).ok()?;
        copy_trampoline(page, self.root);
        self.apic.send(apic_id, Command::Init);
        wait_until(AFTER_INIT_US, || false);
        for _ in 0..2 {
            self.apic.send(apic_id, Command::StartUp(number));
            if wait_until(AFTER_START_UP_US, &there) {
                break;
            }
        }
        Some(())
    }
}

/// Waits until `done`, for so many microseconds at least.
fn wait_until(microseconds: u64, done: impl Fn() -> bool) -> bool {
    let end = cpu::ticks().saturating_add(tdvisor_base::Ticks::new(microseconds * (FASTEST_TSC / 1_000_000)));
    while cpu::ticks() < end {
        if done() {
            return true;
        }
        spin_loop();
    }
    done()
}

fn ring(mailbox: u64, apic_id: u32) {
    let entry = bare_metal_other_processor as *const () as u64;
    // SAFETY: the mailbox's fields, each with its own width; it is mapped to itself as all of the first 4 GiB are, and
    // firmware's tables name no other place for it.
    unsafe {
        ((mailbox + mailbox::APIC_ID) as *mut u32).write_volatile(apic_id);
        ((mailbox + mailbox::VECTOR) as *mut u64).write_volatile(entry);
        ((mailbox + mailbox::COMMAND) as *mut u16).write_volatile(mailbox::WAKE_UP);
    }
}

fn copy_trampoline(page: Hpa, root: u64) {
    let start = &raw const bare_metal_trampoline;
    let bytes = (&raw const bare_metal_trampoline_end).addr() - start.addr();
    let values = (&raw const bare_metal_trampoline_values).addr() - start.addr();
    let to = page.get() as *mut u8;
    // SAFETY: the page is mapped and nobody else's, the trampoline is shorter than a page, and the values lie in it, aligned.
    unsafe {
        start.copy_to_nonoverlapping(to, bytes);
        to.add(values).cast::<u64>().write(root);
        to.add(values + 8).cast::<u64>().write(bare_metal_other_processor as *const () as u64);
    }
}

/// Where the assembly goes on.
extern "C" fn begin() -> ! {
    let index = TURN.swap(0, Ordering::SeqCst);
    let root = ROOT.load(Ordering::SeqCst);
    // A processor that comes after its time, or that nobody called, has nothing to do here. Number 0 is never called.
    // SAFETY: the assembly gave this processor the stack of that area; tables are those of the first processor.
    let apic = if index == 0 { None } else { unsafe { set_up(index, root) } };
    if apic.is_none() {
        cpu::stop();
    }
    let go_on = GO_ON.load(Ordering::SeqCst).cast_const();
    // SAFETY: `start` wrote the address of a function of this type before it called this processor.
    let go_on = unsafe { core::mem::transmute::<*const (), fn() -> !>(go_on) };
    ARRIVED.store(area::current(), Ordering::SeqCst);
    go_on()
}
