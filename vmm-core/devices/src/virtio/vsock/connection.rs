//! One stream between a port of the guest and a program of the host.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use super::packet::{Header, shutdown};
use super::{Moved, Stream};
use crate::low;

/// Bytes from the guest that a connection holds while its host program does not take them: the credit of the guest.
pub(super) const BUFFER_BYTES: u32 = 128 << 10;

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The guest has been asked for it, or is about to be.
    Requested,
    /// Guest and host program have the connection.
    Open,
}

/// A connection.
pub(super) struct Connection {
    stream: Box<dyn Stream>,
    pub(super) state: State,
    /// Bytes from the guest that the host program has not taken.
    waiting: VecDeque<u8>,
    /// Bytes that the host program has taken, modulo 2^32, and what the guest was last told of that.
    forwarded: u32,
    forwarded_told: u32,
    /// Bytes sent to the guest, modulo 2^32, and what the guest says of its buffer.
    sent: u32,
    guest_space: u32,
    guest_forwarded: u32,
    credit_asked: bool,
    /// What the guest has shut down, and what the guest was told of the host's side.
    guest_shut: u32,
    host_shut: u32,
    write_shut: bool,
}

/// What a connection has for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    /// Nothing.
    Nothing,
    /// This many bytes, which are in the buffer that was offered.
    Data(usize),
    /// The host program will not send any more.
    End,
    /// Bytes may wait, but the guest has no room.
    NoCredit,
}

impl Connection {
    pub(super) fn new(stream: Box<dyn Stream>, state: State) -> Self {
        Self {
            stream,
            state,
            waiting: VecDeque::new(),
            forwarded: 0,
            forwarded_told: 0,
            sent: 0,
            guest_space: 0,
            guest_forwarded: 0,
            credit_asked: false,
            guest_shut: 0,
            host_shut: 0,
            write_shut: false,
        }
    }

    /// Every packet of the guest says how much room it has.
    pub(super) const fn note_credit(&mut self, header: &Header) {
        self.guest_space = header.buffer_space;
        self.guest_forwarded = header.forwarded;
        self.credit_asked = false;
    }

    /// Bytes that the guest has room for. A guest that forwarded what it never got has none.
    const fn credit(&self) -> u32 {
        self.guest_space.saturating_sub(self.sent.wrapping_sub(self.guest_forwarded))
    }

    /// The guest granted the connection that it was asked for.
    pub(super) fn open(&mut self, host_port: u32) {
        self.state = State::Open;
        self.stream.established(host_port);
    }

    /// Room for bytes from the guest.
    pub(super) fn room(&self) -> usize {
        (BUFFER_BYTES as usize).saturating_sub(self.waiting.len())
    }

    /// Takes bytes from the guest, for which there is room.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    /// Whether the guest may still send.
    pub(super) const fn guest_may_send(&self) -> bool {
        self.guest_shut & shutdown::SEND == 0
    }

    /// The guest shuts down what these flags say. It cannot be undone.
    pub(super) const fn shut_by_guest(&mut self, flags: u32) {
        self.guest_shut |= flags & (shutdown::RECEIVE | shutdown::SEND);
    }

    /// Gives the host program what it takes. Whether the connection goes on.
    pub(super) fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            let (first, _) = self.waiting.as_slices();
            match self.stream.write(first) {
                Moved::Bytes(taken @ 1..) => {
                    let taken = taken.min(first.len());
                    self.waiting.drain(..taken);
                    self.forwarded = self.forwarded.wrapping_add(low::double(taken as u64));
                }
                Moved::Bytes(0) | Moved::Later => return true,
                Moved::End => return false,
            }
        }
        if !self.guest_may_send() && !self.write_shut {
            self.write_shut = true;
            self.stream.shut_write();
        }
        self.guest_shut != shutdown::RECEIVE | shutdown::SEND
    }

    /// Whether the guest should hear how much the host program has taken.
    pub(super) const fn owes_credit(&self) -> bool {
        self.forwarded.wrapping_sub(self.forwarded_told) >= BUFFER_BYTES / 2
    }

    /// What the guest is told of this side's buffer, from now on: its size, and the bytes forwarded.
    pub(super) const fn tell_credit(&mut self) -> (u32, u32) {
        self.forwarded_told = self.forwarded;
        (BUFFER_BYTES, self.forwarded)
    }

    fn may_send(&self) -> bool {
        self.state == State::Open
            && self.guest_shut & shutdown::RECEIVE == 0
            && self.host_shut & shutdown::SEND == 0
    }

    /// Whether [`Self::send`] may have something.
    pub(super) fn has_input(&self) -> bool {
        self.may_send() && self.stream.may_read() && (self.credit() > 0 || !self.credit_asked)
    }

    /// Whether the credit that ran out was asked for already; it is now.
    pub(super) const fn ask_credit(&mut self) -> bool {
        core::mem::replace(&mut self.credit_asked, true)
    }

    /// Reads what the host program sends.
    pub(super) fn send(&mut self, piece: &mut [u8]) -> Sending {
        if !self.may_send() || !self.stream.may_read() {
            return Sending::Nothing;
        }
        if self.credit() == 0 {
            return Sending::NoCredit;
        }
        let room = piece.len().min(self.credit() as usize);
        let Some(piece) = piece.get_mut(..room) else { return Sending::Nothing };
        match self.stream.read(piece) {
            Moved::Bytes(0) | Moved::Later => Sending::Nothing,
            Moved::Bytes(count) => {
                let count = count.min(room);
                self.sent = self.sent.wrapping_add(low::double(count as u64));
                Sending::Data(count)
            }
            Moved::End => {
                self.host_shut |= shutdown::SEND;
                Sending::End
            }
        }
    }
}
