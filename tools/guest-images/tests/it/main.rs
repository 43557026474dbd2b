//! The built images, and the parts of the guests that decide something: their files need no TD and are included here, under
//! the names that they have in the guests.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot read its subject has failed"
)]

#[path = "../../../guests/boot-shim/src/boot_params.rs"]
mod boot_params;
#[path = "../../../guests/boot-shim/src/bytes.rs"]
mod bytes;
#[path = "../../../guests/boot-shim/src/fw_cfg/directory.rs"]
#[expect(dead_code, reason = "the shim uses what the tests do not")]
mod directory;
#[path = "../../../guests/boot-shim/src/event_log.rs"]
mod event_log;
#[path = "../../../guests/guest-rt/src/hob.rs"]
mod hob;
#[path = "../../../guests/boot-shim/src/kernel/mod.rs"]
#[expect(dead_code, reason = "the shim uses what the tests do not")]
mod kernel;
#[path = "../../../guests/boot-shim/src/memory_map.rs"]
mod memory_map;
#[path = "../../../guests/boot-shim/src/slices.rs"]
mod slices;

mod images;
mod test_boot_params;
mod test_bzimage;
mod test_directory;
mod test_elf;
mod test_event_log;
mod test_hob;
mod test_memory_map;
mod test_slices;

use hob::Range;
use memory_map::{MemoryMap, Use};

/// A range in MiB.
fn mib(start: u64, end: u64) -> Range {
    Range { start: start << 20, end: end << 20 }
}

/// RAM from 0 to `end` MiB as the shim has it when it places a kernel: the first 2 MiB are in use.
fn ram(end: u64) -> MemoryMap {
    let mut map = MemoryMap::new();
    map.add(mib(0, end)).unwrap();
    map.mark(mib(0, 2), Use::Loaded).unwrap();
    map
}

/// Changes each byte of a small file to each of some values, and has `check` look at the result.
fn for_each_changed_byte(file: &[u8], places: std::ops::Range<usize>, mut check: impl FnMut(&[u8])) {
    let mut changed = file.to_vec();
    for place in places {
        for value in [0, 1, 2, 0x7F, 0x80, 0xFE, 0xFF] {
            changed[place] = value;
            check(&changed);
        }
        changed[place] = file[place];
    }
}
