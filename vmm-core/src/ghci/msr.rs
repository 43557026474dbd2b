//! Model-specific registers that the module leaves to the host.
//!
//! | MSR | answer |
//! |---|---|
//! | x2APIC, IA32_TSC_DEADLINE | [`crate::interrupts::local_apic`] |
//! | MTRRs | [`crate::vcpu::mtrr`] |
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
    pub const FEAT_CTL: u32 = 0x3a;
    pub const BIOS_SIGN_ID: u32 = 0x8b;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const MISC_FEATURES_ENABLES: u32 = 0x140;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
}

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
                    td.deliver(message)?;
                    Reply::SUCCESS
                }
                Err(Refused) => REFUSED,
            }
        }
        // The revision is read by writing zero first.
        index::BIOS_SIGN_ID | index::MCG_STATUS | index::MISC_FEATURES_ENABLES if value == 0 => {
            Reply::SUCCESS
        }
        _ => vcpu.mtrrs().write(msr, value).map_or(REFUSED, |()| Reply::SUCCESS),
    })
}
