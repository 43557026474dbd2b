//! A folder of the host that a guest may read, or change in memory: a server of the FUSE protocol, in this process.
//!
//! # Who does what
//! [`Share`] is what the device has; a thread of its own does the work, so that a file system that does not answer holds no
//! vCPU for ever. `server` answers messages, `protocol` has their layouts, `nodes` knows which names the guest holds,
//! `folder` is the only place that touches the host's file system. `overlay` answers instead of `server` where the guest may
//! write: into memory of this process, above the host's files.
//!
//! # Security
//! A guest is not trusted. Every name is one component, without `/` and NUL, and neither `.` nor `..`; every path is opened from
//! the folder's own descriptor by `openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`, so that neither `..` nor a symbolic
//! link, not even one that somebody puts there meanwhile, leads out of it. The guest follows links itself, among its own
//! files. Only regular files are opened for reading. Nothing of the host is ever written.
//!
//! # What the guest sees
//! Owners, modes and times as they are; the time of access is that of the last change, because reading must change nothing.
//! Numbers of files are the server's own, in the order of their first use, so that they do not depend on the host.
//!
//! # Bounds
//! [`nodes::NODES_MAX`] names, [`server::HANDLES_MAX`] open files and folders, [`server::ENTRIES_MAX`] entries of open
//! folders. What is beyond gets an error.
//!
//! # Why no crate
//! `fuse-backend-rs` and the library part of virtiofsd serve FUSE over `vm-memory`, whose regions give pointers into guest
//! memory; the memory here has none to give. What they have beyond that, a folder that is written, needs capabilities and
//! changes of credentials that this program does not want.

mod attributes;
mod folder;
mod listing;
pub mod nodes;
pub mod overlay;
mod protocol;
pub mod server;

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tdvisor_devices::virtio::fs::FileServer;

use self::folder::Folder;
use self::overlay::Overlay;
use self::protocol::Request;
use self::server::{Answers, Server};
use crate::worker::{StopFlag, Worker};

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(30);

enum Job {
    Answer { message: Vec<u8>, room: usize },
    Reset,
}

/// A folder, behind a thread that reads it.
pub struct Share {
    worker: Worker<Job, Option<Vec<u8>>>,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Share")
    }
}

impl Share {
    /// The folder at `path`, to be read. Its requests end in time, and at once when the flag is set.
    ///
    /// # Errors
    /// There is no such folder, or the kernel has no `openat2`.
    pub fn read_only(path: &Path, stop: StopFlag) -> io::Result<Self> {
        Ok(Self::of(Box::new(Server::new(Folder::open(path)?)), stop))
    }

    /// The folder at `path`, with what the guest writes above it in memory. Files change at the time that `clock` gives. Its
    /// requests end in time, and at once when the flag is set.
    ///
    /// # Errors
    /// There is no such folder, or the kernel has no `openat2`.
    pub fn overlay(
        path: &Path,
        clock: impl FnMut() -> SystemTime + Send + 'static,
        stop: StopFlag,
    ) -> io::Result<Self> {
        Ok(Self::of(Box::new(Overlay::new(Folder::open(path)?, Box::new(clock))), stop))
    }

    fn of(mut server: Box<dyn Answers>, stop: StopFlag) -> Self {
        let worker = Worker::new(stop, move |job| match job {
            Job::Answer { message, room } => server.answer(&message, room),
            Job::Reset => {
                server.reset();
                None
            }
        });
        Self { worker }
    }
}

impl FileServer for Share {
    fn answer(&mut self, message: &[u8], room: usize) -> Option<Vec<u8>> {
        let answer = self.worker.ask(Job::Answer { message: message.to_vec(), room }, PATIENCE);
        answer.unwrap_or_else(|_| Request::of(message).and_then(|request| request.overdue(room)))
    }

    fn reset(&mut self) {
        // A thread that is not back in time is told at the next reset.
        let _ = self.worker.ask(Job::Reset, PATIENCE);
    }
}

#[cfg(test)]
mod tests;
