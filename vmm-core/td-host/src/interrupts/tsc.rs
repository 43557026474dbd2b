//! A TD's time-stamp counter, from the host's and back.
//!
//! The module scales and shifts the processor's counter for each TD: guest = (host × multiplier >> 48) + offset
//! (metadata fields TSC_MULTIPLIER and TSC_OFFSET of the TD's execution controls, which the host may read). The
//! guest programs its deadlines in its own time; the LP's timer is set in the host's.

use tdvisor_base::Ticks;

/// Fractional bits of the multiplier.
const FRACTION: u32 = 48;

/// How one TD's counter follows the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TscScale {
    /// With 48 fractional bits.
    pub multiplier: u64,
    /// Added last, modulo 2^64.
    pub offset: u64,
}

/// What a register of 64 bits keeps of a product.
const LOW: u128 = 0xffff_ffff_ffff_ffff;

impl TscScale {
    /// The guest's counter at this value of the host's.
    pub const fn guest(self, host: Ticks) -> u64 {
        let scaled = ((host.get() as u128 * self.multiplier as u128) >> FRACTION & LOW) as u64;
        scaled.wrapping_add(self.offset)
    }

    /// The first value of the host's counter at which the guest's has reached `guest`, given that the host's is
    /// at `now`. A moment in the guest's past is `now`.
    pub const fn host(self, guest: u64, now: Ticks) -> Ticks {
        let Some(ahead) = guest.checked_sub(self.guest(now)) else { return now };
        let multiplier = if self.multiplier == 0 { 1 } else { self.multiplier as u128 };
        let ticks = ((ahead as u128) << FRACTION).div_ceil(multiplier);
        // One more, for what the scaling of `now` rounded away.
        let ticks = if ticks > (u64::MAX - 1) as u128 { u64::MAX } else { (ticks & LOW) as u64 + 1 };
        now.saturating_add(Ticks::new(ticks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_at_most_a_tick_or_two_late() {
        for multiplier in [1 << 48, 3 << 47, 1 << 47, 0x0001_0123_4567_89ab] {
            let scale = TscScale { multiplier, offset: 0u64.wrapping_sub(12_345_678) };
            let now = Ticks::new(1 << 40);
            for ahead in [0, 1, 2, 999, 1_000_000_007] {
                let wanted = scale.guest(now) + ahead;
                let host = scale.host(wanted, now);
                assert!(scale.guest(host) >= wanted, "early: {scale:?} {ahead}");
                let before = scale.guest(host.saturating_since(Ticks::new(3)));
                assert!(before <= wanted, "late: {scale:?} {ahead}");
            }
        }
    }

    #[test]
    fn the_past_is_now_and_the_far_future_does_not_overflow() {
        let scale = TscScale { multiplier: 1 << 40, offset: 0 };
        let now = Ticks::new(1 << 50);
        assert_eq!(scale.host(0, now), now);
        assert_eq!(scale.host(u64::MAX, now), Ticks::new(u64::MAX));
    }
}
