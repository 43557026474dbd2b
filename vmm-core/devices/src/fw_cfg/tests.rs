//! `fw_cfg` as firmware sees it.

use alloc::vec;

use super::*;
use crate::NoMemory;
use crate::test_memory::TestMemory;

const BASE: u64 = 0x10_0000;
const BUFFER: u64 = BASE + 0x1000;
const SHARED: u64 = 1 << 47;

fn device() -> FwCfg {
    let file = |name: &str, contents: &[u8]| (String::from(name), Arc::from(contents));
    let large: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    let files = [file("opt/b", b"bee"), file("opt/a", &large), file("opt/empty", b"")];
    FwCfg::new(files, SharedBit::topmost(48)).unwrap()
}

fn memory() -> TestMemory {
    TestMemory::new(BASE, 0x40_0000)
}

fn select(device: &mut FwCfg, key: u16) {
    let _ = device.write(SELECTOR, AccessSize::Word, key.into(), &NoMemory);
}

fn bytes(device: &mut FwCfg, count: usize) -> Vec<u8> {
    (0..count).map(|_| device.read(DATA, AccessSize::Byte) as u8).collect()
}

/// Puts a descriptor at `at`, starts it, and gives its control word afterwards.
fn dma(device: &mut FwCfg, memory: &TestMemory, control: u32, length: u32, address: u64) -> u32 {
    memory.put(BASE, &control.to_be_bytes());
    memory.put(BASE + 4, &length.to_be_bytes());
    memory.put(BASE + 8, &address.to_be_bytes());
    start(device, memory, BASE | SHARED);
    u32::from_be_bytes(memory.get(BASE))
}

fn start(device: &mut FwCfg, memory: &dyn SharedMemory, at: u64) {
    let half = |value: u64| u64::from((value as u32).swap_bytes());
    let _ = device.write(DMA_HIGH, AccessSize::Double, half(at >> 32), memory);
    let _ = device.write(DMA_LOW, AccessSize::Double, half(at), memory);
}

#[test]
fn a_guest_finds_the_device_by_its_signature_and_its_features() {
    let mut device = device();
    assert_eq!(bytes(&mut device, 6), b"QEMU\0\0", "selected at reset");
    select(&mut device, KEY_FEATURES);
    assert_eq!(bytes(&mut device, 4), [3, 0, 0, 0]);
    assert_eq!(device.read(DMA_HIGH, AccessSize::Double) as u32, u32::from_le_bytes(*b"QEMU"));
    assert_eq!(device.read(DMA_LOW, AccessSize::Double) as u32, u32::from_le_bytes(*b" CFG"));
}

#[test]
fn the_directory_lists_files_by_name_with_size_and_key() {
    let mut device = device();
    select(&mut device, KEY_FILE_DIR);
    assert_eq!(bytes(&mut device, 4), [0, 0, 0, 3]);
    for (index, (name, size)) in [("opt/a", 200_000u32), ("opt/b", 3), ("opt/empty", 0)].iter().enumerate() {
        let entry = bytes(&mut device, 64);
        assert_eq!(entry[..4], size.to_be_bytes());
        assert_eq!(entry[4..8], [0, 0x20 + index as u8, 0, 0]);
        assert_eq!(&entry[8..8 + name.len()], name.as_bytes());
        assert!(entry[8 + name.len()..].iter().all(|byte| *byte == 0));
    }
    assert_eq!(bytes(&mut device, 2), [0, 0], "nothing after the last entry");
}

#[test]
fn an_item_is_read_from_its_start_after_each_selection_and_zeros_follow_it() {
    let mut device = device();
    for _ in 0..2 {
        select(&mut device, 0x21);
        assert_eq!(bytes(&mut device, 5), b"bee\0\0");
    }
    for nothing in [0x23, 0x02, 0x8021, 0xffff] {
        select(&mut device, nothing);
        assert_eq!(bytes(&mut device, 2), [0, 0], "key {nothing:#x}");
    }
    select(&mut device, 0x4021);
    assert_eq!(bytes(&mut device, 3), b"bee", "the write channel's bit selects nothing else");
}

#[test]
fn a_transfer_selects_and_copies_a_whole_file_and_clears_the_control_word() {
    let (mut device, memory) = (device(), memory());
    let select_a = 0x20 << 16 | control::SELECT | control::READ;
    for address in [BUFFER, BUFFER | SHARED] {
        memory.put(BUFFER, &vec![0xaa; 200_001]);
        assert_eq!(dma(&mut device, &memory, select_a, 200_000, address), 0);
        let copied = memory.get_many(BUFFER, 200_001);
        assert!(copied[..200_000].iter().zip(0u32..).all(|(byte, at)| *byte == at as u8));
        assert_eq!(copied[200_000], 0xaa, "not a byte more");
    }
}

