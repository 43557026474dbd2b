//! TDH.VP.ENTER (0): runs a vCPU until it leaves its TD (VP.ENTER reference). RCX TDVPR and flags; the other
//! registers answer the last TDG.VP.VMCALL, if that is how the vCPU left.

use core::cell::Cell;

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gpa, Hpa};
use tdx_module_iface::exit::{EptViolation, ExitReason, ExitReasonField};
use tdx_module_iface::lifecycle::{LastTdExit, VcpuState};
use tdx_module_iface::{Gprs, Operand, Reg, Status, StatusCode, TdhLeaf};

use super::associate;
use crate::fields::layout::{tdcs as td_fields, tdvps};
use crate::fields::{FieldStore, Width};
use crate::guest::{GuestCpu, GuestRegisters, GuestState, VmExit, Windows, gpr};
use crate::host::steps::{LockedVcpu, check_and_lock_state, check_vcpu_pages, lock_vcpu, op_states};
use crate::host::{Call, Step, busy, invalid, plain};
use crate::l2::Vm;
use crate::l2::exit::recorded;
use crate::l2::resume;
use crate::l2::state::{current_vm, forget_pages};
use crate::l2::store::VmView;
use crate::lock::{Mode, Side};
use crate::machine::{Asid, GuestEnv, GuestSpace, GuestTime};
use crate::rules::HostRbp;
use crate::td::{Tdcs, Tdvps};
use crate::vcpu::control::OwnedControls;
use crate::vcpu::run::{Presence, run};
use crate::vcpu::{AsyncExit, Handled, Running, TdExit, state, ve, zero_step};
use x86_arch::Gpr;

/// RCX bit 52: the host knows why the last exit was trap-like.
const RECOVERABILITY_HINT: u64 = 1 << 52;
/// RCX bit 53: go to the L1 VM instead of the L2 VM that ran last.
const RESUME_L1: u64 = 1 << 53;
/// RCX of a TD exit: the VM that it is about.
const VM_SHIFT: u32 = 32;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

pub(in crate::host) fn enter(
    call: &Call<'_>,
    regs: &mut Gprs,
    guest: Option<&mut dyn GuestCpu>,
) -> Step<Status> {
    let flags = regs.rcx & !ADDRESS;
    if flags & !(RECOVERABILITY_HINT | RESUME_L1) != 0 {
        return Err(invalid(Operand::RCX));
    }
    let vcpu = lock_vcpu(call, regs.rcx & ADDRESS, Mode::Shared, Operand::RCX)?;
    let tdcs = ready(call, &vcpu, flags)?;
    let epoch = enter_epoch(call, &vcpu, &tdcs)?;
    let result = with_epoch(call, regs, guest, &vcpu, &tdcs);
    tdcs.leave_epoch(epoch);
    result
}

/// The checks up to the association.
fn ready<'m>(call: &Call<'m>, vcpu: &LockedVcpu<'m>, flags: u64) -> Step<Tdcs<'m>> {
    let tdvps = &vcpu.tdvps;
    let states = const { op_states(TdhLeaf::VP_ENTER) };
    let (tdcs, state) = check_and_lock_state(&vcpu.owner.tdr, states, Mode::Shared)?;
    check_vcpu_pages(tdvps, &tdcs)?;
    if tdvps.state() != VcpuState::READY {
        return Err(plain(StatusCode::VCPU_STATE_INCORRECT));
    }
    associate(call, vcpu, &tdcs)?;
    drop(state);
    let was_trap = last_exit(tdvps) == LastTdExit::ASYNC_TRAP;
    let asks_for_l1 = flags & RESUME_L1 != 0;
    let in_l2 = current_vm(tdvps).is_l2();
    if (flags & RECOVERABILITY_HINT != 0 && !was_trap) || (asks_for_l1 && !in_l2) {
        return Err(invalid(Operand::RCX));
    }
    if call.machine.tsc() < tdvps.load_u64(tdvps::LAST_EXIT_TSC) {
        return Err(plain(StatusCode::TSC_ROLLBACK));
    }
    if asks_for_l1 {
        resume::ask_for_l1(tdvps, last_exit(tdvps));
    }
    Ok(tdcs)
}

fn last_exit(tdvps: &Tdvps<'_>) -> LastTdExit {
    LastTdExit(tdvps.load(tdvps::LAST_TD_EXIT, Width::B1) as u8)
}

/// Joins the current epoch; drops translations of older ones.
fn enter_epoch(call: &Call<'_>, vcpu: &LockedVcpu<'_>, tdcs: &Tdcs<'_>) -> Step<u64> {
    let refused = busy(Operand::TD_EPOCH);
    let lock = tdcs.epoch_lock().ok_or(refused)?;
    let _lock = lock.acquire(Mode::Shared, Side::Host).map_err(|_| refused)?;
    let epoch = tdcs.epoch();
    if vcpu.tdvps.load_u64(tdvps::VCPU_EPOCH) != epoch {
        if let Some(processor) = call.machine.processors().get(call.lp) {
            processor.tlb.flush(vcpu.owner.tdr.hpa);
        }
        forget_pages(&vcpu.tdvps);
        vcpu.tdvps.store_u64(tdvps::VCPU_EPOCH, epoch);
    }
    tdcs.enter_epoch(epoch);
    Ok(epoch)
}

