//! The build plan: which pages a loader adds and measures, in which order.
//!
//! MRTD depends on the order of TDH.MEM.PAGE.ADD and TDH.MR.EXTEND, and hosts differ. Upstream KVM adds and
//! measures page by page; the first out-of-tree kernels (and Canonical's QEMU 8.2) added a whole section and
//! then measured it; Google's first loader measured every section, the host's TD HOB included. A
//! [`LoaderModel`] names such a behaviour, and [`BuildPlan`] is the list of steps that follows from it.

use core::fmt;

use tdvisor_base::{Gpa, PAGE_SIZE};

use super::TdvfImage;
use super::error::{SectionProblem, TdvfError};
use super::section::{Section, SectionKind};

/// In which order a section's pages are added and measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageOrder {
    /// Each page is added and measured before the next (upstream KVM, td-shim, GCE).
    Interleaved,
    /// All pages of a section are added, then all are measured (out-of-tree kernels with QEMU 8).
    TwoPass,
}

/// Which sections are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeasuredSections {
    /// The sections with MR.EXTEND are measured.
    AsMarked,
    /// All that are added (early GCE).
    All,
}

/// Which sections are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddedSections {
    /// All without PAGE.AUG.
    AsMarked,
    /// Only those that the image or the host fills; empty memory is left to the guest (GCE).
    WithContents,
}

/// How a host loads an image, as far as the MRTD shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoaderModel {
    /// Order of the pages.
    pub order: PageOrder,
    /// Which sections are measured.
    pub measured: MeasuredSections,
    /// Which sections are added.
    pub added: AddedSections,
}

impl LoaderModel {
    /// Page by page, as marked: upstream KVM with QEMU from 9.1, td-shim's loader, this project's.
    pub const INTERLEAVED: Self = Self {
        order: PageOrder::Interleaved,
        measured: MeasuredSections::AsMarked,
        added: AddedSections::AsMarked,
    };
    /// Section by section in two passes: out-of-tree kernels with QEMU 8.
    pub const TWO_PASS: Self = Self { order: PageOrder::TwoPass, ..Self::INTERLEAVED };
    /// Google Compute Engine: empty memory is not added.
    pub const GCE: Self = Self { added: AddedSections::WithContents, ..Self::INTERLEAVED };
    /// Google Compute Engine's first loader: every section is measured, so the MRTD depends on the machine's
    /// memory through the TD HOB.
    pub const GCE_ALL_MEASURED: Self = Self { measured: MeasuredSections::All, ..Self::INTERLEAVED };
}

/// What the host writes into sections that the image leaves empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostContents<'a> {
    /// The TD HOB.
    pub td_hob: Option<&'a [u8]>,
    /// The payload (a kernel), where the image has none of its own.
    pub payload: Option<&'a [u8]>,
    /// The payload's parameters (a command line).
    pub payload_param: Option<&'a [u8]>,
}

impl<'a> HostContents<'a> {
    fn of(&self, kind: SectionKind) -> Filled<'a> {
        match kind {
            SectionKind::TD_HOB => Filled::ByHost(self.td_hob),
            SectionKind::PAYLOAD => Filled::ByHost(self.payload),
            SectionKind::PAYLOAD_PARAM => Filled::ByHost(self.payload_param),
            _ => Filled::ByNobody,
        }
    }
}

enum Filled<'a> {
    ByHost(Option<&'a [u8]>),
    ByNobody,
}

/// What a page holds when it is added.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PageContents<'a> {
    /// 4096 zeros.
    Zero,
    /// The page begins with these bytes (1 to 4096); zeros follow.
    Bytes(&'a [u8]),
}

impl<'a> PageContents<'a> {
    /// The bytes that are not known to be zero.
    #[must_use]
    pub const fn bytes(self) -> &'a [u8] {
        match self {
            Self::Zero => &[],
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl fmt::Debug for PageContents<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zero => f.write_str("Zero"),
            Self::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
        }
    }
}

/// One step of building a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStep<'a> {
    /// TDH.MEM.PAGE.ADD of one 4 KiB page.
    Add {
        /// Address of the page.
        gpa: Gpa,
        /// What the page holds first.
        contents: PageContents<'a>,
    },
    /// TDH.MR.EXTEND of all sixteen chunks of one page.
    Extend {
        /// Address of the page.
        gpa: Gpa,
        /// What the page holds, for those who predict.
        contents: PageContents<'a>,
    },
}

/// Everything a loader does with an image's memory. Iterate over its sections or over all its steps.
#[derive(Clone, Copy, Debug)]
pub struct BuildPlan<'a> {
    image: TdvfImage<'a>,
    model: LoaderModel,
    host: HostContents<'a>,
}

