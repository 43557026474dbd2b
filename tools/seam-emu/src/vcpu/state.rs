//! A vCPU's architectural state: where it starts, and where it lies in the TDVPS while the vCPU is not running.

use tdvisor_base::Hpa;
use tdx_module_iface::{Gprs, Reg};

use crate::fields::layout::{tdcs, tdvps};
use crate::fields::{FieldStore, Width, vmcs};
use crate::guest::{DescriptorTable, GuestState, SegmentState, X87State};
use crate::machine::Machine;
use crate::td::{Tdcs, Tdr, Tdvps};

/// CR0.PE and CR0.NE.
const INITIAL_CR0: u64 = 0x21;
/// CR4.MCE and CR4.VMXE.
const INITIAL_CR4: u64 = 0x2040;
/// EFER.SCE, .LME and .NXE.
const INITIAL_EFER: u64 = 0x901;
const INITIAL_RIP: u64 = 0xffff_fff0;
const INITIAL_PAT: u64 = 0x0007_0406_0007_0406;
const INITIAL_DR6: u64 = 0xffff_0ff0;
const INITIAL_DR7: u64 = 0x400;
const INITIAL_MXCSR: u32 = 0x1f80;
const INITIAL_FCW: u16 = 0x37f;

const FLAT_CODE: SegmentState = SegmentState { selector: 0, base: 0, limit: u32::MAX, access: 0xc09b };
const FLAT_DATA: SegmentState = SegmentState { selector: 0, base: 0, limit: u32::MAX, access: 0xc093 };
const BUSY_TSS: SegmentState = SegmentState { selector: 0, base: 0, limit: 0xffff, access: 0x8b };
const NO_LDT: SegmentState = SegmentState { selector: 0, base: 0, limit: 0xffff, access: 0x1_0082 };

/// Primary and secondary execution controls of a TD (bits that a VMM sees through VP.RD).
const INITIAL_PROCBASED: u64 = 0x9100_0000;
const INITIAL_PROCBASED2: u64 = 0x0000_1182;

/// Writes the state in which a vCPU starts: 32-bit flat protected mode at the reset vector, paging off.
pub(crate) fn initialise(
    machine: &Machine,
    tdr: &Tdr<'_>,
    tdcs: &Tdcs<'_>,
    tdvps: &Tdvps<'_>,
    argument: u64,
) {
    let gprs = Gprs {
        rbx: u64::from(tdcs.gpa_bits()),
        rcx: argument,
        rdx: u64::from(machine.config().cpuid_fms),
        rsi: tdvps.load(tdvps::VCPU_INDEX, Width::B4),
        r8: argument,
        ..Gprs::ZERO
    };
    let state = GuestState {
        gprs,
        rip: INITIAL_RIP,
        rflags: 2,
        cr0: INITIAL_CR0,
        cr4: INITIAL_CR4,
        efer: INITIAL_EFER,
        xcr0: 1,
        segments: [FLAT_DATA, FLAT_CODE, FLAT_DATA, FLAT_DATA, FLAT_DATA, FLAT_DATA],
        ldtr: NO_LDT,
        tr: BUSY_TSS,
        gdtr: DescriptorTable { base: 0, limit: 0 },
        idtr: DescriptorTable { base: 0, limit: 0 },
        dr6: INITIAL_DR6,
        dr7: INITIAL_DR7,
        pat: INITIAL_PAT,
        mxcsr: INITIAL_MXCSR,
        fcw: INITIAL_FCW,
        ..GuestState::default()
    };
    save(tdvps, &state);
    tdvps.store_u64(tdvps::XFAM, tdcs.load_u64(tdcs::XFAM));
    tdvps.store_u64(tdvps::VCPU_EPOCH, 0);
    tdvps.store_u64(vmcs::EPTP, tdcs.load_u64(tdcs::EPTP));
    tdvps.store_u64(vmcs::TSC_OFFSET, tdcs.load_u64(tdcs::TSC_OFFSET));
    tdvps.store_u64(vmcs::TSC_MULTIPLIER, tdcs.load_u64(tdcs::TSC_MULTIPLIER));
    tdvps.store_u64(vmcs::TD_HKID, u64::from(tdr.hkid()));
    tdvps.store_u64(vmcs::PROCBASED, INITIAL_PROCBASED);
    tdvps.store_u64(vmcs::PROCBASED2, INITIAL_PROCBASED2);
    crate::metadata::vp::initial_controls(tdvps, tdcs.num_l2_vms());
}

/// Offset of a register in the GPR area.
const fn gpr_offset(reg: Reg) -> u32 {
    tdvps::GPRS + 8 * reg.index() as u32
}

