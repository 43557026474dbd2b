//! The local APIC, register by register and vector by vector.

use tdvisor_vm::interrupt::Destination;

use super::*;
use crate::msr::GeneralProtection;

const TPR: u32 = 0x808;
const PPR: u32 = 0x80a;
const EOI: u32 = 0x80b;
const SVR: u32 = 0x80f;
const ESR: u32 = 0x828;
const ICR: u32 = 0x830;
const LVT_TIMER: u32 = 0x832;
const SELF_IPI: u32 = 0x83f;

fn enabled() -> LocalApic {
    let mut apic = LocalApic::new(3, 2_000_000_000);
    assert_eq!(apic.write(SVR, 0x1ff, 0), Ok(Effect::None));
    apic
}

#[test]
fn a_vector_is_delivered_acknowledged_and_ended() {
    let mut apic = enabled();
    apic.accept(0x31, Trigger::Edge);
    assert_eq!((apic.deliverable(), apic.read(0x821, 0)), (Some(0x31), Ok(1 << 17)));
    assert_eq!(apic.acknowledge(), Some(0x31));
    assert_eq!((apic.read(0x821, 0), apic.read(0x811, 0)), (Ok(0), Ok(1 << 17)));
    assert_eq!(apic.write(EOI, 0, 0), Ok(Effect::None));
    assert_eq!(apic.read(0x811, 0), Ok(0));
}

#[test]
fn what_is_in_service_holds_back_its_own_class_and_lower_ones() {
    let mut apic = enabled();
    apic.accept(0x42, Trigger::Edge);
    assert_eq!(apic.acknowledge(), Some(0x42));
    for held in [0x31, 0x41, 0x4f] {
        apic.accept(held, Trigger::Edge);
        assert_eq!(apic.deliverable(), None, "{held:#x}");
    }
    apic.accept(0x50, Trigger::Edge);
    assert_eq!(apic.acknowledge(), Some(0x50), "a higher class nests");
    assert_eq!(apic.write(EOI, 0, 0), Ok(Effect::None));
    assert_eq!(apic.deliverable(), None, "0x42 is in service still");
    assert_eq!(apic.write(EOI, 0, 0), Ok(Effect::None));
    assert_eq!(apic.deliverable(), Some(0x4f));
}

#[test]
fn the_task_priority_holds_back_classes_up_to_its_own() {
    let mut apic = enabled();
    apic.accept(0x4f, Trigger::Edge);
    apic.write(TPR, 0x45, 0).unwrap();
    assert_eq!((apic.deliverable(), apic.read(PPR, 0)), (None, Ok(0x45)));
    apic.set_priority_class(3);
    assert_eq!((apic.deliverable(), apic.read(TPR, 0)), (Some(0x4f), Ok(0x30)));
}

#[test]
fn only_a_level_triggered_interrupt_tells_its_source_of_its_end() {
    let mut apic = enabled();
    apic.accept(0x60, Trigger::Level);
    assert_eq!(apic.acknowledge(), Some(0x60));
    assert_eq!(apic.write(EOI, 0, 0), Ok(Effect::EndOfInterrupt(0x60)));
    apic.accept(0x60, Trigger::Edge);
    assert_eq!(apic.acknowledge(), Some(0x60));
    assert_eq!(apic.write(EOI, 0, 0), Ok(Effect::None));
    assert_eq!(apic.write(EOI, 0, 0), Ok(Effect::None), "an EOI without an interrupt");
}

#[test]
fn a_notification_is_taken_only_where_it_would_be_delivered_and_is_never_in_service() {
    let mut apic = enabled();
    apic.accept(0xf2, Trigger::Edge);
    apic.accept(0xf3, Trigger::Edge);
    assert!(!apic.take_notification(0xf2), "0xf3 comes first");
    assert_eq!(apic.acknowledge(), Some(0xf3));
    assert!(!apic.take_notification(0xf2), "its class is in service");
    apic.write(EOI, 0, 0).unwrap();
    assert!(apic.take_notification(0xf2));
    assert_eq!((apic.deliverable(), apic.read(0x817, 0)), (None, Ok(0)));
}

#[test]
fn a_disabled_apic_takes_no_vector_and_masks_its_own() {
    let mut apic = LocalApic::new(0, 2_000_000_000);
    apic.accept(0x31, Trigger::Edge);
    assert_eq!(apic.deliverable(), None);
    apic.write(LVT_TIMER, 0xec, 0).unwrap();
    assert_eq!(apic.read(LVT_TIMER, 0), Ok(0x100ec));
    apic.accept_nmi();
    assert!(apic.take_nmi(), "an NMI asks for no permission");
    assert!(!apic.take_nmi());
}

