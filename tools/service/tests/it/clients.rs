//! What clients of Cloud Hypervisor send, byte by byte, and what they look for in the answers.

use std::io::{IoSlice, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tdvisor_service::config::TdPolicy;
use tdvisor_service::vm::{ExitReason, WhenOff};

use crate::place::Place;

/// A client as Cloud Hypervisor's own library is one: it takes all of the status line's rest for a number, looks for the literal
/// bytes `Content-Length: `, takes an answer without them for one without a body, and knows no status but 200 and 204 that is good.
struct Literal(UnixStream);

impl Literal {
    fn connect(place: &Place) -> Self {
        Self(UnixStream::connect(place.socket()).expect("somebody listens"))
    }

    fn head_of(method: &str, endpoint: &str) -> String {
        format!("{method} /api/v1/{endpoint} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n")
    }

    /// The head, then the length, then the body, in writes of their own; descriptors with the first.
    fn ask(&mut self, method: &str, endpoint: &str, fds: &[BorrowedFd<'_>], body: Option<&Value>) -> String {
        let head = Self::head_of(method, endpoint);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(fds)));
        let sent = sendmsg(&self.0, &[IoSlice::new(head.as_bytes())], &mut control, SendFlags::empty());
        assert_eq!(sent, Ok(head.len()));
        if let Some(body) = body {
            let body = body.to_string();
            self.0.write_all(format!("Content-Length: {}\r\n", body.len()).as_bytes()).expect("it reads");
            self.0.write_all(b"\r\n").expect("it reads");
            self.0.write_all(body.as_bytes()).expect("it reads");
        } else {
            self.0.write_all(b"\r\n").expect("it reads");
        }
        self.answer()
    }

    fn answer(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("an answer");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).expect("text");
        // What stands between the version and the end of the line has to be a number.
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.split_once('\r'));
        let status: u16 = status.expect("a status line").0.trim().parse().expect("a status, and no reason");
        assert!(matches!(status, 200 | 204), "{head}");
        let length = head.split_once("Content-Length: ").and_then(|(_, rest)| rest.split_once("\r\n"));
        let length: usize = length.map_or(0, |(length, _)| length.parse().expect("a number"));
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).expect("a body");
        String::from_utf8(body).expect("text")
    }
}

