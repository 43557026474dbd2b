//! One TD: how it is built, how it runs, and how it ends.
//!
//! # Life
//! [`Td::build`] creates the control structures, loads and measures the image, creates the vCPUs and
//! finalises the measurement. A TD runs as a [`tdvisor_vm::Partition`]: each vCPU on a thread that takes it; the first
//! [`Ending`] counts for all. [`Td::teardown`] gives everything back. A TD that is dropped without
//! its teardown keeps its pages and its key id: nothing that the module may still own is ever reused.

mod arriving;
pub(crate) mod build;
pub mod config;
pub(crate) mod control;
pub(crate) mod core;
mod ending;
mod partition;
pub(crate) mod saved;
pub(crate) mod teardown;

use alloc::sync::Arc;
use alloc::vec::Vec;

use mirror_ept::dismantle::Dismantled;
use mirror_ept::{AuditReport, Config, ExternalPage};
use td_image::tdvf::TdvfImage;
use tdvisor_base::{Gpa, Level, SharedBit};
use tdx_module_iface::handles::Tdr;
use tdx_module_iface::metadata::{self, FieldId};
use tdx_module_iface::tdh::tdh_mng_rd;
use x86_arch::xcr0;

use self::core::TdCore;
use crate::error::Error;
use crate::host::{Host, on_lp};
use crate::interrupts::tsc::TscScale;
use crate::memory::GuestMemory;
use crate::platform::{LpId, Platform};
use crate::retry::{Bound, bounded};
use crate::vcpu::presence::Presence;
use crate::vcpu::{Vcpu, create::VcpuControl};
use config::TdConfig;
use control::Control;

pub use build::BuildProgress;
pub use ending::{Death, DeathCause, Ending};
pub use saved::NotSaved;
pub use teardown::TeardownReport;

/// Extended processor state that a TD gets where the module supports it: x87, SSE, AVX and the protection keys' PKRU.
pub(crate) const XFAM_WANTED: u64 = xcr0::X87 | xcr0::SSE | xcr0::AVX | xcr0::PKRU;

/// Guest-physical address width: the SHARED bit is its topmost bit.
const GPA_WIDTH: u32 = 48;

/// The SHARED bit of every TD's guest-physical addresses, for devices that are made before their TD.
pub const SHARED_BIT: SharedBit = SharedBit::topmost(GPA_WIDTH);

/// Threads that may change a TD's memory beside its vCPUs.
const OTHER_SEATS: usize = 4;

/// A TD.
pub struct Td<'h, P: Platform> {
    core: Arc<TdCore<'h, P>>,
    memory: GuestMemory<'h, P>,
    control: Control,
    vcpus: Vec<Vcpu>,
    tsc: TscScale,
}

impl<P: Platform> ::core::fmt::Debug for Td<'_, P> {
    fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
        f.debug_struct("Td").field("tdr", &self.core.tdr).finish_non_exhaustive()
    }
}

impl<'h, P: Platform> Td<'h, P> {
    /// Builds a TD from a TDVF image, ready to run.
    ///
    /// ```
    /// use td_host::platform::Platform;
    /// use td_host::td::Td;
    /// use td_host::td::config::TdConfig;
    /// use td_host::{Error, Host};
    ///
    /// fn two_vcpus<'h, P: Platform>(host: &'h Host<P>, image: &[u8]) -> Result<Td<'h, P>, Error> {
    ///     let config = TdConfig { vcpus: 2, memory: 256 << 20, ..TdConfig::default() };
    ///     Td::build(host, &config, image, |_progress| ())
    /// }
    /// ```
    ///
    /// # Errors
    /// Bad images and configurations, exhausted machines, refusals of the module. Nothing is left of the TD.
    pub fn build(
        host: &'h Host<P>,
        config: &TdConfig,
        image: &[u8],
        progress: impl FnMut(BuildProgress),
    ) -> Result<Self, Error> {
        config.check(host.platform.free_frames() * tdvisor_base::PAGE_SIZE, vcpu_limit(&host.platform))?;
        let image = TdvfImage::parse(image)?;
        let ranges = build::memory_ranges(config, &image)?;
        let hob = build::td_hob(config, &image)?;

        let control = Control::create(host, config)?;
        let vcpus = config.vcpus as usize;
        let seats = vcpus + OTHER_SEATS;
        let core = Arc::new(TdCore::new(host, control.tdr, control.hkid.key(), vcpus, config.l2_vms));
        let mmu = Config { participants: seats, ..Config::for_address_width(GPA_WIDTH) };
        let memory = match GuestMemory::new(core.clone(), mmu, &ranges, config.largest_page) {
            Ok(memory) => memory,
            Err(error) => {
                teardown::control_only(host, control);
                return Err(error);
            }
        };
        let tsc = TscScale { multiplier: 0, offset: 0 };
        let mut td = Self { core, memory, control, vcpus: Vec::new(), tsc };
        match td.populate(config, &image, hob.as_ref(), progress) {
            Ok(()) => Ok(td),
            Err(error) => {
                td.teardown();
                Err(error)
            }
        }
    }

