//! Model-specific registers that the module leaves to the host.
//!
//! | MSR | answer |
//! |---|---|
//! | x2APIC, IA32_TSC_DEADLINE | [`crate::interrupts::local_apic`] |
//! | MTRRs | [`crate::vcpu::mtrr`] |
//! | IA32_APIC_BASE | x2APIC mode at the usual address, and the bootstrap flag on vCPU 0; it cannot change |
//! | IA32_MCG_CAP, IA32_MCG_STATUS | no machine-check banks |
//! | IA32_FEAT_CTL | locked, nothing enabled |
//! | IA32_PLATFORM_ID, IA32_BIOS_SIGN_ID, MSR_PLATFORM_INFO, MISC_FEATURES_ENABLES | zero |
//! | anything else | does not exist: the guest's RDMSR or WRMSR faults |

use tdx_module_iface::ghci::CallStatus;

use super::Reply;
use crate::error::Error;
use crate::interrupts::local_apic::{Effect, MSR_FIRST, MSR_LAST, MSR_TSC_DEADLINE, Refused};
use crate::platform::Platform;
use crate::td::Td;
use crate::vcpu::Vcpu;

/// Architectural names (SDM volume 4).
mod index {
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const FEAT_CTL: u32 = 0x3a;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const MISC_FEATURES_ENABLES: u32 = 0x140;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
}

/// IA32_APIC_BASE: enabled (bit 11), in x2APIC mode (bit 10), registers at 0xFEE00000 (SDM volume 3, "Local APIC
/// Status and Location").
const X2APIC_ENABLED: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10;
/// IA32_APIC_BASE bit 8: the bootstrap processor. A kernel that finds it on no processor starts no others.
const BOOTSTRAP: u64 = 1 << 8;

/// IA32_FEAT_CTL: locked.
const LOCKED: u64 = 1;

const REFUSED: Reply = Reply::status(CallStatus::INVALID_OPERAND);

/// RDMSR.
pub(crate) fn read<P: Platform>(td: &Td<'_, P>, vcpu: &Vcpu, msr: u32) -> Reply {
    match msr {
        MSR_TSC_DEADLINE | MSR_FIRST..=MSR_LAST => match vcpu.apic().read(msr, td.guest_tsc()) {
            Ok(value) => Reply::value(value),
            Err(Refused) => REFUSED,
        },
        index::APIC_BASE => Reply::value(apic_base(vcpu.index())),
        index::FEAT_CTL => Reply::value(LOCKED),
        index::PLATFORM_ID
        | index::BIOS_SIGN_ID
        | index::PLATFORM_INFO
        | index::MISC_FEATURES_ENABLES
        | index::MCG_CAP
        | index::MCG_STATUS => Reply::value(0),
        _ => vcpu.mtrrs().read(msr).map_or(REFUSED, Reply::value),
    }
}

/// WRMSR.
pub(crate) fn write<P: Platform>(td: &Td<'_, P>, vcpu: &Vcpu, msr: u32, value: u64) -> Result<Reply, Error> {
    Ok(match msr {
        MSR_TSC_DEADLINE | MSR_FIRST..=MSR_LAST => {
            // Outside of the match, so that the lock is free when the message is delivered, perhaps to this vCPU.
            let written = vcpu.apic().write(msr, value, td.guest_tsc());
            match written {
                Ok(Effect::None) => Reply::SUCCESS,
                Ok(Effect::Send(message)) => {
                    td.deliver_message(message)?;
                    Reply::SUCCESS
                }
                Err(Refused) => REFUSED,
            }
        }
        // Writing back what was read is no change; a TD has no other mode.
        index::APIC_BASE if value == apic_base(vcpu.index()) => Reply::SUCCESS,
        // The revision is read by writing zero first.
        index::BIOS_SIGN_ID | index::MCG_STATUS | index::MISC_FEATURES_ENABLES if value == 0 => {
            Reply::SUCCESS
        }
        _ => vcpu.mtrrs().write(msr, value).map_or(REFUSED, |()| Reply::SUCCESS),
    })
}

/// IA32_APIC_BASE of a vCPU.
const fn apic_base(vcpu: u32) -> u64 {
    X2APIC_ENABLED | if vcpu == 0 { BOOTSTRAP } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::apic_base;

    #[test]
    fn one_vcpu_is_the_bootstrap_processor_and_all_are_in_x2apic_mode() {
        assert_eq!(apic_base(0), 0xfee0_0d00);
        assert_eq!([apic_base(1), apic_base(63)], [0xfee0_0c00; 2]);
    }
}
