//! Who is in the guest, and how to get them out.
//!
//! # Protocol
//! Each vCPU has a [`Presence`]: a sequence number (odd while the vCPU is, or is about to be, in the guest),
//! a set of requests, and the LP it runs on.
//! - *Entering*: make the sequence odd with a full barrier; then look at the requests and at the TD's
//!   [`Gate`]; if either asks to stay out, make it even again and do not enter.
//! - *Asking*: set the request (or close the gate) with a full barrier; then look at the sequence; if it is
//!   odd, send an IPI to the LP and wait for the sequence to change.
//!
//! One of the two always sees the other. An IPI that arrives between the vCPU's look and its VP.ENTER stays
//! pending and ends that VP.ENTER at once (see [`crate::platform`]), so a kick is never lost. A vCPU that
//! left and entered again after the request was set has seen the request: waiting for *a change* is enough.
//!
//! The gate is closed while the host retries a SEAMCALL that found a lock held by a guest-side leaf
//! (invariants 17 and 18); it opens on every way out, because closing it gives a guard.

use alloc::vec::Vec;

use mirror_ept::{BadNumbers, Numbers, Reader};
use tdvisor_base::sync::{AtomicU32, AtomicU64, Ordering, spin_loop, yield_now};

use crate::platform::LpId;

/// Work for a vCPU to do before it enters the guest again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requests(u32);

impl Requests {
    /// Drop translations through the shared EPT (INVEPT) on the vCPU's LP.
    pub const FLUSH_DIRECT: Self = Self(1);
    /// Leave the run loop: the TD is ending.
    pub const STOP: Self = Self(1 << 1);
    /// Make an NMI pending in the vCPU.
    pub const NMI: Self = Self(1 << 2);
    /// Leave the run loop, to be run again later.
    pub const LEAVE: Self = Self(1 << 3);
    /// Park, as long as the TD is paused.
    pub const PARK: Self = Self(1 << 4);

    /// Whether all of `other` is asked for.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is asked for.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// One vCPU's whereabouts.
#[derive(Debug, Default)]
pub struct Presence {
    sequence: AtomicU64,
    requests: AtomicU32,
    /// LP number plus one; zero before the first entry.
    lp: AtomicU32,
}

/// Keeps all vCPUs of one TD out of the guest while it is closed.
#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicU32,
}

/// The gate is closed for as long as this lives.
#[derive(Debug)]
#[must_use = "the gate opens when the guard is dropped"]
pub struct ClosedGate<'g>(&'g Gate);

impl Gate {
    /// Refuses new entries. Those who are in the guest have to be kicked.
    pub fn close(&self) -> ClosedGate<'_> {
        self.closed.fetch_add(1, Ordering::SeqCst);
        ClosedGate(self)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst) != 0
    }
}

impl Drop for ClosedGate<'_> {
    fn drop(&mut self) {
        self.0.closed.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A vCPU is in the guest, as far as others can tell, for as long as this lives.
#[derive(Debug)]
#[must_use = "the vCPU is outside again when the guard is dropped"]
pub struct InGuest<'v>(&'v Presence);

impl Drop for InGuest<'_> {
    fn drop(&mut self) {
        self.0.sequence.fetch_add(1, Ordering::SeqCst);
    }
}

/// Why a vCPU may not enter now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StayOut {
    /// There is work to do first; [`Presence::take_requests`] says what.
    Requested,
    /// The gate is closed: try again.
    GateClosed,
}

impl Presence {
    /// Writes the whereabouts of a vCPU that is outside.
    pub(crate) fn save(&self, out: &mut Numbers) {
        let Self { sequence, requests, lp } = self;
        out.put(sequence.load(Ordering::SeqCst));
        out.put(requests.load(Ordering::SeqCst));
        out.put(lp.load(Ordering::Relaxed));
    }

