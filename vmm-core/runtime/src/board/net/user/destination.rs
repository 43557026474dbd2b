//! Where the guest's packets go.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::{GATEWAY, HostAccess, NAME_SERVER, PREFIX_BITS};

/// The port of name servers.
const DOMAIN: u16 = 53;

/// What the guest may reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct Destinations {
    host: HostAccess,
    name_server: Option<SocketAddr>,
}

impl Destinations {
    pub(super) const fn new(host: HostAccess, name_server: Option<SocketAddr>) -> Self {
        Self { host, name_server }
    }

    /// Where the host sends what the guest sends there; `None` if nowhere.
    pub(super) fn of(&self, wanted: SocketAddrV4) -> Option<SocketAddr> {
        let address = *wanted.ip();
        if address == NAME_SERVER {
            return self.name_server.filter(|_| wanted.port() == DOMAIN);
        }
        if address == GATEWAY {
            let host = SocketAddrV4::new(Ipv4Addr::LOCALHOST, wanted.port()).into();
            return (self.host == HostAccess::Allowed).then_some(host);
        }
        let is_inside = address.to_bits() >> (32 - PREFIX_BITS) == GATEWAY.to_bits() >> (32 - PREFIX_BITS);
        // 0.0.0.0/8 is this machine for Linux, and 240.0.0.0/4 nobody.
        let [first, ..] = address.octets();
        let is_nobody = address.is_loopback()
            || address.is_link_local()
            || address.is_multicast()
            || address.is_broadcast()
            || first == 0
            || first >= 240;
        (!is_inside && !is_nobody && wanted.port() != 0).then_some(wanted.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_and_what_is_no_place_are_out_of_reach() {
        let server: SocketAddr = "192.0.2.53:5353".parse().unwrap();
        let of = |host, wanted: &str| Destinations::new(host, Some(server)).of(wanted.parse().unwrap());
        for denied in [
            "127.0.0.1:22",
            "127.9.9.9:22",
            "0.0.0.0:22",
            "0.1.2.3:22",
            "169.254.169.254:80",
            "224.0.0.1:1",
            "255.255.255.255:1",
            "240.0.0.1:1",
            "10.0.2.2:22",
            "10.0.2.15:22",
            "10.0.2.3:80",
            "192.0.2.1:0",
        ] {
            assert_eq!(of(HostAccess::Denied, denied), None, "{denied}");
        }
        assert_eq!(of(HostAccess::Denied, "192.0.2.1:80"), "192.0.2.1:80".parse().ok());
        assert_eq!(of(HostAccess::Denied, "10.0.3.1:80"), "10.0.3.1:80".parse().ok());
        assert_eq!(of(HostAccess::Denied, "10.0.2.3:53"), Some(server));
        assert_eq!(of(HostAccess::Allowed, "10.0.2.2:22"), "127.0.0.1:22".parse().ok());
        assert_eq!(of(HostAccess::Allowed, "127.0.0.1:22"), None, "only by the gateway's name");
    }
}
