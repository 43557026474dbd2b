//! fw_cfg: the files that the host offers, read by DMA through a shared buffer (QEMU docs/specs/fw_cfg.rst).
//!
//! The buffer's first page holds the request, the rest the data. Everything is copied into private memory before
//! anybody looks at it. The device moves the data while the request is written to its port; the shim still polls,
//! a bounded number of times.

pub mod directory;

use core::fmt;

use guest_rt::shared::SharedBuffer;
use guest_rt::smp::wait_until;
use tdx_guest::tdvmcall::{IoSize, TdVmcallError, io_read, io_write};

use directory::{Directory, DirectoryError, ENTRY, File, MAX_ENTRIES};
use tdvisor_board::address::{FW_CFG as FW_CFG_SELECTOR, FW_CFG_DATA, FW_CFG_DMA};

const ITEM_SIGNATURE: u16 = 0x00;
const ITEM_FEATURES: u16 = 0x01;
const ITEM_DIRECTORY: u16 = 0x19;
const SIGNATURE: [u8; 4] = *b"QEMU";
const FEATURE_DMA: u8 = 1 << 1;

const DMA_ERROR: u32 = 1;
const DMA_READ: u32 = 1 << 1;
const DMA_SELECT: u32 = 1 << 3;
/// Where the data begin in the buffer.
const DATA: usize = 0x1000;

/// What is wrong with the device.
#[derive(Debug)]
pub enum FwCfgError {
    /// No device, or one without DMA.
    Absent,
    /// A port access that the host refused.
    Port(TdVmcallError),
    /// A transfer that the device failed, of this item.
    Transfer(u16),
    /// A transfer that did not end.
    Stuck(u16),
    /// The directory.
    Directory(DirectoryError),
    /// More files than are looked at.
    TooManyFiles(u32),
}

impl fmt::Display for FwCfgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no such device with DMA, so nothing to boot"),
            Self::Port(error) => write!(f, "port access refused: {error:?}"),
            Self::Transfer(item) => write!(f, "the device failed to read item {item:#x}"),
            Self::Stuck(item) => write!(f, "the transfer of item {item:#x} does not end"),
            Self::Directory(DirectoryError::Twice(name)) => write!(f, "{name} is there twice"),
            Self::Directory(DirectoryError::BadSelector(name, selector)) => {
                write!(f, "{name} has the impossible selector {selector:#x}")
            }
            Self::TooManyFiles(count) => write!(f, "{count} files, at most {MAX_ENTRIES}"),
        }
    }
}

impl From<TdVmcallError> for FwCfgError {
    fn from(error: TdVmcallError) -> Self {
        Self::Port(error)
    }
}

impl From<DirectoryError> for FwCfgError {
    fn from(error: DirectoryError) -> Self {
        Self::Directory(error)
    }
}

/// The device.
#[derive(Debug)]
pub struct FwCfg {
    buffer: SharedBuffer,
    item: u16,
}

impl FwCfg {
    /// Finds the device.
    ///
    /// # Errors
    /// [`FwCfgError`].
    pub fn find(buffer: SharedBuffer) -> Result<Self, FwCfgError> {
        let mut signature = [0; 4];
        read_slowly(ITEM_SIGNATURE, &mut signature)?;
        let mut features = [0; 1];
        read_slowly(ITEM_FEATURES, &mut features)?;
        if signature != SIGNATURE || features[0] & FEATURE_DMA == 0 {
            return Err(FwCfgError::Absent);
        }
        Ok(Self { buffer, item: ITEM_SIGNATURE })
    }

    /// Reads the directory.
    ///
    /// # Errors
    /// [`FwCfgError`].
    pub fn directory(&mut self) -> Result<Directory, FwCfgError> {
        let mut count = [0; 4];
        self.select(ITEM_DIRECTORY, &mut count)?;
        let count = u32::from_be_bytes(count);
        if count > MAX_ENTRIES {
            return Err(FwCfgError::TooManyFiles(count));
        }
        let mut directory = Directory::default();
        for _ in 0..count {
            let mut entry = [0; ENTRY];
            self.read(0, &mut entry)?;
            directory.note(&entry)?;
        }
        Ok(directory)
    }

    /// Reads a file's first bytes, as many as `to` has.
    ///
    /// # Errors
    /// [`FwCfgError`].
    pub fn file(&mut self, file: File, to: &mut [u8]) -> Result<(), FwCfgError> {
        self.select(file.selector, to)
    }

    /// Gives the buffer back.
    pub fn into_buffer(self) -> SharedBuffer {
        self.buffer
    }

    fn select(&mut self, item: u16, to: &mut [u8]) -> Result<(), FwCfgError> {
        self.item = item;
        self.read(DMA_SELECT | u32::from(item) << 16, to)
    }

    /// Reads on from where the last read ended; `first` is added to the first request.
    fn read(&mut self, first: u32, to: &mut [u8]) -> Result<(), FwCfgError> {
        let mut control = DMA_READ | first;
        for chunk in to.chunks_mut(self.buffer.len().saturating_sub(DATA).max(1)) {
            self.transfer(control, chunk)?;
            control = DMA_READ;
        }
        Ok(())
    }

    fn transfer(&mut self, control: u32, to: &mut [u8]) -> Result<(), FwCfgError> {
        let failed = FwCfgError::Transfer(self.item);
        // The device takes the address without the SHARED bit, as it is on a bus.
        let request = self.buffer.gpa() & !guest_rt::td::shared_bit();
        let words = u64::from(control.to_be()) | u64::from((to.len() as u32).to_be()) << 32;
        self.buffer.write(0, words);
        self.buffer.write(8, (request + DATA as u64).to_be());
        io_write(IoSize::Size4, FW_CFG_DMA, ((request >> 32) as u32).to_be())?;
        io_write(IoSize::Size4, FW_CFG_DMA + 4, (request as u32).to_be())?;
        // The control word is the first four bytes; what the device leaves there is big-endian as well.
        let control = || self.buffer.read(0).map_or(DMA_ERROR, |words| u32::from_be(words as u32));
        if !wait_until(|| control() & !DMA_ERROR == 0) {
            return Err(FwCfgError::Stuck(self.item));
        }
        if control() != 0 || !self.buffer.copy_out(DATA, to) {
            return Err(failed);
        }
        Ok(())
    }
}

/// Reads by the data port, one byte per access: before it is known that there is DMA.
fn read_slowly(item: u16, to: &mut [u8]) -> Result<(), TdVmcallError> {
    io_write(IoSize::Size2, FW_CFG_SELECTOR, u32::from(item))?;
    to.iter_mut().try_for_each(|byte| {
        *byte = io_read(IoSize::Size1, FW_CFG_DATA)? as u8;
        Ok(())
    })
}
