//! The compiler: what runs often becomes host code, the rest is interpreted.
//!
//! # Protocol
//! - A block of 64-bit code that has run [`HOT`] times is compiled, once for each linear address it is seen at. Instructions
//!   that have no form as data stay what they are: code comes back for them, the interpreter's function does them, and code goes on behind.
//!   The same happens to an access that compiled code cannot do by itself, at exactly that instruction.
//! - Compiled code is entered through the interpreter's look-up of blocks, with everything that this looks at. It goes from block to
//!   block by itself where the look-up would find nothing new: within a page, or by an address that was offered for the present state of
//!   translations ([`Translator::offer`]); and every block compares its page's generation. Ways to a block that is not settled end with the turn.
//! - A stay in compiled code is at most [`SLICE`] instructions long; then the kick flag is polled. An instruction that the interpreter
//!   did may have rung it: then the run ends behind that block, as it does with the interpreter.
//! - With instruction breakpoints nothing is compiled or entered. A page with a data breakpoint is one that compiled code cannot
//!   access; single steps and interrupt shadows never come here.

use std::sync::Arc;

use tdvisor_base::Pfn;
use tdvisor_base::sync::{AtomicBool, Ordering};
use x86_arch::{Seg, cr0, cr4};
use x86_jit::{
    CodeId, CodePlace, Exit as CodeExit, Guest, Link, Miss, Sse, Translator, Trust, Unavailable, Unit,
};

use super::interpreter::run_part;
use super::{Blocks, Engine, turn};
use crate::bus::Bus;
use crate::cpu::{Budget, CodeMode, Cpu, Env};
use crate::decode::cache::{BLOCKS_PER_EPOCH, Block, CodeCache};
use crate::decode::described;
use crate::exits::Exit;
use crate::op::Op;
use crate::stop::Step;

/// Runs of a block before it is compiled, unless the owner says otherwise.
const HOT: u32 = 16;
/// The heat of a block that has nothing to compile.
const HOPELESS: u32 = u32::MAX;
/// Instructions between two looks at the kick flag.
const SLICE: u64 = 4096;

/// Operations of a block that was compiled.
#[derive(Clone, Debug)]
struct Body {
    ops: Arc<[Op]>,
    sets_rip: bool,
    end: u16,
}

/// Compiles what runs often. One compiler serves one [`Cpu`].
#[derive(Debug)]
pub struct Compiler {
    cache: CodeCache,
    translator: Translator,
    /// By the number of their code.
    bodies: Vec<Body>,
    /// The era of the translator that the bodies are of.
    era: u32,
    /// Runs of a block before it is compiled.
    hot: u32,
}

/// A block that has code.
struct Ready {
    id: CodeId,
    instructions: u64,
    place: CodePlace,
    trust: Trust,
}

/// How compiled code was left.
enum Left {
    /// Compiled code was not entered.
    Untouched,
    /// At the first instruction of a block.
    AtBlock(Option<Link>),
    /// Something has to be looked at.
    Attention,
}

impl Compiler {
    /// A compiler that has seen nothing yet.
    ///
    /// # Errors
    /// [`Unavailable`] where the operating system has no memory that code can be in.
    pub fn new() -> Result<Self, Unavailable> {
        Ok(Self {
            cache: CodeCache::default(),
            translator: Translator::new()?,
            bodies: Vec::new(),
            era: 0,
            hot: HOT,
        })
    }

