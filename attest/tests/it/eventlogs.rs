//! Real event logs: each replays to the registers that were recorded, and to those of its quote where one exists.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its data fails")]

use std::path::Path;

use tdvisor_attest::ccel::{CcType, Ccel};
use tdvisor_attest::eventlog::{EventLog, LogEnd, LogError, Register, Replay, WarningKind};
use tdvisor_attest::quote::Quote;
use tdvisor_test_data::vectors;

/// What INDEX.md lists for a log: events (header included), where it ends, and per RTMR the first 24 digits of
/// its value with the number of events.
struct Expected {
    file: &'static str,
    events: usize,
    end: (LogEnd, usize),
    rtmr: [Option<(&'static str, u32)>; 3],
    warnings: &'static [(u32, &'static str)],
}

const SEPARATOR_IN_RTMR0: &str = "the separator of RTMR1 is logged for RTMR0 (a known OVMF build)";

const LOGS: [Expected; 7] = [
    Expected {
        file: "ccel-cos113.bin",
        events: 44,
        end: (LogEnd::Ones, 0x46b5),
        rtmr: [
            Some(("3fa2f61f395b7f5feefb4ec2", 16)),
            Some(("f62dbc072bd5d3f3438b7b35", 7)),
            Some(("4969684dc87381fc3b313417", 20)),
        ],
        warnings: &[],
    },
    Expected {
        file: "ccel-dstack.bin",
        events: 19,
        end: (LogEnd::Ones, 0x78d),
        rtmr: [Some(("274c2344116db7c663470693", 13)), Some(("bdcf4ee0f7fdfe7c73fbb19d", 5)), None],
        warnings: &[],
    },
    Expected {
        file: "ccel-coco-ovmf.bin",
        events: 21,
        end: (LogEnd::Ones, 0x848),
        rtmr: [
            Some(("8566f998798db09443b244c6", 14)),
            Some(("775b9f6bfe99f8a31396f0d0", 4)),
            Some(("94eaf7a7bf398ed8d888c910", 2)),
        ],
        warnings: &[(16, SEPARATOR_IN_RTMR0)],
    },
    Expected {
        file: "ccel-coco-grub.bin",
        events: 38,
        end: (LogEnd::Ones, 0x3b1a),
        rtmr: [
            Some(("cec0a104f691f60da2387fea", 20)),
            Some(("6c289e0c62182d41ebe97bdb", 9)),
            Some(("08919d017ba0e52cd6d96635", 8)),
        ],
        warnings: &[(16, SEPARATOR_IN_RTMR0)],
    },
    Expected {
        file: "ccel-coco-tdshim-1M.bin",
        events: 6,
        end: (LogEnd::Zeros, 0x265e),
        rtmr: [Some(("2dc712306a963eadb894ad47", 2)), Some(("0fa3be56af61208bbd179dc7", 3)), None],
        warnings: &[(6, "the log ends at zeros instead of 0xFF")],
    },
    Expected {
        file: "ccel-gcp.bin",
        events: 22,
        end: (LogEnd::Ones, 0x4f7d),
        rtmr: [Some(("3300980705adf09d28b707b7", 14)), Some(("204d49f78d29918fe7b2f694", 7)), None],
        warnings: &[],
    },
    Expected {
        file: "ccel-ita.bin",
        events: 20,
        end: (LogEnd::Ones, 0x7ea),
        rtmr: [
            Some(("8083cd6898cc52a90231cdf9", 14)),
            Some(("6484f0d72c03521c0434553b", 4)),
            Some(("c3e7ed9d7e909b29732f676d", 1)),
        ],
        warnings: &[
            (16, SEPARATOR_IN_RTMR0),
            (17, "an EV_EVENT_TAG without id and length (older Linux stub)"),
        ],
    },
];

