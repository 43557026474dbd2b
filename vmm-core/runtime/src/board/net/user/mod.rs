//! A network in user mode: the guest reaches what this program reaches, and nobody reaches the guest uninvited.
//!
//! | address | is |
//! |---|---|
//! | 10.0.2.15 | the guest, by DHCP |
//! | 10.0.2.2 | the gateway; it answers pings. If the options say so it is this machine's 127.0.0.1 as well |
//! | 10.0.2.3 | the name server: port 53 is the host's own |
//!
//! # Who does what
//! One thread owns everything: smoltcp's interface with a socket for each TCP connection (`tcp`), the sockets of the host, the
//! datagrams (`udp`), DHCP (`dhcp`). It sleeps until a frame comes from the guest, a socket of the host is ready, or a timer
//! of TCP runs out. It ends with the card, and with it every connection.
//!
//! # Security
//! A guest is not trusted. It cannot reach this machine's loopback addresses, except as the gateway if the user said `host`;
//! nor link-local addresses (where clouds keep their secrets), multicast or broadcast. It has one address, and frames from
//! another are dropped. Forwarded ports listen on 127.0.0.1 only.
//!
//! # Bounds
//! [`TCP_FLOWS_MAX`] connections with [`TCP_BUFFER_BYTES`] each way, [`UDP_FLOWS_MAX`] pairs of ports for datagrams, of which the
//! one that was longest silent makes room; queues of frames as the cable has them. What is beyond is refused or dropped, and
//! so are IP fragments and datagrams that do not fit into one frame.
//!
//! # Why smoltcp
//! It is kept by many, `no_std`, without `unsafe`, and does what is hard in TCP. Its sockets wait here for any address
//! (`any_ip`), which is what a network in user mode needs. libslirp would bring C; passt is another process under the GPL.

mod destination;
mod dhcp;
mod frame;
mod tcp;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpAddress, IpCidr};
use tdvisor_devices::virtio::net::{FRAME_BYTES_MAX, Link};

use super::cable::{Cable, CardEnd};
use crate::bell::Bell;

use self::destination::Destinations;
use self::frame::{FromGuest, Port};
use self::tcp::TcpFlows;
use self::udp::UdpFlows;

/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The gateway's address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// The name server's address.
pub const NAME_SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 3);
/// Bits of the network's prefix.
pub const PREFIX_BITS: u8 = 24;
/// The guest's Ethernet address: a local one.
pub const GUEST_MAC: [u8; 6] = [0x02, 0x74, 0x64, 0x00, 0x00, 0x0f];
/// The Ethernet address of everything else.
pub const GATEWAY_MAC: [u8; 6] = [0x02, 0x74, 0x64, 0x00, 0x00, 0x02];

/// TCP connections at one time.
pub const TCP_FLOWS_MAX: usize = 128;
/// Bytes of a TCP connection's buffer, in each direction.
pub const TCP_BUFFER_BYTES: usize = 64 << 10;
/// Pairs of ports for datagrams at one time.
pub const UDP_FLOWS_MAX: usize = 128;

/// Frames that are taken from the guest before sockets are looked at.
const FRAMES_AT_A_TIME: usize = 64;
/// Events of sockets that are taken at a time.
const EVENTS: usize = 64;
/// The shortest sleep: whatever a timer says, this thread does not spin.
const SHORTEST_SLEEP: Duration = Duration::from_millis(10);
/// Where the host's name servers are written.
const RESOLV_CONF: &str = "/etc/resolv.conf";

const TOKEN_CABLE: u64 = 0;
const TOKEN_CHANGE: u64 = 1;
/// The first token of a socket of datagrams.
const FIRST_TOKEN: u64 = 2;

/// Which protocol a port is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A port of this machine that is the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Which protocol.
    pub protocol: Protocol,
    /// The port of 127.0.0.1.
    pub host: u16,
    /// The guest's port.
    pub guest: u16,
}

/// Whether the gateway is this machine's loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAccess {
    /// Services of this machine that listen on its loopback address are out of reach.
    Denied,
    /// Services of this machine that listen on its loopback address can be reached.
    Allowed,
}

