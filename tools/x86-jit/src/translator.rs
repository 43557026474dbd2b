//! Keeps compiled code, and enters it.

use phys_memory::{Arena, Incarnation, Window};
use x86_arch::{Flags, Gpr, Registers, flags};

use crate::compile::{self, Compiled};
use crate::context::{Context, FloatingPoint, JUMPS, Jump, SavedFlags};
use crate::region::Region;
use crate::tlb::{CodePlace, HostTlb, Right};
use crate::{CODE_SHIFT, Exit, ExitKind, KIND_BITS, Link, Miss, Unavailable, Unit, run};

/// Names compiled code, as long as it is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodeId {
    index: u32,
    /// How often all code had gone before.
    era: u32,
}

impl CodeId {
    /// The block's number among the code that is kept: these count from zero.
    pub const fn index(self) -> usize {
        self.index as usize
    }
}

#[derive(Debug)]
struct Code {
    rip: u64,
    /// Where the code begins in the region; it is entered there.
    at: usize,
    resume: Box<[Option<u32>]>,
    links: Box<[compile::Link]>,
    /// Where the generation of the block's page is kept, and what it was.
    generation_at: u32,
    generation: u32,
}

/// What a run needs of the guest beside its memory.
#[derive(Debug)]
pub struct Guest<'a> {
    /// General registers and RIP. RIP is where the guest stands when a run is over: at the block's first byte where an exit says no other.
    pub registers: &'a mut Registers,
    /// The arithmetic flags, IF and DF are used and changed.
    pub flags: &'a mut Flags,
    /// The privilege level is 0.
    pub privileged: bool,
    /// The bases of FS and GS.
    pub bases: [u64; 2],
    /// XMM registers and MXCSR, and whether instructions may use them.
    pub sse: Sse<'a>,
    /// Pages to be accessed without asking.
    pub tlb: &'a mut HostTlb,
    /// Whose rights accesses have.
    pub view: usize,
}

/// The state of SSE and AVX.
#[derive(Debug)]
pub struct Sse<'a> {
    /// XMM0 to XMM15.
    pub registers: &'a mut [u128; 16],
    /// The upper halves of YMM0 to YMM15.
    pub upper: &'a mut [u128; 16],
    /// Control and status.
    pub mxcsr: &'a mut u32,
    /// No instruction faults for being one of SSE.
    pub on: bool,
    /// No instruction faults for being one of AVX.
    pub avx_on: bool,
}

/// Compiled code of one processor.
#[derive(Debug)]
pub struct Translator {
    region: Region,
    codes: Vec<Code>,
    jumps: Box<[Jump]>,
    context: Box<Context>,
    era: u32,
    incarnation: Option<Incarnation>,
    for_now: Vec<ForNow>,
}

/// How long a way to code is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    /// As long as the code's page has its generation.
    Lasting,
    /// Until [`Translator::withdraw`], besides.
    ForNow,
}

/// A way to code that is to be taken back.
#[derive(Debug)]
enum ForNow {
    /// A slot, and the stub that it led to before: places in the region.
    Slot { slot: usize, stub: usize },
    /// An entry of the jump table.
    Jump(usize),
}

impl Translator {
    /// A translator without code.
    ///
    /// # Errors
    /// [`Unavailable`] where the operating system has no memory that code can be in.
    pub fn new() -> Result<Self, Unavailable> {
        Ok(Self {
            region: Region::new().map_err(Unavailable)?,
            codes: Vec::new(),
            jumps: vec![Jump::NONE; JUMPS].into_boxed_slice(),
            context: Box::new(Context::new()),
            era: 0,
            incarnation: None,
            for_now: Vec::new(),
        })
    }

    /// Whether code is still kept.
    pub const fn is_kept(&self, id: CodeId) -> bool {
        id.era == self.era
    }

    /// How often all code has gone.
    pub const fn era(&self) -> u32 {
        self.era
    }

    /// Drops all code.
    pub fn clear(&mut self) {
        self.era = self.era.wrapping_add(1);
        self.codes.clear();
        self.for_now.clear();
        self.jumps.fill(Jump::NONE);
        self.region.clear();
    }

    /// Drops code of another arena.
    pub fn follow(&mut self, arena: &Arena) {
        if self.incarnation != Some(arena.incarnation()) {
            self.incarnation = Some(arena.incarnation());
            self.clear();
        }
    }

