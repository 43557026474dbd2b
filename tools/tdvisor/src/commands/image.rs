//! `tdvisor image`: a built-in guest's image as a file, for other VMMs.

use std::path::PathBuf;

use tdvisor_guest_images::{GUESTS, GuestImage, qemu};

use crate::files::Output;
use crate::outcome::{Failure, Status};

/// Write the TDVF image of a built-in guest to a file.
///
/// QEMU takes images of other sizes and with fewer kinds of sections; `--for qemu` gives one that it takes, by `-bios`.
/// Its MRTD is another one: `tdvisor measure FILE` says which.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The guest: see `tdvisor list`.
    #[arg(value_name = "GUEST", value_parser = guest)]
    guest: &'static GuestImage,
    /// Who is to start it.
    #[arg(long = "for", value_enum, default_value_t = Vmm::Tdvisor)]
    vmm: Vmm,
    /// Where to write it.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
}

/// Who starts an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Vmm {
    Tdvisor,
    Qemu,
}

fn guest(name: &str) -> Result<&'static GuestImage, String> {
    GUESTS
        .into_iter()
        .find(|guest| guest.name == name)
        .ok_or_else(|| "no built-in guest has this name".to_owned())
}

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    let output = Output::open(&args.output)?;
    match args.vmm {
        Vmm::Tdvisor => output.write(args.guest.image)?,
        Vmm::Qemu => {
            let image =
                qemu::image(args.guest.image).map_err(|error| Failure::Internal(error.to_string()))?;
            output.write(&image)?;
        }
    }
    Ok(Status::Success)
}
