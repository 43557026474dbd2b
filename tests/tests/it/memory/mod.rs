//! TDs for tests of their memory: built from the `hello-td` image, never run.
//!
//! Faults and conversions are driven from the host's side, through a seat at the TD's memory, exactly as the
//! loop of a vCPU drives them.

pub mod guest;
pub mod machine;

use std::collections::BTreeMap;

use machine_emu::trace::Trace;
use machine_emu::{EmulatedMachine, Hardware, Pace};
use mirror_ept::GfnRange;
use seam_emu::ModuleProfile;
use td_host::Host;
use td_host::host::hkid::HkidCounts;
use td_host::memory::{Converted, Resolution, Seat};
use td_host::platform::{Frames, LpId};
use td_host::retry::{Bound, bounded};
use td_host::td::Td;
use td_host::td::config::TdConfig;
use tdvisor_base::{Gfn, Level, Side};
use tdx_module_iface::handles::GpaLevel;
use tdx_module_iface::sept::SeptState;
use tdx_module_iface::{StatusCode, tdh};

use machine::TestMachine;

/// Where the tests' memory begins: above everything that the image's sections ask for.
pub const TEST_MEMORY: Gfn = Gfn::new((64 << 20) / 4096);

pub type EmulatedHost = Host<TestMachine>;
pub type EmulatedTd<'h> = Td<'h, TestMachine>;
pub type EmulatedSeat<'t, 'h> = Seat<'t, 'h, TestMachine>;

/// A host on a machine with room for TDs of `bytes` together, and five processors: one for management, two
/// for vCPUs, two for seats.
pub fn host(bytes: u64) -> EmulatedHost {
    host_on(ModuleProfile::default(), bytes)
}

/// A host on a machine with another release of the module.
pub fn host_on(profile: ModuleProfile, bytes: u64) -> EmulatedHost {
    let hardware = Hardware { module: profile, engine: seam_emu::testing::engine(), ..Hardware::default() };
    let machine = EmulatedMachine::with_hardware(&hardware, bytes, 4, Pace::Real, Trace::counting());
    Host::bring_up(TestMachine::new(machine), |_| {}).expect("an emulated module comes up")
}

/// A processor that no vCPU of a test's TDs is on.
pub const SEAT: LpId = LpId(3);

/// A finalised TD with `bytes` of memory from [`TEST_MEMORY`] on, and one vCPU.
pub fn td(host: &EmulatedHost, bytes: u64, largest_page: Level) -> EmulatedTd<'_> {
    td_with_vcpus(host, bytes, largest_page, 1)
}

/// A finalised TD with some vCPUs.
pub fn td_with_vcpus(host: &EmulatedHost, bytes: u64, largest_page: Level, vcpus: u32) -> EmulatedTd<'_> {
    try_td(host, bytes, largest_page, vcpus).expect("the image makes a TD")
}

/// A TD on a host, where that may fail.
pub fn try_td(
    host: &EmulatedHost,
    bytes: u64,
    largest_page: Level,
    vcpus: u32,
) -> Result<EmulatedTd<'_>, td_host::Error> {
    let memory = TEST_MEMORY.base().get() + bytes;
    let config = TdConfig { memory, largest_page, vcpus, ..TdConfig::default() };
    let image = tdvisor_guest_images::HELLO_TD.image;
    Td::build(host, &config, image, |_| {})
}

/// A test with a TD of 16 MiB beside its image and a seat at its memory, which must leave everything in order and
/// nothing behind.
pub fn with_td(test: impl for<'h> FnOnce(&'h EmulatedHost, &EmulatedTd<'h>, &mut EmulatedSeat<'_, 'h>)) {
    let host = host(128 << 20);
    let before = Belongings::of(&host);
    let td = td(&host, 16 << 20, Level::L2M);
    let mut seat = td.memory().take_seat(SEAT).expect("a processor is free");
    test(&host, &td, &mut seat);
    drop(seat);
    td.audit().expect("mirror, Secure EPT and PAMT agree");
    assert_eq!(host.platform().machine().audit(), [], "the module's own records agree");
    assert!(td.teardown().is_clean());
    assert_eq!(Belongings::of(&host), before, "pages were lost");
    assert_eq!(host.platform().violations(), []);
}

/// `frames` frames of the tests' memory, from its frame number `first` on.
pub fn frames(first: u64, frames: u64) -> GfnRange {
    let start = TEST_MEMORY.wrapping_add(first);
    GfnRange::new(start, start.wrapping_add(frames))
}

