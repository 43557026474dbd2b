//! Logical processors as a TD host has them.
//!
//! # Interrupts around a guest
//! IF is 0, so an interrupt waits in the local APIC, and ends TDH.VP.ENTER, which acknowledges it and gives its vector. One
//! that was taken before ([`events`]) is sent to the processor itself again, so that it is not lost: the entry ends at once.
//! After an interrupt of another processor the next entry begins with the vector that tells the processor of posted
//! interrupts, because that may be what it came for; in a guest it makes no exit.
//!
//! # What TDH.VP.ENTER does not preserve
//! FMASK, STAR, LSTAR, TSC_AUX, KERNEL_GS_BASE, XCR0, XSS, DR7 and DEBUGCTL are never used here. x87 and XMM registers come
//! back as reset leaves them, which is what the calling convention wants of the control words, and it leaves the rest to
//! callers.
//!
//! **Why this is sound.** The only `unsafe` is the right to execute SEAMCALL: the code runs in ring 0 on the processor that
//! executes it, whose handlers use `fixup`; pages that leaves get come from `td_host`'s page allocator or are the caller's, and none
//! of them is a Rust object; what is not preserved is listed above.
#![expect(unsafe_code)]

use td_host::platform::{Lp, LpId, PendingEvents};
use td_host::vcpu::posted::NOTIFICATION_VECTOR;
use tdvisor_base::sync::Ordering;
use tdvisor_base::{Hpa, Ticks};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::hw::HwLp;
use tdx_module_iface::{Gprs, LeafWord, SeamCall, SeamCallFault, TdhLeaf};
use x86_arch::vector;

use crate::calls;
use crate::machine::BareMetal;
use crate::ring0::area::{self, events, vectors};
use crate::ring0::{apic, cpu};

/// What ends a guest's entry, and a vCPU's sleep.
const WAKING: u32 = events::IPI | events::TIMER;

/// Possession of one processor; given back when dropped. What is done with it happens on that processor, whoever holds it.
#[derive(Debug)]
pub struct BareLp<'p> {
    machine: &'p BareMetal,
    id: LpId,
}

impl<'p> BareLp<'p> {
    pub(crate) const fn new(machine: &'p BareMetal, id: LpId) -> Self {
        Self { machine, id }
    }

    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        if self.id.0 == area::current() { work() } else { calls::on(self.id.0, work) }
    }
}

impl Drop for BareLp<'_> {
    fn drop(&mut self) {
        self.machine.give_back(self.id);
    }
}

impl SeamCall for BareLp<'_> {
    fn seamcall(&mut self, gprs: &mut Gprs) -> Result<(), SeamCallFault> {
        self.run(|| {
            let enters = TdhLeaf(LeafWord(gprs.rax).leaf()) == TdhLeaf::VP_ENTER;
            if enters {
                before_entry();
            }
            // SAFETY: see the file's first paragraph.
            let result = unsafe { HwLp::claim() }.seamcall(gprs);
            if enters && result.is_ok() {
                after_exit(gprs);
            } else if gprs.rax != 0 {
                // A leaf that can be interrupted would be, again and again.
                cpu::take_interrupts();
            }
            result
        })
    }
}

fn before_entry() {
    let events = &area::own().events;
    if events.fetch_and(!events::NOTIFICATION, Ordering::SeqCst) & events::NOTIFICATION != 0 {
        apic::interrupt_self(NOTIFICATION_VECTOR);
    }
    if events.load(Ordering::SeqCst) & WAKING != 0 {
        apic::interrupt_self(vectors::IPI);
    }
}

/// An interrupt that ended the entry is in service: its handler's work is done here.
fn after_exit(gprs: &Gprs) {
    /// The status is an error: there is no exit reason.
    const ERROR: u64 = 1 << 63;
    /// Interruption information: valid; its kind; external interrupts are kind 0, NMIs kind 2.
    const VALID: u64 = 1 << 31;
    const KIND: u64 = 0b111 << 8;
    const NMI: u64 = 2 << 8;
    if gprs.rax & ERROR != 0 || gprs.r9 & VALID == 0 {
        return;
    }
    let reason = ExitReason((gprs.rax & 0xffff) as u16);
    let own = area::own();
    if reason == ExitReason::EXTERNAL_INTERRUPT && gprs.r9 & KIND == 0 {
        let event = match (gprs.r9 & 0xff) as u8 {
            vectors::IPI => events::IPI,
            vectors::TIMER => events::TIMER,
            NOTIFICATION_VECTOR => events::NOTIFICATION,
            _ => 0,
        };
        own.events.fetch_or(event, Ordering::SeqCst);
        apic::end_of_interrupt();
    } else if reason == ExitReason::EXCEPTION_NMI && gprs.r9 & (KIND | 0xff) == NMI | u64::from(vector::NMI) {
        own.nmis.fetch_add(1, Ordering::SeqCst);
        cpu::unblock_nmis();
    }
}

fn acknowledge() -> PendingEvents {
    cpu::take_interrupts();
    let own = area::own();
    let taken = own.events.fetch_and(!WAKING, Ordering::SeqCst);
    if taken & events::IPI != 0 {
        own.events.fetch_or(events::NOTIFICATION, Ordering::SeqCst);
    }
    PendingEvents { ipi: taken & events::IPI != 0, timer: taken & events::TIMER != 0 }
}

fn wait() {
    let own = area::own();
    // With IF 0, an interrupt that comes after the look ends the sleep at once.
    while own.events.load(Ordering::SeqCst) & WAKING == 0 {
        cpu::halt();
    }
}

impl Lp for BareLp<'_> {
    fn id(&self) -> LpId {
        self.id
    }

    fn invept(&mut self, _root: Hpa) {
        self.run(cpu::drop_second_stages);
    }

    fn wbinvd(&mut self) {
        self.run(cpu::write_back_caches);
    }

    fn set_timer(&mut self, deadline: Option<Ticks>) {
        self.run(|| apic::set_timer(deadline));
    }

    fn wait_for_event(&mut self) {
        self.run(wait);
    }

    fn give_way(&mut self) {}

    fn acknowledge_events(&mut self) -> PendingEvents {
        self.run(acknowledge)
    }
}
