//! The MSRs of a host processor that neither its instructions nor its local APIC use: one table, on the values that the
//! TDX module samples, so that module and host cannot disagree.
//!
//! Numbers and bits: SDM volume 4; those of TDX: Intel TDX Module Base Architecture Specification, "Enumeration".

use seam_emu::MachineConfig;

use crate::layout::{SEAM_BASE, SEAM_BYTES};
use crate::server::FirmwareSetup;
use crate::vmcs::{HIGHEST_INDEX, REVISION};

pub(crate) const TSC: u32 = 0x10;
pub(crate) const APIC_BASE: u32 = 0x1b;
pub(crate) const TSC_ADJUST: u32 = 0x3b;
const BIOS_SIGN_ID: u32 = 0x8b;

/// Revision of the microcode that CPUID(1) makes readable in IA32_BIOS_SIGN_ID.
const MICROCODE_REVISION: u64 = 0x2b00_0000 << 32;

/// IA32_APIC_BASE: the window's address, BSP 8, x2APIC 10, enabled 11.
const APIC_WINDOW: u64 = 0xfee0_0000;
const APIC_BSP: u64 = 1 << 8;
const APIC_X2APIC_ENABLED: u64 = 1 << 10 | 1 << 11;

/// An access that a register does not allow, or to one that does not exist: #GP(0), and nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GeneralProtection;

/// How a register behaves.
#[derive(Clone, Copy)]
enum Rule {
    /// Read-only.
    Constant(fn(&MachineConfig) -> u64),
    /// The processor's own value as the module samples it, read-only.
    Native,
    /// Keeps these bits; a write of another one is refused.
    Kept { reset: fn(&MachineConfig) -> u64, bits: u64 },
    /// Write-only: these bits may be written and do nothing here.
    Command { bits: u64 },
}

struct Row {
    first: u32,
    last: u32,
    rule: Rule,
}

const fn one(index: u32, rule: Rule) -> Row {
    Row { first: index, last: index, rule }
}

const fn zero(_: &MachineConfig) -> u64 {
    0
}

