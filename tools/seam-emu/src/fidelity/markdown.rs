//! FIDELITY.md.

use std::fmt::Write;

use tdx_module_iface::Release;

use super::{Degree, NOT_COMPARED, NOT_MODELLED, Row, SERVER, TABLE};
use crate::config::ModuleProfile;
use crate::features::{self, FeatureSet, Word};
use crate::processor::features::{self as cpu_features, CpuFeature, Needs};
use crate::processor::{EmulatedProcessor, Model};

const INTRODUCTION: &str = "# Fidelity of the emulated TDX module

Generated from the leaf tables `tools/seam-emu/src/{host,guest_leaf}/leaves.rs` by
`cargo run -p seam-emu --example fidelity > FIDELITY.md`; a test fails if the two differ.

*exact*: inputs, outputs, order of checks, status and operand, locks, state changes, interruption and resumption.
*partial*: the note says what is missing. *absent*: the leaf answers as the note says and does nothing.

*recording*: calls of Intel's module were replayed and gave the same registers. *rule*: written from the
published rules, compared with nothing. The numbers are status codes that the leaf can return once the module is
ready, and how many of them a recording contains; a test of the crate reaches each of the others.
";

const FEATURES: &str = "
## Features

*Recorded* is what a release announces, and what a replay of its recordings presents; for the later releases, which
nobody recorded, it is what is implemented of them, by rule. *Offered* is the recorded set without the bits whose
behaviour is absent: `run` and every other user present it. A probe for each offered bit fails when its code is removed.

One answer differs with the set. The recorded modules clear RBP at asynchronous TD exits even where NO_RBP_MOD is on, and a
replay of recordings presents that; everything else keeps the host's RBP there, as hosts without frame pointers need it.

| release | word | recorded | offered |
|---|---|---|---|
";

const MIGRATION: &str = "
## Migration

All of it is recorded from release 1.5.01: registers, tags, and what is inside of the bundles, except for what stands
below. Later releases have it by rule: their immutable state has the x2APIC ids and TOPOLOGY_ENUM_CONFIGURED too, and
their imports refuse the immutable state of a module that is not of their own release. An import does not compare CPUID
values with a processor that the recordings do not list.

The built-in migration TD (`tools/guests/mig-td`) speaks a protocol of its own: to its host by a mailbox in shared memory and a port
(`tdvisor_migration_td::mailbox`), not by TDG.VP.VMCALL<Service>, which is not offered; to its peer by the conversation of `tdvisor-migration-td`, not by
Intel's MigTD's TLS or SPDM. Its keys reach the module as on hardware, by TDG.SERVTD.RD and WR, and its quotes are those of GetQuote.

| not compared | because |
|---|---|
";

const PROCESSOR: &str = "
## Processor

What CPUID of the emulated processor offers, before the module takes away what it virtualises: a bit that needs
instructions is offered when x86-emu implements all of their encodings, and lets the bits of CR4 and XCR0 be set.

| feature | leaf | bit | offered | needs |
|---|---|---|---|---|
";

/// Which models offer a feature.
fn offered_by(row: &CpuFeature) -> String {
    let offers =
        |model: &Model| EmulatedProcessor::new(*model).features().any(|of| of.feature == row.feature);
    let models: Vec<_> = Model::ALL.into_iter().filter(offers).map(Model::name).collect();
    match models.len() {
        0 => "no".to_owned(),
        count if count == Model::ALL.len() => "yes".to_owned(),
        _ => models.join(", "),
    }
}

fn processor(out: &mut String) {
    out.push_str(PROCESSOR);
    for row in cpu_features::TABLE {
        let needs = match row.needs {
            Needs::Cpu { instructions, cr4, xcr0 } => {
                let mut needs: Vec<_> = instructions.iter().map(|of| format!("{of:?}")).collect();
                needs.extend((cr4 != 0).then(|| format!("CR4 {cr4:#x}")));
                needs.extend((xcr0 != 0).then(|| format!("XCR0 {xcr0:#x}")));
                needs.join(", ")
            }
            Needs::Behaviour(what) => what.to_owned(),
            Needs::Missing(what) => format!("missing: {what}"),
        };
        let _ = writeln!(
            out,
            "| {} | {:x}H.{} {:?} | {} | {} | {needs} |",
            row.feature.name,
            row.feature.leaf,
            row.feature.subleaf,
            row.feature.register,
            row.feature.bit,
            offered_by(row)
        );
    }
}

