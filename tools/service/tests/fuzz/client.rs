//! A client: what it sends, and what it makes of the answers.

use std::fs;
use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tdvisor_service::api::ENDPOINTS;

use tdvisor_test_data::chance::Chance;

use crate::described::{Described, Said};
use crate::place::{LONG, Place, waiting_guest};

/// Bytes of the largest memory that is booted: larger ones take time, and find nothing more.
const BOOTED_MAX: u64 = 128 << 20;
/// Statuses that an answer may have.
const STATUSES: [u16; 11] = [200, 204, 400, 404, 408, 409, 413, 417, 431, 500, 100];

/// Files and folders that configurations name.
pub fn lay_out(folder: &Path) {
    fs::write(folder.join("small"), [0; 100]).expect("a file");
    fs::write(folder.join("disk"), [0; 4096]).expect("a file");
    fs::create_dir(folder.join("folder")).expect("a folder");
    let fifo = folder.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).expect("a pipe");
}

/// One step of a client.
pub enum Step {
    /// A request as it should be, to some endpoint.
    Right,
    /// One whose body is bent.
    Bent,
    /// One that begins a life, with a configuration that is likely to have one.
    Boot,
    /// One with descriptors.
    Fds,
    /// Several at once.
    Pipeline,
    /// A part of one, and then nothing.
    Half,
    /// Bytes.
    Noise,
}

/// An answer, as it came.
pub struct Answer {
    head: String,
    body: Vec<u8>,
    asked: String,
}

impl Answer {
    fn status(&self) -> u16 {
        self.head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    fn said(&self) -> Said<'_> {
        let allow = self.head.lines().find_map(|line| line.strip_prefix("Allow: "));
        Said { status: self.status(), allow, body: &self.body }
    }

    pub fn is_refusal(&self) -> bool {
        self.status() >= 400
    }

    pub fn is_of_boot(&self) -> bool {
        self.asked.starts_with("PUT /api/v1/vm.boot ") && self.status() == 204
    }

    /// Checks that status and body of the answer to a request that came whole are described.
    #[track_caller]
    pub fn check_against(&self, described: &Described) {
        let mut words = self.asked.split(' ');
        let method = words.next().and_then(|word| word.parse().ok()).expect("a method");
        let target = words.next().expect("a target");
        if let Some(problem) = described.problem(&method, target, self.said()) {
            let asked: String = self.asked.chars().take(300).collect();
            panic!("{problem}: {}\n{asked}", String::from_utf8_lossy(&self.body));
        }
    }

    /// Checks that it has the documented form.
    #[track_caller]
    pub fn check(&self) {
        let shown = String::from_utf8_lossy(&self.body);
        let asked: String = self.asked.chars().take(300).collect();
        assert!(STATUSES.contains(&self.status()), "{asked}\n{}{shown}", self.head);
        match self.status() {
            100 | 204 => assert!(self.body.is_empty(), "{asked}\n{}{shown}", self.head),
            200 => assert!(
                serde_json::from_slice::<Value>(&self.body).is_ok_and(|value| value.is_object()),
                "{asked}\n{}{shown}",
                self.head
            ),
            _ => {
                let sentences: Vec<String> = serde_json::from_slice(&self.body).unwrap_or_default();
                let are_some = !sentences.is_empty() && sentences.iter().all(|sentence| !sentence.is_empty());
                assert!(are_some, "{asked}\n{}{shown}", self.head);
            }
        }
    }
}

/// Values that stand where others are expected.
fn any_value(chance: &mut Chance, place: &Path) -> Value {
    let file = |name: &str| json!(place.join(name));
    match chance.below(22) {
        0 => Value::Null,
        1 => json!(chance.one_in(2)),
        2 => json!(chance.below(5)),
        3 => json!(chance.next()),
        4 => json!(1u64 << chance.below(64)),
        5 => json!(-(chance.below(1 << 40) as i64)),
        6 => json!(1.5),
        7 => json!(""),
        8 => json!("x".repeat(chance.below(5000) as usize)),
        9 => json!("\u{0}\u{1f600}/../"),
        10 => json!([]),
        11 => json!({}),
        12 => json!([{}, {}, {}]),
        13 => file("small"),
        14 => file("disk"),
        15 => file("folder"),
        16 => file("fifo"),
        17 => file("nothing"),
        18 => file(&format!("made-{}", chance.below(3))),
        19 => json!(chance.pick(&["hello-td", "fault-td", "boot-shim", "compliance", "halt", "fail"])),
        20 => {
            json!(chance.pick(&["Off", "Null", "Tty", "File", "Socket", "Pty", "Raw", "02:00:00:00:00:01"]))
        }
        _ => json!("/dev/null"),
    }
}

