//! Blocks of decoded operations, found by where their bytes are in memory.
//!
//! # Protocol
//! - A block holds consecutive instructions of one 4 KiB page; it ends after a branch, after an instruction
//!   that changes how the next one is decoded or interrupted, or at the end of the page.
//! - The page is watched *before* its bytes are read. A block runs only while the page's code generation is
//!   the one it was decoded in; otherwise its bytes are compared and, where they differ, decoded again.
//!   The generation is looked at once per *epoch*. The CPU begins a new epoch with every run, event,
//!   store of its own into code and instruction that changes the mode (all that serialise are among them),
//!   and after [`BLOCKS_PER_EPOCH`] blocks at the latest: sooner than cross-modifying code may count on.
//! - A store by another CPU may have begun before the page was watched and land after its bytes were read:
//!   no generation tells. Such a store is over by the time its CPU tells this one about it, which takes an
//!   event or a serialising instruction here; so the bytes of a new block are compared once more at the
//!   first [`SETTLING_TURNS`] of those.
//! - An instruction that crosses into another page is a block of its own. Its bytes are read and compared
//!   every time it runs.
//! - The jump table is the instruction TLB proper: it maps a linear address straight to a block, for one
//!   state of the linear TLB, one privilege and one code size.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use tdvisor_base::{Hpa, KeyId, Pfn};

use super::{MAX_INSTRUCTION, decode_block, decode_one, is_undefined_whatever_follows};
use crate::breakpoints::Pace;
use crate::cpu::{Cpu, Env};
use crate::memory::Place;
use crate::op::Op;
use crate::paging::Want;
use crate::stop::{Reason, Stop};
use crate::tlb::Tlb;

/// Blocks that run before generations are looked at again.
pub(crate) const BLOCKS_PER_EPOCH: u32 = 256;
/// Turns of the CPU's loop after which a new block is taken as read.
const SETTLING_TURNS: u8 = 2;
const JUMPS: usize = 8192;
/// Operations kept before everything is dropped: about 20 MB.
const MAX_OPS: usize = 1 << 19;

/// A run of operations.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) ops: Arc<[Op]>,
    /// The last operation sets RIP.
    pub(crate) sets_rip: bool,
    /// Bytes up to the end of the last operation.
    pub(crate) end: u16,
    hpa: Hpa,
    key: KeyId,
    generation: u32,
    /// Turns at which the bytes are still to be compared, and the last turn at which they were read.
    unsettled: u8,
    read_in: u64,
    bytes: Box<[u8]>,
    crosses_page: bool,
    /// For engines that do more than run operations.
    pub(crate) tier: Tier,
}

/// What an engine has made of a block, and why.
#[derive(Debug, Default)]
pub(crate) struct Tier {
    /// How often operations of the block were run.
    pub(crate) heat: u32,
    /// Compiled code by the linear address it is for: what was compiled last, and what was before that.
    latest: Option<(u64, x86_jit::CodeId)>,
    earlier: Vec<(u64, x86_jit::CodeId)>,
}

impl Tier {
    /// Linear addresses for which one block is kept compiled, beside the latest one.
    const ADDRESSES: usize = 3;

    /// The code for an address, which may have gone.
    pub(crate) fn code_at(&self, rip: u64) -> Option<x86_jit::CodeId> {
        let latest = self.latest.iter().chain(&self.earlier);
        latest.filter(|(at, _)| *at == rip).map(|(_, id)| *id).next()
    }

    /// Keeps new code.
    pub(crate) fn keep_code(&mut self, rip: u64, id: x86_jit::CodeId) {
        self.earlier.retain(|(at, _)| *at != rip);
        if let Some(before) = self.latest.replace((rip, id)).filter(|(at, _)| *at != rip) {
            self.earlier.insert(0, before);
            self.earlier.truncate(Self::ADDRESSES);
        }
    }
}

impl Block {
    /// Where the block's bytes are: the page, and the generation in which they were last looked at.
    pub(crate) fn page(&self) -> (Pfn, u32) {
        (self.hpa.frame(), self.generation)
    }

    /// Where the block's bytes are: the page and its key.
    pub(crate) fn place(&self) -> x86_jit::CodePlace {
        x86_jit::CodePlace::new(self.hpa.frame(), self.key)
    }

    /// The bytes that it was decoded from.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether its bytes lie in two pages.
    pub(crate) fn crosses_page(&self) -> bool {
        self.crosses_page
    }

    /// Whether nobody has to compare its bytes any more, unless its page is written.
    pub(crate) fn is_settled(&self) -> bool {
        self.unsettled == 0
    }

    /// Whether the bytes are to be compared in this turn.
    #[inline(always)]
    fn is_due(&self, turn: u64) -> bool {
        self.unsettled != 0 && self.read_in != turn
    }

