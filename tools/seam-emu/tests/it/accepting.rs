//! Long runs of mixed calls of a host and its guest: what TDG.MEM.PAGE.ACCEPT answers follows from the state of the Secure
//! EPT alone, however the TD came to it, and an entry is refused only to a host that steps its guest.
//!
//! The reference is a model of two 2 MiB ranges, which knows the entries' states and nothing of the emulator.

use std::collections::{BTreeSet, VecDeque};

use seam_emu::guest::GuestRegisters;
use seam_emu::testing::{Host, Td, mem};
use seam_emu::{GuestEnv, GuestState, MachineConfig, ModuleProfile, Random, ScriptedGuest, VmExit};
use tdvisor_base::Gpa;
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::td_params::attributes::SEPT_VE_DISABLE;
use tdx_module_iface::{Gprs, Status, StatusCode, TdgLeaf, TdhLeaf};

const BASE: u64 = 0x8000_0000;
const LARGE: u64 = 0x20_0000;
/// 4 KiB pages of a range that are used.
const SMALL_PAGES: u64 = 3;
const RUNS: u64 = 40;
const STEPS: usize = 600;

/// An entry of the Secure EPT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entry {
    Free,
    Table,
    Pending,
    Mapped,
}

/// An entry, and whether it is blocked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Slot {
    entry: Entry,
    blocked: bool,
}

const FREE: Slot = Slot { entry: Entry::Free, blocked: false };

/// One 2 MiB range: its own entry, and those of the table below.
#[derive(Clone, Copy, Debug)]
struct Range {
    top: Slot,
    pages: [Slot; SMALL_PAGES as usize],
}

/// What an accept comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Accepted,
    Already(u32),
    WrongSize(u32),
    Exit,
}

/// The entries, and what the module remembers of a guest that makes no progress.
struct Model {
    ranges: [Range; 2],
    /// Violations since the guest moved, and the pages among those that it remembers.
    violations: u32,
    suspicious: Vec<u64>,
}

impl Model {
    fn slot(&mut self, gpa: u64, level: u64) -> &mut Slot {
        let range = &mut self.ranges[((gpa - BASE) / LARGE) as usize];
        if level == 1 { &mut range.top } else { &mut range.pages[(gpa % LARGE / 0x1000) as usize] }
    }

    /// The entry that a walk to 4 KiB ends at.
    fn leaf(&self, gpa: u64) -> (Slot, u32) {
        let range = &self.ranges[((gpa - BASE) / LARGE) as usize];
        match range.top {
            Slot { entry: Entry::Table, blocked: false } => (range.pages[(gpa % LARGE / 0x1000) as usize], 0),
            top => (top, 1),
        }
    }

    fn accept(&self, gpa: u64, level: u64) -> Answer {
        let (slot, at) =
            if level == 1 { (self.ranges[((gpa - BASE) / LARGE) as usize].top, 1) } else { self.leaf(gpa) };
        let reached = u64::from(at) == level;
        match slot {
            Slot { entry: Entry::Mapped, blocked: false } => Answer::Already(at),
            Slot { entry: Entry::Pending, blocked: false } if reached => Answer::Accepted,
            Slot { entry: Entry::Table, .. } if reached => Answer::WrongSize(at),
            _ => Answer::Exit,
        }
    }

    fn is_mapped(&self, gpa: u64) -> bool {
        matches!(self.leaf(gpa).0, Slot { entry: Entry::Mapped, blocked: false })
    }

    /// The guest left at a place; `stays` says that the host had entered it there.
    fn left(&mut self, stays: bool) {
        if !stays {
            (self.violations, self.suspicious) = (0, Vec::new());
        }
    }

    /// An access of the guest itself left the TD.
    fn violated(&mut self, gpa: u64) {
        if self.violations < 6 {
            self.violations += 1;
        } else if self.suspicious.len() < 32 && !self.suspicious.contains(&gpa) {
            self.suspicious.push(gpa);
        }
    }
}

/// What the guest does after an entry.
#[derive(Clone, Copy, Debug)]
enum Act {
    Accept { gpa: u64, level: u64 },
    Touch { gpa: u64 },
    Nothing,
}

