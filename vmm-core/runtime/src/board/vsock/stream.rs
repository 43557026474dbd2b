//! A program's socket, and which sockets there are to wait for.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tdvisor_devices::virtio::vsock::{Moved, Stream};

use super::Shared;

/// The first token that a stream has; those below are the thread's own.
pub(super) const FIRST_TOKEN: u64 = 1 << 32;

/// The sockets that are streams, by the token that their events have.
pub(super) struct Streams {
    pub(super) epoll: OwnedFd,
    readable: Mutex<BTreeMap<u64, Arc<AtomicBool>>>,
    next: AtomicU64,
}

impl Streams {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, readable: Mutex::default(), next: AtomicU64::new(FIRST_TOKEN) })
    }

    fn readable(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<AtomicBool>>> {
        self.readable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened to a stream's socket.
    pub(super) fn woke(&self, token: u64) {
        if let Some(readable) = self.readable().get(&token) {
            readable.store(true, Ordering::SeqCst);
        }
    }
}

/// A program's end of a connection.
pub(super) struct HostStream {
    socket: UnixStream,
    token: u64,
    /// Reading may give something. Set by the thread, cleared before a read that may find nothing.
    readable: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl HostStream {
    /// A stream over a socket that does not block.
    pub(super) fn new(socket: UnixStream, shared: &Arc<Shared>) -> io::Result<Self> {
        let streams = &shared.streams;
        let token = streams.next.fetch_add(1, Ordering::Relaxed);
        let readable = Arc::new(AtomicBool::new(true));
        streams.readable().insert(token, readable.clone());
        // Made first, so that it is taken back when the socket cannot be waited for.
        let stream = Self { socket, token, readable, shared: shared.clone() };
        // Edges only: what the guest has no room for must not wake anybody again and again.
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&shared.streams.epoll, &stream.socket, EventData::new_u64(token), flags)?;
        Ok(stream)
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        let _ = epoll::delete(&self.shared.streams.epoll, &self.socket);
        self.shared.streams.readable().remove(&self.token);
    }
}

/// What a system call that may have moved bytes says.
fn moved(result: io::Result<usize>) -> Moved {
    match result {
        Ok(count) => Moved::Bytes(count),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Moved::Later,
        Err(_) => Moved::End,
    }
}

impl Stream for HostStream {
    fn may_read(&self) -> bool {
        self.readable.load(Ordering::SeqCst)
    }

    fn read(&mut self, out: &mut [u8]) -> Moved {
        if out.is_empty() {
            return Moved::Later;
        }
        self.readable.store(false, Ordering::SeqCst);
        let read = match moved(self.socket.read(out)) {
            Moved::Bytes(0) => Moved::End,
            other => other,
        };
        if matches!(read, Moved::Bytes(_)) {
            self.readable.store(true, Ordering::SeqCst);
        }
        read
    }

    fn write(&mut self, data: &[u8]) -> Moved {
        moved(self.socket.write(data))
    }

    fn shut_write(&mut self) {
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    fn established(&mut self, host_port: u32) {
        // The socket is fresh: its buffer takes a line. If the program is gone, the next write says so.
        let _ = self.socket.write_all(format!("OK {host_port}\n").as_bytes());
    }
}
