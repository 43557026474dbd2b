//! Snapshots: many machines start from one state without copying its memory.

use core::fmt;

use phys_memory::Snapshot;
use tdvisor_base::sync::Arc;

use super::Machine;
use crate::config::MachineConfig;
use crate::module::Module;

/// A frozen machine. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MachineSnapshot {
    config: MachineConfig,
    memory: Snapshot,
    module: Arc<Module>,
    tsc: u64,
}

/// A machine cannot be frozen while somebody else holds its memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotRefused;

impl fmt::Display for SnapshotRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the machine's memory is in use elsewhere")
    }
}

impl core::error::Error for SnapshotRefused {}

impl Machine {
    /// Freezes the state: memory, the module, the time. Pending interrupts, fault injections, translations
    /// and the log of violations are not part of it.
    ///
    /// # Errors
    /// [`SnapshotRefused`] while a clone of [`Machine::memory`] is alive.
    pub fn snapshot(&mut self) -> Result<MachineSnapshot, SnapshotRefused> {
        let memory = Arc::get_mut(&mut self.memory).ok_or(SnapshotRefused)?.snapshot();
        Ok(MachineSnapshot {
            config: self.config.clone(),
            memory,
            module: Arc::new(self.module.fork()),
            tsc: self.tsc(),
        })
    }
}

impl MachineSnapshot {
    /// A new machine in the frozen state.
    pub fn to_machine(&self) -> Machine {
        let machine = Machine::assemble(self.config.clone(), self.memory.to_arena(), self.module.fork());
        machine.advance_tsc(self.tsc);
        machine
    }
}
