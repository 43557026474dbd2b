//! Names of hosts, where glibc is linked in.
//!
//! A static executable cannot rely on glibc's own resolver, which loads shared libraries for it. This one reads /etc/hosts, then
//! asks the name servers of /etc/resolv.conf over UDP. What an answer says is worth no more than an address: whoever is met
//! there proves by TLS who they are.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use resolv_conf::Config as ResolvConf;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, Question, TYPE};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The port of name servers.
const DOMAIN: u16 = 53;
/// How long one server may take, before the next is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Rounds over all servers.
const ROUNDS: usize = 3;
/// Longest answer without an extension.
const MAX_ANSWER: usize = 4096;
/// Addresses of one name.
const MAX_ADDRESSES: usize = 8;

/// Resolves names by the files and servers of this machine.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    hosts: Vec<(IpAddr, String)>,
    servers: Vec<SocketAddr>,
}

impl Names {
    /// As /etc/hosts and /etc/resolv.conf say. A file that is not there says nothing.
    pub(crate) fn of_this_machine() -> Self {
        let text = |path| std::fs::read_to_string(path).unwrap_or_default();
        let servers =
            ResolvConf::parse(text("/etc/resolv.conf")).map(|file| file.nameservers).unwrap_or_default();
        let servers = servers.iter().map(|server| SocketAddr::new(server.into(), DOMAIN)).collect();
        Self { hosts: hosts(&text("/etc/hosts")), servers }
    }

    /// The addresses of a name, until the deadline.
    ///
    /// # Errors
    /// Nobody knows the name, or nobody answers.
    fn addresses(&self, name: &str, deadline: Instant) -> io::Result<Vec<IpAddr>> {
        let name = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = name.parse() {
            return Ok(vec![address]);
        }
        let known = self.hosts.iter().filter(|(_, host)| host.eq_ignore_ascii_case(name));
        let known: Vec<_> = known.map(|(address, _)| *address).collect();
        if !known.is_empty() {
            return Ok(known);
        }
        let mut all = Vec::new();
        let mut last = io::Error::new(io::ErrorKind::NotFound, "/etc/resolv.conf names no server");
        for kind in [TYPE::A, TYPE::AAAA] {
            match self.ask(name, kind, deadline) {
                Ok(addresses) => all.extend(addresses),
                Err(error) => last = error,
            }
        }
        all.truncate(MAX_ADDRESSES);
        if all.is_empty() { Err(last) } else { Ok(all) }
    }

    fn ask(&self, name: &str, kind: TYPE, deadline: Instant) -> io::Result<Vec<IpAddr>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "/etc/resolv.conf names no server");
        for server in (0..ROUNDS).flat_map(|_| &self.servers) {
            match ask_one(*server, name, kind, deadline) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => last = error,
                answer => return answer,
            }
        }
        Err(last)
    }
}

/// Asks one server.
///
/// # Errors
/// `NotFound`: it says that there is no such name. Everything else: it gave no usable answer in its time.
fn ask_one(server: SocketAddr, name: &str, kind: TYPE, deadline: Instant) -> io::Result<Vec<IpAddr>> {
    let end = deadline.min(Instant::now() + PATIENCE);
    let unusable = |_| io::Error::new(io::ErrorKind::InvalidInput, format!("'{name}' is no name of a host"));
    // Hash keys are random for each process and each call.
    let id = RandomState::new().hash_one(name) as u16;
    let mut query = Packet::new_query(id);
    query.set_flags(simple_dns::PacketFlag::RECURSION_DESIRED);
    query.questions.push(Question::new(
        Name::new(name).map_err(unusable)?,
        kind.into(),
        CLASS::IN.into(),
        false,
    ));
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    // Only this server's datagrams arrive.
    socket.connect(server)?;
    socket.send(&query.build_bytes_vec().map_err(unusable)?)?;
    let mut buffer = [0; MAX_ANSWER];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the name server {server} does not answer"),
            ));
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let Ok(answer) = Packet::parse(buffer.get(..length).unwrap_or_default()) else { continue };
        if answer.id() != id || !answer.has_flags(simple_dns::PacketFlag::RESPONSE) {
            continue;
        }
        return match answer.rcode() {
            simple_dns::RCODE::NoError => Ok(addresses_in(&answer)),
            simple_dns::RCODE::NameError => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("there is no host '{name}'")))
            }
            code => Err(io::Error::other(format!("the name server {server} answers {code:?}"))),
        };
    }
}

