//! Register values in words.

use tdx_module_iface::exit::ExitReasonField;
use tdx_module_iface::sept::SeptInfo;
use tdx_module_iface::{Gprs, Reg, Status, StatusCode};

/// What the low half of a status is about.
enum Details {
    Operand,
    Level,
    ExitReason,
    Number,
}

fn details_of(code: StatusCode) -> Details {
    match code {
        StatusCode::PAGE_ALREADY_ACCEPTED | StatusCode::PAGE_SIZE_MISMATCH => Details::Level,
        StatusCode::SUCCESS
        | StatusCode::NON_RECOVERABLE_VCPU
        | StatusCode::NON_RECOVERABLE_TD
        | StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE
        | StatusCode::NON_RECOVERABLE_TD_WRONG_APIC_MODE => Details::ExitReason,
        StatusCode::INCONSISTENT_MSR
        | StatusCode::INCORRECT_MSR_VALUE
        | StatusCode::TD_VMCS_FIELD_NOT_INITIALIZED => Details::Number,
        _ => match Status::new(code).class() {
            1 | 2 | 3 | 0xb => Details::Operand,
            _ => Details::Number,
        },
    }
}

/// A status in words: name of the code and what its details say.
pub fn status(rax: u64) -> String {
    let status = Status::from_raw(rax);
    let code = status.code();
    match (details_of(code), status.details()) {
        (Details::ExitReason, 0) if status.is_success() => code.to_string(),
        (Details::Operand, _) => format!("{code}, operand {}", status.operand()),
        (Details::Level, level) => format!("{code}, at level {level}"),
        (Details::ExitReason, reason) => format!("{code}, exit reason {}", exit_reason(reason)),
        (Details::Number, 0) => code.to_string(),
        (Details::Number, details) => format!("{code}, details {details:#x}"),
    }
}

/// A VMX exit reason in words.
fn exit_reason(reason: u32) -> String {
    match ExitReasonField(reason).basic().name() {
        Some(name) => format!("{reason:#x} ({name})"),
        None => format!("{reason:#x}"),
    }
}

/// Whether RCX and RDX of a memory leaf describe a Secure-EPT entry after this status.
fn describes_entry(leaf: &str, rax: u64) -> bool {
    if !leaf.starts_with("TDH.MEM.") {
        return false;
    }
    let code = Status::from_raw(rax).code();
    leaf == "TDH.MEM.SEPT.RD" && code == StatusCode::SUCCESS
        || matches!(
            code,
            StatusCode::EPT_WALK_FAILED
                | StatusCode::EPT_ENTRY_STATE_INCORRECT
                | StatusCode::GPA_RANGE_ALREADY_BLOCKED
                | StatusCode::GPA_RANGE_NOT_BLOCKED
                | StatusCode::EPT_PAGE_NOT_FREE
                | StatusCode::EPT_ENTRY_NOT_PRESENT
                | StatusCode::EPT_INVALID_PROMOTE_CONDITIONS
        )
}

/// What a register of this leaf means, given all registers after the call; `None` where it is just a number.
pub fn register(leaf: &str, reg: Reg, after: &Gprs) -> Option<String> {
    match reg {
        Reg::Rax => Some(status(after.rax)),
        Reg::Rcx | Reg::Rdx if describes_entry(leaf, after.rax) => {
            Some(SeptInfo { entry: after.rcx, level_state: after.rdx }.to_string())
        }
        Reg::Rdx if leaf == "TDH.VP.ENTER" => match after.rdx & 0xf {
            0 => None,
            1 => Some("extended information: ACCEPT".to_owned()),
            2 => Some("extended information: GPA details".to_owned()),
            5 => Some("extended information: attribute write".to_owned()),
            6 => Some("extended information: pending page".to_owned()),
            _ => None,
        },
        Reg::R9 if leaf == "TDH.PHYMEM.PAGE.RDMD" && after.rax == 0 => Some(format!("epoch {}", after.r9)),
        Reg::R8 if leaf.starts_with("TDH.PHYMEM.PAGE.R") && after.rax == 0 => match after.r8 {
            0 => Some("4K".to_owned()),
            1 => Some("2M".to_owned()),
            2 => Some("1G".to_owned()),
            _ => None,
        },
        Reg::Rcx if leaf.starts_with("TDH.PHYMEM.PAGE.R") && after.rax == 0 => {
            page_type(after.rcx).map(str::to_owned)
        }
        _ => None,
    }
}

fn page_type(number: u64) -> Option<&'static str> {
    Some(match number {
        0 => "free page",
        1 => "reserved page",
        3 => "TD memory",
        4 => "TDR",
        5 => "TDCX",
        6 => "TDVPR",
        8 => "Secure-EPT page",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_its_operand() {
        assert_eq!(status(0xC000_0B06_0000_0001), "GPA_RANGE_NOT_BLOCKED, operand RCX");
        assert_eq!(status(0), "SUCCESS");
        assert_eq!(status(0x30), "SUCCESS, exit reason 0x30 (EPT violation)");
        assert_eq!(status(0xB0A_0000_0001), "PAGE_ALREADY_ACCEPTED, at level 1");
    }

    #[test]
    fn the_registers_of_a_stopped_walk_are_an_entry() {
        let after = Gprs { rax: 0xC000_0B0D_0000_0001, rcx: 7, rdx: 0x8401, ..Gprs::ZERO };
        assert_eq!(register("TDH.MEM.PAGE.AUG", Reg::Rcx, &after).as_deref(), Some("2M entry 0x7 NL_MAPPED"));
        assert_eq!(register("TDH.MNG.RD", Reg::Rcx, &after), None);
    }
}
