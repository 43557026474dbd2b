//! Protection keys for user pages (SDM vol. 3, "Protection Keys"): bits 62:59 of the leaf entry choose two bits of PKRU.
//!
//! The rights in the TLB are those under the present PKRU; the TLB knows which keys they depend on, and a change of the
//! rights of such a key drops them.

use crate::cpu::Cpu;
use crate::paging::Want;
use crate::tlb::View;
use x86_arch::{cr0, cr4};

const KEY_SHIFT: u32 = 59;
const KEYS: u8 = 16;

/// What a page's protection key allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct KeyRights {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl KeyRights {
    const ALL: Self = Self { read: true, write: true };

    /// Whether the key is a reason to refuse an access; fetches have no key.
    pub(crate) const fn denies(self, want: Want) -> bool {
        match want {
            Want::Read => !self.read,
            Want::Write => !self.write,
            Want::Execute => false,
        }
    }
}

/// The two bits that PKRU has for a key: access disable, write disable.
const fn disables(pkru: u32, key: u8) -> u32 {
    pkru >> (2 * (key & 15)) & 3
}

impl Cpu {
    /// What the key in a leaf entry allows to data accesses.
    pub(crate) fn key_rights(&mut self, leaf: u64, user_page: bool, view: View) -> KeyRights {
        const ACCESS_DISABLE: u32 = 1;
        const WRITE_DISABLE: u32 = 2;
        if !user_page || self.state.control.cr4 & cr4::PKE == 0 {
            return KeyRights::ALL;
        }
        let key = (leaf >> KEY_SHIFT) as u8 & (KEYS - 1);
        self.tlb.note_key(key);
        let disables = disables(self.state.pkru, key);
        let read = disables & ACCESS_DISABLE == 0;
        let respects = view.is_user() || self.state.control.cr0 & cr0::WP != 0;
        KeyRights { read, write: read && !(disables & WRITE_DISABLE != 0 && respects) }
    }

    /// Writes PKRU, as WRPKRU and XRSTOR do.
    pub(crate) fn write_pkru(&mut self, value: u32) {
        let old = core::mem::replace(&mut self.state.pkru, value);
        let differs = |key: &u8| disables(old, *key) != disables(value, *key);
        let changed = (0..KEYS).filter(differs).fold(0, |keys, key| keys | 1 << key);
        if self.tlb.depends_on_keys(changed) {
            self.tlb.flush_linear();
            self.attention = true;
        }
    }
}
