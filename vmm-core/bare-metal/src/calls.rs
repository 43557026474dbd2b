//! Work for another processor.
//!
//! # Protocol
//! A processor that has nothing to do sleeps in [`serve_forever`]. Who has work for it puts a call into its slot, and
//! interrupts it. It takes the call out of the slot, does the work, and says that it is done; the caller stays where it is
//! until then, so that the call and all that it refers to may live on the caller's stack.
//!
//! Nobody who waits sleeps over work for itself: waiting processors look at their own slots. A processor that sleeps clears
//! its events first, and looks at its slot afterwards; work is put into the slot before the interrupt is sent. So the look
//! sees it, or the interrupt ends the sleep.
//!
//! **Why this is sound.** The only `unsafe` is that a slot holds a pointer to a call on another processor's stack. The
//! function that puts it there does not return, nor unwinds (panics end the host), before `done` is set; the processor that
//! takes it sets `done` as its last access. The work is `Sync`, so another processor may call it.
#![expect(unsafe_code)]

use alloc::vec::Vec;
use core::mem::transmute;
use core::ptr::null_mut;

use tdvisor_base::Ticks;
use tdvisor_base::sync::{AtomicBool, AtomicPtr, AtomicU32, Mutex, Ordering, spin_loop};

use crate::acpi::MAX_PROCESSORS;
use crate::ring0::apic::{Apic, Command};
use crate::ring0::area::{self, vectors};
use crate::ring0::cpu;

type Work<'a> = dyn Fn(u32) + Sync + 'a;

/// Work, and whether it is done.
struct Call {
    work: *const Work<'static>,
    done: AtomicBool,
    /// The processor to interrupt when it is done, unless that one is spinning.
    sleeper: Option<u32>,
}

static SLOTS: [AtomicPtr<Call>; MAX_PROCESSORS] = [const { AtomicPtr::new(null_mut()) }; MAX_PROCESSORS];
static APIC_IDS: [AtomicU32; MAX_PROCESSORS] = [const { AtomicU32::new(0) }; MAX_PROCESSORS];

/// How long a call may take: far longer than any SEAMCALL, in ticks of the fastest time-stamp counter.
const PATIENCE: Ticks = Ticks::new(60 * 5_000_000_000);

/// Writes down the APIC id of a processor.
pub(crate) fn introduce(processor: u32, apic_id: u32) {
    if let Some(id) = APIC_IDS.get(processor as usize) {
        id.store(apic_id, Ordering::SeqCst);
    }
}

/// Interrupts a processor. All are in x2APIC mode.
pub(crate) fn interrupt(processor: u32) {
    if let Some(id) = APIC_IDS.get(processor as usize) {
        Apic::X2Apic.send(id.load(Ordering::SeqCst), Command::Fixed(vectors::IPI));
    }
}

fn slot(processor: u32) -> &'static AtomicPtr<Call> {
    // Who asks has a number of the list.
    &SLOTS[processor as usize % MAX_PROCESSORS]
}

/// Does what others want of this processor, if there is anything.
pub(crate) fn serve() {
    let processor = area::current();
    let call = slot(processor).swap(null_mut(), Ordering::SeqCst);
    if call.is_null() {
        return;
    }
    // SAFETY: who put it there waits until `done`, and nobody else took it.
    let sleeper = unsafe {
        (*(*call).work)(processor);
        let sleeper = (*call).sleeper;
        (*call).done.store(true, Ordering::SeqCst);
        sleeper
    };
    if let Some(sleeper) = sleeper {
        interrupt(sleeper);
    }
}

/// Sleeps until something interrupts this processor, unless `awaited` is there already.
fn sleep(awaited: impl Fn() -> bool) {
    area::own().events.store(0, Ordering::SeqCst);
    let processor = area::current();
    if slot(processor).load(Ordering::SeqCst).is_null() && !awaited() {
        cpu::halt();
    }
}

/// What a processor does that has nothing to do.
pub fn serve_forever() -> ! {
    loop {
        serve();
        sleep(|| false);
    }
}

/// Puts a call into a slot, and interrupts the processor.
///
/// # Safety
/// The caller keeps the call alive until it is done.
unsafe fn post(processor: u32, call: &Call) {
    let call = (&raw const *call).cast_mut();
    while slot(processor).compare_exchange(null_mut(), call, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        serve();
        spin_loop();
    }
    interrupt(processor);
}

fn call_of(work: &Work<'_>, sleeper: Option<u32>) -> Call {
    let work: *const Work<'_> = work;
    // SAFETY: only the lifetime is forgotten; the call is done before it ends.
    let work = unsafe { transmute::<*const Work<'_>, *const Work<'static>>(work) };
    Call { work, done: AtomicBool::new(false), sleeper }
}

/// Has a processor do something, and waits for it.
pub(crate) fn on<R: Send>(processor: u32, work: impl FnOnce() -> R + Send) -> R {
    let work = Mutex::new(Some(work));
    let result = Mutex::new(None);
    let shared = |_: u32| {
        if let Some(work) = work.lock().take() {
            *result.lock() = Some(work());
        }
    };
    if processor == area::current() {
        shared(processor);
    } else {
        let call = call_of(&shared, None);
        // SAFETY: it is done when the loop ends; a panic ends the host.
        unsafe { post(processor, &call) };
        let deadline = cpu::ticks().saturating_add(PATIENCE);
        while !call.done.load(Ordering::SeqCst) {
            assert!(cpu::ticks() < deadline, "processor {processor} does not answer");
            serve();
            spin_loop();
        }
    }
    match result.into_inner() {
        Some(result) => result,
        None => panic!("processor {processor} took a call and did not do it"),
    }
}

/// Has each of these processors do something, all at once, and waits, however long it takes.
pub(crate) fn on_all(processors: &[u32], work: &Work<'_>) {
    let here = area::current();
    let calls: Vec<Call> = processors.iter().map(|_| call_of(work, Some(here))).collect();
    for (processor, call) in processors.iter().zip(&calls).filter(|(processor, _)| **processor != here) {
        // SAFETY: it is done when the loop below ends; a panic ends the host.
        unsafe { post(*processor, call) };
    }
    if processors.contains(&here) {
        work(here);
    }
    let all_done = || {
        processors
            .iter()
            .zip(&calls)
            .all(|(processor, call)| *processor == here || call.done.load(Ordering::SeqCst))
    };
    while !all_done() {
        serve();
        sleep(all_done);
    }
}
