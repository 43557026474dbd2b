//! What a vCPU's page says of why KVM came back, and how the guest's answer is written into it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use tdvisor_base::{Gpa, PAGE_SIZE, Side, to_usize};
use tdvisor_vm::{AccessSize, Answer, Transfer};
use tdx_module_iface::ghci::{CallStatus, FatalReport, Function};
use tdx_module_iface::{Gprs, Status};

use crate::death::DeathCause;
use crate::kernel::Pages;
use crate::uapi::run::{self, reason};
use crate::uapi::{ATTRIBUTE_PRIVATE, HYPERCALL_MAP_GPA_RANGE};

/// Why KVM came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// IN or OUT.
    Io { port: u16, size: AccessSize, transfer: Transfer },
    /// An access to memory that no slot has.
    Mmio { gpa: Gpa, size: AccessSize, transfer: Transfer },
    /// MapGPA, or a part of one.
    MapGpa { gpa: Gpa, bytes: u64, to: Side },
    /// GetQuote of a shared buffer; KVM has taken the SHARED bit out of the address.
    GetQuote { gpa: Gpa, size: u64 },
    /// GetTdVmCallInfo.
    CallInfo { leaf: u64 },
    /// SetupEventNotifyInterrupt.
    EventNotify { vector: u64 },
    /// An access to memory on the other side, or to none.
    MemoryFault { gpa: Gpa, touched: Side },
    /// ReportFatalError.
    FatalError(FatalReport),
    /// KVM_EXIT_INTR: nothing.
    Nothing,
    /// The TD is over.
    Over(DeathCause),
}

/// Where the answer to an exit goes, when KVM_RUN is next called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Data of an IN, so many bytes at this place.
    Data { at: u64, size: AccessSize },
    /// The result of a hypercall: an error number of KVM's.
    Hypercall,
    /// A status of the GHCI.
    Status,
    /// A status of the GHCI, and R11.
    Info,
}

fn u64_at(page: &impl Pages, at: u64) -> u64 {
    let mut bytes = [0; 8];
    page.read(at, &mut bytes);
    u64::from_le_bytes(bytes)
}

fn u32_at(page: &impl Pages, at: u64) -> u32 {
    let mut bytes = [0; 4];
    page.read(at, &mut bytes);
    u32::from_le_bytes(bytes)
}

fn u8_at(page: &impl Pages, at: u64) -> u8 {
    let mut bytes = [0];
    page.read(at, &mut bytes);
    bytes[0]
}

/// The little-endian number in the first bytes at a place.
fn value_at(page: &impl Pages, at: u64, size: AccessSize) -> u64 {
    u64_at(page, at) & size.all_ones()
}

/// Why KVM came back.
pub(crate) fn exit_reason(page: &impl Pages) -> u32 {
    u32_at(page, run::EXIT_REASON)
}

/// What the page says, and where the answer goes.
pub(crate) fn decode(page: &impl Pages) -> (Exit, Option<Slot>) {
    let reason = exit_reason(page);
    let unhandled = |number| (Exit::Over(DeathCause::UnhandledExit { reason, number }), None);
    match reason {
        reason::IO => io(page).unwrap_or_else(|| unhandled(0)),
        reason::MMIO => mmio(page).unwrap_or_else(|| unhandled(0)),
        reason::HYPERCALL => {
            let number = u64_at(page, run::hypercall::NUMBER);
            map_gpa(page, number).unwrap_or_else(|| unhandled(number))
        }
        reason::TDX => {
            let number = u64_at(page, run::tdx::NUMBER);
            tdx(page, Function(number)).unwrap_or_else(|| unhandled(number))
        }
        reason::MEMORY_FAULT => {
            let is_private = u64_at(page, run::memory_fault::FLAGS) & ATTRIBUTE_PRIVATE != 0;
            let gpa = Gpa::new(u64_at(page, run::memory_fault::GPA));
            let touched = if is_private { Side::Private } else { Side::Shared };
            (Exit::MemoryFault { gpa, touched }, None)
        }
        reason::SYSTEM_EVENT => match u32_at(page, run::event::KIND) {
            run::event::TDX_FATAL => (Exit::FatalError(FatalReport::of(&registers(page))), None),
            kind => unhandled(kind.into()),
        },
        reason::INTR => (Exit::Nothing, None),
        reason::SHUTDOWN => (Exit::Over(DeathCause::TripleFault), None),
        reason::FAIL_ENTRY => {
            let reason = u64_at(page, run::fail_entry::REASON);
            let cpu = u32_at(page, run::fail_entry::CPU);
            (Exit::Over(DeathCause::NotEntered { reason, cpu }), None)
        }
        reason::INTERNAL_ERROR => (Exit::Over(internal_error(page)), None),
        _ => unhandled(0),
    }
}

