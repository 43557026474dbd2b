//! Doors that were once open: evidence of another TEE than the policy's, verdicts that depended on what was verified
//! before, and collateral whose meaning depended on the order of its files.

#![expect(clippy::unwrap_used, reason = "a test")]

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Bundle, CollateralError, Part, Parts, Wanted};
use tdvisor_attest::issue::{CollateralSpec, PlatformSpec, QuoteBody, QuoteSpec, TestPlatform};
use tdvisor_attest::policy::{Context, Policy};
use tdvisor_attest::quote::{CertificationType, EnclaveReport, Quote, TdAttributes, TeeType};
use tdvisor_attest::report::{TdReport, ToQuoteBody};
use tdvisor_attest::verify::{TrustAnchor, Verifier, VerifyError};
use tdvisor_test_data::vectors;

const AT: UnixSeconds = UnixSeconds(1_790_000_000);
/// When the recorded quotes of `robustness` were issued.
const RECORDED: UnixSeconds = UnixSeconds(1_795_874_604);

fn td_svn() -> [u8; 16] {
    let mut svn = [0; 16];
    (svn[0], svn[1], svn[2]) = (5, 1, 2);
    svn
}

fn td_report() -> TdReport {
    let mut report = TdReport::zeroed();
    report.tee_tcb_info.tee_tcb_svn = td_svn();
    report.tee_tcb_info.tee_tcb_svn2 = td_svn();
    report.td_info.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE);
    report
}

/// Platforms under one root: two families, and two machines of the first.
fn platforms() -> [TestPlatform; 3] {
    let spec = PlatformSpec::default;
    [
        spec(),
        PlatformSpec { fmspc: *b"TDVTS2", ppid: *b"tdvisor-test-002", ..spec() },
        PlatformSpec { pce_svn: 12, ppid: *b"tdvisor-test-003", ..spec() },
    ]
    .map(|spec| TestPlatform::new([5; 32], spec))
}

fn anchor() -> TrustAnchor {
    TrustAnchor::from_bytes(platforms()[0].pki().root_pem().as_bytes()).unwrap()
}

fn collateral(platform: &TestPlatform, tee: TeeType) -> Bundle {
    let spec =
        CollateralSpec::up_to_date(platform.spec(), tee, &td_svn(), QuoteSpec::default().qe_isv_svn, AT);
    platform.collateral(&spec, CertificationType::PPID_CLEARTEXT)
}

fn quote(platform: &TestPlatform, body: &QuoteBody, version: u16, certification: u16) -> Vec<u8> {
    let spec = QuoteSpec { version, certification: CertificationType(certification), ..QuoteSpec::default() };
    platform.quote(body, &spec).unwrap()
}

/// A quote with its certification data replaced by others, of another type.
fn with_certification(quote: &[u8], kind: u16, data: &[u8]) -> Vec<u8> {
    let parsed = Quote::parse(quote).unwrap();
    let old = parsed.signature.certification.data.len();
    let signed = parsed.signed.bytes.len();
    let inner = quote.len() - parsed.trailing.len() - old - 6;
    let mut new = quote[..inner].to_vec();
    new.extend(kind.to_le_bytes());
    new.extend((data.len() as u32).to_le_bytes());
    new.extend(data);
    let length = (new.len() - signed - 4) as u32;
    new[signed..signed + 4].copy_from_slice(&length.to_le_bytes());
    // Signature and attestation key stand before the outer certification data: type, then length.
    let outer = signed + 4 + 128 + 2;
    new[outer..outer + 4].copy_from_slice(&(length - 128 - 6).to_le_bytes());
    new
}

