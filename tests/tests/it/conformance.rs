//! The emulated TDX module answers every recorded call as Intel's own module did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use seam_emu::conformance::{
    self, Action, GuestAct, GuestEvent, GuestResult, GuestRun, InputError, Options, Sequences, Step, Symbols,
};
use seam_emu::fidelity::RECORDED;
use tdvisor_test_data::vectors;
use tdx_module_iface::{Status, StatusCode, TdgLeaf};

#[test]
#[ignore = "needs recordings"]
fn every_recorded_call_of_the_real_module_agrees() {
    let folder = vectors::folder(vectors::MODULE);
    let report = conformance::run(&[folder], &Options::default(), &|_| ()).unwrap();
    let total = report.total();
    assert!(total.calls > 100_000, "only {} calls were found", total.calls);
    assert!(report.agrees() && total.agreeing == total.calls, "\n{report}");
}

#[test]
#[ignore = "needs recordings"]
fn every_recorded_call_of_release_1_5_05_agrees() {
    let folder = vectors::folder(vectors::MODULE_1_5_05);
    let events = folder.join("ext");
    let report = conformance::run(&[folder, events], &Options::default(), &|_| ()).unwrap();
    let total = report.total();
    assert!(total.calls > 100_000, "only {} calls were found", total.calls);
    assert!(report.agrees() && total.agreeing == total.calls, "\n{report}");
}

/// The recordings that TD partitioning is about, alone: those of migration come beside them.
fn partitioning() -> PathBuf {
    vectors::folder(vectors::PARTITION_MIGRATION).join("l2vm.jsonl.gz")
}

#[test]
#[ignore = "needs recordings"]
fn every_recorded_call_of_td_partitioning_agrees() {
    let report = conformance::run(&[partitioning()], &Options::default(), &|_| ()).unwrap();
    let total = report.total();
    assert!(total.calls > 20_000, "only {} calls were found", total.calls);
    assert!(report.agrees() && total.agreeing == total.calls, "\n{report}");
}

/// The recordings of migration: sessions, and bundles that were forged.
fn migration() -> [PathBuf; 2] {
    ["mig.jsonl.gz", "migforge.jsonl.gz"].map(|file| vectors::folder(vectors::PARTITION_MIGRATION).join(file))
}

#[test]
#[ignore = "needs recordings"]
fn every_recorded_call_of_migration_agrees() {
    let report = conformance::run(&migration(), &Options::default(), &|_| ()).unwrap();
    let total = report.total();
    assert!(total.calls > 22_000, "only {} calls were found", total.calls);
    assert!(report.agrees() && total.agreeing == total.calls, "\n{report}");
}

#[test]
#[ignore = "needs recordings"]
fn every_recorded_call_of_the_configurations_agrees() {
    let file = vectors::folder(vectors::PARTITION_MIGRATION).join("cfg.jsonl.gz");
    let report = conformance::run(&[file], &Options::default(), &|_| ()).unwrap();
    let total = report.total();
    assert!(total.calls > 2_800, "only {} calls were found", total.calls);
    assert!(report.agrees() && total.agreeing == total.calls, "\n{report}");
}

#[test]
#[ignore = "needs recordings"]
fn the_same_recordings_named_twice_are_counted_once() {
    let folder = vectors::folder(vectors::MODULE);
    let file = folder.join("metadata.jsonl.gz");
    let once = conformance::run(std::slice::from_ref(&file), &Options::default(), &|_| ()).unwrap();
    let twice = conformance::run(&[file.clone(), file], &Options::default(), &|_| ()).unwrap();
    assert_eq!(once.total(), twice.total());
}

/// Leaf name to the codes that its recorded calls returned.
type Codes = BTreeMap<String, BTreeSet<StatusCode>>;

/// Notes what a step's calls returned. A VP.ENTER that left the guest by a VM exit has its reason in RAX, with
/// SUCCESS as its code.
fn note(step: &Step, codes: &mut Codes) {
    let Action::Seamcall(call) = &step.action else { return };
    note_code(codes, &call.leaf, call.expected.values.rax);
    let Some(run) = &call.guest else { return };
    note_host_routed(run, codes);
    for event in &run.events {
        match event {
            GuestEvent::Guest { event: GuestAct::Tdcall { leaf, expected: Some(expected), .. }, .. } => {
                note_code(codes, leaf, expected.values.rax);
            }
            // The TDG.VP.ENTER of the VM that goes on returns.
            GuestEvent::Guest { result: GuestResult::LeavesL2, after: Some(after), .. } => {
                note_code(codes, &TdgLeaf::VP_ENTER.to_string(), after.rax);
            }
            _ => (),
        }
    }
    for event in &run.events {
        if let GuestEvent::Host(step) = event {
            note(step, codes);
        }
    }
}

fn note_code(codes: &mut Codes, leaf: &str, rax: u64) {
    codes.entry(leaf.to_owned()).or_default().insert(Status::from_raw(rax).cause());
}

/// A TDG.VP.ENTER whose L2 VM exited to the host returns when the host enters the TD again.
fn note_host_routed(run: &GuestRun, codes: &mut Codes) {
    let routed = [StatusCode::L2_EXIT_HOST_ROUTED_ASYNC, StatusCode::L2_EXIT_HOST_ROUTED_TDVMCALL];
    if run.vm == 0
        && let Ok(entry) = run.entry.values(&Symbols::default())
        && routed.contains(&Status::from_raw(entry.rax).code())
    {
        note_code(codes, &TdgLeaf::VP_ENTER.to_string(), entry.rax);
    }
}

#[test]
#[ignore = "needs recordings"]
fn the_fidelity_table_knows_which_codes_the_recordings_contain() {
    let mut paths = [vectors::MODULE, vectors::MODULE_1_5_05].map(vectors::folder).to_vec();
    paths.extend([vectors::folder(vectors::MODULE_1_5_05).join("ext"), partitioning()]);
    paths.extend(migration());
    let mut codes = Codes::new();
    for file in conformance::files(&paths).unwrap() {
        for sequence in Sequences::open(&file).unwrap().map(Result::unwrap) {
            sequence.steps.iter().for_each(|step| note(step, &mut codes));
        }
    }
    codes.remove("UNKNOWN");
    let table: Codes =
        RECORDED.iter().map(|(leaf, codes)| ((*leaf).to_owned(), codes.iter().copied().collect())).collect();
    for leaf in codes.keys().chain(table.keys()) {
        assert_eq!(table.get(leaf), codes.get(leaf), "{leaf}: the table (left) and the recordings differ");
    }
}

#[test]
fn a_folder_without_recordings_is_an_input_error() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let error = conformance::run(&[folder], &Options::default(), &|_| ()).unwrap_err();
    assert!(matches!(error, InputError::NothingFound), "{error}");
}
