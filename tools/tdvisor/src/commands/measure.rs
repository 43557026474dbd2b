//! `tdvisor measure`: the MRTD of an image by calculation alone, section by section, and the RTMRs of a Linux boot.

mod boot;
mod igvm;
mod report;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;
use td_image::digest::Digest384;
use td_image::igvm::IgvmImage;
use td_image::tdvf::{HostContents, TdvfImage};
use tdvisor_guest_images::{BOOT_SHIM, GUESTS};

use crate::outcome::{Failure, Status};
use crate::read_bounded::read_bounded;
use crate::streams::print;

/// Larger files are no guest images.
const MAX_IMAGE_BYTES: u64 = 1 << 30;

/// Calculate the MRTD of an image in every page order that hosts are known to use.
///
/// With --kernel also RTMR0 to RTMR2 of Linux under the image: under OVMF every kind of build is told apart, and QEMU
/// before 10.2, which writes into the kernel's header; under td-shim and this project's boot shim their own rules hold.
/// With --uki or --boot-loader those of OVMF that boots a disk. What is not known is said to be not predicted.
///
/// Ends with status 0; with --expect, 0 if a variant gives the expected MRTD and 1 if none does; 2 if the image
/// cannot be used.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image: TDVF (OVMF, td-shim, this project's guests) or IGVM, or the name of a built-in guest. With --kernel
    /// and without it, the boot shim.
    #[arg(required_unless_present = "kernel")]
    image: Option<PathBuf>,
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
    #[command(flatten)]
    boot: boot::LinuxArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// How to print: for people, as JSON (like --json), or as reference values: the payload of a "sample" provenance of
    /// Trustee's reference value provider, with every value that MRTD and the predicted registers may have.
    #[arg(long, value_enum, default_value_t = Format::Text, conflicts_with = "json")]
    format: Format,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
    Rvps,
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    // Whoever names a kernel and no image means what `run --kernel` does.
    let path = args.image.as_deref().unwrap_or(Path::new(BOOT_SHIM.name));
    let vars = args.vars.as_deref().map(read).transpose()?;
    let image = image(path)?;
    let bytes = match vars {
        Some(mut bytes) => {
            bytes.extend_from_slice(&image);
            Cow::Owned(bytes)
        }
        None => image,
    };
    let unusable = |error: &dyn std::fmt::Display| Failure::input(path.display(), error);
    let payload = args.payload.as_deref().map(read).transpose()?;
    let payload_param = args.payload_param.as_deref().map(read).transpose()?;
    let td_hob = args.boot.td_hob.as_deref().map(read).transpose()?;
    let host = HostContents {
        td_hob: td_hob.as_deref(),
        payload: payload.as_deref(),
        payload_param: payload_param.as_deref(),
    };
    let (image, measured) = if IgvmImage::is_igvm(&bytes) {
        let image = IgvmImage::parse(&bytes).map_err(|error| unusable(&error))?;
        let report = igvm::Report::of(path, &image, args.expect);
        let matches = report.matching().next().is_some();
        (None, Measured { json: report.to_json(), text: report.to_string(), matches })
    } else {
        let image = TdvfImage::parse(&bytes).map_err(|error| unusable(&error))?;
        let report = report::Report::of(path, &image, host, args.expect).map_err(|error| unusable(&error))?;
        let matches = report.matching().next().is_some();
        (Some(image), Measured { json: report.to_json(), text: report.to_string(), matches })
    };
    let boot = boot::Boot::of(&args.boot, path, image.as_ref(), &host)?;
    print(&match args.format {
        Format::Rvps => measured.reference_values(boot.as_ref()),
        Format::Json => measured.json(boot.as_ref()),
        Format::Text if args.json => measured.json(boot.as_ref()),
        Format::Text => measured.text(boot.as_ref()),
    })?;
    Ok(if args.expect.is_some() && !measured.matches { Status::Negative } else { Status::Success })
}

/// What there is to say about an image.
struct Measured {
    json: Value,
    text: String,
    matches: bool,
}

impl Measured {
    fn json(&self, boot: Option<&boot::Boot>) -> String {
        let mut report = crate::commands::with_version(self.json.clone());
        if let (Some(boot), Some(map)) = (boot, report.as_object_mut()) {
            map.insert("boot".to_owned(), boot.to_json());
        }
        format!("{report:#}\n")
    }

    /// Values by the names under which Trustee's policies ask for them. A register that is not predicted has no name
    /// here: a policy that asks for it then finds no reference value, and affirms nothing.
    fn reference_values(&self, boot: Option<&boot::Boot>) -> String {
        let variants = self.json["variants"].as_array().into_iter().flatten();
        let mrtds: BTreeSet<&str> = variants.filter_map(|variant| variant["mrtd"].as_str()).collect();
        let mut values = serde_json::Map::new();
        values.insert("mr_td".to_owned(), mrtds.into_iter().collect());
        for (name, all) in boot.map(boot::Boot::reference_values).into_iter().flatten() {
            values.insert(name, all.into_iter().collect());
        }
        format!("{:#}\n", Value::Object(values))
    }

    fn text(&self, boot: Option<&boot::Boot>) -> String {
        format!("{}{}", self.text, boot.map(ToString::to_string).unwrap_or_default())
    }
}

/// The image of this path, or the built-in guest of this name.
fn image(path: &Path) -> Result<Cow<'static, [u8]>, Failure> {
    match GUESTS.iter().find(|guest| path == Path::new(guest.name)) {
        Some(guest) if !path.exists() => Ok(Cow::Borrowed(guest.image)),
        _ => read(path).map(Cow::Owned),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    read_bounded(path, MAX_IMAGE_BYTES)
}
