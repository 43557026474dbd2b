//! Whether a TD_PARAMS is acceptable, and the first thing that is wrong with it.

use tdx_module_iface::td_params::{
    TdParams, attributes, config_flags, eptp, msr_config_ctls, xfam_is_consistent,
};
use tdx_module_iface::{Operand, Status, StatusCode};
use x86_arch::cpuid::{feature, leaf};

use crate::config::MachineConfig;
use crate::cpuid::given_topology;
use crate::features::TD_PARTITIONING;
use crate::rules::Rules;
use crate::sysinfo::CONFIG_FLAGS_FIXED0;

/// Most L2 VMs of a TD on a machine: none where it does not present TD partitioning.
const fn max_l2_vms(config: &MachineConfig) -> u8 {
    if config.features.has(&TD_PARTITIONING, config.profile.release()) { 3 } else { 0 }
}

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

/// Checks a TD_PARAMS for a TD that has `tdcx_pages` TDCX pages, as far as nothing of it is written yet.
///
/// # Errors
/// The first [`Refusal`] in the module's order.
pub fn check(params: &TdParams, config: &MachineConfig, tdcx_pages: usize) -> Result<(), Refusal> {
    require(attributes_are_valid(params.attributes, config), Operand::ATTRIBUTES)?;
    require(xfam_is_valid(params.xfam, config), Operand::XFAM)?;
    let rules = config.profile.rules();
    require((1..=rules.max_vcpus).contains(&params.max_vcpus), Operand::MAX_VCPUS)?;
    require(params.num_l2_vms <= max_l2_vms(config), Operand::NUM_L2_VMS)?;
    if tdcx_pages < TDCX_MIN + usize::from(params.num_l2_vms) {
        return Err(Refusal { status: Status::new(StatusCode::TDCS_NOT_ALLOCATED), rcx: 0 });
    }
    all_zero(&params.reserved_20)?;
    require(params.config_flags & !CONFIG_FLAGS_FIXED0 == 0, Operand::EXEC_CONTROLS)?;
    require(eptp_is_valid(params.eptp_controls, params.config_flags), Operand::EPTP_CONTROLS)?;
    require(TSC_FREQUENCY.contains(&params.tsc_frequency), Operand::TSC_FREQUENCY)?;
    all_zero(&params.reserved_42)?;
    require(params.msr_config_ctls & !msr_config_ctls::IA32_ARCH_CAPABILITIES == 0, Operand::RDX)?;
    check_cpuid(params, config, rules)
}

/// The checks that come after the layout of the extended state was written to the TDCS.
///
/// # Errors
/// The first [`Refusal`] in the module's order.
pub fn check_topology(params: &TdParams, config: &MachineConfig) -> Result<(), Refusal> {
    let rules = config.profile.rules();
    given_topology(params, &rules.cpuid).check().map_err(|_| TOPOLOGY)?;
    all_zero(&params.reserved_232)?;
    for unused in params.cpuid_config.iter().skip(rules.cpuid.num_configurable()) {
        require([unused.eax, unused.ebx, unused.ecx, unused.edx] == [0; 4], Operand::RDX)?;
    }
    check_arch_capabilities(params, rules)?;
    require(params.attributes & attributes::MIGRATABLE == 0 || params.num_l2_vms == 0, Operand::RDX)
}

pub(crate) fn attributes_are_valid(value: u64, config: &MachineConfig) -> bool {
    let excludes_migration = attributes::DEBUG | attributes::PERFMON;
    config.attributes.allows(value)
        && (value & attributes::MIGRATABLE == 0 || value & excludes_migration == 0)
}

pub(crate) fn xfam_is_valid(value: u64, config: &MachineConfig) -> bool {
    config.xfam.allows(value) && xfam_is_consistent(value)
}

/// Write-back tables without accessed and dirty bits, of four or five levels; wide addresses need five.
pub(crate) fn eptp_is_valid(controls: u64, flags: u64) -> bool {
    match controls {
        eptp::LEVELS_5 => true,
        eptp::LEVELS_4 => flags & config_flags::GPAW == 0,
        _ => false,
    }
}

/// CPUID leaf 1FH is none that a guest could read.
const TOPOLOGY: Refusal =
    Refusal { status: Status::new(StatusCode::CPUID_LEAF_1F_FORMAT_UNRECOGNIZED), rcx: 0 };

