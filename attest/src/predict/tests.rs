use super::linux::Machine;
use super::ovmf::{Inputs, PROFILES, direct_boot};
use super::*;
use td_image::tdvf::{HostContents, TdvfImage};
use td_image::testing::Image;

/// A PE32+ image: headers, two sections out of file order, trailing data, certificates.
pub(crate) fn pe_image() -> Vec<u8> {
    let mut image = vec![0u8; 0x3000];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x80;
    image[0x80..0x84].copy_from_slice(b"PE\0\0");
    let put = |image: &mut Vec<u8>, at: usize, value: u32| {
        image[at..at + 4].copy_from_slice(&value.to_le_bytes());
    };
    put(&mut image, 0x84, 2 << 16);
    image[0x94..0x96].copy_from_slice(&240u16.to_le_bytes());
    image[0x98..0x9a].copy_from_slice(&0x20bu16.to_le_bytes());
    put(&mut image, 0x98 + 60, 0x400);
    put(&mut image, 0x98 + 64, 0xdead_beef);
    put(&mut image, 0x98 + 108, 16);
    put(&mut image, 0x98 + 112 + 32, 0x2f00);
    put(&mut image, 0x98 + 112 + 36, 0x100);
    let table = 0x98 + 240;
    for (index, (start, size)) in [(0x1000u32, 0x1000u32), (0x400, 0xc00)].into_iter().enumerate() {
        put(&mut image, table + index * 40 + 16, size);
        put(&mut image, table + index * 40 + 20, start);
    }
    for (at, byte) in image.iter_mut().enumerate().skip(0x400) {
        *byte = (at % 251) as u8;
    }
    image
}

#[test]
fn an_authenticode_digest_leaves_out_checksum_directory_entry_and_certificates() {
    let image = pe_image();
    let digest = authenticode::sha384(&image).unwrap();
    let mut expected = Vec::new();
    let (checksum, entry) = (0x98 + 64, 0x98 + 112 + 32);
    expected.extend_from_slice(&image[..checksum]);
    expected.extend_from_slice(&image[checksum + 4..entry]);
    expected.extend_from_slice(&image[entry + 8..0x2f00]);
    assert_eq!(digest, Digest384::of(&expected));
    let mut other = image.clone();
    other[checksum] ^= 1;
    other[0x2f80] ^= 1;
    assert_eq!(authenticode::sha384(&other), Ok(digest));
    other[0x1234] ^= 1;
    assert_ne!(authenticode::sha384(&other), Ok(digest));
    assert_eq!(authenticode::sha384_padded(&image), Ok(None));
}

#[test]
fn broken_pe_images_are_errors_wherever_they_break() {
    let image = pe_image();
    for length in 0..image.len() {
        assert!(authenticode::sha384(&image[..length]).is_err(), "cut to {length}");
    }
    assert_eq!(authenticode::sha384(b"\x7fELF"), Err(authenticode::PeError::NoPe));
}

