//! `disks`, `net`, `fs`, `vsock`, `rng`, `serial`, `console`.

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tdvisor_devices::virtio::vsock::FIRST_GUEST_CID;

use super::foreign::Foreign;

/// Places of a disk's queue, and of a card's, where nobody says otherwise.
const DISK_QUEUE: u32 = 128;
const NET_QUEUE: u32 = 256;
const FS_QUEUE: u32 = 1024;

/// A disk.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct DiskConfig {
    /// The disk's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub readonly: bool,
    /// The disk's queues.
    #[serde(default = "one")]
    pub num_queues: u32,
    /// Places of a queue, at most: the device has 128.
    #[serde(default = "disk_queue")]
    pub queue_size: u32,
    /// What a guest finds it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// The format of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_type: Option<String>,
    /// The disk's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

/// A network card.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct NetConfig {
    /// The host's address, of tap devices that the VMM makes. It makes none.
    #[serde(default = "host_address", deserialize_with = "host_address_or")]
    pub ip: Ipv4Addr,
    /// The mask of that address.
    #[serde(default = "host_mask", deserialize_with = "host_mask_or")]
    pub mask: Ipv4Addr,
    /// The card's address.
    #[serde(default, deserialize_with = "mac_or_ours")]
    pub mac: MacText,
    /// The longest packet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// The card's queues: one each way.
    #[serde(default = "two")]
    pub num_queues: u32,
    /// Places of a queue, at most: the device has 128.
    #[serde(default = "net_queue")]
    pub queue_size: u32,
    /// Descriptors. Their numbers say nothing: what counts comes with the request (`SCM_RIGHTS`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fds: Option<Vec<i64>>,
    /// Ours: a network in user mode, which needs no rights.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
    /// The card's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

/// A folder of this machine that the guest may read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FsConfig {
    /// What a guest finds it by.
    pub tag: String,
    /// Ours: the folder. There are no vhost-user sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// The file system's queues.
    #[serde(default = "one")]
    pub num_queues: u32,
    /// Places of a queue, at most.
    #[serde(default = "fs_queue")]
    pub queue_size: u32,
    /// The file system's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

/// Streams between guest and host.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct VsockConfig {
    /// The guest's context.
    #[serde(default = "first_cid")]
    pub cid: u64,
    /// The socket of the host's programs.
    pub socket: PathBuf,
    /// The device's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

/// Where random bytes come from.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RngConfig {
    /// A device of this machine.
    #[serde(default = "urandom")]
    pub src: PathBuf,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

impl Default for RngConfig {
    fn default() -> Self {
        Self { src: urandom(), foreign: Foreign::default() }
    }
}

/// Where a console is.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConsoleConfig {
    /// How.
    pub mode: ConsoleMode,
    /// The file of [`ConsoleMode::File`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The socket of [`ConsoleMode::Socket`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
    /// What else Cloud Hypervisor knows.
    #[serde(flatten)]
    pub foreign: Foreign,
}

impl ConsoleConfig {
    fn of(mode: ConsoleMode) -> Self {
        Self { mode, file: None, socket: None, foreign: Foreign::default() }
    }

    /// What a serial port has where nobody says otherwise.
    pub(super) fn null() -> Self {
        Self::of(ConsoleMode::Null)
    }

    /// What a virtio console has where nobody says otherwise.
    pub(super) fn tty() -> Self {
        Self::of(ConsoleMode::Tty)
    }
}

/// How a console comes out.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum ConsoleMode {
    /// There is no such device; the serial port is part of every board, and what is written to it is dropped.
    Off,
    /// What is written is dropped.
    Null,
    /// Standard output, and standard input.
    Tty,
    /// A file.
    File,
    /// A socket: who connects sees what is written from then on, and types.
    Socket,
    /// A pseudo terminal.
    Pty,
    /// A TCP port.
    Tcp,
}

/// The address of a card, as text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacText(pub [u8; 6]);

/// Locally administered, and no group.
const DEFAULT_MAC: MacText = MacText([0x2e, 0x74, 0x64, 0x76, 0x69, 0x73]);

impl Default for MacText {
    fn default() -> Self {
        DEFAULT_MAC
    }
}

impl MacText {
    fn parse(text: &str) -> Option<Self> {
        let byte = |part: &str| {
            let digits = part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit());
            digits.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        let bytes: [u8; 6] = bytes?.try_into().ok()?;
        // The lowest bit of the first byte is of groups.
        (bytes[0] & 1 == 0).then_some(Self(bytes))
    }
}

impl fmt::Display for MacText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MacText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| serde::de::Error::custom("six bytes in hexadecimal with colons, and no group"))
    }
}

const fn one() -> u32 {
    1
}

const fn two() -> u32 {
    2
}

const fn disk_queue() -> u32 {
    DISK_QUEUE
}

const fn net_queue() -> u32 {
    NET_QUEUE
}

const fn fs_queue() -> u32 {
    FS_QUEUE
}

const fn first_cid() -> u64 {
    FIRST_GUEST_CID
}

fn urandom() -> PathBuf {
    PathBuf::from("/dev/urandom")
}

const fn host_address() -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 249, 1)
}

const fn host_mask() -> Ipv4Addr {
    Ipv4Addr::new(255, 255, 255, 0)
}

/// An address; a client that has none in mind writes `null`.
fn host_address_or<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv4Addr, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(host_address()))
}

/// A card's address; a client that has none in mind writes `null`.
fn mac_or_ours<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MacText, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A mask; a client that has none in mind writes `null`.
fn host_mask_or<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv4Addr, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(host_mask()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_no_address_in_mind_writes_null() {
        let config: NetConfig =
            serde_json::from_value(serde_json::json!({"ip": null, "mask": null, "mac": null})).unwrap();
        assert_eq!((config.ip, config.mask, config.mac), (host_address(), host_mask(), DEFAULT_MAC));
    }

    #[test]
    fn a_cards_address_is_six_bytes_and_no_group() {
        assert_eq!(MacText::parse("02:00:aB:00:00:01"), Some(MacText([2, 0, 0xab, 0, 0, 1])));
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:00:00",
            "03:00:00:00:00:01",
            "2:0:0:0:0:1",
            "+2:00:00:00:00:01",
        ] {
            assert_eq!(MacText::parse(bad), None, "{bad}");
        }
    }
}
