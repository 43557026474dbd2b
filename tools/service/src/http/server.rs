//! The socket, who may use it, and the threads that answer.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{Mode, fchmod};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{getegid, geteuid};

use super::connection;
use super::message::{Peer, Request, Response};
use super::places::Places;

/// Clients that wait to be accepted.
const BACKLOG: i32 = 64;
/// How long nobody is accepted after this process could open no more descriptors.
const BREATH: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Who may use a socket, beside the superuser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// The user of this process: the file has mode 0600.
    #[default]
    Owner,
    /// The user and the group of this process: the file has mode 0660.
    Group,
}

impl Access {
    fn mode(self) -> Mode {
        match self {
            Self::Owner => Mode::from_raw_mode(0o600),
            Self::Group => Mode::from_raw_mode(0o660),
        }
    }

    /// Whether this is one of those; the file's mode says the same, but a socket that was inherited has whatever mode.
    fn admits(self, peer: Peer) -> bool {
        const ROOT: u32 = 0;
        let is_owner = peer.uid == ROOT || peer.uid == geteuid().as_raw();
        is_owner || (self == Self::Group && peer.gid == getegid().as_raw())
    }
}

/// What a server allows its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// How long the bytes of a request may take to come, and those of an answer to be taken.
    pub arrival: Duration,
    /// How long a request may take, from its first byte to its answer.
    pub request: Duration,
    /// How long events are told on one connection.
    pub events: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (arrival, request) = (Duration::from_secs(10), Duration::from_secs(120));
        Self { connections: 32, arrival, request, events: Duration::from_secs(3600) }
    }
}

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers a request. Whoever waits for something on the way waits no longer than until the deadline.
    fn answer(&self, request: Request, deadline: Instant) -> Response;
}

/// A socket that nobody is served at yet.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    access: Access,
    file: Option<SocketFile>,
}

/// The file of a socket: what is removed at the end is what was made.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    made: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let now = fs::symlink_metadata(&self.path).map(|data| (data.dev(), data.ino()));
        if now.is_ok_and(|now| now == self.made) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a socket that is nobody else's from its first moment on: the file gets the mode that the socket has.
fn bind_with(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, access.mode())?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Whether a socket is there at which nobody listens any more.
fn is_left_over(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    is_socket
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl Server {
    /// A socket at `path`. One that is left over from a process that is gone is replaced.
    ///
    /// # Errors
    /// Something else is there, somebody listens there, or it cannot be made.
    pub fn bind(path: &Path, access: Access) -> io::Result<Self> {
        let socket = match bind_with(path, access) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_over(path) => {
                fs::remove_file(path)?;
                bind_with(path, access)?
            }
            socket => socket?,
        };
        if access == Access::Group {
            // What this process's file creation mask took from it.
            fs::set_permissions(path, fs::Permissions::from_mode(access.mode().bits()))?;
        }
        let data = fs::symlink_metadata(path)?;
        let file = SocketFile { path: path.to_owned(), made: (data.dev(), data.ino()) };
        listen(&socket, BACKLOG)?;
        Self::new(socket.into(), access, Some(file))
    }

    /// A socket that somebody else made and listens at.
    ///
    /// # Errors
    /// It is none.
    pub fn inherited(socket: OwnedFd, access: Access) -> io::Result<Self> {
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nobody listens at this descriptor"));
        }
        Self::new(socket.into(), access, None)
    }

    fn new(listener: UnixListener, access: Access, file: Option<SocketFile>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, access, file })
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(self, limits: Limits, service: Arc<dyn Service>) -> io::Result<Running> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let places = Places::new(limits.connections);
        let acceptor = Acceptor {
            listener: self.listener,
            access: self.access,
            stop: stop.try_clone()?,
            places: places.clone(),
            limits,
            service,
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || acceptor.run())?;
        Ok(Running { stop, places, thread: Some(thread), _file: self.file })
    }
}

/// A server that answers, until it is stopped or dropped.
pub struct Running {
    stop: OwnedFd,
    places: Arc<Places>,
    thread: Option<JoinHandle<()>>,
    _file: Option<SocketFile>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Running")
    }
}

impl Running {
    /// Takes no more requests, lets the answers that are under way be written for so long, and removes the socket.
    pub fn stop(mut self, within: Duration) {
        self.end();
        self.places.wait(Instant::now() + within);
    }

    fn end(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        self.places.end();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread that accepts.
struct Acceptor {
    listener: UnixListener,
    access: Access,
    stop: OwnedFd,
    places: Arc<Places>,
    limits: Limits,
    service: Arc<dyn Service>,
}

impl Acceptor {
    fn run(self) {
        loop {
            let mut fds =
                [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
            if poll(&mut fds, None).is_err_and(|errno| errno != rustix::io::Errno::INTR) {
                return;
            }
            let [stop, _] = fds.map(|fd| fd.revents());
            if !stop.is_empty() {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream),
                Err(error) if is_passing(&error) => {}
                // No more descriptors: whoever is idle may have some to give back, and takes a moment for it.
                Err(_) => {
                    let _ = poll(&mut [PollFd::new(&self.stop, PollFlags::IN)], Some(&BREATH));
                }
            }
        }
    }

    /// Gives a connection its thread, if it may have one.
    fn admit(&self, stream: UnixStream) {
        let Ok(who) = socket_peercred(&stream) else { return };
        let peer = Peer { pid: who.pid.as_raw_nonzero().get(), uid: who.uid.as_raw(), gid: who.gid.as_raw() };
        if !self.access.admits(peer) {
            return;
        }
        let stream = Arc::new(stream);
        let Some(place) = self.places.take(stream.clone()) else { return };
        let (service, limits) = (self.service.clone(), self.limits);
        // Without a thread the connection is closed and its place is free again.
        let _ = std::thread::Builder::new()
            .name("http-connection".to_owned())
            .spawn(move || connection::serve(&stream, peer, &place, limits, &*service));
    }
}

/// Whether the next client may well come.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}
