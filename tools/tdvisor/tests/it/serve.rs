//! `tdvisor serve` as a process: TDs of the real program, in workers that it starts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use http::Method;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tdvisor_service::http::Client;

use crate::cli::{Folder, tdvisor};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(300);

struct Service {
    child: Child,
    socket: PathBuf,
}

impl Service {
    fn start(folder: &Folder) -> Self {
        Self::start_with(folder, &[], Stdio::inherit())
    }

    /// With more options, and standard error somewhere.
    fn start_with(folder: &Folder, options: &[&str], stderr: Stdio) -> Self {
        let socket = PathBuf::from(folder.path("socket"));
        let child = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
            .args(["serve", "--state-dir", &folder.path("state"), "--engine", "interpreter", "--socket"])
            .arg(&socket)
            .args(options)
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("tdvisor starts");
        let mut service = Self { child, socket };
        while UnixStream::connect(&service.socket).is_err() {
            assert_eq!(service.child.try_wait().expect("a child"), None, "it ended before it listened");
            std::thread::yield_now();
        }
        service
    }

    fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|body| body.to_string().into_bytes());
        let mut client = Client::connect(&self.socket).expect("somebody listens");
        let reply = client.ask(&method, path, body.as_deref(), LONG).expect("an answer");
        (reply.status.as_u16(), reply.json().unwrap_or_default())
    }

    /// Creates and boots a built-in guest.
    fn run(&self, name: &str, guest: &str, command: &str) {
        let payload = json!({"firmware": guest, "cmdline": command});
        let request = json!({"name": name, "memory": 64 << 20, "payload": payload});
        let (status, said) = self.ask(Method::POST, "/td/v1/tds", Some(request));
        assert_eq!(status, 201, "{said}");
        let (status, said) = self.ask(Method::PUT, &format!("/td/v1/tds/{name}/boot"), None);
        assert_eq!(status, 204, "{said}");
    }

    /// Waits until a TD does not run any more.
    fn await_end(&self, name: &str) -> Value {
        let mut stream = UnixStream::connect(&self.socket).expect("somebody listens");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        let request = format!("GET /td/v1/tds/{name}/events HTTP/1.1\r\nHost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("written");
        stream.read_to_string(&mut String::new()).expect("events, and their end");
        self.ask(Method::GET, &format!("/td/v1/tds/{name}"), None).1
    }

    fn end(mut self, signal: Signal) -> Option<i32> {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("it lives");
        self.child.wait().expect("it ends").code()
    }
}

/// Whether a process is there that is no corpse.
fn lives(pid: &Value) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:") && !line.contains('Z'))
}

#[test]
fn tds_of_the_program_run_confined_and_end_with_it_and_are_named_when_it_was_killed() {
    let folder = Folder::new("serve");
    let service = Service::start(&folder);
    service.run("quotes", "hello-td", "quote");
    let td = service.await_end("quotes");
    assert_eq!((&td["phase"], &td["report"]["ending"]["code"]), (&json!("ended"), &json!(0)), "{td}");
    service.run("waits", "fault-td", "halt");
    let waits = service.ask(Method::GET, "/td/v1/tds/waits", None).1;
    assert_eq!(waits["confinement"]["seccomp"], true, "{waits}");
    assert_eq!(service.end(Signal::SIGKILL), None);
    // The worker finds its socket closed, and ends.
    while lives(&waits["pid"]) {
        std::thread::yield_now();
    }
    let service = Service::start(&folder);
    let (_, waits) = service.ask(Method::GET, "/td/v1/tds/waits", None);
    assert_eq!(waits["reason"], "the service ended while it ran", "{waits}");
    let (_, quotes) = service.ask(Method::GET, "/td/v1/tds/quotes", None);
    assert_eq!(quotes["report"], td["report"]);
    let (status, _) = service.ask(Method::PUT, "/td/v1/tds/waits/boot", None);
    assert_eq!(status, 204);
    assert_eq!(service.end(Signal::SIGTERM), Some(0));
    let service = Service::start(&folder);
    let (_, waits) = service.ask(Method::GET, "/td/v1/tds/waits", None);
    assert_eq!(waits["report"]["ending"]["event"], "stopped", "it was ended in order: {waits}");
    assert_eq!(service.end(Signal::SIGTERM), Some(0));
}

