//! Every state that a local APIC can reach with four vectors, beside what the manual says of it (SDM volume 3, "Interrupt
//! acceptance for fixed interrupts", "Task and processor priorities", "Signaling interrupt servicing completion").
//!
//! The APIC is a value under a mutex: messages of others and accesses of its processor come one after the other, in any
//! order. So all their interleavings are all sequences of operations, and those are followed until no new state comes.

use std::collections::{BTreeSet, VecDeque};

use super::*;

const TPR: u32 = 0x808;
const PPR: u32 = 0x80a;
const EOI: u32 = 0x80b;
const SVR: u32 = 0x80f;
const ISR: u32 = 0x810;
const TMR: u32 = 0x818;
const IRR: u32 = 0x820;

/// Posted-interrupt notification.
const NOTIFICATION: u8 = 0xf2;
/// Two vectors of one class, one of them from a level; one of a higher class; the notification.
const VECTORS: [(u8, Trigger); 4] =
    [(0x31, Trigger::Edge), (0x3f, Trigger::Level), (0x42, Trigger::Edge), (NOTIFICATION, Trigger::Edge)];

/// What can happen to an APIC.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Accept(u8, Trigger),
    AcceptNmi,
    TakeNmi,
    Acknowledge,
    EndOfInterrupt,
    Notification,
    Priority(u8),
    Enable,
    Disable,
}

fn operations() -> Vec<Operation> {
    use Operation as O;
    let others = [
        O::AcceptNmi,
        O::TakeNmi,
        O::Acknowledge,
        O::EndOfInterrupt,
        O::Notification,
        O::Priority(0),
        // Class 3, in which two of the vectors are.
        O::Priority(0x38),
        O::Enable,
        O::Disable,
    ];
    VECTORS.into_iter().map(|(vector, trigger)| O::Accept(vector, trigger)).chain(others).collect()
}

/// An APIC as the manual describes it, with sets of vectors.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Manual {
    requested: BTreeSet<u8>,
    in_service: BTreeSet<u8>,
    level: BTreeSet<u8>,
    task_priority: u8,
    enabled: bool,
    nmi: bool,
}

/// What an operation answers: a vector, a yes or no, what others hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answered {
    Nothing,
    Vector(Option<u8>),
    Taken(bool),
    Effect(Effect),
}

impl Manual {
    fn processor_priority(&self) -> u8 {
        let serving = self.in_service.last().map_or(0, |vector| vector & 0xf0);
        if self.task_priority & 0xf0 >= serving { self.task_priority } else { serving }
    }

    fn deliverable(&self) -> Option<u8> {
        self.requested.last().copied().filter(|vector| vector & 0xf0 > self.processor_priority() & 0xf0)
    }

    fn perform(&mut self, operation: Operation) -> Answered {
        match operation {
            Operation::Accept(vector, trigger) => {
                if self.enabled {
                    self.requested.insert(vector);
                    if trigger == Trigger::Level {
                        self.level.insert(vector);
                    }
                }
                Answered::Nothing
            }
            Operation::AcceptNmi => {
                self.nmi = true;
                Answered::Nothing
            }
            Operation::TakeNmi => Answered::Taken(std::mem::take(&mut self.nmi)),
            Operation::Acknowledge => {
                let vector = self.deliverable();
                if let Some(vector) = vector {
                    self.requested.remove(&vector);
                    self.in_service.insert(vector);
                }
                Answered::Vector(vector)
            }
            Operation::EndOfInterrupt => Answered::Effect(match self.in_service.pop_last() {
                Some(vector) if self.level.contains(&vector) => Effect::EndOfInterrupt(vector),
                _ => Effect::None,
            }),
            Operation::Notification => {
                let taken = self.deliverable() == Some(NOTIFICATION);
                if taken {
                    self.requested.remove(&NOTIFICATION);
                }
                Answered::Taken(taken)
            }
            Operation::Priority(value) => {
                self.task_priority = value;
                Answered::Nothing
            }
            Operation::Enable | Operation::Disable => {
                // What is requested or in service stays.
                self.enabled = matches!(operation, Operation::Enable);
                Answered::Nothing
            }
        }
    }
}

