//! The network as a guest with smoltcp's stack sees it, and programs of this machine at its other end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use smoltcp::iface::SocketHandle;
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetFrame, EthernetProtocol,
    EthernetRepr, Ipv4Packet, UdpPacket,
};
use tdvisor_test_data::chance::Chance;

use super::frame::datagram;
use super::*;

/// The guest's card: what smoltcp sends goes into the network.
struct Card(UserNet);

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Sent<'c>(&'c mut UserNet);

impl TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut frame = vec![0; length];
        let result = write(&mut frame);
        self.0.send(&frame);
        result
    }
}

impl Card {
    fn next(&mut self) -> Option<Vec<u8>> {
        let mut frame = [0; FRAME_BYTES_MAX];
        let length = self.0.receive(&mut frame);
        (length > 0).then(|| frame[..length].to_vec())
    }
}

impl Device for Card {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sent<'a>;

    fn receive(&mut self, _: smoltcp::time::Instant) -> Option<(Received, Sent<'_>)> {
        let frame = self.next()?;
        Some((Received(frame), Sent(&mut self.0)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.0))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }
}

/// A guest with a stack of its own.
struct Guest {
    card: Card,
    bell: Bell,
    iface: Interface,
    sockets: SocketSet<'static>,
    started: Instant,
    /// While it is there, the bell rings now and then: the stack's own timers (a question for an address is not repeated within a
    /// second) and lost frames need that.
    _ticker: Sender<()>,
}

fn config(forwards: &[Forward]) -> UserNetConfig {
    UserNetConfig { host: HostAccess::Allowed, name_server: None, forwards: forwards.to_vec() }
}

impl Guest {
    fn on(config: &UserNetConfig) -> Self {
        let bell = Bell::default();
        let mut card = Card(UserNet::new(config, bell.clone()).unwrap());
        let hardware = HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC));
        let started = Instant::now();
        let mut iface = Interface::new(Config::new(hardware), &mut card, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(IpAddress::Ipv4(GUEST), PREFIX_BITS)).unwrap();
        });
        iface.routes_mut().add_default_ipv4_route(GATEWAY).unwrap();
        let (ticker, ended) = channel();
        let ticked = bell.clone();
        std::thread::spawn(move || {
            while ended.recv_timeout(Duration::from_millis(20)) == Err(RecvTimeoutError::Timeout) {
                ticked.ring();
            }
        });
        Self { card, bell, iface, sockets: SocketSet::new(Vec::new()), started, _ticker: ticker }
    }

    /// Lets the stack work until something is so.
    fn until<T>(&mut self, mut what: impl FnMut(&mut Self) -> Option<T>) -> T {
        loop {
            let now = smoltcp::time::Instant::from_micros(self.started.elapsed().as_micros() as i64);
            self.iface.poll(now, &mut self.card, &mut self.sockets);
            if let Some(result) = what(self) {
                return result;
            }
            self.bell.wait();
        }
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn connect(&mut self, address: Ipv4Addr, port: u16) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 1 << 16]);
        let handle = self.sockets.add(tcp::Socket::new(buffer(), buffer()));
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.connect(self.iface.context(), (IpAddress::Ipv4(address), port), 40_000 + port % 1000).unwrap();
        handle
    }

    /// Sends a datagram from port 5000.
    fn send(&mut self, to: SocketAddrV4, data: &[u8]) {
        self.card.0.send(&guest_datagram(SocketAddrV4::new(GUEST, 5000), to, data));
    }

    /// The next datagram to the guest: from, to, data.
    fn receive(&mut self) -> (SocketAddrV4, u16, Vec<u8>) {
        loop {
            let Some(bytes) = self.card.next() else {
                self.bell.wait();
                continue;
            };
            let frame = EthernetFrame::new_checked(&bytes[..]).unwrap();
            if frame.ethertype() != EthernetProtocol::Ipv4 {
                continue;
            }
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            let udp = UdpPacket::new_checked(packet.payload()).unwrap();
            assert!(packet.verify_checksum());
            assert!(udp.verify_checksum(&packet.src_addr().into(), &packet.dst_addr().into()));
            let from = SocketAddrV4::new(packet.src_addr(), udp.src_port());
            return (from, udp.dst_port(), udp.payload().to_vec());
        }
    }
}

/// A datagram as a frame of the guest.
fn guest_datagram(from: SocketAddrV4, to: SocketAddrV4, data: &[u8]) -> Vec<u8> {
    let mut frame = datagram(from, to, EthernetAddress(GATEWAY_MAC), data).unwrap();
    frame[6..12].copy_from_slice(&GUEST_MAC);
    frame
}

