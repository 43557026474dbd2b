//! What the emulated processors do not implement.

use core::fmt;

use tdvisor_base::sync::Mutex;

/// Something that a guest asked of an emulated processor and that the processor cannot do.
///
/// It is a fault of the emulator, not of the guest and not of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmulatorLimit {
    /// The processor.
    pub lp: usize,
    /// Which operation, without anything of the guest's state.
    pub what: String,
    /// The instruction with its operands, address and bytes: the guest's private contents, which a host may see of a TD in
    /// debug mode only.
    pub instruction: Option<String>,
}

impl fmt::Display for EmulatorLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "emulated processor {}: {}", self.lp, self.what)
    }
}

/// How many limits are kept.
const KEPT: usize = 256;

#[derive(Default)]
pub(super) struct LimitLog(Mutex<Vec<EmulatorLimit>>);

impl LimitLog {
    pub(super) fn push(&self, limit: EmulatorLimit) {
        let mut log = self.0.lock();
        if log.len() < KEPT {
            log.push(limit);
        }
    }

    pub(super) fn all(&self) -> Vec<EmulatorLimit> {
        self.0.lock().clone()
    }
}
