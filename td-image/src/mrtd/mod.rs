//! MRTD: the measurement of a TD's first memory.
//!
//! MRTD is one SHA-384 over a stream that two calls append to, in call order; TDH.MR.FINALIZE takes the
//! value. TDH.MEM.PAGE.ADD appends 128 bytes: "MEM.PAGE.ADD" at 0, the page's address (u64) at 16, zeros.
//! TDH.MR.EXTEND appends 128 bytes, "MR.EXTEND" at 0 and the chunk's address at 16, and then the chunk's 256
//! bytes. Nothing else is appended: pages that the guest accepts later leave no trace (Intel TDX module ABI,
//! TDH.MEM.PAGE.ADD and TDH.MR.EXTEND; checked against recorded values).
//!
//! [`MrtdBuilder`] is that stream, for whoever makes the calls; [`of_plan`] feeds it from a
//! [`BuildPlan`]; [`variants`] knows how hosts differ.

pub mod variants;

#[cfg(test)]
mod tests;

use tdvisor_base::{Gpa, PAGE_SIZE};

use crate::digest::{Digest384, Sha384};
use crate::tdvf::{BuildPlan, BuildStep, PageContents, SectionPlan};

/// Bytes that one TDH.MR.EXTEND measures.
pub const CHUNK_BYTES: usize = 256;
const BLOCK_BYTES: usize = 128;
const GPA_OFFSET: usize = 16;
const CHUNKS_PER_PAGE: usize = PAGE_SIZE as usize / CHUNK_BYTES;

/// A header block with `name` at 0; the address goes to [`GPA_OFFSET`].
const fn header(name: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let mut at = 0;
    while at < name.len() {
        block[at] = name[at];
        at += 1;
    }
    block
}

const PAGE_ADD: [u8; BLOCK_BYTES] = header(b"MEM.PAGE.ADD");
const MR_EXTEND: [u8; BLOCK_BYTES] = header(b"MR.EXTEND");

fn set_gpa(block: &mut [u8; BLOCK_BYTES], gpa: u64) {
    if let Some(field) = block.get_mut(GPA_OFFSET..GPA_OFFSET + 8) {
        field.copy_from_slice(&gpa.to_le_bytes());
    }
}

/// The MRTD of a TD under construction.
#[derive(Clone, Debug)]
pub struct MrtdBuilder {
    stream: Sha384,
    add: [u8; BLOCK_BYTES],
    extend: [u8; BLOCK_BYTES],
}

impl Default for MrtdBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl MrtdBuilder {
    /// After TDH.MNG.INIT: nothing added yet.
    #[must_use]
    pub fn new() -> Self {
        Self { stream: Sha384::new(), add: PAGE_ADD, extend: MR_EXTEND }
    }

    /// TDH.MEM.PAGE.ADD of the page at `gpa`. Its contents do not count.
    pub fn page_add(&mut self, gpa: Gpa) {
        set_gpa(&mut self.add, gpa.get());
        self.stream.update(&self.add);
    }

    /// TDH.MR.EXTEND of the chunk at `gpa`.
    pub fn extend(&mut self, gpa: Gpa, chunk: &[u8; CHUNK_BYTES]) {
        set_gpa(&mut self.extend, gpa.get());
        self.stream.update(&self.extend);
        self.stream.update(chunk);
    }

    /// TDH.MR.EXTEND of the sixteen chunks of the page at `gpa`.
    pub fn extend_page(&mut self, gpa: Gpa, contents: PageContents<'_>) {
        let (chunks, tail) = contents.bytes().as_chunks::<CHUNK_BYTES>();
        let mut last = [0; CHUNK_BYTES];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        let partial = (!tail.is_empty()).then_some(&last);
        let zeros = core::iter::repeat(&[0; CHUNK_BYTES]);
        let page = chunks.iter().chain(partial).chain(zeros).take(CHUNKS_PER_PAGE);
        for (chunk, offset) in page.zip((0u64..).step_by(CHUNK_BYTES)) {
            self.extend(gpa.wrapping_add(offset), chunk);
        }
    }

    /// Makes one step of a build plan.
    pub fn step(&mut self, step: &BuildStep<'_>) {
        match *step {
            BuildStep::Add { gpa, .. } => self.page_add(gpa),
            BuildStep::Extend { gpa, contents } => self.extend_page(gpa, contents),
        }
    }

    /// Makes all steps of one section.
    pub fn section(&mut self, section: &SectionPlan<'_>) {
        section.steps().for_each(|step| self.step(&step));
    }

    /// The value that TDH.MR.FINALIZE would fix now; the stream goes on.
    #[must_use]
    pub fn value(&self) -> Digest384 {
        self.stream.clone().finish()
    }

    /// TDH.MR.FINALIZE.
    ///
    /// ```
    /// use td_image::mrtd::MrtdBuilder;
    /// use td_image::tdvf::PageContents;
    /// use tdvisor_base::Gpa;
    ///
    /// let mut builder = MrtdBuilder::new();
    /// builder.page_add(Gpa::new(0x8000_0000));
    /// builder.page_add(Gpa::new(0x8000_1000));
    /// builder.extend_page(Gpa::new(0x8000_0000), PageContents::Bytes(&[0xa5; 4096]));
    /// let expected = "a2f05e45076ad038641c40b79a9f68fcdc312b6d4800b6cb368d3edb5adea3f4\
    ///                 0e72d80d2dac17e674a94b84b6712dd0";
    /// assert_eq!(Ok(builder.finalize()), expected.parse());
    /// ```
    #[must_use]
    pub fn finalize(self) -> Digest384 {
        self.stream.finish()
    }
}

/// The MRTD of a TD that is built by `plan`.
#[must_use]
pub fn of_plan(plan: &BuildPlan<'_>) -> Digest384 {
    let mut builder = MrtdBuilder::new();
    plan.sections().for_each(|section| builder.section(&section));
    builder.finalize()
}
