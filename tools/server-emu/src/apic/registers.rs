//! The registers of an x2APIC as MSRs (SDM volume 3, "x2APIC Register Address Space").

use tdvisor_vm::interrupt::{Destination, logical_id};

use crate::msr::GeneralProtection;

use super::command::{self, Delivery, Ipi};
use super::{Effect, FIRST_VECTOR, LVT_MASKED, LocalApic};

/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The first MSR of the x2APIC's range.
pub const MSR_FIRST: u32 = 0x800;
/// The last MSR of the x2APIC's range.
pub const MSR_LAST: u32 = 0x8ff;

const ID: u32 = 0x802;
const VERSION: u32 = 0x803;
const TPR: u32 = 0x808;
const PPR: u32 = 0x80a;
const EOI: u32 = 0x80b;
const LDR: u32 = 0x80d;
const SVR: u32 = 0x80f;
const ISR: u32 = 0x810;
const TMR: u32 = 0x818;
const IRR: u32 = 0x820;
const ESR: u32 = 0x828;
const LVT_CMCI: u32 = 0x82f;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const LVT_THERMAL: u32 = 0x833;
const LVT_ERROR: u32 = 0x837;
const INITIAL_COUNT: u32 = 0x838;
const CURRENT_COUNT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;
const SELF_IPI: u32 = 0x83f;

/// Version 0x15, seven LVT entries (bits 23:16 hold one less), no suppression of EOI broadcasts.
const VERSION_VALUE: u64 = 0x0006_0015;

/// ESR: this processor sent a message with a vector below 16.
const ESR_SENT_ILLEGAL_VECTOR: u32 = 1 << 5;
/// ESR: this processor received a message with a vector below 16.
pub(super) const ESR_RECEIVED_ILLEGAL_VECTOR: u32 = 1 << 6;

/// SVR: vector 7:0, software enable 8, focus checking 9.
const SVR_FIELDS: u32 = 0x3ff;
/// LVT timer: vector 7:0, mask 16, mode 18:17; status 12 is read-only.
const TIMER_FIELDS: u32 = 0x0007_00ff;
/// Read-only bits of LVT entries that a write may carry: delivery status 12, remote IRR 14.
const LVT_READ_ONLY: u32 = 1 << 12 | 1 << 14;
/// LVT entries other than the timer's. CMCI, thermal and performance: vector, delivery mode, mask.
const LVT_MODE_FIELDS: u32 = 0x0001_07ff;
/// LINT0 and LINT1 have polarity 13 and trigger mode 15 as well.
const LVT_PIN_FIELDS: u32 = 0x0001_a7ff;
/// The error entry has vector and mask only.
const LVT_ERROR_FIELDS: u32 = 0x0001_00ff;

/// Index of an LVT entry other than the timer's, and the fields that it has.
const fn lvt_entry(msr: u32) -> Option<(usize, u32)> {
    match msr {
        LVT_CMCI => Some((0, LVT_MODE_FIELDS)),
        LVT_THERMAL | 0x834 => Some(((msr - LVT_THERMAL) as usize + 1, LVT_MODE_FIELDS)),
        0x835 | 0x836 => Some(((msr - LVT_THERMAL) as usize + 1, LVT_PIN_FIELDS)),
        LVT_ERROR => Some(((msr - LVT_THERMAL) as usize + 1, LVT_ERROR_FIELDS)),
        _ => None,
    }
}

