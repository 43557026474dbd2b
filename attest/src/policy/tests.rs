use super::*;
use crate::collateral::TcbStatus;

#[test]
fn an_empty_policy_is_the_default_in_both_forms() {
    assert_eq!(Policy::from_json("{}"), Ok(Policy::default()));
    #[cfg(feature = "toml")]
    assert_eq!(Policy::from_text(""), Ok(Policy::default()));
}

#[cfg(feature = "toml")]
#[test]
fn toml_and_json_say_the_same() {
    let register = "ab".repeat(48);
    let toml = format!(
        r#"
        report_data = "0102"
        [tcb]
        accept = ["UpToDate", "ConfigurationNeeded"]
        grace_days = 2
        minimum_evaluation_number = 17
        allowed_advisories = ["INTEL-SA-1"]
        [platform]
        smt = "forbid"
        fmspc = ["B0c06f000000"]
        [td]
        debug = "any"
        attributes = {{ mask = "0x80000000", value = "0" }}
        mr_td = ["{register}"]
        rtmr3 = "zero"
        mr_service_td = ["{register}"]
        vm_id = [0, 2]
        [[td.events]]
        register = "RTMR2"
        part = "command line"
        which = "some"
        contains = ["a"]
        digest = ["{register}"]
        "#
    );
    let json = format!(
        r#"{{"report_data":"0102","tcb":{{"accept":["UpToDate","ConfigurationNeeded"],"grace_days":2,
        "minimum_evaluation_number":17,"allowed_advisories":["INTEL-SA-1"]}},
        "platform":{{"smt":"forbid","fmspc":["B0c06f000000"]}},
        "td":{{"debug":"any","attributes":{{"mask":"80000000","value":"0x0"}},"mr_td":["{register}"],
        "rtmr3":"zero","mr_service_td":["{register}"],"vm_id":[0,2],"events":[{{"register":"rtmr2",
        "part":"command line","which":"some","contains":["a"],"digest":["{register}"]}}]}}}}"#
    );
    let policy = Policy::from_text(&toml).unwrap();
    assert_eq!(Policy::from_text(&json).as_ref(), Ok(&policy));
    assert_eq!(policy.tcb.grace, 172_800);
    assert_eq!(policy.td.mr_td, Expected::OneOf(vec![[0xab; 48]]));
    assert_eq!(policy.td.rtmr3, Rtmr3::Zero);
    assert_eq!(policy.platform.fmspc, Some(vec![[0xb0, 0xc0, 0x6f, 0, 0, 0]]));
}

#[test]
fn mistakes_are_errors_and_never_a_weaker_policy() {
    for wrong in [
        r#"{"tbc":{}}"#,
        r#"{"tcb":{"acept":["UpToDate"]}}"#,
        r#"{"tcb":{"accept":["Uptodate"]}}"#,
        r#"{"tcb":{"accept":["Revoked"]}}"#,
        r#"{"td":{"mr_td":[]}}"#,
        r#"{"td":{"mr_td":["ab"]}}"#,
        r#"{"td":{"debug":"maybe"}}"#,
        r#"{"td":{"rtmr3":"nothing"}}"#,
        r#"{"td":{"mr_service_td":[]}}"#,
        r#"{"report_data":"0"}"#,
        r#"{"td":{"attributes":{"mask":"1"}}}"#,
        r#"{"td":{"attributes":{"mask":"+1","value":"0"}}}"#,
        r#"{"td":{"vm_id":[]}}"#,
        r#"{"td":{"vm_id":[4]}}"#,
        r#"{"td":{"vm_id":0}}"#,
        r#"{"td":{"events":{}}}"#,
        r#"{"td":{"events":[{"register":"RTMR2"}]}}"#,
        r#"{"td":{"events":[{"part":"initrd"}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR4","part":"initrd"}]}}"#,
        r#"{"td":{"events":[{"register":"MRTD","part":"initrd"}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR2","part":""}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR2","part":" x"}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR2","part":"x","which":"any"}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR2","part":"x","contains":[]}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR2","part":"x","contains":[""]}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR2","part":"x","lacks":"y"}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR2","part":"x","digest":["00"]}]}}"#,
        r#"{"td":{"events":[{"register":"RTMR2","part":"x","digests":[]}]}}"#,
        "[]",
        "{} {}",
    ] {
        assert!(Policy::from_json(wrong).is_err(), "{wrong}");
    }
    assert_eq!(Policy::from_json(&"[".repeat(100)), Err(PolicyError::TooLarge));
    assert_eq!(Policy::from_json(&" ".repeat(2 << 20)), Err(PolicyError::TooLarge));
}

