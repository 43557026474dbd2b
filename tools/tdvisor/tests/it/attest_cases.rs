//! Cases from public reports of people who attest TDs, each with the answer that they should have got.
//!
//! The inputs are in the recordings, `attest-cases` and `robustness`; their indices say where each comes from.

use crate::cli::{Answer, Folder, tdvisor};
use serde_json::Value;
use tdvisor_test_data::{ovmf, vectors};

/// When the test quote of the cases is valid.
const AT: &str = "1780000100";

fn case(name: &str) -> String {
    vectors::folder("attest-cases").join(name).display().to_string()
}

fn robustness(name: &str) -> String {
    vectors::folder("robustness").join(name).display().to_string()
}

fn good_report() -> String {
    case("m-good.report")
}

fn verify(quote: &str, collateral: &str, more: &[&str]) -> Answer {
    let root = case("tq-root.pem");
    let call = ["verify", quote, "--collateral", collateral, "--test-root", &root, "--at", AT];
    tdvisor(&[&call[..], more].concat())
}

#[test]
#[ignore = "needs recordings"]
fn the_good_log_replays_to_its_report_and_is_its_own_reference() {
    let (log, report) = (case("m-good.bin"), good_report());
    tdvisor(&["eventlog", "replay", &log, "--report", &report]).ends_with(0);
    tdvisor(&["eventlog", "explain", &log, "--reference", &log, "--report", &report]).ends_with(0);
}

#[test]
#[ignore = "needs recordings"]
fn c01_rtmr2_without_events_is_unaccounted_for_and_never_called_harmless() {
    let (log, report) = (case("C01-rtmr2-stripped.bin"), good_report());
    let reference = case("m-good.bin");
    let replayed = tdvisor(&["eventlog", "replay", &log, "--report", &report, "--json"]).ends_with(1).json();
    assert_eq!(replayed["registers"][2]["verdict"], "unaccounted");
    for call in [
        &["eventlog", "replay", &log, "--report", &report][..],
        &["eventlog", "explain", &log, "--report", &report, "--reference", &log],
        &["eventlog", "explain", &log, "--report", &report, "--reference", &reference],
    ] {
        let told = tdvisor(call).ends_with(1).stdout();
        assert!(told.contains("no event of the log accounts for it"), "{told}");
        assert!(!told.contains("not tampering"), "{told}");
    }
}

