//! The interpreter: every operation is a function, and a block is a list of them.

use tdvisor_base::Pfn;
use tdvisor_base::sync::{AtomicBool, Ordering};

use super::{Blocks, Engine, turn};
use crate::bus::Bus;
use crate::cpu::{Budget, Cpu, Env};
use crate::decode::cache::{BLOCKS_PER_EPOCH, Block, CodeCache};
use crate::exits::Exit;
use crate::stop::Step;

/// Runs decoded operations one after the other. It keeps the blocks that it decoded; one interpreter serves one [`Cpu`].
#[derive(Debug, Default)]
pub struct Interpreter {
    cache: CodeCache,
}

impl Interpreter {
    /// An interpreter that has decoded nothing yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Engine for Interpreter {
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
        self.cache.reachable(&cpu.tlb)
    }
}

impl Blocks for Interpreter {
    fn cache(&mut self) -> &mut CodeCache {
        &mut self.cache
    }

    fn run_blocks(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, left: &mut u64) -> Step {
        // Counted in a variable of its own, which stays in a register.
        let mut budget = *left;
        let end = self.run_until_attention(cpu, env, &mut budget);
        *left = budget;
        end
    }
}

impl Interpreter {
    #[inline(always)]
    fn run_until_attention(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, left: &mut u64) -> Step {
        let mut blocks = BLOCKS_PER_EPOCH;
        loop {
            blocks -= 1;
            if blocks == 0 {
                blocks = BLOCKS_PER_EPOCH;
                self.cache.begin_epoch();
            }
            let block = self.cache.lookup(cpu, env)?;
            if block.ops.len() as u64 > *left {
                let mut part = *left;
                let end = run_part(cpu, env, block, &mut part);
                *left = part;
                return end;
            }
            if run_block(cpu, env, block, left)? {
                return Ok(());
            }
            if *left == 0 || env.kick.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
    }
}

/// Runs all operations of a block, and moves RIP behind it; says whether something has to be looked at.
#[inline(always)]
pub(super) fn run_block(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    block: &Block,
    left: &mut u64,
) -> Result<bool, crate::stop::Stop> {
    let count = block.ops.len() as u64;
    let mut rest = block.ops.iter();
    while let Some(op) = rest.next() {
        if let Err(stop) = (op.run)(cpu, env, op) {
            *left -= count - 1 - rest.len() as u64;
            cpu.fault_at(op);
            return Err(stop);
        }
        if cpu.attention {
            *left -= count - rest.len() as u64;
            cpu.attention = false;
            if !(block.sets_rip && rest.len() == 0) {
                cpu.move_on(op.end());
            }
            return Ok(true);
        }
    }
    *left -= count;
    if !block.sets_rip {
        cpu.move_on(u64::from(block.end));
    }
    Ok(false)
}

/// Runs the first `left` operations of a block that has more.
#[cold]
pub(super) fn run_part(cpu: &mut Cpu, env: &mut Env<'_>, block: &Block, left: &mut u64) -> Step {
    let mut end = 0;
    for op in block.ops.iter().take(*left as usize) {
        if let Err(stop) = (op.run)(cpu, env, op) {
            cpu.fault_at(op);
            return Err(stop);
        }
        *left -= 1;
        end = op.end();
        if cpu.attention {
            break;
        }
    }
    cpu.attention = false;
    cpu.move_on(end);
    Ok(())
}