#[test]
fn the_deadline_timer_sends_its_vector_once() {
    let mut apic = enabled();
    apic.write(LVT_TIMER, 2 << 17 | 0xec, 0).unwrap();
    apic.write(MSR_TSC_DEADLINE, 1_000, 0).unwrap();
    apic.tick(999);
    assert_eq!((apic.deliverable(), apic.deadline()), (None, Some(1_000)));
    apic.tick(1_000);
    assert_eq!((apic.deliverable(), apic.deadline()), (Some(0xec), None));
    assert_eq!(apic.read(MSR_TSC_DEADLINE, 1_000), Ok(0));
}

#[test]
fn a_command_names_its_destination_and_what_it_asks() {
    let mut apic = enabled();
    let mut send = |value| apic.write(ICR, value, 0).unwrap();
    let ipi = |destination, delivery| Effect::Send(Ipi { destination, delivery });
    assert_eq!(send(7 << 32 | 0xfd), ipi(Destination::Physical(7), Delivery::Fixed(0xfd)));
    assert_eq!(send(5 << 32 | 1 << 11 | 0xfd), ipi(Destination::Logical(5), Delivery::Fixed(0xfd)));
    assert_eq!(send(0xffff_ffff << 32 | 0xfd), ipi(Destination::All, Delivery::Fixed(0xfd)));
    assert_eq!(send(1 << 18 | 0xfd), ipi(Destination::Physical(3), Delivery::Fixed(0xfd)));
    assert_eq!(send(3 << 18 | 4 << 8), ipi(Destination::AllBut(3), Delivery::Nmi));
    assert_eq!(send(7 << 32 | 5 << 8), ipi(Destination::Physical(7), Delivery::Init));
    assert_eq!(send(7 << 32 | 6 << 8 | 8), ipi(Destination::Physical(7), Delivery::StartUp(8)));
    let own = ipi(Destination::Physical(3), Delivery::Fixed(0xf2));
    assert_eq!(apic.write(SELF_IPI, 0xf2, 0), Ok(own));
}

#[test]
fn an_illegal_vector_is_an_error_of_sender_and_receiver() {
    let mut apic = enabled();
    assert_eq!(apic.write(SELF_IPI, 15, 0), Ok(Effect::None));
    apic.accept(3, Trigger::Edge);
    assert_eq!(apic.read(ESR, 0), Ok(0), "latched by a write");
    apic.write(ESR, 0, 0).unwrap();
    assert_eq!(apic.read(ESR, 0), Ok(0x60));
    apic.write(ESR, 0, 0).unwrap();
    assert_eq!(apic.read(ESR, 0), Ok(0));
}

#[test]
fn the_whole_register_space_refuses_what_it_has_not() {
    const READABLE: [std::ops::RangeInclusive<u32>; 9] = [
        0x802..=0x803,
        0x808..=0x808,
        0x80a..=0x80a,
        0x80d..=0x80d,
        0x80f..=0x828,
        0x82f..=0x830,
        0x832..=0x839,
        0x83e..=0x83e,
        0x6e0..=0x6e0,
    ];
    const READ_ONLY: [u32; 5] = [0x802, 0x803, PPR, 0x80d, 0x839];
    for msr in (MSR_FIRST..=MSR_LAST).chain([MSR_TSC_DEADLINE]) {
        let readable = READABLE.iter().any(|range| range.contains(&msr));
        assert_eq!(enabled().read(msr, 0).is_ok(), readable, "RDMSR {msr:#x}");
        let bitmap = (0x810..0x828).contains(&msr);
        let writable = (readable && !READ_ONLY.contains(&msr) && !bitmap) || matches!(msr, EOI | SELF_IPI);
        assert_eq!(enabled().write(msr, 0, 0).is_ok(), writable, "WRMSR {msr:#x}");
        let wide = matches!(msr, ICR | MSR_TSC_DEADLINE);
        assert_eq!(enabled().write(msr, 1 << 63, 0).is_ok(), writable && wide, "WRMSR {msr:#x}, high half");
    }
}

#[test]
fn a_reserved_bit_is_refused_and_changes_nothing() {
    for (msr, value) in [
        (TPR, 0x100),
        (EOI, 1),
        (SVR, 1 << 12),
        (ESR, 1),
        (LVT_TIMER, 1 << 20),
        (0x837, 1 << 8),
        (0x83e, 4),
        (SELF_IPI, 0x100),
        (ICR, 1 << 20),
        (ICR, 1 << 13),
    ] {
        let mut apic = enabled();
        let before = format!("{apic:?}");
        assert_eq!(apic.write(msr, value, 0), Err(GeneralProtection), "{msr:#x} := {value:#x}");
        assert_eq!(format!("{apic:?}"), before, "{msr:#x} := {value:#x}");
    }
}