fn io(page: &impl Pages) -> Option<(Exit, Option<Slot>)> {
    /// KVM_EXIT_IO_OUT.
    const OUT: u8 = 1;
    let size = AccessSize::from_bytes(u8_at(page, run::io::SIZE).into())?;
    let mut port = [0; 2];
    page.read(run::io::PORT, &mut port);
    let port = u16::from_le_bytes(port);
    // TDs have no string instructions on ports: a #VE handler makes each access by itself.
    if u32_at(page, run::io::COUNT) != 1 || size == AccessSize::Quad {
        return None;
    }
    let at = u64_at(page, run::io::DATA_OFFSET);
    Some(if u8_at(page, run::io::DIRECTION) == OUT {
        (Exit::Io { port, size, transfer: Transfer::Write(value_at(page, at, size)) }, None)
    } else {
        (Exit::Io { port, size, transfer: Transfer::Read }, Some(Slot::Data { at, size }))
    })
}

fn mmio(page: &impl Pages) -> Option<(Exit, Option<Slot>)> {
    let size = AccessSize::from_bytes(u32_at(page, run::mmio::LENGTH).into())?;
    let gpa = Gpa::new(u64_at(page, run::mmio::ADDRESS));
    let at = run::mmio::DATA;
    Some(if u8_at(page, run::mmio::IS_WRITE) == 0 {
        (Exit::Mmio { gpa, size, transfer: Transfer::Read }, Some(Slot::Data { at, size }))
    } else {
        (Exit::Mmio { gpa, size, transfer: Transfer::Write(value_at(page, at, size)) }, None)
    })
}

fn map_gpa(page: &impl Pages, number: u64) -> Option<(Exit, Option<Slot>)> {
    if number != HYPERCALL_MAP_GPA_RANGE {
        return None;
    }
    let argument = |index: u64| u64_at(page, run::hypercall::ARGUMENTS + 8 * index);
    let bytes = argument(1).checked_mul(PAGE_SIZE)?;
    let to = if argument(2) & run::hypercall::ENCRYPTED == 0 { Side::Shared } else { Side::Private };
    Some((Exit::MapGpa { gpa: Gpa::new(argument(0)), bytes, to }, Some(Slot::Hypercall)))
}

fn tdx(page: &impl Pages, function: Function) -> Option<(Exit, Option<Slot>)> {
    let argument = |index: u64| u64_at(page, run::tdx::ARGUMENTS + 8 * index);
    Some(match function {
        Function::GET_QUOTE => {
            (Exit::GetQuote { gpa: Gpa::new(argument(0)), size: argument(1) }, Some(Slot::Status))
        }
        Function::GET_TD_VM_CALL_INFO => {
            (Exit::CallInfo { leaf: u64_at(page, run::tdx::INFO_LEAF) }, Some(Slot::Info))
        }
        Function::SETUP_EVENT_NOTIFY_INTERRUPT => {
            (Exit::EventNotify { vector: argument(0) }, Some(Slot::Status))
        }
        _ => return None,
    })
}

/// The words of an event or an error: no more than there can be, whatever the page says.
fn words(page: &impl Pages) -> Vec<u64> {
    let count = (u32_at(page, run::event::COUNT) as usize).min(run::event::MAX_WORDS);
    (0..count as u64).map(|index| u64_at(page, run::event::DATA + 8 * index)).collect()
}

/// The registers of a fatal report.
fn registers(page: &impl Pages) -> Gprs {
    let words = words(page);
    let word = |index: usize| words.get(index).copied().unwrap_or_default();
    Gprs {
        rax: word(0),
        rcx: word(1),
        rdx: word(2),
        rbx: word(3),
        rbp: word(5),
        rsi: word(6),
        rdi: word(7),
        r8: word(8),
        r9: word(9),
        r10: word(10),
        r11: word(11),
        r12: word(12),
        r13: word(13),
        r14: word(14),
        r15: word(15),
    }
}

