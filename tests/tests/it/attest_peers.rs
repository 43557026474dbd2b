//! Issued quotes of every kind beside an oracle and beside `dcap-qvl`.
//!
//! Each case is drawn as a [`Scenario`]; a small table of rules, written apart from the verifier, says what
//! Intel's library would decide. Both crypto backends must decide so. The peer must agree too, except for the
//! differences that `attest/PEERS.md` lists; each of those has a function here that says when it applies.

use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use proptest::prelude::*;
use tdvisor_attest::collateral::{Bundle, TcbStatus};
use tdvisor_attest::crypto::{Crypto, Ring, RustCrypto};
use tdvisor_attest::issue::{
    CollateralSpec, LevelSpec, PckCa, PlatformSpec, QuoteBody, QuoteSpec, Role, TestPlatform,
};
use tdvisor_attest::policy::{Context, Policy};
use tdvisor_attest::quote::{BodyType, CertificationType, EnclaveReport, TdAttributes, TeeType};
use tdvisor_attest::report::{TdReport, ToQuoteBody};
use tdvisor_attest::verify::{TrustAnchor, Verifier};
use tdvisor_attest::{UnixSeconds, Validity};
use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

const ISSUED: u64 = 1_790_000_000;
const DAY: u64 = 86_400;

/// What may be wrong beside the TCB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Revoked(Role),
    Fmspc,
    PceId,
    ModuleSigner,
    SeamAttributes,
    ModuleUnknown,
    EarlyByOne,
    LateByOne,
    CrlExpired,
}

/// One drawn case.
#[derive(Clone, Debug)]
struct Scenario {
    version: u16,
    body: BodyType,
    qe_auth: usize,
    certification: u16,
    padding: usize,
    ca: PckCa,
    /// Seconds after the collateral's issue.
    age: u64,
    fault: Fault,
    /// TDX module major version.
    major: u8,
    /// Status of the higher and of the lower TCB level.
    high: TcbStatus,
    low: TcbStatus,
    /// Component 2 of TEE_TCB_SVN and TEE_TCB_SVN2: 5 reaches the higher level, 2 the lower, 1 none.
    launch: u8,
    current: u8,
    module: TcbStatus,
    qe: TcbStatus,
    /// The QE's version reaches its level.
    qe_reaches: bool,
    attributes: u64,
    service_td: bool,
}

const PLATFORM_STATUSES: [TcbStatus; 7] = [
    TcbStatus::UpToDate,
    TcbStatus::SwHardeningNeeded,
    TcbStatus::ConfigurationNeeded,
    TcbStatus::ConfigurationAndSwHardeningNeeded,
    TcbStatus::OutOfDate,
    TcbStatus::OutOfDateConfigurationNeeded,
    TcbStatus::Revoked,
];

fn scenarios() -> impl Strategy<Value = Scenario> {
    let layout = prop_oneof![
        1 => Just((3, BodyType::SGX)),
        1 => Just((4, BodyType::SGX)),
        1 => Just((5, BodyType::SGX)),
        4 => Just((4, BodyType::TD10)),
        1 => Just((5, BodyType::TD10)),
        4 => Just((5, BodyType::TD15)),
        2 => Just((5, BodyType::TD15_EX))];
    let shape = (
        layout,
        prop_oneof![4 => Just(32), 1 => Just(0), 1 => 0..200usize],
        prop_oneof![6 => Just(5u16), 1 => 1..=4u16],
        prop_oneof![Just(0), Just(70), 0..4000usize],
        prop_oneof![Just(PckCa::Platform), Just(PckCa::Processor)],
        prop_oneof![Just(0), 1..30 * DAY, Just(30 * DAY)],
    );
    let fault = prop_oneof![
        12 => Just(Fault::None),
        1 => Just(Fault::Revoked(Role::Pck)),
        1 => Just(Fault::Revoked(Role::PckCa)),
        1 => Just(Fault::Revoked(Role::TcbSigner)),
        1 => Just(Fault::Revoked(Role::Root)),
        1 => Just(Fault::Fmspc),
        1 => Just(Fault::PceId),
        1 => Just(Fault::ModuleSigner),
        1 => Just(Fault::SeamAttributes),
        1 => Just(Fault::ModuleUnknown),
        1 => Just(Fault::EarlyByOne),
        1 => Just(Fault::LateByOne),
        1 => Just(Fault::CrlExpired)];
    let platform = prop::sample::select(PLATFORM_STATUSES.to_vec());
    let module = prop::sample::select(vec![TcbStatus::UpToDate, TcbStatus::OutOfDate, TcbStatus::Revoked]);
    let qe = prop::sample::select(
        PLATFORM_STATUSES.into_iter().filter(|status| status.is_of_qe()).collect::<Vec<_>>(),
    );
    let svn = prop::sample::select(vec![5u8, 5, 2, 2, 1]);
    let tcb = (
        0..3u8,
        platform.clone(),
        platform,
        svn.clone(),
        svn,
        prop_oneof![3 => Just(TcbStatus::UpToDate), 1 => module],
        prop_oneof![3 => Just(TcbStatus::UpToDate), 1 => qe],
        prop::bool::weighted(0.9),
    );
    let attributes = prop_oneof![
        6 => Just(TdAttributes::SEPT_VE_DISABLE),
        1 => Just(TdAttributes::SEPT_VE_DISABLE | TdAttributes::DEBUG),
        1 => Just(TdAttributes::SEPT_VE_DISABLE | TdAttributes::MIGRATABLE),
        1 => Just(0)];
    (shape, fault, tcb, attributes, prop::bool::weighted(0.1)).prop_map(
        |(shape, fault, tcb, attributes, service_td)| {
            let ((version, body), qe_auth, certification, padding, ca, age) = shape;
            let (major, high, low, launch, current, module, qe, qe_reaches) = tcb;
            Scenario {
                version,
                body,
                qe_auth,
                certification,
                padding,
                ca,
                age,
                fault,
                major,
                high,
                low,
                launch,
                current,
                module,
                qe,
                qe_reaches,
                attributes,
                service_td,
            }
        },
    )
}

