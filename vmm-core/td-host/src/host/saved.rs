//! What a host knows of its module, as numbers: for a snapshot.
//!
//! Nobody is inside a SEAMCALL then, and no lock of this room is held. The module itself, and the machine's memory, are saved by
//! whoever has the machine.

use mirror_ept::{BadNumbers, Numbers, Reader};
use tdvisor_base::sync::Mutex;
use tdvisor_base::{Hpa, KeyId, Level, Pfn};
use tdx_module_iface::tdsysinfo::TdhSysInfo;
use zerocopy::{FromZeros, IntoBytes};

use super::hkid::HkidPool;
use super::pamt::Pamt;
use super::{Host, MemoryRange, TdmrPlan};
use crate::platform::Platform;

pub(crate) fn put_level(out: &mut Numbers, level: Level) {
    out.put(level as u64);
}

/// A level that a page may have.
pub(crate) fn read_level(reader: &mut Reader<'_>) -> Result<Level, BadNumbers> {
    match reader.number()? {
        0 => Ok(Level::L4K),
        1 => Ok(Level::L2M),
        2 => Ok(Level::L1G),
        _ => Err(BadNumbers),
    }
}

pub(crate) fn read_pfn(reader: &mut Reader<'_>) -> Result<Pfn, BadNumbers> {
    reader.number().map(Pfn::new)
}

pub(crate) fn read_key(reader: &mut Reader<'_>) -> Result<KeyId, BadNumbers> {
    reader.narrow().map(KeyId::new)
}

fn put_range(out: &mut Numbers, range: &MemoryRange) {
    out.put(range.base.get());
    out.put(range.size);
}

fn read_range(reader: &mut Reader<'_>) -> Result<MemoryRange, BadNumbers> {
    Ok(MemoryRange { base: Hpa::new(reader.number()?), size: reader.number()? })
}

impl<P: Platform> Host<P> {
    /// Writes what the host knows, without the platform.
    pub fn save(&self, out: &mut Numbers) {
        let Self { platform: _, hkids, module_key, info, cmrs, tdmrs, pamt, quarantined } = self;
        hkids.save(out);
        out.put(module_key.key().get());
        out.put_list(info.as_bytes(), |out, byte| out.put(*byte));
        out.put_list(cmrs, put_range);
        out.put_list(tdmrs, |out, TdmrPlan { range, pamt, reserved }| {
            put_range(out, range);
            pamt.iter().for_each(|area| put_range(out, area));
            out.put_list(reserved, put_range);
        });
        pamt.save(out);
        out.put_list(quarantined.lock().iter(), |out, (page, level)| {
            out.put(page.get());
            put_level(out, *level);
        });
    }

    /// The host of a module that is up, as [`Self::save`] wrote it.
    ///
    /// # Errors
    /// [`BadNumbers`].
    pub fn restore(platform: P, reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        let hkids = HkidPool::restore(reader)?;
        let module_key = HkidPool::taken(read_key(reader)?);
        let bytes = reader.list(Reader::narrow::<u8>)?;
        let mut info = TdhSysInfo::new_zeroed();
        if bytes.len() != info.as_bytes().len() {
            return Err(BadNumbers);
        }
        info.as_mut_bytes().copy_from_slice(&bytes);
        let cmrs = reader.list(read_range)?;
        let tdmrs = reader.list(|reader| {
            let range = read_range(reader)?;
            let pamt = [read_range(reader)?, read_range(reader)?, read_range(reader)?];
            Ok(TdmrPlan { range, pamt, reserved: reader.list(read_range)? })
        })?;
        let pamt = Pamt::restore(reader)?;
        let quarantined = reader.list(|reader| Ok((read_pfn(reader)?, read_level(reader)?)))?;
        Ok(Self {
            platform,
            hkids,
            module_key,
            info,
            cmrs,
            tdmrs,
            pamt,
            quarantined: Mutex::new(quarantined),
        })
    }
}
