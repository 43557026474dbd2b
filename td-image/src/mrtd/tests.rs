use tdvisor_base::Gpa;

use super::variants::{self, Variant};
use super::*;
use crate::tdvf::{Attributes, HostContents, LoaderModel, SectionKind, TdvfError, TdvfImage};
use crate::testing::{Entry, Image};

/// Recorded from Intel's module: two pages added, then the first measured chunk by chunk.
#[test]
fn the_stream_is_the_one_that_the_module_hashes() {
    let mut builder = MrtdBuilder::new();
    builder.page_add(Gpa::new(0x8000_0000));
    builder.page_add(Gpa::new(0x8000_1000));
    builder.extend_page(Gpa::new(0x8000_0000), PageContents::Bytes(&[0xa5; 4096]));
    let expected = "a2f05e45076ad038641c40b79a9f68fcdc312b6d4800b6cb368d3edb5adea3f4\
                    0e72d80d2dac17e674a94b84b6712dd0";
    assert_eq!(Ok(builder.finalize()), expected.parse());
}

fn image() -> Vec<u8> {
    Image::hello().build()
}

#[test]
fn the_two_page_orders_give_different_values_for_a_section_of_several_pages() {
    let bytes = image();
    let image = TdvfImage::parse(&bytes).unwrap();
    let of = |model| of_plan(&image.build_plan(model, HostContents::default()).unwrap());
    assert_ne!(of(LoaderModel::INTERLEAVED), of(LoaderModel::TWO_PASS));
}

#[test]
fn an_unfilled_tail_is_measured_as_zeros() {
    let mut padded = [0u8; 4096];
    padded[..300].fill(7);
    let value = |contents| {
        let mut builder = MrtdBuilder::new();
        builder.extend_page(Gpa::new(0x1000), contents);
        builder.finalize()
    };
    assert_eq!(value(PageContents::Bytes(&padded)), value(PageContents::Bytes(&padded[..300])));
    assert_eq!(value(PageContents::Zero), value(PageContents::Bytes(&[0; 4096])));
}

#[test]
fn a_plan_and_the_calls_it_stands_for_agree() {
    let bytes = image();
    let image = TdvfImage::parse(&bytes).unwrap();
    for model in [LoaderModel::INTERLEAVED, LoaderModel::TWO_PASS, LoaderModel::GCE] {
        let plan = image.build_plan(model, HostContents::default()).unwrap();
        let mut builder = MrtdBuilder::new();
        for step in plan.steps() {
            match step {
                BuildStep::Add { gpa, .. } => builder.page_add(gpa),
                BuildStep::Extend { gpa, contents } => {
                    let mut page = [0; 4096];
                    page[..contents.bytes().len()].copy_from_slice(contents.bytes());
                    for (index, chunk) in page.as_chunks::<CHUNK_BYTES>().0.iter().enumerate() {
                        builder.extend(gpa.wrapping_add((index * CHUNK_BYTES) as u64), chunk);
                    }
                }
            }
        }
        assert_eq!(builder.finalize(), of_plan(&plan), "{model:?}");
    }
}

#[test]
fn every_known_variant_of_an_image_is_tried() {
    let bytes = image();
    let image = TdvfImage::parse(&bytes).unwrap();
    let found = variants::all(&image, HostContents::default()).unwrap();
    assert_eq!(found.len(), variants::known().count());
    let early = found.iter().filter(|(variant, _)| variant.id() == "gce-all-measured-early-accept").count();
    assert_eq!(early, 6);
}

#[test]
fn measured_contents_of_the_host_must_be_given() {
    let mut source = Image::hello();
    source.entries.push(Entry {
        gpa: 0x100_0000,
        mem_size: 0x2000,
        kind: SectionKind::PAYLOAD,
        attributes: Attributes::MR_EXTEND,
        ..Entry::default()
    });
    let bytes = source.build();
    let image = TdvfImage::parse(&bytes).unwrap();
    let error = variants::all(&image, HostContents::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "section 4 (Payload): it is measured, and what the host writes into it was not given"
    );
    let kernel = [1; 0x1800];
    let host = HostContents { payload: Some(&kernel), ..HostContents::default() };
    assert!(variants::mrtd(&image, Variant::Interleaved, host).unwrap().is_some());
    let kernel = [1; 0x2001];
    let host = HostContents { payload: Some(&kernel), ..HostContents::default() };
    assert!(matches!(variants::mrtd(&image, Variant::Interleaved, host), Err(TdvfError::Section { .. })));
}
