use super::*;
use crate::eventlog::EventType;
use crate::eventlog::tests::LogWriter;
use crate::predict::ovmf::{Inputs, PROFILES, direct_boot};

/// One event to write: register index, type, data, and what is measured instead of the data.
#[derive(Clone)]
struct Step {
    mr: u32,
    kind: EventType,
    data: Vec<u8>,
    measured: Vec<u8>,
}

fn tag(id: u32, text: &[u8]) -> Vec<u8> {
    let mut data = id.to_le_bytes().to_vec();
    data.extend((text.len() as u32).to_le_bytes());
    data.extend(text);
    data
}

fn step(mr: u32, kind: EventType, data: &[u8], measured: &[u8]) -> Step {
    Step { mr, kind, data: data.to_vec(), measured: measured.to_vec() }
}

fn action(text: &str) -> Step {
    step(2, EventType::EFI_ACTION, text.as_bytes(), text.as_bytes())
}

/// A direct boot in small.
fn boot() -> Vec<Step> {
    let image = [0u8; 32];
    vec![
        step(1, EventType::EFI_HANDOFF_TABLES2, b"\x09TdxTable\0\x01\0\0\0\0\0\0\0", b"hob"),
        step(1, EventType::SEPARATOR, &[0; 4], &[0; 4]),
        step(1, EventType::PLATFORM_CONFIG_FLAGS, b"ACPI DATA", b"loader"),
        step(1, EventType::PLATFORM_CONFIG_FLAGS, b"ACPI DATA", b"rsdp"),
        step(1, EventType::PLATFORM_CONFIG_FLAGS, b"ACPI DATA", b"tables"),
        step(2, EventType::EFI_BOOT_SERVICES_APPLICATION, &image, b"kernel"),
        action("Calling EFI Application from Boot Option"),
        step(2, EventType::SEPARATOR, &[0; 4], &[0; 4]),
        step(3, EventType::EVENT_TAG, &tag(0x8f3b_22ed, b"LOADED_IMAGE::LoadOptions\0"), b"quiet"),
        step(3, EventType::EVENT_TAG, &tag(0x8f3b_22ec, b"Linux initrd\0"), b"initrd"),
        action("Exit Boot Services Invocation"),
    ]
}

fn write(steps: &[Step]) -> Vec<u8> {
    let log = steps.iter().fold(LogWriter::new(), |log, step| {
        let digest = Digest384::of(&step.measured);
        log.event(step.mr, step.kind, &[(0xc, &digest.0)], &step.data)
    });
    log.fill(0xff, 16).bytes
}

fn reference() -> Prediction {
    let bytes = write(&boot());
    Prediction::from_log(&EventLog::parse(&bytes).unwrap())
}

fn explained(change: impl FnOnce(&mut Vec<Step>)) -> Explanation {
    let mut steps = boot();
    change(&mut steps);
    let bytes = write(&steps);
    explain(&EventLog::parse(&bytes).unwrap(), &reference(), "the reference boot", &Evidence::default())
}

fn causes(explanation: &Explanation) -> Vec<String> {
    explanation.differences().map(|line| line.cause.unwrap().to_string()).collect()
}

#[test]
fn the_same_boot_has_no_difference() {
    let explanation = explained(|_| {});
    assert!(explanation.agrees());
    assert_eq!(explanation.first(), None);
    assert_eq!(explanation.to_string(), "no difference from the reference boot\n");
}

#[test]
fn one_changed_input_is_one_difference_with_its_cause() {
    for (index, expected) in [
        (0, "memory size or firmware sections differ"),
        (4, "vCPU count or ACPI differs"),
        (5, "kernel differs"),
        (8, "command line differs"),
        (9, "initrd differs"),
    ] {
        let explanation = explained(|steps| steps[index].measured = b"changed".to_vec());
        assert_eq!(causes(&explanation), [expected]);
        assert_eq!(explanation.first().unwrap().logged.as_ref().unwrap().number, index as u32 + 1);
    }
}

#[test]
fn in_a_chain_of_images_none_is_called_the_kernel() {
    let explanation = explained(|steps| {
        let loader = Step { measured: b"shim".to_vec(), ..steps[5].clone() };
        steps.insert(5, loader);
    });
    assert_eq!(causes(&explanation), ["boot loader or kernel image differs"]);
}

#[test]
fn a_changed_configuration_of_grub_is_one_difference_wherever_its_file_lies() {
    let mut steps = boot();
    steps.push(step(3, EventType::IPL, b"(hd0,gpt1)/EFI/debian/grub.cfg\0", b"changed"));
    let mut expected = reference();
    let script = Expectation::Exactly(Digest384::of(b"as predicted"));
    expected.push(Register::Rtmr2, Part::grub_configuration(), script);
    let bytes = write(&steps);
    let log = EventLog::parse(&bytes).unwrap();
    let explanation = explain(&log, &expected, "the prediction", &Evidence::default());
    assert_eq!(causes(&explanation), ["boot loader configuration differs"]);
}

#[test]
fn the_first_difference_is_the_first_of_the_boot_not_of_the_list() {
    let explanation = explained(|steps| {
        steps[8].measured = b"debug".to_vec();
        steps[5].measured = b"other".to_vec();
        steps.swap(4, 5);
        steps[5].measured = b"more vCPUs".to_vec();
    });
    assert_eq!(
        causes(&explanation),
        ["vCPU count or ACPI differs", "kernel differs", "command line differs"]
    );
    assert_eq!(explanation.first().unwrap().cause, Some(Cause::Kernel), "it is before the ACPI event");
}

