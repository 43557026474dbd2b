//! `tdvisor version`: which build this is, and what its built-in images measure to.

use seam_emu::ModuleProfile;
use serde_json::{Value, json};
use tdvisor_guest_images::GUESTS;

use super::run::image::Image;
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Print the version; with --verbose also the emulated module's profile and the MRTD of each built-in image.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print everything that tells two builds apart.
    #[arg(short, long)]
    verbose: bool,
    /// Print JSON, with everything.
    #[arg(long)]
    json: bool,
}

/// The version of the JSON form, `schemas/version.schema.json`.
const JSON_SCHEMA: u32 = 1;

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("tdvisor {version}\n");
    if args.json || args.verbose {
        let profile = ModuleProfile::default().name();
        let mut mrtds = Vec::new();
        for guest in GUESTS {
            mrtds.push((guest.name, Image::built_in(guest).predicted_mrtd()?.to_string()));
        }
        if args.json {
            let mrtds: Value =
                mrtds.into_iter().map(|(name, mrtd)| (name.to_owned(), Value::String(mrtd))).collect();
            let whole = json!({
                "schema": JSON_SCHEMA,
                "version": version,
                "module_profile": profile,
                "mrtd": mrtds,
            });
            text = format!("{whole:#}\n");
        } else {
            text.push_str(&format!("module     {profile}\n"));
            for (name, mrtd) in mrtds {
                text.push_str(&format!("MRTD       {name:<10} {mrtd}\n"));
            }
        }
    }
    print(&text)?;
    Ok(Status::Success)
}