/// One entry of a vCPU: the guest stays or moves on, acts, and is interrupted.
fn enter(host: &Host, td: &Td, act: Act, moves: bool) -> (Gprs, Option<u64>) {
    let mut queue: VecDeque<Act> = [act].into();
    let mut answer = None;
    let mut guest = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        match queue.pop_front() {
            Some(act) => {
                // Between two places: a guest that comes back has made progress all the same.
                state.set_rip(state.rip() ^ if moves { 64 } else { 0 });
                match act {
                    Act::Accept { gpa, level } => {
                        let rax = u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0);
                        state.set_gprs(Gprs { rax, rcx: gpa | level, ..Gprs::ZERO });
                        VmExit::tdcall()
                    }
                    Act::Touch { gpa } => {
                        VmExit::ept_violation(Gpa::new(gpa), gpa, x86_arch::Access::Read, 0)
                    }
                    Act::Nothing => VmExit::plain(ExitReason::EXTERNAL_INTERRUPT),
                }
            }
            None => {
                answer = answer.or(Some(state.gprs().rax));
                VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
            }
        }
    });
    let mut gprs = Gprs { rcx: td.vcpus[0], rbp: 0x77, ..Gprs::ZERO };
    host.machine.lp(0).unwrap().seamcall_with(&mut gprs, &mut guest).unwrap();
    (gprs, answer)
}

fn violation() -> u64 {
    u64::from(ExitReason::EPT_VIOLATION.0)
}

struct Play {
    host: Host,
    td: Td,
    model: Model,
    random: Random,
    /// What happened, for a failure to show.
    log: Vec<String>,
    /// Which answers came, and refused entries.
    seen: BTreeSet<String>,
}

impl Play {
    fn below(&mut self, bound: u64) -> u64 {
        self.random.next() % bound
    }

    fn place(&mut self) -> (u64, u64) {
        let range = BASE + LARGE * self.below(2);
        let page = 0x1000 * self.below(SMALL_PAGES);
        if self.below(3) == 0 { (range, 1) } else { (range + page, 0) }
    }

    /// A call of the host; the model follows where it succeeded.
    fn host_call(&mut self) {
        let (gpa, level) = self.place();
        let page = |host: &Host| if level == 1 { host.large_page() } else { host.page() };
        let choice = self.below(10);
        let (leaf, gprs) = match choice {
            0 => (TdhLeaf::MEM_SEPT_ADD, mem(&self.td, gpa & !(LARGE - 1), 1, self.host.page())),
            1..=3 => (TdhLeaf::MEM_PAGE_AUG, mem(&self.td, gpa, level, page(&self.host))),
            4 => (TdhLeaf::MEM_RANGE_BLOCK, mem(&self.td, gpa, level, 0)),
            5 => (TdhLeaf::MEM_RANGE_UNBLOCK, mem(&self.td, gpa, level, 0)),
            6 => (TdhLeaf::MEM_PAGE_REMOVE, mem(&self.td, gpa, level, 0)),
            7 => (TdhLeaf::MEM_SEPT_REMOVE, mem(&self.td, gpa & !(LARGE - 1), 1, 0)),
            8 => (TdhLeaf::MEM_PAGE_RELOCATE, mem(&self.td, gpa, 0, self.host.page())),
            _ => (TdhLeaf::MEM_TRACK, Gprs { rcx: self.td.tdr, ..Gprs::ZERO }),
        };
        let status = self.host.status(0, leaf, gprs);
        self.log.push(format!("{leaf} {gpa:#x} level {level}: {status}"));
        if !status.is_success() {
            return;
        }
        match leaf {
            TdhLeaf::MEM_SEPT_ADD => {
                let range = &mut self.model.ranges[((gpa - BASE) / LARGE) as usize];
                *range = Range {
                    top: Slot { entry: Entry::Table, blocked: false },
                    pages: [FREE; SMALL_PAGES as usize],
                };
            }
            TdhLeaf::MEM_PAGE_AUG => {
                *self.model.slot(gpa, level) = Slot { entry: Entry::Pending, blocked: false }
            }
            TdhLeaf::MEM_RANGE_BLOCK => self.model.slot(gpa, level).blocked = true,
            TdhLeaf::MEM_RANGE_UNBLOCK => self.model.slot(gpa, level).blocked = false,
            TdhLeaf::MEM_PAGE_RELOCATE => self.model.slot(gpa, 0).blocked = false,
            TdhLeaf::MEM_PAGE_REMOVE => *self.model.slot(gpa, level) = FREE,
            TdhLeaf::MEM_SEPT_REMOVE => self.model.slot(gpa & !(LARGE - 1), 1).clone_from(&FREE),
            _ => {}
        }
    }

