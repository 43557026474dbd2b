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

mod code;
mod operand;

pub use code::StatusCode;
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

    /// A code that names an operand.
    pub const fn with_operand(code: StatusCode, operand: Operand) -> Self {
        Self::with_details(code, operand.0)
    }

    /// Bits 63:32.
    pub const fn code(self) -> StatusCode {
        StatusCode((self.0 >> 32) as u32)
    }

    /// Bits 31:0.
    pub const fn details(self) -> u32 {
        self.0 as u32
    }

    /// The details read as an operand id. Only meaningful for codes whose details are one.
    pub const fn operand(self) -> Operand {
        Operand(self.0 as u32)
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

    /// Bits 47:40 as a number.
    pub const fn class(self) -> u8 {
        (self.0 >> 40) as u8
    }

    /// Bits 39:32: the code inside the class.
    pub const fn class_code(self) -> u8 {
        (self.0 >> 32) as u8
    }
}

impl From<StatusCode> for Status {
    fn from(code: StatusCode) -> Self {
        Self::new(code)
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#018x} {})", self.0, self.code())
    }
}

impl fmt::LowerHex for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::LowerHex::fmt(&self.0, f)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#x})", self.code(), self.0)
    }
}
