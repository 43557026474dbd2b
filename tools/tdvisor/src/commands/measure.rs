//! `tdvisor measure`: the MRTD of an image by calculation alone, section by section.

mod igvm;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};

use tdvisor_attest::digest::Digest384;
use tdvisor_attest::igvm::IgvmImage;
use tdvisor_attest::tdvf::{HostContents, TdvfImage};

use crate::outcome::{Failure, Status};
use crate::read_bounded::read_bounded;

/// Larger files are no guest images.
const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// Calculate the MRTD of an image in every page order that hosts are known to use.
///
/// Ends with status 0; with --expect, 0 if a variant gives the expected MRTD and 1 if none does; 2 if the image
/// cannot be used.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: TDVF (OVMF, td-shim, this project's guests) or IGVM.
    image: PathBuf,
    /// Look for the variant that gives this MRTD (96 hexadecimal digits).
    #[arg(long, value_name = "MRTD")]
    expect: Option<Digest384>,
    /// The variable store that belongs in front of a CODE-only OVMF image.
    #[arg(long, value_name = "FILE")]
    vars: Option<PathBuf>,
    /// The payload that the host loads into an empty Payload section (a kernel for td-shim).
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// What the host writes into the PayloadParam section (a command line for td-shim).
    #[arg(long, value_name = "FILE")]
    payload_param: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    let mut bytes = match &args.vars {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    bytes.extend(read(&args.image)?);
    let (text, matches) = if IgvmImage::is_igvm(&bytes) {
        let image = IgvmImage::parse(&bytes).map_err(|error| Failure::input(args.image.display(), error))?;
        let report = igvm::Report::of(&args.image, &image, args.expect);
        let matches = report.matching().next().is_some();
        (if args.json { format!("{:#}\n", report.to_json()) } else { report.to_string() }, matches)
    } else {
        tdvf(&args, &bytes)?
    };
    // A reader that stops early (`| head`) does not change the answer.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    Ok(if args.expect.is_some() && !matches { Status::Negative } else { Status::Success })
}

/// The report on a TDVF image, and whether a variant gives the expected MRTD.
fn tdvf(args: &Args, bytes: &[u8]) -> Result<(String, bool), Failure> {
    let payload = args.payload.as_deref().map(read).transpose()?;
    let payload_param = args.payload_param.as_deref().map(read).transpose()?;
    let host =
        HostContents { td_hob: None, payload: payload.as_deref(), payload_param: payload_param.as_deref() };
    let unusable = |error| Failure::input(args.image.display(), error);
    let image = TdvfImage::parse(bytes).map_err(unusable)?;
    let report = report::Report::of(&args.image, &image, host, args.expect).map_err(unusable)?;
    let matches = report.matching().next().is_some();
    Ok((if args.json { format!("{:#}\n", report.to_json()) } else { report.to_string() }, matches))
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_bounded(path, MAX_IMAGE_BYTES)
}
