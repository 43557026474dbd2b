//! The side of a connection that is read: bytes and descriptors in, whole requests out.

use std::os::fd::OwnedFd;
use std::time::Instant;

use http::{Method, StatusCode};

use super::message::{Last, Peer, Request};
use super::stream::{NotReceived, Stream};
use super::token::Token;

/// Bytes of the longest head of a request.
pub const HEAD_MAX: usize = 16 << 10;
/// Fields of the longest head of a request.
pub const HEADERS_MAX: usize = 64;
/// Bytes of the longest body.
pub const BODY_MAX: usize = 4 << 20;
/// Descriptors that one request may bring.
pub const FDS_MAX: usize = 16;
/// Bytes that are read at a time.
const READ: usize = 16 << 10;

/// Why there is no request.
#[derive(Debug)]
pub(super) enum NoRequest {
    /// The client has gone, in order or not; or the server ends.
    Gone,
    /// The request cannot be understood, or is too much: this is said, and the connection ends.
    Refused(StatusCode, &'static str),
}

impl From<NotReceived> for NoRequest {
    fn from(problem: NotReceived) -> Self {
        match problem {
            NotReceived::TimeIsUp => {
                Self::Refused(StatusCode::REQUEST_TIMEOUT, "the request did not come in time")
            }
            NotReceived::Descriptors => bad(TOO_MANY_DESCRIPTORS),
            NotReceived::Gone => Self::Gone,
        }
    }
}

const TOO_MANY_DESCRIPTORS: &str =
    "too many descriptors came with the request, or this process can open no more";

const fn bad(problem: &'static str) -> NoRequest {
    NoRequest::Refused(StatusCode::BAD_REQUEST, problem)
}

/// What a head says.
#[derive(Debug)]
struct Head {
    method: Method,
    target: String,
    /// Bytes of the head itself.
    bytes: usize,
    body: usize,
    last: Last,
    /// The client waits for leave before it sends the body.
    waits: bool,
}

/// The bytes and descriptors that came and belong to no request yet.
#[derive(Debug)]
pub(super) struct Incoming<'s> {
    stream: &'s Stream,
    peer: Peer,
    /// What whoever asks has to know.
    token: Option<&'s Token>,
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl<'s> Incoming<'s> {
    pub(super) const fn new(stream: &'s Stream, peer: Peer, token: Option<&'s Token>) -> Self {
        Self { stream, peer, token, bytes: Vec::new(), fds: Vec::new() }
    }

    /// Waits for the first byte of a request, for ever.
    pub(super) fn wait(&mut self) -> Result<(), NoRequest> {
        if self.bytes.is_empty() { self.read(None) } else { Ok(()) }
    }

    /// Reads a request, whole.
    pub(super) fn request(&mut self, deadline: Instant) -> Result<(Request, Last), NoRequest> {
        let head = loop {
            // Empty lines between requests mean nothing.
            let skipped = self.bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
            self.bytes.drain(..skipped);
            match parse(&self.bytes, self.token)? {
                Some(head) => break head,
                None if self.bytes.len() > HEAD_MAX => {
                    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                    return Err(NoRequest::Refused(status, "the head of the request is too long"));
                }
                None => self.read(Some(deadline))?,
            }
        };
        let end = head.bytes + head.body;
        if head.waits && self.bytes.len() < end {
            let leave = b"HTTP/1.1 100 \r\n\r\n";
            self.stream.send(leave, deadline).map_err(|_| NoRequest::Gone)?;
        }
        while self.bytes.len() < end {
            self.read(Some(deadline))?;
        }
        if self.bytes.len() > end && !self.fds.is_empty() {
            return Err(bad(
                "descriptors came with the bytes of two requests: whose they are cannot be told",
            ));
        }
        let (path, query) = split(&head.target)?;
        let body = self.bytes.get(head.bytes..end).unwrap_or_default().to_vec();
        self.bytes.drain(..end);
        let fds = std::mem::take(&mut self.fds);
        Ok((Request { method: head.method, path, query, body, fds, peer: self.peer }, head.last))
    }

    /// Reads what there is, at least a byte.
    fn read(&mut self, deadline: Option<Instant>) -> Result<(), NoRequest> {
        let mut buffer = vec![0; READ];
        let count = self.stream.receive(&mut buffer, &mut self.fds, deadline)?;
        if self.fds.len() > FDS_MAX {
            return Err(bad(TOO_MANY_DESCRIPTORS));
        }
        self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(())
    }
}

/// Parses a head, if all of it is there.
fn parse(bytes: &[u8], token: Option<&Token>) -> Result<Option<Head>, NoRequest> {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    let size = match request.parse(bytes) {
        Ok(httparse::Status::Complete(size)) if size <= HEAD_MAX => size,
        Ok(httparse::Status::Complete(_) | httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(NoRequest::Refused(status, "the head of the request has too many fields"));
        }
        Err(_) => return Err(bad("this is no HTTP/1 request")),
    };
    let method = request.method.and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let (Some(method), Some(target), Some(version)) = (method, request.path, request.version) else {
        return Err(bad("this is no HTTP/1 request"));
    };
    let mut body = None;
    // The default of HTTP/1.1 and of HTTP/1.0.
    let mut last = if version == 1 { Last::No } else { Last::Yes };
    let mut waits = false;
    let mut authorizations = Vec::new();
    for field in request.headers.iter() {
        let value = field.value.trim_ascii();
        if field.name.eq_ignore_ascii_case("content-length") {
            let length = length(value)?;
            if body.is_some_and(|before| before != length) {
                return Err(bad("the request has two different lengths"));
            }
            body = Some(length);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(bad("a body has to come with Content-Length, not in chunks"));
        } else if field.name.eq_ignore_ascii_case("authorization") {
            authorizations.push(value);
        } else if field.name.eq_ignore_ascii_case("connection") {
            let has = |word: &[u8]| {
                value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
            };
            if has(b"close") {
                last = Last::Yes;
            } else if has(b"keep-alive") {
                last = Last::No;
            }
        } else if field.name.eq_ignore_ascii_case("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(NoRequest::Refused(
                    StatusCode::EXPECTATION_FAILED,
                    "only 100-continue can be expected",
                ));
            }
            waits = true;
        }
    }
    // Before its body is read: who may not ask sends nothing that is kept.
    if token.is_some_and(|token| !matches!(authorizations[..], [field] if token.is_in(field))) {
        return Err(NoRequest::Refused(StatusCode::UNAUTHORIZED, "this is asked by who knows the token"));
    }
    let body = body.unwrap_or(0);
    if body > BODY_MAX {
        return Err(NoRequest::Refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 4 MiB"));
    }
    Ok(Some(Head { method, target: target.to_owned(), bytes: size, body, last, waits }))
}