/// What a network is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserNetConfig {
    /// Whether the guest reaches this machine's loopback address.
    pub host: HostAccess,
    /// The name server behind [`NAME_SERVER`]; the host's first, if none is given.
    pub name_server: Option<SocketAddr>,
    /// Ports that are forwarded.
    pub forwards: Vec<Forward>,
}

/// A network cannot be made.
#[derive(Debug)]
pub enum UserNetError {
    /// A forwarded port cannot be had.
    Forward(Forward, io::Error),
    /// The operating system refuses something else.
    System(io::Error),
}

impl std::fmt::Display for UserNetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Forward(forward, error) => {
                let protocol = if forward.protocol == Protocol::Tcp { "tcp" } else { "udp" };
                write!(f, "{protocol} port {} of 127.0.0.1 cannot be forwarded: {error}", forward.host)
            }
            Self::System(error) => write!(f, "no network can be made: {error}"),
        }
    }
}

impl std::error::Error for UserNetError {}

impl From<io::Error> for UserNetError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<rustix::io::Errno> for UserNetError {
    fn from(error: rustix::io::Errno) -> Self {
        Self::System(error.into())
    }
}

/// The card's end of a network.
pub struct UserNet {
    card: CardEnd,
    cable: Arc<Cable>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for UserNet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserNet")
    }
}

impl UserNet {
    /// Makes a network and starts its thread.
    ///
    /// # Errors
    /// [`UserNetError`].
    pub fn new(config: &UserNetConfig, bell: Bell) -> Result<Self, UserNetError> {
        let cable = Cable::new(bell)?;
        let mut network = Network::new(config, cable.clone())?;
        let thread = std::thread::Builder::new().name("net".to_owned()).spawn(move || network.run())?;
        Ok(Self { card: CardEnd(cable.clone()), cable, thread: Some(thread) })
    }
}

impl Drop for UserNet {
    fn drop(&mut self) {
        self.cable.pull();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Link for UserNet {
    fn send(&mut self, frame: &[u8]) {
        self.card.send(frame);
    }

    fn receive(&mut self, out: &mut [u8; FRAME_BYTES_MAX]) -> usize {
        self.card.receive(out)
    }

    fn has_frame(&mut self) -> bool {
        self.card.has_frame()
    }
}

/// The sockets that are waited for.
struct Poller {
    epoll: OwnedFd,
    next: u64,
}

impl Poller {
    /// From now on, until the socket is closed, wakes at each change of what it can do: what it can do may not be wanted.
    fn wake_at_changes(&self, socket: impl AsFd) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(TOKEN_CHANGE), flags)?)
    }

    /// From now on, until the socket is closed, wakes while there is something to read; gives the token of that.
    fn wake_while_readable(&mut self, socket: impl AsFd) -> io::Result<u64> {
        let token = self.next;
        epoll::add(&self.epoll, socket, EventData::new_u64(token), EventFlags::IN)?;
        self.next += 1;
        Ok(token)
    }
}

/// What the parts of a network share.
struct Common {
    iface: Interface,
    sockets: SocketSet<'static>,
    port: Port,
    destinations: Destinations,
    poller: Poller,
    started: Instant,
}

impl Common {
    fn now(&self) -> smoltcp::time::Instant {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        smoltcp::time::Instant::from_micros(elapsed)
    }

    /// Gives a frame of the guest to the interface.
    fn ingress(&mut self, frame: Vec<u8>) {
        let now = self.now();
        self.port.incoming = Some(frame);
        let _ = self.iface.poll_ingress_single(now, &mut self.port, &mut self.sockets);
        self.port.incoming = None;
    }
}

/// The thread's own.
struct Network {
    common: Common,
    tcp: TcpFlows,
    udp: UdpFlows,
}

