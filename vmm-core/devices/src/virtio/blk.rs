//! virtio-blk: a disk (section 5.2 of the specification).
//!
//! # Protocol
//! One queue. A request reads 16 bytes: type (u32), reserved (u32), sector (u64), little-endian; then come the data, and
//! last one byte that the device writes: the status.
//!
//! | type | | data |
//! |---|---|---|
//! | 0 | IN | written by the device: whole sectors |
//! | 1 | OUT | read by the device: whole sectors |
//! | 4 | FLUSH | none |
//! | 8 | GET_ID | written by the device: 20 bytes |
//! | 11 | DISCARD | read by the device: ranges |
//! | 13 | WRITE_ZEROES | read by the device: ranges |
//!
//! A range is a sector (u64), a number of sectors (u32) and flags (u32), of which bit 0 says that storage need not be kept.
//!
//! Everything else is answered with UNSUPP. A sector has 512 bytes.
//!
//! # Invariants
//! - Ranges are looked at, all of them, before anything is done to the first; there are at most [`RANGES_MAX`].
//! - A request moves at most [`REQUEST_BYTES_MAX`], which is what SEG_MAX and SIZE_MAX allow; more is an I/O error.
//! - No sector beyond the capacity is asked of the [`Disk`], and none is written where it is read-only.
//! - Without FLUSH every write is on the disk when it is answered.
//! - A request without room for a status is [`Broken`]: there is no way to refuse it.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use tdvisor_base::to_usize;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes};

use super::chain::{Chain, Reader, Writer};
use super::{Broken, Served, VirtioDevice};
use crate::{SharedMemory, low};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
/// Bytes that one request moves at most.
pub const REQUEST_BYTES_MAX: u64 = SEG_MAX as u64 * SIZE_MAX as u64;

/// The kind of device.
pub const DEVICE_ID: u32 = 2;
const PLACES: u16 = 128;
/// Data buffers of a request: all places but those of header and status.
const SEG_MAX: u32 = PLACES as u32 - 2;
/// Bytes of one data buffer.
const SIZE_MAX: u32 = 64 << 10;

/// Features of a disk (section 5.2.3).
mod feature {
    pub(super) const SIZE_MAX: u64 = 1 << 1;
    pub(super) const SEG_MAX: u64 = 1 << 2;
    pub(super) const RO: u64 = 1 << 5;
    pub(super) const BLK_SIZE: u64 = 1 << 6;
    pub(super) const FLUSH: u64 = 1 << 9;
    pub(super) const DISCARD: u64 = 1 << 13;
    pub(super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Types of requests.
mod request {
    pub(super) const IN: u32 = 0;
    pub(super) const OUT: u32 = 1;
    pub(super) const FLUSH: u32 = 4;
    pub(super) const GET_ID: u32 = 8;
    pub(super) const DISCARD: u32 = 11;
    pub(super) const WRITE_ZEROES: u32 = 13;
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

const STATUS_BYTES: u64 = 1;
const RANGE_BYTES: u64 = size_of::<Range>() as u64;
/// A range's flag: its storage need not be kept.
const RANGE_UNMAP: u32 = 1;

/// Ranges of a DISCARD or WRITE_ZEROES request.
pub const RANGES_MAX: u32 = 16;
/// Sectors of one range that is discarded: 4 GiB.
pub const DISCARD_SECTORS_MAX: u32 = 8 << 20;
/// Sectors of one range that is filled with zeros: 16 MiB, which may have to be written one by one.
pub const ZERO_SECTORS_MAX: u32 = 32 << 10;

/// The storage behind a disk. Sectors have [`SECTOR`] bytes; data is always whole sectors inside the capacity.
pub trait Disk: Send {
    /// The capacity, in sectors. It does not change.
    fn sectors(&self) -> u64;

    /// Whether the disk can be written to.
    fn access(&self) -> DiskAccess;

    /// Reads from `sector` on.
    ///
    /// # Errors
    /// [`DiskError`].
    fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError>;

    /// Writes from `sector` on. It may stay in a cache until [`Self::flush`].
    ///
    /// # Errors
    /// [`DiskError`].
    fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), DiskError>;

    /// Returns when everything written is on stable storage.
    ///
    /// # Errors
    /// [`DiskError`].
    fn flush(&mut self) -> Result<(), DiskError>;

    /// The guest needs the contents of `sectors` sectors from `sector` on no more. Nothing need happen.
    ///
    /// # Errors
    /// [`DiskError`].
    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        let _ = (sector, sectors);
        Ok(())
    }

    /// Makes `sectors` sectors from `sector` on zero. Where a disk has no better way they are written, one by one.
    ///
    /// # Errors
    /// [`DiskError`].
    fn write_zeroes(&mut self, sector: u64, sectors: u64, storage: Storage) -> Result<(), DiskError> {
        let _ = storage;
        (sector..sector.saturating_add(sectors))
            .try_for_each(|sector| self.write_at(sector, &[0; to_usize(SECTOR)]))
    }
}

/// What becomes of the storage of sectors that are made zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The sectors keep their storage.
    Kept,
    /// The sectors' storage may be given back.
    MayBeFreed,
}

