//! A source that says what it should not: the destination refuses, keeps nothing, and never panics.

use td_host::migration::bundle::{Announcement, MemoryBundle, Message, Page, SlotShape, StateBundle};
use td_host::migration::destination::Destination;
use td_host::migration::failure::Failure;
use td_host::migration::source::{Order, Plan, Source, Step};
use tdvisor_base::{Gfn, Level};
use tdx_module_iface::tdh::GpaEntry;

use crate::world::{Belongings, End, Monitor, SPARE, agree, check, frames, guest, host, reference};

/// Numbers that look random, the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    fn flip(&mut self, bytes: &mut [u8]) {
        let at = self.below(bytes.len());
        bytes[at] ^= 1 << self.below(8);
    }
}

fn state(numbers: &mut Numbers, bundle: &StateBundle) -> StateBundle {
    let (mut head, mut pages) = (*bundle.head(), bundle.pages().to_vec());
    match numbers.below(4) {
        0 => numbers.flip(&mut head),
        1 if pages.len() > 1 => drop(pages.pop()),
        2 if pages.len() < 16 => pages.push(Page::zeroed()),
        _ => {
            let page = numbers.below(pages.len());
            numbers.flip(pages[page].bytes_mut());
        }
    }
    StateBundle::new(head, pages).unwrap()
}

fn memory(numbers: &mut Numbers, bundle: &MemoryBundle) -> MemoryBundle {
    let (mut head, mut entries) = (*bundle.head(), bundle.entries().to_vec());
    let at = numbers.below(entries.len());
    match numbers.below(8) {
        0 => numbers.flip(&mut head),
        1 => numbers.flip(&mut entries[at].tag),
        2 => entries[at].entry = GpaEntry(entries[at].entry.0 ^ 1 << numbers.below(64)),
        3 => entries[at].contents = None,
        4 if entries.len() > 1 => drop(entries.remove(at)),
        5 if entries.len() > 1 => {
            let other = (at + 1) % entries.len();
            entries.swap(at, other);
        }
        6 if entries.len() < 128 => entries.push(entries[at].clone()),
        _ => match &mut entries[at].contents {
            Some(page) => numbers.flip(page.bytes_mut()),
            None => entries[at].contents = Some(Page::zeroed()),
        },
    }
    MemoryBundle::new(head, entries).unwrap()
}

/// The message with something else in it; `None` where nothing of it is protected.
fn altered(numbers: &mut Numbers, message: &Message) -> Option<Message> {
    Some(match message {
        Message::Immutable(bundle) => Message::Immutable(state(numbers, bundle)),
        Message::TdState(bundle) => Message::TdState(state(numbers, bundle)),
        Message::Memory(bundle) => Message::Memory(memory(numbers, bundle)),
        Message::Vcpu(bundle) => {
            let mut bundle = bundle.clone();
            bundle.state = state(numbers, &bundle.state);
            Message::Vcpu(bundle)
        }
        Message::Epoch(token) | Message::Start(token) => {
            let mut token = *token;
            numbers.flip(&mut token);
            if matches!(message, Message::Epoch(_)) { Message::Epoch(token) } else { Message::Start(token) }
        }
        Message::Announce(_) | Message::Shared(_) | Message::Complete => return None,
    })
}

/// What is done to one message of a session.
#[derive(Clone, Copy, Debug)]
enum Wrong {
    Alter,
    Drop,
    Repeat,
    /// Swapped with the one that follows.
    Late,
}

#[test]
fn inv_62_bundles_that_are_altered_cut_repeated_or_out_of_order_are_refused_and_nothing_is_kept() {
    let (here, there) = (host(), host());
    let (from, to) = (End::new(&here), End::new(&there));
    let td = guest(&here, &from.service, Level::L2M);
    let mut monitor = Monitor::default();
    let stayed = reference(Level::L2M);
    assert_eq!(monitor.run(&td, stayed.exits / 2), None);
    let before = Belongings::of(&there);
    let mut numbers = Numbers(0x5eed_1234_5678_9abc);
    let plan = Plan { rounds: 1, order: Order::NewPagesLast };
    let mut refused = 0;
    let mut length = 12;
    for round in 0..60 {
        let wrong = [Wrong::Alter, Wrong::Alter, Wrong::Drop, Wrong::Repeat, Wrong::Late][round % 5];
        let target = round * 7 % length;
        let mut destination = Destination::new(&there, SPARE).unwrap();
        agree(&from, &td, &to, &destination);
        let mut source = Source::new(&td, SPARE, plan).unwrap();
        let (mut said, mut late, mut result) = (0, None, Ok(None));
        while result == Ok(None) {
            let Step::Say(message) = (match source.step() {
                Ok(Step::Quiet) => continue,
                other => other.unwrap(),
            }) else {
                break;
            };
            let mut messages = vec![message.clone()];
            if said == target {
                match wrong {
                    Wrong::Alter => messages = altered(&mut numbers, &message).into_iter().collect(),
                    Wrong::Drop => messages.clear(),
                    Wrong::Repeat => messages.push(message.clone()),
                    Wrong::Late => late = messages.pop(),
                }
            } else {
                messages.extend(late.take());
            }
            said += 1;
            for message in &messages {
                if result == Ok(None) {
                    result = destination.take(message);
                }
            }
        }
        length = length.max(said);
        // What nothing protects may be repeated or lost without harm: shared pages are the hosts' own.
        let what = format!("round {round}: {wrong:?} of message {target}: {result:?}");
        if let Ok(Some(_)) = result {
            panic!("{what}: the TD was committed");
        }
        refused += u32::from(result.is_err());
        let token = destination.abort();
        assert!(destination.report().is_clean(), "{what}: {:?}", destination.report());
        drop(destination);
        assert_eq!(Belongings::of(&there), before, "{what}");
        check(&there, &[]);
        source.abort(token.as_ref()).unwrap_or_else(|failure| panic!("{what}: {failure}"));
        drop(source);
        check(&here, &[&td]);
    }
    assert!(refused > 40, "only {refused} sessions were refused");
    monitor.run_to_the_end(&td);
    assert_eq!(monitor.console, stayed.console);
}

#[test]
fn inv_62_what_is_announced_is_held_against_what_the_machine_has() {
    let there = host();
    let before = Belongings::of(&there);
    let slot = |first: u64, frames: u64| {
        let range = mirror_ept::GfnRange::new(Gfn::new(first), Gfn::new(first + frames));
        SlotShape::new(range, Vec::new()).unwrap()
    };
    let shapes = [
        Announcement::new(vec![slot(0, 1 << 34)], 1, Level::L4K).unwrap(),
        Announcement::new(vec![slot(0, 16), slot(8, 16)], 1, Level::L4K).unwrap(),
        Announcement::new(vec![slot(1 << 40, 16)], 1, Level::L4K).unwrap(),
        Announcement::new(vec![slot(0, 16)], 500, Level::L4K).unwrap(),
    ];
    for shape in shapes {
        let mut destination = Destination::new(&there, SPARE).unwrap();
        let refused = destination.take(&Message::Announce(shape.clone()));
        assert!(matches!(refused, Err(Failure::Peer(_) | Failure::Host(_))), "{shape:?}: {refused:?}");
        assert_eq!(destination.abort(), None);
        drop(destination);
        assert_eq!(Belongings::of(&there), before);
    }
    assert!(SlotShape::new(frames(0, 4), vec![frames(2, 4)]).is_err(), "a run leaves its slot");
}
