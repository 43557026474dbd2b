//! TDH.SYS.CONFIG (45): the host's TDMRs and the module's own key.
//!
//! RCX is an array of addresses of TDMR_INFO, RDX their number, R8 the key id. Errors pack where they were
//! found: TDMR index in bits 7:0, reserved-area index or PAMT level in 15:8, other TDMR's index in 23:16.

use tdvisor_base::{Level, PAGE_SIZE};
use tdx_module_iface::lifecycle::{HkidState, SysState};
use tdx_module_iface::tdmr::{MAX_TDMRS, TDMR_ALIGN, TDMR_INFO_ALIGN, TdmrInfo, pamt_size};
use tdx_module_iface::{Gprs, Operand, Status, StatusCode};

use super::lock_sys;
use crate::config::Cmr;
use crate::host::steps::{read_shared, shared_hpa};
use crate::host::{Call, Step, invalid, plain};
use crate::lock::Mode;
use crate::module::dynamic_pamt::bitmap_size;
use crate::module::tdmr::Tdmr;

/// R8 bit 16 (release 2.0): 4 KiB PAMT entries come and go at run time.
const DYNAMIC_PAMT: u64 = 1 << 16;

/// PAMT levels in the order in which they are checked.
const PAMT_LEVELS: [Level; 3] = [Level::L1G, Level::L2M, Level::L4K];

pub(in crate::host) fn config(call: &Call<'_>, regs: &mut Gprs) -> Step {
    let module = &call.machine.module;
    let _lock = lock_sys(call, Mode::Exclusive)?;
    if module.state() != SysState::INIT_DONE
        || (module.num_initialised_lps() as usize) < call.machine.num_lps()
    {
        return Err(plain(StatusCode::SYS_CONFIG_NOT_PENDING));
    }
    let array = shared_hpa(call, regs.rcx, TDMR_INFO_ALIGN, Operand::RCX)?;
    let count = usize::try_from(regs.rdx).unwrap_or(usize::MAX);
    if count == 0 || count > MAX_TDMRS {
        return Err(invalid(Operand::RDX));
    }
    let offered = call.machine.config().profile.has_dynamic_pamt();
    let reserved = if offered { !0x1_ffff } else { !0xffff };
    let dynamic_pamt = offered && regs.r8 & DYNAMIC_PAMT != 0;
    let hkid = regs.r8 as u16;
    if regs.r8 & reserved != 0 || !call.machine.config().private_hkids.contains(&hkid) {
        return Err(invalid(Operand::R8));
    }
    let mut accepted: Vec<TdmrInfo> = Vec::with_capacity(count);
    for index in 0..count {
        let pointer: [u8; 8] = read_shared(call, array.wrapping_add(8 * index as u64));
        let at = shared_hpa(call, u64::from_le_bytes(pointer), TDMR_INFO_ALIGN, Operand::RCX)?;
        let bytes: [u8; 320] = read_shared(call, at);
        let info = parse(&bytes);
        Checker { call, index, earlier: &accepted, info: &info, dynamic_pamt }.check()?;
        accepted.push(info);
    }
    module.kot.set(hkid, HkidState::RESERVED, 0);
    module.set_global_hkid(hkid);
    let make = if dynamic_pamt { Tdmr::with_dynamic_pamt } else { Tdmr::new };
    module.tdmrs.set(accepted.into_iter().map(make).collect());
    module.set_state(SysState::CONFIG_DONE);
    Ok(())
}

fn parse(bytes: &[u8; 320]) -> TdmrInfo {
    let word = |index: usize| {
        bytes
            .get(index * 8..index * 8 + 8)
            .and_then(|piece| piece.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    let mut info = TdmrInfo {
        base: word(0),
        size: word(1),
        pamt_1g_base: word(2),
        pamt_1g_size: word(3),
        pamt_2m_base: word(4),
        pamt_2m_size: word(5),
        pamt_4k_base: word(6),
        pamt_4k_size: word(7),
        ..TdmrInfo::default()
    };
    for (index, area) in info.reserved.iter_mut().enumerate() {
        area.offset = word(8 + 2 * index);
        area.size = word(9 + 2 * index);
    }
    info
}

/// A half-open range of addresses.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    const fn new(start: u64, size: u64) -> Self {
        Self { start, end: start.saturating_add(size) }
    }

    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    fn is_in_one_of(self, cmrs: &[Cmr]) -> bool {
        cmrs.iter().any(|cmr| self.start >= cmr.base && self.end <= cmr.base.saturating_add(cmr.size))
    }
}

fn pamt(info: &TdmrInfo, level: Level) -> (u64, u64) {
    match level {
        Level::L1G => (info.pamt_1g_base, info.pamt_1g_size),
        Level::L2M => (info.pamt_2m_base, info.pamt_2m_size),
        _ => (info.pamt_4k_base, info.pamt_4k_size),
    }
}

/// What of a TDMR its reserved areas leave.
fn available(info: &TdmrInfo) -> Vec<Range> {
    let mut areas = Vec::new();
    let mut start = info.base;
    for area in info.reserved.iter().take_while(|area| area.size != 0) {
        let reserved = Range::new(info.base.saturating_add(area.offset), area.size);
        if reserved.start > start {
            areas.push(Range { start, end: reserved.start });
        }
        start = reserved.end;
    }
    let end = info.base.saturating_add(info.size);
    if start < end {
        areas.push(Range { start, end });
    }
    areas
}

