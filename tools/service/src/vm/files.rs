//! The files that boot: read, bounded, and checked before a machine is made.

use std::borrow::Cow;
use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use td_image::digest::Digest384;
use td_image::mrtd;
use td_image::tdvf::{HostContents, LoaderModel, SectionKind, TdvfError, TdvfImage};
use tdvisor_guest_images::BOOT_SHIM;
use tdvisor_runtime::board::boot_files::{BootFiles, LinuxFiles};
use tdvisor_runtime::board::kernel::{self, BadKernel, NoRoom};

use crate::config::{PayloadConfig, built_in, is_boot_shim};

/// The largest kernel or RAM disk that is read.
const FILE_MAX: u64 = 1 << 30;
/// The largest image that is read: firmware volumes are a few MiB.
const IMAGE_MAX: u64 = 64 << 20;

/// A file of the payload that cannot be used.
#[derive(Debug)]
pub enum FileError {
    /// The file cannot be read.
    Io(PathBuf, io::Error),
    /// The file is larger than anything that boots.
    TooLarge(PathBuf, u64),
    /// The file is no image of a TD.
    Image(PathBuf, TdvfError),
    /// The file is an image, but no UEFI firmware, and boots neither kernel nor disk.
    NotUefi(PathBuf),
    /// The file is no kernel.
    Kernel(PathBuf, BadKernel),
    /// Kernel and RAM disk need more memory than the VM has.
    NoRoom(NoRoom),
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::TooLarge(path, most) => write!(f, "{}: larger than {} MiB", path.display(), most >> 20),
            Self::Image(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NotUefi(path) => {
                write!(f, "{}: this TDVF image is no UEFI firmware: it has no variable store", path.display())
            }
            Self::Kernel(path, error) => write!(f, "{}: {error}", path.display()),
            Self::NoRoom(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FileError {}

/// What boots.
pub(crate) struct Payload {
    pub(crate) image: Cow<'static, [u8]>,
    pub(crate) files: BootFiles,
    /// MRTD by calculation alone.
    pub(crate) predicted: Digest384,
}

/// Reads all of a file, if it has no more than `most` bytes: devices and pipes have no size to ask for. A pipe that nobody
/// writes to is not waited for.
fn read(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    let io = |error| FileError::Io(path.to_owned(), error);
    let mut bytes = Vec::new();
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(io)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > most {
        return Err(FileError::TooLarge(path.to_owned(), most));
    }
    Ok(bytes)
}

/// The MRTD of an image, and whether it is UEFI firmware.
fn look_at(name: &str, bytes: &[u8]) -> Result<(Digest384, bool), FileError> {
    let bad = |error| FileError::Image(name.into(), error);
    let image = TdvfImage::parse(bytes).map_err(bad)?;
    let plan = image.build_plan(LoaderModel::INTERLEAVED, HostContents::default()).map_err(bad)?;
    let is_uefi = image.sections().any(|section| section.kind == SectionKind::CFV);
    Ok((mrtd::of_plan(&plan), is_uefi))
}

impl Payload {
    /// Reads what is asked for, for a VM with so many bytes of memory and, maybe, disks.
    pub(crate) fn load(payload: &PayloadConfig, memory: u64, has_disks: bool) -> Result<Self, FileError> {
        let kernel = payload.kernel.as_deref().map(|path| load_kernel(payload, path, memory)).transpose()?;
        let name = payload.firmware.as_deref().unwrap_or(BOOT_SHIM.name);
        if let Some(guest) = built_in(name) {
            let (predicted, _) = look_at(name, guest.image)?;
            let files = match kernel {
                Some(files) if is_boot_shim(guest) => BootFiles::Shim(files),
                _ => BootFiles::None,
            };
            return Ok(Self { image: Cow::Borrowed(guest.image), files, predicted });
        }
        let image = read(Path::new(name), IMAGE_MAX)?;
        let (predicted, is_uefi) = look_at(name, &image)?;
        if !is_uefi && (kernel.is_some() || has_disks) {
            return Err(FileError::NotUefi(name.into()));
        }
        let files = kernel.map_or(BootFiles::None, BootFiles::Uefi);
        Ok(Self { image: Cow::Owned(image), files, predicted })
    }
}

fn load_kernel(payload: &PayloadConfig, path: &Path, memory: u64) -> Result<LinuxFiles, FileError> {
    let kernel = read(path, FILE_MAX)?;
    kernel::check(&kernel).map_err(|error| FileError::Kernel(path.to_owned(), error))?;
    let initrd = payload.initramfs.as_deref().map(|path| read(path, FILE_MAX)).transpose()?;
    let command_line = payload.cmdline.clone().unwrap_or_default();
    let files = LinuxFiles { kernel: kernel.into(), initrd: initrd.map(Into::into), command_line };
    kernel::check_room(&files, memory).map_err(FileError::NoRoom)?;
    Ok(files)
}
