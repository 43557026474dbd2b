//! The other vCPUs: they help to accept memory, then wait in a loop that an operating system ends.
//!
//! Each takes the next few blocks of [`Slices`] by one counter until none is left. Then it leaves its stack for
//! good and polls the mailbox from the resident page (park.s), so that its stack's memory can be given away.

use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use guest_rt::memory::{self, AcceptError, Accepted};
use guest_rt::sync::{Once, SpinLock};
use guest_rt::{cpu, smp};

use crate::hob::Range;
use crate::problem::Problem;
use crate::slices::Slices;

/// Most vCPUs that the shim takes on.
pub const MAX: u32 = 512;
/// Blocks that a vCPU takes at a time.
const TURN: u64 = 8;
/// Waits in vain, each of many polls, before a vCPU is taken for lost.
const ATTEMPTS: u32 = 4;

core::arch::global_asm!(include_str!("park.s"));

unsafe extern "C" {
    static park_begin: u8;
    static park_reset: u8;
    static park_cr3: u8;
    static park_end: u8;
}

/// The multiprocessor wake-up mailbox (ACPI 6.5, table 5.44), as far as the firmware cares.
mod mailbox {
    pub const APIC_ID: usize = 4;
    /// The firmware's half of the page.
    pub const OF_FIRMWARE: usize = 2048;
    pub const NOBODY: u32 = u32::MAX;
}

struct Work {
    slices: Slices<'static>,
    mailbox: u64,
}

static WORK: Once<Work> = Once::new();
static NEXT: AtomicU64 = AtomicU64::new(0);
static PARKED: AtomicU32 = AtomicU32::new(0);
static ACCEPTED: SpinLock<Accepted> = SpinLock::new(Accepted { small: 0, large: 0, already: 0 });
static REFUSED: SpinLock<Option<AcceptError>> = SpinLock::new(None);
static STOP: AtomicBool = AtomicBool::new(false);

/// What the vCPUs work with and leave behind.
#[derive(Debug)]
pub struct Places {
    /// Stacks for the other vCPUs: [`areas_length`] bytes.
    pub areas: &'static mut [u8],
    /// The mailbox's page, whose second half gets the code of [`park.s`].
    pub mailbox: &'static mut [u8],
}

/// Bytes of stacks for all of `vcpus` but the first.
pub fn areas_length(vcpus: u32) -> u64 {
    u64::from(vcpus.saturating_sub(1)) * smp::AREA_SIZE
}

/// Accepts all blocks on all vCPUs; at the end all but this one are parked.
///
/// # Errors
/// A block that was refused, or vCPUs that did not come.
pub fn accept_all(slices: Slices<'static>, places: Places) -> Result<Accepted, Problem> {
    let Places { areas, mailbox } = places;
    if let Some(place) = mailbox.get_mut(mailbox::APIC_ID..).and_then(|rest| rest.first_chunk_mut()) {
        *place = mailbox::NOBODY.to_le_bytes();
    }
    place_park_code(mailbox).ok_or(Problem::UsedTwice("parking place"))?;
    let work = Work { slices, mailbox: mailbox.as_ptr() as u64 };
    WORK.set(work).ok_or(Problem::UsedTwice("vCPUs"))?;
    let others = if areas.is_empty() { 0 } else { smp::release_onto(areas, other_vcpu) };
    take_turns();
    wait_for(others)?;
    if let Some(refused) = REFUSED.lock().take() {
        return Err(refused.into());
    }
    Ok(*ACCEPTED.lock())
}

/// Waits until the others are parked. A host with fewer processors than vCPUs may be slow, so patience begins anew
/// with each vCPU that comes.
fn wait_for(others: u32) -> Result<(), Problem> {
    let parked = || PARKED.load(Ordering::Acquire);
    let mut attempts = 0;
    while parked() < others {
        let before = parked();
        if smp::wait_until(|| parked() > before) {
            attempts = 0;
        } else if attempts == ATTEMPTS {
            return Err(Problem::LostVcpus { parked: before, released: others });
        } else {
            attempts += 1;
        }
    }
    Ok(())
}

/// Accepts a range on this vCPU alone.
///
/// # Errors
/// A page that was refused.
pub fn accept(range: Range) -> Result<(), Problem> {
    *ACCEPTED.lock() += memory::accept(range)?;
    Ok(())
}

fn take_turns() {
    let Some(work) = WORK.get() else { return };
    let mut sum = Accepted::default();
    'turns: while !STOP.load(Ordering::Relaxed) {
        let first = NEXT.fetch_add(TURN, Ordering::Relaxed);
        for number in first..first + TURN {
            let Some(block) = work.slices.block(number) else { break 'turns };
            match memory::accept(block) {
                Ok(accepted) => sum += accepted,
                Err(error) => {
                    STOP.store(true, Ordering::Relaxed);
                    *REFUSED.lock() = Some(error);
                    break 'turns;
                }
            }
        }
    }
    *ACCEPTED.lock() += sum;
}

fn other_vcpu(index: u32) {
    take_turns();
    let Some(work) = WORK.get() else { return };
    // The table of handlers is in memory that will be given away.
    cpu::drop_exception_handlers();
    // SAFETY: the mailbox's page holds the code of park.s, executable in the identity map, and its contract is kept:
    // mailbox and counter are valid for ever (the counter until the last vCPU has counted itself), this vCPU's APIC
    // id is its index, and it has no use for its stack any more.
    unsafe {
        core::arch::asm!(
            "jmp {code}",
            code = in(reg) work.mailbox + mailbox::OF_FIRMWARE as u64,
            in("rdi") work.mailbox,
            in("esi") index,
            in("rdx") PARKED.as_ptr(),
            options(noreturn)
        )
    }
}

/// Where a vCPU waits again that an operating system has no use for, with the mailbox at this address.
pub fn reset_vector(mailbox: u64) -> u64 {
    let (begin, reset) = (&raw const park_begin as u64, &raw const park_reset as u64);
    mailbox + mailbox::OF_FIRMWARE as u64 + (reset - begin)
}

/// Copies the code of park.s into the mailbox's page, and tells it the page tables in use.
fn place_park_code(mailbox: &mut [u8]) -> Option<()> {
    let tables: u64;
    // SAFETY: reading CR3 changes nothing.
    unsafe { core::arch::asm!("mov {}, cr3", out(reg) tables, options(nomem, nostack, preserves_flags)) };
    let code = park_code();
    let place = mailbox.get_mut(mailbox::OF_FIRMWARE..)?.get_mut(..code.len())?;
    place.copy_from_slice(code);
    let (begin, cr3) = (&raw const park_begin as usize, &raw const park_cr3 as usize);
    place.get_mut(cr3 - begin..)?.first_chunk_mut().map(|word| *word = tables.to_le_bytes())
}

fn park_code() -> &'static [u8] {
    // SAFETY: the two symbols enclose the code of park.s, which is read-only and lives for ever.
    unsafe {
        let (begin, end) = (&raw const park_begin, &raw const park_end);
        core::slice::from_raw_parts(begin, end as usize - begin as usize)
    }
}