/// Evidence of a scenario.
struct Evidence {
    root: Vec<u8>,
    quote: Vec<u8>,
    bundle: Bundle,
    at: u64,
}

impl Scenario {
    fn is_tdx(&self) -> bool {
        self.body != BodyType::SGX
    }

    fn is_td15(&self) -> bool {
        matches!(self.body, BodyType::TD15 | BodyType::TD15_EX)
    }

    fn tee_tcb_svn(&self, component: u8) -> [u8; 16] {
        let mut svn = [0; 16];
        (svn[0], svn[1], svn[2]) = (5, self.major, component);
        svn
    }

    fn td_report(&self) -> TdReport {
        let mut report = TdReport::zeroed();
        let tcb = &mut report.tee_tcb_info;
        tcb.tee_tcb_svn = self.tee_tcb_svn(self.launch);
        tcb.tee_tcb_svn2 = self.tee_tcb_svn(self.current);
        if self.fault == Fault::ModuleUnknown {
            tcb.tee_tcb_svn[1] = 9;
        }
        if self.fault == Fault::ModuleSigner {
            tcb.mr_signer_seam[47] = 1;
        }
        if self.fault == Fault::SeamAttributes {
            tcb.attributes = U64::new(1);
        }
        report.td_info.attributes = TdAttributes::from_bits(self.attributes);
        report.td_info.mr_td = [0x77; 48];
        if self.service_td {
            report.td_info.servtd_hash = [0x33; 48];
        }
        report.mac.report_data = [0x44; 64];
        report
    }

    fn quote_body(&self) -> QuoteBody {
        let report = self.td_report();
        match self.body {
            BodyType::TD10 => QuoteBody::Td10(report.to_td10()),
            BodyType::TD15 => QuoteBody::Td15(report.to_td15()),
            BodyType::TD15_EX => QuoteBody::Td15Ex(report.to_td15_ex()),
            _ => {
                let mut enclave = [0; EnclaveReport::SIZE];
                enclave[48] = 5;
                QuoteBody::Sgx(EnclaveReport::read_from_bytes(&enclave).expect("384 bytes"))
            }
        }
    }

    fn collateral(&self, platform: &PlatformSpec) -> CollateralSpec {
        let tee = if self.is_tdx() { TeeType::TDX } else { TeeType::SGX };
        let at = UnixSeconds(ISSUED);
        let mut spec = CollateralSpec::up_to_date(platform, tee, &self.tee_tcb_svn(5), 4, at);
        let high = spec.levels[0].clone();
        let level = |status, component: u8, advisory: &str| LevelSpec {
            status,
            tdx: {
                let mut tdx = high.tdx;
                tdx[2] = component;
                tdx
            },
            advisories: vec![advisory.to_string()],
            ..high.clone()
        };
        // The lower level comes first: the order in the text must not matter.
        let mut low = level(self.low, 2, "INTEL-SA-00002");
        if !self.is_tdx() {
            low.pce_svn -= 1;
        }
        spec.levels = vec![low, level(self.high, 5, "INTEL-SA-00005")];
        for module in &mut spec.modules {
            module.levels[0].status = self.module;
            module.levels[0].advisories = vec!["INTEL-SA-00100".into()];
        }
        spec.qe_levels[0].status = self.qe;
        spec.qe_levels[0].advisories = vec!["INTEL-SA-00200".into(), "INTEL-SA-00005".into()];
        match self.fault {
            Fault::Revoked(role) => spec.revoked.push(role),
            Fault::Fmspc => spec.fmspc[5] ^= 1,
            Fault::PceId => spec.pce_id[1] ^= 1,
            Fault::CrlExpired => {
                spec.crl_validity =
                    Validity { from: UnixSeconds(ISSUED - 9 * DAY), until: UnixSeconds(ISSUED - 1) };
            }
            _ => {}
        }
        spec
    }

