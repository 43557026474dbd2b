//! `measure` of OVMF that boots a disk, and of a build that measures nothing.

use crate::cli::pe::pe;
use crate::cli::{Folder, tdvisor};
use serde_json::{Value, json};
use td_image::digest::Digest384;
use td_image::testing::Image;

/// An image with the marks of OVMF: a table at its end, and a variable store without variables.
fn ovmf() -> Vec<u8> {
    Image::ovmf().build()
}

/// The beginning of a disk with one partition.
fn disk() -> Vec<u8> {
    let mut disk = vec![0u8; 512 * 34];
    disk[512..520].copy_from_slice(b"EFI PART");
    disk[512 + 72] = 2;
    disk[512 + 80] = 128;
    disk[512 + 84] = 128;
    disk[1024..1024 + 128].fill(3);
    disk
}

fn builds(json: &Value) -> Vec<(&str, &Value)> {
    let builds = json["boot"]["builds"].as_array().expect("builds");
    builds.iter().map(|build| (build["build"].as_str().expect("a name"), build)).collect()
}

#[test]
fn rtmr1_and_rtmr2_of_a_unified_kernel_image_follow_from_its_file_and_the_disk() {
    let folder = Folder::new("disk-boot-uki");
    let kernel = pe(&[(".text", b"kernel")]);
    let sections: [(&str, &[u8]); 3] = [(".linux", &kernel), (".cmdline", b"quiet"), (".osrel", b"ID=x\n")];
    let (image, uki) = (folder.write("ovmf.fd", ovmf()), folder.write("uki.efi", pe(&sections)));
    let disk = folder.write("disk.img", disk());
    let call = ["measure", &image, "--uki", &uki, "--disk", &disk];
    let json = tdvisor(&[&call[..], &["--json"]].concat()).ends_with(0).json();
    let mut rtmr2 = Digest384::ZERO;
    for (name, contents) in [(".linux", &kernel[..]), (".osrel", b"ID=x\n"), (".cmdline", b"quiet")] {
        rtmr2 = rtmr2.extended_by(&Digest384::of(&[name.as_bytes(), &[0]].concat()));
        rtmr2 = rtmr2.extended_by(&Digest384::of(contents));
    }
    let mut rtmr1 = std::collections::BTreeSet::new();
    for (name, build) in builds(&json) {
        let register = |register: &str| &build["registers"][register]["value"];
        if name == "ovmf-without-measurement" {
            assert_eq!(*register("rtmr1"), Digest384::ZERO.to_string());
            continue;
        }
        assert!(build["registers"]["rtmr0"]["not_predicted"].is_string(), "{name}");
        rtmr1.insert(register("rtmr1").as_str().expect("RTMR1").to_owned());
        match name {
            name if name.ends_with("its stub measures") => assert_eq!(*register("rtmr2"), rtmr2.to_string()),
            name if name.ends_with("its stub and kernel measure") => assert!(register("rtmr2").is_null()),
            _ => assert_eq!(*register("rtmr2"), Digest384::ZERO.to_string(), "{name}"),
        }
    }
    assert_eq!(
        rtmr1.len(),
        8,
        "two places of a separator, two who start the kernel, one or two calls to leave"
    );
    // Without the disk RTMR1 is not known, and another disk is another RTMR1.
    let without = tdvisor(&["measure", &image, "--uki", &uki]).ends_with(0).stdout();
    assert!(without.contains("RTMR1 not predicted: needs the disk image"), "{without}");
    // The reference values: no zero of a build that measures nothing.
    let reference = tdvisor(&[&call[..], &["--format", "rvps"]].concat()).ends_with(0).json();
    let named: Vec<&String> = reference.as_object().expect("an object").keys().collect();
    assert_eq!(named, ["mr_td", "rtmr_1"]);
    assert_eq!(reference["rtmr_1"].as_array().map(Vec::len), Some(8));
}

