//! A vCPU that a test runs one act at a time: it enters the guest, the guest does one thing, and leaves.
//!
//! The test stands in for the run loop: it resolves the EPT violations of an act as the loop does, so that an
//! act is over when the guest has done it. Between two acts the vCPU is outside, and its processor keeps no
//! translation of shared memory.

use std::sync::Arc;

use mirror_ept::Access;
use seam_emu::guest::GuestRegisters;
use seam_emu::machine::GuestMemoryError;
use seam_emu::{GuestEnv, GuestState, Machine, ScriptedGuest, VmExit};
use td_host::memory::Resolution;
use td_host::platform::{Lp, LpId, Processors};
use tdvisor_base::{Gpa, Level, Side};
use tdx_module_iface::exit::{ExitReason, ExtendedType};
use tdx_module_iface::tdh::{self, TdExit};
use tdx_module_iface::tdmr::PageType;
use tdx_module_iface::{Gprs, Status, StatusCode, TdgLeaf, TdhLeaf};
use x86_arch::Gpr;

use super::{EmulatedHost, EmulatedSeat, EmulatedTd};

/// What a guest does in one act.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// TDG.MEM.PAGE.ACCEPT.
    Accept { gpa: Gpa, level: Level },
    /// A write of one word.
    Write { gpa: Gpa, value: u64 },
    /// A read of one word.
    Read { gpa: Gpa },
}

/// How an act ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    /// A TDCALL returned this.
    Status(Status),
    /// An access went through, and read this.
    Word(u64),
    /// The host could not make it go on.
    Stuck(Resolution),
    /// The guest touched private memory that it has not accepted: a real TD dies of that.
    NotAccepted,
}

/// One vCPU of a TD.
pub struct Guest<'h> {
    host: &'h EmulatedHost,
    machine: Arc<Machine>,
    lp: LpId,
    tdvpr: u64,
    /// TD exits of the last act.
    pub exits: u32,
    /// Where the instruction of the next act is.
    rip: u64,
}

impl<'h> Guest<'h> {
    /// The vCPUs of a TD, by number.
    pub fn all(host: &'h EmulatedHost, td: &EmulatedTd<'h>) -> Vec<Self> {
        let roots = roots(host, td);
        let vcpu = |lp: LpId| {
            let machine = host.platform().machine();
            let at = roots.iter().find(|tdvpr| runs_on(host, &machine, **tdvpr, lp));
            Self { host, machine, lp, tdvpr: *at.expect("each vCPU has a root page"), exits: 0, rip: 0x1000 }
        };
        td.vcpus().iter().map(|v| vcpu(v.lp())).collect()
    }

    /// Has the guest do one thing, resolving its exits as the run loop does.
    pub fn act(&mut self, td: &EmulatedTd<'h>, seat: &mut EmulatedSeat<'_, 'h>, act: Act) -> Did {
        self.exits = 0;
        // Each act is an instruction of its own: one that could not go on is given up, not repeated for ever.
        self.rip = self.rip.wrapping_add(64);
        loop {
            let (exit, did) = self.enter(act);
            self.exits += 1;
            assert!(self.exits < 1000, "{act:?} goes on for ever: {exit:?}");
            let Some(exit) = exit else { continue };
            let TdExit::Async(exit) = exit else { panic!("{act:?} made a call to the host") };
            match exit.reason.basic() {
                // Done, or interrupted before it was. A guest that finds the host at its page tries again.
                ExitReason::EXTERNAL_INTERRUPT => match did {
                    Some(Did::Status(status)) if status.code() == StatusCode::OPERAND_BUSY => continue,
                    Some(did) => return did,
                    None => continue,
                },
                ExitReason::EPT_VIOLATION => {}
                reason => panic!("{act:?} left the guest for {reason}"),
            }
            let (side, gpa) = td.shared_bit().split(exit.gpa);
            let gfn = gpa.frame();
            let resolution = if side == Side::Shared {
                let access = if matches!(act, Act::Write { .. }) { Access::Write } else { Access::Read };
                td.memory().shared_fault(seat, gfn, access, || false)
            } else {
                let largest = match exit.extended.kind() {
                    ExtendedType::PENDING_EPT_VIOLATION => return Did::NotAccepted,
                    ExtendedType::ACCEPT => exit.extended.requested_level().unwrap_or(Level::L4K),
                    _ => Level::L1G,
                };
                td.memory().private_fault(seat, gfn, largest, || false)
            };
            match resolution.expect("a fault is resolved") {
                Resolution::Mapped(_) => {}
                why => return Did::Stuck(why),
            }
        }
    }

