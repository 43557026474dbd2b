//! Random schedules of an L1 and its host beside a flat model of which VM has which page.

use mirror_ept::GfnRange;
use seam_emu::inject::{Chaos, FaultPlan};
use td_host::memory::Converted;
use tdvisor_base::{Gfn, Level, Side};
use tdvisor_guest_images::L1_VMM;
use tdvisor_test_data::chance::Chance;
use tdvisor_test_data::replay;
use tdx_module_iface::{Gprs, Status, StatusCode, TdgLeaf};

use super::world::{EmulatedHost, EmulatedTd, check, free_frames, host, page, td};
use crate::driven::tdcalls;

/// Pages of the model: the first and the last of two large ones among them.
const PAGES: [u64; 8] = [0, 1, 255, 511, 512, 513, 700, 1023];
/// L2 VMs of the TD.
pub const VMS: usize = 3;
const VALID: u64 = 1 << 15;
const READ: u64 = 1;
const OPERATIONS: usize = 60;

/// What the model knows of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Not accepted; nobody has it.
    Absent,
    /// Shared with the host.
    Shared,
    /// Accepted, and what each VM may do with it: 0 where it has no alias.
    Private([u64; VMS]),
}

/// A TD, and what the model knows of it.
pub struct AliasModel<'s, 'h> {
    host: &'h EmulatedHost,
    td: &'s EmulatedTd<'h>,
    pages: [Known; PAGES.len()],
}

impl<'s, 'h> AliasModel<'s, 'h> {
    /// A TD that has done nothing yet.
    pub fn new(host: &'h EmulatedHost, td: &'s EmulatedTd<'h>) -> Self {
        Self { host, td, pages: [Known::Absent; PAGES.len()] }
    }

    fn call(&self, leaf: TdgLeaf, gprs: Gprs) -> Gprs {
        // A guest repeats what was busy.
        for _ in 0..100 {
            let got = tdcalls(self.host, self.td, vec![Gprs { rax: u64::from(leaf.0), ..gprs }]);
            let status = Status::from_raw(got[0].rax);
            if status.code() != StatusCode::OPERAND_BUSY {
                assert_eq!(status, Status::SUCCESS, "{leaf}");
                return got[0];
            }
        }
        panic!("{leaf} stays busy");
    }

    fn convert(&self, number: usize, to: Side) {
        let mut seat = self.td.memory().take_seat(td_host::platform::LpId(3)).unwrap();
        let gfn = page(PAGES[number]).frame();
        let range = GfnRange::new(gfn, Gfn::new(gfn.get() + 1));
        loop {
            match self.td.memory().convert(&mut seat, range, to).unwrap() {
                Converted::All => return,
                Converted::Upto(_) => {}
            }
        }
    }

    /// One operation at random.
    pub fn step(&mut self, chance: &mut Chance) {
        let number = chance.index(PAGES.len());
        let gpa = page(PAGES[number]).get();
        self.pages[number] = match (self.pages[number], chance.index(4)) {
            (Known::Absent, _) => {
                self.call(TdgLeaf::MEM_PAGE_ACCEPT, Gprs { rcx: gpa, ..Gprs::ZERO });
                Known::Private([0; VMS])
            }
            (Known::Shared, _) => {
                self.convert(number, Side::Private);
                Known::Absent
            }
            (Known::Private(_), 0) => {
                self.convert(number, Side::Shared);
                Known::Shared
            }
            (known @ Known::Private(_), 1) => {
                let mut seat = self.td.memory().take_seat(td_host::platform::LpId(3)).unwrap();
                let range = GfnRange::new(page(0).frame(), page(1024).frame());
                self.td.memory().collapse(&mut seat, range).unwrap();
                known
            }
            (Known::Private(mut have), _) => {
                let vm = chance.index(VMS);
                // Possible attributes: nothing, or READ with any of the others.
                have[vm] = [0, READ | (chance.index(8) as u64) << 1][chance.index(2)];
                let shift = 16 * (vm + 1);
                let (rdx, r8) = ((have[vm] | VALID) << shift, 0x7f << shift);
                self.call(TdgLeaf::MEM_PAGE_ATTR_WR, Gprs { rcx: gpa, rdx, r8, ..Gprs::ZERO });
                Known::Private(have)
            }
        };
    }

    /// What the module says of each page is what the model says.
    pub fn compare(&self, when: &str) {
        for (known, number) in self.pages.iter().zip(PAGES) {
            let Known::Private(have) = known else { continue };
            let read = self.call(TdgLeaf::MEM_PAGE_ATTR_RD, Gprs { rcx: page(number).get(), ..Gprs::ZERO });
            let expected = (1..).zip(have).filter(|(_, attributes)| **attributes != 0);
            let expected = expected.fold(0, |all, (vm, attributes)| all | (attributes | VALID) << (16 * vm));
            assert_eq!(read.rdx, expected, "{when}: page {number}: {:#x} is not {expected:#x}", read.rdx);
        }
    }
}

fn run(seed: u64, largest: Level, chaos: Option<Chaos>) -> usize {
    let host = host();
    let before = free_frames(&host);
    let td = td(&host, &L1_VMM, VMS as u8, largest);
    let faults = host.platform().machine();
    faults.faults().set_plan(FaultPlan { chaos, ..FaultPlan::default() });
    let mut chance = Chance::new(seed);
    let mut model = AliasModel::new(&host, &td);
    for operation in 0..OPERATIONS {
        model.step(&mut chance);
        model.compare(&format!("seed {seed}, {largest}, operation {operation}"));
        td.audit().unwrap_or_else(|error| panic!("seed {seed}, {largest}, operation {operation}: {error}"));
    }
    let refused = faults.faults().log().len();
    faults.faults().set_plan(FaultPlan::default());
    check(&host, &[&td]);
    assert!(td.teardown().is_clean(), "seed {seed}");
    check(&host, &[]);
    assert_eq!(free_frames(&host), before, "seed {seed}");
    refused
}

#[test]
fn inv_64_the_vms_of_a_td_have_what_a_flat_model_says_under_any_schedule() {
    for seed in replay::seeds(1..7) {
        run(seed, [Level::L2M, Level::L4K][seed as usize % 2], None);
    }
}

#[test]
fn inv_64_transient_refusals_of_the_module_change_nothing_that_vms_have() {
    let seeds = replay::seeds(1..5);
    let refused: usize = seeds.map(|seed| run(seed, Level::L2M, Some(Chaos { seed, one_in: 3 }))).sum();
    assert!(refused > 40 || replay::one_seed().is_some(), "only {refused} calls were refused");
}
