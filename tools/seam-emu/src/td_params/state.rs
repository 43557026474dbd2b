//! The fields of a TDCS after TDH.MNG.INIT.

use tdvisor_base::Hpa;
use tdx_module_iface::td_params::{TdParams, attributes, config_flags};

use crate::config::MachineConfig;
use crate::cpuid;
use crate::fields::layout::tdcs;
use crate::fields::{FieldStore, Width};
use crate::machine::Machine;
use crate::metadata::td::{TD_CTLS_PENDING_VE_DISABLE, scaled_tsc, usec_to_ticks};
use crate::msr::{Owner, write_bitmaps};
use crate::processor::msr;

/// How long a guest may meet host-priority locks before its TD exits: one second.
const HP_LOCK_TIMEOUT_USEC: u64 = 1_000_000;
/// TSC_FREQUENCY counts in units of 25 MHz.
const TSC_FREQUENCY_UNIT: u64 = 25_000_000;
/// The XSAVE area without extended components.
const XSAVE_LEGACY_BYTES: u64 = 576;

/// Writes all of them but those of [`extended_state`].
pub fn initial_fields(params: &TdParams, machine: &Machine, sept_root: Hpa, td: &dyn FieldStore) {
    let config = machine.config();
    td.store_u64(tdcs::ATTRIBUTES, params.attributes);
    td.store_u64(tdcs::XFAM, params.xfam);
    td.store(tdcs::MAX_VCPUS, Width::B4, u64::from(params.max_vcpus));
    td.store(tdcs::NUM_L2_VMS, Width::B2, u64::from(params.num_l2_vms));
    td.store(tdcs::GPAW, Width::B1, params.config_flags & config_flags::GPAW);
    td.store_u64(tdcs::EPTP, sept_root.get() | params.eptp_controls);
    td.store_u64(tdcs::CONFIG_FLAGS, params.config_flags);
    let pending_ve_disable = params.attributes & attributes::SEPT_VE_DISABLE != 0;
    td.store_u64(tdcs::TD_CTLS, if pending_ve_disable { TD_CTLS_PENDING_VE_DISABLE } else { 0 });
    td.store_u64(tdcs::NOTIFY_ENABLES, 0);
    td.store_u64(tdcs::HP_LOCK_TIMEOUT, usec_to_ticks(HP_LOCK_TIMEOUT_USEC, config.tsc_hz));
    td.store_u64(tdcs::TD_EPOCH, 1);
    virtual_tsc(params, machine, td);
    store_bytes(td, tdcs::MRCONFIGID, &params.mrconfigid);
    store_bytes(td, tdcs::MROWNER, &params.mrowner);
    store_bytes(td, tdcs::MROWNERCONFIG, &params.mrownerconfig);
    td.store_u64(tdcs::VIRTUAL_ARCH_CAPABILITIES, arch_capabilities(params, config));
    cpuid::store_virtual_values(params, config, td);
    // Until a VCPU comes without an id of its own.
    let topology = u64::from(config.profile.rules().topology.is_present());
    td.store(tdcs::TOPOLOGY_ENUM_CONFIGURED, Width::B1, topology);
    super::vmx::store(config, td);
    write_bitmaps(&Owner { config, td });
}

/// The guest's TSC starts at zero and runs at the frequency that the host chose: the multiplier has 48 fraction
/// bits.
fn virtual_tsc(params: &TdParams, machine: &Machine, td: &dyn FieldStore) {
    let multiplier = tsc_multiplier(u64::from(params.tsc_frequency), machine.config().tsc_hz);
    td.store(tdcs::TSC_FREQUENCY, Width::B2, u64::from(params.tsc_frequency));
    td.store_u64(tdcs::TSC_MULTIPLIER, multiplier);
    td.store_u64(tdcs::TSC_OFFSET, scaled_tsc(machine.tsc(), multiplier).wrapping_neg());
}

/// What turns the processor's TSC into one of this frequency, in units of 25 MHz.
pub(crate) fn tsc_multiplier(frequency: u64, tsc_hz: u64) -> u64 {
    let wanted = u128::from(frequency) * u128::from(TSC_FREQUENCY_UNIT);
    u64::try_from((wanted << 48) / u128::from(tsc_hz.max(1))).unwrap_or(u64::MAX)
}

/// IA32_ARCH_CAPABILITIES as the guest reads it: the processor's, with what the host chose and what the release fixes.
fn arch_capabilities(params: &TdParams, config: &MachineConfig) -> u64 {
    /// TSX_CTRL: IA32_TSX_CTRL exists.
    const TSX_CTRL: u64 = 1 << 7;
    /// RRSBA: it holds as soon as the host says so, because the TD may migrate to a processor that has it.
    const RRSBA: u64 = 1 << 19;
    let rule = config.profile.rules().arch_capabilities;
    let native = config.native_msr(msr::ARCH_CAPABILITIES);
    let chosen = params.ia32_arch_capabilities_config & rule.configurable;
    let kept_by_choice = rule.configurable & !RRSBA;
    // No processor that is emulated has TSX.
    let own = native & !(kept_by_choice | TSX_CTRL | rule.zero);
    own | native & chosen & kept_by_choice | chosen & RRSBA | rule.one
}

/// Where the components of the XSAVE area lie, compacted, in the order of their bits.
pub fn extended_state(xfam: u64, td: &dyn FieldStore) {
    let mut end = XSAVE_LEGACY_BYTES;
    for bit in 2..=18u32 {
        if xfam >> bit & 1 == 0 {
            continue;
        }
        let (size, aligned) = cpuid::xsave_component(bit);
        if aligned {
            end = end.next_multiple_of(64);
        }
        td.store(tdcs::XBUFF_OFFSETS + 4 * bit, Width::B4, end);
        end += u64::from(size);
    }
    td.store(tdcs::XBUFF_SIZE, Width::B4, end);
}

/// Stores bytes, eight at a time; the fields' sizes are multiples of eight.
fn store_bytes(td: &dyn FieldStore, offset: u32, bytes: &[u8; 48]) {
    for (at, word) in (offset..).step_by(8).zip(bytes.chunks_exact(8)) {
        let mut raw = [0; 8];
        raw.copy_from_slice(word);
        td.store_u64(at, u64::from_le_bytes(raw));
    }
}