fn internal_error(page: &impl Pages) -> DeathCause {
    let kind = u32_at(page, run::event::KIND);
    let words = words(page);
    match (kind, words.first()) {
        (run::event::UNEXPECTED_EXIT_REASON, Some(status)) => {
            DeathCause::UnhandledStatus(Status::from_raw(*status))
        }
        _ => DeathCause::Internal { kind, words },
    }
}

impl Slot {
    /// Writes the guest's answer.
    pub(crate) fn answer(self, page: &impl Pages, answer: Answer) {
        match self {
            Self::Data { at, size } => {
                let value = match answer {
                    Answer::Value(value) => value,
                    _ => size.all_ones(),
                };
                let bytes = value.to_le_bytes();
                page.write(at, bytes.get(..to_usize(size.bytes())).unwrap_or_default());
            }
            Self::Hypercall => {
                let errno: i32 = match answer {
                    Answer::Done | Answer::Value(_) => 0,
                    Answer::Retry(_) => libc::EAGAIN,
                    Answer::Invalid | Answer::Misaligned => libc::EINVAL,
                };
                page.write(run::hypercall::RESULT, &u64::from(errno.unsigned_abs()).to_le_bytes());
            }
            Self::Status => {
                page.write(run::tdx::RESULT, &status_of(answer).0.to_le_bytes());
            }
            Self::Info => {
                page.write(run::tdx::RESULT, &status_of(answer).0.to_le_bytes());
                if let Answer::Value(value) = answer {
                    page.write(run::tdx::INFO_R11, &value.to_le_bytes());
                }
            }
        }
    }
}

/// What a guest is told in R10.
const fn status_of(answer: Answer) -> CallStatus {
    match answer {
        Answer::Done | Answer::Value(_) => CallStatus::SUCCESS,
        Answer::Retry(_) => CallStatus::RETRY,
        Answer::Invalid => CallStatus::INVALID_OPERAND,
        Answer::Misaligned => CallStatus::ALIGN_ERROR,
    }
}

/// What KVM came back for, to be counted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ExitKind {
    /// IN and OUT.
    Io,
    /// Accesses to devices' memory.
    Mmio,
    /// MapGPA, in pieces of KVM's.
    MapGpa,
    /// GetQuote.
    GetQuote,
    /// GetTdVmCallInfo, SetupEventNotifyInterrupt.
    OtherCall,
    /// Accesses to memory on the other side.
    MemoryFault,
    /// Somebody asked for the vCPU.
    Kick,
    /// The end.
    End,
}

impl ExitKind {
    /// Every kind of exit.
    pub const ALL: [Self; 8] = [
        Self::Io,
        Self::Mmio,
        Self::MapGpa,
        Self::GetQuote,
        Self::OtherCall,
        Self::MemoryFault,
        Self::Kick,
        Self::End,
    ];

    pub(crate) const fn of(exit: &Exit) -> Self {
        match exit {
            Exit::Io { .. } => Self::Io,
            Exit::Mmio { .. } => Self::Mmio,
            Exit::MapGpa { .. } => Self::MapGpa,
            Exit::GetQuote { .. } => Self::GetQuote,
            Exit::CallInfo { .. } | Exit::EventNotify { .. } => Self::OtherCall,
            Exit::MemoryFault { .. } => Self::MemoryFault,
            Exit::Nothing => Self::Kick,
            Exit::FatalError(_) | Exit::Over(_) => Self::End,
        }
    }
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "IO",
            Self::Mmio => "MMIO",
            Self::MapGpa => "MapGPA",
            Self::GetQuote => "GetQuote",
            Self::OtherCall => "other calls",
            Self::MemoryFault => "memory faults",
            Self::Kick => "kicks",
            Self::End => "end",
        })
    }
}

/// How often KVM came back, by kind.
#[derive(Debug, Default)]
pub(crate) struct Counts([AtomicU64; ExitKind::ALL.len()]);