#[test]
fn a_guest_talks_with_a_program_over_tcp_and_both_see_the_end() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let program = std::thread::spawn(move || {
        let (mut guest, _) = listener.accept().unwrap();
        let mut all = Vec::new();
        guest.read_to_end(&mut all).unwrap();
        all.reverse();
        guest.write_all(&all).unwrap();
    });
    let mut guest = Guest::on(&config(&[]));
    let handle = guest.connect(GATEWAY, port);
    // More than every buffer between the two.
    let said: Vec<u8> = (0..3_000_000u32).map(|at| (at / 251) as u8).collect();
    let (mut sent, mut heard) = (0, Vec::new());
    guest.until(|guest| {
        let socket = guest.socket(handle);
        if socket.can_send() && sent < said.len() {
            sent += socket.send_slice(&said[sent..]).unwrap();
            if sent == said.len() {
                socket.close();
            }
            guest.bell.ring();
        }
        let socket = guest.socket(handle);
        if socket.can_recv() {
            socket.recv(|data| (data.len(), heard.extend_from_slice(data))).unwrap();
            guest.bell.ring();
            return None;
        }
        (!socket.may_recv() && socket.state() != tcp::State::SynSent).then_some(())
    });
    program.join().unwrap();
    heard.reverse();
    assert!(heard == said, "{} of {} bytes came back", heard.len(), said.len());
}

#[test]
fn a_connection_that_nobody_takes_is_reset() {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut guest = Guest::on(&config(&[]));
    for (address, port) in [(GATEWAY, free), (Ipv4Addr::new(169, 254, 169, 254), 80), (NAME_SERVER, 80)] {
        let handle = guest.connect(address, port);
        guest.until(|guest| (guest.socket(handle).state() == tcp::State::Closed).then_some(()));
    }
    let closed = UserNetConfig { host: HostAccess::Denied, ..config(&[]) };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut guest = Guest::on(&closed);
    let handle = guest.connect(GATEWAY, listener.local_addr().unwrap().port());
    guest.until(|guest| (guest.socket(handle).state() == tcp::State::Closed).then_some(()));
}

/// A port that was free a moment ago.
fn free_port(protocol: Protocol) -> u16 {
    match protocol {
        Protocol::Tcp => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port(),
        Protocol::Udp => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port(),
    }
}

#[test]
fn a_program_reaches_the_guest_by_a_forwarded_port() {
    let forward = Forward { protocol: Protocol::Tcp, host: free_port(Protocol::Tcp), guest: 80 };
    let mut guest = Guest::on(&config(&[forward]));
    let buffer = || tcp::SocketBuffer::new(vec![0; 4096]);
    let mut socket = tcp::Socket::new(buffer(), buffer());
    socket.listen(80).unwrap();
    let handle = guest.sockets.add(socket);
    let program = std::thread::spawn(move || {
        let mut guest = TcpStream::connect((Ipv4Addr::LOCALHOST, forward.host)).unwrap();
        guest.write_all(b"hello").unwrap();
        let mut all = String::new();
        guest.read_to_string(&mut all).unwrap();
        all
    });
    guest.until(|guest| {
        let socket = guest.socket(handle);
        (socket.recv_queue() == 5).then(|| {
            socket.recv(|data| (data.len(), assert_eq!(data, b"hello"))).unwrap();
            assert_eq!(socket.remote_endpoint().unwrap().addr, IpAddress::Ipv4(GATEWAY));
            socket.send_slice(b"welcome").unwrap();
            socket.close();
        })
    });
    guest.until(|guest| (guest.socket(handle).state() != tcp::State::Established).then_some(()));
    let (done, bell) = (std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)), guest.bell.clone());
    let told = done.clone();
    let waiter = std::thread::spawn(move || {
        let all = program.join().unwrap();
        told.store(true, std::sync::atomic::Ordering::SeqCst);
        bell.ring();
        all
    });
    guest.until(|_| done.load(std::sync::atomic::Ordering::SeqCst).then_some(()));
    assert_eq!(waiter.join().unwrap(), "welcome");
    let error = UserNet::new(&config(&[forward]), Bell::default()).unwrap_err().to_string();
    assert!(error.contains(&format!("tcp port {} of 127.0.0.1", forward.host)), "{error}");
}

#[test]
fn datagrams_go_out_and_only_whom_they_were_for_answers() {
    let program = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = program.local_addr().unwrap().port();
    let mut guest = Guest::on(&config(&[]));
    let to = SocketAddrV4::new(GATEWAY, port);
    guest.send(to, b"ping");
    let mut data = [0; 64];
    let (length, from) = program.recv_from(&mut data).unwrap();
    assert_eq!(&data[..length], b"ping");
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().send_to(b"stranger", from).unwrap();
    program.send_to(b"pong", from).unwrap();
    assert_eq!(guest.receive(), (to, 5000, b"pong".to_vec()));
}