#[test]
fn a_separator_in_another_register_has_moved() {
    let explanation = explained(|steps| steps[7].mr = 1);
    assert_eq!(causes(&explanation), ["separator moved to RTMR0", "separator moved to RTMR0"]);
}

#[test]
fn an_added_and_a_missing_event_do_not_shift_the_rest() {
    let explanation = explained(|steps| {
        let cause = step(1, EventType::PLATFORM_CONFIG_FLAGS, b"BootMenu", &[0, 0]);
        steps.insert(1, cause);
        steps.pop();
    });
    assert_eq!(causes(&explanation), ["fw_cfg differs", "boot took another way"]);
    let standing: Vec<_> = explanation.differences().map(|line| line.standing).collect();
    assert_eq!(standing, [Standing::OnlyInLog, Standing::OnlyPredicted]);
}

#[test]
fn events_in_another_order_are_told_as_such() {
    let explanation = explained(|steps| steps.swap(8, 9));
    assert_eq!(causes(&explanation), ["order of events changed", "order of events changed"]);
}

fn registers(bytes: &[u8]) -> Registers {
    *EventLog::parse(bytes).unwrap().replay().registers()
}

fn verdicts(log: &[u8], registers: &Registers, runtime: Option<&Prediction>) -> Vec<RegisterVerdict> {
    let evidence = Evidence { registers: Some(registers), runtime };
    let log = EventLog::parse(log).unwrap();
    explain(&log, &reference(), "reference", &evidence)
        .registers
        .iter()
        .map(|report| report.verdict)
        .collect()
}

#[test]
fn run_time_extensions_without_a_log_are_not_called_tampering() {
    let log = write(&boot());
    let mut actual = registers(&log);
    assert_eq!(verdicts(&log, &actual, None), [RegisterVerdict::Replays; 4]);
    let event = Digest384::of(b"application");
    actual.0[3] = actual.0[3].extended_by(&event);
    let found = verdicts(&log, &actual, None);
    assert_eq!(found[3], RegisterVerdict::RuntimeOnly);
    assert!(found[3].is_explained());
    let mut list = Prediction::default();
    list.push(Register::Rtmr3, Part::Runtime("app".to_owned()), Expectation::Exactly(event));
    assert_eq!(verdicts(&log, &actual, Some(&list))[3], RegisterVerdict::ReplaysWithList);
    actual.0[3] = actual.0[3].extended_by(&event);
    assert_eq!(verdicts(&log, &actual, Some(&list))[3], RegisterVerdict::Contradicts, "the list is short");
    actual.0[2] = actual.0[2].extended_by(&event);
    assert_eq!(verdicts(&log, &actual, None)[2], RegisterVerdict::RuntimeOrForeign);
}

#[test]
fn a_log_that_does_not_belong_to_the_registers_is_contradicted() {
    let actual = registers(&write(&boot()));
    let changed = |change: &dyn Fn(&mut Vec<Step>)| {
        let mut steps = boot();
        change(&mut steps);
        verdicts(&write(&steps), &actual, None)
    };
    assert_eq!(changed(&|steps| steps[4].measured.push(1))[0], RegisterVerdict::Contradicts);
    let later = changed(&|steps| steps.push(action("Exit Boot Services Returned with Success")));
    assert_eq!(later[1], RegisterVerdict::Ahead { events: 4 });
    let added = changed(&|steps| steps.insert(6, action("Calling EFI Application from Boot Option")));
    assert_eq!(added[1], RegisterVerdict::EventAdded { number: 7 });
}

#[test]
fn the_best_of_several_profiles_explains_the_log() {
    let mut steps = boot();
    steps[7].mr = 1;
    let bytes = write(&steps);
    let predictions: Vec<_> = PROFILES
        .iter()
        .map(|profile| (profile.name.to_owned(), direct_boot(&Inputs::default(), *profile).unwrap()))
        .collect();
    let log = EventLog::parse(&bytes).unwrap();
    let best = explain_by_best(&log, &predictions, &Evidence::default()).unwrap();
    assert_eq!(best.against, "ovmf-separator-rtmr0");
}

#[test]
fn a_page_escapes_what_the_log_says() {
    let explanation = explained(|steps| {
        steps.push(step(3, EventType::IPL, b"<script>alert('x')</script>\0", b"x"));
    });
    let page = explanation.to_html();
    assert!(!page.contains("<script"), "the log's text must not become markup");
    assert!(page.contains("&lt;script&gt;"));
    assert!(!page.contains("http"), "the page needs nothing from elsewhere");
}

#[test]
fn json_names_first_difference_cause_and_digests() {
    let json = explained(|steps| steps[5].measured = b"other".to_vec()).to_json();
    assert_eq!(json["agrees"], false);
    assert_eq!(json["first"]["cause"], "kernel-differs");
    assert_eq!(json["first"]["log"]["digest"], Digest384::of(b"other").to_string());
    assert_eq!(json["first"]["predicted"], Digest384::of(b"kernel").to_string());
    assert_eq!(json["differences"].as_array().unwrap().len(), 1);
    assert_eq!(json["lines"].as_array().unwrap().len(), boot().len());
}

#[test]
fn text_tells_the_first_and_every_difference() {
    let explanation = explained(|steps| {
        steps[4].measured = b"four vCPUs".to_vec();
        steps[8].measured = b"debug".to_vec();
    });
    insta::assert_snapshot!(explanation.to_string());
}
