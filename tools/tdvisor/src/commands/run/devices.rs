//! The devices of a Linux boot: what the options say, opened before a machine is made.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{SystemTime, UNIX_EPOCH};

use guest_command::protocol::ROOT_TAG;
use machine_emu::Pace;
use tdvisor_devices::virtio::VirtioDevice;
use tdvisor_devices::virtio::blk::{DiskAccess, Serial, VirtioBlk};
use tdvisor_devices::virtio::fs::{Tag, VirtioFs};
use tdvisor_devices::virtio::net::VirtioNet;
use tdvisor_devices::virtio::rng::VirtioRng;
use tdvisor_devices::virtio::rtc::VirtioRtc;
use tdvisor_devices::virtio::vsock::{FIRST_GUEST_CID, VirtioVsock};
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::cmos;
use tdvisor_runtime::board::disk::FileDisk;
use tdvisor_runtime::board::disk_worker::DiskWorker;
use tdvisor_runtime::board::entropy::entropy;
use tdvisor_runtime::board::net::tap::Tap;
use tdvisor_runtime::board::net::user::{Forward, GUEST_MAC, HostAccess, Protocol, UserNet, UserNetConfig};
use tdvisor_runtime::board::share::Share;
use tdvisor_runtime::board::vsock::UnixSockets;
use tdvisor_runtime::worker::StopFlag;

use super::suboptions::Suboptions;
use crate::files::Claims;
use crate::outcome::Failure;

/// Options that give a kernel devices beside its consoles.
#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    /// A raw disk image, shown to the guest as a virtio block device (/dev/vda); several become /dev/vda, /dev/vdb and so
    /// on. Alone it is booted. With `ro` the guest may only read it; `serial` is what the guest finds it by (at most 20 characters).
    #[arg(long = "disk", value_name = "FILE[,ro][,serial=TEXT]", conflicts_with_all = ["elf", "command"])]
    disks: Vec<DiskArg>,
    /// Streams between the guest and programs of the host (virtio-vsock), by UNIX sockets as Firecracker and Cloud Hypervisor
    /// have them: a program connects to SOCKET and says `CONNECT <port>`; the guest's port N of CID 2 is SOCKET_N. The
    /// guest's own CID is 3 if not given.
    #[arg(long, value_name = "SOCKET[,cid=N]", conflicts_with = "deterministic")]
    vsock: Option<VsockArg>,
    /// A network card (virtio-net). `user` is a network in user mode: DHCP, a name server, and what this machine reaches, but
    /// not its own 127.0.0.1, except with `host`, as 10.0.2.2; `dns` is another name server than this machine's. `tap` is a
    /// tap device that this program was started with, as descriptor N.
    #[arg(long, value_name = "user[,host][,dns=ADDRESS]|tap,fd=N", conflicts_with = "deterministic")]
    net: Option<NetArg>,
    /// Give port HOST of this machine's 127.0.0.1 to the guest's port GUEST, over --net user; tcp if not said. Can be
    /// repeated.
    #[arg(long = "forward", value_name = "[tcp:|udp:]HOST:GUEST", requires = "net")]
    forwards: Vec<ForwardArg>,
    /// A folder of this machine for the guest, as a virtio-fs file system: `mount -t virtiofs TAG …`, `share` if not given. With
    /// `ro` the guest only reads it; with `overlay` it writes as well, into memory of this program, and the folder stays as it
    /// is: at most 256 MiB, gone at the end. One of both has to be said. Can be repeated.
    #[arg(long = "share", value_name = "DIR,ro|overlay[,tag=TAG]")]
    shares: Vec<ShareArg>,
    /// Let the guest read this machine's clock at any time (virtio-rtc: /dev/ptp0, /dev/rtc0), not only when it boots.
    #[arg(long, conflicts_with = "deterministic")]
    clock: bool,
}

/// The clock of the machine that this program runs on.
fn clock() -> Option<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// A folder and its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ShareArg {
    path: PathBuf,
    writes: Writes,
    tag: Tag,
}

/// What becomes of what a guest writes to a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writes {
    Refused,
    KeptInMemory,
}

/// The tag of a folder that was given none.
const DEFAULT_TAG: &str = "share";

