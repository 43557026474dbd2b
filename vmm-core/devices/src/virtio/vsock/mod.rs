//! virtio-vsock: streams between ports of the guest and programs of the host (section 5.10 of the specification).
//!
//! # Protocol
//! Queue 0 has buffers for packets to the guest, queue 1 has packets from it, queue 2 would have events, of which there are
//! none. A packet is a header (`packet`) and data. The configuration space is the guest's CID (u64); the host is
//! [`HOST_CID`].
//!
//! A connection is two ports. Whoever wants one sends Request and gets Response, or Reset. Each side says in every packet how
//! large its buffer is and how much it has forwarded, and the other never sends more than there is room for. Shutdown ends a
//! direction; when the guest has shut down both the device answers Reset, and the connection is over.
//!
//! # Invariants
//! - There are at most [`CONNECTIONS_MAX`] connections; more are reset. Each holds at most the bytes of the credit that the
//!   guest was given: a guest that sends more loses the connection.
//! - Answers wait in a queue of [`REPLIES_MAX`]. While it is full no packet of the guest is taken.
//! - Connections that have data take turns, a packet each.
//! - Packets of other CIDs or socket types are answered with Reset, and reset packets never are.

mod connection;
mod packet;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use core::ops::Bound;

use self::connection::{Connection, Sending, State};
use self::packet::{HEADER_BYTES, Header, Operation, TYPE_STREAM, shutdown};
use super::chain::{Chain, Reader, Writer};
use super::{Broken, Queues, Served, VirtioDevice};
use crate::{SharedMemory, low};

/// The host's context id.
pub const HOST_CID: u64 = 2;
/// The first context id that a guest may have.
pub const FIRST_GUEST_CID: u64 = 3;
/// Connections at one time.
pub const CONNECTIONS_MAX: usize = 256;
/// Answers that wait for buffers of the guest.
pub const REPLIES_MAX: usize = 256;
/// The first port that the host's side of a connection has which the host asked for.
pub const FIRST_HOST_PORT: u32 = 1 << 30;

const DEVICE_ID: u32 = 19;
const PLACES: u16 = 128;
const TO_GUEST: u32 = 0;
const FROM_GUEST: u32 = 1;

/// Bytes of data in one packet to the guest.
const PACKET_BYTES: usize = 16 << 10;

/// How a stream moved bytes. Streams never wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// This many bytes were moved.
    Bytes(usize),
    /// None now.
    Later,
    /// None any more.
    End,
}

/// A program of the host at the other end of a connection.
pub trait Stream: Send {
    /// Whether reading may give something.
    fn may_read(&self) -> bool;
    /// Reads what the program sent.
    fn read(&mut self, out: &mut [u8]) -> Moved;
    /// Sends to the program.
    fn write(&mut self, data: &[u8]) -> Moved;
    /// The program is to see the end of what the guest sends.
    fn shut_write(&mut self);
    /// The guest granted the connection that the program asked for; its host port.
    fn established(&mut self, host_port: u32);
}

/// A program that asks for a connection.
pub struct Incoming {
    /// The guest's port that it wants.
    pub guest_port: u32,
    /// The program's end of the connection.
    pub stream: Box<dyn Stream>,
}

/// The programs of the host.
pub trait Host: Send {
    /// The guest asks for a connection to this port; `None` if nobody listens.
    fn connect(&mut self, port: u32) -> Option<Box<dyn Stream>>;
    /// Whether a program asks for a connection.
    fn has_incoming(&self) -> bool;
    /// The next program that asks for a connection. It is dropped if it cannot have one.
    fn accept(&mut self) -> Option<Incoming>;
}

/// A connection's ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ports {
    host: u32,
    guest: u32,
}

/// An answer that waits for a buffer.
struct Reply {
    ports: Ports,
    operation: Operation,
}

/// The device.
pub struct VirtioVsock {
    host: Box<dyn Host>,
    guest_cid: u64,
    config: [u8; 8],
    connections: BTreeMap<Ports, Connection>,
    replies: VecDeque<Reply>,
    /// Whose turn was last.
    last: Ports,
    next_port: u32,
    /// A packet of the guest waits for room among the answers.
    stalled: bool,
    piece: Box<[u8]>,
}

