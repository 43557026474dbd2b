//! Frames: what one from the guest is, how one to it is made, and smoltcp's way to both.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use smoltcp::phy::{ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpPacket, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, TcpPacket, UdpPacket, UdpRepr,
};
use tdvisor_devices::virtio::net::FRAME_BYTES_MAX;

use super::super::cable::Cable;
use super::{GATEWAY, GATEWAY_MAC, GUEST, GUEST_MAC, NAME_SERVER};

/// Ports of DHCP: the server's and the client's.
pub(super) const DHCP_SERVER: u16 = 67;
pub(super) const DHCP_CLIENT: u16 = 68;
/// Bytes of data in the longest datagram that one frame holds: behind an IP header and a UDP header.
pub(super) const DATAGRAM_BYTES_MAX: usize = FRAME_BYTES_MAX - 14 - 20 - 8;

const HOP_LIMIT: u8 = 64;

/// Smoltcp's card: at most one frame waits for it, and what it sends goes to the guest.
pub(super) struct Port {
    pub(super) cable: Arc<Cable>,
    pub(super) incoming: Option<Vec<u8>>,
}

pub(super) struct Incoming(Vec<u8>);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

pub(super) struct Outgoing<'p>(&'p Cable);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.put(frame);
        result
    }
}

impl Device for Port {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Incoming, Outgoing<'_>)> {
        Some((Incoming(self.incoming.take()?), Outgoing(&self.cable)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        // Without room a segment waits in its socket.
        self.cable.has_room().then(|| Outgoing(&self.cable))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }
}

/// A TCP segment from the guest, as far as it decides where it goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) from: u16,
    pub(super) to: SocketAddrV4,
    /// Whether the segment asks for a connection.
    pub(super) opens: bool,
}

/// A datagram from the guest.
#[derive(Clone, Copy, Debug)]
pub(super) struct Datagram<'f> {
    pub(super) from: u16,
    pub(super) to: SocketAddrV4,
    pub(super) data: &'f [u8],
}

/// What a frame from the guest is.
pub(super) enum FromGuest<'f> {
    /// Something that smoltcp's interface answers: ARP and ICMP for an address of this network.
    Interface,
    /// A TCP segment.
    Tcp(Segment),
    /// A message for the DHCP server.
    Dhcp(DhcpPacket<&'f [u8]>),
    /// A datagram.
    Udp(Datagram<'f>),
    /// Nothing that this network carries.
    Nothing,
}

/// Whether the gateway answers for this address.
fn is_ours(address: Ipv4Addr) -> bool {
    address == GATEWAY || address == NAME_SERVER
}

impl<'f> FromGuest<'f> {
    pub(super) fn of(frame: &'f [u8]) -> Self {
        Self::parse(frame).unwrap_or(Self::Nothing)
    }

    fn parse(frame: &'f [u8]) -> Option<Self> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        if frame.src_addr() != EthernetAddress(GUEST_MAC) {
            return None;
        }
        match frame.ethertype() {
            EthernetProtocol::Arp => Self::arp(frame.payload()),
            EthernetProtocol::Ipv4 => Self::ipv4(Ipv4Packet::new_checked(frame.payload()).ok()?),
            _ => None,
        }
    }

    fn arp(packet: &[u8]) -> Option<Self> {
        let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, target_protocol_addr, .. } =
            ArpRepr::parse(&ArpPacket::new_checked(packet).ok()?).ok()?
        else {
            return None;
        };
        // A probe for its own address is not answered: the guest would take it for somebody else's.
        let for_us = source_protocol_addr == GUEST && is_ours(target_protocol_addr);
        let known = matches!(operation, ArpOperation::Request | ArpOperation::Reply);
        (for_us && known).then_some(Self::Interface)
    }

    fn ipv4(packet: Ipv4Packet<&'f [u8]>) -> Option<Self> {
        let fragment = packet.more_frags() || packet.frag_offset() != 0;
        if fragment || !packet.verify_checksum() {
            return None;
        }
        let (source, target) = (packet.src_addr(), packet.dst_addr());
        let is_dhcp = |udp: &UdpPacket<&[u8]>| udp.dst_port() == DHCP_SERVER && udp.src_port() == DHCP_CLIENT;
        match packet.next_header() {
            IpProtocol::Udp => {
                let udp = UdpPacket::new_checked(packet.payload()).ok()?;
                if !udp.verify_checksum(&source.into(), &target.into()) {
                    return None;
                }
                if is_dhcp(&udp) {
                    return Some(Self::Dhcp(DhcpPacket::new_checked(udp.payload()).ok()?));
                }
                let to = SocketAddrV4::new(target, udp.dst_port());
                let datagram = Datagram { from: udp.src_port(), to, data: udp.payload() };
                (source == GUEST).then_some(Self::Udp(datagram))
            }
            IpProtocol::Tcp if source == GUEST => {
                let tcp = TcpPacket::new_checked(packet.payload()).ok()?;
                let to = SocketAddrV4::new(target, tcp.dst_port());
                let opens = tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin();
                Some(Self::Tcp(Segment { from: tcp.src_port(), to, opens }))
            }
            IpProtocol::Icmp if source == GUEST && is_ours(target) => Some(Self::Interface),
            _ => None,
        }
    }
}

/// A datagram to the guest as a frame; `None` if it is longer than one.
pub(super) fn datagram(
    from: SocketAddrV4,
    to: SocketAddrV4,
    target: EthernetAddress,
    data: &[u8],
) -> Option<Vec<u8>> {
    if data.len() > DATAGRAM_BYTES_MAX {
        return None;
    }
    let udp = UdpRepr { src_port: from.port(), dst_port: to.port() };
    let ip = Ipv4Repr {
        src_addr: *from.ip(),
        dst_addr: *to.ip(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + data.len(),
        hop_limit: HOP_LIMIT,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(GATEWAY_MAC),
        dst_addr: target,
        ethertype: EthernetProtocol::Ipv4,
    };
    let checksums = ChecksumCapabilities::default();
    let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
    ethernet.emit(&mut frame);
    let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet, &checksums);
    let mut datagram = UdpPacket::new_unchecked(packet.payload_mut());
    let place = |place: &mut [u8]| place.copy_from_slice(data);
    udp.emit(&mut datagram, &ip.src_addr.into(), &ip.dst_addr.into(), data.len(), place, &checksums);
    Some(bytes)
}
