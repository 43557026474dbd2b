//! Completion status: what a leaf leaves in RAX.
//!
//! | bits | meaning |
//! |---|---|
//! | 63 | error |
//! | 62 | non-recoverable: the same call cannot succeed unless its inputs or the state change |
//! | 61 | fatal: the TD is, or becomes, unusable |
//! | 60 | host recoverability hint: set the hint bit on the next VP.ENTER |
//! | 47:40, 39:32 | class, and code inside the class |
//! | 31:0 | details, whose meaning depends on the code |
//!
//! Codes are compared without the details ([`Status::code`]) and never as a whole. A non-zero status is not
//! necessarily an error: see [`Status::is_error`].

mod class;
mod code;
mod details;
mod operand;
#[cfg(test)]
mod reference;

pub use class::{Recovery, StatusClass};
pub use code::{StatusCode, StatusInfo, TABLE};
pub use details::{Details, DetailsKind};
pub use operand::Operand;

use core::fmt;

/// RAX after a call, all 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Status(u64);

impl Status {
    /// Success without details.
    pub const SUCCESS: Self = Self(0);

    /// The status in this value of RAX.
    pub const fn from_raw(rax: u64) -> Self {
        Self(rax)
    }

    /// The value as RAX carries it.
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// A code with details 0.
    pub const fn new(code: StatusCode) -> Self {
        Self::with_details(code, 0)
    }

    /// A code with these details.
    pub const fn with_details(code: StatusCode, details: u32) -> Self {
        Self((code.0 as u64) << 32 | details as u64)
    }

    /// The status with bit 61 set: what it is about does not go on.
    #[must_use]
    pub const fn fatal(self) -> Self {
        Self(self.0 | 1 << 61)
    }

    /// A code that names an operand.
    pub const fn with_operand(code: StatusCode, operand: Operand) -> Self {
        Self::with_details(code, operand.0)
    }

    /// Bits 63:32.
    pub const fn code(self) -> StatusCode {
        StatusCode((self.0 >> 32) as u32)
    }

    /// The code that says what happened: the whole code where the table knows it, and otherwise the code without
    /// the bit that [`Self::fatal`] sets.
    pub fn cause(self) -> StatusCode {
        let code = self.code();
        let without_fatal = StatusCode(code.0 & !(1 << 29));
        if code.info().is_none() && without_fatal.info().is_some() { without_fatal } else { code }
    }

    /// Bits 31:0.
    pub const fn details(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// The details read as an operand id. Only meaningful for codes whose details are one.
    pub const fn operand(self) -> Operand {
        Operand((self.0 & 0xffff_ffff) as u32)
    }

    /// Whether all bits of the code are clear. The details may still carry a TD exit's reason.
    pub const fn is_success(self) -> bool {
        self.code().0 == 0
    }

    /// Bit 63. Codes like `GPA_RANGE_ALREADY_BLOCKED` are neither success nor error.
    pub const fn is_error(self) -> bool {
        self.0 >> 63 != 0
    }

    /// Bit 62.
    pub const fn is_non_recoverable(self) -> bool {
        self.0 >> 62 & 1 != 0
    }

    /// Bit 61.
    pub const fn is_fatal(self) -> bool {
        self.0 >> 61 & 1 != 0
    }

    /// Bit 60.
    pub const fn has_host_recoverability_hint(self) -> bool {
        self.0 >> 60 & 1 != 0
    }

    /// Bits 47:40 as a number; [`StatusCode::class`] names it.
    pub const fn class(self) -> u8 {
        self.code().class().0
    }

    /// What a caller can expect of trying again.
    pub const fn recovery(self) -> Recovery {
        self.code().recovery()
    }

    /// The details, typed as the code defines them.
    pub fn typed_details(self) -> Details {
        Details::of(self)
    }

    /// Bits 39:32: the code inside the class.
    pub const fn class_code(self) -> u8 {
        (self.0 >> 32 & 0xff) as u8
    }
}

impl From<StatusCode> for Status {
    fn from(code: StatusCode) -> Self {
        Self::new(code)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#018x} {})", self.0, self.cause())
    }
}

impl fmt::LowerHex for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Display for Status {
    /// One line that a person can act on: code, operand, recoverability, usual cause, and what to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.cause();
        write!(f, "{code}")?;
        if code != self.code() {
            write!(f, ", fatal")?;
        }
        let details = self.typed_details();
        if !details.is_empty() {
            write!(f, ", {details}")?;
        }
        write!(f, " ({:#018x}): {}", self.0, self.recovery())?;
        match code.info() {
            Some(info) => write!(f, "; {}; {}", info.cause, info.action),
            None => write!(f, "; class {}, not in the table of known codes", code.class()),
        }
    }
}

/// Explains a raw RAX: the same text as displaying the [`Status`].
pub const fn decode(rax: u64) -> Status {
    Status(rax)
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    #[test]
    fn an_unblock_without_tracking_is_explained_with_code_operand_recoverability_and_cause() {
        let text = decode(0xC000_0B08_0000_0092).to_string();
        for part in [
            "TLB_TRACKING_NOT_DONE",
            "operand SEPT_TREE",
            "0xc0000b0800000092",
            "repeating the call cannot help",
            "MEM.TRACK",
            "kick every VCPU",
        ] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }

    #[test]
    fn every_code_of_the_table_explains_itself_with_any_details() {
        for info in TABLE {
            for details in [0, 1, 0x92, 0x0001_0002, u32::MAX] {
                let text = Status::with_details(info.code, details).to_string();
                assert!(text.starts_with(info.name), "{text}");
                assert!(text.contains(info.cause) && text.contains(info.action), "{text}");
            }
        }
    }

    #[test]
    fn an_unknown_code_keeps_its_number_and_says_what_its_bits_say() {
        let text = decode(0xC000_0B77_0000_0001).to_string();
        assert!(text.contains("0xc0000b77") && text.contains("Secure EPT"), "{text}");
        assert!(text.contains("repeating the call cannot help"), "{text}");
        assert_eq!(decode(0xC000_0B77_0000_0001).raw(), 0xC000_0B77_0000_0001);
    }

    #[test]
    fn the_class_bits_are_bits_60_to_63() {
        let status = Status::from_raw(0x9000_0205_0000_0030);
        assert!(status.is_error() && status.has_host_recoverability_hint());
        assert!(!status.is_non_recoverable() && !status.is_fatal());
        assert!(Status::new(StatusCode::TD_FATAL).is_fatal());
        let blocked = Status::with_operand(StatusCode::GPA_RANGE_ALREADY_BLOCKED, Operand::RCX);
        assert!(!blocked.is_error() && !blocked.is_success());
        assert_eq!(blocked.raw(), 0x0000_0B07_0000_0001);
    }
}