impl VirtioVsock {
    /// The guest with this context id, and the programs of the host.
    pub fn new(guest_cid: u64, host: Box<dyn Host>) -> Self {
        Self {
            host,
            guest_cid,
            config: guest_cid.to_le_bytes(),
            connections: BTreeMap::new(),
            replies: VecDeque::new(),
            last: Ports { host: 0, guest: 0 },
            next_port: FIRST_HOST_PORT,
            stalled: false,
            piece: vec![0; PACKET_BYTES].into_boxed_slice(),
        }
    }

    fn reply(&mut self, ports: Ports, operation: Operation) {
        self.replies.push_back(Reply { ports, operation });
    }

    /// Ends a connection that goes wrong on this side.
    fn reset(&mut self, ports: Ports) {
        self.connections.remove(&ports);
        self.reply(ports, Operation::Reset);
    }

    /// A packet from the guest. At most one answer comes of it.
    fn receive(&mut self, header: &Header, reader: &mut Reader<'_>) -> Result<(), Broken> {
        if u64::from(header.length) > reader.remaining() {
            return Err(Broken::TooShort);
        }
        let ports = Ports { host: header.destination_port, guest: header.source_port };
        let is_ours = header.destination_cid == HOST_CID
            && header.source_cid == self.guest_cid
            && header.socket_type == TYPE_STREAM;
        if header.operation == Operation::Reset {
            if is_ours {
                self.connections.remove(&ports);
            }
            return Ok(());
        }
        if !is_ours {
            self.reply(ports, Operation::Reset);
            return Ok(());
        }
        let Some(connection) = self.connections.get_mut(&ports) else {
            match header.operation {
                Operation::Request => self.connect(ports, header),
                _ => self.reply(ports, Operation::Reset),
            }
            return Ok(());
        };
        connection.note_credit(header);
        match (header.operation, connection.state) {
            (Operation::Response, State::Requested) => connection.open(ports.host),
            (Operation::Data, State::Open) if connection.guest_may_send() => {
                if header.length as usize > connection.room() {
                    self.reset(ports);
                    return Ok(());
                }
                let mut left = header.length as usize;
                while left > 0 {
                    let size = left.min(self.piece.len());
                    let piece = self.piece.get_mut(..size).unwrap_or_default();
                    reader.read(piece)?;
                    connection.push(piece);
                    left -= size;
                }
                if !connection.flush() {
                    self.reset(ports);
                }
            }
            (Operation::Shutdown, State::Open) => {
                connection.shut_by_guest(header.flags);
                if !connection.flush() {
                    self.reset(ports);
                }
            }
            (Operation::CreditUpdate, _) => {}
            (Operation::CreditRequest, _) => self.reply(ports, Operation::CreditUpdate),
            _ => self.reset(ports),
        }
        Ok(())
    }

    /// The guest asks for a connection that there is not yet.
    fn connect(&mut self, ports: Ports, header: &Header) {
        let has_room = self.connections.len() < CONNECTIONS_MAX;
        let stream = if has_room { self.host.connect(ports.host) } else { None };
        let Some(stream) = stream else { return self.reply(ports, Operation::Reset) };
        let mut connection = Connection::new(stream, State::Open);
        connection.note_credit(header);
        self.connections.insert(ports, connection);
        self.reply(ports, Operation::Response);
    }