    fn populate(
        &mut self,
        config: &TdConfig,
        image: &TdvfImage<'_>,
        hob: Option<&(Gpa, Vec<u8>)>,
        progress: impl FnMut(BuildProgress),
    ) -> Result<(), Error> {
        self.tsc = self.read_tsc_scale()?;
        let entry_value = hob.map_or(Gpa::new(0), |(gpa, _)| *gpa);
        for index in 0..config.vcpus {
            let lp = vcpu_lp(self.host().platform(), index);
            let root = self.memory.mmu().direct_root();
            let control = VcpuControl::create(&self.core, lp, index, entry_value, root)?;
            self.vcpus.push(Vcpu::new(index, control, self.tsc_hz()));
        }
        {
            let mut seat = self.memory.take_seat(LpId(0))?;
            build::load(&self.core, &mut seat, image, hob.map(|(_, bytes)| bytes.as_slice()), progress)?;
        }
        build::finalize(&self.core)
    }

    /// Ends the TD from outside: every vCPU leaves its loop.
    pub fn stop(&self) {
        self.core.end(Ending::Stopped);
    }

    /// How the TD ended, once it has.
    pub fn ending(&self) -> Option<Ending> {
        self.core.ending()
    }

    /// Compares mirror, Secure EPT and PAMT. Call it at rest.
    ///
    /// # Errors
    /// The first difference.
    pub fn audit(&self) -> Result<AuditReport, Error> {
        let mut seat = self.memory.take_seat(LpId(0))?;
        self.memory.audit(&mut seat)
    }

    /// What the TD's private and its shared memory are mapped to, as the host has it. Call it at rest.
    ///
    /// # Errors
    /// The host's processor cannot be had.
    pub fn mappings(&self) -> Result<Vec<mirror_ept::list::Listed>, Error> {
        let mut seat = self.memory.take_seat(LpId(0))?;
        Ok(self.memory.list(&mut seat))
    }

    /// The measurement of the TD's initial contents, as the module has it.
    ///
    /// # Errors
    /// The module refuses to read it.
    pub fn mrtd(&self) -> Result<[u8; 48], Error> {
        let mut mrtd = [0; 48];
        let elements = (0..).map_while(|element| metadata::td::MRTD.element_id(element));
        for (element, bytes) in elements.zip(mrtd.chunks_exact_mut(8)) {
            bytes.copy_from_slice(&self.read_field(element)?.to_le_bytes());
        }
        Ok(mrtd)
    }

    fn read_field(&self, field: FieldId) -> Result<u64, Error> {
        on_lp(&self.host().platform, LpId(0), |lp| {
            Ok(bounded(Bound::MANAGEMENT, || tdh_mng_rd(lp, self.core.tdr, field))?)
        })
    }

    /// How the TD's time-stamp counter follows the host's, as the module decided at TDH.MNG.INIT.
    fn read_tsc_scale(&self) -> Result<TscScale, Error> {
        use metadata::td::{TSC_MULTIPLIER, TSC_OFFSET};
        let multiplier = self.read_field(TSC_MULTIPLIER.id)?;
        Ok(TscScale { multiplier, offset: self.read_field(TSC_OFFSET.id)? })
    }

    /// The time-stamp counter as the guest reads it.
    pub(crate) fn guest_tsc(&self) -> u64 {
        self.tsc.guest(self.host().platform.ticks())
    }

    /// The frequency of the TD's TSC, Hz.
    pub(crate) fn tsc_hz(&self) -> u64 {
        control::tsc_units(self.host().platform()) * control::TSC_UNIT_HZ
    }

