//! Migration streams: each has a page of the TD (MIGSC) with its counters, and with what an interrupted call goes on
//! from.
//!
//! # Protocol
//! The words of TD field MIGSC_LINKS lead to the pages: bit 0 is the stream's lock, bit 1 says that it was used in this
//! session, bits 51:12 are the address. The first stream created is the one by which the receiver speaks; those after it
//! are streams 0, 1, … of the sender.

use tdvisor_base::Hpa;
use tdvisor_base::sync::{AtomicU64, Ordering};
use tdx_module_iface::metadata::FieldId;
use tdx_module_iface::{Operand, Status};
use zerocopy::{FromZeros, IntoBytes};

use super::mbmd::Mbmd;
use crate::fields::layout::tdcs;
use crate::fields::{FieldPage, FieldStore, Width};
use crate::host::{Step, busy, invalid};
use crate::td::Tdcs;

/// Most streams of a TD.
pub(crate) const MAX_STREAMS: u64 = 512;

const LOCK: u64 = 1;
const INITIALIZED: u64 = 1 << 1;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Streams that a TD has, the receiver's included.
pub(crate) fn count(tdcs: &Tdcs<'_>) -> u64 {
    tdcs.load(tdcs::NUM_MIGS, Width::B2).min(MAX_STREAMS)
}

/// Streams of the sender.
pub(crate) fn forward_count(tdcs: &Tdcs<'_>) -> u64 {
    count(tdcs).saturating_sub(1)
}

/// The pages of a TD's streams.
pub(crate) fn pages(tdcs: &Tdcs<'_>) -> impl Iterator<Item = Hpa> {
    (0..count(tdcs)).map(|stream| Hpa::new(tdcs.load_u64(tdcs::MIGSC_LINKS + 8 * stream as u32) & ADDRESS))
}

/// No stream of a TD counts as used.
pub(crate) fn forget_all(tdcs: &Tdcs<'_>) {
    for stream in 0..count(tdcs) as u32 {
        if let Some(link) = tdcs.stream_link(stream) {
            link.fetch_and(!INITIALIZED, Ordering::AcqRel);
        }
    }
}

/// Where the parts of a stream's page are.
mod part {
    pub(super) const IV_COUNTER: u32 = 0x08;
    pub(super) const NEXT: u32 = 0x10;
    pub(super) const EXPECTED: u32 = 0x14;
    pub(super) const VALID: u32 = 0x18;
    pub(super) const LEAF: u32 = 0x20;
    pub(super) const LIST: u32 = 0x28;
    pub(super) const DONE: u32 = 0x30;
    pub(super) const SECTION: u32 = 0x34;
    pub(super) const FIELD: u32 = 0x38;
    pub(super) const VCPU: u32 = 0x40;
    pub(super) const BUFFERS: u32 = 0x48;
    pub(super) const TAGS: u32 = 0x50;
    pub(super) const NEW_PAGES: u32 = 0x60;
    pub(super) const EPOCH: u32 = 0x68;
    pub(super) const STATUS: u32 = 0x70;
    pub(super) const INFO: u32 = 0x78;
    pub(super) const MBMD: u32 = 0x80;
}

/// A stream, locked; dropping it lets go.
#[derive(Debug)]
pub(crate) struct Stream<'m> {
    link: &'m AtomicU64,
    page: FieldPage<'m>,
    /// The stream's number among those of its direction.
    pub(crate) number: u16,
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.link.fetch_and(!LOCK, Ordering::Release);
    }
}

fn lock<'m>(tdcs: &Tdcs<'m>, position: u32, number: u16) -> Step<Stream<'m>> {
    let missing = invalid(Operand::R10);
    let link = tdcs.stream_link(position).ok_or(missing)?;
    let before = link.fetch_or(LOCK, Ordering::AcqRel);
    if before & LOCK != 0 {
        return Err(busy(Operand::MIGSC));
    }
    match tdcs.field_page(Hpa::new(before & ADDRESS)).filter(|_| before & ADDRESS != 0) {
        Some(page) => Ok(Stream { link, page, number }),
        None => {
            link.fetch_and(!LOCK, Ordering::Release);
            Err(missing)
        }
    }
}