#[test]
#[ignore = "needs recordings"]
fn c02_a_command_lines_text_that_is_not_what_was_measured_is_flagged() {
    let (log, report) = (case("C02-grub-cmdline-forged.bin"), good_report());
    let shown = tdvisor(&["eventlog", "show", &log]).ends_with(0).stdout();
    assert_eq!(shown.matches("NOT MEASURED").count(), 1, "{shown}");
    let events = tdvisor(&["eventlog", "show", &log, "--json"]).ends_with(0).json();
    let forged: Vec<&Value> = events["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter(|event| event["measured"] == "digest-not-of-data")
        .collect();
    assert_eq!(forged.len(), 1);
    assert!(forged[0]["text"].as_str().expect("text").contains("lockdown=integrity"));
    let replayed = tdvisor(&["eventlog", "replay", &log, "--report", &report]).ends_with(1).stdout();
    assert!(replayed.contains("NOT MEASURED: event 8"), "{replayed}");
    let good = case("m-good.bin");
    let explained =
        tdvisor(&["eventlog", "explain", &log, "--reference", &good, "--report", &report, "--json"]);
    let explained = explained.ends_with(1).json();
    assert_eq!(explained["agrees"], false);
    assert_eq!(explained["contradictions"].as_array().map(Vec::len), Some(1));
}

#[test]
#[ignore = "needs recordings"]
fn c04_a_run_time_event_whose_payload_was_not_measured_is_refused() {
    let (log, report) = (case("m-good.bin"), case("C04-rtmr3.report"));
    let good = case("C04-rtmr3-good.json");
    let forged = case("C04-rtmr3-payload-forged.json");
    tdvisor(&["eventlog", "replay", &log, "--events", &good, "--report", &report]).ends_with(0);
    let refused =
        tdvisor(&["eventlog", "replay", &log, "--events", &forged, "--report", &report]).ends_with(1);
    assert!(refused.stdout().contains("compose-hash"), "{}", refused.stdout());
    // A quote of that report, by a policy that asks for the log.
    let folder = Folder::new("c04");
    let [quote, collateral, root] = ["q", "c", "r"].map(|name| folder.path(name));
    let issue = ["quote", "issue", "--report", &report, "--out", &quote, "--collateral", &collateral];
    tdvisor(&[&issue[..], &["--root", &root, "--at", AT]].concat()).ends_with(0);
    let policy = folder.write("policy.toml", "[td]\nsept_ve_disable = \"any\"\nrtmr3 = \"log\"\n");
    let call = [
        "verify",
        &quote,
        "--collateral",
        &collateral,
        "--test-root",
        &root,
        "--at",
        AT,
        "--policy",
        &policy,
    ];
    tdvisor(&[&call[..], &["--events", &good]].concat()).ends_with(0);
    let refused = tdvisor(&[&call[..], &["--events", &forged, "--json"]].concat()).ends_with(1).json();
    assert_eq!(refused["findings"][0]["code"], "event-text");
    tdvisor(&call).ends_with(1);
}

#[test]
#[ignore = "needs the package ovmf"]
fn c06_under_ovmf_registers_are_ovmfs_with_every_build_named_or_not_given_at_all() {
    let image = ovmf::file(ovmf::COMBINED).display().to_string();
    let folder = Folder::new("c06");
    let kernel = folder.write("vmlinuz", crate::cli::pe::pe(&[(".text", b"a kernel")]));
    let boot = ["--kernel", &kernel, "--cmdline", "console=ttyS0", "--memory", "2G", "--json"];
    let of_shim = tdvisor(&[&["measure"][..], &boot].concat()).ends_with(0).json();
    let of_shim = &of_shim["boot"]["registers"];
    let measured = tdvisor(&[&["measure", &image][..], &boot].concat()).ends_with(0).json();
    let builds = measured["boot"]["builds"].as_array().expect("several builds");
    assert!(builds.len() >= 2 && builds.iter().all(|build| build["build"].is_string()));
    for build in builds {
        for register in ["rtmr0", "rtmr1", "rtmr2"] {
            let here = &build["registers"][register];
            assert!(here["values"].is_array() || here["not_predicted"].is_string(), "{register}: {here}");
            let values = here["values"].as_array().into_iter().flatten();
            assert!(
                values.clone().all(|one| one["value"] != of_shim[register]["value"]),
                "{register}: {here}"
            );
        }
    }
}

#[test]
#[ignore = "needs recordings"]
fn c07_a_case_with_a_key_that_nobody_knows_is_refused_and_never_judged_by_the_default() {
    let batch = tdvisor(&[
        "verify",
        "--batch",
        &case("C07-batch.jsonl"),
        "--test-root",
        &case("tq-root.pem"),
        "--json",
    ]);
    let batch = batch.ends_with(2);
    let answers: Vec<Value> =
        batch.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers[0]["reason"], "collateral has evaluation number 17, at least 18 is wanted");
    assert_eq!(answers[1]["id"], "typo");
    assert_eq!(answers[1]["reason"], "unknown key `polcy`");
    assert!(answers.iter().all(|answer| answer["policy"] == "reject"));
}

#[test]
#[ignore = "needs recordings"]
fn cases_with_keys_of_other_types_twice_or_misspelt_are_refused_by_name() {
    let root = robustness("td.root.pem");
    let batch = tdvisor(&["verify", "--batch", &robustness("batch.jsonl"), "--test-root", &root, "--json"])
        .ends_with(2);
    let answers: Vec<Value> =
        batch.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(answers.len(), 6);
    assert!(answers.iter().all(|answer| answer["policy"] == "reject"), "{answers:?}");
    for (at, named) in [(0, "`policy`"), (1, "`policy`"), (3, "`policy`"), (4, "`Policy`"), (5, "none.json")]
    {
        let reason = answers[at]["reason"].as_str().expect("a reason");
        assert!(reason.contains(named), "line {at}: {reason}");
    }
}