    pub(crate) fn tsc(&self) -> TscScale {
        self.tsc
    }

    /// The TD, as the module knows it.
    pub fn tdr(&self) -> Tdr {
        self.core.tdr
    }

    /// The TD's memory.
    pub fn memory(&self) -> &GuestMemory<'h, P> {
        &self.memory
    }

    /// The TD's vCPUs, by number.
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.vcpus
    }

    /// The SHARED bit of guest-physical addresses.
    pub fn shared_bit(&self) -> SharedBit {
        SHARED_BIT
    }

    pub(crate) fn core(&self) -> &TdCore<'h, P> {
        &self.core
    }

    pub(crate) fn host(&self) -> &'h Host<P> {
        self.core.host
    }

    /// The whereabouts of a vCPU of this TD.
    pub(crate) fn presence(&self, vcpu: &Vcpu) -> &Presence {
        self.core.presence_of(vcpu.index())
    }

    /// Ends the TD for good: every page and the key id come back, or are in quarantine.
    ///
    /// No vCPU may be running any more.
    pub fn teardown(mut self) -> TeardownReport {
        let host = self.host();
        let mut report = TeardownReport::default();
        let (stray_pages, stray_vcpus) = self.core.take_strays();
        let vcpus = self.vcpus.iter().map(|vcpu| (vcpu.lp(), vcpu.tdvpr())).chain(stray_vcpus);
        let released = teardown::release_key(host, self.core.tdr, vcpus, &mut report);

        for standing in self.vcpus.iter().filter_map(Vcpu::take_standing) {
            let mut cache = standing.cache;
            self.memory.mmu().release(&mut cache);
        }
        let (leaves, tables) = self.take_apart();
        let Self { memory, control, vcpus, .. } = self;
        if released {
            for (at, pfn) in leaves {
                if !teardown::reclaim_page(host, pfn, at.level(), &mut report) {
                    memory.withdraw(at.gfn(), at.level());
                }
            }
            for page in tables.into_iter().chain(stray_pages) {
                teardown::reclaim(host, page, Level::L4K, &mut report);
            }
            for vcpu in vcpus {
                vcpu.control.reclaim(host, &mut report);
            }
            teardown::release_control(host, control, &mut report);
        } else {
            for (at, _) in leaves {
                memory.withdraw(at.gfn(), at.level());
                report.quarantined_frames += at.level().frames();
            }
            for page in tables.into_iter().chain(stray_pages) {
                host.quarantine(page, Level::L4K);
                report.quarantined_frames += 1;
            }
            for vcpu in vcpus {
                vcpu.control.abandon(host, &mut report);
            }
            teardown::abandon_control(host, control, &mut report);
        }
        report.freed_frames += memory.release();
        report
    }

    /// Empties the MMU and gives what it held: private leaves, and Secure-EPT pages, children first.
    fn take_apart(&mut self) -> (Vec<(mirror_ept::Position, tdvisor_base::Pfn)>, Vec<tdvisor_base::Pfn>) {
        let (mut leaves, mut tables) = (Vec::new(), Vec::new());
        if let Some(mut participant) = self.memory.mmu().participant() {
            let mut guard = participant.exclusive();
            self.memory.mmu().dismantle(&mut guard, |part| match part {
                Dismantled::Leaf { at, pfn } => leaves.push((at, pfn)),
                Dismantled::Table { twin, .. } => {
                    tables.extend(twin.of_l2_vms());
                    tables.push(twin.pfn());
                    for page in twin.spares() {
                        self.host().platform.free_page(page, Level::L4K);
                    }
                }
            });
        }
        (leaves, tables)
    }
}

/// LP 0 is for management where the machine has LPs to spare; vCPUs take the others in turn.
fn vcpu_lp<P: Platform>(platform: &P, index: u32) -> LpId {
    LpId(index.saturating_add(1).checked_rem(platform.lp_count()).unwrap_or(0))
}

/// How many vCPUs can each have an LP while LP 0 stays free for management. On a machine of one LP the vCPU has it, and
/// management waits until the vCPU is done.
fn vcpu_limit<P: Platform>(platform: &P) -> u32 {
    platform.lp_count().saturating_sub(1).max(1)
}