#[test]
fn boot_loaders_are_measured_in_their_order_and_what_they_run_is_said_to_be_unknown() {
    let folder = Folder::new("disk-boot-grub");
    let image = folder.write("ovmf.fd", ovmf());
    let [shim, grub, kernel] =
        ["shim", "grub", "kernel"].map(|name| folder.write(name, pe(&[(".text", name.as_bytes())])));
    let disk = folder.write("disk.img", disk());
    let call = |first: &str, second: &str| {
        let call = ["measure", &image, "--boot-loader", first, "--boot-loader", second, "--kernel", &kernel];
        tdvisor(&[&call[..], &["--disk", &disk, "--json"]].concat()).ends_with(0).json()
    };
    let (right, swapped) = (call(&shim, &grub), call(&grub, &shim));
    for ((name, one), (_, other)) in builds(&right).into_iter().zip(builds(&swapped)) {
        if name == "ovmf-without-measurement" {
            continue;
        }
        let value = |build: &Value| build["registers"]["rtmr1"]["value"].as_str().map(str::to_owned);
        assert!(value(one).is_some() && value(one) != value(other), "{name}");
        let missing = one["registers"]["rtmr2"]["not_predicted"].as_str().expect("a reason");
        assert!(missing.contains("boot loader runs"), "{missing}");
    }
}

#[test]
fn what_grub_runs_is_predicted_from_its_configuration_if_that_is_commands_of_plain_words() {
    let folder = Folder::new("disk-boot-grub-config");
    let image = folder.write("ovmf.fd", ovmf());
    let [grub, kernel] = ["grub", "kernel"].map(|name| folder.write(name, pe(&[(".text", name.as_bytes())])));
    let initrd = folder.write("initrd", "070701");
    let measured = |script: &str| {
        let configuration = folder.write("grub.cfg", script);
        let call = ["measure", &image, "--boot-loader", &grub, "--grub-config", &configuration, "--json"];
        tdvisor(&[&call[..], &["--kernel", &kernel, "--initrd", &initrd]].concat()).ends_with(0).json()
    };
    let register = |of: &Value| {
        let (_, build) = builds(of)[0];
        build["registers"]["rtmr2"].clone()
    };
    let (quiet, loud) =
        (measured("linux /K quiet\ninitrd /I\nboot\n"), measured("linux /K loud\ninitrd /I\nboot\n"));
    let value = |of: &Value| register(of)["value"].as_str().map(str::to_owned).expect("a value");
    assert_ne!(value(&quiet), value(&loud), "the command line counts");
    assert!(builds(&quiet).iter().any(|(name, _)| name.ends_with("its kernel measures nothing")));
    let asks = register(&measured("if linux /K; then boot; fi\n"));
    let missing = asks["not_predicted"].as_str().expect("a reason");
    assert!(missing.contains("line 1 of its configuration"), "{missing}");
    let alone = ["measure", &image, "--boot-loader", &grub, "--kernel", &kernel, "--initrd", &initrd];
    let error = tdvisor(&alone).ends_with(2).one_line_of_error();
    assert!(error.contains("--grub-config is missing"), "{error}");
}

#[test]
fn what_boots_nothing_or_is_no_such_file_is_status_2() {
    let folder = Folder::new("disk-boot-wrong");
    let image = folder.write("ovmf.fd", ovmf());
    let (kernel, text) = (folder.write("kernel", pe(&[(".text", b"x")])), folder.write("text", "text"));
    let uki = folder.write("uki", pe(&[(".linux", &pe(&[]))]));
    for call in [
        // No unified kernel image.
        &["measure", &image, "--uki", &kernel][..],
        &["measure", &image, "--uki", &text],
        // One that is given as a mere kernel: its sections would be measured, and not predicted.
        &["measure", &image, "--kernel", &uki],
        &["measure", &image, "--boot-loader", &text],
        &["measure", &image, "--uki", &uki, "--disk", &text],
        // Firmware that boots no disks.
        &["measure", "boot-shim", "--uki", &uki],
        // Nothing is booted.
        &["measure", &image, "--disk", &text],
        &["measure", &image, "--memory", "2G"],
    ] {
        tdvisor(call).ends_with(2).one_line_of_error();
    }
}

