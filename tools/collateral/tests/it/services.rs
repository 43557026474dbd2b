//! Fetching from services as they are and as they should not be: each fault is played by a server of the test's own.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use crate::faults::{self, Behaviour, FaultServer};
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::{Parts, PckIssuer, Service, Source, UpdateSet};
use tdvisor_attest::issue::{CollateralSpec, PckCa, PlatformSpec, QuoteBody, QuoteSpec, TestPlatform};
use tdvisor_attest::quote::{CertificationType, TdReport10, TeeType};
use tdvisor_attest::verify::{TrustAnchor, Verifier};
use tdvisor_collateral::TlsRoots;
use tdvisor_collateral::answer::Patience;
use tdvisor_collateral::cache::Cache;
use tdvisor_collateral::fetch::{FetchError, Fetched, Fetcher, Network, Why};
use tdvisor_collateral::serve::serve;
use tdvisor_collateral::store::Store;
use zerocopy::FromZeros;

/// 2026-07-01, when the collateral of these tests is issued.
const AT: UnixSeconds = UnixSeconds(1_782_864_000);
/// Seconds of a day.
const DAY: u64 = 86_400;
/// For servers that never finish.
const SHORT: Duration = Duration::from_millis(300);
/// For servers that do.
const LONG: Duration = Duration::from_secs(60);

/// A quote, what verifies it, and a service that has it.
struct World {
    platform: TestPlatform,
    quote: Vec<u8>,
    store: Store,
}

impl World {
    fn new() -> Self {
        Self::of(PckCa::Platform, CertificationType::PCK_CHAIN)
    }

    fn of(ca: PckCa, certification: CertificationType) -> Self {
        let platform = TestPlatform::new([7; 32], PlatformSpec { ca, ..PlatformSpec::default() });
        let spec = QuoteSpec { certification, ..QuoteSpec::default() };
        let quote = platform.quote(&QuoteBody::Td10(TdReport10::new_zeroed()), &spec).expect("a quote");
        let store = store(&[&Self::collateral(&platform, certification, 17)]);
        Self { platform, quote, store }
    }

    fn collateral(platform: &TestPlatform, certification: CertificationType, number: u32) -> String {
        let spec = CollateralSpec {
            evaluation_number: number,
            ..CollateralSpec::up_to_date(platform.spec(), TeeType::TDX, &[0; 16], 4, AT)
        };
        platform.collateral(&spec, certification).to_json()
    }

    fn fetcher(&self, service: Service, whole: Duration) -> Fetcher {
        Fetcher {
            source: Source { service, update: None },
            tls: TlsRoots::Web,
            anchor: TrustAnchor::from_bytes(self.platform.pki().root_pem().as_bytes()).expect("a root"),
            cache: None,
            network: Network::WhenNeeded,
            patience: Patience { whole, first_pause: Duration::from_millis(1) },
        }
    }

    #[track_caller]
    fn verifies(&self, fetched: &Fetched) {
        let mut verifier = Verifier::new(
            TrustAnchor::from_bytes(self.platform.pki().root_pem().as_bytes()).expect("a root"),
        );
        verifier.add_collateral(&fetched.bundle).expect("collateral that holds");
        verifier.verify(&self.quote, AT).expect("a valid quote");
    }
}

fn store(files: &[&str]) -> Store {
    let mut parts = Parts::default();
    files.iter().for_each(|file| parts.add(file.as_bytes()).expect("collateral"));
    Store::new(&parts).expect("a store")
}

/// The address of our own server with this store.
fn pccs(store: &Store) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let store = store.clone();
    std::thread::spawn(move || serve(&listener, store));
    format!("http://{address}")
}

fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&path);
    path
}

#[track_caller]
fn faults(result: Result<Fetched, FetchError>) -> Vec<(String, Why)> {
    match result {
        Err(FetchError::Faults(faults)) => {
            faults.into_iter().map(|fault| (fault.request.part.to_string(), fault.why)).collect()
        }
        other => panic!("not a list of faults: {other:?}"),
    }
}

#[test]
fn what_a_pccs_of_ours_hands_out_verifies_the_quote_for_every_authority_and_form_of_certificate() {
    for ca in [PckCa::Platform, PckCa::Processor] {
        for certification in [CertificationType::PCK_CHAIN, CertificationType::PPID_RSA3072] {
            let world = World::of(ca, certification);
            let fetcher = world.fetcher(Service::pccs(&pccs(&world.store)), LONG);
            let fetched = fetcher.fetch(&world.quote, AT).unwrap_or_else(|error| panic!("{ca:?}: {error}"));
            assert_eq!(fetched.cached, 0);
            world.verifies(&fetched);
        }
    }
}

