//! Random schedules of a vCPU that sleeps and of those who wake it (run with `RUSTFLAGS="--cfg shuttle"`).
//!
//! What runs is the production order ([`sleep`]) and the production descriptor ([`request`]); the LP and the processor
//! are small models of what [`td_host::platform::Lp`] and the SDM promise. A lost wake-up is a deadlock, which
//! shuttle finds and prints with its schedule.

#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::convert::Infallible;

use shuttle::sync::{Arc, Condvar, Mutex};
use td_host::ghci::Wake;
use td_host::vcpu::posted::{is_outstanding, request};
use td_host::vcpu::presence::{Presence, Requests};
use td_host::vcpu::sleep::{Sleeper, Slept, sleep};
use tdvisor_base::sync::{AtomicU64, Ordering};

const SCHEDULES: usize = 2_000;
const CONTROL_WORD: usize = 4;

/// One LP: an interrupt that came is remembered until it is taken.
#[derive(Default)]
struct Lp {
    interrupted: Mutex<bool>,
    changed: Condvar,
}

impl Lp {
    fn interrupt(&self) {
        *self.interrupted.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait(&self) {
        let mut interrupted = self.interrupted.lock().unwrap();
        while !*interrupted {
            interrupted = self.changed.wait(interrupted).unwrap();
        }
        *interrupted = false;
    }
}

#[derive(Default)]
struct Shared {
    lp: Lp,
    descriptor: [AtomicU64; 8],
    presence: Presence,
}

impl Shared {
    fn post(&self, vector: u8) {
        if request(&self.descriptor, vector) {
            self.lp.interrupt();
        }
    }
}

struct Vcpu {
    shared: Arc<Shared>,
    /// What the processor took into the virtual APIC.
    requested: u64,
}

impl Vcpu {
    /// An entry: the processor takes the descriptor, and the guest its interrupts.
    fn enter(&mut self) -> u32 {
        let control = &self.shared.descriptor[CONTROL_WORD];
        if control.fetch_and(!1, Ordering::SeqCst) & 1 != 0 {
            self.requested |= self.shared.descriptor[0].swap(0, Ordering::SeqCst);
        }
        std::mem::take(&mut self.requested).count_ones()
    }
}

impl Sleeper for Vcpu {
    type Error = Infallible;

    fn serve_timer(&mut self) -> Result<(), Infallible> {
        Ok(())
    }

    fn is_wanted(&self) -> bool {
        !self.shared.presence.requests().is_empty()
    }

    fn is_posted(&self) -> bool {
        is_outstanding(&self.shared.descriptor)
    }

    fn is_undelivered(&mut self) -> Result<bool, Infallible> {
        Ok(self.requested != 0)
    }

    fn wait(&mut self) -> Result<(), Infallible> {
        self.shared.lp.wait();
        Ok(())
    }
}

#[test]
fn a_sleeping_vcpu_misses_no_interrupt_of_two_senders() {
    shuttle::check_random(
        || {
            let shared = Arc::new(Shared::default());
            let senders: Vec<_> = [[32, 33], [34, 35]]
                .into_iter()
                .map(|vectors| {
                    let shared = shared.clone();
                    shuttle::thread::spawn(move || vectors.into_iter().for_each(|vector| shared.post(vector)))
                })
                .collect();
            let mut vcpu = Vcpu { shared, requested: 0 };
            let mut taken = 0;
            while taken < 4 {
                let Ok(_) = sleep(&mut vcpu, Wake::Interrupt);
                taken += vcpu.enter();
            }
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        },
        SCHEDULES,
    );
}

#[test]
fn a_vcpu_that_sleeps_with_interrupts_blocked_hears_a_request_and_nothing_else() {
    shuttle::check_random(
        || {
            let shared = Arc::new(Shared::default());
            let other = shared.clone();
            let sender = shuttle::thread::spawn(move || {
                other.post(32);
                other.presence.request(Requests::NMI);
                other.lp.interrupt();
            });
            let mut vcpu = Vcpu { shared: shared.clone(), requested: 0 };
            let Ok(slept) = sleep(&mut vcpu, Wake::NmiOnly);
            assert_eq!(slept, Slept::Wanted);
            assert!(shared.presence.take_requests().contains(Requests::NMI), "woken for nothing");
            sender.join().unwrap();
        },
        SCHEDULES,
    );
}
