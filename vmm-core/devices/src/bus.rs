//! Finding the device of an address.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::Gpa;
use tdvisor_base::sync::Mutex;

use super::saved::{BadState, DeviceStateError, SavedDevice};
use super::unclaimed::{Place, Unclaimed};
use super::{AccessSize, DeviceRequest, MmioDevice, MmioSpace, PortDevice, SharedMemory, low};

/// A device cannot have the range it was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The range is empty or leaves its address space.
    BadRange,
    /// Part of the range is another device's.
    Overlap,
}

impl fmt::Display for AttachError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRange => "the device's address range is empty or too large",
            Self::Overlap => "the device's address range overlaps another device",
        })
    }
}

impl core::error::Error for AttachError {}

struct Entry<D: ?Sized> {
    first: u64,
    last: u64,
    device: Mutex<Box<D>>,
}

/// Devices by inclusive address range, sorted.
struct Ranges<D: ?Sized> {
    entries: Vec<Entry<D>>,
}

impl<D: ?Sized> Ranges<D> {
    const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    fn attach(&mut self, first: u64, size: u64, limit: u64, device: Box<D>) -> Result<(), AttachError> {
        let last = size
            .checked_sub(1)
            .and_then(|span| first.checked_add(span))
            .filter(|last| *last <= limit)
            .ok_or(AttachError::BadRange)?;
        let at = self.entries.partition_point(|entry| entry.first < first);
        let before_overlaps = at > 0 && self.entries.get(at - 1).is_some_and(|entry| entry.last >= first);
        let after_overlaps = self.entries.get(at).is_some_and(|entry| entry.first <= last);
        if before_overlaps || after_overlaps {
            return Err(AttachError::Overlap);
        }
        self.entries.insert(at, Entry { first, last, device: Mutex::new(device) });
        Ok(())
    }

    fn save(&self, of: impl Fn(&D) -> Option<Vec<u64>>) -> Result<Vec<SavedDevice>, DeviceStateError> {
        let save = |entry: &Entry<D>| {
            let state = of(&entry.device.lock());
            state.map(|state| SavedDevice { at: entry.first, state }).ok_or(entry.first)
        };
        self.entries.iter().map(|entry| save(entry).map_err(|at| DeviceStateError::NotSaved { at })).collect()
    }

    fn restore(
        &self,
        saved: &[SavedDevice],
        take: impl Fn(&mut D, &[u64]) -> Result<(), BadState>,
    ) -> Result<(), DeviceStateError> {
        if saved.len() != self.entries.len() {
            return Err(DeviceStateError::OtherDevices);
        }
        for (saved, entry) in saved.iter().zip(&self.entries) {
            let wrong = DeviceStateError::NotThisDevice { at: saved.at };
            if saved.at != entry.first || take(&mut entry.device.lock(), &saved.state).is_err() {
                return Err(wrong);
            }
        }
        Ok(())
    }

    /// The device that has the whole access, and the offset in it.
    fn find(&self, at: u64, size: AccessSize) -> Option<(&Mutex<Box<D>>, u64)> {
        let index = self.entries.partition_point(|entry| entry.first <= at).checked_sub(1)?;
        let entry = self.entries.get(index)?;
        let last = at.checked_add(size.bytes() - 1)?;
        (last <= entry.last).then_some((&entry.device, at - entry.first))
    }
}

/// Port I/O space.
pub struct PortBus {
    ranges: Ranges<dyn PortDevice>,
    unclaimed: Unclaimed,
}

impl Default for PortBus {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for PortBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortBus").field("devices", &self.ranges.entries.len()).finish()
    }
}

impl PortBus {
    /// A bus without devices.
    pub const fn new() -> Self {
        Self { ranges: Ranges::new(), unclaimed: Unclaimed::new() }
    }

    /// Gives a device `ports` ports from `first`.
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&mut self, first: u16, ports: u16, device: Box<dyn PortDevice>) -> Result<(), AttachError> {
        self.ranges.attach(first.into(), ports.into(), u16::MAX.into(), device)
    }

    /// What all devices keep: see [`crate::saved`].
    ///
    /// # Errors
    /// [`DeviceStateError::NotSaved`].
    pub fn save(&self) -> Result<Vec<SavedDevice>, DeviceStateError> {
        self.ranges.save(|device| device.save())
    }

    /// Takes over what [`Self::save`] gave. The devices are as they were when they were made.
    ///
    /// # Errors
    /// [`DeviceStateError`]; some devices have taken their state over.
    pub fn restore(&self, saved: &[SavedDevice]) -> Result<(), DeviceStateError> {
        self.ranges.restore(saved, |device, state| device.restore(state))
    }

    /// The guest reads a port.
    pub fn read(&self, port: u16, size: AccessSize) -> u64 {
        match self.ranges.find(port.into(), size) {
            Some((device, offset)) => device.lock().read(low::word(offset), size) & size.all_ones(),
            None => {
                self.unclaimed.note(Place::Port(port));
                size.all_ones()
            }
        }
    }

    /// The port without a device that was read most, and how often.
    pub(crate) fn most_read_unclaimed(&self) -> Option<(Place, u64)> {
        self.unclaimed.most_read()
    }

    /// The guest writes a port.
    pub fn write(&self, port: u16, size: AccessSize, value: u64, memory: &dyn SharedMemory) -> DeviceRequest {
        match self.ranges.find(port.into(), size) {
            Some((device, offset)) => {
                device.lock().write(low::word(offset), size, value & size.all_ones(), memory)
            }
            None => DeviceRequest::None,
        }
    }
}

