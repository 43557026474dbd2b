//! Every recorded log, report and quote, altered or beside what it does not belong to: nothing is accepted in silence.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use td_image::digest::Digest384;
use tdvisor_attest::UnixSeconds;
use tdvisor_attest::collateral::Bundle;
use tdvisor_attest::crypto::Ring;
use tdvisor_attest::eventlog::{Consistency, Event, EventLog, EventType, LogError, Register};
use tdvisor_attest::explain::{Evidence, explain};
use tdvisor_attest::predict::Prediction;
use tdvisor_attest::quote::Quote;
use tdvisor_attest::report::{ReportError, TdReport};
use tdvisor_attest::verify::{TrustAnchor, Verifier};
use tdvisor_test_data::vectors;

/// Bytes of an event's data that are altered one by one; longer ones are texts and lists of certificates.
const MAX_ALTERED: usize = 128;

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let of_files = paths.iter().filter(|path| path.is_file());
    of_files.map(|path| (name(path), std::fs::read(path).unwrap())).collect()
}

/// Every recorded log and every log of the cases that is one of a TD.
fn logs() -> Vec<(String, Vec<u8>)> {
    let recorded = files(&vectors::folder(vectors::ATTESTATION).join("eventlogs"));
    let cases = files(&vectors::folder("attest-cases"));
    let is_log = |(_, area): &(String, Vec<u8>)| EventLog::parse(area).is_ok();
    recorded.into_iter().chain(cases).filter(is_log).collect()
}

/// A log of nothing but this entry.
fn alone(area: &[u8], event: &Event<'_>) -> (Vec<u8>, usize) {
    let first = EventLog::parse(area).unwrap().events().next().unwrap().offset;
    let data = event.raw_data.as_ptr() as usize - area.as_ptr() as usize;
    let mut bytes = area[..first].to_vec();
    bytes.extend(&area[event.offset..data + event.raw_data.len()]);
    bytes.extend([0xff; 16]);
    (bytes, first + data - event.offset)
}

#[test]
#[ignore = "needs recordings"]
fn no_recorded_events_data_with_another_byte_count_as_measured() {
    let (mut told, mut marked, mut of_value) = (0, 0, 0);
    for (name, area) in logs() {
        for event in EventLog::parse(&area).unwrap().events() {
            let (mut bytes, data) = alone(&area, &event);
            for at in data..data + event.raw_data.len().min(MAX_ALTERED) {
                bytes[at] ^= 1;
                let log = EventLog::parse(&bytes);
                // An event without a register, or EV_NO_ACTION, is in none whatever it says.
                let counts = log.as_ref().is_ok_and(|log| log.events().any(|one| one.extends().is_some()));
                if counts {
                    let log = log.unwrap();
                    let altered = log.events().next().unwrap();
                    match (log.contradictions().next(), altered.consistency()) {
                        (Some(_), _) => told += 1,
                        (None, Consistency::NotInLog) => marked += 1,
                        // The name of a boot variable, of td-shim's block or of a command is the log's word, and marked.
                        (None, Consistency::ValueMeasured) => of_value += 1,
                        (None, other) => {
                            panic!("{name}, event {}, byte {}: {other:?}", event.number, at - data)
                        }
                    }
                }
                bytes[at] ^= 1;
            }
        }
    }
    println!(
        "{told} alterations contradict, {marked} are of what the log does not have, {of_value} of names"
    );
    assert!(told > 5000 && marked > 1000, "{told} {marked} {of_value}");
}

/// The PCRs that a register stands for (UEFI 2.10, "Confidential Computing").
fn pcrs(register: Register) -> &'static [u32] {
    match register {
        Register::Mrtd => &[0],
        Register::Rtmr0 => &[1, 7],
        Register::Rtmr1 => &[2, 3, 4, 5, 6],
        Register::Rtmr2 => &[8, 9, 10, 11, 12, 13, 14, 15],
        Register::Rtmr3 => &[],
    }
}

