//! The registers of a vCPU's x2APIC that the module leaves to the host.
//!
//! Reads and writes arrive as RDMSR and WRMSR hypercalls. A write that x2APIC mode refuses (a reserved register, a
//! read-only one) is refused, and the guest takes #GP; bits that a register does not have are dropped.
//! Numbers: SDM volume 3, "x2APIC Register Address Space".

use tdvisor_vm::interrupt::{Destination, Message, logical_id, mode};

use mirror_ept::{BadNumbers, Numbers, Reader};
use tdvisor_vm::apic_timer::{Timer, TimerState};

/// IA32_TSC_DEADLINE.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// The first MSR of the x2APIC.
pub const MSR_FIRST: u32 = 0x800;
/// The last.
pub const MSR_LAST: u32 = 0x8ff;

const ID: u32 = 0x802;
const VERSION: u32 = 0x803;
const LDR: u32 = 0x80d;
const SVR: u32 = 0x80f;
const ESR: u32 = 0x828;
const LVT_CMCI: u32 = 0x82f;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const LVT_THERMAL: u32 = 0x833;
const LVT_ERROR: u32 = 0x837;
const INITIAL_COUNT: u32 = 0x838;
const CURRENT_COUNT: u32 = 0x839;
const DIVIDE: u32 = 0x83e;

/// Version 0x14 with six LVT entries beside CMCI.
const VERSION_VALUE: u64 = 0x0005_0014;
const SOFTWARE_ENABLED: u32 = 1 << 8;
const LVT_MASKED: u32 = 1 << 16;
/// Thermal, performance counters, LINT0, LINT1, error.
const LVTS: usize = 5;
/// Vector, delivery mode, polarity, trigger mode, mask.
const LVT_FIELDS: u32 = 0x0001_a7ff;

/// A register that does not exist, or an access that it does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// What a write asks of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// An interrupt to send.
    Send(Message),
}

/// One vCPU's part.
#[derive(Clone, Debug)]
pub struct LocalApic {
    id: u32,
    svr: u32,
    icr: u64,
    cmci: u32,
    lvt: [u32; LVTS],
    /// The timer, which the run loop looks after.
    pub timer: Timer,
}

impl LocalApic {
    /// The APIC of a vCPU after reset. `tsc_hz` is the guest's TSC frequency.
    pub const fn new(id: u32, tsc_hz: u64) -> Self {
        Self { id, svr: 0xff, icr: 0, cmci: LVT_MASKED, lvt: [LVT_MASKED; LVTS], timer: Timer::new(tsc_hz) }
    }

    /// These registers for a vCPU of another machine, whose number and TSC frequency are its own.
    #[must_use]
    pub const fn taken_over(self, id: u32, tsc_hz: u64) -> Self {
        Self { id, timer: Timer::with_state(tsc_hz, self.timer.state()), ..self }
    }

    /// Writes the registers.
    pub(crate) fn save(&self, out: &mut Numbers) {
        let Self { id: _, svr, icr, cmci, lvt, timer } = self;
        out.put(*svr);
        out.put(*icr);
        out.put(*cmci);
        lvt.iter().for_each(|entry| out.put(*entry));
        let TimerState { lvt, initial, divide, deadline } = timer.state();
        [lvt, initial, divide].into_iter().for_each(|register| out.put(register));
        out.put_option(deadline);
    }

    /// Reads what [`Self::save`] wrote.
    pub(crate) fn restore(id: u32, tsc_hz: u64, reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        let (svr, icr, cmci) = (reader.narrow()?, reader.number()?, reader.narrow()?);
        let mut entries = [0; LVTS];
        for entry in &mut entries {
            *entry = reader.narrow()?;
        }
        let (lvt, initial, divide) = (reader.narrow()?, reader.narrow()?, reader.narrow()?);
        let state = TimerState { lvt, initial, divide, deadline: reader.option()? };
        Ok(Self { id, svr, icr, cmci, lvt: entries, timer: Timer::with_state(tsc_hz, state) })
    }

    /// Whether software has enabled the APIC: fixed interrupts are dropped until then.
    pub const fn is_enabled(&self) -> bool {
        self.svr & SOFTWARE_ENABLED != 0
    }

