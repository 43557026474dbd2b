//! One recorded call in one line: leaf, operands, status, outputs.

use core::fmt;

use super::{Side, Value};
use crate::exit::{EptViolation, ExitReason};
use crate::ghci;
use crate::leaf::{Kind, LeafInfo, LeafWord, TdhLeaf};
use crate::regs::{Gprs, Reg};
use crate::status::Status;
use crate::tdh::TdExit;

/// A call as a trace or a recording holds it: all registers before and after.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CallRecord {
    /// SEAMCALL or TDCALL.
    pub side: Side,
    /// The registers on entry; RAX is the leaf.
    pub input: Gprs,
    /// The registers on return; RAX is the status.
    pub output: Gprs,
}

impl CallRecord {
    /// The leaf, where it is known.
    pub fn leaf(&self) -> Option<&'static LeafInfo> {
        self.side.leaf(LeafWord(self.input.rax).leaf())
    }

    /// The status.
    pub const fn status(&self) -> Status {
        Status::from_raw(self.output.rax)
    }

    /// Registers that changed although the leaf has no such output.
    pub fn unexpected(&self) -> impl Iterator<Item = Reg> + '_ {
        let info = self.leaf();
        Reg::ALL.into_iter().filter(move |reg| {
            *reg != Reg::Rax
                && self.input.get(*reg) != self.output.get(*reg)
                && info.is_none_or(|info| info.output(*reg).is_none())
        })
    }

    /// The exit, if this is a VP.ENTER after which the guest had run.
    pub fn td_exit(&self) -> Option<TdExit> {
        let enters = self.side == Side::Host && LeafWord(self.input.rax).leaf() == TdhLeaf::VP_ENTER.0;
        if enters { TdExit::from_gprs(&self.output) } else { None }
    }

    fn fmt_inputs(&self, f: &mut fmt::Formatter<'_>, info: &LeafInfo) -> fmt::Result {
        for entry in info.inputs {
            let raw = self.input.get(entry.reg);
            // Operands that a call need not have, and the answers to a TDVMCALL, are worth a word if set.
            let optional = matches!(entry.kind, Kind::OptionalHpa | Kind::Bits);
            if optional && raw == 0 {
                continue;
            }
            write!(f, " {}={}", entry.reg, Value { kind: entry.kind, raw })?;
        }
        Ok(())
    }

    fn fmt_outputs(&self, f: &mut fmt::Formatter<'_>, info: &LeafInfo) -> fmt::Result {
        for entry in info.outputs {
            let raw = self.output.get(entry.reg);
            if raw == 0 || (raw == self.input.get(entry.reg) && entry.kind != Kind::LevelState) {
                continue;
            }
            write!(f, " {}={}", entry.reg, Value { kind: entry.kind, raw })?;
        }
        Ok(())
    }
}

fn fmt_exit(f: &mut fmt::Formatter<'_>, exit: &TdExit) -> fmt::Result {
    match exit {
        TdExit::TdVmCall(call) => {
            f.write_str("TDVMCALL")?;
            match (call.gprs.get(Reg::R10), call.gprs.get(Reg::R11)) {
                (Some(ghci::STANDARD), Some(function)) => write!(f, " {}", ghci::Function(function))?,
                (Some(vendor), _) => write!(f, " vendor call {vendor:#x}")?,
                (None, _) => {}
            }
            for (reg, value) in call.gprs.iter().filter(|(reg, value)| *value != 0 && *reg >= Reg::R12) {
                write!(f, " {reg}={value:#x}")?;
            }
            Ok(())
        }
        TdExit::Async(exit) => {
            write!(f, "{}", exit.reason)?;
            if exit.reason.basic() == ExitReason::EPT_VIOLATION {
                let violation = EptViolation(u64::from(exit.qualification));
                write!(f, ", {violation} at gpa {}", exit.gpa)?;
            }
            if exit.extended.0 != 0 {
                write!(f, ", {}", exit.extended)?;
            }
            Ok(())
        }
    }
}

