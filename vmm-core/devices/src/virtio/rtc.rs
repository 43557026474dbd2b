//! virtio-rtc: a clock of the host that a guest may read (section 5.23 of version 1.4 of the specification).
//!
//! # Protocol
//! One queue. A request begins with its type (u16) and six reserved bytes; all but CFG name a clock (u16) at byte 8. An answer
//! begins with a status and seven reserved bytes, and has eight bytes of results behind them. There is no configuration, and no
//! alarms are offered.
//!
//! | request | results |
//! |---|---|
//! | CFG | how many clocks there are (u16): 1 |
//! | CLOCK_CAP | type of the clock, kind of smearing, flags |
//! | CROSS_CAP | whether a counter can be read together with the clock: never |
//! | READ | nanoseconds since 1970-01-01 (u64) |
//!
//! The host's clock may be smeared around a leap second, and nobody can ask it: the clock says "maybe smeared".
//!
//! # Invariants
//! - A TD need not believe its host's clock, and nothing here makes it: a reading is data like a packet from the network.
//! - An answer for which the buffers have no room is refused with a status; buffers without room for that are [`Broken`].

use alloc::boxed::Box;

use super::chain::Chain;
use super::{Broken, Served, VirtioDevice};
use crate::SharedMemory;

const DEVICE_ID: u32 = 17;
const PLACES: u16 = 16;

/// Bytes of a request's or an answer's header.
const HEADER_BYTES: usize = 8;
/// Bytes of the longest request: header, clock, and what CROSS_CAP asks for.
const REQUEST_BYTES: usize = 16;

/// Types of requests.
mod request {
    pub(super) const READ: u16 = 0x0001;
    pub(super) const CFG: u16 = 0x1000;
    pub(super) const CLOCK_CAP: u16 = 0x1001;
    pub(super) const CROSS_CAP: u16 = 0x1002;
}

/// The only clock: time as people have it, perhaps smeared around leap seconds.
const CLOCK: u16 = 0;
const UTC_MAYBE_SMEARED: u8 = 4;

const OK: u8 = 0;

/// Why a request is refused, as its status.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Refusal {
    /// No such request, or not here.
    NotSupported = 2,
    /// No such clock.
    NoDevice = 3,
    /// The request or the room for its answer is too short.
    Invalid = 4,
    /// The clock cannot be read.
    Failed = 5,
}

/// The host's time.
pub trait Clock: Send {
    /// Nanoseconds since 1970-01-01 00:00:00 UTC; `None` where the host does not know.
    fn now(&mut self) -> Option<u64>;
}

impl<F: FnMut() -> Option<u64> + Send> Clock for F {
    fn now(&mut self) -> Option<u64> {
        self()
    }
}

/// The device.
pub struct VirtioRtc {
    clock: Box<dyn Clock>,
}

impl VirtioRtc {
    /// `clock` as a virtio device.
    pub fn new(clock: Box<dyn Clock>) -> Self {
        Self { clock }
    }

    /// The results of a request.
    fn results(&mut self, request: &[u8]) -> Result<[u8; 8], Refusal> {
        let word = |at: usize| match request.get(at..at + 2) {
            Some(&[low, high]) => Ok(u16::from_le_bytes([low, high])),
            _ => Err(Refusal::Invalid),
        };
        let kind = word(0)?;
        let expected = match kind {
            request::CFG => HEADER_BYTES,
            request::READ | request::CLOCK_CAP | request::CROSS_CAP => REQUEST_BYTES,
            _ => return Err(Refusal::NotSupported),
        };
        if request.len() < expected {
            return Err(Refusal::Invalid);
        }
        if kind == request::CFG {
            return Ok(u64::from(CLOCK + 1).to_le_bytes());
        }
        if word(HEADER_BYTES)? != CLOCK {
            return Err(Refusal::NoDevice);
        }
        Ok(match kind {
            request::READ => self.clock.now().ok_or(Refusal::Failed)?.to_le_bytes(),
            request::CLOCK_CAP => [UTC_MAYBE_SMEARED, 0, 0, 0, 0, 0, 0, 0],
            _ => [0; 8],
        })
    }
}

