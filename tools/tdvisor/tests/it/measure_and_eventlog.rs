//! `tdvisor measure` and `tdvisor eventlog` from outside: what a script sees.

use std::process::{Command, Output};

use tdvisor_test_data::{ovmf, vectors};

const TWO_PASS: &str = "acccbcc870a381adab0d3919d90a7f268ac3b0364771f202ed4bb4e892d045b3\
                        3db3b32e6924cba830a724eed443f7e1";

fn tdvisor(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tdvisor")).args(args).output().expect("tdvisor starts")
}

fn status(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn one_line_of_error(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// A file of Debian's firmware package.
fn firmware(path: &str) -> String {
    ovmf::file(path).display().to_string()
}

#[test]
#[ignore = "needs the package ovmf"]
fn the_variant_that_gives_an_expected_mrtd_is_named() {
    let image = firmware(ovmf::COMBINED);
    let found = tdvisor(&["measure", &image, "--expect", TWO_PASS]);
    assert_eq!(status(&found), 0);
    assert!(stdout(&found).contains("match: two-pass"), "{}", stdout(&found));
    let other = "00".repeat(48);
    let missed = tdvisor(&["measure", &image, "--expect", &other, "--json"]);
    assert_eq!(status(&missed), 1);
    let json: serde_json::Value = serde_json::from_str(&stdout(&missed)).expect("JSON");
    assert_eq!(json["expect"]["matches"], false);
    assert_eq!(json["mrtd"]["two_pass"], TWO_PASS);
}

#[test]
fn an_image_that_cannot_be_used_gives_one_line_and_status_2() {
    let empty = tdvisor(&["measure", "/dev/null"]);
    assert_eq!(status(&empty), 2);
    assert!(one_line_of_error(&empty).contains("too few"));
    let missing = tdvisor(&["measure", "/no/such/image"]);
    assert_eq!(status(&missing), 2);
    one_line_of_error(&missing);
}

#[test]
#[ignore = "needs the package ovmf"]
fn code_without_its_variable_store_gives_one_line_and_status_2() {
    let code = tdvisor(&["measure", &firmware(ovmf::CODE)]);
    assert_eq!(status(&code), 2);
    assert!(one_line_of_error(&code).contains("section 0 (BFV)"));
}

#[test]
#[ignore = "needs recordings"]
fn a_log_and_the_quote_of_its_guest_agree_and_another_guests_do_not() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let file = |path: &str| folder.join(path).display().to_string();
    let log = file("eventlogs/ccel-cos113.bin");
    let own = file("quotes/quote-v4-td10-00806f05-cos113.bin");
    let replayed = tdvisor(&["eventlog", "replay", &log, "--quote", &own]);
    assert_eq!(status(&replayed), 0, "{}", stdout(&replayed));
    let other = file("quotes/quote-v4-td10-b0c06f-uptodate.bin");
    assert_eq!(status(&tdvisor(&["eventlog", "replay", &log, "--quote", &other])), 1);
    assert_eq!(status(&tdvisor(&["eventlog", "show", &log, "--json"])), 0);
}

#[test]
#[ignore = "needs recordings"]
fn a_log_is_explained_by_another_boot_and_by_the_inputs_of_its_own() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let file = |path: &str| folder.join(path).display().to_string();
    let (log, reference) = (file("eventlogs/ccel-ita.bin"), file("eventlogs/ccel-coco-ovmf.bin"));
    let same = tdvisor(&["eventlog", "explain", &log, "--reference", &log]);
    assert_eq!(status(&same), 0, "{}", stdout(&same));
    let explained = tdvisor(&["eventlog", "explain", &log, "--reference", &reference, "--json"]);
    assert_eq!(status(&explained), 1);
    let json: serde_json::Value = serde_json::from_str(&stdout(&explained)).expect("JSON");
    assert_eq!(json["first"]["cause"], "memory-size-differs");
    let causes: Vec<_> = json["differences"]
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|difference| difference["cause"].as_str())
        .collect();
    assert!(causes.contains(&"kernel-differs") && causes.contains(&"command-line-differs"), "{causes:?}");
}

#[test]
#[ignore = "needs recordings and the package ovmf"]
fn a_log_of_the_same_firmware_build_differs_in_its_variable_store_only() {
    let log = vectors::folder(vectors::ATTESTATION).join("eventlogs/ccel-coco-ovmf.bin");
    let (log, image) = (log.display().to_string(), firmware(ovmf::COMBINED));
    // The recorded guest had 2 GiB.
    let own = tdvisor(&["eventlog", "explain", &log, "--firmware", &image, "--memory", "2G", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&stdout(&own)).expect("JSON");
    assert_eq!(json["differences"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["first"]["cause"], "variable-store-differs");
}
