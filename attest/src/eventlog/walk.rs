//! The walk over a log's entries, and everything odd that it may meet.

use core::fmt;

use super::EventData;
use super::data::{Consistency, Section, section_name};
use super::event::{AlgorithmId, Digests, Event, EventType, MrIndex, Register};
use super::header::Header;
use crate::bytes::{Cursor, Truncated};

/// More digests than this are no list.
const MAX_DIGESTS: u32 = 16;
/// What firmware measures last, into RTMR1 (TCG PC Client Platform Firmware Profile, "EV_EFI_ACTION").
const BOOT_SERVICES_LEFT: &[u8] = b"Exit Boot Services Returned with Success";
/// Index and type: an entry needs at least these to be told from the log's end.
const MIN_ENTRY: usize = 8;

/// How a log ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogEnd {
    /// At bytes of 0xFF, as OVMF fills its area.
    Ones,
    /// At zeros, as td-shim fills its area.
    Zeros,
    /// Where the area ends.
    AreaEnd,
    /// At an entry that cannot be read; a warning says why.
    Cut,
}

impl fmt::Display for LogEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ones => "fill of 0xFF",
            Self::Zeros => "fill of zeros",
            Self::AreaEnd => "end of the area",
            Self::Cut => "an entry that cannot be read",
        })
    }
}

/// Something odd, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The entry's position in the log; the header is 0.
    pub number: u32,
    /// Offset in the area, bytes.
    pub offset: usize,
    /// What is odd.
    pub kind: WarningKind,
}

/// What is odd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WarningKind {
    /// The header's own digest is not zero.
    HeaderDigest,
    /// The header declares a size for a known algorithm that is not its own.
    AlgorithmSize {
        /// The algorithm.
        algorithm: AlgorithmId,
        /// The declared size, bytes.
        declared: u16,
    },
    /// A further EV_NO_ACTION: skipped, as all of them.
    NoAction,
    /// An index that is no register: the event is skipped.
    NoRegister(MrIndex),
    /// An event for MRTD, which cannot be extended: skipped.
    ForMrtd,
    /// No SHA-384 digest: nothing of the event is in a register.
    NoSha384,
    /// Digests of other algorithms beside the SHA-384: ignored.
    OtherDigests,
    /// The digest is not the hash of the data, and for this type it should be.
    DigestNotOfData,
    /// What firmware measures before the separator of its register, after it: the separator closes that phase.
    AfterSeparator,
    /// An event of firmware's registers after firmware had left the machine to the system.
    AfterExit,
    /// The data are of a UEFI variable, and the type is not: someone gave the event another name.
    VariableOfOtherType,
    /// An EV_EVENT_TAG without its id and length (older Linux stubs).
    UntaggedEvent,
    /// The separator that belongs to RTMR1 is logged for RTMR0 (some OVMF builds).
    SeparatorInRtmr0,
    /// The log ends at zeros, without the usual fill of 0xFF.
    ZeroFill,
    /// The area ends without any fill.
    NoFill,
    /// There are other bytes behind the log's end.
    DataAfterEnd {
        /// Offset of the first of them.
        at: usize,
    },
    /// The area ends inside an entry: the log is cut there.
    Truncated(Truncated),
    /// An entry with an absurd number of digests: the log is cut there.
    DigestCount(u32),
    /// A digest of unknown size: the log is cut there.
    UnknownAlgorithm(AlgorithmId),
}

impl fmt::Display for WarningKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HeaderDigest => f.write_str("the header's digest is not zero"),
            Self::AlgorithmSize { algorithm, declared } => {
                write!(f, "the header gives {algorithm} digests {declared} bytes")
            }
            Self::NoAction => f.write_str("a further EV_NO_ACTION, not extended"),
            Self::NoRegister(MrIndex(index)) => {
                write!(f, "index {index:#x} is no measurement register, not extended")
            }
            Self::ForMrtd => f.write_str("an event for MRTD, which nothing extends: skipped"),
            Self::NoSha384 => f.write_str("no SHA-384 digest: nothing of this event is in a register"),
            Self::OtherDigests => f.write_str("digests of other algorithms are ignored"),
            Self::DigestNotOfData => {
                f.write_str("the digest is not the hash of the data: what the log says here is not measured")
            }
            Self::AfterSeparator => f.write_str(
                "after the separator of its register, before which firmware measures this: something else did, or again",
            ),
            Self::AfterExit => f.write_str(
                "after firmware had left the machine to the system: firmware did not measure this",
            ),
            Self::VariableOfOtherType => {
                f.write_str("the data are of a UEFI variable and the type is not: the event was renamed")
            }
            Self::UntaggedEvent => f.write_str("an EV_EVENT_TAG without id and length (older Linux stub)"),
            Self::SeparatorInRtmr0 => {
                f.write_str("the separator of RTMR1 is logged for RTMR0 (a known OVMF build)")
            }
            Self::ZeroFill => f.write_str("the log ends at zeros instead of 0xFF"),
            Self::NoFill => f.write_str("the log ends with the area"),
            Self::DataAfterEnd { at } => {
                write!(f, "other bytes behind the end of the log, from offset {at:#x}")
            }
            Self::Truncated(Truncated { needed, left, .. }) => {
                write!(f, "the area ends inside the entry ({left} of {needed} bytes): the log is cut here")
            }
            Self::DigestCount(count) => write!(f, "an entry with {count} digests: the log is cut here"),
            Self::UnknownAlgorithm(algorithm) => {
                write!(f, "a digest of {algorithm}, whose size nobody gives: the log is cut here")
            }
        }
    }
}