/// The checks of one TDMR against itself, the TDMRs before it, and the CMRs.
struct Checker<'a, 'm> {
    call: &'a Call<'m>,
    index: usize,
    earlier: &'a [TdmrInfo],
    info: &'a TdmrInfo,
    dynamic_pamt: bool,
}

impl Checker<'_, '_> {
    fn fail(&self, code: StatusCode, second: usize, third: usize) -> Status {
        Status::with_details(code, (self.index | second << 8 | third << 16) as u32)
    }

    fn check(&self) -> Step {
        self.check_range()?;
        self.check_reserved_areas()?;
        for level in PAMT_LEVELS {
            self.check_pamt(level)?;
        }
        self.check_overlaps()?;
        self.check_cmrs()
    }

    fn beyond_memory(&self, start: u64, size: u64) -> bool {
        let limit = 1u64.checked_shl(self.call.machine.config().hkid_start_bit).unwrap_or(u64::MAX);
        start.checked_add(size).is_none_or(|end| end > limit)
    }

    fn check_range(&self) -> Step {
        let info = self.info;
        if self.beyond_memory(info.base, info.size) {
            return Err(self.fail(StatusCode::INVALID_TDMR, 0, 0));
        }
        if let Some(previous) = self.earlier.last()
            && info.base < previous.base.saturating_add(previous.size)
        {
            return Err(self.fail(StatusCode::NON_ORDERED_TDMR, 0, 0));
        }
        if !info.base.is_multiple_of(TDMR_ALIGN) || !info.size.is_multiple_of(TDMR_ALIGN) || info.size == 0 {
            return Err(self.fail(StatusCode::INVALID_TDMR, 0, 0));
        }
        Ok(())
    }

    fn check_reserved_areas(&self) -> Step {
        let mut previous_end = 0;
        let mut ended = false;
        for (position, area) in self.info.reserved.iter().enumerate() {
            if area.size == 0 {
                ended = true;
                continue;
            }
            if ended {
                return Err(self.fail(StatusCode::NON_ORDERED_RESERVED_IN_TDMR, position, 0));
            }
            let end = area.offset.checked_add(area.size);
            let aligned = area.offset.is_multiple_of(PAGE_SIZE) && area.size.is_multiple_of(PAGE_SIZE);
            let Some(end) = end.filter(|_| aligned) else {
                return Err(self.fail(StatusCode::INVALID_RESERVED_IN_TDMR, position, 0));
            };
            if area.offset < previous_end {
                return Err(self.fail(StatusCode::NON_ORDERED_RESERVED_IN_TDMR, position, 0));
            }
            if end > self.info.size {
                return Err(self.fail(StatusCode::INVALID_RESERVED_IN_TDMR, position, 0));
            }
            previous_end = end;
        }
        Ok(())
    }

    fn check_pamt(&self, level: Level) -> Step {
        let (base, size) = pamt(self.info, level);
        let needed = if self.dynamic_pamt && level == Level::L4K {
            bitmap_size(self.info.size)
        } else {
            pamt_size(self.info.size, level).unwrap_or(u64::MAX)
        };
        if !base.is_multiple_of(PAGE_SIZE)
            || !size.is_multiple_of(PAGE_SIZE)
            || size < needed
            || self.beyond_memory(base, size)
        {
            return Err(self.fail(StatusCode::INVALID_PAMT, level as usize, 0));
        }
        Ok(())
    }

    /// PAMTs may overlap neither memory that a TDMR makes available nor each other; a PAMT of 4 KiB entries is
    /// looked at first.
    fn check_overlaps(&self) -> Step {
        const LEVELS: [Level; 3] = [Level::L4K, Level::L2M, Level::L1G];
        let range_of = |info: &TdmrInfo, level: Level| {
            let (base, size) = pamt(info, level);
            Range::new(base, size)
        };
        let own_memory = available(self.info);
        for (position, level) in LEVELS.into_iter().enumerate() {
            let range = range_of(self.info, level);
            let overlap = |other: usize| Err(self.fail(StatusCode::PAMT_OVERLAP, level as usize, other));
            for (other, info) in self.earlier.iter().enumerate() {
                if available(info).iter().any(|area| area.overlaps(range)) {
                    return overlap(other);
                }
            }
            if own_memory.iter().any(|area| area.overlaps(range)) {
                return overlap(self.index);
            }
            for (other, info) in self.earlier.iter().enumerate() {
                for earlier_level in LEVELS {
                    let earlier_range = range_of(info, earlier_level);
                    if earlier_range.overlaps(range)
                        || own_memory.iter().any(|area| area.overlaps(earlier_range))
                    {
                        return overlap(other);
                    }
                }
            }
            if LEVELS.into_iter().skip(position + 1).any(|next| range_of(self.info, next).overlaps(range)) {
                return overlap(self.index);
            }
        }
        Ok(())
    }

    fn check_cmrs(&self) -> Step {
        let cmrs = &self.call.machine.config().cmrs;
        for level in PAMT_LEVELS {
            let (base, size) = pamt(self.info, level);
            if !Range::new(base, size).is_in_one_of(cmrs) {
                return Err(self.fail(StatusCode::PAMT_OUTSIDE_CMRS, level as usize, 0));
            }
        }
        if !available(self.info).iter().all(|area| area.is_in_one_of(cmrs)) {
            return Err(self.fail(StatusCode::TDMR_OUTSIDE_CMRS, 0, 0));
        }
        Ok(())
    }
}
