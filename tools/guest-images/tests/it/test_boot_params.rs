//! What Linux is told.

use crate::boot_params::{self, Inputs, LENGTH};
use crate::hob::Range;
use crate::kernel::Kernel;
use crate::memory_map::{MemoryMap, Use};
use crate::test_bzimage::bzimage;
use crate::{mib, ram};

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().unwrap())
}

fn page(kernel: &Kernel<'_>, map: &MemoryMap) -> [u8; LENGTH] {
    let mut page = [0; LENGTH];
    let inputs = Inputs {
        load_address: 16 << 20,
        command_line: 0x12_3000,
        initrd: Range { start: 0x700_0000, end: 0x700_0123 },
        rsdp: 0x11_7000,
        map,
    };
    boot_params::write(&mut page, kernel, &inputs).unwrap();
    page
}

fn e820(page: &[u8]) -> Vec<(u64, u64, u32)> {
    (0..usize::from(page[0x1E8]))
        .map(|index| 0x2D0 + 20 * index)
        .map(|at| (u64_at(page, at), u64_at(page, at + 8), u32_at(page, at + 16)))
        .collect()
}

#[test]
fn the_kernels_own_header_is_copied_and_what_the_loader_knows_filled_in() {
    let file = bzimage();
    let page = page(&Kernel::parse(&file).unwrap(), &ram(64));
    assert_eq!(page[0x1F1..0x210], file[0x1F1..0x210]);
    assert_eq!(page[0x230..0x26C], file[0x230..0x26C]);
    assert!(page[0x26C..0x2D0].iter().all(|byte| *byte == 0), "nothing beyond the header's own length");
    assert!(page[..0x70].iter().all(|byte| *byte == 0) && page[0x1EF] == 0);
    assert_eq!(page[0x210], 0xFF, "a loader without a number");
    assert_eq!(u64_at(&page, 0x70), 0x11_7000, "RSDP");
    assert_eq!(u32_at(&page, 0x214), 16 << 20, "load address");
    assert_eq!((u32_at(&page, 0x218), u32_at(&page, 0x21C)), (0x700_0000, 0x123), "initrd");
    assert_eq!(u32_at(&page, 0x228), 0x12_3000, "command line");
    assert_eq!((u32_at(&page, 0xC0), u32_at(&page, 0xC4), u32_at(&page, 0xC8)), (0, 0, 0), "upper halves");
}

#[test]
fn memory_is_told_by_type_and_what_the_shim_loaded_is_memory_again() {
    let mut map = MemoryMap::new();
    map.add(mib(0, 64)).unwrap();
    map.add(mib(4096, 8192)).unwrap();
    map.mark(mib(1, 2), Use::AcpiNvs).unwrap();
    map.mark(mib(2, 3), Use::AcpiTables).unwrap();
    map.mark(mib(3, 4), Use::Reserved).unwrap();
    map.mark(mib(16, 24), Use::Loaded).unwrap();
    let file = bzimage();
    let page = page(&Kernel::parse(&file).unwrap(), &map);
    let m = 1 << 20;
    assert_eq!(
        e820(&page),
        [(0, m, 1), (m, m, 4), (2 * m, m, 3), (3 * m, m, 2), (4 * m, 60 * m, 1), (4096 * m, 4096 * m, 1)]
    );
}

#[test]
fn an_address_above_4_gib_does_not_fit() {
    let (file, map) = (bzimage(), ram(64));
    let inputs = Inputs {
        load_address: 16 << 20,
        command_line: 0x12_3000,
        initrd: mib(4096, 4097),
        rsdp: 0x11_7000,
        map: &map,
    };
    let kernel = Kernel::parse(&file).unwrap();
    assert_eq!(boot_params::write(&mut [0; LENGTH], &kernel, &inputs), Err(boot_params::DoesNotFit));
}