    /// Compiles a block of this arena. All other code may go for it.
    pub fn compile(&mut self, arena: &Arena, unit: &Unit<'_>) -> Option<CodeId> {
        self.follow(arena);
        if unit.steps.is_empty() || unit.steps.len() > MAX_STEPS {
            return None;
        }
        let page = arena.window(unit.page)?;
        self.place(unit, page).or_else(|| {
            self.clear();
            self.place(unit, page)
        })
    }

    fn place(&mut self, unit: &Unit<'_>, page: Window) -> Option<CodeId> {
        let id = CodeId { index: u32::try_from(self.codes.len()).ok()?, era: self.era };
        let Compiled { bytes, resume, links, generation } = compile::compile(unit, page, id.index)?;
        let at = self.region.append(&bytes)?;
        for (slot, stub) in links.iter().filter_map(|link| link.slot) {
            let stub = self.region.address(at + stub as usize);
            self.region.set(at + slot as usize, stub);
        }
        self.codes.push(Code {
            rip: unit.rip,
            at,
            resume: resume.into_boxed_slice(),
            links: links.into_boxed_slice(),
            generation_at: generation,
            generation: unit.generation,
        });
        Some(id)
    }

    fn code(&self, id: CodeId) -> Option<&Code> {
        self.codes.get(id.index()).filter(|_| self.is_kept(id))
    }

    /// Says that the bytes of a block are still what they were, in a later generation of its page.
    pub fn renew(&mut self, id: CodeId, generation: u32) {
        let era = self.era;
        if let Some(code) = self.codes.get_mut(id.index()).filter(|_| id.era == era)
            && code.generation != generation
        {
            code.generation = generation;
            self.region.set(code.at + code.generation_at as usize, u64::from(generation));
        }
    }

    /// Lets a way out lead straight to other code: the block's there, in the same page.
    pub fn link(&mut self, from: Link, to: CodeId, trust: Trust) {
        let Some(target) = self.code(to).map(|to| (to.rip, self.region.address(to.at))) else { return };
        let Some(code) = self.code(from.code).filter(|_| from.code != to) else { return };
        if let Some(link) = code.links.get(from.number)
            && link.target == target.0
            && let Some((slot, stub)) = link.slot
        {
            let (slot, stub) = (code.at + slot as usize, code.at + stub as usize);
            self.region.set(slot, target.1);
            if trust == Trust::ForNow {
                self.for_now.push(ForNow::Slot { slot, stub });
            }
        }
    }

    /// Lets branches find code by its linear address, as long as this leads to the place where the code is
    /// ([`HostTlb::fill_code`]).
    pub fn offer(&mut self, id: CodeId, place: CodePlace, trust: Trust) {
        let Some((rip, address)) = self.code(id).map(|code| (code.rip, self.region.address(code.at))) else {
            return;
        };
        let index = Jump::index(rip);
        if let Some(jump) = self.jumps.get_mut(index) {
            *jump = Jump { rip, place: place.word(), code: address, index: u64::from(id.index) };
            if trust == Trust::ForNow {
                self.for_now.push(ForNow::Jump(index));
            }
        }
    }

    /// Takes back every link and offer that was [`Trust::ForNow`].
    pub fn withdraw(&mut self) {
        for given in core::mem::take(&mut self.for_now) {
            match given {
                ForNow::Slot { slot, stub } => {
                    let stub = self.region.address(stub);
                    self.region.set(slot, stub);
                }
                ForNow::Jump(index) => {
                    if let Some(jump) = self.jumps.get_mut(index) {
                        *jump = Jump::NONE;
                    }
                }
            }
        }
    }