impl VirtioDevice for VirtioRtc {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[PLACES]
    }

    fn config(&self) -> &[u8] {
        &[]
    }

    fn accept(&mut self, _: u64) {}

    fn serve(&mut self, _queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut reader = chain.reader(memory);
        let length = usize::try_from(reader.remaining()).unwrap_or(REQUEST_BYTES).min(REQUEST_BYTES);
        let mut request = [0; REQUEST_BYTES];
        let request = request.get_mut(..length).unwrap_or_default();
        reader.read(request)?;
        let mut writer = chain.writer(memory);
        let has_room = writer.remaining() >= (HEADER_BYTES + size_of::<u64>()) as u64;
        let answer = if has_room { self.results(request) } else { Err(Refusal::Invalid) };
        let status = answer.map_or_else(|refusal| refusal as u8, |_| OK);
        writer.write(&[status, 0, 0, 0, 0, 0, 0, 0])?;
        if let Ok(results) = answer {
            writer.write(&results)?;
        }
        Ok(Served::Used(writer.written()))
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::virtio::test_driver::{DATA, TestDriver};

    const NOW: u64 = 1_795_910_400_123_456_789;

    /// Asks, with so much room for the answer; gives what the device says that it wrote.
    fn ask(clock: Option<u64>, request: &[u8], room: u32) -> Vec<u8> {
        let device = VirtioRtc::new(Box::new(move || clock));
        let mut driver = TestDriver::new(Box::new(device), 16);
        driver.start();
        driver.describe_chain(&[request], &[room]);
        driver.offer(0);
        driver.notify();
        match driver.used()[..] {
            [(0, written)] => {
                let answer: [u8; 16] = driver.memory.get(DATA + request.len() as u64);
                answer[..written as usize].to_vec()
            }
            _ => Vec::new(),
        }
    }

    /// A request for a clock.
    fn request(kind: u16, clock: u16) -> [u8; 16] {
        let mut request = [0; 16];
        request[..2].copy_from_slice(&kind.to_le_bytes());
        request[8..10].copy_from_slice(&clock.to_le_bytes());
        request
    }

    #[test]
    fn a_guest_finds_one_clock_and_reads_it() {
        let answer = |kind| ask(Some(NOW), &request(kind, 0), 16);
        assert_eq!(answer(0x1000), [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer(0x1001), [0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0], "UTC, maybe smeared");
        assert_eq!(answer(0x1002), [0; 16], "no counter is read together with it");
        assert_eq!(answer(0x0001), [[0; 8], NOW.to_le_bytes()].concat());
    }

    #[test]
    fn what_cannot_be_answered_is_refused_with_its_reason() {
        for unknown in [0x0002, 0x1003, 0x2000, 0xffff] {
            assert_eq!(ask(Some(NOW), &request(unknown, 0), 16), [2, 0, 0, 0, 0, 0, 0, 0], "{unknown:#x}");
        }
        assert_eq!(ask(Some(NOW), &request(1, 1), 16)[0], 3, "another clock");
        assert_eq!(ask(Some(NOW), &request(1, 0)[..15], 16)[0], 4, "a request that is cut off");
        assert_eq!(ask(Some(NOW), &[1], 16)[0], 4, "half a type");
        assert_eq!(ask(Some(NOW), &request(1, 0), 15), [4, 0, 0, 0, 0, 0, 0, 0], "no room for the answer");
        assert_eq!(ask(None, &request(1, 0), 16)[0], 5, "a host without a clock");
    }

    #[test]
    fn a_request_without_room_for_a_status_stops_the_device() {
        assert!(ask(Some(NOW), &request(1, 0), 7).is_empty());
    }
}
