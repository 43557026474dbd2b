//! Writing a log: for events that someone hands over in another form.

use alloc::vec::Vec;

use super::event::{AlgorithmId, EventType, Register};
use super::header::SIGNATURE;
use td_image::digest::Digest384;

/// Bytes of a SHA-384 digest, as an event log says it.
const DIGEST_BYTES: u16 = 48;
const _: () = assert!(size_of::<Digest384>() == DIGEST_BYTES as usize);

/// What follows the last event, as OVMF fills its area.
const FILL: [u8; 16] = [0xff; 16];

/// A log in the making, with SHA-384 digests alone.
#[derive(Clone, Debug)]
pub struct LogBuilder(Vec<u8>);

impl Default for LogBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl LogBuilder {
    /// A log with its header and nothing else.
    #[must_use]
    pub fn new() -> Self {
        let mut event = SIGNATURE.to_vec();
        // Platform class "client"; version 2.0, errata 0, 64-bit UINTN; one algorithm; no vendor information.
        event.extend(0u32.to_le_bytes());
        event.extend([0, 2, 0, 2]);
        event.extend(1u32.to_le_bytes());
        event.extend(AlgorithmId::SHA384.0.to_le_bytes());
        event.extend(DIGEST_BYTES.to_le_bytes());
        event.push(0);
        let mut log = Vec::new();
        log.extend(Register::Rtmr0.index().0.to_le_bytes());
        log.extend(EventType::NO_ACTION.0.to_le_bytes());
        log.extend([0; 20]);
        log.extend(crate::length32(event.len()).to_le_bytes());
        log.extend(event);
        Self(log)
    }

    /// Appends an event.
    pub fn push(&mut self, register: Register, kind: EventType, digest: &Digest384, data: &[u8]) {
        self.0.extend(register.index().0.to_le_bytes());
        self.0.extend(kind.0.to_le_bytes());
        self.0.extend(1u32.to_le_bytes());
        self.0.extend(AlgorithmId::SHA384.0.to_le_bytes());
        self.0.extend(digest.0);
        self.0.extend(crate::length32(data.len()).to_le_bytes());
        self.0.extend(data);
    }

    /// The log, with some fill behind it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.0.extend(FILL);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventlog::EventLog;

    #[test]
    fn what_is_written_is_read_again() {
        let mut log = LogBuilder::new();
        let digest = Digest384::of(b"text");
        log.push(Register::Rtmr2, EventType::EFI_ACTION, &digest, b"text");
        let bytes = log.finish();
        let log = EventLog::parse(&bytes).unwrap();
        assert_eq!(log.warnings().next(), None);
        let [event] = log.events().collect::<Vec<_>>()[..] else { panic!("one event") };
        assert_eq!(
            (event.extends(), event.digest(), event.raw_data),
            (Some(Register::Rtmr2), Some(digest), &b"text"[..])
        );
    }
}