#[test]
#[ignore = "needs recordings"]
fn a_log_indexed_by_pcrs_is_never_one_of_rtmrs() {
    let (mut refused, mut alike) = (0, 0);
    for (name, area) in logs() {
        let log = EventLog::parse(&area).unwrap();
        for choice in 0..8 {
            let mut of_tpm = area.clone();
            let mut all = BTreeSet::new();
            for event in log.events() {
                let Some(register) = event.extends() else { continue };
                let Some(pcr) = pcrs(register).get(choice % pcrs(register).len().max(1)) else { continue };
                of_tpm[event.offset..event.offset + 4].copy_from_slice(&pcr.to_le_bytes());
                all.insert(*pcr);
            }
            // A handful of PCRs that are also indices of registers: nothing tells those logs apart.
            if all.iter().all(|pcr| (1..=4).contains(pcr)) {
                alike += 1;
                continue;
            }
            assert!(matches!(EventLog::parse(&of_tpm), Err(LogError::OfPcrs(_))), "{name}: {all:?}");
            refused += 1;
        }
    }
    println!("{refused} logs of PCRs refused, {alike} that only have PCRs 1 to 4");
    assert!(refused > 80, "{refused}");
}

/// The log with digests of SHA-256 alone, under a header that declares these algorithms.
fn with_sha256(area: &[u8], algorithms: &[(u16, u16)]) -> Vec<u8> {
    let mut specification = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02".to_vec();
    specification.extend((algorithms.len() as u32).to_le_bytes());
    for (id, bytes) in algorithms {
        specification.extend(id.to_le_bytes());
        specification.extend(bytes.to_le_bytes());
    }
    specification.push(0);
    let mut log = [1u32, 3].map(u32::to_le_bytes).concat();
    log.extend([0; 20]);
    log.extend((specification.len() as u32).to_le_bytes());
    log.extend(specification);
    for event in EventLog::parse(area).unwrap().events() {
        for word in [event.mr.0, event.kind.0, 1] {
            log.extend(word.to_le_bytes());
        }
        log.extend(0xbu16.to_le_bytes());
        log.extend([7; 32]);
        log.extend((event.raw_data.len() as u32).to_le_bytes());
        log.extend(event.raw_data);
    }
    log.extend([0xff; 16]);
    log
}

#[test]
#[ignore = "needs recordings"]
fn a_log_without_digests_of_sha384_is_refused_even_where_it_declares_them() {
    let mut refused = 0;
    for (name, area) in logs() {
        for algorithms in [&[(0xb, 32)][..], &[(4, 20), (0xb, 32)], &[(0xb, 32), (0xc, 48)]] {
            let found = EventLog::parse(&with_sha256(&area, algorithms)).map(|_| ());
            assert_eq!(found, Err(LogError::NoSha384), "{name}");
            refused += 1;
        }
    }
    println!("{refused} logs without a SHA-384 bank refused");
    assert!(refused > 30, "{refused}");
}

#[test]
#[ignore = "needs recordings"]
fn what_firmware_measured_before_its_separator_is_told_when_it_comes_again_at_the_end() {
    let mut told = 0;
    for (name, area) in logs() {
        let log = EventLog::parse(&area).unwrap();
        let entries: Vec<Event<'_>> = log.events().collect();
        let end = entries.last().map_or(0, |event| {
            event.raw_data.as_ptr() as usize - area.as_ptr() as usize + event.raw_data.len()
        });
        let separator = |register| {
            entries
                .iter()
                .position(|event| event.kind == EventType::SEPARATOR && event.extends() == Some(register))
        };
        for (at, event) in entries.iter().enumerate() {
            let closes = event.extends().and_then(separator);
            if closes.is_none_or(|closes| at >= closes) || !event.belongs_before_separator() {
                continue;
            }
            let data = event.raw_data.as_ptr() as usize - area.as_ptr() as usize;
            let mut again = area[..end].to_vec();
            again.extend(&area[event.offset..data + event.raw_data.len()]);
            again.extend([0xff; 16]);
            let last = entries.len() as u32 + 1;
            let found = EventLog::parse(&again).unwrap();
            assert!(found.contradictions().any(|one| one.number == last), "{name}: event {}", event.number);
            told += 1;
        }
    }
    println!("{told} events told that came again behind their separator");
    assert!(told > 40, "{told}");
}

