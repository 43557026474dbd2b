//! What the boot shim finds in `fw_cfg`: a kernel, maybe an initial RAM disk, and a command line.
//!
//! The names are a contract with `tools/guests/boot-shim`. Nothing is parsed here: the shim measures each file as it
//! is and says what is wrong with it.

use std::fmt;
use std::sync::Arc;

use td_host::td::SHARED_BIT;
use tdvisor_devices::fw_cfg::{FileError, FwCfg};

/// The kernel: a bzImage or an ELF vmlinux.
pub const KERNEL: &str = "opt/org.tdvisor/kernel";
/// The initial RAM disk; not there if there is none.
pub const INITRD: &str = "opt/org.tdvisor/initrd";
/// The command line: text without a NUL.
pub const COMMAND_LINE: &str = "opt/org.tdvisor/cmdline";

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

impl LinuxFiles {
    /// The device that hands these files to the shim.
    ///
    /// # Errors
    /// [`FileError::TooLarge`]: a file has 4 GiB or more.
    pub fn into_fw_cfg(self) -> Result<FwCfg, FileError> {
        let command_line = Arc::from(self.command_line.into_bytes());
        let files = [(KERNEL, Some(self.kernel)), (INITRD, self.initrd), (COMMAND_LINE, Some(command_line))];
        let present = files.into_iter().filter_map(|(name, file)| Some((name.to_owned(), file?)));
        FwCfg::new(present, SHARED_BIT)
    }
}