impl FromStr for ShareArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Suboptions { value, options } = Suboptions::parse(text)?;
        let (mut tag, mut writes) = (DEFAULT_TAG.to_owned(), None);
        for option in options {
            match option.key.as_str() {
                "ro" | "overlay" if writes.is_some() => {
                    return Err("a folder is either 'ro' or 'overlay'".to_owned());
                }
                "ro" => {
                    option.bare()?;
                    writes = Some(Writes::Refused);
                }
                "overlay" => {
                    option.bare()?;
                    writes = Some(Writes::KeptInMemory);
                }
                "tag" => option.text()?.clone_into(&mut tag),
                _ => return Err(option.unknown("a folder has 'ro', 'overlay' and 'tag=TAG'")),
            }
        }
        let writes = writes.ok_or_else(|| {
            format!(
                "this machine's folder is never written: '{value},ro' refuses what the guest writes, \
                 '{value},overlay' keeps it in memory until the end"
            )
        })?;
        let tag = Tag::new(&tag).ok_or("a tag is 1 to 36 bytes of text".to_owned())?;
        Ok(Self { path: value.into(), writes, tag })
    }
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq)]
enum NetArg {
    User { host: HostAccess, name_server: Option<SocketAddr> },
    Tap { fd: i32 },
}

/// The name server that somebody names, at port 53 if they do not say.
fn name_server(text: &str) -> Result<SocketAddr, String> {
    const DOMAIN: u16 = 53;
    let address = || text.parse().map(|address: IpAddr| SocketAddr::new(address, DOMAIN));
    text.parse().or_else(|_| address()).map_err(|_| format!("'{text}' is no IP address"))
}

impl FromStr for NetArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Suboptions { value, options } = Suboptions::parse(text)?;
        match value.as_str() {
            "user" => {
                let (mut host, mut server) = (HostAccess::Denied, None);
                for option in options {
                    match option.key.as_str() {
                        "host" => {
                            option.bare()?;
                            host = HostAccess::Allowed;
                        }
                        "dns" => server = Some(name_server(option.text()?)?),
                        _ => {
                            return Err(option.unknown("a network in user mode has 'host' and 'dns=ADDRESS'"));
                        }
                    }
                }
                Ok(Self::User { host, name_server: server })
            }
            "tap" => match &options[..] {
                [fd] if fd.key == "fd" => {
                    let number = fd.text()?.parse::<i32>().ok().filter(|fd| *fd >= 0);
                    Ok(Self::Tap { fd: number.ok_or("a descriptor is a number")? })
                }
                _ => Err("a tap device is 'tap,fd=N'".to_owned()),
            },
            _ => Err(format!("'{value}' is no network: there are 'user' and 'tap'")),
        }
    }
}

/// A forwarded port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ForwardArg(Forward);

impl FromStr for ForwardArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (protocol, ports) = match text.split_once(':') {
            Some(("tcp", ports)) => (Protocol::Tcp, ports),
            Some(("udp", ports)) => (Protocol::Udp, ports),
            _ => (Protocol::Tcp, text),
        };
        let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
        let ports = ports.split_once(':').and_then(|(host, guest)| Some((port(host)?, port(guest)?)));
        let (host, guest) = ports.ok_or("a forwarded port is [tcp:|udp:]HOST:GUEST, two numbers")?;
        Ok(Self(Forward { protocol, host, guest }))
    }
}

/// The sockets of a guest, and its context id.
#[derive(Clone, Debug, PartialEq, Eq)]
struct VsockArg {
    path: PathBuf,
    cid: u64,
}

impl FromStr for VsockArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Suboptions { value, options } = Suboptions::parse(text)?;
        let mut vsock = Self { path: value.into(), cid: FIRST_GUEST_CID };
        for option in options {
            if option.key != "cid" {
                return Err(option.unknown("a vsock has 'cid=N'"));
            }
            // The largest 32-bit number means any context.
            let cid = option.text()?.parse::<u32>().ok().filter(|cid| *cid != u32::MAX);
            vsock.cid = cid
                .map(u64::from)
                .filter(|cid| *cid >= FIRST_GUEST_CID)
                .ok_or(format!("a cid is a number from {FIRST_GUEST_CID} to {}", u32::MAX - 1))?;
        }
        Ok(vsock)
    }
}

/// One disk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct DiskArg {
    path: PathBuf,
    access: DiskAccess,
    serial: Option<Serial>,
}

impl FromStr for DiskArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Suboptions { value, options } = Suboptions::parse(text)?;
        let mut disk = Self { path: value.into(), access: DiskAccess::ReadWrite, serial: None };
        for option in options {
            match option.key.as_str() {
                "ro" => {
                    option.bare()?;
                    disk.access = DiskAccess::ReadOnly;
                }
                "serial" => {
                    let serial = Serial::new(option.text()?);
                    disk.serial =
                        Some(serial.ok_or("a serial is at most 20 printable ASCII characters".to_owned())?);
                }
                _ => return Err(option.unknown("a disk has 'ro' and 'serial=TEXT'")),
            }
        }
        Ok(disk)
    }
}