#[test]
fn a_service_that_answers_like_intels_gives_the_same_with_the_roots_list_elsewhere() {
    let world = World::new();
    let base = pccs(&world.store);
    let service = Service::pcs(&base, &format!("{base}/sgx/certification/v4/rootcacrl"));
    world.verifies(&world.fetcher(service, LONG).fetch(&world.quote, AT).expect("collateral"));
}

#[test]
fn early_and_standard_sets_are_told_apart_by_their_evaluation_numbers() {
    let world = World::new();
    let sets =
        [17, 18].map(|number| World::collateral(&world.platform, CertificationType::PCK_CHAIN, number));
    let base = pccs(&store(&sets.each_ref().map(String::as_str)));
    for (update, number) in [(None, 17), (Some(UpdateSet::Standard), 17), (Some(UpdateSet::Early), 18)] {
        let mut fetcher = world.fetcher(Service::pccs(&base), LONG);
        fetcher.source.update = update;
        let fetched = fetcher.fetch(&world.quote, AT).expect("collateral");
        let wanted = format!("\"tcbEvaluationDataNumber\":{number}");
        assert!(fetched.bundle.tcb_info.body.contains(&wanted), "{update:?}");
        assert!(fetched.bundle.qe_identity.body.contains(&wanted), "{update:?}");
    }
}

#[test]
fn everything_that_a_service_lacks_is_named_at_once() {
    let world = World::new();
    let server = FaultServer::start(&world.store, |_| Behaviour::Status(404));
    let faults = faults(world.fetcher(Service::pccs(&server.url), LONG).fetch(&world.quote, AT));
    let parts: Vec<&str> = faults.iter().map(|(part, _)| part.as_str()).collect();
    assert_eq!(parts, ["TCB info", "QE identity", "PCK CRL", "root CRL"]);
    for (part, why) in &faults {
        let why = format!("{why:?}");
        assert!(why.contains("Status(404)"), "{part}: {why}");
    }
}

#[test]
fn one_answer_that_never_ends_does_not_hide_what_became_of_the_others() {
    let world = World::new();
    for behaviour in [Behaviour::Silent, Behaviour::Trickle] {
        let server = FaultServer::start(&world.store, move |path| {
            if path.contains("/tcb?") { behaviour } else { Behaviour::Good }
        });
        let faults = faults(world.fetcher(Service::pccs(&server.url), SHORT).fetch(&world.quote, AT));
        assert_eq!(faults.len(), 1, "{behaviour:?}: {faults:?}");
        let why = format!("{faults:?}");
        assert!(why.contains("TCB info") && why.contains("Deadline"), "{behaviour:?}: {why}");
    }
}

#[test]
fn an_answer_that_is_cut_short_is_none() {
    let world = World::new();
    for part in ["/tcb?", "qe/identity", "pckcrl", "rootcacrl"] {
        let server = FaultServer::start(&world.store, move |path| {
            if path.contains(part) { Behaviour::Cut } else { Behaviour::Good }
        });
        let faults = faults(world.fetcher(Service::pccs(&server.url), LONG).fetch(&world.quote, AT));
        assert_eq!(faults.len(), 1, "{part}: {faults:?}");
    }
}

#[test]
fn a_wrong_missing_or_doubled_chain_header_is_a_fault() {
    let world = World::new();
    for (behaviour, word) in [
        (Behaviour::NoChain, "NoChain"),
        (Behaviour::TwoChains, "Unreadable"),
        (Behaviour::GarbledChain, "Unreadable"),
    ] {
        for part in ["/tcb?", "qe/identity", "pckcrl"] {
            let server = FaultServer::start(&world.store, move |path| {
                if path.contains(part) { behaviour } else { Behaviour::Good }
            });
            let faults = faults(world.fetcher(Service::pccs(&server.url), LONG).fetch(&world.quote, AT));
            let why = format!("{faults:?}");
            assert!(faults.len() == 1 && why.contains(word), "{behaviour:?} {part}: {why}");
        }
    }
}

#[test]
fn collateral_of_another_root_is_refused_and_not_kept() {
    let world = World::new();
    let stranger = TestPlatform::new([8; 32], PlatformSpec::default());
    let store = store(&[&World::collateral(&stranger, CertificationType::PCK_CHAIN, 17)]);
    let path = folder("another-root");
    let mut fetcher = world.fetcher(Service::pccs(&pccs(&store)), LONG);
    fetcher.cache = Some(Cache::open(&path).expect("a cache"));
    let refused = fetcher.fetch(&world.quote, AT);
    assert!(matches!(refused, Err(FetchError::Untrusted(_))), "{refused:?}");
    assert_eq!(std::fs::read_dir(&path).expect("the cache").count(), 0);
}

