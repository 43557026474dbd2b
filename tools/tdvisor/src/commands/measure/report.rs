//! What `tdvisor measure` prints, as text and as JSON.

use std::fmt;
use std::path::Path;

use serde_json::{Value, json};
use td_image::digest::Digest384;
use td_image::mrtd::MrtdBuilder;
use td_image::mrtd::variants::{self, Variant};
use td_image::tdvf::{HostContents, LoaderModel, Section, TdvfError, TdvfImage};

pub(super) struct Report {
    image: String,
    bytes: usize,
    format: String,
    sections: Vec<SectionReport>,
    notes: Vec<String>,
    variants: Vec<(Variant, Digest384)>,
    expect: Option<Digest384>,
}

struct SectionReport {
    section: Section,
    /// SHA-384 of the section's bytes in the image; `None` where it has none.
    data: Option<Digest384>,
    pages_added: u64,
    pages_measured: u64,
    /// MRTD if the build ended behind this section, in both page orders.
    interleaved: Digest384,
    two_pass: Digest384,
}

impl Report {
    pub(super) fn of(
        path: &Path,
        image: &TdvfImage<'_>,
        host: HostContents<'_>,
        expect: Option<Digest384>,
    ) -> Result<Self, TdvfError> {
        let interleaved = image.build_plan(LoaderModel::INTERLEAVED, host)?;
        let two_pass = image.build_plan(LoaderModel::TWO_PASS, host)?;
        let mut running = (MrtdBuilder::new(), MrtdBuilder::new());
        let sections = image
            .sections()
            .map(|section| {
                let planned = interleaved.sections().find(|planned| planned.section == section);
                let (pages_added, pages_measured) = planned.map_or((0, 0), |planned| planned.step_counts());
                planned.inspect(|planned| running.0.section(planned));
                let planned = two_pass.sections().find(|planned| planned.section == section);
                planned.inspect(|planned| running.1.section(planned));
                SectionReport {
                    section,
                    data: (section.raw_size != 0).then(|| Digest384::of(image.raw(&section))),
                    pages_added,
                    pages_measured,
                    interleaved: running.0.value(),
                    two_pass: running.1.value(),
                }
            })
            .collect();
        Ok(Self {
            image: path.display().to_string(),
            bytes: image.bytes().len(),
            format: format!("TDVF metadata by {}", image.location()),
            sections,
            notes: image.notes().map(|note| note.to_string()).collect(),
            variants: variants::all(image, host)?,
            expect,
        })
    }

    /// The variants that give the expected MRTD.
    pub(super) fn matching(&self) -> impl Iterator<Item = &Variant> {
        self.variants.iter().filter(|(_, mrtd)| Some(*mrtd) == self.expect).map(|(variant, _)| variant)
    }

    pub(super) fn to_json(&self) -> Value {
        let sections: Vec<Value> = self.sections.iter().map(SectionReport::to_json).collect();
        let variants: Vec<Value> = self
            .variants
            .iter()
            .map(|(variant, mrtd)| {
                let mut value = json!({ "id": variant.id(), "mrtd": mrtd.to_string(),
                    "description": variant.to_string() });
                if let (Variant::GceAllMeasured { memory_gib, .. }, Some(map)) =
                    (variant, value.as_object_mut())
                {
                    map.insert("memory_gib".to_owned(), json!(memory_gib));
                }
                value
            })
            .collect();
        let mrtd = |wanted| {
            self.variants.iter().find(|(variant, _)| *variant == wanted).map(|(_, mrtd)| mrtd.to_string())
        };
        let mut report = json!({
            "image": self.image,
            "bytes": self.bytes,
            "format": self.format,
            "sections": sections,
            "notes": self.notes,
            "mrtd": { "interleaved": mrtd(Variant::Interleaved), "two_pass": mrtd(Variant::TwoPass) },
            "variants": variants,
        });
        if let (Some(expect), Some(map)) = (self.expect, report.as_object_mut()) {
            let matching: Vec<&str> = self.matching().map(Variant::id).collect();
            map.insert(
                "expect".to_owned(),
                json!({ "mrtd": expect.to_string(), "matches": !matching.is_empty(), "variants": matching }),
            );
        }
        report
    }
}

impl SectionReport {
    fn to_json(&self) -> Value {
        let Self { section, data, .. } = self;
        json!({
            "index": section.index,
            "type": section.kind.to_string(),
            "gpa": format!("{:#x}", section.gpa),
            "memory_bytes": section.mem_size,
            "data_offset": section.data_offset,
            "data_bytes": section.raw_size,
            "attributes": section.attributes.to_string(),
            "data_sha384": data.map(|digest| digest.to_string()),
            "pages_added": self.pages_added,
            "pages_measured": self.pages_measured,
            "mrtd_so_far": {
                "interleaved": self.interleaved.to_string(),
                "two_pass": self.two_pass.to_string(),
            },
        })
    }
}

fn short(digest: &Digest384) -> String {
    digest.to_string().chars().take(16).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} bytes, {}", self.image, self.bytes, self.format)?;
        writeln!(f)?;
        writeln!(
            f,
            " # {:<12} {:>12} {:>10} {:>10} {:<10} {:>6} {:>8}  {:<16}  {:<16}  {:<16}",
            "section",
            "gpa",
            "memory",
            "data",
            "attributes",
            "added",
            "measured",
            "SHA-384 of data",
            "MRTD interleaved",
            "MRTD two-pass"
        )?;
        for row in &self.sections {
            let section = &row.section;
            writeln!(
                f,
                "{:>2} {:<12} {:>12} {:>10} {:>10} {:<10} {:>6} {:>8}  {:<16}  {:<16}  {:<16}",
                section.index,
                section.kind,
                format!("{:#x}", section.gpa),
                format!("{:#x}", section.mem_size),
                format!("{:#x}", section.raw_size),
                section.attributes.to_string(),
                row.pages_added,
                row.pages_measured,
                row.data.as_ref().map_or_else(|| "-".to_owned(), short),
                short(&row.interleaved),
                short(&row.two_pass),
            )?;
        }
        writeln!(f, "   (pages of 4 KiB; MRTD as it stands behind each section, first 16 digits)")?;
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        writeln!(f)?;
        writeln!(f, "MRTD {:<12} {}", "interleaved", self.value(Variant::Interleaved))?;
        writeln!(f, "MRTD {:<12} {}", "two-pass", self.value(Variant::TwoPass))?;
        let Some(expect) = self.expect else { return Ok(()) };
        writeln!(f, "expected          {expect}")?;
        writeln!(f)?;
        let mut matching = self.matching().peekable();
        if matching.peek().is_none() {
            let tried = self.variants.len();
            writeln!(f, "no match: none of {tried} variants gives the expected MRTD with this image")?;
        }
        for variant in matching {
            writeln!(f, "match: {variant}")?;
        }
        Ok(())
    }
}

impl Report {
    fn value(&self, wanted: Variant) -> String {
        let found = self.variants.iter().find(|(variant, _)| *variant == wanted);
        found.map_or_else(|| "does not apply".to_owned(), |(_, mrtd)| mrtd.to_string())
    }
}
