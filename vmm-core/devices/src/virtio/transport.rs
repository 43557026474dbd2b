//! What all transports have in common: status, features and queues of a device, and answering what waits in them.
//!
//! A transport translates its registers into calls of [`Driven`], and what comes back ([`Signal`]) into interrupts.
//!
//! # Invariants
//! - FEATURES_OK stays only with features that were offered and all that are [`features::REQUIRED`].
//! - No memory is touched before DRIVER_OK, after FAILED, or after DEVICE_NEEDS_RESET.

use alloc::boxed::Box;
use alloc::vec::Vec;

use tdvisor_base::{SharedBit, to_usize};

use super::queue::{Area, Half, Queue};
use super::{Broken, Queues, Served, VirtioDevice, features};
use crate::{AccessSize, SharedMemory};

/// Bits of the status register (section 2.1).
mod status {
    /// The driver can drive the device.
    pub(super) const DRIVER_OK: u32 = 4;
    /// The features are settled.
    pub(super) const FEATURES_OK: u32 = 8;
    /// The device stopped and waits for a reset: set by the device.
    pub(super) const DEVICE_NEEDS_RESET: u32 = 64;
    /// The driver gave up.
    pub(super) const FAILED: u32 = 128;

    /// Every bit that a driver may add: those above, ACKNOWLEDGE and DRIVER.
    pub(super) const OF_DRIVER: u32 = 1 | 2 | DRIVER_OK | FEATURES_OK | FAILED;
}

/// What the driver has to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Signal {
    /// Nothing.
    None,
    /// Requests of these queues were returned.
    Used(Queues),
    /// The device stopped: its configuration changed, and no queue goes on.
    Stopped,
}

/// A device, as far as its driver has brought it.
pub(super) struct Driven {
    device: Box<dyn VirtioDevice>,
    queues: Vec<Queue>,
    shared_bit: SharedBit,
    status: u32,
    /// Four words, two more than there are features, so that taking one that does not exist is seen.
    driver_features: u128,
}

impl Driven {
    /// A device in reset.
    pub(super) fn new(device: Box<dyn VirtioDevice>, shared_bit: SharedBit) -> Self {
        let queues = device.queue_sizes().iter().map(|max| Queue::new(*max)).collect();
        Self { device, queues, shared_bit, status: 0, driver_features: 0 }
    }

    /// The kind of device.
    pub(super) fn id(&self) -> u32 {
        self.device.id()
    }

    /// How many queues it has.
    pub(super) fn queue_count(&self) -> usize {
        self.queues.len()
    }

    pub(super) fn queue(&self, index: u32) -> Option<&Queue> {
        self.queues.get(index as usize)
    }

    pub(super) fn queue_mut(&mut self, index: u32) -> Option<&mut Queue> {
        self.queues.get_mut(index as usize)
    }

    /// Places an area of a queue.
    pub(super) fn place(&mut self, queue: u32, area: Area, half: Half, value: u32) {
        if let Some(queue) = self.queue_mut(queue) {
            queue.set_area(area, half, value);
        }
    }

    /// Bytes of the configuration space from `offset`; zeros beyond its end.
    pub(super) fn read_config(&self, offset: u64, size: AccessSize) -> u64 {
        let config = self.device.config();
        let mut value = [0; 8];
        let from = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or_default();
        for (to, from) in value.iter_mut().take(to_usize(size.bytes())).zip(from) {
            *to = *from;
        }
        u64::from_le_bytes(value)
    }

    /// A word of what is offered.
    pub(super) fn offered_word(&self, index: u32) -> u32 {
        word_of(self.offered().into(), index)
    }

    /// A word of what the driver took.
    pub(super) fn taken_word(&self, index: u32) -> u32 {
        word_of(self.driver_features, index)
    }

    /// The driver takes features. Nothing changes once they are settled.
    pub(super) fn take_word(&mut self, index: u32, value: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        if let Some(shift) = index.checked_mul(32).filter(|shift| *shift < u128::BITS) {
            let kept = self.driver_features & !(u128::from(u32::MAX) << shift);
            self.driver_features = kept | u128::from(value) << shift;
        }
    }

    fn offered(&self) -> u64 {
        self.device.features() | features::REQUIRED
    }

