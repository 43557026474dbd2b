//! Loading: from an image and an initialised TD to a measured TD that can run.
//!
//! # Protocol
//! 1. The image's TDVF metadata gives one list of steps ([`td_image::tdvf`]); the same list predicts the MRTD.
//! 2. Each Add step maps a 4 KiB page through the mirror, whose hook issues TDH.MEM.PAGE.ADD with the step's
//!    contents as source; each Extend step measures that page with sixteen TDH.MR.EXTEND.
//! 3. vCPUs are created ([`crate::vcpu`]); TDH.MR.FINALIZE ends the build.
//!
//! While a TD is built no vCPU runs and nobody removes a mapping, so the page that a step added is still there
//! when the next one measures it (invariant 36).

use alloc::vec;
use alloc::vec::Vec;

use mirror_ept::GfnRange;
use td_image::td_hob;
use td_image::tdvf::{BuildStep, HostContents, LoaderModel, PageContents, TdvfImage};
use tdvisor_base::{Gpa, Level, PAGE_SIZE, to_usize};
use tdx_module_iface::tdh;

use super::config::{ConfigError, TdConfig, frames_of};
use crate::error::Error;
use crate::memory::Seat;
use crate::platform::{LpId, Platform};
use crate::retry::{Bound, bounded};
use crate::td::core::TdCore;

/// Bytes that one TDH.MR.EXTEND measures.
const EXTEND_BYTES: u64 = 256;

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuildProgress {
    /// Pages added so far.
    pub added: u64,
    /// Pages measured so far.
    pub measured: u64,
}

/// Guest memory for an image: RAM, and the sections that lie outside it (the firmware below 4 GiB).
///
/// # Errors
/// [`ConfigError::OutsideMemory`] for a section that is neither in RAM nor in the firmware's place.
pub(crate) fn memory_ranges(config: &TdConfig, image: &TdvfImage<'_>) -> Result<Vec<GfnRange>, ConfigError> {
    let ranges = image.memory(&config.ram_ranges()).map_err(ConfigError::OutsideMemory)?;
    Ok(ranges.iter().filter_map(|range| frames_of(range.start, range.bytes)).collect())
}

/// The TD HOB for an image, and the section that it goes to: QEMU's list, with what the caller adds.
pub(crate) fn td_hob(config: &TdConfig, image: &TdvfImage<'_>) -> Result<Option<(Gpa, Vec<u8>)>, Error> {
    Ok(td_hob::with_extensions(image, &config.ram_ranges(), &config.hob_extensions)?)
}

/// Adds and measures everything that the image's sections ask for.
pub(crate) fn load<'h, P: Platform>(
    core: &TdCore<'h, P>,
    seat: &mut Seat<'_, 'h, P>,
    image: &TdvfImage<'_>,
    hob: Option<&[u8]>,
    mut progress: impl FnMut(BuildProgress),
) -> Result<(), Error> {
    let contents = HostContents { td_hob: hob, ..HostContents::default() };
    let plan = image.build_plan(LoaderModel::INTERLEAVED, contents)?;
    let source = core.host.give_page()?;
    let mut loader = Loader { core, source, page: vec![0; to_usize(PAGE_SIZE)] };
    let mut done = BuildProgress { added: 0, measured: 0 };
    let result = plan.steps().try_for_each(|step| {
        match step {
            BuildStep::Add { gpa, contents } => {
                loader.add(seat, gpa, contents)?;
                done.added += 1;
            }
            BuildStep::Extend { gpa, .. } => {
                loader.measure(seat, gpa)?;
                done.measured += 1;
            }
        }
        progress(done);
        Ok(())
    });
    core.host.platform.free_page(source, Level::L4K);
    result
}

struct Loader<'c, 'h, P: Platform> {
    core: &'c TdCore<'h, P>,
    /// Where TDH.MEM.PAGE.ADD reads a page's contents.
    source: tdvisor_base::Pfn,
    page: Vec<u8>,
}

impl<'h, P: Platform> Loader<'_, 'h, P> {
    fn add(&mut self, seat: &mut Seat<'_, 'h, P>, gpa: Gpa, contents: PageContents<'_>) -> Result<(), Error> {
        let bytes = contents.bytes();
        self.page.fill(0);
        for (to, from) in self.page.iter_mut().zip(bytes) {
            *to = *from;
        }
        let source = self.source.base();
        self.core.host.platform.write(source, &self.page)?;
        seat.memory().populate(seat, gpa.frame(), source)
    }

    fn measure(&self, seat: &mut Seat<'_, 'h, P>, gpa: Gpa) -> Result<(), Error> {
        (0..PAGE_SIZE / EXTEND_BYTES).try_for_each(|chunk| {
            let at = gpa.wrapping_add(chunk * EXTEND_BYTES);
            Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_mr_extend(seat.lp(), self.core.tdr, at))?)
        })
    }
}

/// TDH.MR.FINALIZE: from here on vCPUs may run, and removals are tracked.
pub(crate) fn finalize<P: Platform>(core: &TdCore<'_, P>) -> Result<(), Error> {
    crate::host::on_lp(&core.host.platform, LpId(0), |lp| {
        Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_mr_finalize(lp, core.tdr))?)
    })?;
    core.set_runnable();
    Ok(())
}
