//! Logs made by hand: every end, every oddity.

use super::*;
use td_image::digest::Digest384;

const SHA384_ONLY: &[(u16, u16)] = &[(0xc, 48)];

/// Writes a log.
pub(crate) struct LogWriter {
    pub bytes: Vec<u8>,
}

impl LogWriter {
    pub(crate) fn new() -> Self {
        Self::with_algorithms(SHA384_ONLY)
    }

    pub(crate) fn with_algorithms(algorithms: &[(u16, u16)]) -> Self {
        let mut event = Vec::from(*b"Spec ID Event03\0");
        event.extend([0, 0, 0, 0, 0, 2, 0, 2]);
        event.extend((algorithms.len() as u32).to_le_bytes());
        for (id, size) in algorithms {
            event.extend(id.to_le_bytes());
            event.extend(size.to_le_bytes());
        }
        event.push(0);
        let mut bytes = Vec::new();
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(3u32.to_le_bytes());
        bytes.extend([0; 20]);
        bytes.extend((event.len() as u32).to_le_bytes());
        bytes.extend(event);
        Self { bytes }
    }

    pub(crate) fn event(mut self, mr: u32, kind: EventType, digests: &[(u16, &[u8])], data: &[u8]) -> Self {
        self.bytes.extend(mr.to_le_bytes());
        self.bytes.extend(kind.0.to_le_bytes());
        self.bytes.extend((digests.len() as u32).to_le_bytes());
        for (id, digest) in digests {
            self.bytes.extend(id.to_le_bytes());
            self.bytes.extend(*digest);
        }
        self.bytes.extend((data.len() as u32).to_le_bytes());
        self.bytes.extend(data);
        self
    }

    /// An event measured with its data.
    pub(crate) fn measured(self, mr: u32, kind: EventType, data: &[u8]) -> Self {
        let digest = Digest384::of(data);
        self.event(mr, kind, &[(0xc, &digest.0)], data)
    }

    pub(crate) fn fill(mut self, byte: u8, count: usize) -> Self {
        self.bytes.extend(std::iter::repeat_n(byte, count));
        self
    }
}

fn kinds(bytes: &[u8]) -> Vec<WarningKind> {
    EventLog::parse(bytes).unwrap().warnings().map(|warning| warning.kind).collect()
}

fn end(bytes: &[u8]) -> LogEnd {
    let ends = EventLog::parse(bytes).unwrap().walk().filter_map(|found| match found {
        Found::End { end, .. } => Some(end),
        _ => None,
    });
    let [end] = ends.collect::<Vec<_>>()[..] else { panic!("a walk has one end") };
    end
}

#[test]
fn a_clean_log_replays_without_a_warning() {
    let log = LogWriter::new()
        .measured(1, EventType::SEPARATOR, &[0; 4])
        .measured(2, EventType::EFI_ACTION, b"Exit Boot Services Invocation")
        .fill(0xff, 100);
    assert_eq!(kinds(&log.bytes), []);
    assert_eq!(end(&log.bytes), LogEnd::Ones);
    let replay = EventLog::parse(&log.bytes).unwrap().replay();
    assert_eq!(replay[Register::Rtmr0], Digest384::ZERO.extended_by(&Digest384::of(&[0; 4])));
    assert_eq!(replay.events(Register::Rtmr1), 1);
    assert!(replay[Register::Rtmr2].is_zero());
}

#[test]
fn a_log_may_end_in_three_ways() {
    let log = || LogWriter::new().measured(1, EventType::SEPARATOR, &[0; 4]);
    assert_eq!(end(&log().fill(0xff, 3).bytes), LogEnd::Ones);
    assert_eq!(end(&log().fill(0, 64).bytes), LogEnd::Zeros);
    assert_eq!(kinds(&log().fill(0, 64).bytes), [WarningKind::ZeroFill]);
    assert_eq!(end(&log().bytes), LogEnd::AreaEnd);
    assert_eq!(kinds(&log().bytes), [WarningKind::NoFill]);
    let dirty = log().fill(0xff, 16).fill(7, 1).bytes;
    assert_eq!(kinds(&dirty), [WarningKind::DataAfterEnd { at: dirty.len() - 1 }]);
}

