//! What can happen, and random schedules of it. A schedule depends on nothing but its seed.

use tdvisor_base::{Level, Side};
use tdvisor_test_data::chance::Chance;

/// Frames of each TD that schedules work on: six huge pages, so that operations meet.
pub const FRAMES: u64 = 6 * 512;

/// Frames, counted from the beginning of the model's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: u64,
    pub frames: u64,
}

/// Which of a TD's vCPUs does something, and whether it is interrupted when it sets about it.
#[derive(Clone, Copy, Debug)]
pub struct Vcpu {
    pub index: usize,
    pub interrupted: bool,
}

/// One operation.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// The host resolves a fault; at 4K inside a huge page it splits that.
    PrivateFault {
        frame: u64,
        max_level: Level,
    },
    SharedFault {
        frame: u64,
    },
    Accept {
        vcpu: Vcpu,
        frame: u64,
        level: Level,
    },
    PrivateWrite {
        vcpu: Vcpu,
        frame: u64,
        value: u64,
    },
    PrivateRead {
        vcpu: Vcpu,
        frame: u64,
    },
    SharedWrite {
        vcpu: Vcpu,
        frame: u64,
        value: u64,
    },
    SharedRead {
        vcpu: Vcpu,
        frame: u64,
    },
    HostWrite {
        frame: u64,
        value: u64,
    },
    Convert {
        span: Span,
        to: Side,
    },
    Punch {
        span: Span,
    },
    Prefault {
        span: Span,
    },
    Collapse {
        span: Span,
    },
    RecoverHuge,
    ReclaimTables,
    Age {
        span: Span,
    },
    StartLog,
    Harvest,
    StopLog,
    /// The slot goes, and an empty one comes in its place.
    ReplaceSlot,
    Audit,
}

/// One turn of one TD.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub td: usize,
    pub operation: Operation,
}

impl Step {
    pub fn is_hole(&self) -> bool {
        matches!(self.operation, Operation::Punch { .. })
    }

    pub fn is_interrupted(&self) -> bool {
        match self.operation {
            Operation::Accept { vcpu, .. }
            | Operation::PrivateWrite { vcpu, .. }
            | Operation::PrivateRead { vcpu, .. }
            | Operation::SharedWrite { vcpu, .. }
            | Operation::SharedRead { vcpu, .. } => vcpu.interrupted,
            _ => false,
        }
    }
}

/// The schedule of a seed.
pub fn schedule(seed: u64, steps: u64) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    (0..steps).map(|_| Step { td: chance.index(2), operation: operation(&mut chance) }).collect()
}

/// Pages, huge pages, and what cuts them.
fn span(chance: &mut Chance, frame: u64) -> Span {
    let huge = frame - frame % 512;
    let (first, frames) = match chance.below(8) {
        0..2 => (huge, 512),
        2 => (huge, 1024),
        3 => (frame, 1 + chance.below(700)),
        _ => (frame, 1 + chance.below(8)),
    };
    Span { first, frames: frames.min(FRAMES - first) }
}

fn operation(chance: &mut Chance) -> Operation {
    // Some frames are visited often, so that accesses meet what others did to them.
    let frame =
        if chance.below(2) == 0 { chance.below(FRAMES) } else { chance.below(6) * 512 + chance.below(4) };
    let vcpu = Vcpu { index: chance.index(2), interrupted: chance.below(8) == 0 };
    let level = chance.pick(&[Level::L4K, Level::L2M]);
    let value = 1 + chance.below(1 << 40);
    let span = span(chance, frame);
    match chance.below(1000) {
        0..160 => Operation::PrivateFault { frame, max_level: level },
        160..230 => Operation::SharedFault { frame },
        230..430 => Operation::Accept {
            vcpu,
            frame: if level == Level::L2M { frame - frame % 512 } else { frame },
            level,
        },
        430..510 => Operation::PrivateWrite { vcpu, frame, value },
        510..590 => Operation::PrivateRead { vcpu, frame },
        590..650 => Operation::SharedWrite { vcpu, frame, value },
        650..710 => Operation::SharedRead { vcpu, frame },
        710..730 => Operation::HostWrite { frame, value },
        730..860 => {
            let to = chance.pick(&[Side::Shared, Side::Private]);
            Operation::Convert { span, to }
        }
        860..890 => Operation::Punch { span },
        890..920 => Operation::Prefault { span },
        920..940 => Operation::Collapse { span: Span { first: 0, frames: FRAMES } },
        940..945 => Operation::RecoverHuge,
        945..955 => Operation::ReclaimTables,
        955..970 => Operation::Age { span },
        970..977 => Operation::StartLog,
        977..990 => Operation::Harvest,
        990..995 => Operation::StopLog,
        995..998 => Operation::ReplaceSlot,
        _ => Operation::Audit,
    }
}
