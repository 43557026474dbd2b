//! The bytes of a connection, in the clear on a UNIX socket or under TLS.

use std::fmt;
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use rustls::ServerConnection;

use super::incoming::FDS_MAX;

/// How long the word that TLS ends with may take to be written.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A connection.
pub(super) enum Stream {
    /// Of a UNIX socket, which carries descriptors too.
    Unix(UnixStream),
    /// Of TCP, under TLS.
    Tls(Box<TlsStream>),
}

/// TLS over TCP. Its thread has the session; others only shut the socket down.
pub(super) struct TlsStream {
    socket: TcpStream,
    session: Mutex<ServerConnection>,
}

/// Why nothing was received.
#[derive(Debug)]
pub(super) enum NotReceived {
    /// Nothing came in time.
    TimeIsUp,
    /// Descriptors came that this process cannot hold.
    Descriptors,
    /// The client has gone, in order or not, or says what is no TLS.
    Gone,
}

impl From<NotReady> for NotReceived {
    fn from(problem: NotReady) -> Self {
        match problem {
            NotReady::TimeIsUp => Self::TimeIsUp,
            NotReady::Failed(_) => Self::Gone,
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(stream) => stream.fmt(f),
            Self::Tls(stream) => stream.socket.fmt(f),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.socket.as_fd(),
        }
    }
}

impl Stream {
    /// TLS over this socket, before its handshake.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub(super) fn tls(socket: TcpStream, session: ServerConnection) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        Ok(Self::Tls(Box::new(TlsStream { socket, session: Mutex::new(session) })))
    }

    /// Agrees on keys, where there are some to agree on.
    pub(super) fn shake_hands(&self, deadline: Instant) -> Result<(), NotReceived> {
        match self {
            Self::Unix(_) => Ok(()),
            Self::Tls(stream) => stream.shake_hands(deadline),
        }
    }

    /// Receives what there is, at least a byte, and the descriptors that came with it.
    pub(super) fn receive(
        &self,
        buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: Option<Instant>,
    ) -> Result<usize, NotReceived> {
        match self {
            Self::Unix(stream) => receive(stream, buffer, fds, deadline),
            Self::Tls(stream) => stream.receive(buffer, deadline),
        }
    }

    /// Sends all of it.
    ///
    /// # Errors
    /// The reader has gone, or does not read in time.
    pub(super) fn send(&self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        match self {
            Self::Unix(stream) => write(stream, bytes, deadline),
            Self::Tls(stream) => stream.send(bytes, deadline),
        }
    }

    /// Says that nothing more is sent.
    pub(super) fn finish(&self) {
        if let Self::Tls(stream) = self {
            let mut session = stream.lock();
            session.send_close_notify();
            // Whoever has gone already does not read it.
            let _ = stream.flush(&mut session, Instant::now() + LAST_WORD);
        }
        self.shut(Shutdown::Write);
    }

    /// Ends the connection for whoever waits for it.
    pub(super) fn shut(&self, how: Shutdown) {
        // One that the client has closed is shut down.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tls(stream) => stream.socket.shutdown(how),
        };
    }

    /// Whether the other end is closed, or this one was shut down.
    pub(super) fn has_gone(&self) -> bool {
        let what = match self {
            Self::Unix(_) => PollFlags::empty(),
            Self::Tls(_) => PollFlags::RDHUP,
        };
        let ready = poll(&mut [PollFd::new(self, what)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
        ready.is_ok_and(|ready| ready != 0)
    }
}

impl TlsStream {
    fn lock(&self) -> MutexGuard<'_, ServerConnection> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shake_hands(&self, deadline: Instant) -> Result<(), NotReceived> {
        let mut session = self.lock();
        while session.is_handshaking() {
            self.advance(&mut session, Some(deadline))?;
        }
        // What the last message of the handshake is answered with.
        self.flush(&mut session, deadline).map_err(|_| NotReceived::Gone)
    }

    /// Takes in what came, at least a byte of it.
    fn advance(&self, session: &mut ServerConnection, deadline: Option<Instant>) -> Result<(), NotReceived> {
        let patience = deadline.unwrap_or_else(|| Instant::now() + LAST_WORD);
        self.flush(session, patience).map_err(|_| NotReceived::Gone)?;
        await_ready(&self.socket, PollFlags::IN, deadline)?;
        match session.read_tls(&mut &self.socket) {
            Ok(0) => return Err(NotReceived::Gone),
            Err(error) if !is_passing(&error) => return Err(NotReceived::Gone),
            _ => {}
        }
        if session.process_new_packets().is_err() {
            // The alert that says why.
            let _ = self.flush(session, Instant::now() + LAST_WORD);
            return Err(NotReceived::Gone);
        }
        Ok(())
    }

    fn receive(&self, buffer: &mut [u8], deadline: Option<Instant>) -> Result<usize, NotReceived> {
        let mut session = self.lock();
        loop {
            match session.reader().read(buffer) {
                Ok(0) => return Err(NotReceived::Gone),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(NotReceived::Gone),
            }
            self.advance(&mut session, deadline)?;
        }
    }

    fn send(&self, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
        let mut session = self.lock();
        while !bytes.is_empty() {
            // As much as the session holds at a time.
            let count = session.writer().write(bytes)?;
            bytes = bytes.get(count..).unwrap_or_default();
            self.flush(&mut session, deadline)?;
        }
        Ok(())
    }

    /// Writes what the session has to say.
    fn flush(&self, session: &mut ServerConnection, deadline: Instant) -> io::Result<()> {
        while session.wants_write() {
            match session.write_tls(&mut &self.socket) {
                Err(error) if is_passing(&error) => {
                    await_ready(&self.socket, PollFlags::OUT, Some(deadline))?
                }
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn receive(
    stream: &UnixStream,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    deadline: Option<Instant>,
) -> Result<usize, NotReceived> {
    loop {
        await_ready(stream, PollFlags::IN, deadline)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut control, flags) {
            Err(Errno::AGAIN | Errno::INTR) => continue,
            received => received.map_err(|_| NotReceived::Gone)?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                fds.extend(came);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(NotReceived::Descriptors);
        }
        return if received.bytes == 0 { Err(NotReceived::Gone) } else { Ok(received.bytes) };
    }
}

/// Why a stream was not waited for any longer.
#[derive(Debug)]
pub(super) enum NotReady {
    TimeIsUp,
    Failed(Errno),
}

impl From<NotReady> for io::Error {
    fn from(problem: NotReady) -> Self {
        match problem {
            NotReady::TimeIsUp => io::ErrorKind::TimedOut.into(),
            NotReady::Failed(errno) => errno.into(),
        }
    }
}

/// Waits until the stream can be read or written without waiting.
pub(super) fn await_ready(
    stream: impl AsFd,
    what: PollFlags,
    deadline: Option<Instant>,
) -> Result<(), NotReady> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.map(|left| Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        match poll(&mut [PollFd::new(&stream, what)], left.as_ref()) {
            Ok(0) => return Err(NotReady::TimeIsUp),
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(NotReady::Failed(errno)),
        }
    }
}

/// Writes all of it.
///
/// # Errors
/// The reader has gone, or does not read in time.
pub(super) fn write(stream: &UnixStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    use rustix::net::{SendFlags, send};
    while !bytes.is_empty() {
        match send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::AGAIN) => await_ready(stream, PollFlags::OUT, Some(deadline))?,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
