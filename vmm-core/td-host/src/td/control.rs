//! A TD's control pages: from an allocated key id to a TD that can be given memory.
//!
//! # Protocol
//! 1. TDH.MNG.CREATE with a TDR page and a key id; from here on the key id belongs to the TD.
//! 2. TDH.MNG.KEY.CONFIG on one LP of each package.
//! 3. TDH.MNG.ADDCX for each TDCS page; each L2 VM adds one, the root of its Secure EPT.
//! 4. TDH.MNG.INIT with TD_PARAMS; a TD that arrives from another machine stops before it.
//!    Its L2 VMs ask the host for tables (VM_CTLS).
//! 5. TDH.SERVTD.BIND or PREBIND, for a TD that may move.
//!
//! A failure on the way tears down what exists: see [`super::teardown`].

use alloc::vec::Vec;

use tdvisor_base::{Level, Pfn};
use tdvisor_vm::topology::{self, Topology};
use tdx_module_iface::handles::Tdr;
use tdx_module_iface::metadata::cpuid::CpuidTable;
use tdx_module_iface::metadata::td::VM_CTLS;
use tdx_module_iface::td_params::{CpuidValues, TdParams, eptp};
use tdx_module_iface::tdh::{self, FieldWrite};
use tdx_module_iface::tdsysinfo::TdhSysInfo;
use zerocopy::IntoBytes;

use super::config::TdConfig;
use super::teardown;
use crate::error::Error;
use crate::host::hkid::Hkid;
use crate::host::{Host, on_lp, one_lp_per_package};
use crate::migration::binding;
use crate::platform::{LpId, Platform};
use crate::retry::{Bound, bounded};

/// TSC frequency units of TD_PARAMS.
pub(crate) const TSC_UNIT_HZ: u64 = 25_000_000;

/// VM_CTLS: an attribute write that needs tables of an L2 VM leaves the TD, so that its host adds them.
const EXIT_FOR_L2_TABLES: u64 = 1;

/// The pages and the key that make a TD.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) tdr: Tdr,
    pub(crate) tdr_page: Pfn,
    pub(crate) tdcx: Vec<Pfn>,
    pub(crate) hkid: Hkid,
}

impl Control {
    /// Creates a TD and initialises it.
    pub(crate) fn create<P: Platform>(host: &Host<P>, config: &TdConfig) -> Result<Self, Error> {
        let control = Self::shell(host, config.l2_vms)?;
        match control.initialise(host, config) {
            Ok(()) => Ok(control),
            Err(error) => {
                teardown::control_only(host, control);
                Err(error)
            }
        }
    }

