//! Spoilt images, logs and lists: an answer comes back, in bounded time, and nothing panics.

use td_image::igvm::{IgvmImage, IgvmLoader};
use td_image::mrtd::variants;
use td_image::tdvf::{HostContents, TdvfImage};
use tdvisor_attest::ccel::Ccel;
use tdvisor_attest::eventlog::EventLog;
use tdvisor_attest::explain::{Evidence, explain};
use tdvisor_attest::predict::{Prediction, authenticode, linux, list};
use tdvisor_test_data::vectors;

use super::spoil::{Seed, fuzz};

/// A TDVF image of 16 KiB with an OVMF-style table: one firmware volume, memory, a TD HOB, a payload.
fn tdvf() -> (Vec<u8>, std::ops::Range<usize>) {
    const SIZE: usize = 0x4000;
    let mut image = vec![0x5a; SIZE];
    let sections: [(u32, u32, u64, u64, u32, u32); 4] = [
        (0, SIZE as u32, 0x1_0000_0000 - SIZE as u64, SIZE as u64, 0, 1),
        (0, 0, 0x80_0000, 0x6000, 3, 0),
        (0, 0, 0x80_9000, 0x2000, 2, 0),
        (0x1000, 0x800, 0x100_0000, 0x1000, 5, 1),
    ];
    let mut descriptor = b"TDVF".to_vec();
    for word in [16 + 32 * sections.len() as u32, 1, sections.len() as u32] {
        descriptor.extend(word.to_le_bytes());
    }
    for (offset, raw, gpa, memory, kind, attributes) in sections {
        descriptor.extend(offset.to_le_bytes());
        descriptor.extend(raw.to_le_bytes());
        descriptor.extend(gpa.to_le_bytes());
        descriptor.extend(memory.to_le_bytes());
        descriptor.extend(kind.to_le_bytes());
        descriptor.extend(attributes.to_le_bytes());
    }
    let at = SIZE - 0x200;
    image[at..at + descriptor.len()].copy_from_slice(&descriptor);
    let mut table = 0x200u32.to_le_bytes().to_vec();
    table.extend(22u16.to_le_bytes());
    table.extend([
        0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2,
    ]);
    table.extend(40u16.to_le_bytes());
    table.extend([
        0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d,
    ]);
    image[SIZE - 0x20 - 40..SIZE - 0x20].copy_from_slice(&table);
    (image, at..SIZE)
}

#[test]
fn any_tdvf_image_gets_an_answer() {
    let image = tdvf();
    assert!(TdvfImage::parse(&image.0).is_ok(), "the seed is a good image");
    let (image, hot) = image;
    fuzz("tdvf", &[Seed::with_structure_in(image, hot)], |bytes| {
        if let Ok(image) = TdvfImage::parse(bytes) {
            let _ = image.notes().count();
            let pages: u64 =
                image.sections().filter(|section| section.is_added()).map(|one| one.pages()).sum();
            // Large images are bounded by MAX_ADDED_BYTES; measuring them often would only be slow.
            if pages < 0x20 {
                let host = HostContents { payload: Some(b"kernel"), ..HostContents::default() };
                let _ = variants::all(&image, host);
            }
        }
    });
}