#[test]
fn the_acpi_tables_of_this_projects_board_make_rtmr0_of_ovmf_known() {
    let folder = Folder::new("disk-boot-board");
    let kernel = folder.write("kernel", pe(&[(".text", b"x")]));
    let mut firmware = ovmf();
    // A volume with a store of no variables, where the image's variable store lies: at its beginning.
    let store = [
        0x78, 0x2c, 0xf3, 0xaa, 0x7b, 0x94, 0x9a, 0x43, 0xa1, 0x80, 0x2e, 0x14, 0x4e, 0xc3, 0x77, 0x92, 0, 8,
        0, 0,
    ];
    firmware[40..44].copy_from_slice(b"_FVH");
    firmware[48..50].copy_from_slice(&72u16.to_le_bytes());
    firmware[72..92].copy_from_slice(&store);
    let image = folder.write("ovmf.fd", firmware);
    let rtmr0 = |vcpus: &str| {
        let call = ["measure", &image, "--kernel", &kernel, "--memory", "512M", "--board-vcpus", vcpus];
        let json = tdvisor(&[&call[..], &["--profile", "ovmf", "--json"]].concat()).ends_with(0).json();
        json["boot"]["builds"][0]["registers"]["rtmr0"]["values"].clone()
    };
    let (one, two) = (rtmr0("1"), rtmr0("2"));
    assert!(one.is_array() && one != two, "the tables name the vCPUs: {one}");
    tdvisor(&["measure", &image, "--kernel", &kernel, "--board-vcpus", "1"]).ends_with(2);
}

/// What systemd's stub logs of a section: its name as text of 16-bit characters, twice.
fn stub_events(sections: &[(&str, &[u8])]) -> Value {
    const EV_IPL: u32 = 0xd;
    let events = sections.iter().flat_map(|(name, contents)| {
        let text = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
        let payload: String = text.map(|byte| format!("{byte:02x}")).collect();
        [Digest384::of(&[name.as_bytes(), &[0]].concat()), Digest384::of(contents)].map(|digest| {
            json!({ "imr": 2, "event_type": EV_IPL, "digest": digest.to_string(), "event_payload": payload })
        })
    });
    events.collect()
}

#[test]
fn a_log_of_a_unified_kernel_image_is_explained_by_the_image_and_a_changed_section_has_its_name() {
    let folder = Folder::new("disk-boot-explain");
    let kernel = pe(&[(".text", b"kernel")]);
    let sections = |line: &'static [u8]| -> [(&'static str, Vec<u8>); 2] {
        [(".linux", kernel.clone()), (".cmdline", line.to_vec())]
    };
    let image = |name: &str, sections: &[(&str, Vec<u8>)]| {
        let sections: Vec<(&str, &[u8])> =
            sections.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
        (folder.write(name, pe(&sections)), stub_events(&sections))
    };
    let (good, events) = image("good.efi", &sections(b"quiet"));
    let (other, _) = image("other.efi", &sections(b"init=/bin/sh"));
    let log = folder.write("log.json", events.to_string());
    let causes = |uki: &str| -> Vec<String> {
        let call = ["eventlog", "explain", "--events", &log, "--uki", uki, "--json"];
        let json = tdvisor(&call).json();
        let differences = json["differences"].as_array().expect("differences").iter();
        let of_rtmr2 = differences.filter(|difference| difference["register"] == "RTMR2");
        of_rtmr2.map(|difference| difference["cause"].as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(causes(&good), [""; 0]);
    assert_eq!(causes(&other), ["command-line-differs"]);
}

#[test]
fn an_explanation_takes_the_machine_by_the_same_options_as_a_prediction() {
    let folder = Folder::new("disk-boot-options");
    let (image, log) = (folder.write("ovmf.fd", ovmf()), folder.write("log.json", "[]"));
    let call = ["eventlog", "explain", "--events", &log, "--firmware", &image];
    // Tables of a board need its memory; what is read is there.
    tdvisor(&[&call[..], &["--board-vcpus", "2"]].concat()).ends_with(2);
    tdvisor(&[&call[..], &["--board-vcpus", "2", "--memory", "2G"]].concat()).ends_with(1);
    tdvisor(&[&call[..], &["--smbios", "/no/such/file"]].concat()).ends_with(2).one_line_of_error();
    // A boot shim boots no disk.
    let uki = folder.write("uki.efi", pe(&[(".linux", &pe(&[]))]));
    tdvisor(&[&call[..], &["--profile", "boot-shim", "--uki", &uki]].concat())
        .ends_with(2)
        .one_line_of_error();
}