/// Maps one private page.
pub fn touch(seat: &mut EmulatedSeat<'_, '_>, gfn: Gfn, max_level: Level) -> Resolution {
    seat.memory().private_fault(seat, gfn, max_level, || false).expect("a private fault is resolved")
}

/// Converts all of a range, as a guest does that calls again from where the host got to.
pub fn convert(seat: &mut EmulatedSeat<'_, '_>, range: GfnRange, to: Side) {
    let mut rest = range;
    for _ in 0..=range.frames() {
        match seat.memory().convert(seat, rest, to).expect("a conversion goes on") {
            Converted::All => return,
            Converted::Upto(reached) => rest = GfnRange::new(reached, range.end()),
        }
    }
    panic!("the conversion of {range:?} never ended");
}

/// The level at which the module itself says that a frame is mapped, up to 2M.
pub fn module_maps(seat: &mut EmulatedSeat<'_, '_>, td: &EmulatedTd<'_>, gfn: Gfn) -> Option<Level> {
    module_state(seat, td, gfn).map(|(level, _)| level)
}

/// The level at which the module itself says that a frame is mapped, up to 2M, and whether it is accepted.
pub fn module_state(
    seat: &mut EmulatedSeat<'_, '_>,
    td: &EmulatedTd<'_>,
    gfn: Gfn,
) -> Option<(Level, Accepted)> {
    for level in [Level::L2M, Level::L4K] {
        let entry = GpaLevel::of_gfn(gfn.align_down(level), level);
        let read = bounded(Bound::MANAGEMENT, || tdh::tdh_mem_sept_rd(seat.lp(), td.tdr(), entry));
        match read.map(|info| info.state()) {
            Ok(Some(SeptState::Mapped)) => return Some((level, Accepted::Yes)),
            Ok(Some(SeptState::Pending)) => return Some((level, Accepted::NotYet)),
            Ok(Some(SeptState::NlMapped)) => {}
            Ok(Some(SeptState::Free)) => return None,
            Err(error) if error.code() == Some(StatusCode::EPT_WALK_FAILED) => return None,
            other => panic!("the Secure-EPT entry of frame {gfn} at {level} is {other:?}"),
        }
    }
    None
}

/// Whether the guest has accepted a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    Yes,
    NotYet,
}

/// Runs a TD's first vCPU on this thread, without devices around it, until the TD has ended.
pub fn run(td: &EmulatedTd<'_>) {
    tdvisor_monitor::Monitor::default().run_vcpu(td, 0, &tdvisor_monitor::RunsOn);
}

/// What a host has, to be compared before and after the life of its TDs.
#[derive(Debug, PartialEq, Eq)]
pub struct Belongings {
    free_frames: u64,
    key_ids: HkidCounts,
}

impl Belongings {
    pub fn of(host: &EmulatedHost) -> Self {
        // What is kept for PAMTs is not lost.
        let free_frames = host.platform().free_frames() + host.pamt_frames();
        Self { free_frames, key_ids: host.hkid_counts() }
    }
}

/// SEAMCALLs, by leaf, that `work` costs.
pub fn calls_of<T>(host: &EmulatedHost, work: impl FnOnce() -> T) -> (Calls, T) {
    let before = host.platform().trace().calls();
    let result = work();
    let mut after = host.platform().trace().calls();
    for (leaf, count) in &mut after {
        *count -= before.get(leaf).copied().unwrap_or_default();
    }
    after.retain(|_, count| *count != 0);
    (Calls(after), result)
}

/// Numbers of calls by leaf.
#[derive(Debug)]
pub struct Calls(BTreeMap<String, u64>);

impl Calls {
    /// Calls of one leaf, by its name after `TDH.`.
    pub fn of(&self, leaf: &str) -> u64 {
        self.0.get(&format!("TDH.{leaf}")).copied().unwrap_or_default()
    }

    /// Leaves one leaf, by its name after `TDH.`, out of account.
    pub fn forget(&mut self, leaf: &str) {
        self.0.remove(&format!("TDH.{leaf}"));
    }

    /// Calls of leaves that change or read a TD's memory, by their names after `TDH.MEM.`.
    pub fn memory(&self) -> BTreeMap<&str, u64> {
        self.0.iter().filter_map(|(leaf, count)| Some((leaf.strip_prefix("TDH.MEM.")?, *count))).collect()
    }
}