fn addresses_in(answer: &Packet<'_>) -> Vec<IpAddr> {
    let address = |record: &simple_dns::ResourceRecord<'_>| match &record.rdata {
        RData::A(a) => Some(Ipv4Addr::from(a.address).into()),
        RData::AAAA(aaaa) => Some(Ipv6Addr::from(aaaa.address).into()),
        _ => None,
    };
    answer.answers.iter().filter_map(address).take(MAX_ADDRESSES).collect()
}

/// The lines of /etc/hosts: an address, and the names that have it.
fn hosts(text: &str) -> Vec<(IpAddr, String)> {
    let mut all = Vec::new();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        if let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) {
            all.extend(words.map(|name| (address, name.to_owned())));
        }
    }
    all
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let missing = || ureq::Error::HostNotFound;
        let host = uri.host().ok_or_else(missing)?;
        let default = if uri.scheme_str() == Some("http") { 80 } else { 443 };
        let port = uri.port_u16().unwrap_or(default);
        let deadline = Instant::now() + *timeout.after;
        let mut resolved = self.empty();
        for address in self.addresses(host, deadline).map_err(ureq::Error::Io)? {
            resolved.push(SocketAddr::new(address, port));
        }
        if resolved.is_empty() { Err(missing()) } else { Ok(resolved) }
    }
}

#[cfg(test)]
mod tests {
    use simple_dns::rdata::A;
    use simple_dns::{PacketFlag, RCODE, ResourceRecord};

    use super::*;

    /// A name server that knows `pcs.example`; before each answer it sends one to another question and one that is cut. It serves so
    /// many questions.
    fn server(questions: usize) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || {
            for _ in 0..questions {
                let mut buffer = [0; 512];
                let (length, from) = socket.recv_from(&mut buffer).unwrap();
                let query = Packet::parse(&buffer[..length]).unwrap();
                let question = query.questions[0].clone();
                let mut answer = Packet::new_reply(query.id());
                if question.qname.to_string() != "pcs.example" {
                    *answer.rcode_mut() = RCODE::NameError;
                } else if question.qtype == TYPE::A.into() {
                    let data = RData::A(A { address: Ipv4Addr::new(192, 0, 2, 7).into() });
                    answer.answers.push(ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, data));
                }
                answer.questions.push(question);
                let bytes = answer.build_bytes_vec().unwrap();
                answer.set_id(query.id().wrapping_add(1));
                answer.set_flags(PacketFlag::RESPONSE);
                socket.send_to(&answer.build_bytes_vec().unwrap(), from).unwrap();
                socket.send_to(&bytes[..bytes.len() / 2], from).unwrap();
                socket.send_to(&bytes, from).unwrap();
            }
        });
        address
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_name_is_looked_up_at_the_servers_and_only_their_answers_count() {
        let names = Names { hosts: Vec::new(), servers: vec![server(2)] };
        let found = names.addresses("pcs.example", soon()).unwrap();
        assert_eq!(found, [IpAddr::from([192, 0, 2, 7])]);
        let names = Names { hosts: Vec::new(), servers: vec![server(2)] };
        let error = names.addresses("other.example", soon()).unwrap_err();
        assert_eq!(error.to_string(), "there is no host 'other.example'");
    }

    #[test]
    fn the_file_of_hosts_and_plain_addresses_need_no_server() {
        let text = "127.0.0.1 localhost # this machine\n::1 localhost ip6-localhost\nnonsense x\n192.0.2.1 PCCS.example\n";
        let names = Names { hosts: hosts(text), servers: Vec::new() };
        let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(names.addresses("localhost", soon()).unwrap(), loopback);
        assert_eq!(names.addresses("pccs.EXAMPLE", soon()).unwrap(), [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(names.addresses("[::1]", soon()).unwrap(), loopback[1..]);
        assert_eq!(names.addresses("10.0.0.1", soon()).unwrap(), [IpAddr::from([10, 0, 0, 1])]);
        let error = names.addresses("pcs.example", soon()).unwrap_err();
        assert_eq!(error.to_string(), "/etc/resolv.conf names no server");
    }

    #[test]
    fn silence_ends_with_the_deadline_and_says_whose_it_was() {
        let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = silent.local_addr().unwrap();
        let names = Names { hosts: Vec::new(), servers: vec![address] };
        let error = names.addresses("pcs.example", Instant::now() + Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.to_string(), format!("the name server {address} does not answer"));
    }
}
