use igvm::{IgvmDirectiveHeader, IgvmFile, IgvmPlatformHeader, IgvmRevision};
use igvm_defs::{
    IGVM_VHS_PARAMETER_INSERT, IGVM_VHS_SUPPORTED_PLATFORM, IgvmPageDataFlags, IgvmPageDataType,
    IgvmPlatformType,
};

use super::*;

const TDX: u32 = 1;
const SNP: u32 = 2;

fn platform(mask: u32, platform_type: IgvmPlatformType) -> IgvmPlatformHeader {
    IgvmPlatformHeader::SupportedPlatform(IGVM_VHS_SUPPORTED_PLATFORM {
        compatibility_mask: mask,
        highest_vtl: 0,
        platform_type,
        platform_version: 1,
        shared_gpa_boundary: 0,
    })
}

fn page(gpa: u64, flags: IgvmPageDataFlags, data: &[u8]) -> IgvmDirectiveHeader {
    let (compatibility_mask, data_type) = (TDX, IgvmPageDataType::NORMAL);
    IgvmDirectiveHeader::PageData { gpa, compatibility_mask, flags, data_type, data: data.to_vec() }
}

fn directives() -> Vec<IgvmDirectiveHeader> {
    let flags = IgvmPageDataFlags::new();
    let area = |index| IgvmDirectiveHeader::ParameterArea {
        number_of_bytes: 0x2000,
        parameter_area_index: index,
        initial_data: Vec::new(),
    };
    vec![
        page(0x1000, flags, &[1; 4096]),
        area(0),
        page(0x2000, flags.with_unmeasured(true), &[2; 4096]),
        page(0x4000, flags, &[]),
        page(0x3000, flags.with_shared(true), &[3; 4096]),
        IgvmDirectiveHeader::ParameterInsert(IGVM_VHS_PARAMETER_INSERT {
            gpa: 0x8000,
            compatibility_mask: TDX,
            parameter_area_index: 0,
        }),
    ]
}

fn write(directives: Vec<IgvmDirectiveHeader>) -> Vec<u8> {
    let platforms = vec![platform(TDX, IgvmPlatformType::TDX)];
    let file = IgvmFile::new(IgvmRevision::V1, platforms, Vec::new(), directives).unwrap();
    let mut bytes = Vec::new();
    file.serialize(&mut bytes).unwrap();
    bytes
}

/// Puts a right checksum into a file that a test has changed.
pub(super) fn seal(bytes: &mut [u8]) {
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (start, size) = (word(8), word(12));
    let Some(headers) = bytes.get(start..start.saturating_add(size)) else { return };
    let mut crc = crc::Crc32::new();
    crc.update(&bytes[..CHECKSUM_AT]);
    crc.update(&[0; 4]);
    crc.update(headers);
    let crc = crc.finish();
    bytes[CHECKSUM_AT..CHECKSUM_AT + 4].copy_from_slice(&crc.to_le_bytes());
}

/// The measurement by crate `igvm`'s reading of the file.
fn second_opinion(bytes: &[u8]) -> [Digest384; 2] {
    let file = IgvmFile::new_from_binary(bytes, None).unwrap();
    let (mut open_vmm, mut td_shim) = (MrtdBuilder::new(), MrtdBuilder::new());
    for directive in file.directives() {
        match directive {
            IgvmDirectiveHeader::PageData { gpa, flags, data, .. } if !flags.shared() => {
                let gpa = Gpa::new(*gpa);
                open_vmm.page_add(gpa);
                td_shim.page_add(gpa);
                if !flags.unmeasured() {
                    open_vmm.extend_page(gpa, PageContents::Bytes(data));
                }
                if !flags.unmeasured() && !data.is_empty() {
                    td_shim.extend_page(gpa, PageContents::Bytes(data));
                }
            }
            IgvmDirectiveHeader::ParameterInsert(insert) => {
                open_vmm.page_add(Gpa::new(insert.gpa));
                open_vmm.page_add(Gpa::new(insert.gpa + 0x1000));
            }
            _ => {}
        }
    }
    [open_vmm.finalize(), td_shim.finalize()]
}

#[test]
fn both_loaders_reach_the_values_that_the_igvm_crate_reads_from_the_file() {
    let bytes = write(directives());
    let image = IgvmImage::parse(&bytes).unwrap();
    let found = IgvmLoader::ALL.map(|loader| image.mrtd(loader));
    assert_eq!(found, second_opinion(&bytes));
    assert_ne!(found[0], found[1]);
    let adds = image.steps(IgvmLoader::OpenVmm).filter(|step| matches!(step, BuildStep::Add { .. })).count();
    assert_eq!(adds, 5, "three pages and a parameter area of two; the shared page is not added");
}

fn problem(directives: Vec<IgvmDirectiveHeader>, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut bytes = write(directives);
    change(&mut bytes);
    seal(&mut bytes);
    IgvmImage::parse(&bytes).unwrap_err().to_string()
}

/// Offset of the body of the first header of this kind.
fn body_of(bytes: &[u8], kind: u32) -> usize {
    let mut at = 24;
    loop {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        if word(at) == kind {
            return at + 8;
        }
        at += 8 + (word(at + 4) as usize).next_multiple_of(8);
    }
}

#[test]
fn a_broken_file_names_the_directive() {
    let put = |kind: u32, offset: usize, value: u64, length: usize| {
        problem(directives(), |bytes| {
            let at = body_of(bytes, kind) + offset;
            bytes[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        })
    };
    assert_eq!(
        put(PAGE_DATA, 0, 0x1001, 8),
        "directive 0 (PageData): address 0x1001 is not a multiple of 4 KiB"
    );
    assert_eq!(
        put(PAGE_DATA, 0, 1 << 51, 8),
        "directive 0 (PageData): 0x1000 bytes at 0x8000000000000 are beyond private guest-physical memory"
    );
    assert!(
        put(PAGE_DATA, 12, u64::MAX, 4).contains("directive 0 (PageData): its data at offset 0xffffffff")
    );
    assert!(put(PAGE_DATA, 16, 1, 4).contains("a 2 MiB page"));
    assert_eq!(put(PAGE_DATA, 0, 0x2000, 8).split(':').next(), Some("directive 2 (PageData)"));
    assert!(put(PARAMETER_INSERT, 12, 7, 4).contains("parameter area 7 is not declared"));
    assert!(put(PARAMETER_AREA, 0, 1 << 40, 8).contains("would be added at build time"));
    assert!(put(PARAMETER_AREA, 0, 0x1800, 8).contains("size 0x1800"));
}

#[test]
fn files_that_are_no_td_images_say_so() {
    assert!(matches!(IgvmImage::parse(b"IGVM"), Err(IgvmError::Truncated(_))));
    let bytes = write(directives());
    assert!(matches!(IgvmImage::parse(&bytes[..bytes.len() - 1]), Err(IgvmError::FileSize { .. })));
    let mut flipped = bytes.clone();
    flipped[40] ^= 1;
    assert!(matches!(IgvmImage::parse(&flipped), Err(IgvmError::Checksum { .. })));
    let other = problem(directives(), |bytes| {
        let at = body_of(bytes, SUPPORTED_PLATFORM) + 5;
        bytes[at] = SNP as u8;
    });
    assert_eq!(other, "the IGVM file is not for TDX");
    let outside = problem(directives(), |bytes| bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes()));
    assert!(outside.contains("lie outside the file"), "{outside}");
}
