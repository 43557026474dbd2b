//! The threads of a TD that runs: one for each vCPU, one that watches, one that lets devices attend to their host and
//! pauses the TD.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tdvisor_monitor::hold::{Hold, Phase};
use tdvisor_monitor::{Conversion, Listener, Monitor, QuoteUnavailable};
use tdvisor_vm::{Ending, Partition};

use crate::bell::Bell;
use crate::inspect::live::Live;
use crate::session::Watch;

/// What happens to a TD while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// The TD was paused.
    Paused,
    /// The TD goes on.
    Resumed,
    /// The guest had memory converted.
    Converted(Conversion),
    /// The guest asked for a quote.
    Quoted {
        /// The vCPU that asked.
        vcpu: u32,
        /// Bytes of the quote, or why there is none.
        quote: Result<usize, QuoteUnavailable>,
    },
}

/// What keeps vCPUs that take turns out of their guests.
pub(crate) trait Turns: Sync {
    /// Waits until the turn that goes on has ended; none follows.
    fn hold(&self);

    /// Turns go on.
    fn release(&self);
}

/// What a TD is driven with.
pub(crate) struct Driver<'a, P: Partition> {
    /// The TD.
    pub(crate) vm: &'a P,
    /// What answers its exits.
    pub(crate) monitor: &'a Monitor,
    /// What whoever feeds a device rings, and whoever pauses the TD.
    pub(crate) bell: &'a Bell,
    /// What the watch may look at while the TD runs.
    pub(crate) live: Live<'a>,
    /// Hears, once, that every vCPU has its thread and is about to run.
    pub(crate) has_begun: &'a (dyn Fn() + Sync),
    /// What the TD is paused by.
    pub(crate) hold: &'a Hold,
    /// The order in which the TD's vCPUs take turns, if they do.
    pub(crate) turns: Option<&'a dyn Turns>,
    /// Hears what happens while the TD runs.
    pub(crate) told: &'a (dyn Fn(Happening) + Sync),
    /// Hears, once, that the TD has ended.
    pub(crate) has_ended: &'a (dyn Fn(&Ending<P::Death>) + Sync),
    /// Hears that a vCPU is done.
    pub(crate) vcpu_done: &'a (dyn Fn(u32) + Sync),
}

impl<P: Partition> Listener for Driver<'_, P> {
    fn interrupted(&self, _vcpu: u32) {
        self.hold.rest();
    }

    fn converted(&self, conversion: Conversion) {
        (self.told)(Happening::Converted(conversion));
    }

    fn quoted(&self, vcpu: u32, quote: Result<usize, QuoteUnavailable>) {
        (self.told)(Happening::Quoted { vcpu, quote });
    }
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
                        self.monitor.run_vcpu(self.vm, index, self);
                        // A vCPU is done when its TD has ended: those that rest have to find that out.
                        self.hold.end();
                        (self.vcpu_done)(index);
                        self.bell.ring();
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
        self.hold.end();
        self.bell.ring();
    }

    /// Lets devices attend to what the host has for them, and pauses the TD, until all vCPUs are done.
    fn attend(&self, finished: &AtomicBool) {
        let (mut turns_are_held, mut is_paused) = (false, false);
        loop {
            self.bell.wait();
            if finished.load(Ordering::SeqCst) {
                return;
            }
            turns_are_held = match self.hold.phase() {
                Phase::Stopping => self.pause(turns_are_held),
                Phase::Still => {
                    if !std::mem::replace(&mut is_paused, true) {
                        (self.told)(Happening::Paused);
                    }
                    turns_are_held
                }
                Phase::Running => {
                    if std::mem::take(&mut is_paused) {
                        (self.told)(Happening::Resumed);
                    }
                    self.release_turns(turns_are_held);
                    if self
                        .hold
                        .unless_held(|| self.monitor.attend(self.vm))
                        .is_some_and(|done| done.is_err())
                    {
                        self.stop();
                    }
                    false
                }
                Phase::Ended => {
                    self.release_turns(turns_are_held);
                    false
                }
            };
        }
    }

    /// Gets every vCPU out of its guest. Whether the turns are held then.
    fn pause(&self, turns_are_held: bool) -> bool {
        let Some(turns) = self.turns else {
            (0..self.vm.vcpu_count()).for_each(|vcpu| self.vm.interrupt(vcpu));
            return false;
        };
        if !turns_are_held {
            turns.hold();
        }
        let is_held = self.hold.stands_still();
        if !is_held {
            turns.release();
        }
        is_held
    }

    fn release_turns(&self, are_held: bool) {
        if let (true, Some(turns)) = (are_held, self.turns) {
            turns.release();
        }
    }

    /// Stops the TD when it has to end, and delivers the interrupts of typed input; returns when all vCPUs are done.
    fn watch(&self, watch: &impl Watch, finished: &AtomicBool) {
        let mut was_told = false;
        while !finished.load(Ordering::SeqCst) {
            let delivered = self.hold.unless_held(|| self.monitor.deliver_lines(self.vm));
            if watch.wants_stop() || delivered.is_some_and(|delivered| delivered.is_err()) {
                self.stop();
            }
            if !was_told && let Some(ending) = self.vm.ending() {
                was_told = true;
                self.hold.end();
                self.bell.ring();
                (self.has_ended)(&ending);
            }
            watch.running(self.live);
            watch.wait();
        }
        // It may have ended, and every vCPU with it, since the last look.
        if !was_told && let Some(ending) = self.vm.ending() {
            (self.has_ended)(&ending);
        }
    }
}