#[cfg(feature = "toml")]
#[test]
fn a_mistake_in_a_file_is_told_in_one_line_that_says_where() {
    let error = Policy::from_text("[tcb]\n\nacept = []\n").unwrap_err().to_string();
    assert!(error.starts_with("line 3: unknown field `acept`"), "{error}");
    for wrong in ["[tcb", "[tcb]\naccept = 3", "{\"tcb\":\n{\"acept\":1}}", "a = \"\n"] {
        let error = Policy::from_text(wrong).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{wrong}: {error}");
    }
}

/// No notation of a policy may nest so deeply that a parser's stack ends: dots nest as brackets do.
#[cfg(feature = "toml")]
#[test]
fn deep_nesting_is_refused_in_every_notation() {
    for count in [9, 1000, 200_000] {
        let dotted = "a.".repeat(count);
        for text in [
            format!("{dotted}a = 1"),
            format!("[{dotted}a]"),
            format!("x = {{ {dotted}a = 1 }}"),
            format!("x = {}", "[".repeat(count)),
            format!("{{\"tcb\":{}", "{\"a\":".repeat(count)),
        ] {
            assert!(Policy::from_text(&text).is_err(), "{count}: {}", &text[..20]);
        }
    }
}

#[test]
fn the_default_accepts_up_to_date_only() {
    assert_eq!(Policy::default().tcb.accept.into_iter().collect::<Vec<_>>(), [TcbStatus::UpToDate]);
}