/// Locks a stream of the sender.
pub(crate) fn lock_forward<'m>(tdcs: &Tdcs<'m>, stream: u16) -> Step<Stream<'m>> {
    lock(tdcs, u32::from(stream) + 1, stream)
}

/// Locks the stream of the receiver.
pub(crate) fn lock_backward<'m>(tdcs: &Tdcs<'m>) -> Step<Stream<'m>> {
    lock(tdcs, 0, 0)
}

/// Where an interrupted call about state goes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatePlace {
    /// Pages that are done.
    pub(crate) done: u64,
    /// Which of the lists of the bundle.
    pub(crate) section: u8,
    /// The field with which it goes on.
    pub(crate) field: FieldId,
}

/// What must be the same when an interrupted call about state is resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StateCall {
    /// RAX.
    pub(crate) leaf: u64,
    /// R9.
    pub(crate) list: u64,
    /// The VCPU, where the state is one's.
    pub(crate) vcpu: u64,
}

/// What must be the same when an interrupted call about memory is resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MemoryCall {
    /// RAX.
    pub(crate) leaf: u64,
    /// RCX, with the entry that is due.
    pub(crate) list: u64,
    /// R9.
    pub(crate) buffers: u64,
    /// R11 and R12.
    pub(crate) tags: [u64; 2],
    /// R13, where there is one.
    pub(crate) new_pages: u64,
    /// The migration epoch.
    pub(crate) epoch: u32,
}