/// Ascending.
const TABLE: [Row; 35] = [
    // IA32_PLATFORM_ID.
    one(0x17, Rule::Constant(zero)),
    // IA32_FEATURE_CONTROL: locked, VMX outside of SMX.
    one(FEATURE_CONTROL, Rule::Constant(|_| LOCKED | 1 << 2)),
    // IA32_SPEC_CTRL: IBRS, STIBP, SSBD, and those of CPUID leaf 7.2; nothing is speculated.
    one(0x48, Rule::Kept { reset: zero, bits: 0x4ff }),
    // IA32_PRED_CMD: IBPB.
    one(0x49, Rule::Command { bits: 1 }),
    // IA32_BIOS_UPDT_TRIG: an update is accepted and changes nothing.
    one(0x79, Rule::Command { bits: u64::MAX }),
    // IA32_MKTME_KEYID_PARTITIONING: shared key ids besides 0 in 31:0, private ones in 63:32.
    one(KEY_ID_PARTITIONING, Rule::Constant(key_ids)),
    // IA32_XAPIC_DISABLE_STATUS.
    one(0xbd, Rule::Native),
    // IA32_MTRRCAP: eight variable ranges, fixed ranges, write combining, SMRR, SEAMRR.
    one(0xfe, Rule::Constant(|_| VARIABLE_RANGES as u64 | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 15)),
    // IA32_ARCH_CAPABILITIES: what the module samples, and XAPIC_DISABLE_STATUS is there.
    one(0x10a, Rule::Constant(|config| config.native_msr(0x10a) | 1 << 21)),
    // IA32_MCG_CAP: no banks; IA32_MCG_STATUS.
    one(0x179, Rule::Constant(zero)),
    one(0x17a, Rule::Kept { reset: zero, bits: 0b111 }),
    // IA32_MISC_ENABLE: fast strings may be switched.
    one(0x1a0, Rule::Kept { reset: |config| config.native_msr(0x1a0), bits: 1 }),
    // IA32_DEBUGCTL: BTF, FREEZE_LBRS_ON_PMI, FREEZE_PERFMON_ON_PMI, FREEZE_WHILE_SMM.
    one(DEBUGCTL, Rule::Kept { reset: zero, bits: DEBUGCTL_AFTER_TD_EXIT | 1 << 11 }),
    // IA32_MTRR_PHYSBASEn and PHYSMASKn.
    Row { first: 0x200, last: 0x1ff + 2 * VARIABLE_RANGES, rule: Rule::Kept { reset: zero, bits: u64::MAX } },
    // IA32_MTRR_FIX64K_00000, FIX16K_80000 and A0000, FIX4K_C0000 to F8000: write-back.
    one(0x250, FIXED_RANGE),
    Row { first: 0x258, last: 0x259, rule: FIXED_RANGE },
    Row { first: 0x268, last: 0x26f, rule: FIXED_RANGE },
    // IA32_MTRR_DEF_TYPE: write-back, fixed ranges enabled, enabled.
    one(0x2ff, Rule::Kept { reset: |_| 6 | 1 << 10 | 1 << 11, bits: 0xcff }),
    // IA32_PERF_CAPABILITIES.
    one(0x345, Rule::Native),
    // IA32_VMX_BASIC: revision, 4 KiB regions, write-back.
    one(0x480, Rule::Constant(|_| REVISION as u64 | 0x1000 << 32 | 6 << 50)),
    // Pin-based controls: external-interrupt and NMI exiting, virtual NMIs, posted interrupts.
    one(0x481, Rule::Constant(|_| controls(0xbf, 0x16))),
    // Processor-based controls: all that a hypervisor asks for, MSR bitmaps, TPR shadow, secondary controls.
    one(0x482, Rule::Constant(|_| controls(0xfff9_fffe, 0x0401_e172))),
    // Exit controls: save debug controls, 64-bit host, acknowledge interrupt on exit; entry controls alike.
    one(0x483, Rule::Constant(|_| controls(0x0003_efff, 0x0003_6dff))),
    one(0x484, Rule::Constant(|_| controls(0x13ff, 0x11ff))),
    // IA32_VMX_MISC.
    one(0x485, Rule::Constant(zero)),
    // CR0 and CR4 in VMX operation.
    Row { first: 0x486, last: 0x489, rule: Rule::Native },
    // IA32_VMX_VMCS_ENUM.
    one(0x48a, Rule::Constant(|_| HIGHEST_INDEX << 1)),
    // Secondary controls: EPT, APIC-register virtualisation, virtual-interrupt delivery.
    one(0x48b, Rule::Constant(|_| controls(1 << 1 | 1 << 8 | 1 << 9, 0))),
    // EPT: 4-level walks, write-back, 2M and 1G pages, INVEPT of one context and all, Accessed and Dirty bits.
    one(0x48c, Rule::Constant(|_| 1 << 6 | 1 << 14 | 3 << 16 | 1 << 20 | 1 << 21 | 3 << 25)),
    // IA32_DS_AREA: nothing is stored there.
    one(0x600, Rule::Kept { reset: zero, bits: u64::MAX }),
    // IA32_TME_CAPABILITY: AES-XTS-128 with and without integrity, key-id bits, keys.
    one(0x981, Rule::Constant(|config| 0xf | key_bits(config) << 32 | all_key_ids(config) << 36)),
    // IA32_TME_ACTIVATE: locked, enabled, AES-XTS-128, key-id bits.
    one(TME_ACTIVATE, Rule::Constant(|config| LOCKED | 1 << 1 | key_bits(config) << 32 | 1 << 48)),
    // IA32_XSS: no supervisor state.
    one(0xda0, Rule::Kept { reset: zero, bits: 0 }),
    // IA32_SEAMRR_PHYS_BASE: configured.
    one(0x1400, Rule::Constant(|_| SEAM_BASE | 1 << 3)),
    one(SEAMRR_MASK, Rule::Constant(|config| low_bits(config.max_pa) & !(SEAM_BYTES - 1) | SEAMRR_LOCKED)),
];

/// IA32_FEATURE_CONTROL.
const FEATURE_CONTROL: u32 = 0x3a;
/// IA32_MKTME_KEYID_PARTITIONING.
const KEY_ID_PARTITIONING: u32 = 0x87;
/// IA32_TME_ACTIVATE.
const TME_ACTIVATE: u32 = 0x982;
/// IA32_DEBUGCTL, and what a TD exit leaves of it: BTF, FREEZE_PERFMON_ON_PMI, FREEZE_WHILE_SMM.
const DEBUGCTL: u32 = 0x1d9;
const DEBUGCTL_AFTER_TD_EXIT: u64 = 1 << 1 | 1 << 12 | 1 << 14;
/// Bit 0 of what firmware locks: IA32_FEATURE_CONTROL, IA32_TME_ACTIVATE.
const LOCKED: u64 = 1;

/// IA32_SEAMRR_PHYS_MASK.
const SEAMRR_MASK: u32 = 0x1401;
const SEAMRR_LOCKED: u64 = 1 << 10;
const SEAMRR_ENABLED: u64 = 1 << 11;

const VARIABLE_RANGES: u32 = 8;
const FIXED_RANGE: Rule = Rule::Kept { reset: |_| 0x0606_0606_0606_0606, bits: u64::MAX };

const fn low_bits(bits: u32) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}

