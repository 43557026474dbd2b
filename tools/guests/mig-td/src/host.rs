//! The guest's side of the mailbox (`tdvisor_migration_td::mailbox`).

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use guest_rt::measurement::{self, QUOTE_DATA_OFFSET, Report};
use guest_rt::shared::{ConvertError, SharedBuffer};
use guest_rt::td::shared_bit;
use tdvisor_migration_td::mailbox::{
    ANSWER_OFFSET, DONE, HEADER_BYTES, MAX_BODY, Order, Outcome, PORT, Reply, Request, Wish,
};
use tdx_guest::tdvmcall::{IoSize, io_write};

const PAGE_SHIFT: u32 = 12;
/// What stands in an answer's place before there is one.
const NOT_ANSWERED: Reply = Reply { status: u32::MAX, body: 0 };

/// What a host did not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The host has no mailbox.
    NoMailbox,
    /// The host said no, by this number.
    Refused(u32),
    /// What the host was to be given does not fit, or what it gave cannot be.
    Malformed,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMailbox => f.write_str("it has no mailbox"),
            Self::Refused(status) => write!(f, "it refused with {status:#x}"),
            Self::Malformed => f.write_str("what was said does not fit the mailbox"),
        }
    }
}

/// The host, as far as it is spoken to.
pub struct Host {
    buffer: SharedBuffer,
    frame: u32,
}

impl Host {
    /// Shares a buffer of `mailbox::BYTES` with the host.
    pub fn open(buffer: &'static mut [u8]) -> Result<Self, ConvertError> {
        let buffer = SharedBuffer::convert(buffer)?;
        // The pool lies below 4 GiB.
        let frame = ((buffer.gpa() & !shared_bit()) >> PAGE_SHIFT) as u32;
        Ok(Self { buffer, frame })
    }

    /// The next order.
    pub fn order(&mut self) -> Result<Order, NoAnswer> {
        Order::from_bytes(&self.ask(Wish::Order, &[])?).ok_or(NoAnswer::Malformed)
    }

    /// Says how an order ended.
    pub fn report(&mut self, outcome: Outcome) -> Result<(), NoAnswer> {
        self.ask(Wish::Report, &outcome.bytes()).map(drop)
    }

    /// Collateral for a quote.
    pub fn collateral(&mut self, quote: &[u8]) -> Result<String, NoAnswer> {
        String::from_utf8(self.ask(Wish::Collateral, quote)?).map_err(|_| NoAnswer::Malformed)
    }

    /// Makes a wish and takes the answer, which then changes no more.
    pub fn ask(&mut self, wish: Wish, body: &[u8]) -> Result<Vec<u8>, NoAnswer> {
        if body.len() > MAX_BODY {
            return Err(NoAnswer::Malformed);
        }
        self.buffer.write(0, u64::from_le_bytes(Request { wish, body: body.len() }.bytes()));
        self.buffer.write(ANSWER_OFFSET, u64::from_le_bytes(NOT_ANSWERED.bytes()));
        for (offset, part) in (HEADER_BYTES..).step_by(size_of::<u64>()).zip(body.chunks(size_of::<u64>())) {
            let mut word = [0; size_of::<u64>()];
            word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.buffer.write(offset, u64::from_le_bytes(word));
        }
        io_write(IoSize::Size4, PORT, self.frame).map_err(|_| NoAnswer::NoMailbox)?;
        let reply = self.buffer.read(ANSWER_OFFSET).ok_or(NoAnswer::Malformed)?;
        let reply = Reply::from_bytes(reply.to_le_bytes());
        if reply.status != DONE {
            return Err(NoAnswer::Refused(reply.status));
        }
        self.take(HEADER_BYTES, reply.body as usize)
    }

    /// A quote over a report; `None` where there is no service. The mailbox is the buffer for it.
    pub fn quote(&mut self, report: &Report<'_>) -> Option<Vec<u8>> {
        let length = measurement::quote(&self.buffer, report).ok()?;
        self.take(QUOTE_DATA_OFFSET, length as usize).ok()
    }

    fn take(&self, offset: usize, length: usize) -> Result<Vec<u8>, NoAnswer> {
        if length > self.buffer.len().saturating_sub(offset) {
            return Err(NoAnswer::Malformed);
        }
        let mut taken = vec![0; length];
        if self.buffer.copy_out(offset, &mut taken) { Ok(taken) } else { Err(NoAnswer::Malformed) }
    }
}
