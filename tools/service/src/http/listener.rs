//! Where clients come, and who is let in.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, fchmod};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::process::{getegid, geteuid};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::message::Peer;
use super::stream::Stream;
use super::token::Token;

/// Clients that wait to be accepted.
const BACKLOG: i32 = 64;

/// Who may use a UNIX socket, beside the superuser.
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
    fn admits(self, uid: u32, gid: u32) -> bool {
        const ROOT: u32 = 0;
        let is_owner = uid == ROOT || uid == geteuid().as_raw();
        is_owner || (self == Self::Group && gid == getegid().as_raw())
    }
}

/// What clients beyond this machine are served with: a certificate that they check, and a token that they have to know.
#[derive(Debug)]
pub struct Remote {
    config: Arc<ServerConfig>,
    pub(super) token: Token,
}

impl Remote {
    /// TLS with these certificates (PEM, the leaf first) and the key of the first (PEM), for clients that know the token.
    ///
    /// # Errors
    /// They are none, or do not belong together.
    pub fn new(chain: &[u8], key: &[u8], token: Token) -> Result<Self, rustls::Error> {
        let none = |what: &str| rustls::Error::General(format!("there is no {what} in PEM"));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or_else(|| none("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| none("key"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(Self { config: Arc::new(config), token })
    }
}

/// Where clients come.
#[derive(Debug)]
pub(super) enum Listener {
    Unix { listener: UnixListener, access: Access, file: Option<SocketFile> },
    Tcp { listener: TcpListener, remote: Arc<Remote> },
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix { listener, .. } => listener.as_fd(),
            Self::Tcp { listener, .. } => listener.as_fd(),
        }
    }
}

impl Listener {
    /// A UNIX socket at `path`. One that is left over from a process that is gone is replaced.
    pub(super) fn bind(path: &Path, access: Access) -> io::Result<Self> {
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
        Self::unix(socket, access, Some(file))
    }

    /// A UNIX socket that somebody else made and listens at.
    pub(super) fn inherited(socket: OwnedFd, access: Access) -> io::Result<Self> {
        if !rustix::net::sockopt::socket_acceptconn(&socket)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "nobody listens at this descriptor"));
        }
        Self::unix(socket, access, None)
    }

    fn unix(socket: OwnedFd, access: Access, file: Option<SocketFile>) -> io::Result<Self> {
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self::Unix { listener, access, file })
    }

    /// A TCP port.
    pub(super) fn tcp(address: SocketAddr, remote: Remote) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Tcp { listener, remote: Arc::new(remote) })
    }

    /// Takes the file of a socket out, which outlives the thread that accepts.
    pub(super) fn take_file(&mut self) -> Option<SocketFile> {
        match self {
            Self::Unix { file, .. } => file.take(),
            Self::Tcp { .. } => None,
        }
    }

    /// What the listener's clients are served with, if they are not of this machine.
    pub(super) fn remote(&self) -> Option<Arc<Remote>> {
        match self {
            Self::Unix { .. } => None,
            Self::Tcp { remote, .. } => Some(remote.clone()),
        }
    }

    /// The next client; `None` if it may not come in.
    pub(super) fn accept(&self) -> io::Result<Option<(Stream, Peer)>> {
        match self {
            Self::Unix { listener, access, .. } => {
                let (stream, _) = listener.accept()?;
                let Ok(who) = socket_peercred(&stream) else { return Ok(None) };
                let (uid, gid) = (who.uid.as_raw(), who.gid.as_raw());
                let peer = Peer::Local { pid: who.pid.as_raw_nonzero().get(), uid, gid };
                Ok(access.admits(uid, gid).then_some((Stream::Unix(stream), peer)))
            }
            Self::Tcp { listener, remote } => {
                let (socket, address) = listener.accept()?;
                let session = ServerConnection::new(remote.config.clone()).ok();
                let stream = session.and_then(|session| Stream::tls(socket, session).ok());
                Ok(stream.map(|stream| (stream, Peer::Remote(address))))
            }
        }
    }
}

/// The file of a socket: what is removed at the end is what was made.
#[derive(Debug)]
pub(super) struct SocketFile {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_neither_the_user_nor_of_the_group_nor_the_superuser_is_not_let_in_whatever_the_file_allows()
    {
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let (other_user, other_group) = (uid + 1000, gid + 1000);
        for access in [Access::Owner, Access::Group] {
            assert!(access.admits(uid, other_group) && access.admits(0, other_group), "{access:?}");
            assert!(!access.admits(other_user, other_group), "{access:?}");
        }
        assert!(Access::Group.admits(other_user, gid) && !Access::Owner.admits(other_user, gid));
    }
}
