//! The serial port to the host.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::termios::{ControlModes, OptionalActions, tcdrain, tcgetattr, tcsetattr};

use crate::protocol::{End, FromGuest, FromHost, HELLO};

/// The port.
pub const PORT: &str = "/dev/ttyS1";

/// The open port, and what of a frame has come.
pub struct Wire {
    port: File,
    come: Vec<u8>,
}

impl Wire {
    /// Opens the port, and makes it carry bytes as they are.
    pub fn open() -> Result<Self, String> {
        let flags = (rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK).bits();
        let port = OpenOptions::new().read(true).write(true).custom_flags(flags as i32).open(PORT);
        let port = port.map_err(hint)?;
        let mut modes = tcgetattr(&port).map_err(|errno| hint(errno.into()))?;
        modes.make_raw();
        modes.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
        tcsetattr(&port, OptionalActions::Now, &modes).map_err(|errno| hint(errno.into()))?;
        Ok(Self { port, come: Vec::new() })
    }

    /// Says that this is the protocol.
    pub fn greet(&mut self) -> io::Result<()> {
        self.send(HELLO)
    }

    /// Says something to the host.
    pub fn say(&mut self, what: &FromGuest) -> io::Result<()> {
        let mut bytes = Vec::new();
        what.encode(&mut bytes);
        self.send(&bytes)
    }

    /// Says how the command ended, and waits until that is out.
    pub fn finish(&mut self, end: End) -> io::Result<()> {
        self.say(&FromGuest::Ended(end))?;
        Ok(tcdrain(&self.port)?)
    }

    /// Takes in what the host has sent; gives the next frame that is whole.
    pub fn hear(&mut self) -> io::Result<Option<FromHost>> {
        let mut bytes = [0; 512];
        loop {
            match self.port.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.come.extend(bytes.iter().take(count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        FromHost::take(&mut self.come).map_err(|_| io::Error::from(ErrorKind::InvalidData))
    }

    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.port.write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll(&mut [PollFd::new(&self.port, PollFlags::OUT)], None)?;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.port.as_fd()
    }
}

fn hint(error: io::Error) -> String {
    format!(
        "{PORT}: {error} (the kernel needs a second serial port: CONFIG_SERIAL_8250_NR_UARTS of 2 or more)"
    )
}
