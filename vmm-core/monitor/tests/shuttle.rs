//! Random schedules of a VM that is held and let go on (run with `RUSTFLAGS="--cfg shuttle"`).
//!
//! What runs is the production [`Hold`]; a vCPU is a thread that is in its guest until it is interrupted. A vCPU that is never
//! let go, and a wait for stillness that nobody ends, are deadlocks, which shuttle finds and prints with their schedules.

#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

use std::time::{Duration, Instant};

use shuttle::sync::Arc;
use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use shuttle::thread;
use tdvisor_monitor::hold::{Hold, NotStill, Phase};

const SCHEDULES: usize = 2_000;
const VCPUS: usize = 2;
/// Longer than any schedule takes.
const LONG: Duration = Duration::from_secs(3600);

struct Vm {
    hold: Hold,
    /// A vCPU's run is to end.
    interrupts: [AtomicBool; VCPUS],
    in_guest: AtomicUsize,
    working: AtomicUsize,
    ended: AtomicBool,
}

impl Vm {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            hold: Hold::new(VCPUS as u32),
            interrupts: Default::default(),
            in_guest: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// The loop of a vCPU, as the monitor has it.
    fn run_vcpu(&self, index: usize) {
        while !self.ended.load(Ordering::SeqCst) {
            if self.interrupts[index].swap(false, Ordering::SeqCst) {
                self.hold.rest();
                continue;
            }
            self.in_guest.fetch_add(1, Ordering::SeqCst);
            thread::yield_now();
            self.in_guest.fetch_sub(1, Ordering::SeqCst);
        }
        self.hold.end();
    }

    fn interrupt_all(&self) {
        self.interrupts.iter().for_each(|interrupt| interrupt.store(true, Ordering::SeqCst));
    }

    fn pause(&self) -> Result<(), NotStill> {
        self.hold.request();
        self.interrupt_all();
        self.hold.await_still(Instant::now() + LONG)
    }

    fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        self.hold.end();
    }
}

fn vcpus(vm: &Arc<Vm>) -> Vec<thread::JoinHandle<()>> {
    (0..VCPUS)
        .map(|index| {
            let vm = vm.clone();
            thread::spawn(move || vm.run_vcpu(index))
        })
        .collect()
}

#[test]
fn a_vm_that_stands_still_has_no_vcpu_in_its_guest_and_nobody_who_works_for_it() {
    shuttle::check_random(
        || {
            let vm = Vm::new();
            let vcpus = vcpus(&vm);
            let of_worker = vm.clone();
            let worker = thread::spawn(move || {
                for _ in 0..2 {
                    of_worker.hold.unless_held(|| {
                        of_worker.working.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        of_worker.working.fetch_sub(1, Ordering::SeqCst);
                    });
                }
            });
            for _ in 0..2 {
                vm.pause().unwrap();
                assert_eq!(vm.in_guest.load(Ordering::SeqCst), 0, "a vCPU is in the guest");
                assert_eq!(vm.working.load(Ordering::SeqCst), 0, "somebody works");
                assert!(vm.hold.release());
            }
            vm.end();
            worker.join().unwrap();
            vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
        },
        SCHEDULES,
    );
}

#[test]
fn a_vm_that_ends_while_it_is_asked_to_stand_still_keeps_nobody_waiting() {
    shuttle::check_random(
        || {
            let vm = Vm::new();
            let vcpus = vcpus(&vm);
            let of_asker = vm.clone();
            let asker = thread::spawn(move || of_asker.pause());
            vm.end();
            let answer = asker.join().unwrap();
            assert!(matches!(answer, Ok(()) | Err(NotStill::Ended)), "{answer:?}");
            assert_eq!(vm.hold.phase(), Phase::Ended);
            vcpus.into_iter().for_each(|vcpu| vcpu.join().unwrap());
        },
        SCHEDULES,
    );
}
