//! Breakpoints and watchpoints, as the client names them and as the CPU compares them.

use gdbstub::common::Tid;
use gdbstub::stub::MultiThreadStopReason;
use gdbstub::target::ext::breakpoints::WatchKind;
use x86_emu::{StopOn, StopPoint};

/// The most points of one client.
const MOST: usize = 1024;
/// The most bytes that one watchpoint covers.
const MOST_BYTES: u64 = 4096;

/// How a client named a point. A stop has to be reported under the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Software,
    Hardware,
    Watch(WatchKind),
}

impl Kind {
    const fn on(self) -> StopOn {
        match self {
            Self::Software | Self::Hardware => StopOn::Execution,
            Self::Watch(WatchKind::Write) => StopOn::Write,
            Self::Watch(WatchKind::Read) => StopOn::Read,
            Self::Watch(WatchKind::ReadWrite) => StopOn::Access,
        }
    }
}

/// The points of one client.
#[derive(Debug, Default)]
pub(super) struct Points(Vec<(Kind, StopPoint)>);

impl Points {
    /// Adds a point; false where there are too many, or it is too large.
    pub(super) fn add(&mut self, kind: Kind, address: u64, bytes: u64) -> bool {
        if self.0.len() >= MOST || bytes == 0 || bytes > MOST_BYTES {
            return false;
        }
        let point = (kind, StopPoint { address, bytes, on: kind.on() });
        if !self.0.contains(&point) {
            self.0.push(point);
        }
        true
    }

    /// Removes a point; false where there is none such.
    pub(super) fn remove(&mut self, kind: Kind, address: u64, bytes: u64) -> bool {
        let point = (kind, StopPoint { address, bytes, on: kind.on() });
        let before = self.0.len();
        self.0.retain(|other| *other != point);
        self.0.len() != before
    }

    /// What the CPU compares.
    pub(super) fn stop_points(&self) -> Vec<StopPoint> {
        self.0.iter().map(|(_, point)| *point).collect()
    }

    /// How a stop at this point is reported; `None` where it is none of these.
    pub(super) fn reason(&self, tid: Tid, point: &StopPoint) -> Option<MultiThreadStopReason<u64>> {
        let (kind, point) = self.0.iter().find(|(_, other)| other == point)?;
        Some(match kind {
            Kind::Software => MultiThreadStopReason::SwBreak(tid),
            Kind::Hardware => MultiThreadStopReason::HwBreak(tid),
            Kind::Watch(kind) => MultiThreadStopReason::Watch { tid, kind: *kind, addr: point.address },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_reported_under_the_name_that_its_point_was_given() {
        let tid = Tid::new(2).unwrap();
        let mut points = Points::default();
        assert!(points.add(Kind::Software, 0x1000, 1) && points.add(Kind::Hardware, 0x2000, 1));
        assert!(points.add(Kind::Watch(WatchKind::Read), 0x3000, 8));
        let reasons: Vec<_> = points.stop_points().iter().map(|point| points.reason(tid, point)).collect();
        let watch = MultiThreadStopReason::Watch { tid, kind: WatchKind::Read, addr: 0x3000 };
        assert_eq!(
            reasons,
            [MultiThreadStopReason::SwBreak(tid), MultiThreadStopReason::HwBreak(tid), watch].map(Some)
        );
        assert!(points.remove(Kind::Hardware, 0x2000, 1) && !points.remove(Kind::Hardware, 0x2000, 1));
        assert!(!points.add(Kind::Watch(WatchKind::Write), 0, 0), "nothing is watched");
        assert!(!points.add(Kind::Watch(WatchKind::Write), 0, MOST_BYTES + 1));
    }
}
