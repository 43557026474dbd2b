//! Random schedules of a server's processors, and of those who interrupt them (run with `RUSTFLAGS="--cfg shuttle"`).
//!
//! What runs is the production server: its processors execute a host of a few instructions, which interrupt each other, sleep
//! and park. A lost wake-up is a deadlock, which shuttle finds and prints with its schedule. For a TD, what runs is the
//! production module and interrupt controller; the guest is a script.

#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "a test stops where it cannot go on")]

mod hosts;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod support;

use std::sync::{Arc, OnceLock, Weak};

use iced_x86::code_asm::CodeAssembler;
use seam_emu::guest::ExitReason;
use seam_emu::machine::InterruptController;
use seam_emu::testing::{Host as TdHost, SCRATCH};
use seam_emu::{GuestEnv, GuestState, Machine, MachineConfig, ScriptedGuest, VmExit};
use server_emu::apic::{Delivery, Ipi};
use server_emu::interrupts::Interrupts;
use server_emu::{Ending, Pace, Server, ServerConfig};
use shuttle::rand::RngCore;
use shuttle::scheduler::RandomScheduler;
use shuttle::{Config, Runner};
use tdvisor_base::{Hpa, KeyId};
use tdvisor_devices::IoApic;
use tdvisor_vm::interrupt::Destination;
use tdx_module_iface::metadata::vmcs;
use tdx_module_iface::{Gprs, TdhLeaf};

use support::Host;

/// Schedules of a server, which executes some hundred instructions in each.
const SERVERS: usize = 1_000;
/// Schedules of a TD's processor.
const TDS: usize = 4_000;

fn explore(schedules: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    // The software CPU needs more than shuttle's threads have.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(schedules), config).run(scenario);
}

fn server(processors: u32, pace: Pace, code: CodeAssembler) -> Host {
    let config =
        ServerConfig { processors, pace, memory: server_emu::server::MIN_MEMORY, ..ServerConfig::default() };
    Host::assemble(config, code)
}

#[test]
fn processors_that_interrupt_each_other_and_sleep_lose_no_interrupt() {
    for others in [1, 2] {
        explore(SERVERS, move || {
            let host = server(others + 1, Pace::Real, hosts::answers_each(others, 3).unwrap());
            assert_eq!(host.run(), Ending::PowerOff { code: hosts::DONE });
        });
    }
}

#[test]
fn a_processor_that_parks_and_is_woken_again_and_again_misses_no_wake_up() {
    explore(SERVERS, || {
        let host = server(2, Pace::Real, hosts::wakes_again(3).unwrap());
        assert_eq!(host.run(), Ending::PowerOff { code: hosts::DONE });
    });
}

#[test]
fn whoever_ends_or_freezes_a_server_is_heard_by_processors_that_sleep_for_good() {
    let acts: [(fn(&Server), Ending); 2] =
        [(|server| server.end(Ending::Stopped), Ending::Stopped), (Server::freeze, Ending::Frozen)];
    for (act, ending) in acts {
        explore(SERVERS, move || {
            let host = Arc::new(server(3, Pace::Real, hosts::sleeps_for_good().unwrap()));
            let other = host.clone();
            let acting = shuttle::thread::spawn(move || {
                // The processors need about as long to fall asleep.
                (0..shuttle::rand::thread_rng().next_u32() % 256).for_each(|_| shuttle::thread::yield_now());
                act(other.server());
            });
            assert_eq!(host.run(), ending);
            acting.join().unwrap();
        });
    }
}

#[test]
fn in_turns_every_schedule_of_threads_is_the_same_run() {
    static FIRST: OnceLock<(u64, u64)> = OnceLock::new();
    explore(SERVERS, || {
        let host = server(3, Pace::Deterministic { seed: 7 }, hosts::answers_each(2, 3).unwrap());
        assert_eq!(host.run(), Ending::PowerOff { code: hosts::DONE });
        let run = (host.server().retired(), host.server().machine().tsc());
        assert_eq!(*FIRST.get_or_init(|| run), run);
    });
}

/// What ended a TD's stay on its processor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Exit {
    Nmi,
    Vector(u8),
}

/// Posted-interrupt notification, as a host configures it.
const NOTIFICATION: u8 = 0xf2;
const DESCRIPTOR: u64 = SCRATCH + 0x8000;
/// The word of a posted-interrupt descriptor that holds ON.
const CONTROL: u64 = DESCRIPTOR + 32;
const OUTSTANDING: u64 = 1;
/// Two vectors of two classes, below the notification.
const VECTORS: [u8; 2] = [0x31, 0x42];
/// What the host sends itself to see that nothing else is left; of the lowest class.
const LAST: u8 = 0x21;

struct TdOnServer {
    machine: Arc<Machine>,
    interrupts: Arc<Interrupts>,
    tdvpr: u64,
}

