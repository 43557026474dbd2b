//! One connection: its requests, one after the other.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, recv};

use super::incoming::{Incoming, NoRequest, await_ready, write};
use super::message::{Answer, Last, Peer};
use super::places::{Idle, Place};
use super::server::{Limits, Service};

/// How long what a refused client still sends is read, so that it comes to reading why, and how much of it.
const LAST_WORDS: Duration = Duration::from_millis(250);
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
        let answer = service.answer(request, deadline);
        let written = write(stream, &answer.to_bytes(last), Instant::now() + limits.arrival);
        if written.is_err() || last == Last::Yes {
            return;
        }
    }
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
