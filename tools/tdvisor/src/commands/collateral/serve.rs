//! `tdvisor collateral serve`: a PCCS for what files hold.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use tdvisor_attest::verify::TrustAnchor;
use tdvisor_collateral::serve::serve;

use crate::commands::verify::inputs::read_collateral;
use crate::outcome::{Failure, Status};
use crate::streams::{print, say_at_the_end};

/// Answer requests for collateral as a PCCS does, from files: a cache of `collateral fetch`, or what `run --quote` writes.
///
/// What was issued by a test PKI verifies with clients that take another root than Intel's: `tdvisor verify --test-root`
/// and dcap-qvl (`QuoteVerifier::new` with the test root). Intel's own verification library and those built on it (Trustee's
/// built-in verifier among them) have Intel's root compiled in, and refuse it as they should. Prints its address, and then
/// answers until it is stopped.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Files of collateral in any form, or folders of them.
    #[arg(value_name = "DIR", required = true)]
    from: Vec<PathBuf>,
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
}

pub fn run(args: Args) -> Result<Status, Failure> {
    let store = read_collateral(&args.from)?
        .store()
        .map_err(|error| Failure::input("collateral", format_args!("cannot be served: {error}")))?;
    let inventory = store.inventory();
    if inventory.tcb_infos.is_empty() && inventory.qe_identities.is_empty() {
        return Err(Failure::input("collateral", "no TCB info and no QE identity in these files"));
    }
    let listener = TcpListener::bind(args.listen).map_err(|error| Failure::input(args.listen, error))?;
    let address = listener.local_addr().map_err(|error| Failure::input(args.listen, error))?;
    if store.has_other_root(TrustAnchor::intel().der()) {
        say_at_the_end(
            "tdvisor: collateral of another root than Intel's is served: only clients that are told to trust it take it",
        );
    }
    print(&format!(
        "collateral: http://{address} ({} TCB infos, {} QE identities, {} revocation lists)\n",
        inventory.tcb_infos.len(),
        inventory.qe_identities.len(),
        inventory.root_crls.len() + inventory.pck_crls.len()
    ))?;
    serve(&listener, store).map_err(|error| Failure::input(address, error))?;
    Ok(Status::Success)
}