fn read(folder: &Path, path: &str) -> Vec<u8> {
    std::fs::read(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn replay(folder: &Path, file: &str) -> Replay {
    EventLog::parse(&read(folder, &format!("eventlogs/{file}"))).unwrap().replay()
}

#[test]
#[ignore = "needs recordings"]
fn every_recorded_log_replays_to_its_registers_with_its_oddities_told() {
    let folder = vectors::folder(vectors::ATTESTATION);
    for expected in &LOGS {
        let file = expected.file;
        let bytes = read(&folder, &format!("eventlogs/{file}"));
        let log = EventLog::parse(&bytes).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(log.events().count() + 1, expected.events, "{file}");
        let end = log.walk().find_map(|found| match found {
            tdvisor_attest::eventlog::Found::End { end, offset } => Some((end, offset)),
            _ => None,
        });
        assert_eq!(end, Some(expected.end), "{file}");
        let warnings: Vec<_> =
            log.warnings().map(|warning| (warning.number, warning.kind.to_string())).collect();
        let wanted: Vec<_> = expected.warnings.iter().map(|(at, text)| (*at, (*text).to_owned())).collect();
        assert_eq!(warnings, wanted, "{file}");
        let replay = log.replay();
        for (register, value) in Register::RTMRS.into_iter().zip(expected.rtmr) {
            let (start, events) = value.unwrap_or(("0000000000000000", 0));
            assert!(
                replay[register].to_string().starts_with(start),
                "{file}: {register} {}",
                replay[register]
            );
            assert_eq!(replay.events(register), events, "{file}: {register}");
        }
        assert!(replay[Register::Rtmr3].is_zero(), "{file}");
    }
}

#[test]
#[ignore = "needs recordings"]
fn logs_and_quotes_of_one_guest_agree() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let quote = |file: &str| {
        let bytes = read(&folder, &format!("quotes/{file}"));
        let quote = Quote::parse(&bytes).unwrap();
        quote.body().td().unwrap().rtmr
    };
    let cos = quote("quote-v4-td10-00806f05-cos113.bin");
    let replayed = replay(&folder, "ccel-cos113.bin");
    for register in [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2] {
        assert_eq!(replayed[register].0, cos[register.rtmr().unwrap()], "{register}");
    }
    let dstack = quote("quote-v4-td10-b0c06f-tappd.bin");
    let replayed = replay(&folder, "ccel-dstack.bin");
    assert_eq!(replayed[Register::Rtmr0].0, dstack[0]);
    assert_ne!(replayed[Register::Rtmr1].0, dstack[1], "another kernel");
}

#[test]
#[ignore = "needs recordings"]
fn the_recorded_ccel_table_names_the_log_area() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let ccel = Ccel::parse(&read(&folder, "eventlogs/ccel-acpi-table-cos113.bin")).unwrap();
    assert_eq!((ccel.cc_type, ccel.cc_subtype), (CcType::TDX, 0));
    assert!(ccel.checksum_holds);
    let area = read(&folder, "eventlogs/ccel-cos113.bin");
    assert_eq!(ccel.log_area_bytes, area.len() as u64);
}

#[test]
#[ignore = "needs recordings"]
fn a_log_cut_or_changed_anywhere_never_replays_to_the_same_registers_and_never_panics() {
    let folder = vectors::folder(vectors::ATTESTATION);
    let bytes = read(&folder, "eventlogs/ccel-dstack.bin");
    let end = 0x78d;
    let whole = EventLog::parse(&bytes).unwrap().replay();
    for length in 0..end {
        if let Ok(log) = EventLog::parse(&bytes[..length]) {
            assert_ne!(log.replay(), whole, "cut to {length} bytes");
        }
    }
    let first = EventLog::parse(&bytes).unwrap().events().next().unwrap().offset;
    let mut copy = bytes[..end + 16].to_vec();
    for at in first..end {
        copy[at] ^= 1;
        let log = match EventLog::parse(&copy) {
            Ok(log) => log,
            // Bit 0 of an index turns RTMR0 into what nothing in a TD extends, and a first event without its digest leaves
            // none in the log.
            Err(LogError::OfPcrs(_) | LogError::NoSha384) => {
                copy[at] ^= 1;
                continue;
            }
            Err(error) => panic!("offset {at:#x}: {error}"),
        };
        // Where a flipped bit leaves all registers alone, it was in the description and not in a digest.
        if log.replay() == whole {
            let told = log.warnings().any(|warning| warning.kind == WarningKind::DigestNotOfData);
            let described = log.events().any(|event| {
                let data = event.offset + 66..event.offset + 66 + event.raw_data.len();
                let kind = event.offset + 4..event.offset + 8;
                data.contains(&at) || kind.contains(&at)
            });
            assert!(told || described, "offset {at:#x}");
        }
        copy[at] ^= 1;
    }
}
