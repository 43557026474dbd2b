//! Where a debugger's client comes from.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::connection::Client;

/// Clients that wait to be served.
const BACKLOG: i32 = 1;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A socket file, which only its owner may open.
    File(PathBuf),
    /// A TCP port of this machine. Whoever runs a process here can connect.
    Tcp(SocketAddr),
}

/// Why text names no endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointError {
    /// The text is neither a path nor HOST:PORT.
    Malformed,
    /// The host's name has no address.
    UnknownHost,
    /// The protocol knows no authentication: other machines may not connect.
    NotLocal,
}

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "neither a path with a slash in it nor HOST:PORT",
            Self::UnknownHost => "no address of that name is known",
            Self::NotLocal => {
                "not a loopback address: gdb's protocol has no authentication, so only this machine may connect"
            }
        })
    }
}

impl std::error::Error for EndpointError {}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        if text.contains('/') {
            return Ok(Self::File(PathBuf::from(text)));
        }
        let (host, port) = text.rsplit_once(':').ok_or(EndpointError::Malformed)?;
        let port: u16 = port.parse().map_err(|_| EndpointError::Malformed)?;
        let host = match host.trim_matches(['[', ']']) {
            "" => "localhost",
            host => host,
        };
        let mut addresses = (host, port).to_socket_addrs().map_err(|_| EndpointError::UnknownHost)?;
        let address = addresses.next().ok_or(EndpointError::UnknownHost)?;
        if address.ip().is_loopback() { Ok(Self::Tcp(address)) } else { Err(EndpointError::NotLocal) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

/// A socket that listens at an endpoint. A socket file goes when this does, unless it is [left](Self::leaving_its_file).
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    endpoint: Endpoint,
    made: Option<PathBuf>,
}

#[derive(Debug)]
enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens. A port of 0 becomes one that is free.
    ///
    /// # Errors
    /// The system refuses; there already is a file of this name.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        Ok(match endpoint {
            Endpoint::File(path) => {
                let socket = Socket::Unix(of_owner(path)?);
                Self { socket, endpoint: endpoint.clone(), made: Some(path.clone()) }
            }
            Endpoint::Tcp(address) => {
                let socket = TcpListener::bind(address)?;
                socket.set_nonblocking(true)?;
                let endpoint = Endpoint::Tcp(socket.local_addr()?);
                Self { socket: Socket::Tcp(socket), endpoint, made: None }
            }
        })
    }

    /// Leaves a socket file to somebody else: a process that is confined removes none.
    #[must_use]
    pub fn leaving_its_file(self) -> Self {
        let mut left = self;
        left.made = None;
        left
    }

    /// Where the listener listens.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The next client; `None` if none comes within `patience`.
    pub(super) fn accept(&self, patience: Duration) -> Option<Client> {
        if !is_readable(self.socket.as_fd(), patience) {
            return None;
        }
        match &self.socket {
            Socket::Unix(socket) => socket.accept().ok().and_then(|(client, _)| Client::unix(client).ok()),
            Socket::Tcp(socket) => socket.accept().ok().and_then(|(client, _)| Client::tcp(client).ok()),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(socket) => socket.as_fd(),
            Self::Tcp(socket) => socket.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.made {
            // Whoever removed it before has done the work.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A listening socket file that only its owner may open, from its first moment on.
fn of_owner(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // The file takes its mode from the socket.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Whether there is something to read, or to hear of an end, within `patience`.
pub(super) fn is_readable(fd: BorrowedFd<'_>, patience: Duration) -> bool {
    let tv_sec = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec, tv_nsec: patience.subsec_nanos().into() };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready != 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_endpoint_is_a_path_or_a_port_of_this_machine() {
        assert_eq!("./gdb.sock".parse(), Ok(Endpoint::File("./gdb.sock".into())));
        assert_eq!("127.0.0.1:1234".parse(), Ok(Endpoint::Tcp(([127, 0, 0, 1], 1234).into())));
        assert!(matches!("[::1]:1".parse(), Ok(Endpoint::Tcp(address)) if address.ip().is_loopback()));
        for (text, error) in [
            ("gdb", EndpointError::Malformed),
            ("127.0.0.1:gdb", EndpointError::Malformed),
            ("0.0.0.0:1234", EndpointError::NotLocal),
            ("192.0.2.1:1234", EndpointError::NotLocal),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_socket_file_is_its_owners_and_goes_with_its_listener() {
        let folder = std::env::temp_dir().join(format!("tdvisor-gdb-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("socket");
        let endpoint = Endpoint::File(path.clone());
        let listener = Listener::bind(&endpoint).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Listener::bind(&endpoint).is_err(), "somebody else's file stays");
        drop(listener);
        assert!(!path.exists());
        drop(Listener::bind(&endpoint).unwrap().leaving_its_file());
        assert!(path.exists(), "it is left");
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_dir(&folder).unwrap();
    }
}
