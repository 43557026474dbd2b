//! The local APICs of all processors, and the way between them.
//!
//! # Protocol
//! Each APIC has a mutex, held for one access and never together with another one. Who delivers a message puts it into
//! the target's APIC, lets the lock go, and rings the target's bell. The processor looks in this order: it clears its
//! bell, then it looks at its APIC. So a message that came before the look is seen by it, and one that came after it
//! leaves the bell rung, which ends the processor's next slice of instructions, its guest's, or its sleep.
//!
//! The line ([`Machine::set_interrupt_pending`]) says whether the processor's APIC has something that it would be
//! interrupted with; it is brought up to date under the APIC's lock by whoever changed the APIC, so the last word is
//! always the true one.
//!
//! [`Machine::set_interrupt_pending`]: seam_emu::Machine::set_interrupt_pending

use std::sync::Arc;
use std::time::Duration;

use seam_emu::Machine;
use seam_emu::machine::InterruptController;
use tdvisor_base::sync::{AtomicBool, Mutex, Ordering};
use tdvisor_devices::IoApic;
use tdvisor_vm::interrupt::mode;

use crate::apic::{Delivery, Effect, Ipi, LocalApic, SavedApic, Trigger};
use crate::bell::Bell;
use crate::bus::Dma;
use crate::remapping::Remapping;
use crate::report::{Notice, Report};
use crate::turns::{SavedTurns, Turns};

/// One processor's APIC, and what wakes the processor.
#[derive(Debug)]
struct Port {
    apic: Mutex<LocalApic>,
    bell: Bell,
    /// A non-maskable interrupt ended a guest on this processor, which does not take it a second time.
    nmi_in_guest: AtomicBool,
}

/// The interrupt controllers of a server.
#[derive(Debug)]
pub struct Interrupts {
    machine: Arc<Machine>,
    ports: Box<[Port]>,
    io_apic: Arc<IoApic>,
    /// What the I/O APIC's interrupts go through.
    remapping: Arc<Remapping>,
    report: Arc<Report>,
    /// Who may run, where a run is to repeat.
    turns: Option<Turns>,
    /// The machine has ended: guests leave their processors.
    ended: AtomicBool,
}

/// What nobody emulates when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Unsupported {
    /// INIT: processors start by the wake-up mailbox.
    Init,
    /// Start-up IPI: processors start by the wake-up mailbox.
    StartUp,
    /// System-management interrupt: there is no such mode.
    Smi,
}

impl Interrupts {
    /// APICs with these ids, one for each processor of the machine, and the way from an I/O APIC to them. With a seed,
    /// processors take turns.
    pub fn new(
        machine: Arc<Machine>,
        apic_ids: &[u32],
        io_apic: Arc<IoApic>,
        report: Arc<Report>,
        seed: Option<u64>,
    ) -> Self {
        let tsc_hz = machine.config().tsc_hz;
        let port = |id: &u32| Port {
            apic: Mutex::new(LocalApic::new(*id, tsc_hz)),
            bell: Bell::default(),
            nmi_in_guest: AtomicBool::new(false),
        };
        let turns = seed.map(|seed| Turns::new(apic_ids.len(), seed));
        let ports = apic_ids.iter().map(port).collect();
        let remapping = Arc::default();
        Self { ports, machine, io_apic, remapping, report, turns, ended: AtomicBool::new(false) }
    }

    /// The unit that remaps interrupts.
    pub(crate) const fn remapping(&self) -> &Arc<Remapping> {
        &self.remapping
    }

    /// Every processor's APIC, as a snapshot holds it.
    pub(crate) fn save(&self) -> Vec<SavedApic> {
        self.ports.iter().map(|port| port.apic.lock().save()).collect()
    }

    /// Whose turn it is and who sleeps, where processors take turns.
    pub(crate) fn save_turns(&self) -> Option<SavedTurns> {
        self.turns.as_ref().map(Turns::save)
    }