#[test]
fn a_policy_is_for_one_tee() {
    let tee = |text: &str| Policy::from_json(text).map(|policy| policy.tee);
    assert_eq!(tee("{}"), Ok(Tee::Tdx));
    assert_eq!(tee(r#"{"td":{}}"#), Ok(Tee::Tdx));
    assert_eq!(tee(r#"{"tee":"sgx"}"#), Ok(Tee::Sgx));
    assert_eq!(tee(r#"{"enclave":{}}"#), Ok(Tee::Sgx));
    for mixed in [
        r#"{"td":{},"enclave":{}}"#,
        r#"{"tee":"tdx","enclave":{}}"#,
        r#"{"tee":"sgx","td":{}}"#,
        r#"{"tee":"tdx","td":{},"enclave":{}}"#,
    ] {
        assert!(matches!(tee(mixed), Err(PolicyError::Value { key: "tee", .. })), "{mixed}");
    }
    assert!(tee(r#"{"tee":"snp"}"#).is_err());
}

/// Every key of the format with a value that is one.
const EVERY_KEY: [(&str, &str); 39] = [
    ("tee", r#""tdx""#),
    ("report_data", r#""00""#),
    ("tcb", "{}"),
    ("platform", "{}"),
    ("td", "{}"),
    ("enclave", "{}"),
    ("tcb.accept", r#"["UpToDate"]"#),
    ("tcb.grace_days", "1"),
    ("tcb.minimum_evaluation_number", "1"),
    ("tcb.minimum_tee_tcb_svn", r#""05010200000000000000000000000000""#),
    ("tcb.minimum_qe_svn", "1"),
    ("tcb.minimum_pce_svn", "1"),
    ("tcb.minimum_date", r#""2024-03-13T00:00:00Z""#),
    ("tcb.exceptions", "EXCEPTIONS"),
    ("tcb.allowed_advisories", r#"["A"]"#),
    ("tcb.rejected_advisories", r#"["A"]"#),
    ("platform.smt", r#""any""#),
    ("platform.dynamic", r#""any""#),
    ("platform.cached_keys", r#""any""#),
    ("platform.fmspc", r#"["000000000000"]"#),
    ("td.debug", r#""forbid""#),
    ("td.sept_ve_disable", r#""require""#),
    ("td.migratable", r#""forbid""#),
    ("td.attributes", r#"{"mask":"1","value":"0"}"#),
    ("td.xfam", r#"{"mask":"1","value":"1"}"#),
    ("td.mr_seam", "REGISTERS"),
    ("td.mr_td", "REGISTERS"),
    ("td.mr_config_id", "REGISTERS"),
    ("td.mr_owner", "REGISTERS"),
    ("td.mr_owner_config", "REGISTERS"),
    ("td.rtmr0", "REGISTERS"),
    ("td.rtmr1", "REGISTERS"),
    ("td.rtmr2", "REGISTERS"),
    ("td.rtmr3", r#""log""#),
    ("td.mr_service_td", r#""any""#),
    ("td.init_service_td", r#""none""#),
    ("td.current_service_td", r#""none""#),
    ("td.vm_id", r#""any""#),
    ("enclave.debug", r#""forbid""#),
];

/// A policy with this member, and whatever members stand beside it.
fn with_member(path: &str, members: &str) -> String {
    match path.split_once('.') {
        Some((table, _)) => format!("{{\"{table}\":{{{members}}}}}"),
        None => format!("{{{members}}}"),
    }
}

#[test]
fn every_key_refuses_null_other_types_a_second_time_and_a_misspelling_and_is_named() {
    let mut refused = 0;
    for (path, value) in EVERY_KEY {
        let value = value.replace("REGISTERS", &format!("[\"{}\"]", "ab".repeat(48)));
        let exception =
            r#"[{"name":"n","fmspc":"000000000000","component":"PCE","until":"2026-12-31T00:00:00Z"}]"#;
        let value = value.replace("EXCEPTIONS", exception);
        let key = path.rsplit('.').next().unwrap_or(path);
        let good = with_member(path, &format!("\"{key}\":{value}"));
        assert!(Policy::from_json(&good).is_ok(), "{good}");
        let member = |wrong: &str| with_member(path, &format!("\"{key}\":{wrong}"));
        let mut wrong: Vec<String> =
            ["null", "true", "1.5", "-1", "[null]", "[[]]", "[true]", "{\"no\":1}", "\"no\""]
                .map(member)
                .into();
        if !value.starts_with('[') {
            wrong.push(member("[]"));
        }
        if !value.starts_with('{') {
            wrong.push(member("{}"));
        }
        wrong.push(with_member(path, &format!("\"{key}\":{value},\"{key}\":{value}")));
        wrong.push(with_member(path, &format!("\"{key}\":{value},\"{key}\":null")));
        wrong.push(with_member(path, &format!("\"{key}_\":{value}")));
        wrong.push(with_member(path, &format!("\"{}\":{value}", key.to_uppercase())));
        for text in wrong {
            let Err(error) = Policy::from_json(&text) else { panic!("accepted: {text}") };
            let told = error.to_string().to_lowercase();
            assert!(told.contains(key) || told.contains("`no`"), "{text}: {told}");
            refused += 1;
        }
    }
    assert!(refused > 400, "{refused}");
}

#[cfg(feature = "toml")]
#[test]
fn toml_refuses_a_key_twice_and_names_what_it_refuses() {
    for (text, key) in [
        ("[td]\ndebug = \"any\"\ndebug = \"any\"", "debug"),
        ("[td]\n[td]", "td"),
        ("[tcb]\naccept = 3", "tcb.accept"),
        ("td = []", "td"),
        ("[td]\nmr_td = \"00\"", "td.mr_td"),
        ("[td]\nmrtd = []", "mrtd"),
        ("[td]\nattributes = { mask = \"1\", value = \"3\" }", "td.attributes"),
        ("[td]\nxfam = { mask = \"1\", value = \"3\" }", "td.xfam"),
        ("[td]\nxfam = { mask = \"1\", value = \"1\", vale = \"3\" }", "vale"),
    ] {
        let told = Policy::from_text(text).unwrap_err().to_string();
        assert!(told.contains(key), "{text}: {told}");
    }
}

#[test]
fn every_member_of_an_exception_is_needed_and_must_be_one() {
    let members = [
        ("name", "\"n\""),
        ("fmspc", "\"b0c06f000000\""),
        ("component", "\"SGX component 16\""),
        ("until", "\"2026-12-31T00:00:00Z\""),
    ];
    let policy = |members: &[(&str, &str)]| {
        let members: Vec<String> = members.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        Policy::from_json(&format!("{{\"tcb\":{{\"exceptions\":[{{{}}}]}}}}", members.join(",")))
    };
    assert_eq!(policy(&members).unwrap().tcb.exceptions.len(), 1);
    for (at, (key, _)) in members.into_iter().enumerate() {
        let mut without = members.to_vec();
        without.remove(at);
        assert!(policy(&without).unwrap_err().to_string().contains(key), "{key} is missing");
        for wrong in ["null", "1", "\"\"", "[]", "{}"] {
            let mut other = members;
            other[at].1 = wrong;
            assert!(policy(&other).unwrap_err().to_string().contains(key), "{key}: {wrong}");
        }
    }
    for wrong in ["\"SGX component 0\"", "\"SGX component 17\"", "\"TDX module 1\"", "\"pce\""] {
        let mut other = members;
        other[2].1 = wrong;
        assert!(policy(&other).is_err(), "{wrong}");
    }
}
