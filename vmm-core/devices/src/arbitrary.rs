//! Devices against guests that write whatever they like: seeded, bounded, and without a panic.
//!
//! A round that fails prints its seed; `ROUNDS` of it are run by every `cargo test`.

extern crate std;

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use tdvisor_base::SharedBit;
use tdvisor_base::sync::{AtomicUsize, Ordering};
use tdvisor_test_data::chance::Chance;

use super::fw_cfg::FwCfg;
use super::test_memory::TestMemory;
use super::virtio::blk::{Disk, DiskAccess, DiskError, REQUEST_BYTES_MAX, SECTOR, Storage, VirtioBlk};
use super::virtio::queue::PLACES_MAX;
use super::virtio::test_driver::{AVAILABLE, BASE, DATA, DESCRIPTORS, END, NEXT, TestDriver, USED, WRITE};
use super::{AccessSize, DeviceRequest, PortDevice};

const ROUNDS: u64 = 400;
const STEPS: usize = 300;

fn size(chance: &mut Chance) -> AccessSize {
    chance.pick(&[
        AccessSize::Byte,
        AccessSize::Word,
        AccessSize::Double,
        AccessSize::Double,
        AccessSize::Quad,
    ])
}

/// A number at which something may go wrong, or any.
fn number(chance: &mut Chance) -> u64 {
    let near =
        chance.pick(&[0, 1, 512, 4096, 1 << 16, 1 << 31, 1 << 32, 1 << 47, 1 << 48, 1 << 63, BASE, END]);
    match chance.below(4) {
        0 => chance.next(),
        1 => chance.next() >> chance.below(64),
        2 => near.wrapping_sub(chance.below(17)),
        _ => near.wrapping_add(chance.below(17)),
    }
}

/// Prints how to replay a round that fails.
struct Replay(&'static str, u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::eprintln!("replay with: {}({:#x})", self.0, self.1);
        }
    }
}

/// A disk in memory: its bytes, and how often it was reached.
struct SmallDisk(Vec<u8>, Arc<AtomicUsize>);

impl Disk for SmallDisk {
    fn sectors(&self) -> u64 {
        self.0.len() as u64 / SECTOR
    }

    fn access(&self) -> DiskAccess {
        DiskAccess::ReadWrite
    }

    fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let at = (sector * SECTOR) as usize;
        out.copy_from_slice(&self.0[at..at + out.len()]);
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), DiskError> {
        let at = (sector * SECTOR) as usize;
        self.0[at..at + data.len()].copy_from_slice(data);
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }

    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        self.write_zeroes(sector, sectors, Storage::MayBeFreed)
    }

    fn write_zeroes(&mut self, sector: u64, sectors: u64, _: Storage) -> Result<(), DiskError> {
        let at = (sector * SECTOR) as usize;
        self.0[at..at + (sectors * SECTOR) as usize].fill(0);
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// One step of a guest that knows how a disk is driven and does most of it right.
fn disturb(driver: &mut TestDriver, chance: &mut Chance) {
    match chance.below(12) {
        0 => {
            let offset =
                chance.pick(&[0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x80, 0x84, 0x90, 0xa0]);
            let value = number(chance) as u32;
            driver.write(offset, value);
        }
        1 => {
            let (offset, size) = (chance.below(0x1000), size(chance));
            let value = number(chance);
            let request =
                super::MmioDevice::write(&mut driver.transport, offset, size, value, &driver.memory);
            assert_eq!(request, DeviceRequest::None);
        }
        2 => {
            let (offset, size) = (chance.below(0x1000), size(chance));
            let _ = super::MmioDevice::read(&mut driver.transport, offset, size);
        }
        3 => {
            let place = chance.pick(&[AVAILABLE, USED, DESCRIPTORS]) + chance.below(0x80);
            let bytes = chance.next().to_le_bytes();
            driver.memory.put(place, &bytes);
        }
        4 => describe(driver, chance),
        5..8 => request(driver, chance),
        8 => {
            let head = if chance.one_in(30) { chance.next() as u16 } else { chance.below(128) as u16 };
            driver.offer(head);
        }
        _ => driver.notify(),
    }
}

/// A request that a disk would take, unless one thing in it is bent; offered, but maybe not announced.
fn request(driver: &mut TestDriver, chance: &mut Chance) {
    let head = chance.below(125) as u16;
    let at = DATA + 0x1000 * u64::from(head);
    let kind = chance.pick(&[0u32, 0, 1, 1, 4, 8, 11, 13, 0xffff]);
    driver.memory.put(at, &kind.to_le_bytes());
    let sector = if chance.one_in(8) { number(chance) } else { chance.below(64) };
    driver.memory.put(at + 8, &sector.to_le_bytes());
    let data = 512 * chance.below(9) as u32;
    let direction = if matches!(kind, 1 | 11 | 13) { 0 } else { WRITE };
    driver.describe(head, at, 16, NEXT, head + 1);
    driver.describe(head + 1, at + 16, data, NEXT | direction, head + 2);
    driver.describe(head + 2, at + 16, 1, WRITE, 0);
    if chance.one_in(12) {
        describe(driver, chance);
    }
    driver.offer(head);
    if chance.one_in(2) {
        driver.notify();
    }
}

/// A descriptor of anything.
fn describe(driver: &mut TestDriver, chance: &mut Chance) {
    let index = chance.below(128) as u16;
    let address = if chance.one_in(3) { number(chance) } else { DATA + chance.below(0x8_0000) };
    let bytes = number(chance) as u32;
    let flags = if chance.one_in(3) { chance.next() } else { chance.below(4) } as u16;
    let next = if chance.one_in(3) { chance.next() } else { chance.below(128) } as u16;
    driver.describe(index, address, bytes, flags, next);
}

fn round_of_virtio(seed: u64) -> usize {
    /// What one notification moves at most: for every place a chain, its buffers, and the used element.
    const MOVED_MAX: u64 = PLACES_MAX as u64 * (PLACES_MAX as u64 * 16 + REQUEST_BYTES_MAX + 64);

    let _replay = Replay("round_of_virtio", seed);
    let mut chance = Chance::new(seed);
    let reached = Arc::new(AtomicUsize::new(0));
    let disk = SmallDisk(vec![0; 64 * SECTOR as usize], reached.clone());
    let disk = VirtioBlk::new(Box::new(disk));
    let mut driver = TestDriver::new(Box::new(disk), 128);
    driver.start();
    for _ in 0..STEPS {
        driver.memory.take_moved();
        disturb(&mut driver, &mut chance);
        let moved = driver.memory.take_moved();
        assert!(moved <= MOVED_MAX, "{moved} bytes at one access");
        assert!(driver.interrupts() <= 1);
        if driver.read(0x70) != 15 && chance.one_in(3) || chance.one_in(40) {
            driver.start();
        }
    }
    driver.start();
    driver.describe_chain(&[&[0; 16]], &[512, 1]);
    driver.offer(0);
    driver.notify();
    assert_eq!(driver.used(), [(0, 513)], "after a reset the disk answers as ever");
    reached.load(Ordering::Relaxed)
}

#[test]
fn a_disk_survives_whatever_is_in_its_registers_and_rings() {
    let reached: usize = (0..ROUNDS).map(round_of_virtio).sum();
    assert!(reached > 10 * ROUNDS as usize, "the rounds reach the disk: {reached} times");
}

fn round_of_fw_cfg(seed: u64) -> usize {
    const MEMORY: usize = 1 << 20;
    let _replay = Replay("round_of_fw_cfg", seed);
    let mut chance = Chance::new(seed);
    let files = (0..chance.below(4)).map(|index| {
        let contents: Vec<u8> = (0..chance.below(200_000)).map(|at| at as u8).collect();
        (format!("opt/{index}"), Arc::from(contents))
    });
    let files: Vec<(String, Arc<[u8]>)> = files.collect();
    let mut device = FwCfg::new(files, SharedBit::topmost(48)).unwrap();
    let memory = TestMemory::new(BASE, MEMORY);
    let mut good = 0;
    for _ in 0..STEPS / 10 {
        memory.take_moved();
        if chance.one_in(3) {
            let (offset, size) = (chance.below(16) as u16, size(&mut chance));
            let _ = device.read(offset, size);
            let _ = device.write(offset, size, number(&mut chance), &memory);
        } else {
            let descriptor = if chance.one_in(20) { number(&mut chance) } else { BASE + chance.below(64) };
            let control = chance.pick(&[0u64, 1, 0x20, 0x21, 0x22, 0x23, 0x19]) << 16 | chance.below(32);
            let length = if chance.one_in(3) { number(&mut chance) } else { chance.below(0x4_0000) } as u32;
            let address =
                if chance.one_in(10) { number(&mut chance) } else { BASE + chance.below(MEMORY as u64) };
            let place = BASE + chance.below(64);
            memory.put(place, &(control as u32).to_be_bytes());
            memory.put(place + 4, &length.to_be_bytes());
            memory.put(place + 8, &address.to_be_bytes());
            let descriptor = if chance.one_in(4) { descriptor } else { place };
            memory.take_moved();
            for (offset, half) in [(4, descriptor >> 32), (8, descriptor)] {
                let half = u64::from((half as u32).swap_bytes());
                let _ = device.write(offset, AccessSize::Double, half, &memory);
            }
            good += usize::from(memory.get(place) == [0; 4]);
        }
        let moved = memory.take_moved();
        assert!(moved <= MEMORY as u64 + 64, "{moved} bytes at one access");
    }
    good
}

#[test]
fn fw_cfg_survives_whatever_is_in_its_registers_and_descriptors() {
    let good: usize = (0..ROUNDS).map(round_of_fw_cfg).sum();
    assert!(good > ROUNDS as usize, "the rounds reach the device: {good} transfers");
}