    /// Creates a TD that has its control pages, with those of its L2 VMs, and nothing else.
    pub(crate) fn shell<P: Platform>(host: &Host<P>, l2_vms: u8) -> Result<Self, Error> {
        let hkid = host.hkids.allocate().ok_or(Error::NoKeyId)?;
        let tdr_page = match host.module_page() {
            Ok(page) => page,
            Err(error) => {
                host.hkids.give_back(hkid);
                return Err(error);
            }
        };
        let created = on_lp(&host.platform, LpId(0), |lp| {
            Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_mng_create(lp, tdr_page.base(), hkid.key()))?)
        });
        let tdr = match created {
            Ok(tdr) => tdr,
            Err(error) => {
                host.return_module_page(tdr_page);
                host.hkids.give_back(hkid);
                return Err(error);
            }
        };
        let mut control = Self { tdr, tdr_page, tdcx: Vec::new(), hkid };
        match control.add_pages(host, l2_vms) {
            Ok(()) => Ok(control),
            Err(error) => {
                teardown::control_only(host, control);
                Err(error)
            }
        }
    }

    fn add_pages<P: Platform>(&mut self, host: &Host<P>, l2_vms: u8) -> Result<(), Error> {
        for lp in one_lp_per_package(&host.platform) {
            on_lp(&host.platform, lp, |lp| {
                bounded(Bound::MANAGEMENT, || tdh::tdh_mng_key_config(lp, self.tdr))?;
                Ok(())
            })?;
        }
        let pages = usize::from(host.module_info().tdcs_base_size) / 4096 + usize::from(l2_vms);
        for _ in 0..pages {
            let page = host.module_page()?;
            let added = on_lp(&host.platform, LpId(0), |lp| {
                Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_mng_addcx(lp, self.tdr, page.base()))?)
            });
            if let Err(error) = added {
                host.return_module_page(page);
                return Err(error);
            }
            self.tdcx.push(page);
        }
        Ok(())
    }

    fn initialise<P: Platform>(&self, host: &Host<P>, config: &TdConfig) -> Result<(), Error> {
        let params_page = host.give_page()?;
        let params = td_params(host, config);
        let result =
            host.platform.write(params_page.base(), params.as_bytes()).map_err(Error::from).and_then(|()| {
                on_lp(&host.platform, LpId(0), |lp| {
                    Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_mng_init(lp, self.tdr, params_page.base()))?)
                })
            });
        host.platform.free_page(params_page, Level::L4K);
        result?;
        for vm in 1..=config.l2_vms {
            // Without it the guest would have no way to tell that an L2 VM has no table for a page.
            let field = VM_CTLS.element_id(vm.into()).ok_or(Error::Caller("no such L2 VM"))?;
            on_lp(&host.platform, LpId(0), |lp| {
                let write = FieldWrite { value: EXIT_FOR_L2_TABLES, mask: EXIT_FOR_L2_TABLES };
                bounded(Bound::MANAGEMENT, || tdh::tdh_mng_wr(lp, self.tdr, field, write))?;
                Ok(())
            })?;
        }
        config.migration_td.map_or(Ok(()), |service| binding::say(host, self.tdr, service))
    }
}

/// The TD's TSC frequency in units of TD_PARAMS: the processor's, as far as the module allows it (100 MHz to 10 GHz).
pub(crate) fn tsc_units<P: Platform>(platform: &P) -> u64 {
    (platform.frequency_hz() / TSC_UNIT_HZ).clamp(4, 400)
}

/// Whether the module shows guests a topology of the host's choice.
pub(crate) fn shows_topology(module: &TdhSysInfo) -> bool {
    module.cpuid_config.iter().any(|offered| offered.leaf == topology::LEAF)
}

/// TD_PARAMS for a configuration: all processor state that the module supports, 48-bit guest addresses, and
/// every configurable CPUID bit that the host's processor has.
fn td_params<P: Platform>(host: &Host<P>, config: &TdConfig) -> TdParams {
    let info = host.module_info();
    let mut params = TdParams {
        attributes: config.attributes,
        xfam: info.xfam_fixed1 | (info.xfam_fixed0 & super::XFAM_WANTED),
        max_vcpus: u16::try_from(config.vcpus).unwrap_or(u16::MAX),
        num_l2_vms: config.l2_vms,
        eptp_controls: eptp::LEVELS_4,
        tsc_frequency: u16::try_from(tsc_units(&host.platform)).unwrap_or(u16::MAX),
        mrconfigid: config.ids.config_id,
        mrowner: config.ids.owner,
        mrownerconfig: config.ids.owner_config,
        ..TdParams::ZERO
    };
    let topology = Topology { vcpus: config.vcpus };
    for (slot, offered) in params.cpuid_config.iter_mut().zip(&info.cpuid_config) {
        // A set bit keeps the processor's own value; of bits that are taken as given only the topology is set.
        let known = CpuidTable::V1_5_05.position(offered.leaf, offered.subleaf);
        let Some(leaf) = known.and_then(|position| CpuidTable::V1_5_05.at(position)) else { continue };
        if offered.leaf == topology::LEAF {
            let [eax, ebx, ecx, edx] = topology.configured(offered.subleaf);
            *slot = CpuidValues { eax, ebx, ecx, edx };
            continue;
        }
        let [eax, ebx, ecx, edx] = leaf.allowed;
        let of_topology = topology.elsewhere(offered.leaf, offered.subleaf);
        *slot = CpuidValues {
            eax: (eax | of_topology[0]) & offered.eax,
            ebx: (ebx | of_topology[1]) & offered.ebx,
            ecx: (ecx | of_topology[2]) & offered.ecx,
            edx: edx & offered.edx,
        };
    }
    params
}
