//! A vCPU's registers, read past the module: also of a TD that is not in debug mode, or that the module calls dead.

use tdvisor_base::Level;
use tdx_module_iface::handles::Tdvpr;
use tdx_module_iface::tdmr::PageType;
use x86_arch::CpuState;

use crate::machine::Machine;
use crate::td::Tdvps;
use crate::vcpu::state;

impl Machine {
    /// The registers of a vCPU that is not in its guest, as its TDVPS holds them; `None` where there is no vCPU. Only an
    /// emulator can read them of a TD that is not in debug mode: whoever asks answers for that.
    pub fn vcpu_state(&self, vcpu: Tdvpr) -> Option<CpuState> {
        let view = self.pamt_view(vcpu.hpa(), Level::L4K)?;
        if self.module.has_shut_down() || view.page_type != PageType::TDVPR {
            return None;
        }
        Some(state::load(&Tdvps::at(self.memory(), vcpu.hpa())?))
    }
}
