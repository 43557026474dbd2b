//! A guest's state into the CPU and back.
//!
//! The CPU has no memory of whose state it held before: everything architectural is loaded. What follows from
//! control registers is recomputed by the CPU; linear translations are dropped where they depend on a register
//! that differs from the CPU's.

use tdx_module_iface::Reg;
use x86_emu::state::{
    ControlRegisters, Controls, DebugRegisters, Interruptibility, Msrs, Shadow, SimdState, TableRegister, cr0,
};
use x86_emu::{Activity, Attributes, Cpu, Event, EventKind, Gpr, Segment};

use crate::guest::{
    DescriptorTable, GuestState, Injection, InjectionKind, SegmentState, Window, Windows, X87State,
};
use crate::metadata::vp;

/// VMX interruptibility state.
const BLOCKED_BY_STI: u32 = 1;
const BLOCKED_BY_MOV_SS: u32 = 1 << 1;
const BLOCKED_BY_NMI: u32 = 1 << 3;

/// VMX activity state.
const ACTIVE: u32 = 0;
const HALTED: u32 = 1;
const SHUTDOWN: u32 = 2;
const WAIT_FOR_SIPI: u32 = 3;

/// What the module owns of the CPU's registers, and what it offers (VMCS of a TD).
pub(super) fn controls(max_pa: u32, windows: &Windows) -> Controls {
    Controls {
        cr0_owned: vp::CR0_HOST_OWNED,
        cr0_shadow: vp::CR0_INITIAL_SHADOW,
        cr4_owned: vp::CR4_HOST_OWNED,
        cr4_shadow: vp::CR4_INITIAL_SHADOW,
        physical_bits: u8::try_from(max_pa).unwrap_or(52),
        intercept_cr8_write: true,
        interrupt_window: windows.interrupt == Window::Wanted,
        nmi_window: windows.nmi == Window::Wanted,
        ..Controls::default()
    }
}

const fn gpr(reg: Reg) -> Gpr {
    Gpr::from_index(reg.index())
}

const fn segment_in(from: &SegmentState) -> Segment {
    Segment {
        selector: from.selector,
        base: from.base,
        limit: from.limit,
        attributes: Attributes(from.access),
    }
}

const fn segment_out(from: &Segment) -> SegmentState {
    SegmentState { selector: from.selector, base: from.base, limit: from.limit, access: from.attributes.0 }
}

const fn table_in(from: &DescriptorTable) -> TableRegister {
    // Limits have 16 bits; a VM entry with more fails, and TDH.VP.WR does not let them in.
    TableRegister { base: from.base, limit: from.limit as u16 }
}

const fn table_out(from: &TableRegister) -> DescriptorTable {
    DescriptorTable { base: from.base, limit: from.limit as u32 }
}

const fn event(from: &Injection) -> Event {
    let kind = match from.kind {
        InjectionKind::ExternalInterrupt => EventKind::ExternalInterrupt,
        InjectionKind::Nmi => EventKind::Nmi,
        InjectionKind::HardwareException => EventKind::HardwareException,
        InjectionKind::SoftwareInterrupt => EventKind::SoftwareInterrupt,
        InjectionKind::PrivilegedSoftwareException => EventKind::PrivilegedSoftwareException,
        InjectionKind::SoftwareException => EventKind::SoftwareException,
    };
    Event {
        vector: from.vector,
        kind,
        error_code: from.error_code,
        instruction_length: from.instruction_length,
    }
}

