//! Conversations between two migration TDs, and what a host between them may try.

use tdvisor_attest::UnixSeconds;
use tdvisor_attest::issue::{CollateralSpec, PlatformSpec, QuoteBody, QuoteSpec, TestPlatform};
use tdvisor_attest::policy::{Expected, Policy, Rule, Tee};
use tdvisor_attest::quote::{TdAttributes, TdReport15, TeeType};
use tdvisor_migration_td::{
    HELLO_BYTES, Hello, Met, MigrationKey, Refused, Role, SEALED_BYTES, Sealed, Start, Subject, Trust,
    Trusted, Untrusting,
};
use tdvisor_test_data::chance::Chance;
use zerocopy::FromZeros;

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);
/// The measurement of the migration TD that both sides know.
const KNOWN: [u8; 48] = [0x4d; 48];
/// The evaluation number of the test platform's collateral.
const FLOOR: u32 = 17;
const SEPT_VE_DISABLE: u64 = 1 << 28;
const DEBUG: u64 = 1;

/// A machine with a quoting enclave.
struct Machine {
    platform: TestPlatform,
    chance: Chance,
}

impl Machine {
    fn new(seed: u8) -> Self {
        let platform = TestPlatform::new([7; 32], PlatformSpec::default());
        Self { platform, chance: Chance::new(seed.into()) }
    }

    fn start(&mut self, role: Role) -> Start {
        let subject = Subject([role as u8; 32]);
        let random = |out: &mut [u8]| {
            self.chance.fill(out);
            true
        };
        Start::new(role, subject, random).unwrap()
    }

    fn quote_of(&self, mr_td: [u8; 48], attributes: u64, report_data: [u8; 64]) -> Vec<u8> {
        let mut body = TdReport15::new_zeroed();
        body.base.mr_td = mr_td;
        body.base.td_attributes = TdAttributes::from_bits(attributes);
        body.base.report_data = report_data;
        let spec = QuoteSpec { version: 5, ..QuoteSpec::default() };
        self.platform.quote(&QuoteBody::Td15(body), &spec).unwrap()
    }

    /// The quote of a good migration TD in a conversation.
    fn quote(&self, met: &Met) -> Vec<u8> {
        self.quote_of(KNOWN, SEPT_VE_DISABLE, met.report_data())
    }

    fn collateral(&self) -> tdvisor_attest::collateral::Bundle {
        let spec = QuoteSpec::default();
        let up_to_date =
            CollateralSpec::up_to_date(self.platform.spec(), TeeType::TDX, &[0; 16], spec.qe_isv_svn, NOW);
        self.platform.collateral(&up_to_date, spec.certification)
    }

    fn trust(&self) -> Trust {
        Trust::in_a_test(policy(), self.platform.pki().root_pem().as_bytes()).unwrap()
    }

    fn judge(&self, met: Met, quote: &[u8]) -> Result<Trusted, Refused> {
        met.trust(quote, &self.collateral(), &self.trust())
    }
}

fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.td.mr_td = Expected::OneOf(vec![KNOWN]);
    policy.tcb.minimum_evaluation_number = FLOOR;
    policy
}

/// Two machines whose migration TDs have heard each other, and the Hellos.
fn met(here: &mut Machine, there: &mut Machine) -> (Met, Met, [Hello; 2]) {
    let (source, destination) = (here.start(Role::Source), there.start(Role::Destination));
    let hellos = [*source.hello(), *destination.hello()];
    let met = (source.meet(&hellos[1]).unwrap(), destination.meet(&hellos[0]).unwrap());
    (met.0, met.1, hellos)
}

fn machines() -> (Machine, Machine) {
    (Machine::new(1), Machine::new(2))
}

const KEYS: [[u64; 4]; 2] = [[1, 2, 3, u64::MAX], [5, 6, 7, 8]];

