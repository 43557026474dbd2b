//! MSI-X: a function's vectors, and the messages that they send.
//!
//! # Protocol
//! The driver writes address and data of each vector into the table and unmasks it; a raised vector waits in the pending
//! bits until it is neither masked itself nor by the function. Whoever delivers interrupts takes the messages
//! ([`MessageSource::take_messages`]), after each access of a vCPU, so an unmasked vector that was pending is delivered at once.
//!
//! | bytes of an entry | |
//! |---|---|
//! | 0 to 7 | address: 0xFEE in bits 31:20, destination 19:12, logical destination bit 2 |
//! | 8 to 11 | data: vector 7:0, delivery mode 10:8 |
//! | 12 to 15 | bit 0: masked |
//!
//! A message to another address goes nowhere. Source: PCI Local Bus Specification 3.0, section 6.8.2; SDM volume 3, "Message
//! Signalled Interrupts".

use alloc::vec;
use alloc::vec::Vec;

use tdvisor_base::sync::{AtomicU64, Mutex, Ordering};
use tdvisor_base::to_usize;
use tdvisor_vm::{Destination, Message};

use crate::{AccessSize, MessageSource, low};

/// Vectors of one function at most.
pub const VECTORS_MAX: u16 = 64;
/// Bytes of an entry of the table.
pub const ENTRY_BYTES: u64 = 16;
/// The capability's id.
pub const CAPABILITY: u8 = 0x11;

const ENTRY_WORDS: usize = 4;
const MASKED: u32 = 1;
/// Message control: MSI-X is enabled.
const ENABLE: u16 = 1 << 15;
/// Message control: every vector is masked.
const MASK_ALL: u16 = 1 << 14;

const INTERRUPT_SPACE: u32 = 0xfee;
const LOGICAL: u32 = 1 << 2;

/// The vectors of a function.
#[derive(Debug)]
pub struct Msix {
    vectors: u16,
    pending: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    control: u16,
    table: Vec<[u32; ENTRY_WORDS]>,
}

impl Msix {
    /// A table of `vectors` vectors, all masked, and [`VECTORS_MAX`] at most; MSI-X is off.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        let vectors = vectors.min(VECTORS_MAX);
        let table = vec![[0, 0, 0, MASKED]; vectors.into()];
        Self { vectors, pending: AtomicU64::new(0), state: Mutex::new(State { control: 0, table }) }
    }

    /// How many vectors there are.
    pub const fn vectors(&self) -> u16 {
        self.vectors
    }

    /// The capability behind id and link: message control, then where table and pending bits are in BAR 0; and the bits that
    /// software may write.
    #[must_use]
    pub fn capability(&self, table: u32, pending: u32) -> ([u8; 10], [u8; 10]) {
        let (mut body, mut writable) = ([0; 10], [0; 10]);
        let fields = self.vectors.saturating_sub(1).to_le_bytes().into_iter();
        let fields = fields.chain(table.to_le_bytes()).chain(pending.to_le_bytes());
        body.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        let allowed = (ENABLE | MASK_ALL).to_le_bytes();
        writable.iter_mut().zip(allowed).for_each(|(to, from)| *to = from);
        (body, writable)
    }

    /// Message control was written.
    pub fn set_control(&self, value: u16) {
        self.state.lock().control = value & (ENABLE | MASK_ALL);
    }

    /// Whether MSI-X is on: then the function's pin is not used.
    pub fn is_enabled(&self) -> bool {
        self.state.lock().control & ENABLE != 0
    }

    /// Raises a vector; one that does not exist is none.
    pub fn raise(&self, vector: u16) {
        if vector < self.vectors {
            self.pending.fetch_or(1 << vector, Ordering::SeqCst);
        }
    }

    /// Forgets what is pending: the function was reset.
    pub fn forget(&self) {
        self.pending.store(0, Ordering::SeqCst);
    }

    /// The guest reads the table: aligned words, or two of them.
    pub fn read_table(&self, offset: u64, size: AccessSize) -> u64 {
        let state = self.state.lock();
        let word = |at: u64| {
            let entry = state.table.get(to_usize(at / ENTRY_BYTES));
            entry.and_then(|entry| entry.get(to_usize(at % ENTRY_BYTES / 4))).copied().unwrap_or_default()
        };
        match size {
            AccessSize::Double if offset.is_multiple_of(4) => word(offset).into(),
            AccessSize::Quad if offset.is_multiple_of(8) => {
                u64::from(word(offset)) | u64::from(word(offset + 4)) << 32
            }
            _ => 0,
        }
    }

    /// The guest writes the table: aligned words, or two of them.
    pub fn write_table(&self, offset: u64, size: AccessSize, value: u64) {
        let mut state = self.state.lock();
        let mut word = |at: u64, value: u64| {
            let entry = state.table.get_mut(to_usize(at / ENTRY_BYTES));
            if let Some(place) = entry.and_then(|entry| entry.get_mut(to_usize(at % ENTRY_BYTES / 4))) {
                *place = low::double(value);
            }
        };
        match size {
            AccessSize::Double if offset.is_multiple_of(4) => word(offset, value),
            AccessSize::Quad if offset.is_multiple_of(8) => {
                word(offset, value);
                word(offset + 4, value >> 32);
            }
            _ => {}
        }
    }

    /// The guest reads the pending bits.
    pub fn read_pending(&self, offset: u64, size: AccessSize) -> u64 {
        let bits = self.pending.load(Ordering::SeqCst);
        let shift = offset.saturating_mul(8);
        u32::try_from(shift).ok().and_then(|shift| bits.checked_shr(shift)).unwrap_or_default()
            & size.all_ones()
    }
}