    /// A compiler that compiles every block before it runs: for tests.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn eager() -> Result<Self, Unavailable> {
        Ok(Self { hot: 0, ..Self::new()? })
    }

    /// Code for the block at RIP; compiles it if it has become hot.
    fn code(&mut self, cpu: &mut Cpu, env: &mut Env<'_>) -> Result<Option<Ready>, crate::stop::Stop> {
        let Self { cache, translator, bodies, era, hot } = self;
        let block = cache.lookup_mut(cpu, env)?;
        if block.tier.heat < *hot {
            block.tier.heat += 1;
            return Ok(None);
        }
        if block.crosses_page() || block.tier.heat == HOPELESS {
            return Ok(None);
        }
        translator.follow(env.mem);
        let rip = cpu.state.rip();
        let id = match block.tier.code_at(rip).filter(|id| translator.is_kept(*id)) {
            Some(id) => id,
            None => match compile(translator, env, block, rip) {
                Some(id) => id,
                None => return Ok(None),
            },
        };
        if *era != translator.era() {
            *era = translator.era();
            bodies.clear();
        }
        if bodies.len() <= id.index() {
            bodies.push(Body { ops: block.ops.clone(), sets_rip: block.sets_rip, end: block.end });
        }
        translator.renew(id, block.page().1);
        let trust = if block.is_settled() { Trust::Lasting } else { Trust::ForNow };
        Ok(Some(Ready { id, instructions: block.ops.len() as u64, place: block.place(), trust }))
    }

    /// Runs compiled code from the block at RIP on.
    fn run_code(
        &mut self,
        cpu: &mut Cpu,
        env: &mut Env<'_>,
        id: CodeId,
        left: &mut u64,
    ) -> Result<Left, crate::stop::Stop> {
        let mut slice = SLICE.min(*left);
        let (mut id, mut step) = (id, 0);
        loop {
            let before = slice;
            let control = &cpu.state.control;
            let sse = control.cr0 & (cr0::EM | cr0::TS) == 0 && control.cr4 & cr4::OSFXSR != 0;
            let avx = crate::ops::has_avx_on(control) && control.cr0 & cr0::TS == 0;
            let privileged = cpu.state.cpl() == 0;
            let guest = Guest {
                registers: &mut cpu.state.regs,
                flags: &mut cpu.state.flags,
                privileged,
                bases: [Seg::Fs, Seg::Gs].map(|s| cpu.state.segments[s as usize].base),
                sse: Sse {
                    registers: &mut cpu.state.simd.xmm,
                    upper: &mut cpu.state.simd.ymm_high,
                    mxcsr: &mut cpu.state.simd.mxcsr,
                    on: sse,
                    avx_on: avx,
                },
                tlb: cpu.tlb.host(),
                view: cpu.view as usize,
            };
            let Some((code, exit)) = self.translator.run(env.mem, id, step, guest, &mut slice) else {
                return Ok(Left::Untouched);
            };
            *left -= before - slice;
            id = code;
            let (done, miss) = match exit {
                CodeExit::Leave { from, .. } => return Ok(Left::AtBlock(Some(from))),
                CodeExit::Budget => return Ok(Left::AtBlock(None)),
                CodeExit::Stored { step, linear, rip } => {
                    self.stored(cpu, env, id, (step, linear, rip), left);
                    return Ok(Left::Attention);
                }
                CodeExit::Interpret { step, miss } => (step, miss),
            };
            match self.interpret(cpu, env, id, (done, miss), left)? {
                Some(next) => step = next,
                None if cpu.attention => {
                    cpu.attention = false;
                    return Ok(Left::Attention);
                }
                None => return Ok(Left::AtBlock(None)),
            }
        }
    }

    /// Runs operations of a block that was paid for, from one on that compiled code left; gives the one at which it goes on, or
    /// `None` where the block is over.
    fn interpret(
        &mut self,
        cpu: &mut Cpu,
        env: &mut Env<'_>,
        id: CodeId,
        (first, miss): (usize, Option<Miss>),
        left: &mut u64,
    ) -> Result<Option<usize>, crate::stop::Stop> {
        let Some(body) = self.bodies.get(id.index()) else { return Ok(None) };
        let count = body.ops.len();
        let view = cpu.view;
        let mut rung = false;
        for (n, op) in body.ops.iter().enumerate().skip(first) {
            if n > first && !rung && self.translator.resumes(id, n) {
                return Ok(Some(n));
            }
            if let Err(stop) = (op.run)(cpu, env, op) {
                *left += (count - n) as u64;
                cpu.fault_at(op);
                return Err(stop);
            }
            if cpu.attention {
                *left += (count - n - 1) as u64;
                if !(body.sets_rip && n + 1 == count) {
                    cpu.move_on(op.end());
                }
                return Ok(None);
            }
            if let Some(miss) = miss.filter(|_| n == first) {
                cpu.tlb.expose(view, miss, env.mem);
            }
            rung |= env.kick.load(Ordering::Relaxed);
        }
        if !body.sets_rip {
            cpu.move_on(u64::from(body.end));
        }
        Ok(None)
    }

    /// Ends a block behind an instruction whose store went into a page with code.
    fn stored(
        &mut self,
        cpu: &mut Cpu,
        env: &mut Env<'_>,
        id: CodeId,
        (step, linear, rip): (usize, u64, u64),
        left: &mut u64,
    ) {
        if let Some(hpa) = cpu.tlb.held_at(cpu.view, linear) {
            env.mem.note_code_store(hpa);
        }
        let Some(body) = self.bodies.get(id.index()) else { return };
        *left += (body.ops.len() - step - 1) as u64;
        if body.sets_rip && step + 1 == body.ops.len() {
            cpu.state.set_rip(rip);
        } else if let Some(op) = body.ops.get(step) {
            cpu.move_on(op.end());
        }
    }
}

