//! Where a vCPU stood when its machine froze, and how it goes on from there.
//!
//! # Protocol
//! A machine that takes turns can stop for good at the end of a turn ([`Lp::is_frozen`]). Every vCPU is then at one of two
//! [points](Point), outside of its guest and with no lock. Its thread leaves without looking at anything else, and leaves behind
//! what it alone knew: a [`Standing`]. Whoever takes the vCPU later, on that machine or on one that was restored from what was
//! saved, goes on from that point ([`Lp::rejoin`]): so what follows is what would have followed.
//!
//! [`Lp::is_frozen`]: crate::platform::Lp::is_frozen
//! [`Lp::rejoin`]: crate::platform::Lp::rejoin

use mirror_ept::{BadNumbers, Numbers, Reader, TableCache};
use tdvisor_base::sync::Mutex;
use tdx_module_iface::tdh::ExposedGprs;
use tdx_module_iface::{Gprs, Reg};

use super::Vcpu;
use super::halt::Alarm;
use super::next::NextEntry;
use crate::ghci::Wake;
use crate::memory::SeptPage;

/// A guest's HLT that is not over: the registers of its call, and what ends it.
pub(super) type Halted = (ExposedGprs, Wake);

/// Where in its loop a vCPU stood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// It had given way, and would have looked at its requests next.
    Turn,
    /// It slept, its guest halted.
    Sleep,
}

/// What only a vCPU's thread knows.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(super) point: Point,
    pub(super) next: NextEntry,
    pub(super) halted: Option<Halted>,
    pub(super) alarm: Alarm,
    /// Entries in a row that the module was too busy for.
    pub(super) busy: u32,
    pub(crate) cache: TableCache<SeptPage>,
}

/// The place of a vCPU's standing, while no thread has the vCPU.
pub(crate) type Stand = Mutex<Option<Standing>>;

impl Vcpu {
    /// Leaves the standing behind.
    pub(super) fn stand(&self, standing: Standing) {
        *self.stand.lock() = Some(standing);
    }

    /// The standing, for whoever takes the vCPU, or takes it apart.
    pub(crate) fn take_standing(&self) -> Option<Standing> {
        self.stand.lock().take()
    }
}

fn put_gprs(out: &mut Numbers, gprs: &ExposedGprs) {
    out.put(gprs.mask());
    out.put_list(gprs.iter(), |out, (_, value)| out.put(value));
}

fn read_gprs(reader: &mut Reader<'_>) -> Result<ExposedGprs, BadNumbers> {
    let mask = reader.narrow()?;
    let values = reader.list(Reader::number)?;
    let mut gprs = ExposedGprs::new(mask, Gprs::ZERO);
    let exposed: alloc::vec::Vec<Reg> = gprs.iter().map(|(reg, _)| reg).collect();
    if exposed.len() != values.len() || gprs.mask() != mask {
        return Err(BadNumbers);
    }
    for (reg, value) in exposed.into_iter().zip(values) {
        gprs.set(reg, value);
    }
    Ok(gprs)
}

impl Standing {
    /// How the vCPU enters next.
    pub(super) const fn next(&self) -> NextEntry {
        self.next
    }

    /// Writes all but the cache.
    pub(crate) fn save(&self, out: &mut Numbers) {
        let Self { point, next, halted, alarm, busy, cache: _ } = self;
        out.put(*point == Point::Sleep);
        match next {
            NextEntry::Plain => out.put(0u8),
            NextEntry::Recoverable => out.put(1u8),
            NextEntry::ResumingL1 => out.put(2u8),
            NextEntry::Answering(gprs) => {
                out.put(3u8);
                put_gprs(out, gprs);
            }
        }
        out.put(halted.is_some());
        if let Some((gprs, wake)) = halted {
            put_gprs(out, gprs);
            out.put(*wake == Wake::NmiOnly);
        }
        out.put_option(alarm.set_to());
        out.put(*busy);
    }

    /// Reads what [`Self::save`] wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        let point = if reader.flag()? { Point::Sleep } else { Point::Turn };
        let next = match reader.number()? {
            0 => NextEntry::Plain,
            1 => NextEntry::Recoverable,
            2 => NextEntry::ResumingL1,
            3 => NextEntry::Answering(read_gprs(reader)?),
            _ => return Err(BadNumbers),
        };
        let halted = match reader.flag()? {
            true => {
                let gprs = read_gprs(reader)?;
                Some((gprs, if reader.flag()? { Wake::NmiOnly } else { Wake::Interrupt }))
            }
            false => None,
        };
        if point == Point::Sleep && halted.is_none() {
            return Err(BadNumbers);
        }
        let alarm = Alarm::new(reader.option()?);
        Ok(Self { point, next, halted, alarm, busy: reader.narrow()?, cache: TableCache::new() })
    }
}
