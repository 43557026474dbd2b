//! The fields of the module itself: all read-only, all computed.

use tdx_module_iface::metadata::{Field, SYS, sys};
use tdx_module_iface::tdsysinfo::VENDOR_INTEL;
use tdx_module_iface::{Release, Status};

use super::{Element, Fields, NOT_WRITABLE, Write};
use crate::config::MachineConfig;
use crate::features::Word;
use crate::migration::stream::MAX_STREAMS;
use crate::servtd;
use crate::sysinfo::{
    CONFIG_FLAGS_FIXED0, MAX_CMRS, MAX_RESERVED_PER_TDMR, MAX_TDMRS, ModuleVersion, PAMT_ENTRY_SIZE,
    TDCS_BASE_SIZE, TDCS_SIZE_PER_L2_VM, TDVPS_BASE_SIZE, TDVPS_SIZE_PER_L2_VM, cpuid_config_entry,
};

pub(crate) use super::sys_leaves::{info, read, read_all};

/// Bits per 4 KiB page in the bitmap that stands for the 4 KiB part of a dynamic PAMT.
pub const PAMT_PAGE_BITMAP_ENTRY_BITS: u64 = 1;

/// Pages of a TD's mutable state in a migration bundle.
const NUM_TD_STATE_PAGES: u64 = 2;
/// Pages of a VCPU's state in a migration bundle.
const NUM_VP_STATE_PAGES: u64 = 5;
/// Attributes of an L2 page: read, write, execute and their like, and "valid".
const GUEST_L2_GPA_ATTR_MASK: u64 = 0x807f;

/// L2_CTLS that the module says may be one: a shared EPT, and #VE of the L2 VM for L1. (L1 may write one more in 1.5.01.)
const L2_CTLS: u64 = 3;
/// L2_DEBUG_CTLS that may be one.
const L2_DEBUG_CTLS: u64 = 7;

/// The module as metadata.
#[derive(Clone, Copy)]
pub struct SysFields<'a> {
    /// The machine that the module runs on.
    pub config: &'a MachineConfig,
}

impl SysFields<'_> {
    fn pkg_fms(&self, index: u32) -> u64 {
        if index < self.config.num_packages() { u64::from(self.config.cpuid_fms) } else { 0 }
    }

    fn value(&self, element: &Element) -> u64 {
        let version = ModuleVersion::of(self.config.profile);
        let index = element.index as usize;
        match *element.field {
            sys::NUM_PKGS => u64::from(self.config.num_packages()),
            sys::PKG_FMS => self.pkg_fms(element.index),
            sys::VENDOR_ID => u64::from(VENDOR_INTEL),
            sys::BUILD_DATE => u64::from(version.build_date),
            sys::BUILD_NUM => u64::from(version.build_num),
            sys::MINOR_VERSION => u64::from(version.minor),
            sys::MAJOR_VERSION => u64::from(version.major),
            sys::UPDATE_VERSION => u64::from(version.update),
            sys::NUM_TDX_FEATURES => 1,
            sys::TDX_FEATURES0 => self.config.features.bits(Word::Features0, self.release()),
            sys::NUM_CMRS => MAX_CMRS as u64,
            sys::CMR_BASE => self.config.cmrs.get(index).map_or(0, |cmr| cmr.base),
            sys::CMR_SIZE => self.config.cmrs.get(index).map_or(0, |cmr| cmr.size),
            sys::MAX_TDMRS => u64::from(MAX_TDMRS),
            sys::MAX_RESERVED_PER_TDMR => u64::from(MAX_RESERVED_PER_TDMR),
            sys::PAMT_4K_ENTRY_SIZE | sys::PAMT_2M_ENTRY_SIZE | sys::PAMT_1G_ENTRY_SIZE => {
                u64::from(PAMT_ENTRY_SIZE)
            }
            sys::PAMT_PAGE_BITMAP_ENTRY_BITS => PAMT_PAGE_BITMAP_ENTRY_BITS,
            sys::TDR_BASE_SIZE => 0x1000,
            sys::TDCS_BASE_SIZE => u64::from(TDCS_BASE_SIZE),
            sys::TDCS_SIZE_PER_L2_VM => u64::from(TDCS_SIZE_PER_L2_VM),
            sys::TDVPS_BASE_SIZE => u64::from(TDVPS_BASE_SIZE),
            sys::TDVPS_SIZE_PER_L2_VM => u64::from(TDVPS_SIZE_PER_L2_VM),
            sys::ATTRIBUTES_FIXED0 => self.config.attributes.fixed0,
            sys::ATTRIBUTES_FIXED1 => self.config.attributes.fixed1,
            sys::XFAM_FIXED0 => self.config.xfam.fixed0,
            sys::XFAM_FIXED1 => self.config.xfam.fixed1,
            sys::NUM_CPUID_CONFIG => self.config.profile.rules().cpuid.num_configurable() as u64,
            sys::CONFIG_FLAGS_FIXED0 => CONFIG_FLAGS_FIXED0,
            sys::CPUID_CONFIG_LEAVES => {
                cpuid_config_entry(self.config, index).map_or(u64::MAX, |(leaf, _)| leaf.key())
            }
            sys::CPUID_CONFIG_VALUES => cpuid_config_entry(self.config, index / 2).map_or(0, |(_, bits)| {
                let [eax, ebx, ecx, edx] = bits.map(u64::from);
                if index.is_multiple_of(2) { eax | ebx << 32 } else { ecx | edx << 32 }
            }),
            sys::IA32_ARCH_CAPABILITIES_CONFIG_MASK => {
                self.config.profile.rules().arch_capabilities.configurable
            }
            sys::NUM_ALLOWED_FMS => 1,
            sys::ALLOWED_FMS if element.index == 0 => u64::from(self.config.cpuid_fms),
            sys::MAX_VCPUS_PER_TD => u64::from(self.config.profile.rules().max_vcpus),
            sys::NUM_HANDOFF_PAGES => u64::from(self.config.num_handoff_pages),
            sys::MAX_MIGS => MAX_STREAMS,
            sys::NUM_IMMUTABLE_STATE_PAGES => self.config.profile.rules().immutable_state_pages,
            sys::NUM_TD_STATE_PAGES => NUM_TD_STATE_PAGES,
            sys::NUM_VP_STATE_PAGES => NUM_VP_STATE_PAGES,
            sys::MAX_SERV_TDS => 1,
            sys::SERVTD_ATTR_FIXED0 => servtd::bind::ATTRIBUTES,
            sys::GUEST_L2_GPA_ATTR_MASK => GUEST_L2_GPA_ATTR_MASK,
            sys::VM_CTLS_FIXED0 => 1,
            sys::VPCU_L2_CTLS_FIXED0 => L2_CTLS,
            sys::VPCU_L2_DEBUG_CTLS_FIXED0 => L2_DEBUG_CTLS,
            // There are no extensions: none needs pages, none has to be initialised.
            sys::MEMORY_POOL_REQUIRED_PAGES | sys::EXT_REQUIRED => 0,
            // Handoff data, which never exists, and versions of migration, which begin at 0.
            _ => 0,
        }
    }
}

impl Fields for SysFields<'_> {
    fn tables(&self) -> &'static [&'static [Field]] {
        &[SYS]
    }

    fn release(&self) -> Release {
        self.config.profile.release()
    }

    fn num_l2_vms(&self) -> u16 {
        0
    }

    fn load(&self, element: &Element) -> Result<u64, Status> {
        Ok(self.value(element))
    }

    fn store(&self, _: &Write) -> Result<(), Status> {
        Err(NOT_WRITABLE)
    }
}
