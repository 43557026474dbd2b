//! Where consoles come out, and what is typed on them.
//!
//! A console writes and never waits: a socket whose reader is slow loses bytes, a file takes what fits its allowance. What is
//! typed comes by one thread for each console that has a keyboard; it ends with the console's [`Keyboard`].

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use machine_emu::outlet::Outlet;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;
use rustix::net::{SendFlags, send};

use crate::config::{ConsoleConfig, ConsoleMode};

/// Bytes of one console that are kept in a file or shown on a terminal.
const ALLOWANCE: u64 = 1 << 30;
/// Bytes that wait for a terminal.
const QUEUE: usize = 64 << 10;
/// How long typed bytes wait until a guest's queue is looked at again.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// Bytes that are typed at a time.
const TYPED: usize = 256;

/// The terminal of the process: one, for all lives.
#[derive(Clone, Debug)]
pub(super) struct Terminal(Outlet);

impl Terminal {
    /// Standard output.
    pub(super) fn of_process() -> Self {
        Self(match io::stdout().as_fd().try_clone_to_owned() {
            Ok(out) => Outlet::new(File::from(out), QUEUE),
            // A closed stream is one that nobody reads.
            Err(_) => Outlet::new(io::sink(), QUEUE),
        })
    }
}

/// Where a console writes.
#[derive(Debug)]
pub(super) struct Screen {
    to: Out,
    left: u64,
}

#[derive(Debug)]
enum Out {
    Nowhere,
    Terminal(Terminal),
    File(File),
    Socket(Arc<Viewer>),
}

/// Whoever is connected to a console's socket.
#[derive(Debug, Default)]
struct Viewer(Mutex<Option<Arc<UnixStream>>>);

impl Viewer {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<UnixStream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Out::Socket(viewer) = &self.to {
            if let Some(stream) = &*viewer.lock() {
                let _ = send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            }
            return Ok(bytes.len());
        }
        let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let shown = bytes.get(..allowed).unwrap_or_default();
        self.left -= allowed as u64;
        match &mut self.to {
            Out::Terminal(Terminal(outlet)) => outlet.send(shown),
            Out::File(file) => {
                // A full disk, or a pipe that nobody reads, does not stop the guest.
                let _ = file.write_all(shown);
            }
            Out::Nowhere | Out::Socket(_) => {}
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is typed on.
#[derive(Debug)]
enum Keys {
    None,
    Stdin,
    Socket(UnixListener, SocketFile, Arc<Viewer>),
}

/// The file of a console's socket: removed with it.
#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A console that is not attached yet.
#[derive(Debug)]
pub(super) struct Console {
    screen: Screen,
    keys: Keys,
}

impl Console {
    /// Opens what a console is asked to be.
    ///
    /// # Errors
    /// The file or the socket cannot be made.
    pub(super) fn open(config: &ConsoleConfig, terminal: &Terminal) -> io::Result<Self> {
        let of = |to, keys| Self { screen: Screen { to, left: ALLOWANCE }, keys };
        Ok(match (config.mode, &config.file, &config.socket) {
            (ConsoleMode::Tty, ..) => of(Out::Terminal(terminal.clone()), Keys::Stdin),
            (ConsoleMode::File, Some(path), _) => of(Out::File(open_file(path)?), Keys::None),
            (ConsoleMode::Socket, _, Some(path)) => {
                let listener = UnixListener::bind(path)?;
                let file = SocketFile(path.clone());
                listener.set_nonblocking(true)?;
                let viewer = Arc::new(Viewer::default());
                of(Out::Socket(viewer.clone()), Keys::Socket(listener, file, viewer))
            }
            _ => of(Out::Nowhere, Keys::None),
        })
    }

    /// The console's two halves: what the guest writes to, and what is typed on, once it is known where that goes.
    pub(super) fn split(self) -> (Screen, Unplugged) {
        (self.screen, Unplugged(self.keys))
    }
}

/// The guest's words are as secret as it makes them: the file is its owner's. A pipe without a reader is not waited for.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).custom_flags(flags).open(path)
}

/// A keyboard that is not plugged in.
#[derive(Debug)]
pub(super) struct Unplugged(Keys);

impl Unplugged {
    /// Lets typed bytes go to `push`, which says how many it took.
    ///
    /// # Errors
    /// No thread can be had.
    pub(super) fn plug(self, push: impl Fn(&[u8]) -> usize + Send + 'static) -> io::Result<Keyboard> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let of_thread = stop.try_clone()?;
        let typist = Typist { stop: of_thread, push };
        let thread = std::thread::Builder::new().name("console".to_owned());
        let thread = match self.0 {
            Keys::None => None,
            Keys::Stdin => Some(thread.spawn(move || typist.read(io::stdin()))?),
            Keys::Socket(listener, file, viewer) => Some(thread.spawn(move || {
                typist.serve(&listener, &viewer);
                drop(file);
            })?),
        };
        Ok(Keyboard { stop, thread })
    }
}

/// A keyboard: its thread ends when it is dropped.
#[derive(Debug)]
pub(super) struct Keyboard {
    stop: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Typist<P> {
    stop: OwnedFd,
    push: P,
}

impl<P: Fn(&[u8]) -> usize> Typist<P> {
    /// Waits for input; `false` if it has to end.
    fn wait(&self, source: impl AsFd) -> bool {
        let mut fds = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&source, PollFlags::IN)];
        let ready = poll(&mut fds, None);
        let [stop, _] = fds.map(|fd| fd.revents());
        stop.is_empty()
            && ready.is_ok_and(|_| true) | ready.is_err_and(|errno| errno == rustix::io::Errno::INTR)
    }

