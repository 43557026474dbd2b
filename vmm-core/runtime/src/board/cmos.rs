//! The clock of a PC: CMOS registers behind an index port and a data port.
//!
//! A kernel reads the date once, and waits for a second or more if nobody answers. Time is kept in BCD and 24 hours;
//! there are no alarms, no interrupts, and writes have no effect: a guest that sets its clock sets its own.
//! Registers: Motorola MC146818A data sheet; register 0x32 is the century, as PCs have it.

use std::time::{SystemTime, UNIX_EPOCH};

use tdvisor_attest::time::UnixSeconds;
use tdvisor_devices::{AccessSize, DeviceRequest, PortDevice, SharedMemory};

use machine_emu::Pace;

/// The index port; the data port follows it.
pub const CMOS_BASE: u16 = 0x70;
/// Both ports.
pub const CMOS_PORTS: u16 = 2;

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
}

impl Cmos {
    /// A clock that shows the host's time, or in a deterministic run always the same.
    pub const fn new(pace: Pace) -> Self {
        Self { index: 0, pace }
    }

    fn now(&self) -> UnixSeconds {
        match self.pace {
            Pace::Deterministic { .. } => DETERMINISTIC,
            Pace::Real => {
                UnixSeconds(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
            }
        }
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
            _ => value(self.index, self.now()).into(),
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
            self.index = data as u8 & 0x7f;
        }
        DeviceRequest::None
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
}
