//! The bus: functions by device number, and by the memory that their BARs claim.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, Ordering};
use tdvisor_base::to_usize;

use super::ConfigSpace;
use crate::saved::narrow;
use crate::{AccessSize, AttachError, BadState, DeviceRequest, SharedMemory};

/// Bytes of ECAM: 256 buses.
pub const ECAM_BYTES: u64 = 256 << 20;
/// Device numbers of one bus.
pub const DEVICES: u8 = 32;

/// A function: the only one of its device.
pub trait PciFunction: Send {
    /// The function's configuration space.
    fn config(&self) -> &ConfigSpace;

    /// Software reads four bytes of its configuration space, or the first of them.
    fn read_config(&mut self, at: usize) -> [u8; 4] {
        self.config().read(at)
    }

    /// Software writes to its configuration space.
    fn write_config(&mut self, at: usize, value: &[u8], memory: &dyn SharedMemory) -> DeviceRequest;

    /// The guest reads in its BAR.
    fn read_bar(&mut self, offset: u64, size: AccessSize) -> u64 {
        let _ = offset;
        size.all_ones()
    }

    /// The guest writes in its BAR.
    fn write_bar(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        let _ = (offset, size, value, memory);
        DeviceRequest::None
    }

    /// Where ECAM begins, of the function that decides it: the host bridge.
    fn ecam(&self) -> Option<u32> {
        None
    }

    /// What the function keeps: see [`crate::saved`]. `None` where it cannot be saved.
    fn save(&self) -> Option<Vec<u64>> {
        None
    }

    /// Takes over what [`Self::save`] gave.
    ///
    /// # Errors
    /// [`BadState`]; the function is as it was.
    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let _ = saved;
        Err(BadState)
    }

    /// The host has something for the guest, maybe through this function: see [`crate::MmioDevice::attend`].
    fn attend(&mut self, memory: &dyn SharedMemory) {
        let _ = memory;
    }
}

struct Slot {
    device: u8,
    function: Mutex<Box<dyn PciFunction>>,
    /// What the function answers for in memory: first address in the low half, bytes in the high half; zero for nothing.
    claimed: AtomicU64,
}

impl Slot {
    /// Notes what the function claims now; the caller has just changed its configuration space.
    fn note(&self, config: &ConfigSpace) {
        let claimed = config.memory().map_or(0, |(base, bytes)| u64::from(bytes) << 32 | u64::from(base));
        self.claimed.store(claimed, Ordering::SeqCst);
    }

    /// The offset of an access that lies wholly in the BAR.
    fn offset_of(&self, gpa: u64, size: AccessSize) -> Option<u64> {
        let claimed = self.claimed.load(Ordering::SeqCst);
        let (base, bytes) = (claimed & u64::from(u32::MAX), claimed >> 32);
        let offset = gpa.checked_sub(base)?;
        (offset.checked_add(size.bytes())? <= bytes).then_some(offset)
    }
}

/// The device number of the host bridge.
const HOST_BRIDGE: u8 = 0;

/// Functions on bus 0. There are no other buses.
#[derive(Default)]
pub struct PciBus {
    /// By ascending device number.
    slots: Vec<Slot>,
    /// Whether the host bridge decodes ECAM, and where.
    ecam: AtomicU32,
    has_ecam: AtomicBool,
}

impl fmt::Debug for PciBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|slot| slot.device)).finish()
    }
}

impl PciBus {
    /// A bus without functions.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are no functions.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What all functions keep: for each, how many numbers, and these. `None` where one cannot be saved.
    pub(super) fn save(&self) -> Option<Vec<u64>> {
        let mut all = Vec::new();
        for slot in &self.slots {
            let state = slot.function.lock().save()?;
            all.push(state.len() as u64);
            all.extend(state);
        }
        Some(all)
    }

