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
        [enclave]
        isv_prod_id = 7
        "#
    );
    let json = format!(
        r#"{{"report_data":"0102","tcb":{{"accept":["UpToDate","ConfigurationNeeded"],"grace_days":2,
        "minimum_evaluation_number":17,"allowed_advisories":["INTEL-SA-1"]}},
        "platform":{{"smt":"forbid","fmspc":["B0c06f000000"]}},
        "td":{{"debug":"any","attributes":{{"mask":"80000000","value":"0x0"}},"mr_td":["{register}"],
        "rtmr3":"zero","mr_service_td":["{register}"]}},"enclave":{{"isv_prod_id":7}}}}"#
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

/// Neither form may nest so deeply that a parser's stack ends: dots nest as brackets do.
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