    /// Reads what [`Self::save`] wrote.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, BadNumbers> {
        let (sequence, requests, lp) = (reader.number()?, reader.narrow()?, reader.narrow()?);
        if sequence & 1 != 0 {
            return Err(BadNumbers);
        }
        Ok(Self {
            sequence: AtomicU64::new(sequence),
            requests: AtomicU32::new(requests),
            lp: AtomicU32::new(lp),
        })
    }

    /// Announces that the vCPU enters the guest on `lp`.
    ///
    /// # Errors
    /// [`StayOut`]; the vCPU then counts as outside.
    pub fn enter(&self, gate: &Gate, lp: LpId) -> Result<InGuest<'_>, StayOut> {
        self.lp.store(lp.0.wrapping_add(1), Ordering::Relaxed);
        self.sequence.fetch_add(1, Ordering::SeqCst);
        let inside = InGuest(self);
        if self.requests.load(Ordering::SeqCst) != 0 {
            return Err(StayOut::Requested);
        }
        if gate.is_closed() {
            return Err(StayOut::GateClosed);
        }
        Ok(inside)
    }

    /// Asks for work before the next entry. Does not get the vCPU out: see [`kick`].
    pub fn request(&self, requests: Requests) {
        self.requests.fetch_or(requests.0, Ordering::SeqCst);
    }

    /// Takes what was asked for.
    pub fn take_requests(&self) -> Requests {
        Requests(self.requests.swap(0, Ordering::SeqCst))
    }

    /// What is asked for, left in place.
    pub fn requests(&self) -> Requests {
        Requests(self.requests.load(Ordering::SeqCst))
    }

    /// The LP of the last entry; `None` before the first.
    pub fn lp(&self) -> Option<LpId> {
        self.lp.load(Ordering::Relaxed).checked_sub(1).map(LpId)
    }

    /// Whether the vCPU ever entered the guest (invariant 14).
    pub fn ever_entered(&self) -> bool {
        self.sequence.load(Ordering::SeqCst) != 0
    }

    fn inside(&self) -> Option<u64> {
        let sequence = self.sequence.load(Ordering::SeqCst);
        (sequence & 1 == 1).then_some(sequence)
    }
}

/// Gets every vCPU out of the guest once, and returns when each has been out.
///
/// `send_ipi` interrupts an LP. All IPIs are sent before the first wait. A vCPU that leaves and enters again
/// meanwhile has been out: what counts is the sequence number seen when its IPI was sent. Returns how many
/// were sent.
pub fn kick<'v>(vcpus: impl Iterator<Item = &'v Presence>, mut send_ipi: impl FnMut(LpId)) -> usize {
    let kicked: Vec<(&Presence, u64)> = vcpus
        .filter_map(|vcpu| {
            let seen = vcpu.inside()?;
            send_ipi(vcpu.lp()?);
            Some((vcpu, seen))
        })
        .collect();
    for (vcpu, seen) in &kicked {
        let mut spins = 0u32;
        while vcpu.sequence.load(Ordering::SeqCst) == *seen {
            if spins < 64 && cfg!(not(any(loom, shuttle))) {
                spins += 1;
                spin_loop();
            } else {
                yield_now();
            }
        }
    }
    kicked.len()
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::*;
    use tdvisor_base::sync::AtomicBool;

    #[test]
    fn a_request_or_a_closed_gate_keeps_a_vcpu_out() {
        let (presence, gate) = (Presence::default(), Gate::default());
        presence.request(Requests::FLUSH_DIRECT);
        assert_eq!(presence.enter(&gate, LpId(3)).unwrap_err(), StayOut::Requested);
        assert!(presence.take_requests().contains(Requests::FLUSH_DIRECT));
        let closed = gate.close();
        assert_eq!(presence.enter(&gate, LpId(3)).unwrap_err(), StayOut::GateClosed);
        drop(closed);
        let inside = presence.enter(&gate, LpId(3)).unwrap();
        assert_eq!(presence.lp(), Some(LpId(3)));
        assert!(presence.inside().is_some());
        drop(inside);
        assert!(presence.inside().is_none());
    }

    #[test]
    fn inv_17_the_gate_opens_on_every_way_out() {
        let gate = Gate::default();
        let attempt = || -> Result<(), ()> {
            let _closed = gate.close();
            Err(())
        };
        assert!(attempt().is_err());
        assert!(!gate.is_closed());
    }

    #[test]
    fn a_kick_waits_until_the_vcpu_has_been_out() {
        let (presence, gate, kicked) = (Presence::default(), Gate::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let inside = presence.enter(&gate, LpId(1)).unwrap();
            let waiter = scope.spawn(|| {
                kick([&presence].into_iter(), |lp| {
                    assert_eq!(lp, LpId(1));
                    kicked.store(true, Ordering::SeqCst);
                })
            });
            while !kicked.load(Ordering::SeqCst) {
                yield_now();
            }
            drop(inside);
            assert_eq!(waiter.join().unwrap(), 1);
        });
    }
}
