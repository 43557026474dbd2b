//! The form of the host image: what boot loaders look for.

use object::Endianness;
use object::elf::{FileHeader64, PF_W, PF_X, PT_LOAD};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use tdvisor_host_image::HOST_IMAGE;

/// The multiboot2 header has to be in so many bytes of the file, aligned to eight.
const SEARCHED: usize = 32 << 10;

const WRITE_AND_EXECUTE: u32 = PF_W.0 | PF_X.0;

fn word(at: usize) -> u32 {
    u32::from_le_bytes(HOST_IMAGE[at..at + 4].try_into().expect("four bytes"))
}

fn segments() -> Vec<(u64, u64, u32)> {
    let header = FileHeader64::<Endianness>::parse(HOST_IMAGE).expect("an ELF file");
    let segments = header.program_headers(Endianness::Little, HOST_IMAGE).expect("program headers");
    segments
        .iter()
        .filter(|one| one.p_type(Endianness::Little) == PT_LOAD)
        .map(|one| {
            let little = Endianness::Little;
            (one.p_paddr(little), one.p_memsz(little), one.p_flags(little).0)
        })
        .collect()
}

fn is_code(at: u64) -> bool {
    segments()
        .iter()
        .any(|(base, bytes, flags)| (*base..base + bytes).contains(&at) && flags & PF_X.0 == PF_X.0)
}

#[test]
fn no_segment_is_both_written_and_executed_and_all_lie_between_16_and_48_mib() {
    for (base, bytes, flags) in segments() {
        assert_ne!(flags & WRITE_AND_EXECUTE, WRITE_AND_EXECUTE, "{base:#x}");
        assert!(base >= 16 << 20 && base + bytes <= 48 << 20, "{base:#x} {bytes:#x}");
    }
}

#[test]
fn the_64_bit_entry_is_code() {
    let header = FileHeader64::<Endianness>::parse(HOST_IMAGE).expect("an ELF file");
    assert!(is_code(header.e_entry(Endianness::Little)));
}

#[test]
fn the_multiboot2_header_adds_up_and_its_entry_is_code() {
    const MAGIC: u32 = 0xE852_50D6;
    let at = (0..SEARCHED).step_by(8).find(|at| word(*at) == MAGIC).expect("a header");
    let (length, checksum) = (word(at + 8), word(at + 12));
    assert_eq!(MAGIC.wrapping_add(length).wrapping_add(checksum), 0);
    let (mut tag, mut entry) = (at + 16, None);
    while word(tag) & 0xffff != 0 {
        if word(tag) & 0xffff == 3 {
            entry = Some(word(tag + 8));
        }
        tag += word(tag + 4).next_multiple_of(8) as usize;
    }
    assert_eq!(tag + 8, at + length as usize, "the end tag is the last");
    assert!(is_code(entry.expect("an entry address").into()));
}

#[test]
fn the_pvh_note_leads_to_code() {
    const XEN: [u8; 4] = *b"Xen\0";
    const PHYS32_ENTRY: u32 = 18;
    let header = FileHeader64::<Endianness>::parse(HOST_IMAGE).expect("an ELF file");
    let segments = header.program_headers(Endianness::Little, HOST_IMAGE).expect("program headers");
    let mut notes =
        segments.iter().find_map(|one| one.notes(Endianness::Little, HOST_IMAGE).unwrap()).unwrap();
    let note = notes.next().unwrap().expect("a note");
    assert_eq!((note.name_bytes(), note.n_type(Endianness::Little).0), (&XEN[..], PHYS32_ENTRY));
    assert!(is_code(u64::from_le_bytes(note.desc().try_into().unwrap())));
}

#[test]
fn no_path_of_the_machine_that_built_it_is_inside() {
    let here = env!("CARGO_MANIFEST_DIR").as_bytes();
    let root = &here[..here.len() - "/tools/host-image".len()];
    assert!(!HOST_IMAGE.windows(root.len()).any(|window| window == root));
}
