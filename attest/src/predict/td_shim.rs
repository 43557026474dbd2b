//! td-shim: RTMR0 sees the TD HOB, RTMR1 the payload and its parameters (recorded log; td-shim's design).

use alloc::borrow::Cow;
use alloc::vec;
use alloc::vec::Vec;

use super::{Alternative, Expectation, Part, Prediction};
use crate::eventlog::Register;
use td_image::digest::{Digest384, Sha384};
use td_image::tdvf::{HostContents, SectionKind, TdvfImage};

/// The events of a boot of `image`; a payload inside the image needs no contents from the host.
#[must_use]
pub fn boot(image: &TdvfImage<'_>, host: &HostContents<'_>) -> Prediction {
    let mut prediction = Prediction { events: Vec::new(), silent: vec![Register::Rtmr2, Register::Rtmr3] };
    let separator = || Expectation::Exactly(Digest384::of(&[0; 4]));
    prediction.push(Register::Rtmr0, Part::TdHob, Expectation::of_optional(host.td_hob, "the TD HOB"));
    prediction.push(Register::Rtmr0, Part::Separator, separator());
    prediction.push(Register::Rtmr1, Part::Separator, separator());
    let section = |kind| image.sections().find(|section| section.kind == kind);
    if let Some(payload) = section(SectionKind::PAYLOAD) {
        let own = image.raw(&payload);
        let contents = if own.is_empty() { host.payload } else { Some(own) };
        prediction.push(Register::Rtmr1, Part::Payload, region(contents, payload.mem_size, "the payload"));
    }
    if let Some(parameters) = section(SectionKind::PAYLOAD_PARAM) {
        let expectation = region(host.payload_param, parameters.mem_size, "the payload's parameters");
        prediction.push(Register::Rtmr1, Part::PayloadParameters, expectation);
    }
    prediction
}

/// The contents alone, or with the zeros up to the region's end: releases differ.
fn region(contents: Option<&[u8]>, bytes: u64, needs: &'static str) -> Expectation {
    let Some(contents) = contents else { return Expectation::Unknown { needs: Cow::Borrowed(needs) } };
    let mut padded = Sha384::new();
    padded.update(contents);
    // A region is at most MAX_ADDED_BYTES where it was added; others are not loaded by the host.
    let mut left = bytes.min(td_image::tdvf::MAX_ADDED_BYTES).saturating_sub(contents.len() as u64);
    while left > 0 {
        let zeros = [0; 4096];
        let part = zeros.get(..usize::try_from(left).unwrap_or(zeros.len())).unwrap_or(&zeros);
        padded.update(part);
        left = left.saturating_sub(part.len() as u64);
    }
    Expectation::OneOf(vec![
        Alternative { when: Cow::Borrowed("whole region"), digest: padded.finish() },
        Alternative { when: Cow::Borrowed("contents alone"), digest: Digest384::of(contents) },
    ])
}
