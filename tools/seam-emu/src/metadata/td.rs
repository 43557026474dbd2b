//! The fields of one TD: TDR and TDCS.

use tdx_module_iface::metadata::cpuid::CpuidTable;
use tdx_module_iface::metadata::{Field, FieldId, Place, TD, Transform, td};
use tdx_module_iface::td_params::config_flags;
use tdx_module_iface::{Release, Status, StatusCode};

use super::cpuid_values;
use super::{Element, Fields, ID_INCORRECT, NOT_READABLE, NOT_WRITABLE, VALUE_NOT_VALID, Write};
use crate::config::MachineConfig;
use crate::fields::layout::{tdcs, tdr};
use crate::fields::{FieldStore, Width};
use crate::machine::Machine;
use crate::td::{Tdcs, Tdr};

/// Bounds of HP_LOCK_TIMEOUT in microseconds: 10 ms and 100 s.
pub(crate) const HP_LOCK_TIMEOUT_USEC: core::ops::RangeInclusive<u64> = 10_000..=100_000_000;

/// TD_CTLS bit 0: a pending page exits instead of raising #VE.
pub const TD_CTLS_PENDING_VE_DISABLE: u64 = 1;

/// TD_CTLS bit 1: CPUID shows the topology and the x2APIC id.
pub const TD_CTLS_ENUM_TOPOLOGY: u64 = 1 << 1;

/// A TD's control structures as metadata.
#[derive(Clone, Copy)]
pub struct TdFields<'a> {
    /// The TDR page.
    pub tdr: &'a dyn FieldStore,
    /// The TDCS pages.
    pub tdcs: &'a dyn FieldStore,
    /// The release of the module.
    pub release: Release,
    /// Frequency of the processor's TSC.
    pub tsc_hz: u64,
    /// The processor's TSC.
    pub tsc: u64,
    /// The TD's key id where a physical address carries it: pages are shown with it.
    pub key_bits: u64,
}

impl<'a> TdFields<'a> {
    /// The fields of a TD of this machine.
    pub(crate) fn new(machine: &Machine, tdr: &'a Tdr<'_>, tdcs: &'a Tdcs<'_>) -> Self {
        let config = machine.config();
        Self {
            tdr,
            tdcs,
            release: config.profile.release(),
            tsc_hz: config.tsc_hz,
            tsc: machine.tsc(),
            key_bits: key_bits(config, tdr),
        }
    }
}

/// The TD's key id in the bits of a physical address that carry it.
pub(super) fn key_bits(config: &MachineConfig, tdr: &dyn FieldStore) -> u64 {
    let hkid = tdr.load(tdr::HKID, Width::B2);
    hkid.checked_shl(config.hkid_start_bit).unwrap_or(0) & config.hkid_mask()
}

impl TdFields<'_> {
    /// Where an element is stored; `None` if it is not.
    pub(crate) fn stored(&self, element: &Element) -> Option<(&dyn FieldStore, u32)> {
        let store = match element.field.place {
            Place::Tdr(_) => self.tdr,
            Place::Tdcs(_) => self.tdcs,
            Place::Tdvps(_) | Place::Vmcs | Place::Nowhere => return None,
        };
        Some((store, element.offset()?))
    }

    fn cpuid_value(&self, id: FieldId) -> Result<u64, Status> {
        let element = cpuid_values::element_of(&CpuidTable::of(self.release), id).ok_or(ID_INCORRECT)?;
        if self.tdcs.load(tdcs::CPUID_VALID + element / 2, Width::B1) == 0 {
            return Err(NOT_READABLE);
        }
        Ok(self.tdcs.load_u64(tdcs::CPUID_VALUES + element * 8))
    }

    /// A host-priority time-out in TSC ticks, 32 bits of them (recorded: 77.8 s read back as 490 ms).
    fn checked_ticks(&self, write: &Write) -> Result<u64, Status> {
        if write.mask != u64::MAX {
            return Err(Status::new(StatusCode::METADATA_WR_MASK_NOT_VALID));
        }
        if !HP_LOCK_TIMEOUT_USEC.contains(&write.new) {
            return Err(VALUE_NOT_VALID);
        }
        Ok(usec_to_ticks(write.new, self.tsc_hz))
    }

    /// The checks of fields that depend on other state; gives the value to store.
    fn checked_value(&self, write: &Write) -> Result<u64, Status> {
        match *write.element.field {
            td::TD_CTLS => {
                let flexible =
                    self.tdcs.load_u64(tdcs::CONFIG_FLAGS) & config_flags::FLEXIBLE_PENDING_VE != 0;
                if !flexible && (write.new ^ write.old) & TD_CTLS_PENDING_VE_DISABLE != 0 {
                    return Err(VALUE_NOT_VALID);
                }
                let enumerable = self.tdcs.load(tdcs::TOPOLOGY_ENUM_CONFIGURED, Width::B1) != 0;
                if !enumerable && write.new & TD_CTLS_ENUM_TOPOLOGY != 0 {
                    return Err(VALUE_NOT_VALID);
                }
                Ok(write.new)
            }
            // The only version of migration.
            td::MIG_VERSION if write.new != 0 => Err(VALUE_NOT_VALID),
            _ => Ok(write.new),
        }
    }

    fn computed_value(&self, field: &Field) -> u64 {
        match *field {
            td::NUM_CPUID_VALUES => CpuidTable::of(self.release).len() as u64,
            td::VIRTUAL_TSC => {
                let multiplier = self.tdcs.load_u64(tdcs::TSC_MULTIPLIER);
                scaled_tsc(self.tsc, multiplier).wrapping_add(self.tdcs.load_u64(tdcs::TSC_OFFSET))
            }
            _ => 0,
        }
    }
}

