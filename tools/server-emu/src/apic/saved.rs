//! A local APIC as a snapshot holds it.

use serde::{Deserialize, Serialize};
use tdvisor_vm::apic_timer::{Timer, TimerState};

use super::{LVTS, LocalApic, VectorSet};

/// Every register of an APIC but its id, which is the processor's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedApic {
    tpr: u8,
    svr: u32,
    irr: VectorSet,
    isr: VectorSet,
    tmr: VectorSet,
    nmi: bool,
    errors: u32,
    esr: u32,
    icr: u64,
    lvt: [u32; LVTS],
    timer: SavedTimer,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedTimer {
    lvt: u32,
    initial: u32,
    divide: u32,
    deadline: Option<u64>,
}

impl LocalApic {
    /// The state.
    pub(crate) fn save(&self) -> SavedApic {
        let Self { id: _, tpr, svr, irr, isr, tmr, nmi, errors, esr, icr, lvt, timer } = self.clone();
        let TimerState { lvt: timer_lvt, initial, divide, deadline } = timer.state();
        let timer = SavedTimer { lvt: timer_lvt, initial, divide, deadline };
        SavedApic { tpr, svr, irr, isr, tmr, nmi, errors, esr, icr, lvt, timer }
    }

    /// The APIC with this id in a state; the processor's time-stamp counter has this frequency.
    pub(crate) const fn restore(id: u32, tsc_hz: u64, saved: SavedApic) -> Self {
        let SavedApic { tpr, svr, irr, isr, tmr, nmi, errors, esr, icr, lvt, timer } = saved;
        let SavedTimer { lvt: timer_lvt, initial, divide, deadline } = timer;
        let timer = Timer::with_state(tsc_hz, TimerState { lvt: timer_lvt, initial, divide, deadline });
        Self { id, tpr, svr, irr, isr, tmr, nmi, errors, esr, icr, lvt, timer }
    }
}