/// What of a TDREPORT its own hashes hold: the hashes, TEE_TCB_INFO and TDINFO.
fn is_held(at: usize) -> bool {
    (32..128).contains(&at) || (256..495).contains(&at) || (512..1024).contains(&at)
}

fn reports() -> Vec<(String, Vec<u8>)> {
    let recorded = files(&vectors::folder(vectors::ATTESTATION).join("reports"));
    let cases = files(&vectors::folder("attest-cases"));
    let holds = |(_, bytes): &(String, Vec<u8>)| {
        TdReport::from_bytes(bytes).is_ok_and(|report| report.check_hashes().is_ok())
    };
    recorded.into_iter().chain(cases).filter(holds).collect()
}

#[test]
#[ignore = "needs recordings"]
fn every_changed_bit_that_the_hashes_of_a_report_hold_breaks_them() {
    let (mut told, mut others) = (0, 0);
    for (name, bytes) in reports() {
        for bit in 0..TdReport::SIZE * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let found = TdReport::from_bytes(&changed).and_then(TdReport::check_hashes);
            assert_eq!(
                found.is_err(),
                is_held(bit / 8) || matches!(found, Err(ReportError::Type(_))),
                "{name}: bit {bit}"
            );
            *if found.is_err() { &mut told } else { &mut others } += 1;
        }
    }
    println!("{told} changed bits told; {others} that only the processor's MAC holds, or nothing");
    assert!(told > 4 * 800 * 8, "{told}");
}

#[test]
#[ignore = "needs recordings"]
fn a_report_put_together_from_two_holds_only_where_the_parts_are_the_same() {
    let reports = reports();
    let mut told = 0;
    for (first, one) in &reports {
        for (second, other) in &reports {
            for (part, range) in [("TEE_TCB_INFO", 256..512), ("TDINFO", 512..1024), ("hashes", 32..128)] {
                let mut mixed = one.clone();
                mixed[range.clone()].copy_from_slice(&other[range.clone()]);
                let holds = TdReport::from_bytes(&mixed).unwrap().check_hashes().is_ok();
                assert_eq!(
                    holds,
                    one[range.clone()] == other[range.clone()],
                    "{part} of {second} in {first}"
                );
                told += usize::from(!holds);
            }
        }
    }
    println!("{told} reports of two told");
    assert!(told >= 20, "{told}");
}

/// The platform family and TEE that a recorded file's name says; `None` where it was altered.
fn family(name: &str) -> Option<(&'static str, bool)> {
    const FAMILIES: [&str; 5] = ["00806f05", "50806f", "90c06f", "b0c06f", "00a06711"];
    let named = match name {
        "quote-v4-td10-az-septve0.bin" => "00806f05",
        "quote-v3-sgx-uptodate-cfg.bin" => "00a06711",
        _ if name.starts_with("mut-") => return None,
        _ => FAMILIES.into_iter().find(|family| name.contains(family))?,
    };
    Some((named, name.contains("sgx")))
}