impl Stream<'_> {
    /// Whether the stream was used in this session.
    pub(crate) fn is_initialized(&self) -> bool {
        self.link.load(Ordering::Acquire) & INITIALIZED != 0
    }

    /// Begins with it: all counters are zero.
    pub(crate) fn initialize(&self) {
        for counter in [part::IV_COUNTER, part::NEXT] {
            self.page.store_u64(counter, 0);
        }
        self.end_interruption();
        self.link.fetch_or(INITIALIZED, Ordering::AcqRel);
    }

    /// Begins with it unless it was used in this session.
    pub(crate) fn initialize_once(&self) {
        if !self.is_initialized() {
            self.initialize();
        }
    }

    pub(crate) fn iv_counter(&self) -> u64 {
        self.page.load_u64(part::IV_COUNTER)
    }

    pub(crate) fn set_iv_counter(&self, counter: u64) {
        self.page.store_u64(part::IV_COUNTER, counter);
    }

    /// The number of the next run.
    pub(crate) fn next_iv(&self) -> u64 {
        let counter = self.iv_counter().wrapping_add(1);
        self.set_iv_counter(counter);
        counter
    }

    /// The number of the next bundle that is sent.
    pub(crate) fn next(&self) -> u32 {
        self.page.load(part::NEXT, Width::B4) as u32
    }

    pub(crate) fn set_next(&self, number: u32) {
        self.page.store(part::NEXT, Width::B4, u64::from(number));
    }

    /// The number of the next bundle that is received.
    pub(crate) fn expected(&self) -> u32 {
        self.page.load(part::EXPECTED, Width::B4) as u32
    }

    pub(crate) fn set_expected(&self, number: u32) {
        self.page.store(part::EXPECTED, Width::B4, u64::from(number));
    }

    /// The MBMD of the bundle under way.
    pub(crate) fn mbmd(&self) -> Mbmd {
        let mut mbmd = Mbmd::new_zeroed();
        for (at, piece) in (part::MBMD..).step_by(8).zip(mbmd.as_mut_bytes().chunks_exact_mut(8)) {
            piece.copy_from_slice(&self.page.load_u64(at).to_le_bytes());
        }
        mbmd
    }

    pub(crate) fn set_mbmd(&self, mbmd: &Mbmd) {
        for (at, piece) in (part::MBMD..).step_by(8).zip(mbmd.as_bytes().chunks_exact(8)) {
            let mut word = [0; 8];
            word.copy_from_slice(piece);
            self.page.store_u64(at, u64::from_le_bytes(word));
        }
    }

    /// What the first faulty field of the bundle under way comes to: the status, and its identifier.
    pub(crate) fn fault(&self) -> Option<(Status, u64)> {
        let status = Status::from_raw(self.page.load_u64(part::STATUS));
        status.is_error().then(|| (status, self.page.load_u64(part::INFO)))
    }

    pub(crate) fn set_fault(&self, fault: Option<(Status, u64)>) {
        let (status, info) = fault.unwrap_or((Status::SUCCESS, 0));
        self.page.store_u64(part::STATUS, status.raw());
        self.page.store_u64(part::INFO, info);
    }

    /// Whether a call waits for being resumed.
    pub(crate) fn is_interrupted(&self) -> bool {
        self.page.load(part::VALID, Width::B1) != 0
    }

    /// Nothing can be resumed from here on.
    pub(crate) fn end_interruption(&self) {
        self.page.store(part::VALID, Width::B1, 0);
    }

    /// A call about state was interrupted.
    pub(crate) fn interrupt_state(&self, call: &StateCall, place: StatePlace) {
        self.page.store_u64(part::LEAF, call.leaf);
        self.page.store_u64(part::LIST, call.list);
        self.page.store_u64(part::VCPU, call.vcpu);
        self.page.store(part::DONE, Width::B4, place.done);
        self.page.store(part::SECTION, Width::B1, u64::from(place.section));
        self.page.store_u64(part::FIELD, place.field.0);
        self.page.store(part::VALID, Width::B1, 1);
    }

    /// The interrupted call about state, and where it goes on.
    pub(crate) fn interrupted_state(&self) -> (StateCall, StatePlace) {
        let call = StateCall {
            leaf: self.page.load_u64(part::LEAF),
            list: self.page.load_u64(part::LIST),
            vcpu: self.page.load_u64(part::VCPU),
        };
        let place = StatePlace {
            done: self.page.load(part::DONE, Width::B4),
            section: self.page.load(part::SECTION, Width::B1) as u8,
            field: FieldId(self.page.load_u64(part::FIELD)),
        };
        (call, place)
    }

    /// A call about memory was interrupted.
    pub(crate) fn interrupt_memory(&self, call: &MemoryCall) {
        self.page.store_u64(part::LEAF, call.leaf);
        self.page.store_u64(part::LIST, call.list);
        self.page.store_u64(part::BUFFERS, call.buffers);
        for (at, tags) in (part::TAGS..).step_by(8).zip(call.tags) {
            self.page.store_u64(at, tags);
        }
        self.page.store_u64(part::NEW_PAGES, call.new_pages);
        self.page.store(part::EPOCH, Width::B4, u64::from(call.epoch));
        self.page.store(part::VALID, Width::B1, 1);
    }

    /// The interrupted call about memory.
    pub(crate) fn interrupted_memory(&self) -> MemoryCall {
        MemoryCall {
            leaf: self.page.load_u64(part::LEAF),
            list: self.page.load_u64(part::LIST),
            buffers: self.page.load_u64(part::BUFFERS),
            tags: [part::TAGS, part::TAGS + 8].map(|at| self.page.load_u64(at)),
            new_pages: self.page.load_u64(part::NEW_PAGES),
            epoch: self.page.load(part::EPOCH, Width::B4) as u32,
        }
    }

    /// Pages written by an export of memory so far.
    pub(crate) fn pages_done(&self) -> u64 {
        self.page.load(part::DONE, Width::B4)
    }

    pub(crate) fn set_pages_done(&self, pages: u64) {
        self.page.store(part::DONE, Width::B4, pages);
    }
}
