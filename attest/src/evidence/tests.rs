use super::*;
use crate::eventlog::{EventType, LogBuilder, Register};
use crate::issue::{PlatformSpec, QuoteBody, QuoteSpec, TestPlatform};
use crate::quote::Quote;
use crate::report::{TdReport, ToQuoteBody};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use td_image::digest::Digest384;

pub(super) fn quotes() -> Vec<Vec<u8>> {
    let platform = TestPlatform::new([1; 32], PlatformSpec::default());
    let report = TdReport::zeroed();
    [
        (QuoteBody::Sgx(crate::quote::EnclaveReport::zeroed()), 3, 5),
        (QuoteBody::Td10(report.to_td10()), 4, 5),
        (QuoteBody::Td10(report.to_td10()), 4, 3),
        (QuoteBody::Td15(report.to_td15()), 5, 5),
        (QuoteBody::Td15Ex(report.to_td15_ex()), 5, 4),
    ]
    .into_iter()
    .map(|(body, version, certification)| {
        let spec = QuoteSpec {
            version,
            certification: crate::quote::CertificationType(certification),
            ..QuoteSpec::default()
        };
        platform.quote(&body, &spec).expect("a quote")
    })
    .collect()
}

fn base64(bytes: &[u8]) -> String {
    let mut text = String::new();
    crate::x509::pem::write("X", bytes, &mut text);
    text.lines().filter(|line| !line.starts_with("-----")).collect()
}

fn in_lines(text: &str, width: usize, end: &str) -> String {
    let mut out = String::new();
    for (at, char) in text.chars().enumerate() {
        if at > 0 && at % width == 0 {
            out.push_str(end);
        }
        out.push(char);
    }
    out
}

/// A quote in every form, each with its name.
fn forms_of(quote: &[u8]) -> Vec<(String, Vec<u8>)> {
    let hex = crate::Hex(quote).to_string();
    let base64 = base64(quote);
    let url = base64.replace('+', "-").replace('/', "_");
    let bare = url.trim_end_matches('=').to_string();
    let array = format!("{quote:?}");
    let mut buffer = vec![0; 24];
    buffer[0] = 1;
    buffer[16..20].copy_from_slice(&1024u32.to_le_bytes());
    buffer[20..24].copy_from_slice(&(quote.len() as u32).to_le_bytes());
    buffer.extend(quote);
    buffer.extend([0; 100]);
    let mut forms: Vec<(String, Vec<u8>)> = vec![("plain".to_string(), quote.to_vec())];
    let texts = [
        ("hex", hex.clone()),
        ("HEX", hex.to_uppercase()),
        ("0x", format!("0x{hex}\n")),
        ("hex in lines", in_lines(&hex, 64, "\n")),
        ("hex in odd lines", in_lines(&hex, 63, "\r\n")),
        ("hex by bytes", in_lines(&hex, 2, " ")),
        ("base64", base64.clone()),
        ("base64 in lines", in_lines(&base64, 76, "\r\n")),
        ("base64url", url.clone()),
        ("base64url without padding", bare),
    ];
    for (name, text) in &texts {
        forms.push(((*name).to_string(), text.clone().into_bytes()));
        forms.push((
            format!("{name} with a BOM and a final line"),
            format!("\u{feff}{text}\n\n").into_bytes(),
        ));
        let escaped = text.replace('\n', "\\n").replace('\r', "\\r");
        for json in [
            format!("\"{escaped}\""),
            format!("{{\"quote\":\"{escaped}\",\"cc_eventlog\":null}}"),
            format!("{{\"tee\":\"tdx\",\"evidence\":{{\"quote\":\"{escaped}\"}}}}"),
            format!("{{\"tdx\":{{\"td_quote\":\"{escaped}\"}},\"sampler\":[1]}}"),
        ] {
            forms.push((format!("{name} in JSON"), json.into_bytes()));
        }
    }
    forms.push(("byte array".to_string(), array.clone().into_bytes()));
    forms.push(("byte array in JSON".to_string(), format!("{{\"quote\":{array}}}").into_bytes()));
    forms.push(("hex of the buffer".to_string(), crate::Hex(&buffer).to_string().into_bytes()));
    forms.push((
        "the buffer in JSON".to_string(),
        format!("{{\"quote\":\"{}\"}}", self::base64(&buffer)).into_bytes(),
    ));
    forms.push(("the buffer".to_string(), buffer));
    // A damaged quote is in no such message.
    if let Some(message) = Quote::parse(quote).ok().and_then(|_| google::tests::message(quote)) {
        forms.push(("base64 of a protobuf".to_string(), self::base64(&message).into_bytes()));
        forms.push(("protobuf".to_string(), message));
    }
    let inner = format!("{{\"quote\":\"{hex}\"}}");
    let text = serde_json::to_string(&inner).expect("JSON");
    forms.push(("JSON as a text in JSON".to_string(), format!("{{\"evidence\":{text}}}").into_bytes()));
    forms
}