/// A disk's serial number, which a guest uses to tell disks apart: at most 20 bytes of printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial([u8; Self::BYTES]);

impl Serial {
    /// Bytes of a serial number; shorter ones are filled with zeros.
    pub const BYTES: usize = 20;
    /// The serial number of a disk that was given none.
    pub const DEFAULT: Self = Self(*b"tdvisor disk\0\0\0\0\0\0\0\0");

    /// The serial number that is this text; `None` if it is empty, too long, or has other characters.
    pub fn new(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        let place = bytes.get_mut(..text.len()).filter(|place| !place.is_empty() && printable)?;
        place.copy_from_slice(text.as_bytes());
        Some(Self(bytes))
    }
}

/// What a disk allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskAccess {
    /// Reads and writes.
    ReadWrite,
    /// Reads only: the guest is told so.
    ReadOnly,
}

/// The storage behind a disk failed; the guest sees an I/O error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskError;

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the disk's storage failed")
    }
}

impl core::error::Error for DiskError {}

/// The device.
pub struct VirtioBlk {
    disk: Box<dyn Disk>,
    serial: Serial,
    config: Config,
    /// The driver flushes: writes may wait for that.
    flushed_by_driver: bool,
    /// Data on its way.
    piece: Box<[u8]>,
}

impl VirtioBlk {
    /// `disk` as a virtio device.
    pub fn new(disk: Box<dyn Disk>) -> Self {
        Self {
            serial: Serial::DEFAULT,
            config: Config::of(disk.sectors()),
            disk,
            flushed_by_driver: false,
            piece: vec![0; SIZE_MAX as usize].into_boxed_slice(),
        }
    }

    /// This device with a serial number of its own.
    #[must_use]
    pub fn with_serial(self, serial: Serial) -> Self {
        Self { serial, ..self }
    }

    /// Carries out a request whose header has been read. Leaves the writer before the status.
    fn carry_out(
        &mut self,
        header: &Header,
        reader: &mut Reader<'_>,
        writer: &mut Writer<'_>,
    ) -> Result<Status, Broken> {
        let (kind, sector) = (header.kind.get(), header.sector.get());
        match kind {
            request::IN => self.read(sector, writer),
            request::OUT => self.write(sector, reader),
            request::FLUSH => Ok(status_of(self.disk.flush())),
            request::GET_ID => {
                let room = usize::try_from(writer.remaining().saturating_sub(STATUS_BYTES));
                let serial = &self.serial.0;
                writer.write(room.ok().and_then(|room| serial.get(..room)).unwrap_or(serial))?;
                Ok(Status::Ok)
            }
            request::DISCARD => self.change_ranges(Change::Discard, reader),
            request::WRITE_ZEROES => self.change_ranges(Change::WriteZeroes, reader),
            _ => Ok(Status::Unsupported),
        }
    }

    fn read(&mut self, mut sector: u64, writer: &mut Writer<'_>) -> Result<Status, Broken> {
        let mut left = writer.remaining().saturating_sub(STATUS_BYTES);
        if !self.allows(sector, left) {
            return Ok(Status::IoError);
        }
        while left > 0 {
            let piece = first_of(&mut self.piece, left);
            if self.disk.read_at(sector, piece).is_err() {
                return Ok(Status::IoError);
            }
            writer.write(piece)?;
            left = left.saturating_sub(piece.len() as u64);
            sector = sector.saturating_add(piece.len() as u64 / SECTOR);
        }
        Ok(Status::Ok)
    }

    fn write(&mut self, mut sector: u64, reader: &mut Reader<'_>) -> Result<Status, Broken> {
        let mut left = reader.remaining();
        if self.disk.access() == DiskAccess::ReadOnly || !self.allows(sector, left) {
            return Ok(Status::IoError);
        }
        while left > 0 {
            let piece = first_of(&mut self.piece, left);
            reader.read(piece)?;
            if self.disk.write_at(sector, piece).is_err() {
                return Ok(Status::IoError);
            }
            left = left.saturating_sub(piece.len() as u64);
            sector = sector.saturating_add(piece.len() as u64 / SECTOR);
        }
        if self.flushed_by_driver { Ok(Status::Ok) } else { Ok(status_of(self.disk.flush())) }
    }

    /// Discards ranges, or makes them zero.
    fn change_ranges(&mut self, change: Change, reader: &mut Reader<'_>) -> Result<Status, Broken> {
        let bytes = reader.remaining();
        if self.disk.access() == DiskAccess::ReadOnly
            || !bytes.is_multiple_of(RANGE_BYTES)
            || bytes > RANGE_BYTES * u64::from(RANGES_MAX)
        {
            return Ok(Status::IoError);
        }
        let mut ranges = Vec::new();
        while reader.remaining() > 0 {
            let range: Range = reader.read_one()?;
            match self.judge(change, range) {
                Status::Ok => ranges.push(range),
                refused => return Ok(refused),
            }
        }
        for range in ranges {
            let (sector, sectors) = (range.sector.get(), range.sectors.get());
            let storage =
                if range.flags.get() & RANGE_UNMAP != 0 { Storage::MayBeFreed } else { Storage::Kept };
            let changed = match change {
                Change::Discard => self.disk.discard(sector, sectors.into()),
                Change::WriteZeroes => self.disk.write_zeroes(sector, sectors.into(), storage),
            };
            if changed.is_err() {
                return Ok(Status::IoError);
            }
        }
        if self.flushed_by_driver { Ok(Status::Ok) } else { Ok(status_of(self.disk.flush())) }
    }

