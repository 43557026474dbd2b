//! A disk whose sectors are in a file, or in a block device.
//!
//! # Protocol
//! The file is opened once and its size is read once, rounded down to whole sectors. A file that cannot be written is a
//! read-only disk. The file is locked against other programs that lock it too, another tdvisor above all: two
//! guests that write one file system destroy it.
//!
//! A file that shrinks while it is a disk gives I/O errors to the guest; one that grows stays as it was.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tdvisor_devices::virtio::blk::{Disk, DiskAccess, DiskError, SECTOR};

/// The disk.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    sectors: u64,
    access: DiskAccess,
}

impl FileDisk {
    /// The disk in the file at `path`.
    ///
    /// # Errors
    /// There is no such file, it cannot be read, it is not a file or block device, has less than a sector, or
    /// somebody else has locked it. The error's text is one line and does not name the file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (file, access) = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => (file, DiskAccess::ReadWrite),
            Err(error) if cannot_write(&error) => (File::open(path)?, DiskAccess::ReadOnly),
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
        Ok(Self { file, sectors, access })
    }
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
        let busy = TestFile::new("busy", &[0; 512]);
        let _user = FileDisk::open(&busy.0).unwrap();
        for (path, part) in [
            (Path::new("/no/such/disk"), "No such file"),
            (&std::env::temp_dir(), "directory"),
            (&small.0, "at least one sector"),
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
}