fn write(apic: &mut LocalApic, register: u32, value: u64) -> Effect {
    apic.write(register, value, 0).unwrap_or_else(|error| panic!("{register:#x} = {value:#x}: {error:?}"))
}

fn perform(apic: &mut LocalApic, operation: Operation) -> Answered {
    match operation {
        Operation::Accept(vector, trigger) => apic.accept(vector, trigger),
        Operation::AcceptNmi => apic.accept_nmi(),
        Operation::TakeNmi => return Answered::Taken(apic.take_nmi()),
        Operation::Acknowledge => return Answered::Vector(apic.acknowledge()),
        Operation::EndOfInterrupt => return Answered::Effect(write(apic, EOI, 0)),
        Operation::Notification => return Answered::Taken(apic.take_notification(NOTIFICATION)),
        Operation::Priority(value) => assert_eq!(write(apic, TPR, value.into()), Effect::None),
        Operation::Enable => assert_eq!(write(apic, SVR, 0x1ff), Effect::None),
        Operation::Disable => assert_eq!(write(apic, SVR, 0xff), Effect::None),
    }
    Answered::Nothing
}

/// The vectors in a register of 256 bits.
fn vectors(apic: &LocalApic, first: u32) -> BTreeSet<u8> {
    let has = |vector: &u8| {
        let word = apic.read(first + u32::from(vector >> 5), 0).unwrap_or_default();
        word >> (vector & 31) & 1 == 1
    };
    (0..=u8::MAX).filter(has).collect()
}

#[test]
fn in_every_state_that_can_be_reached_an_apic_is_what_the_manual_says_and_loses_no_interrupt() {
    let first = (LocalApic::new(3, 2_000_000_000), Manual::default());
    let mut seen = BTreeSet::from([first.1.clone()]);
    let mut waiting = VecDeque::from([first]);
    while let Some((apic, manual)) = waiting.pop_front() {
        for operation in operations() {
            let (mut apic, mut manual) = (apic.clone(), manual.clone());
            let before = manual.clone();
            let (answered, expected) = (perform(&mut apic, operation), manual.perform(operation));
            assert_eq!(answered, expected, "{operation:?} in {before:?}");
            assert_eq!(vectors(&apic, IRR), manual.requested, "IRR after {operation:?} in {before:?}");
            assert_eq!(vectors(&apic, ISR), manual.in_service, "ISR after {operation:?} in {before:?}");
            assert_eq!(vectors(&apic, TMR), manual.level, "TMR after {operation:?} in {before:?}");
            let priority = apic.read(PPR, 0);
            assert_eq!(
                priority,
                Ok(manual.processor_priority().into()),
                "PPR after {operation:?} in {before:?}"
            );
            assert_eq!(apic.deliverable(), manual.deliverable(), "after {operation:?} in {before:?}");
            assert_eq!(apic.nmi_waits(), manual.nmi, "after {operation:?} in {before:?}");
            if seen.insert(manual.clone()) {
                is_emptied(apic.clone(), &manual);
                waiting.push_back((apic, manual));
            }
        }
    }
    // Requested and in service: any of four vectors each, with few exceptions; priority, enabled, NMI: two each.
    assert!(seen.len() > 1000, "{} states", seen.len());
}

/// From here on a processor that handles what comes is given every requested vector, once.
fn is_emptied(mut apic: LocalApic, manual: &Manual) {
    write(&mut apic, TPR, 0);
    let mut handled = Vec::new();
    for _ in 0..4 * VECTORS.len() {
        match apic.acknowledge() {
            Some(vector) => handled.push(vector),
            None => {
                write(&mut apic, EOI, 0);
            }
        }
    }
    assert_eq!(handled.len(), manual.requested.len(), "{manual:?}: {handled:x?}");
    assert_eq!(handled.into_iter().collect::<BTreeSet<_>>(), manual.requested, "{manual:?}");
    assert!(vectors(&apic, ISR).is_empty(), "{manual:?}");
}
