//! The measurements of a Linux boot from outside: `measure --kernel` before it, `eventlog explain` after it.

use crate::cli::{Folder, tdvisor};
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

/// A kernel as far as Authenticode and QEMU look at it: a PE file with a setup header.
fn pe_kernel() -> Vec<u8> {
    let mut kernel = vec![0u8; 0x2000];
    kernel[..2].copy_from_slice(b"MZ");
    kernel[0x3c..0x40].copy_from_slice(&0x400u32.to_le_bytes());
    kernel[0x1f1] = 1;
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    kernel[0x211] = 1;
    let pe = &mut kernel[0x400..];
    pe[..4].copy_from_slice(b"PE\0\0");
    // PE32+ for x86-64, with no section.
    pe[4..6].copy_from_slice(&0x8664u16.to_le_bytes());
    pe[20..22].copy_from_slice(&240u16.to_le_bytes());
    pe[24..26].copy_from_slice(&0x20bu16.to_le_bytes());
    pe[24 + 60..24 + 64].copy_from_slice(&0x600u32.to_le_bytes());
    pe[24 + 108..24 + 112].copy_from_slice(&16u32.to_le_bytes());
    kernel
}

/// An image with the marks of OVMF: a table at its end, and a variable store.
fn ovmf_like() -> Vec<u8> {
    let mut image = td_image::testing::Image::ovmf().build();
    // A volume with a store of no variables.
    let store = [
        0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92, 0, 8,
        0, 0,
    ];
    image[40..44].copy_from_slice(b"_FVH");
    image[48..50].copy_from_slice(&72u16.to_le_bytes());
    image[72..92].copy_from_slice(&store);
    image
}

#[test]
fn under_ovmf_the_registers_are_ovmfs_and_each_build_is_named() {
    let folder = Folder::new("linux-ovmf");
    let (kernel, image) = (folder.write("vmlinuz", pe_kernel()), folder.write("ovmf.fd", ovmf_like()));
    let call = ["measure", &image, "--kernel", &kernel, "--cmdline", "console=ttyS0", "--memory", "2G"];
    let json = tdvisor(&[&call[..], &["--json"]].concat()).ends_with(0).json();
    let builds = json["boot"]["builds"].as_array().expect("builds");
    let names: Vec<&str> = builds.iter().filter_map(|build| build["build"].as_str()).collect();
    assert_eq!(
        names,
        ["ovmf", "ovmf-separator-rtmr0", "ovmf-202505", "ovmf-202608", "ovmf-without-measurement"]
    );
    for register in ["rtmr0", "rtmr1", "rtmr2"] {
        assert_eq!(builds[4]["registers"][register]["value"], Digest384::ZERO.to_string());
    }
    let shim = tdvisor(&["measure", "--kernel", &kernel, "--cmdline", "console=ttyS0", "--json"])
        .ends_with(0)
        .json();
    let of_shim = shim["boot"]["registers"]["rtmr1"]["value"].as_str().expect("the shim's RTMR1").to_owned();
    let mut values = Vec::new();
    for build in &builds[..4] {
        let of =
            |register: &str| build["registers"][register]["values"].as_array().cloned().unwrap_or_default();
        // The kernel as it is in the file, and as QEMU before 10.2 wrote into it.
        assert_eq!(of("rtmr1").len(), 2, "{build}");
        // With and without what OVMF adds for the initrd, behind or before.
        assert_eq!(of("rtmr2").len(), 3, "{build}");
        assert!(
            of("rtmr1")
                .iter()
                .any(|one| one["when"].as_str().is_some_and(|when| when.contains("QEMU before 10.2")))
        );
        values.extend(of("rtmr1").iter().filter_map(|one| one["value"].as_str()).map(str::to_owned));
        let missing = build["registers"]["rtmr0"]["not_predicted"].as_str().expect("ACPI is not known");
        assert!(missing.contains("etc/table-loader"), "{missing}");
    }
    assert!(!values.contains(&of_shim), "never the boot shim's registers under OVMF");
    let text = tdvisor(&call).ends_with(0).stdout();
    assert!(values.iter().all(|value| text.contains(value)), "{text}");
    assert!(text.contains("a build that measures nothing leaves these zero"), "{text}");
    let one = tdvisor(&[&call[..], &["--profile", "ovmf", "--json"]].concat()).ends_with(0).json();
    assert_eq!(one["boot"]["builds"].as_array().map(Vec::len), Some(1));
    // As reference values: what is predicted, all of it, and nothing else.
    let reference = tdvisor(&[&call[..], &["--format", "rvps"]].concat()).ends_with(0).json();
    let names: Vec<&String> = reference.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["mr_td", "rtmr_1", "rtmr_2"]);
    let rtmr1: Vec<&str> =
        reference["rtmr_1"].as_array().expect("values").iter().filter_map(|one| one.as_str()).collect();
    assert!(values.iter().all(|value| rtmr1.contains(&value.as_str())));
    assert!(
        !rtmr1.contains(&&*Digest384::ZERO.to_string()),
        "a register that nobody extends is no reference"
    );
    // With the machine's ACPI blobs, RTMR0 is known too.
    let [loader, rsdp, tables] = ["loader", "rsdp", "tables"].map(|name| folder.write(name, name));
    let acpi = [
        "--acpi-loader",
        &loader,
        "--acpi-rsdp",
        &rsdp,
        "--acpi-tables",
        &tables,
        "--json",
        "--profile",
        "ovmf",
    ];
    let known = tdvisor(&[&call[..], &acpi].concat()).ends_with(0).json();
    assert!(known["boot"]["builds"][0]["registers"]["rtmr0"]["values"].is_array(), "{known:#}");
}

#[test]
fn what_is_not_known_of_a_firmware_is_status_2_and_never_another_firmwares_registers() {
    let folder = Folder::new("linux-other-firmware");
    let kernel = folder.write("vmlinuz", pe_kernel());
    let elf = folder.write("vmlinux", KERNEL);
    let other = folder.write("other.fd", td_image::testing::Image::hello().build());
    let ovmf = folder.write("ovmf.fd", ovmf_like());
    for call in [
        &["measure", "hello-td", "--kernel", &kernel][..],
        &["measure", &other, "--kernel", &kernel],
        // OVMF starts PE files only.
        &["measure", &ovmf, "--kernel", &elf],
        &["measure", &ovmf, "--kernel", &kernel, "--td-hob", &elf],
    ] {
        tdvisor(call).ends_with(2).one_line_of_error();
    }
    // Who knows better says so.
    tdvisor(&["measure", &other, "--kernel", &kernel, "--profile", "boot-shim"]).ends_with(0);
}
