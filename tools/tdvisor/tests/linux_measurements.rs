//! The measurements of a Linux boot from outside: `measure --kernel` before it, `eventlog explain` after it.

mod cli;

use cli::{Folder, tdvisor};
use td_image::digest::Digest384;

const KERNEL: &[u8] = b"\x7fELF: a kernel, as far as its digest goes";
const INITRD: &[u8] = b"070701: an initrd";
const COMMAND_LINE: &str = "console=ttyS0 root=/dev/vda";
const HOB: &[u8] = b"a TD HOB with its end marker";

const HANDOFF_TABLES2: u32 = 0x8000_000b;
const SEPARATOR: u32 = 4;
const IPL: u32 = 0xd;

/// A log as the boot shim writes it.
fn log(kernel: &[u8], command_line: &str, initrd: Option<&[u8]>) -> Vec<u8> {
    let mut log = Vec::new();
    let words = |log: &mut Vec<u8>, words: &[u32]| {
        log.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    let mut specification = b"Spec ID Event03\0\0\0\0\0\0\x02\0\x02\x01\0\0\0\x0c\0\x30\0".to_vec();
    specification.push(0);
    words(&mut log, &[1, 3]);
    log.extend([0; 20]);
    words(&mut log, &[specification.len() as u32]);
    log.extend(specification);
    let mut event = |mr: u32, kind: u32, measured: &[u8], data: &[u8]| {
        words(&mut log, &[mr, kind, 1]);
        log.extend([0xc, 0]);
        log.extend(Digest384::of(measured).0);
        words(&mut log, &[data.len() as u32]);
        log.extend(data);
    };
    event(1, HANDOFF_TABLES2, HOB, b"\x08TdxTable\0\0\0\0\0\0\0\0");
    event(1, SEPARATOR, &[0; 4], &[0; 4]);
    event(2, IPL, kernel, b"kernel\0");
    event(2, SEPARATOR, &[0; 4], &[0; 4]);
    let text = format!("kernel_cmdline: {command_line}\0");
    event(3, IPL, command_line.as_bytes(), text.as_bytes());
    if let Some(initrd) = initrd {
        event(3, IPL, initrd, b"initrd\0");
    }
    event(3, SEPARATOR, &[0; 4], &[0; 4]);
    log.extend([0xff; 256]);
    log
}

/// A command about a boot of these files, answered in JSON.
fn boot<'a>(command: &[&'a str], kernel: &'a str, initrd: &'a str, hob: &'a str) -> Vec<&'a str> {
    let files =
        ["--kernel", kernel, "--initrd", initrd, "--cmdline", COMMAND_LINE, "--td-hob", hob, "--json"];
    [command, &files].concat()
}

#[test]
fn the_registers_before_the_boot_are_those_of_the_log_after_it() {
    let folder = Folder::new("linux-registers");
    let (kernel, initrd) = (folder.write("vmlinux", KERNEL), folder.write("initrd", INITRD));
    let hob = folder.write("hob", HOB);
    let measured = tdvisor(&boot(&["measure"], &kernel, &initrd, &hob)).ends_with(0).json();
    let log = folder.write("log", log(KERNEL, COMMAND_LINE, Some(INITRD)));
    let replayed = tdvisor(&["eventlog", "replay", &log, "--json"]).ends_with(0).json();
    for (number, register) in ["rtmr0", "rtmr1", "rtmr2"].into_iter().enumerate() {
        let predicted = &measured["boot"]["registers"][register]["value"];
        assert!(predicted.is_string(), "{register} is predicted");
        assert_eq!(*predicted, replayed["registers"][number]["replayed"], "{register}");
    }
    assert_eq!(measured["boot"]["registers"]["rtmr3"]["value"], serde_json::Value::Null);
}

#[test]
fn what_is_not_known_is_said_instead_of_guessed() {
    let folder = Folder::new("linux-unknown");
    let kernel = folder.write("vmlinux", KERNEL);
    let text = tdvisor(&["measure", "--kernel", &kernel]).ends_with(0).stdout();
    assert!(text.contains("RTMR0 not predicted: needs the TD HOB"), "{text}");
    assert!(text.contains("RTMR3 not predicted"), "{text}");
    // With the memory size, the host's TD HOB is known.
    let with_image = |memory: &str| {
        let call = ["measure", "--kernel", &kernel, "--memory", memory, "--json"];
        tdvisor(&call).ends_with(0).json()
    };
    let (small, large) = (with_image("256M"), with_image("512M"));
    let shim = tdvisor(&["measure", "boot-shim", "--json"]).ends_with(0).json();
    assert!(shim["mrtd"]["interleaved"].is_string());
    assert_eq!(small["mrtd"], shim["mrtd"], "without an image, the boot shim is meant");
    assert_eq!(small["mrtd"], large["mrtd"], "the TD HOB is in RTMR0, not in MRTD");
    let registers = |json: &serde_json::Value, register: &str| json["boot"]["registers"][register].clone();
    assert_ne!(registers(&small, "rtmr0"), registers(&large, "rtmr0"));
    assert_eq!(registers(&small, "rtmr1"), registers(&large, "rtmr1"));
    assert_eq!(registers(&small, "rtmr2"), registers(&large, "rtmr2"));
}

