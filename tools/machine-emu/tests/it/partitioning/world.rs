//! A machine whose module offers TD partitioning, TDs on it, and who drives them.

use machine_emu::trace::Trace;
use machine_emu::{EmulatedMachine, Hardware, Pace};
use seam_emu::ModuleProfile;
use seam_emu::features::FeatureSet;
use td_host::Host;
use td_host::platform::Frames;
use td_host::td::Td;
use td_host::td::config::TdConfig;
use tdvisor_base::{Gpa, Level};
use tdvisor_guest_images::{EXIT_PORT, GuestImage};
use tdvisor_vm::{Answer, Ending, Partition, Transfer, Vcpu, VmExit};

pub type EmulatedHost = Host<EmulatedMachine>;
pub type EmulatedTd<'h> = Td<'h, EmulatedMachine>;

const COM1: u16 = 0x3f8;
const MIB: u64 = 1 << 20;

/// Both releases of the module that have L2 VMs.
pub const RELEASES: [ModuleProfile; 2] = [ModuleProfile::V1_5_01, ModuleProfile::V1_5_05];

pub fn host_with(module: ModuleProfile) -> EmulatedHost {
    let hardware = Hardware {
        module,
        features: FeatureSet::Partitioned,
        engine: seam_emu::testing::engine(),
        ..Hardware::default()
    };
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

/// A page of the guest's memory that nothing else uses.
pub const fn page(number: u64) -> Gpa {
    Gpa::new(0x80_0000 + number * 0x1000)
}
