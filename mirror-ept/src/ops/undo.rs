//! Undoing what was blocked.
//!
//! # Protocol
//! An entry that was blocked and not finished is unblocked before the section ends (26c). That needs it
//! tracked. Each step is tried a bounded number of times ([`crate::Config::undo_attempts`]); past the bound,
//! or when the external side contradicts us, the MMU is dead: this TD, and only this one, must end.

use crate::error::{MmuError, Step};
use crate::external::phase::{Batch, Blocked, Section, Tracked};
use crate::external::{External, HookError};
use crate::mmu::Mmu;
use crate::range::Position;
use crate::table::TablePages;

impl<P: TablePages, X: External<Page = P::ExternalPage>> Mmu<P, X> {
    /// Unblocks one entry.
    pub(crate) fn undo(
        &self,
        section: &mut Section<'_, '_, X>,
        mut entry: Tracked,
    ) -> Result<(), MmuError<X::Error>> {
        let mut attempts = self.config.undo_attempts;
        loop {
            match section.unblock(entry) {
                Ok(()) => return Ok(()),
                Err((same, why)) => {
                    attempts = attempts.saturating_sub(1);
                    if attempts == 0 || !why.is_retryable() {
                        return Err(self.die(same.at(), Step::Unblock, why));
                    }
                    entry = same;
                }
            }
        }
    }

    /// Unblocks the rest of a batch.
    pub(crate) fn undo_tracked(
        &self,
        section: &mut Section<'_, '_, X>,
        batch: &mut Batch<Tracked>,
    ) -> Result<(), MmuError<X::Error>> {
        while let Some(entry) = batch.take() {
            self.undo(section, entry)?;
        }
        Ok(())
    }

    /// Tracks and unblocks a batch that was not tracked yet.
    pub(crate) fn undo_blocked(
        &self,
        section: &mut Section<'_, '_, X>,
        mut batch: Batch<Blocked>,
        at: Position,
    ) -> Result<(), MmuError<X::Error>> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut attempts = self.config.undo_attempts;
        loop {
            match section.track(batch) {
                Ok(mut tracked) => return self.undo_tracked(section, &mut tracked),
                Err((same, why)) => {
                    attempts = attempts.saturating_sub(1);
                    if attempts == 0 || !why.is_retryable() {
                        return Err(self.die(at, Step::Track, why));
                    }
                    batch = same;
                }
            }
        }
    }

    /// What a failed step means once everything was undone: fatal ones end the TD all the same.
    pub(crate) fn undone(&self, at: Position, step: Step, why: HookError<X::Error>) -> MmuError<X::Error> {
        match why {
            HookError::Fatal(_) => self.die(at, step, why),
            _ => MmuError::Hook { at, step, why },
        }
    }
}
