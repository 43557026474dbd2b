//! `tdvisor vmm` as a process: what clients of Cloud Hypervisor expect of one.

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tdvisor_service::http::Client;
use tdvisor_test_data::linux;

use crate::cli::{Folder, tdvisor};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(300);

/// What a client waits for the end of a process whose VM is ended.
const PATIENCE_OF_CLIENTS: Duration = Duration::from_secs(3);

/// A VMM and its socket.
struct Vmm {
    child: Child,
    socket: PathBuf,
}

impl Vmm {
    fn start(folder: &Folder, options: &[&str]) -> Self {
        let socket = PathBuf::from(folder.path("api"));
        let child = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
            .args(["vmm", "--api-socket"])
            .arg(&socket)
            .args(options)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tdvisor starts");
        Self { child, socket }
    }

    /// Polls as clients do until somebody listens.
    fn client(&mut self) -> Client {
        loop {
            match Client::connect(&self.socket) {
                Ok(client) => return client,
                Err(_) => {
                    let ended = self.child.try_wait().expect("a child");
                    assert_eq!(ended, None, "it ended before it listened");
                    std::thread::yield_now();
                }
            }
        }
    }

    fn put(&mut self, endpoint: &str, body: Option<&Value>) -> u16 {
        let body = body.map(|body| body.to_string().into_bytes());
        let path = format!("/api/v1/{endpoint}");
        self.client().ask(&Method::PUT, &path, body.as_deref(), LONG).expect("an answer").status.as_u16()
    }

    /// The program's status, and what it said on standard output and standard error.
    fn end(mut self) -> (ExitStatus, String, String) {
        let status = self.child.wait().expect("it ends");
        let (mut out, mut err) = (String::new(), String::new());
        self.child.stdout.take().expect("a pipe").read_to_string(&mut out).expect("text");
        self.child.stderr.take().expect("a pipe").read_to_string(&mut err).expect("text");
        assert!(!self.socket.exists(), "the socket goes with the process");
        (status, out, err)
    }
}

fn guest(payload: Value) -> Value {
    json!({"memory": {"size": 64 << 20}, "payload": payload, "platform": {"tdx": true}})
}

#[test]
fn the_process_of_a_guest_that_succeeds_shows_its_console_and_succeeds() {
    let folder = Folder::new("vmm-hello");
    let mut vmm = Vmm::start(&folder, &["-v", "--seccomp", "false"]);
    let mut config = guest(json!({"firmware": "hello-td"}));
    config["serial"] = json!({"mode": "Tty"});
    config["console"] = json!({"mode": "Off"});
    assert_eq!(vmm.put("vm.create", Some(&config)), 204);
    assert_eq!(vmm.put("vm.boot", None), 204);
    let (status, out, err) = vmm.end();
    assert_eq!(status.code(), Some(0), "{err}");
    assert!(out.contains("MRTD") && err.contains("the guest powered off: success"), "{out}{err}");
    for words in ["/api/v1/vm.boot", "event=\"booted\"", "event=\"powered-off\"", "td{tdr=0x"] {
        assert!(err.contains(words), "{words} is not written down:\n{err}");
    }
}

#[test]
fn the_process_of_a_guest_that_fails_has_the_status_of_run() {
    for (command, expected) in [("fail", 1), ("triple-fault", 3)] {
        let folder = Folder::new("vmm-fault");
        let mut vmm = Vmm::start(&folder, &[]);
        let config = guest(json!({"firmware": "fault-td", "cmdline": command}));
        assert_eq!(vmm.put("vm.create", Some(&config)), 204);
        assert_eq!(vmm.put("vm.boot", None), 204);
        let (status, _, err) = vmm.end();
        assert_eq!(status.code(), Some(expected), "{command}: {err}");
    }
}