#[test]
fn input_that_cannot_be_used_gives_status_2() {
    let folder = Folder::new("linux-unusable");
    let kernel = folder.write("vmlinux", KERNEL);
    tdvisor(&["measure", "--kernel", "/no/such/kernel"]).ends_with(2).one_line_of_error();
    tdvisor(&["measure", "--kernel", &kernel, "--initrd", "/no/such/initrd"])
        .ends_with(2)
        .one_line_of_error();
    tdvisor(&["measure", "--kernel", "/dev/zero"]).ends_with(2).one_line_of_error();
    tdvisor(&["measure"]).ends_with(2);
    tdvisor(&["measure", "hello-td", "--initrd", &kernel]).ends_with(2);
}

#[test]
fn a_log_of_the_boot_shim_is_explained_by_what_was_booted() {
    let folder = Folder::new("linux-explain");
    let (kernel, initrd) = (folder.write("vmlinux", KERNEL), folder.write("initrd", INITRD));
    let hob = folder.write("hob", HOB);
    let explain = |log: &str, status: i32| -> Vec<String> {
        let call = boot(&["eventlog", "explain", log], &kernel, &initrd, &hob);
        let json = tdvisor(&call).ends_with(status).json();
        assert_eq!(json["against"], "the prediction for the boot-shim");
        let differences = json["differences"].as_array().expect("an array");
        differences.iter().filter_map(|line| line["cause"].as_str().map(str::to_owned)).collect()
    };
    let write = |name: &str, bytes: Vec<u8>| folder.write(name, bytes);
    let same = write("same", log(KERNEL, COMMAND_LINE, Some(INITRD)));
    assert!(explain(&same, 0).is_empty());
    for (name, bytes, cause) in [
        ("kernel", log(b"another", COMMAND_LINE, Some(INITRD)), "kernel-differs"),
        ("cmdline", log(KERNEL, "quiet", Some(INITRD)), "command-line-differs"),
        ("initrd", log(KERNEL, COMMAND_LINE, Some(b"another")), "initrd-differs"),
        ("none", log(KERNEL, COMMAND_LINE, None), "initrd-differs"),
    ] {
        assert_eq!(explain(&write(name, bytes), 1), [cause], "{name}");
    }
    // Without any input, nothing is claimed to differ.
    tdvisor(&["eventlog", "explain", &same]).ends_with(0);
}

/// Some hosts measure the TD HOB into MRTD: then MRTD follows from the list, or from nothing.
#[test]
fn an_image_that_has_its_td_hob_measured_needs_the_list_and_says_so() {
    const SECTIONS: usize = 16;
    const SECTION: usize = 32;
    const TD_HOB: [u8; 4] = [2, 0, 0, 0];
    let mut image = tdvisor_guest_images::BOOT_SHIM.image.to_vec();
    let descriptor = image.windows(4).rposition(|word| word == b"TDVF").expect("a descriptor");
    let hob = image[descriptor + SECTIONS..]
        .chunks(SECTION)
        .position(|section| section[24..28] == TD_HOB)
        .expect("a section for the TD HOB");
    image[descriptor + SECTIONS + hob * SECTION + 28] |= 1;
    let folder = Folder::new("linux-measured-hob");
    let image = folder.write("shim.fd", &image);
    let refused = tdvisor(&["measure", &image]).ends_with(2).one_line_of_error();
    assert!(refused.contains("TD_HOB"), "{refused}");
    let mrtd = |hob: &[u8]| {
        let hob = folder.write("hob", hob);
        let json = tdvisor(&["measure", &image, "--td-hob", &hob, "--json"]).ends_with(0).json();
        json["mrtd"]["interleaved"].as_str().expect("a measurement").to_owned()
    };
    assert_ne!(mrtd(HOB), mrtd(b"another list"));
}
