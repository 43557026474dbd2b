//! The stack of an inner privilege outside IA-32e mode: what the TSS has for it, its checks, and the frame on it (SDM vol. 3,
//! "Stack Switching").

use crate::cpu::{Cpu, Env};
use crate::op::Intent;
use crate::segments::{is_null, segment_linear, selector_code};
use crate::stop::{Reason, Step, Stop};
use x86_arch::{Event, Gpr, Seg, Segment, vector};

/// Of a TSS descriptor's type: 32-bit.
const WIDE: u8 = 8;

/// How wide the words of a frame are: what the gate says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FrameWidth {
    Word,
    Doubleword,
}

impl FrameWidth {
    pub(crate) const fn bytes(self) -> u64 {
        match self {
            Self::Word => 2,
            Self::Doubleword => 4,
        }
    }
}

/// A stack that is about to be used.
pub(crate) struct Stack {
    segment: Segment,
    pointer: u64,
    /// The error code, where there is no room on it.
    full: u32,
}

impl Stack {
    const fn mask(&self) -> u64 {
        if self.segment.attributes.big() { 0xFFFF_FFFF } else { 0xFFFF }
    }
}

impl Cpu {
    /// The present stack. `ext` is the EXT bit of the error codes of what goes wrong.
    pub(crate) fn same_stack(&self, ext: u32) -> Stack {
        Stack { segment: *self.state.segment(Seg::Ss), pointer: self.stack(), full: ext }
    }

    /// The stack that the TSS has for an inner privilege, checked. `ext` is the EXT bit of the error codes of what goes wrong.
    pub(crate) fn inner_stack(&mut self, env: &mut Env<'_>, cpl: u8, ext: u32) -> Result<Stack, Stop> {
        let (selector, pointer) = self.tss_pointer(env, cpl, ext)?;
        let code = selector_code(selector) | ext;
        let invalid = Event::exception_with_code(vector::TS, code);
        if is_null(selector) {
            return Err(self.raise(Event::exception_with_code(vector::TS, ext)));
        }
        let descriptor = match self.descriptor(env, selector) {
            Ok(descriptor) => descriptor,
            Err(stop) => {
                if let Reason::Exception(Event { vector: vector::GP, .. }) = self.stop {
                    self.stop = Reason::Exception(invalid);
                }
                return Err(stop);
            }
        };
        let attributes = descriptor.attributes();
        let kind = attributes.kind();
        let writable_data = attributes.is_code_or_data() && kind & 8 == 0 && kind & 2 != 0;
        if !writable_data || (selector & 3) as u8 != cpl || attributes.dpl() != cpl {
            return Err(self.raise(invalid));
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::SS, code)));
        }
        self.mark_accessed(env, descriptor)?;
        let mut segment = descriptor.segment(selector);
        segment.attributes.0 |= 1;
        Ok(Stack { segment, pointer, full: code })
    }

    /// SS and ESP of a 32-bit TSS, or SS and SP of a 16-bit one.
    fn tss_pointer(&mut self, env: &mut Env<'_>, cpl: u8, ext: u32) -> Result<(u16, u64), Stop> {
        let wide = self.state.tr.attributes.kind() & WIDE != 0;
        let (at, last) = if wide {
            let at = 4 + 8 * u64::from(cpl);
            (at, at + 5)
        } else {
            let at = 2 + 4 * u64::from(cpl);
            (at, at + 3)
        };
        if self.state.tr.attributes.unusable() || last > u64::from(self.state.tr.limit) {
            let code = selector_code(self.state.tr.selector) | ext;
            return Err(self.raise(Event::exception_with_code(vector::TS, code)));
        }
        let linear = self.table_linear(self.state.tr.base.wrapping_add(at));
        let above = |offset| linear.wrapping_add(offset);
        if wide {
            let pointer: u32 = self.load_system(env, linear)?;
            Ok((self.load_system(env, self.table_linear(above(4)))?, pointer.into()))
        } else {
            let pointer: u16 = self.load_system(env, linear)?;
            Ok((self.load_system(env, self.table_linear(above(2)))?, pointer.into()))
        }
    }

    /// Writes words below the top of a stack, the first of them lowest; gives where it ends then. Registers stay.
    pub(crate) fn write_frame(
        &mut self,
        env: &mut Env<'_>,
        stack: &Stack,
        width: FrameWidth,
        words: &[u32],
    ) -> Result<u64, Stop> {
        /// Five words, an error code, and the parameters of a call gate.
        const LONGEST: usize = 4 * (6 + 31);
        let mut frame = [0u8; LONGEST];
        let size = width.bytes();
        for (slot, word) in frame.chunks_exact_mut(size as usize).zip(words) {
            slot.copy_from_slice(word.to_le_bytes().get(..size as usize).unwrap_or(&[]));
        }
        let bytes = size * words.len() as u64;
        let top = stack.pointer.wrapping_sub(bytes) & stack.mask();
        let Some(linear) = segment_linear(&stack.segment, top, bytes, Intent::Write) else {
            return Err(self.raise(Event::exception_with_code(vector::SS, stack.full)));
        };
        let view = self.system_view();
        self.write_bytes(env, linear, frame.get(..bytes as usize).unwrap_or(&frame), view)?;
        Ok(top)
    }

    /// Makes a stack the present one. A 16-bit stack leaves the upper half of ESP alone.
    pub(crate) fn enter_stack(&mut self, stack: &Stack, top: u64) {
        let esp = self.state.gpr(Gpr::Rsp);
        let kept = if stack.segment.attributes.big() { 0 } else { esp & 0xFFFF_0000 };
        *self.state.segment_mut(Seg::Ss) = stack.segment;
        self.state.set_gpr(Gpr::Rsp, kept | top);
    }

    /// Words of the present stack, the first of them lowest.
    pub(super) fn stack_words(&mut self, env: &mut Env<'_>, width: FrameWidth, words: &mut [u32]) -> Step {
        let bytes = width.bytes();
        for (n, word) in (0..).zip(words) {
            let linear = self.stack_linear(self.stack().wrapping_add(n * bytes), bytes, Intent::Read)?;
            *word = match width {
                FrameWidth::Word => self.load::<u16>(env, linear)?.into(),
                FrameWidth::Doubleword => self.load(env, linear)?,
            };
        }
        Ok(())
    }
}
