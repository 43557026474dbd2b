//! The socket, who may use it, and the threads that answer.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::StatusCode;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::connection;
use super::listener::{Access, Listener, Remote, SocketFile};
use super::message::{Peer, Request, Response};
use super::places::Places;
use super::stream::Stream;

/// How long nobody is accepted after this process could open no more descriptors.
const BREATH: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

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

    /// Takes note that what came was no request, or nobody's who may ask, and what that was answered with.
    fn refused(&self, _: StatusCode) {}
}

/// A socket that nobody is served at yet.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
}

impl Server {
    /// A UNIX socket at `path`. One that is left over from a process that is gone is replaced.
    ///
    /// # Errors
    /// Something else is there, somebody listens there, or it cannot be made.
    pub fn bind(path: &Path, access: Access) -> io::Result<Self> {
        Ok(Self { listener: Listener::bind(path, access)? })
    }

    /// A UNIX socket that somebody else made and listens at.
    ///
    /// # Errors
    /// It is none.
    pub fn inherited(socket: OwnedFd, access: Access) -> io::Result<Self> {
        Ok(Self { listener: Listener::inherited(socket, access)? })
    }

    /// A TCP port, for clients that speak TLS and know a token.
    ///
    /// # Errors
    /// It cannot be had.
    pub fn listen(address: SocketAddr, remote: Remote) -> io::Result<Self> {
        Ok(Self { listener: Listener::tcp(address, remote)? })
    }

    /// The port that is listened at; `None` of a UNIX socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Unix { .. } => None,
            Listener::Tcp { listener, .. } => listener.local_addr().ok(),
        }
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(mut self, limits: Limits, service: Arc<dyn Service>) -> io::Result<Running> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let places = Places::new(limits.connections);
        let file = self.listener.take_file();
        let acceptor = Acceptor {
            remote: self.listener.remote(),
            listener: self.listener,
            stop: stop.try_clone()?,
            places: places.clone(),
            limits,
            service,
        };
        let thread = std::thread::Builder::new().name("http".to_owned()).spawn(move || acceptor.run())?;
        Ok(Running { stop, places, thread: Some(thread), _file: file })
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
    listener: Listener,
    remote: Option<Arc<Remote>>,
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
                Ok(Some((stream, peer))) => self.admit(stream, peer),
                Ok(None) => {}
                Err(error) if is_passing(&error) => {}
                // No more descriptors: whoever is idle may have some to give back, and takes a moment for it.
                Err(_) => {
                    let _ = poll(&mut [PollFd::new(&self.stop, PollFlags::IN)], Some(&BREATH));
                }
            }
        }
    }

    /// Gives a connection its thread, if there is a place for it.
    fn admit(&self, stream: Stream, peer: Peer) {
        let stream = Arc::new(stream);
        let Some(place) = self.places.take(stream.clone()) else { return };
        let (service, limits, remote) = (self.service.clone(), self.limits, self.remote.clone());
        // Without a thread the connection is closed and its place is free again.
        let _ = std::thread::Builder::new().name("http-connection".to_owned()).spawn(move || {
            let token = remote.as_ref().map(|remote| &remote.token);
            connection::serve(&stream, peer, &place, token, limits, &*service);
        });
    }
}

/// Whether the next client may well come.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}
