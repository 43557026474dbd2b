//! A TD that is saved, and goes on from there, is the TD that never was.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use machine_emu::trace::{CallObserver, ObservedCall, Trace};
use machine_emu::{Freezer, Hardware, Pace};
use td_host::td::Ending;
use td_host::td::config::TdConfig;
use tdvisor_devices::Devices;
use tdvisor_guest_images::{GuestImage, HELLO_TD};
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::boot_files::BootFiles;
use tdvisor_runtime::board::{Board, BoardSpec, Transport};
use tdvisor_runtime::dump::Secrecy;
use tdvisor_runtime::saved::{ResumeSpec, SaveTdError, SavedTd};
use tdvisor_runtime::snapshot::{self, Kind};
use tdvisor_runtime::{Ended, Machine, MachineSpec, Session, TdSpec, Watch};
use tdx_module_iface::{LeafWord, TdhLeaf};

const MEMORY: u64 = 128 << 20;
const PACE: Pace = Pace::Deterministic { seed: 3 };

/// What is printed.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked with it").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every SEAMCALL, and the one in whose turn the machine freezes.
#[derive(Default)]
struct Calls {
    all: Mutex<Vec<String>>,
    freeze: OnceLock<(Freezer, usize)>,
}

impl CallObserver for Calls {
    fn called(&self, call: &ObservedCall<'_>) {
        let mut all = self.all.lock().expect("nobody panicked with it");
        let leaf = TdhLeaf(LeafWord(call.before.rax).leaf());
        let mut line = format!("{leaf} on LP {} {}", call.lp.0, call.reached);
        for gprs in [call.before, call.after] {
            gprs.iter().for_each(|(_, value)| write!(line, " {value:x}").expect("a string takes all"));
        }
        all.push(line);
        if let Some((freezer, number)) = self.freeze.get()
            && all.len() == *number
        {
            freezer.freeze();
        }
    }
}

/// Waits for the end.
#[derive(Default)]
struct UntilTheEnd {
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Watch for UntilTheEnd {
    fn wants_stop(&self) -> bool {
        false
    }

    fn wait(&self) {
        let rung = self.rung.lock().expect("nobody panicked with it");
        drop(self.bell.wait_while(rung, |rung| !std::mem::take(rung)).expect("nobody panicked with it"));
    }

    fn ring(&self) {
        *self.rung.lock().expect("nobody panicked with it") = true;
        self.bell.notify_all();
    }
}

/// What one part of a run leaves.
struct Part {
    console: Vec<u8>,
    log: Vec<u8>,
    calls: Vec<String>,
    ending: Ending,
    /// All memory with its keys, and what is to be said of the run; of the last part.
    state: Option<(Vec<u8>, String)>,
}

/// What surrounds a part.
struct Around {
    console: Printed,
    log: Printed,
    calls: Arc<Calls>,
}

impl Around {
    fn new() -> Self {
        Self { console: Printed::default(), log: Printed::default(), calls: Arc::default() }
    }

    fn trace(&self) -> Trace {
        Trace::counting().observed_by(self.calls.clone())
    }

    fn devices(&self, machine: &Machine, vcpus: u32) -> Devices {
        let emulated = machine.platform().machine();
        let spec = BoardSpec {
            pace: PACE,
            now: Box::new(move || emulated.tsc() / 2),
            memory: MEMORY,
            vcpus,
            boot: BootFiles::None,
            virtio: Vec::new(),
            transport: Transport::default(),
        };
        Board::new(self.console.clone(), self.log.clone(), spec).expect("a board without files").devices
    }

    fn freeze_at(&self, machine: &Machine, call: Option<usize>) {
        if let Some(call) = call {
            let freezer = machine.platform().freezer().expect("a machine that takes turns");
            assert!(self.calls.freeze.set((freezer, call)).is_ok(), "it freezes once");
        }
    }

