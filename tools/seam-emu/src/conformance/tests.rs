//! The reader says where a file is wrong and what is wrong there.

use std::fs;
use std::path::{Path, PathBuf};

use super::{InputError, Options, run};

/// A folder that goes away.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tdvisor-conformance-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, lines: &[&str]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, lines.join("\n")).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const HEADER: &str = r#"{"seq":"a","family":"bringup","seed":"0x0","shape":"s","after":"reset","tds":[],"platform":{"max_pa":52,"hkid_start_bit":46,"private_hkid_min":32,"private_hkid_max":63,"num_lps":1,"num_pkgs":1,"lp_pkg":[0],"phys_mem_bytes":"0x200000","seamrr_base":"0x100000","seamrr_size":"0x1000","wbinvd_sub_blocks":4,"cmrs":[],"attributes_fixed0":"0x1","attributes_fixed1":"0x0","xfam_fixed0":"0x3","xfam_fixed1":"0x3","cpuid_fms":"0x806f8","tsc_hz":"0x77359400"}}"#;
const NOT_READY: &str = r#"{"i":0,"lp":0,"op":"seamcall","leaf":"TDH.MNG.CREATE","in":{"rax":"0x9"},"out":{"rax":"0xc000050500000000"}}"#;
const END: &str = r#"{"end":true}"#;

fn problem_of(file: &Path) -> (u64, String) {
    match run(&[file.to_owned()], &Options::default(), &|_| ()) {
        Err(InputError::Line { line, problem, .. }) => (line, problem),
        other => panic!("expected a bad line, got {other:?}"),
    }
}