#[test]
#[ignore = "needs recordings"]
fn an_enclave_is_no_td_whatever_the_policy_pins() {
    let [quote, collateral, root] = ["sgx.q", "sgx.c.json", "td.root.pem"].map(robustness);
    for policy in ["pin.toml", "pin2.toml"].map(robustness) {
        let call =
            ["verify", &quote, "--collateral", &collateral, "--test-root", &root, "--at", "1795874604"];
        let verdict = tdvisor(&[&call[..], &["--policy", &policy, "--json"]].concat()).ends_with(1).json();
        let codes: Vec<&Value> =
            verdict["findings"].as_array().expect("findings").iter().map(|one| &one["code"]).collect();
        assert!(codes.contains(&&Value::from("tee")), "{codes:?}");
    }
}

#[test]
#[ignore = "needs recordings"]
fn collateral_in_three_files_is_accepted_in_every_order() {
    let [quote, root] = ["td.q", "td.root.pem"].map(robustness);
    let files =
        ["a_qe.json", "b_crl.json", "c_tcb.json"].map(|name| robustness(&format!("collateral-split/{name}")));
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut call = vec!["verify", &quote, "--test-root", &root, "--at", "1795874604"];
        order.iter().for_each(|at| call.extend(["--collateral", &files[*at]]));
        tdvisor(&call).ends_with(0);
    }
}

#[test]
#[ignore = "needs recordings"]
fn c08_quotes_are_read_in_the_forms_that_people_have() {
    let collateral = case("tq-collateral.json");
    for form in [
        "tq.bin",
        "C08a-wrapped.hex",
        "C08b-quote.b64",
        "C08c-quote.b64url",
        "C08d-evidence.json",
        "C08e-getquote.json",
    ] {
        verify(&case(form), &collateral, &[]).ends_with(0);
        let shown = tdvisor(&["quote", "show", &case(form), "--json"]).ends_with(0).json();
        assert_eq!(shown["body"], "TD report 1.0", "{form}");
    }
    for log in ["C08d-evidence.json", "C08e-getquote.json"] {
        tdvisor(&["eventlog", "show", &case(log)]).ends_with(0);
    }
    for none in ["INDEX.md", "tq-root.pem", "m-good.bin", "C16-dstack-full-list.json", "C16c-getquote.json"] {
        for call in
            [&["quote", "show", &case(none)][..], &["verify", &case(none), "--collateral", &collateral]]
        {
            let told = tdvisor(call).ends_with(2).one_line_of_error();
            assert!(told.contains("not a quote"), "{none}: {told}");
        }
    }
}

#[test]
#[ignore = "needs recordings"]
fn c09_a_log_of_pcrs_is_never_shown_as_rtmrs() {
    let (log, report) = (case("C09-tpm-pcr-log.bin"), good_report());
    for call in [
        &["eventlog", "replay", &log][..],
        &["eventlog", "replay", &log, "--report", &report],
        &["eventlog", "show", &log],
        &["eventlog", "explain", &log],
    ] {
        let answer = tdvisor(call).ends_with(2);
        assert!(answer.stdout().is_empty());
        assert!(answer.one_line_of_error().contains("PCR"));
    }
}

#[test]
#[ignore = "needs recordings"]
fn c11_secure_boot_that_is_measured_after_its_separator_is_flagged() {
    let (log, report) = (case("C11-late-secureboot.bin"), case("C11-late-secureboot.report"));
    let shown = tdvisor(&["eventlog", "show", &log]).ends_with(0).stdout();
    assert!(shown.contains("after the separator") && shown.contains("the event was renamed"), "{shown}");
    tdvisor(&["eventlog", "replay", &log, "--report", &report]).ends_with(1);
    tdvisor(&["eventlog", "explain", &log, "--reference", &log, "--report", &report]).ends_with(1);
}

#[test]
#[ignore = "needs recordings"]
fn c12_sections_of_a_unified_kernel_image_are_readable_and_a_changed_one_is_named() {
    let (log, report) = (case("C12-uki.bin"), case("C12-uki.report"));
    let shown = tdvisor(&["eventlog", "show", &log]).ends_with(0).stdout();
    for section in [".linux", ".osrel", ".cmdline", ".initrd"] {
        assert!(shown.contains(&format!("\"{section}\" (what the section holds)")), "{shown}");
    }
    tdvisor(&["eventlog", "replay", &log, "--report", &report]).ends_with(0);
    let other = case("C12c-uki-other-cmdline.bin");
    let explained =
        tdvisor(&["eventlog", "explain", &log, "--reference", &other, "--json"]).ends_with(1).json();
    assert_eq!(explained["differences"].as_array().map(Vec::len), Some(1));
    assert_eq!(explained["first"]["cause"], "command-line-differs");
    assert_eq!(explained["first"]["part"], "section .cmdline");
}