/// Everything that happens while the vCPU counts as running in its epoch.
fn with_epoch(
    call: &Call<'_>,
    regs: &mut Gprs,
    guest: Option<&mut dyn GuestCpu>,
    vcpu: &LockedVcpu<'_>,
    tdcs: &Tdcs<'_>,
) -> Step<Status> {
    let tdvps = &vcpu.tdvps;
    if zero_step::is_suspicious(tdvps) {
        let refused = busy(Operand::SEPT_TREE);
        let lock = tdcs.tree_lock().ok_or(refused)?;
        let _tree = lock.acquire(Mode::Exclusive, Side::Host).map_err(|_| refused)?;
        if let Some(gpa) = zero_step::still_unmapped(tdvps, tdcs) {
            call.machine.set_host_xmm(call.lp, [0; 16]);
            return Ok(repeated_violation(regs, tdvps, gpa));
        }
    }
    match guest {
        Some(cpu) => run_on(call, regs, cpu, vcpu, tdcs),
        None => {
            let slot = call.machine.processors().get(call.lp).map(|processor| &processor.guest_cpu);
            let Some(mut cpu) = slot.and_then(|slot| slot.lock().take()) else {
                // No CPU is plugged in that could execute a guest: the entry fails as an invalid one does.
                return Err(plain(StatusCode::VCPU_STATE_INCORRECT));
            };
            let result = run_on(call, regs, cpu.as_mut(), vcpu, tdcs);
            if let Some(slot) = slot {
                *slot.lock() = Some(cpu);
            }
            result
        }
    }
}

/// What a zero-stepping host gets instead of a further step. The guest did not run: the host's RBP is its own.
fn repeated_violation(regs: &mut Gprs, tdvps: &Tdvps<'_>, gpa: Gpa) -> Status {
    let exit = AsyncExit {
        qualification: EptViolation::WRITE | u64::from(current_vm(tdvps).number()) << VM_SHIFT,
        gpa,
        ..AsyncExit::new(StatusCode::SUCCESS, ExitReasonField(u32::from(ExitReason::EPT_VIOLATION.0)))
    };
    tdvps.store(tdvps::LAST_TD_EXIT, Width::B1, u64::from(LastTdExit::ASYNC_FAULT.0));
    let rbp = regs.rbp;
    give_async(regs, &exit, rbp)
}

/// Tells a guest of the zero-steps that it may have been made to do: L1 by #VE, or by the exit of its L2 VM.
fn tell_of_steps(running: &Running<'_, '_>, guest: &mut GuestState) {
    let last = recorded(running, running.vm());
    if !zero_step::is_suspicious(running.tdvps) || !zero_step::is_to_be_told(running.tdcs, &last) {
        return;
    }
    if running.vm().is_l2() {
        resume::ask_for_l1(running.tdvps, last_exit(running.tdvps));
    } else if zero_step::can_be_told(running.tdvps, guest, &last)
        && let Handled::Inject(event) = ve::inject(running, &VmExit { gla: 0, ..last })
    {
        guest.event = Some(event);
    }
}

