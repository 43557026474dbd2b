//! Second-stage translation as the processor does it: the TLB, then a walk of the Secure EPT for private and
//! of the shared EPT for shared addresses.

use tdvisor_base::sync::Ordering;
use tdvisor_base::{Gpa, Hpa, KeyId, Level, PAGE_SIZE};
use tdx_module_iface::exit::ExitReason;
use tdx_module_iface::sept::SeptEntry;
use x86_arch::Access;
use x86_emu::Translation;

use super::tlb::Entry;
use super::{Asid, GuestSpace, Machine};
use crate::guest::VmExit;

/// Entries of the shared EPT carry rights in bits 2:0 and the leaf flag in bit 7.
const LEAF: u64 = 1 << 7;
const RIGHTS: u64 = 7;
/// The three rights, as they are cached.
const READABLE: u8 = 1;
const WRITABLE: u8 = 1 << 1;
const EXECUTABLE: u8 = 1 << 2;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const fn wanted(access: Access) -> u8 {
    match access {
        Access::Read | Access::WalkRead => READABLE,
        Access::Write | Access::WalkWrite => WRITABLE,
        Access::Execute => EXECUTABLE,
    }
}

impl Machine {
    pub(super) fn translate(
        &self,
        lp: usize,
        asid: Asid,
        space: &GuestSpace,
        gpa: Gpa,
        access: Access,
    ) -> Result<Translation, VmExit> {
        let tlb = self.processors().get(lp).map(|p| &p.tlb);
        if let Some(entry) = tlb.and_then(|tlb| tlb.lookup(asid, gpa))
            && entry.rights & wanted(access) != 0
        {
            return Ok(place(entry, gpa));
        }
        let entry = self.walk_space(space, gpa, access)?;
        if entry.shared && access.is_write() {
            let page = entry.hpa.wrapping_add(gpa.align_down(PAGE_SIZE).get() & (entry.level.bytes() - 1));
            self.note_host_write(page, 1);
        }
        if let Some(tlb) = tlb {
            tlb.insert(asid, gpa, entry);
        }
        Ok(place(entry, gpa))
    }

    /// Where a byte of a guest lies and with which key, by the EPTs as they are now: no TLB is asked or filled. `None`
    /// where the access would leave the guest.
    pub(crate) fn look_up(&self, space: &GuestSpace, gpa: Gpa, access: Access) -> Option<(Hpa, KeyId)> {
        let place = place(self.walk_space(space, gpa, access).ok()?, gpa);
        Some((place.byte(gpa), place.key))
    }

    /// Walks the Secure EPT for private and the shared EPT for shared addresses.
    fn walk_space(&self, space: &GuestSpace, gpa: Gpa, access: Access) -> Result<Entry, VmExit> {
        let shared = gpa.get() & space.shared_bit != 0;
        let root = if shared { space.shared_root } else { space.sept_root };
        let (hpa, level, rights) = self.walk(root, space.root_level, gpa, access)?;
        // Entries of the shared EPT may carry a shared key id; private pages have the TD's key.
        let (hpa, key) = if shared { self.split_pa(hpa.get()) } else { (hpa, space.key) };
        Ok(Entry { hpa, key, level, rights, shared })
    }

    /// Walks an EPT; gives the base, level and rights of the mapping.
    fn walk(
        &self,
        root: Hpa,
        root_level: Level,
        gpa: Gpa,
        access: Access,
    ) -> Result<(Hpa, Level, u8), VmExit> {
        let violation = |rights: u64| VmExit::ept_violation(gpa, 0, access, rights);
        if root.get() == 0 {
            return Err(violation(0));
        }
        let mut table = root;
        let mut level = root_level;
        let mut rights = RIGHTS;
        loop {
            let words = self.memory().table(table.frame()).map_err(|_| violation(0))?;
            let raw =
                words.get(level.table_index(gpa.frame())).map_or(0, |word| word.load(Ordering::Acquire));
            rights &= raw & RIGHTS;
            if raw & RIGHTS == 0 {
                let mut exit = violation(0);
                exit.suppress_ve = raw & SeptEntry::SUPPRESS_VE != 0;
                return Err(exit);
            }
            if raw & (SeptEntry::READ | SeptEntry::WRITE) == SeptEntry::WRITE {
                let mut exit = VmExit::plain(ExitReason::EPT_MISCONFIG);
                exit.gpa = gpa;
                return Err(exit);
            }
            let next = Hpa::new(raw & ADDRESS);
            if level == Level::L4K || raw & LEAF != 0 {
                if rights & u64::from(wanted(access)) == 0 {
                    let mut exit = violation(rights);
                    exit.suppress_ve = raw & SeptEntry::SUPPRESS_VE != 0;
                    return Err(exit);
                }
                return Ok((next.align_down(level.bytes()), level, rights as u8));
            }
            table = next;
            level = match level.down() {
                Some(below) => below,
                None => return Err(violation(0)),
            };
        }
    }
}

fn place(entry: Entry, gpa: Gpa) -> Translation {
    let offset = gpa.align_down(PAGE_SIZE).get() & (entry.level.bytes() - 1);
    Translation {
        hpa: entry.hpa.wrapping_add(offset),
        key: entry.key,
        level: entry.level,
        readable: entry.rights & READABLE != 0,
        writable: entry.rights & WRITABLE != 0,
        executable: entry.rights & EXECUTABLE != 0,
    }
}
