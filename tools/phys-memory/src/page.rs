//! The state word of one page: key, code watch, whether it was written, code generation.

use core::sync::atomic::{AtomicU64, Ordering};

use super::StoreEffect;
use tdvisor_base::addr::KeyId;

/// Layout and transitions of a page's state word.
///
/// Bits 15:0 key · 16 code watched · 17 written · 63:32 code generation.
pub(super) struct PageWord;

impl PageWord {
    pub(super) const KEY_MASK: u64 = 0xffff;
    pub(super) const CODE: u64 = 1 << 16;
    /// The page's bytes may be other than zero. It is set before the first of them is written, and stays: a store that
    /// was checked before some other event can never land behind a bit that is clear.
    pub(super) const WRITTEN: u64 = 1 << 17;
    const GENERATION_SHIFT: u32 = 32;
    const ONE_GENERATION: u64 = 1 << Self::GENERATION_SHIFT;

    pub(super) const fn key(word: u64) -> KeyId {
        KeyId::new(word as u16)
    }

    pub(super) const fn generation(word: u64) -> u32 {
        (word >> Self::GENERATION_SHIFT) as u32
    }

    /// Moves the page to `key`; whatever code was decoded from it is void. Says whether its bytes may be other than zero.
    pub(super) fn take_for(word: &AtomicU64, key: KeyId) -> bool {
        let taken = word.fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
            Some(
                (old & !(Self::KEY_MASK | Self::CODE)).wrapping_add(Self::ONE_GENERATION)
                    | u64::from(key.get()),
            )
        });
        taken.is_ok_and(|old| old & Self::WRITTEN != 0)
    }

    /// Notes that the page's bytes are about to be written.
    pub(super) fn note_written(word: &AtomicU64) {
        if word.load(Ordering::Relaxed) & Self::WRITTEN == 0 {
            word.fetch_or(Self::WRITTEN, Ordering::AcqRel);
        }
    }

    /// Whether the page's bytes may be other than zero.
    pub(super) fn is_written(word: &AtomicU64) -> bool {
        word.load(Ordering::Acquire) & Self::WRITTEN != 0
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
