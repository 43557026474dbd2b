//! One atomic change of a word.

use tdvisor_base::sync::{AtomicU64, Ordering};

/// Replaces the word by what `change` makes of it, as one step, and gives the old value; `None` where `change`
/// refuses the value that it finds.
pub(crate) fn change(word: &AtomicU64, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let mut current = word.load(Ordering::Acquire);
    loop {
        let next = change(current)?;
        match word.compare_exchange_weak(current, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(old) => return Some(old),
            Err(found) => current = found,
        }
    }
}