    /// Interrupts the processor: its next entry ends at once.
    pub fn interrupt(&self) {
        self.host.platform().send_ipi(self.lp);
    }

    /// Enters the guest once. The exit, unless the module was busy, and what the guest did, if it came to that.
    fn enter(&self, act: Act) -> (Option<TdExit>, Option<Did>) {
        let mut lp = self.host.platform().take_lp(self.lp).expect("the vCPU's processor");
        let mut did = None;
        let mut issued = false;
        let mut guest = ScriptedGuest(|state: &mut GuestState, env: &GuestEnv<'_>| {
            state.enter_64_bit_mode();
            let done = VmExit::plain(ExitReason::EXTERNAL_INTERRUPT);
            if env.interrupt_pending() && !issued {
                return done;
            }
            // After a TDCALL the guest goes on behind it.
            if std::mem::replace(&mut issued, true) {
                did = Some(Did::Status(Status::from_raw(state.regs[Gpr::Rax])));
                return done;
            }
            state.set_rip(self.rip);
            let mut word = [0; 8];
            let result = match act {
                Act::Accept { gpa, level } => {
                    let rax = u64::from(TdgLeaf::MEM_PAGE_ACCEPT.0);
                    state.set_gprs(Gprs { rax, rcx: gpa.get() | u64::from(level.index()), ..Gprs::ZERO });
                    return VmExit::tdcall();
                }
                Act::Write { gpa, value } => env.write(gpa, &value.to_le_bytes()),
                Act::Read { gpa } => env.read(gpa, &mut word),
            };
            match result {
                Ok(()) => {
                    state.set_rip(self.rip.wrapping_add(4));
                    did = Some(Did::Word(u64::from_le_bytes(word)));
                    done
                }
                Err(GuestMemoryError::Exit(exit)) => exit,
                Err(GuestMemoryError::Memory(fault)) => panic!("{act:?} hit broken memory: {fault:?}"),
            }
        });
        let mut gprs = Gprs { rax: u64::from(TdhLeaf::VP_ENTER.0), rcx: self.tdvpr, ..Gprs::ZERO };
        let cpu = self.machine.lp(self.lp.0 as usize).expect("an emulated processor");
        cpu.seamcall_with(&mut gprs, &mut guest).expect("a module answers");
        lp.acknowledge_events();
        lp.invept(tdvisor_base::Hpa::new(0));
        let status = Status::from_raw(gprs.rax);
        let exit = TdExit::from_gprs(&gprs);
        let busy = status.code() == StatusCode::OPERAND_BUSY;
        assert!(exit.is_some() || busy, "the vCPU was not entered: {status:?}");
        (exit, did)
    }
}

/// Root pages of a TD's vCPUs: what the PAMT says is one and is owned by the TD.
fn roots(host: &EmulatedHost, td: &EmulatedTd<'_>) -> Vec<u64> {
    let mut lp = host.platform().take_lp(LpId(0)).expect("the processor for management");
    let tdmrs = host.tdmrs().iter().map(|tdmr| tdmr.range);
    let pages = tdmrs.flat_map(|range| (range.base.get()..range.end()).step_by(4096));
    pages
        .filter(|page| {
            tdh::tdh_phymem_page_rdmd(&mut lp, tdvisor_base::Hpa::new(*page)).is_ok_and(|(metadata, _)| {
                metadata.page_type == PageType::TDVPR && metadata.owner == td.tdr().hpa()
            })
        })
        .collect()
}

/// Whether a vCPU is the one of this processor: the module refuses to enter it on any other.
fn runs_on(host: &EmulatedHost, machine: &Machine, tdvpr: u64, lp: LpId) -> bool {
    let _token = host.platform().take_lp(lp).expect("the vCPU's processor");
    let mut gprs = Gprs { rax: u64::from(TdhLeaf::VP_ENTER.0), rcx: tdvpr, ..Gprs::ZERO };
    let mut idle = ScriptedGuest(|state: &mut GuestState, _: &GuestEnv<'_>| {
        state.enter_64_bit_mode();
        VmExit::plain(ExitReason::EXTERNAL_INTERRUPT)
    });
    let cpu = machine.lp(lp.0 as usize).expect("an emulated processor");
    cpu.seamcall_with(&mut gprs, &mut idle).expect("a module answers");
    let status = Status::from_raw(gprs.rax);
    assert!(
        status.is_success() || status.code() == StatusCode::VCPU_ASSOCIATED,
        "entering a vCPU: {status:?}"
    );
    status.is_success()
}
