//! Keys that cross only between migration TDs that trust each other: TDREPORTs and TDG.SERVTD.* of the emulated modules, quotes
//! of the test issuer, and the conversation of `tdvisor-migration-td` between them.

use td_host::migration::binding::bind;
use td_host::migration::destination::Destination;
use td_host::migration::source::{Plan, Source, run_both};
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::issue::{Issued, PlatformSpec, TestPlatform};
use tdvisor_attest::policy::{Expected, Policy};
use tdvisor_base::Level;
use tdvisor_migration_td::{Met, MigrationKey, Refused, Role, Start, Subject, Trust, Trusted};
use tdx_module_iface::tdh::Binding;

use crate::world::{End, Monitor, SPARE, check, guest, host, read_key, reference, report, write_key};

const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

/// What the host's quoting enclave makes of a TDREPORT that its processor made.
fn quote(end: &End<'_>, data: [u8; 64]) -> Issued {
    let report = report(end.host, &end.service, data);
    let signed = report.first_chunk().unwrap();
    assert!(end.host.platform().machine().everifyreport2(signed), "a report of this machine");
    let platform = TestPlatform::new([5; 32], PlatformSpec::default());
    platform.quote_for_report(&report, 5, NOW).unwrap()
}

/// Begins a conversation about the TD of a binding.
fn start(role: Role, binding: &Binding, seed: u8) -> Start {
    let mut subject = [0; 32];
    let words = binding.target.iter().flat_map(|word| word.to_le_bytes());
    subject.iter_mut().zip(words).for_each(|(to, from)| *to = from);
    let mut counter = seed;
    Start::new(role, Subject(subject), |out| {
        out.fill_with(|| {
            counter = counter.wrapping_mul(73).wrapping_add(41);
            counter
        });
        true
    })
    .unwrap()
}

fn trust(mr_td: [u8; 48], issued: &Issued) -> Trust {
    let mut policy = Policy::default();
    policy.td.mr_td = Expected::OneOf(vec![mr_td]);
    Trust::in_a_test(policy, issued.root_pem.as_bytes()).unwrap()
}

fn judge(met: Met, mr_td: [u8; 48], issued: &Issued) -> Result<Trusted, Refused> {
    met.trust(&issued.quote, &issued.collateral, &trust(mr_td, issued), NOW)
}

#[test]
fn a_td_moves_with_keys_that_crossed_between_quoted_migration_tds_alone() {
    let stayed = reference(Level::L2M);
    let (here, there) = (host(), host());
    let (from, to) = (End::new(&here), End::new(&there));
    // Both machines run the same migration TD.
    let known = from.service.mrtd().unwrap();
    assert_eq!(to.service.mrtd().unwrap(), known);
    let td = guest(&here, &from.service, Level::L2M);
    let mut monitor = Monitor::default();
    assert_eq!(monitor.run(&td, stayed.exits / 2), None);
    let mut destination = Destination::new(&there, SPARE).unwrap();
    let bindings = [
        bind(&here, SPARE, td.tdr(), from.service.tdr()).unwrap(),
        destination.bind(to.service.tdr()).unwrap(),
    ];

    let (source, target) = (start(Role::Source, &bindings[0], 3), start(Role::Destination, &bindings[1], 8));
    let hellos = [*source.hello(), *target.hello()];
    let (source, target) = (source.meet(&hellos[1]).unwrap(), target.meet(&hellos[0]).unwrap());
    let quotes = [quote(&from, source.report_data()), quote(&to, target.report_data())];
    let mut source = judge(source, known, &quotes[1]).unwrap();
    let mut target = judge(target, known, &quotes[0]).unwrap();

    let forth = source.seal(&MigrationKey::new(read_key(&here, &from.service, &bindings[0]))).unwrap();
    let back = target.seal(&MigrationKey::new(read_key(&there, &to.service, &bindings[1]))).unwrap();
    write_key(&there, &to.service, &bindings[1], *target.open(&forth).unwrap().words());
    write_key(&here, &from.service, &bindings[0], *source.open(&back).unwrap().words());

    run_both(&mut Source::new(&td, SPARE, Plan::default()).unwrap(), &mut destination).unwrap();
    let moved = destination.finish().unwrap();
    monitor.run_to_the_end(&moved);
    assert_eq!(monitor.console, stayed.console);
    check(&there, &[&moved]);
}

#[test]
fn a_td_that_is_no_known_migration_td_gets_no_key() {
    let (here, there) = (host(), host());
    let (from, to) = (End::new(&here), End::new(&there));
    let td = guest(&here, &from.service, Level::L2M);
    let destination = Destination::new(&there, SPARE).unwrap();
    let bindings = [
        bind(&here, SPARE, td.tdr(), from.service.tdr()).unwrap(),
        destination.bind(to.service.tdr()).unwrap(),
    ];
    let (source, target) = (start(Role::Source, &bindings[0], 3), start(Role::Destination, &bindings[1], 8));
    let hellos = [*source.hello(), *target.hello()];
    let (source, target) = (source.meet(&hellos[1]).unwrap(), target.meet(&hellos[0]).unwrap());
    let quoted = quote(&to, target.report_data());
    let refused = judge(source, [9; 48], &quoted).unwrap_err();
    assert!(matches!(refused, Refused::Policy(_)), "{refused}");
    // Without a key the modules do not begin.
    let mut session = Source::new(&td, SPARE, Plan::default()).unwrap();
    let mut destination = destination;
    assert!(run_both(&mut session, &mut destination).is_err());
    drop(session);
    Monitor::default().run_to_the_end(&td);
}
