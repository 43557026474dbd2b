//! The ACPI power-management block of a Q35 board: power off, and the power-management timer.
//!
//! | offset | register |
//! |---|---|
//! | 0x00 | PM1_STS: reads zero, nothing happened |
//! | 0x02 | PM1_EN: reads what was written; nothing is enabled by it, for no event comes about |
//! | 0x04 | PM1_CNT: bits 12:10 SLP_TYP, bit 13 SLP_EN; bit 0 reads one, the machine is in ACPI mode |
//! | 0x08 | PM_TMR: a counter of 24 bits at 3.579545 MHz, read as four bytes |
//!
//! PM1_CNT takes two bytes, or its high byte, which has the layout of the sleep control register of hardware-reduced ACPI. The
//! one sleep state is S5, called type 0; a write that enables another type does nothing. The other registers of the
//! block (general-purpose events, SMI, TCO) read zero and take nothing.
//!
//! Source: ACPI specification 6.5, sections 4.8.3.1 to 4.8.3.3; Intel ICH9 data sheet, 13.8.3.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_board::pm::{PM1_CONTROL, PM1_ENABLE, S5_TYPE, TIMER, TIMER_BITS, TIMER_HZ};

use super::saved::{narrow, numbers};
use super::{AccessSize, BadState, DeviceRequest, PortDevice, SharedMemory, low};

const CONTROL_HIGH: u16 = PM1_CONTROL + 1;

/// PM1_CNT: the machine is in ACPI mode.
const IN_ACPI_MODE: u64 = 1;
/// In the high byte of PM1_CNT.
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u32 = 2;
const SLEEP_TYPE_MASK: u8 = 7;

const TIMER_MASK: u64 = (1 << TIMER_BITS) - 1;
const NANOSECONDS: u128 = 1_000_000_000;

/// Nanoseconds of the machine's time.
pub type Nanoseconds = Box<dyn Fn() -> u64 + Send>;

/// The device.
pub struct AcpiPm {
    now: Option<Nanoseconds>,
    enabled: u16,
}

impl fmt::Debug for AcpiPm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcpiPm").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

impl AcpiPm {
    /// A block whose timer counts by this clock.
    pub fn new(now: Nanoseconds) -> Self {
        Self { now: Some(now), enabled: 0 }
    }

    /// A block whose timer stands still, at zero.
    pub const fn without_timer() -> Self {
        Self { now: None, enabled: 0 }
    }

    fn timer(&self) -> u64 {
        let now = self.now.as_ref().map_or(0, |now| now());
        let ticks = u128::from(now) * u128::from(TIMER_HZ) / NANOSECONDS;
        u64::try_from(ticks & u128::from(TIMER_MASK)).unwrap_or_default()
    }
}

impl PortDevice for AcpiPm {
    fn read(&mut self, offset: u16, size: AccessSize) -> u64 {
        match (offset, size) {
            (PM1_ENABLE, AccessSize::Word) => self.enabled.into(),
            (PM1_CONTROL, AccessSize::Word | AccessSize::Byte) => IN_ACPI_MODE,
            (TIMER, AccessSize::Double) => self.timer(),
            _ => 0,
        }
    }

    fn write(
        &mut self,
        offset: u16,
        size: AccessSize,
        value: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        match (offset, size) {
            (PM1_ENABLE, AccessSize::Word) => self.enabled = low::word(value),
            (PM1_CONTROL, AccessSize::Word) => return sleep(low::byte(value >> 8)),
            (CONTROL_HIGH, AccessSize::Byte) => return sleep(low::byte(value)),
            _ => {}
        }
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        let Self { now: _, enabled } = self;
        Some(vec![(*enabled).into()])
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let [enabled] = numbers(saved)?;
        self.enabled = narrow(enabled)?;
        Ok(())
    }
}

/// What a write to the high byte of PM1_CNT asks for.
const fn sleep(control: u8) -> DeviceRequest {
    let kind = control >> SLEEP_TYPE_SHIFT & SLEEP_TYPE_MASK;
    if control & SLEEP_ENABLE != 0 && kind == S5_TYPE {
        DeviceRequest::PowerOff { code: 0 }
    } else {
        DeviceRequest::None
    }
}

#[cfg(test)]
mod tests {
    use alloc::sync::Arc;

    use tdvisor_base::sync::{AtomicU64, Ordering};

    use super::*;
    use crate::NoMemory;

    fn write(offset: u16, size: AccessSize, value: u64) -> DeviceRequest {
        AcpiPm::new(Box::new(|| 0)).write(offset, size, value, &NoMemory)
    }

    #[test]
    fn only_enabling_s5_powers_off_by_either_name_of_the_register() {
        let off = DeviceRequest::PowerOff { code: 0 };
        for value in 0..=0xff {
            let expected = if value & 0x3c == 0x20 { off } else { DeviceRequest::None };
            assert_eq!(write(5, AccessSize::Byte, value), expected, "{value:#x}");
            assert_eq!(write(4, AccessSize::Word, value << 8 | 1), expected, "{value:#x}");
        }
        assert_eq!(write(4, AccessSize::Byte, 0x20), DeviceRequest::None, "the low byte");
        assert_eq!(write(4, AccessSize::Double, 0x2000), DeviceRequest::None);
    }

    #[test]
    fn the_timer_counts_at_its_frequency_and_wraps_at_24_bits() {
        let time = Arc::new(AtomicU64::new(0));
        let clock = time.clone();
        let mut block = AcpiPm::new(Box::new(move || clock.load(Ordering::Relaxed)));
        let mut at = |nanoseconds| {
            time.store(nanoseconds, Ordering::Relaxed);
            block.read(8, AccessSize::Double)
        };
        assert_eq!([at(0), at(1_000_000_000), at(2_000_000_000)], [0, 3_579_545, 7_159_090]);
        assert_eq!(at(5_000_000_000), 17_897_725 - (1 << 24));
        assert!(at(u64::MAX) < 1 << 24);
    }

    #[test]
    fn status_says_that_nothing_happened_and_enable_is_kept() {
        let mut block = AcpiPm::new(Box::new(|| 0));
        let _ = block.write(2, AccessSize::Word, 0x101, &NoMemory);
        assert_eq!([0, 2, 4].map(|offset| block.read(offset, AccessSize::Word)), [0, 0x101, 1]);
        assert_eq!(block.read(1, AccessSize::Byte), 0, "the sleep status register");
    }
}
