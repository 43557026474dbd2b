//! What is in a core file, as a reader that nobody here wrote sees it.

use object::read::elf::{ElfFile64, FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf as form};
use tdvisor_base::Gpa;
use x86_arch::{CpuState, Gpr};

use super::memory::PAGE;
use super::*;

const TEXT: &[u8] = b"OSRELEASE=7.3.4\nPAGESIZE=4096\n";

fn file(vcpus: &[CpuState], vmcoreinfo: Option<&[u8]>, segments: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let notes = notes::notes(vcpus, vmcoreinfo);
    let spans: Vec<_> = segments.iter().map(|(gpa, data)| (Gpa::new(*gpa), data.len() as u64)).collect();
    let mut file = elf::headers(notes.len() as u64, &spans).unwrap();
    file.extend(notes);
    segments.iter().for_each(|(_, data)| file.extend(data));
    file
}

fn header(file: &[u8]) -> &form::FileHeader64<Endianness> {
    form::FileHeader64::parse(file).unwrap()
}

fn segments(file: &[u8]) -> Vec<(form::ProgramType, u64, Vec<u8>)> {
    let header = header(file);
    let endian = header.endian().unwrap();
    header
        .program_headers(endian, file)
        .unwrap()
        .iter()
        .map(|segment| {
            let data = segment.data(endian, file).unwrap();
            (segment.p_type(endian), segment.p_paddr(endian), data.to_vec())
        })
        .collect()
}

#[test]
fn a_core_file_has_a_set_of_registers_for_each_vcpu_and_what_the_kernel_says_of_itself() {
    let mut first = CpuState::default();
    first.set_rip(0xffff_ffff_8100_0000);
    first.set_gpr(Gpr::R15, 15);
    let file = file(&[first, CpuState::default()], Some(TEXT), &[]);
    assert_eq!(header(&file).e_type(Endianness::Little), form::ET_CORE);
    ElfFile64::<Endianness>::parse(&*file).expect("a whole file");
    let headers = header(&file).program_headers(Endianness::Little, &*file).unwrap();
    let mut notes = headers[0].notes(Endianness::Little, &*file).unwrap().expect("notes");
    for number in 1u32..=2 {
        let note = notes.next().unwrap().expect("registers");
        assert_eq!((note.name(), note.n_type(Endianness::Little)), (&b"CORE"[..], form::NT_PRSTATUS));
        let status = note.desc();
        assert_eq!(status.len(), 336, "struct elf_prstatus");
        assert_eq!(status[32..36], number.to_le_bytes());
        let (r15, rip) = if number == 1 { (15u64, 0xffff_ffff_8100_0000) } else { (0, 0) };
        assert_eq!(status[112..120], r15.to_le_bytes());
        assert_eq!(status[112 + 16 * 8..112 + 17 * 8], u64::to_le_bytes(rip));
    }
    let info = notes.next().unwrap().expect("VMCOREINFO");
    assert_eq!((info.name(), info.desc()), (&b"VMCOREINFO"[..], TEXT));
    assert!(notes.next().unwrap().is_none());
}

#[test]
fn memory_is_at_its_guest_physical_address() {
    let pages = [(0x1000, vec![1; PAGE]), (0x10_0000_0000, vec![2; 2 * PAGE])];
    let segments = segments(&file(&[], None, &pages));
    let loads: Vec<_> = segments
        .into_iter()
        .filter(|(kind, ..)| *kind == form::PT_LOAD)
        .map(|(_, at, data)| (at, data))
        .collect();
    assert_eq!(loads, pages);
}

#[test]
fn more_segments_than_the_header_can_count_are_counted_elsewhere() {
    for count in [0xfffd, 0xfffe, 0xffff, 0x1_2345] {
        let pieces: Vec<_> = (0..count).map(|n: u64| (n << 13, vec![n as u8])).collect();
        let segments = segments(&file(&[], None, &pieces));
        assert_eq!(segments.len() as u64, count + 1, "and the notes");
        assert_eq!(segments.last().unwrap().2, [(count - 1) as u8]);
    }
    assert!(elf::headers(0, &vec![(Gpa::new(0), 1); MAX_PIECES + 1]).is_none());
}

/// A page that begins with a VMCOREINFO, changed.
fn page(change: impl FnOnce(&mut [u8; PAGE])) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let note = notes::notes(&[], Some(TEXT));
    page[..note.len()].copy_from_slice(&note);
    change(&mut page);
    page
}

#[test]
fn vmcoreinfo_is_found_where_it_is_whole() {
    assert_eq!(notes::vmcoreinfo(&page(|_| {})), Some(TEXT));
    for (what, at) in [("length of the name", 0), ("type", 8), ("name", 13), ("text", 24)] {
        assert_eq!(notes::vmcoreinfo(&page(|page| page[at] ^= 1)), None, "{what}");
    }
    let too_long = page(|page| page[4..8].copy_from_slice(&4096u32.to_le_bytes()));
    assert_eq!(notes::vmcoreinfo(&too_long), None, "longer than its memory");
}
