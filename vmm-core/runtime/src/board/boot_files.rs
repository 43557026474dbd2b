//! What firmware boots: a kernel, maybe an initial RAM disk, and a command line.
//!
//! Nothing is parsed here beyond where a bzImage's set-up part ends: firmware measures what it is given and says what is
//! wrong with it.

use std::fmt;
use std::sync::Arc;

use td_image::linux::SetupHeader;
use tdvisor_board::files;
use tdvisor_devices::fw_cfg::{FileError, FwCfg, key};

/// What boots. The contents are shared with whoever predicts their measurement.
#[derive(Clone)]
pub struct LinuxFiles {
    /// The kernel's file.
    pub kernel: Arc<[u8]>,
    /// The initial RAM disk's file.
    pub initrd: Option<Arc<[u8]>>,
    /// The command line.
    pub command_line: String,
}

impl fmt::Debug for LinuxFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinuxFiles")
            .field("kernel_bytes", &self.kernel.len())
            .field("initrd_bytes", &self.initrd.as_ref().map(|file| file.len()))
            .field("command_line", &self.command_line)
            .finish()
    }
}

/// For whom the files are, and so how they are offered.
#[derive(Clone, Debug, Default)]
pub enum BootFiles {
    /// The image boots by itself, or from a disk.
    #[default]
    None,
    /// The boot shim, which has files of its own.
    Shim(LinuxFiles),
    /// UEFI firmware, which knows QEMU's keys. The kernel is a bzImage.
    Uefi(LinuxFiles),
}

impl BootFiles {
    /// The files with names.
    pub(super) fn named(&self) -> Vec<(String, Arc<[u8]>)> {
        let Self::Shim(linux) = self else { return Vec::new() };
        let command_line = Some(Arc::from(linux.command_line.as_bytes()));
        let all = [
            (files::KERNEL, Some(linux.kernel.clone())),
            (files::INITRD, linux.initrd.clone()),
            (files::COMMAND_LINE, command_line),
        ];
        all.into_iter().filter_map(|(name, file)| Some((name.to_owned(), file?))).collect()
    }

    /// `fw_cfg` with the files that have keys: sizes first, then contents.
    ///
    /// # Errors
    /// [`FileError::TooLarge`]: a file has 4 GiB or more.
    pub(super) fn keyed(self, mut fw_cfg: FwCfg) -> Result<FwCfg, FileError> {
        let Self::Uefi(files) = self else { return Ok(fw_cfg) };
        let setup = SetupHeader::of(&files.kernel).map_or(0, SetupHeader::setup_bytes);
        let (setup, kernel) = files.kernel.split_at_checked(setup).unwrap_or((&files.kernel, &[]));
        let command_line: Vec<u8> = files.command_line.bytes().chain([0]).collect();
        for (size, contents, file) in [
            (key::SETUP_BYTES, key::SETUP, Some(Arc::from(setup))),
            (key::KERNEL_BYTES, key::KERNEL, Some(Arc::from(kernel))),
            (key::INITRD_BYTES, key::INITRD, files.initrd),
            (key::COMMAND_LINE_BYTES, key::COMMAND_LINE, Some(Arc::from(command_line))),
        ] {
            let Some(file) = file else { continue };
            let bytes =
                u32::try_from(file.len()).map_err(|_| FileError::TooLarge(format!("{contents:#x}")))?;
            fw_cfg = fw_cfg.with_item(size, Arc::from(bytes.to_le_bytes()))?.with_item(contents, file)?;
        }
        Ok(fw_cfg)
    }

    /// What firmware is to try, in this order: QEMU's name for its own way to boot a kernel, or the first disk.
    pub(super) const fn boot_order(&self) -> Option<&'static str> {
        match self {
            Self::Uefi(_) => Some("/rom@genroms/linuxboot_dma.bin"),
            Self::None | Self::Shim(_) => None,
        }
    }
}
