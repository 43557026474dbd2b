//! Whether a TD_PARAMS is acceptable, and the first thing that is wrong with it.

use tdx_module_iface::metadata::cpuid::CONFIG;
use tdx_module_iface::td_params::{
    TdParams, attributes, config_flags, eptp, msr_config_ctls, xfam_is_consistent,
};
use tdx_module_iface::{Operand, Status, StatusCode};

use crate::config::MachineConfig;
use crate::sysinfo::{ARCH_CAPABILITIES_CONFIG_MASK, CONFIG_FLAGS_FIXED0};

/// Most L2 VMs of a TD.
const MAX_L2_VMS: u8 = 3;
/// TDCX pages of a TD without L2 VMs.
const TDCX_MIN: usize = 6;
/// TSC_FREQUENCY in units of 25 MHz.
const TSC_FREQUENCY: core::ops::RangeInclusive<u16> = 4..=400;

/// Why a TD_PARAMS is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The status.
    pub status: Status,
    /// What RCX says: leaf and subleaf of the CPUID configuration at fault, otherwise zero.
    pub rcx: u64,
}

const fn refuse(operand: Operand) -> Refusal {
    Refusal { status: Status::with_operand(StatusCode::OPERAND_INVALID, operand), rcx: 0 }
}

fn all_zero(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(refuse(Operand::RDX)) }
}

fn require(holds: bool, operand: Operand) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refuse(operand)) }
}

/// Checks a TD_PARAMS for a TD that has `tdcx_pages` TDCX pages.
///
/// # Errors
/// The first [`Refusal`] in the module's order.
pub fn check(params: &TdParams, config: &MachineConfig, tdcx_pages: usize) -> Result<(), Refusal> {
    require(attributes_are_valid(params.attributes, config), Operand::ATTRIBUTES)?;
    require(xfam_is_valid(params.xfam, config), Operand::XFAM)?;
    require(params.max_vcpus != 0, Operand::MAX_VCPUS)?;
    require(params.num_l2_vms <= MAX_L2_VMS, Operand::NUM_L2_VMS)?;
    if tdcx_pages < TDCX_MIN + usize::from(params.num_l2_vms) {
        return Err(Refusal { status: Status::new(StatusCode::TDCS_NOT_ALLOCATED), rcx: 0 });
    }
    all_zero(&params.reserved_20)?;
    require(params.config_flags & !CONFIG_FLAGS_FIXED0 == 0, Operand::EXEC_CONTROLS)?;
    require(eptp_is_valid(params.eptp_controls, params.config_flags), Operand::EPTP_CONTROLS)?;
    require(TSC_FREQUENCY.contains(&params.tsc_frequency), Operand::TSC_FREQUENCY)?;
    all_zero(&params.reserved_42)?;
    require(params.msr_config_ctls & !msr_config_ctls::IA32_ARCH_CAPABILITIES == 0, Operand::RDX)?;
    check_cpuid(params)?;
    all_zero(&params.reserved_232)?;
    for unused in params.cpuid_config.iter().skip(CONFIG.len()) {
        require([unused.eax, unused.ebx, unused.ecx, unused.edx] == [0; 4], Operand::RDX)?;
    }
    check_arch_capabilities(params)?;
    require(params.attributes & attributes::MIGRATABLE == 0 || params.num_l2_vms == 0, Operand::RDX)
}

fn attributes_are_valid(value: u64, config: &MachineConfig) -> bool {
    let excludes_migration = attributes::DEBUG | attributes::PERFMON;
    config.attributes.allows(value)
        && (value & attributes::MIGRATABLE == 0 || value & excludes_migration == 0)
}

fn xfam_is_valid(value: u64, config: &MachineConfig) -> bool {
    config.xfam.allows(value) && xfam_is_consistent(value)
}

/// Write-back tables without accessed and dirty bits, of four or five levels; wide addresses need five.
fn eptp_is_valid(controls: u64, flags: u64) -> bool {
    match controls {
        eptp::LEVELS_5 => true,
        eptp::LEVELS_4 => flags & config_flags::GPAW == 0,
        _ => false,
    }
}