impl Counts {
    pub(crate) fn count(&self, kind: ExitKind) {
        if let Some(count) = self.0.get(kind as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, kind: ExitKind) -> u64 {
        self.0.get(kind as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::fake::FakePages;

    fn page(reason: u32, details: &[(u64, &[u8])]) -> FakePages {
        let page = FakePages::new(4096);
        page.write(run::EXIT_REASON, &reason.to_le_bytes());
        for (at, bytes) in details {
            page.write(*at, bytes);
        }
        page
    }

    #[test]
    fn a_port_is_read_where_the_page_says_that_the_data_is() {
        let page = page(
            reason::IO,
            &[
                (run::io::DIRECTION, &[0, 2]),
                (run::io::PORT, &0x3f8u16.to_le_bytes()),
                (run::io::COUNT, &1u32.to_le_bytes()),
                (run::io::DATA_OFFSET, &0x800u64.to_le_bytes()),
            ],
        );
        let (exit, slot) = decode(&page);
        assert_eq!(exit, Exit::Io { port: 0x3f8, size: AccessSize::Word, transfer: Transfer::Read });
        slot.unwrap().answer(&page, Answer::Value(0xdead_beef));
        assert_eq!(u64_at(&page, 0x800), 0xbeef);
    }

    #[test]
    fn what_a_monitor_cannot_serve_ends_the_td_and_never_the_program() {
        let string_io = [(run::io::DIRECTION, &[1u8, 1][..]), (run::io::COUNT, &[2, 0, 0, 0][..])];
        for (reason, details) in [
            (reason::IO, &string_io[..]),
            (reason::IO, &[(run::io::SIZE, &[3u8][..])][..]),
            (reason::MMIO, &[(run::mmio::LENGTH, &[5u8][..])][..]),
            (reason::HYPERCALL, &[(run::hypercall::NUMBER, &[9u8][..])][..]),
            (reason::TDX, &[(run::tdx::NUMBER, &[7u8][..])][..]),
            (reason::SYSTEM_EVENT, &[(run::event::KIND, &[1u8][..])][..]),
            (77, &[][..]),
        ] {
            let (exit, slot) = decode(&page(reason, details));
            assert!(
                matches!(exit, Exit::Over(DeathCause::UnhandledExit { reason: r, .. }) if r == reason),
                "{exit:?}"
            );
            assert_eq!(slot, None);
        }
    }

    #[test]
    fn an_internal_error_shows_what_the_module_answered() {
        let page = page(
            reason::INTERNAL_ERROR,
            &[
                (run::event::KIND, &4u32.to_le_bytes()),
                // More words than there can be.
                (run::event::COUNT, &u32::MAX.to_le_bytes()),
                (run::event::DATA, &0x6000_0002_0000_0000u64.to_le_bytes()),
            ],
        );
        let (exit, _) = decode(&page);
        assert_eq!(exit, Exit::Over(DeathCause::UnhandledStatus(Status::from_raw(0x6000_0002_0000_0000))));
    }

    #[test]
    fn a_fatal_report_is_read_from_the_registers_in_the_order_of_the_event() {
        let registers: Vec<u8> = (0..16u64)
            .flat_map(|index| match index {
                12 => 7u64.to_le_bytes(),
                14 => *b"no init ",
                15 => *b"found\0\0\0",
                _ => [0; 8],
            })
            .collect();
        let page = page(
            reason::SYSTEM_EVENT,
            &[
                (run::event::KIND, &run::event::TDX_FATAL.to_le_bytes()),
                (run::event::COUNT, &16u32.to_le_bytes()),
                (run::event::DATA, &registers),
            ],
        );
        let (Exit::FatalError(report), None) = decode(&page) else { panic!("{:?}", decode(&page)) };
        assert_eq!((report.code, report.text().collect::<String>().as_str()), (7, "no init found"));
    }

    #[test]
    fn answers_become_kvms_errors_and_the_guests_statuses() {
        let hypercall = |answer| {
            let page = page(reason::HYPERCALL, &[]);
            Slot::Hypercall.answer(&page, answer);
            u64_at(&page, run::hypercall::RESULT)
        };
        assert_eq!(hypercall(Answer::Done), 0);
        assert_eq!(hypercall(Answer::Retry(Gpa::new(0))), libc::EAGAIN as u64);
        assert_eq!(hypercall(Answer::Invalid), libc::EINVAL as u64);
        let status = |answer| {
            let page = page(reason::TDX, &[]);
            Slot::Info.answer(&page, answer);
            (u64_at(&page, run::tdx::RESULT), u64_at(&page, run::tdx::INFO_R11))
        };
        assert_eq!(status(Answer::Value(3)), (0, 3));
        assert_eq!(status(Answer::Misaligned), (0x8000_0000_0000_0002, 0));
    }
}
