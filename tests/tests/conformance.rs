//! The emulated TDX module answers every recorded call as Intel's own module did.
//!
//! `TDVISOR_VECTORS` names the folder of the recordings; `none` skips, `required` fails without them; unset means
//! `../shared/vectors` beside the workspace, if it is there.

use std::path::PathBuf;

use seam_emu::conformance::{self, InputError, Options};

/// The folder of the module's recordings, or `None` with a line that says why nothing runs.
fn recordings() -> Option<PathBuf> {
    let setting = std::env::var("TDVISOR_VECTORS").unwrap_or_default();
    let beside = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = match setting.as_str() {
        "none" => {
            println!("not run: TDVISOR_VECTORS=none");
            return None;
        }
        "" | "required" => beside,
        folder => PathBuf::from(folder),
    };
    let folder = folder.join("tdx-module");
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(setting.is_empty(), "no recordings in {}", folder.display());
    println!("not run: no recordings in {}", folder.display());
    None
}

#[test]
fn every_recorded_call_of_the_real_module_agrees() {
    let Some(folder) = recordings() else { return };
    let report = conformance::run(&[folder], &Options::default(), &|_| ()).unwrap();
    let total = report.total();
    assert!(total.calls > 100_000, "only {} calls were found", total.calls);
    assert!(report.agrees() && total.agreeing == total.calls, "\n{report}");
}

#[test]
fn the_same_recordings_named_twice_are_counted_once() {
    let Some(folder) = recordings() else { return };
    let file = folder.join("metadata.jsonl.gz");
    let once = conformance::run(&[file.clone()], &Options::default(), &|_| ()).unwrap();
    let twice = conformance::run(&[file.clone(), file], &Options::default(), &|_| ()).unwrap();
    assert_eq!(once.total(), twice.total());
}

#[test]
fn a_folder_without_recordings_is_an_input_error() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let error = conformance::run(&[folder], &Options::default(), &|_| ()).unwrap_err();
    assert!(matches!(error, InputError::NothingFound), "{error}");
}
