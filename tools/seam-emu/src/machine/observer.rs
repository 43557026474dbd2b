//! Who hears of TDCALLs.

use tdvisor_base::sync::Arc;
use tdx_module_iface::Gprs;

use super::Machine;

/// Hears of TDCALLs.
pub trait TdcallObserver: Send + Sync {
    /// A guest on a logical processor called a leaf; RAX of `before` names it. `after` is `None` where the call did not
    /// return: it ended in an exit, an event, or is going to be repeated.
    fn tdcall(&self, lp: usize, before: &Gprs, after: Option<&Gprs>);
}

impl Machine {
    /// Has TDCALLs told to `observer` from now on. There is one, the first.
    pub fn observe_tdcalls(&self, observer: Arc<dyn TdcallObserver>) {
        // A second one comes too late, which its documentation says.
        let _ = self.tdcalls.set(observer);
    }

    pub(crate) fn tdcall_observer(&self) -> Option<&dyn TdcallObserver> {
        self.tdcalls.get().map(|observer| &**observer)
    }
}