    /// RDMSR. `now` is the guest's TSC.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&self, msr: u32, now: u64) -> Result<u64, Refused> {
        Ok(match msr {
            MSR_TSC_DEADLINE => self.timer.tsc_deadline(),
            ID => self.id.into(),
            VERSION => VERSION_VALUE,
            LDR => logical_id(self.id).into(),
            SVR => self.svr.into(),
            // No error is ever detected here: reserved vectors of IPIs are the sender's own loss.
            ESR => 0,
            LVT_CMCI => self.cmci.into(),
            ICR => self.icr,
            LVT_TIMER => self.timer.lvt().into(),
            LVT_THERMAL..=LVT_ERROR => u64::from(*self.lvt.get(lvt_index(msr)).ok_or(Refused)?),
            INITIAL_COUNT => self.timer.initial_count().into(),
            CURRENT_COUNT => self.timer.current_count(now).into(),
            DIVIDE => self.timer.divide().into(),
            _ => return Err(Refused),
        })
    }

    /// WRMSR. `now` is the guest's TSC.
    ///
    /// # Errors
    /// [`Refused`]; nothing changed.
    pub fn write(&mut self, msr: u32, value: u64, now: u64) -> Result<Effect, Refused> {
        if !matches!(msr, ICR | MSR_TSC_DEADLINE) && value >> 32 != 0 {
            return Err(Refused);
        }
        let low = (value & 0xffff_ffff) as u32;
        match msr {
            MSR_TSC_DEADLINE => self.timer.set_tsc_deadline(value),
            SVR => self.set_svr(low),
            ESR if low == 0 => {}
            LVT_CMCI => self.cmci = low & LVT_FIELDS | self.forced_mask(),
            ICR => return Ok(self.command(value)),
            LVT_TIMER => self.timer.set_lvt(low | self.forced_mask()),
            LVT_THERMAL..=LVT_ERROR => {
                let mask = self.forced_mask();
                *self.lvt.get_mut(lvt_index(msr)).ok_or(Refused)? = low & LVT_FIELDS | mask;
            }
            INITIAL_COUNT => self.timer.set_initial_count(low, now),
            DIVIDE => self.timer.set_divide(low),
            _ => return Err(Refused),
        }
        Ok(Effect::None)
    }

    /// While software has the APIC disabled, every LVT entry stays masked.
    const fn forced_mask(&self) -> u32 {
        if self.is_enabled() { 0 } else { LVT_MASKED }
    }

    fn set_svr(&mut self, value: u32) {
        self.svr = value & 0x1ff;
        if !self.is_enabled() {
            self.cmci |= LVT_MASKED;
            for lvt in &mut self.lvt {
                *lvt |= LVT_MASKED;
            }
            self.timer.set_lvt(self.timer.lvt() | LVT_MASKED);
        }
    }

    /// ICR: vector 7:0, mode 10:8, logical 11, shorthand 19:18, destination 63:32.
    fn command(&mut self, value: u64) -> Effect {
        const BROADCAST: u32 = u32::MAX;
        self.icr = value & !(1 << 12);
        let destination = match (value >> 18 & 3, (value >> 32) as u32) {
            (1, _) => Destination::Physical(self.id),
            (2, _) | (0, BROADCAST) => Destination::All,
            (3, _) => Destination::AllBut(self.id),
            (_, id) if value & 1 << 11 == 0 => Destination::Physical(id),
            (_, id) => Destination::Logical(id),
        };
        let mode = (value >> 8 & 7) as u8;
        match mode {
            mode::FIXED | mode::LOWEST_PRIORITY | mode::NMI => {
                Effect::Send(Message { destination, mode, vector: (value & 0xff) as u8 })
            }
            _ => Effect::None,
        }
    }
}

const fn lvt_index(msr: u32) -> usize {
    (msr - LVT_THERMAL) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apic() -> LocalApic {
        LocalApic::new(18, 2_000_000_000)
    }

    #[test]
    fn identification_follows_from_the_vcpus_number() {
        assert_eq!(apic().read(ID, 0), Ok(18));
        assert_eq!(apic().read(LDR, 0), Ok(0x0001_0004));
        assert_eq!(apic().write(ID, 0, 0), Err(Refused));
    }

    #[test]
    fn an_ipi_names_its_destination_by_shorthand_or_id() {
        let send = |value| apic().write(ICR, value, 0).unwrap();
        let message = |destination| Effect::Send(Message { destination, mode: 0, vector: 0xfd });
        assert_eq!(send(3 << 32 | 0xfd), message(Destination::Physical(3)));
        assert_eq!(send(0x0001_0003 << 32 | 1 << 11 | 0xfd), message(Destination::Logical(0x0001_0003)));
        assert_eq!(send(1 << 18 | 0xfd), message(Destination::Physical(18)));
        assert_eq!(send(2 << 18 | 0xfd), message(Destination::All));
        assert_eq!(send(3 << 18 | 0xfd), message(Destination::AllBut(18)));
        assert_eq!(send(0xffff_ffff << 32 | 0xfd), message(Destination::All));
        assert_eq!(send(5 << 8), Effect::None, "INIT means nothing to a TD");
    }

    #[test]
    fn a_disabled_apic_keeps_its_entries_masked() {
        let mut apic = apic();
        let _ = apic.write(LVT_TIMER, 0xec, 0).unwrap();
        assert_eq!(apic.read(LVT_TIMER, 0), Ok(0x100ec));
        let _ = apic.write(SVR, 0x1ff, 0).unwrap();
        let _ = apic.write(LVT_TIMER, 0xec, 0).unwrap();
        assert_eq!(apic.read(LVT_TIMER, 0), Ok(0xec));
        let _ = apic.write(SVR, 0xff, 0).unwrap();
        assert_eq!(apic.read(LVT_TIMER, 0), Ok(0x100ec));
    }

    #[test]
    fn what_x2apic_mode_has_not_is_refused() {
        for msr in [0x800, 0x80e, 0x831, 0x83a, 0x840, 0x8ff] {
            assert_eq!(apic().read(msr, 0), Err(Refused), "{msr:#x}");
            assert_eq!(apic().write(msr, 0, 0), Err(Refused), "{msr:#x}");
        }
        assert_eq!(apic().write(SVR, 1 << 32, 0), Err(Refused));
        assert_eq!(apic().write(ESR, 1, 0), Err(Refused));
    }
}