#[test]
fn a_call_that_answers_as_recorded_agrees() {
    let folder = Folder::new("agrees");
    let file = folder.file("x.jsonl", &[HEADER, NOT_READY, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    assert!(report.agrees(), "{report}");
    assert!(report.to_string().contains("1 of 1 calls agree (1 sequences)"), "{report}");
}

#[test]
fn a_wrong_status_is_reported_in_words_and_the_rest_does_not_agree() {
    let folder = Folder::new("differs");
    let wrong = NOT_READY.replace("0xc000050500000000", "0x8000020000000001");
    let second = NOT_READY.replace("\"i\":0", "\"i\":1");
    let file = folder.file("x.jsonl", &[HEADER, &wrong, &second, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    let text = report.to_string();
    assert!(text.contains("0 of 2 calls agree"), "{text}");
    assert!(text.contains("OPERAND_BUSY, operand RCX"), "{text}");
    assert!(text.contains("SYS_NOT_READY"), "{text}");
    assert!(!report.agrees());
}

#[test]
fn a_register_that_is_no_output_must_keep_its_value() {
    let folder = Folder::new("kept");
    let listed = NOT_READY.replace("\"out\":{", "\"out\":{\"r8\":\"0x7\",");
    let file = folder.file("x.jsonl", &[HEADER, &listed, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    assert!(report.to_string().contains("r8 expected 0x7"), "{report}");
}

#[test]
fn soft_registers_are_counted_and_do_not_fail() {
    let folder = Folder::new("soft");
    let soft = NOT_READY.replace("\"out\":{", "\"soft\":[\"r8\"],\"out\":{\"r8\":\"0x7\",");
    let file = folder.file("x.jsonl", &[HEADER, &soft, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    assert!(report.agrees(), "{report}");
    assert_eq!(report.total().soft, 1);
}

#[test]
fn a_bad_line_is_named_with_what_is_wrong() {
    let folder = Folder::new("bad");
    let unknown_register = NOT_READY.replace("\"rax\":\"0x9\"", "\"rxx\":\"0x9\"");
    let leading_zero = NOT_READY.replace("\"rax\":\"0x9\"", "\"rax\":\"0x09\"");
    let out_of_order = NOT_READY.replace("\"i\":0", "\"i\":3");
    let unknown_op = r#"{"i":0,"op":"jump"}"#;
    for (number, (lines, line, words)) in [
        (vec![HEADER, "{"], 2, "not JSON"),
        (vec![HEADER, &unknown_register, END], 2, "no register"),
        (vec![HEADER, &leading_zero, END], 2, "field `in.rax`"),
        (vec![HEADER, &out_of_order, END], 2, "step number 3 where 0 was due"),
        (vec![HEADER, unknown_op, END], 2, "unknown `op`"),
        (vec![HEADER, NOT_READY], 3, "the file ends inside sequence a"),
        (vec![HEADER, HEADER], 2, "has no end"),
        (vec![NOT_READY], 1, "outside a sequence"),
        (vec![HEADER, r#"{"end":true,"truncated":true}"#], 2, "truncated"),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.file(&format!("{number}.jsonl"), &lines);
        let (at, problem) = problem_of(&file);
        assert_eq!(at, line, "{problem}");
        assert!(problem.contains(words), "{problem}");
    }
}

#[test]
fn a_sequence_whose_prefix_is_missing_does_not_agree() {
    let folder = Folder::new("prefix");
    let header = HEADER.replace("\"reset\"", "\"prefix:nowhere\"");
    let file = folder.file("x.jsonl", &[&header, NOT_READY, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    assert!(report.to_string().contains("there is no prefix prefix:nowhere"), "{report}");
    assert!(report.to_string().contains("0 of 1 calls agree"), "{report}");
}

#[test]
fn prefixes_that_follow_each_other_in_a_circle_are_no_starting_state() {
    let folder = Folder::new("circle");
    let header = |seq: &str, after: &str| {
        HEADER
            .replace("\"seq\":\"a\"", &format!("\"seq\":\"{seq}\""))
            .replace("\"reset\"", &format!("\"{after}\""))
    };
    folder.file("prefixes.jsonl", &[&header("p", "q"), END, &header("q", "p"), END]);
    let file = folder.file("x.jsonl", &[&header("a", "p"), NOT_READY, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    assert!(report.to_string().contains("comes back to itself"), "{report}");
}

#[test]
fn a_bundle_that_the_host_sealed_checks_and_one_with_another_header_does_not() {
    const KEY: &str = r#""key":["0x1","0x2","0x3","0x4"]"#;
    let mbmd = format!("30000000000020000000000000000000{}", "0500000000000000".repeat(2));
    let aad = format!("30000000000020000000000000000000{}", "00000000000000000500000000000000");
    let write = format!(r#"{{"i":0,"op":"write_mem","pa":"0x1000","len":"0x20","hex":"{mbmd}"}}"#);
    let seal = format!(
        r#"{{"i":1,"op":"seal",{KEY},"iv":"050000000000000000000000","aad":"{aad}","plain":[],"tag_pa":"0x1020"}}"#
    );
    let check =
        format!(r#"{{"i":2,"op":"check_bundle","kind":"token",{KEY},"mbmd_pa":"0x1000","mbmd":"{mbmd}"}}"#);
    let folder = Folder::new("bundle");
    let file = folder.file("x.jsonl", &[HEADER, &write, &seal, &check, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    assert!(report.agrees(), "{report}");
    let other = check.replace("\"mbmd\":\"3000", "\"mbmd\":\"3100");
    let file = folder.file("y.jsonl", &[HEADER, &write, &seal, &other, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    assert!(report.to_string().contains("the MBMD is"), "{report}");
}

#[test]
fn a_name_that_no_call_bound_ends_the_replay() {
    let folder = Folder::new("unbound");
    let named = NOT_READY.replace("\"rax\":\"0x9\"", "\"rax\":\"0x9\",\"rcx\":\"$HS+0x1\"");
    let file = folder.file("x.jsonl", &[HEADER, &named, END]);
    let report = run(&[file], &Options::default(), &|_| ()).unwrap();
    assert!(report.to_string().contains("nothing is bound to $HS"), "{report}");
}
