//! Creating a vCPU: its control pages, its registers, and what it shares with the host.
//!
//! # Protocol
//! TDH.VP.CREATE with the root page, TDH.VP.ADDCX for the other pages, TDH.VP.INIT (which associates the vCPU
//! with the LP it is issued on), then the fields that a host sets: the shared EPT pointer and the posted-
//! interrupt descriptor. All of it before TDH.MR.FINALIZE. A vCPU that arrives from another machine has
//! TDH.IMPORT.STATE.VP in the place of TDH.VP.INIT.

use alloc::vec::Vec;

use tdvisor_base::{Gpa, Level, Pfn};
use tdx_module_iface::handles::Tdvpr;
use tdx_module_iface::metadata::{Field, vmcs};
use tdx_module_iface::tdh::{self, FieldWrite};

use super::posted::PostedInterrupts;
use crate::error::Error;
use crate::host::{Host, on_lp};
use crate::platform::{LpId, Platform};
use crate::retry::{Bound, bounded};
use crate::td::control::shows_topology;
use crate::td::core::TdCore;
use crate::td::teardown::{self, TeardownReport};

/// Pin-based control "process posted interrupts".
const PROCESS_POSTED_INTERRUPTS: u64 = 1 << 7;

/// Control pages of a vCPU for each L2 VM of its TD: VMCS, MSR bitmaps, and what L1 wrote of those.
const PAGES_PER_L2_VM: usize = 3;

/// A vCPU's control pages and its place.
#[derive(Debug)]
pub(crate) struct VcpuControl {
    pub(crate) tdvpr: Tdvpr,
    pub(crate) root: Pfn,
    pub(crate) pages: Vec<Pfn>,
    pub(crate) lp: LpId,
    pub(crate) posted: PostedInterrupts,
}

impl VcpuControl {
    /// Creates a vCPU on an LP. Its x2APIC id is its index; `entry_value` is what it finds in RCX and R8.
    pub(crate) fn create<P: Platform>(
        core: &TdCore<'_, P>,
        lp: LpId,
        index: u32,
        entry_value: Gpa,
        shared_root: Pfn,
    ) -> Result<Self, Error> {
        let host = core.host;
        Self::create_with(core, lp, shared_root, |lp, tdvpr| {
            let entry_value = entry_value.get();
            Ok(bounded(Bound::MANAGEMENT, || {
                if shows_topology(host.module_info()) {
                    tdh::tdh_vp_init_x2apic(lp, tdvpr, entry_value, index)
                } else {
                    tdh::tdh_vp_init(lp, tdvpr, entry_value)
                }
            })?)
        })
    }

    /// Creates a vCPU on an LP; `fill` gives it its registers.
    pub(crate) fn create_with<'h, P: Platform>(
        core: &TdCore<'h, P>,
        lp: LpId,
        shared_root: Pfn,
        fill: impl FnOnce(&mut P::Lp<'h>, Tdvpr) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let host = core.host;
        let root = host.module_page()?;
        let created = on_lp(&host.platform, lp, |lp| {
            Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_vp_create(lp, core.tdr, root.base()))?)
        });
        let tdvpr = match created {
            Ok(tdvpr) => tdvpr,
            Err(error) => {
                host.return_module_page(root);
                return Err(error);
            }
        };
        let posted = match PostedInterrupts::new(host) {
            Ok(posted) => posted,
            Err(error) => {
                // The page belongs to the TD now and is reclaimed with it.
                core.note_control_page(root);
                return Err(error);
            }
        };
        let mut vcpu = Self { tdvpr, root, pages: Vec::new(), lp, posted };
        match vcpu.initialise(core, shared_root, fill) {
            Ok(()) => Ok(vcpu),
            Err(error) => {
                core.note_control_page(vcpu.root);
                for page in &vcpu.pages {
                    core.note_control_page(*page);
                }
                core.note_half_made_vcpu(vcpu.lp, vcpu.tdvpr);
                vcpu.posted.free(host);
                Err(error)
            }
        }
    }

    fn initialise<'h, P: Platform>(
        &mut self,
        core: &TdCore<'h, P>,
        shared_root: Pfn,
        fill: impl FnOnce(&mut P::Lp<'h>, Tdvpr) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let host = core.host;
        let base = (usize::from(host.module_info().tdvps_base_size) / 4096).saturating_sub(1);
        let pages = base + PAGES_PER_L2_VM * usize::from(core.l2_vms);
        for _ in 0..pages {
            let page = host.module_page()?;
            let added = on_lp(&host.platform, self.lp, |lp| {
                Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_vp_addcx(lp, self.tdvpr, page.base()))?)
            });
            if let Err(error) = added {
                host.return_module_page(page);
                return Err(error);
            }
            self.pages.push(page);
        }
        let mut lp = host.platform.take_lp(self.lp).ok_or(Error::NoLp(self.lp))?;
        fill(&mut lp, self.tdvpr)?;
        let mut set = |field: Field, write: FieldWrite| {
            bounded(Bound::MANAGEMENT, || tdh::tdh_vp_wr(&mut lp, self.tdvpr, field.id, write)).map(drop)
        };
        set(vmcs::SHARED_EPTP, FieldWrite::all(shared_root.base().get()))?;
        set(
            vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR,
            FieldWrite::all(super::posted::NOTIFICATION_VECTOR.into()),
        )?;
        set(vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, FieldWrite::all(self.posted.descriptor().get()))?;
        set(
            vmcs::PIN_BASED_CONTROLS,
            FieldWrite { value: PROCESS_POSTED_INTERRUPTS, mask: PROCESS_POSTED_INTERRUPTS },
        )?;
        Ok(())
    }

    /// Reclaims the pages. The TD's key is free.
    pub(crate) fn reclaim<P: Platform>(self, host: &Host<P>, report: &mut TeardownReport) {
        for page in self.pages {
            teardown::reclaim(host, page, Level::L4K, report);
        }
        teardown::reclaim(host, self.root, Level::L4K, report);
        self.posted.free(host);
    }

    /// Quarantines the pages: the TD's key could not be released.
    pub(crate) fn abandon<P: Platform>(self, host: &Host<P>, report: &mut TeardownReport) {
        for page in self.pages.into_iter().chain([self.root]) {
            host.quarantine(page, Level::L4K);
            report.quarantined_frames += 1;
        }
        // The descriptor is host memory, but the module may still write to it.
        self.posted.abandon(host, report);
    }
}