/// A length: digits and nothing else.
fn length(value: &[u8]) -> Result<usize, NoRequest> {
    let text = std::str::from_utf8(value).ok().filter(|text| {
        !text.is_empty() && text.len() <= 18 && text.bytes().all(|byte| byte.is_ascii_digit())
    });
    text.and_then(|text| text.parse().ok()).ok_or(bad("Content-Length is no number"))
}

/// Path and query of a request's target, which may be a whole address.
fn split(target: &str) -> Result<(String, Option<String>), NoRequest> {
    let path = match target.strip_prefix("http://") {
        Some(address) => address.find('/').and_then(|at| address.get(at..)).unwrap_or("/"),
        None => target,
    };
    if !path.starts_with('/') {
        return Err(bad("the request names no path"));
    }
    Ok(match path.split_once('?') {
        Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
        None => (path.to_owned(), None),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    const PEER: Peer = Peer::Local { pid: 1, uid: 0, gid: 0 };

    fn requests(bytes: &[u8], count: usize) -> Vec<Result<(Request, Last), NoRequest>> {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(bytes).unwrap();
        drop(client);
        let server = Stream::Unix(server);
        let mut incoming = Incoming::new(&server, PEER, None);
        let deadline = Instant::now() + Duration::from_secs(60);
        (0..count).map(|_| incoming.request(deadline)).collect()
    }

    fn status(bytes: &[u8]) -> u16 {
        match requests(bytes, 1).remove(0) {
            Err(NoRequest::Refused(status, _)) => status.as_u16(),
            Err(NoRequest::Gone) => 0,
            Ok(_) => 200,
        }
    }

    #[test]
    fn requests_come_one_after_the_other_with_their_bodies() {
        let bytes = b"PUT /a?x=1 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\r\nGET http://localhost/b HTTP/1.1\r\nConnection: Close\r\n\r\n";
        let mut both = requests(bytes, 3);
        assert!(matches!(both.remove(2), Err(NoRequest::Gone)));
        let (second, last) = both.remove(1).unwrap();
        assert_eq!((second.method, second.path.as_str(), last), (Method::GET, "/b", Last::Yes));
        let (first, last) = both.remove(0).unwrap();
        assert_eq!((first.path.as_str(), first.query.as_deref(), last), ("/a", Some("x=1"), Last::No));
        assert_eq!(first.body, b"abc");
    }

    #[test]
    fn what_is_no_request_has_a_status() {
        for (bytes, expected) in [
            (&b"hello\r\n\r\n"[..], 400),
            (b"GET / HTTP/2.0\r\n\r\n", 400),
            (b"GET nowhere HTTP/1.1\r\n\r\n", 400),
            (b"PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
            (b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
            (b"PUT / HTTP/1.1\r\nContent-Length: 4194305\r\n\r\n", 413),
            (b"PUT / HTTP/1.1\r\nExpect: a miracle\r\n\r\n", 417),
            (b"PUT / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc", 0),
            (b"GET / HT", 0),
        ] {
            assert_eq!(status(bytes), expected, "{}", String::from_utf8_lossy(bytes));
        }
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HEADERS_MAX + 1));
        assert_eq!(status(many.as_bytes()), 431);
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(HEAD_MAX));
        assert_eq!(status(long.as_bytes()), 431);
    }

    #[test]
    fn a_request_that_stays_unfinished_is_given_up_at_its_deadline() {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let answer = Incoming::new(&Stream::Unix(server), PEER, None).request(Instant::now());
        assert!(matches!(answer, Err(NoRequest::Refused(StatusCode::REQUEST_TIMEOUT, _))));
    }
}