#[test]
fn no_action_and_impossible_indices_are_never_extended() {
    let log = LogWriter::new()
        .event(1, EventType::NO_ACTION, &[(0xc, &[9; 48])], b"StartupLocality\0")
        .event(0xffff_ffff, EventType::NO_ACTION, &[], b"")
        .event(0xffff_ffff, EventType::SEPARATOR, &[(0xc, &[9; 48])], &[0; 4])
        .event(0, EventType::NO_ACTION, &[(0xc, &[9; 48])], b"")
        .event(24, EventType::IPL, &[(0xc, &[9; 48])], b"x")
        .fill(0xff, 8);
    let found = kinds(&log.bytes);
    assert_eq!(
        found,
        [
            WarningKind::NoAction,
            WarningKind::NoAction,
            WarningKind::NoRegister(MrIndex(0xffff_ffff)),
            WarningKind::NoRegister(MrIndex(0xffff_ffff)),
            WarningKind::DigestNotOfData,
            WarningKind::NoAction,
            WarningKind::NoRegister(MrIndex(24)),
        ]
    );
    assert_eq!(EventLog::parse(&log.bytes).unwrap().replay(), Replay::default());
}

#[test]
fn other_algorithms_are_skipped_by_their_size() {
    let zero = Digest384::of(&[0; 4]);
    let log = LogWriter::with_algorithms(&[(0x12, 32), (0xc, 48), (0x99, 5)])
        .event(1, EventType::SEPARATOR, &[(0x12, &[1; 32]), (0x99, &[2; 5]), (0xc, &zero.0)], &[0; 4])
        .event(1, EventType::SEPARATOR, &[(0x12, &[1; 32])], &[0; 4])
        .fill(0xff, 8);
    assert_eq!(kinds(&log.bytes), [WarningKind::OtherDigests, WarningKind::NoSha384]);
    assert_eq!(EventLog::parse(&log.bytes).unwrap().replay().events(Register::Rtmr0), 1);
}

#[test]
fn what_cannot_be_read_ends_the_log_and_says_why() {
    let unknown = LogWriter::new().event(1, EventType::IPL, &[(0x77, &[0; 48])], b"").fill(0xff, 8);
    assert_eq!(kinds(&unknown.bytes), [WarningKind::UnknownAlgorithm(AlgorithmId(0x77))]);
    assert_eq!(end(&unknown.bytes), LogEnd::Cut);
    let mut many = LogWriter::new().measured(1, EventType::SEPARATOR, &[0; 4]).fill(0xff, 8);
    let count = EventLog::parse(&many.bytes).unwrap().events().next().unwrap().offset + 8;
    many.bytes[count..count + 4].copy_from_slice(&17u32.to_le_bytes());
    assert_eq!(kinds(&many.bytes), [WarningKind::DigestCount(17)]);
    let whole = LogWriter::new().measured(1, EventType::SEPARATOR, &[0; 4]).bytes;
    let header = EventLog::parse(&whole).unwrap().events().next().unwrap().offset;
    for length in header + 1..whole.len() {
        assert_eq!(end(&whole[..length]), LogEnd::Cut, "cut to {length} bytes");
    }
}

#[test]
fn areas_without_a_log_are_errors() {
    assert_eq!(EventLog::parse(&[]).unwrap_err(), LogError::Empty);
    assert_eq!(EventLog::parse(&[0xff; 4096]).unwrap_err(), LogError::Empty);
    assert_eq!(EventLog::parse(&[0; 4096]).unwrap_err(), LogError::Empty);
    let good = LogWriter::new().bytes;
    for length in 1..good.len() {
        let error = EventLog::parse(&good[..length]).unwrap_err();
        assert!(matches!(error, LogError::Truncated(_)), "{length}: {error}");
    }
    let mut bad = good.clone();
    bad[4] = 4;
    assert_eq!(EventLog::parse(&bad).unwrap_err(), LogError::FirstEvent(EventType::SEPARATOR));
    let mut bad = good;
    bad[32] = b'X';
    assert!(matches!(EventLog::parse(&bad), Err(LogError::Signature(_))));
}

#[test]
fn data_that_were_not_measured_are_pointed_out() {
    let digest = Digest384::of(b"what was measured");
    let log = LogWriter::new()
        .event(2, EventType::EFI_ACTION, &[(0xc, &digest.0)], b"what the log says")
        .event(3, EventType::IPL, &[(0xc, &Digest384::of(b"set x=1").0)], b"grub_cmd: set x=1\0")
        .event(3, EventType::IPL, &[(0xc, &digest.0)], b"/boot/vmlinuz\0")
        .fill(0xff, 8);
    assert_eq!(kinds(&log.bytes), [WarningKind::DigestNotOfData]);
    let consistency: Vec<_> =
        EventLog::parse(&log.bytes).unwrap().events().map(|event| event.consistency()).collect();
    assert_eq!(consistency, [Consistency::Differs, Consistency::ValueMeasured, Consistency::NotInLog]);
}