/// Compiles a block for a linear address.
fn compile(translator: &mut Translator, env: &Env<'_>, block: &mut Block, rip: u64) -> Option<CodeId> {
    let steps = described(block.bytes());
    let (page, generation) = block.page();
    if steps.len() != block.ops.len() || steps.iter().all(|step| step.insn.is_none()) {
        block.tier.heat = HOPELESS;
        return None;
    }
    let id = translator.compile(env.mem, &Unit { rip, page, generation, steps: &steps })?;
    block.tier.keep_code(rip, id);
    Some(id)
}

impl Engine for Compiler {
    fn run<B: Bus>(
        &mut self,
        cpu: &mut Cpu,
        bus: &mut B,
        budget: Budget,
        kick: &AtomicBool,
    ) -> Exit<B::Refusal> {
        turn::run(cpu, self, bus, budget, kick)
    }

    fn reachable_code<'a>(&'a self, cpu: &'a Cpu) -> impl Iterator<Item = (u64, Pfn)> + 'a {
        let offered = self.translator.offered();
        let offered = offered.filter(|(rip, place)| cpu.tlb.leads_to(*rip, *place));
        self.cache.reachable(&cpu.tlb).chain(offered.map(|(rip, place)| (rip, place.page())))
    }
}

impl Blocks for Compiler {
    fn cache(&mut self) -> &mut CodeCache {
        &mut self.cache
    }

    fn run_blocks(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, left: &mut u64) -> Step {
        // The bytes of new blocks are compared at the first turns: each time they are looked up anew.
        self.translator.withdraw();
        let mut blocks = BLOCKS_PER_EPOCH;
        let mut from: Option<Link> = None;
        loop {
            blocks -= 1;
            if blocks == 0 {
                blocks = BLOCKS_PER_EPOCH;
                self.cache.begin_epoch();
            }
            let compiled = cpu.mode == CodeMode::Code64 && !cpu.breakpoints.code;
            let ready = if compiled { self.code(cpu, env)? } else { None };
            match ready {
                Some(Ready { id, instructions, place, trust }) if instructions <= *left => {
                    let rip = cpu.state.rip();
                    if let Some(link) = from {
                        self.translator.link(link, id, trust);
                    }
                    self.translator.offer(id, place, trust);
                    let view = cpu.view as usize;
                    cpu.tlb.host().fill_code(view, rip, place);
                    match self.run_code(cpu, env, id, left)? {
                        Left::Untouched => {
                            let block = self.cache.lookup(cpu, env)?;
                            if super::interpreter::run_block(cpu, env, block, left)? {
                                return Ok(());
                            }
                        }
                        Left::AtBlock(link) => from = link,
                        Left::Attention => return Ok(()),
                    }
                }
                _ => {
                    from = None;
                    let block = self.cache.lookup(cpu, env)?;
                    if block.ops.len() as u64 > *left {
                        return run_part(cpu, env, block, left);
                    }

                    if super::interpreter::run_block(cpu, env, block, left)? {
                        return Ok(());
                    }
                }
            }
            if *left == 0 || env.kick.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
}
