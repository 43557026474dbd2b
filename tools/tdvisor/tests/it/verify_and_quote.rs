//! `tdvisor quote` and `tdvisor verify` from outside: what an operator and a script see.

use crate::cli::{Answer, Folder, tdvisor};

/// 2026-07-01, when the quotes of these tests are issued.
const AT: &str = "2026-07-01T00:00:00Z";

/// A quote with what verifies it.
struct Issued {
    folder: Folder,
    quote: String,
    collateral: String,
    root: String,
}

impl Issued {
    fn new(name: &str, args: &[&str]) -> Self {
        let folder = Folder::new(name);
        let (quote, collateral, root) =
            (folder.path("q.bin"), folder.path("collateral.json"), folder.path("root.pem"));
        let call = ["quote", "issue", "--out", &quote, "--collateral", &collateral, "--root", &root];
        let at = ["--at", AT];
        let own_time: &[&str] = if args.contains(&"--at") { &[] } else { &at };
        tdvisor(&[&call[..], own_time, args].concat()).ends_with(0);
        Self { folder, quote, collateral, root }
    }

    fn verify(&self, args: &[&str]) -> Answer {
        let call = ["verify", &self.quote, "--collateral", &self.collateral, "--test-root", &self.root];
        let at = ["--at", AT];
        let own_time: &[&str] = if args.contains(&"--at") { &[] } else { &at };
        tdvisor(&[&call[..], own_time, args].concat())
    }
}

#[test]
fn every_version_and_body_that_is_issued_verifies_with_its_collateral() {
    for (number, args) in [
        &["--body", "sgx"][..],
        &["--body", "sgx", "--quote-version", "4"],
        &["--body", "sgx", "--quote-version", "5"],
        &["--body", "td10"],
        &["--body", "td10", "--quote-version", "5", "--qe-auth", "0", "--padding", "70"],
        &["--body", "td15", "--qe-auth", "1000"],
        &["--body", "td15ex", "--certification", "3"],
    ]
    .into_iter()
    .enumerate()
    {
        let issued = Issued::new(&format!("versions-{number}"), args);
        let is_sgx = args.contains(&"sgx");
        let signer = "00".repeat(32);
        let rules = if is_sgx { format!("[enclave]\nmr_signer = [\"{signer}\"]\n") } else { String::new() };
        let policy = issued.folder.write("policy.toml", rules);
        let verdict = issued.verify(&["--policy", &policy, "--json"]).ends_with(0).json();
        assert_eq!(verdict["quote"], "valid", "{args:?}");
        assert_eq!(verdict["tcb"], "UpToDate", "{args:?}");
        assert_eq!(verdict["policy"], "accept", "{args:?}");
        assert_eq!(verdict["test_root"], true, "{args:?}");
        let shown = tdvisor(&["quote", "show", &issued.quote, "--json"]).ends_with(0).json();
        let verified = &verdict["evidence"];
        assert_eq!(shown["body"], verified["body"], "{args:?}: both commands read the quote alike");
    }
}

#[test]
fn a_test_quote_convinces_nobody_who_was_not_told_to_trust_its_root() {
    let issued = Issued::new("trust", &[]);
    let (quote, collateral) = (&issued.quote, &issued.collateral);
    let call = ["verify", quote, "--collateral", collateral, "--at", AT];
    let intels = tdvisor(&[&call[..], &["--json"]].concat()).ends_with(1).json();
    assert_eq!(intels["quote"], "invalid");
    assert_eq!(intels["tcb"], serde_json::Value::Null);
    let other = Issued::new("trust-other", &["--seed", "1"]);
    tdvisor(&[&call[..], &["--test-root", &other.root]].concat()).ends_with(1);
    let told = issued.verify(&[]).ends_with(0).stdout();
    assert!(told.contains("TEST root"), "{told}");
    // A root of one's own is not called a test.
    let own = tdvisor(&[&call[..], &["--root", &issued.root]].concat()).ends_with(0).stdout();
    assert!(!own.contains("TEST root"), "{own}");
}

#[test]
fn collateral_counts_for_its_window_with_both_ends() {
    let issued = Issued::new("window", &["--at", "2026-07-01T00:00:00Z", "--days", "30"]);
    for (at, status) in [
        ("2026-06-30T23:59:59Z", 1),
        ("2026-07-01T00:00:00Z", 0),
        ("2026-07-31T00:00:00Z", 0),
        ("2026-07-31T00:00:01Z", 1),
        // The same second as a number.
        ("1785456000", 0),
        ("1785456001", 1),
    ] {
        issued.verify(&["--at", at]).ends_with(status);
    }
}

