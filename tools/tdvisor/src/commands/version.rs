//! `tdvisor version`: which build this is, and what its built-in images measure to.

use seam_emu::ModuleProfile;
use seam_emu::features::{FeatureSet, Word};
use serde_json::{Value, json};
use tdvisor_guest_images::GUESTS;

use super::run::image::Image;
use crate::outcome::{Failure, Status};
use crate::streams::print;

/// Print the version; with --verbose also the commit, the emulated module's profiles and what they offer, and the MRTD of
/// each built-in image.
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
        let commit = option_env!("TDVISOR_COMMIT").unwrap_or("unknown");
        let linkage = if cfg!(target_feature = "crt-static") { "static" } else { "dynamic" };
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
                "commit": commit,
                "linkage": linkage,
                "module_profile": ModuleProfile::default().name(),
                "module_profiles": ModuleProfile::ALL.map(|profile| json!({
                    "name": profile.name(),
                    "tdx_features0": format!("{:#x}", features0(profile)),
                })),
                "mrtd": mrtds,
            });
            text = format!("{whole:#}\n");
        } else {
            text.push_str(&format!("commit     {commit}, {linkage} executable\n"));
            for profile in ModuleProfile::ALL {
                let default = if profile == ModuleProfile::default() { ", if none is named" } else { "" };
                let features = features0(profile);
                text.push_str(&format!(
                    "module     {:<10} TDX_FEATURES0 {features:#x}{default}\n",
                    profile.name()
                ));
            }
            for (name, mrtd) in mrtds {
                text.push_str(&format!("MRTD       {name:<10} {mrtd}\n"));
            }
        }
    }
    print(&text)?;
    Ok(Status::Success)
}

/// What a profile offers.
fn features0(profile: ModuleProfile) -> u64 {
    FeatureSet::Offered.bits(Word::Features0, profile.release())
}