    /// Asks the guest for the connections that programs want.
    fn take_incoming(&mut self) {
        while self.replies.len() < REPLIES_MAX && self.host.has_incoming() {
            let Some(Incoming { guest_port, stream }) = self.host.accept() else { return };
            if self.connections.len() >= CONNECTIONS_MAX {
                continue;
            }
            // There are more ports than connections: one is free.
            let ports = loop {
                let ports = Ports { host: self.next_port, guest: guest_port };
                self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_HOST_PORT);
                if !self.connections.contains_key(&ports) {
                    break ports;
                }
            };
            self.connections.insert(ports, Connection::new(stream, State::Requested));
            self.reply(ports, Operation::Request);
        }
    }

    /// Gives the host's programs what they take now.
    fn flush(&mut self) {
        let Self { connections, replies, .. } = self;
        connections.retain(|ports, connection| {
            // What cannot be answered now is looked at again.
            if replies.len() >= REPLIES_MAX || connection.flush() {
                return true;
            }
            replies.push_back(Reply { ports: *ports, operation: Operation::Reset });
            false
        });
    }

    /// Writes one packet for the guest, if there is one.
    fn send(&mut self, writer: &mut Writer<'_>) -> Result<bool, Broken> {
        if writer.remaining() < HEADER_BYTES as u64 {
            return Err(Broken::TooShort);
        }
        if let Some(Reply { ports, operation }) = self.replies.pop_front() {
            self.write(writer, ports, operation, 0, 0)?;
            return Ok(true);
        }
        let room = writer.remaining() - HEADER_BYTES as u64;
        let room = usize::try_from(room).map_or(PACKET_BYTES, |room| room.min(PACKET_BYTES));
        for _ in 0..self.connections.len() {
            let Some(ports) = self.next_turn() else { break };
            self.last = ports;
            let Some(connection) = self.connections.get_mut(&ports) else { break };
            if connection.owes_credit() {
                self.write(writer, ports, Operation::CreditUpdate, 0, 0)?;
                return Ok(true);
            }
            match connection.send(self.piece.get_mut(..room).unwrap_or_default()) {
                Sending::Data(count) => {
                    self.write(writer, ports, Operation::Data, 0, count)?;
                    return Ok(true);
                }
                Sending::End => {
                    self.write(writer, ports, Operation::Shutdown, shutdown::SEND, 0)?;
                    return Ok(true);
                }
                Sending::NoCredit if !connection.ask_credit() => {
                    self.write(writer, ports, Operation::CreditRequest, 0, 0)?;
                    return Ok(true);
                }
                Sending::NoCredit | Sending::Nothing => {}
            }
        }
        Ok(false)
    }

    /// The connection after the one whose turn was last.
    fn next_turn(&self) -> Option<Ports> {
        let behind = (Bound::Excluded(self.last), Bound::Unbounded);
        let next = self.connections.range(behind).next().or_else(|| self.connections.iter().next());
        next.map(|(ports, _)| *ports)
    }

    /// Writes a packet whose data, `length` bytes, is in `piece`.
    fn write(
        &mut self,
        writer: &mut Writer<'_>,
        ports: Ports,
        operation: Operation,
        flags: u32,
        length: usize,
    ) -> Result<(), Broken> {
        let credit = self.connections.get_mut(&ports).map(Connection::tell_credit);
        let (buffer_space, forwarded) = credit.unwrap_or_default();
        let header = Header {
            source_cid: HOST_CID,
            destination_cid: self.guest_cid,
            source_port: ports.host,
            destination_port: ports.guest,
            length: low::double(length as u64),
            socket_type: TYPE_STREAM,
            operation,
            flags,
            buffer_space,
            forwarded,
        };
        writer.write(&header.to_bytes())?;
        writer.write(self.piece.get(..length).unwrap_or_default())
    }
}

impl VirtioDevice for VirtioVsock {
    fn id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[PLACES, PLACES, PLACES]
    }

    fn config(&self) -> &[u8] {
        &self.config
    }

    fn accept(&mut self, features: u64) {
        if features == 0 {
            self.connections.clear();
            self.replies.clear();
            self.stalled = false;
        }
    }

    fn ready(&mut self) -> Queues {
        self.flush();
        self.take_incoming();
        let has_packet = !self.replies.is_empty()
            || self.connections.values().any(|connection| connection.owes_credit() || connection.has_input());
        let may_receive = self.stalled && self.replies.len() < REPLIES_MAX;
        Queues::NONE.with_if(has_packet, TO_GUEST).with_if(may_receive, FROM_GUEST)
    }

    fn serve(&mut self, queue: usize, chain: &Chain, memory: &dyn SharedMemory) -> Result<Served, Broken> {
        if queue == TO_GUEST as usize {
            let mut writer = chain.writer(memory);
            let sent = self.send(&mut writer)?;
            return Ok(if sent { Served::Used(writer.written()) } else { Served::Later });
        }
        if queue == FROM_GUEST as usize {
            self.stalled = self.replies.len() >= REPLIES_MAX;
            if self.stalled {
                return Ok(Served::Later);
            }
            let mut reader = chain.reader(memory);
            let header = Header::read(&mut reader)?;
            self.receive(&header, &mut reader)?;
            return Ok(Served::Used(0));
        }
        Ok(Served::Later)
    }
}
