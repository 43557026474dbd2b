//! Debian's `ovmf` package (2022.11-6+deb12u2): the MRTDs that two independent programs computed, and clear
//! errors for the images that are no TDVF images.

use td_image::digest::Digest384;
use td_image::mrtd::variants::{self, Variant};
use td_image::tdvf::{HostContents, SectionKind, TdvfError, TdvfImage};
use tdvisor_test_data::ovmf;

const SINGLE_PASS: &str = "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057\
                           fb887fed0744d5631a212967fb231c47";
const TWO_PASS: &str = "acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b3\
                        3db3b32e6924cba830a724eed443f7e1";
const CFV: &str = "f87302177b059d54a2cf0c5f13340dbabf5c9dd60dc3f996c68b776fbe4de959\
                   769443a3d8ef6538b97d7e151c8298e8";
/// VARS and CODE in one file.
const OVMF_FD_BYTES: usize = 2 << 20;

fn read(path: &str) -> Vec<u8> {
    std::fs::read(ovmf::file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
#[ignore = "needs the package ovmf"]
fn debians_combined_image_has_the_published_mrtds_and_cfv_digest() {
    let bytes = read(ovmf::COMBINED);
    assert_eq!(bytes.len(), OVMF_FD_BYTES);
    let image = TdvfImage::parse(&bytes).unwrap();
    let cfv = image.sections().find(|section| section.kind == SectionKind::CFV).unwrap();
    assert_eq!(Digest384::of(image.raw(&cfv)).to_string(), CFV);
    let found = variants::all(&image, HostContents::default()).unwrap();
    let value = |variant| found.iter().find(|(name, _)| *name == variant).map(|(_, value)| value.to_string());
    assert_eq!(value(Variant::Interleaved).as_deref(), Some(SINGLE_PASS));
    assert_eq!(value(Variant::TwoPass).as_deref(), Some(TWO_PASS));
}

#[test]
#[ignore = "needs the package ovmf"]
fn a_code_only_image_names_the_section_whose_data_are_missing() {
    let code = read(ovmf::CODE);
    let error = TdvfImage::parse(&code).unwrap_err();
    assert!(error.to_string().starts_with("section 0 (BFV): its data"), "{error}");
    let mut combined = read(ovmf::VARS);
    combined.extend(code);
    let image = TdvfImage::parse(&combined).unwrap();
    let mrtd = variants::mrtd(&image, Variant::Interleaved, HostContents::default()).unwrap();
    assert_eq!(mrtd.unwrap().to_string(), SINGLE_PASS, "VARS in front of CODE is the combined image");
}

#[test]
#[ignore = "needs the package ovmf"]
fn images_that_were_built_without_tdx_say_so() {
    for (path, expected) in [
        ("/usr/share/OVMF/OVMF_CODE_4M.fd", TdvfError::NotForTdx),
        ("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", TdvfError::NotForTdx),
        (ovmf::VARS, TdvfError::NoMetadata),
        ("/usr/share/OVMF/OVMF_VARS_4M.fd", TdvfError::NoMetadata),
    ] {
        let bytes = read(path);
        assert_eq!(TdvfImage::parse(&bytes).unwrap_err(), expected, "{path}");
    }
}