#[test]
#[ignore = "needs recordings"]
fn an_sgx_quote_never_satisfies_a_policy_for_a_td() {
    let folder = vectors::folder("robustness");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let anchor = TrustAnchor::from_bytes(read("td.root.pem").as_bytes()).unwrap();
    let mut verifier = Verifier::new(anchor);
    verifier.add_collateral(&Bundle::from_json(&read("sgx.c.json")).unwrap()).unwrap();
    let quote = std::fs::read(folder.join("sgx.q")).unwrap();
    let verified = verifier.verify(&quote, RECORDED).unwrap();
    for name in ["pin.toml", "pin2.toml"] {
        let policy = Policy::from_text(&read(name)).unwrap();
        let verdict =
            policy.evaluate(&verified, &Context { rtmr3_replay: Some([0; 48]), ..Context::default() });
        assert!(verdict.findings.iter().any(|finding| finding.code() == "tee"), "{name}: {verdict:?}");
    }
}

/// Every policy of a few keys against evidence of both TEEs: what another TEE's evidence says is never enough.
#[test]
fn evidence_keeps_only_policies_of_its_own_tee_and_an_enclave_must_be_named() {
    let [platform, ..] = platforms();
    let mut verifier = Verifier::new(anchor());
    verifier.add_collateral(&collateral(&platform, TeeType::TDX)).unwrap();
    verifier.add_collateral(&collateral(&platform, TeeType::SGX)).unwrap();
    let sgx = quote(&platform, &QuoteBody::Sgx(EnclaveReport::zeroed()), 3, 5);
    let td = quote(&platform, &QuoteBody::Td10(td_report().to_td10()), 4, 5);
    let zeros = |bytes: usize| format!("[\"{}\"]", "00".repeat(bytes));
    let rules = [
        ("", true, false),
        ("tee = \"tdx\"", true, false),
        ("tee = \"sgx\"", false, false),
        ("[td]", true, false),
        ("[enclave]", false, false),
        ("[enclave]\ndebug = \"any\"\nminimum_isv_svn = 0\nisv_prod_id = 0", false, false),
        ("[platform]\nsmt = \"any\"", true, false),
        (&format!("[td]\nmr_td = {}", zeros(48)), true, false),
        (&format!("[enclave]\nmr_enclave = {}", zeros(32)), false, true),
        (&format!("[enclave]\nmr_signer = {}", zeros(32)), false, true),
        (&format!("tee = \"sgx\"\n[enclave]\nmr_signer = {}", zeros(32)), false, true),
        (&format!("[enclave]\nmr_signer = [\"{}\"]", "01".repeat(32)), false, false),
    ];
    for (text, takes_td, takes_sgx) in rules {
        let policy = Policy::from_text(text).unwrap();
        let mut accepts = |quote: &[u8]| {
            let verified = verifier.verify(quote, AT).unwrap();
            policy.evaluate(&verified, &Context::default()).is_accepted()
        };
        assert_eq!((accepts(&td), accepts(&sgx)), (takes_td, takes_sgx), "{text}");
    }
}

#[test]
fn a_partition_of_a_td_needs_an_explicit_allowance() {
    let [platform, ..] = platforms();
    let mut verifier = Verifier::new(anchor());
    verifier.add_collateral(&collateral(&platform, TeeType::TDX)).unwrap();
    for (policy, allowed) in [
        ("", &[0][..]),
        ("[td]\nvm_id = [0]", &[0]),
        ("[td]\nvm_id = [1, 3]", &[1, 3]),
        ("[td]\nvm_id = \"any\"", &[0, 1, 2, 3, 255]),
    ] {
        let policy = Policy::from_text(policy).unwrap();
        for vm_id in [0, 1, 2, 3, 255] {
            let mut body = td_report().to_td15_ex();
            body.vm_id = vm_id;
            let quote = quote(&platform, &QuoteBody::Td15Ex(body), 5, 5);
            let verdict = policy.evaluate(&verifier.verify(&quote, AT).unwrap(), &Context::default());
            assert_eq!(verdict.is_accepted(), allowed.contains(&vm_id), "{policy:?} {vm_id}: {verdict:?}");
        }
        // A body that does not say is taken for the TD itself.
        let older = quote(&platform, &QuoteBody::Td15(td_report().to_td15()), 5, 5);
        let verdict = policy.evaluate(&verifier.verify(&older, AT).unwrap(), &Context::default());
        assert_eq!(verdict.is_accepted(), allowed.contains(&0), "{policy:?}: {verdict:?}");
    }
}

