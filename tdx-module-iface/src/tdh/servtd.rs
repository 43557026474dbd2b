//! `TDH.SERVTD.*`: binding service TDs. The one type that the module knows is the migration TD.

use tdvisor_base::Hpa;

use super::issue;
use crate::handles::Tdr;
use crate::leaf::TdhLeaf;
use crate::outcome::SeamError;
use crate::regs::{Gprs, SeamCall};

/// Bytes of the hash by which a service TD is bound ahead: SHA-384 of its TDINFO.
pub const SERVTD_HASH_BYTES: usize = 48;
/// What the address of such a hash is a multiple of.
pub const SERVTD_HASH_ALIGNMENT: u64 = 64;

/// The only slot, and the only type: a migration TD.
const SLOT: u64 = 0;
const MIGRATION_TD: u64 = 0;

/// What has to be the same in a service TD for the binding to hold: SERVTD_ATTR.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ServtdAttributes(pub u64);

/// What a bound service TD is told, so that it can reach its target with `TDG.SERVTD.RD` and `WR`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Binding {
    /// The handle.
    pub handle: u64,
    /// The target's TD_UUID.
    pub target: [u64; 4],
}

/// Binds a migration TD to its target.
///
/// # Errors
/// `OP_STATE_INCORRECT` for a target that is built already and was not bound ahead; `SERVTD_INFO_HASH_MISMATCH` where
/// another was bound ahead.
pub fn tdh_servtd_bind<S: SeamCall + ?Sized>(
    lp: &mut S,
    target: Tdr,
    service: Tdr,
    attributes: ServtdAttributes,
) -> Result<Binding, SeamError> {
    let leaf = TdhLeaf::SERVTD_BIND;
    let gprs = Gprs {
        rcx: target.0.get(),
        rdx: service.0.get(),
        r8: SLOT,
        r9: MIGRATION_TD,
        r10: attributes.0,
        ..Gprs::ZERO
    };
    let gprs = issue(lp, leaf, leaf.word(), gprs)?.plain()?;
    Ok(Binding { handle: gprs.rcx, target: [gprs.r10, gprs.r11, gprs.r12, gprs.r13] })
}

/// Says which migration TD may be bound later, by the hash at `hash` (shared memory,
/// [`SERVTD_HASH_ALIGNMENT`]-aligned).
///
/// # Errors
/// `SERVTD_BOUND` where one is bound; `OP_STATE_INCORRECT` for a target that is built already.
pub fn tdh_servtd_prebind<S: SeamCall + ?Sized>(
    lp: &mut S,
    target: Tdr,
    hash: Hpa,
    attributes: ServtdAttributes,
) -> Result<(), SeamError> {
    let leaf = TdhLeaf::SERVTD_PREBIND;
    let gprs = Gprs {
        rcx: target.0.get(),
        rdx: hash.get(),
        r8: SLOT,
        r9: MIGRATION_TD,
        r10: attributes.0,
        ..Gprs::ZERO
    };
    issue(lp, leaf, leaf.word(), gprs)?.plain().map(drop)
}