impl WarningKind {
    /// Whether the log contradicts itself here; the rest is merely odd.
    #[must_use]
    pub const fn is_contradiction(self) -> bool {
        matches!(
            self,
            Self::DigestNotOfData
                | Self::AfterSeparator
                | Self::AfterExit
                | Self::VariableOfOtherType
                | Self::NoSha384
        )
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} at {:#x}: {}", self.number, self.offset, self.kind)
    }
}

/// One step of a walk.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// An entry.
    Event(Event<'a>),
    /// Something odd about the entry before, or about the log.
    Warning(Warning),
    /// The end, once, as the last step but for warnings about it.
    End {
        /// How the log ended.
        end: LogEnd,
        /// Where, bytes into the area.
        offset: usize,
    },
}

/// Iterates over a log. Ends after at most one step per eight bytes of the area, and a few warnings each.
#[derive(Clone, Debug)]
pub struct Walk<'a> {
    area: &'a [u8],
    header: Header<'a>,
    at: usize,
    number: u32,
    separators_rtmr0: u32,
    /// Per RTMR: whether its separator has been seen, and the section whose contents come next.
    closed: [bool; 4],
    named: [Option<&'a [u8]>; 4],
    /// Whether firmware has left the machine to the system.
    left: bool,
    pending: Pending<'a>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    Entries,
    Done,
}

/// Steps found together, given one by one. No entry has more than a handful.
#[derive(Clone, Copy, Debug, Default)]
struct Pending<'a> {
    slots: [Option<Found<'a>>; 8],
    given: usize,
    filled: usize,
}

impl<'a> Pending<'a> {
    fn push(&mut self, found: Found<'a>) {
        if let Some(slot) = self.slots.get_mut(self.filled) {
            *slot = Some(found);
            self.filled += 1;
        }
    }

    fn pop(&mut self) -> Option<Found<'a>> {
        let found = self.slots.get_mut(self.given).and_then(Option::take);
        match found {
            Some(_) => self.given += 1,
            None => *self = Self::default(),
        }
        found
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Found<'a>;

    fn next(&mut self) -> Option<Found<'a>> {
        loop {
            if let Some(found) = self.pending.pop() {
                return Some(found);
            }
            match self.state {
                State::Header => self.header_warnings(),
                State::Entries => self.entry(),
                State::Done => return None,
            }
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) const fn new(area: &'a [u8], header: Header<'a>) -> Self {
        Self {
            area,
            header,
            at: header.end,
            number: 1,
            separators_rtmr0: 0,
            closed: [false; 4],
            named: [None; 4],
            left: false,
            pending: Pending { slots: [None; 8], given: 0, filled: 0 },
            state: State::Header,
        }
    }

    fn warn(&mut self, number: u32, offset: usize, kind: WarningKind) {
        self.pending.push(Found::Warning(Warning { number, offset, kind }));
    }

    fn header_warnings(&mut self) {
        self.state = State::Entries;
        let header = self.header;
        if !header.digest_is_zero {
            self.warn(0, 0, WarningKind::HeaderDigest);
        }
        let wrong = header.algorithms().find(|entry| {
            entry.algorithm.digest_bytes().is_some_and(|size| size != usize::from(entry.bytes))
        });
        if let Some(entry) = wrong {
            let kind = WarningKind::AlgorithmSize { algorithm: entry.algorithm, declared: entry.bytes };
            self.warn(0, 0, kind);
        }
    }

    fn end(&mut self, end: LogEnd) {
        self.state = State::Done;
        let offset = self.at;
        self.pending.push(Found::End { end, offset });
        let fill = match end {
            LogEnd::Ones => 0xff,
            LogEnd::Zeros => {
                self.warn(self.number, offset, WarningKind::ZeroFill);
                0
            }
            LogEnd::AreaEnd => return self.warn(self.number, offset, WarningKind::NoFill),
            LogEnd::Cut => return,
        };
        let rest = self.area.get(offset..).unwrap_or_default();
        if let Some(other) = rest.iter().position(|byte| *byte != fill) {
            self.warn(self.number, offset, WarningKind::DataAfterEnd { at: offset.saturating_add(other) });
        }
    }

