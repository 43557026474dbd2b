//! What the hooks do about PAMT entries of 4 KiB pages: see [`crate::host::pamt`] for the protocol.
//!
//! All of it is nothing where the module has its whole PAMT.

use mirror_ept::external::HookError;
use mirror_ept::range::Position;
use tdvisor_base::{Hpa, Level, Pfn};
use tdx_module_iface::outcome::SeamError;

use super::hooks::{HookResult, SeptError, SeptHooks};
use crate::host::pamt::{PamtError, PamtHold};
use crate::platform::Platform;
use crate::retry::is_busy;

impl<'h, P: Platform> SeptHooks<'h, P> {
    /// Counts a page that a call is about to give to the module.
    pub(super) fn count(&self, lp: &mut P::Lp<'h>, page: Pfn) -> HookResult<PamtHold> {
        self.core.host.hold_pamt(lp, page.base()).map_err(pamt_error)
    }

    /// Counts off a page that the module gave back.
    pub(super) fn count_off(&self, lp: &mut P::Lp<'h>, page: Pfn) {
        self.core.host.release_pamt(lp, page.base());
    }

    /// Settles what was counted for a call, by how the call went.
    pub(super) fn settle<T>(
        &self,
        lp: &mut P::Lp<'h>,
        hold: PamtHold,
        result: HookResult<T>,
    ) -> HookResult<T> {
        match &result {
            Ok(_) => hold.keep(),
            Err(_) => hold.undo(self.core.host, lp),
        }
        result
    }

    /// TDH.MEM.PAGE.DEMOTE by `demote`, which is given pages for the entries of the pieces where these are small and need
    /// some.
    pub(super) fn demote_with_entries<T, D>(
        &self,
        lp: &mut P::Lp<'h>,
        at: Position,
        pfn: Pfn,
        mut demote: impl FnMut(&mut P::Lp<'h>, Option<[Hpa; 2]>) -> Result<T, SeamError<D>>,
    ) -> HookResult<T> {
        let host = self.core.host;
        let split = self.in_section(lp, at, |lp| {
            let mut demote = |lp: &mut P::Lp<'h>, pair| demote(lp, pair).map_err(SeamError::without_details);
            if at.level() > Level::L2M {
                return demote(lp, None).map(Some);
            }
            match host.split_pamt(lp, pfn.base(), demote) {
                Ok(split) => Ok(Some(split)),
                Err(PamtError::Seam(error)) => Err(error),
                Err(PamtError::NoMemory) => Ok(None),
            }
        })?;
        split.ok_or(HookError::NoMemory)
    }

    /// The small pages under an entry became one.
    pub(super) fn merged(&self, lp: &mut P::Lp<'h>, at: Position, pfn: Pfn) {
        if at.level() == Level::L2M {
            self.core.host.merged_pamt(lp, pfn.base());
        }
    }
}

fn pamt_error(error: PamtError) -> HookError<SeptError> {
    match error {
        PamtError::NoMemory => HookError::NoMemory,
        PamtError::Seam(error) if is_busy(&error) => HookError::Busy,
        PamtError::Seam(error) => HookError::Fatal(SeptError::Seam(error)),
    }
}
