//! Which VM of a TD.

/// A VM of a TD: the TD's own (L1), or one of its L2 VMs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vm(u8);

impl Vm {
    /// The TD's own VM.
    pub const L1: Self = Self(0);
    /// Most L2 VMs of a TD.
    pub const MAX_L2: u8 = 3;

    /// The L2 VM with this number, from 1 on.
    pub const fn l2(number: u8) -> Option<Self> {
        if number >= 1 && number <= Self::MAX_L2 { Some(Self(number)) } else { None }
    }

    /// The VM's number: 0 for L1.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Whether the VM is an L2 VM.
    pub const fn is_l2(self) -> bool {
        self.0 != 0
    }
}