#[test]
fn what_the_service_does_is_written_down_as_json_lines_and_nothing_of_what_guests_say() {
    let folder = Folder::new("serve-log");
    let lines = folder.path("log");
    let stderr = std::fs::File::create(&lines).expect("a file");
    let service = Service::start_with(&folder, &["--log", "info", "--log-format", "json"], stderr.into());
    service.run("one", "hello-td", "");
    service.await_end("one");
    assert_eq!(service.ask(Method::PUT, "/td/v1/tds/nobody/boot", None).0, 404);
    assert_eq!(service.end(Signal::SIGTERM), Some(0));
    let text = std::fs::read_to_string(&lines).expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let boot = |td: &str| {
        let path = format!("/td/v1/tds/{td}/boot");
        let line = lines.iter().find(|line| line["message"] == "answered" && line["span"]["path"] == *path);
        line.unwrap_or_else(|| panic!("no boot of {td}: {text}")).clone()
    };
    let (good, bad) = (boot("one"), boot("nobody"));
    assert_eq!((&good["status"], &good["span"]["td"]), (&json!(204), &json!("one")));
    assert_eq!((&bad["status"], &bad["level"]), (&json!(404), &json!("INFO")));
    assert!(bad["error"].as_str().expect("a reason").contains("nobody"), "{bad}");
    assert_ne!(good["span"]["id"], bad["span"]["id"]);
    let events = lines.iter().filter(|line| line["span"]["name"] == "td" && line["span"]["td"] == "one");
    let events: Vec<_> = events.filter_map(|line| line["event"].as_str()).collect();
    assert!(events.starts_with(&["confined", "booted"]) && events.ends_with(&["powered-off"]), "{text}");
    for secret in ["MRTD", "firmware", "payload"] {
        assert!(!text.contains(secret), "{secret} is in {text}");
    }
}

#[test]
fn what_an_inspectable_td_holds_is_fetched_by_the_program_while_it_runs_and_when_it_has_ended() {
    let folder = Folder::new("serve-dump");
    let service = Service::start(&folder);
    let socket = service.socket.display().to_string();
    let create = |name: &str, payload: Value, keys: &[&str]| {
        let mut request = json!({"name": name, "memory": 64 << 20, "payload": payload});
        keys.iter().for_each(|key| request[*key] = json!(true));
        assert_eq!(service.ask(Method::POST, "/td/v1/tds", Some(request)).0, 201);
        assert_eq!(service.ask(Method::PUT, &format!("/td/v1/tds/{name}/boot"), None).0, 204);
    };
    create("waits", json!({"firmware": "fault-td", "cmdline": "halt"}), &["inspectable", "dump"]);
    create("kept", json!({"firmware": "fault-td", "cmdline": "halt"}), &[]);
    create("ends", json!({"firmware": "hello-td"}), &["inspectable", "dump"]);
    service.await_end("ends");
    for (name, phase) in [("waits", "running"), ("ends", "ended")] {
        let file = folder.path(name);
        tdvisor(&["dump", "--socket", &socket, name, &file]).ends_with(0);
        let core = std::fs::read(&file).expect("a file");
        let elf = object::File::parse(&*core).expect("an ELF file");
        assert_eq!(object::Object::kind(&elf), object::ObjectKind::Core, "{name}");
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(service.ask(Method::GET, &format!("/td/v1/tds/{name}"), None).1["phase"], phase);
    }
    let file = folder.write("there", "before");
    for (name, words) in [("kept", "not asked for"), ("nobody", "no TD"), ("../x", "name")] {
        let said = tdvisor(&["dump", "--socket", &socket, name, &file]).ends_with(2).one_line_of_error();
        assert!(said.contains(words) && said.contains(name), "{said}");
    }
    assert_eq!(std::fs::read(&file).expect("a file"), b"before", "what was there stays");
    assert_eq!(service.ask(Method::GET, "/td/v1/tds/kept", None).1["phase"], "running", "and runs on");
    assert_eq!(service.end(Signal::SIGTERM), Some(0));
    tdvisor(&["dump", "--socket", &socket, "waits", &file]).ends_with(2);
}