impl<'a> TdvfImage<'a> {
    /// The steps with which a loader like `model` builds a TD from this image.
    ///
    /// # Errors
    /// [`SectionProblem::HostContentsMissing`] where the measurement depends on contents that `host` does
    /// not give, [`SectionProblem::HostContentsTooLarge`] where they do not fit.
    pub fn build_plan(&self, model: LoaderModel, host: HostContents<'a>) -> Result<BuildPlan<'a>, TdvfError> {
        let plan = BuildPlan { image: *self, model, host };
        for section in plan.sections() {
            let measured_or_given = match host.of(section.section.kind) {
                Filled::ByHost(given) if section.section.raw_size == 0 => given,
                _ => continue,
            };
            match measured_or_given {
                Some(contents) if contents.len() as u64 > section.section.mem_size => {
                    let memory = section.section.mem_size;
                    let contents = contents.len();
                    return Err(section
                        .section
                        .refuse(SectionProblem::HostContentsTooLarge { contents, memory }));
                }
                None if section.measured => {
                    return Err(section.section.refuse(SectionProblem::HostContentsMissing));
                }
                _ => {}
            }
        }
        Ok(plan)
    }
}

impl<'a> BuildPlan<'a> {
    /// The loader that the plan is for.
    #[must_use]
    pub const fn model(&self) -> LoaderModel {
        self.model
    }

    /// The sections that are added, in table order.
    pub fn sections(&self) -> impl Iterator<Item = SectionPlan<'a>> + Clone + use<'a> {
        let Self { image, model, host } = *self;
        image.sections().filter_map(move |section| {
            let host_contents = match host.of(section.kind) {
                Filled::ByHost(contents) => contents,
                Filled::ByNobody => None,
            };
            let contents =
                if section.raw_size == 0 { host_contents.unwrap_or_default() } else { image.raw(&section) };
            let has_contents = section.raw_size != 0 || matches!(host.of(section.kind), Filled::ByHost(_));
            let added = section.is_added()
                && match model.added {
                    AddedSections::AsMarked => true,
                    AddedSections::WithContents => has_contents,
                };
            let measured = match model.measured {
                MeasuredSections::AsMarked => section.attributes.is_measured(),
                MeasuredSections::All => true,
            };
            added.then_some(SectionPlan { section, contents, measured, order: model.order })
        })
    }

    /// All steps in order.
    pub fn steps(&self) -> impl Iterator<Item = BuildStep<'a>> + Clone + use<'a> {
        self.sections().flat_map(|section| section.steps())
    }
}

/// One added section of a [`BuildPlan`].
#[derive(Clone, Copy, Debug)]
pub struct SectionPlan<'a> {
    /// The section.
    pub section: Section,
    /// What the section's memory begins with; the rest is zero.
    pub contents: &'a [u8],
    /// Whether its contents are measured.
    pub measured: bool,
    order: PageOrder,
}

impl<'a> SectionPlan<'a> {
    /// The steps of this section in order.
    pub fn steps(&self) -> impl Iterator<Item = BuildStep<'a>> + Clone + use<'a> {
        let this = *self;
        let pages = this.section.pages();
        let (rounds, passes): (u64, u64) = match (this.measured, this.order) {
            (false, _) => (pages, 1),
            (true, PageOrder::Interleaved) => (pages, 2),
            (true, PageOrder::TwoPass) => (2, pages),
        };
        // Interleaved: page by page, each in its passes. Two-pass: pass by pass, each over all pages.
        let interleaved = !matches!((this.measured, this.order), (true, PageOrder::TwoPass));
        (0..rounds).flat_map(move |outer| {
            (0..passes).map(move |inner| {
                let (page, pass) = if interleaved { (outer, inner) } else { (inner, outer) };
                let gpa = this.section.gpa.wrapping_add(page.wrapping_mul(PAGE_SIZE));
                let contents = this.page(page);
                if pass == 0 { BuildStep::Add { gpa, contents } } else { BuildStep::Extend { gpa, contents } }
            })
        })
    }

    /// Steps of this section: pages added, and pages measured.
    #[must_use]
    pub const fn step_counts(&self) -> (u64, u64) {
        let pages = self.section.pages();
        (pages, if self.measured { pages } else { 0 })
    }

    fn page(&self, page: u64) -> PageContents<'a> {
        let start = page.saturating_mul(PAGE_SIZE);
        let rest =
            usize::try_from(start).ok().and_then(|start| self.contents.get(start..)).unwrap_or_default();
        match rest.get(..PAGE_SIZE as usize).unwrap_or(rest) {
            [] => PageContents::Zero,
            bytes => PageContents::Bytes(bytes),
        }
    }
}
