//! No wait of a run is without an end: whatever is not read, not answered or not taken, `--timeout`, SIGINT and SIGTERM end
//! the TD, in order, and the program with it.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::cli::Folder;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A run that is not over after this hangs. (The bound of a test, not a promise.)
const HANGS: Duration = Duration::from_secs(120);

struct Run {
    process: Child,
    /// Both ends of a full pipe, for as long as it has to stay full.
    _full: Vec<OwnedFd>,
}

/// A pipe in which there is no room; both ends.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let (read, write) = nix::unistd::pipe().expect("a pipe");
    fcntl(&write, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe has flags");
    while nix::unistd::write(&write, &[b'x'; 512]).is_ok() {}
    fcntl(&write, FcntlArg::F_SETFL(OFlag::empty())).expect("a pipe has flags");
    (read, write)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Full {
    Stdout,
    Stderr,
    Both,
}

impl Run {
    fn start(full: Option<Full>, arguments: &[&str]) -> Self {
        let (read, write) = full_pipe();
        let end = || Stdio::from(write.as_fd().try_clone_to_owned().expect("a second end"));
        let process = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(if matches!(full, Some(Full::Stdout | Full::Both)) { end() } else { Stdio::piped() })
            .stderr(if matches!(full, Some(Full::Stderr | Full::Both)) { end() } else { Stdio::piped() })
            .spawn()
            .expect("tdvisor starts");
        Self { process, _full: vec![read, write] }
    }

    fn send(&self, signal: Signal) {
        kill(self.pid(), signal).expect("it runs");
    }

    /// Waits for the end; fails, and kills it, if there is none.
    #[track_caller]
    fn ends(&mut self) -> ExitStatus {
        let process = self.pid();
        let (ended, watched) = std::sync::mpsc::channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let hangs = watched.recv_timeout(HANGS).is_err();
            if hangs {
                let _ = kill(process, Signal::SIGKILL);
            }
            hangs
        });
        let status = self.process.wait().expect("it can be waited for");
        let _ = ended.send(());
        assert!(!watchdog.join().expect("it does not panic"), "the run hung");
        status
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    fn stderr(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut stderr) = self.process.stderr.take() {
            stderr.read_to_string(&mut text).expect("text");
        }
        text
    }

    /// Waits until the guest has printed this much.
    fn has_printed(&mut self, text: &str) {
        let stdout = self.process.stdout.as_mut().expect("a pipe");
        let (mut seen, mut byte) = (Vec::new(), [0]);
        while !seen.ends_with(text.as_bytes()) {
            stdout.read_exact(&mut byte).expect("the guest prints");
            seen.push(byte[0]);
        }
    }
}

#[test]
fn a_timeout_ends_a_run_whose_output_nobody_reads() {
    for full in [Full::Stdout, Full::Stderr, Full::Both] {
        for arguments in [
            &["run", "--timeout", "2"][..],
            &["run", "fault-td", "--command", "print", "--timeout", "2"],
            &["run", "fault-td", "--command", "print", "--timeout", "2", "--json", "--vcpus", "2"],
        ] {
            let mut run = Run::start(Some(full), arguments);
            let status = run.ends();
            assert!(matches!(status.code(), Some(6 | 124)), "{arguments:?}: {status}");
            if full == Full::Stdout && !arguments.contains(&"--json") {
                let summary = run.stderr();
                assert!(summary.contains("every page and the key id came back"), "{arguments:?}: {summary}");
                assert!(summary.contains("standard output"), "what was lost is said: {summary}");
            }
        }
    }
}

#[test]
fn a_signal_ends_a_run_whose_output_nobody_reads() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let trace = Folder::new(&format!("waits-{signal}")).path("trace");
        let mut run =
            Run::start(Some(Full::Stdout), &["run", "fault-td", "--command", "print", "--trace", &trace]);
        // The guest runs once its first calls are in the trace.
        while std::fs::metadata(&trace).map_or(0, |data| data.len()) == 0 {
            std::thread::yield_now();
        }
        run.send(signal);
        assert_eq!(run.ends().code(), Some(3), "{signal}");
        assert!(run.stderr().contains("the TD was stopped"), "{signal}");
    }
}

#[test]
fn a_signal_ends_a_guest_that_never_would() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut run = Run::start(None, &["run", "fault-td", "--command", "spin"]);
        run.has_printed("fault-td: spinning");
        run.send(signal);
        assert_eq!(run.ends().code(), Some(3), "{signal}");
        assert!(run.stderr().contains("every page and the key id came back"));
    }
}

