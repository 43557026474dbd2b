//! Logs made by hand: every end, every oddity.

use super::*;
use crate::digest::Digest384;

const SHA384_ONLY: &[(u16, u16)] = &[(0xc, 48)];

/// Writes a log.
pub(crate) struct LogWriter {
    pub bytes: Vec<u8>,
}

impl LogWriter {
    pub(crate) fn new() -> Self {
        Self::with_algorithms(SHA384_ONLY)
    }

    pub(crate) fn with_algorithms(algorithms: &[(u16, u16)]) -> Self {
        let mut event = Vec::from(*b"Spec ID Event03\0");
        event.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        event.extend((algorithms.len() as u32).to_le_bytes());
        for (id, size) in algorithms {
            event.extend(id.to_le_bytes());
            event.extend(size.to_le_bytes());
        }
        event.push(0);
        let mut bytes = Vec::new();
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(3u32.to_le_bytes());
        bytes.extend([0; 20]);
        bytes.extend((event.len() as u32).to_le_bytes());
        bytes.extend(event);
        Self { bytes }
    }

    pub(crate) fn event(mut self, mr: u32, kind: EventType, digests: &[(u16, &[u8])], data: &[u8]) -> Self {
        self.bytes.extend(mr.to_le_bytes());
        self.bytes.extend(kind.0.to_le_bytes());
        self.bytes.extend((digests.len() as u32).to_le_bytes());
        for (id, digest) in digests {
            self.bytes.extend(id.to_le_bytes());
            self.bytes.extend(*digest);
        }
        self.bytes.extend((data.len() as u32).to_le_bytes());
        self.bytes.extend(data);
        self
    }

    /// An event measured with its data.
    pub(crate) fn measured(self, mr: u32, kind: EventType, data: &[u8]) -> Self {
        let digest = Digest384::of(data);
        self.event(mr, kind, &[(0xc, &digest.0)], data)
    }

    pub(crate) fn fill(mut self, byte: u8, count: usize) -> Self {
        self.bytes.extend(std::iter::repeat_n(byte, count));
        self
    }
}

fn kinds(bytes: &[u8]) -> Vec<WarningKind> {
    EventLog::parse(bytes).unwrap().warnings().map(|warning| warning.kind).collect()
}

fn end(bytes: &[u8]) -> LogEnd {
    let ends = EventLog::parse(bytes).unwrap().walk().filter_map(|found| match found {
        Found::End { end, .. } => Some(end),
        _ => None,
    });
    let [end] = ends.collect::<Vec<_>>()[..] else { panic!("a walk has one end") };
    end
}

#[test]
fn a_clean_log_replays_without_a_warning() {
    let log = LogWriter::new()
        .measured(1, EventType::SEPARATOR, &[0; 4])
        .measured(2, EventType::EFI_ACTION, b"Exit Boot Services Invocation")
        .fill(0xff, 100);
    assert_eq!(kinds(&log.bytes), []);
    assert_eq!(end(&log.bytes), LogEnd::Ones);
    let replay = EventLog::parse(&log.bytes).unwrap().replay();
    assert_eq!(replay[Register::Rtmr0], Digest384::ZERO.extended_by(&Digest384::of(&[0; 4])));
    assert_eq!(replay.events(Register::Rtmr1), 1);
    assert!(replay[Register::Rtmr2].is_zero());
}

#[test]
fn a_log_may_end_in_three_ways() {
    let log = || LogWriter::new().measured(1, EventType::SEPARATOR, &[0; 4]);
    assert_eq!(end(&log().fill(0xff, 3).bytes), LogEnd::Ones);
    assert_eq!(end(&log().fill(0, 64).bytes), LogEnd::Zeros);
    assert_eq!(kinds(&log().fill(0, 64).bytes), [WarningKind::ZeroFill]);
    assert_eq!(end(&log().bytes), LogEnd::AreaEnd);
    assert_eq!(kinds(&log().bytes), [WarningKind::NoFill]);
    let dirty = log().fill(0xff, 16).fill(7, 1).bytes;
    assert_eq!(kinds(&dirty), [WarningKind::DataAfterEnd { at: dirty.len() - 1 }]);
}

#[test]
fn no_action_and_impossible_indices_are_never_extended() {
    let log = LogWriter::new()
        .event(1, EventType::NO_ACTION, &[(0xc, &[9; 48])], b"StartupLocality\0")
        .event(0xffff_ffff, EventType::NO_ACTION, &[], b"")
        .event(0xffff_ffff, EventType::SEPARATOR, &[(0xc, &[9; 48])], &[0; 4])
        .event(0, EventType::SEPARATOR, &[(0xc, &Digest384::of(&[0; 4]).0)], &[0; 4])
        .event(9, EventType::IPL, &[(0xc, &[9; 48])], b"x")
        .fill(0xff, 8);
    let found = kinds(&log.bytes);
    assert_eq!(
        found,
        [
            WarningKind::NoAction,
            WarningKind::NoAction,
            WarningKind::NoRegister(MrIndex(0xffff_ffff)),
            WarningKind::NoRegister(MrIndex(0xffff_ffff)),
            WarningKind::DigestNotOfData,
            WarningKind::ForMrtd,
            WarningKind::NoRegister(MrIndex(9)),
        ]
    );
    assert_eq!(EventLog::parse(&log.bytes).unwrap().replay(), Replay::default());
}

