//! Live migration: a TD moves to another machine while it runs.
//!
//! # Roles
//! Both hosts carry what the modules say to each other; neither can read or change it, because the two *migration TDs*
//! have agreed on the modules' keys (TDG.SERVTD.WR). A host can only delay it, drop it or give up. What the modules do
//! not carry — shared pages, the memory's shape, what the host models of a vCPU — the hosts tell each other.
//!
//! # Protocol
//! Each side is a state machine: [`source::Source::step`] does the next step and gives a [`bundle::Message`] to deliver,
//! [`destination::Destination::take`] takes one. Nothing is acknowledged but the end: a destination that cannot go on
//! says [`bundle::Answer::Aborted`] once.
//!
//! | source | OP_STATE after | says | abort there |
//! |---|---|---|---|
//! | streams; all memory small | RUNNABLE | Announce | nothing to undo |
//! | TDH.EXPORT.STATE.IMMUTABLE | LIVE_EXPORT | Immutable | TDH.EXPORT.ABORT; pages given back while the TD runs |
//! | rounds: hold (BLOCKW), track, send (MEM), TDH.EXPORT.TRACK | LIVE_EXPORT | Memory…, Epoch | the same |
//! | vCPUs park, TDH.EXPORT.PAUSE | PAUSED_EXPORT | – | the same, then the vCPUs go on |
//! | what is due; TD; vCPUs; shared pages | PAUSED_EXPORT | Memory…, TdState, Vcpu…, Shared… | the same |
//! | TDH.EXPORT.TRACK, in-order done | POST_EXPORT | Start | only with the destination's token |
//! | what was never sent | POST_EXPORT | Memory…, Complete | only with the destination's token |
//! | Committed is heard: the TD ends here | POST_EXPORT | – | none: it runs there |
//!
//! | destination | OP_STATE after | takes | abort there |
//! |---|---|---|---|
//! | control pages, streams, binding | UNINITIALIZED | Announce | taken apart, no token |
//! | TDH.IMPORT.STATE.IMMUTABLE | MEMORY_IMPORT | Immutable | TDH.IMPORT.ABORT gives the token; taken apart |
//! | TDH.IMPORT.MEM, TDH.IMPORT.TRACK | MEMORY_IMPORT | Memory…, Epoch | the same |
//! | TDH.IMPORT.STATE.TD | STATE_IMPORT | TdState | the same |
//! | TDH.IMPORT.STATE.VP; shared pages | STATE_IMPORT | Vcpu…, Shared… | the same |
//! | TDH.IMPORT.TRACK | POST_IMPORT | Start | the same |
//! | TDH.IMPORT.MEM | POST_IMPORT | Memory… | the same |
//! | TDH.IMPORT.COMMIT, then TDH.IMPORT.END | LIVE_IMPORT, RUNNABLE | Complete | none: it runs here |
//!
//! So the TD never runs twice (invariant 60): here not after Start without the destination's token, which its module
//! gives only where the TD will never run; there not before COMMIT. If the answer is lost between the two the TD runs
//! nowhere but there; a source that hears nothing stays paused, and says [`failure::Failure::NeedsToken`] when it is to
//! go on. An aborted source has all of its memory, and its guest notices nothing (invariant 61); an aborted destination
//! has given everything back (invariant 62).
//!
//! # What stays
//! - Memory that the TD gives up during the session ends it ([`crate::memory`]'s `sending.rs`).
//! - Devices belong to whoever runs the TD: they are brought to rest before the pause, and made anew there.
//! - Pages that follow after COMMIT (post-copy) are not offered: Complete comes before it.
//!
//! # Locks
//! A session takes a seat, with its LP, for each step, and holds nothing between two. Each list is one exclusive section
//! (LOCKING.md). It must be given an LP that no vCPU is on.

pub mod binding;
pub mod bundle;
pub mod destination;
pub mod failure;
pub(crate) mod pages;
pub mod source;

use tdx_module_iface::tdh;

use crate::error::Error;
use crate::host::Host;
use crate::platform::Platform;
use crate::retry::{Bound, bounded};

/// Streams that a session needs: the way back, and one forward.
const STREAMS: u64 = 2;

/// Adds a migration stream to a TD, and gives its page to `keep`: it is the TD's from then on.
fn create_stream<P: Platform>(
    host: &Host<P>,
    lp: &mut P::Lp<'_>,
    tdr: tdx_module_iface::handles::Tdr,
    keep: &mut dyn FnMut(tdvisor_base::Pfn),
) -> Result<(), Error> {
    let page = host.give_page()?;
    let hold = match host.hold_pamt(lp, page.base()) {
        Ok(hold) => hold,
        Err(error) => {
            host.platform.free_page(page, tdvisor_base::Level::L4K);
            return Err(error.into());
        }
    };
    match bounded(Bound::MANAGEMENT, || tdh::tdh_mig_stream_create(lp, tdr, page.base())) {
        Ok(()) => {
            hold.keep();
            keep(page);
            Ok(())
        }
        Err(error) => {
            hold.undo(host, lp);
            host.take_back(page);
            Err(error.into())
        }
    }
}