/// Every key that configurations have, and some that they have not.
const KEYS: [&str; 40] = [
    "cpus",
    "memory",
    "payload",
    "disks",
    "net",
    "rng",
    "fs",
    "serial",
    "console",
    "vsock",
    "platform",
    "size",
    "boot_vcpus",
    "max_vcpus",
    "firmware",
    "kernel",
    "cmdline",
    "initramfs",
    "mrconfigid",
    "host_data",
    "path",
    "readonly",
    "num_queues",
    "queue_size",
    "id",
    "mac",
    "fds",
    "user",
    "tag",
    "dir",
    "socket",
    "cid",
    "src",
    "mode",
    "file",
    "tdx",
    "iommu",
    "numa",
    "topology",
    "a_key_of_tomorrow",
];

/// Changes a value somewhere.
fn bend(value: &mut Value, chance: &mut Chance, place: &Path) {
    match value {
        Value::Object(object) if !chance.one_in(4) => {
            if object.is_empty() || chance.one_in(3) {
                object.insert(chance.pick(&KEYS).to_owned(), any_value(chance, place));
            } else {
                let at = chance.below(object.len() as u64) as usize;
                if let Some(inner) = object.values_mut().nth(at) {
                    bend(inner, chance, place);
                }
            }
        }
        Value::Array(list) if !list.is_empty() && !chance.one_in(4) => {
            let at = chance.below(list.len() as u64) as usize;
            bend(&mut list[at], chance, place);
        }
        value => *value = any_value(chance, place),
    }
}

/// A body that the endpoint would take.
fn body_of(endpoint: &str, chance: &mut Chance, place: &Path) -> Option<Value> {
    let ids = ["_disk0", "_net0", "_fs0", "_vsock0", "a"];
    Some(match endpoint {
        "vm.create" => {
            let mut config = waiting_guest();
            if chance.one_in(3) {
                config["payload"] = json!({"firmware": "hello-td"});
            }
            if chance.one_in(3) {
                config["serial"] = json!({"mode": "File", "file": place.join("made-0")});
            }
            if chance.one_in(3) {
                config["console"] = json!({"mode": "Socket", "socket": place.join("made-console")});
            }
            config
        }
        "vm.add-disk" => json!({"path": place.join("disk"), "readonly": chance.one_in(2)}),
        "vm.add-net" => json!({"user": true}),
        "vm.add-fs" => json!({"tag": "t", "dir": place.join("folder")}),
        "vm.add-vsock" => json!({"socket": place.join("made-vsock")}),
        "vm.remove-device" => json!({"id": chance.pick(&ids)}),
        "vm.resize" => json!({"desired_ram": 65 << 20, "desired_vcpus": 1 + chance.below(2)}),
        _ => return None,
    })
}