/// Guest-physical (shared) address space, as far as devices answer in it.
pub struct MmioBus {
    ranges: Ranges<dyn MmioDevice>,
    spaces: Vec<Space>,
    unclaimed: Unclaimed,
}

/// An inclusive range in which a space answers.
struct Space {
    first: u64,
    last: u64,
    space: Box<dyn MmioSpace>,
}

impl Default for MmioBus {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MmioBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MmioBus").field("devices", &self.ranges.entries.len()).finish()
    }
}

impl MmioBus {
    /// A bus without devices.
    pub const fn new() -> Self {
        Self { ranges: Ranges::new(), spaces: Vec::new(), unclaimed: Unclaimed::new() }
    }

    /// Gives a space `bytes` bytes from `base` (without the SHARED bit). Where it overlaps devices, or spaces attached before
    /// it, those answer.
    ///
    /// # Errors
    /// [`AttachError::BadRange`].
    pub fn attach_space(
        &mut self,
        base: Gpa,
        bytes: u64,
        space: Box<dyn MmioSpace>,
    ) -> Result<(), AttachError> {
        let first = base.get();
        let last = bytes.checked_sub(1).and_then(|span| first.checked_add(span));
        self.spaces.push(Space { first, last: last.ok_or(AttachError::BadRange)?, space });
        Ok(())
    }

    /// The space that has the whole access, and the offset in it.
    fn space(&self, at: u64, size: AccessSize) -> Option<(&dyn MmioSpace, u64)> {
        let last = at.checked_add(size.bytes() - 1)?;
        let found = self.spaces.iter().find(|space| space.first <= at && last <= space.last)?;
        Some((&*found.space, at - found.first))
    }

    /// Gives a device `bytes` bytes from `base` (without the SHARED bit).
    ///
    /// # Errors
    /// [`AttachError`].
    pub fn attach(&mut self, base: Gpa, bytes: u64, device: Box<dyn MmioDevice>) -> Result<(), AttachError> {
        self.ranges.attach(base.get(), bytes, u64::MAX, device)
    }

    /// Whether a device answers at `gpa`.
    pub fn covers(&self, gpa: Gpa) -> bool {
        self.ranges.find(gpa.get(), AccessSize::Byte).is_some()
            || self.space(gpa.get(), AccessSize::Byte).is_some_and(|(space, offset)| space.covers(offset))
    }

    /// What all devices keep: see [`crate::saved`].
    ///
    /// # Errors
    /// [`DeviceStateError::NotSaved`].
    pub fn save(&self) -> Result<Vec<SavedDevice>, DeviceStateError> {
        if let Some(space) = self.spaces.iter().find(|space| !space.space.is_saved_elsewhere()) {
            return Err(DeviceStateError::NotSaved { at: space.first });
        }
        self.ranges.save(|device| device.save())
    }

    /// Takes over what [`Self::save`] gave. The devices are as they were when they were made.
    ///
    /// # Errors
    /// [`DeviceStateError`]; some devices have taken their state over.
    pub fn restore(&self, saved: &[SavedDevice]) -> Result<(), DeviceStateError> {
        self.ranges.restore(saved, |device, state| device.restore(state))
    }

    /// Lets every device attend to what the host has for the guest.
    pub fn attend(&self, memory: &dyn SharedMemory) {
        self.ranges.entries.iter().for_each(|entry| entry.device.lock().attend(memory));
        self.spaces.iter().for_each(|space| space.space.attend(memory));
    }

    /// The guest reads.
    pub fn read(&self, gpa: Gpa, size: AccessSize) -> u64 {
        match self.ranges.find(gpa.get(), size) {
            Some((device, offset)) => device.lock().read(offset, size) & size.all_ones(),
            None => match self.space(gpa.get(), size) {
                Some((space, offset)) => space.read(offset, size) & size.all_ones(),
                None => {
                    self.unclaimed.note(Place::Memory(gpa));
                    size.all_ones()
                }
            },
        }
    }

    /// The address without a device that was read most, and how often.
    pub(crate) fn most_read_unclaimed(&self) -> Option<(Place, u64)> {
        self.unclaimed.most_read()
    }

