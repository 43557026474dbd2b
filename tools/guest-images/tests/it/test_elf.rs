//! ELF kernels, good and hostile.

use crate::kernel::{Kernel, KernelError, Plan};
use crate::memory_map::Use;
use crate::test_bzimage::check_placement;
use crate::{for_each_changed_byte, mib, ram};

/// A program header: where, bytes in the file, bytes in memory.
struct Segment(u64, Vec<u8>, u64);

fn elf(entry: u64, segments: &[Segment]) -> Vec<u8> {
    let mut file = vec![0; 64 + 56 * segments.len()];
    file[..6].copy_from_slice(b"\x7FELF\x02\x01");
    file[16] = 2;
    file[18] = 62;
    file[24..32].copy_from_slice(&entry.to_le_bytes());
    file[32] = 64;
    file[54] = 56;
    file[56] = segments.len() as u8;
    for (index, Segment(address, bytes, length)) in segments.iter().enumerate() {
        let at = 64 + 56 * index;
        let offset = file.len() as u64;
        file[at] = 1;
        file[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
        file[at + 16..at + 24].copy_from_slice(&(address | 0xFFFF_FFFF_8000_0000).to_le_bytes());
        file[at + 24..at + 32].copy_from_slice(&address.to_le_bytes());
        file[at + 32..at + 40].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        file[at + 40..at + 48].copy_from_slice(&length.to_le_bytes());
        file.extend(bytes);
    }
    file
}

fn vmlinux() -> Vec<u8> {
    elf(16 << 20, &[Segment(16 << 20, vec![1; 100], 4096), Segment(18 << 20, vec![2; 50], 1 << 20)])
}

fn place(file: &[u8]) -> Result<Plan<'_>, KernelError> {
    Kernel::parse(file)?.place(&mut ram(64))
}

#[test]
fn segments_go_to_their_physical_addresses_and_the_rest_of_each_is_zero() {
    let file = vmlinux();
    let plan = place(&file).unwrap();
    assert_eq!((plan.entry, plan.range), (16 << 20, mib(16, 19)));
    let parts: Vec<_> =
        plan.parts().iter().map(|part| (part.address, part.bytes.len(), part.length)).collect();
    assert_eq!(parts, [(16 << 20, 100, 4096), (18 << 20, 50, 1 << 20)]);
}

#[test]
fn a_kernel_whose_place_is_taken_is_refused_with_the_place() {
    let file = vmlinux();
    let mut map = ram(64);
    map.mark(mib(17, 18), Use::Loaded).unwrap();
    let error = Kernel::parse(&file).unwrap().place(&mut map).unwrap_err();
    assert_eq!(error, KernelError::Occupied(mib(16, 19)));
    let error = Kernel::parse(&file).unwrap().place(&mut ram(17)).unwrap_err();
    assert_eq!(error.to_string(), "no memory for the kernel at 0x1000000..0x1300000");
}

#[test]
fn segments_that_overlap_are_refused() {
    for other in [16 << 20, (16 << 20) + 4095, (16 << 20) - 1] {
        let file = elf(16 << 20, &[Segment(16 << 20, vec![1; 9], 4096), Segment(other, vec![2; 9], 4096)]);
        assert!(matches!(place(&file), Err(KernelError::Overlap { .. })), "{other:#x}");
    }
}

#[test]
fn segments_at_impossible_places_are_refused() {
    for address in [0, 0xF_F000, (4 << 30) - 1, 4 << 30, u64::MAX, u64::MAX - 4095] {
        let file = elf(address, &[Segment(address, vec![1; 9], 4096)]);
        assert!(place(&file).is_err(), "{address:#x}");
    }
}

#[test]
fn what_is_no_kernel_is_refused_by_name() {
    let refused = |file: &[u8]| place(file).map(|_| ()).unwrap_err().to_string();
    let with = |at: usize, value: u8| {
        let mut file = vmlinux();
        file[at] = value;
        file
    };
    assert_eq!(refused(&with(4, 1)), "unsupported ELF kernel: not 64-bit and little-endian");
    assert_eq!(refused(&with(5, 2)), "unsupported ELF kernel: not 64-bit and little-endian");
    assert_eq!(refused(&with(18, 40)), "unsupported ELF kernel: not for x86-64");
    assert_eq!(refused(&with(16, 3)), "unsupported ELF kernel: not an executable");
    assert_eq!(refused(&with(54, 57)), "corrupt ELF kernel: impossible program headers");
    assert_eq!(refused(&with(56, 65)), "corrupt ELF kernel: impossible program headers");
    assert_eq!(refused(&with(56, 0)), "corrupt ELF kernel: nothing to load");
    assert_eq!(refused(&elf(5, &[Segment(16 << 20, vec![1; 9], 9)])), {
        "corrupt ELF kernel: its entry point is in no segment"
    });
    assert_eq!(refused(&elf(16 << 20, &[Segment(16 << 20, vec![1; 9], 8)])), {
        "corrupt ELF kernel: a segment is larger in the file than in memory"
    });
    let many: Vec<_> = (0..40).map(|index| Segment((16 + index) << 20, vec![1], 1)).collect();
    assert_eq!(refused(&elf(16 << 20, &many)), "corrupt ELF kernel: too many segments");
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let file = vmlinux();
    for length in 0..file.len() {
        assert!(place(&file[..length]).is_err(), "{length} of {} bytes were accepted", file.len());
    }
}

#[test]
fn no_changed_header_makes_the_kernel_go_where_it_must_not() {
    let map = ram(64);
    let file = vmlinux();
    for_each_changed_byte(&file, 0..64 + 2 * 56, |file| check_placement(file, &map));
}
