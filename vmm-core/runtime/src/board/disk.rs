//! A disk whose sectors are in a file, or in a block device.
//!
//! # Protocol
//! The file is opened once and its size is read once, rounded down to whole sectors. A file that cannot be written is a
//! read-only disk. The file is locked against other programs that lock it too, another tdvisor above all: two
//! guests that write one file system destroy it.
//!
//! Ranges that are discarded become holes, where the file system has such; where it has not, nothing happens. Ranges that are
//! made zero become holes if their storage may be freed, and otherwise, or where there are no holes, zeros are written.
//!
//! A file that shrinks while it is a disk gives I/O errors to the guest; one that grows stays as it was.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use tdvisor_devices::virtio::blk::{Disk, DiskAccess, DiskError, SECTOR, Storage};

use super::disk_format::{ForeignFormat, HEAD_BYTES};

/// Zeros that are written at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The disk.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    sectors: u64,
    access: DiskAccess,
}

impl FileDisk {
    /// The disk in the file at `path`, to be read and written if it can be.
    ///
    /// # Errors
    /// As [`Self::open_as`].
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_as(path, DiskAccess::ReadWrite)
    }

    /// The disk in the file at `path`, to be used so if it can.
    ///
    /// # Errors
    /// There is no such file, it cannot be read, it is not a file or block device, has less than a sector, holds an image
    /// that is not raw, or somebody else has locked it. The error's text is one line and does not name the file.
    pub fn open_as(path: &Path, wanted: DiskAccess) -> io::Result<Self> {
        if wanted == DiskAccess::ReadOnly {
            return Self::in_file(reading().open(path)?, DiskAccess::ReadOnly);
        }
        let (file, access) = match reading().write(true).open(path) {
            Ok(file) => (file, DiskAccess::ReadWrite),
            Err(error) if cannot_write(&error) => (reading().open(path)?, DiskAccess::ReadOnly),
            Err(error) => return Err(error),
        };
        Self::in_file(file, access)
    }

    fn in_file(mut file: File, access: DiskAccess) -> io::Result<Self> {
        lock(&file, access)?;
        // A block device has no size in its metadata.
        let sectors = file.seek(SeekFrom::End(0))? / SECTOR;
        if sectors == 0 {
            let why = format!("too small for a disk: it needs at least one sector of {SECTOR} bytes");
            return Err(io::Error::new(ErrorKind::InvalidData, why));
        }
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0)?;
        if let Some(format) = ForeignFormat::of(&head) {
            return Err(io::Error::new(ErrorKind::InvalidData, format.to_string()));
        }
        Ok(Self { file, sectors, access })
    }

    /// Makes a hole. Whether there can be one.
    fn punch(&self, sector: u64, sectors: u64) -> Result<bool, DiskError> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, how, offset(sector)?, offset(sectors)?) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS | rustix::io::Errno::NODEV) => {
                Ok(false)
            }
            Err(_) => Err(DiskError),
        }
    }
}

/// Opens files for reading. A pipe, which is no disk, is not waited for.
fn reading() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options
}

