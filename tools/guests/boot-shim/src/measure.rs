//! Measurement: every event goes into the log and, by TDG.MR.RTMR.EXTEND, into its register.
//!
//! The log has the event before the register does; where one of the two fails, the boot ends.

use guest_rt::measurement;
use sha2::{Digest, Sha384};

use crate::event_log::{DIGEST, Event, EventLog, EventType, Rtmr};
use crate::problem::Problem;

/// What an EV_SEPARATOR says where nothing went wrong.
const SEPARATOR: [u8; 4] = [0; 4];
/// gEfiHobListGuid, 7739f24c-93d7-11d4-9a3a-0090273fc14d.
const HOB_LIST_GUID: [u8; 16] =
    [0x4C, 0xF2, 0x39, 0x77, 0xD7, 0x93, 0xD4, 0x11, 0x9A, 0x3A, 0x00, 0x90, 0x27, 0x3F, 0xC1, 0x4D];
/// Description of the hand-off table, with its length before it.
const HOB_DESCRIPTION: &[u8] = b"\x07td_hob\0";

/// Log and registers.
#[derive(Debug)]
pub struct Measurer {
    log: EventLog<'static>,
    operand: &'static mut [u8],
}

impl Measurer {
    /// Begins a log in `area`; `operand` is an aligned page for the calls.
    ///
    /// # Errors
    /// The area is too small.
    pub fn new(area: &'static mut [u8], operand: &'static mut [u8]) -> Result<Self, Problem> {
        Ok(Self { log: EventLog::begin(area)?, operand })
    }

    /// Measures the TD HOB as the host wrote it.
    ///
    /// # Errors
    /// As for all: the log is full, or the module refuses.
    pub fn hob(&mut self, bytes: &[u8]) -> Result<(), Problem> {
        let count = 1u64.to_le_bytes();
        let address = (bytes.as_ptr() as u64).to_le_bytes();
        let data: [&[u8]; 4] = [HOB_DESCRIPTION, &count, &HOB_LIST_GUID, &address];
        self.event(Rtmr::Machine, EventType::HandoffTables2, bytes, &data)
    }

    /// Measures the kernel file.
    ///
    /// # Errors
    /// As [`Self::hob`].
    pub fn kernel(&mut self, file: &[u8]) -> Result<(), Problem> {
        self.event(Rtmr::Kernel, EventType::Ipl, file, &[b"kernel\0"])
    }

    /// Measures the command line.
    ///
    /// # Errors
    /// As [`Self::hob`].
    pub fn command_line(&mut self, text: &[u8]) -> Result<(), Problem> {
        self.event(Rtmr::KernelInputs, EventType::Ipl, text, &[b"kernel_cmdline: ", text, b"\0"])
    }

    /// Measures the initrd.
    ///
    /// # Errors
    /// As [`Self::hob`].
    pub fn initrd(&mut self, file: &[u8]) -> Result<(), Problem> {
        self.event(Rtmr::KernelInputs, EventType::Ipl, file, &[b"initrd\0"])
    }

    /// Ends a register's events.
    ///
    /// # Errors
    /// As [`Self::hob`].
    pub fn separator(&mut self, rtmr: Rtmr) -> Result<(), Problem> {
        self.event(rtmr, EventType::Separator, &SEPARATOR, &[&SEPARATOR])
    }

    fn event(&mut self, rtmr: Rtmr, kind: EventType, content: &[u8], data: &[&[u8]]) -> Result<(), Problem> {
        let digest: [u8; DIGEST] = Sha384::digest(content).into();
        self.log.append(&Event { rtmr, kind, digest: &digest, data })?;
        measurement::extend(self.operand, rtmr as u64, &digest)?;
        Ok(())
    }
}
