//! The hosts that are known to load the same image differently, and the MRTD that each would reach.
//!
//! Whoever holds an MRTD and an image need not know which host made it: [`all`] gives every value with the
//! name of its loader, and an expected value can be looked up among them.

use alloc::vec::Vec;
use core::fmt;

use super::of_plan;
use crate::digest::Digest384;
use crate::td_hob::{self, Acceptance, HobDialect};
use crate::tdvf::{HostContents, LoaderModel, TdvfError, TdvfImage};

/// A kind of host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Variant {
    /// Page by page.
    Interleaved,
    /// Section by section in two passes.
    TwoPass,
    /// Google Compute Engine now.
    Gce,
    /// Google Compute Engine's first loader, which measured every section and with them the machine's size.
    GceAllMeasured {
        /// Memory of the machine, GiB.
        memory_gib: u32,
        /// Who accepts the memory above 4 GiB.
        acceptance: Acceptance,
    },
}

impl Variant {
    /// The name that scripts see.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        match self {
            Self::Interleaved => "interleaved",
            Self::TwoPass => "two-pass",
            Self::Gce => "gce",
            Self::GceAllMeasured { acceptance: Acceptance::Lazy, .. } => "gce-all-measured",
            Self::GceAllMeasured { acceptance: Acceptance::Early, .. } => "gce-all-measured-early-accept",
        }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interleaved => {
                f.write_str("interleaved: each page added, then measured (upstream KVM, QEMU 9.1 and later)")
            }
            Self::TwoPass => f.write_str(
                "two-pass: each section added, then measured (out-of-tree kernels, QEMU 8, Canonical 24.04)",
            ),
            Self::Gce => f.write_str("gce: interleaved, empty memory not added (Google Compute Engine)"),
            Self::GceAllMeasured { memory_gib, acceptance } => {
                let who = match acceptance {
                    Acceptance::Lazy => "",
                    Acceptance::Early => ", all memory accepted early",
                };
                write!(
                    f,
                    "gce-all-measured: every section measured (early Google Compute Engine, {memory_gib} GiB{who})"
                )
            }
        }
    }
}

/// Memory of Google's machine types with TDX (c3-standard-4 to -176), GiB.
const GCE_MEMORY_GIB: [u32; 6] = [16, 32, 88, 176, 352, 704];

/// Every variant whose MRTD follows from an image alone.
pub fn known() -> impl Iterator<Item = Variant> {
    let gce = [Acceptance::Lazy, Acceptance::Early].into_iter().flat_map(|acceptance| {
        GCE_MEMORY_GIB.map(|memory_gib| Variant::GceAllMeasured { memory_gib, acceptance })
    });
    [Variant::Interleaved, Variant::TwoPass, Variant::Gce].into_iter().chain(gce)
}

/// The MRTD that a host of this kind reaches with `image`; `host` is what it writes into host-filled sections
/// (Google's variants make the TD HOB themselves).
///
/// `Ok(None)`: the variant does not apply to the image.
///
/// # Errors
/// [`TdvfError`] where the measurement depends on contents that `host` does not give.
pub fn mrtd(
    image: &TdvfImage<'_>,
    variant: Variant,
    host: HostContents<'_>,
) -> Result<Option<Digest384>, TdvfError> {
    let of = |model, host| image.build_plan(model, host).map(|plan| Some(of_plan(&plan)));
    match variant {
        Variant::Interleaved => of(LoaderModel::INTERLEAVED, host),
        Variant::TwoPass => of(LoaderModel::TWO_PASS, host),
        Variant::Gce => of(LoaderModel::GCE, host),
        Variant::GceAllMeasured { memory_gib, acceptance } => {
            let ram = td_hob::gce_ram(u64::from(memory_gib) << 30);
            match td_hob::list(image, &ram, HobDialect::Gce { acceptance }) {
                Some(Ok(hob)) => {
                    let host = HostContents { td_hob: Some(&hob), ..host };
                    image.build_plan(LoaderModel::GCE_ALL_MEASURED, host).map(|plan| Some(of_plan(&plan)))
                }
                // Google's loader would not have started such an image.
                Some(Err(_)) | None => Ok(None),
            }
        }
    }
}

/// Every known variant that applies, with its MRTD.
///
/// # Errors
/// As [`mrtd`]; only for the plain variants, since one of Google's that lacks contents does not apply.
pub fn all(image: &TdvfImage<'_>, host: HostContents<'_>) -> Result<Vec<(Variant, Digest384)>, TdvfError> {
    let mut found = Vec::new();
    for variant in known() {
        match mrtd(image, variant, host) {
            Ok(Some(digest)) => found.push((variant, digest)),
            Ok(None) => {}
            Err(error) => match variant {
                Variant::Interleaved | Variant::TwoPass => return Err(error),
                Variant::Gce | Variant::GceAllMeasured { .. } => {}
            },
        }
    }
    Ok(found)
}
