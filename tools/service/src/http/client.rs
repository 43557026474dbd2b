//! The other end, for programs that speak with such a server and for tests.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::incoming::{FDS_MAX, HEAD_MAX, HEADERS_MAX};
use super::stream::{await_ready, write};

/// Bytes of the largest body of an answer.
const ANSWER_MAX: usize = 64 << 20;

/// An answer as a client gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The methods that the path has, where the answer names them: the field `Allow`.
    pub allow: Option<String>,
    /// The body; empty where there is none.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }
}

/// A connection to a server, kept for any number of requests.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there, or it is not allowed.
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(path)?, bytes: Vec::new() })
    }

    /// The connection, for whoever wants to break its protocol.
    pub const fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Asks, and waits for the answer for at most so long.
    ///
    /// # Errors
    /// The connection breaks, the answer is none, or does not come in time. The connection is of no use afterwards.
    pub fn ask(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        within: Duration,
    ) -> io::Result<Reply> {
        self.ask_with_fds(method, path, body, &[], within)
    }

    /// Asks with descriptors beside the first byte, and waits for the answer for at most so long.
    ///
    /// # Errors
    /// As without descriptors; or there are more than a request may bring.
    pub fn ask_with_fds(
        &mut self,
        method: &Method,
        path: &str,
        body: Option<&[u8]>,
        fds: &[BorrowedFd<'_>],
        within: Duration,
    ) -> io::Result<Reply> {
        let deadline = Instant::now() + within;
        let mut bytes =
            format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n").into_bytes();
        if let Some(body) = body {
            let length = body.len();
            let fields = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n");
            bytes.extend_from_slice(fields.as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body.unwrap_or_default());
        let sent = self.send_first(&bytes, fds, deadline)?;
        write(&self.stream, bytes.get(sent..).unwrap_or_default(), deadline)?;
        self.reply(deadline)
    }

    /// Sends descriptors with as many bytes as are taken at once.
    fn send_first(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], deadline: Instant) -> io::Result<usize> {
        if fds.is_empty() {
            return Ok(0);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one request"));
        }
        loop {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => await_ready(&self.stream, PollFlags::OUT, Some(deadline))?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn reply(&mut self, deadline: Instant) -> io::Result<Reply> {
        loop {
            if let Some((reply, bytes)) = parse(&self.bytes)? {
                self.bytes.drain(..bytes);
                return Ok(reply);
            }
            await_ready(&self.stream, PollFlags::IN, Some(deadline))?;
            let mut buffer = [0; 16 << 10];
            match recv(&self.stream, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, count)) => self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

fn invalid(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// An answer and its bytes, if all of it is there.
fn parse(bytes: &[u8]) -> io::Result<Option<(Reply, usize)>> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if bytes.len() <= HEAD_MAX => return Ok(None),
        _ => return Err(invalid("the answer is no HTTP/1 response")),
    };
    let status = response.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(invalid("the answer has no status"))?;
    let field = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.map(|field| field.value)
    };
    let allow = field("allow").map(|value| String::from_utf8_lossy(value).trim().to_owned());
    let length = match field("content-length") {
        None => 0,
        Some(value) => {
            let text = std::str::from_utf8(value).ok();
            let length = text.and_then(|text| text.trim().parse::<usize>().ok());
            length.filter(|length| *length <= ANSWER_MAX).ok_or(invalid("the answer has no usable length"))?
        }
    };
    let end = head + length;
    let body = bytes.get(head..end).map(<[u8]>::to_vec);
    Ok(body.map(|body| (Reply { status, allow, body }, end)))
}