fn check_cpuid(params: &TdParams) -> Result<(), Refusal> {
    for (allowed, given) in CONFIG.iter().zip(&params.cpuid_config) {
        let given = [given.eax, given.ebx, given.ecx, given.edx];
        let registers = given.iter().zip(allowed.direct.iter().zip(&allowed.allow));
        for (given, (direct, allow)) in registers {
            if given & !(direct | allow) != 0 {
                let rcx = u64::from(allowed.leaf) | u64::from(allowed.subleaf.unwrap_or(u32::MAX)) << 32;
                return Err(Refusal { rcx, ..refuse(Operand::CPUID_CONFIG) });
            }
        }
    }
    Ok(())
}

fn check_arch_capabilities(params: &TdParams) -> Result<(), Refusal> {
    let configured = params.msr_config_ctls & msr_config_ctls::IA32_ARCH_CAPABILITIES != 0;
    let allowed = if configured { ARCH_CAPABILITIES_CONFIG_MASK } else { 0 };
    require(params.ia32_arch_capabilities_config & !allowed == 0, Operand::IA32_ARCH_CAPABILITIES_CONFIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> TdParams {
        TdParams { xfam: 3, max_vcpus: 4, eptp_controls: 0x1e, tsc_frequency: 100, ..TdParams::ZERO }
    }

    fn refused_operand(change: impl FnOnce(&mut TdParams)) -> Operand {
        let mut params = plain();
        change(&mut params);
        check(&params, &MachineConfig::small(), 6).unwrap_err().status.operand()
    }

    #[test]
    fn a_plain_td_is_accepted() {
        assert_eq!(check(&plain(), &MachineConfig::small(), 6), Ok(()));
    }

    #[test]
    fn each_field_is_refused_under_its_own_name() {
        assert_eq!(refused_operand(|p| p.attributes = 0x10), Operand::ATTRIBUTES);
        assert_eq!(refused_operand(|p| p.attributes = 1 << 29 | 1), Operand::ATTRIBUTES);
        assert_eq!(refused_operand(|p| p.xfam = 0x4003), Operand::XFAM);
        assert_eq!(refused_operand(|p| p.max_vcpus = 0), Operand::MAX_VCPUS);
        assert_eq!(refused_operand(|p| p.num_l2_vms = 4), Operand::NUM_L2_VMS);
        assert_eq!(refused_operand(|p| p.config_flags = 8), Operand::EXEC_CONTROLS);
        assert_eq!(refused_operand(|p| p.eptp_controls = 0x5e), Operand::EPTP_CONTROLS);
        assert_eq!(refused_operand(|p| p.config_flags = 1), Operand::EPTP_CONTROLS);
        assert_eq!(refused_operand(|p| p.tsc_frequency = 401), Operand::TSC_FREQUENCY);
        assert_eq!(refused_operand(|p| p.msr_config_ctls = 2), Operand::RDX);
        assert_eq!(refused_operand(|p| p.reserved_232[3] = 1), Operand::RDX);
        assert_eq!(refused_operand(|p| p.cpuid_config[40].ecx = 1), Operand::RDX);
        assert_eq!(
            refused_operand(|p| p.ia32_arch_capabilities_config = 1),
            Operand::IA32_ARCH_CAPABILITIES_CONFIG
        );
    }

    #[test]
    fn what_stands_first_in_the_order_wins() {
        let all_wrong = |p: &mut TdParams| {
            p.xfam = 1;
            p.num_l2_vms = 4;
            p.eptp_controls = 0x1d;
        };
        assert_eq!(refused_operand(all_wrong), Operand::XFAM);
    }

    #[test]
    fn an_l2_vm_needs_one_more_tdcx_page() {
        let params = TdParams { num_l2_vms: 1, ..plain() };
        let refusal = check(&params, &MachineConfig::small(), 6).unwrap_err();
        assert_eq!(refusal.status.code(), StatusCode::TDCS_NOT_ALLOCATED);
        assert_eq!(check(&params, &MachineConfig::small(), 7), Ok(()));
    }

    #[test]
    fn a_refused_cpuid_configuration_names_leaf_and_subleaf() {
        let mut params = plain();
        params.cpuid_config[10].eax = 0xff;
        let refusal = check(&params, &MachineConfig::small(), 6).unwrap_err();
        assert_eq!((refusal.status.operand(), refusal.rcx), (Operand::CPUID_CONFIG, 0x2_0000_0007));
    }
}