/// A request's bytes.
fn request(method: &str, endpoint: &str, body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = format!("{method} /api/v1/{endpoint} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    if let Some(body) = body {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// Some endpoint that does not begin a life, and does not end the process.
fn any_endpoint(chance: &mut Chance) -> (&'static str, &'static str) {
    loop {
        let endpoint = &ENDPOINTS[chance.index(ENDPOINTS.len())];
        if !matches!(endpoint.name, "vmm.shutdown" | "vm.boot") {
            let method = if endpoint.method() == http::Method::GET { "GET" } else { "PUT" };
            return (method, endpoint.name);
        }
    }
}

impl Step {
    pub fn any(chance: &mut Chance) -> Self {
        match chance.below(40) {
            0..14 => Self::Right,
            14..26 => Self::Bent,
            26 => Self::Boot,
            27..30 => Self::Fds,
            30..33 => Self::Pipeline,
            33..37 => Self::Half,
            _ => Self::Noise,
        }
    }

    /// Whether it is one request, which comes whole.
    pub const fn is_one_request(&self) -> bool {
        matches!(self, Self::Right | Self::Bent | Self::Boot | Self::Fds)
    }

    /// Takes it, and gives the answers.
    pub fn take(&self, place: &Place, chance: &mut Chance) -> Vec<Answer> {
        let (method, endpoint) = any_endpoint(chance);
        let folder = &place.folder;
        match self {
            Self::Right => {
                let body = body_of(endpoint, chance, folder).map(|body| body.to_string().into_bytes());
                exchange(place, &request(method, endpoint, body.as_deref()), &[])
            }
            Self::Bent => {
                let mut body = body_of(endpoint, chance, folder).unwrap_or(json!({}));
                for _ in 0..=chance.below(3) {
                    bend(&mut body, chance, folder);
                }
                let mut body = body.to_string().into_bytes();
                if chance.one_in(4) && !body.is_empty() {
                    let at = chance.below(body.len() as u64) as usize;
                    body[at] = chance.next() as u8;
                }
                let method = chance.pick(&[method, method, method, "GET", "POST", "PUT"]);
                exchange(place, &request(method, endpoint, Some(&body)), &[])
            }
            Self::Boot => boot(place, chance),
            Self::Fds => {
                let mut body = body_of("vm.add-net", chance, folder).unwrap_or_default();
                if chance.one_in(2) {
                    body = json!({"mac": "02:00:00:00:00:01", "fds": [1, 2, 3]});
                }
                if chance.one_in(3) {
                    bend(&mut body, chance, folder);
                }
                let fds: Vec<OwnedFd> =
                    (0..chance.below(4)).map(|_| any_descriptor(chance, folder)).collect();
                let endpoint = if chance.one_in(4) { endpoint } else { "vm.add-net" };
                exchange(place, &request("PUT", endpoint, Some(body.to_string().as_bytes())), &fds)
            }
            Self::Pipeline => {
                let mut bytes = Vec::new();
                for _ in 0..=chance.below(4) {
                    let (method, endpoint) = any_endpoint(chance);
                    let body = body_of(endpoint, chance, folder).map(|body| body.to_string().into_bytes());
                    bytes.extend(request(method, endpoint, body.as_deref()));
                }
                let fds: Vec<OwnedFd> =
                    (0..chance.below(4) / 3).map(|_| any_descriptor(chance, folder)).collect();
                exchange(place, &bytes, &fds)
            }
            Self::Half => {
                let body = body_of(endpoint, chance, folder).map(|body| body.to_string().into_bytes());
                let bytes = request(method, endpoint, body.as_deref());
                let end = chance.below(bytes.len() as u64) as usize;
                let mut stream = UnixStream::connect(place.socket()).expect("somebody listens");
                // Whoever goes does not care.
                let _ = stream.write_all(&bytes[..end]);
                Vec::new()
            }
            Self::Noise => {
                let mut bytes = request(method, endpoint, Some(b"{}"));
                for _ in 0..=chance.below(6) {
                    let at = chance.below(bytes.len() as u64) as usize;
                    match chance.below(3) {
                        0 => bytes[at] = chance.next() as u8,
                        1 => bytes.truncate(at.max(1)),
                        _ => {
                            let piece = bytes[at..].to_vec();
                            bytes.extend(piece);
                        }
                    }
                }
                exchange(place, &bytes, &[])
            }
        }
    }
}

/// Begins a life of whatever was created, if it is a small one.
fn boot(place: &Place, chance: &mut Chance) -> Vec<Answer> {
    let info = place.get("vm.info").json().unwrap_or_default();
    if info["state"].is_null() {
        let config = body_of("vm.create", chance, &place.folder).unwrap_or_default();
        place.put("vm.create", Some(&config));
    }
    let info = place.get("vm.info").json().unwrap_or_default();
    if info["config"]["memory"]["size"].as_u64().is_none_or(|bytes| bytes > BOOTED_MAX) {
        return Vec::new();
    }
    exchange(place, &request("PUT", "vm.boot", None), &[])
}

/// A descriptor of some kind.
fn any_descriptor(chance: &mut Chance, folder: &Path) -> OwnedFd {
    match chance.below(6) {
        0 | 1 => UnixDatagram::pair().expect("sockets").0.into(),
        2 => UnixStream::pair().expect("sockets").0.into(),
        3 => fs::File::open(folder.join("disk")).expect("a file").into(),
        4 => fs::File::open("/dev/null").expect("a device").into(),
        _ => {
            let path = folder.join("listener");
            let _ = fs::remove_file(&path);
            UnixListener::bind(path).expect("a socket").into()
        }
    }
}

/// Sends the bytes, with descriptors beside the first, and reads all answers until the server has no more.
fn exchange(place: &Place, bytes: &[u8], fds: &[OwnedFd]) -> Vec<Answer> {
    let mut stream = UnixStream::connect(place.socket()).expect("somebody listens");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&borrowed)));
    }
    // The server may have refused and gone before it has read everything.
    let sent = sendmsg(&stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).unwrap_or(0);
    let _ = stream.write_all(&bytes[sent..]);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answers(&answer, &String::from_utf8_lossy(bytes))
}

/// The answers one after the other.
fn answers(mut bytes: &[u8], asked: &str) -> Vec<Answer> {
    let mut all = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end + 4]).into_owned();
        let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.split_once("\r\n"));
        let length: usize = length.map_or(0, |(length, _)| length.parse().expect("a number"));
        let body = bytes[end + 4..][..length].to_vec();
        bytes = &bytes[end + 4 + length..];
        all.push(Answer { head, body, asked: asked.to_owned() });
    }
    assert!(bytes.is_empty(), "half an answer: {}", String::from_utf8_lossy(bytes));
    all
}