    /// Takes saved APICs and turns over; `None` where they are not of such a server. Nobody runs yet.
    pub(crate) fn restore(&self, apics: Vec<SavedApic>, turns: Option<SavedTurns>) -> Option<()> {
        if apics.len() != self.ports.len() {
            return None;
        }
        match (&self.turns, turns) {
            (Some(turns), Some(saved)) => turns.restore(saved)?,
            (None, None) => {}
            _ => return None,
        }
        let tsc_hz = self.machine.config().tsc_hz;
        for (port, saved) in self.ports.iter().zip(apics) {
            let id = port.apic.lock().id();
            *port.apic.lock() = LocalApic::restore(id, tsc_hz, saved);
        }
        // The processors' lines follow their APICs.
        for index in 0..self.ports.len() {
            let _ = self.with(index, |_| ());
        }
        Some(())
    }

    /// The kick flag of a processor, for the CPU that polls it.
    pub(crate) fn bell(&self, processor: usize) -> Option<&Bell> {
        self.ports.get(processor).map(|port| &port.bell)
    }

    /// Wakes a processor, or keeps it from falling asleep.
    pub fn ring(&self, processor: usize) {
        if let Some(port) = self.ports.get(processor) {
            port.bell.ring();
            if let Some(turns) = &self.turns {
                turns.wake(processor);
            }
        }
    }