    /// Types what comes until the source ends.
    fn read(&self, source: impl AsFd) {
        let mut buffer = [0; TYPED];
        while self.wait(&source) {
            match rustix::io::read(&source, &mut buffer[..]) {
                Ok(0) => return,
                Ok(count) => {
                    if !self.type_all(buffer.get(..count).unwrap_or_default()) {
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(_) => return,
            }
        }
    }

    /// Types as fast as the guest reads; `false` if it has to end meanwhile.
    fn type_all(&self, mut bytes: &[u8]) -> bool {
        loop {
            bytes = bytes.get((self.push)(bytes)..).unwrap_or_default();
            if bytes.is_empty() {
                return true;
            }
            let mut fds = [PollFd::new(&self.stop, PollFlags::IN)];
            if poll(&mut fds, Some(&LOOK_AGAIN)).is_ok_and(|ready| ready != 0) {
                return false;
            }
        }
    }

    /// Lets one viewer after the other in.
    fn serve(&self, listener: &UnixListener, viewer: &Viewer) {
        while self.wait(listener) {
            if let Ok((stream, _)) = listener.accept() {
                let stream = Arc::new(stream);
                *viewer.lock() = Some(stream.clone());
                self.read(&*stream);
                *viewer.lock() = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn config(value: serde_json::Value) -> ConsoleConfig {
        serde_json::from_value(value).unwrap()
    }

    fn terminal() -> Terminal {
        Terminal(Outlet::new(io::sink(), QUEUE))
    }

    #[test]
    fn a_console_in_a_file_is_its_owners() {
        use std::os::unix::fs::PermissionsExt as _;
        let path = std::env::temp_dir().join(format!("tdvisor-console-file-{}", std::process::id()));
        let config = config(serde_json::json!({"mode": "File", "file": path}));
        let (mut screen, _) = Console::open(&config, &terminal()).unwrap().split();
        screen.write_all(b"hello").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"hello");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn whoever_connects_to_a_consoles_socket_types_and_reads() {
        let path = std::env::temp_dir().join(format!("tdvisor-console-socket-{}", std::process::id()));
        let config = config(serde_json::json!({"mode": "Socket", "socket": path}));
        let (mut screen, keys) = Console::open(&config, &terminal()).unwrap().split();
        screen.write_all(b"nobody sees this").unwrap();
        let (typed, came) = std::sync::mpsc::channel();
        let keyboard = keys
            .plug(move |bytes| {
                // A guest that takes a byte at a time.
                typed.send(bytes[0]).map_or(bytes.len(), |()| 1)
            })
            .unwrap();
        for _ in 0..2 {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.write_all(b"ab").unwrap();
            assert_eq!([came.recv().unwrap(), came.recv().unwrap()], *b"ab");
            screen.write_all(b"echo").unwrap();
            let mut echo = [0; 4];
            stream.read_exact(&mut echo).unwrap();
            assert_eq!(&echo, b"echo");
        }
        drop(keyboard);
        assert!(!path.exists());
    }
}