    /// Whether a range may be changed so.
    fn judge(&self, change: Change, range: Range) -> Status {
        let (flags, most) = match change {
            Change::Discard => (0, DISCARD_SECTORS_MAX),
            Change::WriteZeroes => (RANGE_UNMAP, ZERO_SECTORS_MAX),
        };
        if range.flags.get() & !flags != 0 {
            return Status::Unsupported;
        }
        let (sector, sectors) = (range.sector.get(), range.sectors.get());
        let end = sector.checked_add(sectors.into());
        let inside = sectors <= most && end.is_some_and(|end| end <= self.disk.sectors());
        if inside { Status::Ok } else { Status::IoError }
    }

    /// Whether a request may move `bytes` bytes at `sector`.
    fn allows(&self, sector: u64, bytes: u64) -> bool {
        let end = sector.checked_add(bytes / SECTOR);
        bytes.is_multiple_of(SECTOR)
            && bytes <= REQUEST_BYTES_MAX
            && end.is_some_and(|end| end <= self.disk.sectors())
    }
}

impl VirtioDevice for VirtioBlk {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let of_access = match self.disk.access() {
            DiskAccess::ReadOnly => feature::RO,
            DiskAccess::ReadWrite => feature::DISCARD | feature::WRITE_ZEROES,
        };
        feature::SIZE_MAX | feature::SEG_MAX | feature::BLK_SIZE | feature::FLUSH | of_access
    }

    fn queue_sizes(&self) -> &[u16] {
        &[PLACES]
    }

    fn config(&self) -> &[u8] {
        self.config.as_bytes()
    }

    fn accept(&mut self, features: u64) {
        self.flushed_by_driver = features & feature::FLUSH != 0;
    }

    fn serve(&mut self, _queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        let mut reader = chain.reader(memory);
        let mut writer = chain.writer(memory);
        if writer.remaining() < STATUS_BYTES {
            return Err(Broken::TooShort);
        }
        let header = reader.read_one::<Header>()?;
        let status = self.carry_out(&header, &mut reader, &mut writer)?;
        writer.skip_to_last(STATUS_BYTES)?;
        writer.write(&[status as u8])?;
        Ok(Served::Used(writer.written()))
    }
}

/// The start of a request (section 5.2.6).
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

/// What is done to ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Discard,
    WriteZeroes,
}

/// Sectors to change (section 5.2.6).
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Range {
    sector: U64,
    sectors: U32,
    flags: U32,
}

const _: () = assert!(size_of::<Header>() == 16 && size_of::<Range>() == 16);

fn status_of(result: Result<(), DiskError>) -> Status {
    if result.is_ok() { Status::Ok } else { Status::IoError }
}

/// The first `bytes` bytes of a buffer, or all of it.
fn first_of(buffer: &mut [u8], bytes: u64) -> &mut [u8] {
    let bytes = usize::try_from(bytes).map_or(buffer.len(), |bytes| bytes.min(buffer.len()));
    buffer.get_mut(..bytes).unwrap_or_default()
}

/// The configuration space (section 5.2.4). Geometry, topology, cache mode and erasing are not offered, and zero.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Config {
    capacity: U64,
    size_max: U32,
    seg_max: U32,
    geometry: [u8; 4],
    blk_size: U32,
    topology: [u8; 8],
    writeback: [u8; 2],
    num_queues: U16,
    max_discard_sectors: U32,
    max_discard_seg: U32,
    discard_sector_alignment: U32,
    max_write_zeroes_sectors: U32,
    max_write_zeroes_seg: U32,
    write_zeroes_may_unmap: u8,
    unused: [u8; 3],
    max_secure_erase_sectors: U32,
}

const _: () = assert!(size_of::<Config>() == 64);

impl Config {
    /// The configuration space of a disk with this many sectors.
    fn of(sectors: u64) -> Self {
        /// Sectors that DISCARD ranges should be aligned to: a page of the host's file.
        const DISCARD_ALIGNMENT: u32 = 8;
        Self {
            capacity: sectors.into(),
            size_max: SIZE_MAX.into(),
            seg_max: SEG_MAX.into(),
            blk_size: const { low::double(SECTOR) }.into(),
            max_discard_sectors: DISCARD_SECTORS_MAX.into(),
            max_discard_seg: RANGES_MAX.into(),
            discard_sector_alignment: DISCARD_ALIGNMENT.into(),
            max_write_zeroes_sectors: ZERO_SECTORS_MAX.into(),
            max_write_zeroes_seg: RANGES_MAX.into(),
            write_zeroes_may_unmap: 1,
            ..Self::new_zeroed()
        }
    }
}

#[cfg(test)]
mod tests;