/// Loads everything, and takes the event that is to be delivered.
pub(super) fn load(cpu: &mut Cpu, state: &mut GuestState) {
    for reg in Reg::ALL {
        cpu.set_gpr(gpr(reg), state.gprs.get(reg));
    }
    cpu.set_gpr(Gpr::Rsp, state.rsp);
    cpu.set_rip(state.rip);
    cpu.flags.set(state.rflags);
    load_control(cpu, state);
    for (to, from) in cpu.segments.iter_mut().zip(&state.segments) {
        *to = segment_in(from);
    }
    cpu.ldtr = segment_in(&state.ldtr);
    cpu.tr = segment_in(&state.tr);
    cpu.gdtr = table_in(&state.gdtr);
    cpu.idtr = table_in(&state.idtr);
    cpu.debug = DebugRegisters { address: state.dr, dr6: state.dr6, dr7: state.dr7 };
    cpu.msrs = Msrs {
        star: state.star,
        lstar: state.lstar,
        fmask: state.fmask,
        kernel_gs_base: state.kernel_gs_base,
        sysenter_cs: state.sysenter_cs,
        sysenter_esp: state.sysenter_esp,
        sysenter_eip: state.sysenter_eip,
        tsc_aux: state.tsc_aux,
        pat: state.pat,
        xss: state.xss,
        debugctl: state.debugctl,
        spec_ctrl: state.spec_ctrl,
        ..Msrs::default()
    };
    let X87State { fsw, ftw, fop, fip, fdp, st } = state.x87;
    cpu.simd = SimdState { xmm: state.xmm, mxcsr: state.mxcsr, fcw: state.fcw, fsw, ftw, fop, fip, fdp, st };
    cpu.interruptibility = Interruptibility {
        shadow: match state.interruptibility & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS) {
            0 => Shadow::None,
            BLOCKED_BY_STI => Shadow::Sti,
            _ => Shadow::MovSs,
        },
        nmi_blocked: state.interruptibility & BLOCKED_BY_NMI != 0,
    };
    cpu.activity = match state.activity {
        HALTED => Activity::Halted,
        SHUTDOWN => Activity::Shutdown,
        WAIT_FOR_SIPI => Activity::WaitForSipi,
        _ => Activity::Active,
    };
    let _ = cpu.take_queued_event();
    if let Some(injection) = state.injection.take() {
        let _ = cpu.inject(event(&injection));
    }
}

fn load_control(cpu: &mut Cpu, state: &GuestState) {
    let control = ControlRegisters {
        // VM entry does not touch CR0.ET, which is always one.
        cr0: state.cr0 | cr0::ET,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        cr8: state.cr8,
        efer: state.efer,
        xcr0: state.xcr0,
    };
    let old = &cpu.control;
    let same = (old.cr0, old.cr3, old.cr4, old.efer) == (control.cr0, control.cr3, control.cr4, control.efer);
    if !same {
        cpu.tlb.flush_linear();
    }
    cpu.control = control;
}

/// Puts back what a guest can change.
pub(super) fn store(cpu: &Cpu, state: &mut GuestState) {
    for reg in Reg::ALL {
        state.gprs.set(reg, cpu.gpr(gpr(reg)));
    }
    state.rsp = cpu.gpr(Gpr::Rsp);
    state.rip = cpu.rip();
    state.rflags = cpu.flags.get();
    let control = &cpu.control;
    state.cr0 = control.cr0;
    state.cr2 = control.cr2;
    state.cr3 = control.cr3;
    state.cr4 = control.cr4;
    state.cr8 = control.cr8;
    state.efer = control.efer;
    state.xcr0 = control.xcr0;
    for (to, from) in state.segments.iter_mut().zip(&cpu.segments) {
        *to = segment_out(from);
    }
    state.ldtr = segment_out(&cpu.ldtr);
    state.tr = segment_out(&cpu.tr);
    state.gdtr = table_out(&cpu.gdtr);
    state.idtr = table_out(&cpu.idtr);
    state.dr = cpu.debug.address;
    state.dr6 = cpu.debug.dr6;
    state.dr7 = cpu.debug.dr7;
    let msrs = &cpu.msrs;
    state.star = msrs.star;
    state.lstar = msrs.lstar;
    state.fmask = msrs.fmask;
    state.kernel_gs_base = msrs.kernel_gs_base;
    state.sysenter_cs = msrs.sysenter_cs;
    state.sysenter_esp = msrs.sysenter_esp;
    state.sysenter_eip = msrs.sysenter_eip;
    state.tsc_aux = msrs.tsc_aux;
    state.pat = msrs.pat;
    state.xss = msrs.xss;
    state.debugctl = msrs.debugctl;
    state.spec_ctrl = msrs.spec_ctrl;
    let SimdState { xmm, mxcsr, fcw, fsw, ftw, fop, fip, fdp, st } = cpu.simd;
    (state.xmm, state.mxcsr, state.fcw) = (xmm, mxcsr, fcw);
    state.x87 = X87State { fsw, ftw, fop, fip, fdp, st };
    let shadow = match cpu.interruptibility.shadow {
        Shadow::None => 0,
        Shadow::Sti => BLOCKED_BY_STI,
        Shadow::MovSs => BLOCKED_BY_MOV_SS,
    };
    let nmi = if cpu.interruptibility.nmi_blocked { BLOCKED_BY_NMI } else { 0 };
    state.interruptibility = shadow | nmi;
    state.activity = match cpu.activity {
        Activity::Active => ACTIVE,
        Activity::Halted => HALTED,
        Activity::Shutdown => SHUTDOWN,
        Activity::WaitForSipi => WAIT_FOR_SIPI,
    };
}