#[test]
fn bits_of_tdattributes_without_a_meaning_are_refused_unless_the_policy_names_them() {
    let [platform, ..] = platforms();
    let mut verifier = Verifier::new(anchor());
    verifier.add_collateral(&collateral(&platform, TeeType::TDX)).unwrap();
    for bit in 0..64 {
        let mut report = td_report();
        report.td_info.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE | 1 << bit);
        let quote = quote(&platform, &QuoteBody::Td10(report.to_td10()), 4, 5);
        let verified = verifier.verify(&quote, AT).unwrap();
        let accepts = |policy: &Policy| policy.evaluate(&verified, &Context::default()).is_accepted();
        let harmless = TdAttributes::DEFINED & !TdAttributes::TUD & !TdAttributes::MIGRATABLE;
        assert_eq!(accepts(&Policy::default()), harmless >> bit & 1 == 1, "bit {bit}");
        let named = format!(
            "[td]\ndebug = \"any\"\nmigratable = \"any\"\nattributes = {{ mask = \"{0:x}\", value = \"{0:x}\" }}",
            1u64 << bit
        );
        assert!(accepts(&Policy::from_text(&named).unwrap()), "bit {bit}");
    }
}

#[test]
fn a_log_that_is_given_must_be_borne_out_whatever_the_policy_says_of_rtmr3() {
    let [platform, ..] = platforms();
    let mut verifier = Verifier::new(anchor());
    verifier.add_collateral(&collateral(&platform, TeeType::TDX)).unwrap();
    let mut report = td_report();
    report.td_info.rtmr[3] = [7; 48];
    let quote = quote(&platform, &QuoteBody::Td10(report.to_td10()), 4, 5);
    let verified = verifier.verify(&quote, AT).unwrap();
    let sevens = format!("rtmr3 = [\"{}\"]", "07".repeat(48));
    for (rule, without, with_right, with_wrong) in [
        ("", true, true, false),
        ("rtmr3 = \"report\"", true, true, false),
        ("rtmr3 = \"zero\"", false, false, false),
        ("rtmr3 = \"log\"", false, true, false),
        (&sevens, true, true, false),
    ] {
        let policy = Policy::from_text(&format!("[td]\n{rule}")).unwrap();
        let accepts = |rtmr3_replay| {
            let context = Context { rtmr3_replay, ..Context::default() };
            policy.evaluate(&verified, &context).is_accepted()
        };
        let found = (accepts(None), accepts(Some([7; 48])), accepts(Some([0; 48])));
        assert_eq!(found, (without, with_right, with_wrong), "{rule}");
    }
}

/// Quotes of every certification type from three platforms, and ones that carry another's or no chain at all.
fn quotes() -> Vec<(String, Vec<u8>)> {
    let mut quotes = Vec::new();
    for (number, platform) in platforms().iter().enumerate() {
        for certification in 1..=5 {
            let td = QuoteBody::Td10(td_report().to_td10());
            quotes
                .push((format!("TD {number}, type {certification}"), quote(platform, &td, 4, certification)));
        }
        let enclave = QuoteBody::Sgx(EnclaveReport::zeroed());
        quotes.push((format!("SGX {number}, type 3"), quote(platform, &enclave, 4, 3)));
        let plain = &quotes[quotes.len() - 2].1.clone();
        for kind in 1..=5 {
            quotes.push((format!("TD {number}, empty type {kind}"), with_certification(plain, kind, &[])));
        }
        let other = quote(&platforms()[(number + 1) % 3], &QuoteBody::Td10(td_report().to_td10()), 4, 5);
        let chain = Quote::parse(&other).unwrap().signature.certification.data;
        quotes.push((format!("TD {number}, another's chain"), with_certification(plain, 5, chain)));
    }
    quotes
}

