//! The fields of a TD that arrives, and of the module that it comes from.

use tdx_module_iface::metadata::cpuid::{CpuidRegs, CpuidTable};
use tdx_module_iface::metadata::{Carried, Field, sys, td};
use tdx_module_iface::td_params::{attributes, config_flags};
use tdx_module_iface::tdmr::pages;
use tdx_module_iface::{Status, StatusCode};
use x86_arch::cpuid::feature;

use super::list::Target;
use crate::cpuid::{can_be_imported, offers};
use crate::fields::layout::{tdcs, tdr};
use crate::fields::{FieldStore, Width};
use crate::host::{Call, plain};
use crate::metadata::single::Single;
use crate::metadata::sys::SysFields;
use crate::metadata::td::{
    HP_LOCK_TIMEOUT_USEC, TD_CTLS_PENDING_VE_DISABLE, TdFields, scaled_tsc, usec_to_ticks,
};
use crate::metadata::{Element, Fields, NOT_WRITABLE, VALUE_NOT_VALID};
use crate::msr::{Owner, write_bitmaps};
use crate::rules::Check;
use crate::servtd;
use crate::sysinfo::CONFIG_FLAGS_FIXED0;
use crate::td::{Tdcs, Tdr};
use crate::td_params::check::{attributes_are_valid, eptp_is_valid, xfam_is_valid};
use crate::td_params::extended_state;
use crate::td_params::state::tsc_multiplier;

/// Most L2 VMs of a TD.
const MAX_L2_VMS: u64 = 3;
const WORDS_OF_UUID: u32 = 4;

/// What the exporting module says of itself. Nothing of it is taken; releases whose lists nobody recorded ask that it is
/// the same release.
pub(super) struct SysTarget<'a> {
    pub(super) fields: SysFields<'a>,
}

impl Target for SysTarget<'_> {
    fn fields(&self) -> &dyn Fields {
        &self.fields
    }

    fn take(&self, single: Single, _: &Carried, values: &[u64], _: u64) -> Result<(), Status> {
        let release = [sys::MINOR_VERSION, sys::MAJOR_VERSION, sys::UPDATE_VERSION];
        let asked = self.fields.config.profile.rules().bundle_origin == Check::Made;
        if asked && release.contains(single.field) && values != [self.fields.load(&single.element(0))?] {
            return Err(VALUE_NOT_VALID);
        }
        Err(NOT_WRITABLE)
    }
}

/// A TD that arrives.
pub(super) struct TdTarget<'a, 'm> {
    pub(super) call: &'a Call<'m>,
    pub(super) fields: TdFields<'a>,
    pub(super) tdr: &'a Tdr<'m>,
    pub(super) tdcs: &'a Tdcs<'m>,
}

fn require(holds: bool) -> Result<(), Status> {
    if holds { Ok(()) } else { Err(VALUE_NOT_VALID) }
}

/// Who writes a value that passed the checks of its field.
enum Then {
    /// The value is stored as it is.
    Store,
    /// The value was stored, in another form, or there is nothing to store.
    Done,
}

impl TdTarget<'_, '_> {
    /// The checks of single fields: of `first`, the bits of the first value that are taken, or of the values as they
    /// came, bits that lie outside of the field included.
    fn check(&self, single: Single, first: u64, values: &[u64]) -> Result<Then, Status> {
        let config = self.call.machine.config();
        let whole = values.first().copied().unwrap_or(0);
        match *single.field {
            td::TD_UUID => {
                for word in (0..8 * WORDS_OF_UUID).step_by(8) {
                    let before = self.tdr.load_u64(tdr::TD_UUID + word);
                    self.tdcs.store_u64(tdcs::PRE_IMPORT_UUID + word, before);
                }
            }
            td::ATTRIBUTES => {
                require(first & attributes::MIGRATABLE != 0 && attributes_are_valid(first, config))?;
            }
            td::XFAM => require(xfam_is_valid(first, config))?,
            td::CONFIG_FLAGS => require(first & !CONFIG_FLAGS_FIXED0 == 0)?,
            td::EPTP => {
                let wide = self.tdcs.load(tdcs::GPAW, Width::B1) != 0;
                require(eptp_is_valid(first, if wide { config_flags::GPAW } else { 0 }))?;
                self.tdcs.store_u64(tdcs::EPTP, self.tdcs.sept_root().get() | first);
                return Ok(Then::Done);
            }
            td::HP_LOCK_TIMEOUT => {
                require(HP_LOCK_TIMEOUT_USEC.contains(&first))?;
                self.tdcs.store_u64(tdcs::HP_LOCK_TIMEOUT, usec_to_ticks(first, config.tsc_hz));
                return Ok(Then::Done);
            }
            td::NUM_CPUID_VALUES => {
                require(whole == CpuidTable::of(self.fields.release).len() as u64)?;
                return Ok(Then::Done);
            }
            td::NUM_L2_VMS => {
                require(whole <= MAX_L2_VMS)?;
                self.tdcs.store(tdcs::NUM_L2_VMS, Width::B2, whole);
                if self.tdr.num_tdcx() < pages::TDCX_MIN + whole as usize {
                    return Err(plain(StatusCode::TDCS_NOT_ALLOCATED));
                }
                return Ok(Then::Done);
            }
            td::VIRTUAL_TSC => {
                self.set_tsc(whole);
                return Ok(Then::Done);
            }
            td::CPUID_VALUES => self.check_cpuid(single, values)?,
            td::SERVTD_BINDINGS_TABLE => {
                require(servtd::accepts(self.tdcs, values))?;
                return Ok(Then::Done);
            }
            td::VIRTUAL_IA32_ARCH_CAPABILITIES => require(self.has_capabilities(whole))?,
            _ => {}
        }
        Ok(Then::Store)
    }