/// What Kata Containers' Rust runtime asks for a TD with, but for kernel, firmware and disk.
fn kata_rust() -> Value {
    json!({
        "cpus": {"boot_vcpus": 1, "max_vcpus": 1, "max_phys_bits": 46, "kvm_hyperv": false,
            "topology": {"threads_per_core": 1, "cores_per_die": 1, "dies_per_package": 1, "packages": 1},
            "features": {"amx": false}, "affinity": null},
        "memory": {"size": 64 << 20, "mergeable": false, "hotplug_method": "Acpi", "hotplug_size": null,
            "hotplugged_size": null, "shared": true, "hugepages": false, "hugepage_size": null, "prefault": false,
            "zones": null, "thp": true},
        "payload": {"firmware": "fault-td", "kernel": null, "cmdline": "halt", "initramfs": null,
            "mrconfigid": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        "disks": null, "net": null, "fs": null, "pmem": null, "devices": null, "user_devices": null,
        "vdpa": null, "numa": null, "sgx_epc": null, "tpm": null, "balloon": null,
        "rng": {"src": "/dev/urandom", "iommu": false},
        "serial": {"mode": "Off", "file": null, "iommu": false},
        "console": {"mode": "Off", "file": null, "iommu": false},
        "iommu": false, "watchdog": false, "gdb": false,
        "platform": {"tdx": true, "num_pci_segments": 1, "iommu_segments": null, "serial_number": null,
            "uuid": null, "oem_strings": null},
    })
}

#[test]
fn katas_rust_runtime_keeps_one_stream_and_sends_descriptors_with_the_first_bytes_of_a_head() {
    let mut place = Place::new("kata-rust");
    let mut stream = Literal::connect(&place);
    let ping: Value = serde_json::from_str(&stream.ask("GET", "vmm.ping", &[], None)).unwrap();
    assert!(ping["features"].as_array().unwrap().contains(&json!("tdx")), "without it TDX is refused");
    let mut config = kata_rust();
    config["vsock"] = json!({"cid": 3, "socket": place.folder.join("v.sock"), "iommu": false, "id": null});
    assert_eq!(stream.ask("PUT", "vm.create", &[], Some(&config)), "");
    let (near, _far) = UnixDatagram::pair().unwrap();
    let net = json!({"id": "eth0", "mac": "02:00:00:00:00:01", "ip": "192.168.249.1", "mask": "255.255.255.0",
        "num_queues": 2, "queue_size": 256, "fds": [42], "tap": null, "iommu": false, "vhost_user": false});
    assert_eq!(stream.ask("PUT", "vm.add-net", &[near.as_fd()], Some(&net)), "");
    assert_eq!(stream.ask("PUT", "vm.boot", &[], None), "");
    let info: Value = serde_json::from_str(&stream.ask("GET", "vm.info", &[], None)).unwrap();
    assert_eq!((&info["state"], &info["config"]["net"][0]["id"]), (&json!("Running"), &json!("eth0")));
    for key in ["serial", "console", "rng", "platform", "cpus", "memory", "payload"] {
        assert!(info["config"][key].is_object(), "{key} is looked for");
    }
    assert_eq!(stream.ask("PUT", "vmm.shutdown", &[], None), "");
    assert!(matches!(place.finish(), ExitReason::Asked));
}

#[test]
fn katas_go_runtime_takes_a_fresh_connection_for_all_of_a_request_and_its_descriptors() {
    let mut place = Place::new("kata-go");
    for _ in 0..3 {
        assert_eq!(place.get("vmm.ping").status, 200);
    }
    let mut config = kata_rust();
    config["platform"]["num_pci_segments"] = json!(2);
    assert_eq!(place.put("vm.create", Some(&config)), 204);
    assert_eq!(place.state(), "Created");
    let (near, _far) = UnixDatagram::pair().unwrap();
    let net = json!({"mac": "02:00:00:00:00:01", "num_queues": 2}).to_string();
    let mut fresh = Literal::connect(&place);
    let head = Literal::head_of("PUT", "vm.add-net");
    let all = format!("{head}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{net}", net.len());
    let fds = [near.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = sendmsg(&fresh.0, &[IoSlice::new(all.as_bytes())], &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(all.len()));
    assert_eq!(fresh.answer(), "");
    assert_eq!(place.put("vm.boot", None), 204);
    assert_eq!(place.state(), "Running");
    assert_eq!(place.put("vmm.shutdown", None), 204);
    assert!(matches!(place.finish(), ExitReason::Asked));
}

#[test]
fn libvirt_asks_for_no_td_and_gets_one_where_all_are() {
    let config = json!({
        "cpus": {"boot_vcpus": 1, "max_vcpus": 1},
        "memory": {"size": 64 << 20},
        "payload": {"firmware": "fault-td", "cmdline": "halt"},
        "console": {"mode": "Null"},
        "serial": {"mode": "Null"},
    });
    let strict = Place::new("libvirt-strict");
    assert_eq!(strict.put("vm.create", Some(&config)), 400);
    let mut place = Place::with("libvirt", WhenOff::Exit, TdPolicy::Always);
    let mut stream = Literal::connect(&place);
    let ping: Value = serde_json::from_str(&stream.ask("GET", "vmm.ping", &[], None)).unwrap();
    assert!(ping["version"].is_string());
    assert_eq!(stream.ask("PUT", "vm.create", &[], Some(&config)), "");
    assert_eq!(stream.ask("PUT", "vm.boot", &[], None), "");
    let info: Value = serde_json::from_str(&stream.ask("GET", "vm.info", &[], None)).unwrap();
    assert_eq!((&info["state"], &info["config"]["platform"]["tdx"]), (&json!("Running"), &json!(true)));
    assert_eq!(stream.ask("PUT", "vm.reboot", &[], None), "");
    assert_eq!(stream.ask("PUT", "vm.shutdown", &[], None), "");
    assert_eq!(stream.ask("PUT", "vm.delete", &[], None), "");
    assert_eq!(stream.ask("PUT", "vmm.shutdown", &[], None), "");
    assert!(matches!(place.finish(), ExitReason::Asked));
}