fn key_bits(config: &MachineConfig) -> u64 {
    config.max_pa.saturating_sub(config.hkid_start_bit).into()
}

/// Key ids besides 0.
fn all_key_ids(config: &MachineConfig) -> u64 {
    u64::from(*config.private_hkids.end())
}

fn key_ids(config: &MachineConfig) -> u64 {
    let first = u64::from(*config.private_hkids.start());
    let last = u64::from(*config.private_hkids.end());
    (last + 1).saturating_sub(first) << 32 | first.saturating_sub(1)
}

/// A VMX capability MSR of controls: those that may be 1 above those that must.
const fn controls(may: u64, must: u64) -> u64 {
    may << 32 | must
}

fn row(index: u32) -> Option<&'static Row> {
    TABLE.iter().find(|row| (row.first..=row.last).contains(&index))
}

/// What a register shows that firmware has set up like this.
pub(crate) const fn as_set_up(index: u32, value: u64, firmware: FirmwareSetup) -> u64 {
    match (index, firmware) {
        (SEAMRR_MASK, _) if firmware.has_seam_range() => value | SEAMRR_ENABLED,
        (FEATURE_CONTROL, FirmwareSetup::WithoutVmx)
        | (TME_ACTIVATE, FirmwareSetup::WithoutMemoryEncryption) => LOCKED,
        (KEY_ID_PARTITIONING, FirmwareSetup::WithoutMemoryEncryption) => 0,
        (KEY_ID_PARTITIONING, FirmwareSetup::WithoutKeyIds) => (value >> 32) + (value & 0xffff_ffff),
        _ => value,
    }
}

/// The MSRs of one processor.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Msrs {
    /// Values that differ from those of reset; bounded by the table.
    kept: std::collections::BTreeMap<u32, u64>,
    /// What this processor's time-stamp counter is ahead of the machine's.
    pub(crate) tsc_adjust: u64,
    bios_sign_id: u64,
}

impl Msrs {
    /// RDMSR. `tsc` is the machine's time-stamp counter; the first processor is the one that boots.
    ///
    /// # Errors
    /// [`GeneralProtection`] for a register that does not exist or cannot be read.
    pub(crate) fn read(
        &self,
        config: &MachineConfig,
        index: u32,
        tsc: u64,
        processor: usize,
    ) -> Result<u64, GeneralProtection> {
        Ok(match index {
            TSC => tsc.wrapping_add(self.tsc_adjust),
            TSC_ADJUST => self.tsc_adjust,
            APIC_BASE => apic_base(processor),
            BIOS_SIGN_ID => self.bios_sign_id,
            _ => match row(index).ok_or(GeneralProtection)?.rule {
                Rule::Constant(value) => value(config),
                Rule::Native => config.native_msr(index),
                Rule::Kept { reset, .. } => self.kept.get(&index).copied().unwrap_or_else(|| reset(config)),
                Rule::Command { .. } => return Err(GeneralProtection),
            },
        })
    }

    /// WRMSR.
    ///
    /// # Errors
    /// [`GeneralProtection`] for a register that does not exist or cannot be written, and for a reserved bit.
    pub(crate) fn write(
        &mut self,
        config: &MachineConfig,
        index: u32,
        value: u64,
        tsc: u64,
        processor: usize,
    ) -> Result<(), GeneralProtection> {
        match index {
            TSC => self.tsc_adjust = value.wrapping_sub(tsc),
            TSC_ADJUST => self.tsc_adjust = value,
            // The mode is locked.
            APIC_BASE if value == apic_base(processor) => {}
            APIC_BASE => return Err(GeneralProtection),
            BIOS_SIGN_ID => self.bios_sign_id = value,
            _ => match row(index).ok_or(GeneralProtection)?.rule {
                Rule::Constant(_) | Rule::Native => return Err(GeneralProtection),
                Rule::Kept { reset, bits } => {
                    if (value ^ reset(config)) & !bits != 0 {
                        return Err(GeneralProtection);
                    }
                    self.kept.insert(index, value);
                }
                Rule::Command { bits } if value & !bits == 0 => {}
                Rule::Command { .. } => return Err(GeneralProtection),
            },
        }
        Ok(())
    }

    /// Takes away what a TD exit gives up.
    pub(crate) fn give_up_after_td_exit(&mut self) {
        if let Some(debugctl) = self.kept.get_mut(&DEBUGCTL) {
            *debugctl &= DEBUGCTL_AFTER_TD_EXIT;
        }
    }

    /// CPUID(1) was executed: the microcode's revision can be read.
    pub(crate) const fn note_cpuid_1(&mut self) {
        self.bios_sign_id = MICROCODE_REVISION;
    }
}