/// A TSC at the guest's frequency: the multiplier has 48 fraction bits.
pub(crate) fn scaled_tsc(tsc: u64, multiplier: u64) -> u64 {
    ((u128::from(tsc) * u128::from(multiplier)) >> 48) as u64
}

/// The processor's TSC at which a guest's TSC has a value; `None` where the processor's never gets there.
pub(crate) fn native_tsc(value: u64, multiplier: u64, offset: u64) -> Option<u64> {
    let scaled = u128::from(value.wrapping_sub(offset)) << 48;
    let ticks = scaled.checked_div(u128::from(multiplier))?;
    u64::try_from(ticks).ok()
}

/// Bit 63 of an EPT entry.
const SUPPRESS_VE: u64 = 1 << 63;

fn is_sept_root(field: &Field) -> bool {
    matches!(*field, td::SEPT_ROOT | td::L2_SEPT_ROOT_1 | td::L2_SEPT_ROOT_2 | td::L2_SEPT_ROOT_3)
}

/// The stored form of a host-priority time-out.
pub fn usec_to_ticks(usec: u64, tsc_hz: u64) -> u64 {
    let ticks = u128::from(usec) * u128::from(tsc_hz) / 1_000_000;
    u64::from(ticks as u32)
}

fn ticks_to_usec(ticks: u64, tsc_hz: u64) -> u64 {
    let usec = u128::from(ticks) * 1_000_000 / u128::from(tsc_hz.max(1));
    u64::try_from(usec).unwrap_or(u64::MAX)
}

impl Fields for TdFields<'_> {
    fn tables(&self) -> &'static [&'static [Field]] {
        &[TD]
    }

    fn release(&self) -> Release {
        self.release
    }

    fn num_l2_vms(&self) -> u16 {
        self.tdcs.load(tdcs::NUM_L2_VMS, Width::B2) as u16
    }

    fn load(&self, element: &Element) -> Result<u64, Status> {
        let stored = self.stored(element).map_or(0, |(store, offset)| store.load(offset, element.width()));
        match element.field.transform {
            // The suppress-#VE bit of a Secure-EPT entry is always set; the emulated walk does not keep it.
            Transform::Stored if is_sept_root(element.field) => Ok(stored | SUPPRESS_VE),
            Transform::Stored | Transform::Checked => Ok(stored),
            Transform::Computed => Ok(self.computed_value(element.field)),
            Transform::Microseconds => Ok(ticks_to_usec(stored, self.tsc_hz)),
            Transform::PageAddress => Ok(if stored == 0 { 0 } else { stored | self.key_bits }),
            Transform::CpuidValues => self.cpuid_value(element.id),
        }
    }

    fn store(&self, write: &Write) -> Result<(), Status> {
        let element = &write.element;
        let new = match element.field.transform {
            Transform::Stored => write.new,
            Transform::Checked => self.checked_value(write)?,
            Transform::Microseconds => self.checked_ticks(write)?,
            Transform::Computed | Transform::PageAddress | Transform::CpuidValues => {
                return Err(NOT_WRITABLE);
            }
        };
        if let Some((store, offset)) = self.stored(element) {
            store.store(offset, element.width(), new);
        }
        if *element.field == td::MIG_DEC_KEY && element.index == 0 {
            self.tdcs.store(tdcs::MIG_DEC_KEY_SET, Width::B1, 1);
        }
        Ok(())
    }
}
