//! What `--json` prints is what the schema files say, field by field.
//!
//! The files use a part of JSON Schema (draft 2020-12) that a few lines check; a keyword beyond it is an error here.

use std::path::Path;

use crate::cli::{Folder, tdvisor};
use serde_json::{Map, Value};

fn schema(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas").join(name).with_extension("schema.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => panic!("no type is called {name}"),
    }
}

/// A keyword's list.
fn listed(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

/// Where `value` is not what `schema` says; `at` is the way to it.
fn problem(value: &Value, schema: &Value, at: &str) -> Option<String> {
    let nothing = Map::new();
    let keywords = schema.as_object().expect("a schema is an object");
    let properties = keywords.get("properties").and_then(Value::as_object).unwrap_or(&nothing);
    keywords.iter().find_map(|(keyword, says)| match keyword.as_str() {
        "$schema" | "title" | "description" | "properties" => None,
        "const" => (value != says).then(|| format!("{at}: {value} is not {says}")),
        "enum" => (!listed(says).contains(value)).then(|| format!("{at}: {value} is none of {says}")),
        "type" => {
            let names = says.as_array().map_or(std::slice::from_ref(says), Vec::as_slice);
            let fits = names.iter().filter_map(Value::as_str).any(|name| is_type(value, name));
            (!fits).then(|| format!("{at}: {value} is no {says}"))
        }
        "required" => {
            let mut names = listed(says).iter().filter_map(Value::as_str);
            let missing =
                names.find(|name| value.as_object().is_some_and(|fields| !fields.contains_key(*name)));
            missing.map(|name| format!("{at}: {name} is missing"))
        }
        "items" => {
            let mut items = value.as_array().into_iter().flatten().enumerate();
            items.find_map(|(index, item)| problem(item, says, &format!("{at}[{index}]")))
        }
        "additionalProperties" => value.as_object().into_iter().flatten().find_map(|(name, inner)| {
            let at = format!("{at}.{name}");
            match (properties.get(name), says) {
                (Some(own), _) => problem(inner, own, &at),
                (None, Value::Bool(false)) => Some(format!("{at}: the schema does not know it")),
                (None, Value::Bool(true)) => None,
                (None, others) => problem(inner, others, &at),
            }
        }),
        "oneOf" => {
            let problems: Vec<_> = listed(says).iter().map(|one| problem(value, one, at)).collect();
            let fitting = problems.iter().filter(|problem| problem.is_none()).count();
            (fitting != 1).then(|| format!("{at}: fits {fitting} of the kinds: {problems:?}"))
        }
        other => panic!("the check does not know the keyword {other}"),
    })
}

#[track_caller]
fn fits(value: &Value, schema: &Value, call: &str) {
    if let Some(problem) = problem(value, schema, "") {
        panic!("{call}: {problem}");
    }
}

#[test]
fn every_ending_of_a_run_fits_its_schema() {
    let schema = schema("run");
    for (command, status) in [("fail", 1), ("fatal", 1), ("triple-fault", 3), ("unaccepted", 3)] {
        let answer = tdvisor(&["run", "fault-td", "--command", command, "--json"]).ends_with(status);
        fits(&answer.json(), &schema, command);
    }
    fits(&tdvisor(&["run", "--json"]).ends_with(0).json(), &schema, "hello-td");
    let spin = tdvisor(&["run", "fault-td", "--command", "spin", "--timeout", "1", "--json"]).ends_with(124);
    assert_eq!(spin.json()["ending"]["kind"], "timed-out");
    fits(&spin.json(), &schema, "spin");
}

#[test]
fn lists_and_versions_fit_theirs() {
    for name in ["list", "version"] {
        fits(&tdvisor(&[name, "--json"]).ends_with(0).json(), &schema(name), name);
    }
}

#[test]
fn the_doctors_answer_fits_its_schema() {
    fits(&tdvisor(&["doctor", "--json"]).json(), &schema("doctor"), "doctor");
}

#[test]
fn the_answer_of_a_server_fits_its_schema() {
    let kernel = Folder::new("schemas-server").write("host.elf", crate::cli::host_that_powers_off(0));
    let answer = tdvisor(&["server", "--kernel", &kernel, "--json", "--mark", "never said"]).ends_with(0);
    fits(&answer.json(), &schema("server"), "server");
}

#[test]
fn the_table_of_a_plan_fits_its_schema() {
    let plan =
        Folder::new("schemas-plan").write("plan.toml", "[[target]]\nname = \"a\"\nimage = \"hello-td\"\n");
    fits(&tdvisor(&["test", &plan, "--json"]).ends_with(0).json(), &schema("test"), "test");
}

#[test]
fn everything_that_decode_explains_fits_its_schema() {
    let schema = schema("decode");
    let trace = Folder::new("schemas").path("trace");
    tdvisor(&["run", "--trace", &trace]).ends_with(0);
    for subject in ["0xC0000B0800000092", "SUCCESS", "TDH.MEM.PAGE.AUG", "6", "0xe047", &trace] {
        let lines = tdvisor(&["decode", subject, "--json"]).ends_with(0).stdout();
        for line in lines.lines() {
            fits(&serde_json::from_str(line).expect("JSON"), &schema, subject);
        }
    }
}

/// A quote of the test PKI with what verifies it.
fn issue(folder: &Folder, name: &str, options: &[&str]) -> [String; 3] {
    let paths = ["bin", "json", "pem"].map(|ending| folder.path(&format!("{name}.{ending}")));
    let [quote, collateral, root] = &paths;
    let call = ["quote", "issue", "--out", quote, "--collateral", collateral, "--root", root];
    tdvisor(&[&call[..], options].concat()).ends_with(0);
    paths
}

#[test]
fn every_verdict_and_every_kind_of_quote_fits_its_schema() {
    let (verdicts, quotes) = (schema("verify"), schema("quote-show"));
    let folder = Folder::new("schemas-verify");
    for (name, options) in [
        ("td10", &["--body", "td10"][..]),
        ("td15", &["--body", "td15", "--status", "OutOfDate", "--advisory", "INTEL-SA-1"]),
        ("td15ex", &["--body", "td15ex", "--certification", "3"]),
        ("sgx", &["--body", "sgx"]),
        ("revoked", &["--revoke", "pck"]),
    ] {
        let [quote, collateral, root] = issue(&folder, name, options);
        fits(&tdvisor(&["quote", "show", &quote, "--json"]).ends_with(0).json(), &quotes, name);
        let verify = ["verify", &quote, "--collateral", &collateral, "--test-root", &root, "--json"];
        let answer = tdvisor(&verify);
        assert!(answer.status() <= 1, "{name}: {}", answer.stderr());
        fits(&answer.json(), &verdicts, name);
        let elsewhere = tdvisor(&["verify", &quote, "--collateral", &collateral, "--json"]).ends_with(1);
        fits(&elsewhere.json(), &verdicts, name);
    }
}

#[test]
fn what_is_measured_fits_its_schema() {
    let schema = schema("measure");
    let mrtd = "0".repeat(96);
    for (call, status) in
        [(&["measure", "hello-td"][..], 0), (&["measure", "hello-td", "--expect", &mrtd], 1)]
    {
        fits(&tdvisor(&[call, &["--json"]].concat()).ends_with(status).json(), &schema, "measure");
    }
}

/// A file of the cases of attestation.
fn case(name: &str) -> String {
    tdvisor_test_data::vectors::folder("attest-cases").join(name).display().to_string()
}

#[test]
#[ignore = "needs recordings"]
fn what_event_logs_say_fits_its_schemas() {
    let [log, report, uki, changed, hcl, linux] = [
        "m-good.bin",
        "m-good.report",
        "C12-uki.bin",
        "C12c-uki-other-cmdline.bin",
        "C17-hcl-report.bin",
        "C02-grub-cmdline-forged.bin",
    ]
    .map(case);
    for log in [&log, &uki, &linux] {
        let show = tdvisor(&["eventlog", "show", log, "--json"]).ends_with(0);
        fits(&show.json(), &schema("eventlog-show"), log);
        for more in [&["--report", &report][..], &[]] {
            let replay = tdvisor(&[&["eventlog", "replay", log, "--json"], more].concat());
            fits(&replay.json(), &schema("eventlog-replay"), log);
        }
    }
    for (log, reference) in [(&log, &log), (&changed, &uki), (&log, &uki)] {
        let call = ["eventlog", "explain", log, "--reference", reference, "--report", &report, "--json"];
        fits(&tdvisor(&call).json(), &schema("eventlog-explain"), log);
    }
    for report in [&report, &hcl] {
        fits(
            &tdvisor(&["quote", "show", report, "--json"]).ends_with(0).json(),
            &schema("quote-show"),
            report,
        );
    }
}

#[test]
fn what_a_schema_does_not_say_does_not_fit() {
    let (run, summary) = (schema("run"), tdvisor(&["run", "--json"]).ends_with(0).json());
    let damages: [fn(&mut Value); 6] = [
        |value| value["schema"] = 1.into(),
        |value| value["extra"] = 1.into(),
        |value| value["ending"]["kind"] = "vanished".into(),
        |value| value["rtmrs"]["RTMR0"] = 7.into(),
        |value| value["lost"] = "nothing".into(),
        |value| drop(value.as_object_mut().and_then(|fields| fields.remove("audit"))),
    ];
    for damage in damages {
        let mut damaged = summary.clone();
        damage(&mut damaged);
        assert!(problem(&damaged, &run, "").is_some(), "{damaged}");
    }
}
