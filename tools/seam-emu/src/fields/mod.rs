//! Control structures in memory: a page of the arena seen as fields at byte offsets.
//!
//! TDR, TDCS and TDVPS lie in real pages of the arena. Their field offsets are those of the module's metadata
//! tables (Intel 348551, metadata fields), so that access by field id needs a table and no code per field.
//! VMCS fields lie in page 1 of a TDVPS, at [`vmcs::offset`].

pub mod layout;
pub mod vmcs;

use tdvisor_base::sync::Ordering;
use tdvisor_base::table::Table;

/// Size of a field or element in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
#[repr(u8)]
pub enum Width {
    /// One byte.
    B1 = 1,
    /// Two bytes.
    B2 = 2,
    /// Four bytes.
    B4 = 4,
    /// Eight bytes.
    B8 = 8,
}

impl Width {
    /// All ones in this many bytes.
    pub const fn mask(self) -> u64 {
        match self {
            Self::B8 => u64::MAX,
            _ => (1 << (8 * self as u32)) - 1,
        }
    }
}

/// Fields at byte offsets: what the metadata engine reads and writes.
///
/// An offset outside the structure reads as zero and a write to it is dropped; a field never crosses an
/// eight-byte boundary (true of every field in the tables; one that did would be split).
pub trait FieldStore {
    /// Reads a field, zero-extended.
    fn load(&self, offset: u32, width: Width) -> u64;

    /// Writes the low bytes of `value`.
    fn store(&self, offset: u32, width: Width, value: u64);

    /// Reads an 8-byte field.
    fn load_u64(&self, offset: u32) -> u64 {
        self.load(offset, Width::B8)
    }

    /// Writes an 8-byte field.
    fn store_u64(&self, offset: u32, value: u64) {
        self.store(offset, Width::B8, value);
    }
}

/// One page of a control structure.
#[derive(Clone, Copy, Debug)]
pub struct FieldPage<'m> {
    words: &'m Table,
}

impl<'m> FieldPage<'m> {
    /// Sees a page as fields.
    pub(crate) const fn new(words: &'m Table) -> Self {
        Self { words }
    }

    /// The words of the page.
    pub(crate) const fn words(self) -> &'m Table {
        self.words
    }
}

impl FieldStore for FieldPage<'_> {
    fn load(&self, offset: u32, width: Width) -> u64 {
        let Some(word) = self.words.get((offset / 8) as usize) else { return 0 };
        let shift = offset % 8 * 8;
        let low = word.load(Ordering::Acquire) >> shift;
        let bits = width as u32 * 8;
        if shift + bits <= 64 {
            return low & width.mask();
        }
        let high = self.words.get((offset / 8 + 1) as usize).map_or(0, |w| w.load(Ordering::Acquire));
        (low | high << (64 - shift)) & width.mask()
    }

    fn store(&self, offset: u32, width: Width, value: u64) {
        let shift = offset % 8 * 8;
        let value = value & width.mask();
        if shift == 0 && width == Width::B8 {
            if let Some(word) = self.words.get((offset / 8) as usize) {
                word.store(value, Ordering::Release);
            }
            return;
        }
        replace_bits(self.words, offset / 8, width.mask() << shift, value << shift);
        if shift + width as u32 * 8 > 64 {
            let done = 64 - shift;
            replace_bits(self.words, offset / 8 + 1, width.mask() >> done, value >> done);
        }
    }
}

fn replace_bits(words: &Table, index: u32, mask: u64, value: u64) {
    if let Some(word) = words.get(index as usize) {
        let _ = crate::lock::change(word, |old| Some(old & !mask | value));
    }
}

#[cfg(test)]
mod tests {
    use phys_memory::{Arena, KeySpace};
    use tdvisor_base::Pfn;

    use super::*;

    #[test]
    fn fields_of_every_width_share_a_word_without_touching_each_other() {
        let memory = Arena::new(2 << 20, KeySpace::SHARED_ONLY);
        let page = FieldPage::new(memory.table(Pfn::new(3)).unwrap());
        page.store(0x10, Width::B8, u64::MAX);
        page.store(0x12, Width::B2, 0x1234);
        page.store(0x11, Width::B1, 0x56);
        assert_eq!(page.load_u64(0x10), 0xffff_ffff_1234_56ff);
        page.store(0x1c, Width::B8, 0x1122_3344_5566_7788);
        assert_eq!(page.load(0x1c, Width::B8), 0x1122_3344_5566_7788, "a field across two words");
        assert_eq!(page.load(0x20, Width::B4), 0x1122_3344);
        assert_eq!(page.load(4096, Width::B8), 0);
    }
}
