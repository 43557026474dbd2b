//! What the tests of the command line share: the program, a folder of their own, and how they read its answers.

#![expect(dead_code, reason = "each test program uses a part of it")]

pub mod fat;
pub mod pe;
pub mod typed;
pub mod uki;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Runs `tdvisor` to its end.
pub fn tdvisor(args: &[&str]) -> Answer {
    tdvisor_with_input(args, b"")
}

/// Runs `tdvisor` to its end, with what is typed: no more than a pipe takes at once.
pub fn tdvisor_with_input(args: &[&str], input: &[u8]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdvisor"));
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("tdvisor starts");
    // A program that ended already, over what it was told, reads nothing.
    let _ = child.stdin.take().expect("its input is a pipe").write_all(input);
    let output = child.wait_with_output().expect("tdvisor can be waited for");
    Answer { call: args.join(" "), output }
}

/// How a call ended.
pub struct Answer {
    call: String,
    output: Output,
}

impl Answer {
    /// Checks the exit status, and shows everything if it is another.
    #[track_caller]
    pub fn ends_with(self, status: i32) -> Self {
        assert_eq!(
            self.output.status.code(),
            Some(status),
            "tdvisor {}\n{}{}",
            self.call,
            self.stdout(),
            self.stderr()
        );
        self
    }

    /// The exit status.
    #[track_caller]
    pub fn status(&self) -> i32 {
        self.output.status.code().unwrap_or_else(|| panic!("tdvisor {}: ended by a signal", self.call))
    }

    /// What the program printed.
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.stdout).into_owned()
    }

    /// What the program complained about.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    /// The program's one line of complaint.
    #[track_caller]
    pub fn one_line_of_error(&self) -> String {
        let text = self.stderr();
        assert_eq!(text.lines().count(), 1, "tdvisor {}\n{text}", self.call);
        text
    }

    /// What the program printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout()).unwrap_or_else(|error| {
            panic!("tdvisor {}: {error}\n{}{}", self.call, self.stdout(), self.stderr())
        })
    }
}

/// A folder that belongs to one test, empty at its start.
pub struct Folder(PathBuf);

impl Folder {
    /// The folder of this name.
    pub fn new(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("the folder of an earlier run can be removed");
        }
        std::fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    /// The path of a file in it.
    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// Writes a file, and gives its path.
    pub fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        std::fs::write(self.0.join(name), contents).expect("a file can be written");
        self.path(name)
    }
}

/// A TDX host that ends its machine with this code at once, by the exit port: an ELF file.
pub fn host_that_powers_off(code: u8) -> Vec<u8> {
    // mov dx, 0x501; mov al, code; out dx, al
    host_of(&[0x66, 0xba, 0x01, 0x05, 0xb0, code, 0xee])
}

/// A TDX host that leaves IA-32e mode and turns paging on again, which no TDX host does and the software CPU has not.
pub fn host_that_pages_as_a_386() -> Vec<u8> {
    #[rustfmt::skip]
    let code = [
        0x0f, 0x01, 0x15, 0x2e, 0, 0, 0, // lgdt [rip + limit and base]
        0xff, 0x2d, 0x22, 0, 0, 0,       // jmp far [rip + 32-bit code]
        0x0f, 0x20, 0xc0,                // mov eax, cr0
        0x0f, 0xba, 0xf0, 31,            // btr eax, 31: PG
        0x0f, 0x22, 0xc0,                // mov cr0, eax
        0xb9, 0x80, 0, 0, 0xc0,          // mov ecx, IA32_EFER
        0x0f, 0x32,                      // rdmsr
        0x0f, 0xba, 0xf0, 8,             // btr eax, 8: LME
        0x0f, 0x30,                      // wrmsr
        0x0f, 0x20, 0xc0,                // mov eax, cr0
        0x0f, 0xba, 0xe8, 31,            // bts eax, 31: PG
        0x0f, 0x22, 0xc0,                // mov cr0, eax
        0x90,                            // nop, which is fetched by page tables of another form
        0x0d, 0, 0x10, 0, 8, 0,          // 32-bit code: selector 8, right after the jump
        15, 0, 0x3f, 0, 0x10, 0, 0, 0, 0, 0, // limit and base of the GDT
        0, 0, 0, 0, 0, 0, 0, 0,
        0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, // flat, 32 bits, executable
    ];
    host_of(&code)
}

/// An ELF file of this code.
fn host_of(code: &[u8]) -> Vec<u8> {
    const ENTRY: u64 = 0x10_0000;
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for offset in [ENTRY, 64, 0] {
        file.extend(offset.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    // One segment to load, readable and executable.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    let bytes = code.len() as u64;
    for number in [120, ENTRY, ENTRY, bytes, bytes, 0x1000] {
        file.extend(number.to_le_bytes());
    }
    file.extend(code);
    file
}
