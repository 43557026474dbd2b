//! TCP: a socket of smoltcp towards the guest and a socket of the host for each connection.
//!
//! # Protocol
//! - The guest asks for a connection: its segment is kept while the host connects. If the host can, smoltcp gets a socket that
//!   listens and then the segment; if not, it gets the segment alone, and answers with a reset.
//! - Somebody connects to a forwarded port: the host has accepted it; smoltcp connects to the guest, from the gateway. If the
//!   guest refuses, the host's connection is closed.
//! - Data is moved while there is data and room; an end is passed on when everything before it was. A connection that breaks on
//!   one side is broken on the other.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};

use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::{IpAddress, IpEndpoint, IpListenEndpoint};

use super::frame::Segment;
use super::{Common, GATEWAY, GUEST, TCP_BUFFER_BYTES, TCP_FLOWS_MAX};

/// The first port of the gateway that connections to the guest have.
const FIRST_PORT: u16 = 49152;
/// A connection whose guest does not answer is given up.
const SILENCE: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(120);

/// The guest's port and the other's address.
type Key = (u16, SocketAddrV4);

/// How far a connection is.
enum Stage {
    /// The host connects; the guest's segment waits.
    Connecting { segment: Vec<u8> },
    /// Smoltcp has a socket.
    Open { handle: SocketHandle },
}

/// One connection.
struct Flow {
    stream: TcpStream,
    stage: Stage,
    /// The host said its last.
    host_ended: bool,
    /// The host was told that the guest did.
    guest_ended: bool,
}

/// What becomes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The connection goes on, and something was moved.
    Moved,
    /// The connection goes on, and nothing was moved.
    Idle,
    /// The connection is over.
    Over,
}

/// Every TCP connection of a guest.
pub(super) struct TcpFlows {
    flows: BTreeMap<Key, Flow>,
    /// Forwarded ports: the listener, and the guest's port.
    listeners: Vec<(TcpListener, u16)>,
    next_port: u16,
    /// Sockets whose last segments smoltcp still sends.
    closing: Vec<SocketHandle>,
}

/// Connects without waiting.
fn connect_now(to: SocketAddr) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

fn new_socket() -> Socket<'static> {
    let buffer = || SocketBuffer::new(vec![0; TCP_BUFFER_BYTES]);
    let mut socket = Socket::new(buffer(), buffer());
    socket.set_timeout(Some(SILENCE));
    socket.set_nagle_enabled(false);
    socket
}

fn endpoint(address: SocketAddrV4) -> IpEndpoint {
    IpEndpoint::new(IpAddress::Ipv4(*address.ip()), address.port())
}

impl TcpFlows {
    pub(super) const fn new(listeners: Vec<(TcpListener, u16)>) -> Self {
        Self { flows: BTreeMap::new(), listeners, next_port: FIRST_PORT, closing: Vec::new() }
    }

    /// Whether one connection more is too many. Those that are closing have buffers too.
    fn is_full(&self) -> bool {
        self.flows.len() + self.closing.len() >= TCP_FLOWS_MAX
    }

    /// A segment of the guest.
    pub(super) fn segment(&mut self, segment: Segment, frame: Vec<u8>, common: &mut Common) {
        let key = (segment.from, segment.to);
        match self.flows.get(&key) {
            Some(Flow { stage: Stage::Connecting { .. }, .. }) => return,
            Some(_) => return common.ingress(frame),
            None => {}
        }
        if segment.opens
            && !self.is_full()
            && let Some(to) = common.destinations.of(segment.to)
            && let Ok(stream) = connect_now(to)
            && common.poller.wake_at_changes(&stream).is_ok()
        {
            self.flows.insert(key, Flow::new(stream, Stage::Connecting { segment: frame }));
            return;
        }
        // There is no socket for it: the interface resets it.
        common.ingress(frame);
    }

    /// Takes connections to forwarded ports.
    pub(super) fn accept(&mut self, common: &mut Common) {
        for index in 0..self.listeners.len() {
            while !self.is_full() {
                let Some((listener, guest_port)) = self.listeners.get(index) else { break };
                let guest_port = *guest_port;
                let Ok((stream, _)) = listener.accept() else { break };
                if stream.set_nonblocking(true).is_ok() {
                    self.connect_to_guest(stream, guest_port, common);
                }
            }
        }
    }

