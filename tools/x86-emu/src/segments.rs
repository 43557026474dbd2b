//! Segment registers, descriptors, and what segmentation checks outside 64-bit mode.

use phys_memory::MemoryFault;

use crate::cpu::{Cpu, Env};
use crate::op::Intent;
use crate::paging::Want;
use crate::stop::{Step, Stop};
use x86_arch::{Access, Attributes, Event, Seg, Segment, vector};

const NARROW: u64 = 0xFFFF_FFFF;
/// Descriptor bit 40: accessed.
const ACCESSED: u64 = 1 << 40;
/// Descriptor bit 41 of a TSS: busy.
const BUSY: u64 = 1 << 41;

/// An error code that names a selector.
pub(crate) const fn selector_code(selector: u16) -> u32 {
    (selector & !3) as u32
}

/// A null selector, whatever its RPL.
pub(crate) const fn is_null(selector: u16) -> bool {
    selector & !3 == 0
}

/// The first eight bytes of a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) raw: u64,
    /// The linear address of the descriptor.
    pub(crate) linear: u64,
}

impl Descriptor {
    pub(crate) const fn attributes(self) -> Attributes {
        Attributes((self.raw >> 40) as u32 & 0xF0FF)
    }

    pub(crate) const fn base(self) -> u64 {
        self.raw >> 16 & 0xFF_FFFF | (self.raw >> 56) << 24
    }

    pub(crate) const fn limit(self) -> u32 {
        let units = (self.raw & 0xFFFF | self.raw >> 32 & 0xF_0000) as u32;
        if self.attributes().granular() { units << 12 | 0xFFF } else { units }
    }

    pub(crate) const fn segment(self, selector: u16) -> Segment {
        Segment { selector, base: self.base(), limit: self.limit(), attributes: self.attributes() }
    }
}

/// The linear address of an operand in a segment outside 64-bit mode; `None` where its type or limit forbids the access.
#[inline]
pub(crate) fn segment_linear(segment: &Segment, offset: u64, bytes: u64, intent: Intent) -> Option<u64> {
    let kind = segment.attributes.kind();
    let code = kind & 8 != 0;
    let type_allows = match intent {
        Intent::Read => !code || kind & 2 != 0,
        Intent::Write => !code && kind & 2 != 0,
    };
    let last = offset.wrapping_add(bytes.saturating_sub(1));
    let limit = u64::from(segment.limit);
    let inside = if !code && kind & 4 != 0 {
        let top = if segment.attributes.big() { NARROW } else { 0xFFFF };
        offset > limit && last <= top
    } else {
        last <= limit
    };
    let allowed = !segment.attributes.unusable() && type_allows && inside;
    allowed.then(|| segment.base.wrapping_add(offset) & NARROW)
}

impl Cpu {
    /// The linear address of an instruction.
    #[inline(always)]
    pub(crate) fn code_linear(&self, rip: u64) -> u64 {
        if self.is_long_mode() { rip } else { self.state.segment(Seg::Cs).base.wrapping_add(rip) & NARROW }
    }

    /// Checks an instruction address against the limit of CS.
    #[inline(always)]
    pub(crate) fn check_code_limit(&mut self, rip: u64) -> Step {
        if self.is_long_mode() || rip <= u64::from(self.state.segment(Seg::Cs).limit) {
            Ok(())
        } else {
            Err(self.general_protection(0))
        }
    }

    #[cold]
    pub(crate) fn fetch_fault(&mut self, fault: MemoryFault, rip: u64) -> Stop {
        let linear = self.code_linear(rip);
        let gpa = self
            .tlb
            .entries()
            .find(|e| e.linear == Some(linear & !0xFFF))
            .map_or(tdvisor_base::Gpa::new(0), |e| e.gpa.wrapping_add(linear & 0xFFF));
        self.memory_fault(fault, gpa, Access::Execute, linear)
    }

    /// The linear address of an operand outside 64-bit mode, after the checks of segmentation.
    pub(crate) fn checked_linear(
        &mut self,
        register: Seg,
        offset: u64,
        bytes: u64,
        intent: Intent,
    ) -> Result<u64, Stop> {
        let segment = *self.state.segment(register);
        segment_linear(&segment, offset, bytes, intent).ok_or_else(|| {
            let vector = if register == Seg::Ss { vector::SS } else { vector::GP };
            self.raise(Event::exception_with_code(vector, 0))
        })
    }

    /// Reads the descriptor that a selector names; #GP(selector) outside its table.
    pub(crate) fn descriptor(&mut self, env: &mut Env<'_>, selector: u16) -> Result<Descriptor, Stop> {
        let (base, limit) = if selector & 4 == 0 {
            (self.state.gdtr.base, u32::from(self.state.gdtr.limit))
        } else if self.state.ldtr.attributes.unusable() {
            return Err(self.general_protection(selector_code(selector)));
        } else {
            (self.state.ldtr.base, self.state.ldtr.limit)
        };
        if u32::from(selector | 7) > limit {
            return Err(self.general_protection(selector_code(selector)));
        }
        let linear = self.table_linear(base.wrapping_add(u64::from(selector & !7)));
        let raw = self.load_system(env, linear)?;
        Ok(Descriptor { raw, linear })
    }

    /// Addresses of descriptor tables are 32 bits wide outside IA-32e mode.
    pub(crate) fn table_linear(&self, linear: u64) -> u64 {
        if self.state.is_ia32e() { linear } else { linear & NARROW }
    }

