//! Parked processors, and the multiprocessor wake-up mailbox by which an operating system starts them (ACPI 6.5,
//! "Multiprocessor Wakeup Structure", mailbox version 1).
//!
//! # Protocol
//! The mailbox is a device whose registers an operating system takes for memory: it writes an APIC id and an address,
//! then a command. The command register reads as 'none' again when the processor has taken the command, which for an
//! operating system is the sign that it is on its way.
//!
//! A parked processor executes nothing and sleeps; the mailbox rings its bell when it is woken, and [`Parking::take`]
//! gives the address that it continues at. A processor parks by jumping to the reset vector, where firmware's code gives
//! it back ([`Parking::park`]).
//!
//! | state | woken | told to park |
//! |---|---|---|
//! | parked | takes the address, runs | – |
//! | running | the command stays until somebody cancels it | parked |
//!
//! # Errors
//! A command for a processor that does not exist, or that is running, stays in the register: as in a mailbox in
//! memory, nobody answers.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tdvisor_devices::saved::{narrow, numbers};
use tdvisor_devices::{AccessSize, BadState, DeviceRequest, MmioDevice, SharedMemory};

const COMMAND: u64 = 0;
const APIC_ID: u64 = 4;
const WAKEUP_VECTOR: u64 = 8;

const NONE: u16 = 0;
const WAKEUP: u16 = 1;
/// Answered by a parked processor with 'none', and by nothing else: how an operating system learns that a processor
/// has come back to firmware.
const TEST: u16 = 2;

/// Which processors are parked, and where those that were woken continue.
#[derive(Debug)]
pub struct Parking(Mutex<Vec<Place>>);

#[derive(Debug)]
struct Place {
    apic_id: u32,
    state: State,
}

/// Whether a processor is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    Parked,
    Woken { entry: u64 },
    Running,
}

impl Parking {
    /// All processors parked but the first, which runs.
    pub fn new(apic_ids: &[u32]) -> Self {
        let place = |(index, apic_id): (usize, &u32)| Place {
            apic_id: *apic_id,
            state: if index == 0 { State::Running } else { State::Parked },
        };
        Self(Mutex::new(apic_ids.iter().enumerate().map(place).collect()))
    }

    /// Every processor's state, in the order of their numbers.
    pub(crate) fn save(&self) -> Vec<State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|place| place.state).collect()
    }

    /// Processors with these ids in these states; `None` where those are not as many.
    pub(crate) fn restore(apic_ids: &[u32], saved: &[State]) -> Option<Self> {
        let place = |(apic_id, state): (&u32, &State)| Place { apic_id: *apic_id, state: *state };
        let places = apic_ids.iter().zip(saved).map(place).collect();
        (apic_ids.len() == saved.len()).then_some(Self(Mutex::new(places)))
    }

    /// The processor with this number has come back to firmware.
    pub fn park(&self, processor: usize) {
        self.with(processor, |place| place.state = State::Parked);
    }

    /// Whether the processor with this number is parked: it executes nothing, and nothing interrupts it.
    pub fn is_parked(&self, processor: usize) -> bool {
        self.with(processor, |place| place.state != State::Running).unwrap_or(true)
    }

    /// Takes the wake-up of a parked processor, if there is one: the physical address at which it continues.
    pub fn take(&self, processor: usize) -> Option<u64> {
        self.with(processor, |place| match place.state {
            State::Woken { entry } => {
                place.state = State::Running;
                Some(entry)
            }
            State::Parked | State::Running => None,
        })?
    }

    fn with<R>(&self, processor: usize, act: impl FnOnce(&mut Place) -> R) -> Option<R> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(processor).map(act)
    }

    /// Carries a command out. Gives what the command register reads as afterwards, and the processor that was woken.
    fn command(&self, command: u16, apic_id: u32, entry: u64) -> (u16, Option<usize>) {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = places.iter_mut().enumerate().find(|(_, place)| place.apic_id == apic_id);
        match (command, found) {
            (WAKEUP, Some((index, place))) if place.state == State::Parked => {
                place.state = State::Woken { entry };
                (NONE, Some(index))
            }
            (TEST, Some((_, place))) if place.state == State::Parked => (NONE, None),
            (command, _) => (command, None),
        }
    }
}

/// The mailbox, as a device.
pub struct Mailbox {
    parking: Arc<Parking>,
    ring: Box<dyn Fn(usize) + Send>,
    command: u16,
    apic_id: u32,
    wakeup_vector: u64,
}

impl Mailbox {
    /// The mailbox of these processors; `ring` wakes the thread of the one with this number.
    pub fn new(parking: Arc<Parking>, ring: impl Fn(usize) + Send + 'static) -> Self {
        Self { parking, ring: Box::new(ring), command: NONE, apic_id: 0, wakeup_vector: 0 }
    }

    /// A command that could not be carried out is tried again when somebody looks: the processor may have parked.
    fn settle(&mut self) {
        if self.command != NONE {
            let (command, woken) = self.parking.command(self.command, self.apic_id, self.wakeup_vector);
            self.command = command;
            if let Some(processor) = woken {
                (self.ring)(processor);
            }
        }
    }

    /// The first sixteen bytes as the registers stand.
    fn image(&self) -> u128 {
        u128::from(self.command) | u128::from(self.apic_id) << 32 | u128::from(self.wakeup_vector) << 64
    }
}

