//! One client's bytes.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use gdbstub::conn::Connection;

use super::endpoint::is_readable;

/// How long a client may take to take what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const CHUNK: usize = 4096;

/// A connection: bytes come with a deadline, and go out a packet at a time.
#[derive(Debug)]
pub(super) struct Client {
    stream: Stream,
    received: Vec<u8>,
    next: usize,
    to_send: Vec<u8>,
}

#[derive(Debug)]
enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Client {
    pub(super) fn unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::of(Stream::Unix(stream)))
    }

    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self::of(Stream::Tcp(stream)))
    }

    fn of(stream: Stream) -> Self {
        Self { stream, received: Vec::new(), next: 0, to_send: Vec::new() }
    }

    /// The next byte; `None` if none comes within `patience`.
    ///
    /// # Errors
    /// The client has gone.
    pub(super) fn next_byte(&mut self, patience: Duration) -> io::Result<Option<u8>> {
        if self.next == self.received.len() {
            if !is_readable(self.stream.as_fd(), patience) {
                return Ok(None);
            }
            self.received.resize(CHUNK, 0);
            let count = match &mut self.stream {
                Stream::Unix(stream) => stream.read(&mut self.received)?,
                Stream::Tcp(stream) => stream.read(&mut self.received)?,
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.received.truncate(count);
            self.next = 0;
        }
        let byte = self.received.get(self.next).copied();
        self.next += 1;
        Ok(byte)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Connection for Client {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.to_send.push(byte);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.to_send);
        match &mut self.stream {
            Stream::Unix(stream) => Write::write_all(stream, &bytes),
            Stream::Tcp(stream) => Write::write_all(stream, &bytes),
        }
    }
}