/// Leaf by leaf in the order of the release's table: bits that cannot be configured, then what a leaf itself asks for.
fn check_cpuid(params: &TdParams, config: &MachineConfig, rules: &Rules) -> Result<(), Refusal> {
    for leaf in rules.cpuid.iter() {
        let Some(given) = leaf.config.and_then(|place| params.cpuid_config.get(usize::from(place))) else {
            continue;
        };
        let given = [given.eax, given.ebx, given.ecx, given.edx];
        let strays = given.iter().zip(leaf.settable()).any(|(given, settable)| given & !settable != 0);
        let accepted = match (leaf.leaf, leaf.subleaf) {
            (1, _) => family_is_valid(given, params.attributes, config),
            (7, Some(0)) => tsx_is_valid(given, config),
            _ => true,
        };
        if strays || !accepted {
            return Err(Refusal { rcx: leaf.key(), ..refuse(Operand::CPUID_CONFIG) });
        }
    }
    Ok(())
}

/// CPUID(1).EAX is the processor's own, by its value or by zero; a TD that is to migrate may also call itself an
/// earlier stepping of the same model.
pub(crate) fn family_is_valid([eax, ..]: [u32; 4], td_attributes: u64, config: &MachineConfig) -> bool {
    /// CPUID(1).EAX bits 3:0.
    const STEPPING: u32 = 0xf;
    let own = config.cpuid_fms;
    let migrates = td_attributes & attributes::MIGRATABLE != 0;
    let earlier = eax & !STEPPING == own & !STEPPING && eax & STEPPING <= own & STEPPING;
    eax == 0 || eax == own || (migrates && earlier)
}

/// HLE and RTM come together, as far as the processor has them.
fn tsx_is_valid([_, ebx, ..]: [u32; 4], config: &MachineConfig) -> bool {
    let ebx = ebx & config.native_cpuid(leaf::FEATURES, 0).ebx;
    (ebx & feature::HLE.mask() == 0) == (ebx & feature::RTM.mask() == 0)
}

fn check_arch_capabilities(params: &TdParams, rules: &Rules) -> Result<(), Refusal> {
    let configured = params.msr_config_ctls & msr_config_ctls::IA32_ARCH_CAPABILITIES != 0;
    let allowed = if configured { rules.arch_capabilities.configurable } else { 0 };
    require(params.ia32_arch_capabilities_config & !allowed == 0, Operand::IA32_ARCH_CAPABILITIES_CONFIG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::FeatureSet;

    fn plain() -> TdParams {
        TdParams { xfam: 3, max_vcpus: 4, eptp_controls: 0x1e, tsc_frequency: 100, ..TdParams::ZERO }
    }

    fn whole(params: &TdParams) -> Result<(), Refusal> {
        let config = MachineConfig::small();
        check(params, &config, 6).and_then(|()| check_topology(params, &config))
    }

    fn refused_operand(change: impl FnOnce(&mut TdParams)) -> Operand {
        let mut params = plain();
        change(&mut params);
        whole(&params).unwrap_err().status.operand()
    }

    #[test]
    fn a_plain_td_is_accepted() {
        assert_eq!(whole(&plain()), Ok(()));
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
        let recorded = MachineConfig { features: FeatureSet::Recorded, ..MachineConfig::small() };
        let refusal = check(&params, &recorded, 6).unwrap_err();
        assert_eq!(refusal.status.code(), StatusCode::TDCS_NOT_ALLOCATED);
        assert_eq!(check(&params, &recorded, 7), Ok(()));
    }

    #[test]
    fn l2_vms_are_refused_where_partitioning_is_not_presented() {
        let most = |features| {
            let config = MachineConfig { features, ..MachineConfig::small() };
            (0..=4).rev().find(|vms| check(&TdParams { num_l2_vms: *vms, ..plain() }, &config, 9).is_ok())
        };
        assert_eq!(most(FeatureSet::Recorded), Some(3));
        let offered = FeatureSet::Offered.has(&TD_PARTITIONING, MachineConfig::small().profile.release());
        assert_eq!(most(FeatureSet::Offered), Some(if offered { 3 } else { 0 }));
    }

    #[test]
    fn a_refused_cpuid_configuration_names_leaf_and_subleaf() {
        let mut params = plain();
        params.cpuid_config[10].eax = 0xff;
        let refusal = check(&params, &MachineConfig::small(), 6).unwrap_err();
        assert_eq!((refusal.status.operand(), refusal.rcx), (Operand::CPUID_CONFIG, 0x2_0000_0007));
    }
}