#[test]
fn a_shortfall_names_status_finding_and_action_and_a_policy_can_accept_it() {
    let issued = Issued::new("shortfall", &["--status", "OutOfDate", "--advisory", "INTEL-SA-00999"]);
    let refused = issued.verify(&["--json"]).ends_with(1).json();
    assert_eq!(refused["quote"], "valid", "the evidence is sound; only the policy says no");
    assert_eq!(refused["tcb"], "OutOfDate");
    assert_eq!(refused["advisories"], serde_json::json!(["INTEL-SA-00999"]));
    assert_eq!(refused["findings"][0]["code"], "tcb-status");
    assert!(!refused["actions"].as_array().expect("an array").is_empty(), "it says what to do");
    let toml = issued.folder.write("accept.toml", "[tcb]\naccept = [\"UpToDate\", \"OutOfDate\"]\n");
    issued.verify(&["--policy", &toml]).ends_with(0);
    let json = issued.folder.write("accept.json", r#"{"tcb":{"accept":["OutOfDate"]}}"#);
    issued.verify(&["--policy", &json]).ends_with(0);
    let strict = issued.folder.write(
        "advisory.toml",
        "[tcb]\naccept = [\"OutOfDate\"]\nrejected_advisories = [\"INTEL-SA-00999\"]\n",
    );
    let advisory = issued.verify(&["--policy", &strict, "--json"]).ends_with(1).json();
    assert_eq!(advisory["findings"][0]["code"], "advisory");
}

#[test]
fn what_is_revoked_is_rejected_under_its_own_code() {
    for (revoke, code) in
        [("pck", "pck-revoked"), ("pck-ca", "pck-ca-revoked"), ("tcb-signer", "certificate-revoked")]
    {
        let issued = Issued::new(&format!("revoke-{revoke}"), &["--revoke", revoke]);
        let verdict = issued.verify(&["--json"]).ends_with(1).json();
        assert_eq!(verdict["quote"], "invalid", "{revoke}");
        assert_eq!(verdict["error"]["code"], code, "{revoke}");
    }
}

/// RTMR3 by the running system's own list, which the quote must bear out.
#[test]
fn rtmr3_is_judged_by_the_list_that_the_policy_asks_for() {
    let issued = Issued::new("rtmr3", &[]);
    let policy = issued.folder.write("log.toml", "[td]\nrtmr3 = \"log\"\n");
    let without = issued.verify(&["--policy", &policy, "--json"]).ends_with(1).json();
    assert_eq!(without["findings"][0]["code"], "no-runtime-log");
    // The made-up TD has extended nothing.
    let nothing = issued.folder.write("nothing.json", "[]");
    issued.verify(&["--policy", &policy, "--events", &nothing]).ends_with(0);
    let digest = "5a".repeat(48);
    let one = issued.folder.write("one.json", format!(r#"[{{"digest":"{digest}","imr":3,"event":"app"}}]"#));
    let differs = issued.verify(&["--policy", &policy, "--events", &one, "--json"]).ends_with(1).json();
    assert_eq!(differs["findings"][0]["code"], "measurement");
    let elsewhere =
        issued.folder.write("elsewhere.json", format!(r#"[{{"digest":"{digest}","register":"RTMR2"}}]"#));
    issued.verify(&["--policy", &policy, "--events", &elsewhere]).ends_with(0);
    let broken = issued.folder.write("broken.json", "{");
    issued.verify(&["--policy", &policy, "--events", &broken]).ends_with(2).one_line_of_error();
}

#[test]
fn input_that_cannot_be_used_gives_one_line_and_status_2() {
    let issued = Issued::new("unusable", &[]);
    let folder = &issued.folder;
    let nonsense = folder.write("nonsense", "nonsense");
    let unknown_key = folder.write("unknown.toml", "[tcb]\nacept = []\n");
    let (quote, collateral, root) = (&*issued.quote, &*issued.collateral, &*issued.root);
    for call in [
        &["verify", "/no/such/quote", "--collateral", collateral][..],
        &["verify", quote, "--collateral", "/no/such/file"],
        &["verify", quote, "--collateral", &nonsense],
        &["verify", quote, "--collateral", collateral, "--root", &nonsense],
        &["verify", quote, "--collateral", collateral, "--policy", &unknown_key],
        &["verify", quote, "--collateral", collateral, "--policy", "/no/such/policy"],
        &["verify", "/dev/zero", "--collateral", collateral, "--root", root],
        &["verify", "--batch", "/no/such/cases"],
        &["quote", "show", "/no/such/quote"],
        &["quote", "show", &nonsense],
        &["quote", "issue", "--out", "/no/such/folder/q", "--collateral", collateral, "--root", root],
        &["quote", "issue", "--out", quote, "--collateral", collateral, "--root", root, "--report", quote],
    ] {
        tdvisor(call).ends_with(2).one_line_of_error();
    }
    // Options that cannot be: clap's own message, and the same status.
    tdvisor(&["verify", quote, "--collateral", collateral, "--at", "tomorrow"]).ends_with(2);
    tdvisor(&["quote", "issue", "--status", "Fine"]).ends_with(2);
}

#[test]
fn a_damaged_quote_is_rejected_and_what_is_none_is_unusable() {
    let issued = Issued::new("none", &[]);
    let bytes = std::fs::read(&issued.quote).expect("the quote");
    for (name, contents) in [("empty", &[][..]), ("nonsense", &[0xff; 5000])] {
        let quote = issued.folder.write(name, contents);
        let call = ["verify", &quote, "--collateral", &issued.collateral, "--root", "/no/such/root"];
        let told = tdvisor(&call).ends_with(2).one_line_of_error();
        assert!(told.contains("not a quote"), "{name}: {told}");
        // That is said first, whatever else is missing.
        let told = tdvisor(&["verify", &quote]).ends_with(2).one_line_of_error();
        assert!(told.contains("not a quote"), "{name}: {told}");
    }
    let told = tdvisor(&["verify", &issued.quote]).ends_with(2).one_line_of_error();
    assert!(told.contains("--fetch"), "{told}");
    let mut version = bytes.clone();
    version[0] = 6;
    for (name, contents) in
        [("cut", &bytes[..bytes.len() - 1]), ("body-cut", &bytes[..60]), ("version", &version)]
    {
        let quote = issued.folder.write(name, contents);
        let call =
            ["verify", &quote, "--collateral", &issued.collateral, "--test-root", &issued.root, "--at", AT];
        let verdict = tdvisor(&[&call[..], &["--json"]].concat()).ends_with(1).json();
        assert_eq!(verdict["quote"], "invalid", "{name}");
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    let quote = issued.folder.write("quote.hex", format!("0x{hex}\n"));
    let call =
        ["verify", &quote, "--collateral", &issued.collateral, "--test-root", &issued.root, "--at", AT];
    tdvisor(&call).ends_with(0);
}

#[test]
fn a_batch_answers_every_line_that_it_can_in_order() {
    let good = Issued::new("batch", &[]);
    let poor = Issued::new("batch-poor", &["--status", "SWHardeningNeeded", "--seed", "2"]);
    let case = |id: &str, of: &Issued, extra: &str| {
        format!(
            r#"{{"id":"{id}","quote":"{}","collateral":"{}","time":1782864000,"root":"{}"{extra}}}"#,
            of.quote, of.collateral, of.root
        )
    };
    let policy = good.folder.write("harden.toml", "[tcb]\naccept = [\"SWHardeningNeeded\"]\n");
    let lines = [
        case("good", &good, ""),
        case("poor", &poor, ""),
        case("poor-accepted", &poor, &format!(r#","policy":"{policy}""#)),
        // Paths are relative to the file of the cases.
        r#"{"id":"relative","quote":"q.bin","collateral":"collateral.json","time":"2026-07-01T00:00:00Z","root":"root.pem"}"#.to_owned(),
        case("mixed", &Issued { root: poor.root.clone(), ..Issued::new("batch-mixed", &[]) }, ""),
    ];
    let cases = good.folder.write("cases.jsonl", lines.join("\n"));
    let answer = tdvisor(&["verify", "--batch", &cases, "--json"]).ends_with(0);
    let answers: Vec<serde_json::Value> =
        answer.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let fields =
        |key: &str| -> Vec<serde_json::Value> { answers.iter().map(|one| one[key].clone()).collect() };
    assert_eq!(fields("id"), ["good", "poor", "poor-accepted", "relative", "mixed"]);
    assert_eq!(fields("quote"), ["valid", "valid", "valid", "valid", "invalid"]);
    assert_eq!(fields("policy"), ["accept", "reject", "accept", "accept", "reject"]);
    assert_eq!(fields("tcb")[1], "SWHardeningNeeded");
    assert_eq!(fields("tcb")[4], serde_json::Value::Null);
    assert!(answers.iter().all(|one| one["reason"].is_string() && one["advisories"].is_array()));

    let broken = good.folder.write(
        "broken.jsonl",
        [
            case("good", &good, ""),
            "not JSON".to_owned(),
            r#"{"id":"gone","quote":"gone","collateral":"gone","time":0}"#.to_owned(),
        ]
        .join("\n"),
    );
    let answer = tdvisor(&["verify", "--batch", &broken, "--json"]).ends_with(2);
    assert_eq!(answer.stdout().lines().count(), 3, "the other lines are answered");
    assert!(answer.one_line_of_error().contains("2 lines could not be answered"));
}

#[test]
fn a_quote_for_another_nonce_is_refused() {
    // A made-up TD reports zeros.
    let issued = Issued::new("nonce", &[]);
    let nonce = |text: &str| issued.verify(&["--report-data", text, "--json"]);
    nonce("00").ends_with(0);
    nonce(&"00".repeat(64)).ends_with(0);
    for other in ["01", "0001", &format!("{}01", "00".repeat(63))] {
        let refused = nonce(other).ends_with(1).json();
        assert_eq!(refused["findings"][0]["code"], "report-data", "{other}");
        issued.verify(&["--nonce", other]).ends_with(1);
    }
    for wrong in ["", "0", "xx", &"00".repeat(65)] {
        issued.verify(&["--report-data", wrong]).ends_with(2);
    }
    let policy = issued.folder.write("policy.toml", "report_data = \"00\"\n");
    issued.verify(&["--policy", &policy, "--report-data", "00"]).ends_with(0);
    issued.verify(&["--policy", &policy, "--report-data", "01"]).ends_with(2).one_line_of_error();
}