impl Network {
    fn new(config: &UserNetConfig, cable: Arc<Cable>) -> Result<Self, UserNetError> {
        let mut port = Port { cable, incoming: None };
        let hardware = HardwareAddress::Ethernet(EthernetAddress(GATEWAY_MAC));
        let mut interface = Config::new(hardware);
        interface.random_seed = random_seed()?;
        let mut iface = Interface::new(interface, &mut port, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            // There is room for two.
            for address in [GATEWAY, NAME_SERVER] {
                let _ = addresses.push(IpCidr::new(IpAddress::Ipv4(address), PREFIX_BITS));
            }
        });
        // Whatever the guest sends is for this interface.
        iface.set_any_ip(true);
        let _ = iface.routes_mut().add_default_ipv4_route(GATEWAY);

        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let events = EventData::new_u64(TOKEN_CABLE);
        epoll::add(&epoll, &port.cable.wake, events, EventFlags::IN)?;
        let mut poller = Poller { epoll, next: FIRST_TOKEN };
        let (mut listeners, mut forwarded) = (Vec::new(), BTreeMap::new());
        for forward in &config.forwards {
            let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, forward.host);
            let failed = |error| UserNetError::Forward(*forward, error);
            match forward.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(address).map_err(failed)?;
                    listener.set_nonblocking(true)?;
                    poller.wake_at_changes(&listener)?;
                    listeners.push((listener, forward.guest));
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(address).map_err(failed)?;
                    socket.set_nonblocking(true)?;
                    let token = poller.wake_while_readable(&socket)?;
                    forwarded.insert(token, (socket, forward.guest));
                }
            }
        }
        let destinations = Destinations::new(config.host, config.name_server.or_else(first_name_server));
        let sockets = SocketSet::new(Vec::new());
        let common = Common { iface, sockets, port, destinations, poller, started: Instant::now() };
        Ok(Self { common, tcp: TcpFlows::new(listeners), udp: UdpFlows::new(forwarded) })
    }

    fn run(&mut self) {
        loop {
            self.turn();
            if self.common.port.cable.is_pulled() {
                return;
            }
            let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
            let sleep = self.sleep().and_then(|sleep| Timespec::try_from(sleep).ok());
            let waited = epoll::wait(
                &self.common.poller.epoll,
                rustix::buffer::spare_capacity(&mut events),
                sleep.as_ref(),
            );
            match waited {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in events {
                match event.data.u64() {
                    TOKEN_CABLE => self.common.port.cable.woke(),
                    // Every turn looks at every connection.
                    TOKEN_CHANGE => {}
                    token => self.udp.woke(token, &mut self.common),
                }
            }
        }
    }

    /// Does everything that there is to do.
    fn turn(&mut self) {
        loop {
            let mut more = false;
            for _ in 0..FRAMES_AT_A_TIME {
                let Some(frame) = self.common.port.cable.take() else { break };
                self.frame(frame);
                more = true;
            }
            self.tcp.accept(&mut self.common);
            let moved = self.tcp.pump(&mut self.common);
            let now = self.common.now();
            let Common { iface, sockets, port, .. } = &mut self.common;
            let _ = iface.poll(now, port, sockets);
            if !more && !moved {
                return;
            }
        }
    }

    /// How long nothing need be done; for ever, if there is no timer.
    fn sleep(&mut self) -> Option<Duration> {
        let now = self.common.now();
        let Common { iface, sockets, .. } = &mut self.common;
        let delay = iface.poll_delay(now, sockets)?;
        Some(Duration::from_micros(delay.total_micros()).max(SHORTEST_SLEEP))
    }

    /// A frame from the guest.
    fn frame(&mut self, frame: Vec<u8>) {
        match FromGuest::of(&frame) {
            FromGuest::Interface => self.common.ingress(frame),
            FromGuest::Tcp(segment) => self.tcp.segment(segment, frame, &mut self.common),
            FromGuest::Dhcp(message) => {
                if let Some(answer) = dhcp::answer(message) {
                    self.common.port.cable.put(answer);
                }
            }
            FromGuest::Udp(datagram) => self.udp.send(&datagram, &mut self.common),
            FromGuest::Nothing => {}
        }
    }
}

/// What a stranger cannot guess of sequence numbers.
fn random_seed() -> io::Result<u64> {
    use std::io::Read;
    let mut seed = [0; size_of::<u64>()];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(u64::from_ne_bytes(seed))
}

/// The first name server of this machine.
fn first_name_server() -> Option<SocketAddr> {
    const DOMAIN: u16 = 53;
    let text = std::fs::read_to_string(RESOLV_CONF).ok()?;
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    servers
        .filter_map(|server| server.trim().parse().ok())
        .map(|server| SocketAddr::new(server, DOMAIN))
        .next()
}

#[cfg(test)]
mod tests;
