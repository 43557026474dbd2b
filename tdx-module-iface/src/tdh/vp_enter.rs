//! `TDH.VP.ENTER`: running a VCPU until it leaves the guest.
//!
//! After an exit by TDG.VP.VMCALL the next entry carries the host's answer in the registers that the guest
//! exposed; after any other exit the host's registers are ignored.
//!
//! An exit is told from a refusal by the status code: success, the non-recoverable codes, the cross-TD codes
//! and the host-priority timeout are exits; everything else means that the guest did not run.

use core::fmt;

use tdvisor_base::Gpa;

use super::issue;
use crate::exit::{ExitReason, ExitReasonField, ExtendedQualification};
use crate::handles::Tdvpr;
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, Reg, SeamCall};
use crate::status::{Status, StatusCode};

/// RCX bit 52: the host acted on the host-recoverability hint of the last exit.
const HOST_RECOVERABILITY_HINT: u64 = 1 << 52;
/// RCX bit 53: resume the L1 VM although an L2 VM was running.
const RESUME_L1: u64 = 1 << 53;

/// The general-purpose registers that a guest exposed with TDG.VP.VMCALL.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ExposedGprs {
    mask: u16,
    values: Gprs,
}

impl ExposedGprs {
    /// Registers exposed by `mask` (bit n is the register with number n), with these values. RAX, RCX and RSP
    /// are never exposed.
    pub fn new(mask: u16, values: Gprs) -> Self {
        Self { mask: mask & !0b1_0011, values }
    }

    /// The register mask.
    pub const fn mask(&self) -> u16 {
        self.mask
    }

    /// Whether the guest exposed this register.
    pub const fn is_exposed(&self, reg: Reg) -> bool {
        self.mask >> reg.index() & 1 != 0
    }

    /// The value of an exposed register; `None` for the others.
    pub const fn get(&self, reg: Reg) -> Option<u64> {
        if self.is_exposed(reg) { Some(self.values.get(reg)) } else { None }
    }

    /// Gives an exposed register a value for the answer; others stay as they are, because the guest would not
    /// see them. Returns whether the register is exposed.
    pub const fn set(&mut self, reg: Reg, value: u64) -> bool {
        let exposed = self.is_exposed(reg);
        if exposed {
            self.values.set(reg, value);
        }
        exposed
    }

    /// The exposed registers with their values, by number.
    pub fn iter(&self) -> impl Iterator<Item = (Reg, u64)> + '_ {
        self.values.iter().filter(|(reg, _)| self.is_exposed(*reg))
    }
}

impl fmt::Debug for ExposedGprs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// How to enter.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry {
    answer: Option<ExposedGprs>,
    flags: u64,
}

impl Entry {
    /// The first entry, or one after an asynchronous exit.
    pub const fn new() -> Self {
        Self { answer: None, flags: 0 }
    }

    /// After an exit by TDG.VP.VMCALL: the guest sees these registers.
    pub const fn answering(answer: ExposedGprs) -> Self {
        Self { answer: Some(answer), flags: 0 }
    }

    /// Confirms the host-recoverability hint of the last exit. Refused unless that exit was trap-like.
    #[must_use]
    pub const fn with_host_recoverability_hint(self) -> Self {
        Self { flags: self.flags | HOST_RECOVERABILITY_HINT, ..self }
    }

    /// Resumes the L1 VM. Refused unless an L2 VM was running.
    #[must_use]
    pub const fn resuming_l1(self) -> Self {
        Self { flags: self.flags | RESUME_L1, ..self }
    }
}

/// Why the guest was left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TdExit {
    /// The guest called TDG.VP.VMCALL.
    TdVmCall(TdVmCallExit),
    /// Anything else.
    Async(AsyncExit),
}

/// An exit by TDG.VP.VMCALL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TdVmCallExit {
    /// What the guest exposed, and where the answer goes.
    pub gprs: ExposedGprs,
    /// Which XMM registers the guest exposed (bit n is XMMn). They are not part of the call's registers.
    pub xmm_mask: u16,
    /// Which VM called: 0 is the TD itself.
    pub vm: u8,
    /// The raw exit reason field, with the bus-lock flag.
    pub reason: ExitReasonField,
    /// The status, for the partitioning codes.
    pub status: Status,
}

/// What an asynchronous exit means for the VCPU and the TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AsyncKind {
    /// The VCPU may be entered again.
    Resumable,
    /// The VCPU is disabled (triple fault); others go on.
    VcpuDead,
    /// The TD is fatally broken: no VCPU runs any more.
    TdDead(TdDeath),
    /// A guest leaf on another TD could not proceed; the instruction will run again.
    CrossTdFault,
    /// A guest leaf on another TD could not proceed; it has returned an error to the guest.
    CrossTdTrap,
    /// The guest waited too long for a lock that the host holds.
    HostPriorityBusyTimeout,
    /// An exit that TD partitioning defines; the status says which.
    Partitioning(StatusCode),
}

/// What killed a TD.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TdDeath {
    /// The guest's state made running impossible (for example a failed VM entry).
    GuestState,
    /// Machine check in the TD's memory.
    NonAccessible,
    /// The APIC mode changed under the TD.
    WrongApicMode,
    /// The TD's metadata is corrupted.
    CorruptedMetadata,
}