    fn entry(&mut self) {
        let offset = self.at;
        let rest = self.area.get(offset..).unwrap_or_default();
        match rest.get(..MIN_ENTRY) {
            None if rest.is_empty() => return self.end(LogEnd::AreaEnd),
            // A tail shorter than an entry's head that is all fill is fill.
            None if rest.iter().all(|byte| *byte == 0xff) => return self.end(LogEnd::Ones),
            None if rest.iter().all(|byte| *byte == 0) => return self.end(LogEnd::Zeros),
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => return self.end(LogEnd::Ones),
            Some([0, 0, 0, 0, 0, 0, 0, 0]) => return self.end(LogEnd::Zeros),
            _ => {}
        }
        match self.read(rest) {
            Ok((mut event, length)) => {
                event.section = self.section(&event);
                self.at = offset.saturating_add(length);
                self.pending.push(Found::Event(event));
                self.oddities(&event);
                self.number = self.number.saturating_add(1);
            }
            Err(kind) => {
                self.warn(self.number, offset, kind);
                self.end(LogEnd::Cut);
            }
        }
    }

    fn read(&self, rest: &'a [u8]) -> Result<(Event<'a>, usize), WarningKind> {
        let mut entry = Cursor::new(rest);
        let truncated = WarningKind::Truncated;
        let mr = MrIndex(entry.u32().map_err(truncated)?);
        let kind = EventType(entry.u32().map_err(truncated)?);
        let count = entry.u32().map_err(truncated)?;
        if count > MAX_DIGESTS {
            return Err(WarningKind::DigestCount(count));
        }
        let start = entry.offset();
        for _ in 0..count {
            let algorithm = AlgorithmId(entry.u16().map_err(truncated)?);
            let size = self.header.digest_bytes(algorithm).ok_or(WarningKind::UnknownAlgorithm(algorithm))?;
            entry.bytes(size).map_err(truncated)?;
        }
        let digests = rest.get(start..entry.offset()).unwrap_or_default();
        let raw_data = entry.sized_u32().map_err(truncated)?;
        let event = Event {
            number: self.number,
            offset: self.at,
            mr,
            kind,
            digests: Digests { raw: digests, header: self.header },
            raw_data,
            section: Section::None,
        };
        Ok((event, entry.offset()))
    }

    /// What the event measures of a unified kernel image: a section's name, or then its contents under the same text.
    fn section(&mut self, event: &Event<'a>) -> Section {
        let Some(number) = event.extends().and_then(Register::rtmr) else { return Section::None };
        let Some(named) = self.named.get_mut(number) else { return Section::None };
        let expected = named.take();
        if event.kind != EventType::IPL || section_name(event.raw_data).is_none() {
            return Section::None;
        }
        if expected == Some(event.raw_data) {
            return Section::Contents;
        }
        *named = Some(event.raw_data);
        Section::Name
    }

    fn oddities(&mut self, event: &Event<'a>) {
        let (number, offset) = (event.number, event.offset);
        if event.kind == EventType::NO_ACTION {
            self.warn(number, offset, WarningKind::NoAction);
        }
        match event.mr.register() {
            None => self.warn(number, offset, WarningKind::NoRegister(event.mr)),
            Some(Register::Mrtd) if event.kind != EventType::NO_ACTION => {
                self.warn(number, offset, WarningKind::ForMrtd);
            }
            Some(_) => {}
        }
        if event.kind == EventType::NO_ACTION {
            return;
        }
        if event.digest().is_none() {
            if event.mr.register().is_some() {
                self.warn(number, offset, WarningKind::NoSha384);
            }
        } else if event.digests.iter().count() > 1 {
            self.warn(number, offset, WarningKind::OtherDigests);
        }
        if event.consistency() == Consistency::Differs {
            self.warn(number, offset, WarningKind::DigestNotOfData);
        }
        let register = event.extends().and_then(Register::rtmr);
        let is_closed = register.and_then(|number| self.closed.get(number)).copied().unwrap_or(false);
        if is_closed && event.belongs_before_separator() {
            self.warn(number, offset, WarningKind::AfterSeparator);
        }
        if self.left && matches!(event.extends(), Some(Register::Rtmr0 | Register::Rtmr1)) {
            self.warn(number, offset, WarningKind::AfterExit);
        }
        self.left |= event.kind == EventType::EFI_ACTION && event.raw_data == BOOT_SERVICES_LEFT;
        if register.is_some() && event.is_renamed_variable() {
            self.warn(number, offset, WarningKind::VariableOfOtherType);
        }
        if event.kind == EventType::SEPARATOR
            && let Some(closed) = register.and_then(|number| self.closed.get_mut(number))
        {
            *closed = true;
        }
        if event.kind == EventType::EVENT_TAG && matches!(event.data(), EventData::Text(_)) {
            self.warn(number, offset, WarningKind::UntaggedEvent);
        }
        if event.kind == EventType::SEPARATOR && event.extends() == Some(Register::Rtmr0) {
            self.separators_rtmr0 = self.separators_rtmr0.saturating_add(1);
            if self.separators_rtmr0 == 2 {
                self.warn(number, offset, WarningKind::SeparatorInRtmr0);
            }
        }
    }
}