    /// Takes over what [`Self::save`] gave.
    pub(super) fn restore(&self, saved: &[u64]) -> Result<(), BadState> {
        let mut rest = saved;
        for slot in &self.slots {
            let (count, numbers) = rest.split_first().ok_or(BadState)?;
            let (state, others) = numbers.split_at_checked(narrow(*count)?).ok_or(BadState)?;
            let mut function = slot.function.lock();
            function.restore(state)?;
            slot.note(function.config());
            self.note_ecam(slot.device, &**function);
            rest = others;
        }
        if rest.is_empty() { Ok(()) } else { Err(BadState) }
    }

    /// Adds a function as a device.
    ///
    /// # Errors
    /// There is no such device number, or it is taken.
    pub fn attach(&mut self, device: u8, function: Box<dyn PciFunction>) -> Result<(), AttachError> {
        if device >= DEVICES {
            return Err(AttachError::BadRange);
        }
        let at = self.slots.partition_point(|slot| slot.device < device);
        if self.slots.get(at).is_some_and(|slot| slot.device == device) {
            return Err(AttachError::Overlap);
        }
        self.note_ecam(device, &*function);
        let slot = Slot { device, claimed: AtomicU64::new(0), function: Mutex::new(function) };
        self.slots.insert(at, slot);
        Ok(())
    }

    fn slot(&self, device: u8) -> Option<&Slot> {
        let at = self.slots.binary_search_by_key(&device, |slot| slot.device).ok()?;
        self.slots.get(at)
    }

    /// Reads the configuration space of a device; all ones where there is none.
    pub fn read_config(&self, device: u8, at: usize, size: AccessSize) -> u64 {
        let Some(slot) = self.slot(device) else { return size.all_ones() };
        u64::from(u32::from_le_bytes(slot.function.lock().read_config(at))) & size.all_ones()
    }

    /// Writes the configuration space of a device.
    pub fn write_config(
        &self,
        device: u8,
        at: usize,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        let Some(slot) = self.slot(device) else { return DeviceRequest::None };
        let bytes = value.to_le_bytes();
        let written = bytes.get(..to_usize(size.bytes())).unwrap_or(&bytes);
        let mut function = slot.function.lock();
        let request = function.write_config(at, written, memory);
        slot.note(function.config());
        self.note_ecam(device, &**function);
        request
    }

    fn note_ecam(&self, device: u8, function: &dyn PciFunction) {
        if device == HOST_BRIDGE {
            self.has_ecam.store(false, Ordering::SeqCst);
            if let Some(base) = function.ecam() {
                self.ecam.store(base, Ordering::SeqCst);
                self.has_ecam.store(true, Ordering::SeqCst);
            }
        }
    }

    /// The offset of an address in ECAM.
    pub fn ecam_offset(&self, gpa: u64) -> Option<u64> {
        let base = self.has_ecam.load(Ordering::SeqCst).then(|| self.ecam.load(Ordering::SeqCst))?;
        gpa.checked_sub(base.into()).filter(|offset| *offset < ECAM_BYTES)
    }

    /// Whether a function answers at an address.
    pub fn claims(&self, gpa: u64) -> bool {
        self.claimant(gpa, AccessSize::Byte).is_some()
    }

    fn claimant(&self, gpa: u64, size: AccessSize) -> Option<(&Slot, u64)> {
        self.slots.iter().find_map(|slot| Some((slot, slot.offset_of(gpa, size)?)))
    }

    /// Reads memory; all ones where no function answers.
    pub fn read_memory(&self, gpa: u64, size: AccessSize) -> u64 {
        match self.claimant(gpa, size) {
            Some((slot, offset)) => slot.function.lock().read_bar(offset, size) & size.all_ones(),
            None => size.all_ones(),
        }
    }

    /// Writes memory.
    pub fn write_memory(
        &self,
        gpa: u64,
        size: AccessSize,
        value: u64,
        memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        match self.claimant(gpa, size) {
            Some((slot, offset)) => slot.function.lock().write_bar(offset, size, value, memory),
            None => DeviceRequest::None,
        }
    }

    /// Lets every function attend to what the host has for the guest.
    pub fn attend(&self, memory: &dyn SharedMemory) {
        self.slots.iter().for_each(|slot| slot.function.lock().attend(memory));
    }
}