#[test]
fn two_migration_tds_that_trust_each_other_hand_over_both_keys() {
    let (mut here, mut there) = machines();
    let (source, destination, _) = met(&mut here, &mut there);
    let quotes = [here.quote(&source), there.quote(&destination)];
    let mut source = here.judge(source, &quotes[1]).unwrap();
    let mut destination = there.judge(destination, &quotes[0]).unwrap();
    let forth = source.seal(&MigrationKey::new(KEYS[0])).unwrap();
    let back = destination.seal(&MigrationKey::new(KEYS[1])).unwrap();
    let forth = Sealed::from_bytes(forth.bytes()).unwrap();
    assert_eq!(destination.open(&forth).unwrap().words(), &KEYS[0]);
    assert_eq!(source.open(&back).unwrap().words(), &KEYS[1]);
    // Each direction carries one key.
    assert_eq!(source.seal(&MigrationKey::new(KEYS[0])), None);
    assert_eq!(destination.open(&forth).unwrap_err(), Refused::NotSealed);
    let clear: Vec<u8> = KEYS[0].iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(!forth.bytes().windows(8).any(|window| clear.chunks(8).any(|word| word == window)));
}

fn is_another_conversation(refused: &Refused) -> bool {
    matches!(refused, Refused::Policy(verdict)
        if verdict.findings == [tdvisor_attest::policy::Finding::ReportData])
}

#[test]
fn a_quote_that_is_relayed_from_another_conversation_is_refused() {
    let (mut here, mut there) = machines();
    let mut third = Machine::new(3);
    // A good migration TD talks to a third machine; the host between them passes its quote on.
    let (_, elsewhere, _) = met(&mut third, &mut there);
    let relayed = there.quote(&elsewhere);
    let (source, ..) = met(&mut here, &mut there);
    let refused = here.judge(source, &relayed).unwrap_err();
    assert!(is_another_conversation(&refused), "{refused}");
}

#[test]
fn a_conversation_that_is_replayed_is_refused_on_either_side() {
    let (mut here, mut there) = machines();
    let (source, destination, hellos) = met(&mut here, &mut there);
    let quotes = [here.quote(&source), there.quote(&destination)];
    let mut old_source = here.judge(source, &quotes[1]).unwrap();
    let sealed = old_source.seal(&MigrationKey::new(KEYS[0])).unwrap();
    // The destination begins anew, and hears what the source said then.
    let anew = there.start(Role::Destination).meet(&hellos[0]).unwrap();
    let refused = there.judge(anew, &quotes[0]).unwrap_err();
    assert!(is_another_conversation(&refused), "{refused}");
    let anew = here.start(Role::Source).meet(&hellos[1]).unwrap();
    let refused = here.judge(anew, &quotes[1]).unwrap_err();
    assert!(is_another_conversation(&refused), "{refused}");
    // Nor does an old key open in a good new conversation.
    let (source, destination, _) = met(&mut here, &mut there);
    let mut destination = there.judge(destination, &here.quote(&source)).unwrap();
    assert_eq!(destination.open(&sealed).unwrap_err(), Refused::NotSealed);
}

#[test]
fn quotes_that_are_swapped_or_reflected_are_refused() {
    let (mut here, mut there) = machines();
    let (source, destination, _) = met(&mut here, &mut there);
    let (own, others) = (here.quote(&source), there.quote(&destination));
    let refused = here.judge(source, &own).unwrap_err();
    assert!(is_another_conversation(&refused), "{refused}");
    let refused = there.judge(destination, &others).unwrap_err();
    assert!(is_another_conversation(&refused), "{refused}");
    // Two of one role, and somebody who says what was said to him.
    let (one, other) = (here.start(Role::Source), there.start(Role::Source));
    let hello = *one.hello();
    assert_eq!(one.meet(other.hello()).unwrap_err(), Refused::Reflected);
    assert_eq!(here.start(Role::Source).meet(&hello).unwrap_err(), Refused::Reflected);
    let own = here.start(Role::Source);
    let mut turned = *own.hello().bytes();
    turned[1] = 2;
    let turned = Hello::from_bytes(&turned).unwrap();
    assert_eq!(own.meet(&turned).unwrap_err(), Refused::Reflected);
}