#[test]
fn every_form_of_every_quote_gives_its_bytes() {
    let mut opened = 0;
    for quote in quotes() {
        for (name, form) in forms_of(&quote) {
            let found = open(&form).unwrap_or_else(|error| panic!("{name}: {error}"));
            let Evidence::Quote(bytes) = found.evidence else { panic!("{name}: no quote") };
            // Text may stand for padding that the buffer does not have, never for other bytes.
            assert_eq!(bytes, quote, "{name}");
            assert!(Quote::parse(&bytes).is_ok(), "{name}");
            assert_eq!(found.forms.is_empty(), name == "plain", "{name}");
            opened += 1;
        }
    }
    println!("{opened} forms of issued quotes");
    assert!(opened > 250, "{opened}");
}

#[test]
#[ignore = "needs recordings"]
fn every_form_of_every_recorded_quote_gives_its_bytes() {
    let folder = tdvisor_test_data::vectors::folder(tdvisor_test_data::vectors::ATTESTATION).join("quotes");
    let (mut opened, mut quotes) = (0, 0);
    for entry in std::fs::read_dir(folder).expect("the quotes") {
        let path = entry.expect("an entry").path();
        let quote = std::fs::read(&path).expect("a quote");
        let is_quote = open(&quote).is_ok();
        quotes += usize::from(is_quote);
        for (name, form) in forms_of(&quote) {
            match open(&form) {
                // What is damaged in its first bytes is no quote in any form.
                Err(_) => assert!(!is_quote, "{name} of {}", path.display()),
                Ok(found) => {
                    assert_eq!(
                        found.evidence,
                        Evidence::Quote(quote.clone()),
                        "{name} of {}",
                        path.display()
                    );
                    opened += 1;
                }
            }
        }
    }
    println!("{opened} forms of {quotes} recorded quotes");
    assert!(opened > 1200, "{opened}");
}

/// A form with one character changed is another quote or none: never the same.
#[test]
fn no_change_of_a_form_is_passed_over() {
    let quote = &quotes()[1];
    let (mut others, mut none) = (0, 0);
    for (name, form) in forms_of(quote).into_iter().filter(|(name, _)| !name.contains("buf")) {
        for at in (0..form.len()).step_by(97) {
            let mut changed = form.clone();
            changed[at] = match changed[at] {
                b'0'..=b'8' | b'A'..=b'Y' | b'a'..=b'y' => changed[at] + 1,
                _ => continue,
            };
            match open(&changed) {
                Ok(Opened { evidence: Evidence::Quote(bytes), .. }) if bytes == *quote => {
                    // Upper and lower case of a digit are the same, and names beside the quote say nothing.
                    let text = name.contains("JSON") && at < 60;
                    assert!(text, "{name}, byte {at}");
                }
                Ok(_) => others += 1,
                Err(_) => none += 1,
            }
        }
    }
    assert!(others > 500, "{others} others, {none} none");
}

#[test]
fn what_is_no_form_of_a_quote_is_called_not_a_quote() {
    let quote = &quotes()[1];
    let hex = crate::Hex(quote).to_string();
    let mut failed = vec![1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0x80];
    failed.extend([0; 32]);
    for (bytes, error) in [
        (&b""[..], EvidenceError::NotAQuote),
        (b"nonsense", EvidenceError::NotAQuote),
        (&[0xff; 5000], EvidenceError::NotAQuote),
        (&[0; 5000], EvidenceError::NotAQuote),
        (&quote[..40], EvidenceError::NotAQuote),
        (&hex.as_bytes()[..hex.len() - 1], EvidenceError::NotAQuote),
        (b"{}", EvidenceError::NoMember),
        (b"{\"quote\":null}", EvidenceError::NoMember),
        (b"{\"quote\":\"00\"}", EvidenceError::NotAQuote),
        (b"{\"quote\":5}", EvidenceError::NotAQuote),
        (b"[1,2,256]", EvidenceError::NotAQuote),
        (b"[]", EvidenceError::NotAQuote),
        (&failed, EvidenceError::QuoteStatus(0x8000_0000_0000_0003)),
        (b"-----BEGIN CERTIFICATE-----", EvidenceError::NotAQuote),
    ] {
        assert_eq!(open(bytes), Err(error), "{:?}", &bytes[..bytes.len().min(20)]);
    }
    assert!(matches!(open(b"{\"quote\":"), Err(EvidenceError::Json(_))));
    let twice = format!("{{\"quote\":\"{hex}\",\"quote\":\"{hex}\"}}");
    assert!(matches!(open(twice.as_bytes()), Err(EvidenceError::Json(_))));
    let other = crate::Hex(&quotes()[3]).to_string();
    let two = format!("{{\"quote\":\"{hex}\",\"inner\":{{\"td_quote\":\"{other}\"}}}}");
    assert_eq!(open(two.as_bytes()), Err(EvidenceError::TwoQuotes));
    let same = format!("{{\"quote\":\"{hex}\",\"inner\":{{\"td_quote\":\"{}\"}}}}", base64(quote));
    assert!(open(same.as_bytes()).is_ok(), "the same quote twice is one");
}

