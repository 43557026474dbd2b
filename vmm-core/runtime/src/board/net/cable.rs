//! Two bounded queues of frames between a card and the thread that is its network.
//!
//! A frame for a full queue is dropped, as on a network. The thread learns of frames from the guest, and of room for frames to
//! it that there was not before, by an eventfd; the card by its bell.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use tdvisor_devices::virtio::net::{FRAME_BYTES_MAX, Link};

use crate::bell::Bell;

/// Frames that a queue holds.
pub(super) const FRAMES_MAX: usize = 256;

type Frames = Mutex<VecDeque<Vec<u8>>>;

/// The queues.
pub(super) struct Cable {
    to_guest: Frames,
    from_guest: Frames,
    /// Readable when the thread has something to look at.
    pub(super) wake: OwnedFd,
    pulled: AtomicBool,
    bell: Bell,
}

fn lock(frames: &Frames) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
    frames.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cable {
    pub(super) fn new(bell: Bell) -> io::Result<Arc<Self>> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let (to_guest, from_guest) = (Frames::default(), Frames::default());
        Ok(Arc::new(Self { to_guest, from_guest, wake, pulled: AtomicBool::new(false), bell }))
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Makes `wake` unreadable until the next frame.
    pub(super) fn woke(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0u8; size_of::<u64>()]);
    }

    /// The card is gone: the thread ends.
    pub(super) fn pull(&self) {
        self.pulled.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Whether the card is gone.
    pub(super) fn is_pulled(&self) -> bool {
        self.pulled.load(Ordering::SeqCst)
    }

    /// The next frame from the guest.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        lock(&self.from_guest).pop_front()
    }

    /// Whether there is room for a frame to the guest.
    pub(super) fn has_room(&self) -> bool {
        lock(&self.to_guest).len() < FRAMES_MAX
    }

    /// Sends a frame to the guest, or drops it.
    pub(super) fn put(&self, frame: Vec<u8>) {
        let mut frames = lock(&self.to_guest);
        if frames.len() < FRAMES_MAX && frame.len() <= FRAME_BYTES_MAX {
            frames.push_back(frame);
            drop(frames);
            self.bell.ring();
        }
    }
}

/// The card's end.
pub(super) struct CardEnd(pub(super) Arc<Cable>);

impl Link for CardEnd {
    fn send(&mut self, frame: &[u8]) {
        let mut frames = lock(&self.0.from_guest);
        if frames.len() < FRAMES_MAX {
            frames.push_back(frame.to_vec());
            drop(frames);
            self.0.wake();
        }
    }

    fn receive(&mut self, out: &mut [u8; FRAME_BYTES_MAX]) -> usize {
        let mut frames = lock(&self.0.to_guest);
        let was_full = frames.len() >= FRAMES_MAX;
        let Some(frame) = frames.pop_front() else { return 0 };
        drop(frames);
        if was_full {
            self.0.wake();
        }
        match out.get_mut(..frame.len()) {
            Some(place) => {
                place.copy_from_slice(&frame);
                frame.len()
            }
            None => 0,
        }
    }

    fn has_frame(&mut self) -> bool {
        !lock(&self.0.to_guest).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_beyond_the_queues_are_dropped_and_the_others_keep_their_order() {
        let cable = Cable::new(Bell::default()).unwrap();
        let mut card = CardEnd(cable.clone());
        for number in 0..300u16 {
            card.send(&number.to_le_bytes());
            cable.put(number.to_be_bytes().to_vec());
        }
        assert!(!cable.has_room());
        let from_guest: Vec<_> = std::iter::from_fn(|| cable.take()).collect();
        assert!(
            from_guest
                .iter()
                .eq(&(0..256u16).map(|number| number.to_le_bytes().to_vec()).collect::<Vec<_>>())
        );
        let mut frame = [0; FRAME_BYTES_MAX];
        for number in 0..256u16 {
            assert_eq!((card.receive(&mut frame), &frame[..2]), (2, &number.to_be_bytes()[..]));
        }
        assert_eq!(card.receive(&mut frame), 0);
        assert!(!card.has_frame() && cable.has_room());
    }
}