impl MmioDevice for Mailbox {
    fn read(&mut self, offset: u64, size: AccessSize) -> u64 {
        self.settle();
        let image = if offset < 16 { self.image() >> (8 * offset) } else { 0 };
        image as u64 & size.all_ones()
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        match (offset, size) {
            (COMMAND, AccessSize::Word | AccessSize::Double | AccessSize::Quad) => {
                self.command = value as u16;
                if size == AccessSize::Quad {
                    self.apic_id = (value >> 32) as u32;
                }
                self.settle();
            }
            (APIC_ID, AccessSize::Double) => self.apic_id = value as u32,
            (WAKEUP_VECTOR, AccessSize::Quad) => self.wakeup_vector = value,
            (WAKEUP_VECTOR, AccessSize::Double) => {
                self.wakeup_vector = self.wakeup_vector & !0xffff_ffff | value & 0xffff_ffff;
            }
            (12, AccessSize::Double) => {
                self.wakeup_vector = self.wakeup_vector & 0xffff_ffff | value << 32;
            }
            // The rest of the page is an operating system's or firmware's; nobody keeps anything there.
            _ => {}
        }
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        let Self { parking: _, ring: _, command, apic_id, wakeup_vector } = self;
        Some(vec![(*command).into(), (*apic_id).into(), *wakeup_vector])
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let [command, apic_id, wakeup_vector] = numbers(saved)?;
        (self.command, self.apic_id) = (narrow(command)?, narrow(apic_id)?);
        self.wakeup_vector = wakeup_vector;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tdvisor_vm::NotShared;

    use super::*;

    struct NoMemory;

    impl SharedMemory for NoMemory {
        fn read(&self, gpa: tdvisor_base::Gpa, _: &mut [u8]) -> Result<(), NotShared> {
            Err(NotShared::At(gpa))
        }

        fn write(&self, gpa: tdvisor_base::Gpa, _: &[u8]) -> Result<(), NotShared> {
            Err(NotShared::At(gpa))
        }
    }

    fn write(mailbox: &mut Mailbox, offset: u64, size: AccessSize, value: u64) {
        assert_eq!(mailbox.write(offset, size, value, &NoMemory), DeviceRequest::None);
    }

    fn wake(mailbox: &mut Mailbox, apic_id: u32, entry: u64) -> u64 {
        write(mailbox, APIC_ID, AccessSize::Double, apic_id.into());
        write(mailbox, WAKEUP_VECTOR, AccessSize::Quad, entry);
        write(mailbox, COMMAND, AccessSize::Word, u64::from(WAKEUP));
        mailbox.read(COMMAND, AccessSize::Word)
    }

    fn machine() -> (Arc<Parking>, Mailbox) {
        let parking = Arc::new(Parking::new(&[0, 8, 9]));
        (parking.clone(), Mailbox::new(parking, |_| ()))
    }

    #[test]
    fn a_parked_processor_takes_the_address_and_the_command_is_gone() {
        let (parking, mut mailbox) = machine();
        assert_eq!(wake(&mut mailbox, 9, 0x9_8000), u64::from(NONE));
        assert_eq!(parking.take(1), None);
        assert_eq!(parking.take(2), Some(0x9_8000));
        assert!(parking.is_parked(1) && !parking.is_parked(2));
    }

    #[test]
    fn nobody_answers_for_a_processor_that_runs_or_is_not_there() {
        let (parking, mut mailbox) = machine();
        assert_eq!(wake(&mut mailbox, 0, 0x9_8000), u64::from(WAKEUP), "it runs");
        assert_eq!(wake(&mut mailbox, 77, 0x9_8000), u64::from(WAKEUP), "there is none");
        write(&mut mailbox, COMMAND, AccessSize::Word, u64::from(NONE));
        assert_eq!(mailbox.read(COMMAND, AccessSize::Word), u64::from(NONE), "cancelled");
        assert_eq!(parking.take(0), None);
    }

    #[test]
    fn a_processor_that_went_offline_answers_the_test_and_can_be_woken_again() {
        let (parking, mut mailbox) = machine();
        wake(&mut mailbox, 8, 0x9_8000);
        assert_eq!(parking.take(1), Some(0x9_8000));
        write(&mut mailbox, COMMAND, AccessSize::Word, u64::from(TEST));
        assert_eq!(mailbox.read(COMMAND, AccessSize::Word), u64::from(TEST), "still running");
        parking.park(1);
        assert_eq!(mailbox.read(COMMAND, AccessSize::Word), u64::from(NONE));
        assert_eq!(wake(&mut mailbox, 8, 0x9_9000), u64::from(NONE));
        assert_eq!(parking.take(1), Some(0x9_9000));
    }

    #[test]
    fn a_mailbox_in_pieces_is_the_same_mailbox() {
        let (parking, mut mailbox) = machine();
        write(&mut mailbox, WAKEUP_VECTOR, AccessSize::Double, 0x8000_1000);
        write(&mut mailbox, 12, AccessSize::Double, 1);
        write(&mut mailbox, COMMAND, AccessSize::Quad, 8 << 32 | u64::from(WAKEUP));
        assert_eq!(parking.take(1), Some(0x1_8000_1000));
        assert_eq!(mailbox.read(WAKEUP_VECTOR, AccessSize::Quad), 0x1_8000_1000);
        assert_eq!(mailbox.read(0x800, AccessSize::Quad), 0);
    }

    #[test]
    fn the_processor_that_is_woken_has_its_bell_rung() {
        let rung = Arc::new(AtomicUsize::new(usize::MAX));
        let bell = rung.clone();
        let parking = Arc::new(Parking::new(&[0, 8, 9]));
        let mut mailbox = Mailbox::new(parking, move |processor| bell.store(processor, Ordering::SeqCst));
        wake(&mut mailbox, 0, 0x9_8000);
        assert_eq!(rung.load(Ordering::SeqCst), usize::MAX);
        wake(&mut mailbox, 9, 0x9_8000);
        assert_eq!(rung.load(Ordering::SeqCst), 2);
    }
}