    /// The guest's TSC goes on from a value.
    fn set_tsc(&self, value: u64) {
        let frequency = self.tdcs.load(tdcs::TSC_FREQUENCY, Width::B2);
        let multiplier = tsc_multiplier(frequency, self.fields.tsc_hz);
        self.tdcs.store_u64(tdcs::TSC_MULTIPLIER, multiplier);
        let elapsed = scaled_tsc(self.fields.tsc, multiplier);
        self.tdcs.store_u64(tdcs::TSC_OFFSET, value.wrapping_sub(elapsed));
    }

    fn check_cpuid(&self, single: Single, values: &[u64]) -> Result<(), Status> {
        let position = single.element(0).index / 2;
        let table = CpuidTable::of(self.fields.release);
        let leaf = table.at(position as usize).ok_or(VALUE_NOT_VALID)?;
        let &[low, high] = values else { return Err(VALUE_NOT_VALID) };
        let value: CpuidRegs = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
        require(can_be_imported(self.call.machine.config(), self.tdcs, leaf, value))?;
        self.tdcs.store(tdcs::CPUID_VALID + position, Width::B1, 1);
        Ok(())
    }

    /// IA32_ARCH_CAPABILITIES: what the release fixes, and nothing that this processor has to have and has not.
    fn has_capabilities(&self, value: u64) -> bool {
        /// RRSBA is worse than its absence.
        const RRSBA: u64 = 1 << 19;
        /// TSX_CTRL: a TD that has TSX can turn it off.
        const TSX_CTRL: u64 = 1 << 7;
        /// RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, DOITM, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO.
        const ONES: u64 = 0xf16b;
        /// RSBA, 9 to 11, 16 to 18, 21 to 23, 25 to 63.
        const ZEROS: u64 = 1 << 2 | 7 << 9 | 7 << 16 | 7 << 21 | u64::MAX << 25;
        /// SSB_NO, BHI_NO, PBRSB_NO.
        const GIVEN: u64 = 1 << 4 | 1 << 20 | 1 << 24;
        let config = self.call.machine.config();
        let rule = config.profile.rules().arch_capabilities;
        let native = config.native_msr(crate::processor::msr::ARCH_CAPABILITIES);
        // A TD that is built here has no more of them than this.
        let ones = ONES & native & !rule.configurable;
        let zeros = ZEROS & !rule.one & !rule.configurable;
        value & ones == ones
            && value & zeros == 0
            && value & GIVEN & !native == 0
            && (native & RRSBA == 0 || value & RRSBA != 0)
            && (value & TSX_CTRL != 0 || !offers(&config.profile.rules().cpuid, self.tdcs, feature::HLE))
    }

    /// What follows from the immutable state; false where it is that of no TD.
    pub(super) fn finish_immutable(&self) -> bool {
        let td = self.tdcs;
        let vcpus = td.load(tdcs::NUM_VCPUS, Width::B4);
        if td.num_l2_vms() != 0 || vcpus == 0 || vcpus > td.load(tdcs::MAX_VCPUS, Width::B4) {
            return false;
        }
        td.store(tdcs::NUM_ASSOC_VCPUS, Width::B4, 0);
        td.store_u64(tdcs::TD_EPOCH, 1);
        extended_state(td.load_u64(tdcs::XFAM), td);
        let flags = td.load_u64(tdcs::CONFIG_FLAGS) & !config_flags::GPAW;
        let gpaw = if td.has_wide_gpa() { config_flags::GPAW } else { 0 };
        td.store_u64(tdcs::CONFIG_FLAGS, flags | gpaw);
        let pending_ve_disable = td.attributes() & attributes::SEPT_VE_DISABLE != 0;
        let controls = td.load_u64(tdcs::TD_CTLS) & !TD_CTLS_PENDING_VE_DISABLE;
        td.store_u64(
            tdcs::TD_CTLS,
            controls | if pending_ve_disable { TD_CTLS_PENDING_VE_DISABLE } else { 0 },
        );
        write_bitmaps(&Owner { config: self.call.machine.config(), td });
        true
    }
}

impl Target for TdTarget<'_, '_> {
    fn fields(&self) -> &dyn Fields {
        &self.fields
    }

    fn take(&self, single: Single, carried: &Carried, values: &[u64], mask: u64) -> Result<(), Status> {
        let field: &Field = single.field;
        let importable = carried.imported & single.element(0).width().mask();
        let taken = importable & mask;
        if taken == 0 {
            return Err(NOT_WRITABLE);
        }
        let first = values.first().copied().unwrap_or(0) & taken;
        if let Then::Done = self.check(single, first, values)? {
            return Ok(());
        }
        for (number, value) in (0u32..u32::from(field.elems)).zip(values) {
            let element: Element = single.element(number);
            let Some((store, offset)) = self.fields.stored(&element) else { continue };
            let old = store.load(offset, element.width());
            require((old ^ value) & mask & !importable == 0)?;
            store.store(offset, element.width(), old & !taken | value & taken);
        }
        Ok(())
    }
}