#[test]
fn older_qemu_writes_into_the_kernels_setup_header() {
    let mut kernel = pe_image();
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    kernel[0x211] = 1;
    kernel[0x236] = 0x3f;
    let machine = |memory| Some(Machine { memory, initrd: 0x10_0000 });
    let digests = |memory| match linux::kernel(&kernel, machine(memory)).unwrap() {
        Expectation::OneOf(list) => list.into_iter().map(|one| one.digest).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(digests(4 << 30).len(), 2);
    assert_eq!(digests(4 << 30), digests(64 << 30), "from 2.75 GiB on, the initrd's place is the same");
    assert_eq!(digests(4 << 30), digests(2 << 30), "and at exactly 2 GiB");
    assert_ne!(digests(4 << 30), digests(1 << 30));
    assert_eq!(linux::kernel(&kernel, machine(0x10_0000)), Err(linux::KernelError::InitrdTooLarge));
}

#[test]
fn everything_given_makes_every_register_but_rtmr3_known_or_one_of_few() {
    let bytes = Image::hello().build();
    let kernel = pe_image();
    let inputs = Inputs {
        firmware: Some(TdvfImage::parse(&bytes).unwrap()),
        memory: Some(4 << 30),
        acpi_loader: Some(b"loader"),
        acpi_rsdp: Some(b"rsdp"),
        acpi_tables: Some(b"tables"),
        smbios: None,
        boot_disk: None,
        kernel: Some(&kernel),
        initrd: Some(b"initrd"),
        command_line: Some("console=ttyS0"),
    };
    for profile in PROFILES {
        let prediction = direct_boot(&inputs, profile).unwrap();
        let unknown: Vec<_> = prediction
            .events
            .iter()
            .filter(|event| matches!(event.expectation, Expectation::Unknown { .. }))
            .map(|event| event.part.clone())
            .collect();
        // The test image has no CFV section, the authority event is the firmware's own, and nobody gave SMBIOS tables.
        assert!(
            unknown
                .iter()
                .all(|part| matches!(part, Part::VariableStore | Part::Authority(_) | Part::Smbios)),
            "{}: {unknown:?}",
            profile.name
        );
        assert_eq!(prediction.silent, [Register::Rtmr3]);
    }
}

#[test]
fn without_inputs_only_constants_are_known() {
    let prediction = direct_boot(&Inputs::default(), PROFILES[0]).unwrap();
    let kernel = prediction.of(Register::Rtmr1).next().unwrap();
    assert!(matches!(&kernel.expectation, Expectation::Unknown { needs } if needs == "the kernel"));
    assert_eq!(prediction.value(Register::Rtmr1), None);
    assert!(prediction.silent.contains(&Register::Rtmr2));
}

#[test]
fn hello_td_extends_rtmr3_once() {
    let prediction = guest::Guest::HelloTd.prediction();
    assert_eq!(prediction.value(Register::Rtmr3), Some(Digest384::ZERO.extended_by(&guest::HELLO_TD_EVENT)));
    assert_eq!(prediction.value(Register::Rtmr0), Some(Digest384::ZERO));
}

#[test]
fn an_applications_list_is_read_in_both_spellings() {
    let digest = "ab".repeat(48);
    let text = format!(
        r#"[{{"imr": 3, "event_type": 134217729, "digest": "{digest}", "event": "app-id", "event_payload": "00"}},
            {{"register": "RTMR2", "digest": "{digest}", "name": "x"}}, {{"digest": "{digest}", "imr": 3}}]"#
    );
    let list = list::parse(&text).unwrap();
    assert_eq!(list.contradictions().next(), Some((0, "app-id")), "the digest is not of name and payload");
    let prediction = list.prediction();
    let names: Vec<_> =
        prediction.events.iter().map(|event| (event.register, event.part.to_string())).collect();
    assert_eq!(
        names,
        [
            (Register::Rtmr3, "run-time event app-id".to_owned()),
            (Register::Rtmr2, "run-time event x".to_owned()),
            (Register::Rtmr3, "run-time event 2".to_owned()),
        ]
    );
    assert_eq!(list::parse(r#"[{"digest": "00", "imr": 3}]"#), Err(list::ListError::Digest { line: 0 }));
    let out = format!(r#"[{{"digest": "{digest}", "imr": 4}}]"#);
    assert_eq!(list::parse(&out), Err(list::ListError::Register { line: 0 }));
    assert!(matches!(list::parse("{}"), Err(list::ListError::Json(_))));
}

#[test]
fn td_shim_measures_the_payload_after_the_separator() {
    let mut source = Image::hello();
    source.entries.push(td_image::testing::Entry {
        gpa: 0x1000_0000,
        mem_size: 0x2000,
        kind: td_image::tdvf::SectionKind::PAYLOAD,
        ..Default::default()
    });
    let bytes = source.build();
    let image = TdvfImage::parse(&bytes).unwrap();
    let host = HostContents { payload: Some(b"kernel"), ..HostContents::default() };
    let prediction = td_shim::boot(&image, &host);
    let parts: Vec<_> = prediction.of(Register::Rtmr1).map(|event| event.part.clone()).collect();
    assert_eq!(parts, [Part::Separator, Part::Payload]);
    let payload = prediction.of(Register::Rtmr1).nth(1).unwrap();
    let mut region = b"kernel".to_vec();
    region.resize(0x2000, 0);
    assert_eq!(payload.expectation.circumstance(&Digest384::of(&region)), Some("whole region"));
}

/// Two digests of a recorded log (dstack's sample) that no input of ours changes.
#[test]
fn constant_events_have_the_digests_of_real_logs() {
    let prediction = direct_boot(&Inputs::default(), PROFILES[0]).unwrap();
    let digest = |part: &str| {
        let event = prediction.events.iter().find(|event| event.part.to_string() == part).unwrap();
        event.expectation.only().unwrap().to_string()
    };
    assert!(digest("boot variable BootOrder").starts_with("1dd6f7b4"));
    assert!(digest("boot variable Boot0000").starts_with("23ada07f"));
    assert!(digest("Secure Boot variable PK").starts_with("6f2e3cbc"));
    assert!(digest("Secure Boot variable KEK").starts_with("d607c0ef"));
    assert!(digest("Secure Boot variable db").starts_with("08a74f89"));
    assert!(digest("Secure Boot variable dbx").starts_with("18cc6e01"));
    assert!(digest("action \"Calling EFI Application from Boot Option\"").starts_with("77a0dab2"));
    assert!(digest("action \"Exit Boot Services Returned with Success\"").starts_with("0a2e01c8"));
}

/// The values that were calculated apart from this crate for Debian's kernel 6.1.0-50 and recorded (case C06).
#[test]
fn rtmr1_of_a_direct_boot_is_the_kernels_authenticode_digest_and_four_events() {
    let kernel =
        "3e6ddcc244081c308309a56191d3d298999174a413da5e40d65fadaffe0303745f6bf1b019cde36b259b978f4718170d";
    for (profile, rtmr1) in [
        (
            "ovmf-separator-rtmr0",
            "4e41748f334c84f04b6187a5d7d73ef7cbc902973f18d9e88851b9d849ad6c1223d6a16be176c6aa2dd187b9ba0e047f",
        ),
        (
            "ovmf",
            "eead0611bf199fa874b668549ca6a87729233946fd5927251415183fdfa6825ec9f9eb0a4b3842318cd1547b26dc7c8b",
        ),
    ] {
        let profile = PROFILES.into_iter().find(|one| one.name == profile).unwrap();
        let mut prediction = direct_boot(&Inputs::default(), profile).unwrap();
        let image = prediction.events.iter_mut().find(|event| event.part == Part::Image).unwrap();
        image.expectation = Expectation::Exactly(kernel.parse().unwrap());
        assert_eq!(prediction.value(Register::Rtmr1).unwrap().to_string(), rtmr1, "{}", profile.name);
    }
}