    /// Sets bits of a descriptor in memory.
    fn mark_descriptor(&mut self, env: &mut Env<'_>, descriptor: Descriptor, bits: u64) -> Step {
        if descriptor.raw & bits == bits {
            return Ok(());
        }
        let view = self.system_view();
        // The byte that holds the type: one byte never crosses a page.
        let linear = descriptor.linear.wrapping_add(5);
        let place = self.place(env, linear, Want::Write, view)?;
        let done = env.mem.fetch_update::<u8>(place.hpa, place.key, |byte| byte | (bits >> 40) as u8);
        match done {
            Ok((_, effect)) => {
                self.note(effect);
                Ok(())
            }
            Err(fault) => Err(self.memory_fault(fault, tdvisor_base::Gpa::new(0), Access::Write, linear)),
        }
    }

    /// Marks a code or data descriptor accessed.
    pub(crate) fn mark_accessed(&mut self, env: &mut Env<'_>, descriptor: Descriptor) -> Step {
        self.mark_descriptor(env, descriptor, ACCESSED)
    }

    /// Loads DS, ES, FS, GS or SS as MOV and POP do (SDM vol. 2, MOV).
    pub(crate) fn load_data_segment(&mut self, env: &mut Env<'_>, register: Seg, selector: u16) -> Step {
        let rpl = (selector & 3) as u8;
        let cpl = self.state.cpl();
        if is_null(selector) {
            if register == Seg::Ss {
                if !self.is_long_mode() || cpl == 3 || rpl != cpl {
                    return Err(self.general_protection(0));
                }
                let attributes = Attributes::UNUSABLE.with_dpl(cpl);
                *self.state.segment_mut(register) = Segment { selector, attributes, ..Segment::NULL };
                self.refresh_mode();
            } else {
                *self.state.segment_mut(register) = Segment { selector, ..Segment::NULL };
            }
            return Ok(());
        }
        let code = selector_code(selector);
        let descriptor = self.descriptor(env, selector)?;
        let attributes = descriptor.attributes();
        let kind = attributes.kind();
        let dpl = attributes.dpl();
        let allowed = if register == Seg::Ss {
            let writable_data = attributes.is_code_or_data() && kind & 8 == 0 && kind & 2 != 0;
            writable_data && rpl == cpl && dpl == cpl
        } else {
            let readable = attributes.is_code_or_data() && (kind & 8 == 0 || kind & 2 != 0);
            let conforming_code = kind & 0xC == 0xC;
            readable && (conforming_code || rpl <= dpl && cpl <= dpl)
        };
        if !allowed {
            return Err(self.general_protection(code));
        }
        if !attributes.present() {
            let vector = if register == Seg::Ss { vector::SS } else { vector::NP };
            return Err(self.raise(Event::exception_with_code(vector, code)));
        }
        self.mark_accessed(env, descriptor)?;
        let mut segment = descriptor.segment(selector);
        segment.attributes.0 |= 1;
        *self.state.segment_mut(register) = segment;
        if register == Seg::Ss {
            self.refresh_mode();
        }
        Ok(())
    }

    /// The upper half of a system descriptor of IA-32e mode, which has sixteen bytes; its type must be zero.
    pub(crate) fn upper_half(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        descriptor: Descriptor,
    ) -> Result<u64, Stop> {
        let code = selector_code(selector);
        let limit = if selector & 4 == 0 { u32::from(self.state.gdtr.limit) } else { self.state.ldtr.limit };
        if u32::from(selector | 7) + 8 > limit {
            return Err(self.general_protection(code));
        }
        let high: u64 = self.load_system(env, descriptor.linear.wrapping_add(8))?;
        if high >> 40 & 0x1F != 0 {
            return Err(self.general_protection(code));
        }
        Ok(high)
    }

    /// LLDT and LTR: reads a system descriptor of this type, with its upper half in IA-32e mode.
    fn system_segment(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        kind: u8,
    ) -> Result<(Descriptor, Segment), Stop> {
        let code = selector_code(selector);
        if selector & 4 != 0 {
            return Err(self.general_protection(code));
        }
        let descriptor = self.descriptor(env, selector)?;
        let attributes = descriptor.attributes();
        let mut segment = descriptor.segment(selector);
        if attributes.is_code_or_data() || attributes.kind() != kind {
            return Err(self.general_protection(code));
        }
        if self.state.is_ia32e() {
            segment.base |= self.upper_half(env, selector, descriptor)? << 32;
            if !self.canonical(segment.base) {
                return Err(self.general_protection(code));
            }
        }
        if !attributes.present() {
            return Err(self.raise(Event::exception_with_code(vector::NP, code)));
        }
        Ok((descriptor, segment))
    }

    /// LTR.
    pub(crate) fn load_task_register(&mut self, env: &mut Env<'_>, selector: u16) -> Step {
        const AVAILABLE_TSS: u8 = 9;
        if is_null(selector) {
            return Err(self.general_protection(0));
        }
        let (descriptor, mut segment) = self.system_segment(env, selector, AVAILABLE_TSS)?;
        self.mark_descriptor(env, descriptor, BUSY)?;
        segment.attributes.0 |= 2;
        self.state.tr = segment;
        Ok(())
    }

    /// LLDT.
    pub(crate) fn load_ldt_register(&mut self, env: &mut Env<'_>, selector: u16) -> Step {
        const LDT: u8 = 2;
        if is_null(selector) {
            self.state.ldtr = Segment { selector, ..Segment::NULL };
            return Ok(());
        }
        self.state.ldtr = self.system_segment(env, selector, LDT)?.1;
        Ok(())
    }
}
