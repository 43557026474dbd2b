//! A machine whose module offers TD partitioning, TDs on it, and who drives them.

use std::sync::{Arc, Mutex};

use machine_emu::trace::Trace;
use machine_emu::{EmulatedMachine, Hardware, Pace};
use seam_emu::features::FeatureSet;
use seam_emu::guest::GuestRegisters;
use seam_emu::{CpuGuest, GuestEnv, GuestState, ModuleProfile, ScriptedGuest, VmExit as GuestExit};
use td_host::Host;
use td_host::platform::Frames;
use td_host::td::Td;
use td_host::td::config::TdConfig;
use tdvisor_base::{Gpa, Level};
use tdvisor_guest_images::{EXIT_PORT, GuestImage};
use tdvisor_vm::{Answer, Ending, Partition, Transfer, Vcpu, VmExit};
use tdx_module_iface::Gprs;
use tdx_module_iface::exit::ExitReason;

pub type EmulatedHost = Host<EmulatedMachine>;
pub type EmulatedTd<'h> = Td<'h, EmulatedMachine>;

const COM1: u16 = 0x3f8;
const MIB: u64 = 1 << 20;

/// Both releases of the module that have L2 VMs.
pub const RELEASES: [ModuleProfile; 2] = [ModuleProfile::V1_5_01, ModuleProfile::V1_5_05];

pub fn host_with(module: ModuleProfile) -> EmulatedHost {
    let hardware = Hardware { module, features: FeatureSet::Partitioned, ..Hardware::default() };
    let machine = EmulatedMachine::with_hardware(&hardware, 128 * MIB, 4, Pace::Real, Trace::counting());
    Host::bring_up(machine, |_| {}).expect("an emulated module comes up")
}

pub fn host() -> EmulatedHost {
    host_with(ModuleProfile::default())
}

/// Frames that a host could give.
pub fn free_frames(host: &EmulatedHost) -> u64 {
    host.platform().free_frames() + host.pamt_frames()
}

pub fn td<'h>(host: &'h EmulatedHost, image: &GuestImage, l2_vms: u8, largest_page: Level) -> EmulatedTd<'h> {
    let config = TdConfig { memory: 24 * MIB, l2_vms, largest_page, ..TdConfig::default() };
    Td::build(host, &config, image.image, |_| {}).expect("a TD with L2 VMs")
}

/// All is well with a host, and with the TDs on it.
pub fn check(host: &EmulatedHost, tds: &[&EmulatedTd<'_>]) {
    for td in tds {
        td.audit().expect("mirror, Secure EPT, tables of L2 VMs and PAMT agree");
    }
    assert_eq!(host.platform().machine().audit(), [], "the module's own records agree");
    assert_eq!(host.platform().violations(), []);
    assert_eq!(host.platform().limits(), []);
}

/// Runs the first vCPU until the TD has ended; gives what it printed.
pub fn run_to_the_end(td: &EmulatedTd<'_>) -> (String, Ending<td_host::td::Death>) {
    let mut console = String::new();
    let mut vcpu = td.vcpu(0).expect("a vCPU that nobody has");
    let mut answer = Answer::Done;
    loop {
        answer = match vcpu.run(answer) {
            VmExit::Io { port: COM1, transfer: Transfer::Write(byte), .. } => {
                console.push(char::from(byte as u8));
                Answer::Done
            }
            VmExit::Io { port: EXIT_PORT, transfer: Transfer::Write(code), .. } => {
                td.end(Ending::PoweredOff { code: code as u8 });
                Answer::Done
            }
            VmExit::Io { size, transfer: Transfer::Read, .. } => Answer::Value(size.all_ones()),
            VmExit::Io { .. } | VmExit::CallInfo { leaf: 0 } | VmExit::Interrupted => Answer::Done,
            VmExit::MapGpa { gpa, size } => {
                let (side, start) = Td::shared_bit(td).split(gpa);
                let (mut next, end) = (start.frame(), start.wrapping_add(size).frame());
                while next < end {
                    next = vcpu.convert(next, end, side).unwrap_or_else(|_| panic!("{gpa:?} stays"));
                }
                Answer::Done
            }
            VmExit::Ended(ending) => return (console, ending),
            other => panic!("{other:?}\n{console}"),
        };
    }
}

/// Has a TD's first vCPU, in its L1, make calls of the module one after the other; gives the registers after each.
pub fn tdcalls(host: &EmulatedHost, td: &EmulatedTd<'_>, calls: Vec<Gprs>) -> Vec<Gprs> {
    let lp = td.vcpus()[0].lp().0 as usize;
    let results = Arc::new(Mutex::new(Vec::new()));
    let (seen, mut next) = (results.clone(), 0);
    let script = move |state: &mut GuestState, env: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        if env.interrupt_pending() {
            return GuestExit::plain(ExitReason::EXTERNAL_INTERRUPT);
        }
        // A call whose TD exit the host resolved is made again: its registers are as they were.
        let again = next > 0 && calls.get(next - 1).is_some_and(|call| *call == state.gprs());
        if !again {
            if next > 0 {
                seen.lock().unwrap().push(state.gprs());
            }
            // An OUT to a port nobody has, so that the vCPU comes back from its loop.
            let out = Gprs { rcx: 0xfc00, r11: 30, r12: 1, r13: 1, r14: 0x80, ..Gprs::ZERO };
            state.set_gprs(calls.get(next).copied().unwrap_or(out));
            next += 1;
        }
        GuestExit::tdcall()
    };
    let machine = host.platform().machine();
    machine.set_guest_cpu(lp, Box::new(ScriptedGuest(script)));
    let exit = td.vcpu(0).expect("a vCPU that nobody has").run(Answer::Done);
    machine.set_guest_cpu(lp, Box::<CpuGuest>::default());
    assert!(matches!(exit, VmExit::Io { port: 0x80, .. }), "{exit:?}");
    let results = results.lock().unwrap();
    results.clone()
}

/// A page of the guest's memory that nothing else uses.
pub const fn page(number: u64) -> Gpa {
    Gpa::new(0x80_0000 + number * 0x1000)
}