#[test]
fn a_trace_that_nobody_reads_holds_nobody() {
    let (read, write) = full_pipe();
    // A named pipe with a reader that does not read: this process.
    let pipe = Folder::new("waits-trace").path("pipe");
    nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).expect("a reader");
    let mut run = Run::start(
        None,
        &["run", "fault-td", "--command", "flood:calls:1000000", "--trace", &pipe, "--timeout", "3"],
    );
    assert_eq!(run.ends().code(), Some(124));
    let said = run.stderr();
    assert!(said.contains("the trace is incomplete"), "{said}");
    assert!(said.contains("SEAMCALLs"), "the summary is shown all the same: {said}");
    drop((reader, read, write));
}

/// What a quote-generation service does that is none.
#[derive(Clone, Copy, Debug)]
enum Service {
    /// Takes the connection and says nothing.
    Silent,
    /// Sends a byte now and then.
    Drips,
    /// Does not take the connection.
    Backlog,
}

fn service(kind: Service, socket: &str) -> Vec<OwnedFd> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket as new,
    };
    let stream = |flags| new(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
    let address = UnixAddr::new(socket).expect("a path");
    match kind {
        Service::Backlog => {
            let listener = stream(SockFlag::empty());
            bind(std::os::fd::AsRawFd::as_raw_fd(&listener), &address).expect("a free path");
            listen(&listener, Backlog::new(1).expect("a backlog")).expect("it listens");
            let mut waiting: Vec<OwnedFd> = Vec::new();
            // Until nobody else can wait.
            loop {
                let client = stream(SockFlag::SOCK_NONBLOCK);
                let connected = connect(std::os::fd::AsRawFd::as_raw_fd(&client), &address);
                waiting.push(client);
                if connected.is_err() {
                    break;
                }
            }
            waiting.push(listener);
            waiting
        }
        Service::Silent | Service::Drips => {
            let listener = UnixListener::bind(socket).expect("a free path");
            std::thread::spawn(move || {
                for connection in listener.incoming() {
                    let Ok(mut connection) = connection else { return };
                    if matches!(kind, Service::Drips) {
                        // A length that is allowed, and then its bytes, one by one.
                        let _ = connection.write_all(&10_000u32.to_be_bytes());
                        while connection.write_all(&[0]).is_ok() {
                            std::thread::park_timeout(Duration::from_millis(500));
                        }
                    }
                    std::mem::forget(connection);
                }
            });
            Vec::new()
        }
    }
}

#[test]
fn a_quote_service_that_does_not_answer_holds_nobody() {
    for kind in [Service::Silent, Service::Drips, Service::Backlog] {
        let socket = std::env::temp_dir().join(format!("tdvisor-{}-{kind:?}", std::process::id()));
        let socket = socket.display().to_string();
        let _ = std::fs::remove_file(&socket);
        let _kept = service(kind, &socket);
        let arguments = ["run", "--command", "quote", "--qgs", &socket];

        let mut run = Run::start(None, &[&arguments[..], &["--timeout", "2"]].concat());
        let (status, summary) = (run.ends(), run.stderr());
        assert_eq!(status.code(), Some(124), "{kind:?}: {summary}");
        assert!(summary.contains("every page and the key id came back"), "{kind:?}: {summary}");

        // Left alone, the guest is told that there is no quote, and goes on.
        let mut run = Run::start(None, &arguments);
        let mut console = String::new();
        run.process.stdout.take().expect("a pipe").read_to_string(&mut console).expect("text");
        assert_eq!(run.ends().code(), Some(0), "{kind:?}: {console}");
        assert!(console.contains("quote: none (Failed("), "{kind:?}: {console}");
        let _ = std::fs::remove_file(&socket);
    }
}

#[test]
fn all_of_a_long_input_reaches_the_guest() {
    const BYTES: usize = 300_000;
    let mut process = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(["run", "fault-td", "--command", "count-input", "--timeout", "300"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tdvisor starts");
    let sent: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8 + 1).collect();
    let sum = sent.iter().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    let mut stdin = process.stdin.take().expect("a pipe");
    stdin.write_all(&[&sent[..], &[0]].concat()).expect("it is taken");
    let mut console = String::new();
    process.stdout.take().expect("a pipe").read_to_string(&mut console).expect("text");
    assert_eq!(process.wait().expect("it ends").code(), Some(0));
    assert!(console.contains(&format!("{BYTES} bytes, sum {sum:#x}")), "{console}");
}

#[test]
fn an_input_without_an_end_waits_for_the_guest() {
    let mut process = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(["run", "fault-td", "--command", "spin", "--timeout", "2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("tdvisor starts");
    let mut stdin = process.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || {
        let mut written = 0u64;
        while stdin.write_all(&[b'y'; 1024]).is_ok() {
            written += 1024;
        }
        written
    });
    let status = Run { process, _full: Vec::new() }.ends();
    assert_eq!(status.code(), Some(124));
    let written = writer.join().expect("it ends with its pipe");
    assert!(written < 1 << 20, "{written} bytes were taken for a guest that reads nothing");
}
