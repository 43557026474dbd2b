//! The event log, read and replayed by `attest`.

use sha2::{Digest, Sha384};
use td_image::digest::Digest384;
use tdvisor_attest::eventlog::{self, EventData, Found, LogEnd, Register, Replay, WarningKind};
use tdvisor_attest::predict;
use tdvisor_attest::predict::boot_shim::Inputs;

use crate::event_log::{Event, EventLog, EventType, LogFull, Rtmr};

const HOB: &[u8] = b"the TD HOB";
const KERNEL: &[u8] = b"vmlinux";
const TEXT: &[u8] = b"console=ttyS0 quiet";

fn digest(content: &[u8]) -> [u8; 48] {
    Sha384::digest(content).into()
}

/// The events of a boot.
fn fill(area: &mut [u8]) -> Result<(), LogFull> {
    let mut log = EventLog::begin(area)?;
    let mut add = |rtmr, kind, content: &[u8], data: &[&[u8]]| {
        log.append(&Event { rtmr, kind, digest: &digest(content), data })
    };
    add(Rtmr::Machine, EventType::HandoffTables2, HOB, &[b"\x07td_hob\0", &1u64.to_le_bytes(), &[0; 24]])?;
    add(Rtmr::Machine, EventType::Separator, &[0; 4], &[&[0; 4]])?;
    add(Rtmr::Kernel, EventType::Ipl, KERNEL, &[b"kernel\0"])?;
    add(Rtmr::Kernel, EventType::Separator, &[0; 4], &[&[0; 4]])?;
    add(Rtmr::KernelInputs, EventType::Ipl, TEXT, &[b"kernel_cmdline: ", TEXT, b"\0"])?;
    add(Rtmr::KernelInputs, EventType::Separator, &[0; 4], &[&[0; 4]])
}

#[test]
fn attest_reads_every_event_without_a_warning_and_replays_the_registers() {
    let mut area = [0; 4096];
    fill(&mut area).unwrap();
    let log = eventlog::EventLog::parse(&area).unwrap();
    assert_eq!(log.warnings().count(), 0, "{:?}", log.warnings().collect::<Vec<_>>());
    let events: Vec<_> = log.events().collect();
    let registers: Vec<_> = events.iter().map(|event| event.extends().and_then(Register::rtmr)).collect();
    assert_eq!(registers, [Some(0), Some(0), Some(1), Some(1), Some(2), Some(2)]);

    let mut expected = Replay::default();
    for (register, content) in registers.iter().zip([HOB, &[0; 4], KERNEL, &[0; 4], TEXT, &[0; 4]]) {
        expected.extend_with(Register::RTMRS[register.unwrap()], &Digest384(digest(content)));
    }
    assert_eq!(log.replay().registers(), expected.registers());
}

#[test]
fn the_events_are_those_that_attest_predicts_of_the_same_boot() {
    let mut area = [0; 4096];
    fill(&mut area).unwrap();
    let replay = eventlog::EventLog::parse(&area).unwrap().replay();
    let inputs = Inputs {
        td_hob: Some(HOB),
        kernel: Some(KERNEL),
        initrd: None,
        command_line: core::str::from_utf8(TEXT).ok(),
    };
    let prediction = predict::boot_shim::boot(&inputs);
    for register in [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2] {
        assert_eq!(prediction.value(register), Some(replay[register]), "{register}");
    }
}

#[test]
fn events_say_what_they_are() {
    let mut area = [0; 4096];
    fill(&mut area).unwrap();
    let log = eventlog::EventLog::parse(&area).unwrap();
    let data: Vec<_> = log.events().map(|event| event.data()).collect();
    assert!(matches!(data[0], EventData::Tables { description: b"td_hob\0", count: 1 }), "{:?}", data[0]);
    assert!(matches!(data[1], EventData::Separator(0)), "{:?}", data[1]);
    assert!(matches!(data[2], EventData::Text(text) if text.starts_with(b"kernel")), "{:?}", data[2]);
    assert!(matches!(data[4], EventData::Text(text) if text.starts_with(b"kernel_cmdline: console")));
}

#[test]
fn the_log_ends_where_its_fill_begins() {
    let mut area = [0; 4096];
    fill(&mut area).unwrap();
    let log = eventlog::EventLog::parse(&area).unwrap();
    let end = log.walk().find_map(|found| match found {
        Found::End { end, .. } => Some(end),
        _ => None,
    });
    assert!(matches!(end, Some(LogEnd::Ones)), "{end:?}");
}

#[test]
fn an_area_that_is_too_small_is_an_error_and_what_is_in_it_stays_a_log() {
    for size in 0..4096 {
        let mut area = vec![0; size];
        if fill(&mut area).is_ok() {
            assert!(size > 500, "six events do not fit {size} bytes");
            return;
        }
        if let Ok(log) = eventlog::EventLog::parse(&area) {
            // A log that ends exactly where its area does has no fill, which is no fault of an entry.
            let faults = log.warnings().map(|warning| warning.kind);
            let faults: Vec<_> = faults.filter(|kind| *kind != WarningKind::NoFill).collect();
            assert_eq!(faults, [], "{size} bytes");
        }
    }
    panic!("no area was large enough");
}
