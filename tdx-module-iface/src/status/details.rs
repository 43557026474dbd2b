//! Bits 31:0 of a status, typed as its code defines them.

use core::fmt;

use tdvisor_base::Level;

use super::{Operand, Status};
use crate::exit::ExitReasonField;

/// What the details of a code are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DetailsKind {
    /// Zero.
    NoDetails,
    /// An operand id.
    OperandId,
    /// The level of a Secure-EPT entry.
    SeptLevel,
    /// The index of an MSR.
    MsrIndex,
    /// The number of a CPUID leaf.
    CpuidLeaf,
    /// An L2 VM in bits 31:16 and a level in bits 15:0.
    L2VmAndLevel,
    /// TDMR index in byte 0, reserved area or PAMT level in byte 1, another TDMR in byte 2.
    TdmrBytes,
    /// A VMX exit reason with its flags.
    VmxExitReason,
}

/// The details of one status.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Details {
    /// The code has none; the value is what the status carries nevertheless.
    None(u32),
    /// The operand or object at fault.
    Operand(Operand),
    /// A Secure-EPT level, as a number.
    SeptLevel(u32),
    /// An MSR.
    Msr(u32),
    /// A CPUID leaf.
    CpuidLeaf(u32),
    /// An L2 VM's entry.
    L2 {
        /// VM number, 1 to 3.
        vm: u16,
        /// Level, as a number.
        level: u16,
    },
    /// TDMRs.
    Tdmr {
        /// Index of the TDMR at fault.
        index: u8,
        /// Index of the reserved area, or the PAMT level.
        area: u8,
        /// Index of the other TDMR of a conflict.
        other: u8,
    },
    /// Why the guest was left.
    Exit(ExitReasonField),
}

impl Details {
    pub(super) fn of(status: Status) -> Self {
        let raw = status.details();
        let kind = status.cause().info().map_or(DetailsKind::NoDetails, |info| info.details);
        match kind {
            DetailsKind::NoDetails => Self::None(raw),
            DetailsKind::OperandId => Self::Operand(Operand(raw)),
            DetailsKind::SeptLevel => Self::SeptLevel(raw),
            DetailsKind::MsrIndex => Self::Msr(raw),
            DetailsKind::CpuidLeaf => Self::CpuidLeaf(raw),
            DetailsKind::L2VmAndLevel => {
                Self::L2 { vm: (raw >> 16 & 0xffff) as u16, level: (raw & 0xffff) as u16 }
            }
            DetailsKind::TdmrBytes => {
                let [index, area, other, _] = raw.to_le_bytes();
                Self::Tdmr { index, area, other }
            }
            DetailsKind::VmxExitReason => Self::Exit(ExitReasonField(raw)),
        }
    }

    /// Whether there is nothing to say: a plain success, or no details and none expected.
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::None(0) | Self::Exit(ExitReasonField(0)))
    }
}

fn level(f: &mut fmt::Formatter<'_>, number: u32) -> fmt::Result {
    match u8::try_from(number).ok().and_then(Level::from_index) {
        Some(level) => write!(f, "level {level}"),
        None => write!(f, "level number {number}"),
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(raw) => write!(f, "details {raw:#x}"),
            Self::Operand(operand) => write!(f, "operand {operand}"),
            Self::SeptLevel(number) => level(f, *number),
            Self::Msr(index) => write!(f, "MSR {index:#x}"),
            Self::CpuidLeaf(leaf) => write!(f, "CPUID leaf {leaf:#x}"),
            Self::L2 { vm, level: number } => {
                write!(f, "L2 VM {vm}, ")?;
                level(f, u32::from(*number))
            }
            Self::Tdmr { index, area, other } => {
                write!(f, "TDMR {index}, reserved area or PAMT level {area}, other TDMR {other}")
            }
            Self::Exit(reason) => write!(f, "exit reason: {reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::super::StatusCode;
    use super::*;

    #[test]
    fn each_kind_of_details_is_printed_as_what_it_is() {
        for (code, raw, text) in [
            (StatusCode::OPERAND_INVALID, 1, "operand RCX"),
            (StatusCode::OPERAND_INVALID, 0x777, "operand Operand(0x777)"),
            (StatusCode::PAGE_ALREADY_ACCEPTED, 1, "level 2M"),
            (StatusCode::PAGE_SIZE_MISMATCH, 9, "level number 9"),
            (StatusCode::INCONSISTENT_MSR, 0x3b, "MSR 0x3b"),
            (StatusCode::L2_SEPT_WALK_FAILED, 0x2_0001, "L2 VM 2, level 2M"),
            (StatusCode::INVALID_PAMT, 0x0102, "TDMR 2, reserved area or PAMT level 1, other TDMR 0"),
            (StatusCode::SUCCESS, 48, "exit reason: EPT violation (48)"),
            (StatusCode::TD_FATAL, 3, "details 0x3"),
        ] {
            assert_eq!(Status::with_details(code, raw).typed_details().to_string(), text);
        }
    }
}
