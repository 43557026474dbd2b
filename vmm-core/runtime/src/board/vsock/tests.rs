//! Programs of the host, and the device's side of them.

use std::io::{BufRead, BufReader, Read, Write};

use super::*;
use tdvisor_devices::virtio::vsock::Moved;

/// A folder of its own for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tdvisor-vsock-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("v.sock")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The program that asked, once the thread has heard it.
fn next(host: &mut UnixSockets, bell: &Bell) -> Incoming {
    loop {
        if let Some(incoming) = host.accept() {
            return incoming;
        }
        bell.wait();
    }
}

/// Reads until there is something.
fn read(stream: &mut dyn Stream, bell: &Bell) -> Vec<u8> {
    let mut out = [0; 64];
    loop {
        match stream.read(&mut out) {
            Moved::Bytes(count) => return out[..count].to_vec(),
            Moved::End => return Vec::new(),
            Moved::Later => {
                while !stream.may_read() {
                    bell.wait();
                }
            }
        }
    }
}

#[test]
fn a_program_says_connect_hears_ok_and_has_the_stream() {
    let (folder, bell) = (Folder::new("connect"), Bell::default());
    let mut host = UnixSockets::listen(&folder.socket(), bell.clone()).unwrap();
    let mut program = UnixStream::connect(folder.socket()).unwrap();
    program.write_all(b"CONNECT 5000\nhello").unwrap();
    let Incoming { guest_port, mut stream } = next(&mut host, &bell);
    assert_eq!(guest_port, 5000);
    assert_eq!(read(&mut *stream, &bell), b"hello", "what follows the newline is the guest's");
    stream.established(1 << 30);
    assert_eq!(stream.write(b"welcome\n"), Moved::Bytes(8));
    let mut program = BufReader::new(program);
    let mut lines = [String::new(), String::new()];
    lines.iter_mut().for_each(|line| assert!(program.read_line(line).unwrap() > 0));
    assert_eq!(lines, ["OK 1073741824\n", "welcome\n"]);
    stream.shut_write();
    assert_eq!(program.read_line(&mut String::new()).unwrap(), 0, "the end of what the guest sends");
    program.into_inner().write_all(b"last words").unwrap();
    assert_eq!(read(&mut *stream, &bell), b"last words");
    assert_eq!(read(&mut *stream, &bell), b"", "and the end of what the program sends");
}

#[test]
fn a_program_that_says_anything_else_is_let_go() {
    let (folder, bell) = (Folder::new("nonsense"), Bell::default());
    let mut host = UnixSockets::listen(&folder.socket(), bell).unwrap();
    for words in ["GET / HTTP/1.1\r\n", "CONNECT 70000000000\n", &"x".repeat(100)] {
        let mut program = UnixStream::connect(folder.socket()).unwrap();
        let _ = program.write_all(words.as_bytes());
        let mut rest = Vec::new();
        // Bytes that nobody read make the end a reset.
        let _ = program.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{words:?}");
        assert!(host.accept().is_none(), "{words:?}");
    }
}

#[test]
fn programs_that_never_say_what_they_want_push_each_other_out() {
    let (folder, bell) = (Folder::new("silent"), Bell::default());
    let mut host = UnixSockets::listen(&folder.socket(), bell.clone()).unwrap();
    let mut silent: Vec<UnixStream> =
        (0..=CALLERS_MAX).map(|_| UnixStream::connect(folder.socket()).unwrap()).collect();
    assert_eq!(silent[0].read(&mut [0]).unwrap(), 0, "the oldest was let go");
    silent.last_mut().unwrap().write_all(b"CONNECT 7\n").unwrap();
    assert_eq!(next(&mut host, &bell).guest_port, 7);
}

#[test]
fn a_guest_reaches_whoever_listens_at_its_port() {
    let (folder, bell) = (Folder::new("guest"), Bell::default());
    let mut host = UnixSockets::listen(&folder.socket(), bell.clone()).unwrap();
    assert!(host.connect(80).is_none(), "nobody listens");
    let service = UnixListener::bind(folder.0.join("v.sock_80")).unwrap();
    let mut stream = host.connect(80).expect("somebody listens");
    let (mut program, _) = service.accept().unwrap();
    assert_eq!(stream.write(b"hello"), Moved::Bytes(5));
    let mut hello = [0; 5];
    program.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    program.write_all(b"welcome").unwrap();
    assert_eq!(read(&mut *stream, &bell), b"welcome");
    drop(program);
    assert_eq!(read(&mut *stream, &bell), b"");
    assert_eq!(stream.write(b"?"), Moved::End);
}

#[test]
fn a_program_that_does_not_read_makes_the_guest_wait_and_its_reading_rings() {
    let (folder, bell) = (Folder::new("slow"), Bell::default());
    let mut host = UnixSockets::listen(&folder.socket(), bell.clone()).unwrap();
    let service = UnixListener::bind(folder.0.join("v.sock_80")).unwrap();
    let mut stream = host.connect(80).unwrap();
    let (mut program, _) = service.accept().unwrap();
    let mut sent = 0;
    while let Moved::Bytes(count) = stream.write(&[7; 4096]) {
        sent += count;
    }
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        program.read_to_end(&mut all).map(|_| all.len())
    });
    let more = loop {
        match stream.write(&[7; 4096]) {
            Moved::Bytes(count) => break count,
            Moved::Later => bell.wait(),
            Moved::End => panic!("the program is there"),
        }
    };
    drop(stream);
    assert_eq!(reader.join().unwrap().unwrap(), sent + more);
}

#[test]
fn the_socket_goes_with_the_device_and_is_never_taken_from_another() {
    let folder = Folder::new("file");
    let host = UnixSockets::listen(&folder.socket(), Bell::default()).unwrap();
    assert!(UnixSockets::listen(&folder.socket(), Bell::default()).is_err());
    assert!(folder.socket().exists(), "the other's socket is still there");
    drop(host);
    assert!(!folder.socket().exists());
}