/// XSAVE format: x87 environment at 0, MXCSR at 24, ST registers from 32, XMM registers from 160 on.
const XSAVE_MXCSR: u32 = tdvps::XBUFF + 24;
const XSAVE_FSW: u32 = tdvps::XBUFF + 2;
const XSAVE_FTW: u32 = tdvps::XBUFF + 4;
const XSAVE_FOP: u32 = tdvps::XBUFF + 6;
const XSAVE_FIP: u32 = tdvps::XBUFF + 8;
const XSAVE_FDP: u32 = tdvps::XBUFF + 16;
const XSAVE_ST: u32 = tdvps::XBUFF + 32;
const XSAVE_XMM: u32 = tdvps::XBUFF + 160;

/// Reads the state of a vCPU.
pub(crate) fn load(tdvps: &Tdvps<'_>) -> GuestState {
    let get = |offset: u32| tdvps.load_u64(offset);
    let mut state = GuestState {
        rsp: get(vmcs::RSP),
        rip: get(vmcs::RIP),
        rflags: get(vmcs::RFLAGS),
        cr0: get(vmcs::CR0),
        cr2: get(tdvps::CR2),
        cr3: get(vmcs::CR3),
        cr4: get(vmcs::CR4),
        cr8: get(tdvps::VAPIC + 0x80) >> 4 & 0xf,
        efer: get(vmcs::EFER),
        xcr0: get(tdvps::XCR0),
        xss: get(tdvps::XSS),
        ldtr: segment(tdvps, 6),
        tr: segment(tdvps, 7),
        gdtr: DescriptorTable { base: get(vmcs::GDTR_BASE), limit: get(vmcs::GDTR_LIMIT) as u32 },
        idtr: DescriptorTable { base: get(vmcs::IDTR_BASE), limit: get(vmcs::IDTR_LIMIT) as u32 },
        dr6: get(tdvps::DR6),
        dr7: get(vmcs::DR7),
        star: get(tdvps::STAR),
        lstar: get(tdvps::LSTAR),
        fmask: get(tdvps::FMASK),
        kernel_gs_base: get(tdvps::KERNEL_GS_BASE),
        tsc_aux: get(tdvps::TSC_AUX),
        pat: get(vmcs::PAT),
        sysenter_cs: get(vmcs::SYSENTER_CS),
        sysenter_esp: get(vmcs::SYSENTER_ESP),
        sysenter_eip: get(vmcs::SYSENTER_EIP),
        spec_ctrl: get(tdvps::SPEC_CTRL),
        debugctl: get(vmcs::DEBUGCTL),
        mxcsr: tdvps.load(XSAVE_MXCSR, Width::B4) as u32,
        fcw: tdvps.load(tdvps::XBUFF, Width::B2) as u16,
        x87: load_x87(tdvps),
        interruptibility: get(vmcs::INTERRUPTIBILITY) as u32,
        activity: get(vmcs::ACTIVITY) as u32,
        ..GuestState::default()
    };
    for reg in Reg::ALL {
        state.gprs.set(reg, get(gpr_offset(reg)));
    }
    for (index, segment_state) in (0..).zip(&mut state.segments) {
        *segment_state = segment(tdvps, index);
    }
    for (offset, dr) in (tdvps::DR0..).step_by(8).zip(&mut state.dr) {
        *dr = get(offset);
    }
    for (offset, xmm) in (XSAVE_XMM..).step_by(16).zip(&mut state.xmm) {
        *xmm = u128::from(get(offset)) | u128::from(get(offset + 8)) << 64;
    }
    state
}

