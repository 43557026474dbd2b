//! The devices of a configuration, opened.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use machine_emu::Pace;
use rustix::fs::FileType;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use tdvisor_devices::virtio::VirtioDevice;
use tdvisor_devices::virtio::blk::{DiskAccess, Serial, VirtioBlk};
use tdvisor_devices::virtio::fs::{Tag, VirtioFs};
use tdvisor_devices::virtio::net::{Link, VirtioNet};
use tdvisor_devices::virtio::rng::VirtioRng;
use tdvisor_devices::virtio::vsock::VirtioVsock;
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::disk::FileDisk;
use tdvisor_runtime::board::disk_worker::DiskWorker;
use tdvisor_runtime::board::entropy::entropy;
use tdvisor_runtime::board::net::tap::Tap;
use tdvisor_runtime::board::net::user::{HostAccess, UserNet, UserNetConfig, UserNetError};
use tdvisor_runtime::board::share::Share;
use tdvisor_runtime::board::vsock::UnixSockets;
use tdvisor_runtime::worker::StopFlag;

use super::counters::{CountedDisk, CountedLink, DeviceCounters};
use crate::config::{ConfigError, NetConfig, VmConfig};

/// A device that cannot be opened.
#[derive(Debug)]
pub enum DeviceError {
    /// What is behind it cannot be had.
    Io {
        /// The device's key in the configuration.
        key: String,
        /// Why.
        error: io::Error,
    },
    /// The network in user mode cannot be had.
    User(UserNetError),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { key, error } => write!(f, "{key}: {error}"),
            Self::User(error) => write!(f, "net: {error}"),
        }
    }
}

impl std::error::Error for DeviceError {}

fn io_at(key: String) -> impl FnOnce(io::Error) -> DeviceError {
    move |error| DeviceError::Io { key, error }
}

/// The devices, and what they count.
#[derive(Default)]
pub(crate) struct Opened {
    pub(crate) virtio: Vec<Box<dyn VirtioDevice>>,
    pub(crate) counters: BTreeMap<String, DeviceCounters>,
}

/// Opens the devices, in the order in which a kernel finds them, for a VM whose time passes so.
///
/// # Errors
/// The first that cannot be had.
pub(crate) fn open(
    config: &VmConfig,
    cards: &BTreeMap<String, Vec<OwnedFd>>,
    pace: Pace,
    stop: &StopFlag,
    bell: &Bell,
) -> Result<Opened, DeviceError> {
    let mut opened = Opened::default();
    for (index, disk) in config.disks().iter().enumerate() {
        let key = || format!("disks[{index}].path");
        let access = if disk.readonly { DiskAccess::ReadOnly } else { DiskAccess::ReadWrite };
        let path = disk.path.as_deref().unwrap_or(Path::new(""));
        let file = FileDisk::open_as(path, access).map_err(io_at(key()))?;
        let (counted, counters) = CountedDisk::new(DiskWorker::new(file, stop.clone()));
        opened.counters.insert(disk.id.clone().unwrap_or_else(key), counters);
        let mut device = VirtioBlk::new(Box::new(counted));
        if let Some(serial) = disk.serial.as_deref().and_then(Serial::new) {
            device = device.with_serial(serial);
        }
        opened.virtio.push(Box::new(device));
    }
    if let Some(vsock) = &config.vsock {
        let sockets = UnixSockets::listen(&vsock.socket, bell.clone());
        let sockets = sockets.map_err(io_at("vsock.socket".to_owned()))?;
        opened.virtio.push(Box::new(VirtioVsock::new(vsock.cid, Box::new(sockets))));
    }
    for (index, fs) in config.fs().iter().enumerate() {
        let path = fs.dir.as_deref().unwrap_or(Path::new(""));
        let share = Share::read_only(path, stop.clone()).map_err(io_at(format!("fs[{index}].dir")))?;
        if let Some(tag) = Tag::new(&fs.tag) {
            opened.virtio.push(Box::new(VirtioFs::new(tag, Box::new(share))));
        }
    }
    for (index, net) in config.net().iter().enumerate() {
        let key = || format!("net[{index}]");
        let link: Box<dyn Link> = match net.id.as_ref().and_then(|id| cards.get(id)).map(Vec::as_slice) {
            Some([fd]) => {
                let fd = fd.try_clone().map_err(io_at(key()))?;
                Box::new(Tap::over(fd, bell.clone()).map_err(io_at(key()))?)
            }
            _ => {
                let network =
                    UserNetConfig { host: HostAccess::Denied, name_server: None, forwards: Vec::new() };
                Box::new(UserNet::new(&network, bell.clone()).map_err(DeviceError::User)?)
            }
        };
        let (counted, counters) = CountedLink::new(link);
        opened.counters.insert(net.id.clone().unwrap_or_else(key), counters);
        opened.virtio.push(Box::new(VirtioNet::new(net.mac.0, Box::new(counted))));
    }
    let source = entropy(pace).map_err(io_at("rng.src".to_owned()))?;
    opened.virtio.push(Box::new(VirtioRng::new(source)));
    Ok(opened)
}

