//! Datagrams: a socket of the host for each pair of the guest's port and whom it sends to.
//!
//! A socket is connected to its destination, so that only that answers. What comes for a forwarded port gets a port of the
//! gateway for each sender, and what the guest sends there goes back.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use smoltcp::wire::EthernetAddress;

use super::frame::{DATAGRAM_BYTES_MAX, Datagram, datagram};
use super::{Common, GATEWAY, GUEST, GUEST_MAC, UDP_FLOWS_MAX};

/// The first port of the gateway that senders get.
const FIRST_SENDER_PORT: u16 = 49152;
/// Datagrams that are taken from one socket before others have their turn.
const AT_A_TIME: usize = 32;

/// A pair of ports that the guest opened.
struct Flow {
    socket: UdpSocket,
    token: u64,
    /// When the flow was last used, in turns of the counter.
    used: u64,
}

/// The guest's port, and whom it sends to.
type Key = (u16, SocketAddrV4);

/// Somebody who sent to a forwarded port.
#[derive(Clone, Copy, Debug)]
struct Sender {
    /// The forwarded port's token.
    token: u64,
    address: SocketAddr,
    guest_port: u16,
    used: u64,
}

/// Every UDP flow of a guest.
pub(super) struct UdpFlows {
    flows: BTreeMap<Key, Flow>,
    /// Forwarded ports by their token: the socket, and the guest's port.
    forwarded: BTreeMap<u64, (UdpSocket, u16)>,
    /// Senders by the gateway's port that stands for them.
    senders: BTreeMap<u16, Sender>,
    next_sender_port: u16,
    counter: u64,
}

impl UdpFlows {
    pub(super) fn new(forwarded: BTreeMap<u64, (UdpSocket, u16)>) -> Self {
        let (flows, senders) = (BTreeMap::new(), BTreeMap::new());
        Self { flows, forwarded, senders, next_sender_port: FIRST_SENDER_PORT, counter: 0 }
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// A datagram of the guest.
    pub(super) fn send(&mut self, datagram: &Datagram<'_>, common: &mut Common) {
        let used = self.count();
        if *datagram.to.ip() == GATEWAY
            && let Some(sender) = self.senders.get_mut(&datagram.to.port())
            && sender.guest_port == datagram.from
        {
            sender.used = used;
            if let Some((socket, _)) = self.forwarded.get(&sender.token) {
                let _ = socket.send_to(datagram.data, sender.address);
            }
            return;
        }
        let key = (datagram.from, datagram.to);
        if !self.flows.contains_key(&key) {
            let Some(to) = common.destinations.of(datagram.to) else { return };
            let Some(flow) = open(to, common) else { return };
            if self.flows.len() >= UDP_FLOWS_MAX {
                let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.used).map(|(key, _)| *key);
                oldest.and_then(|oldest| self.flows.remove(&oldest));
            }
            self.flows.insert(key, flow);
        }
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.used = used;
            let _ = flow.socket.send(datagram.data);
        }
    }

    /// A socket is ready.
    pub(super) fn woke(&mut self, token: u64, common: &mut Common) {
        let used = self.count();
        let to = |port| SocketAddrV4::new(GUEST, port);
        let target = EthernetAddress(GUEST_MAC);
        let mut data = [0; DATAGRAM_BYTES_MAX + 1];
        if let Some(((guest_port, from), flow)) = self.flows.iter_mut().find(|(_, flow)| flow.token == token)
        {
            flow.used = used;
            for _ in 0..AT_A_TIME {
                // An error is what the network said of a datagram that was sent, or that there are no more.
                let Ok(length) = flow.socket.recv(&mut data) else { break };
                let frame = datagram(*from, to(*guest_port), target, data.get(..length).unwrap_or_default());
                frame.into_iter().for_each(|frame| common.port.cable.put(frame));
            }
            return;
        }
        let Some((socket, guest_port)) = self.forwarded.get(&token) else { return };
        let guest_port = *guest_port;
        let mut arrived = Vec::new();
        for _ in 0..AT_A_TIME {
            let Ok((length, from)) = socket.recv_from(&mut data) else { break };
            arrived.push((from, data.get(..length).unwrap_or_default().to_vec()));
        }
        for (address, data) in arrived {
            let sender = Sender { token, address, guest_port, used };
            let from = SocketAddrV4::new(GATEWAY, self.sender_port(sender));
            let frame = datagram(from, to(guest_port), target, &data);
            frame.into_iter().for_each(|frame| common.port.cable.put(frame));
        }
    }

    /// The gateway's port that stands for a sender.
    fn sender_port(&mut self, sender: Sender) -> u16 {
        let known = self
            .senders
            .iter_mut()
            .find(|(_, known)| (known.token, known.address) == (sender.token, sender.address));
        if let Some((port, known)) = known {
            known.used = sender.used;
            return *port;
        }
        if self.senders.len() >= UDP_FLOWS_MAX {
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.used).map(|(port, _)| *port);
            oldest.and_then(|oldest| self.senders.remove(&oldest));
        }
        // There are more ports than senders: one is free.
        loop {
            let port = self.next_sender_port;
            self.next_sender_port = port.checked_add(1).unwrap_or(FIRST_SENDER_PORT);
            if let Entry::Vacant(place) = self.senders.entry(port) {
                place.insert(sender);
                return port;
            }
        }
    }
}

/// A socket that speaks with one destination.
fn open(to: SocketAddr, common: &mut Common) -> Option<Flow> {
    let here: SocketAddr = match to {
        SocketAddr::V4(_) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(here).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(to).ok()?;
    let token = common.poller.wake_while_readable(&socket).ok()?;
    Some(Flow { socket, token, used: 0 })
}