#[test]
fn a_long_log_is_walked_once_and_ends() {
    let mut log = LogWriter::new();
    for _ in 0..1000 {
        log = log.event(1, EventType::NO_ACTION, &[], b"");
    }
    let log = log.fill(0xff, 8);
    assert_eq!(EventLog::parse(&log.bytes).unwrap().events().count(), 1000);
    assert_eq!(EventLog::parse(&log.bytes).unwrap().warnings().count(), 1000);
}

#[test]
fn a_log_that_extends_pcrs_or_has_no_sha384_is_refused() {
    for index in [0, 5, 7, 14, 23] {
        let log = LogWriter::new()
            .measured(1, EventType::SEPARATOR, &[0; 4])
            .measured(index, EventType::SEPARATOR, &[0; 4])
            .fill(0xff, 8);
        assert_eq!(EventLog::parse(&log.bytes).unwrap_err(), LogError::OfPcrs(MrIndex(index)));
    }
    // Without the bank, and with one that is declared and empty.
    for algorithms in [&[(4, 20), (0xb, 32)][..], &[(4, 20), (0xb, 32), (0xc, 48)]] {
        let sha256 = LogWriter::with_algorithms(algorithms)
            .event(1, EventType::SEPARATOR, &[(4, &[1; 20]), (0xb, &[1; 32])], &[0; 4])
            .fill(0xff, 8);
        assert_eq!(EventLog::parse(&sha256.bytes).unwrap_err(), LogError::NoSha384);
    }
    let one_without = LogWriter::with_algorithms(&[(0xb, 32), (0xc, 48)])
        .measured(1, EventType::SEPARATOR, &[0; 4])
        .event(3, EventType::IPL, &[(0xb, &[1; 32])], b"kernel_cmdline: quiet\0")
        .fill(0xff, 8);
    assert_eq!(kinds_of(&one_without.bytes), [WarningKind::NoSha384], "its text is in no register");
    assert_eq!(EventLog::parse(b"CCEL\x38\0\0\0").unwrap_err(), LogError::AcpiTable);
}

