//! What a TD's memory is mapped to, as the host has it.

use alloc::vec::Vec;

use mirror_ept::list::Listed;

use super::{GuestMemory, Seat};
use crate::platform::Platform;

impl<'h, P: Platform> GuestMemory<'h, P> {
    /// The entries of the mirror and of the shared table that are not absent.
    pub fn list(&self, seat: &mut Seat<'_, 'h, P>) -> Vec<Listed> {
        let mut all = Vec::new();
        let mut guard = seat.participant.exclusive();
        self.mmu.list(&mut guard, &mut |listed| all.push(listed));
        all
    }
}
