//! The built images, read as a loader reads them.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its subject has failed")]

use object::{Object, ObjectSection};
use td_image::mrtd::variants::{self, Variant};
use td_image::tdvf::{HostContents, TdvfImage};
use tdvisor_guest_images::{GUESTS, GuestImage, pack};

const MR_EXTEND: u32 = 1;
const PAGE_AUG: u32 = 2;

#[derive(Debug)]
struct Section {
    data_offset: u32,
    raw_size: u32,
    gpa: u64,
    mem_size: u64,
    kind: u32,
    attributes: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn guid(text: &str) -> Vec<u8> {
    let fields: Vec<&str> = text.split('-').collect();
    let hex = |digits: &str| -> Vec<u8> {
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
    };
    let reversed = |digits: &str| hex(digits).into_iter().rev().collect::<Vec<_>>();
    [reversed(fields[0]), reversed(fields[1]), reversed(fields[2]), hex(fields[3]), hex(fields[4])].concat()
}

/// Follows the GUID table at the image's end to the descriptor.
fn sections(guest: &GuestImage) -> Vec<Section> {
    let image = guest.image;
    let end = image.len();
    assert_eq!(image[end - 0x30..end - 0x20], guid("96b582de-1fb2-45f7-baea-a366c55a082d"), "footer GUID");
    assert_eq!(image[end - 0x32..end - 0x30], 40u16.to_le_bytes(), "length of the whole table");
    assert_eq!(image[end - 0x42..end - 0x32], guid("e47a6535-984a-4798-865e-4685a7bf8ec2"), "metadata entry");
    assert_eq!(image[end - 0x44..end - 0x42], 22u16.to_le_bytes(), "length of the entry");
    let descriptor = end - u32_at(image, end - 0x48) as usize;
    assert_eq!(image[descriptor - 16..descriptor], guid("e9eaf9f3-168e-44d5-a8eb-7f4d8738f6ae"));
    assert_eq!(&image[descriptor..descriptor + 4], b"TDVF");
    let count = u32_at(image, descriptor + 12) as usize;
    assert_eq!(u32_at(image, descriptor + 4) as usize, 16 + 32 * count, "length of the descriptor");
    assert_eq!(u32_at(image, descriptor + 8), 1, "version");
    (0..count)
        .map(|index| {
            let at = descriptor + 16 + 32 * index;
            Section {
                data_offset: u32_at(image, at),
                raw_size: u32_at(image, at + 4),
                gpa: u64_at(image, at + 8),
                mem_size: u64_at(image, at + 16),
                kind: u32_at(image, at + 24),
                attributes: u32_at(image, at + 28),
            }
        })
        .collect()
}

#[test]
fn every_image_is_its_elf_file_packed() {
    for guest in GUESTS {
        assert_eq!(pack::pack(guest.elf).unwrap(), guest.image, "{}", guest.name);
    }
}

#[test]
fn the_metadata_lists_volume_memory_hob_and_pool_with_their_attributes() {
    for guest in GUESTS {
        let sections = sections(guest);
        let kinds: Vec<_> = sections.iter().map(|section| (section.kind, section.attributes)).collect();
        assert_eq!(kinds, [(0, MR_EXTEND), (3, 0), (2, 0), (4, PAGE_AUG)], "{}", guest.name);
        let volume = &sections[0];
        assert_eq!((volume.data_offset, volume.raw_size as usize), (0, guest.image.len()));
        assert_eq!(volume.gpa + volume.mem_size, 1 << 32, "the volume ends at 4 GiB");
    }
}

#[test]
fn sections_are_whole_pages_apart_from_each_other_and_only_the_volume_has_bytes() {
    for guest in GUESTS {
        let mut sections = sections(guest);
        for section in &sections {
            assert!(section.gpa.is_multiple_of(4096) && section.mem_size.is_multiple_of(4096), "{section:?}");
            assert!(section.mem_size > 0, "{section:?}");
            assert!(section.kind == 0 || (section.raw_size, section.data_offset) == (0, 0), "{section:?}");
        }
        sections.sort_by_key(|section| section.gpa);
        for pair in sections.windows(2) {
            assert!(pair[0].gpa + pair[0].mem_size <= pair[1].gpa, "{}: {pair:?}", guest.name);
        }
    }
}

#[test]
fn the_reset_vector_jumps_into_the_stub() {
    for guest in GUESTS {
        let end = guest.image.len();
        let vector = &guest.image[end - 16..];
        assert_eq!(vector[0], 0xE9, "{}: a near jump", guest.name);
        let target = (end as i64 - 16 + 5) + i64::from(u32_at(vector, 1) as i32);
        assert!(
            (end as i64 - 0x2000..end as i64 - 16).contains(&target),
            "{}: it leads to {target:#x}",
            guest.name
        );
    }
}

/// What `tools/guest-images/MRTD.txt` says, `name MRTD` a line.
#[test]
fn each_image_measures_to_the_mrtd_that_is_written_down() {
    let written = include_str!("../../MRTD.txt");
    let written: Vec<&str> = written.lines().filter(|line| !line.starts_with('#')).collect();
    let measured = GUESTS.map(|guest| {
        let image = TdvfImage::parse(guest.image).unwrap();
        let mrtd = variants::mrtd(&image, Variant::Interleaved, HostContents::default()).unwrap().unwrap();
        format!("{} {mrtd}", guest.name)
    });
    assert_eq!(
        written, measured,
        "an image has changed: write the right-hand lines into tools/guest-images/MRTD.txt, and say so in CHANGELOG.md"
    );
}

/// Panic messages carry source paths; one with this machine's folders would make the measurement depend on them.
#[test]
fn no_path_of_this_machine_is_in_an_image() {
    let here = env!("CARGO_MANIFEST_DIR").as_bytes();
    for guest in GUESTS {
        for path in [here, b".cargo/registry"] {
            let found = guest.image.windows(path.len()).any(|window| window == path);
            assert!(!found, "{} contains {}", guest.name, String::from_utf8_lossy(path));
        }
    }
}

#[test]
fn the_elf_files_keep_the_defmt_strings_and_the_debug_information() {
    for guest in GUESTS {
        let elf = object::File::parse(guest.elf).unwrap();
        for section in [".defmt", ".debug_info", ".debug_line"] {
            assert!(
                elf.section_by_name(section).is_some_and(|found| found.size() > 0),
                "{}: {section}",
                guest.name
            );
        }
    }
}