/// The serial of a disk that was given none: its place among the disks.
fn default_serial(index: usize) -> Result<Serial, Failure> {
    let text = format!("tdvisor-disk-{index}");
    Serial::new(&text).ok_or(Failure::Internal(format!("{text} is no serial")))
}

/// The device of random bytes, which whatever boots has.
///
/// # Errors
/// This machine has none.
pub fn rng(pace: Pace) -> Result<Box<dyn VirtioDevice>, Failure> {
    let entropy = entropy(pace).map_err(|error| Failure::input("random bytes", error))?;
    Ok(Box::new(VirtioRng::new(entropy)))
}

impl DeviceArgs {
    /// Whether there is a disk.
    pub const fn has_disk(&self) -> bool {
        !self.disks.is_empty()
    }

    /// An option that gives the guest a device, if one does.
    pub fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--disk", self.has_disk()),
            ("--vsock", self.vsock.is_some()),
            ("--net", self.net.is_some()),
            ("--share", !self.shares.is_empty()),
            ("--clock", self.clock),
        ];
        given.into_iter().find(|(_, given)| *given).map(|(option, _)| option)
    }

    /// Notes which files are used, and how.
    ///
    /// # Errors
    /// One file is used in two ways.
    pub fn claim(&self, claims: &mut Claims) -> Result<(), Failure> {
        self.disks.iter().try_for_each(|disk| match disk.access {
            DiskAccess::ReadWrite => claims.writes("--disk", &disk.path),
            DiskAccess::ReadOnly => claims.reads("--disk", &disk.path),
        })
    }

    /// The network card.
    fn card(&self, net: &NetArg, bell: &Bell) -> Result<Box<dyn VirtioDevice>, Failure> {
        let forwards: Vec<Forward> = self.forwards.iter().map(|forward| forward.0).collect();
        match *net {
            NetArg::User { host, name_server } => {
                let network = UserNet::new(&UserNetConfig { host, name_server, forwards }, bell.clone())
                    .map_err(|error| Failure::input("--net", error))?;
                Ok(Box::new(VirtioNet::new(GUEST_MAC, Box::new(network))))
            }
            NetArg::Tap { .. } if !forwards.is_empty() => Err(Failure::input(
                "--forward",
                "a tap device has no forwarded ports: they belong to --net user",
            )),
            NetArg::Tap { fd } => {
                let tap = Tap::inherited(fd, bell.clone())
                    .map_err(|error| Failure::input(format!("descriptor {fd} of --net"), error))?;
                Ok(Box::new(VirtioNet::new(GUEST_MAC, Box::new(tap))))
            }
        }
    }

    /// Opens what the devices are made of: the disks, in their order, sockets, folders (the root file system of a command
    /// beside the others), networks. What they do ends when the flag is set.
    ///
    /// # Errors
    /// Something is not there, or cannot be what it should be.
    pub fn open(
        &self,
        rootfs: Option<&Path>,
        pace: Pace,
        stop: &StopFlag,
        bell: &Bell,
    ) -> Result<Vec<Box<dyn VirtioDevice>>, Failure> {
        let mut devices: Vec<Box<dyn VirtioDevice>> = Vec::new();
        for (index, DiskArg { path, access, serial }) in self.disks.iter().enumerate() {
            let disk =
                FileDisk::open_as(path, *access).map_err(|error| Failure::input(path.display(), error))?;
            let serial = serial.map_or_else(|| default_serial(index), Ok)?;
            let disk = Box::new(DiskWorker::new(disk, stop.clone()));
            devices.push(Box::new(VirtioBlk::new(disk).with_serial(serial)));
        }
        if let Some(VsockArg { path, cid }) = &self.vsock {
            let sockets = UnixSockets::listen(path, bell.clone()).map_err(|error| {
                Failure::input(path.display(), format!("no socket can be made there: {error}"))
            })?;
            devices.push(Box::new(VirtioVsock::new(*cid, Box::new(sockets))));
        }
        for (index, ShareArg { path, writes, tag }) in self.shares.iter().enumerate() {
            let is_root = rootfs.is_some() && Tag::new(ROOT_TAG) == Some(*tag);
            if is_root || self.shares.iter().take(index).any(|other| other.tag == *tag) {
                let problem = "another folder has the same tag: give each its own with ',tag=TAG'";
                return Err(Failure::input(path.display(), problem));
            }
            devices.push(shared(path, *writes, *tag, pace, stop)?);
        }
        if let Some(path) = rootfs {
            let tag =
                Tag::new(ROOT_TAG).ok_or_else(|| Failure::Internal("a tag that is too long".to_owned()))?;
            devices.push(shared(path, Writes::Refused, tag, pace, stop)?);
        }
        if let Some(net) = &self.net {
            devices.push(self.card(net, bell)?);
        }
        if self.clock {
            devices.push(Box::new(VirtioRtc::new(Box::new(clock))));
        }
        Ok(devices)
    }
}

