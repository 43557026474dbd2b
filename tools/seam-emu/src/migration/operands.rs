//! Operands that the leaves of migration share: R9 page list, R10 stream and command.

use tdvisor_base::{Hpa, PAGE_SIZE};
use tdx_module_iface::Operand;

use crate::host::steps::shared_hpa;
use crate::host::{Call, Step, invalid};

/// Bytes of an entry of a list.
const ENTRY: u64 = 8;

/// Whether a call begins something or goes on with what an interrupt ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    New,
    Resume,
}

/// R10: the stream in bits 15:0, the command in bit 63.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamCommand {
    pub(crate) stream: u16,
    /// Bit 63: resume, or for TDH.EXPORT.TRACK that the in-order phase is done.
    pub(crate) flag: bool,
}

impl StreamCommand {
    const FLAG: u64 = 1 << 63;

    /// R10 of a leaf that takes streams below `streams`.
    pub(crate) fn new(r10: u64, streams: u64) -> Step<Self> {
        let stream = r10 as u16;
        if r10 & !(Self::FLAG | 0xffff) != 0 || u64::from(stream) >= streams {
            return Err(invalid(Operand::R10));
        }
        Ok(Self { stream, flag: r10 & Self::FLAG != 0 })
    }

    /// What a leaf that is interruptible makes of the flag.
    pub(crate) const fn command(self) -> Command {
        if self.flag { Command::Resume } else { Command::New }
    }
}

/// R9: a list of pages of metadata; its last entry in bits 63:55.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PageList(u64);

impl PageList {
    const RESERVED: u64 = 7 << 52 | 0xfff;
    const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

    /// The list that R9 names, unchecked.
    pub(crate) const fn new(r9: u64) -> Self {
        Self(r9)
    }

    /// R9.
    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// The number of the last entry.
    pub(crate) const fn last(self) -> u64 {
        self.0 >> 55
    }

    /// The fields of R9: reserved bits, and at least `pages` entries.
    pub(crate) fn check_fields(self, pages: u64) -> Step {
        let too_short = self.last() + 1 < pages;
        if too_short || self.0 & Self::RESERVED != 0 { Err(invalid(Operand::R9)) } else { Ok(()) }
    }

    /// The address in R9.
    pub(crate) fn check_address(self, call: &Call<'_>) -> Step<Entries> {
        Entries::new(call, self.0 & Self::ADDRESS, Operand::R9)
    }
}

/// Reads memory that the host named, under the key id in the address. Where no memory answers there are only ones.
pub(super) fn read_host<const N: usize>(call: &Call<'_>, pa: u64) -> [u8; N] {
    let mut bytes = [0xff; N];
    let _ = call.machine.host_read(Hpa::new(pa), &mut bytes);
    bytes
}

/// A page of eight-byte entries in shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries(u64);

impl Entries {
    /// The page that an operand names.
    pub(crate) fn new(call: &Call<'_>, pa: u64, operand: Operand) -> Step<Self> {
        shared_hpa(call, pa, PAGE_SIZE, operand)?;
        Ok(Self(pa))
    }

    const fn at(self, number: u64) -> u64 {
        self.0 + number * ENTRY
    }

    /// Reads an entry, by its number below 512.
    pub(crate) fn load(self, call: &Call<'_>, number: u64) -> u64 {
        u64::from_le_bytes(read_host(call, self.at(number)))
    }

    /// Writes an entry.
    pub(crate) fn store(self, call: &Call<'_>, number: u64, value: u64) {
        // Where no memory answers, the write is swallowed.
        let _ = call.machine.host_write(Hpa::new(self.at(number)), &value.to_le_bytes());
    }
}

/// A 4 KiB page of shared memory, as an entry of a list names it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedPage(u64);

impl SharedPage {
    /// Checks the address.
    pub(crate) fn new(call: &Call<'_>, pa: u64, operand: Operand) -> Step<Self> {
        shared_hpa(call, pa, PAGE_SIZE, operand)?;
        Ok(Self(pa))
    }

    /// What the page holds.
    pub(crate) fn read(self, call: &Call<'_>) -> [u8; PAGE_SIZE as usize] {
        read_host(call, self.0)
    }

    /// Replaces its contents.
    pub(crate) fn write(self, call: &Call<'_>, data: &[u8]) {
        let _ = call.machine.host_write(Hpa::new(self.0), data);
    }
}
