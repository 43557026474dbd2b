//! `tdvisor collateral fetch`: what verification of a quote needs, from Intel's service or a PCCS.

use std::path::PathBuf;

use tdvisor_attest::verify::TrustAnchor;

use super::source::{SourceArgs, failure, fetch};
use crate::commands::verify::inputs::{now, open_quote, read, read_root};
use crate::files::{Claims, Output};
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Fetch the collateral of a quote: TCB info, QE identity and revocation lists, as one bundle.
///
/// Nothing is taken that the trusted root has not signed, that is of another platform, or that has expired. Ends with
/// status 0, or 2 and every part that could not be had, with its address and the reason.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The quote, in any of the forms that `verify` takes; `-` for standard input.
    #[arg(value_name = "QUOTE")]
    quote: PathBuf,
    #[command(flatten)]
    source: SourceArgs,
    /// Where to write the bundle. Default: standard output.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Trust this root certificate (DER or PEM) instead of Intel's.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Trust the root of a test PKI instead of Intel's.
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    test_root: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<Status, Failure> {
    let set = args.source.set()?;
    let quote = open_quote(&args.quote, &read(&args.quote)?)?;
    let anchor = match args.root.as_ref().or(args.test_root.as_ref()) {
        Some(path) => read_root(path)?,
        None => TrustAnchor::intel(),
    };
    let out = match &args.out {
        Some(path) => {
            let mut claims = Claims::new();
            claims.reads("QUOTE", &args.quote)?;
            claims.writes("--out", path)?;
            Some(Output::open(path)?)
        }
        None => None,
    };
    let fetcher = args.source.fetcher(anchor, set)?;
    let bundle = fetch(&fetcher, &quote, now()?).map_err(|error| failure(&error))?;
    let text = format!("{}\n", bundle.to_json());
    match out {
        Some(out) => out.write(text.as_bytes())?,
        None => print(&text)?,
    }
    Ok(Status::Success)
}
