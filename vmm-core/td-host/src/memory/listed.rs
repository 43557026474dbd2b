//! Calls that work through a list of pages: TDH.EXPORT.BLOCKW, TDH.EXPORT.RESTORE, and how any such call gets to its end.
//!
//! Such a call goes on after an interrupt where it came to, and tells in the list what came of each page.

use alloc::vec::Vec;

use mirror_ept::{MovingLeaf, Standing};
use tdvisor_base::Pfn;
use tdx_module_iface::outcome::{Retry, SeamError};
use tdx_module_iface::tdh::{EntryStatus, GpaEntry, GpaList, Operation};

use crate::error::Error;
use crate::platform::{Lp, Platform};
use crate::retry::{Bound, pause};
use crate::td::core::TdCore;

/// A call about a list of pages, whose entries tell what came of each.
pub(super) struct ListCall<'c, 'h, P: Platform> {
    pub(super) core: &'c TdCore<'h, P>,
    pub(super) page: Pfn,
}

/// How such a call ended: what came of the entries that it got to, and the error that ended it.
pub(super) struct Called {
    statuses: Vec<EntryStatus>,
    error: Option<Error>,
}

impl Called {
    /// Has each leaf whose entry was done stand elsewhere.
    pub(super) fn settle(
        self,
        leaves: &mut [MovingLeaf],
        to: impl Fn(Standing) -> Standing,
    ) -> Result<(), Error> {
        for (leaf, status) in leaves.iter_mut().zip(&self.statuses) {
            if *status == EntryStatus::DONE {
                leaf.standing = to(leaf.standing);
            }
        }
        self.error.map_or(Ok(()), Err)
    }
}

impl<P: Platform> ListCall<'_, '_, P> {
    /// Issues the call until it is through the list, or refuses.
    pub(super) fn run<'l>(
        &self,
        lp: &mut P::Lp<'l>,
        leaves: &[MovingLeaf],
        mut call: impl FnMut(&mut P::Lp<'l>, &mut GpaList) -> Result<u32, SeamError>,
    ) -> Called
    where
        P: 'l,
    {
        let platform = &self.core.host.platform;
        let entries: Vec<u8> = leaves
            .iter()
            .flat_map(|leaf| GpaEntry::new(leaf.gfn, Operation::Migrate).0.to_le_bytes())
            .collect();
        if let Err(error) = platform.write(self.page.base(), &entries) {
            return Called { statuses: Vec::new(), error: Some(error.into()) };
        }
        let mut list = GpaList::new(self.page.base(), leaves.len());
        let outcome = through(self.core, lp, |lp| call(lp, &mut list));
        let done = if outcome.is_ok() { leaves.len() } else { list.next() };
        match read_entries(platform, self.page, done) {
            Ok(entries) => {
                Called { statuses: entries.into_iter().map(GpaEntry::status).collect(), error: outcome.err() }
            }
            Err(error) => Called { statuses: Vec::new(), error: Some(error) },
        }
    }
}

/// The first entries of a list, as the module left them.
pub(crate) fn read_entries<P: Platform>(
    platform: &P,
    page: Pfn,
    entries: usize,
) -> Result<Vec<GpaEntry>, Error> {
    let mut bytes = alloc::vec![0; 8 * entries];
    platform.read(page.base(), &mut bytes)?;
    let entry = |word: &[u8]| GpaEntry(word.try_into().map_or(0, u64::from_le_bytes));
    Ok(bytes.chunks_exact(8).map(entry).collect())
}

/// Issues a call that works through a list until it is through, or refuses. Once it found something locked every vCPU is
/// kept out of the guest: only another TD can be in the way then.
pub(crate) fn through<'l, P: Platform + 'l, T>(
    core: &TdCore<'_, P>,
    lp: &mut P::Lp<'l>,
    mut call: impl FnMut(&mut P::Lp<'l>) -> Result<T, SeamError>,
) -> Result<T, Error> {
    let mut closed = None;
    for attempt in 0..Bound::WITHOUT_VCPUS.0 {
        match call(lp) {
            Ok(value) => return Ok(value),
            Err(error) if matches!(error.retry(), Some(Retry::InterruptedResumable)) => {
                lp.acknowledge_events();
            }
            Err(error) if error.retry().is_some() => {
                if closed.is_none() {
                    closed = Some(core.gate.close());
                    core.kick_all();
                }
                pause(attempt);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(call(lp)?)
}