#[test]
#[ignore = "needs recordings"]
fn a_quote_is_valid_beside_the_collateral_of_its_own_platform_and_tee_only() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let quotes = files(&folder.join("quotes"));
    let times: BTreeSet<u64> = crate::common::cases(&folder).iter().map(|case| case.time).collect();
    let (mut valid, mut refused, mut never) = (0, 0, 0);
    for (of, text) in files(&folder.join("collateral")) {
        let Ok(bundle) = Bundle::from_json(&String::from_utf8_lossy(&text)) else { continue };
        for (name, quote) in &quotes {
            let mut is_valid = false;
            for at in &times {
                let mut verifier = Verifier::with_crypto(TrustAnchor::intel(), Ring);
                let verdict = verifier
                    .add_collateral(&bundle)
                    .and_then(|()| verifier.verify(quote, UnixSeconds(*at)).map(drop));
                if verdict.is_ok() {
                    let (quotes, bundles) = (family(name), family(&of));
                    assert!(quotes.is_some() && quotes == bundles, "accepted: {name} with {of} at {at}");
                    is_valid = true;
                    valid += 1;
                } else {
                    refused += 1;
                }
            }
            never += usize::from(!is_valid);
        }
    }
    println!("{valid} accepted, {refused} refused; {never} pairs of quote and collateral never");
    assert!(valid > 10 && refused > 4000, "{valid} accepted, {refused} refused");
}

#[test]
#[ignore = "needs recordings"]
fn a_log_explains_the_registers_of_its_own_quote_only() {
    let silent = Prediction { events: Vec::new(), silent: Register::RTMRS.to_vec() };
    let (mut accepted, mut refused) = (Vec::new(), 0);
    for (of, bytes) in files(&vectors::folder(vectors::ATTESTATION).join("quotes")) {
        let Ok(quote) = Quote::parse(&bytes) else { continue };
        let Some(td) = quote.body().td() else { continue };
        for (name, area) in logs() {
            let registers = td.rtmr.into();
            let evidence = Evidence { registers: Some(&registers), runtime: None };
            let explained = explain(&EventLog::parse(&area).unwrap(), &silent, "nothing", &evidence);
            if explained.log_holds() {
                accepted.push(format!("{name} with {of}"));
            } else {
                refused += 1;
            }
        }
    }
    println!("{refused} pairs of quote and log refused, accepted: {accepted:?}");
    assert_eq!(accepted, ["ccel-cos113.bin with quote-v4-td10-00806f05-cos113.bin"]);
    assert!(refused > 200, "{refused}");
}

#[test]
#[ignore = "needs recordings"]
fn a_log_with_events_left_out_swapped_or_doubled_never_replays_to_its_quote() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let area = std::fs::read(folder.join("eventlogs/ccel-cos113.bin")).unwrap();
    let quote = std::fs::read(folder.join("quotes/quote-v4-td10-00806f05-cos113.bin")).unwrap();
    let rtmr = Quote::parse(&quote).unwrap().body().td().unwrap().rtmr;
    let log = EventLog::parse(&area).unwrap();
    let events: Vec<(Register, Digest384)> =
        log.events().filter_map(|event| Some((event.extends()?, event.digest()?))).collect();
    let replays = |events: &[(Register, Digest384)]| {
        let mut values = [Digest384::ZERO; 4];
        for (register, digest) in events {
            let value = &mut values[register.rtmr().unwrap()];
            *value = value.extended_by(digest);
        }
        values.iter().zip(rtmr).all(|(value, actual)| value.0 == actual)
    };
    assert!(replays(&events));
    let mut told = 0;
    for at in 0..events.len() {
        let mut fewer = events.clone();
        fewer.remove(at);
        let mut twice = events.clone();
        twice.insert(at, events[at]);
        assert!(!replays(&fewer) && !replays(&twice), "event {at}");
        // Those of two registers may come in any order, and two alike are one.
        let others = (at + 1..events.len())
            .filter(|other| events[*other].0 == events[at].0 && events[*other].1 != events[at].1);
        for other in others {
            let mut swapped = events.clone();
            swapped.swap(at, other);
            assert!(!replays(&swapped), "events {at} and {other}");
            told += 1;
        }
    }
    println!("{} logs with an event less or twice, {told} with two swapped", 2 * events.len());
    assert!(told > 200, "{told}");
}
