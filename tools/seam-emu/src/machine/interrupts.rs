//! The interrupt controllers around the machine's processors, for a machine that has some.
//!
//! Without a controller a processor has a line ([`Machine::set_interrupt_pending`]) and nothing behind it: a guest that
//! runs there exits with reason 1 and no vector, and posted interrupts are taken at TD entry. With one, the processor
//! does what hardware does (SDM volume 3, "Acknowledge Interrupt on Exit" and "Posted-Interrupt Processing"): the
//! exit carries the vector, which is acknowledged, and the posted-interrupt notification vector does not exit.

use tdvisor_base::sync::{Arc, Ordering};

use super::Machine;

/// The interrupt controllers of all processors, as a processor sees its own while it runs a guest.
///
/// Calls come from the processor's own thread. The controller keeps the processor's line true: pending while one of the
/// answers below would be yes.
pub trait InterruptController: Send + Sync {
    /// The processor is between two slices of a guest's instructions: time has passed, and others may run first.
    fn poll(&self, lp: usize);

    /// The guest executed PAUSE: it waits for another processor. Asked for only where the machine's time is virtual.
    fn spin(&self, lp: usize);

    /// Whether the machine has been switched off. Its line stays pending then, and guests leave their processors: nobody
    /// takes the interrupt that they leave with.
    fn has_ended(&self) -> bool;

    /// Takes a non-maskable interrupt, if one waits.
    fn take_nmi(&self, lp: usize) -> bool;

    /// Takes `vector` if it is the interrupt that would be delivered, without making it one in service.
    fn take_notification(&self, lp: usize, vector: u8) -> bool;

    /// Acknowledges the interrupt that would be delivered, and gives its vector.
    fn acknowledge(&self, lp: usize) -> Option<u8>;
}

impl Machine {
    /// Gives the machine interrupt controllers. The first ones stay.
    pub fn attach_interrupt_controller(&self, controller: std::sync::Weak<dyn InterruptController>) {
        let _ = self.interrupts.set(controller);
    }

    /// The interrupt controllers, where there are some.
    pub(crate) fn interrupt_controller(&self) -> Option<Arc<dyn InterruptController>> {
        self.interrupts.get()?.upgrade()
    }

    /// Whether the outside world keeps a processor's line pending.
    pub fn is_interrupt_pending(&self, lp: usize) -> bool {
        self.processors.get(lp).is_some_and(|processor| processor.interrupt_line.load(Ordering::SeqCst))
    }

    /// Forgets an interrupt that fault injection pretended, which no controller knows of.
    pub(crate) fn drop_pretended_interrupt(&self, lp: usize) {
        if let Some(processor) = self.processors.get(lp) {
            processor
                .interrupt_pending
                .store(processor.interrupt_line.load(Ordering::SeqCst), Ordering::SeqCst);
        }
    }
}
