//! A server as a session: the same three steps as a TD, on the same watch.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use server_emu::{BootFiles, Ending, Pace, ServerConfig};
use tdvisor_board::address;
use tdvisor_runtime::Watch;
use tdvisor_runtime::inspect::live::{Live, LiveServer};
use tdvisor_runtime::server::{Marks, Outside, ServerEvent, ServerSession, ServerSnapshot, ServerSpec};

/// Where the host is loaded and entered.
const ENTRY: u64 = 0x10_0000;

/// A console whose text can be read.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Console {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

/// Stops the server if it is to, and keeps what it looks like.
#[derive(Default)]
struct Looking {
    stops: bool,
    seen: Mutex<Vec<LiveServer>>,
}

impl Watch for Looking {
    fn wants_stop(&self) -> bool {
        self.stops
    }

    fn wait(&self) {
        std::thread::yield_now();
    }

    fn ring(&self) {}

    fn running(&self, machine: Live<'_>) {
        let Live::Server(server) = machine else { panic!("a session of a server shows a server") };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(server.look());
    }
}

/// `mov dx, port; mov al, value; out dx, al`.
fn out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// An ELF file whose one segment is this code.
fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    // An executable of x86-64, version 1.
    file.extend([2, 0, 0x3e, 0, 1, 0, 0, 0]);
    [ENTRY, 64, 0].iter().for_each(|word| file.extend(word.to_le_bytes()));
    // Flags; sizes of the headers, one program header, no sections.
    file.extend(0u32.to_le_bytes());
    [64u16, 56, 1, 64, 0, 0].iter().for_each(|half| file.extend(half.to_le_bytes()));
    // To be loaded, readable and executable.
    [1u32, 5].iter().for_each(|word| file.extend(word.to_le_bytes()));
    let bytes = code.len() as u64;
    [HEADERS, ENTRY, ENTRY, bytes, bytes, 0x1000].iter().for_each(|word| file.extend(word.to_le_bytes()));
    file.extend(code);
    file
}

fn spec(kernel: &[u8]) -> ServerSpec<'_> {
    let config = ServerConfig {
        memory: server_emu::server::MIN_MEMORY,
        pace: Pace::Deterministic { seed: 1 },
        engine: seam_emu::testing::engine(),
        ..ServerConfig::default()
    };
    ServerSpec { config, files: BootFiles { kernel, initrd: None, command_line: "" }, disk: None }
}

fn outside(console: &Console, freeze_at: Option<&str>) -> Outside {
    Outside {
        console: Box::new(console.clone()),
        freeze_at: freeze_at.map(str::to_owned),
        marks: Marks::default(),
        trace: None,
        faults: None,
        debugger: None,
    }
}

#[test]
fn a_server_is_started_driven_and_reported_like_any_machine() {
    const CODE: u8 = 3;
    let kernel = elf(&[out(address::COM1, b'A'), out(address::EXIT, CODE)].concat());
    let (console, watch, told) = (Console::default(), Looking::default(), Mutex::new(Vec::new()));
    let note = |event: ServerEvent<'_>| {
        told.lock().unwrap_or_else(PoisonError::into_inner).push(match event {
            ServerEvent::Running => None,
            ServerEvent::Ended(ending) => Some(ending.clone()),
        });
    };
    let session = ServerSession::boot(spec(&kernel), outside(&console, None), &note).expect("a server");
    let ended = session.drive(&watch);
    let report = ended.report();
    let off = Ending::PowerOff { code: CODE };
    assert_eq!((ended.ending(), &report.ending, console.text().as_str()), (&off, &off, "A"));
    assert_eq!(told.into_inner().unwrap_or_else(PoisonError::into_inner), [None, Some(off)]);
    assert_eq!((report.executed.host, report.violations.len(), report.audit.len()), (6, 0, 0));
    let seen = watch.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(seen.iter().all(|server| server.calls.is_empty() && server.violations == 0), "{seen:?}");
}

#[test]
fn a_server_that_froze_goes_on_in_another_session() {
    let kernel = elf(&[out(address::COM1, b'A'), out(address::COM1, b'B'), out(address::EXIT, 0)].concat());
    let file = std::env::temp_dir().join(format!("tdvisor-server-{}.snapshot", std::process::id()));
    let (first, second) = (Console::default(), Console::default());
    let quiet = |_: ServerEvent<'_>| {};
    let session = ServerSession::boot(spec(&kernel), outside(&first, Some("A")), &quiet).expect("a server");
    let ended = session.drive(&Looking::default());
    assert_eq!(ended.ending(), &Ending::Frozen);
    ended.save(&file).expect("a file");
    assert!(ended.save(&file).is_err(), "it is taken once");
    let snapshot = ServerSnapshot::open(&file).expect("what was written");
    let session = ServerSession::resume(snapshot, outside(&second, None), &quiet).expect("a server");
    let ended = session.drive(&Looking::default());
    std::fs::remove_file(&file).expect("the file is there");
    assert_eq!(ended.ending(), &Ending::PowerOff { code: 0 });
    assert_eq!(format!("{}{}", first.text(), second.text()), "AB");
}

#[test]
fn a_server_stops_when_its_watch_wants_it() {
    // It jumps to itself.
    let kernel = elf(&[0xeb, 0xfe]);
    let quiet = |_: ServerEvent<'_>| {};
    let session =
        ServerSession::boot(spec(&kernel), outside(&Console::default(), None), &quiet).expect("a server");
    let ended = session.drive(&Looking { stops: true, ..Looking::default() });
    assert_eq!(ended.ending(), &Ending::Stopped);
}
