//! The fields of one TD: TDR and TDCS.

use tdx_module_iface::metadata::{Field, FieldId, TD};
use tdx_module_iface::td_params::config_flags;
use tdx_module_iface::{Status, StatusCode};

use super::cpuid_values::{self, LOOKUP_LEN};
use super::{Element, Fields, ID_INCORRECT, NOT_READABLE, VALUE_NOT_VALID, Write};
use crate::config::MachineConfig;
use crate::fields::layout::{tdcs, tdr};
use crate::fields::{FieldStore, Width};
use crate::machine::Machine;
use crate::td::{Tdcs, Tdr};

/// Bounds of HP_LOCK_TIMEOUT in microseconds: 10 ms and 100 s.
const HP_LOCK_TIMEOUT_USEC: core::ops::RangeInclusive<u64> = 10_000..=100_000_000;

/// Classes below this lie in the TDR, the others in the TDCS.
const FIRST_TDCS_CLASS: u8 = 16;

/// TD_CTLS bit 0: a pending page exits instead of raising #VE.
pub const TD_CTLS_PENDING_VE_DISABLE: u64 = 1;

/// A TD's control structures as metadata.
#[derive(Clone, Copy)]
pub struct TdFields<'a> {
    /// The TDR page.
    pub tdr: &'a dyn FieldStore,
    /// The TDCS pages.
    pub tdcs: &'a dyn FieldStore,
    /// Frequency of the processor's TSC.
    pub tsc_hz: u64,
    /// The TD's key id where a physical address carries it: pages are shown with it.
    pub key_bits: u64,
}

impl<'a> TdFields<'a> {
    /// The fields of a TD of this machine.
    pub(crate) fn new(machine: &Machine, tdr: &'a Tdr<'_>, tdcs: &'a Tdcs<'_>) -> Self {
        let config = machine.config();
        Self { tdr, tdcs, tsc_hz: config.tsc_hz, key_bits: key_bits(config, tdr) }
    }
}

/// The TD's key id in the bits of a physical address that carry it.
pub(super) fn key_bits(config: &MachineConfig, tdr: &dyn FieldStore) -> u64 {
    let hkid = tdr.load(tdr::HKID, Width::B2);
    hkid.checked_shl(config.hkid_start_bit).unwrap_or(0) & config.hkid_mask()
}

impl TdFields<'_> {
    fn num_l2_vms(&self) -> u64 {
        self.tdcs.load(tdcs::NUM_L2_VMS, Width::B2)
    }

    fn store_of(&self, field: &Field) -> &dyn FieldStore {
        if field.id.class() < FIRST_TDCS_CLASS { self.tdr } else { self.tdcs }
    }

    fn cpuid_value(&self, id: FieldId) -> Result<u64, Status> {
        let element = cpuid_values::element_of(id).ok_or(ID_INCORRECT)?;
        if self.tdcs.load(tdcs::CPUID_VALID + element / 2, Width::B1) == 0 {
            return Err(NOT_READABLE);
        }
        Ok(self.tdcs.load_u64(tdcs::CPUID_VALUES + element * 8))
    }

    /// HP_LOCK_TIMEOUT is stored in TSC ticks, 32 bits of them (recorded: 77.8 s read back as 490 ms).
    fn set_hp_lock_timeout(&self, write: &Write) -> Result<u64, Status> {
        if write.mask != u64::MAX {
            return Err(Status::new(StatusCode::METADATA_WR_MASK_NOT_VALID));
        }
        if !HP_LOCK_TIMEOUT_USEC.contains(&write.new) {
            return Err(VALUE_NOT_VALID);
        }
        Ok(usec_to_ticks(write.new, self.tsc_hz))
    }
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

    fn exists(&self, field: &Field) -> bool {
        // L2_SEPT_ROOT_1 to 3.
        let vm = match field.id.class() {
            37 => 1,
            41 => 2,
            45 => 3,
            _ => return true,
        };
        vm <= self.num_l2_vms()
    }

    fn load(&self, element: &Element) -> Result<u64, Status> {
        if element.field.is_sparse() {
            return self.cpuid_value(element.id);
        }
        if element.is("NUM_CPUID_VALUES") {
            return Ok(LOOKUP_LEN as u64);
        }
        let Some(offset) = element.offset() else { return Ok(0) };
        let value = self.store_of(element.field).load(offset, element.width());
        Ok(match element.field.name {
            "HP_LOCK_TIMEOUT" => ticks_to_usec(value, self.tsc_hz),
            "TDCX_PA" if value != 0 => value | self.key_bits,
            _ => value,
        })
    }

    fn store(&self, write: &Write) -> Result<(), Status> {
        let element = &write.element;
        let new = match element.field.name {
            "HP_LOCK_TIMEOUT" => self.set_hp_lock_timeout(write)?,
            "TD_CTLS" => {
                let flexible =
                    self.tdcs.load_u64(tdcs::CONFIG_FLAGS) & config_flags::FLEXIBLE_PENDING_VE != 0;
                if !flexible && (write.new ^ write.old) & TD_CTLS_PENDING_VE_DISABLE != 0 {
                    return Err(VALUE_NOT_VALID);
                }
                write.new
            }
            _ => write.new,
        };
        if let Some(offset) = element.offset() {
            self.store_of(element.field).store(offset, element.width(), new);
        }
        Ok(())
    }
}
