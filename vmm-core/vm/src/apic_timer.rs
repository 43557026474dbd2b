//! The local APIC's timer, in the guest's time.
//!
//! # Protocol
//! The guest picks a mode in LVT Timer and starts the timer by its counter (one-shot, periodic) or by a deadline
//! (TSC-deadline). The model only knows *when* the next expiry is; whoever runs the processor asks [`Timer::expire`]
//! before each entry, and is itself woken at [`Timer::deadline`], so that the guest is interrupted in time.
//! Changing the mode between TSC-deadline and the others disarms the timer (SDM volume 3, "Local APIC Timer").
//!
//! The counter's clock is the core crystal clock, the one that CPUID 0x15 tells the guest: 25 MHz for every TD.

/// Frequency of the counter, before its divider.
pub const CRYSTAL_HZ: u64 = 25_000_000;

const MODE_SHIFT: u32 = 17;
const MODE_BITS: u32 = 3 << MODE_SHIFT;
const PERIODIC: u32 = 1 << MODE_SHIFT;
const TSC_DEADLINE: u32 = 2 << MODE_SHIFT;
const MASKED: u32 = 1 << 16;
/// Vector, mask and mode.
const LVT_FIELDS: u32 = 0xff | MASKED | MODE_BITS;
/// Divide configuration: bits 3, 1 and 0.
const DIVIDE_FIELDS: u32 = 0b1011;

/// One vCPU's timer.
#[derive(Clone, Debug)]
pub struct Timer {
    lvt: u32,
    initial: u32,
    divide: u32,
    /// Guest TSC ticks per tick of the crystal.
    ratio: u64,
    deadline: Option<u64>,
}

/// What a timer keeps, for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerState {
    /// LVT Timer.
    pub lvt: u32,
    /// Initial count.
    pub initial: u32,
    /// Divide configuration.
    pub divide: u32,
    /// When the timer expires, in guest time.
    pub deadline: Option<u64>,
}

impl Timer {
    /// What the timer keeps.
    pub const fn state(&self) -> TimerState {
        let Self { lvt, initial, divide, ratio: _, deadline } = *self;
        TimerState { lvt, initial, divide, deadline }
    }

    /// A timer of a TD whose TSC has this frequency, in a state.
    pub const fn with_state(tsc_hz: u64, state: TimerState) -> Self {
        let TimerState { lvt, initial, divide, deadline } = state;
        let (lvt, divide) = (lvt & LVT_FIELDS, divide & DIVIDE_FIELDS);
        Self { lvt, initial, divide, deadline, ..Self::new(tsc_hz) }
    }

    /// A stopped timer of a TD whose TSC has this frequency.
    pub const fn new(tsc_hz: u64) -> Self {
        let ratio = tsc_hz / CRYSTAL_HZ;
        Self { lvt: MASKED, initial: 0, divide: 0, ratio: if ratio == 0 { 1 } else { ratio }, deadline: None }
    }

    /// LVT Timer.
    pub const fn lvt(&self) -> u32 {
        self.lvt
    }

    /// Writes LVT Timer.
    pub const fn set_lvt(&mut self, value: u32) {
        let value = value & LVT_FIELDS;
        if (value ^ self.lvt) & TSC_DEADLINE != 0 {
            self.deadline = None;
            self.initial = 0;
        }
        self.lvt = value;
    }

    /// Initial count.
    pub const fn initial_count(&self) -> u32 {
        self.initial
    }

    /// Writes the initial count, which starts the timer, or stops it with zero.
    pub const fn set_initial_count(&mut self, value: u32, now: u64) {
        if self.uses_deadline() {
            return;
        }
        self.initial = value;
        self.deadline = match value {
            0 => None,
            _ => Some(now.saturating_add(self.period())),
        };
    }

    /// What is left of the count.
    pub const fn current_count(&self, now: u64) -> u32 {
        match self.deadline {
            Some(deadline) if !self.uses_deadline() => {
                let left = deadline.saturating_sub(now) / self.ticks_per_count();
                if left > self.initial as u64 { self.initial } else { (left & 0xffff_ffff) as u32 }
            }
            _ => 0,
        }
    }

    /// Divide configuration.
    pub const fn divide(&self) -> u32 {
        self.divide
    }

    /// Writes the divide configuration. A running count keeps its expiry.
    pub const fn set_divide(&mut self, value: u32) {
        self.divide = value & DIVIDE_FIELDS;
    }