    fn issue(&self) -> Evidence {
        let spec = PlatformSpec { ca: self.ca, ..PlatformSpec::default() };
        let platform = TestPlatform::new([11; 32], spec);
        let quote = QuoteSpec {
            version: self.version,
            qe_auth: (0..self.qe_auth).map(|at| at as u8).collect(),
            certification: CertificationType(self.certification),
            qe_isv_svn: if self.qe_reaches { 4 } else { 3 },
            padding: self.padding,
        };
        let at = match self.fault {
            Fault::EarlyByOne => ISSUED - 1,
            Fault::LateByOne => ISSUED + 30 * DAY + 1,
            _ => ISSUED + self.age,
        };
        Evidence {
            root: platform.pki().certificate(Role::Root),
            quote: platform.quote(&self.quote_body(), &quote).expect("a quote of this layout"),
            bundle: platform.collateral(&self.collateral(platform.spec()), quote.certification),
            at,
        }
    }

    /// What Intel's library decides: `None` for an invalid quote.
    fn expected(&self) -> Option<TcbStatus> {
        let module_faults = [Fault::ModuleSigner, Fault::SeamAttributes, Fault::ModuleUnknown];
        match self.fault {
            Fault::None => {}
            fault if module_faults.contains(&fault) && !self.is_tdx() => {}
            _ => return None,
        }
        let Some(launch) = self.evaluate(self.launch) else { return Some(TcbStatus::NotSupported) };
        if !self.is_td15() {
            return Some(launch);
        }
        let Some(current) = self.evaluate(self.current) else { return Some(TcbStatus::NotSupported) };
        use TcbStatus as S;
        Some(match (launch, current) {
            (S::OutOfDate, S::UpToDate | S::SwHardeningNeeded) => S::TdRelaunchAdvised,
            (S::OutOfDateConfigurationNeeded, S::UpToDate | S::SwHardeningNeeded)
            | (
                S::OutOfDate | S::OutOfDateConfigurationNeeded,
                S::ConfigurationNeeded | S::ConfigurationAndSwHardeningNeeded,
            ) => S::TdRelaunchAdvisedConfigurationNeeded,
            _ => launch,
        })
    }

    fn evaluate(&self, component: u8) -> Option<TcbStatus> {
        use TcbStatus as S;
        let platform = match component {
            _ if !self.is_tdx() => self.high,
            5.. => self.high,
            2.. => self.low,
            _ => return None,
        };
        if !self.qe_reaches {
            return None;
        }
        let module = if self.is_tdx() && self.major > 0 { self.module } else { S::UpToDate };
        let parts = [self.qe, module];
        Some(if parts.contains(&S::Revoked) {
            S::Revoked
        } else if parts.contains(&S::OutOfDate) {
            match platform {
                S::UpToDate | S::SwHardeningNeeded => S::OutOfDate,
                S::ConfigurationNeeded | S::ConfigurationAndSwHardeningNeeded => {
                    S::OutOfDateConfigurationNeeded
                }
                other => other,
            }
        } else {
            platform
        })
    }

    /// The default policy's verdict on a valid quote: it is for TDs.
    fn expected_policy(&self, status: TcbStatus) -> bool {
        status == TcbStatus::UpToDate
            && self.is_tdx()
            && self.attributes == TdAttributes::SEPT_VE_DISABLE
            && !(self.is_td15() && self.service_td)
    }

    /// The differences of `attest/PEERS.md` by which the peer refuses what Intel's library takes.
    fn peer_refuses(&self, status: TcbStatus) -> bool {
        let current = if self.is_td15() { self.evaluate(self.current) } else { None };
        let refuses_by_policy = self.is_tdx()
            && (self.attributes != TdAttributes::SEPT_VE_DISABLE || (self.is_td15() && self.service_td));
        // D1: QE authentication data of other lengths than 32.
        self.qe_auth != 32
            // D2: SGX quotes of versions 4 and 5.
            || (self.body == BodyType::SGX && self.version != 3)
            // D4: a TCB below every level is an error there, a status here.
            || status == TcbStatus::NotSupported
            // D5: Revoked is an error there, also for the present TCB alone.
            || status == TcbStatus::Revoked
            || current == Some(TcbStatus::Revoked)
            // D6: attributes and service TDs are judged inside verification.
            || refuses_by_policy
            // D7: the second of nextUpdate counts as expired for CRLs.
            || self.age == 30 * DAY
    }
}