    /// Ends the part: saves a TD that froze, looks at one that ended.
    fn end(self, ended: Ended<'_>, machine: &Machine, file: &Path) -> Part {
        let ending = ended.ending().clone();
        let is_saved = ended.is_frozen();
        if is_saved {
            ended.save(file, &"beside").expect("a TD that is quiet");
        }
        let mut state = None;
        let mut memory = Vec::new();
        let calls = self.calls.all.lock().expect("nobody panicked with it").clone();
        if !is_saved {
            snapshot::write(&mut memory, Kind::Td, &(), machine.platform().machine().memory())
                .expect("a vector takes all");
            let mappings = ended.td().mappings().expect("a TD at rest");
            let report = ended.teardown();
            let facts = format!(
                "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {} {:?} {:?} {:?} {:?}",
                mappings,
                report.mrtd,
                report.rtmrs,
                report.vcpu_exits,
                report.calls,
                report.private,
                report.shared,
                report.frames_converted,
                report.audit,
                report.teardown,
                report.violations,
                report.losses(),
            );
            state = Some((memory, facts));
        } else {
            let report = ended.teardown();
            assert_eq!(
                report.losses(),
                Vec::<String>::new(),
                "a TD that was saved is torn down like any other"
            );
        }
        let (console, log) = (
            self.console.0.lock().expect("nobody panicked with it").clone(),
            self.log.0.lock().expect("nobody panicked with it").clone(),
        );
        Part { console, log, calls, ending, state }
    }
}

/// A TD from its image on, until it ends or, from a call on, freezes.
fn first(guest: &GuestImage, vcpus: u32, freeze_at: Option<usize>, secrecy: Secrecy, file: &Path) -> Part {
    let around = Around::new();
    let spec = MachineSpec {
        hardware: Hardware::default(),
        memory: MEMORY,
        vcpus,
        pace: PACE,
        trace: around.trace(),
        faults: None,
        debug: None,
        samples: None,
    };
    let machine = Machine::bring_up(spec, &|_| ()).expect("a machine");
    let devices = around.devices(&machine, vcpus);
    around.freeze_at(&machine, freeze_at);
    let spec = TdSpec {
        config: TdConfig { memory: MEMORY, vcpus, ..TdConfig::default() },
        image: guest.image,
        devices,
        bell: Bell::default(),
        quotes: None,
        debugger: None,
        secrecy,
    };
    let ended = Session::start(&machine, spec, &|_| ()).expect("a TD").drive(&UntilTheEnd::default());
    around.end(ended, &machine, file)
}

/// The TD goes on from a file, until it ends or, from a call on, freezes again.
fn second(vcpus: u32, freeze_at: Option<usize>, file: &Path) -> Part {
    let around = Around::new();
    let saved = SavedTd::<String>::open(file).expect("a file that was saved");
    assert_eq!(saved.what(), "beside");
    let (machine, td) = saved.machine(around.trace()).expect("a machine as it was saved");
    let devices = around.devices(&machine, vcpus);
    around.freeze_at(&machine, freeze_at);
    let spec = ResumeSpec { devices, bell: Bell::default(), quotes: None };
    let ended = Session::resume(&machine, td, spec, &|_| ())
        .expect("a TD as it was saved")
        .drive(&UntilTheEnd::default());
    around.end(ended, &machine, file)
}

fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("tdvisor-td-{name}-{}", std::process::id()))
}