impl MessageSource for Msix {
    fn take_messages(&self, out: &mut Vec<Message>) {
        if self.pending.load(Ordering::SeqCst) == 0 {
            return;
        }
        let state = self.state.lock();
        if state.control & (ENABLE | MASK_ALL) != ENABLE {
            return;
        }
        for (vector, entry) in state.table.iter().enumerate() {
            let [address, upper, data, control] = *entry;
            let bit = 1 << vector;
            if control & MASKED == 0 && self.pending.fetch_and(!bit, Ordering::SeqCst) & bit != 0 {
                out.extend(message(address, upper, data));
            }
        }
    }
}

/// What a write of `data` to an address sends.
fn message(address: u32, upper: u32, data: u32) -> Option<Message> {
    if upper != 0 || address >> 20 != INTERRUPT_SPACE {
        return None;
    }
    let id = address >> 12 & 0xff;
    let destination =
        if address & LOGICAL == 0 { Destination::physical_8bit(id) } else { Destination::logical_8bit(id) };
    Some(Message { destination, mode: (data >> 8 & 7) as u8, vector: (data & 0xff) as u8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(msix: &Msix) -> Vec<Message> {
        let mut out = Vec::new();
        msix.take_messages(&mut out);
        out
    }

    /// Vector 1 of two, to vCPU 3.
    fn programmed() -> Msix {
        let msix = Msix::new(2);
        msix.write_table(16, AccessSize::Quad, 0xfee0_3000);
        msix.write_table(24, AccessSize::Double, 0x51);
        msix.set_control(ENABLE);
        msix
    }

    #[test]
    fn a_vector_waits_until_nothing_masks_it_and_is_then_sent_once() {
        let msix = programmed();
        msix.raise(1);
        assert_eq!((taken(&msix), msix.read_pending(0, AccessSize::Double)), (vec![], 2));
        msix.write_table(28, AccessSize::Double, 0);
        msix.set_control(ENABLE | MASK_ALL);
        assert_eq!(taken(&msix), []);
        msix.set_control(0);
        assert_eq!(taken(&msix), []);
        msix.set_control(ENABLE);
        let expected = Message { destination: Destination::Physical(3), mode: 0, vector: 0x51 };
        assert_eq!(taken(&msix), [expected]);
        assert_eq!((taken(&msix), msix.read_pending(0, AccessSize::Double)), (vec![], 0));
    }

    #[test]
    fn a_message_to_no_processor_is_lost_and_a_vector_that_is_not_there_is_none() {
        let msix = programmed();
        msix.write_table(28, AccessSize::Double, 0);
        msix.raise(2);
        msix.raise(u16::MAX);
        assert_eq!(taken(&msix), []);
        msix.write_table(20, AccessSize::Double, 1);
        msix.raise(1);
        assert_eq!(taken(&msix), []);
        assert_eq!(msix.read_pending(0, AccessSize::Double), 0);
    }

    #[test]
    fn the_table_is_words_and_what_is_behind_it_is_nothing() {
        let msix = programmed();
        assert_eq!(msix.read_table(24, AccessSize::Quad), 0x1_0000_0051);
        assert_eq!(msix.read_table(25, AccessSize::Double), 0);
        assert_eq!(msix.read_table(24, AccessSize::Byte), 0);
        msix.write_table(32, AccessSize::Quad, u64::MAX);
        assert_eq!(msix.read_table(32, AccessSize::Quad), 0);
        assert_eq!(msix.read_table(u64::MAX - 7, AccessSize::Quad), 0);
        assert_eq!(msix.read_pending(u64::MAX, AccessSize::Quad), 0);
        assert_eq!(Msix::new(999).vectors(), VECTORS_MAX);
    }
}
