//! One connection: its requests, one after the other.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::incoming::{Incoming, NoRequest, await_ready, write};
use super::message::{Answer, Last, Peer, Response, Source, head_of_events};
use super::places::{Idle, Place};
use super::server::{Limits, Service};

/// How long what a refused client still sends is read, so that it comes to reading why, and how much of it.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How long nothing may be said to a client that waits for events.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How long it may go unnoticed that such a client has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const LAST_BYTES: usize = 8 << 20;

/// Answers until the client goes, breaks the protocol, or has to go.
pub(super) fn serve(stream: &UnixStream, peer: Peer, place: &Place, limits: Limits, service: &dyn Service) {
    let mut incoming = Incoming::new(stream, peer);
    loop {
        if !place.set_idle(Idle::Yes) || incoming.wait().is_err() || !place.set_idle(Idle::No) {
            return;
        }
        let begin = Instant::now();
        let deadline = begin + limits.request;
        let (request, last) = match incoming.request(begin + limits.arrival) {
            Ok(request) => request,
            Err(NoRequest::Gone) => return,
            Err(NoRequest::Refused(status, problem)) => {
                let answer = Answer::refusal(status, &[problem]);
                if write(stream, &answer.to_bytes(Last::Yes), Instant::now() + limits.arrival).is_ok() {
                    let_finish(stream);
                }
                return;
            }
        };
        let answer = match service.answer(request, deadline) {
            Response::Whole(answer) => answer,
            Response::Events(source) => return tell(stream, source, limits),
        };
        let written = write(stream, &answer.to_bytes(last), Instant::now() + limits.arrival);
        if written.is_err() || last == Last::Yes {
            return;
        }
    }
}

/// Writes events as they come, until there are no more, the client goes or the server ends.
fn tell(stream: &UnixStream, mut source: Box<dyn Source>, limits: Limits) {
    let end = Instant::now() + limits.events;
    let write = |bytes: &[u8]| write(stream, bytes, Instant::now() + limits.arrival).is_ok();
    let mut is_open = write(&head_of_events());
    let mut last = Instant::now();
    while is_open && Instant::now() < end {
        match source.next(Instant::now() + LOOK_AGAIN) {
            None => return,
            Some(bytes) if !bytes.is_empty() => {
                is_open = write(&bytes);
                last = Instant::now();
            }
            // A comment, for whoever takes silence for the end.
            Some(_) if last.elapsed() >= SIGN_OF_LIFE => {
                is_open = write(b":\n\n");
                last = Instant::now();
            }
            Some(_) => is_open = !has_gone(stream),
        }
    }
}

/// Whether the other end is closed, or this one was shut down.
fn has_gone(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    let ready = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    ready.is_ok_and(|ready| ready != 0)
}

/// Reads on for a moment: a client that is still writing would see a broken pipe instead of the answer.
fn let_finish(stream: &UnixStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let deadline = Instant::now() + LAST_WORDS;
    let mut rest = LAST_BYTES;
    let mut buffer = [0; 16 << 10];
    while rest != 0 && await_ready(stream, PollFlags::IN, Some(deadline)).is_ok() {
        match recv(stream, &mut buffer, RecvFlags::DONTWAIT) {
            Ok((_, count @ 1..)) => rest = rest.saturating_sub(count),
            _ => return,
        }
    }
}