/// Saves the TD at `points` of its calls, spread over its run, and compares what follows with what would have followed.
fn goes_on_as_if_nothing_was(name: &str, vcpus: u32, points: usize) {
    let path = file(name);
    let whole = first(&HELLO_TD, vcpus, None, Secrecy::Inspectable, &path);
    assert_eq!(whole.ending, Ending::PoweredOff { code: 0 });
    let built = whole.calls.iter().position(|call| call.starts_with("TDH.VP.ENTER")).expect("it ran");
    let step = ((whole.calls.len() - built) / points).max(1);
    let mut saved = 0;
    for at in (built..whole.calls.len()).step_by(step) {
        let before = first(&HELLO_TD, vcpus, Some(at), Secrecy::Inspectable, &path);
        if before.state.is_some() {
            // The call was the TD's last, or came before the turns did.
            continue;
        }
        saved += 1;
        let after = second(vcpus, None, &path);
        let joined = |one: &[u8], two: &[u8]| String::from_utf8_lossy(&[one, two].concat()).into_owned();
        assert_eq!(
            joined(&before.console, &after.console),
            String::from_utf8_lossy(&whole.console),
            "saved at call {at}"
        );
        assert_eq!([&before.log[..], &after.log].concat(), whole.log, "saved at call {at}");
        let calls: Vec<&String> = before.calls.iter().chain(&after.calls).collect();
        assert_eq!(calls.len(), whole.calls.len(), "saved at call {at}");
        let different = calls.iter().zip(&whole.calls).position(|(one, other)| *one != other);
        assert_eq!(different, None, "saved at call {at}");
        assert_eq!(after.ending, whole.ending, "saved at call {at}");
        let (memory, facts) = after.state.expect("it ended");
        let (whole_memory, whole_facts) = whole.state.as_ref().expect("it ended");
        assert_eq!(&facts, whole_facts, "saved at call {at}");
        assert!(&memory == whole_memory, "memory differs: saved at call {at}");
    }
    let _ = std::fs::remove_file(&path);
    assert!(saved >= points / 2, "{saved} points of {points}");
}

#[test]
fn hello_td_saved_anywhere_in_its_run_goes_on_as_if_nothing_was() {
    goes_on_as_if_nothing_was("one", 1, 24);
}

#[test]
fn two_vcpus_saved_anywhere_in_their_run_go_on_as_if_nothing_was() {
    goes_on_as_if_nothing_was("two", 2, 24);
}

#[test]
fn a_td_that_goes_on_can_be_saved_again() {
    let path = file("again");
    let whole = first(&HELLO_TD, 2, None, Secrecy::Inspectable, &path);
    let calls = whole.calls.len();
    let before = first(&HELLO_TD, 2, Some(calls - 120), Secrecy::Inspectable, &path);
    let middle = second(2, Some(20), &path);
    let after = second(2, None, &path);
    assert_eq!([&before.console[..], &middle.console, &after.console].concat(), whole.console);
    assert_eq!(after.state, whole.state);
    let _ = std::fs::remove_file(&path);
}

#[test]
fn a_td_that_keeps_its_secrets_is_not_saved() {
    let path = file("secret");
    let around = Around::new();
    let spec = MachineSpec {
        hardware: Hardware::default(),
        memory: MEMORY,
        vcpus: 1,
        pace: PACE,
        trace: around.trace(),
        faults: None,
        debug: None,
        samples: None,
    };
    let machine = Machine::bring_up(spec, &|_| ()).unwrap();
    let devices = around.devices(&machine, 1);
    machine.platform().freezer().unwrap().freeze();
    let spec = TdSpec {
        config: TdConfig { memory: MEMORY, ..TdConfig::default() },
        image: HELLO_TD.image,
        devices,
        bell: Bell::default(),
        quotes: None,
        debugger: None,
        secrecy: Secrecy::Kept,
    };
    let ended = Session::start(&machine, spec, &|_| ()).unwrap().drive(&UntilTheEnd::default());
    assert!(ended.is_frozen());
    assert!(matches!(ended.save(&path, &"beside"), Err(SaveTdError::NotInspectable)));
    assert!(!path.exists());
}

#[test]
fn no_damaged_file_makes_a_td() {
    let path = file("damaged");
    let calls = first(&HELLO_TD, 1, None, Secrecy::Inspectable, &path).calls.len();
    first(&HELLO_TD, 1, Some(calls - 100), Secrecy::Inspectable, &path);
    let whole = std::fs::read(&path).unwrap();
    let step = whole.len() / 97;
    for at in (0..40).chain((40..whole.len()).step_by(step)).chain(whole.len() - 40..whole.len()) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1 << (at % 8);
        for bytes in [&damaged[..], &whole[..at]] {
            std::fs::write(&path, bytes).unwrap();
            assert!(SavedTd::<String>::open(&path).is_err(), "byte {at} of {}", whole.len());
        }
    }
    let _ = std::fs::remove_file(&path);
}