#[test]
fn an_answer_of_another_platform_authority_or_tee_is_not_the_answer() {
    let world = World::new();
    let spec = PlatformSpec { fmspc: *b"OTHERS", ca: PckCa::Processor, ..PlatformSpec::default() };
    let other = TestPlatform::new([7; 32], spec);
    let of_sgx = CollateralSpec::up_to_date(other.spec(), TeeType::SGX, &[0; 16], 4, AT);
    let store = store(&[&other.collateral(&of_sgx, CertificationType::PCK_CHAIN).to_json()]);
    // Whatever is asked for, the answer is what this platform's would be.
    let server = FaultServer::start(&store, |_| Behaviour::WhateverThereIs);
    let faults = faults(world.fetcher(Service::pccs(&server.url), LONG).fetch(&world.quote, AT));
    let whys: Vec<String> = faults.iter().map(|(part, why)| format!("{part} {why:?}")).collect();
    assert_eq!(whys, ["TCB info OfAnother", "QE identity OfAnother", "PCK CRL OfAnother"]);
}

#[test]
fn a_busy_service_is_asked_again_until_the_time_is_up() {
    let world = World::new();
    for status in [429, 500, 503] {
        // Busy for the first three requests of each part.
        let server = FaultServer::start(&world.store, move |_| Behaviour::BusyFor { status, requests: 3 });
        world.verifies(
            &world.fetcher(Service::pccs(&server.url), LONG).fetch(&world.quote, AT).expect("patience"),
        );
        let server =
            FaultServer::start(&world.store, move |_| Behaviour::BusyFor { status, requests: usize::MAX });
        let faults = faults(world.fetcher(Service::pccs(&server.url), SHORT).fetch(&world.quote, AT));
        assert_eq!(faults.len(), 4, "{status}");
        assert!(format!("{faults:?}").contains("Busy"), "{status}: {faults:?}");
    }
    // Who is asked to wait for longer than there is does not wait.
    let server = FaultServer::start(&world.store, |_| Behaviour::RetryAfterAnHour);
    let faults = faults(world.fetcher(Service::pccs(&server.url), LONG).fetch(&world.quote, AT));
    assert!(format!("{faults:?}").contains("attempts: 1"), "{faults:?}");
}

#[test]
fn redirections_and_bodies_without_end_are_refused() {
    let world = World::new();
    for (behaviour, word) in [(Behaviour::Redirect, "Status(302)"), (Behaviour::Endless, "TooLarge")] {
        let server = FaultServer::start(&world.store, move |path| {
            if path.contains("/tcb?") { behaviour } else { Behaviour::Good }
        });
        let faults = faults(world.fetcher(Service::pccs(&server.url), LONG).fetch(&world.quote, AT));
        assert!(faults.len() == 1 && format!("{faults:?}").contains(word), "{behaviour:?}: {faults:?}");
    }
}

#[test]
fn the_cache_answers_without_a_service_until_the_day_that_the_answers_say() {
    let world = World::new();
    let path = folder("cache");
    let base = pccs(&world.store);
    let mut fetcher = world.fetcher(Service::pccs(&base), LONG);
    fetcher.cache = Some(Cache::open(&path).expect("a cache"));
    let first = fetcher.fetch(&world.quote, AT).expect("collateral");
    assert_eq!((first.cached, first.asked, first.not_kept), (0, 4, None));
    let again = fetcher.fetch(&world.quote, AT).expect("collateral");
    assert_eq!((again.cached, again.asked), (4, 0));
    assert_eq!(again.bundle, first.bundle);
    fetcher.network = Network::Never;
    let last_second = UnixSeconds(AT.0 + 30 * DAY - 1);
    assert_eq!(fetcher.fetch(&world.quote, last_second).expect("collateral").cached, 4);
    let expired = faults(fetcher.fetch(&world.quote, UnixSeconds(AT.0 + 30 * DAY)));
    assert!(
        expired.len() == 4 && expired.iter().all(|(_, why)| matches!(why, Why::NotCached)),
        "{expired:?}"
    );
    fetcher.network = Network::WhenNeeded;
    let stale = faults(fetcher.fetch(&world.quote, UnixSeconds(AT.0 + 30 * DAY)));
    assert!(stale.iter().all(|(_, why)| matches!(why, Why::Expired(_))), "{stale:?}");
    // The folder is collateral for everybody.
    let mut parts = Parts::default();
    for entry in std::fs::read_dir(&path).expect("the cache") {
        let file = std::fs::read(entry.expect("a file").path()).expect("a file");
        parts.add(&file).expect("a saved response");
    }
    assert_eq!(parts.build().expect("a bundle"), first.bundle);
}

