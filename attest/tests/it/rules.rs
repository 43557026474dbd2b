//! Rules of Intel's library that need evidence of an unusual shape: every source of the validity window by itself, to
//! the second; several TDX modules, each with levels of its own.

#![expect(clippy::unwrap_used, reason = "a test")]

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Bundle, TcbStatus};
use tdvisor_attest::crypto::{Crypto, Ring, RustCrypto};
use tdvisor_attest::issue::{
    CollateralSpec, ComponentLevelSpec, DEFAULT_VALIDITY, ModuleSpec, PlatformSpec, QuoteBody, QuoteSpec,
    TestPlatform,
};
use tdvisor_attest::quote::{CertificationType, TdAttributes, TeeType};
use tdvisor_attest::report::{TdReport, ToQuoteBody};
use tdvisor_attest::time::Validity;
use tdvisor_attest::verify::{Component, Item, TcbVerdict, TrustAnchor, Verifier, VerifyError};

const ISSUED: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

fn platform() -> TestPlatform {
    TestPlatform::new([5; 32], PlatformSpec::default())
}

fn svn(minor: u8, major: u8) -> [u8; 16] {
    let mut svn = [0; 16];
    (svn[0], svn[1], svn[2]) = (minor, major, 2);
    svn
}

/// A quote of a TD under this version of the TDX module, now under another if `current` is given.
fn quote(launch: [u8; 16], current: Option<[u8; 16]>) -> Vec<u8> {
    let mut report = TdReport::zeroed();
    report.tee_tcb_info.tee_tcb_svn = launch;
    report.tee_tcb_info.tee_tcb_svn2 = current.unwrap_or(launch);
    report.td_info.attributes = TdAttributes::from_bits(TdAttributes::SEPT_VE_DISABLE);
    let (version, body) = match current {
        None => (4, QuoteBody::Td10(report.to_td10())),
        Some(_) => (5, QuoteBody::Td15Ex(report.to_td15_ex())),
    };
    platform().quote(&body, &QuoteSpec { version, ..QuoteSpec::default() }).unwrap()
}

fn collateral(change: impl FnOnce(&mut CollateralSpec)) -> Bundle {
    let platform = platform();
    let at = UnixSeconds(ISSUED);
    let qe_svn = QuoteSpec::default().qe_isv_svn;
    let mut spec = CollateralSpec::up_to_date(platform.spec(), TeeType::TDX, &svn(5, 1), qe_svn, at);
    change(&mut spec);
    platform.collateral(&spec, CertificationType::PCK_CHAIN)
}

fn verify_with(
    crypto: impl Crypto,
    bundle: &Bundle,
    quote: &[u8],
    at: u64,
) -> Result<TcbVerdict, VerifyError> {
    let root = platform().pki().root_pem();
    let anchor = TrustAnchor::from_bytes(root.as_bytes()).unwrap();
    let mut verifier = Verifier::with_crypto(anchor, crypto);
    verifier.add_collateral(bundle)?;
    verifier.verify(quote, UnixSeconds(at)).map(|verified| verified.tcb)
}

/// What both backends say.
fn verify(bundle: &Bundle, quote: &[u8], at: u64) -> Result<TcbVerdict, VerifyError> {
    let verdict = verify_with(Ring, bundle, quote, at);
    assert_eq!(verdict, verify_with(RustCrypto, bundle, quote, at), "the backends differ");
    verdict
}

/// Where one part of the collateral is valid, and the rest for much longer.
fn window_of(item: Item, narrow: Validity) -> Bundle {
    let wide = Validity { from: UnixSeconds(ISSUED - 90 * DAY), until: UnixSeconds(ISSUED + 90 * DAY) };
    let all = |validity: Validity| {
        collateral(|spec| {
            spec.json_validity = validity;
            spec.crl_validity = validity;
        })
    };
    let (mut bundle, from) = (all(wide), all(narrow));
    match item {
        Item::TcbInfo => bundle.tcb_info = from.tcb_info,
        Item::QeIdentity => bundle.qe_identity = from.qe_identity,
        Item::RootCrl => bundle.root_crl = from.root_crl,
        Item::PckCrl => bundle.pck_crl = from.pck_crl,
        other => panic!("{other} has dates of its own"),
    }
    bundle
}

#[test]
fn every_dated_part_counts_by_itself_from_its_first_to_its_last_second() {
    let quote = quote(svn(5, 1), None);
    let narrow = Validity { from: UnixSeconds(ISSUED), until: UnixSeconds(ISSUED + DAY) };
    for item in [Item::TcbInfo, Item::QeIdentity, Item::RootCrl, Item::PckCrl] {
        let bundle = window_of(item, narrow);
        let at = |at| verify(&bundle, &quote, at).map(|tcb| tcb.status);
        let early = VerifyError::NotYetValid { item, from: narrow.from };
        let late = VerifyError::Expired { item, until: narrow.until };
        assert_eq!(at(ISSUED - 1), Err(early), "{item}: the second before");
        assert_eq!(at(ISSUED), Ok(TcbStatus::UpToDate), "{item}: the first second");
        assert_eq!(at(ISSUED + DAY), Ok(TcbStatus::UpToDate), "{item}: the last second");
        assert_eq!(at(ISSUED + DAY + 1), Err(late), "{item}: the second after");
    }
}