    /// The guest writes.
    pub fn write(&self, gpa: Gpa, size: AccessSize, value: u64, memory: &dyn SharedMemory) -> DeviceRequest {
        match self.ranges.find(gpa.get(), size) {
            Some((device, offset)) => device.lock().write(offset, size, value & size.all_ones(), memory),
            None => match self.space(gpa.get(), size) {
                Some((space, offset)) => space.write(offset, size, value & size.all_ones(), memory),
                None => DeviceRequest::None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ExitPort, NoMemory};

    #[test]
    fn the_bus_finds_the_device_and_nothing_else() {
        let mut bus = PortBus::new();
        bus.attach(0x501, 1, Box::new(ExitPort)).unwrap();
        assert_eq!(bus.write(0x501, AccessSize::Byte, 3, &NoMemory), DeviceRequest::PowerOff { code: 3 });
        assert_eq!(bus.write(0x500, AccessSize::Byte, 3, &NoMemory), DeviceRequest::None);
        assert_eq!(
            bus.write(0x501, AccessSize::Word, 3, &NoMemory),
            DeviceRequest::None,
            "leaves the device"
        );
        assert_eq!(bus.read(0xffff, AccessSize::Double), 0xffff_ffff);
        assert_eq!(bus.read(0x80, AccessSize::Word), 0xffff);
    }

    #[test]
    fn ranges_may_touch_but_not_overlap() {
        let mut bus = PortBus::new();
        bus.attach(0x3f8, 8, Box::new(ExitPort)).unwrap();
        bus.attach(0x400, 8, Box::new(ExitPort)).unwrap();
        bus.attach(0x3f0, 8, Box::new(ExitPort)).unwrap();
        assert_eq!(bus.attach(0x3ff, 1, Box::new(ExitPort)), Err(AttachError::Overlap));
        assert_eq!(bus.attach(0x3e0, 0x20, Box::new(ExitPort)), Err(AttachError::Overlap));
        assert_eq!(bus.attach(0xffff, 2, Box::new(ExitPort)), Err(AttachError::BadRange));
        assert_eq!(bus.attach(0x10, 0, Box::new(ExitPort)), Err(AttachError::BadRange));
    }

    /// Keeps the last value written.
    struct Latch(u64);

    impl PortDevice for Latch {
        fn read(&mut self, _: u16, _: AccessSize) -> u64 {
            self.0
        }

        fn write(&mut self, _: u16, _: AccessSize, value: u64, _: &dyn SharedMemory) -> DeviceRequest {
            self.0 = value;
            DeviceRequest::None
        }

        fn save(&self) -> Option<Vec<u64>> {
            Some(alloc::vec![self.0])
        }

        fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
            [self.0] = crate::saved::numbers(saved)?;
            Ok(())
        }
    }

    /// Keeps something, and does not say what.
    struct Silent;

    impl PortDevice for Silent {
        fn read(&mut self, _: u16, size: AccessSize) -> u64 {
            size.all_ones()
        }

        fn write(&mut self, _: u16, _: AccessSize, _: u64, _: &dyn SharedMemory) -> DeviceRequest {
            DeviceRequest::None
        }
    }

    fn latches(first: &[u16]) -> PortBus {
        let mut bus = PortBus::new();
        for first in first {
            bus.attach(*first, 1, Box::new(Latch(0))).unwrap();
        }
        bus
    }

    #[test]
    fn the_state_of_a_bus_goes_back_to_the_same_devices_only() {
        let bus = latches(&[0x10, 0x20]);
        let _ = bus.write(0x20, AccessSize::Byte, 7, &NoMemory);
        let saved = bus.save().unwrap();
        let again = latches(&[0x10, 0x20]);
        assert_eq!(again.restore(&saved), Ok(()));
        assert_eq!((again.read(0x10, AccessSize::Byte), again.read(0x20, AccessSize::Byte)), (0, 7));
        assert_eq!(latches(&[0x10]).restore(&saved), Err(DeviceStateError::OtherDevices));
        let moved = latches(&[0x10, 0x21]).restore(&saved);
        assert_eq!(moved, Err(DeviceStateError::NotThisDevice { at: 0x20 }));
        let mut other = PortBus::new();
        other.attach(0x10, 1, Box::new(ExitPort)).unwrap();
        other.attach(0x20, 1, Box::new(Latch(0))).unwrap();
        assert_eq!(other.restore(&saved), Err(DeviceStateError::NotThisDevice { at: 0x10 }));
    }

    #[test]
    fn a_device_that_does_not_say_what_it_keeps_cannot_be_saved() {
        let mut bus = latches(&[0x10]);
        bus.attach(0x30, 1, Box::new(Silent)).unwrap();
        assert_eq!(bus.save(), Err(DeviceStateError::NotSaved { at: 0x30 }));
    }
}
