//! The clock of a PC: CMOS registers behind an index port and a data port.
//!
//! A kernel reads the date once, and waits for a second or more if nobody answers. Time is kept in BCD and 24 hours;
//! there are no alarms, no interrupts, and writes have no effect: a guest that sets its clock sets its own. Above the clock is
//! what firmware looks for: how much memory there is.
//!
//! Registers: Motorola MC146818A data sheet; register 0x32 is the century, as PCs have it; memory sizes as QEMU's PCs have
//! them (`hw/i386/pc.c`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tdvisor_attest::time::UnixSeconds;
use tdvisor_devices::saved::{narrow, numbers};
use tdvisor_devices::{AccessSize, BadState, DeviceRequest, PortDevice, SharedMemory};

use machine_emu::Pace;

/// The date that every deterministic run begins at, and stays at: 2020-01-01.
const DETERMINISTIC: UnixSeconds = UnixSeconds(1_577_836_800);

mod register {
    pub const SECONDS: u8 = 0x00;
    pub const MINUTES: u8 = 0x02;
    pub const HOURS: u8 = 0x04;
    pub const DAY: u8 = 0x07;
    pub const MONTH: u8 = 0x08;
    pub const YEAR: u8 = 0x09;
    pub const STATUS_A: u8 = 0x0a;
    pub const STATUS_B: u8 = 0x0b;
    pub const STATUS_D: u8 = 0x0d;
    pub const CENTURY: u8 = 0x32;
    /// Memory from 16 MiB up to 4 GiB, in units of 64 KiB: two bytes.
    pub const ABOVE_16M: u8 = 0x34;
    pub const ABOVE_16M_HIGH: u8 = 0x35;
    /// Memory above 4 GiB, in units of 64 KiB: three bytes.
    pub const ABOVE_4G: u8 = 0x5b;
    pub const ABOVE_4G_MIDDLE: u8 = 0x5c;
    pub const ABOVE_4G_HIGH: u8 = 0x5d;
}

/// A 32.768 kHz time base; no update in progress, ever.
const STATUS_A: u8 = 0x26;
/// 24 hours, BCD.
const STATUS_B: u8 = 0x02;
/// The battery is good.
const STATUS_D: u8 = 0x80;

/// The device.
#[derive(Debug)]
pub struct Cmos {
    index: u8,
    pace: Pace,
    ram: Ram,
}

/// Memory of the board, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ram {
    /// Below 4 GiB, from zero on.
    pub low: u64,
    /// From 4 GiB on.
    pub high: u64,
}

impl Ram {
    /// What memory registers show; `None` for other registers.
    fn value(self, register: u8) -> Option<u8> {
        const UNIT: u64 = 64 << 10;
        const MIB_16: u64 = 16 << 20;
        let above_16m = (self.low.saturating_sub(MIB_16) / UNIT).min(u16::MAX.into()).to_le_bytes();
        let above_4g = (self.high / UNIT).min(0xff_ffff).to_le_bytes();
        Some(match register {
            register::ABOVE_16M => above_16m[0],
            register::ABOVE_16M_HIGH => above_16m[1],
            register::ABOVE_4G => above_4g[0],
            register::ABOVE_4G_MIDDLE => above_4g[1],
            register::ABOVE_4G_HIGH => above_4g[2],
            _ => return None,
        })
    }
}

impl Cmos {
    /// A clock that shows the host's time, or in a deterministic run always the same, on a board with this memory.
    pub const fn new(pace: Pace, ram: Ram) -> Self {
        Self { index: 0, pace, ram }
    }

    fn now(&self) -> UnixSeconds {
        UnixSeconds(date(self.pace).duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

/// The date that a guest is told.
#[must_use]
pub fn date(pace: Pace) -> SystemTime {
    match pace {
        Pace::Deterministic { .. } => UNIX_EPOCH + Duration::from_secs(DETERMINISTIC.0),
        Pace::Real => SystemTime::now(),
    }
}

/// What a register shows at a time.
fn value(register: u8, now: UnixSeconds) -> u8 {
    // "2020-01-01T00:00:00Z" has the digits of BCD already.
    let text = now.to_string();
    let bcd = |at: usize| match text.as_bytes().get(at..at + 2) {
        Some(&[tens, ones]) => (tens & 0xf) << 4 | ones & 0xf,
        _ => 0,
    };
    match register {
        register::SECONDS => bcd(17),
        register::MINUTES => bcd(14),
        register::HOURS => bcd(11),
        register::DAY => bcd(8),
        register::MONTH => bcd(5),
        register::YEAR => bcd(2),
        register::CENTURY => bcd(0),
        register::STATUS_A => STATUS_A,
        register::STATUS_B => STATUS_B,
        register::STATUS_D => STATUS_D,
        _ => 0,
    }
}

impl PortDevice for Cmos {
    fn read(&mut self, offset: u16, _size: AccessSize) -> u64 {
        match offset {
            0 => 0xff,
            _ => self.ram.value(self.index).unwrap_or_else(|| value(self.index, self.now())).into(),
        }
    }

    fn write(
        &mut self,
        offset: u16,
        _size: AccessSize,
        data: u64,
        _memory: &dyn SharedMemory,
    ) -> DeviceRequest {
        if offset == 0 {
            // The top bit of the index masks NMIs, on a PC that has that gate.
            self.index = (data & 0x7f) as u8;
        }
        DeviceRequest::None
    }

    fn save(&self) -> Option<Vec<u64>> {
        let Self { index, pace: _, ram: _ } = self;
        Some(vec![(*index).into()])
    }

    fn restore(&mut self, saved: &[u64]) -> Result<(), BadState> {
        let [index] = numbers(saved)?;
        self.index = narrow(index)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_is_shown_in_bcd() {
        let now = UnixSeconds(1_577_836_800 + 86_400 * 45 + 13 * 3600 + 59 * 60 + 7);
        let shown = [0x32, 9, 8, 7, 4, 2, 0].map(|register| value(register, now));
        assert_eq!(shown, [0x20, 0x20, 0x02, 0x15, 0x13, 0x59, 0x07]);
        assert_eq!(value(register::STATUS_A, now) & 0x80, 0, "nobody waits for an update");
    }

    #[test]
    fn memory_is_told_in_units_of_64_kib() {
        let ram = Ram { low: 1 << 31, high: 5 << 30 };
        assert_eq!([0x34, 0x35].map(|register| ram.value(register)), [Some(0), Some(0x7f)]);
        assert_eq!([0x5b, 0x5c, 0x5d].map(|register| ram.value(register)), [Some(0), Some(0x40), Some(1)]);
        assert_eq!(Ram { low: 1 << 20, high: 0 }.value(0x34), Some(0));
        assert_eq!(ram.value(0x32), None);
    }
}
