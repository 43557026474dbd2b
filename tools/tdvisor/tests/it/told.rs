//! What a run leaves for programs: events, numbers, and a dump.

use std::os::unix::fs::PermissionsExt as _;

use crate::cli::{Folder, tdvisor};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use object::{Endianness, elf};
use serde_json::{Value, json};

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an event is one JSON object")).collect()
}

#[test]
fn a_run_tells_its_events_in_their_order_and_a_seed_repeats_them() {
    let folder = Folder::new("told-events");
    let run = |name: &str| {
        let file = folder.path(name);
        tdvisor(&["run", "--deterministic", "5", "--events", &file, "--quote", &folder.path("quote")])
            .ends_with(0);
        std::fs::read_to_string(file).unwrap()
    };
    let text = run("events");
    assert_eq!(text, run("again"), "the same seed tells the same");
    let events = events(&text);
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((names.first(), names.last()), (Some(&"booted"), Some(&"powered-off")), "{names:?}");
    assert_eq!(events[0]["inspectable"], json!(false));
    assert!(names.contains(&"conversion") && names.contains(&"quote"), "{names:?}");
    let times: Vec<_> = events.iter().map(|event| event["seconds"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn the_numbers_of_a_run_are_those_of_its_summary() {
    let folder = Folder::new("told-metrics");
    let file = folder.path("metrics");
    let answer = tdvisor(&["run", "--json", "--metrics", &file]).ends_with(0);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.ends_with("# EOF\n"), "the whole of it");
    let sum = |prefix: &str| -> u64 {
        let values = text.lines().filter(|line| line.starts_with(prefix));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    let summary = answer.json();
    let counts: u64 = summary["seamcalls"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(sum("tdvisor_seamcalls_total"), counts);
    let exits: u64 = summary["exits"].as_object().unwrap().values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(sum("tdvisor_td_exits_total"), exits);
    assert_eq!(sum("tdvisor_td_state{state=\"ended\"}"), 1);
    assert_eq!(sum("tdvisor_audit_mismatches"), 0);
}

/// A guest's places by name, and how often each was met.
fn stacks(file: &str) -> Vec<(String, u64)> {
    let text = std::fs::read_to_string(file).expect("the stacks are text");
    let line = |line: &str| {
        let (place, count) = line.rsplit_once(' ').expect("a place and a count");
        (place.to_owned(), count.parse().expect("a number"))
    };
    text.lines().map(line).collect()
}

#[test]
fn samples_of_an_inspectable_td_name_the_functions_that_its_vcpus_are_in() {
    let folder = Folder::new("told-samples");
    let (file, again) = (folder.path("folded"), folder.path("again"));
    let elf = folder.write("elf", tdvisor_guest_images::HELLO_TD.elf);
    tdvisor(&["run", "--folded-stacks", &file]).ends_with(2);
    let options = ["--inspectable", "--deterministic", "1", "--sample-every", "1000"];
    let sampled = |file: &str| {
        let args = [&["run", "--folded-stacks", file, "--symbols", &elf][..], &options].concat();
        tdvisor(&args).ends_with(0);
        stacks(file)
    };
    let stacks = sampled(&file);
    let named = stacks.iter().filter(|(place, _)| !place.contains(";0x"));
    let (named, all) =
        (named.map(|(_, count)| count).sum::<u64>(), stacks.iter().map(|(_, count)| count).sum::<u64>());
    assert!(
        all > 100 && named * 2 > all,
        "{named} of {all} samples are of the guest's functions: {stacks:?}"
    );
    assert!(stacks.iter().all(|(place, _)| place.starts_with("vCPU 0;kernel;")), "{stacks:?}");
    assert!(stacks.iter().any(|(place, _)| place.contains("hello_td")), "{stacks:?}");
    assert_eq!(stacks, sampled(&again), "the same run has the same samples");
    let died = ["run", "fault-td", "--command", "triple-fault", "--debug", "--symbols"];
    let elf = folder.write("fault", tdvisor_guest_images::FAULT_TD.elf);
    let said = tdvisor(&[&died[..], &[&elf]].concat()).ends_with(3).stderr();
    let trail = said.lines().find(|line| line.contains("exits on LP 1")).expect("the last exits");
    assert!(
        trail.contains("triple fault at 0x") && trail.contains("(guest_main+0x"),
        "where it died is named: {trail}"
    );
    let bad = folder.write("bad", "no symbols");
    let args = ["run", "--inspectable", "--folded-stacks", &file, "--symbols", &bad];
    let said = tdvisor(&args).ends_with(2).one_line_of_error();
    assert!(said.contains(&bad), "{said}");
}

#[test]
fn a_td_that_was_started_inspectable_is_dumped_and_no_other() {
    let folder = Folder::new("told-dump");
    let file = folder.path("dump");
    let refused = tdvisor(&["run", "--dump", &file]).ends_with(2);
    assert!(refused.stderr().contains("--inspectable"), "{}", refused.stderr());
    let answer = tdvisor(&["run", "--vcpus", "2", "--json", "--inspectable", "--dump", &file]).ends_with(0);
    assert_eq!(answer.json()["inspectable"], json!(true));
    assert!(answer.stderr().contains("VMCOREINFO"), "hello-td keeps none: {}", answer.stderr());
    let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "of its owner alone");

    let bytes = std::fs::read(&file).unwrap();
    let (core, endian) = (elf::FileHeader64::<Endianness>::parse(&*bytes).unwrap(), Endianness::Little);
    assert_eq!((core.e_type(endian), core.e_machine(endian)), (elf::ET_CORE, elf::EM_X86_64));
    let headers = core.program_headers(endian, &*bytes).unwrap();
    let mut notes = headers.iter().find_map(|header| header.notes(endian, &*bytes).unwrap()).unwrap();
    let mut registers = 0;
    while let Some(note) = notes.next().unwrap() {
        registers += u32::from(note.n_type(endian) == elf::NT_PRSTATUS);
    }
    assert_eq!(registers, 2, "a set for each vCPU");
    let holds = |text: &[u8]| {
        let loads = headers.iter().filter(|header| header.p_type(endian) == elf::PT_LOAD);
        loads
            .map(|header| header.data(endian, &*bytes).unwrap())
            .any(|data| data.windows(text.len()).any(|window| window == text))
    };
    assert!(holds(b"hello-td"), "what the guest has in its private memory");
    assert!(!holds(b"a text that no guest has"));
}

#[test]
fn a_run_and_a_server_say_how_they_are_doing_while_they_run() {
    let folder = Folder::new("told-status");
    let image = folder.write("fault-td.fd", tdvisor_guest_images::FAULT_TD.image);
    let of_run = ["run", "fault-td", "--command", "spin"];
    let of_server = ["server", "--host-image", "--initrd", &image, "--cmdline", "command=spin"];
    for (arguments, says) in [(&of_run[..], " exits ("), (&of_server, " of them TDH.VP.ENTER")] {
        let mut call = arguments.to_vec();
        call.extend(["--status", "1", "--timeout", "4"]);
        let answer = tdvisor(&call).ends_with(124);
        let lines: Vec<_> = answer.stderr().lines().map(str::to_owned).collect();
        let status = lines.iter().filter(|line| line.starts_with("tdvisor: ") && line.contains(says));
        assert!(status.count() >= 1, "{lines:?}");
    }
}
