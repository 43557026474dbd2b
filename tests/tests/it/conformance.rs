//! The emulated TDX module answers every recorded call as Intel's own module did.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use seam_emu::conformance::{self, Action, GuestAct, GuestEvent, InputError, Options, Sequences, Step};
use seam_emu::fidelity::RECORDED;
use tdvisor_test_data::vectors;
use tdx_module_iface::{Status, StatusCode};

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
    let mut code = |leaf: &str, rax: u64| {
        codes.entry(leaf.to_owned()).or_default().insert(Status::from_raw(rax).code());
    };
    code(&call.leaf, call.expected.values.rax);
    let events = call.guest.iter().flat_map(|run| &run.events);
    for event in events.clone() {
        if let GuestEvent::Guest { event: GuestAct::Tdcall { leaf, expected: Some(expected), .. }, .. } =
            event
        {
            code(leaf, expected.values.rax);
        }
    }
    for event in events {
        if let GuestEvent::Host(step) = event {
            note(step, codes);
        }
    }
}

#[test]
#[ignore = "needs recordings"]
fn the_fidelity_table_knows_which_codes_the_recordings_contain() {
    let folders = [vectors::MODULE, vectors::MODULE_1_5_05].map(vectors::folder);
    let mut codes = Codes::new();
    for file in conformance::files(&folders).unwrap() {
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
