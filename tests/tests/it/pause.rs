//! Sessions that are paused and go on.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machine_emu::trace::Trace;
use machine_emu::{Hardware, Pace};
use td_host::td::Ending;
use td_host::td::config::TdConfig;
use tdvisor_guest_images::{COMMAND_HOB_GUID, FAULT_TD, GuestImage, HELLO_TD};
use tdvisor_monitor::hold::{NotStill, Phase};
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::boot_files::BootFiles;
use tdvisor_runtime::board::{Board, BoardSpec, Transport};
use tdvisor_runtime::dump::Secrecy;
use tdvisor_runtime::pause::Pauser;
use tdvisor_runtime::{Machine, MachineSpec, Report, Session, TdSpec, Watch};

/// Longer than any wait takes, unless it never ends.
const LONG: Duration = Duration::from_secs(600);

/// Stops the session when it is told to; a wait ends with a ring, or after a moment.
struct Bells {
    stop: AtomicBool,
    rung: Mutex<Receiver<()>>,
    ring: Sender<()>,
}

impl Bells {
    fn new() -> Self {
        let (ring, rung) = channel();
        Self { stop: AtomicBool::new(false), rung: Mutex::new(rung), ring }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring();
    }
}

impl Watch for Bells {
    fn wants_stop(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn wait(&self) {
        const MOMENT: Duration = Duration::from_millis(20);
        let _ = self.rung.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(MOMENT);
    }

    fn ring(&self) {
        let _ = self.ring.send(());
    }
}

/// A console that says when a text is printed, and keeps what is.
#[derive(Clone)]
struct Console {
    printed: Arc<Mutex<Vec<u8>>>,
    text: &'static str,
    seen: Sender<()>,
}

impl Console {
    fn printed(&self) -> Vec<u8> {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.extend(bytes);
        if printed.ends_with(self.text.as_bytes()) {
            let _ = self.seen.send(());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Run {
    guest: &'static GuestImage,
    command: &'static str,
    vcpus: u32,
    pace: Pace,
    /// What the console prints before `with` is called.
    until: &'static str,
}

impl Run {
    /// Runs a TD; once its console has printed the text, `with` is called beside it, on another thread.
    fn run(&self, with: impl FnOnce(&Pauser, &Machine, &Bells) + Send) -> (Report, Vec<u8>) {
        let spec = MachineSpec {
            hardware: Hardware { engine: seam_emu::testing::engine(), ..Hardware::default() },
            memory: 128 << 20,
            vcpus: self.vcpus,
            pace: self.pace,
            trace: Trace::counting(),
            faults: None,
            debug: None,
            samples: None,
        };
        let machine = Machine::bring_up(spec, &|_| {}).unwrap();
        let (seen, is_seen) = channel();
        let console = Console { printed: Arc::default(), text: self.until, seen };
        let board = BoardSpec {
            pace: self.pace,
            now: Box::new(|| 0),
            memory: 128 << 20,
            vcpus: self.vcpus,
            boot: BootFiles::None,
            virtio: Vec::new(),
            transport: Transport::Mmio,
        };
        let Board { devices, .. } = Board::new(console.clone(), io::sink(), board).unwrap();
        let extensions = match self.command {
            "" => Vec::new(),
            command => vec![(COMMAND_HOB_GUID, command.as_bytes().to_vec())],
        };
        let config = TdConfig { vcpus: self.vcpus, hob_extensions: extensions, ..TdConfig::default() };
        let bell = Bell::default();
        let image = self.guest.image;
        let spec =
            TdSpec { config, image, devices, bell, quotes: None, debugger: None, secrecy: Secrecy::Kept };
        let session = Session::start(&machine, spec, &|_| {}).unwrap();
        let (pauser, bells) = (session.pauser(), Bells::new());
        let ended = std::thread::scope(|scope| {
            let (of_other, around) = (pauser.clone(), (&machine, &bells));
            let other = scope.spawn(move || {
                is_seen.recv_timeout(LONG).unwrap();
                with(&of_other, around.0, around.1);
            });
            let ended = session.drive(&bells);
            other.join().unwrap();
            assert_eq!(pauser.phase(), Phase::Ended);
            assert_eq!(pauser.pause(LONG), Err(NotStill::Ended), "who has ended cannot be paused");
            ended
        });
        (ended.teardown(), console.printed())
    }
}

fn calls(machine: &Machine) -> u64 {
    machine.platform().trace().calls().values().sum()
}

/// Whether anything happens on a machine while its threads have many chances to run.
fn is_quiet(machine: &Machine) -> bool {
    let before = calls(machine);
    for _ in 0..2_000 {
        std::thread::yield_now();
    }
    calls(machine) == before
}

const HELLO: Run =
    Run { guest: &HELLO_TD, command: "", vcpus: 1, pace: Pace::Deterministic { seed: 7 }, until: "\n" };

#[test]
fn a_paused_td_makes_no_call_and_goes_on_where_it_was() {
    let run = Run { guest: &FAULT_TD, command: "print", vcpus: 3, pace: Pace::Real, until: "\n" };
    let (report, printed) = run.run(|pauser, machine, bells| {
        for _ in 0..3 {
            pauser.pause(LONG).unwrap();
            assert_eq!(pauser.phase(), Phase::Still);
            pauser.pause(LONG).expect("pausing again changes nothing");
            assert!(is_quiet(machine), "a TD that is paused runs");
            assert!(pauser.resume());
            let before = calls(machine);
            while calls(machine) == before {
                std::thread::yield_now();
            }
        }
        assert!(!pauser.resume(), "nothing was paused");
        // It prints without end: what ends it is that somebody stops it while it is paused.
        pauser.pause(LONG).unwrap();
        bells.stop();
    });
    assert_eq!(report.ending, Ending::Stopped);
    assert_eq!(report.frames_lost, 0);
    assert!(!printed.is_empty());
}

#[test]
fn a_deterministic_run_that_was_paused_is_call_for_call_the_run_that_never_was() {
    let (plain, printed) = HELLO.run(|_, _, _| {});
    assert!(matches!(plain.ending, Ending::PoweredOff { code: 0 }), "{:?}", plain.ending);
    let (paused, printed_paused) = HELLO.run(|pauser, machine, _| {
        // Where the guest is when it is paused is chance; each place has to do.
        let mut pauses = 0;
        while pauses < 200 && pauser.pause(LONG).is_ok() {
            let time = machine.platform().machine().tsc();
            assert!(pauses > 3 || is_quiet(machine), "a TD that is paused runs");
            assert_eq!(machine.platform().machine().tsc(), time, "time does not stand still");
            pauser.resume();
            pauses += 1;
        }
    });
    assert_eq!(String::from_utf8_lossy(&printed_paused), String::from_utf8_lossy(&printed));
    assert_eq!(paused.calls, plain.calls);
    assert_eq!(paused.vcpu_exits, plain.vcpu_exits);
    assert_eq!(paused.rtmrs, plain.rtmrs);
    assert_eq!(paused.ending, plain.ending);
}

#[test]
fn a_deterministic_td_that_is_stopped_while_it_is_paused_ends() {
    let (report, _) = HELLO.run(|pauser, _, bells| {
        if pauser.pause(LONG).is_ok() {
            bells.stop();
        }
    });
    assert!(matches!(report.ending, Ending::Stopped | Ending::PoweredOff { code: 0 }), "{:?}", report.ending);
    assert_eq!(report.frames_lost, 0);
}