#[test]
fn a_verdict_never_depends_on_quotes_seen_before() {
    let quotes = quotes();
    let mut fresh = Verifier::new(anchor());
    for platform in platforms() {
        for tee in [TeeType::TDX, TeeType::SGX] {
            fresh.add_collateral(&collateral(&platform, tee)).unwrap();
        }
    }
    fn told(verifier: &mut Verifier<tdvisor_attest::crypto::DefaultCrypto>, quote: &[u8]) -> String {
        let verdict = verifier.verify(quote, AT);
        format!("{:?}", verdict.map(|verified| (verified.platform, verified.tcb, verified.window)))
    }
    let verdicts: Vec<String> = quotes.iter().map(|(_, quote)| told(&mut fresh.clone(), quote)).collect();
    let valid = verdicts.iter().filter(|verdict| verdict.starts_with("Ok")).count();
    assert!(valid >= 15 && valid < verdicts.len(), "{valid} of {}", verdicts.len());
    let mut pairs = 0;
    for (first, (before, earlier)) in quotes.iter().enumerate() {
        for (second, (name, quote)) in quotes.iter().enumerate() {
            let mut verifier = fresh.clone();
            assert_eq!(told(&mut verifier, earlier), verdicts[first], "{before}");
            assert_eq!(told(&mut verifier, quote), verdicts[second], "{name} after {before}");
            pairs += 1;
        }
    }
    // And after all of them, in either direction.
    for (at, (name, quote)) in quotes.iter().enumerate().chain(quotes.iter().enumerate().rev()) {
        assert_eq!(told(&mut fresh, quote), verdicts[at], "{name} after all others");
    }
    println!("{pairs} pairs of {} quotes, {valid} of them valid", quotes.len());
}

/// Every order of `items`.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

#[test]
#[ignore = "needs recordings"]
fn collateral_in_several_files_says_the_same_in_every_order_and_a_chainless_file_takes_no_chain_away() {
    let folder = vectors::folder("robustness");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let split =
        ["a_qe.json", "b_crl.json", "c_tcb.json"].map(|name| read(&format!("collateral-split/{name}")));
    let without = |text: &str, key: &str| {
        let mut fields: serde_json::Value = serde_json::from_str(text).unwrap();
        fields.as_object_mut().unwrap().remove(key).unwrap();
        fields.to_string()
    };
    let chainless = [
        without(&split[0], "qe_identity_issuer_chain"),
        without(&split[2], "tcb_info_issuer_chain"),
        without(&split[1], "pck_crl_issuer_chain"),
    ];
    let quote = std::fs::read(folder.join("td.q")).unwrap();
    let wanted = Wanted::of(&Quote::parse(&quote).unwrap());
    let mut built: Option<Bundle> = None;
    let mut count = 0;
    // The three files, with none to all of their chainless copies beside them.
    for with in 0..1 << chainless.len() {
        let more = chainless.iter().enumerate().filter(|(at, _)| with >> at & 1 == 1).map(|(_, text)| text);
        let files: Vec<&String> = split.iter().chain(more).collect();
        for order in orders(&files) {
            let mut parts = Parts::default();
            order.iter().for_each(|file| parts.add(file.as_bytes()).unwrap());
            let bundle = parts.build_for(&wanted).unwrap();
            assert_eq!(built.get_or_insert_with(|| bundle.clone()), &bundle);
            count += 1;
        }
    }
    // One chain is enough for both bodies, whichever of them has it.
    for (tcb, qe) in [(&chainless[1], &split[0]), (&split[2], &chainless[0])] {
        for order in orders(&[tcb, qe, &split[1]]) {
            let mut parts = Parts::default();
            order.iter().for_each(|file| parts.add(file.as_bytes()).unwrap());
            assert_eq!(built.as_ref(), Some(&parts.build_for(&wanted).unwrap()));
            count += 1;
        }
    }
    let mut verifier = Verifier::new(TrustAnchor::from_bytes(read("td.root.pem").as_bytes()).unwrap());
    verifier.add_collateral(built.as_ref().unwrap()).unwrap();
    assert!(verifier.verify(&quote, RECORDED).is_ok());
    println!("{count} orders, one bundle");
}