fn run_on(
    call: &Call<'_>,
    regs: &mut Gprs,
    cpu: &mut dyn GuestCpu,
    vcpu: &LockedVcpu<'_>,
    tdcs: &Tdcs<'_>,
) -> Step<Status> {
    let (tdr, tdvps) = (&vcpu.owner.tdr, &vcpu.tdvps);
    if !tdvps.change_state(VcpuState::READY, VcpuState::ACTIVE) {
        return Err(plain(StatusCode::VCPU_STATE_INCORRECT));
    }
    let vm = current_vm(tdvps);
    let mut guest = state::load(&VmView::new(call.machine.memory(), tdvps, vm));
    if last_exit(tdvps) == LastTdExit::TDVMCALL {
        answer_vmcall(regs, &call.machine.host_xmm(call.lp), &mut guest);
    }
    let env = GuestEnv {
        machine: call.machine,
        lp: call.lp,
        asid: Asid { tdr: tdr.hpa, vm: Vm::L1 },
        vcpu: Hpa::new(regs.rcx & ADDRESS),
        space: GuestSpace {
            key: tdr.key(),
            sept_root: tdcs.sept_root(),
            root_level: tdcs.root_level(),
            shared_root: state::shared_root(tdvps),
            shared_bit: tdcs.shared_bit(),
        },
        time: GuestTime {
            multiplier: tdcs.load_u64(td_fields::TSC_MULTIPLIER),
            offset: tdcs.load_u64(td_fields::TSC_OFFSET),
        },
        windows: Windows::default(),
        controls: OwnedControls::load(tdvps),
        intercepts: Default::default(),
    };
    let running = Running {
        machine: call.machine,
        lp: call.lp,
        tdr,
        tdcs,
        tdvps,
        env,
        running: Cell::new(vm),
        entered_at: guest.rip(),
    };
    tell_of_steps(&running, &mut guest);
    let prepared = if vm.is_l2() { resume::prepare(&running, &mut guest) } else { Ok(()) };
    let rbp = regs.rbp;
    let entered = prepared.is_ok();
    let exit = match prepared {
        Err(missing) => TdExit::Async(missing),
        Ok(()) => {
            let _presence = Presence::enter(&running);
            run(&running, &mut guest, cpu)
        }
    };
    let (status, kind) = match exit {
        TdExit::Vmcall { mask } => {
            let status = give_vmcall(regs, &guest.gprs(), mask, tdcs);
            call.machine.set_host_xmm(call.lp, passed_xmm(&guest, mask));
            guest.regs[Gpr::Rax] = 0;
            (status, LastTdExit::TDVMCALL)
        }
        TdExit::Async(exit) => {
            call.machine.set_host_xmm(call.lp, [0; 16]);
            (give_async(regs, &exit, rbp_after_async_exit(call, regs, tdcs)), exit.kind)
        }
    };
    if entered && let Some(processor) = call.machine.processors().get(call.lp) {
        processor.exit_xfam.store(tdcs.load_u64(td_fields::XFAM), Ordering::Release);
    }
    if !entered {
        // Recorded: an entry that comes to nothing keeps the host's RBP.
        regs.rbp = rbp;
    }
    regs.rcx |= u64::from(running.vm().number()) << VM_SHIFT;
    state::save(&running.view(running.vm()), &guest);
    tdvps.store_u64(tdvps::LAST_EXIT_TSC, call.machine.tsc());
    if !status.is_fatal() {
        tdvps.store(tdvps::LAST_TD_EXIT, Width::B1, u64::from(kind.0));
    }
    // A triple fault has disabled the vCPU; everything else leaves it ready.
    let _ = tdvps.change_state(VcpuState::ACTIVE, VcpuState::READY);
    Ok(status)
}

/// The registers that a TDG.VP.VMCALL exposes take the host's values.
fn answer_vmcall(host: &Gprs, host_xmm: &[u128; 16], guest: &mut GuestState) {
    let mask = guest.regs[Gpr::Rcx];
    for reg in exposed(mask) {
        guest.set_gpr(gpr(reg), host.get(reg));
    }
    for ((index, to), from) in (0..).zip(&mut guest.simd.xmm).zip(host_xmm) {
        if exposes_xmm(mask, index) {
            *to = *from;
        }
    }
    guest.regs[Gpr::Rax] = 0;
}

/// Bits 31:16 of the mask are XMM15 to XMM0.
const fn exposes_xmm(mask: u64, index: u32) -> bool {
    mask >> (16 + index) & 1 != 0
}

/// The XMM registers that a TDG.VP.VMCALL exposes; zeros for the others.
fn passed_xmm(guest: &GuestState, mask: u64) -> [u128; 16] {
    let mut passed = guest.simd.xmm;
    for (index, xmm) in (0..).zip(&mut passed) {
        if !exposes_xmm(mask, index) {
            *xmm = 0;
        }
    }
    passed
}

fn exposed(mask: u64) -> impl Iterator<Item = Reg> {
    Reg::ALL
        .into_iter()
        .filter(move |reg| !matches!(reg, Reg::Rax | Reg::Rcx) && mask >> reg.index() & 1 != 0)
}

/// What an exit leaves in the host's RBP: its own value where the TD was made so, zero otherwise.
fn rbp_after_exit(host: &Gprs, tdcs: &Tdcs<'_>) -> u64 {
    use tdx_module_iface::td_params::config_flags::NO_RBP_MOD;
    if tdcs.load_u64(td_fields::CONFIG_FLAGS) & NO_RBP_MOD != 0 { host.rbp } else { 0 }
}

fn give_vmcall(host: &mut Gprs, guest: &Gprs, mask: u64, tdcs: &Tdcs<'_>) -> Status {
    let rbp = rbp_after_exit(host, tdcs);
    *host = Gprs { rcx: mask & 0xffff_ffff, rbp, ..Gprs::ZERO };
    for reg in exposed(mask) {
        host.set(reg, guest.get(reg));
    }
    Status::with_details(StatusCode::SUCCESS, u32::from(ExitReason::TDCALL.0))
}

/// What an asynchronous exit leaves there.
fn rbp_after_async_exit(call: &Call<'_>, host: &Gprs, tdcs: &Tdcs<'_>) -> u64 {
    match call.machine.config().rules().rbp_after_async_exit {
        HostRbp::Cleared => 0,
        HostRbp::Kept => rbp_after_exit(host, tdcs),
    }
}

fn give_async(host: &mut Gprs, exit: &AsyncExit, rbp: u64) -> Status {
    *host = Gprs {
        rbp,
        rcx: exit.qualification,
        rdx: exit.extended.0,
        r8: exit.gpa.get(),
        r9: u64::from(exit.interruption_info),
        ..Gprs::ZERO
    };
    exit.status
}