#[test]
fn other_algorithms_are_skipped_by_their_size() {
    let zero = Digest384::of(&[0; 4]);
    let log = LogWriter::with_algorithms(&[(0x12, 32), (0xc, 48), (0x99, 5)])
        .event(1, EventType::SEPARATOR, &[(0x12, &[1; 32]), (0x99, &[2; 5]), (0xc, &zero.0)], &[0; 4])
        .event(1, EventType::SEPARATOR, &[(0x12, &[1; 32])], &[0; 4])
        .fill(0xff, 8);
    assert_eq!(kinds(&log.bytes), [WarningKind::OtherDigests, WarningKind::NoSha384]);
    assert_eq!(EventLog::parse(&log.bytes).unwrap().replay().events(Register::Rtmr0), 1);
}

#[test]
fn what_cannot_be_read_ends_the_log_and_says_why() {
    let unknown = LogWriter::new().event(1, EventType::IPL, &[(0x77, &[0; 48])], b"").fill(0xff, 8);
    assert_eq!(kinds(&unknown.bytes), [WarningKind::UnknownAlgorithm(AlgorithmId(0x77))]);
    assert_eq!(end(&unknown.bytes), LogEnd::Cut);
    let mut many = LogWriter::new().measured(1, EventType::SEPARATOR, &[0; 4]).fill(0xff, 8);
    let count = EventLog::parse(&many.bytes).unwrap().events().next().unwrap().offset + 8;
    many.bytes[count..count + 4].copy_from_slice(&17u32.to_le_bytes());
    assert_eq!(kinds(&many.bytes), [WarningKind::DigestCount(17)]);
    let whole = LogWriter::new().measured(1, EventType::SEPARATOR, &[0; 4]).bytes;
    let header = EventLog::parse(&whole).unwrap().events().next().unwrap().offset;
    for length in header + 1..whole.len() {
        assert_eq!(end(&whole[..length]), LogEnd::Cut, "cut to {length} bytes");
    }
}

#[test]
fn areas_without_a_log_are_errors() {
    assert_eq!(EventLog::parse(&[]).unwrap_err(), LogError::Empty);
    assert_eq!(EventLog::parse(&[0xff; 4096]).unwrap_err(), LogError::Empty);
    assert_eq!(EventLog::parse(&[0; 4096]).unwrap_err(), LogError::Empty);
    let good = LogWriter::new().bytes;
    for length in 1..good.len() {
        let error = EventLog::parse(&good[..length]).unwrap_err();
        assert!(matches!(error, LogError::Truncated(_)), "{length}: {error}");
    }
    let mut bad = good.clone();
    bad[4] = 4;
    assert_eq!(EventLog::parse(&bad).unwrap_err(), LogError::FirstEvent(EventType::SEPARATOR));
    let mut bad = good;
    bad[32] = b'X';
    assert!(matches!(EventLog::parse(&bad), Err(LogError::Signature(_))));
}

#[test]
fn data_that_were_not_measured_are_pointed_out() {
    let digest = Digest384::of(b"what was measured");
    let log = LogWriter::new()
        .event(2, EventType::EFI_ACTION, &[(0xc, &digest.0)], b"what the log says")
        .event(3, EventType::IPL, &[(0xc, &Digest384::of(b"set x=1").0)], b"grub_cmd: set x=1\0")
        .event(3, EventType::IPL, &[(0xc, &digest.0)], b"/boot/vmlinuz\0")
        .fill(0xff, 8);
    assert_eq!(kinds(&log.bytes), [WarningKind::DigestNotOfData]);
    let consistency: Vec<_> =
        EventLog::parse(&log.bytes).unwrap().events().map(|event| event.consistency()).collect();
    assert_eq!(consistency, [Consistency::Differs, Consistency::Measured, Consistency::NotInLog]);
}

#[test]
fn a_long_log_is_walked_once_and_ends() {
    let mut log = LogWriter::new();
    for _ in 0..1000 {
        log = log.event(1, EventType::NO_ACTION, &[], b"");
    }
    let log = log.fill(0xff, 8);
    assert_eq!(EventLog::parse(&log.bytes).unwrap().events().count(), 1000);
    assert_eq!(EventLog::parse(&log.bytes).unwrap().warnings().count(), 1000);
}
