//! Images made by hand, each rule broken one at a time.

use tdvisor_base::Gpa;

use super::*;
use crate::testing::{Entry, Image, Style};

fn error(change: impl FnOnce(&mut Image)) -> TdvfError {
    let mut image = Image::hello();
    change(&mut image);
    TdvfImage::parse(&image.build()).unwrap_err()
}

fn problem(change: impl FnOnce(&mut Image)) -> (u32, SectionProblem) {
    match error(change) {
        TdvfError::Section { section, problem } => (section.index, problem),
        other => panic!("not a section's error: {other}"),
    }
}

#[test]
fn an_image_like_our_guests_is_read_and_has_nothing_to_note() {
    let bytes = Image::hello().build();
    let image = TdvfImage::parse(&bytes).unwrap();
    assert_eq!(image.location(), MetadataLocation::GuidTable);
    assert_eq!(image.notes().count(), 0);
    let names: Vec<_> = image.sections().map(|section| section.name().to_string()).collect();
    assert_eq!(
        names,
        ["section 0 (BFV)", "section 1 (TempMem)", "section 2 (TD_HOB)", "section 3 (PermMem)"]
    );
    let plan = image.build_plan(LoaderModel::INTERLEAVED, HostContents::default()).unwrap();
    let added: Vec<_> = plan.sections().map(|section| section.section.index).collect();
    assert_eq!(added, [0, 1, 2], "a PAGE.AUG section is not added");
    let first: Vec<_> = plan.steps().take(3).collect();
    assert_eq!(
        first,
        [
            BuildStep::Add { gpa: Gpa::new(0xffff_c000), contents: PageContents::Bytes(&bytes[..0x1000]) },
            BuildStep::Extend { gpa: Gpa::new(0xffff_c000), contents: PageContents::Bytes(&bytes[..0x1000]) },
            BuildStep::Add {
                gpa: Gpa::new(0xffff_d000),
                contents: PageContents::Bytes(&bytes[0x1000..0x2000])
            },
        ]
    );
    assert_eq!(plan.steps().count(), 2 * 4 + 3 + 2);
}

#[test]
fn two_passes_add_the_whole_section_before_measuring_it() {
    let bytes = Image::hello().build();
    let image = TdvfImage::parse(&bytes).unwrap();
    let plan = image.build_plan(LoaderModel::TWO_PASS, HostContents::default()).unwrap();
    let kinds: String = plan
        .steps()
        .map(|step| match step {
            BuildStep::Add { .. } => 'a',
            BuildStep::Extend { .. } => 'e',
        })
        .collect();
    assert_eq!(kinds, "aaaaeeeeaaaaa");
}

#[test]
fn the_host_fills_its_own_sections() {
    let bytes = Image::hello().build();
    let image = TdvfImage::parse(&bytes).unwrap();
    let host = HostContents { td_hob: Some(b"hob"), ..HostContents::default() };
    let plan = image.build_plan(LoaderModel::INTERLEAVED, host).unwrap();
    let hob = plan.steps().find(|step| matches!(step, BuildStep::Add { gpa, .. } if gpa.get() == 0x1f_0000));
    assert_eq!(hob, Some(BuildStep::Add { gpa: Gpa::new(0x1f_0000), contents: PageContents::Bytes(b"hob") }));
    let large = vec![0; 0x2001];
    let host = HostContents { td_hob: Some(&large), ..HostContents::default() };
    let error = image.build_plan(LoaderModel::INTERLEAVED, host).unwrap_err();
    assert_eq!(
        error.to_string(),
        "section 2 (TD_HOB): 0x2001 bytes from the host do not fit its 0x2000 bytes"
    );
}

#[test]
fn td_shim_finds_its_descriptor_from_the_start() {
    let mut source = Image::hello();
    source.style = Style::TdShim;
    let bytes = source.build();
    assert_eq!(TdvfImage::parse(&bytes).unwrap().location(), MetadataLocation::TdShimOffset);
}

#[test]
fn images_without_metadata_say_what_is_missing() {
    assert_eq!(TdvfImage::parse(&[]).unwrap_err(), TdvfError::TooSmall { size: 0, needed: 66 });
    assert_eq!(TdvfImage::parse(&[0; 4096]).unwrap_err(), TdvfError::NoMetadata);
    assert_eq!(error(|image| image.style = Style::OvmfWithoutTdx), TdvfError::NotForTdx);
    assert_eq!(error(|image| image.version = 2), TdvfError::Version(2));
    assert_eq!(error(|image| image.count = Some(0)), TdvfError::NoSections);
    assert_eq!(error(|image| image.count = Some(65)), TdvfError::TooManySections { count: 65, limit: 64 });
    let wrong = TdvfError::DescriptorLength { declared: 143, expected: 144 };
    assert_eq!(error(|image| image.length = Some(143)), wrong);
    assert!(matches!(error(|image| image.count = Some(64)), TdvfError::TableTruncated { .. }));
}