/// Whether a card can be had with these descriptors.
///
/// # Errors
/// None or several came, or nothing that frames can be read from and written to is behind it.
pub(crate) fn check_card(net: &NetConfig, fds: &[OwnedFd]) -> Result<(), ConfigError> {
    let refuse =
        |problem: &str| Err(ConfigError::Invalid { key: "net.fds".to_owned(), problem: problem.to_owned() });
    match (fds, net.user) {
        ([], true) => Ok(()),
        ([fd], false) => check_link(fd).or_else(refuse),
        ([], false) => refuse("send one descriptor with the request, or ask for 'user': true"),
        (_, true) => refuse("a network in user mode has no descriptors"),
        (_, false) => refuse("one descriptor: the card has one queue each way"),
    }
}

/// Whether frames, and nothing else, go through this descriptor.
fn check_link(fd: &OwnedFd) -> Result<(), &'static str> {
    let kind = rustix::fs::fstat(fd).map(|data| FileType::from_raw_mode(data.st_mode));
    match kind {
        Ok(FileType::Socket) => match socket_type(fd) {
            Ok(SocketType::DGRAM | SocketType::SEQPACKET) => Ok(()),
            _ => Err("a socket has to keep frames apart: SOCK_DGRAM or SOCK_SEQPACKET"),
        },
        Ok(FileType::CharacterDevice) => check_tap(fd),
        _ => Err("the descriptor is neither a tap device nor a socket"),
    }
}

/// Flags of a tap device (`linux/if_tun.h`).
const IFF_TAP: u32 = 0x0002;
const IFF_NO_PI: u32 = 0x1000;
const IFF_VNET_HDR: u32 = 0x4000;

/// Whether this is a tap device whose frames have nothing in front of them, by what the kernel says of it in `/proc` and
/// `/sys`.
fn check_tap(fd: impl AsFd) -> Result<(), &'static str> {
    let number = fd.as_fd().as_raw_fd();
    let said = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
    let name = said.lines().find_map(|line| line.strip_prefix("iff:")).map(str::trim);
    let name = name.filter(|name| !name.is_empty() && !name.contains('/'));
    let name = name.ok_or("the descriptor is neither a tap device nor a socket")?;
    let flags = fs::read_to_string(format!("/sys/class/net/{name}/tun_flags")).unwrap_or_default();
    let flags = flags.trim().strip_prefix("0x").and_then(|flags| u32::from_str_radix(flags, 16).ok());
    let flags = flags.ok_or("the flags of the tap device cannot be read in /sys/class/net")?;
    match flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR) {
        frames if frames == IFF_TAP | IFF_NO_PI => Ok(()),
        _ => Err("the device has to be IFF_TAP | IFF_NO_PI, without IFF_VNET_HDR"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    fn card(value: serde_json::Value) -> NetConfig {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_card_has_one_descriptor_that_keeps_frames_apart() {
        let plain = card(serde_json::json!({}));
        let user = card(serde_json::json!({"user": true}));
        let (a, b) = UnixDatagram::pair().unwrap();
        let (a, b): (OwnedFd, OwnedFd) = (a.into(), b.into());
        assert_eq!(check_card(&plain, std::slice::from_ref(&a)), Ok(()));
        assert_eq!(check_card(&user, &[]), Ok(()));
        assert!(check_card(&user, std::slice::from_ref(&a)).is_err());
        assert!(check_card(&plain, &[]).is_err());
        assert!(check_card(&plain, &[a, b]).is_err());
        let (stream, _) = UnixStream::pair().unwrap();
        for bad in [
            OwnedFd::from(stream),
            fs::File::open("/dev/null").unwrap().into(),
            fs::File::open("/proc/self/status").unwrap().into(),
        ] {
            assert!(check_card(&plain, &[bad]).is_err());
        }
    }
}