#[test]
fn a_transfer_goes_on_where_the_last_one_or_a_skip_ended() {
    let (mut device, memory) = (device(), memory());
    assert_eq!(dma(&mut device, &memory, 0x20 << 16 | control::SELECT | control::SKIP, 0x1_0001, 0), 0);
    assert_eq!(dma(&mut device, &memory, control::READ, 2, BUFFER), 0);
    assert_eq!(memory.get(BUFFER), [1, 2]);
    assert_eq!(device.read(DATA, AccessSize::Byte), 3, "registers and DMA share one offset");
    assert_eq!(dma(&mut device, &memory, control::SKIP, u32::MAX, 0), 0);
    assert_eq!(dma(&mut device, &memory, control::READ, 2, BUFFER), 0);
    assert_eq!(memory.get(BUFFER), [0, 0], "a skip stops at the end");
}

#[test]
fn a_transfer_longer_than_the_item_is_filled_with_zeros() {
    let (mut device, memory) = (device(), memory());
    memory.put(BUFFER, &[0xaa; 0x3001]);
    let read_b = 0x21 << 16 | control::SELECT | control::READ;
    assert_eq!(dma(&mut device, &memory, read_b, 0x3000, BUFFER), 0);
    let copied = memory.get_many(BUFFER, 0x3001);
    assert_eq!(&copied[..3], b"bee");
    assert!(copied[3..0x3000].iter().all(|byte| *byte == 0));
    assert_eq!(copied[0x3000], 0xaa);
    let nothing = 0x7777 << 16 | control::SELECT | control::READ;
    assert_eq!(dma(&mut device, &memory, nothing, 2, BUFFER + 0x3000), 0);
    assert_eq!(memory.get(BUFFER + 0x3000), [0, 0], "an item that does not exist is empty");
}

#[test]
fn a_transfer_to_memory_that_is_not_shared_ends_there_with_the_error_bit() {
    let (mut device, memory) = (device(), memory());
    let end = BASE + 0x40_0000;
    let read_a = 0x20 << 16 | control::SELECT | control::READ;
    for address in [end, end - 0x1000, BASE - 1, u64::MAX, u64::MAX - 100, 1 << 46] {
        assert_eq!(dma(&mut device, &memory, read_a, 0x2000, address), control::ERROR, "{address:#x}");
    }
    assert_eq!(memory.get(end - 2), [0xfe, 0xff], "what precedes the bad page was written");
    memory.take_moved();
    assert_eq!(dma(&mut device, &memory, read_a, u32::MAX, end - 0x1000), control::ERROR);
    assert!(memory.take_moved() < 0x1100, "no work beyond the first bad page");
}

#[test]
fn a_descriptor_that_is_not_shared_is_no_transfer() {
    let (mut device, memory) = (device(), memory());
    start(&mut device, &memory, BASE - 8);
    start(&mut device, &memory, u64::MAX);
    start(&mut device, &NoMemory, BASE);
    let last = BASE + 0x40_0000 - 8;
    start(&mut device, &memory, last);
    assert_eq!(memory.get(last), control::ERROR.to_be_bytes(), "half a descriptor is an error");
}

#[test]
fn nothing_can_be_written_to_an_item() {
    let (mut device, memory) = (device(), memory());
    let write_b = 0x21 << 16 | control::SELECT | control::WRITE;
    assert_eq!(dma(&mut device, &memory, write_b, 3, BUFFER), control::ERROR);
    let _ = device.write(DATA, AccessSize::Byte, 0xff, &memory);
    assert_eq!(bytes(&mut device, 3), b"bee");
}

#[test]
fn the_high_half_of_the_dma_address_holds_for_one_transfer() {
    let (mut device, memory) = (device(), memory());
    assert_eq!(dma(&mut device, &memory, 0, 0, 0), 0);
    memory.put(BASE, &0xdead_0000u32.to_be_bytes());
    let _ = device.write(DMA_LOW, AccessSize::Double, u64::from((BASE as u32).swap_bytes()), &memory);
    assert_eq!(memory.get(BASE), [0; 4], "the high half was zero again");
}

#[test]
fn accesses_of_another_size_reach_nothing() {
    let mut device = device();
    assert_eq!(device.read(DATA, AccessSize::Word), 0xffff);
    assert_eq!(device.read(SELECTOR, AccessSize::Byte), 0xff);
    let _ = device.write(SELECTOR, AccessSize::Byte, 0x21, &NoMemory);
    assert_eq!(bytes(&mut device, 4), b"QEMU");
}

#[test]
fn files_that_the_directory_cannot_say_are_refused() {
    let bit = SharedBit::topmost(48);
    let make =
        |names: &[&str]| FwCfg::new(names.iter().map(|name| (String::from(*name), Arc::from([]))), bit).err();
    let longest = "x".repeat(55);
    assert_eq!(make(&[&longest]), None);
    for bad in ["", "a\0b", "ä", &"x".repeat(56)] {
        assert_eq!(make(&[bad]), Some(FileError::BadName(bad.into())));
    }
    assert_eq!(make(&["a", "b", "a"]), Some(FileError::Duplicate("a".into())));
    let many: Vec<String> = (0..=FILES_MAX).map(|index| index.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(make(&many), Some(FileError::TooMany));
    assert_eq!(make(many.get(1..).unwrap()), None);
}