/// A folder for the guest.
fn shared(
    path: &Path,
    writes: Writes,
    tag: Tag,
    pace: Pace,
    stop: &StopFlag,
) -> Result<Box<dyn VirtioDevice>, Failure> {
    let share = match writes {
        Writes::Refused => Share::read_only(path, stop.clone()),
        Writes::KeptInMemory => Share::overlay(path, move || cmos::date(pace), stop.clone()),
    };
    let share = share.map_err(|error| Failure::input(path.display(), error))?;
    Ok(Box::new(VirtioFs::new(tag, Box::new(share))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vsock_is_a_socket_and_a_guests_cid() {
        let vsock = |cid| VsockArg { path: "v.sock".into(), cid };
        assert_eq!("v.sock".parse(), Ok(vsock(3)));
        assert_eq!("v.sock,cid=4294967294".parse(), Ok(vsock(u64::from(u32::MAX) - 1)));
        for bad in ["v.sock,cid=2", "v.sock,cid=4294967295", "v.sock,cid=", "v.sock,cid=x", "v.sock,port=1"] {
            assert!(bad.parse::<VsockArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_network_is_in_user_mode_or_a_tap_device_and_ports_are_two_numbers() {
        let user = |host, name_server| NetArg::User { host, name_server };
        assert_eq!("user".parse(), Ok(user(HostAccess::Denied, None)));
        let server = "192.0.2.1:53".parse().ok();
        assert_eq!("user,host,dns=192.0.2.1".parse(), Ok(user(HostAccess::Allowed, server)));
        assert_eq!(
            "user,dns=[2001:db8::1]:54".parse(),
            Ok(user(HostAccess::Denied, "[2001:db8::1]:54".parse().ok()))
        );
        assert_eq!("tap,fd=7".parse(), Ok(NetArg::Tap { fd: 7 }));
        for bad in
            ["", "bridge", "user,hosts", "user,dns=name", "user,host=1", "tap", "tap,fd=-1", "tap,fd=3,up"]
        {
            assert!(bad.parse::<NetArg>().is_err(), "{bad}");
        }
        let forward = |protocol| Ok(ForwardArg(Forward { protocol, host: 8080, guest: 80 }));
        assert_eq!("8080:80".parse(), forward(Protocol::Tcp));
        assert_eq!("tcp:8080:80".parse(), forward(Protocol::Tcp));
        assert_eq!("udp:8080:80".parse(), forward(Protocol::Udp));
        for bad in ["", "80", "udp:80", "0:80", "80:0", "80:65536", "icmp:1:1", "1:2:3"] {
            assert!(bad.parse::<ForwardArg>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_says_what_becomes_of_what_the_guest_writes() {
        let share = |writes, tag| ShareArg { path: "src".into(), writes, tag: Tag::new(tag).unwrap() };
        assert_eq!("src,ro".parse(), Ok(share(Writes::Refused, "share")));
        assert_eq!("src,tag=work,ro".parse(), Ok(share(Writes::Refused, "work")));
        assert_eq!("src,overlay,tag=work".parse(), Ok(share(Writes::KeptInMemory, "work")));
        for bad in
            ["src", "src,tag=work", "src,rw", "src,ro,tag=", "src,ro=1", "src,ro,overlay", "src,overlay=x"]
        {
            assert!(bad.parse::<ShareArg>().is_err(), "{bad}");
        }
        let long = format!("src,ro,tag={}", "x".repeat(37));
        assert!(long.parse::<ShareArg>().is_err());
    }

    #[test]
    fn a_disk_is_a_file_and_what_it_may_be_used_for() {
        let disk: DiskArg = "a.img".parse().unwrap();
        assert_eq!((disk.access, disk.serial), (DiskAccess::ReadWrite, None));
        let disk: DiskArg = "dir/a.img,serial=root disk,ro".parse().unwrap();
        assert_eq!(disk.path, PathBuf::from("dir/a.img"));
        assert_eq!((disk.access, disk.serial), (DiskAccess::ReadOnly, Serial::new("root disk")));
        for bad in
            ["a.img,rw", "a.img,ro=1", "a.img,serial", "a.img,serial=", "a.img,serial=123456789012345678901"]
        {
            assert!(bad.parse::<DiskArg>().is_err(), "{bad}");
        }
    }
}