#[test]
fn sealed_keys_that_are_swapped_or_altered_do_not_open() {
    let (mut here, mut there) = machines();
    for bit in (0..8 * SEALED_BYTES).step_by(7) {
        let (source, destination, _) = met(&mut here, &mut there);
        let quotes = [here.quote(&source), there.quote(&destination)];
        let mut source = here.judge(source, &quotes[1]).unwrap();
        let mut destination = there.judge(destination, &quotes[0]).unwrap();
        let sealed = source.seal(&MigrationKey::new(KEYS[0])).unwrap();
        assert_eq!(source.open(&sealed).unwrap_err(), Refused::NotSealed, "its own");
        let mut altered = *sealed.bytes();
        altered[bit / 8] ^= 1 << (bit % 8);
        let altered = Sealed::from_bytes(&altered).unwrap();
        assert_eq!(destination.open(&altered).unwrap_err(), Refused::NotSealed, "bit {bit}");
        assert_eq!(destination.open(&sealed).unwrap_err(), Refused::NotSealed, "after a wrong one");
    }
    assert_eq!(Sealed::from_bytes(&[0; SEALED_BYTES - 1]), None);
}

#[test]
fn whatever_is_changed_in_a_first_word_the_quotes_do_not_fit_any_more() {
    let (mut here, mut there) = machines();
    let (mut heard, mut refused) = (0, 0);
    for bit in (0..8 * HELLO_BYTES).step_by(5) {
        let (source, destination) = (here.start(Role::Source), there.start(Role::Destination));
        let mut altered = *destination.hello().bytes();
        altered[bit / 8] ^= 1 << (bit % 8);
        let other_side = destination.meet(source.hello()).unwrap();
        let Ok(altered) = Hello::from_bytes(&altered) else { continue };
        heard += 1;
        match source.meet(&altered) {
            Ok(source) => {
                let judged = here.judge(source, &there.quote(&other_side)).unwrap_err();
                assert!(is_another_conversation(&judged), "bit {bit}: {judged}");
                refused += 1;
            }
            Err(error) => {
                assert!(matches!(error, Refused::BadKey | Refused::Reflected), "bit {bit}: {error}")
            }
        }
    }
    assert!(heard > 100 && refused > 80, "{heard} heard, {refused} refused by their quotes");
    for length in [0, 1, HELLO_BYTES - 1, HELLO_BYTES + 1] {
        assert!(Hello::from_bytes(&vec![1; length]).is_err());
    }
}

#[test]
fn a_peer_that_the_policy_does_not_want_is_refused() {
    let (mut here, mut there) = machines();
    let mut with = |mr_td: [u8; 48], attributes: u64| {
        let (source, destination, _) = met(&mut here, &mut there);
        let quote = there.quote_of(mr_td, attributes, destination.report_data());
        source.trust(&quote, &there.collateral(), &here.trust()).map(drop)
    };
    assert_eq!(with(KNOWN, SEPT_VE_DISABLE), Ok(()));
    for (mr_td, attributes) in [
        ([0; 48], SEPT_VE_DISABLE),
        (KNOWN, SEPT_VE_DISABLE | DEBUG),
        (KNOWN, SEPT_VE_DISABLE | 1 << 29),
        (KNOWN, 0),
    ] {
        let refused = with(mr_td, attributes).unwrap_err();
        assert!(matches!(refused, Refused::Policy(_)), "{attributes:#x}: {refused}");
    }
}

#[test]
fn evidence_that_was_never_valid_together_and_evidence_from_before_the_floor_are_refused() {
    let (mut here, mut there) = machines();
    let mut with = |change: &dyn Fn(&mut CollateralSpec)| {
        let (source, destination, _) = met(&mut here, &mut there);
        let quote = there.quote(&destination);
        let spec = QuoteSpec::default();
        let mut issued =
            CollateralSpec::up_to_date(there.platform.spec(), TeeType::TDX, &[0; 16], spec.qe_isv_svn, NOW);
        change(&mut issued);
        let collateral = there.platform.collateral(&issued, spec.certification);
        source.trust(&quote, &collateral, &here.trust()).map(drop)
    };
    assert_eq!(with(&|_| ()), Ok(()));
    // The revocation lists had expired when the TCB info was issued, and the other way round.
    let day = 86_400;
    let before = with(&|spec| spec.crl_validity.until = UnixSeconds(spec.json_validity.from.0 - 1));
    assert!(matches!(before, Err(Refused::Quote(_))), "{before:?}");
    let after = with(&|spec| {
        spec.crl_validity.from = UnixSeconds(spec.json_validity.until.0 + 1);
        spec.crl_validity.until = UnixSeconds(spec.json_validity.until.0 + day);
    });
    assert!(matches!(after, Err(Refused::Quote(_))), "{after:?}");
    let old = with(&|spec| spec.evaluation_number = FLOOR - 1);
    assert!(matches!(old, Err(Refused::Policy(_))), "{old:?}");
}