/// Our verdict: status and policy, or the error's code.
fn ours(evidence: &Evidence, crypto: impl Crypto) -> Result<(TcbStatus, Vec<String>, bool), String> {
    let anchor = TrustAnchor::from_bytes(&evidence.root).expect("the root");
    let mut verifier = Verifier::with_crypto(anchor, crypto);
    let verified = verifier
        .add_collateral(&evidence.bundle)
        .and_then(|()| verifier.verify(&evidence.quote, UnixSeconds(evidence.at)))
        .map_err(|error| format!("{}: {error}", error.code()))?;
    let policy = Policy::default().evaluate(&verified, &Context::default());
    let advisories = verified.tcb.advisories.iter().map(ToString::to_string).collect();
    Ok((verified.tcb.status, advisories, policy.is_accepted()))
}

fn peers(evidence: &Evidence) -> Result<(String, Vec<String>), String> {
    let collateral: QuoteCollateralV3 =
        serde_json::from_str(&evidence.bundle.to_json()).expect("the peer's bundle");
    QuoteVerifier::new(evidence.root.clone())
        .verify(&evidence.quote, &collateral, evidence.at)
        .map(|report| (report.status, report.advisory_ids))
        .map_err(|error| format!("{error:#}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn issued_quotes_get_intels_verdict_and_the_peers_up_to_listed_differences(scenario in scenarios()) {
        let evidence = scenario.issue();
        let verdict = ours(&evidence, Ring);
        prop_assert_eq!(&verdict, &ours(&evidence, RustCrypto), "the backends differ");
        let status = verdict.as_ref().ok().map(|(status, ..)| *status);
        prop_assert_eq!(status, scenario.expected(), "{:?}", verdict);
        if let Ok((status, _, accepted)) = &verdict {
            prop_assert_eq!(*accepted, scenario.expected_policy(*status));
        }
        // A bundle survives its file.
        let again = Bundle::from_json(&evidence.bundle.to_json()).expect("our own bundle");
        prop_assert_eq!(&again, &evidence.bundle);

        match (verdict, peers(&evidence)) {
            (Err(_), Err(_)) => {}
            (Ok((status, mut advisories, _)), Ok((peer_status, mut peer_advisories))) => {
                prop_assert!(!scenario.peer_refuses(status), "the peer takes what PEERS.md says it refuses");
                prop_assert_eq!(status.name(), peer_status);
                // D8: the same advisories in another order.
                advisories.sort();
                peer_advisories.sort();
                prop_assert_eq!(advisories, peer_advisories);
            }
            (Ok((status, ..)), Err(peer)) => {
                prop_assert!(scenario.peer_refuses(status), "an unlisted difference: {} against {peer}", status);
            }
            (Err(ours), Ok((peer, _))) => {
                // D3: PCEID is not compared there.
                prop_assert!(scenario.fault == Fault::PceId, "an unlisted difference: {ours} against {peer}");
            }
        }
    }
}

#[test]
fn a_second_quote_gets_the_same_verdict_from_a_verifier_that_knows_the_platform() {
    let scenario = Scenario {
        version: 5,
        body: BodyType::TD15,
        qe_auth: 32,
        certification: 5,
        padding: 0,
        ca: PckCa::Platform,
        age: 0,
        fault: Fault::None,
        major: 1,
        high: TcbStatus::UpToDate,
        low: TcbStatus::OutOfDate,
        launch: 2,
        current: 5,
        module: TcbStatus::UpToDate,
        qe: TcbStatus::UpToDate,
        qe_reaches: true,
        attributes: TdAttributes::SEPT_VE_DISABLE,
        service_td: false,
    };
    let evidence = scenario.issue();
    let anchor = TrustAnchor::from_bytes(&evidence.root).expect("the root");
    let mut verifier = Verifier::with_crypto(anchor, Ring);
    verifier.add_collateral(&evidence.bundle).expect("the collateral");
    let at = UnixSeconds(evidence.at);
    for _ in 0..3 {
        let verified = verifier.verify(&evidence.quote, at).expect("the quote");
        assert_eq!(verified.tcb.status, TcbStatus::TdRelaunchAdvised);
    }
    // What is known is still dated: a month later nothing holds.
    assert!(verifier.verify(&evidence.quote, UnixSeconds(ISSUED + 31 * DAY)).is_err());
    assert!(verifier.verify(&evidence.quote, at).is_ok());
    // New collateral that revokes the platform takes effect at once.
    let revoking = Scenario { fault: Fault::Revoked(Role::Pck), ..scenario }.issue();
    verifier.add_collateral(&revoking.bundle).expect("the collateral");
    assert_eq!(
        verifier.verify(&evidence.quote, at).map(drop).map_err(|error| error.code()),
        Err("pck-revoked")
    );
}
