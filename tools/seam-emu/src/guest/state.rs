//! A vCPU's state while it is on a processor, as the module's leaves see it.

use tdx_module_iface::{Gprs, Reg};
use x86_arch::{CpuState, Gpr, Seg, Segment, efer};

/// Everything that a guest's processor holds between two instructions. Between two TDH.VP.ENTERs the same values lie in
/// the vCPU's TDVPS.
pub type GuestState = CpuState;

/// The register that a TDCALL or SEAMCALL operand is.
pub const fn gpr(reg: Reg) -> Gpr {
    Gpr::from_index(reg.index())
}

/// What the module reads and writes of a guest's state.
pub trait GuestRegisters {
    /// The registers that carry operands: all but RSP.
    fn gprs(&self) -> Gprs;

    /// Writes the registers that carry operands.
    fn set_gprs(&mut self, gprs: Gprs);

    /// Puts the vCPU into 64-bit mode at CPL 0, as a script that issues TDCALLs at once needs it. Paging stays as
    /// it is: a script does not use it.
    fn enter_64_bit_mode(&mut self);
}

impl GuestRegisters for GuestState {
    fn gprs(&self) -> Gprs {
        let mut gprs = Gprs::ZERO;
        for reg in Reg::ALL {
            gprs.set(reg, self.gpr(gpr(reg)));
        }
        gprs
    }

    fn set_gprs(&mut self, gprs: Gprs) {
        for reg in Reg::ALL {
            self.set_gpr(gpr(reg), gprs.get(reg));
        }
    }

    fn enter_64_bit_mode(&mut self) {
        self.control.efer |= efer::LMA;
        let code = self.segment(Seg::Cs);
        *self.segment_mut(Seg::Cs) = Segment { attributes: x86_arch::Attributes::CODE64, ..*code };
    }
}

/// Exits that the module asks for, to inject an event that the guest cannot take yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Windows {
    /// Exit with reason 7 when an external interrupt could be delivered.
    pub interrupt: Window,
    /// Exit with reason 8 when an NMI could be delivered.
    pub nmi: Window,
}

/// Whether a window exit is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Window {
    /// No.
    #[default]
    Closed,
    /// Yes.
    Wanted,
}
