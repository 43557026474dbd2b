//! One command of this machine, run in a guest under a kernel that is to be tried.
//!
//! [`initrd::initrd`] makes an initial RAM disk on the fly: a static init of ours, the command's program with its loader
//! and libraries, a script with its interpreter and the programs it names, and what else is asked for. The init runs the
//! command, and carries its standard streams and its end over the second serial port ([`protocol`]), whose other end is a
//! [`channel::Channel`]. The console stays the kernel's.
//!
//! ```
//! use guest_command::initrd::{Source, initrd};
//! let words = ["sh".into(), "-c".into(), "exit 7".into()];
//! let disk = initrd(Source::Host, "/".as_ref(), &words, &[])?;
//! assert!(disk.starts_with(b"070701"), "a cpio archive");
//! # Ok::<(), guest_command::collect::CollectError>(())
//! ```

#![forbid(unsafe_code)]

pub mod archive;
pub mod channel;
pub mod collect;
mod elf;
pub mod initrd;
pub mod protocol;
mod script;
