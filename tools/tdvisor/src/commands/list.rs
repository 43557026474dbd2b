//! `tdvisor list`: what there is to run, and what it runs on.

use machine_emu::{MAX_TD_MEMORY, MAX_TD_VCPUS};
use seam_emu::ModuleProfile;
use seam_emu::processor::{EmulatedProcessor, Model};
use serde_json::{Value, json};
use tdvisor_guest_images::GUESTS;

use crate::outcome::{Failure, Status};
use crate::streams::print;

/// List the built-in guests, the devices of their board, the module that answers, and the limits of a TD.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// The version of the JSON form, `schemas/list.schema.json`.
const JSON_SCHEMA: u32 = 1;

/// What each built-in guest is for, by name.
const GUEST_USES: [(&str, &str); 5] = [
    ("hello-td", "does once what every TD guest does, prints its measurements, and powers off"),
    ("fault-td", "ends badly, or floods its host, as its --command says"),
    ("boot-shim", "the firmware that --kernel boots Linux with"),
    ("compliance", "checks what a TD sees of CPUID, MSRs and control registers, in TAP"),
    ("l1-vmm", "runs an L2 VM inside of its TD, and counts its exits"),
];

/// The devices of the board, and whether every guest has them.
const DEVICES: [(&str, &str); 17] = [
    ("console", "16550 at port 0x3f8, GSI 4"),
    ("log", "16550 at port 0x2f8, GSI 3: defmt frames"),
    ("exit port", "port 0x501: the guest's result"),
    ("pvpanic", "port 0x505"),
    ("fw_cfg", "ports from 0x510"),
    ("CMOS clock", "port 0x70"),
    ("ACPI power", "ports from 0x600; reset at port 0xcf9"),
    ("I/O APIC", "0xfec00000"),
    ("PCI bus", "8086:29c0 and 8086:2918; ports 0xcf8 and 0xcfc, ECAM at 0xe0000000"),
    ("virtio-pci", "from device 2 on, MSI-X; for firmware, and with --virtio pci"),
    ("virtio-mmio", "8 slots from 0xfeb00000; with --kernel alone, and with --virtio mmio"),
    ("virtio-blk", "one for each --disk, in their order"),
    ("virtio-rng", "random bytes of the host, or of --deterministic's seed"),
    ("virtio-vsock", "with --vsock: UNIX sockets of the host"),
    ("virtio-fs", "one for each --share: a folder of the host"),
    ("virtio-net", "with --net: a network in user mode, or a tap device"),
    ("virtio-console", "hvc0, on standard output"),
];

/// Runs the command.
pub fn run(args: Args) -> Result<Status, Failure> {
    print(&if args.json { format!("{:#}\n", to_json()) } else { to_text() })?;
    Ok(Status::Success)
}

fn guests() -> impl Iterator<Item = (&'static str, &'static str)> {
    GUESTS.iter().map(|guest| {
        let used = GUEST_USES.iter().find(|(name, _)| *name == guest.name).map_or("", |(_, used)| used);
        (guest.name, used)
    })
}

/// What CPUID of a model offers.
fn features(model: Model) -> Vec<&'static str> {
    EmulatedProcessor::new(model).features().map(|row| row.feature.name).collect()
}

fn to_text() -> String {
    let mut text = String::from("guests\n");
    let mut row = |name: &str, what: &str| text.push_str(&format!("  {name:<12} {what}\n"));
    guests().for_each(|(name, used)| row(name, used));
    text.push_str("devices\n");
    let mut row = |name: &str, what: &str| text.push_str(&format!("  {name:<12} {what}\n"));
    DEVICES.iter().for_each(|(name, place)| row(name, place));
    text.push_str("module profiles (--profile)\n");
    for profile in ModuleProfile::ALL {
        let default = if profile == ModuleProfile::default() { ", if none is named" } else { "" };
        text.push_str(&format!("  {:<12} by {}{default}\n", profile.name(), profile.backing()));
    }
    text.push_str("processors (--cpu), and what they offer\n");
    for model in Model::ALL {
        let default = if model == Model::default() { ", if none is named" } else { "" };
        text.push_str(&format!("  {model}{default}\n    {}\n", features(model).join(" ")));
    }
    text.push_str(&format!("TD\n  at most {MAX_TD_VCPUS} vCPUs and {} GiB\n", MAX_TD_MEMORY >> 30));
    text
}

fn to_json() -> Value {
    let named = |(name, what): (&str, &str), key: &str| json!({"name": name, key: what});
    json!({
        "schema": JSON_SCHEMA,
        "guests": guests().map(|guest| named(guest, "does")).collect::<Vec<_>>(),
        "devices": DEVICES.iter().map(|device| named(*device, "place")).collect::<Vec<_>>(),
        "module_profile": ModuleProfile::default().name(),
        "module_profiles": ModuleProfile::ALL
            .map(|profile| json!({"name": profile.name(), "backed_by": profile.backing().to_string()})),
        "processor": Model::default().name(),
        "processors": Model::ALL
            .map(|model| json!({"name": model.name(), "features": features(model)})),
        "max_vcpus": MAX_TD_VCPUS,
        "max_memory_bytes": MAX_TD_MEMORY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_guest_has_a_sentence() {
        for (name, used) in guests() {
            assert!(!used.is_empty(), "{name}");
            assert!(to_text().contains(name));
        }
    }
}
