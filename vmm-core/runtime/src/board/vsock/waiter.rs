//! The thread that waits for every socket.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use rustix::event::epoll::{self, Event, EventData, EventFlags};

use super::stream::FIRST_TOKEN;
use super::{CALLERS_MAX, Shared, WAITING_MAX, WORDS_MAX};

/// Events that are taken at a time.
const EVENTS: usize = 64;

const TOKEN_STOP: u64 = 0;
const TOKEN_LISTENER: u64 = 1;
/// The first token of a caller.
const FIRST_CALLER: u64 = 2;

/// A program that has not yet said what it wants.
struct Caller {
    token: u64,
    socket: UnixStream,
    words: Vec<u8>,
}

/// What a caller has said so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// Not all yet.
    Unfinished,
    /// The program wants this port of the guest.
    Connect(u32),
    /// Something else, or nothing any more.
    Nonsense,
}

/// The thread's own.
pub(super) struct Waiter {
    listener: UnixListener,
    callers: VecDeque<Caller>,
    next_token: u64,
    shared: Arc<Shared>,
}

impl Waiter {
    pub(super) fn new(listener: UnixListener, shared: Arc<Shared>) -> io::Result<Self> {
        let epoll = &shared.streams.epoll;
        epoll::add(epoll, &shared.stop, EventData::new_u64(TOKEN_STOP), EventFlags::IN)?;
        // An edge: a listener that cannot be accepted from, because there are no descriptors, must not wake for ever.
        let edges = EventFlags::IN | EventFlags::ET;
        epoll::add(epoll, &listener, EventData::new_u64(TOKEN_LISTENER), edges)?;
        Ok(Self { listener, callers: VecDeque::new(), next_token: FIRST_CALLER, shared })
    }

    /// Waits and answers, until the device goes.
    pub(super) fn run(&mut self) {
        let shared = self.shared.clone();
        loop {
            let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
            let waited =
                epoll::wait(&shared.streams.epoll, rustix::buffer::spare_capacity(&mut events), None);
            match waited {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let mut woke = false;
            for event in events {
                match event.data.u64() {
                    TOKEN_STOP => return,
                    TOKEN_LISTENER => self.accept(),
                    token @ FIRST_TOKEN.. => {
                        shared.streams.woke(token);
                        woke = true;
                    }
                    token => woke |= self.listen_to(token),
                }
            }
            if woke {
                shared.bell.ring();
            }
        }
    }

    /// Takes the programs that have connected.
    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            if self.callers.len() >= CALLERS_MAX {
                self.callers.pop_front();
            }
            let token = self.next_token;
            // Tokens of callers begin again before they reach those of streams; no caller lives so long.
            self.next_token = if token + 1 == FIRST_TOKEN { FIRST_CALLER } else { token + 1 };
            let data = EventData::new_u64(token);
            let waited_for = socket
                .set_nonblocking(true)
                .and_then(|()| Ok(epoll::add(&self.shared.streams.epoll, &socket, data, EventFlags::IN)?));
            if waited_for.is_ok() {
                self.callers.push_back(Caller { token, socket, words: Vec::new() });
            }
        }
    }

    /// Reads what a caller says; whether there is something for the device.
    fn listen_to(&mut self, token: u64) -> bool {
        let Some(index) = self.callers.iter().position(|caller| caller.token == token) else { return false };
        let said = self.callers.get_mut(index).map_or(Words::Nonsense, Caller::read);
        if said == Words::Unfinished {
            return false;
        }
        let Some(caller) = self.callers.remove(index) else { return false };
        let _ = epoll::delete(&self.shared.streams.epoll, &caller.socket);
        let mut waiting = self.shared.waiting();
        match said {
            Words::Connect(port) if waiting.len() < WAITING_MAX => {
                waiting.push_back((port, caller.socket));
                true
            }
            _ => false,
        }
    }
}

impl Caller {
    /// Reads up to the newline and not a byte further: what follows is the guest's.
    fn read(&mut self) -> Words {
        loop {
            let mut byte = [0];
            match self.socket.read(&mut byte) {
                Ok(1..) => {}
                Ok(0) => return Words::Nonsense,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Words::Unfinished,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Words::Nonsense,
            }
            if byte == *b"\n" {
                return wanted(&self.words).map_or(Words::Nonsense, Words::Connect);
            }
            if self.words.len() >= WORDS_MAX {
                return Words::Nonsense;
            }
            self.words.extend(byte);
        }
    }
}

/// The port in `CONNECT <port>`.
fn wanted(words: &[u8]) -> Option<u32> {
    let port = std::str::from_utf8(words).ok()?.strip_prefix("CONNECT ")?.trim_end_matches('\r');
    // A sign is no part of a port.
    if port.starts_with('+') { None } else { port.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_names_one_port_and_nothing_else() {
        assert_eq!(wanted(b"CONNECT 1024"), Some(1024));
        assert_eq!(wanted(b"CONNECT 4294967295\r"), Some(u32::MAX));
        for bad in [
            "CONNECT",
            "CONNECT ",
            "CONNECT +1",
            "CONNECT -1",
            "CONNECT 4294967296",
            "connect 1",
            "CONNECT 1 2",
        ] {
            assert_eq!(wanted(bad.as_bytes()), None, "{bad}");
        }
    }
}