/// Writes the state of a vCPU.
pub(crate) fn save(tdvps: &Tdvps<'_>, state: &GuestState) {
    let set = |offset: u32, value: u64| tdvps.store_u64(offset, value);
    set(vmcs::RSP, state.rsp);
    set(vmcs::RIP, state.rip);
    set(vmcs::RFLAGS, state.rflags);
    set(vmcs::CR0, state.cr0);
    set(tdvps::CR2, state.cr2);
    set(vmcs::CR3, state.cr3);
    set(vmcs::CR4, state.cr4);
    tdvps.store(tdvps::VAPIC + 0x80, Width::B4, state.cr8 << 4);
    set(vmcs::EFER, state.efer);
    set(tdvps::XCR0, state.xcr0);
    set(tdvps::XSS, state.xss);
    store_segment(tdvps, 6, &state.ldtr);
    store_segment(tdvps, 7, &state.tr);
    set(vmcs::GDTR_BASE, state.gdtr.base);
    set(vmcs::GDTR_LIMIT, u64::from(state.gdtr.limit));
    set(vmcs::IDTR_BASE, state.idtr.base);
    set(vmcs::IDTR_LIMIT, u64::from(state.idtr.limit));
    set(tdvps::DR6, state.dr6);
    set(vmcs::DR7, state.dr7);
    set(tdvps::STAR, state.star);
    set(tdvps::LSTAR, state.lstar);
    set(tdvps::FMASK, state.fmask);
    set(tdvps::KERNEL_GS_BASE, state.kernel_gs_base);
    set(tdvps::TSC_AUX, state.tsc_aux);
    set(vmcs::PAT, state.pat);
    set(vmcs::SYSENTER_CS, state.sysenter_cs);
    set(vmcs::SYSENTER_ESP, state.sysenter_esp);
    set(vmcs::SYSENTER_EIP, state.sysenter_eip);
    set(tdvps::SPEC_CTRL, state.spec_ctrl);
    set(vmcs::DEBUGCTL, state.debugctl);
    tdvps.store(XSAVE_MXCSR, Width::B4, u64::from(state.mxcsr));
    tdvps.store(tdvps::XBUFF, Width::B2, u64::from(state.fcw));
    save_x87(tdvps, &state.x87);
    set(vmcs::INTERRUPTIBILITY, u64::from(state.interruptibility));
    set(vmcs::ACTIVITY, u64::from(state.activity));
    for reg in Reg::ALL {
        set(gpr_offset(reg), state.gprs.get(reg));
    }
    for (index, segment_state) in (0..).zip(&state.segments) {
        store_segment(tdvps, index, segment_state);
    }
    for (offset, dr) in (tdvps::DR0..).step_by(8).zip(state.dr) {
        set(offset, dr);
    }
    for (offset, xmm) in (XSAVE_XMM..).step_by(16).zip(state.xmm) {
        set(offset, xmm as u64);
        set(offset + 8, (xmm >> 64) as u64);
    }
}

fn load_x87(tdvps: &Tdvps<'_>) -> X87State {
    let mut x87 = X87State {
        fsw: tdvps.load(XSAVE_FSW, Width::B2) as u16,
        ftw: tdvps.load(XSAVE_FTW, Width::B1) as u8,
        fop: tdvps.load(XSAVE_FOP, Width::B2) as u16,
        fip: tdvps.load_u64(XSAVE_FIP),
        fdp: tdvps.load_u64(XSAVE_FDP),
        st: [0; 8],
    };
    for (offset, st) in (XSAVE_ST..).step_by(16).zip(&mut x87.st) {
        *st = u128::from(tdvps.load_u64(offset)) | u128::from(tdvps.load_u64(offset + 8)) << 64;
    }
    x87
}

fn save_x87(tdvps: &Tdvps<'_>, x87: &X87State) {
    tdvps.store(XSAVE_FSW, Width::B2, u64::from(x87.fsw));
    tdvps.store(XSAVE_FTW, Width::B1, u64::from(x87.ftw));
    tdvps.store(XSAVE_FOP, Width::B2, u64::from(x87.fop));
    tdvps.store_u64(XSAVE_FIP, x87.fip);
    tdvps.store_u64(XSAVE_FDP, x87.fdp);
    for (offset, st) in (XSAVE_ST..).step_by(16).zip(x87.st) {
        tdvps.store_u64(offset, st as u64);
        tdvps.store_u64(offset + 8, (st >> 64) as u64);
    }
}

/// Segments in VMCS order: ES, CS, SS, DS, FS, GS, LDTR, TR.
fn segment(tdvps: &Tdvps<'_>, index: u32) -> SegmentState {
    SegmentState {
        selector: tdvps.load_u64(vmcs::ES_SELECTOR + 8 * index) as u16,
        base: tdvps.load_u64(vmcs::ES_BASE + 8 * index),
        limit: tdvps.load_u64(vmcs::ES_LIMIT + 8 * index) as u32,
        access: tdvps.load_u64(vmcs::ES_ACCESS + 8 * index) as u32,
    }
}

fn store_segment(tdvps: &Tdvps<'_>, index: u32, segment: &SegmentState) {
    tdvps.store_u64(vmcs::ES_SELECTOR + 8 * index, u64::from(segment.selector));
    tdvps.store_u64(vmcs::ES_BASE + 8 * index, segment.base);
    tdvps.store_u64(vmcs::ES_LIMIT + 8 * index, u64::from(segment.limit));
    tdvps.store_u64(vmcs::ES_ACCESS + 8 * index, u64::from(segment.access));
}

/// The root of the shared EPT; zero where the host set none.
pub(crate) fn shared_root(tdvps: &Tdvps<'_>) -> Hpa {
    match tdvps.load_u64(vmcs::SHARED_EPTP) {
        crate::metadata::vp::ADDRESS_NOT_SET => Hpa::new(0),
        eptp => Hpa::new(eptp & 0x000f_ffff_ffff_f000),
    }
}
