//! The L2 VM as its VMM has it: state, payload, exits.

use core::arch::global_asm;

use guest_rt::layout::{PAGE_2M, PAGE_4K};
use guest_rt::memory;

use crate::module::{self, Exit, Size, State, attributes};
use crate::{Failed, failed};

global_asm!(include_str!("payload.s"));

unsafe extern "C" {
    static l2_payload: u8;
    static l2_payload_text: u8;
    static l2_payload_after: u8;
    static l2_payload_copy: u8;
    static l2_payload_end: u8;
}

/// Offsets in the payload.
#[derive(Clone, Copy)]
pub enum Place {
    /// The payload's beginning.
    Hello,
    /// What the payload says.
    Text,
    /// Behind the store into its own code, and what that would lead to.
    After,
    /// The copy.
    Copy,
    /// The payload's end.
    End,
}

impl Place {
    fn offset(self) -> u64 {
        let at = match self {
            Self::Hello => &raw const l2_payload,
            Self::Text => &raw const l2_payload_text,
            Self::After => &raw const l2_payload_after,
            Self::Copy => &raw const l2_payload_copy,
            Self::End => &raw const l2_payload_end,
        };
        at as u64 - (&raw const l2_payload) as u64
    }
}

/// VMX exit reasons (SDM volume 3, appendix C).
pub mod reason {
    pub const CPUID: u64 = 10;
    pub const HLT: u64 = 12;
    pub const IO: u64 = 30;
    pub const EPT_VIOLATION: u64 = 48;
}

/// Bits 63:32 of what TDG.VP.ENTER returns.
mod code {
    pub const SUCCESS: u64 = 0;
    pub const HOST_ROUTED: u64 = 0x1100;
    pub const PENDING_INTERRUPT: u64 = 0x1102;
    pub const INTERRUPT_BEFORE_ENTRY: u64 = 0x1120;
}

/// Exits of the VM by what they were for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub io: u32,
    pub cpuid: u32,
    pub hlt: u32,
    pub violations: u32,
    /// Exits that the host got first, and gave to L1.
    pub from_host: u32,
}

/// Most exits of one run: a payload that does not end is a failure.
const MOST_EXITS: u32 = 1000;

const EAX: usize = 0;
const ECX: usize = 1;
const EBX: usize = 3;
/// RFLAGS bit 1 is always one.
const RFLAGS: u64 = 2;

/// What a VM's VMM does about a page that the VM may not touch so.
pub enum Answer {
    /// The VM gets the page, with these attributes.
    Give(u64),
    /// The VM goes on there.
    GoOnAt(Place),
    /// The VM is left.
    Leave,
}

/// The L2 VM.
pub struct Vm {
    state: &'static mut State,
    code: u64,
    pub counts: Counts,
    text: [u8; 64],
    length: usize,
}

impl Vm {
    /// A VM with the payload in a page that it may read and execute.
    pub fn new() -> Result<Self, Failed> {
        let (Some(state), Some(apic), Some(code)) =
            (memory::take_pages(1), memory::take_pages(1), memory::take_pages(1))
        else {
            return Err(failed(format_args!("L2: the pool is empty")));
        };
        // SAFETY: the labels enclose the payload in read-only data.
        let payload =
            unsafe { core::slice::from_raw_parts(&raw const l2_payload, Place::End.offset() as usize) };
        code[..payload.len()].copy_from_slice(payload);
        let apic = apic.as_ptr() as u64;
        module::set_virtual_apic(apic)
            .map_err(|error| failed(format_args!("L2: not prepared: {error:x?}")))?;
        let code = code.as_ptr() as u64;
        give(code, Size::Small, attributes::READ | attributes::EXECUTE)?;
        // SAFETY: a page of zeros is a state, it is aligned, and nobody else has it.
        let state = unsafe { &mut *state.as_mut_ptr().cast::<State>() };
        Ok(Self { state, code, counts: Counts::default(), text: [0; 64], length: 0 })
    }

    /// What the VM has said.
    pub fn said(&self) -> &str {
        core::str::from_utf8(&self.text[..self.length]).unwrap_or("something that is no text")
    }

    /// Runs it from a place of the payload until it halts, or `violation` leaves it.
    pub fn run(
        &mut self,
        from: Place,
        [source, target, other]: [u64; 3],
        mut violation: impl FnMut(&Exit) -> Answer,
    ) -> Result<(), Failed> {
        self.state.gprs = [0; 16];
        self.state.gprs[EBX] = self.code;
        (self.state.gprs[6], self.state.gprs[7], self.state.gprs[5]) = (source, target, other);
        (self.state.rflags, self.state.rip) = (RFLAGS, self.code + from.offset());
        for _ in 0..MOST_EXITS {
            let exit = module::enter(self.state);
            match exit.code() {
                code::SUCCESS => {}
                code::PENDING_INTERRUPT | code::INTERRUPT_BEFORE_ENTRY => continue,
                code::HOST_ROUTED if exit.reason() == reason::EPT_VIOLATION => self.counts.from_host += 1,
                code::HOST_ROUTED => continue,
                _ => return Err(failed(format_args!("L2: not entered: {:#x}", exit.status))),
            }
            match exit.reason() {
                reason::IO => {
                    self.counts.io += 1;
                    if let Some(place) = self.text.get_mut(self.length) {
                        *place = self.state.gprs[EAX] as u8;
                        self.length += 1;
                    }
                    self.state.rip += exit.length();
                }
                reason::CPUID => {
                    self.counts.cpuid += 1;
                    self.state.gprs[ECX] = CPUID_ECX;
                    self.state.rip += exit.length();
                }
                reason::HLT => {
                    self.counts.hlt += 1;
                    return Ok(());
                }
                reason::EPT_VIOLATION => {
                    self.counts.violations += 1;
                    match violation(&exit) {
                        Answer::Give(attributes) => give(exit.gpa & !0xfff, Size::Small, attributes)?,
                        Answer::GoOnAt(place) => self.state.rip = self.code + place.offset(),
                        Answer::Leave => return Ok(()),
                    }
                }
                reason => {
                    return Err(failed(format_args!("L2: exit {reason} at {:#x}", self.state.rip)));
                }
            }
        }
        Err(failed(format_args!("L2: more than {MOST_EXITS} exits")))
    }

    /// Whether the VM stands at a place of the payload.
    pub fn is_at(&self, place: Place) -> bool {
        self.state.rip == self.address(place)
    }

    /// Where a place of the payload is.
    pub fn address(&self, place: Place) -> u64 {
        self.code + place.offset()
    }

    /// The page of the payload.
    pub fn code(&self) -> u64 {
        self.code
    }
}

/// What the VMM answers to CPUID, for the payload to add.
pub const CPUID_ECX: u64 = 0x1111;

/// Gives the VM a page. A large one that the host mapped in small pieces it gets piece by piece.
pub fn give(gpa: u64, size: Size, attributes: u64) -> Result<(), Failed> {
    let given = match module::give(gpa, size, attributes) {
        Err(refused) if matches!(size, Size::Large) && refused.is_size_mismatch() => (gpa..gpa + PAGE_2M)
            .step_by(PAGE_4K as usize)
            .try_for_each(|piece| module::give(piece, Size::Small, attributes)),
        given => given,
    };
    given.map_err(|error| failed(format_args!("L2: no attributes for GPA {gpa:#x}: {error:x?}")))
}
