//! Binding a migration TD to the TD that it moves.
//!
//! # Protocol
//! A TD that shall move is told while it is built which migration TD may have its keys: the TD itself
//! ([`ServiceTd::Bound`]), or one that has a hash ([`ServiceTd::Ahead`]), which is bound when it is there
//! ([`bind`]). Its TDREPORT carries what was said (SERVTD_HASH). A TD that arrives is bound before anything of it has
//! arrived. What `bind` gives goes to the migration TD, which reaches the TD's keys with it.

use tdvisor_base::Level;
use tdx_module_iface::handles::Tdr;
use tdx_module_iface::tdh::{self, Binding, SERVTD_HASH_BYTES, ServtdAttributes};

use crate::error::Error;
use crate::host::{Host, on_lp};
use crate::platform::{LpId, Platform};
use crate::retry::{Bound, bounded};

/// All of a migration TD's identity counts, and any instance of it will do.
const ATTRIBUTES: ServtdAttributes = ServtdAttributes(0);

/// The migration TD of a TD that is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceTd {
    /// A service TD that is built already.
    Bound(Tdr),
    /// One whose TDINFO has this hash.
    Ahead([u8; SERVTD_HASH_BYTES]),
}

/// Binds a migration TD to a target. A TD that runs is bound again to one that was said before.
///
/// # Errors
/// The module refuses: another migration TD was said, or none before the target was built.
pub fn bind<P: Platform>(host: &Host<P>, lp: LpId, target: Tdr, service: Tdr) -> Result<Binding, Error> {
    on_lp(&host.platform, lp, |lp| {
        Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_servtd_bind(lp, target, service, ATTRIBUTES))?)
    })
}

/// Says to a TD that is being built which its migration TD is.
pub(crate) fn say<P: Platform>(host: &Host<P>, target: Tdr, service: ServiceTd) -> Result<(), Error> {
    let hash = match service {
        ServiceTd::Bound(service) => return bind(host, LpId(0), target, service).map(drop),
        ServiceTd::Ahead(hash) => hash,
    };
    let page = host.give_page()?;
    let said = host.platform.write(page.base(), &hash).map_err(Error::from).and_then(|()| {
        on_lp(&host.platform, LpId(0), |lp| {
            Ok(bounded(Bound::MANAGEMENT, || tdh::tdh_servtd_prebind(lp, target, page.base(), ATTRIBUTES))?)
        })
    });
    host.platform.free_page(page, Level::L4K);
    said
}
