//! The claims, gathered from the rows of the leaves.

use super::Row;
use crate::{guest_leaf, host};

/// One row per leaf, host side first.
pub const TABLE: &[Row] = &{
    const HOST: usize = host::LEAVES.len();
    const GUEST: usize = guest_leaf::LEAVES.len();
    let mut table = [Row { leaf: "", claim: host::LEAVES[0].claim }; HOST + GUEST];
    let mut index = 0;
    while index < HOST {
        table[index] = Row { leaf: host::LEAVES[index].info.name, claim: host::LEAVES[index].claim };
        index += 1;
    }
    while index < HOST + GUEST {
        let leaf = &guest_leaf::LEAVES[index - HOST];
        table[index] = Row { leaf: leaf.info.name, claim: leaf.claim };
        index += 1;
    }
    table
};

/// What of a migration bundle a replay does not compare with the recorded one, and why.
pub const NOT_COMPARED: &[(&str, &str)] = &[
    (
        "fields of the module (SYS) in the immutable state",
        "version and build date are those of the recorded module",
    ),
    (
        "CPUID_VALUES, and the virtual VMX MSRs",
        "they follow from the recorded processor, which these recordings do not list",
    ),
    ("TD_UUID, and the table of service TD bindings that repeats it", "random"),
    ("VIRTUAL_TSC", "a matter of time"),
    (
        "RF of GUEST_RFLAGS",
        "the recorded processor kept it behind an exception that was never delivered; the simulated one clears it",
    ),
];

/// What the emulator leaves out on purpose.
pub const NOT_MODELLED: &[(&str, &str)] = &[
    ("Time", "no call takes as long as on hardware, and none longer for one input than for another"),
    ("Side channels", "caches, branch predictors and power have no state that an attacker could observe"),
    (
        "Cryptography of memory",
        "pages carry their key id instead of being encrypted; without the key there is a pattern, not ciphertext",
    ),
    ("SMM, SMRR and MCHECK", "the platform is taken to be set up correctly"),
    ("Machine-check banks", "a broken page ends its TD; no error is logged in MSRs"),
    ("TD preserving update", "the module cannot be replaced while TDs live"),
    ("Bus-lock and notify exits", "the detectors do not exist"),
    (
        "Single-stepping",
        "a guest that is interrupted soon is not let run on for a random number of instructions",
    ),
    (
        "virtio devices in a snapshot",
        "a TD of an image is saved to the last bit, with module, memory and host; one with virtio devices, as a kernel's, is refused",
    ),
];
