//! The disk as its driver sees it.

use alloc::sync::Arc;
use alloc::vec::Vec;

use tdvisor_base::sync::Mutex;

use super::*;
use crate::virtio::features;
use crate::virtio::test_driver::{DATA, END, NEXT, TestDriver, WRITE};

const SECTORS: u64 = 2048;

/// A disk in memory that counts its flushes and may be told to fail.
struct TestDisk {
    storage: Arc<Mutex<Contents>>,
    access: DiskAccess,
}

struct Contents {
    bytes: Vec<u8>,
    ranges: Vec<(&'static str, u64, u64)>,
    flushes: usize,
    broken: bool,
}

impl Disk for TestDisk {
    fn sectors(&self) -> u64 {
        SECTORS
    }

    fn access(&self) -> DiskAccess {
        self.access
    }

    fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        let storage = self.storage.lock();
        let at = (sector * SECTOR) as usize;
        out.copy_from_slice(&storage.bytes[at..at + out.len()]);
        if storage.broken { Err(DiskError) } else { Ok(()) }
    }

    fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), DiskError> {
        let mut storage = self.storage.lock();
        let at = (sector * SECTOR) as usize;
        storage.bytes[at..at + data.len()].copy_from_slice(data);
        if storage.broken { Err(DiskError) } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        let mut storage = self.storage.lock();
        storage.flushes += 1;
        if storage.broken { Err(DiskError) } else { Ok(()) }
    }

    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        let mut storage = self.storage.lock();
        storage.ranges.push(("discarded", sector, sectors));
        if storage.broken { Err(DiskError) } else { Ok(()) }
    }

    fn write_zeroes(&mut self, sector: u64, sectors: u64, kept: Storage) -> Result<(), DiskError> {
        let mut storage = self.storage.lock();
        let how = if kept == Storage::Kept { "zeroed" } else { "freed" };
        storage.ranges.push((how, sector, sectors));
        if storage.broken { Err(DiskError) } else { Ok(()) }
    }
}

/// A started driver, and the storage behind its disk: every byte is its sector's number.
fn disk(access: DiskAccess) -> (TestDriver, Arc<Mutex<Contents>>) {
    let bytes = (0..SECTORS * SECTOR).map(|at| (at / SECTOR) as u8).collect();
    let storage = Arc::new(Mutex::new(Contents { bytes, ranges: Vec::new(), flushes: 0, broken: false }));
    let device = VirtioBlk::new(Box::new(TestDisk { storage: storage.clone(), access }));
    let mut driver = TestDriver::new(Box::new(device), PLACES);
    driver.start();
    (driver, storage)
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), &[0xee; 4], &sector.to_le_bytes()].concat()
}

/// Sends a request; gives its status byte, the length in the used ring, and where its buffers are.
#[track_caller]
fn send(driver: &mut TestDriver, readable: &[&[u8]], writable: &[u32]) -> (u8, u32, Vec<u64>) {
    let places = driver.describe_chain(readable, writable);
    let status = places.last().unwrap() + u64::from(*writable.last().unwrap()) - 1;
    driver.memory.put(status, &[0xff]);
    driver.offer(0);
    driver.notify();
    let used = driver.used();
    let [(0, length)] = used[..] else { panic!("one request comes back: {used:?}") };
    (driver.memory.get::<1>(status)[0], length, places)
}

