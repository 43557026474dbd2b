//! A tap device of the host, by a descriptor that this program was started with.
//!
//! The descriptor is of a tap device without `IFF_VNET_HDR` and with `IFF_NO_PI`, or of a socket of datagrams that are frames.
//! The card reads and writes it without waiting; one thread waits for it and rings the bell.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use tdvisor_devices::virtio::net::{FRAME_BYTES_MAX, Link};

use crate::bell::Bell;

const TOKEN_STOP: u64 = 0;
const TOKEN_TAP: u64 = 1;

/// What card and thread share.
struct Shared {
    tap: OwnedFd,
    stop: OwnedFd,
    /// Reading may give a frame. Set by the thread, cleared by a read that found none.
    readable: AtomicBool,
    bell: Bell,
}

/// The network.
pub struct Tap {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tap")
    }
}

impl Tap {
    /// The network behind the descriptor with this number, of which the program keeps its own copy.
    ///
    /// # Errors
    /// There is no such descriptor, or nothing that can be waited for is behind it.
    pub fn inherited(number: i32, bell: Bell) -> io::Result<Self> {
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        Self::over(pidfd_getfd(own, number, PidfdGetfdFlags::empty())?, bell)
    }

    /// The network behind a descriptor.
    ///
    /// # Errors
    /// Nothing that can be waited for is behind it.
    pub fn over(tap: OwnedFd, bell: Bell) -> io::Result<Self> {
        fcntl_setfl(&tap, fcntl_getfl(&tap)? | OFlags::NONBLOCK)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &stop, EventData::new_u64(TOKEN_STOP), EventFlags::IN)?;
        // An edge: frames that the guest has no buffers for must not wake anybody again and again.
        epoll::add(&epoll, &tap, EventData::new_u64(TOKEN_TAP), EventFlags::IN | EventFlags::ET)?;
        let shared = Arc::new(Shared { tap, stop, readable: AtomicBool::new(true), bell });
        let of_thread = shared.clone();
        let thread =
            std::thread::Builder::new().name("tap".to_owned()).spawn(move || wait(&epoll, &of_thread))?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

/// Waits for frames until the card goes.
fn wait(epoll: impl AsFd, shared: &Shared) {
    loop {
        let mut events: Vec<Event> = Vec::with_capacity(2);
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        if events.iter().any(|event| event.data.u64() == TOKEN_STOP) {
            return;
        }
        if !events.is_empty() {
            shared.readable.store(true, Ordering::SeqCst);
            shared.bell.ring();
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.shared.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Link for Tap {
    fn send(&mut self, frame: &[u8]) {
        // A network that takes no more frames drops them.
        let _ = rustix::io::write(&self.shared.tap, frame);
    }

    fn receive(&mut self, out: &mut [u8; FRAME_BYTES_MAX]) -> usize {
        self.shared.readable.store(false, Ordering::SeqCst);
        // One that is longer than a frame may be is cut by the read, and was for nobody.
        let length = rustix::io::read(&self.shared.tap, &mut out[..]).unwrap_or(0);
        if length > 0 {
            self.shared.readable.store(true, Ordering::SeqCst);
        }
        length
    }

    fn has_frame(&mut self) -> bool {
        self.shared.readable.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn frames_go_both_ways_and_those_that_come_ring() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let bell = Bell::default();
        let mut tap = Tap::inherited(near.as_raw_fd(), bell.clone()).unwrap();
        drop(near);
        tap.send(b"from the guest");
        let mut frame = [0; FRAME_BYTES_MAX];
        assert_eq!(far.recv(&mut frame).unwrap(), 14);
        assert_eq!(tap.receive(&mut frame), 0);
        assert!(!tap.has_frame());
        far.send(b"first").unwrap();
        far.send(b"second").unwrap();
        while !tap.has_frame() {
            bell.wait();
        }
        assert_eq!((tap.receive(&mut frame), &frame[..5]), (5, &b"first"[..]));
        assert_eq!((tap.receive(&mut frame), &frame[..6]), (6, &b"second"[..]));
    }

    #[test]
    fn a_descriptor_that_is_not_there_is_an_error() {
        assert!(Tap::inherited(987_654, Bell::default()).is_err());
    }
}