const fn degree(degree: Degree) -> &'static str {
    match degree {
        Degree::Exact => "exact",
        Degree::Partial => "partial",
        Degree::Absent => "absent",
    }
}

/// What a profile does differently from release 1.5.01.
const fn difference(profile: ModuleProfile) -> &'static str {
    match profile {
        ModuleProfile::V1_5_01 => "nothing",
        ModuleProfile::V1_5_05 => {
            "TD_PARAMS with 18 CPUID entries, x2APIC ids and topology (TDH.VP.INIT version 1), the virtual CPUID, MSR and \
             control-register tables, MONITOR and MWAIT, one operand of TDH.MEM.RANGE.UNBLOCK; feature words and version"
        }
        ModuleProfile::V1_5Late => {
            "what 1.5.05 does; DEMOTE does not stop for interrupts; feature words and version"
        }
        ModuleProfile::V2_0 => {
            "what late 1.5 does; feature words and version; dynamic PAMT: with it every leaf that takes a 4 KiB page may \
             answer MISSING_PAMT_PAGE_PAIR, and DEMOTE takes a pair"
        }
    }
}

fn rows(out: &mut String, rows: &[&Row]) {
    out.push_str("\n| leaf | degree | backed by | codes | recorded | note |\n|---|---|---|---|---|---|\n");
    for row in rows {
        let all = row.all_codes();
        let recorded = all.intersection(&row.recorded_codes()).count();
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {recorded} | {} |",
            row.leaf,
            degree(row.claim.degree),
            row.claim.backing,
            all.len(),
            row.claim.note
        );
    }
}

/// Which feature bits each release announces, which are offered, and why the others are not.
fn feature_sets(out: &mut String) {
    out.push_str(FEATURES);
    for release in Release::ALL {
        for word in Word::ALL {
            let recorded = FeatureSet::Recorded.bits(word, release);
            let offered = FeatureSet::Offered.bits(word, release);
            let _ = writeln!(out, "| {release} | {} | {recorded:#x} | {offered:#x} |", word.name());
        }
    }
    out.push_str("\n| word | bit | name | from release | offered |\n|---|---|---|---|---|\n");
    for feature in features::TABLE {
        let offered = feature.absent.map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"));
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {offered} |",
            feature.word.name(),
            feature.bit,
            feature.name,
            feature.since
        );
    }
}

/// The document, from the table.
pub fn to_markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    let side = |prefix: &str| {
        let mut rows: Vec<_> = TABLE.iter().filter(|row| row.leaf.starts_with(prefix)).collect();
        rows.sort_by_key(|row| (row.claim.degree == Degree::Absent, row.leaf));
        rows
    };
    out.push_str("\n## Host side (SEAMCALL)\n");
    rows(&mut out, &side("TDH."));
    out.push_str("\n## Guest side (TDCALL)\n");
    rows(&mut out, &side("TDG."));
    out.push_str("\n## Module profiles\n\n| profile | backed by | differs from 1.5.01 in |\n|---|---|---|\n");
    for profile in ModuleProfile::ALL {
        let default = if profile == ModuleProfile::default() { " (default)" } else { "" };
        let _ = writeln!(out, "| `{profile}`{default} | {} | {} |", profile.backing(), difference(profile));
    }
    feature_sets(&mut out);
    processor(&mut out);
    out.push_str(MIGRATION);
    for (what, why) in NOT_COMPARED {
        let _ = writeln!(out, "| {what} | {why} |");
    }
    out.push_str("\n## The emulated server\n\n| what | how far |\n|---|---|\n");
    for (what, how) in SERVER {
        let _ = writeln!(out, "| {what} | {how} |");
    }
    out.push_str("\n## Deliberately not modelled\n\n| what | how |\n|---|---|\n");
    for (what, how) in NOT_MODELLED {
        let _ = writeln!(out, "| {what} | {how} |");
    }
    out
}
