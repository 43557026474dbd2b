//! What the emulated processors do not implement.

use core::fmt;

use x86_emu::Unimplemented;

/// Something that a guest asked of an emulated processor and that the processor cannot do.
///
/// It is a limit of the emulator, not a fault of the guest and not of the host. The vCPU that met it ended with
/// [`EMULATOR_LIMIT`](crate::guest::reason::EMULATOR_LIMIT).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EmulatorLimit {
    /// The processor.
    pub lp: usize,
    /// The instruction with its operands, address and bytes, and what of it is missing. All but the mnemonic are the
    /// guest's private contents, which a host may see of a TD in debug mode only.
    pub what: Unimplemented,
}

impl fmt::Display for EmulatorLimit {
    /// Without anything of the guest's contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mnemonic = self.what.mnemonic();
        let mnemonic = mnemonic.as_deref().unwrap_or("bytes without a decoding");
        write!(f, "emulated processor {}: not implemented: {mnemonic}", self.lp)
    }
}
