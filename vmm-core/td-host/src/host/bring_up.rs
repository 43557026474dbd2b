//! Bringing the module up: from a loaded module to one that creates TDs.
//!
//! # Protocol
//! 1. TDH.SYS.INIT on one LP, TDH.SYS.LP.INIT on every LP.
//! 2. TDH.SYS.INFO: the module's limits, and which memory is convertible (CMRs). TDH.SYS.RD: whether the module
//!    has dynamic PAMT ([`super::pamt`]).
//! 3. Plan TDMRs and PAMTs ([`super::memory_map`]); TDH.SYS.CONFIG with the plan and the module's own key id.
//! 4. TDH.SYS.KEY.CONFIG on one LP of each package.
//! 5. TDH.SYS.TDMR.INIT until every TDMR is usable to its end.
//!
//! A failure leaves no TDs possible and the PAMT memory withdrawn: the module may already use it.

use alloc::vec;
use alloc::vec::Vec;

use tdvisor_base::{Hpa, Level, PAGE_SIZE, to_usize};
use tdx_module_iface::metadata::sys;
use tdx_module_iface::tdh::{self, MetadataStep, SysInfoBuffers, TdmrInitOutcome};
use tdx_module_iface::tdmr::{CmrInfo, MAX_CMRS, ReservedArea, TDMR_INFO_ALIGN, TdmrInfo};
use tdx_module_iface::tdsysinfo::{TdhSysInfo, tdx_features0};
use zerocopy::{FromZeros, IntoBytes};

use super::pamt::{Dynamic, Pamt};
use super::{Host, MemoryRange, SmallPagePamt, TdmrLimits, TdmrPlan, hkid::HkidPool, plan_tdmrs};
use crate::error::Error;
use crate::platform::{LpId, PackageId, Platform};
use crate::retry::{Bound, bounded};

/// How far bring-up is; the last of each kind is reported too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The module and all LPs are initialised.
    Initialised,
    /// TDMRs and keys are configured.
    Configured,
    /// This much of the memory is usable.
    Memory {
        /// Bytes of TDMRs that are initialised.
        done: u64,
        /// Bytes of all TDMRs.
        total: u64,
    },
}

impl<P: Platform> Host<P> {
    /// Brings the module up on this machine.
    ///
    /// ```
    /// use td_host::platform::Platform;
    /// use td_host::td::Td;
    /// use td_host::td::config::TdConfig;
    /// use td_host::{Error, Host};
    ///
    /// /// What the module says that the TD of an image measures to.
    /// fn measured(machine: impl Platform, image: &[u8]) -> Result<[u8; 48], Error> {
    ///     let host = Host::bring_up(machine, |_| ())?;
    ///     let td = Td::build(&host, &TdConfig::default(), image, |_| ())?;
    ///     td.mrtd()
    /// }
    /// ```
    ///
    /// A machine to run it on is `machine-emu`'s, whose first page does so.
    ///
    /// # Errors
    /// What the module refused, or what the machine lacks.
    pub fn bring_up(platform: P, mut progress: impl FnMut(Progress)) -> Result<Self, Error> {
        initialise_lps(&platform)?;
        progress(Progress::Initialised);

        let (info, cmrs) = read_system_info(&platform)?;
        let limits = TdmrLimits {
            max_tdmrs: info.max_tdmrs.into(),
            max_reserved: info.max_reserved_per_tdmr.into(),
            pamt_entry_bytes: info.pamt_entry_size.into(),
            small_pages: small_page_pamt(&platform)?,
        };
        let tdmrs = plan_tdmrs(&cmrs, limits, |bytes| {
            let frames = bytes / PAGE_SIZE;
            platform.allocate_contiguous(frames).map(|pfn| MemoryRange { base: pfn.base(), size: bytes })
        })?;

        let hkids = HkidPool::new(platform.private_key_ids());
        let module_key = hkids.allocate().ok_or(Error::NoKeyId)?;
        configure(&platform, &tdmrs, module_key.key(), limits.small_pages)?;
        progress(Progress::Configured);

        initialise_memory(&platform, &tdmrs, progress)?;
        let pamt = match limits.small_pages {
            SmallPagePamt::Entries => Pamt::Static,
            SmallPagePamt::Bitmap => Pamt::Dynamic(Dynamic::new()),
        };
        Ok(Self::assemble(platform, hkids, module_key, info, cmrs, tdmrs, pamt))
    }
}

