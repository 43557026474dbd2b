//! A host processor as a snapshot holds it, between two instructions.
//!
//! Every field of the architecture's state is named, so that one that is added does not compile until it is saved. What the
//! software CPU derives from it (translations, decoded code, windows) begins anew.

use serde::{Deserialize, Serialize};
use tdvisor_base::Hpa;
use x86_arch::{
    Activity, Attributes, ControlRegisters, CpuState, DebugRegisters, Event, EventKind, Gpr,
    Interruptibility, Msrs as StateMsrs, Segment, SimdState, TableRegister, X87State,
};

use super::Processor;
use crate::msr::Msrs;
use crate::vmcs::Region;
use crate::vmx::Vmx;

/// A processor.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedProcessor {
    /// Instructions that it has retired since power-on.
    retired: u64,
    cpu: SavedCpu,
    msrs: Msrs,
    vmx: SavedVmx,
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedVmx {
    Off,
    Root { region: u64, current: Option<u64> },
}

/// Selector, base, limit, attributes.
type SavedSegment = (u16, u64, u32, u32);

#[derive(Debug, Serialize, Deserialize)]
struct SavedCpu {
    gprs: [u64; 16],
    rip: u64,
    flags: u64,
    segments: [SavedSegment; 6],
    ldtr: SavedSegment,
    tr: SavedSegment,
    gdtr: (u64, u16),
    idtr: (u64, u16),
    /// CR0, CR2, CR3, CR4, CR8, EFER, XCR0.
    control: [u64; 7],
    msrs: [u64; 13],
    debug: ([u64; 4], u64, u64),
    x87: SavedX87,
    mxcsr: u32,
    xmm: [u128; 16],
    ymm_high: [u128; 16],
    pkru: u32,
    interruptibility: u32,
    activity: u32,
    event: Option<SavedEvent>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedX87 {
    control: u16,
    status: u16,
    tags: u8,
    opcode: u16,
    instruction: u64,
    data: u64,
    registers: [u128; 8],
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedEvent {
    vector: u8,
    kind: SavedKind,
    error_code: Option<u32>,
    instruction_length: u8,
}

#[derive(Debug, Serialize, Deserialize)]
enum SavedKind {
    ExternalInterrupt,
    Nmi,
    HardwareException,
    SoftwareInterrupt,
    PrivilegedSoftwareException,
    SoftwareException,
}

const fn segment(of: Segment) -> SavedSegment {
    let Segment { selector, base, limit, attributes } = of;
    (selector, base, limit, attributes.0)
}

const fn of_segment((selector, base, limit, attributes): SavedSegment) -> Segment {
    Segment { selector, base, limit, attributes: Attributes(attributes) }
}

const fn table(of: TableRegister) -> (u64, u16) {
    let TableRegister { base, limit } = of;
    (base, limit)
}

impl SavedEvent {
    const fn of(event: Event) -> Self {
        let Event { vector, kind, error_code, instruction_length } = event;
        let kind = match kind {
            EventKind::ExternalInterrupt => SavedKind::ExternalInterrupt,
            EventKind::Nmi => SavedKind::Nmi,
            EventKind::HardwareException => SavedKind::HardwareException,
            EventKind::SoftwareInterrupt => SavedKind::SoftwareInterrupt,
            EventKind::PrivilegedSoftwareException => SavedKind::PrivilegedSoftwareException,
            EventKind::SoftwareException => SavedKind::SoftwareException,
        };
        Self { vector, kind, error_code, instruction_length }
    }

    const fn event(self) -> Event {
        let Self { vector, kind, error_code, instruction_length } = self;
        let kind = match kind {
            SavedKind::ExternalInterrupt => EventKind::ExternalInterrupt,
            SavedKind::Nmi => EventKind::Nmi,
            SavedKind::HardwareException => EventKind::HardwareException,
            SavedKind::SoftwareInterrupt => EventKind::SoftwareInterrupt,
            SavedKind::PrivilegedSoftwareException => EventKind::PrivilegedSoftwareException,
            SavedKind::SoftwareException => EventKind::SoftwareException,
        };
        Event { vector, kind, error_code, instruction_length }
    }
}

impl SavedCpu {
    fn of(state: &CpuState) -> Self {
        let CpuState {
            regs,
            flags,
            segments,
            ldtr,
            tr,
            gdtr,
            idtr,
            control: ControlRegisters { cr0, cr2, cr3, cr4, cr8, efer, xcr0 },
            msrs,
            debug: DebugRegisters { address, dr6, dr7 },
            simd: SimdState { x87, mxcsr, xmm, ymm_high },
            pkru,
            interruptibility,
            activity,
            event,
        } = state;
        let X87State { control, status, tags, opcode, instruction, data, registers } = *x87;
        let StateMsrs {
            star,
            lstar,
            cstar,
            fmask,
            kernel_gs_base,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            tsc_aux,
            pat,
            xss,
            debugctl,
            spec_ctrl,
        } = *msrs;
        Self {
            gprs: core::array::from_fn(|index| regs.get(Gpr::from_index(index as u8))),
            rip: regs.rip(),
            flags: flags.get(),
            segments: segments.map(segment),
            ldtr: segment(*ldtr),
            tr: segment(*tr),
            gdtr: table(*gdtr),
            idtr: table(*idtr),
            control: [*cr0, *cr2, *cr3, *cr4, *cr8, *efer, *xcr0],
            msrs: [
                star,
                lstar,
                cstar,
                fmask,
                kernel_gs_base,
                sysenter_cs,
                sysenter_esp,
                sysenter_eip,
                tsc_aux,
                pat,
                xss,
                debugctl,
                spec_ctrl,
            ],
            debug: (*address, *dr6, *dr7),
            x87: SavedX87 { control, status, tags, opcode, instruction, data, registers },
            mxcsr: *mxcsr,
            xmm: *xmm,
            ymm_high: *ymm_high,
            pkru: *pkru,
            interruptibility: interruptibility.pack(),
            activity: activity.pack(),
            event: event.map(SavedEvent::of),
        }
    }

    fn state(self) -> CpuState {
        let Self {
            gprs,
            rip,
            flags,
            segments,
            ldtr,
            tr,
            gdtr,
            idtr,
            control: [cr0, cr2, cr3, cr4, cr8, efer, xcr0],
            msrs,
            debug: (address, dr6, dr7),
            x87,
            mxcsr,
            xmm,
            ymm_high,
            pkru,
            interruptibility,
            activity,
            event,
        } = self;
        let SavedX87 { control, status, tags, opcode, instruction, data, registers } = x87;
        let [
            star,
            lstar,
            cstar,
            fmask,
            kernel_gs_base,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            tsc_aux,
            pat,
            xss,
            debugctl,
            spec_ctrl,
        ] = msrs;
        let mut state = CpuState {
            segments: segments.map(of_segment),
            ldtr: of_segment(ldtr),
            tr: of_segment(tr),
            gdtr: TableRegister { base: gdtr.0, limit: gdtr.1 },
            idtr: TableRegister { base: idtr.0, limit: idtr.1 },
            control: ControlRegisters { cr0, cr2, cr3, cr4, cr8, efer, xcr0 },
            msrs: StateMsrs {
                star,
                lstar,
                cstar,
                fmask,
                kernel_gs_base,
                sysenter_cs,
                sysenter_esp,
                sysenter_eip,
                tsc_aux,
                pat,
                xss,
                debugctl,
                spec_ctrl,
            },
            debug: DebugRegisters { address, dr6, dr7 },
            simd: SimdState {
                x87: X87State { control, status, tags, opcode, instruction, data, registers },
                mxcsr,
                xmm,
                ymm_high,
            },
            pkru,
            interruptibility: Interruptibility::unpack(interruptibility),
            activity: Activity::unpack(activity),
            event: event.map(SavedEvent::event),
            ..CpuState::default()
        };
        for (index, value) in gprs.into_iter().enumerate() {
            state.set_gpr(Gpr::from_index(index as u8), value);
        }
        state.set_rip(rip);
        state.flags.set(flags);
        state
    }
}

impl SavedVmx {
    const fn of(vmx: Vmx) -> Self {
        match vmx {
            Vmx::Off => Self::Off,
            Vmx::Root { region: Region(region), current } => {
                let current = match current {
                    Some(Region(current)) => Some(current.get()),
                    None => None,
                };
                Self::Root { region: region.get(), current }
            }
        }
    }

    fn vmx(self) -> Vmx {
        match self {
            Self::Off => Vmx::Off,
            Self::Root { region, current } => Vmx::Root {
                region: Region(Hpa::new(region)),
                current: current.map(|current| Region(Hpa::new(current))),
            },
        }
    }
}

impl Processor<'_> {
    /// The processor, between two turns.
    pub(super) fn save(self) -> SavedProcessor {
        let Self {
            server: _,
            index: _,
            apic_id: _,
            cpu,
            engine: _,
            bus: _,
            lp: _,
            msrs,
            vmx,
            retired_before,
            noted: _,
            arrived: _,
            debug: _,
        } = self;
        SavedProcessor {
            retired: retired_before.wrapping_add(cpu.retired()),
            cpu: SavedCpu::of(&cpu.state),
            msrs,
            vmx: SavedVmx::of(vmx),
        }
    }

    /// Goes on from a saved state.
    pub(crate) fn restore(&mut self, saved: SavedProcessor) {
        let SavedProcessor { retired, cpu, msrs, vmx } = saved;
        self.cpu.state = cpu.state();
        self.cpu.tlb.flush_all();
        self.retired_before = retired;
        self.server.note_retired(retired);
        self.msrs = msrs;
        self.vmx = vmx.vmx();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_the_same_after_it_was_saved() {
        let mut state = CpuState::default();
        for index in 0..16 {
            state.set_gpr(Gpr::from_index(index), u64::from(index) << 40 | 7);
        }
        state.set_rip(0xffff_ffff_8100_0000);
        state.flags.set(0x246);
        state.control.cr3 = 0x1234_5000;
        state.msrs.spec_ctrl = 1;
        state.msrs.cstar = 3;
        state.simd.xmm[15] = u128::MAX;
        state.simd.ymm_high[14] = u128::MAX;
        state.simd.x87.registers[7] = 5 << 64;
        state.event = Some(Event::exception_with_code(14, 2));
        state.interruptibility.nmi_blocked = true;
        state.activity = Activity::Halted;
        assert_eq!(SavedCpu::of(&state).state(), state);
    }
}