#[test]
fn certificates_count_to_the_second_as_well() {
    let quote = quote(svn(5, 1), None);
    let (from, until) = (DEFAULT_VALIDITY.from.0, DEFAULT_VALIDITY.until.0);
    let all = Validity { from: UnixSeconds(from - DAY), until: UnixSeconds(until + DAY) };
    let bundle = collateral(|spec| {
        spec.json_validity = all;
        spec.crl_validity = all;
    });
    assert!(matches!(verify(&bundle, &quote, from - 1), Err(VerifyError::NotYetValid { .. })));
    assert!(verify(&bundle, &quote, from).is_ok());
    assert!(verify(&bundle, &quote, until).is_ok());
    assert!(matches!(verify(&bundle, &quote, until + 1), Err(VerifyError::Expired { .. })));
}

fn level(isv_svn: u16, status: TcbStatus, advisory: &str) -> ComponentLevelSpec {
    ComponentLevelSpec {
        isv_svn,
        date: UnixSeconds(ISSUED - u64::from(100 - isv_svn) * DAY),
        status,
        advisories: vec![advisory.to_owned()],
    }
}

/// Modules 1.x, 3.x and 10.x, in no order, with levels in no order.
fn modules() -> Bundle {
    use TcbStatus as S;
    let module = |major, mr_signer, levels| ModuleSpec { major, mr_signer, attributes: 0, levels };
    collateral(|spec| {
        spec.modules = vec![
            module(3, [0; 48], vec![level(2, S::OutOfDate, "M3-OLD"), level(7, S::UpToDate, "M3-NEW")]),
            module(10, [9; 48], vec![level(1, S::UpToDate, "M10")]),
            module(
                1,
                [0; 48],
                vec![
                    level(5, S::UpToDate, "M1-NEW"),
                    level(2, S::Revoked, "M1-REVOKED"),
                    level(4, S::OutOfDate, "M1-OLD"),
                ],
            ),
        ];
    })
}

#[test]
fn each_module_is_judged_by_its_own_identity_and_highest_level_reached() {
    use TcbStatus as S;
    let bundle = modules();
    for (minor, major, status, advisory) in [
        (5, 1, S::UpToDate, Some("M1-NEW")),
        (9, 1, S::UpToDate, Some("M1-NEW")),
        (4, 1, S::OutOfDate, Some("M1-OLD")),
        (3, 1, S::Revoked, Some("M1-REVOKED")),
        (1, 1, S::NotSupported, None),
        (7, 3, S::UpToDate, Some("M3-NEW")),
        (6, 3, S::OutOfDate, Some("M3-OLD")),
        (0, 3, S::NotSupported, None),
        // Module 0.x is in the platform's levels, of which the only one asks for nothing of it.
        (0, 0, S::UpToDate, None),
    ] {
        let tcb = verify(&bundle, &quote(svn(minor, major), None), ISSUED).unwrap();
        assert_eq!(tcb.status, status, "module {major}.{minor}");
        assert_eq!(tcb.advisories.first().map(|id| &**id), advisory, "module {major}.{minor}");
    }
    assert_eq!(
        verify(&bundle, &quote(svn(5, 2), None), ISSUED),
        Err(VerifyError::ModuleUnknown { major: 2 }),
        "a module that no identity names"
    );
    assert_eq!(
        verify(&bundle, &quote(svn(5, 10), None), ISSUED),
        Err(VerifyError::ModuleSigner),
        "a module of another signer"
    );
}

#[test]
fn a_td_launched_on_an_older_module_is_to_be_relaunched_and_told_so() {
    use TcbStatus as S;
    let bundle = modules();
    for (launch, current, status) in [
        (svn(4, 1), svn(5, 1), S::TdRelaunchAdvised),
        (svn(4, 1), svn(7, 3), S::TdRelaunchAdvised),
        (svn(4, 1), svn(4, 1), S::OutOfDate),
        (svn(4, 1), svn(3, 1), S::OutOfDate),
        (svn(3, 1), svn(5, 1), S::Revoked),
        (svn(5, 1), svn(4, 1), S::UpToDate),
        (svn(4, 1), svn(1, 1), S::NotSupported),
        (svn(4, 1), svn(5, 2), S::NotSupported),
    ] {
        let tcb = verify(&bundle, &quote(launch, Some(current)), ISSUED).unwrap();
        assert_eq!(tcb.status, status, "{:?} then {:?}", &launch[..2], &current[..2]);
        let advice: Vec<&str> = tcb.actions.iter().map(|action| action.code()).collect();
        assert_eq!(advice.contains(&"relaunch-td"), status == S::TdRelaunchAdvised, "{advice:?}");
        assert_eq!(advice.is_empty(), status == S::UpToDate, "{status}: {advice:?}");
    }
}

#[test]
fn a_shortfall_says_what_the_module_has_and_needs() {
    let tcb = verify(&modules(), &quote(svn(6, 3), None), ISSUED).unwrap();
    let [shortfall] = &tcb.shortfalls[..] else { panic!("{:?}", tcb.shortfalls) };
    assert_eq!((shortfall.component, shortfall.have, shortfall.need), (Component::Module { major: 3 }, 6, 7));
    assert_eq!(shortfall.to_string(), "TDX module 3.x: has 6, needs 7");
    assert_eq!(tcb.date, Some(UnixSeconds(ISSUED - 98 * DAY)), "the oldest date of the levels matched");
}