#[test]
fn the_configuration_says_what_the_disk_is() {
    let (mut driver, _) = disk(DiskAccess::ReadWrite);
    assert_eq!(driver.read(0x08), 2);
    assert_eq!(driver.read(0x100), SECTORS as u32);
    assert_eq!(driver.read(0x104), 0);
    assert_eq!(driver.read(0x108), 64 << 10, "size_max");
    assert_eq!(driver.read(0x10c), 126, "seg_max");
    assert_eq!(driver.read(0x114), 512, "blk_size");
    assert_eq!(driver.offered_features() & 0xffff_ffff, 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9 | 3 << 13);
    assert_eq!(driver.read(0x124), 8 << 20, "max_discard_sectors");
    assert_eq!((driver.read(0x128), driver.read(0x134)), (16, 16), "ranges of a request");
    assert_eq!(driver.read(0x130), 32 << 10, "max_write_zeroes_sectors");
    assert_eq!(driver.read(0x138), 1, "write_zeroes_may_unmap");
    let (mut driver, _) = disk(DiskAccess::ReadOnly);
    assert_eq!(driver.offered_features() & 0xffff_ffff, 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 9);
}

#[test]
fn sectors_are_read_into_any_buffers() {
    let (mut driver, _) = disk(DiskAccess::ReadWrite);
    let (status, length, places) = send(&mut driver, &[&header(0, 5)], &[100, 412, 512, 1]);
    assert_eq!((status, length), (0, 1025));
    assert_eq!(driver.memory.get::<512>(places[1]), [5; 512]);
    assert_eq!(driver.memory.get::<512>(places[3]), [6; 512]);
    let whole_header = header(0, SECTORS - 1);
    let (status, length, places) = send(&mut driver, &[&whole_header[..3], &whole_header[3..]], &[513]);
    assert_eq!((status, length), (0, 513), "the borders of header and status mean nothing");
    assert_eq!(driver.memory.get::<512>(places[2]), [255; 512]);
}

#[test]
fn sectors_are_written_from_any_buffers() {
    let (mut driver, storage) = disk(DiskAccess::ReadWrite);
    let data: Vec<u8> = (0..1024u32).map(|at| (at / 3) as u8).collect();
    let with_header = [header(1, 7), data[..700].to_vec()].concat();
    let (status, length, _) = send(&mut driver, &[&with_header, &data[700..]], &[1]);
    assert_eq!((status, length), (0, 1));
    let storage = storage.lock();
    assert_eq!(storage.bytes[7 * 512..9 * 512], data);
    assert_eq!(storage.bytes[9 * 512], 9);
    assert_eq!(storage.flushes, 0, "the driver flushes when it wants to");
}

#[test]
fn a_request_larger_than_a_piece_is_moved_whole() {
    let (mut driver, storage) = disk(DiskAccess::ReadWrite);
    let data: Vec<u8> = (0..(1 << 20)).map(|at: u32| (at / 777) as u8).collect();
    assert_eq!(send(&mut driver, &[&header(1, 0), &data], &[1]).0, 0);
    assert_eq!(storage.lock().bytes, data);
    let (status, length, places) = send(&mut driver, &[&header(0, 0)], &[1 << 20, 1]);
    assert_eq!((status, length), (0, (1 << 20) + 1));
    assert_eq!(driver.memory.get_many(places[1], 1 << 20), data);
}

#[test]
fn requests_beyond_the_capacity_or_of_half_sectors_are_errors() {
    let (mut driver, storage) = disk(DiskAccess::ReadWrite);
    for (sector, bytes) in [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (0, 511), (SECTORS + 1, 0)]
    {
        assert_eq!(send(&mut driver, &[&header(0, sector)], &[bytes, 1]).0, 1, "read {bytes} at {sector}");
        let data = [0xaa; 1024];
        let data = &data[..bytes as usize];
        assert_eq!(send(&mut driver, &[&header(1, sector), data], &[1]).0, 1, "write {bytes} at {sector}");
    }
    assert!(storage.lock().bytes.iter().zip(0u64..).all(|(byte, at)| *byte == (at / SECTOR) as u8));
    assert_eq!(send(&mut driver, &[&header(0, SECTORS)], &[1]).0, 0, "nothing at the end is nothing");
}

