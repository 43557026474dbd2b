//! What `tdvisor measure` prints of an IGVM file.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};
use td_image::digest::Digest384;
use td_image::igvm::{IgvmImage, IgvmLoader, Measured, Pages};

pub(super) struct Report {
    image: String,
    bytes: usize,
    ranges: Vec<Range>,
    variants: Vec<(IgvmLoader, Digest384)>,
    expect: Option<Digest384>,
}

/// Neighbouring pages that are treated alike.
struct Range {
    first_directive: u32,
    gpa: u64,
    pages: u64,
    measured: Measured,
    with_data: bool,
}

impl Range {
    fn continues(&self, pages: &Pages<'_>) -> bool {
        self.gpa + self.pages * 4096 == pages.gpa.get()
            && self.measured == pages.measured
            && self.with_data != pages.data.is_empty()
    }
}

impl Report {
    pub(super) fn of(path: &Path, image: &IgvmImage<'_>, expect: Option<Digest384>) -> Self {
        let mut ranges: Vec<Range> = Vec::new();
        for pages in image.pages().filter_map(Result::ok) {
            match ranges.last_mut() {
                Some(range) if range.continues(&pages) => range.pages += pages.count,
                _ => ranges.push(Range {
                    first_directive: pages.directive.index,
                    gpa: pages.gpa.get(),
                    pages: pages.count,
                    measured: pages.measured,
                    with_data: !pages.data.is_empty(),
                }),
            }
        }
        let variants = IgvmLoader::ALL.map(|loader| (loader, image.mrtd(loader))).to_vec();
        Self { image: path.display().to_string(), bytes: image.bytes().len(), ranges, variants, expect }
    }

    /// The loaders that give the expected MRTD.
    pub(super) fn matching(&self) -> impl Iterator<Item = &IgvmLoader> {
        self.variants.iter().filter(|(_, mrtd)| Some(*mrtd) == self.expect).map(|(loader, _)| loader)
    }

    pub(super) fn to_json(&self) -> Value {
        let ranges: Vec<Value> = self
            .ranges
            .iter()
            .map(|range| {
                json!({
                    "directive": range.first_directive,
                    "gpa": format!("{:#x}", range.gpa),
                    "pages": range.pages,
                    "measured": range.measured == Measured::Contents,
                    "data": range.with_data,
                })
            })
            .collect();
        let variants: Vec<Value> = self
            .variants
            .iter()
            .map(|(loader, mrtd)| {
                json!({ "id": loader.id(), "mrtd": mrtd.to_string(), "description": loader.to_string() })
            })
            .collect();
        let mut report = json!({
            "image": self.image,
            "bytes": self.bytes,
            "format": "IGVM",
            "ranges": ranges,
            "variants": variants,
        });
        if let (Some(expect), Some(map)) = (self.expect, report.as_object_mut()) {
            let matching: Vec<&str> = self.matching().map(|loader| loader.id()).collect();
            map.insert(
                "expect".to_owned(),
                json!({ "mrtd": expect.to_string(), "matches": !matching.is_empty(), "variants": matching }),
            );
        }
        report
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} bytes, IGVM", self.image, self.bytes)?;
        writeln!(f)?;
        writeln!(f, "directive {:>14} {:>8}  {:<8}  contents", "gpa", "pages", "measured")?;
        for range in &self.ranges {
            writeln!(
                f,
                "{:>9} {:>14} {:>8}  {:<8}  {}",
                range.first_directive,
                format!("{:#x}", range.gpa),
                range.pages,
                if range.measured == Measured::Contents { "yes" } else { "no" },
                if range.with_data { "from the file" } else { "empty" },
            )?;
        }
        writeln!(f)?;
        for (loader, mrtd) in &self.variants {
            writeln!(f, "MRTD {:<12} {mrtd}", loader.id())?;
        }
        let Some(expect) = self.expect else { return Ok(()) };
        writeln!(f, "expected          {expect}")?;
        writeln!(f)?;
        if self.matching().next().is_none() {
            let tried = self.variants.len();
            writeln!(f, "no match: none of {tried} variants gives the expected MRTD with this file")?;
        }
        self.matching().try_for_each(|loader| writeln!(f, "match: {loader}"))
    }
}