/// What the PAMT of 4 KiB pages can be: dynamic where the module offers it.
fn small_page_pamt<P: Platform>(platform: &P) -> Result<SmallPagePamt, Error> {
    on_lp(platform, LpId(0), |lp| {
        // A module that does not know the field does not have the feature either.
        let read = bounded(Bound::MANAGEMENT, || tdh::tdh_sys_rd(lp, sys::TDX_FEATURES0.id));
        Ok(match read {
            Ok(MetadataStep::Value { value, .. }) if value & tdx_features0::DYNAMIC_PAMT != 0 => {
                SmallPagePamt::Bitmap
            }
            _ => SmallPagePamt::Entries,
        })
    })
}

/// Runs `work` on an LP.
pub(crate) fn on_lp<P: Platform, T>(
    platform: &P,
    lp: LpId,
    work: impl FnOnce(&mut P::Lp<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    work(&mut platform.take_lp(lp).ok_or(Error::NoLp(lp))?)
}

/// The lowest LP of each package.
pub(crate) fn one_lp_per_package<P: Platform>(platform: &P) -> Vec<LpId> {
    let mut packages: Vec<PackageId> = Vec::new();
    let mut lps = Vec::new();
    for lp in (0..platform.lp_count()).map(LpId) {
        let package = platform.package_of(lp);
        if !packages.contains(&package) {
            packages.push(package);
            lps.push(lp);
        }
    }
    lps
}

fn initialise_lps<P: Platform>(platform: &P) -> Result<(), Error> {
    on_lp(platform, LpId(0), |lp| Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_sys_init(lp))?))?;
    for lp in (0..platform.lp_count()).map(LpId) {
        on_lp(platform, lp, |lp| Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_sys_lp_init(lp))?))?;
    }
    Ok(())
}

/// The module's description of itself and of convertible memory.
fn read_system_info<P: Platform>(platform: &P) -> Result<(TdhSysInfo, Vec<MemoryRange>), Error> {
    let scratch = platform.allocate_page(Level::L4K).ok_or(Error::NoMemory)?;
    let result = read_system_info_into(platform, scratch.base());
    platform.free_page(scratch, Level::L4K);
    result
}

fn read_system_info_into<P: Platform>(
    platform: &P,
    scratch: Hpa,
) -> Result<(TdhSysInfo, Vec<MemoryRange>), Error> {
    let cmr_array = scratch.wrapping_add(2048);
    let buffers = SysInfoBuffers {
        info: scratch,
        info_bytes: size_of::<TdhSysInfo>() as u64,
        cmrs: cmr_array,
        cmr_entries: MAX_CMRS as u64,
    };
    let sizes =
        on_lp(platform, LpId(0), |lp| Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_sys_info(lp, buffers))?))?;
    let mut info = TdhSysInfo::new_zeroed();
    platform.read(scratch, info.as_mut_bytes())?;
    let mut table = [CmrInfo::new_zeroed(); MAX_CMRS];
    platform.read(cmr_array, table.as_mut_bytes())?;
    let count = usize::try_from(sizes.cmr_entries).unwrap_or(MAX_CMRS).min(MAX_CMRS);
    let cmrs = table
        .iter()
        .take(count)
        .filter(|cmr| cmr.size != 0)
        .map(|cmr| MemoryRange { base: Hpa::new(cmr.base), size: cmr.size })
        .collect();
    Ok((info, cmrs))
}

/// TDMR_INFO as the module reads it.
fn tdmr_info(plan: &TdmrPlan) -> TdmrInfo {
    let [gig, two_meg, four_k] = &plan.pamt;
    let mut info = TdmrInfo {
        base: plan.range.base.get(),
        size: plan.range.size,
        pamt_1g_base: gig.base.get(),
        pamt_1g_size: gig.size,
        pamt_2m_base: two_meg.base.get(),
        pamt_2m_size: two_meg.size,
        pamt_4k_base: four_k.base.get(),
        pamt_4k_size: four_k.size,
        ..TdmrInfo::new_zeroed()
    };
    for (slot, area) in info.reserved.iter_mut().zip(&plan.reserved) {
        *slot = ReservedArea { offset: area.base.get() - plan.range.base.get(), size: area.size };
    }
    info
}