#[test]
fn a_request_for_more_than_all_segments_is_refused_without_work() {
    let (mut driver, _) = disk(DiskAccess::ReadWrite);
    driver.describe_chain(&[&header(0, 0)], &[1]);
    driver.describe(0, DATA, 16, NEXT, 1);
    driver.describe(1, DATA + 0x1000, u32::MAX - 511, WRITE | NEXT, 2);
    driver.describe(2, DATA + 0x100, 1, WRITE, 0);
    driver.offer(0);
    driver.memory.take_moved();
    driver.notify();
    assert_eq!(driver.memory.get(DATA + 0x100), [1]);
    assert!(driver.memory.take_moved() < 200);
    assert_eq!(driver.used(), [(0, 0)]);
}

#[test]
fn a_read_only_disk_is_not_written() {
    let (mut driver, storage) = disk(DiskAccess::ReadOnly);
    assert_eq!(send(&mut driver, &[&header(1, 0), &[0xaa; 512]], &[1]).0, 1);
    assert_eq!(storage.lock().bytes[0], 0);
    assert_eq!(send(&mut driver, &[&header(0, 0)], &[512, 1]).0, 0);
}

#[test]
fn a_flush_reaches_the_storage() {
    let (mut driver, storage) = disk(DiskAccess::ReadWrite);
    assert_eq!(send(&mut driver, &[&header(4, 0)], &[1]), (0, 1, [DATA, DATA + 16].to_vec()));
    assert_eq!(storage.lock().flushes, 1);
}

#[test]
fn without_flush_every_write_reaches_the_storage_before_its_answer() {
    let (mut driver, storage) = disk(DiskAccess::ReadWrite);
    assert_eq!(driver.negotiate(features::REQUIRED), 3 | 8);
    driver.enable_queue(0);
    driver.write(0x70, 3 | 8 | 4);
    assert_eq!(send(&mut driver, &[&header(1, 0), &[0xaa; 512]], &[1]).0, 0);
    assert_eq!(storage.lock().flushes, 1);
}

#[test]
fn the_disk_has_a_name() {
    let (mut driver, _) = disk(DiskAccess::ReadWrite);
    let (status, length, places) = send(&mut driver, &[&header(8, 0)], &[20, 1]);
    assert_eq!((status, length), (0, 21));
    assert_eq!(&driver.memory.get::<20>(places[1]), b"tdvisor disk\0\0\0\0\0\0\0\0");
    let (status, length, places) = send(&mut driver, &[&header(8, 0)], &[7, 1]);
    assert_eq!((status, length), (0, 8));
    assert_eq!(&driver.memory.get::<7>(places[1]), b"tdvisor");
    let (status, length, _) = send(&mut driver, &[&header(8, 0)], &[32, 1]);
    assert_eq!((status, length), (0, 20), "the rest of a larger buffer is left as it is");
    let storage =
        Arc::new(Mutex::new(Contents { bytes: Vec::new(), ranges: Vec::new(), flushes: 0, broken: false }));
    let device = VirtioBlk::new(Box::new(TestDisk { storage, access: DiskAccess::ReadOnly }));
    let device = device.with_serial(Serial::new("root").unwrap());
    let mut driver = TestDriver::new(Box::new(device), PLACES);
    driver.start();
    let (_, _, places) = send(&mut driver, &[&header(8, 0)], &[20, 1]);
    assert_eq!(&driver.memory.get::<6>(places[1]), b"root\0\0");
}

#[test]
fn other_requests_are_unsupported() {
    let (mut driver, _) = disk(DiskAccess::ReadWrite);
    for kind in [2, 3, 12, 14, u32::MAX] {
        assert_eq!(send(&mut driver, &[&header(kind, 0)], &[512, 1]).0, 2, "type {kind}");
    }
}

#[test]
fn storage_that_fails_is_an_error_of_the_request_and_not_of_the_device() {
    let (mut driver, storage) = disk(DiskAccess::ReadWrite);
    storage.lock().broken = true;
    assert_eq!(send(&mut driver, &[&header(0, 0)], &[512, 1]).0, 1);
    assert_eq!(send(&mut driver, &[&header(1, 0), &[0; 512]], &[1]).0, 1);
    assert_eq!(send(&mut driver, &[&header(4, 0)], &[1]).0, 1);
    storage.lock().broken = false;
    assert_eq!(send(&mut driver, &[&header(0, 0)], &[512, 1]).0, 0);
}

