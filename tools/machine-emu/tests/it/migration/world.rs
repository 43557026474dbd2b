//! Two machines, their migration TDs, and a guest that moves between them.
//!
//! Guests run on the test's own thread, exit by exit, so that a session can begin at any moment of their lives.

use machine_emu::trace::Trace;
use machine_emu::{EmulatedMachine, Hardware, Pace};
use mirror_ept::GfnRange;
use td_host::Host;
use td_host::host::hkid::HkidCounts;
use td_host::migration::binding::{ServiceTd, bind};
use td_host::migration::destination::Destination;
use td_host::platform::{Frames, LpId};
use td_host::td::Td;
use td_host::td::config::TdConfig;
use tdvisor_base::{Gpa, Level};
use tdvisor_vm::{Answer, Ending, Partition, Transfer, Vcpu, VmExit};
use tdx_module_iface::metadata::{Field, td as fields};
use tdx_module_iface::td_params::attributes;
use tdx_module_iface::tdh::Binding;
use tdx_module_iface::{Gprs, Status, TdgLeaf};

use crate::driven::tdcalls;

pub type EmulatedHost = Host<EmulatedMachine>;
pub type EmulatedTd<'h> = Td<'h, EmulatedMachine>;

/// A processor that no vCPU is on.
pub const SPARE: LpId = LpId(3);

const COM1: u16 = 0x3f8;
const MIB: u64 = 1 << 20;
const GUEST_MEMORY: u64 = 24 * MIB;

/// A machine with its module up, and room for a few TDs.
pub fn host() -> EmulatedHost {
    host_with(&Hardware { engine: seam_emu::testing::engine(), ..Hardware::default() })
}

/// Two machines that have nothing in common but what they are; the same run has the same two.
pub fn hosts(run: u64) -> [EmulatedHost; 2] {
    hosts_with(run, Hardware { engine: seam_emu::testing::engine(), ..Hardware::default() })
}

/// Two machines of this hardware.
pub fn hosts_with(run: u64, hardware: Hardware) -> [EmulatedHost; 2] {
    [1, 2].map(|number| host_with(&Hardware { random_seed: 2 * run + number, ..hardware }))
}

fn host_with(hardware: &Hardware) -> EmulatedHost {
    let machine = EmulatedMachine::with_hardware(hardware, 256 * MIB, 4, Pace::Real, Trace::counting());
    Host::bring_up(machine, |_| {}).expect("an emulated module comes up")
}

/// What a host has, to be compared before and after.
#[derive(Debug, PartialEq, Eq)]
pub struct Belongings {
    free_frames: u64,
    key_ids: HkidCounts,
}

impl Belongings {
    pub fn of(host: &EmulatedHost) -> Self {
        Self { free_frames: host.platform().free_frames() + host.pamt_frames(), key_ids: host.hkid_counts() }
    }
}

/// A TD that stands in for a migration TD: tests say what it calls.
pub fn service(host: &EmulatedHost) -> EmulatedTd<'_> {
    let config = TdConfig { memory: 8 * MIB, ..TdConfig::default() };
    Td::build(host, &config, tdvisor_guest_images::HELLO_TD.image, |_| {}).expect("a service TD")
}

/// A guest that may move.
pub fn guest<'h>(host: &'h EmulatedHost, service: &EmulatedTd<'_>, largest_page: Level) -> EmulatedTd<'h> {
    let config = TdConfig {
        memory: GUEST_MEMORY,
        largest_page,
        attributes: attributes::SEPT_VE_DISABLE | attributes::MIGRATABLE,
        migration_td: Some(ServiceTd::Bound(service.tdr())),
        ..TdConfig::default()
    };
    Td::build(host, &config, tdvisor_guest_images::HELLO_TD.image, |_| {}).expect("a TD that may move")
}

fn servtd(leaf: TdgLeaf, binding: &Binding, field: &Field, element: u32, value: u64) -> Gprs {
    let [r10, r11, r12, r13] = binding.target;
    Gprs {
        rax: u64::from(leaf.0),
        rcx: binding.handle,
        rdx: field.element_id(element).expect("four elements").0,
        r8: value,
        r9: u64::MAX,
        r10,
        r11,
        r12,
        r13,
        ..Gprs::ZERO
    }
}

fn succeeded(results: &[Gprs]) {
    for gprs in results {
        assert_eq!(Status::from_raw(gprs.rax), Status::SUCCESS);
    }
}

/// Reads the key that a TD will send with; reading makes it new.
pub fn read_key(host: &EmulatedHost, service: &EmulatedTd<'_>, binding: &Binding) -> [u64; 4] {
    let read = |element| servtd(TdgLeaf::SERVTD_RD, binding, &fields::MIG_ENC_KEY, element, 0);
    let results = tdcalls(host, service, (0..4).map(read).collect());
    succeeded(&results[..4]);
    std::array::from_fn(|word| results[word].r8)
}