const fn apic_base(processor: usize) -> u64 {
    APIC_WINDOW | APIC_X2APIC_ENABLED | if processor == 0 { APIC_BSP } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> MachineConfig {
        MachineConfig::small()
    }

    #[test]
    fn the_table_is_ascending_so_that_each_register_has_one_row() {
        assert!(TABLE.windows(2).all(|pair| pair[0].last < pair[1].first));
        assert!(TABLE.iter().all(|row| row.first <= row.last));
    }

    #[test]
    fn the_modules_range_is_enabled_where_firmware_set_it_up_and_locked_always() {
        let mask = Msrs::default().read(&config(), SEAMRR_MASK, 0, 0).unwrap();
        let bits = |firmware| as_set_up(SEAMRR_MASK, mask, firmware) >> 10 & 0b11;
        assert_eq!(bits(FirmwareSetup::Complete), 0b11);
        assert_eq!(bits(FirmwareSetup::WithoutSeamRange), 0b01);
        // What SEAM stands on is off.
        assert_eq!(bits(FirmwareSetup::WithoutKeyIds), 0b01);
    }

    #[test]
    fn a_td_exit_leaves_three_bits_of_debugctl() {
        let mut msrs = Msrs::default();
        let all = DEBUGCTL_AFTER_TD_EXIT | 1 << 11;
        msrs.write(&config(), DEBUGCTL, all, 0, 0).unwrap();
        msrs.give_up_after_td_exit();
        assert_eq!(msrs.read(&config(), DEBUGCTL, 0, 0), Ok(DEBUGCTL_AFTER_TD_EXIT));
    }

    #[test]
    fn what_firmware_left_out_is_locked_off() {
        let shown = |index, firmware| {
            as_set_up(index, Msrs::default().read(&config(), index, 0, 0).unwrap(), firmware)
        };
        assert_eq!(shown(FEATURE_CONTROL, FirmwareSetup::Complete), 0b101);
        assert_eq!(shown(FEATURE_CONTROL, FirmwareSetup::WithoutVmx), LOCKED);
        assert_eq!(shown(TME_ACTIVATE, FirmwareSetup::WithoutMemoryEncryption), LOCKED);
        assert_eq!(shown(KEY_ID_PARTITIONING, FirmwareSetup::WithoutMemoryEncryption), 0);
        assert_eq!(shown(KEY_ID_PARTITIONING, FirmwareSetup::WithoutKeyIds), 63, "none of them a TD's");
    }

    #[test]
    fn key_ids_are_partitioned_as_the_machine_has_them() {
        assert_eq!(Msrs::default().read(&config(), 0x87, 0, 0), Ok(32 << 32 | 31));
        assert_eq!(Msrs::default().read(&config(), 0x982, 0, 0).map(|value| value >> 32 & 0xf), Ok(6));
    }

    #[test]
    fn a_constant_refuses_writes_and_a_kept_register_refuses_reserved_bits() {
        let mut msrs = Msrs::default();
        for row in &TABLE {
            let before = msrs.read(&config(), row.first, 0, 0);
            let result = msrs.write(&config(), row.first, before.unwrap_or_default() ^ 1 << 40, 0, 0);
            match row.rule {
                Rule::Kept { bits, .. } | Rule::Command { bits } if bits >> 40 & 1 != 0 => {
                    assert_eq!(result, Ok(()), "{:#x}", row.first);
                }
                _ => {
                    assert_eq!(result, Err(GeneralProtection), "{:#x}", row.first);
                    assert_eq!(msrs.read(&config(), row.first, 0, 0), before, "{:#x}", row.first);
                }
            }
        }
        assert_eq!(msrs.read(&config(), 0x4e, 0, 0), Err(GeneralProtection), "PPIN is absent");
    }

    #[test]
    fn the_apic_mode_is_locked() {
        let mut msrs = Msrs::default();
        assert_eq!(msrs.read(&config(), APIC_BASE, 0, 0), Ok(0xfee0_0d00));
        assert_eq!(msrs.read(&config(), APIC_BASE, 0, 1), Ok(0xfee0_0c00));
        assert_eq!(msrs.write(&config(), APIC_BASE, 0xfee0_0d00, 0, 0), Ok(()));
        assert_eq!(msrs.write(&config(), APIC_BASE, 0xfee0_0900, 0, 0), Err(GeneralProtection));
    }

    #[test]
    fn writing_the_time_stamp_counter_shows_in_its_adjustment() {
        let mut msrs = Msrs::default();
        assert_eq!(msrs.write(&config(), TSC, 1_000, 400, 0), Ok(()));
        assert_eq!(msrs.read(&config(), TSC_ADJUST, 500, 0), Ok(600));
        assert_eq!(msrs.read(&config(), TSC, 500, 0), Ok(1_100));
    }
}
