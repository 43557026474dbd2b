//! A kernel of a distribution, as its users have it, boots as a TD.
//!
//! `tools/guests/linux/distribution.sh` brings a kernel of version 6.12, and one of 7.3 where that is asked for;
//! `scripts/nightly` runs these tests: a distribution's kernel takes minutes on a software CPU.

mod cli;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cli::{Folder, tdvisor};

/// The folder of a kernel and its initrd.
fn folder(name: &str) -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(name);
    assert!(
        folder.join("version").exists(),
        "run tools/guests/linux/distribution.sh: nothing in {}",
        folder.display()
    );
    folder
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh and some minutes: scripts/nightly runs it"]
fn nightly_it_brings_two_cpus_and_its_own_quote_is_verified_with_the_files_beside_quote() {
    brings_two_cpus_and_a_quote("linux-distribution");
}

#[test]
#[ignore = "needs tools/guests/linux/distribution.sh 7.3 and some minutes: scripts/nightly runs it"]
fn nightly_a_kernel_that_asks_for_the_topology_finds_its_x2apic_ids_configured() {
    brings_two_cpus_and_a_quote("linux-distribution-7.3");
}

fn brings_two_cpus_and_a_quote(distribution: &str) {
    let kernel = folder(distribution).join("bzImage").display().to_string();
    let initrd = folder(distribution).join("initrd").display().to_string();
    let files = Folder::new(distribution);
    let quote = files.path("quote");
    let answer = tdvisor(&[
        "run",
        "--kernel",
        &kernel,
        "--initrd",
        &initrd,
        "--vcpus",
        "2",
        "--memory",
        "1G",
        "--quote",
        &quote,
        "--timeout",
        "900",
    ])
    .ends_with(0);
    let console = answer.stdout();
    assert!(console.contains("distribution-init: cpus 2"), "{console}");
    assert!(!console.contains("nopku"), "{console}");
    // What Linux says of a host whose TDH.VP.INIT gives no x2APIC ids.
    assert!(!console.contains("VMM did not configure X2APIC_IDs"), "{console}");

    // The quote as the guest has it, not as the host remembers it.
    let text: String = console
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "distribution-init: begin quote")
        .skip(1)
        .take_while(|line| *line != "distribution-init: end quote")
        .collect();
    let bytes = STANDARD.decode(&text).unwrap_or_else(|error| panic!("{error}: {console}"));
    let own = files.write("own-quote", &bytes);
    let (collateral, root) = (format!("{quote}.collateral.json"), format!("{quote}.root.pem"));
    for quote in [&own, &quote] {
        tdvisor(&["verify", quote, "--collateral", &collateral, "--test-root", &root]).ends_with(0);
    }
    tdvisor(&["verify", &own, "--collateral", &collateral]).ends_with(1);
}
