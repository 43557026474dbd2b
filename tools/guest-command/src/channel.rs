//! The host's side of the second serial port.
//!
//! [`Channel::port`] is where the port's output goes: until the init's greeting it belongs to whoever had the port before
//! (the firmware's log), from then on it is frames. What the command writes goes to two writers; what it wants to read is
//! asked for with [`Channel::wait_for_request`] and answered with the bytes that go into the port.

use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use crate::protocol::{End, FromGuest, FromHost, HELLO};

/// What has come over the port so far, for several owners.
#[derive(Clone, Debug, Default)]
pub struct Channel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// Takes the answers of who has no input.
    at_once: OnceLock<AtOnce>,
}

type AtOnce = Box<dyn Fn(&[u8]) + Send + Sync>;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    /// The guest waits for so much input.
    wanted: Option<u16>,
    /// Nothing more will come.
    closed: bool,
    end: Option<(End, Instant)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Before,
    Frames,
    /// What came was no frame: nothing more is believed.
    Broken,
}

impl Channel {
    /// The port's output: `before` has it until the greeting; then `out` and `err` have what the command writes.
    pub fn port<B, O, E>(&self, before: B, out: O, err: E) -> Port<B, O, E> {
        Port { channel: self.clone(), before, out, err, come: Vec::new() }
    }

    /// Whether the init greeted.
    pub fn is_open(&self) -> bool {
        self.lock().phase != Phase::Before
    }

    /// How the command ended, once it has.
    pub fn end(&self) -> Option<End> {
        self.lock().end.map(|(end, _)| end)
    }

    /// When that was told.
    pub fn ended_at(&self) -> Option<Instant> {
        self.lock().end.map(|(_, when)| when)
    }

    /// There is no input: every request for it is answered at once, in the call that brings it, through `send`.
    pub fn answer_at_once(&self, send: impl Fn(&[u8]) + Send + Sync + 'static) {
        // A second one would have nothing to do.
        let _ = self.0.at_once.set(Box::new(send));
    }

    /// Whether the guest said something that it may not say.
    pub fn is_broken(&self) -> bool {
        self.lock().phase == Phase::Broken
    }

