//! Messages of a session with something else in them.

use td_host::migration::bundle::{MemoryBundle, Message, Page, StateBundle};
use tdx_module_iface::tdh::GpaEntry;

/// Numbers that look random, the same in every run.
pub struct Numbers(u64);

impl Numbers {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1 << 63)
    }

    pub fn below(&mut self, bound: usize) -> usize {
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
pub fn altered(numbers: &mut Numbers, message: &Message) -> Option<Message> {
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
