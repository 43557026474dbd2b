//! A vCPU's architectural state: where it starts ([`initial`]), and where it lies in the TDVPS while the vCPU is not running.
//!
//! [`CPU`] is the one table of that: [`load`] and [`save`] walk it. Every field of the state has an entry; one without
//! does not compile.

mod initial;
#[cfg(test)]
mod tests;
mod xsave;

use tdvisor_base::Hpa;
use x86_arch::{
    Activity, Attributes, ControlRegisters, CpuState, DebugRegisters, Event, Gpr, Interruptibility,
    InterruptionInfo, Msrs, Segment, SimdState, TableRegister, X87State,
};

use crate::fields::layout::tdvps;
use crate::fields::{FieldStore, Width, vmcs};

#[cfg(test)]
pub(crate) use initial::initial;
pub(crate) use initial::initialise;

/// Fields of one kind: where they lie in the TDVPS, and how the state holds them.
struct Row {
    /// Offset of the first.
    offset: u32,
    /// Distance between two.
    stride: u32,
    count: usize,
    width: Width,
    get: fn(&CpuState, usize) -> u64,
    set: fn(&mut CpuState, usize, u64),
}

/// What a part of the state has in the TDVPS.
enum Place {
    Fields(Row),
    /// Several places, filled in this order.
    Parts(&'static [Self]),
}

/// A place for every field of a struct; a field that is not named does not compile.
macro_rules! places {
    ($(#[$doc:meta])* $name:ident: $type:ident { $($field:ident: $place:expr),* $(,)? }) => {
        $(#[$doc])*
        const $name: Place = Place::Parts(&[$($place),*]);
        const _: fn($type) = |$type { $($field: _),* }| {};
    };
}

/// A 64-bit value in eight bytes.
macro_rules! word {
    ($offset:expr, $($path:tt)+) => {
        array!($offset, 8, 1, |state, _| state.$($path)+, |state, _, raw| state.$($path)+ = raw)
    };
}

/// A value of a narrower type.
macro_rules! narrow {
    ($offset:expr, $width:expr, $type:ty, $($path:tt)+) => {
        Place::Fields(Row {
            offset: $offset,
            stride: 0,
            count: 1,
            width: $width,
            get: |state, _| u64::from(state.$($path)+),
            set: |state, _, raw| state.$($path)+ = raw as $type,
        })
    };
}

/// Values of eight bytes each.
macro_rules! array {
    ($offset:expr, $stride:expr, $count:expr, $get:expr, $set:expr) => {
        Place::Fields(Row {
            offset: $offset,
            stride: $stride,
            count: $count,
            width: Width::B8,
            get: $get,
            set: $set,
        })
    };
}

/// The task priority register of the virtual APIC: CR8 in bits 7:4.
const TPR: u32 = tdvps::VAPIC + 0x80;

/// The general registers in their area, which RSP is not in.
const GPRS: Place = Place::Parts(&[
    array!(tdvps::GPRS, 8, 4, |state, n| state.gpr(low(n)), |state, n, raw| state.set_gpr(low(n), raw)),
    array!(tdvps::GPRS + 8 * (Gpr::Rsp as u32 + 1), 8, 11, |state, n| state.gpr(high(n)), |state, n, raw| {
        state.set_gpr(high(n), raw)
    }),
    array!(vmcs::RSP, 8, 1, |state, _| state.gpr(Gpr::Rsp), |state, _, raw| state.set_gpr(Gpr::Rsp, raw)),
    array!(vmcs::RIP, 8, 1, |state, _| state.rip(), |state, _, raw| state.set_rip(raw)),
]);

/// The registers below RSP.
const fn low(n: usize) -> Gpr {
    Gpr::from_index(n as u8)
}

/// The registers above RSP.
const fn high(n: usize) -> Gpr {
    Gpr::from_index(Gpr::Rsp as u8 + 1 + n as u8)
}

/// Segments in VMCS order: ES, CS, SS, DS, FS, GS, LDTR, TR.
const fn segment(state: &CpuState, n: usize) -> &Segment {
    match n {
        6 => &state.ldtr,
        7 => &state.tr,
        n => &state.segments[n % 6],
    }
}

const fn segment_mut(state: &mut CpuState, n: usize) -> &mut Segment {
    match n {
        6 => &mut state.ldtr,
        7 => &mut state.tr,
        n => &mut state.segments[n % 6],
    }
}

const SEGMENTS: Place = Place::Parts(&[
    array!(vmcs::ES_SELECTOR, 8, 8, |state, n| u64::from(segment(state, n).selector), |state, n, raw| {
        segment_mut(state, n).selector = raw as u16
    }),
    array!(vmcs::ES_BASE, 8, 8, |state, n| segment(state, n).base, |state, n, raw| segment_mut(state, n)
        .base = raw),
    array!(vmcs::ES_LIMIT, 8, 8, |state, n| u64::from(segment(state, n).limit), |state, n, raw| {
        segment_mut(state, n).limit = raw as u32
    }),
    array!(vmcs::ES_ACCESS, 8, 8, |state, n| u64::from(segment(state, n).attributes.0), |state, n, raw| {
        segment_mut(state, n).attributes = Attributes(raw as u32)
    }),
]);
/// In [`SEGMENTS`].
const WITH_THE_SEGMENTS: Place = Place::Parts(&[]);
const _: fn(Segment) = |Segment { selector: _, base: _, limit: _, attributes: _ }| {};

/// GDTR and IDTR. Limits have 16 bits; a VM entry with more fails, and TDH.VP.WR does not let them in.
const GDTR: Place =
    Place::Parts(&[word!(vmcs::GDTR_BASE, gdtr.base), narrow!(vmcs::GDTR_LIMIT, Width::B8, u16, gdtr.limit)]);
const IDTR: Place =
    Place::Parts(&[word!(vmcs::IDTR_BASE, idtr.base), narrow!(vmcs::IDTR_LIMIT, Width::B8, u16, idtr.limit)]);
const _: fn(TableRegister) = |TableRegister { base: _, limit: _ }| {};

places! {
    CONTROL: ControlRegisters {
        cr0: word!(vmcs::CR0, control.cr0),
        cr2: word!(tdvps::CR2, control.cr2),
        cr3: word!(vmcs::CR3, control.cr3),
        cr4: word!(vmcs::CR4, control.cr4),
        cr8: Place::Fields(Row {
            offset: TPR,
            stride: 0,
            count: 1,
            width: Width::B4,
            get: |state, _| state.control.cr8 << 4,
            set: |state, _, raw| state.control.cr8 = raw >> 4 & 0xf,
        }),
        efer: word!(vmcs::EFER, control.efer),
        xcr0: word!(tdvps::XCR0, control.xcr0),
    }
}

/// What a TD cannot change: the module answers for it, and no instruction uses it.
const NOWHERE: Place = Place::Parts(&[]);

places! {
    MSRS: Msrs {
        star: word!(tdvps::STAR, msrs.star),
        lstar: word!(tdvps::LSTAR, msrs.lstar),
        cstar: NOWHERE,
        fmask: word!(tdvps::FMASK, msrs.fmask),
        kernel_gs_base: word!(tdvps::KERNEL_GS_BASE, msrs.kernel_gs_base),
        sysenter_cs: word!(vmcs::SYSENTER_CS, msrs.sysenter_cs),
        sysenter_esp: word!(vmcs::SYSENTER_ESP, msrs.sysenter_esp),
        sysenter_eip: word!(vmcs::SYSENTER_EIP, msrs.sysenter_eip),
        tsc_aux: word!(tdvps::TSC_AUX, msrs.tsc_aux),
        pat: word!(vmcs::PAT, msrs.pat),
        xss: word!(tdvps::XSS, msrs.xss),
        debugctl: word!(vmcs::DEBUGCTL, msrs.debugctl),
        spec_ctrl: word!(tdvps::SPEC_CTRL, msrs.spec_ctrl),
    }
}

places! {
    DEBUG: DebugRegisters {
        address: array!(
            tdvps::DR0,
            8,
            4,
            |state, n| state.debug.address.get(n).copied().unwrap_or(0),
            |state, n, raw| if let Some(address) = state.debug.address.get_mut(n) { *address = raw }
        ),
        dr6: word!(tdvps::DR6, debug.dr6),
        dr7: word!(vmcs::DR7, debug.dr7),
    }
}

places! {
    /// The status word comes before the registers: its TOP says which of them is ST0.
    X87: X87State {
        control: narrow!(xsave::FCW, Width::B2, u16, simd.x87.control),
        status: narrow!(xsave::FSW, Width::B2, u16, simd.x87.status),
        tags: narrow!(xsave::FTW, Width::B1, u8, simd.x87.tags),
        opcode: narrow!(xsave::FOP, Width::B2, u16, simd.x87.opcode),
        instruction: word!(xsave::FIP, simd.x87.instruction),
        data: word!(xsave::FDP, simd.x87.data),
        registers: Place::Parts(&[
            array!(
                xsave::ST,
                16,
                8,
                |state, n| state.simd.x87.st(n as u8) as u64,
                |state, n, raw| {
                    let x87 = &mut state.simd.x87;
                    x87.set_st(n as u8, with_half(x87.st(n as u8), 0, raw));
                }
            ),
            array!(
                xsave::ST + 8,
                16,
                8,
                |state, n| (state.simd.x87.st(n as u8) >> 64) as u64,
                |state, n, raw| {
                    let x87 = &mut state.simd.x87;
                    x87.set_st(n as u8, with_half(x87.st(n as u8), 1, raw));
                }
            ),
        ]),
    }
}

/// A register with its lower (0) or upper (1) 64 bits replaced.
const fn with_half(register: u128, half: usize, bits: u64) -> u128 {
    let shift = 64 * (half as u32 & 1);
    register & !((u64::MAX as u128) << shift) | (bits as u128) << shift
}

places! {
    SIMD: SimdState {
        x87: X87,
        mxcsr: narrow!(xsave::MXCSR, Width::B4, u32, simd.mxcsr),
        xmm: array!(
            xsave::XMM,
            8,
            32,
            |state, n| state.simd.xmm.get(n / 2).map_or(0, |xmm| (xmm >> (64 * (n as u32 & 1))) as u64),
            |state, n, raw| if let Some(xmm) = state.simd.xmm.get_mut(n / 2) {
                *xmm = with_half(*xmm, n % 2, raw);
            }
        ),
        ymm_high: array!(
            xsave::YMM_HIGH,
            8,
            32,
            |state, n| state.simd.ymm_high.get(n / 2).map_or(0, |high| (high >> (64 * (n as u32 & 1))) as u64),
            |state, n, raw| if let Some(high) = state.simd.ymm_high.get_mut(n / 2) {
                *high = with_half(*high, n % 2, raw);
            }
        ),
    }
}

/// An event that waits is what the next VM entry injects.
const EVENT: Place = Place::Parts(&[
    array!(
        vmcs::ENTRY_INTERRUPTION_INFO,
        8,
        1,
        |state, _| u64::from(InterruptionInfo::pack(state.event).info),
        |state, _, raw| {
            state.event = InterruptionInfo { info: raw as u32, ..InterruptionInfo::NONE }.unpack();
        }
    ),
    array!(
        vmcs::ENTRY_ERROR_CODE,
        8,
        1,
        |state, _| u64::from(InterruptionInfo::pack(state.event).error_code),
        |state, _, raw| if let Some(code) = state.event.as_mut().and_then(|event| event.error_code.as_mut()) {
            *code = raw as u32;
        }
    ),
    array!(
        vmcs::ENTRY_INSTRUCTION_LENGTH,
        8,
        1,
        |state, _| u64::from(InterruptionInfo::pack(state.event).instruction_length),
        |state, _, raw| if let Some(event) = &mut state.event {
            event.instruction_length = raw as u8;
        }
    ),
]);

places! {
    CPU: CpuState {
        regs: GPRS,
        flags: array!(
            vmcs::RFLAGS,
            8,
            1,
            |state, _| state.flags.get(),
            |state, _, raw| state.flags.set(raw)
        ),
        segments: SEGMENTS,
        ldtr: WITH_THE_SEGMENTS,
        tr: WITH_THE_SEGMENTS,
        gdtr: GDTR,
        idtr: IDTR,
        control: CONTROL,
        msrs: MSRS,
        debug: DEBUG,
        simd: SIMD,
        pkru: narrow!(xsave::PKRU, Width::B4, u32, pkru),
        interruptibility: array!(
            vmcs::INTERRUPTIBILITY,
            8,
            1,
            |state, _| u64::from(state.interruptibility.pack()),
            |state, _, raw| state.interruptibility = Interruptibility::unpack(raw as u32)
        ),
        activity: array!(
            vmcs::ACTIVITY,
            8,
            1,
            |state, _| u64::from(state.activity.pack()),
            |state, _, raw| state.activity = Activity::unpack(raw as u32)
        ),
        event: EVENT,
    }
}

impl Place {
    /// Visits every field with its offset.
    fn each(&self, visit: &mut impl FnMut(&Row, u32, usize)) {
        match self {
            Self::Fields(row) => {
                for (n, offset) in
                    (row.offset..).step_by(row.stride.max(1) as usize).take(row.count).enumerate()
                {
                    visit(row, offset, n);
                }
            }
            Self::Parts(parts) => parts.iter().for_each(|part| part.each(visit)),
        }
    }
}

/// Reads the state of a vCPU.
pub(crate) fn load(tdvps: &impl FieldStore) -> CpuState {
    let mut state = CpuState::default();
    let in_use = tdvps.load_u64(xsave::XSTATE_BV);
    let xfam = tdvps.load_u64(tdvps::XFAM);
    CPU.each(&mut |row, offset, n| {
        let component = xsave::component(row.offset);
        if component & in_use == component {
            (row.set)(&mut state, n, tdvps.load(xsave::place(offset, xfam), row.width));
        }
    });
    state
}

/// Writes the state of a vCPU.
pub(crate) fn save(tdvps: &impl FieldStore, state: &CpuState) {
    let in_use = components_in_use(state);
    let xfam = tdvps.load_u64(tdvps::XFAM);
    CPU.each(&mut |row, offset, n| {
        let component = xsave::component(row.offset);
        // The fields of an event that was delivered stay.
        let delivered = is_entry_event(row.offset) && state.event.is_none();
        if component & in_use == component && !delivered {
            tdvps.store(xsave::place(offset, xfam), row.width, (row.get)(state, n));
        }
    });
    tdvps.store_u64(xsave::XSTATE_BV, in_use);
    if state.event.is_none() {
        let stale = tdvps.load_u64(vmcs::ENTRY_INTERRUPTION_INFO);
        tdvps.store_u64(vmcs::ENTRY_INTERRUPTION_INFO, stale & !EVENT_VALID);
    }
}

const fn is_entry_event(offset: u32) -> bool {
    matches!(offset, vmcs::ENTRY_INTERRUPTION_INFO | vmcs::ENTRY_ERROR_CODE | vmcs::ENTRY_INSTRUCTION_LENGTH)
}

/// Bit 31 of the VM-entry interruption information: the entry delivers an event. It is clear behind an entry.
const EVENT_VALID: u64 = 1 << 31;

/// Notes the event that an entry is about to deliver.
pub(crate) fn note_entry_event(tdvps: &impl FieldStore, event: Event) {
    let packed = InterruptionInfo::pack(Some(event));
    tdvps.store_u64(vmcs::ENTRY_INTERRUPTION_INFO, u64::from(packed.info));
    if event.error_code.is_some() {
        tdvps.store_u64(vmcs::ENTRY_ERROR_CODE, u64::from(packed.error_code));
    }
}

/// As XSAVES does: a component in its initial state is marked as such and not written.
fn components_in_use(state: &CpuState) -> u64 {
    let simd = &state.simd;
    let initial = SimdState::default();
    let x87 = if simd.x87 == initial.x87 { 0 } else { xsave::X87 };
    let sse = if (simd.mxcsr, simd.xmm) == (initial.mxcsr, initial.xmm) { 0 } else { xsave::SSE };
    let avx = if simd.ymm_high == initial.ymm_high { 0 } else { xsave::AVX };
    let pkru = if state.pkru == 0 { 0 } else { xsave::PKRU_STATE };
    x87 | sse | avx | pkru
}

/// The root of the shared EPT; zero where the host set none.
pub(crate) fn shared_root(tdvps: &impl FieldStore) -> Hpa {
    match tdvps.load_u64(vmcs::SHARED_EPTP) {
        crate::metadata::vp::ADDRESS_NOT_SET => Hpa::new(0),
        eptp => Hpa::new(eptp & 0x000f_ffff_ffff_f000),
    }
}
