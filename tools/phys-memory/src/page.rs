//! The state word of one page: key, code watch, code generation.

use core::sync::atomic::{AtomicU64, Ordering};

use super::StoreEffect;
use tdvisor_base::addr::KeyId;

/// Layout and transitions of a page's state word.
///
/// Bits 15:0 key · 16 code watched · 63:32 code generation.
pub(super) struct PageWord;

impl PageWord {
    pub(super) const KEY_MASK: u64 = 0xffff;
    pub(super) const CODE: u64 = 1 << 16;
    const GENERATION_SHIFT: u32 = 32;
    const ONE_GENERATION: u64 = 1 << Self::GENERATION_SHIFT;

    pub(super) const fn key(word: u64) -> KeyId {
        KeyId::new(word as u16)
    }

    pub(super) const fn generation(word: u64) -> u32 {
        (word >> Self::GENERATION_SHIFT) as u32
    }

    /// Moves the page to `key`; whatever code was decoded from it is void.
    pub(super) fn take_for(word: &AtomicU64, key: KeyId) {
        let _ = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            Some(
                (old & !(Self::KEY_MASK | Self::CODE)).wrapping_add(Self::ONE_GENERATION)
                    | u64::from(key.get()),
            )
        });
    }

    /// Marks the page's code as decoded and gives the generation it was decoded in.
    pub(super) fn watch(word: &AtomicU64) -> u32 {
        Self::generation(word.fetch_or(Self::CODE, Ordering::AcqRel))
    }

    /// A store is about to hit the page.
    pub(super) fn note_store(word: &AtomicU64) -> StoreEffect {
        let old = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            (old & Self::CODE != 0).then_some((old & !Self::CODE).wrapping_add(Self::ONE_GENERATION))
        });
        if old.is_ok() { StoreEffect::CodeModified } else { StoreEffect::Plain }
    }
}
