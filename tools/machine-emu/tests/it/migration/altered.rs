//! Messages of a session with something else in them.

use td_host::migration::bundle::{MemoryBundle, Message, Page, StateBundle};
use tdvisor_test_data::chance::Chance;
use tdx_module_iface::tdh::GpaEntry;

fn flip(chance: &mut Chance, bytes: &mut [u8]) {
    let at = chance.index(bytes.len());
    bytes[at] ^= 1 << chance.index(8);
}

fn state(chance: &mut Chance, bundle: &StateBundle) -> StateBundle {
    let (mut head, mut pages) = (*bundle.head(), bundle.pages().to_vec());
    match chance.index(4) {
        0 => flip(chance, &mut head),
        1 if pages.len() > 1 => drop(pages.pop()),
        2 if pages.len() < 16 => pages.push(Page::zeroed()),
        _ => {
            let page = chance.index(pages.len());
            flip(chance, pages[page].bytes_mut());
        }
    }
    StateBundle::new(head, pages).unwrap()
}

fn memory(chance: &mut Chance, bundle: &MemoryBundle) -> MemoryBundle {
    let (mut head, mut entries) = (*bundle.head(), bundle.entries().to_vec());
    let at = chance.index(entries.len());
    match chance.index(8) {
        0 => flip(chance, &mut head),
        1 => flip(chance, &mut entries[at].tag),
        2 => entries[at].entry = GpaEntry(entries[at].entry.0 ^ 1 << chance.index(64)),
        3 => entries[at].contents = None,
        4 if entries.len() > 1 => drop(entries.remove(at)),
        5 if entries.len() > 1 => {
            let other = (at + 1) % entries.len();
            entries.swap(at, other);
        }
        6 if entries.len() < 128 => entries.push(entries[at].clone()),
        _ => match &mut entries[at].contents {
            Some(page) => flip(chance, page.bytes_mut()),
            None => entries[at].contents = Some(Page::zeroed()),
        },
    }
    MemoryBundle::new(head, entries).unwrap()
}

/// The message with something else in it; `None` where nothing of it is protected.
pub fn altered(chance: &mut Chance, message: &Message) -> Option<Message> {
    Some(match message {
        Message::Immutable(bundle) => Message::Immutable(state(chance, bundle)),
        Message::TdState(bundle) => Message::TdState(state(chance, bundle)),
        Message::Memory(bundle) => Message::Memory(memory(chance, bundle)),
        Message::Vcpu(bundle) => {
            let mut bundle = bundle.clone();
            bundle.state = state(chance, &bundle.state);
            Message::Vcpu(bundle)
        }
        Message::Epoch(token) | Message::Start(token) => {
            let mut token = *token;
            flip(chance, &mut token);
            if matches!(message, Message::Epoch(_)) { Message::Epoch(token) } else { Message::Start(token) }
        }
        Message::Announce(_) | Message::Shared(_) | Message::Complete => return None,
    })
}