#[test]
fn two_parts_that_both_fit_are_an_error_and_the_other_tees_are_left_aside() {
    let [platform, family, machine] = platforms();
    let quote = quote(&platform, &QuoteBody::Td10(td_report().to_td10()), 4, 5);
    let wanted = Wanted::of(&Quote::parse(&quote).unwrap());
    let own = collateral(&platform, TeeType::TDX);
    let build = |files: &[&Bundle]| {
        let mut found = Vec::new();
        for order in orders(files) {
            let mut parts = Parts::default();
            order.iter().for_each(|file| parts.add(file.to_json().as_bytes()).unwrap());
            found.push(parts.build_for(&wanted));
        }
        assert!(
            found.windows(2).all(|pair| pair[0].is_ok() == pair[1].is_ok()),
            "the order decides: {found:?}"
        );
        found.swap_remove(0)
    };
    // Another family, another machine, the other TEE: theirs are told apart.
    let mut others = vec![
        collateral(&platform, TeeType::SGX),
        collateral(&family, TeeType::TDX),
        collateral(&family, TeeType::SGX),
    ];
    for other in &mut others {
        other.root_crl.clone_from(&own.root_crl);
        other.pck_crl.clone_from(&own.pck_crl);
    }
    let of_all: Vec<&Bundle> = std::iter::once(&own).chain(&others).collect();
    let built = build(&of_all).unwrap();
    assert_eq!((&built.tcb_info, &built.qe_identity), (&own.tcb_info, &own.qe_identity));
    // The same platform's, issued anew: which of them counts would be a guess.
    let mut newer = own.clone();
    newer.tcb_info = collateral(&machine, TeeType::TDX).tcb_info;
    let ambiguous = build(&[&own, &newer]);
    assert!(
        matches!(ambiguous, Err(CollateralError::Ambiguous { part: Part::TcbInfo, .. })),
        "{ambiguous:?}"
    );
    // Only other families': none is for this quote.
    let none = build(&[&collateral(&family, TeeType::TDX), &collateral(&family, TeeType::SGX)]);
    assert!(none.is_err(), "{none:?}");
}

#[test]
fn a_quote_without_a_chain_is_verified_by_its_own_platforms_chain_and_no_other() {
    let [platform, family, _] = platforms();
    let td = QuoteBody::Td10(td_report().to_td10());
    for certification in 1..=3 {
        let quote = quote(&platform, &td, 4, certification);
        for order in orders(&[&platform, &family]) {
            let mut verifier = Verifier::new(anchor());
            order.iter().for_each(|one| verifier.add_collateral(&collateral(one, TeeType::TDX)).unwrap());
            let verified = verifier.verify(&quote, AT).unwrap();
            // An encrypted PPID does not tell two platforms apart whose keys are the same, as these have.
            assert!(certification != 1 || verified.platform.fmspc == platform.spec().fmspc);
        }
    }
    let quote = quote(&platform, &td, 4, 1);
    let mut verifier = Verifier::new(anchor());
    verifier.add_collateral(&collateral(&family, TeeType::TDX)).unwrap();
    let verdict = verifier.verify(&quote, AT).map(drop);
    assert!(matches!(verdict, Err(VerifyError::NoPckChain(_))), "{verdict:?}");
}

