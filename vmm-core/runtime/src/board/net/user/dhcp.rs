//! A DHCP server with one client and one address (RFC 2131).

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress};

use super::frame::{DHCP_CLIENT, DHCP_SERVER, datagram};
use super::{GATEWAY, GUEST, GUEST_MAC, NAME_SERVER, PREFIX_BITS};

/// Seconds that the guest may keep its address: a day.
const LEASE_SECONDS: u32 = 24 * 60 * 60;

/// The frame that answers a message, if one does.
pub(super) fn answer(message: DhcpPacket<&[u8]>) -> Option<Vec<u8>> {
    let asked = DhcpRepr::parse(&message).ok()?;
    if asked.client_hardware_address != EthernetAddress(GUEST_MAC) {
        return None;
    }
    if asked.server_identifier.is_some_and(|server| server != GATEWAY) {
        return None;
    }
    let wants = asked.requested_ip.unwrap_or(asked.client_ip);
    let message_type = match asked.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if wants == GUEST || wants.is_unspecified() => DhcpMessageType::Ack,
        DhcpMessageType::Request => DhcpMessageType::Nak,
        _ => return None,
    };
    let granted = message_type != DhcpMessageType::Nak;
    let mask = Ipv4Addr::from_bits(u32::MAX << (32 - PREFIX_BITS));
    let mut answer = DhcpRepr {
        message_type,
        transaction_id: asked.transaction_id,
        secs: 0,
        client_hardware_address: asked.client_hardware_address,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: if granted { GUEST } else { Ipv4Addr::UNSPECIFIED },
        server_ip: GATEWAY,
        router: granted.then_some(GATEWAY),
        subnet_mask: granted.then_some(mask),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: asked.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: granted.then(Default::default),
        max_size: None,
        lease_duration: granted.then_some(LEASE_SECONDS),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    if let Some(servers) = &mut answer.dns_servers {
        // There is room for one.
        let _ = servers.push(NAME_SERVER);
    }
    let mut bytes = vec![0; answer.buffer_len()];
    answer.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).ok()?;
    let from = SocketAddrV4::new(GATEWAY, DHCP_SERVER);
    let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, DHCP_CLIENT);
    datagram(from, to, EthernetAddress::BROADCAST, &bytes)
}