    fn connect_to_guest(&mut self, stream: TcpStream, guest_port: u16, common: &mut Common) {
        // There are more ports than connections: one is free.
        let from = loop {
            let from = SocketAddrV4::new(GATEWAY, self.next_port);
            self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_PORT);
            if !self.flows.contains_key(&(guest_port, from)) {
                break from;
            }
        };
        let mut socket = new_socket();
        let guest = endpoint(SocketAddrV4::new(GUEST, guest_port));
        if socket.connect(common.iface.context(), guest, endpoint(from)).is_err() {
            return;
        }
        if common.poller.wake_at_changes(&stream).is_ok() {
            let handle = common.sockets.add(socket);
            self.flows.insert((guest_port, from), Flow::new(stream, Stage::Open { handle }));
        }
    }

    /// Moves what can be moved; whether anything was.
    pub(super) fn pump(&mut self, common: &mut Common) -> bool {
        let mut moved = false;
        let Self { flows, closing, .. } = self;
        flows.retain(|(_, to), flow| match flow.pump(*to, common) {
            Fate::Idle => true,
            Fate::Moved => {
                moved = true;
                true
            }
            Fate::Over => {
                if let Stage::Open { handle } = flow.stage {
                    closing.push(handle);
                }
                moved = true;
                false
            }
        });
        closing.retain(|handle| {
            let socket = common.sockets.get::<Socket<'_>>(*handle);
            // A reset is out when the socket has forgotten whom it was for.
            let done = match socket.state() {
                State::Closed => socket.remote_endpoint().is_none(),
                State::TimeWait | State::Listen => true,
                _ => false,
            };
            if done {
                common.sockets.remove(*handle);
            }
            !done
        });
        moved
    }
}

impl Flow {
    const fn new(stream: TcpStream, stage: Stage) -> Self {
        Self { stream, stage, host_ended: false, guest_ended: false }
    }

    fn pump(&mut self, to: SocketAddrV4, common: &mut Common) -> Fate {
        match &mut self.stage {
            Stage::Connecting { segment } => {
                let Some(is_connected) = connected(&self.stream) else { return Fate::Idle };
                let segment = std::mem::take(segment);
                match is_connected {
                    true => {
                        let mut socket = new_socket();
                        let listen = IpListenEndpoint::from(endpoint(to));
                        if socket.listen(listen).is_err() {
                            return Fate::Over;
                        }
                        let handle = common.sockets.add(socket);
                        self.stage = Stage::Open { handle };
                        common.ingress(segment);
                        Fate::Moved
                    }
                    false => {
                        common.ingress(segment);
                        Fate::Over
                    }
                }
            }
            Stage::Open { handle } => {
                let handle = *handle;
                self.move_data(handle, common)
            }
        }
    }

    fn move_data(&mut self, handle: SocketHandle, common: &mut Common) -> Fate {
        let socket = common.sockets.get_mut::<Socket<'_>>(handle);
        let mut fate = Fate::Idle;
        let is_open = !matches!(socket.state(), State::Listen | State::SynSent | State::SynReceived);
        if socket.state() == State::Closed || socket.state() == State::Listen {
            // Refused, reset, timed out, or a first segment that was none: the host sees its connection end.
            return Fate::Over;
        }
        if is_open {
            while socket.can_recv() {
                let written = socket.recv(|data| match self.stream.write(data) {
                    Ok(count) => (count, Ok(count)),
                    Err(error) => (0, Err(error.kind())),
                });
                match written {
                    Ok(Ok(1..)) => fate = Fate::Moved,
                    Ok(Err(ErrorKind::Interrupted)) => {}
                    Ok(Ok(0) | Err(ErrorKind::WouldBlock)) | Err(_) => break,
                    Ok(Err(_)) => {
                        socket.abort();
                        return Fate::Over;
                    }
                }
            }
            while !self.host_ended && socket.can_send() {
                let read = socket.send(|room| match self.stream.read(room) {
                    Ok(count) => (count, Ok(count)),
                    Err(error) => (0, Err(error.kind())),
                });
                match read {
                    Ok(Ok(0)) => {
                        self.host_ended = true;
                        socket.close();
                        fate = Fate::Moved;
                    }
                    Ok(Ok(_)) => fate = Fate::Moved,
                    Ok(Err(ErrorKind::Interrupted)) => {}
                    Ok(Err(ErrorKind::WouldBlock)) | Err(_) => break,
                    Ok(Err(_)) => {
                        socket.abort();
                        return Fate::Over;
                    }
                }
            }
        }
        if is_open && !self.guest_ended && !socket.may_recv() && !socket.can_recv() {
            self.guest_ended = true;
            let _ = self.stream.shutdown(Shutdown::Write);
            fate = Fate::Moved;
        }
        if self.guest_ended && self.host_ended { Fate::Over } else { fate }
    }
}

/// Whether a connection came about; `None` while it is not decided.
fn connected(stream: &TcpStream) -> Option<bool> {
    match stream.take_error() {
        Ok(Some(_)) | Err(_) => Some(false),
        Ok(None) => match stream.peer_addr() {
            Ok(_) => Some(true),
            Err(error) if error.kind() == ErrorKind::NotConnected => None,
            Err(_) => Some(false),
        },
    }
}