/// TDH.SYS.CONFIG and the module's key on every package.
fn configure<P: Platform>(
    platform: &P,
    tdmrs: &[TdmrPlan],
    key: tdvisor_base::KeyId,
    small_pages: SmallPagePamt,
) -> Result<(), Error> {
    // The array of addresses comes first, then the entries, each aligned to 512 bytes.
    let entries_at = (tdmrs.len() as u64 * 8).next_multiple_of(TDMR_INFO_ALIGN);
    let bytes = entries_at + tdmrs.len() as u64 * TDMR_INFO_ALIGN;
    let frames = bytes.div_ceil(PAGE_SIZE);
    let area = platform.allocate_contiguous(frames).ok_or(Error::NoMemory)?;
    let mut image = vec![0u8; to_usize(bytes)];
    for (index, plan) in tdmrs.iter().enumerate() {
        let offset = to_usize(entries_at) + index * to_usize(TDMR_INFO_ALIGN);
        let address = area.base().wrapping_add(offset as u64).get();
        if let Some(slot) = image.get_mut(index * 8..index * 8 + 8) {
            slot.copy_from_slice(&address.to_le_bytes());
        }
        let info = tdmr_info(plan);
        if let Some(slot) = image.get_mut(offset..offset + size_of::<TdmrInfo>()) {
            slot.copy_from_slice(info.as_bytes());
        }
    }
    let result = platform.write(area.base(), &image).map_err(Error::from).and_then(|()| {
        on_lp(platform, LpId(0), |lp| {
            let (array, count) = (area.base(), tdmrs.len() as u64);
            Ok(bounded(Bound::MANAGEMENT, || match small_pages {
                SmallPagePamt::Entries => tdh::tdh_sys_config(lp, array, count, key),
                SmallPagePamt::Bitmap => tdh::tdh_sys_config_with_dynamic_pamt(lp, array, count, key),
            })?)
        })
    });
    for frame in 0..frames {
        platform.free_page(area.wrapping_add(frame), Level::L4K);
    }
    result?;
    for lp in one_lp_per_package(platform) {
        on_lp(platform, lp, |lp| {
            // The module writes PAMTs under its own key: nothing of ours may be left in the caches.
            crate::platform::Lp::wbinvd(lp);
            bounded(Bound::MANAGEMENT, || tdh::tdh_sys_key_config(lp))?;
            Ok(())
        })?;
    }
    Ok(())
}

/// TDH.SYS.TDMR.INIT for all of every TDMR.
fn initialise_memory<P: Platform>(
    platform: &P,
    tdmrs: &[TdmrPlan],
    mut progress: impl FnMut(Progress),
) -> Result<(), Error> {
    let total: u64 = tdmrs.iter().map(|plan| plan.range.size).sum();
    let mut before = 0;
    for plan in tdmrs {
        // One call per 4 MiB; the bound is what the size needs, and as many again.
        let bound = plan.range.size / Level::L2M.bytes() + 16;
        let mut usable = plan.range.base;
        for _ in 0..bound {
            let outcome = on_lp(platform, LpId(0), |lp| {
                Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_sys_tdmr_init(lp, plan.range.base))?)
            })?;
            match outcome {
                TdmrInitOutcome::UsableBelow(next) => {
                    if next != usable {
                        usable = next;
                        let done = before + (next.get().saturating_sub(plan.range.base.get()));
                        progress(Progress::Memory { done, total });
                    }
                    if next.get() >= plan.range.end() {
                        break;
                    }
                }
                TdmrInitOutcome::AlreadyInitialized => {
                    usable = Hpa::new(plan.range.end());
                    break;
                }
            }
        }
        if usable.get() < plan.range.end() {
            return Err(Error::Contradiction {
                leaf: tdx_module_iface::TdhLeaf::SYS_TDMR_INIT,
                what: "the TDMR did not become usable in as many calls as its size needs",
                at: tdvisor_base::Gpa::new(0),
            });
        }
        before += plan.range.size;
    }
    Ok(())
}