fn cannot_write(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Readers may share a disk; a writer has it alone. Where nothing can be locked nothing is.
fn lock(file: &File, access: DiskAccess) -> io::Result<()> {
    let locked = match access {
        DiskAccess::ReadWrite => file.try_lock(),
        DiskAccess::ReadOnly => file.try_lock_shared(),
    };
    match locked {
        Err(TryLockError::WouldBlock) => {
            Err(io::Error::new(ErrorKind::ResourceBusy, "in use as a disk by another program"))
        }
        Err(TryLockError::Error(_)) | Ok(()) => Ok(()),
    }
}

fn offset(sector: u64) -> Result<u64, DiskError> {
    sector.checked_mul(SECTOR).ok_or(DiskError)
}

impl Disk for FileDisk {
    fn sectors(&self) -> u64 {
        self.sectors
    }

    fn access(&self) -> DiskAccess {
        self.access
    }

    fn read_at(&mut self, sector: u64, out: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(out, offset(sector)?).map_err(|_| DiskError)
    }

    fn write_at(&mut self, sector: u64, data: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(data, offset(sector)?).map_err(|_| DiskError)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|_| DiskError)
    }

    fn discard(&mut self, sector: u64, sectors: u64) -> Result<(), DiskError> {
        if sectors == 0 { Ok(()) } else { self.punch(sector, sectors).map(drop) }
    }

    fn write_zeroes(&mut self, sector: u64, sectors: u64, storage: Storage) -> Result<(), DiskError> {
        if sectors == 0 || storage == Storage::MayBeFreed && self.punch(sector, sectors)? {
            return Ok(());
        }
        let (mut at, mut left) = (offset(sector)?, offset(sectors)?);
        while left > 0 {
            let piece = usize::try_from(left).ok().and_then(|left| ZEROS.get(..left)).unwrap_or(&ZEROS);
            self.file.write_all_at(piece, at).map_err(|_| DiskError)?;
            at = at.saturating_add(piece.len() as u64);
            left = left.saturating_sub(piece.len() as u64);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    /// A file of its own for one test, removed at its end.
    struct TestFile(PathBuf);

    impl TestFile {
        fn new(name: &str, contents: &[u8]) -> Self {
            let path = std::env::temp_dir().join(format!("tdvisor-disk-{}-{name}", std::process::id()));
            fs::write(&path, contents).unwrap();
            Self(path)
        }
    }

    impl Drop for TestFile {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_in_the_file() {
        let file = TestFile::new("written", &[7; 1536]);
        let mut disk = FileDisk::open(&file.0).unwrap();
        assert_eq!((disk.sectors(), disk.access()), (3, DiskAccess::ReadWrite));
        disk.write_at(1, &[9; 512]).unwrap();
        disk.flush().unwrap();
        let mut all = [0; 1536];
        disk.read_at(0, &mut all).unwrap();
        assert_eq!(all[..], [[7; 512], [9; 512], [7; 512]].concat());
        assert_eq!(fs::read(&file.0).unwrap(), all);
    }

    #[test]
    fn a_size_between_sectors_is_rounded_down() {
        let file = TestFile::new("rounded", &[0; 1535]);
        assert_eq!(FileDisk::open(&file.0).unwrap().sectors(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_a_read_only_disk() {
        let file = TestFile::new("read-only", &[5; 512]);
        // As root every file can be written: what opening gives for the others is taken from here on.
        assert!(cannot_write(&io::Error::from(ErrorKind::PermissionDenied)));
        assert!(cannot_write(&io::Error::from(ErrorKind::ReadOnlyFilesystem)));
        let mut disk = FileDisk::in_file(File::open(&file.0).unwrap(), DiskAccess::ReadOnly).unwrap();
        assert_eq!(disk.access(), DiskAccess::ReadOnly);
        let mut sector = [0; 512];
        disk.read_at(0, &mut sector).unwrap();
        assert_eq!(sector, [5; 512]);
        assert_eq!(disk.write_at(0, &[0; 512]), Err(DiskError), "even if somebody asked");
    }

    #[test]
    fn what_is_no_disk_is_named_in_one_line() {
        let small = TestFile::new("small", &[0; 511]);
        let qcow2 = TestFile::new("qcow2", &[b"QFI\xfb".as_slice(), &[0; 1020]].concat());
        let busy = TestFile::new("busy", &[0; 512]);
        let _user = FileDisk::open(&busy.0).unwrap();
        for (path, part) in [
            (Path::new("/no/such/disk"), "No such file"),
            (&std::env::temp_dir(), "directory"),
            (&small.0, "at least one sector"),
            (&qcow2.0, "qemu-img convert -f qcow2 -O raw"),
            (&busy.0, "in use"),
        ] {
            let error = FileDisk::open(path).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains('\n'), "{}: {error}", path.display());
        }
    }

    #[test]
    fn a_file_that_shrank_gives_errors() {
        let file = TestFile::new("shrank", &[0; 1024]);
        let mut disk = FileDisk::open(&file.0).unwrap();
        fs::write(&file.0, [0; 512]).unwrap();
        assert_eq!(disk.read_at(1, &mut [0; 512]), Err(DiskError));
        assert_eq!(disk.read_at(0, &mut [0; 512]), Ok(()));
    }

    #[test]
    fn a_disk_that_is_to_be_read_only_is_shared_by_its_readers() {
        let file = TestFile::new("shared", &[3; 512]);
        let _other = FileDisk::open_as(&file.0, DiskAccess::ReadOnly).unwrap();
        let mut disk = FileDisk::open_as(&file.0, DiskAccess::ReadOnly).unwrap();
        assert_eq!(disk.access(), DiskAccess::ReadOnly);
        assert_eq!(disk.write_at(0, &[0; 512]), Err(DiskError));
        assert!(FileDisk::open(&file.0).is_err(), "a writer has it alone");
    }

    #[test]
    fn ranges_that_are_made_zero_read_as_zeros_and_the_size_stays() {
        let file = TestFile::new("zeros", &[7; 512 * 64]);
        let mut disk = FileDisk::open(&file.0).unwrap();
        disk.write_zeroes(1, 2, Storage::Kept).unwrap();
        disk.write_zeroes(8, 16, Storage::MayBeFreed).unwrap();
        disk.write_zeroes(0, 0, Storage::MayBeFreed).unwrap();
        disk.discard(40, 8).unwrap();
        disk.discard(0, 0).unwrap();
        let bytes = fs::read(&file.0).unwrap();
        assert_eq!(bytes.len(), 512 * 64);
        for (sector, contents) in bytes.chunks(512).enumerate() {
            match sector {
                1..3 | 8..24 => assert_eq!(contents, [0; 512], "sector {sector}"),
                // Whether a discarded range reads as zeros is the file system's choice.
                40..48 => {}
                _ => assert_eq!(contents, [7; 512], "sector {sector}"),
            }
        }
    }
}