#[test]
fn a_vmm_that_is_shut_down_ends_before_its_client_loses_patience() {
    let folder = Folder::new("vmm-shutdown");
    let mut vmm = Vmm::start(&folder, &[]);
    let mut config = guest(json!({"firmware": "fault-td", "cmdline": "halt"}));
    config["cpus"] = json!({"boot_vcpus": 2, "max_vcpus": 2});
    assert_eq!(vmm.put("vm.create", Some(&config)), 204);
    assert_eq!(vmm.put("vm.boot", None), 204);
    let tasks = format!("/proc/{}/task", vmm.child.id());
    let names: Vec<String> = std::fs::read_dir(tasks)
        .expect("it lives")
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .map(|name| name.trim().to_owned())
        .collect();
    for name in ["vcpu0", "vcpu1"] {
        assert!(names.iter().any(|other| other == name), "{names:?}");
    }
    assert_eq!(vmm.put("vmm.shutdown", None), 204);
    let deadline = Instant::now() + PATIENCE_OF_CLIENTS;
    while vmm.child.try_wait().expect("a child").is_none() {
        assert!(Instant::now() < deadline, "a client would kill it now");
        std::thread::yield_now();
    }
    let (status, ..) = vmm.end();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_signal_ends_it_in_order() {
    let folder = Folder::new("vmm-signal");
    let mut vmm = Vmm::start(&folder, &["--no-shutdown", "--always-td"]);
    let mut config = guest(json!({"firmware": "fault-td", "cmdline": "halt"}));
    config["platform"] = Value::Null;
    config.as_object_mut().expect("an object").remove("platform");
    assert_eq!(vmm.put("vm.create", Some(&config)), 204);
    assert_eq!(vmm.put("vm.boot", None), 204);
    kill(Pid::from_raw(vmm.child.id() as i32), Signal::SIGTERM).expect("it lives");
    let (status, ..) = vmm.end();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_socket_that_is_inherited_is_served() {
    let folder = Folder::new("vmm-inherited");
    let path = folder.path("theirs");
    let listener = UnixListener::bind(&path).expect("a socket");
    // As libvirt does: the listener is the child's descriptor 0.
    let mut child = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(["vmm", "--api-socket", "fd=0"])
        .stdin(Stdio::from(listener.as_fd().try_clone_to_owned().expect("a copy")))
        .stdout(Stdio::null())
        .spawn()
        .expect("tdvisor starts");
    let mut client = Client::connect(Path::new(&path)).expect("somebody listens");
    let reply = client.ask(&Method::GET, "/api/v1/vmm.ping", None, LONG).expect("an answer");
    assert_eq!(reply.json().expect("JSON")["pid"], child.id());
    let reply = client.ask(&Method::PUT, "/api/v1/vmm.shutdown", None, LONG).expect("an answer");
    assert_eq!(reply.status, 204);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_program_called_cloud_hypervisor_says_a_release_that_libvirt_takes() {
    let answer = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .arg0("/usr/bin/cloud-hypervisor")
        .arg("--version")
        .output()
        .expect("tdvisor starts");
    let said = String::from_utf8(answer.stdout).expect("text");
    let release = said.trim().strip_prefix("cloud-hypervisor v").expect("the name that libvirt looks for");
    let numbers: Vec<u32> = release.split('.').map(|part| part.parse().expect("a number")).collect();
    assert!(numbers.len() == 3 && numbers[0] >= 15, "{said}");
}

#[test]
fn what_cannot_be_served_at_is_bad_input() {
    let folder = Folder::new("vmm-bad");
    let file = folder.write("file", "kept");
    for socket in [file.as_str(), "/no/such/folder/socket", "fd=987654", "fd=2"] {
        let said = tdvisor(&["vmm", "--api-socket", socket]).ends_with(2).one_line_of_error();
        let name = socket.strip_prefix("fd=").unwrap_or(socket);
        assert!(said.contains(name), "{said}");
    }
    tdvisor(&["vmm"]).ends_with(2);
    let document = tdvisor(&["vmm", "--openapi"]).ends_with(0).json();
    assert!(document["paths"]["/vm.create"]["put"].is_object());
    assert!(UnixStream::connect(&file).is_err());
}

#[test]
#[ignore = "needs the Linux test guest"]
fn a_linux_kernel_with_devices_of_every_kind_boots_and_powers_off() {
    let folder = Folder::new("vmm-linux");
    let disk = folder.write("disk", vec![0; 4 << 20]);
    std::fs::create_dir_all(folder.path("shared/many")).expect("a folder");
    folder.write("shared/a", "read by the guest");
    let mut vmm = Vmm::start(&folder, &["--virtio", "mmio"]);
    let file = |name| linux::file(name).display().to_string();
    let config = json!({
        "cpus": {"boot_vcpus": 2, "max_vcpus": 2},
        "memory": {"size": 512 << 20},
        "payload": {
            "kernel": file("bzImage"),
            "initramfs": file("initrd"),
            "cmdline": "console=ttyS0 panic=-1 tdvisor.steps=tdx,cpus,disk,rng,share",
        },
        "disks": [{"path": disk, "serial": "of-the-test"}],
        "fs": [{"tag": "share", "dir": folder.path("shared")}],
        "net": [{"user": true}],
        "vsock": {"socket": folder.path("vsock")},
        "serial": {"mode": "Tty"},
        "console": {"mode": "File", "file": folder.path("console")},
        "platform": {"tdx": true},
    });
    assert_eq!(vmm.put("vm.create", Some(&config)), 204);
    assert_eq!(vmm.put("vm.boot", None), 204);
    let (status, out, err) = vmm.end();
    assert_eq!(status.code(), Some(0), "{out}{err}");
    for step in ["tdx", "cpus", "disk", "rng", "share"] {
        assert!(out.contains(&format!("tdvisor-init: {step} ok")), "{step} is not in:\n{out}{err}");
    }
    assert!(!PathBuf::from(folder.path("vsock")).exists(), "the guest's socket goes with it");
}