#[test]
fn requests_without_header_or_status_and_with_memory_that_is_not_shared_stop_the_device() {
    type Request = (&'static str, fn(&TestDriver));
    let cases: [Request; 4] = [
        ("no status", |driver| {
            driver.describe_chain(&[&[0; 16]], &[]);
        }),
        ("half a header", |driver| {
            driver.describe_chain(&[&[0; 15]], &[512, 1]);
        }),
        ("data not shared", |driver| {
            driver.describe_chain(&[&[0; 16]], &[512, 1]);
            driver.describe(1, END - 256, 512, WRITE | NEXT, 2);
        }),
        ("status not shared", |driver| {
            driver.describe_chain(&[&[0; 16]], &[512, 1]);
            driver.describe(2, END, 1, WRITE, 0);
        }),
    ];
    for (name, request) in cases {
        let (mut driver, _) = disk(DiskAccess::ReadWrite);
        request(&driver);
        driver.offer(0);
        driver.notify();
        assert_ne!(driver.read(0x70) & 64, 0, "{name}");
        assert!(driver.used().is_empty(), "{name}");
    }
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [sector.to_le_bytes().as_slice(), &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn ranges_are_discarded_and_made_zero_as_the_driver_says() {
    let (mut driver, storage) = disk(DiskAccess::ReadWrite);
    let two = [range(3, 5, 0), range(SECTORS - 1, 1, 0)].concat();
    assert_eq!(send(&mut driver, &[&header(11, 0), &two], &[1]).0, 0);
    assert_eq!(send(&mut driver, &[&header(13, 0), &range(7, 2, 0)], &[1]).0, 0);
    assert_eq!(send(&mut driver, &[&header(13, 0), &range(0, 2048, 1)], &[1]).0, 0);
    let all = [("discarded", 3, 5), ("discarded", SECTORS - 1, 1), ("zeroed", 7, 2), ("freed", 0, 2048)];
    assert_eq!(storage.lock().ranges, all);
}

#[test]
fn a_request_with_one_range_that_cannot_be_changes_nothing() {
    let good = range(0, 8, 0);
    let cases: [(u32, Vec<u8>, u8); 8] = [
        (11, range(SECTORS, 1, 0), 1),
        (11, range(u64::MAX, 2, 0), 1),
        (11, range(0, (8 << 20) + 1, 0), 1),
        (13, range(0, (32 << 10) + 1, 1), 1),
        (11, range(0, 1, 1), 2),
        (13, range(0, 1, 2), 2),
        (13, range(0, 1, 1)[..15].to_vec(), 1),
        (13, good.repeat(16), 1),
    ];
    for (kind, bad, status) in cases {
        let (mut driver, storage) = disk(DiskAccess::ReadWrite);
        let request = [good.clone(), bad.clone()].concat();
        assert_eq!(send(&mut driver, &[&header(kind, 0), &request], &[1]).0, status, "{kind}: {bad:?}");
        assert!(storage.lock().ranges.is_empty(), "{kind}: {bad:?}");
    }
    let (mut driver, storage) = disk(DiskAccess::ReadOnly);
    for kind in [11, 13] {
        assert_eq!(send(&mut driver, &[&header(kind, 0), &good], &[1]).0, 1, "read-only");
    }
    assert!(storage.lock().ranges.is_empty());
}

#[test]
fn a_serial_number_is_short_and_printable() {
    assert!(Serial::new("12345678901234567890").is_some());
    for bad in ["", "123456789012345678901", "caf\u{e9}", "a\nb", "a\0"] {
        assert_eq!(Serial::new(bad), None, "{bad:?}");
    }
}