impl fmt::Display for CallRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = LeafWord(self.input.rax);
        let status = self.status();
        let Some(info) = self.leaf() else {
            let what = match self.side {
                Side::Host => "SEAMCALL",
                Side::Guest => "TDCALL",
            };
            let family = if self.side.is_tdx_connect(word.leaf()) { "TDX Connect" } else { "unknown" };
            return write!(f, "{what} leaf {} ({family}) -> {status}", word.leaf());
        };
        f.write_str(info.name)?;
        if word.version() != 0 {
            write!(f, " v{}", word.version())?;
        }
        self.fmt_inputs(f, info)?;
        f.write_str(" -> ")?;
        match self.td_exit() {
            Some(exit) if status.is_success() => return fmt_exit(f, &exit),
            Some(exit) => {
                write!(f, "{status}: ")?;
                return fmt_exit(f, &exit);
            }
            None => {}
        }
        if status == Status::SUCCESS {
            f.write_str("SUCCESS")?;
        } else {
            write!(f, "{status}")?;
        }
        self.fmt_outputs(f, info)
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;

    use super::*;

    fn host(input: Gprs, output: Gprs) -> CallRecord {
        CallRecord { side: Side::Host, input, output }
    }

    #[test]
    fn a_successful_call_fits_on_one_line() {
        let input = Gprs { rax: 3, rcx: 0x8000_0002, rdx: 0x1_0020_0000, r8: 0x1_0020_8000, ..Gprs::ZERO };
        let output = Gprs { rax: 0, rcx: 0, rdx: 0, ..input };
        assert_eq!(
            host(input, output).to_string(),
            "TDH.MEM.SEPT.ADD rcx=gpa 0x80000000 at 1G rdx=0x100200000 r8=0x100208000 -> SUCCESS"
        );
        assert_eq!(host(input, output).unexpected().count(), 0);
    }

    #[test]
    fn a_failed_call_explains_its_status_and_the_entry() {
        let input = Gprs { rax: 0x1e, rcx: 0x8000_0002, rdx: 0x1_0020_0000, ..Gprs::ZERO };
        let output = Gprs { rax: 0xc000_0b0e_0000_0001, rcx: 7, rdx: 0x8402, ..input };
        let text = host(input, output).to_string();
        assert!(text.contains("EPT_PAGE_NOT_FREE, operand RCX"), "{text}");
        assert!(text.ends_with("rcx=0x7 rdx=1G NL_MAPPED"), "{text}");
    }

    #[test]
    fn a_td_exit_is_told_in_words() {
        let input = Gprs { rax: 0, rcx: 0x1_0021_0000, ..Gprs::ZERO };
        let violation = Gprs { rax: 48, rcx: 2, rdx: 0, r8: 0x8000_1000, ..Gprs::ZERO };
        assert_eq!(
            host(input, violation).to_string(),
            "TDH.VP.ENTER rcx=0x100210000 -> EPT violation (48), write of an absent page at gpa 0x80001000"
        );
        let vmcall = Gprs { rax: 77, rcx: 0xfc00, r11: 0x1_0001, r12: 0x8000_0000, ..Gprs::ZERO };
        assert_eq!(
            host(input, vmcall).to_string(),
            "TDH.VP.ENTER rcx=0x100210000 -> TDVMCALL MapGPA r12=0x80000000"
        );
        let dead = Gprs { rax: 0x4000_0001_0000_0002, ..Gprs::ZERO };
        let text = host(input, dead).to_string();
        assert!(text.contains("the VCPU is lost") && text.ends_with("triple fault (2)"), "{text}");
    }

    #[test]
    fn a_register_that_should_not_have_changed_is_noticed() {
        let input = Gprs { rax: 38, rcx: 0x1_0020_0000, ..Gprs::ZERO };
        let output = Gprs { rax: 0, r12: 1, ..input };
        assert!(host(input, output).unexpected().eq([Reg::R12]));
    }

    #[test]
    fn unknown_leaves_and_any_registers_print_without_trouble() {
        for rax in [42, 0xffff, 0x1_0000_0006, u64::MAX] {
            let input = Gprs { rax, rcx: u64::MAX, rdx: u64::MAX, r8: u64::MAX, ..Gprs::ZERO };
            for side in [Side::Host, Side::Guest] {
                assert!(!CallRecord { side, input, output: input }.to_string().is_empty());
            }
        }
        for info in Side::Host.table() {
            for fill in [0, 1, 0x7fff_ffff_ffff_ffff, u64::MAX] {
                let mut input = Gprs::ZERO;
                for reg in Reg::ALL {
                    input.set(reg, fill);
                }
                let output = input;
                input.rax = u64::from(info.number);
                assert!(host(input, output).to_string().starts_with(info.name));
            }
        }
    }
}