impl TdOnServer {
    /// A TD whose vCPU takes posted interrupts, on a machine with interrupt controllers.
    fn new() -> Self {
        const PROCESS_POSTED_INTERRUPTS: u64 = 1 << 7;
        const APIC_ENABLED: u64 = 0x1ff;
        let host = TdHost::with(MachineConfig { lp_packages: vec![0; 2], ..MachineConfig::small() });
        let td = host.td(1);
        let tdvpr = td.vcpus[0];
        for (field, value, mask) in [
            (vmcs::POSTED_INTERRUPT_NOTIFICATION_VECTOR, NOTIFICATION.into(), u64::MAX),
            (vmcs::POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, DESCRIPTOR, u64::MAX),
            (vmcs::PIN_BASED_CONTROLS, PROCESS_POSTED_INTERRUPTS, PROCESS_POSTED_INTERRUPTS),
        ] {
            let write = Gprs { rcx: tdvpr, rdx: field.id.0, r8: value, r9: mask, ..Gprs::ZERO };
            host.ok(0, TdhLeaf::VP_WR, write);
        }
        let machine = Arc::new(host.machine);
        let controllers =
            Interrupts::new(machine.clone(), &[0, 1], Arc::new(IoApic::new()), Arc::default(), None);
        let interrupts = Arc::new(controllers);
        machine.attach_interrupt_controller(Arc::downgrade(&interrupts) as Weak<dyn InterruptController>);
        let this = Self { machine, interrupts, tdvpr };
        this.write_apic(server_emu::apic::MSR_FIRST + 0xf, APIC_ENABLED);
        this
    }

    fn write_apic(&self, register: u32, value: u64) {
        self.interrupts.with(0, |apic| apic.write(register, value, 0)).unwrap().unwrap();
    }

    fn send(&self, delivery: Delivery) {
        self.interrupts.send(Ipi { destination: Destination::Physical(0), delivery }).unwrap();
    }

    fn control(&self) -> u64 {
        let mut word = [0; 8];
        self.machine.host_read(Hpa::new(CONTROL), &mut word).unwrap();
        u64::from_le_bytes(word)
    }

    /// As a host posts: the request, then ON, then the notification.
    fn post(&self, vector: u8) {
        let request = DESCRIPTOR + u64::from(vector) / 64 * 8;
        for (at, bit) in [(request, 1 << (vector % 64)), (CONTROL, OUTSTANDING)] {
            let set = |word: u64| word | bit;
            self.machine.memory().fetch_update(Hpa::new(at), KeyId::DEFAULT, set).unwrap();
        }
        self.send(Delivery::Fixed(NOTIFICATION));
    }

    /// TDH.VP.ENTER: a guest that runs until its processor has to leave it.
    fn enter(&self) -> Exit {
        const VALID: u64 = 1 << 31;
        const TYPE_NMI: u64 = 2;
        let mut guest = ScriptedGuest(|_: &mut GuestState, env: &GuestEnv<'_>| {
            while !env.interrupt_pending() {
                shuttle::thread::yield_now();
                self.interrupts.poll(0);
            }
            VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
        });
        let mut gprs = Gprs { rax: TdhLeaf::VP_ENTER.0.into(), rcx: self.tdvpr, ..Gprs::ZERO };
        self.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
        let (reason, information) = (gprs.rax as u32 & 0xffff, gprs.r9);
        assert_ne!(information & VALID, 0, "an exit without an event: {gprs:x?}");
        if information >> 8 & 7 == TYPE_NMI {
            assert_eq!(reason, u32::from(ExitReason::EXCEPTION_NMI.0));
            return Exit::Nmi;
        }
        assert_eq!(reason, u32::from(ExitReason::EXTERNAL_INTERRUPT.0));
        Exit::Vector(information as u8)
    }

    /// Enters the TD until `last` ended its stay; gives all that did before, in order.
    fn run_until(&self, last: u8) -> Vec<Exit> {
        const EOI: u32 = 0xb;
        let mut exits = Vec::new();
        loop {
            let exit = self.enter();
            if let Exit::Vector(_) = exit {
                self.write_apic(server_emu::apic::MSR_FIRST + EOI, 0);
            }
            if exit == Exit::Vector(last) {
                return exits;
            }
            exits.push(exit);
        }
    }
}

#[test]
fn each_interrupt_of_the_host_ends_the_td_once_and_a_notification_never_does() {
    explore(TDS, || {
        let td = Arc::new(TdOnServer::new());
        let senders: [fn(&TdOnServer); 3] = [
            |td| VECTORS.into_iter().for_each(|vector| td.send(Delivery::Fixed(vector))),
            |td| [0x50, 0x51].into_iter().for_each(|vector| td.post(vector)),
            |td| td.send(Delivery::Nmi),
        ];
        let senders = senders.map(|send| {
            let td = td.clone();
            shuttle::thread::spawn(move || send(&td))
        });
        let runs = td.clone();
        let vcpu = shuttle::thread::spawn(move || runs.run_until(LAST));
        senders.into_iter().for_each(|sender| sender.join().unwrap());
        td.send(Delivery::Fixed(LAST));
        let mut exits = vcpu.join().unwrap();
        exits.sort_unstable();
        assert_eq!(exits, [Exit::Nmi, Exit::Vector(VECTORS[0]), Exit::Vector(VECTORS[1])]);
        assert_eq!(td.control() & OUTSTANDING, 0, "what was posted was taken");
        assert!(!td.machine.interrupt_pending(0), "nothing is left");
    });
}