fn igvm() -> (Vec<u8>, std::ops::Range<usize>) {
    let mut headers = Vec::new();
    let mut header = |kind: u32, body: &[u8]| {
        headers.extend(kind.to_le_bytes());
        headers.extend((body.len() as u32).to_le_bytes());
        headers.extend(body);
        headers.resize(headers.len().next_multiple_of(8), 0u8);
    };
    header(1, &[1, 0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header(0x301, &[0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    header(0x303, &[0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    for page in 0u8..4 {
        let mut body = [0; 24];
        body[1] = 0x10 * page;
        body[8] = 1;
        body[12..16].copy_from_slice(&0x100u32.to_le_bytes());
        body[16] = if page == 3 { 2 } else { 0 };
        header(0x302, &body);
    }
    let mut file = b"IGVM".to_vec();
    for word in [1, 24, headers.len() as u32, 0x1100, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(headers);
    let hot = 0..file.len();
    file.resize(0x1100, 7);
    (file, hot)
}

/// A right checksum and length, so that mutations get past the first door.
fn seal(bytes: &mut [u8]) {
    let size = (bytes.len() as u32).to_le_bytes();
    let Some(field) = bytes.get_mut(16..20) else { return };
    field.copy_from_slice(&size);
    let word =
        |at: usize| bytes.get(at..at + 4).map_or(0, |word| u32::from_le_bytes(word.try_into().unwrap()));
    let (start, length) = (word(8) as usize, word(12) as usize);
    let Some(headers) = start.checked_add(length).and_then(|end| bytes.get(start..end)) else { return };
    let fixed = if word(4) == 2 { bytes.get(24..32).unwrap_or_default() } else { &[] };
    let mut crc = u32::MAX;
    for byte in bytes[..20].iter().chain(&[0; 4]).chain(fixed).chain(headers) {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    bytes.get_mut(20..24).into_iter().for_each(|field| field.copy_from_slice(&(!crc).to_le_bytes()));
}

#[test]
fn any_igvm_file_gets_an_answer() {
    let (mut file, hot) = igvm();
    seal(&mut file);
    IgvmImage::parse(&file).unwrap_or_else(|error| panic!("the seed is a good file: {error}"));
    fuzz("igvm", &[Seed::with_structure_in(file, hot)], |bytes| {
        seal(bytes);
        if let Ok(image) = IgvmImage::parse(bytes) {
            let pages: u64 = image.pages().map(|pages| pages.unwrap().count).sum();
            if pages < 0x400 {
                let _ = IgvmLoader::ALL.map(|loader| image.mrtd(loader));
            }
        }
    });
}

/// Recorded logs cut to their entries, and a small one that is always there.
fn logs() -> Vec<Vec<u8>> {
    let mut small = vec![1, 0, 0, 0, 3, 0, 0, 0];
    small.extend([0; 20]);
    small.extend(33u32.to_le_bytes());
    small.extend(b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0c\0\x30\0\0");
    for (mr, kind, data) in [(1u32, 0x8000_0001u32, vec![0; 60]), (2, 4, vec![0; 4]), (3, 6, vec![9; 30])] {
        small.extend(mr.to_le_bytes());
        small.extend(kind.to_le_bytes());
        small.extend([1, 0, 0, 0, 0x0c, 0]);
        small.extend([0x77; 48]);
        small.extend((data.len() as u32).to_le_bytes());
        small.extend(data);
    }
    small.extend([0xff; 16]);
    let mut logs = vec![small];
    if let Ok(vectors) = vectors::find(vectors::ATTESTATION) {
        let mut paths: Vec<_> = std::fs::read_dir(vectors.join("eventlogs"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.to_string_lossy().contains("acpi-table"))
            .collect();
        paths.sort();
        logs.extend(paths.iter().map(|path| std::fs::read(path).unwrap()));
    }
    let cut = |log: Vec<u8>| {
        let end = log.iter().rposition(|byte| *byte != 0xff && *byte != 0).map_or(0, |last| last + 17);
        let end = end.min(log.len());
        log[..end].to_vec()
    };
    logs.into_iter().map(cut).collect()
}

#[test]
fn any_event_log_gets_an_answer() {
    let logs = logs();
    let reference = Prediction::from_log(&EventLog::parse(&logs[0]).unwrap());
    let seeds: Vec<Seed> = logs.into_iter().map(Seed::new).collect();
    fuzz("event log", &seeds, |bytes| {
        if let Ok(log) = EventLog::parse(bytes) {
            let shown: usize = log.walk().map(|found| format!("{found:?}").len()).sum();
            let described: usize = log.events().map(|event| event.to_string().len()).sum();
            assert!(shown >= described / 1000);
            let registers = *log.replay().registers();
            let evidence = Evidence { registers: Some(&registers), runtime: None };
            let explanation = explain(&log, &reference, "the reference", &evidence);
            assert!(explanation.registers.iter().all(|report| report.verdict.is_explained()));
            let _ = (explanation.to_string(), explanation.to_json(), explanation.to_html());
        }
    });
}

#[test]
fn any_kernel_table_and_list_gets_an_answer() {
    let mut kernel = vec![0u8; 0x3000];
    kernel[..2].copy_from_slice(b"MZ");
    kernel[0x3c] = 0x80;
    kernel[0x80..0x84].copy_from_slice(b"PE\0\0");
    kernel[0x86] = 1;
    kernel[0x94] = 240;
    kernel[0x98..0x9a].copy_from_slice(&0x20bu16.to_le_bytes());
    kernel[0xd5] = 4;
    kernel[0x104] = 16;
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206] = 0x0f;
    kernel[0x207] = 2;
    assert!(authenticode::sha384(&kernel).is_ok(), "the seed is a good image");
    let mut ccel = b"CCEL\x38\0\0\0".to_vec();
    ccel.resize(56, 2);
    let text = br#"[{"digest": "00", "imr": 3, "event": "x"}, {"register": "RTMR2"}]"#.to_vec();
    let seeds = [Seed::with_structure_in(kernel, 0..0x400), Seed::new(ccel), Seed::new(text)];
    fuzz("kernel, table, list", &seeds, |bytes| {
        let machine = linux::Machine { memory: 1 << 31, initrd: 0x1000 };
        let _ = (authenticode::sha384(bytes), linux::kernel(bytes, Some(machine)), Ccel::parse(bytes));
        let _ = list::parse(&String::from_utf8_lossy(bytes));
    });
}