    /// The machine has ended: everybody looks, and no guest runs on.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        for (index, port) in self.ports.iter().enumerate() {
            // Who changes the APIC from now on sees that it has ended; who did before has set the line already.
            self.with(index, |_| ());
            port.bell.ring();
        }
        if let Some(turns) = &self.turns {
            turns.end();
        }
    }

    /// A processor's thread begins.
    pub(crate) fn begin(&self, processor: usize) {
        if let Some(turns) = &self.turns {
            turns.begin(processor);
        }
    }

    /// A processor's thread ends.
    pub(crate) fn leave(&self, processor: usize) {
        if let Some(turns) = &self.turns {
            turns.leave(processor, &*self.machine);
        }
    }

    /// A point between two slices of instructions at which others may come first.
    pub(crate) fn give_way(&self, processor: usize) {
        if let Some(turns) = &self.turns {
            turns.look(processor, &*self.machine);
        }
    }

    /// The processor executed PAUSE: it waits for another one.
    pub(crate) fn pause(&self, processor: usize) {
        if let Some(turns) = &self.turns {
            turns.spin(processor, &*self.machine);
        }
    }

    /// Whether processors take turns, so that a PAUSE is worth an exit.
    pub(crate) const fn takes_turns(&self) -> bool {
        self.turns.is_some()
    }

    /// Sleeps until somebody rings, or until the processor's timer is due; not at all where `wakes` says so of its APIC.
    ///
    /// `wakes` is asked once the timer had its say, and before the bell is looked at for the last time: what comes later
    /// rings.
    pub(crate) fn sleep(&self, processor: usize, wakes: impl FnOnce(&LocalApic) -> bool) {
        let now = self.machine.tsc();
        let looked = self.with(processor, |apic| {
            apic.tick(now);
            (wakes(apic), apic.deadline())
        });
        let (Some(port), Some((false, deadline))) = (self.ports.get(processor), looked) else { return };
        match &self.turns {
            Some(turns) => turns.sleep(processor, deadline, &*self.machine, || port.bell.is_rung()),
            None => port.bell.sleep(deadline.map(|deadline| self.time_until(deadline, now))),
        }
    }

    /// A parked processor sleeps until somebody rings: nothing of its APIC wakes it.
    pub(crate) fn sleep_parked(&self, processor: usize) {
        let Some(port) = self.ports.get(processor) else { return };
        match &self.turns {
            Some(turns) => turns.sleep(processor, None, &*self.machine, || port.bell.is_rung()),
            None => port.bell.sleep(None),
        }
    }

    fn time_until(&self, deadline: u64, now: u64) -> Duration {
        let hz = self.machine.config().tsc_hz.max(1);
        let nanos = u128::from(deadline.saturating_sub(now)) * 1_000_000_000 / u128::from(hz);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// Does something with a processor's own APIC and brings its line up to date. `None` for a processor that does not
    /// exist.
    pub fn with<R>(&self, processor: usize, act: impl FnOnce(&mut LocalApic) -> R) -> Option<R> {
        let port = self.ports.get(processor)?;
        let mut apic = port.apic.lock();
        let result = act(&mut apic);
        let ended = self.ended.load(Ordering::SeqCst);
        let pending = ended || apic.nmi_waits() || apic.deliverable().is_some();
        self.machine.set_interrupt_pending(processor, pending);
        Some(result)
    }

    /// Delivers an interrupt to every processor that it names.
    ///
    /// # Errors
    /// [`Unsupported`] for what is no interrupt.
    pub fn send(&self, ipi: Ipi) -> Result<(), Unsupported> {
        match ipi.delivery {
            Delivery::Fixed(vector) => self.to_each(ipi, |apic| apic.accept(vector, Trigger::Edge)),
            Delivery::LowestPriority(vector) => self.to_one(ipi, vector, Trigger::Edge),
            Delivery::Nmi => self.to_each(ipi, LocalApic::accept_nmi),
            Delivery::Init => return Err(Unsupported::Init),
            Delivery::StartUp(_) => return Err(Unsupported::StartUp),
            Delivery::Smi => return Err(Unsupported::Smi),
            Delivery::Reserved => {}
        }
        Ok(())
    }

    /// What a write of an APIC register asks of others.
    ///
    /// # Errors
    /// [`Unsupported`] for what is no interrupt.
    pub fn follow(&self, effect: Effect) -> Result<(), Unsupported> {
        match effect {
            Effect::None => Ok(()),
            Effect::Send(ipi) => self.send(ipi),
            Effect::EndOfInterrupt(_) => {
                self.deliver_lines();
                Ok(())
            }
        }
    }

    /// Delivers what devices have raised since the last time.
    pub fn deliver_lines(&self) {
        for entry in self.io_apic.take_entries() {
            let message = match self.remapping.translate(entry, &Dma(&self.machine)) {
                Ok(message) => message,
                Err(lost) => {
                    self.report.note(Notice::LostInterrupt(lost));
                    continue;
                }
            };
            let delivery = match message.mode {
                mode::FIXED => Delivery::Fixed(message.vector),
                mode::LOWEST_PRIORITY => Delivery::LowestPriority(message.vector),
                mode::NMI => Delivery::Nmi,
                _ => continue,
            };
            // What a line carries is one of the three above.
            let _ = self.send(Ipi { destination: message.destination, delivery });
        }
    }

    fn to_each(&self, ipi: Ipi, act: impl Fn(&mut LocalApic)) {
        for index in 0..self.ports.len() {
            let included = self.with(index, |apic| {
                let included = ipi.destination.includes(apic.id());
                if included {
                    act(apic);
                }
                included
            });
            if included == Some(true) {
                self.ring(index);
            }
        }
    }

    /// The first of those named: priorities are not compared.
    fn to_one(&self, ipi: Ipi, vector: u8, trigger: Trigger) {
        for index in 0..self.ports.len() {
            let taken = self.with(index, |apic| {
                let included = ipi.destination.includes(apic.id());
                if included {
                    apic.accept(vector, trigger);
                }
                included
            });
            if taken == Some(true) {
                return self.ring(index);
            }
        }
    }

    /// Looks at what devices have raised and at the processor's timer: one that is due sends its interrupt.
    pub(crate) fn look(&self, processor: usize) {
        self.deliver_lines();
        let now = self.machine.tsc();
        let _ = self.with(processor, |apic| apic.tick(now));
    }

    /// Whether a non-maskable interrupt ended a guest on this processor since the last question: the host is then in
    /// its handler's place, and NMIs are blocked until its IRET.
    pub(crate) fn take_nmi_in_guest(&self, processor: usize) -> bool {
        self.ports.get(processor).is_some_and(|port| port.nmi_in_guest.swap(false, Ordering::AcqRel))
    }
}

impl InterruptController for Interrupts {
    fn poll(&self, lp: usize) {
        self.give_way(lp);
        self.look(lp);
    }

    fn spin(&self, lp: usize) {
        self.pause(lp);
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    fn take_nmi(&self, lp: usize) -> bool {
        let taken = self.with(lp, LocalApic::take_nmi) == Some(true);
        if taken && let Some(port) = self.ports.get(lp) {
            port.nmi_in_guest.store(true, Ordering::Release);
        }
        taken
    }

    fn take_notification(&self, lp: usize, vector: u8) -> bool {
        self.with(lp, |apic| apic.take_notification(vector)) == Some(true)
    }

    fn acknowledge(&self, lp: usize) -> Option<u8> {
        self.with(lp, LocalApic::acknowledge).flatten()
    }
}