#[test]
#[ignore = "needs recordings"]
fn c13_json_has_the_whole_text_and_the_raw_data() {
    let shown = tdvisor(&["eventlog", "show", "--json", &case("C13-long-cmdline.bin")]).ends_with(0).json();
    let line = shown["events"]
        .as_array()
        .expect("events")
        .iter()
        .find(|event| event["text"].as_str().is_some_and(|text| text.starts_with("kernel_cmdline: ")))
        .expect("the command line");
    let text = line["text"].as_str().expect("text");
    assert_eq!(text.len(), 447);
    let data: Vec<String> = text.bytes().chain([0]).map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(line["data"], data.concat());
    assert_eq!(shown["schema_version"], 1);
}

#[test]
#[ignore = "needs recordings"]
fn c14_bodies_of_the_other_tee_lie_beside_and_two_that_both_fit_are_named() {
    let quote = case("tq.bin");
    let folder = case("C14-folder");
    verify(&quote, &folder, &[]).ends_with(0);
    // The same body twice is one; an older one of the same platform is another.
    let twice = [&*folder, "--collateral", &case("tq-collateral.json")].map(str::to_owned);
    verify(&quote, &twice[0], &[&twice[1], &twice[2]]).ends_with(0);
    let own = Folder::new("c14");
    let text = std::fs::read_to_string(case("C14-folder/tcb.json")).expect("the TCB info");
    let newer = own.write(
        "newer.json",
        text.replacen("\"tcbEvaluationDataNumber\":17", "\"tcbEvaluationDataNumber\":18", 1),
    );
    let told = verify(&quote, &folder, &["--collateral", &newer]).ends_with(2).one_line_of_error();
    assert!(told.contains("tcb.json") && told.contains("newer.json") && told.contains("TCB info"), "{told}");
}

#[test]
#[ignore = "needs recordings"]
fn c15_a_file_that_is_no_collateral_is_named() {
    let told = verify(&case("tq.bin"), &case("C15-folder"), &[]).ends_with(2).one_line_of_error();
    assert!(told.contains("README.txt"), "{told}");
}

#[test]
#[ignore = "needs recordings"]
fn c16_a_list_of_all_events_counts_once_beside_a_log_and_alone_where_there_is_none() {
    let report = case("C04-rtmr3.report");
    let (log, list) = (case("m-good.bin"), case("C16-dstack-full-list.json"));
    tdvisor(&["eventlog", "replay", &log, "--events", &list, "--report", &report]).ends_with(0);
    tdvisor(&["eventlog", "replay", "--events", &list, "--report", &report]).ends_with(0);
    tdvisor(&["eventlog", "replay", &list, "--report", &report]).ends_with(0);
    tdvisor(&["eventlog", "replay", &case("C16c-getquote.json"), "--report", &report]).ends_with(0);
    // A list that is not what the registers hold.
    let folder = Folder::new("c16");
    let text = std::fs::read_to_string(&list).expect("the list");
    let events: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    let mut refused = 0;
    for left_out in 0..events.len() {
        let mut fewer = events.clone();
        fewer.remove(left_out);
        let fewer = folder.write("fewer.json", serde_json::to_string(&fewer).expect("JSON"));
        tdvisor(&["eventlog", "replay", &log, "--events", &fewer, "--report", &report]).ends_with(1);
        tdvisor(&["eventlog", "replay", &fewer, "--report", &report]).ends_with(1);
        refused += 2;
    }
    assert_eq!(refused, 28);
}

#[test]
#[ignore = "needs recordings"]
fn c17_an_hcl_report_is_shown_with_whether_it_binds_its_run_time_data() {
    let shown = tdvisor(&["quote", "show", &case("C17-hcl-report.bin"), "--json"]).ends_with(0).json();
    assert_eq!(shown["evidence"], "TDREPORT");
    assert_eq!(shown["hashes_hold"], true);
    assert!(shown["runtime_data"].as_str().expect("text").contains("vm-configuration"));
    // The recorded one has a REPORTDATA of zeros.
    assert_eq!(shown["runtime_data_holds"], false);
    let told = tdvisor(&["verify", &case("C17-hcl-report.bin"), "--collateral", &case("tq-collateral.json")]);
    assert!(told.ends_with(2).one_line_of_error().contains("not a quote"));
}