fn set_mode(path: &str, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a file of ours");
}

#[test]
fn a_port_is_named_and_answers_nobody_who_does_not_speak_tls() {
    let folder = Folder::new("serve-port");
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../attest-serve/tests/fixtures");
    let (key, token) = (folder.path("key"), folder.write("token", "0123456789abcdef\n"));
    std::fs::copy(format!("{fixtures}/tls-key.pem"), &key).expect("a file");
    set_mode(&key, 0o600);
    set_mode(&token, 0o600);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(["serve", "--state-dir", &folder.path("state"), "--socket", &folder.path("socket")])
        .args(["--listen", "127.0.0.1:0", "--tls-cert", &format!("{fixtures}/tls-cert.pem")])
        .args(["--tls-key", &key, "--token-file", &token])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tdvisor starts");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut said).expect("a line");
    let address = said.trim().strip_prefix("serve: https://").expect("an address");
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(LONG)).expect("a socket");
    let request = "GET /td/v1/tds HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("written");
    let mut answer = Vec::new();
    // A reset is an end too.
    let _ = stream.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP"));
    let socket = PathBuf::from(folder.path("socket"));
    assert_eq!(Service { child, socket }.end(Signal::SIGTERM), Some(0));
}

#[test]
fn what_cannot_be_served_is_bad_input_and_the_description_is_printed() {
    let folder = Folder::new("serve-bad");
    let (file, socket) = (folder.write("file", "kept"), folder.path("socket"));
    tdvisor(&["serve"]).ends_with(2);
    tdvisor(&["serve", "--socket", &file, "--state-dir", &folder.path("state")]).ends_with(2);
    let said =
        tdvisor(&["serve", "--socket", &socket, "--state-dir", &file]).ends_with(2).one_line_of_error();
    assert!(said.contains(&file), "{said}");
    tdvisor(&["serve-worker"]).ends_with(2);
    // A port is had with TLS and a token, or not at all.
    let fixture =
        |name: &str| format!("{}/../attest-serve/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let (cert, key) = (fixture("tls-cert.pem"), fixture("tls-key.pem"));
    let state = folder.path("state");
    let serve = ["serve", "--socket", &socket, "--state-dir", &state, "--listen", "127.0.0.1:0"];
    let with_tls = ["--tls-cert", &cert, "--tls-key", &key];
    let token = folder.write("token", "0123456789abcdef");
    tdvisor(&serve).ends_with(2);
    tdvisor(&[&serve[..], &with_tls].concat()).ends_with(2);
    tdvisor(&[&serve[..], &["--token-file", &token]].concat()).ends_with(2);
    set_mode(&token, 0o644);
    let all = [&serve[..], &with_tls, &["--token-file", &token]].concat();
    let said = tdvisor(&all).ends_with(2).one_line_of_error();
    assert!(said.contains(&token) && said.contains("0600"), "{said}");
    set_mode(&token, 0o600);
    // The key of the repository is everybody's.
    let said = tdvisor(&all).ends_with(2).one_line_of_error();
    assert!(said.contains(&key) && said.contains("0600"), "{said}");
    let document = tdvisor(&["serve", "--openapi"]).ends_with(0).json();
    assert!(document["paths"]["/td/v1/tds"]["post"].is_object());
}