/// Writes the key that a TD will receive with; the first element, which makes it count, last.
pub fn write_key(host: &EmulatedHost, service: &EmulatedTd<'_>, binding: &Binding, key: [u64; 4]) {
    let write = |element: u32| {
        servtd(TdgLeaf::SERVTD_WR, binding, &fields::MIG_DEC_KEY, element, key[element as usize])
    };
    let results = tdcalls(host, service, (0..4).rev().map(write).collect());
    succeeded(&results[..4]);
}

/// One end of a session: a machine with its migration TD.
pub struct End<'h> {
    pub host: &'h EmulatedHost,
    pub service: EmulatedTd<'h>,
}

impl<'h> End<'h> {
    pub fn new(host: &'h EmulatedHost) -> Self {
        Self { host, service: service(host) }
    }
}

/// What two migration TDs do when each trusts the other: the keys of a session from `td` to `destination`.
pub fn agree(
    from: &End<'_>,
    td: &EmulatedTd<'_>,
    to: &End<'_>,
    destination: &Destination<'_, EmulatedMachine>,
) {
    let here = bind(from.host, SPARE, td.tdr(), from.service.tdr()).expect("bound when it was built");
    let there = destination.bind(to.service.tdr()).expect("nothing has arrived");
    write_key(to.host, &to.service, &there, read_key(from.host, &from.service, &here));
    write_key(from.host, &from.service, &here, read_key(to.host, &to.service, &there));
}

/// A guest as its monitor sees it.
#[derive(Default)]
pub struct Monitor {
    pub console: String,
    pub exits: u64,
}

impl Monitor {
    /// Runs the first vCPU for so many exits, or until the TD has ended; it is at rest then.
    pub fn run(&mut self, td: &EmulatedTd<'_>, exits: u64) -> Option<Ending<td_host::td::Death>> {
        let mut vcpu = td.vcpu(0).expect("a vCPU that nobody has");
        let mut answer = Answer::Done;
        let until = self.exits.saturating_add(exits);
        loop {
            if self.exits >= until {
                // Takes the answer, and comes back before it enters.
                td.interrupt(0);
            }
            answer = match vcpu.run(answer) {
                VmExit::Io { port: COM1, transfer: Transfer::Write(byte), .. } => {
                    self.console.push(char::from(byte as u8));
                    Answer::Done
                }
                VmExit::Io {
                    port: tdvisor_guest_images::EXIT_PORT, transfer: Transfer::Write(code), ..
                } => {
                    td.end(Ending::PoweredOff { code: code as u8 });
                    Answer::Done
                }
                VmExit::Io { size, transfer: Transfer::Read, .. } => Answer::Value(size.all_ones()),
                VmExit::Io { .. } => Answer::Done,
                VmExit::MapGpa { gpa, size } => self.map_gpa(td, &mut vcpu, gpa, size),
                VmExit::CallInfo { leaf: 0 } => Answer::Done,
                VmExit::Interrupted if self.exits >= until => return None,
                VmExit::Interrupted => Answer::Done,
                VmExit::Ended(ending) => return Some(ending),
                other => panic!("{other:?}"),
            };
            self.exits += 1;
        }
    }

    /// Runs it until it has ended, which it has to do well.
    pub fn run_to_the_end(&mut self, td: &EmulatedTd<'_>) {
        let ending = self.run(td, u64::MAX);
        assert_eq!(ending, Some(Ending::PoweredOff { code: 0 }), "{}", self.console);
    }

    fn map_gpa(&self, td: &EmulatedTd<'_>, vcpu: &mut impl Vcpu, gpa: Gpa, size: u64) -> Answer {
        let (side, start) = Td::shared_bit(td).split(gpa);
        let (mut next, end) = (start.frame(), start.wrapping_add(size).frame());
        while next < end {
            next = vcpu.convert(next, end, side).unwrap_or_else(|_| panic!("{gpa:?} is not converted"));
        }
        Answer::Done
    }
}

/// What the guest says when it stays where it is, and in how many exits.
pub fn reference(largest_page: Level) -> Monitor {
    let host = host();
    let end = End::new(&host);
    let td = guest(&host, &end.service, largest_page);
    let mut monitor = Monitor::default();
    monitor.run_to_the_end(&td);
    assert!(td.teardown().is_clean());
    assert!(end.service.teardown().is_clean());
    monitor
}

/// All is well with a host, and with the TDs on it.
pub fn check(host: &EmulatedHost, tds: &[&EmulatedTd<'_>]) {
    for td in tds {
        td.audit().expect("mirror, Secure EPT and PAMT agree");
    }
    assert_eq!(host.platform().machine().audit(), [], "the module's own records agree");
    assert_eq!(host.platform().violations(), []);
}

/// Frames in the middle of the guest's memory.
pub fn frames(first: u64, frames: u64) -> GfnRange {
    let start = tdvisor_base::Gfn::new(16 * MIB / 4096 + first);
    GfnRange::new(start, start.wrapping_add(frames))
}
