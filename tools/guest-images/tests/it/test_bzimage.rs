//! bzImage files, good and hostile.

use crate::kernel::{BzImage, Kernel, KernelError, LOAD_LIMIT};
use crate::memory_map::{MemoryMap, Use};
use crate::{for_each_changed_byte, mib, ram};

/// A small kernel: one setup sector and 1 KiB of code, preferring 16 MiB, with 8 MiB of room.
pub fn bzimage() -> Vec<u8> {
    let mut file = vec![0; 1024 + 1024];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1F1, &[1]);
    put(0x1F4, &(1024u32 / 16).to_le_bytes());
    put(0x1FE, &[0x55, 0xAA]);
    put(0x201, &[0x6A]);
    put(0x202, b"HdrS");
    put(0x206, &0x020Fu16.to_le_bytes());
    put(0x211, &[1]);
    put(0x22C, &0x7FFF_FFFFu32.to_le_bytes());
    put(0x230, &0x20_0000u32.to_le_bytes());
    put(0x234, &[1, 21]);
    put(0x236, &1u16.to_le_bytes());
    put(0x238, &2047u32.to_le_bytes());
    put(0x248, &0x100u32.to_le_bytes());
    put(0x24C, &0x200u32.to_le_bytes());
    put(0x258, &(16u64 << 20).to_le_bytes());
    put(0x260, &(8u32 << 20).to_le_bytes());
    file[1024..].fill(0xCC);
    file
}

fn parse(file: &[u8]) -> Result<BzImage<'_>, KernelError> {
    match Kernel::parse(file)? {
        Kernel::BzImage(image) => Ok(image),
        Kernel::Elf(_) => panic!("a bzImage was taken for an ELF file"),
    }
}

fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = bzimage();
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn a_kernel_goes_to_its_preferred_address_and_is_entered_0x200_bytes_in() {
    let file = bzimage();
    let mut map = ram(128);
    let plan = parse(&file).unwrap().place(&mut map).unwrap();
    assert_eq!((plan.range, plan.entry), (mib(16, 24), (16 << 20) + 0x200));
    assert_eq!(plan.parts().len(), 1);
    assert_eq!((plan.parts()[0].address, plan.parts()[0].bytes), (16 << 20, &file[1024..2048]));
    assert!(!map.is_free(mib(23, 24)) && map.is_free(mib(24, 25)), "its room is taken, and nothing else");
}

#[test]
fn a_relocatable_kernel_goes_higher_when_its_place_is_taken_and_another_does_not() {
    let mut map = ram(128);
    map.mark(mib(17, 18), Use::Loaded).unwrap();
    let file = bzimage();
    let plan = parse(&file).unwrap().place(&mut map.clone()).unwrap();
    assert_eq!((plan.range, plan.entry), (mib(18, 26), (18 << 20) + 0x200));
    let file = with(0x234, &[0]);
    let error = parse(&file).unwrap().place(&mut map).unwrap_err();
    assert_eq!(error, KernelError::Occupied(mib(16, 24)));
}

#[test]
fn a_relocatable_kernel_is_aligned_as_it_asks() {
    let file = with(0x258, &((16u64 << 20) + 0x1000).to_le_bytes());
    let plan = parse(&file).unwrap().place(&mut ram(128)).unwrap();
    assert_eq!(plan.range, mib(18, 26));
}

#[test]
fn too_little_memory_is_an_error_with_numbers_and_the_map_stays() {
    let mut map = ram(20);
    let file = bzimage();
    let error = parse(&file).unwrap().place(&mut map).unwrap_err();
    assert_eq!(error, KernelError::NoRoom { needed: 8 << 20, from: 16 << 20 });
    assert_eq!(error.to_string(), "too little memory: kernel needs 8192 KiB above 0x1000000");
    assert!(map.is_free(mib(2, 20)));
}

#[test]
fn memory_above_4_gib_is_no_place_for_a_kernel() {
    let mut map = ram(20);
    map.add(mib(4096, 8192)).unwrap();
    let file = bzimage();
    assert!(matches!(parse(&file).unwrap().place(&mut map), Err(KernelError::NoRoom { .. })));
}

#[test]
fn an_init_size_smaller_than_the_code_does_not_shrink_its_place() {
    let file = with(0x260, &0u32.to_le_bytes());
    let plan = parse(&file).unwrap().place(&mut ram(128)).unwrap();
    assert_eq!(plan.range.end - plan.range.start, 1024);
}

#[test]
fn what_cannot_be_booted_is_refused_by_name() {
    let refused = |file: &[u8]| parse(file).map(|_| ()).unwrap_err().to_string();
    assert_eq!(refused(&with(0x206, &[0x0B, 0x02])), "unsupported bzImage: boot protocol before 2.12");
    assert_eq!(refused(&with(0x211, &[0])), "unsupported bzImage: no 64-bit entry point");
    assert_eq!(refused(&with(0x236, &[0, 0])), "unsupported bzImage: no 64-bit entry point");
    assert_eq!(refused(&with(0x201, &[0x10])), "corrupt bzImage: impossible header length");
    assert_eq!(refused(&with(0x201, &[0xFF])), "corrupt bzImage: impossible header length");
    assert_eq!(
        refused(&with(0x1F4, &u32::MAX.to_le_bytes())),
        "corrupt bzImage: the file is shorter than its header says"
    );
    assert_eq!(refused(&with(0x1F4, &[0; 4])), "corrupt bzImage: no code");
    assert_eq!(
        refused(&with(0x24C, &u32::MAX.to_le_bytes())),
        "corrupt bzImage: its payload reaches beyond its code"
    );
    for alignment in [0u32, 3, 0x800, 0x8000_0000] {
        assert_eq!(refused(&with(0x230, &alignment.to_le_bytes())), "corrupt bzImage: impossible alignment");
    }
    for address in [0, 0xF_FFFF, LOAD_LIMIT, u64::MAX] {
        assert_eq!(
            refused(&with(0x258, &address.to_le_bytes())),
            "corrupt bzImage: impossible preferred address"
        );
    }
    assert_eq!(refused(&with(0x1FE, &[0])), "the kernel is neither a bzImage nor an ELF file");
    assert_eq!(refused(&with(0x202, b"hdrS")), "the kernel is neither a bzImage nor an ELF file");
    assert_eq!(refused(&[]), "the kernel is neither a bzImage nor an ELF file");
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let file = bzimage();
    for length in 0..file.len() {
        assert!(parse(&file[..length]).is_err(), "{length} of {} bytes were accepted", file.len());
    }
}

#[test]
fn no_changed_header_makes_the_kernel_go_where_it_must_not() {
    let map = ram(64);
    for_each_changed_byte(&bzimage(), 0x1F1..0x26C, |file| check_placement(file, &map));
}

/// Whatever a file says, what is placed lies in memory that was free, with all its bytes.
pub fn check_placement(file: &[u8], map: &MemoryMap) {
    let Ok(kernel) = Kernel::parse(file) else { return };
    let mut after = map.clone();
    let Ok(plan) = kernel.place(&mut after) else { return };
    assert!(map.is_free(plan.range), "{:x?}", plan.range);
    assert!(plan.range.end <= LOAD_LIMIT, "{:x?}", plan.range);
    assert!((plan.range.start..plan.range.end).contains(&plan.entry), "{:#x}", plan.entry);
    for part in plan.parts() {
        assert!(part.bytes.len() as u64 <= part.length);
        assert!(part.address >= plan.range.start && part.address + part.length <= plan.range.end);
    }
}
