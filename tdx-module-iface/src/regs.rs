//! The registers of one call, and the one thing that can execute it.
//!
//! A SEAMCALL is a method of the logical processor that issues it: which LP runs a leaf matters to the
//! module (LP initialisation, VCPU association, per-package keys), so [`SeamCall`] is implemented by an LP
//! token and not by a machine.
//!
//! RSP is not a register of any call.

use core::fmt;

/// A general-purpose register. The discriminant is the architectural number, which is also the operand id
/// of the register in status codes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum Reg {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    Rbx = 3,
    Rbp = 5,
    Rsi = 6,
    Rdi = 7,
    R8 = 8,
    R9 = 9,
    R10 = 10,
    R11 = 11,
    R12 = 12,
    R13 = 13,
    R14 = 14,
    R15 = 15,
}

impl Reg {
    /// All fifteen, in order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// The register with this architectural number; `None` for RSP (4) and numbers above 15.
    pub const fn from_index(index: u8) -> Option<Self> {
        Some(match index {
            0 => Self::Rax,
            1 => Self::Rcx,
            2 => Self::Rdx,
            3 => Self::Rbx,
            5 => Self::Rbp,
            6 => Self::Rsi,
            7 => Self::Rdi,
            8 => Self::R8,
            9 => Self::R9,
            10 => Self::R10,
            11 => Self::R11,
            12 => Self::R12,
            13 => Self::R13,
            14 => Self::R14,
            15 => Self::R15,
            _ => return None,
        })
    }

    /// The architectural number.
    pub const fn index(self) -> u8 {
        self as u8
    }

    /// The name in lower case, as recordings and traces spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rax => "rax",
            Self::Rcx => "rcx",
            Self::Rdx => "rdx",
            Self::Rbx => "rbx",
            Self::Rbp => "rbp",
            Self::Rsi => "rsi",
            Self::Rdi => "rdi",
            Self::R8 => "r8",
            Self::R9 => "r9",
            Self::R10 => "r10",
            Self::R11 => "r11",
            Self::R12 => "r12",
            Self::R13 => "r13",
            Self::R14 => "r14",
            Self::R15 => "r15",
        }
    }

    /// The register of this name, lower case.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reg| reg.name() == name)
    }
}

impl fmt::Display for Reg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The fifteen general-purpose registers that a SEAMCALL or TDCALL passes in and returns.
///
/// The layout is fixed because the instruction's assembly addresses the fields.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
#[repr(C)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub struct Gprs {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

const _: () = assert!(size_of::<Gprs>() == 15 * 8);

impl Gprs {
    /// All registers zero.
    pub const ZERO: Self = Self {
        rax: 0,
        rcx: 0,
        rdx: 0,
        rbx: 0,
        rbp: 0,
        rsi: 0,
        rdi: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
    };

    /// The value of a register.
    pub const fn get(&self, reg: Reg) -> u64 {
        match reg {
            Reg::Rax => self.rax,
            Reg::Rcx => self.rcx,
            Reg::Rdx => self.rdx,
            Reg::Rbx => self.rbx,
            Reg::Rbp => self.rbp,
            Reg::Rsi => self.rsi,
            Reg::Rdi => self.rdi,
            Reg::R8 => self.r8,
            Reg::R9 => self.r9,
            Reg::R10 => self.r10,
            Reg::R11 => self.r11,
            Reg::R12 => self.r12,
            Reg::R13 => self.r13,
            Reg::R14 => self.r14,
            Reg::R15 => self.r15,
        }
    }

    /// Gives a register a value.
    pub const fn set(&mut self, reg: Reg, value: u64) {
        *match reg {
            Reg::Rax => &mut self.rax,
            Reg::Rcx => &mut self.rcx,
            Reg::Rdx => &mut self.rdx,
            Reg::Rbx => &mut self.rbx,
            Reg::Rbp => &mut self.rbp,
            Reg::Rsi => &mut self.rsi,
            Reg::Rdi => &mut self.rdi,
            Reg::R8 => &mut self.r8,
            Reg::R9 => &mut self.r9,
            Reg::R10 => &mut self.r10,
            Reg::R11 => &mut self.r11,
            Reg::R12 => &mut self.r12,
            Reg::R13 => &mut self.r13,
            Reg::R14 => &mut self.r14,
            Reg::R15 => &mut self.r15,
        } = value;
    }

    /// Every register with its value, in order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (Reg, u64)> + '_ {
        Reg::ALL.into_iter().map(|reg| (reg, self.get(reg)))
    }
}

impl fmt::Debug for Gprs {
    /// Prints the registers that are not zero.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gprs {")?;
        let mut separator = " ";
        for (reg, value) in self.iter().filter(|(_, value)| *value != 0) {
            write!(f, "{separator}{reg}: {value:#x}")?;
            separator = ", ";
        }
        f.write_str(" }")
    }
}

/// Executes SEAMCALLs: implemented by a token for one logical processor.
pub trait SeamCall {
    /// Executes the instruction with these registers; on return they hold what the module left in them
    /// (the status in `rax`).
    ///
    /// # Errors
    /// The instruction did not reach the module, and no register changed.
    fn seamcall(&mut self, gprs: &mut Gprs) -> Result<(), SeamCallFault>;
}

impl<S: SeamCall + ?Sized> SeamCall for &mut S {
    fn seamcall(&mut self, gprs: &mut Gprs) -> Result<(), SeamCallFault> {
        (**self).seamcall(gprs)
    }
}

/// Why the instruction itself failed (SDM, SEAMCALL).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SeamCallFault {
    /// #UD: not in VMX root operation, or the processor has no SEAM mode.
    UndefinedOpcode,
    /// #GP(0): not ring 0, or the SEAM range registers are not set up.
    GeneralProtection,
    /// CF set: no TDX module is loaded (or it was shut down by a fatal error).
    VmFailInvalid,
}

impl fmt::Display for SeamCallFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UndefinedOpcode => {
                "SEAMCALL raised #UD: the processor has no SEAM mode, or VMX operation is off"
            }
            Self::GeneralProtection => {
                "SEAMCALL raised #GP: not in ring 0, or the SEAM range is not configured"
            }
            Self::VmFailInvalid => {
                "SEAMCALL ended with VMfailInvalid: no TDX module is loaded, or it has shut down"
            }
        })
    }
}

impl core::error::Error for SeamCallFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_register_reads_back_and_has_a_name() {
        let mut gprs = Gprs::ZERO;
        for reg in Reg::ALL {
            gprs.set(reg, 100 + u64::from(reg.index()));
        }
        for (reg, value) in gprs.iter() {
            assert_eq!(value, 100 + u64::from(reg.index()));
            assert_eq!(Reg::from_name(reg.name()), Some(reg));
            assert_eq!(Reg::from_index(reg.index()), Some(reg));
        }
        assert_eq!(Reg::from_index(4), None, "RSP is no register of a call");
    }
}