#[test]
fn an_old_tcb_a_broken_quote_and_a_test_root_are_refused() {
    let (mut here, mut there) = machines();
    let (source, destination, _) = met(&mut here, &mut there);
    let quote = there.quote(&destination);
    let spec = QuoteSpec::default();
    let mut old =
        CollateralSpec::up_to_date(there.platform.spec(), TeeType::TDX, &[0; 16], spec.qe_isv_svn, NOW);
    old.levels[0].status = tdvisor_attest::collateral::TcbStatus::OutOfDate;
    let old = there.platform.collateral(&old, spec.certification);
    let refused = source.trust(&quote, &old, &here.trust()).unwrap_err();
    assert!(matches!(refused, Refused::Policy(_)), "{refused}");

    let (source, destination, _) = met(&mut here, &mut there);
    let quote = there.quote(&destination);
    // Nothing is said of test roots: it is Intel's that counts.
    let trust = Trust::new(policy()).unwrap();
    let refused = source.trust(&quote, &there.collateral(), &trust).unwrap_err();
    assert!(matches!(refused, Refused::Quote(_)), "{refused}");

    let length = quote.len();
    for at in (0..length.min(1200)).step_by(61) {
        let (source, destination, _) = met(&mut here, &mut there);
        let mut quote = there.quote(&destination);
        quote[at] ^= 4;
        assert!(here.judge(source, &quote).is_err(), "byte {at}");
        let (source, destination, _) = met(&mut here, &mut there);
        let quote = there.quote(&destination);
        assert!(here.judge(source, &quote[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn a_policy_by_which_anybody_would_be_trusted_is_none() {
    assert!(Trust::new(policy()).is_ok());
    let refused = |change: fn(&mut Policy)| {
        let mut lax = policy();
        change(&mut lax);
        Trust::new(lax).map(drop).unwrap_err()
    };
    assert_eq!(Trust::new(Policy::default()).map(drop).unwrap_err(), Untrusting::AnyMrTd);
    assert_eq!(refused(|policy| policy.td.mr_td = Expected::OneOf(Vec::new())), Untrusting::AnyMrTd);
    assert_eq!(refused(|policy| policy.td.debug = Rule::Any), Untrusting::Debug);
    assert_eq!(refused(|policy| policy.tee = Tee::Sgx), Untrusting::NotTdx);
    assert_eq!(refused(|policy| policy.tcb.accept.clear()), Untrusting::NoTcb);
    assert_eq!(refused(|policy| policy.tcb.minimum_evaluation_number = 0), Untrusting::NoFloor);
    assert_eq!(refused(|policy| policy.tcb.grace = 1), Untrusting::Forgives);
    assert_eq!(refused(|policy| policy.report_data = Some(vec![])), Untrusting::ReportData);
    assert_eq!(Trust::in_a_test(policy(), b"no root").map(drop).unwrap_err(), Untrusting::Root);
}

#[test]
fn without_random_numbers_nothing_begins() {
    let never = Start::new(Role::Source, Subject([0; 32]), |_| false);
    assert_eq!(never.map(drop).unwrap_err(), Refused::NoEntropy);
    let zeros = Start::new(Role::Source, Subject([0; 32]), |out| {
        out.fill(0);
        true
    });
    assert_eq!(zeros.map(drop).unwrap_err(), Refused::NoEntropy);
}