    fn guest_acts(&mut self) {
        let (gpa, level) = self.place();
        let moves = self.below(12) == 0;
        let act = match self.below(4) {
            0 => Act::Nothing,
            1 => Act::Touch { gpa },
            _ => Act::Accept { gpa, level },
        };
        // Phases in which the guest does nothing but touch what is not there.
        let act = if self.log.len() / 40 % 4 == 3 { Act::Touch { gpa } } else { act };
        let refused = self.model.suspicious.iter().copied().find(|gpa| !self.model.is_mapped(*gpa));
        let (out, answer) = enter(&self.host, &self.td, act, moves);
        self.log.push(format!("{act:?}, {}: RAX {:#x}", if moves { "moves" } else { "stays" }, out.rax));
        if let Some(gpa) = refused {
            assert_eq!(
                (out.rax, out.r8, out.rbp),
                (violation(), gpa, 0x77),
                "an entry that steps: {}",
                self.story()
            );
            self.seen.insert("refused entry".into());
            return;
        }
        self.model.left(!moves);
        match act {
            Act::Nothing => assert_eq!(out.rax, 1, "{}", self.story()),
            Act::Touch { gpa } if self.model.is_mapped(gpa) => {
                // Not a violation on hardware; the emulated processor would not have exited.
                self.model.violated(gpa);
            }
            Act::Touch { gpa } => {
                assert_eq!((out.rax, out.r8), (violation(), gpa), "{}", self.story());
                self.model.violated(gpa);
            }
            Act::Accept { gpa, level } => self.check_accept(gpa, level, &out, answer),
        }
    }

    fn check_accept(&mut self, gpa: u64, level: u64, out: &Gprs, answer: Option<u64>) {
        let expected = self.model.accept(gpa, level);
        self.seen.insert(format!("{expected:?}"));
        if let (Answer::WrongSize(_), true) = (expected, self.model.slot(gpa, level).blocked) {
            self.seen.insert("blocked table".into());
        }
        let seen = match answer.map(Status::from_raw) {
            None => Answer::Exit,
            Some(status) if status.is_success() => Answer::Accepted,
            Some(status) => match (status.code(), status.details()) {
                (StatusCode::PAGE_ALREADY_ACCEPTED, level) => Answer::Already(level),
                (StatusCode::PAGE_SIZE_MISMATCH, level) => Answer::WrongSize(level),
                _ => panic!("{status}: {}", self.story()),
            },
        };
        assert_eq!(seen, expected, "{}", self.story());
        if expected == Answer::Exit {
            assert_eq!((out.rax, out.r8), (violation(), gpa), "{}", self.story());
        } else {
            // The instruction was completed: the guest is behind it.
            self.model.left(false);
        }
        if expected == Answer::Accepted {
            self.model.slot(gpa, level).entry = Entry::Mapped;
        }
    }

    fn story(&self) -> String {
        let from = self.log.len().saturating_sub(40);
        format!("after\n{}\n{:?}", self.log[from..].join("\n"), self.model.ranges)
    }
}

fn play(profile: ModuleProfile, seed: u64) -> BTreeSet<String> {
    let host = Host::with(MachineConfig { profile, ..MachineConfig::small() });
    let mut td = host.td_being_built(0, SEPT_VE_DISABLE);
    host.add_vcpu(&mut td, 0);
    host.ok(0, TdhLeaf::MR_FINALIZE, Gprs { rcx: td.tdr, ..Gprs::ZERO });
    host.tables(&td, BASE, 1);
    let empty = Range { top: FREE, pages: [FREE; SMALL_PAGES as usize] };
    let model = Model { ranges: [empty; 2], violations: 0, suspicious: Vec::new() };
    let (random, log) = (Random::new(seed), vec![format!("seed {seed}, {profile}")]);
    let mut play = Play { host, td, model, random, log, seen: BTreeSet::new() };
    for _ in 0..STEPS {
        if play.below(2) == 0 { play.host_call() } else { play.guest_acts() }
    }
    play.seen
}

#[test]
fn what_an_accept_answers_follows_from_the_entries_alone_however_long_the_td_ran() {
    for profile in [ModuleProfile::V1_5_01, ModuleProfile::V1_5_05] {
        let seen: BTreeSet<_> = (0..RUNS).flat_map(|seed| play(profile, seed)).collect();
        for kind in
            ["Accepted", "Already(0)", "Already(1)", "WrongSize(1)", "Exit", "blocked table", "refused entry"]
        {
            assert!(seen.contains(kind), "{profile}: the runs never came to {kind}, but to {seen:?}");
        }
    }
}
