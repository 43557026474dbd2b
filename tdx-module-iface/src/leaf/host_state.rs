//! State of the calling processor that a leaf does not give back.

use core::fmt;

/// A set of processor state, beside the general-purpose registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct HostState(u8);

impl HostState {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// x87, SSE and the components of the TD's XFAM.
    pub const EXTENDED_STATE: Self = Self(1);
    /// XCR0, IA32_XSS and PKRU, where the TD's XFAM differs from what the host enabled.
    pub const EXTENDED_CONTROLS: Self = Self(1 << 1);
    /// IA32_STAR, IA32_LSTAR, IA32_FMASK, IA32_KERNEL_GS_BASE and IA32_TSC_AUX.
    pub const SYSCALL_MSRS: Self = Self(1 << 2);
    /// DR0 to DR3, DR6, DR7 and IA32_DEBUGCTL.
    pub const DEBUG: Self = Self(1 << 3);
    /// All of it: what a VCPU's run leaves of the host.
    pub const ALL: Self = Self(0xf);

    /// Whether all of `other` is in the set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [
            (Self::EXTENDED_STATE, "extended state"),
            (Self::EXTENDED_CONTROLS, "XCR0, XSS and PKRU"),
            (Self::SYSCALL_MSRS, "the MSRs of SYSCALL and SWAPGS, TSC_AUX"),
            (Self::DEBUG, "debug registers and DEBUGCTL"),
        ];
        let mut separator = "";
        for (part, name) in names {
            if self.contains(part) {
                write!(f, "{separator}{name}")?;
                separator = ", ";
            }
        }
        if separator.is_empty() { f.write_str("nothing") } else { Ok(()) }
    }
}
