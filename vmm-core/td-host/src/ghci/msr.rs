//! Model-specific registers that the module leaves to the host.
//!
//! | MSR | answer |
//! |---|---|
//! | x2APIC, IA32_TSC_DEADLINE | [`crate::interrupts::local_apic`] |
//! | MTRRs | [`crate::vcpu::mtrr`] |
//! | IA32_APIC_BASE | x2APIC mode at the usual address, and the bootstrap flag on vCPU 0; it cannot change |
//! | what never changes | its row of `CONSTANTS` |
//! | anything else | does not exist: the guest's RDMSR or WRMSR faults |

use tdx_module_iface::ghci::CallStatus;
use x86_arch::msr;

use super::Reply;
use crate::error::Error;
use crate::interrupts::local_apic::{Effect, MSR_FIRST, MSR_LAST, MSR_TSC_DEADLINE, Refused};
use crate::platform::Platform;
use crate::td::Td;
use crate::vcpu::Vcpu;

/// IA32_APIC_BASE: enabled (bit 11), in x2APIC mode (bit 10), registers at 0xFEE00000 (SDM volume 3, "Local APIC
/// Status and Location").
const X2APIC_ENABLED: u64 = 0xfee0_0000 | 1 << 11 | 1 << 10;
/// IA32_APIC_BASE bit 8: the bootstrap processor. A kernel that finds it on no processor starts no others.
const BOOTSTRAP: u64 = 1 << 8;

/// IA32_FEATURE_CONTROL: locked.
const LOCKED: u64 = 1;

/// A register that always reads the same.
struct Constant {
    index: u32,
    value: u64,
    writes: Writes,
}

/// What becomes of a write to a [`Constant`].
enum Writes {
    /// #GP: it is read-only.
    Refused,
    /// Writing back what was read is no change.
    Same,
}

const fn constant(index: u32, value: u64, writes: Writes) -> Constant {
    Constant { index, value, writes }
}

/// Registers that are the same for every vCPU and at all times.
const CONSTANTS: &[Constant] = &[
    constant(msr::IA32_PLATFORM_ID, 0, Writes::Refused),
    constant(msr::IA32_FEATURE_CONTROL, LOCKED, Writes::Refused),
    // The revision is read by writing zero first.
    constant(msr::IA32_BIOS_SIGN_ID, 0, Writes::Same),
    constant(msr::MSR_PLATFORM_INFO, 0, Writes::Refused),
    constant(msr::MSR_MISC_FEATURES_ENABLES, 0, Writes::Same),
    constant(msr::IA32_MCG_CAP, 0, Writes::Refused),
    constant(msr::IA32_MCG_STATUS, 0, Writes::Same),
    // There are no power states: KVM answers it for TDs too, and a kernel that clears a bit writes zero back.
    constant(msr::MSR_POWER_CTL, 0, Writes::Same),
];

impl Constant {
    fn find(index: u32) -> Option<&'static Self> {
        CONSTANTS.iter().find(|constant| constant.index == index)
    }

    fn write(&self, value: u64) -> Reply {
        match self.writes {
            Writes::Same if value == self.value => Reply::SUCCESS,
            Writes::Same | Writes::Refused => REFUSED,
        }
    }
}

const REFUSED: Reply = Reply::status(CallStatus::INVALID_OPERAND);

/// RDMSR.
pub(crate) fn read<P: Platform>(td: &Td<'_, P>, vcpu: &Vcpu, index: u32) -> Reply {
    match index {
        MSR_TSC_DEADLINE | MSR_FIRST..=MSR_LAST => match vcpu.apic().read(index, td.guest_tsc()) {
            Ok(value) => Reply::value(value),
            Err(Refused) => REFUSED,
        },
        msr::IA32_APIC_BASE => Reply::value(apic_base(vcpu.index())),
        _ => match Constant::find(index) {
            Some(constant) => Reply::value(constant.value),
            None => vcpu.mtrrs().read(index).map_or(REFUSED, Reply::value),
        },
    }
}

/// WRMSR.
pub(crate) fn write<P: Platform>(
    td: &Td<'_, P>,
    vcpu: &Vcpu,
    index: u32,
    value: u64,
) -> Result<Reply, Error> {
    Ok(match index {
        MSR_TSC_DEADLINE | MSR_FIRST..=MSR_LAST => {
            // Outside of the match, so that the lock is free when the message is delivered, perhaps to this vCPU.
            let written = vcpu.apic().write(index, value, td.guest_tsc());
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
        msr::IA32_APIC_BASE if value == apic_base(vcpu.index()) => Reply::SUCCESS,
        _ => match Constant::find(index) {
            Some(constant) => constant.write(value),
            None => vcpu.mtrrs().write(index, value).map_or(REFUSED, |()| Reply::SUCCESS),
        },
    })
}

/// IA32_APIC_BASE of a vCPU.
const fn apic_base(vcpu: u32) -> u64 {
    X2APIC_ENABLED | if vcpu == 0 { BOOTSTRAP } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_vcpu_is_the_bootstrap_processor_and_all_are_in_x2apic_mode() {
        assert_eq!(apic_base(0), 0xfee0_0d00);
        assert_eq!([apic_base(1), apic_base(63)], [0xfee0_0c00; 2]);
    }

    #[test]
    fn a_constant_register_has_one_row_and_takes_only_what_it_reads_as() {
        for (place, constant) in CONSTANTS.iter().enumerate() {
            let later = &CONSTANTS[place + 1..];
            assert!(later.iter().all(|other| other.index != constant.index), "{:#x} twice", constant.index);
            assert_eq!(constant.write(constant.value + 2), REFUSED, "{:#x}", constant.index);
        }
        let written = |index| Constant::find(index).map(|constant| constant.write(constant.value));
        assert_eq!(written(msr::IA32_BIOS_SIGN_ID), Some(Reply::SUCCESS));
        assert_eq!(written(msr::MSR_POWER_CTL), Some(Reply::SUCCESS));
        assert_eq!(written(msr::IA32_FEATURE_CONTROL), Some(REFUSED), "it is locked");
        assert_eq!(written(msr::IA32_EFER), None, "the module's own");
    }
}