    /// Waits until the guest wants input, and gives for how many bytes it has room; `None` when it never will again.
    pub fn wait_for_request(&self) -> Option<u16> {
        let mut state = self.lock();
        loop {
            if let Some(room) = state.wanted.take() {
                return Some(room);
            }
            if state.closed || state.end.is_some() || state.phase == Phase::Broken {
                return None;
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends all waits: the guest is gone.
    pub fn close(&self) {
        self.lock().closed = true;
        self.0.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The bytes that answer a request for input: what was read, or that there is no more.
pub fn answer(input: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match input {
        [] => FromHost::EndOfInput.encode(&mut bytes),
        _ => FromHost::Input(input.to_vec()).encode(&mut bytes),
    }
    bytes
}

/// Where the serial port's output goes. Write errors of the three writers are not the guest's business, and are dropped.
#[derive(Debug)]
pub struct Port<B, O, E> {
    channel: Channel,
    before: B,
    out: O,
    err: E,
    /// A part of the greeting, or of a frame.
    come: Vec<u8>,
}

impl<B: Write, O: Write, E: Write> Port<B, O, E> {
    /// Looks for the greeting. Its first byte stands in it once, so that what does not fit is not held back.
    fn before(&mut self, byte: u8) -> Phase {
        if HELLO.get(self.come.len()) != Some(&byte) {
            let _ = self.before.write_all(&self.come);
            self.come.clear();
        }
        if HELLO.get(self.come.len()) == Some(&byte) {
            self.come.push(byte);
        } else {
            let _ = self.before.write_all(&[byte]);
        }
        if self.come != HELLO {
            return Phase::Before;
        }
        self.come.clear();
        Phase::Frames
    }

    fn frames(&mut self, state: &mut State) {
        loop {
            match FromGuest::take(&mut self.come) {
                Ok(None) => return,
                Ok(Some(FromGuest::Output(bytes))) => drop(self.out.write_all(&bytes)),
                Ok(Some(FromGuest::Error(bytes))) => drop(self.err.write_all(&bytes)),
                Ok(Some(FromGuest::WantsInput(room))) => match self.channel.0.at_once.get() {
                    Some(send) => send(&answer(&[])),
                    None => state.wanted = Some(room),
                },
                Ok(Some(FromGuest::Ended(end))) => state.end = Some((end, Instant::now())),
                Err(_) => {
                    state.phase = Phase::Broken;
                    self.come.clear();
                    return;
                }
            }
        }
    }
}

impl<B: Write, O: Write, E: Write> Write for Port<B, O, E> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let channel = self.channel.clone();
        let mut state = channel.lock();
        for byte in bytes {
            match state.phase {
                Phase::Before => state.phase = self.before(*byte),
                Phase::Frames => {
                    self.come.push(*byte);
                    self.frames(&mut state);
                }
                Phase::Broken => {}
            }
        }
        drop(state);
        channel.0.changed.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What three writers have after these bytes came, one at a time.
    fn after(bytes: &[u8]) -> (Channel, [Vec<u8>; 3]) {
        let channel = Channel::default();
        let mut port = channel.port(Vec::new(), Vec::new(), Vec::new());
        bytes.iter().for_each(|byte| port.write_all(&[*byte]).unwrap());
        (channel, [port.before, port.out, port.err])
    }

    fn frames(said: &[FromGuest]) -> Vec<u8> {
        let mut bytes = Vec::new();
        said.iter().for_each(|said| said.encode(&mut bytes));
        bytes
    }

    #[test]
    fn what_comes_before_the_greeting_belongs_to_others_and_none_of_it_is_held_back() {
        let mut bytes = b"log \xff\xfftdvisor no\0".to_vec();
        let (channel, [before, ..]) = after(&bytes);
        assert_eq!(before, bytes);
        assert!(!channel.is_open());
        bytes.extend(HELLO);
        let (channel, [before, out, _]) = after(&bytes);
        assert!(channel.is_open() && out.is_empty());
        assert_eq!(before.len() + HELLO.len(), bytes.len());
    }

    #[test]
    fn output_and_errors_stay_apart_and_the_end_is_remembered() {
        let long = vec![b'x'; 10_000];
        let said = [
            FromGuest::Output(long.clone()),
            FromGuest::Error(b"oh".to_vec()),
            FromGuest::Ended(End::Exited(7)),
        ];
        let (channel, [_, out, err]) = after(&[HELLO, &frames(&said)].concat());
        assert_eq!((out, err), (long, b"oh".to_vec()));
        assert_eq!(channel.end(), Some(End::Exited(7)));
        assert_eq!(channel.wait_for_request(), None);
    }

    #[test]
    fn what_is_no_frame_ends_all_belief() {
        for bad in
            [&b"\x07\0\0"[..], b"\x01\xff\xff", b"\x06\x01\0\0", b"\x06\x05\0\x09\0\0\0\0", b"\x04\x01\0x"]
        {
            let (channel, [_, out, _]) =
                after(&[HELLO, bad, &frames(&[FromGuest::Output(b"x".to_vec())])].concat());
            assert!(channel.is_broken() && out.is_empty(), "{bad:x?}");
            assert_eq!(channel.wait_for_request(), None);
        }
    }

    #[test]
    fn input_is_sent_when_it_was_asked_for() {
        let (channel, _) = after(&[HELLO, &frames(&[FromGuest::WantsInput(9)])].concat());
        assert_eq!(channel.wait_for_request(), Some(9));
        channel.close();
        assert_eq!(channel.wait_for_request(), None);
        let mut sent = [answer(b"abc"), answer(b"")].concat();
        assert_eq!(FromHost::take(&mut sent), Ok(Some(FromHost::Input(b"abc".to_vec()))));
        assert_eq!(FromHost::take(&mut sent), Ok(Some(FromHost::EndOfInput)));
    }
}
