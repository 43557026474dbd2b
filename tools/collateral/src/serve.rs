//! A [`Store`] behind HTTP, as a PCCS.
//!
//! One request for each connection. The number of connections, the size of a request, and the time that one may take, are
//! bounded: a client that is slow, or silent, takes one place for a few seconds.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::store::{Reply, Store};

/// Connections at a time; more are told to come back.
const MAX_CONNECTIONS: usize = 64;
/// The longest request, in bytes. An encrypted PPID, its longest parameter, has 768 digits.
const MAX_REQUEST: usize = 8 << 10;
/// The most headers of a request.
const MAX_HEADERS: usize = 64;
/// How long a request may take, from the connection to the last byte of the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers requests from `store` until the listener fails.
///
/// # Errors
/// The listener's. What a single connection does ends that connection only.
pub fn serve(listener: &TcpListener, store: Store) -> io::Result<()> {
    let store = Arc::new(store);
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if is_passing(&error) => continue,
            Err(error) => return Err(error),
        };
        if busy.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
            busy.fetch_sub(1, Ordering::AcqRel);
            // Said at once or not at all: nobody waits for a client here.
            let _ = stream.set_nonblocking(true);
            let _ = (&stream).write(&whole("503 Service Unavailable", &["Retry-After: 1".to_owned()], b""));
            continue;
        }
        let place = Place(Arc::clone(&busy));
        let store = Arc::clone(&store);
        let started = std::thread::Builder::new().name("pccs".to_owned()).spawn(move || {
            let _place = place;
            // A client that went away needs no answer.
            let _ = answer(&stream, &store);
        });
        // No thread to be had: the connection is closed, and its place free again.
        drop(started);
    }
}

/// A connection's place, free again when it ends, however it ends.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether the next connection may well come.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

fn answer(stream: &TcpStream, store: &Store) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let answer = loop {
        if let Some(answer) = respond(&request, store) {
            break answer;
        }
        let mut more = [0; 1024];
        stream.set_read_timeout(Some(left(deadline)?))?;
        match (&mut &*stream).read(&mut more)? {
            0 => return Ok(()),
            read => request.extend_from_slice(more.get(..read).unwrap_or_default()),
        }
    };
    let mut rest = answer.as_slice();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(deadline)?))?;
        let written = (&mut &*stream).write(rest)?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(())
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The whole response to what has come of a request; `None` while it is not whole.
fn respond(request: &[u8], store: &Store) -> Option<Vec<u8>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if request.len() < MAX_REQUEST => return None,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Some(whole("431 Request Header Fields Too Large", &[], b""));
        }
        Err(_) => return Some(whole("400 Bad Request", &[], b"not a request\n")),
    }
    if parsed.method != Some("GET") {
        return Some(whole("405 Method Not Allowed", &["Allow: GET".to_owned()], b""));
    }
    let target = parsed.path.unwrap_or_default();
    // A proxy's form names the whole address.
    let target = match target.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(match store.answer(path, query) {
        Reply::Found { content_type, answer } => {
            let mut head = vec![format!("Content-Type: {content_type}")];
            head.extend(answer.chains.iter().map(|(name, value)| format!("{name}: {value}")));
            whole("200 OK", &head, &answer.body)
        }
        Reply::BadRequest(problem) => whole("400 Bad Request", &[], format!("{problem}\n").as_bytes()),
        Reply::NotFound => whole("404 Not Found", &[], b"no such collateral here\n"),
    })
}

fn whole(status: &str, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n", body.len());
    for header in headers {
        head.push_str(header);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}