    /// IA32_TSC_DEADLINE: zero once it has expired, and outside of its mode.
    pub const fn tsc_deadline(&self) -> u64 {
        match self.deadline {
            Some(deadline) if self.uses_deadline() => deadline,
            _ => 0,
        }
    }

    /// Writes IA32_TSC_DEADLINE: zero disarms; outside of its mode nothing happens.
    pub const fn set_tsc_deadline(&mut self, value: u64) {
        if self.uses_deadline() {
            self.deadline = if value == 0 { None } else { Some(value) };
        }
    }

    /// When the timer expires next, in guest time.
    pub const fn deadline(&self) -> Option<u64> {
        self.deadline
    }

    /// Expires the timer if it is due. The vector to deliver, unless LVT Timer is masked.
    pub const fn expire(&mut self, now: u64) -> Option<u8> {
        match self.deadline {
            Some(deadline) if deadline <= now => {
                self.deadline = if self.lvt & MODE_BITS == PERIODIC {
                    // Periods that passed unseen are skipped: one interrupt stands for them.
                    let period = self.period();
                    let missed = (now - deadline) / period;
                    Some(deadline.saturating_add(period.saturating_mul(missed.saturating_add(1))))
                } else {
                    None
                };
                if self.lvt & MASKED == 0 { Some((self.lvt & 0xff) as u8) } else { None }
            }
            _ => None,
        }
    }

    const fn uses_deadline(&self) -> bool {
        self.lvt & MODE_BITS == TSC_DEADLINE
    }

    /// Guest TSC ticks of one count. The divider's code is 2 to 128 in powers of two, then 1.
    const fn ticks_per_count(&self) -> u64 {
        let code = self.divide & 3 | (self.divide & 8) >> 1;
        let divider = if code == 7 { 1 } else { 2 << code };
        self.ratio * divider
    }

    const fn period(&self) -> u64 {
        let period = self.ticks_per_count() * self.initial as u64;
        if period == 0 { 1 } else { period }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HZ: u64 = 2_000_000_000;

    #[test]
    fn a_tsc_deadline_expires_once_and_reads_as_zero_then() {
        let mut timer = Timer::new(HZ);
        timer.set_tsc_deadline(500);
        assert_eq!(timer.deadline(), None, "not in TSC-deadline mode");
        timer.set_lvt(TSC_DEADLINE | 0xec);
        timer.set_tsc_deadline(500);
        assert_eq!((timer.expire(499), timer.tsc_deadline()), (None, 500));
        assert_eq!((timer.expire(500), timer.tsc_deadline()), (Some(0xec), 0));
        assert_eq!(timer.expire(u64::MAX), None);
    }

    #[test]
    fn a_masked_timer_expires_silently() {
        let mut timer = Timer::new(HZ);
        timer.set_lvt(TSC_DEADLINE | MASKED | 0xec);
        timer.set_tsc_deadline(500);
        assert_eq!((timer.expire(600), timer.deadline()), (None, None));
    }

    #[test]
    fn counting_modes_run_at_the_divided_crystal_clock() {
        let mut timer = Timer::new(HZ);
        timer.set_lvt(0x20);
        timer.set_divide(0b1011);
        timer.set_initial_count(100, 1_000);
        assert_eq!(timer.deadline(), Some(1_000 + 100 * 80));
        assert_eq!(timer.current_count(1_000 + 40 * 80), 60);
        timer.set_divide(0b0011);
        timer.set_initial_count(10, 0);
        assert_eq!(timer.deadline(), Some(10 * 80 * 16));
        assert_eq!(timer.expire(10 * 80 * 16), Some(0x20));
        assert_eq!((timer.deadline(), timer.current_count(0)), (None, 0));
    }

    #[test]
    fn a_periodic_timer_skips_what_it_missed_and_keeps_its_phase() {
        let mut timer = Timer::new(CRYSTAL_HZ);
        timer.set_lvt(PERIODIC | 0x20);
        timer.set_divide(0b1011);
        timer.set_initial_count(10, 0);
        assert_eq!(timer.expire(35), Some(0x20));
        assert_eq!((timer.deadline(), timer.expire(39)), (Some(40), None));
    }

    #[test]
    fn changing_to_or_from_deadline_mode_disarms() {
        let mut timer = Timer::new(HZ);
        timer.set_lvt(0x20);
        timer.set_initial_count(10, 0);
        timer.set_lvt(TSC_DEADLINE | 0x20);
        assert_eq!(timer.deadline(), None);
    }
}