#[test]
fn a_damaged_file_of_the_cache_is_asked_for_again() {
    let world = World::new();
    let path = folder("damaged");
    let mut fetcher = world.fetcher(Service::pccs(&pccs(&world.store)), LONG);
    fetcher.cache = Some(Cache::open(&path).expect("a cache"));
    fetcher.fetch(&world.quote, AT).expect("collateral");
    let files: Vec<PathBuf> =
        std::fs::read_dir(&path).expect("the cache").map(|entry| entry.expect("a file").path()).collect();
    assert_eq!(files.len(), 4);
    for file in files {
        let whole = std::fs::read(&file).expect("a file");
        for damage in [&whole[..whole.len() / 2], &[], b"HTTP/1.1 200 OK\r\n\r\n"] {
            std::fs::write(&file, damage).expect("written");
            let fetched = fetcher.fetch(&world.quote, AT).expect("collateral");
            assert_eq!(fetched.asked, 1, "{}", file.display());
            world.verifies(&fetched);
        }
        // A flipped bit that leaves the form alone breaks a signature: everything is asked for again.
        let mut flipped = whole;
        let last = flipped.len() - 10;
        flipped[last] ^= 1;
        std::fs::write(&file, flipped).expect("written");
        world.verifies(&fetcher.fetch(&world.quote, AT).expect("collateral"));
    }
}

#[test]
fn a_quote_that_is_none_or_names_no_platform_is_said_to_be_so_before_anybody_is_asked() {
    let world = World::new();
    let nowhere = world.fetcher(Service::pccs("http://127.0.0.1:9"), LONG);
    assert!(matches!(nowhere.fetch(b"no quote", AT), Err(FetchError::Quote(_))));
    let nameless = World::of(PckCa::Platform, CertificationType::PPID_CLEARTEXT);
    assert!(matches!(nowhere.fetch(&nameless.quote, AT), Err(FetchError::NoPlatform)));
    let refused = faults(nowhere.fetch(&world.quote, AT));
    assert_eq!(refused.len(), 4);
}

#[test]
fn requests_that_are_none_get_a_status_and_bind_nobody() {
    use tdvisor_collateral::store::Reply;
    let world = World::new();
    let tcb = "/tdx/certification/v4/tcb";
    let found = |path: &str, query: &str| matches!(world.store.answer(path, query), Reply::Found { .. });
    assert!(found(tcb, "fmspc=544456545354") && found(tcb, "fmspc=544456545354&update=early"));
    assert!(found("/sgx/certification/v4/pckcrl", &format!("ca={}", PckIssuer::Platform)));
    for (path, query) in [
        (tcb, ""),
        (tcb, "fmspc"),
        (tcb, "fmspc=54445654535"),
        (tcb, "fmspc=54445654535g"),
        (tcb, "fmspc=544456545354&fmspc=544456545354"),
        (tcb, "fmspc=544456545354&update=late"),
        (tcb, "fmspc=544456545354&update=early&tcbEvaluationDataNumber=17"),
        ("/sgx/certification/v4/pckcrl", "ca=nobody"),
        ("/sgx/certification/v4/pckcrl", "ca=platform&encoding=xml"),
    ] {
        assert!(matches!(world.store.answer(path, query), Reply::BadRequest(_)), "{path}?{query}");
    }
    for (path, query) in [
        (tcb, "fmspc=000000000000"),
        (tcb, "fmspc=544456545354&tcbEvaluationDataNumber=16"),
        ("/sgx/certification/v4/tcb", "fmspc=544456545354"),
        ("/tdx/certification/v3/tcb", "fmspc=544456545354"),
        ("/sgx/certification/v4/pckcrl", "ca=processor"),
        ("/", ""),
    ] {
        assert_eq!(world.store.answer(path, query), Reply::NotFound, "{path}?{query}");
    }
    let base = pccs(&world.store);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "404"),
        ("POST / HTTP/1.1\r\n\r\n".to_owned(), "405"),
        ("no request\r\n\r\n".to_owned(), "400"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(9000)), "431"),
    ] {
        let answer = faults::raw(&base, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[test]
fn a_service_with_a_certificate_of_its_own_is_asked_only_if_that_is_trusted() {
    const CERTIFICATE: &[u8] = include_bytes!("../../../attest-serve/tests/fixtures/tls-cert.pem");
    const KEY: &[u8] = include_bytes!("../../../attest-serve/tests/fixtures/tls-key.pem");
    let world = World::new();
    let certificate = tdvisor_attest::x509::pem::certificate(CERTIFICATE).expect("a certificate");
    let key = tdvisor_attest::x509::pem::private_key(KEY).expect("a key");
    let url = faults::over_tls(&world.store, certificate, key);
    let mut fetcher = world.fetcher(Service::pccs(&url), LONG);
    fetcher.tls = TlsRoots::from_bytes(CERTIFICATE).expect("certificates");
    world.verifies(&fetcher.fetch(&world.quote, AT).expect("collateral over TLS"));
    fetcher.tls = TlsRoots::Web;
    let refused = faults(fetcher.fetch(&world.quote, AT));
    assert_eq!(refused.len(), 4);
    assert!(TlsRoots::from_bytes(KEY).is_err());
}
