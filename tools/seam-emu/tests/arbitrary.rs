//! Arbitrary SEAMCALLs, TDCALLs and VM exits: no panic, no overflow, and page counts that add up afterwards.
//!
//! Operands are drawn from what a host really has (its pages, addresses, levels), then bent. A failure names the
//! seed; `SEAM_EMU_SEED=<seed>` replays just that one.

#![allow(clippy::unwrap_used, reason = "a test stops where its host fails")]

mod support;

use seam_emu::guest::{Access, Injection};
use seam_emu::{GuestEnv, GuestState, ScriptedGuest, VmExit};
use support::{Host, TDMR, Td};
use tdvisor_base::{Gpa, Hpa};
use tdx_module_iface::exit::{ExitReason, ExitReasonField};
use tdx_module_iface::{Gprs, Reg, Status, TdhLeaf};

const GPA: u64 = 0x8000_0000;
const CHLDCNT: u64 = 0x8010_0003_0000_0004;
const CALLS: usize = 4000;
const SEEDS: core::ops::Range<u64> = 0..60;
/// Leaves that end the module or a TD for good (VPFLUSHDONE, SYS.SHUTDOWN); once in a while is enough.
const LAST_WORDS: [u64; 2] = [19, 52];

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    /// A value that some operand could have.
    fn value(&mut self, tds: &[Td]) -> u64 {
        let td = &tds[self.below(tds.len() as u64) as usize];
        let value = match self.below(10) {
            0 => td.tdr,
            1 => td.vcpus[0],
            2 | 3 => TDMR + 0x10_0000 + self.below(64) * 0x1000,
            4 => TDMR + (1 << 29) + self.below(4) * 0x20_0000,
            5 | 6 => (GPA + self.below(8) * 0x1000) | self.below(3),
            7 => (GPA + self.below(4) * 0x20_0000) | self.below(4),
            8 => [0, 1, u64::MAX, support::SCRATCH, 32, 40, 1 << 63][self.below(7) as usize],
            _ => self.next(),
        };
        if self.one_in(16) { value ^ 1 << self.below(64) } else { value }
    }

    fn registers(&mut self, tds: &[Td]) -> Gprs {
        let mut gprs = Gprs::ZERO;
        for reg in [Reg::Rcx, Reg::Rdx, Reg::R8, Reg::R9, Reg::R10, Reg::R11, Reg::R12, Reg::R13] {
            gprs.set(reg, self.value(tds));
        }
        if !self.one_in(4) {
            // The operands that most memory leaves want.
            gprs.rcx = if self.one_in(2) { GPA + self.below(8) * 0x1000 } else { GPA | self.below(4) };
            gprs.rdx = tds[self.below(tds.len() as u64) as usize].tdr;
        }
        gprs
    }

    fn exit(&mut self, state: &mut GuestState, env: &GuestEnv<'_>, tds: &[Td]) -> VmExit {
        state.rip = state.rip.wrapping_add(self.below(3) * 64);
        match self.below(4) {
            0 => {
                let access = [Access::Read, Access::Write, Access::Execute][self.below(3) as usize];
                let gpa = Gpa::new(self.value(tds));
                env.translate(gpa, access).err().unwrap_or_else(VmExit::tdcall)
            }
            1 => {
                // Most reasons that a TD does not survive are left to chance.
                let reason = if self.one_in(40) {
                    self.below(80)
                } else {
                    [10, 12, 28, 30, 31, 32, 48, 54][self.below(8) as usize]
                };
                let mut exit = VmExit::instruction(ExitReason(reason as u16), 3, self.next());
                exit.gpa = Gpa::new(self.value(tds));
                if self.one_in(2000) {
                    exit.reason = ExitReasonField(exit.reason.0 | ExitReasonField::ENTRY_FAILURE);
                }
                exit
            }
            _ => {
                state.gprs = self.registers(tds);
                state.gprs.rax = self.below(30);
                state.gprs.rcx = (GPA + self.below(8) * 0x1000) | self.below(2);
                VmExit::tdcall()
            }
        }
    }
}

/// Runs one seed; gives the machine and the TDs for the audit.
fn play(seed: u64) -> (Host, Vec<Td>) {
    let mut dice = Dice(seed);
    let host = Host::ready();
    let tds = vec![host.td(1), host.td_being_built(1, 1)];
    for td in &tds {
        host.tables(td, GPA, 0);
    }
    for _ in 0..CALLS {
        let mut gprs = dice.registers(&tds);
        let leaf = dice.below(130);
        if LAST_WORDS.contains(&leaf) && !dice.one_in(100) {
            continue;
        }
        gprs.rax = leaf | if dice.one_in(8) { dice.below(3) << 16 } else { 0 };
        if leaf == 0 {
            gprs.rcx = tds[dice.below(2) as usize].vcpus[0];
        }
        let lp = dice.below(2) as usize;
        host.machine.set_interrupt_pending(lp, dice.one_in(10));
        let mut steps = 0;
        let mut guest = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            let _: Option<Injection> = state.injection.take();
            steps += 1;
            if steps > 20 {
                return VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
            }
            dice.exit(state, env, &tds)
        });
        if host.machine.lp(lp).unwrap().seamcall_with(&mut gprs, &mut guest).is_err() {
            break;
        }
        if dice.one_in(500) {
            let page = dice.value(&tds) & 0xffff_ffff;
            // A host that writes anywhere: refused, ignored or punished, never fatal to the emulator.
            let _ = host.machine.host_write(Hpa::new(page), &[1, 2, 3]);
        }
    }
    (host, tds)
}

/// Pages that the PAMT says belong to a TD, beside its TDR.
fn pages_of(host: &Host, td: &Td) -> u64 {
    let mut count = 0;
    let mut hpa = TDMR;
    while hpa < TDMR + (1 << 30) {
        let out = host.call(0, TdhLeaf::PHYMEM_PAGE_RDMD, Gprs { rcx: hpa, ..Gprs::ZERO });
        let pages = 1u64 << (9 * out.r8);
        if !matches!(out.rcx, 0 | 1 | 4) && out.rdx == td.tdr {
            count += pages;
        }
        hpa += pages * 0x1000;
    }
    count
}

#[test]
fn whatever_is_called_nothing_panics_and_every_page_is_counted_once() {
    let seeds = match std::env::var("SEAM_EMU_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..seed + 1,
        None => SEEDS,
    };
    for seed in seeds {
        println!("SEAM_EMU_SEED={seed}");
        let (host, tds) = play(seed);
        for td in &tds {
            let mut gprs =
                Gprs { rax: u64::from(TdhLeaf::MNG_RD.0), rcx: td.tdr, rdx: CHLDCNT, ..Gprs::ZERO };
            let answered = tdx_module_iface::SeamCall::seamcall(&mut host.machine.lp(0).unwrap(), &mut gprs);
            if answered.is_ok() && Status::from_raw(gprs.rax).is_success() {
                assert_eq!(gprs.r8, pages_of(&host, td), "seed {seed}: pages of TD {:#x}", td.tdr);
            }
        }
    }
}
