//! The programs of the host that a guest speaks with over vsock: by UNIX sockets, as Firecracker and Cloud Hypervisor have
//! it.
//!
//! # Protocol
//! - A program that wants the guest connects to the socket at PATH, sends `CONNECT <port>` and a newline, and reads
//!   `OK <host port>` and a newline once the guest has granted the connection; then the stream is the guest's. If the guest
//!   refuses, the connection is closed.
//! - When the guest connects to port N of the host, it is connected to whoever listens at the socket PATH_N.
//!
//! Whoever may open these sockets may speak with the guest.
//!
//! # Who does what
//! The device reads and writes streams and never waits. One thread (`Waiter`) waits for all sockets, notes which became
//! readable or writable, reads the words of those who connect, and rings the bell. It ends with the device.
//!
//! # Bounds
//! [`CALLERS_MAX`] programs may be between connecting and their newline; one more pushes the oldest out. A caller's words are at
//! most [`WORDS_MAX`] bytes. [`WAITING_MAX`] programs may wait for the device. The device bounds the rest.

mod stream;
mod waiter;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use tdvisor_devices::virtio::vsock::{Host, Incoming, Stream};

use self::stream::{HostStream, Streams};
use self::waiter::Waiter;
use crate::bell::Bell;

/// Programs that have connected and not said what they want.
pub const CALLERS_MAX: usize = 64;
/// Bytes of what a program says that it wants.
pub const WORDS_MAX: usize = 32;
/// Programs that have said what they want and wait for the device.
pub const WAITING_MAX: usize = 64;

/// What device and thread share.
struct Shared {
    waiting: Mutex<VecDeque<(u32, UnixStream)>>,
    streams: Streams,
    bell: Bell,
    /// Written once, when the device goes.
    stop: OwnedFd,
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<(u32, UnixStream)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The sockets of one guest.
pub struct UnixSockets {
    path: PathBuf,
    /// The socket's file system and number: what is removed at the end is what was made.
    made: (u64, u64),
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for UnixSockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnixSockets").field("path", &self.path).finish_non_exhaustive()
    }
}

impl UnixSockets {
    /// Listens at `path`, where nothing may be yet.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub fn listen(path: &Path, bell: Bell) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        let data = std::fs::symlink_metadata(path)?;
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            streams: Streams::new()?,
            bell,
            stop: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let mut waiter = Waiter::new(listener, shared.clone())?;
        let thread = std::thread::Builder::new().name("vsock".to_owned()).spawn(move || waiter.run())?;
        Ok(Self { path: path.to_owned(), made: (data.dev(), data.ino()), shared, thread: Some(thread) })
    }
}

impl Drop for UnixSockets {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let now = std::fs::symlink_metadata(&self.path).map(|data| (data.dev(), data.ino()));
        if now.is_ok_and(|now| now == self.made) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Connects without waiting: a program whose queue is full is as good as none.
fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket.into())
}

impl Host for UnixSockets {
    fn connect(&mut self, port: u32) -> Option<Box<dyn Stream>> {
        let mut path = self.path.clone().into_os_string();
        path.push(format!("_{port}"));
        let stream = connect_now(Path::new(&path)).ok()?;
        Some(Box::new(HostStream::new(stream, &self.shared).ok()?))
    }

    fn has_incoming(&self) -> bool {
        !self.shared.waiting().is_empty()
    }

    fn accept(&mut self) -> Option<Incoming> {
        let (guest_port, stream) = self.shared.waiting().pop_front()?;
        let stream = HostStream::new(stream, &self.shared).ok()?;
        Some(Incoming { guest_port, stream: Box::new(stream) })
    }
}

#[cfg(test)]
mod tests;