#[test]
fn a_broken_guid_table_is_not_walked() {
    let good = Image::hello().build();
    let footer_length = good.len() - 0x20 - 18;
    let mut bytes = good.clone();
    bytes[footer_length..footer_length + 2].copy_from_slice(&17u16.to_le_bytes());
    assert!(matches!(
        TdvfImage::parse(&bytes),
        Err(TdvfError::GuidTable(GuidTableProblem::TableLength { .. }))
    ));
    let entry_length = footer_length - 18;
    for length in [0u16, 17, 0xffff] {
        let mut bytes = good.clone();
        bytes[entry_length..entry_length + 2].copy_from_slice(&length.to_le_bytes());
        let error = TdvfImage::parse(&bytes).unwrap_err();
        assert!(matches!(error, TdvfError::GuidTable(GuidTableProblem::EntryLength { .. })), "{error}");
    }
    let distance = entry_length - 4;
    let mut bytes = good.clone();
    bytes[distance..distance + 4].copy_from_slice(&0x4001u32.to_le_bytes());
    assert_eq!(
        TdvfImage::parse(&bytes).unwrap_err(),
        TdvfError::DescriptorOutside { distance: 0x4001, size: 0x4000 }
    );
    let mut bytes = good;
    bytes[distance..distance + 4].copy_from_slice(&0x1000u32.to_le_bytes());
    assert_eq!(TdvfImage::parse(&bytes).unwrap_err(), TdvfError::DescriptorSignature { offset: 0x3000 });
}

#[test]
fn every_rule_about_sections_names_the_section_that_breaks_it() {
    let unaligned = problem(|image| image.entries[1].gpa = 0x10_0800);
    assert_eq!(unaligned, (1, SectionProblem::UnalignedGpa(Gpa::new(0x10_0800))));
    assert_eq!(
        problem(|image| image.entries[1].mem_size = 0x1001),
        (1, SectionProblem::UnalignedSize(0x1001))
    );
    assert_eq!(problem(|image| image.entries[1].mem_size = 0), (1, SectionProblem::NoMemory));
    assert!(matches!(
        problem(|image| image.entries[1].gpa = GPA_LIMIT - 0x2000),
        (1, SectionProblem::AddressRange { .. })
    ));
    assert!(matches!(
        problem(|image| image.entries[1].gpa = !0xfff),
        (1, SectionProblem::AddressRange { .. })
    ));
    assert!(matches!(
        problem(|image| image.entries[0].data_offset = 1),
        (0, SectionProblem::RawOutsideImage { offset: 1, size: 0x4000, image: 0x4000 })
    ));
    assert!(matches!(
        problem(|image| image.entries[0].mem_size = 0x3000),
        (0, SectionProblem::RawLargerThanMemory { .. })
    ));
    let (index, overlap) = problem(|image| image.entries[2].gpa = 0x10_2000);
    assert_eq!((index, overlap.to_string()), (2, "it overlaps section 1 (TempMem) in memory".to_owned()));
    assert_eq!(problem(|image| image.entries[1].kind = SectionKind::TD_HOB), (2, SectionProblem::Duplicate));
    assert_eq!(problem(|image| image.entries[1].kind = SectionKind(9)), (1, SectionProblem::UnknownKind));
    assert!(matches!(
        problem(|image| image.entries[1].attributes = Attributes(4)),
        (1, SectionProblem::UnknownAttributes(_))
    ));
    assert_eq!(problem(|image| image.entries[0].raw_size = 0), (0, SectionProblem::NoData));
    assert_eq!(
        problem(|image| image.entries[1].raw_size = 16),
        (1, SectionProblem::UnexpectedData { raw: 16 })
    );
    let aug = Attributes::PAGE_AUG;
    assert_eq!(problem(|image| image.entries[0].attributes = aug), (0, SectionProblem::AugmentedContents));
    assert_eq!(problem(|image| image.entries[2].attributes = aug), (2, SectionProblem::AugmentedContents));
    assert_eq!(
        problem(|image| image.entries[3].attributes = Attributes(3)),
        (3, SectionProblem::AugmentedMeasured)
    );
    assert!(matches!(
        problem(|image| image.entries[3] =
            Entry { gpa: 0x20_0000, mem_size: MAX_ADDED_BYTES, ..Entry::default() }),
        (3, SectionProblem::TooMuchMemory { .. })
    ));
}

#[test]
fn firmware_and_td_hob_must_be_there() {
    let missing = |index: usize| {
        error(|image| {
            image.entries.remove(index);
        })
    };
    assert_eq!(missing(0), TdvfError::MissingSection(SectionKind::BFV));
    assert_eq!(missing(2), TdvfError::MissingSection(SectionKind::TD_HOB));
    let mut shim = Image::hello();
    shim.style = Style::TdShim;
    shim.entries.remove(2);
    assert!(TdvfImage::parse(&shim.build()).is_ok(), "td-shim may describe permanent memory instead");
}

#[test]
fn notes_tell_what_is_legal_and_odd() {
    let mut source = Image::hello();
    source.entries[0] = Entry {
        raw_size: 0x3000,
        gpa: 0x8000_0000,
        mem_size: 0x3000,
        kind: SectionKind::BFV,
        ..Entry::default()
    };
    let bytes = source.build();
    let notes: Vec<_> = TdvfImage::parse(&bytes).unwrap().notes().map(|note| note.to_string()).collect();
    assert_eq!(
        notes,
        [
            "section 0 (BFV) is not measured: the MRTD does not cover its code",
            "no section holds the reset vector 0xfffffff0",
            "4096 bytes of the image are in no section",
        ]
    );
}