#[test]
fn least_versions_and_dates_are_kept_or_told() {
    let [platform, ..] = platforms();
    let mut verifier = Verifier::new(anchor());
    verifier.add_collateral(&collateral(&platform, TeeType::TDX)).unwrap();
    let quote = quote(&platform, &QuoteBody::Td10(td_report().to_td10()), 4, 5);
    let verified = verifier.verify(&quote, AT).unwrap();
    let qe = QuoteSpec::default().qe_isv_svn;
    let date = |seconds: u64| UnixSeconds(seconds).to_string();
    for (rule, accepted) in [
        // The quote's: 5.1, then 2.
        ("minimum_tee_tcb_svn = \"05010200000000000000000000000000\"".to_owned(), true),
        ("minimum_tee_tcb_svn = \"09000000000000000000000000000000\"".to_owned(), true),
        ("minimum_tee_tcb_svn = \"06010000000000000000000000000000\"".to_owned(), false),
        ("minimum_tee_tcb_svn = \"00020000000000000000000000000000\"".to_owned(), false),
        ("minimum_tee_tcb_svn = \"00000300000000000000000000000000\"".to_owned(), false),
        ("minimum_tee_tcb_svn = \"00000000000000000000000000000001\"".to_owned(), false),
        (format!("minimum_qe_svn = {qe}"), true),
        (format!("minimum_qe_svn = {}", qe + 1), false),
        ("minimum_pce_svn = 11".to_owned(), true),
        ("minimum_pce_svn = 12".to_owned(), false),
        (format!("minimum_date = \"{}\"", date(AT.0)), true),
        (format!("minimum_date = \"{}\"", date(AT.0 + 1)), false),
    ] {
        let policy = Policy::from_text(&format!("[tcb]\n{rule}")).unwrap();
        let verdict = policy.evaluate(&verified, &Context::default());
        assert_eq!(verdict.is_accepted(), accepted, "{rule}: {verdict:?}");
    }
}

#[test]
fn an_exception_is_for_one_component_of_one_family_and_ends_by_itself() {
    use tdvisor_attest::collateral::TcbStatus;
    use tdvisor_attest::verify::Component;

    let [platform, ..] = platforms();
    let qe = QuoteSpec::default().qe_isv_svn;
    let mut spec = CollateralSpec::up_to_date(platform.spec(), TeeType::TDX, &td_svn(), qe, AT);
    let mut newer = spec.levels[0].clone();
    newer.sgx[0] += 1;
    newer.pce_svn += 1;
    spec.levels[0].status = TcbStatus::OutOfDate;
    spec.levels.push(newer);
    let mut verifier = Verifier::new(anchor());
    verifier.add_collateral(&platform.collateral(&spec, CertificationType::PCK_CHAIN)).unwrap();
    let quote = quote(&platform, &QuoteBody::Td10(td_report().to_td10()), 4, 5);
    let verified = verifier.verify(&quote, AT).unwrap();
    let lacking: Vec<Component> = verified.tcb.shortfalls.iter().map(|one| one.component).collect();
    assert_eq!(lacking, [Component::Sgx(0), Component::Pce]);
    let exception = |component: &str, fmspc: &str, until: u64| {
        let until = UnixSeconds(until);
        [
            "[[tcb.exceptions]]".to_owned(),
            format!("name = \"{component}\""),
            format!("fmspc = \"{fmspc}\""),
            format!("component = \"{component}\""),
            format!("until = \"{until}\"\n"),
        ]
        .join("\n")
    };
    let own = tdvisor_attest::Hex(&platform.spec().fmspc).to_string();
    let (sgx, pce) = ("SGX component 1", "PCE");
    for (rules, accepted) in [
        (String::new(), false),
        (exception(sgx, &own, AT.0), false),
        (exception(pce, &own, AT.0), false),
        (exception(sgx, &own, AT.0) + &exception(pce, &own, AT.0), true),
        (exception(sgx, &own, AT.0) + &exception(pce, &own, AT.0 - 1), false),
        (exception(sgx, &own, AT.0) + &exception(pce, "b0c06f000000", AT.0), false),
        (exception(sgx, &own, AT.0) + &exception("SGX component 2", &own, AT.0), false),
    ] {
        let verdict = Policy::from_text(&rules).unwrap().evaluate(&verified, &Context::default());
        assert_eq!(verdict.is_accepted(), accepted, "{rules}: {verdict:?}");
        assert_eq!(verdict.exceptions.len(), if accepted { 2 } else { 0 }, "{rules}");
    }
}