#[test]
fn a_damaged_quote_is_still_handed_to_verification() {
    let quote = &quotes()[1];
    let mut version = quote.clone();
    version[0] = 6;
    for damaged in [&quote[..quote.len() - 1], &quote[..60], &version] {
        assert_eq!(open(damaged).unwrap().evidence, Evidence::Quote(damaged.to_vec()));
    }
}

#[test]
fn a_tdreport_and_an_hcl_report_are_told_from_quotes() {
    let mut report = TdReport::zeroed();
    report.mac.report_type.kind = crate::report::REPORT_TYPE_TDX;
    let claims = br#"{"user-data":"00"}"#;
    let hash: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(claims).into();
    report.mac.report_data[..32].copy_from_slice(&hash);
    let bytes = zerocopy::IntoBytes::as_bytes(&report).to_vec();
    assert_eq!(open(&bytes).unwrap().evidence, Evidence::Report(bytes.clone()));
    let hcl = |claims: &[u8]| {
        let mut hcl = b"HCLA".to_vec();
        hcl.extend([0; 28]);
        hcl.extend(&bytes);
        hcl.extend([0; 160]);
        for word in [20 + claims.len() as u32, 1, 4, 1, claims.len() as u32] {
            hcl.extend(word.to_le_bytes());
        }
        hcl.extend(claims);
        hcl
    };
    let good = hcl(claims);
    for form in
        [good.clone(), base64(&good).into_bytes(), format!("{{\"hcl_report\":{good:?}}}").into_bytes()]
    {
        assert_eq!(open(&form).unwrap().evidence, Evidence::Hcl(good.clone()));
    }
    assert!(HclReport::parse(&good).unwrap().binds_runtime_data());
    let mut told = 0;
    for at in 0..claims.len() {
        let mut other = claims.to_vec();
        other[at] ^= 1;
        assert!(!HclReport::parse(&hcl(&other)).unwrap().binds_runtime_data(), "byte {at}");
        told += 1;
    }
    assert_eq!(told, claims.len());
    for length in 4..good.len() {
        assert!(matches!(open(&good[..length]), Err(EvidenceError::Hcl(_))), "{length}");
    }
    let mut of_snp = good.clone();
    of_snp[1224] = 2;
    assert_eq!(open(&of_snp), Err(EvidenceError::Hcl(HclError::ReportType(2))));
}

#[test]
fn a_log_is_read_from_its_area_a_list_and_evidence_of_either() {
    let digest = Digest384::of(&[0; 4]);
    let mut log = LogBuilder::new();
    log.push(Register::Rtmr0, EventType::SEPARATOR, &digest, &[0; 4]);
    let area = log.finish();
    let list =
        format!("[{{\"imr\":0,\"event_type\":4,\"digest\":\"{digest}\",\"event_payload\":\"00000000\"}}]");
    let quoted = serde_json::to_string(&list).unwrap();
    for (form, is_list) in [
        (area.clone(), false),
        (crate::Hex(&area).to_string().into_bytes(), false),
        (base64(&area).into_bytes(), false),
        (format!("{{\"quote\":\"00\",\"cc_eventlog\":\"{}\"}}", base64(&area)).into_bytes(), false),
        (format!("{{\"cc_eventlog\":{area:?}}}").into_bytes(), false),
        (list.clone().into_bytes(), true),
        (format!("{{\"event_log\":{quoted}}}").into_bytes(), true),
        (format!("{{\"event_log\":{list}}}").into_bytes(), true),
    ] {
        let opened = open_log(&form).unwrap();
        assert_eq!((opened.list.is_some(), &opened.area), (is_list, &area));
    }
    for wrong in [&b"{}"[..], b"{\"event_log\":\"00\"}", b"{\"event_log\":3}", b"[1]", b"", b"text", b"CCEL"]
    {
        assert!(open_log(wrong).is_err());
    }
    assert!(open_log(b"CCEL").unwrap_err().to_string().contains("dump the log area"));
}
