//! `tdvisor run --qgs`: the TD's quotes come from a quote-generation service on a Unix socket, played here by a peer
//! that speaks its protocol, or does not.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use crate::cli::{Answer, Folder, tdvisor};
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::issue::{PlatformSpec, TestPlatform};
use tdvisor_attest::qgs::{GetQuote, QgsError, Quoted, stream};
use tdvisor_attest::quote::Quote;
use tdvisor_attest::report::TdReport;

/// A service that takes one request.
struct Peer<T> {
    socket: PathBuf,
    thread: JoinHandle<Option<T>>,
}

impl<T: Send + 'static> Peer<T> {
    /// A peer that does this with the one connection that it takes; `None` means that it was not asked.
    fn new(name: &str, serve: impl FnOnce(UnixStream) -> Option<T> + Send + 'static) -> Self {
        // Socket paths are short: the build's own folder may be too deep.
        let socket = std::env::temp_dir().join(format!("tdvisor-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).expect("a socket");
        let thread = thread::spawn(move || serve(listener.accept().expect("a connection").0));
        Self { socket, thread }
    }

    /// Runs a TD that asks for a quote.
    fn run(self) -> (Answer, Option<T>) {
        let answer = tdvisor(&["run", "--command", "quote", "--qgs", &self.socket.display().to_string()]);
        // Whoever was not asked must not wait for ever.
        drop(UnixStream::connect(&self.socket));
        let served = self.thread.join().expect("the peer ends well");
        let _ = std::fs::remove_file(&self.socket);
        (answer, served)
    }
}

/// The guest was told that there is no quote, finished its work, and the run says whose fault it was.
#[track_caller]
fn is_without_quote(answer: Answer, socket: &str, reason: &str) {
    let answer = answer.ends_with(0);
    let (stdout, stderr) = (answer.stdout(), answer.stderr());
    assert!(stdout.contains("quote: none (Failed("), "{stdout}");
    let said = stderr.lines().find(|line| line.contains(socket)).unwrap_or_default();
    assert!(said.contains(reason), "'{reason}' is not said of {socket}:\n{stderr}");
}

#[test]
fn the_guest_gets_the_quote_that_the_service_makes_of_its_report() {
    let at = UnixSeconds(1_782_864_000);
    let peer = Peer::new("qgs-good", move |mut connection| {
        let request = stream::read(&mut connection).ok()?;
        let report = GetQuote::decode(&request).expect("a request of this protocol").report.to_vec();
        let platform = TestPlatform::new([7; 32], PlatformSpec::default());
        let report: &[u8; 1024] = report.first_chunk().expect("a whole report");
        let quote = platform.quote_for_report(report, 4, at).expect("a sound report").quote;
        let answer = Quoted { id: &[], quote: &quote }.encode().expect("an answer");
        stream::write(&mut connection, &answer).expect("the host reads it");
        Some((*report, quote))
    });
    let (answer, served) = peer.run();
    let answer = answer.ends_with(0);
    let (report, quote) = served.expect("the service was asked");
    let stdout = answer.stdout();
    assert!(stdout.contains(&format!("quote: {} bytes", quote.len())), "{stdout}");
    // The request carried the running TD's own report, and so does the quote.
    let report = TdReport::from_bytes(&report).expect("a report");
    assert_eq!(report.check_hashes(), Ok(()));
    let mrtd: String = report.td_info.mr_td.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(stdout.contains(&format!("MRTD {mrtd}")), "{stdout}");
    let quote = Quote::parse(&quote).expect("a quote");
    assert_eq!(quote.body().td().expect("of a TD").mr_td, report.td_info.mr_td);
}

#[test]
fn the_test_service_gives_a_quote_that_verifies_against_the_test_root_and_refuses_what_is_no_report() {
    let folder = Folder::new("qgs-test-service");
    let socket = std::env::temp_dir().join(format!("tdvisor-{}-qgs-test", std::process::id()));
    let (path, quote) = (socket.display().to_string(), folder.path("quote"));
    let mut service = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
        .args(["quote", "serve", &path, "--requests", "1", "--out", &quote])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the service starts");
    let mut line = String::new();
    let stdout = service.stdout.take().expect("its output is a pipe");
    BufReader::new(stdout).read_line(&mut line).expect("it says that it listens");
    assert_eq!(line, format!("{path}: ready for requests\n"));

    let ask = |report: &[u8]| {
        let mut connection = UnixStream::connect(&socket).expect("it listens");
        stream::get_quote(&mut connection, report)
    };
    for report in [&[0; 1024][..], &[0; 584]] {
        assert!(matches!(ask(report), Err(QgsError::Service(0x1_2003))), "{} zeros", report.len());
    }
    // Who says nothing keeps nobody from being answered.
    drop(UnixStream::connect(&socket));

    let stdout = tdvisor(&["run", "--command", "quote", "--qgs", &path]).ends_with(0).stdout();
    assert!(service.wait().expect("it ends").success());
    assert!(!socket.exists(), "it leaves nothing behind");
    let bytes = std::fs::read(&quote).expect("the quote");
    assert!(stdout.contains(&format!("quote: {} bytes", bytes.len())), "{stdout}");
    let (collateral, root) = (format!("{quote}.collateral.json"), format!("{quote}.root.pem"));
    tdvisor(&["verify", &quote, "--collateral", &collateral, "--test-root", &root]).ends_with(0);
    let td = Quote::parse(&bytes).expect("a quote").body().td().expect("of a TD").mr_td;
    let mrtd: String = td.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(stdout.contains(&format!("MRTD {mrtd}")), "{stdout}");
}

#[test]
fn a_service_that_refuses_leaves_the_guest_without_a_quote() {
    let peer = Peer::new("qgs-refuses", |mut connection| {
        stream::read(&mut connection).ok()?;
        let refusal = Quoted::refusal(0x1_2001).expect("an answer");
        stream::write(&mut connection, &refusal).ok()
    });
    let (answer, served) = peer.run();
    assert!(served.is_some(), "the service was asked");
    is_without_quote(answer, "qgs-refuses", "error 0x12001");
}

#[test]
fn a_service_that_hangs_up_leaves_the_guest_without_a_quote() {
    let peer = Peer::new("qgs-hangs-up", |mut connection| stream::read(&mut connection).ok().map(drop));
    let (answer, served) = peer.run();
    assert!(served.is_some(), "the service was asked");
    is_without_quote(answer, "qgs-hangs-up", "");
}

#[test]
fn a_service_that_speaks_nonsense_leaves_the_guest_without_a_quote() {
    for (name, nonsense, reason) in [
        ("qgs-huge", &[0xff; 4][..], "too large"),
        ("qgs-short", &[0, 0, 0, 4, 1, 0, 0, 0], "ends early"),
        ("qgs-other", &[0, 0, 0, 16, 2, 0, 0, 0, 1, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0], "version 2"),
    ] {
        let peer = Peer::new(name, move |mut connection| {
            stream::read(&mut connection).ok()?;
            connection.write_all(nonsense).ok()?;
            // Until the host closes: hanging up early would be another failure.
            connection.read_to_end(&mut Vec::new()).ok()
        });
        let (answer, served) = peer.run();
        assert!(served.is_some(), "{name}: the service was asked");
        is_without_quote(answer, name, reason);
    }
}

#[test]
fn a_service_that_is_not_there_leaves_the_guest_without_a_quote() {
    let answer = tdvisor(&["run", "--command", "quote", "--qgs", "/no/such/socket"]);
    is_without_quote(answer, "/no/such/socket", "");
}
