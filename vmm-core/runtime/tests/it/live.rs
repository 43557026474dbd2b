//! A TD is asked how it is doing while it runs.

use std::io::sink;
use std::sync::{Condvar, Mutex, PoisonError};

use machine_emu::trace::Trace;
use machine_emu::{Hardware, Pace};
use td_host::td::config::TdConfig;
use tdvisor_runtime::bell::Bell;
use tdvisor_runtime::board::boot_files::BootFiles;
use tdvisor_runtime::board::{Board, BoardSpec, Transport};
use tdvisor_runtime::dump::Secrecy;
use tdvisor_runtime::inspect::live::{Live, LiveTd};
use tdvisor_runtime::{Machine, MachineSpec, Session, TdSpec, Watch};

/// Looks whenever it may, and never ends the TD.
#[derive(Default)]
struct Looking {
    seen: Mutex<Vec<LiveTd>>,
    rung: Mutex<bool>,
    bell: Condvar,
}

impl Watch for Looking {
    fn wants_stop(&self) -> bool {
        false
    }

    fn wait(&self) {
        const LITTLE: std::time::Duration = std::time::Duration::from_millis(1);
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if !*rung {
            drop(self.bell.wait_timeout(rung, LITTLE));
        }
    }

    fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.bell.notify_all();
    }

    fn running(&self, machine: Live<'_>) {
        let Live::Td(td) = machine else { panic!("a session of a TD shows a TD") };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(td.look());
    }
}

#[test]
fn a_running_td_is_looked_at_and_its_counts_grow_until_they_are_those_of_the_report() {
    let config = TdConfig { vcpus: 2, ..TdConfig::default() };
    let machine = MachineSpec {
        hardware: Hardware { engine: seam_emu::testing::engine(), ..Hardware::default() },
        memory: config.memory,
        vcpus: config.vcpus,
        pace: Pace::Real,
        trace: Trace::counting(),
        faults: None,
        debug: None,
        samples: None,
    };
    let machine = Machine::bring_up(machine, &|_| ()).expect("a machine");
    let board = BoardSpec {
        pace: Pace::Real,
        now: Box::new(|| 0),
        memory: config.memory,
        vcpus: config.vcpus,
        boot: BootFiles::None,
        virtio: Vec::new(),
        transport: Transport::Mmio,
    };
    let board = Board::new(sink(), sink(), board).expect("a board");
    let spec = TdSpec {
        config,
        image: tdvisor_guest_images::HELLO_TD.image,
        devices: board.devices,
        bell: Bell::default(),
        quotes: None,
        debugger: None,
        secrecy: Secrecy::Kept,
    };
    let watch = Looking::default();
    let ended = Session::start(&machine, spec, &|_| ()).expect("a TD").drive(&watch);
    let tdr = ended.td().tdr().hpa();
    let report = ended.teardown();

    let seen = watch.seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(seen.iter().any(|td| !td.has_ended), "{} looks, none of them while it ran", seen.len());
    let exits = |td: &LiveTd| -> u64 { td.vcpus.iter().flat_map(|vcpu| vcpu.exits.values()).sum() };
    for (earlier, later) in seen.iter().zip(seen.iter().skip(1)) {
        assert!(exits(earlier) <= exits(later), "{earlier:?} before {later:?}");
        assert!(earlier.frames_converted <= later.frames_converted);
        assert!(!earlier.has_ended || later.has_ended, "a TD that has ended does not run again");
    }
    for td in &seen {
        assert_eq!((td.tdr, td.vcpus.len()), (tdr, 2));
    }
    let last = seen.last().expect("a look");
    let all: u64 = report.exits().values().sum();
    assert!(exits(last) <= all, "{last:?}: more exits than the report's {all}");
    assert!(all > 0 && report.losses().is_empty(), "{:?}", report.losses());
}
