//! The event log in the CCEL area: what the shim says that it extended the RTMRs with.
//!
//! TCG PC Client Platform Firmware Profile, crypto-agile format with SHA-384 alone; the place of the PCR index
//! holds a measurement register index, which is RTMR + 1 (UEFI 2.10, confidential computing measurement). The rest
//! of the area is 0xFF, which readers take for the end (OVMF's convention).
//!
//! This file uses `core` only, so that the host-side tests can include it.

use crate::bytes::put;

/// Bytes of a SHA-384 digest.
pub const DIGEST: usize = 48;

const EV_NO_ACTION: u32 = 0x3;
const ALGORITHM_SHA384: u16 = 0x000C;
const SHA1_DIGEST: usize = 20;

/// A run-time measurement register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rtmr {
    /// The machine as the host describes it.
    Machine = 0,
    /// The kernel.
    Kernel = 1,
    /// What the kernel is given.
    KernelInputs = 2,
}

/// What kind of event (TCG PC Client Platform Firmware Profile, event types).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum EventType {
    /// EV_SEPARATOR.
    Separator = 0x4,
    /// EV_IPL.
    Ipl = 0xD,
    /// EV_EFI_HANDOFF_TABLES2.
    HandoffTables2 = 0x8000_000B,
}

/// An event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The register that it extends.
    pub rtmr: Rtmr,
    /// The event's kind.
    pub kind: EventType,
    /// What the register is extended by.
    pub digest: &'a [u8; DIGEST],
    /// The event's data, in pieces.
    pub data: &'a [&'a [u8]],
}

/// The area has no room for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogFull;

/// A log that grows.
#[derive(Debug)]
pub struct EventLog<'a> {
    area: &'a mut [u8],
    used: usize,
}

impl<'a> EventLog<'a> {
    /// Begins a log in an area, with the event that names the algorithm.
    ///
    /// # Errors
    /// [`LogFull`].
    pub fn begin(area: &'a mut [u8]) -> Result<Self, LogFull> {
        area.fill(0xFF);
        let mut log = Self { area, used: 0 };
        // TCG_EfiSpecIDEvent: signature, platform class, version 2.00, UINTN of eight bytes, one algorithm with the
        // size of its digest, no vendor information.
        let specification: [&[u8]; 7] = [
            b"Spec ID Event03\0",
            &0u32.to_le_bytes(),
            &[0, 2, 0, 2],
            &1u32.to_le_bytes(),
            &ALGORITHM_SHA384.to_le_bytes(),
            &(DIGEST as u16).to_le_bytes(),
            &[0],
        ];
        let header: [&[u8]; 3] = [&0u32.to_le_bytes(), &EV_NO_ACTION.to_le_bytes(), &[0; SHA1_DIGEST]];
        log.entry(&header, &specification)?;
        Ok(log)
    }

    /// Appends an event.
    ///
    /// # Errors
    /// [`LogFull`]; the log is unchanged then.
    pub fn append(&mut self, event: &Event<'_>) -> Result<(), LogFull> {
        let header: [&[u8]; 5] = [
            &(event.rtmr as u32 + 1).to_le_bytes(),
            &(event.kind as u32).to_le_bytes(),
            &1u32.to_le_bytes(),
            &ALGORITHM_SHA384.to_le_bytes(),
            event.digest,
        ];
        self.entry(&header, event.data)
    }

    fn entry(&mut self, header: &[&[u8]], data: &[&[u8]]) -> Result<(), LogFull> {
        let length: usize = data.iter().map(|piece| piece.len()).sum();
        let size = u32::try_from(length).map_err(|_| LogFull)?.to_le_bytes();
        let headers: usize = header.iter().map(|piece| piece.len()).sum();
        let end = self.used.checked_add(headers + size.len()).and_then(|end| end.checked_add(length));
        if end.is_none_or(|end| end > self.area.len()) {
            return Err(LogFull);
        }
        let size: [&[u8]; 1] = [&size];
        for piece in header.iter().chain(&size).chain(data) {
            put(self.area, self.used, piece).ok_or(LogFull)?;
            self.used += piece.len();
        }
        Ok(())
    }
}