impl LocalApic {
    /// RDMSR. `now` is the time-stamp counter.
    ///
    /// # Errors
    /// [`GeneralProtection`] for a register that does not exist or cannot be read.
    pub fn read(&self, msr: u32, now: u64) -> Result<u64, GeneralProtection> {
        Ok(match msr {
            MSR_TSC_DEADLINE => self.timer.tsc_deadline(),
            ID => self.id.into(),
            VERSION => VERSION_VALUE,
            TPR => self.tpr.into(),
            PPR => self.ppr().into(),
            LDR => logical_id(self.id).into(),
            SVR => self.svr.into(),
            ISR..TMR => self.isr.word(msr - ISR).into(),
            TMR..IRR => self.tmr.word(msr - TMR).into(),
            IRR..ESR => self.irr.word(msr - IRR).into(),
            ESR => self.esr.into(),
            ICR => self.icr,
            LVT_TIMER => self.timer.lvt().into(),
            INITIAL_COUNT => self.timer.initial_count().into(),
            CURRENT_COUNT => self.timer.current_count(now).into(),
            DIVIDE => self.timer.divide().into(),
            _ => {
                let (index, _) = lvt_entry(msr).ok_or(GeneralProtection)?;
                (*self.lvt.get(index).ok_or(GeneralProtection)?).into()
            }
        })
    }

    /// WRMSR. `now` is the time-stamp counter.
    ///
    /// # Errors
    /// [`GeneralProtection`] for a register that does not exist or cannot be written, and for a reserved bit.
    pub fn write(&mut self, msr: u32, value: u64, now: u64) -> Result<Effect, GeneralProtection> {
        match msr {
            MSR_TSC_DEADLINE => {
                self.timer.set_tsc_deadline(value);
                return Ok(Effect::None);
            }
            ICR => return self.command(value),
            _ => {}
        }
        let low = u32::try_from(value).map_err(|_| GeneralProtection)?;
        let within = |fields: u32| if low & !fields == 0 { Ok(low) } else { Err(GeneralProtection) };
        match msr {
            TPR => self.tpr = within(0xff)? as u8,
            EOI => {
                within(0)?;
                return Ok(self.end_of_interrupt());
            }
            SVR => self.set_svr(within(SVR_FIELDS)?),
            ESR => {
                within(0)?;
                self.esr = core::mem::take(&mut self.errors);
            }
            LVT_TIMER => {
                let value = within(TIMER_FIELDS | LVT_READ_ONLY)? & TIMER_FIELDS;
                self.timer.set_lvt(value | self.forced_mask());
            }
            INITIAL_COUNT => self.timer.set_initial_count(low, now),
            DIVIDE => self.timer.set_divide(within(0b1011)?),
            SELF_IPI => {
                let vector = within(0xff)? as u8;
                return Ok(self.send(Ipi {
                    destination: Destination::Physical(self.id),
                    delivery: Delivery::Fixed(vector),
                }));
            }
            _ => {
                let (index, fields) = lvt_entry(msr).ok_or(GeneralProtection)?;
                let value = within(fields | LVT_READ_ONLY)? & fields | self.forced_mask();
                *self.lvt.get_mut(index).ok_or(GeneralProtection)? = value;
            }
        }
        Ok(Effect::None)
    }

    /// While software has the APIC disabled, every LVT entry stays masked.
    const fn forced_mask(&self) -> u32 {
        if self.is_enabled() { 0 } else { LVT_MASKED }
    }

    fn set_svr(&mut self, value: u32) {
        self.svr = value;
        if !self.is_enabled() {
            for entry in &mut self.lvt {
                *entry |= LVT_MASKED;
            }
            self.timer.set_lvt(self.timer.lvt() | LVT_MASKED);
        }
    }

    fn command(&mut self, value: u64) -> Result<Effect, GeneralProtection> {
        if value & command::RESERVED != 0 {
            return Err(GeneralProtection);
        }
        self.icr = value & !command::DELIVERY_STATUS;
        Ok(self.send(command::decode(value, self.id)))
    }

    /// A vector that no interrupt can have does not leave the processor.
    const fn send(&mut self, ipi: Ipi) -> Effect {
        if let Delivery::Fixed(vector) | Delivery::LowestPriority(vector) = ipi.delivery
            && vector < FIRST_VECTOR
        {
            self.errors |= ESR_SENT_ILLEGAL_VECTOR;
            return Effect::None;
        }
        Effect::Send(ipi)
    }
}
