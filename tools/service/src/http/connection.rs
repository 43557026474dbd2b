//! One connection: its requests, one after the other.

use std::time::{Duration, Instant};

use http::Method;

use super::incoming::{Incoming, NoRequest};
use super::message::{Answer, Last, Peer, Response, Source, head_of_events};
use super::places::{Idle, Place};
use super::server::{Limits, Service};
use super::stream::Stream;
use super::token::Token;

/// How long what a refused client still sends is read, so that it comes to reading why, and how much of it.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// How long nothing may be said to a client that waits for events.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How long it may go unnoticed that such a client has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const LAST_BYTES: usize = 8 << 20;

/// Answers until the client goes, breaks the protocol, or has to go.
pub(super) fn serve(
    stream: &Stream,
    peer: Peer,
    place: &Place,
    token: Option<&Token>,
    limits: Limits,
    service: &dyn Service,
) {
    if stream.shake_hands(Instant::now() + limits.arrival).is_ok() {
        answer(Incoming::new(stream, peer, token), stream, place, limits, service);
        stream.finish();
    }
}

fn answer(mut incoming: Incoming<'_>, stream: &Stream, place: &Place, limits: Limits, service: &dyn Service) {
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
                service.refused(status);
                let answer = Answer::refusal(status, &[problem]);
                if stream.send(&answer.to_bytes(Last::Yes), Instant::now() + limits.arrival).is_ok() {
                    let_finish(stream);
                }
                return;
            }
        };
        let is_of_head = request.method == Method::HEAD;
        let answer = match service.answer(request, deadline) {
            Response::Whole(answer) => answer,
            Response::Events(source) => return tell(stream, source, limits),
        };
        // Whoever asks by HEAD takes what comes behind a head for the next answer.
        let bytes = if is_of_head { answer.head(last) } else { answer.to_bytes(last) };
        let written = stream.send(&bytes, Instant::now() + limits.arrival);
        if written.is_err() || last == Last::Yes {
            return;
        }
    }
}

/// Writes events as they come, until there are no more, the client goes or the server ends.
fn tell(stream: &Stream, mut source: Box<dyn Source>, limits: Limits) {
    let end = Instant::now() + limits.events;
    let send = |bytes: &[u8]| stream.send(bytes, Instant::now() + limits.arrival).is_ok();
    let mut is_open = send(&head_of_events());
    let mut last = Instant::now();
    while is_open && Instant::now() < end {
        match source.next(Instant::now() + LOOK_AGAIN) {
            None => return,
            Some(bytes) if !bytes.is_empty() => {
                is_open = send(&bytes);
                last = Instant::now();
            }
            // A comment, for whoever takes silence for the end.
            Some(_) if last.elapsed() >= SIGN_OF_LIFE => {
                is_open = send(b":\n\n");
                last = Instant::now();
            }
            Some(_) => is_open = !stream.has_gone(),
        }
    }
}

/// Reads on for a moment: a client that is still writing would see a broken pipe instead of the answer.
fn let_finish(stream: &Stream) {
    stream.finish();
    let deadline = Instant::now() + LAST_WORDS;
    let mut rest = LAST_BYTES;
    let mut buffer = vec![0; 16 << 10];
    while let (Ok(count), 1..) = (stream.receive(&mut buffer, &mut Vec::new(), Some(deadline)), rest) {
        rest = rest.saturating_sub(count);
    }
}