#[test]
#[ignore = "needs recordings"]
fn c18_a_quote_names_its_platform_and_the_requests_that_verification_needs() {
    let shown = tdvisor(&["quote", "show", &case("tq.bin")]).ends_with(0).stdout();
    for named in [
        "platform.fmspc            544456545354",
        "platform.ca               platform",
        "platform.pce_id           0000",
        "platform.cpu_svn          ",
        "platform.pck_valid_until  ",
        "https://api.trustedservices.intel.com/tdx/certification/v4/tcb?fmspc=544456545354",
        "https://api.trustedservices.intel.com/tdx/certification/v4/qe/identity",
        "https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
    ] {
        assert!(shown.contains(named), "{named}\n{shown}");
    }
}

#[test]
#[ignore = "needs recordings"]
fn c19_variables_are_told_in_words_and_c20_an_acpi_table_gets_a_hint() {
    let shown = tdvisor(&["eventlog", "show", &case("m-good.bin")]).ends_with(0).stdout();
    assert!(shown.contains("variable SecureBoot: off"), "{shown}");
    let told = tdvisor(&["eventlog", "show", &case("C20-ccel-table.bin")]).ends_with(2).one_line_of_error();
    assert!(told.contains("/sys/firmware/acpi/tables/data/CCEL"), "{told}");
}

#[test]
#[ignore = "needs recordings"]
fn c21_of_many_platforms_the_quotes_is_chosen_and_c22_saved_responses_are_read() {
    for collateral in ["C21-many-platforms.json", "C22-http"] {
        verify(&case("tq.bin"), &case(collateral), &[]).ends_with(0);
    }
}

#[test]
#[ignore = "needs recordings"]
fn c23_all_missing_parts_are_named_at_once_with_the_platform_and_where_to_get_each() {
    let told = verify(&case("tq.bin"), &case("C14-folder/tcb.json"), &[]).ends_with(2).one_line_of_error();
    for named in [
        "TCB info issuer chain",
        "QE identity",
        "QE identity issuer chain",
        "root CRL",
        "PCK CRL",
        "544456545354",
        "platform CA",
        "/tdx/certification/v4/tcb?fmspc=544456545354",
        "/tdx/certification/v4/qe/identity",
        "/sgx/certification/v4/pckcrl?ca=platform",
        "IntelSGXRootCA.der",
    ] {
        assert!(told.contains(named), "{named}\n{told}");
    }
}

/// Every pair of files of the cases as log and report, and as quote and collateral: only what belongs together is accepted.
#[test]
#[ignore = "needs recordings"]
fn no_two_files_that_do_not_belong_together_are_accepted() {
    let folder = vectors::folder("attest-cases");
    let mut files: Vec<String> = std::fs::read_dir(&folder)
        .expect("the cases")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| path.display().to_string())
        .collect();
    files.sort();
    let ends = |names: &[&str], file: &str| names.iter().any(|name| file.ends_with(name));
    let (mut refused, mut accepted) = (0, 0);
    for log in &files {
        for report in &files {
            // RTMR3 may have grown without a log; the lists have what it grew by.
            let belongs = match () {
                () if ends(&["m-good.report", "C17-hcl-report.bin"], report) => {
                    ends(&["m-good.bin", "C08d-evidence.json"], log)
                }
                () if report.ends_with("C04-rtmr3.report") => ends(
                    &["m-good.bin", "C08d-evidence.json", "C16-dstack-full-list.json", "C16c-getquote.json"],
                    log,
                ),
                () if report.ends_with("C12-uki.report") => log.ends_with("C12-uki.bin"),
                () => false,
            };
            let status = tdvisor(&["eventlog", "replay", log, "--report", report]).status();
            assert!(status != 0 || belongs, "accepted: {log} with {report}");
            *if status == 0 { &mut accepted } else { &mut refused } += 1;
        }
    }
    println!("{refused} pairs refused, {accepted} accepted");
    assert!(refused > 900 && accepted >= 3, "{refused} refused, {accepted} accepted");
}