/// Data of UEFI_VARIABLE_DATA.
fn variable(guid: Guid, name: &str, value: &[u8]) -> Vec<u8> {
    let mut data = guid.0.to_vec();
    data.extend((name.len() as u64).to_le_bytes());
    data.extend((value.len() as u64).to_le_bytes());
    data.extend(utf16(name));
    data.extend(value);
    data
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn with_nul(mut data: Vec<u8>) -> Vec<u8> {
    data.extend([0, 0]);
    data
}

/// An event by the rules of its kind: index, type, data, what is measured, and which of the data are text that a
/// reader takes for measured.
struct Kind {
    mr: u32,
    kind: EventType,
    data: Vec<u8>,
    measured: Vec<u8>,
    text: core::ops::Range<usize>,
}

fn whole(mr: u32, kind: EventType, data: &[u8]) -> Kind {
    Kind { mr, kind, data: data.to_vec(), measured: data.to_vec(), text: 0..data.len() }
}

/// One of every kind of event whose text is measured.
fn kinds_with_text() -> Vec<Kind> {
    // As the attestation agent of Confidential Containers writes it: the digest is of the whole tagged event.
    let aael =
        [&EventData::TAG_AAEL.to_le_bytes()[..], &23u32.to_le_bytes(), b"coco.com operation text"].concat();
    let secure_boot = variable(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
    let order = variable(Guid::GLOBAL_VARIABLE, "BootOrder", &[1, 0, 0, 0]);
    let command = |prefix: &str, command: &str| {
        let data = alloc::format!("{prefix}{command}\0").into_bytes();
        let text = prefix.len()..data.len() - 1;
        Kind { mr: 3, kind: EventType::IPL, data, measured: command.as_bytes().to_vec(), text }
    };
    let tag = |id: u32, text: &[u8], measured: &[u8]| {
        let mut data = id.to_le_bytes().to_vec();
        data.extend((text.len() as u32).to_le_bytes());
        data.extend(text);
        Kind { mr: 3, kind: EventType::EVENT_TAG, text: 8..data.len(), data, measured: measured.to_vec() }
    };
    let mut runtime = EventType::DSTACK_RUNTIME.0.to_le_bytes().to_vec();
    runtime.extend(b":app-id:payload");
    let mut kinds = vec![
        whole(1, EventType::EFI_VARIABLE_DRIVER_CONFIG, &secure_boot),
        whole(1, EventType::EFI_VARIABLE_BOOT2, &order),
        whole(1, EventType::EFI_VARIABLE_AUTHORITY, &secure_boot),
        whole(1, EventType::S_CRTM_VERSION, &utf16("1.0")),
        whole(1, EventType::SEPARATOR, &[0; 4]),
        whole(2, EventType::EFI_ACTION, b"Exit Boot Services Invocation"),
        whole(2, EventType::ACTION, b"an action"),
        whole(2, EventType::EFI_GPT_EVENT, &[7; 100]),
        whole(2, EventType::EFI_GPT_EVENT2, &[7; 100]),
        Kind {
            mr: 1,
            kind: EventType::EFI_VARIABLE_BOOT,
            text: order.len() - 4..order.len(),
            data: order,
            measured: vec![1, 0, 0, 0],
        },
        command("grub_cmd: ", "set timeout=0"),
        command("kernel_cmdline: ", "/vmlinuz root=/dev/vda1 ro"),
        command("module_cmdline: ", "module"),
        tag(EventData::TAG_LOAD_OPTIONS, b"LOADED_IMAGE::LoadOptions\0", b"the command line"),
        tag(EventData::TAG_INITRD, b"Linux initrd\0", b"the initrd"),
        tag(EventData::TAG_AAEL, b"domain operation content", b"domain operation content"),
        Kind { mr: 4, kind: EventType::EVENT_TAG, text: 8..aael.len(), measured: aael.clone(), data: aael },
        Kind {
            mr: 4,
            kind: EventType::DSTACK_RUNTIME,
            data: b"app-id:payload".to_vec(),
            measured: runtime,
            text: 0..14,
        },
    ];
    for name in [".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".uname"] {
        let mut measured = name.as_bytes().to_vec();
        measured.push(0);
        let data = with_nul(utf16(name));
        kinds.push(Kind { mr: 3, kind: EventType::IPL, text: 2..data.len() - 2, data, measured });
    }
    kinds
}

#[test]
fn every_event_whose_text_is_measured_is_pointed_out_when_any_byte_of_it_is_another() {
    let mut altered = 0;
    for Kind { mr, kind, data, measured, text } in kinds_with_text() {
        let digest = Digest384::of(&measured);
        let log =
            |data: &[u8]| LogWriter::new().event(mr, kind, &[(0xc, &digest.0)], data).fill(0xff, 8).bytes;
        assert_eq!(kinds_of(&log(&data)), [], "{kind}");
        for at in text {
            for flip in [1, 2, 0x20] {
                let mut forged = data.clone();
                forged[at] ^= flip;
                let bytes = log(&forged);
                let parsed = EventLog::parse(&bytes).unwrap();
                let is_told = parsed.contradictions().next().is_some();
                // A section's name that is one no more is shown as text that was not measured.
                let is_marked = parsed.events().all(|event| event.consistency() == Consistency::NotInLog);
                assert!(is_told || is_marked, "{kind}, byte {at}: {forged:?}");
                assert!(is_told || kind == EventType::IPL, "{kind}, byte {at}: {forged:?}");
                altered += 1;
            }
        }
    }
    println!("{altered} texts of {} kinds altered", kinds_with_text().len());
    assert!(altered > 1000, "{altered}");
}

fn kinds_of(bytes: &[u8]) -> Vec<WarningKind> {
    EventLog::parse(bytes).unwrap().contradictions().map(|warning| warning.kind).collect()
}

#[test]
fn a_sections_contents_are_told_by_the_name_measured_before_them() {
    let name = with_nul(utf16(".cmdline"));
    let other = with_nul(utf16(".initrd"));
    let section = |first: &[u8], second: &[u8]| {
        LogWriter::new()
            .event(3, EventType::IPL, &[(0xc, &Digest384::of(b".cmdline\0").0)], first)
            .event(3, EventType::IPL, &[(0xc, &Digest384::of(b"quiet").0)], second)
            .fill(0xff, 8)
            .bytes
    };
    let good = section(&name, &name);
    let log = EventLog::parse(&good).unwrap();
    let sections: Vec<Section> = log.events().map(|event| event.section).collect();
    assert_eq!(sections, [Section::Name, Section::Contents]);
    assert_eq!(kinds_of(&good), []);
    let shown: Vec<String> = log.events().map(|event| event.to_string()).collect();
    assert_eq!(shown[0], "RTMR2 EV_IPL \".cmdline\" (name of a section)");
    assert_eq!(shown[1], "RTMR2 EV_IPL \".cmdline\" (what the section holds)");
    for (first, second) in [(&other, &name), (&name, &other), (&other, &other)] {
        assert!(!kinds_of(&section(first, second)).is_empty());
    }
}

#[test]
fn secure_boot_is_measured_before_its_separator_and_under_its_own_type() {
    let on = variable(Guid::GLOBAL_VARIABLE, "SecureBoot", &[1]);
    let config = EventType::EFI_VARIABLE_DRIVER_CONFIG;
    let log = |events: &[(u32, EventType, &[u8])]| {
        let log =
            events.iter().fold(LogWriter::new(), |log, (mr, kind, data)| log.measured(*mr, *kind, data));
        kinds_of(&log.fill(0xff, 8).bytes)
    };
    let separator = (1, EventType::SEPARATOR, &[0; 4][..]);
    assert_eq!(log(&[(1, config, &on), separator]), []);
    assert_eq!(log(&[separator, (1, config, &on)]), [WarningKind::AfterSeparator]);
    for kind in [EventType::S_CRTM_VERSION, EventType::EFI_PLATFORM_FIRMWARE_BLOB2] {
        assert_eq!(log(&[(1, kind, b"x"), separator]), [], "{kind}");
        assert_eq!(log(&[separator, (1, kind, b"x")]), [WarningKind::AfterSeparator], "{kind}");
    }
    let hob = (1, EventType::EFI_HANDOFF_TABLES2, &b"\x08TdxTable\0\0\0\0\0\0\0\0"[..]);
    assert_eq!(log(&[separator, hob]), [WarningKind::AfterSeparator]);
    // The separator of another register closes nothing here.
    assert_eq!(log(&[(2, EventType::SEPARATOR, &[0; 4]), (1, config, &on)]), []);
    for kind in [EventType::POST_CODE, EventType::NONHOST_INFO, EventType::IPL, EventType(0x1234)] {
        assert_eq!(log(&[(1, kind, &on), separator]), [WarningKind::VariableOfOtherType], "{kind}");
    }
    // Of a boot variable only the value is measured: its name could be any.
    for name in ["SecureBoot", "PK", "KEK"] {
        let forged = variable(Guid::GLOBAL_VARIABLE, name, &[1]);
        let found = log(&[(1, EventType::EFI_VARIABLE_BOOT, &forged), separator]);
        assert_eq!(found, [WarningKind::VariableOfOtherType], "{name}");
    }
    let order = variable(Guid::GLOBAL_VARIABLE, "BootOrder", &[1, 0]);
    assert_eq!(log(&[separator, (1, EventType::EFI_VARIABLE_BOOT, &order)]), []);
}

#[test]
fn firmware_measures_nothing_after_it_has_left_the_machine() {
    let left = (2, EventType::EFI_ACTION, &b"Exit Boot Services Returned with Success"[..]);
    let log = |events: &[(u32, EventType, &[u8])]| {
        let log =
            events.iter().fold(LogWriter::new(), |log, (mr, kind, data)| log.measured(*mr, *kind, data));
        kinds_of(&log.fill(0xff, 8).bytes)
    };
    let image = (2, EventType::EFI_BOOT_SERVICES_APPLICATION, &[0; 40][..]);
    assert_eq!(log(&[image, left]), []);
    assert_eq!(log(&[left, image]), [WarningKind::AfterExit]);
    assert_eq!(log(&[left, (1, EventType::NONHOST_INFO, b"x")]), [WarningKind::AfterExit]);
    // RTMR2 and RTMR3 are the system's.
    assert_eq!(log(&[left, (3, EventType::IPL, b"x"), (4, EventType::IPL, b"x")]), []);
}

#[test]
fn variables_are_told_in_words() {
    let words = |name: &str, value: &[u8]| {
        EventData::of(EventType::EFI_VARIABLE_BOOT, &variable(Guid::GLOBAL_VARIABLE, name, value)).to_string()
    };
    assert_eq!(words("SecureBoot", &[0]), "variable SecureBoot: off");
    assert_eq!(words("SecureBoot", &[1]), "variable SecureBoot: on");
    assert_eq!(words("BootOrder", &[1, 0, 0, 0]), "variable BootOrder: Boot0001, Boot0000");
    let mut option = vec![1, 0, 0, 0, 4, 0];
    option.extend(with_nul(utf16("Linux")));
    option.extend([0x7f, 0xff, 4, 0]);
    assert_eq!(words("Boot0001", &option), "variable Boot0001: \"Linux\" from no path");
    assert_eq!(words("Boot0001", &option[..9]), "variable Boot0001: 9 bytes");
    assert_eq!(words("PK", &[0; 7]), "variable PK: 7 bytes");
}
