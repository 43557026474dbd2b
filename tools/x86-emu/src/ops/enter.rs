//! ENTER: a frame with the frame pointers of the procedures around it (SDM vol. 2).

use super::stack::RBP;
use crate::cpu::{Cpu, Env};
use crate::op::{Intent, Op};
use crate::paging::Want;
use crate::stop::Step;

/// Nesting levels, and with the caller's frame pointer as many words at most.
const LEVELS: u16 = 32;
const LARGEST: usize = 8 * (LEVELS as usize + 1);

/// What is pushed, growing downwards from the end.
struct Image {
    bytes: [u8; LARGEST],
    /// Where the last word pushed begins, and how long a word is.
    at: usize,
    word: usize,
}

impl Image {
    fn push(&mut self, value: u64) {
        self.at -= self.word;
        for (slot, byte) in self.bytes.iter_mut().skip(self.at).zip(value.to_le_bytes()).take(self.word) {
            *slot = byte;
        }
    }
}

/// `aux` is the nesting level, `imm` the bytes of the frame.
pub(super) fn enter(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let level = u64::from(op.aux % LEVELS);
    let word = u64::from(op.operand_bytes());
    let caller = cpu.state.regs.slot(RBP);
    let top = cpu.stack();
    // What becomes the frame pointer has the operand's size, whatever the stack's.
    let frame = if cpu.stack_mask == 0xFFFF {
        cpu.state.regs.slot(x86_arch::Gpr::Rsp as u8) & !0xFFFF | top.wrapping_sub(word) & 0xFFFF
    } else {
        top.wrapping_sub(word)
    };
    let pushed = word * if level == 0 { 1 } else { level + 1 };
    let low = top.wrapping_sub(pushed);
    let mut image = Image { bytes: [0; LARGEST], at: pushed as usize, word: word as usize };
    image.push(caller);
    for nth in 1..level {
        let from = caller.wrapping_sub(nth * word);
        let linear = cpu.stack_linear(from, word, Intent::Read)?;
        let mut value = [0u8; 8];
        let view = cpu.view;
        if let Some(part) = value.get_mut(..word as usize) {
            cpu.read_bytes(env, linear, part, Want::Read, view)?;
        }
        // What is read may have been pushed just before.
        for (n, byte) in (0u64..).zip(value.iter_mut()).take(word as usize) {
            let at = from.wrapping_add(n).wrapping_sub(low);
            if (image.at as u64..pushed).contains(&at)
                && let Some(pushed) = image.bytes.get(at as usize)
            {
                *byte = *pushed;
            }
        }
        image.push(u64::from_le_bytes(value));
    }
    if level > 0 {
        image.push(frame);
    }
    let end = low.wrapping_sub(op.imm & 0xFFFF);
    // The end of the new frame is probed as for a write.
    let probe = cpu.stack_linear(end, word, Intent::Write)?;
    cpu.prepare_store(env, probe, 1)?;
    let linear = cpu.stack_linear(low, pushed, Intent::Write)?;
    let view = cpu.view;
    cpu.write_bytes(env, linear, image.bytes.get(..pushed as usize).unwrap_or(&image.bytes), view)?;
    let pointer = if word == 2 { caller & !0xFFFF | frame & 0xFFFF } else { frame };
    cpu.state.regs.set_slot(RBP, pointer);
    cpu.set_stack(end);
    Ok(())
}