    /// What the driver took, if it may take it.
    fn acceptable_features(&self) -> Option<u64> {
        let taken = u64::try_from(self.driver_features).ok()?;
        let all_offered = taken & !self.offered() == 0;
        let has_required = taken & features::REQUIRED == features::REQUIRED;
        (all_offered && has_required).then_some(taken)
    }

    pub(super) const fn status(&self) -> u32 {
        self.status
    }

    /// The driver adds bits to the status. Zero is for [`Self::reset`].
    pub(super) fn add_status(&mut self, value: u32) {
        let mut added = value & !self.status & status::OF_DRIVER;
        if added & status::FEATURES_OK != 0 {
            match self.acceptable_features() {
                Some(taken) => self.device.accept(taken),
                None => added &= !status::FEATURES_OK,
            }
        }
        if (self.status | added) & status::FEATURES_OK == 0 {
            added &= !status::DRIVER_OK;
        }
        self.status |= added;
    }

    pub(super) fn reset(&mut self) {
        self.device.accept(0);
        self.queues.iter_mut().for_each(Queue::reset);
        self.status = 0;
        self.driver_features = 0;
    }

    /// The driver enables a queue.
    pub(super) fn enable(&mut self, index: u32) -> Signal {
        let shared_bit = self.shared_bit;
        let enabled = self.queue_mut(index).map_or(Ok(()), |queue| queue.enable(shared_bit));
        if enabled.is_ok() { Signal::None } else { self.stop() }
    }

    /// Answers what waits in a queue, and what that made the device ready for.
    pub(super) fn notify(&mut self, index: u32, memory: &dyn SharedMemory) -> Signal {
        if !self.is_running() {
            return Signal::None;
        }
        let of_queue = self.serve(index as usize, memory);
        let all = of_queue.and_then(|of_queue| self.serve_ready(of_queue, memory));
        self.conclude(all)
    }

    /// Answers what the device is ready for.
    pub(super) fn attend(&mut self, memory: &dyn SharedMemory) -> Signal {
        if !self.is_running() {
            return Signal::None;
        }
        let all = self.serve_ready(Queues::NONE, memory);
        self.conclude(all)
    }

    const fn is_running(&self) -> bool {
        self.status & (status::DRIVER_OK | status::FAILED | status::DEVICE_NEEDS_RESET) == status::DRIVER_OK
    }

    /// Answers in every queue that the device is ready for, and adds those whose driver wants to hear of it.
    fn serve_ready(&mut self, mut announce: Queues, memory: &dyn SharedMemory) -> Result<Queues, Broken> {
        for index in 0..self.queues.len() {
            if self.device.ready().contain(index) {
                announce = announce.and(self.serve(index, memory)?);
            }
        }
        Ok(announce)
    }

    /// Answers at most as many requests as the queue has places: what comes later has a notification of its
    /// own. Gives the queue if the driver wants to hear about it.
    fn serve(&mut self, index: usize, memory: &dyn SharedMemory) -> Result<Queues, Broken> {
        let Some(rings) = self.queues.get_mut(index).and_then(Queue::rings) else { return Ok(Queues::NONE) };
        let mut served = false;
        for _ in 0..rings.size() {
            let Some(chain) = rings.pop(memory)? else { break };
            match self.device.serve(index, &chain, memory)? {
                Served::Used(written) => rings.push_used(&chain, written, memory)?,
                Served::Later => {
                    rings.put_back();
                    break;
                }
            }
            served = true;
        }
        let announce = served && rings.wants_interrupt(memory)?;
        Ok(Queues::NONE.with_if(announce, u32::try_from(index).unwrap_or(u32::MAX)))
    }

    fn conclude(&mut self, announce: Result<Queues, Broken>) -> Signal {
        match announce {
            Ok(Queues::NONE) => Signal::None,
            Ok(queues) => Signal::Used(queues),
            Err(_) => self.stop(),
        }
    }

    /// The driver broke the rules: nothing more until a reset.
    fn stop(&mut self) -> Signal {
        let driven = self.status & status::DRIVER_OK != 0;
        self.status |= status::DEVICE_NEEDS_RESET;
        if driven { Signal::Stopped } else { Signal::None }
    }
}

/// One of a number's 32-bit words; zero beyond the last.
fn word_of(value: u128, index: u32) -> u32 {
    let rest = index.checked_mul(32).and_then(|shift| value.checked_shr(shift)).unwrap_or_default();
    (rest & 0xffff_ffff) as u32
}