    pub(super) fn new(ops: Vec<Op>, sets_rip: bool, bytes: &[u8]) -> Self {
        Self {
            end: ops.last().map_or(0, |op| op.end() as u16),
            ops: ops.into(),
            sets_rip,
            hpa: Hpa::new(0),
            key: KeyId::DEFAULT,
            generation: 0,
            unsettled: SETTLING_TURNS,
            read_in: 0,
            bytes: bytes.into(),
            crosses_page: false,
            tier: Tier::default(),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Jump {
    rip: u64,
    stamp: u64,
    /// The epoch in which the block's generation was last found right.
    checked: u64,
    block: u32,
}

const NO_JUMP: Jump = Jump { rip: 0, stamp: 0, checked: 0, block: 0 };

/// One multiplication: keys are addresses.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }
    fn write_u64(&mut self, value: u64) {
        let mixed = (self.0 ^ value).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// All decoded blocks of one CPU. Nothing is allocated until the first block is found: a run swaps the cache
/// out and leaves an empty one in its place.
#[derive(Debug, Default)]
pub(crate) struct CodeCache {
    jumps: Box<[Jump]>,
    blocks: Vec<Block>,
    index: HashMap<u64, u32, BuildHasherDefault<AddressHasher>>,
    ops: usize,
    /// Never 0 while blocks run.
    epoch: u64,
    /// Counts turns of the CPU's loop.
    turn: u64,
}

/// The state of translation that a jump entry is good for.
fn stamp(cpu: &Cpu) -> u64 {
    stamp_at(cpu, cpu.state.rip())
}

/// The state of translation that a jump entry for `linear` is good for; RIP is in the same half of the address space.
fn stamp_at(cpu: &Cpu, linear: u64) -> u64 {
    cpu.tlb.stamp(linear) << 3 | (cpu.mode as u64) << 1 | u64::from(cpu.view.is_user())
}

impl CodeCache {
    /// Begins a new turn of the CPU's loop, and with it an epoch.
    pub(crate) fn begin_turn(&mut self) {
        self.turn += 1;
        self.begin_epoch();
    }

    /// Begins a new epoch: no block runs before its generation was looked at again.
    #[inline(always)]
    pub(crate) fn begin_epoch(&mut self) {
        self.epoch += 1;
    }

    /// The block at RIP, valid at this moment.
    #[inline(always)]
    pub(crate) fn lookup(&mut self, cpu: &mut Cpu, env: &mut Env<'_>) -> Result<&Block, Stop> {
        let number = self.number(cpu, env)?;
        self.blocks.get(number as usize).ok_or_else(|| cpu.unimplemented("a block that was lost"))
    }

    /// As [`Self::lookup`], for an engine that keeps something with the block.
    #[inline(always)]
    pub(crate) fn lookup_mut(&mut self, cpu: &mut Cpu, env: &mut Env<'_>) -> Result<&mut Block, Stop> {
        let number = self.number(cpu, env)?;
        self.blocks.get_mut(number as usize).ok_or_else(|| cpu.unimplemented("a block that was lost"))
    }

    #[inline(always)]
    fn number(&mut self, cpu: &mut Cpu, env: &mut Env<'_>) -> Result<u32, Stop> {
        let rip = cpu.state.rip();
        let stamp = stamp(cpu);
        Ok(match self.jumps.get(Self::jump_index(rip)) {
            Some(jump) if jump.rip == rip && jump.stamp == stamp && jump.checked == self.epoch => jump.block,
            _ => self.check(cpu, env, rip, stamp)?,
        })
    }

    #[inline(always)]
    fn jump_index(rip: u64) -> usize {
        (rip ^ rip >> 13) as usize % JUMPS
    }

    /// The block at RIP if the jump table has it and its page was not written since; otherwise finds it.
    #[inline(never)]
    fn check(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, rip: u64, stamp: u64) -> Result<u32, Stop> {
        if let Some(jump) = self.jumps.get_mut(Self::jump_index(rip))
            && jump.rip == rip
            && jump.stamp == stamp
            && let Some(block) = self.blocks.get(jump.block as usize)
            && env.mem.code_generation(block.hpa.frame()) == block.generation
            && !block.is_due(self.turn)
        {
            jump.checked = self.epoch;
            return Ok(jump.block);
        }
        self.find(cpu, env, rip, stamp)
    }

    #[inline(never)]
    fn find(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, rip: u64, stamp: u64) -> Result<u32, Stop> {
        if cpu.breakpoints.code {
            cpu.check_code_breakpoint(rip)?;
        }
        cpu.check_code_limit(rip)?;
        let place = cpu.place(env, cpu.code_linear(rip), Want::Execute, cpu.view)?;
        cpu.tlb.note_code(cpu.code_linear(rip));
        let name = place.hpa.get() << 2 | cpu.mode as u64;
        let known = self.index.get(&name).copied();
        let number = match known {
            Some(number) => {
                if !self.still_good(number, cpu, env, rip, place)? {
                    let block = Block { read_in: self.turn, ..build(cpu, env, rip, place)? };
                    self.ops += block.ops.len();
                    if let Some(slot) = self.blocks.get_mut(number as usize) {
                        self.ops -= slot.ops.len();
                        *slot = block;
                    }
                }
                number
            }
            None => {
                let block = Block { read_in: self.turn, ..build(cpu, env, rip, place)? };
                if self.ops >= MAX_OPS {
                    *self = Self { epoch: self.epoch, turn: self.turn, ..Self::default() };
                }
                self.ops += block.ops.len();
                self.blocks.push(block);
                let number = self.blocks.len() as u32 - 1;
                self.index.insert(name, number);
                number
            }
        };
        let watched = |b: &Block| cpu.breakpoints.stop_inside(cpu.code_linear(rip), u64::from(b.end));
        if self.blocks.get(number as usize).is_some_and(watched) {
            if cpu.pace == Pace::Block {
                // The breakpoint may be further on: instructions run alone up to it.
                cpu.near_breakpoint = true;
                return Err(cpu.stop_for(Reason::Continue));
            }
            return Ok(number);
        }
        if self.blocks.get(number as usize).is_some_and(|b| !b.crosses_page) {
            if self.jumps.is_empty() {
                self.jumps = vec![NO_JUMP; JUMPS].into_boxed_slice();
            }
            if let Some(jump) = self.jumps.get_mut(Self::jump_index(rip)) {
                *jump = Jump { rip, stamp, checked: self.epoch, block: number };
            }
        }
        Ok(number)
    }

    /// Whether a block found by address still is what memory says; renews its generation where it is.
    fn still_good(
        &mut self,
        number: u32,
        cpu: &mut Cpu,
        env: &mut Env<'_>,
        rip: u64,
        place: Place,
    ) -> Result<bool, Stop> {
        let Some(block) = self.blocks.get_mut(number as usize) else { return Ok(false) };
        if block.key != place.key {
            return Ok(false);
        }
        let due = block.is_due(self.turn);
        let in_one_page = !block.crosses_page;
        if in_one_page && env.mem.code_generation(place.hpa.frame()) == block.generation && !due {
            return Ok(true);
        }
        let mut now = [0u8; MAX_BLOCK_BYTES];
        let Some(now) = now.get_mut(..block.bytes.len()) else { return Ok(false) };
        if block.crosses_page {
            cpu.read_bytes(env, cpu.code_linear(rip), now, Want::Execute, cpu.view)?;
            return Ok(*now == *block.bytes);
        }
        let Ok(generation) = env.mem.watch_code(place.hpa.frame()) else { return Ok(false) };
        if env.mem.read(place.hpa, place.key, now).is_err() || *now != *block.bytes {
            return Ok(false);
        }
        block.generation = generation;
        block.read_in = self.turn;
        if due {
            block.unsettled -= 1;
        }
        Ok(true)
    }

    pub(crate) fn reachable<'a>(&'a self, tlb: &'a Tlb) -> impl Iterator<Item = (u64, Pfn)> + 'a {
        self.jumps
            .iter()
            .filter(move |j| j.stamp >> 3 == tlb.stamp(j.rip))
            .filter_map(|j| Some((j.rip, self.blocks.get(j.block as usize)?.hpa.frame())))
    }
}

/// Bytes that one block may span.
pub(super) const MAX_BLOCK_BYTES: usize = 256;

fn build(cpu: &mut Cpu, env: &mut Env<'_>, rip: u64, place: Place) -> Result<Block, Stop> {
    let generation = match env.mem.watch_code(place.hpa.frame()) {
        Ok(generation) => generation,
        Err(fault) => return Err(cpu.fetch_fault(fault, rip)),
    };
    let room = (4096 - place.hpa.page_offset()) as usize;
    let mut bytes = [0u8; MAX_BLOCK_BYTES];
    let length = room.min(MAX_BLOCK_BYTES);
    let window = bytes.get_mut(..length).unwrap_or(&mut []);
    if let Err(fault) = env.mem.read(place.hpa, place.key, window) {
        return Err(cpu.fetch_fault(fault, rip));
    }
    let mut block = match decode_block(cpu, window) {
        Some(block) => block,
        None => {
            // The first instruction leaves the page, or nothing of it can be decoded.
            let mut bytes = [0u8; MAX_INSTRUCTION];
            if room < MAX_INSTRUCTION {
                if is_undefined_whatever_follows(cpu.mode, window) {
                    return Err(cpu.undefined());
                }
                cpu.read_bytes(env, cpu.code_linear(rip), &mut bytes, Want::Execute, cpu.view)?;
            } else if let Some(head) = window.get(..MAX_INSTRUCTION) {
                bytes.copy_from_slice(head);
            }
            let mut block = decode_one(cpu, &bytes);
            block.crosses_page = block.bytes.len() > room;
            block
        }
    };
    block.hpa = place.hpa;
    block.key = place.key;
    block.generation = generation;
    Ok(block)
}