/// An asynchronous exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AsyncExit {
    /// What the exit means.
    pub kind: AsyncKind,
    /// The VMX exit reason with its flags.
    pub reason: ExitReasonField,
    /// The exit qualification as far as the host may see it (32 bits).
    pub qualification: u32,
    /// The extended exit qualification.
    pub extended: ExtendedQualification,
    /// The guest-physical address, page aligned; zero where the exit has none.
    pub gpa: Gpa,
    /// The VM-exit interruption information.
    pub interruption: u32,
    /// Which VM ran: 0 is the TD itself.
    pub vm: u8,
    /// The whole status.
    pub status: Status,
}

impl TdExit {
    /// The exit that these registers describe; `None` where the status says that the guest did not run.
    pub fn from_gprs(gprs: &Gprs) -> Option<Self> {
        let status = Status::from_raw(gprs.rax);
        let kind = async_kind(status)?;
        let reason = ExitReasonField(status.details());
        let vm = (gprs.rcx >> 32 & 3) as u8;
        let is_vmcall_code = matches!(
            status.code(),
            StatusCode::SUCCESS | StatusCode::L2_EXIT_HOST_ROUTED_TDVMCALL | StatusCode::TD_EXIT_ON_L2_TO_L1
        );
        if is_vmcall_code && reason.basic() == ExitReason::TDCALL {
            return Some(Self::TdVmCall(TdVmCallExit {
                gprs: ExposedGprs::new((gprs.rcx & 0xffff) as u16, *gprs),
                xmm_mask: (gprs.rcx >> 16 & 0xffff) as u16,
                vm,
                reason,
                status,
            }));
        }
        Some(Self::Async(AsyncExit {
            kind,
            reason,
            qualification: (gprs.rcx & 0xffff_ffff) as u32,
            extended: ExtendedQualification(gprs.rdx),
            gpa: Gpa::new(gprs.r8),
            interruption: (gprs.r9 & 0xffff_ffff) as u32,
            vm,
            status,
        }))
    }
}

fn async_kind(status: Status) -> Option<AsyncKind> {
    Some(match status.code() {
        StatusCode::SUCCESS => AsyncKind::Resumable,
        StatusCode::NON_RECOVERABLE_VCPU => AsyncKind::VcpuDead,
        StatusCode::NON_RECOVERABLE_TD => AsyncKind::TdDead(TdDeath::GuestState),
        StatusCode::NON_RECOVERABLE_TD_NON_ACCESSIBLE => AsyncKind::TdDead(TdDeath::NonAccessible),
        StatusCode::NON_RECOVERABLE_TD_WRONG_APIC_MODE => AsyncKind::TdDead(TdDeath::WrongApicMode),
        StatusCode::NON_RECOVERABLE_TD_CORRUPTED_MD => AsyncKind::TdDead(TdDeath::CorruptedMetadata),
        StatusCode::CROSS_TD_FAULT => AsyncKind::CrossTdFault,
        StatusCode::CROSS_TD_TRAP => AsyncKind::CrossTdTrap,
        StatusCode::HOST_PRIORITY_BUSY_TIMEOUT => AsyncKind::HostPriorityBusyTimeout,
        code @ (StatusCode::L2_EXIT_HOST_ROUTED_ASYNC
        | StatusCode::L2_EXIT_HOST_ROUTED_TDVMCALL
        | StatusCode::L2_EXIT_PENDING_INTERRUPT
        | StatusCode::PENDING_INTERRUPT
        | StatusCode::TD_EXIT_BEFORE_L2_ENTRY
        | StatusCode::TD_EXIT_ON_L2_VM_EXIT
        | StatusCode::TD_EXIT_ON_L2_TO_L1) => AsyncKind::Partitioning(code),
        _ => return None,
    })
}

/// Runs a VCPU on this LP until it leaves the guest.
///
/// # Errors
/// The guest did not run: `VCPU_STATE_INCORRECT` where it runs elsewhere or is disabled, `VCPU_ASSOCIATED`
/// where it belongs to another LP, `OP_STATE_INCORRECT` before finalisation, `TD_FATAL`, `TSC_ROLLBACK`,
/// [`Retry::Busy`](crate::outcome::Retry::Busy) where a lock is held.
pub fn tdh_vp_enter<S: SeamCall + ?Sized>(
    lp: &mut S,
    tdvpr: Tdvpr,
    entry: Entry,
) -> Result<TdExit, SeamError> {
    let leaf = TdhLeaf::VP_ENTER;
    let mut gprs = Gprs::ZERO;
    if let Some(answer) = &entry.answer {
        for (reg, value) in answer.iter() {
            gprs.set(reg, value);
        }
    }
    gprs.rcx = tdvpr.0.get() | entry.flags;
    let answer = issue(lp, leaf, leaf.word(), gprs)?;
    match TdExit::from_gprs(&answer.gprs) {
        Some(exit) => Ok(exit),
        None => {
            let status = answer.status;
            match answer.plain() {
                Err(error) => Err(error),
                // `from_gprs` accepts every success, so this names a status that no rule covers.
                Ok(_) => Err(SeamError::Refused { leaf, status, details: None }),
            }
        }
    }
}
