//! The threads of a TD that runs: one for each vCPU, one that watches, one that lets devices attend to their host.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tdvisor_monitor::Monitor;
use tdvisor_vm::{Ending, Partition};

use crate::bell::Bell;
use crate::session::Watch;

/// What a TD is driven with.
pub(crate) struct Driver<'a, P: Partition> {
    /// The TD.
    pub(crate) vm: &'a P,
    /// What answers its exits.
    pub(crate) monitor: &'a Monitor,
    /// What whoever feeds a device rings.
    pub(crate) bell: &'a Bell,
    /// Hears, once, that every vCPU has its thread and is about to run.
    pub(crate) has_begun: &'a (dyn Fn() + Sync),
    /// Hears, once, that the TD has ended.
    pub(crate) has_ended: &'a (dyn Fn(&Ending<P::Death>) + Sync),
    /// Hears that a vCPU is done.
    pub(crate) vcpu_done: &'a (dyn Fn(u32) + Sync),
}

impl<P: Partition> Driver<'_, P> {
    /// Runs every vCPU on a thread of its own until the TD has ended, or is stopped because the watch wants it.
    pub(crate) fn drive(&self, watch: &impl Watch) -> Ending<P::Death> {
        let finished = AtomicBool::new(false);
        let to_begin = AtomicU32::new(self.vm.vcpu_count());
        std::thread::scope(|scope| {
            let to_begin = &to_begin;
            let vcpus: Vec<_> = (0..self.vm.vcpu_count())
                .filter_map(|index| {
                    // By its name whoever manages the host finds the thread of a vCPU.
                    let thread = std::thread::Builder::new().name(format!("vcpu{index}"));
                    let vcpu = thread.spawn_scoped(scope, move || {
                        if to_begin.fetch_sub(1, Ordering::SeqCst) == 1 {
                            (self.has_begun)();
                        }
                        self.monitor.run_vcpu(self.vm, index);
                        (self.vcpu_done)(index);
                    });
                    // A TD that lacks a vCPU does not run.
                    vcpu.inspect_err(|_| self.stop()).ok()
                })
                .collect();
            scope.spawn(|| self.watch(watch, &finished));
            scope.spawn(|| self.attend(&finished));
            for vcpu in vcpus {
                if vcpu.join().is_err() {
                    self.stop();
                }
            }
            finished.store(true, Ordering::SeqCst);
            watch.ring();
            self.bell.ring();
        });
        self.vm.ending().unwrap_or(Ending::Stopped)
    }

    fn stop(&self) {
        self.vm.end(Ending::Stopped);
    }

    /// Lets devices attend to what the host has for them, until all vCPUs are done.
    fn attend(&self, finished: &AtomicBool) {
        loop {
            self.bell.wait();
            if finished.load(Ordering::SeqCst) {
                return;
            }
            if self.monitor.attend(self.vm).is_err() {
                self.stop();
            }
        }
    }

    /// Stops the TD when it has to end, and delivers the interrupts of typed input; returns when all vCPUs are done.
    fn watch(&self, watch: &impl Watch, finished: &AtomicBool) {
        let mut was_told = false;
        while !finished.load(Ordering::SeqCst) {
            if watch.wants_stop() || self.monitor.deliver_lines(self.vm).is_err() {
                self.stop();
            }
            if !was_told && let Some(ending) = self.vm.ending() {
                was_told = true;
                (self.has_ended)(&ending);
            }
            watch.wait();
        }
    }
}