#[test]
fn names_are_asked_of_the_name_server() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let name_server = Some(server.local_addr().unwrap());
    let mut guest = Guest::on(&UserNetConfig { host: HostAccess::Denied, name_server, forwards: Vec::new() });
    let to = SocketAddrV4::new(NAME_SERVER, 53);
    guest.send(to, b"who is it?");
    let mut data = [0; 64];
    let (_, from) = server.recv_from(&mut data).unwrap();
    server.send_to(b"it is me", from).unwrap();
    assert_eq!(guest.receive(), (to, 5000, b"it is me".to_vec()));
}

#[test]
fn datagrams_for_a_forwarded_port_arrive_and_the_answer_finds_its_way_back() {
    let forward = Forward { protocol: Protocol::Udp, host: free_port(Protocol::Udp), guest: 5000 };
    let mut guest = Guest::on(&config(&[forward]));
    let program = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    program.send_to(b"ping", (Ipv4Addr::LOCALHOST, forward.host)).unwrap();
    let (from, port, data) = guest.receive();
    assert_eq!((*from.ip(), port, &data[..]), (GATEWAY, 5000, &b"ping"[..]));
    guest.send(from, b"pong");
    let mut data = [0; 64];
    let (length, from) = program.recv_from(&mut data).unwrap();
    assert_eq!((&data[..length], from.port()), (&b"pong"[..], forward.host));
}

#[test]
fn a_guest_gets_its_address_by_dhcp() {
    let mut guest = Guest::on(&config(&[]));
    let mut ask = |message_type, requested_ip| {
        let asked = DhcpRepr {
            message_type,
            transaction_id: 7,
            secs: 0,
            client_hardware_address: EthernetAddress(GUEST_MAC),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; asked.buffer_len()];
        asked.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
        let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        let to = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        guest.card.0.send(&guest_datagram(from, to, &bytes));
        let (from, port, answer) = guest.receive();
        assert_eq!((from, port), (SocketAddrV4::new(GATEWAY, 67), 68));
        answer
    };
    for (asked, wanted, answered) in [
        (DhcpMessageType::Discover, None, DhcpMessageType::Offer),
        (DhcpMessageType::Request, Some(GUEST), DhcpMessageType::Ack),
        (DhcpMessageType::Request, Some(Ipv4Addr::new(192, 168, 0, 1)), DhcpMessageType::Nak),
    ] {
        let answer = ask(asked, wanted);
        let answer = DhcpPacket::new_checked(&answer[..]).unwrap();
        let answer = DhcpRepr::parse(&answer).unwrap();
        assert_eq!((answer.message_type, answer.transaction_id), (answered, 7));
        if answered != DhcpMessageType::Nak {
            assert_eq!((answer.your_ip, answer.router), (GUEST, Some(GATEWAY)));
            assert_eq!(answer.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
            assert_eq!(answer.dns_servers.unwrap()[..], [NAME_SERVER]);
        }
    }
}

#[test]
fn a_probe_for_the_guests_own_address_is_not_answered_and_one_for_the_gateway_is() {
    let mut guest = Guest::on(&config(&[]));
    for (source, target) in [(Ipv4Addr::UNSPECIFIED, GUEST), (GUEST, GUEST), (GUEST, GATEWAY)] {
        let arp = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(GUEST_MAC),
            source_protocol_addr: source,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: target,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress(GUEST_MAC),
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        let mut bytes = vec![0; ethernet.buffer_len() + arp.buffer_len()];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes[..]);
        ethernet.emit(&mut frame);
        arp.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        guest.card.0.send(&bytes);
    }
    // Frames keep their order: the first answer is to the last question.
    let answer = loop {
        match guest.card.next() {
            Some(answer) => break answer,
            None => guest.bell.wait(),
        }
    };
    let frame = EthernetFrame::new_checked(&answer[..]).unwrap();
    let answer = ArpRepr::parse(&ArpPacket::new_checked(frame.payload()).unwrap()).unwrap();
    let ArpRepr::EthernetIpv4 { operation, source_protocol_addr, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((operation, source_protocol_addr), (ArpOperation::Reply, GATEWAY));
}

#[test]
fn frames_of_any_bytes_end_nothing() {
    let mut guest = Guest::on(&config(&[]));
    let mut chance = Chance::new(1);
    let to = SocketAddrV4::new(GATEWAY, 53);
    for _ in 0..20_000 {
        let mut frame = guest_datagram(SocketAddrV4::new(GUEST, 5000), to, &[0; 40]);
        for _ in 0..=chance.index(8) {
            let at = 12 + chance.index(frame.len() - 12);
            frame[at] = chance.byte();
        }
        frame.truncate(14 + chance.index(frame.len() - 13));
        guest.card.0.send(&frame);
        while guest.card.next().is_some() {}
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let handle = guest.connect(GATEWAY, listener.local_addr().unwrap().port());
    guest.until(|guest| guest.socket(handle).may_send().then_some(()));
}
