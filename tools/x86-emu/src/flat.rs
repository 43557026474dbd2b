//! The simplest bus: guest-physical addresses are those of the memory, and there are no devices.

use core::convert::Infallible;

use phys_memory::Arena;
use tdvisor_base::sync::Arc;
use tdvisor_base::{Gpa, Hpa, KeyId, Level};
use x86_arch::Access;

use crate::bus::{Answer, Bus, Translation};

/// Memory as it is, for tests, benchmarks and programs that run a piece of code: every access is allowed, time stands
/// still, and nothing is random.
#[derive(Clone, Debug)]
pub struct FlatBus {
    /// The memory.
    pub memory: Arc<Arena>,
    key: KeyId,
    level: Level,
}

impl FlatBus {
    /// All of `memory`, without a key, in pages of 4 KiB.
    pub const fn new(memory: Arc<Arena>) -> Self {
        Self { memory, key: KeyId::DEFAULT, level: Level::L4K }
    }

    /// The memory, under a key.
    #[must_use]
    pub fn with_key(self, key: KeyId) -> Self {
        Self { key, ..self }
    }

    /// The memory, in pages of a size: what a translation that is kept is good for.
    #[must_use]
    pub fn with_pages(self, level: Level) -> Self {
        Self { level, ..self }
    }
}

impl Bus for FlatBus {
    type Refusal = Infallible;

    fn memory(&self) -> Arc<Arena> {
        self.memory.clone()
    }

    fn translate(&mut self, gpa: Gpa, _: Access) -> Result<Answer, Infallible> {
        Ok(Answer::Memory(Translation {
            hpa: Hpa::new(gpa.get() & !0xFFF),
            key: self.key,
            level: self.level,
            readable: true,
            writable: true,
            executable: true,
        }))
    }

    fn tsc(&mut self) -> u64 {
        0
    }

    fn random(&mut self) -> Option<u64> {
        None
    }
}