    /// Linear addresses at which branches find code without asking, as long as they lead to these places.
    pub fn offered(&self) -> impl Iterator<Item = (u64, CodePlace)> + '_ {
        let live = self.jumps.iter().filter(|jump| jump.place != Jump::NONE.place);
        live.map(|jump| (jump.rip, CodePlace::of(jump)))
    }

    /// Whether a block can be entered at this instruction, the one before having been done elsewhere.
    pub fn resumes(&self, id: CodeId, step: usize) -> bool {
        step == 0 || self.code(id).is_some_and(|code| code.resume.get(step).copied().flatten().is_some())
    }

    /// Runs from an instruction of a block on; `None` if it cannot be entered there. `budget` counts instructions and is at most
    /// [`MAX_BUDGET`]. A run that begins in the middle of a block has paid for the block.
    pub fn run(
        &mut self,
        arena: &Arena,
        id: CodeId,
        step: usize,
        guest: Guest<'_>,
        budget: &mut u64,
    ) -> Option<(CodeId, Exit)> {
        if self.incarnation != Some(arena.incarnation()) {
            return None;
        }
        guest.tlb.follow(arena);
        let code = self.code(id)?;
        let offset = if step == 0 { 0 } else { code.resume.get(step).copied().flatten()? };
        let entry = self.region.address(code.at + offset as usize);
        let context = &mut *self.context;
        for (slot, register) in context.gpr.iter_mut().zip(Gpr::ALL) {
            *slot = guest.registers.get(register);
        }
        context.flags = SavedFlags::new(guest.flags.get());
        context.rest = guest.flags.get() & !flags::ARITHMETIC;
        context.privileged = u8::from(guest.privileged);
        context.bases = guest.bases;
        context.read_table = guest.tlb.table(guest.view, Right::Read);
        context.write_table = guest.tlb.table(guest.view, Right::Write);
        context.code_table = guest.tlb.code_table(guest.view);
        context.xmm = guest.sse.registers.as_mut_ptr().expose_provenance() as u64;
        context.upper = guest.sse.upper.as_mut_ptr().expose_provenance() as u64;
        context.sse = u8::from(guest.sse.on);
        context.avx = u8::from(guest.sse.avx_on);
        context.mxcsr = *guest.sse.mxcsr;
        context.floating_point = if context.mxcsr & MXCSR_MASKS == MXCSR_MASKS && context.mxcsr <= MXCSR_BITS
        {
            FloatingPoint::Own
        } else {
            FloatingPoint::Refused
        };
        context.jumps = self.jumps.as_ptr().expose_provenance() as u64;
        #[expect(unsafe_code, reason = "the one call of compiled code")]
        // SAFETY: the entry is of kept code, which was compiled for this incarnation of the arena; entries of the TLB are of it too. Arena
        // and TLB are borrowed, and code, jump table and context are owned and not touched until the call is over.
        let returned = unsafe { run::enter(context, entry, (*budget).min(MAX_BUDGET)) };
        *budget = budget.saturating_sub((*budget).min(MAX_BUDGET)).saturating_add(returned.budget);
        for (slot, register) in context.gpr.iter().zip(Gpr::ALL) {
            guest.registers.set(register, *slot);
        }
        guest.flags.set_arithmetic(context.flags.arithmetic());
        guest.flags.set_rest(context.rest & flags::DEFINED);
        *guest.sse.mxcsr = context.mxcsr;
        let (rip, linear) = (context.rip, context.linear);
        self.read_exit(returned.word, rip, linear, guest.registers)
    }

    fn read_exit(
        &self,
        word: u64,
        rip: u64,
        linear: u64,
        registers: &mut Registers,
    ) -> Option<(CodeId, Exit)> {
        let id = CodeId { index: (word >> CODE_SHIFT) as u32, era: self.era };
        let number = (word as u32 >> KIND_BITS) as usize;
        let code = self.code(id)?;
        registers.set_rip(code.rip);
        let exit = match word as u8 {
            k if k == ExitKind::Link as u8 => {
                let target = code.links.get(number)?.target;
                registers.set_rip(target);
                Exit::Leave { rip: target, from: Link { code: id, number } }
            }
            k if k == ExitKind::Budget as u8 => Exit::Budget,
            k if k == ExitKind::SlowRead as u8 => {
                Exit::Interpret { step: number, miss: Some(Miss { linear, right: Right::Read }) }
            }
            k if k == ExitKind::SlowWrite as u8 => {
                Exit::Interpret { step: number, miss: Some(Miss { linear, right: Right::Write }) }
            }
            k if k == ExitKind::Stored as u8 => Exit::Stored { step: number, linear, rip },
            _ => Exit::Interpret { step: number, miss: None },
        };
        Some((id, exit))
    }
}

/// Bits of MXCSR that keep exceptions from being raised.
const MXCSR_MASKS: u32 = 0x1F80;
/// Bits of MXCSR that exist.
const MXCSR_BITS: u32 = 0xFFFF;
/// Instructions of one block.
const MAX_STEPS: usize = 127;
/// The largest budget of one run.
pub const MAX_BUDGET: u64 = 1 << 32;
