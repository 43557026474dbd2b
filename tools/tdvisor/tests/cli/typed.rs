//! A run whose console is waited for, and typed to.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A run of `tdvisor` that goes on while a test looks at its console.
pub struct Typed {
    child: Child,
    console: BufReader<ChildStdout>,
    seen: String,
    /// How much of it was waited for already.
    reached: usize,
    copy: Option<File>,
}

impl Typed {
    /// Starts `tdvisor run` with these words.
    pub fn run(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
            .arg("run")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tdvisor starts");
        let console = BufReader::new(child.stdout.take().expect("a console"));
        Self { child, console, seen: String::new(), reached: 0, copy: None }
    }

    /// Writes what the console says into a file as well, for whoever waits for a run of many minutes.
    pub fn copied_to(mut self, file: &str) -> Self {
        self.copy = Some(File::create(file).expect("a file can be made"));
        self
    }

    /// Reads the console until it says these words, behind those that were waited for before.
    #[track_caller]
    pub fn wait_for(&mut self, words: &str) {
        if let Err(seen) = self.reaches(words) {
            panic!("the console never says {words:?}:\n{seen}");
        }
    }

    /// Reads the console until it says these words, behind those that were waited for before, or to its end.
    ///
    /// # Errors
    /// It ends before; what it said.
    pub fn reaches(&mut self, words: &str) -> Result<(), String> {
        let mut byte = [0];
        while !self.seen.get(self.reached..).is_some_and(|new| new.ends_with(words)) {
            match self.console.read(&mut byte) {
                Ok(1) => {
                    self.seen.push(char::from(byte[0]));
                    if let Some(copy) = &mut self.copy {
                        copy.write_all(&byte).expect("a file can be written");
                    }
                }
                _ => return Err(self.seen.clone()),
            }
        }
        self.reached = self.seen.len();
        Ok(())
    }

    /// Types this.
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("a keyboard");
        stdin.write_all(text.as_bytes()).expect("tdvisor reads what is typed");
    }

    /// What the console said so far.
    pub fn seen(&self) -> &str {
        &self.seen
    }

    /// Stops it, as Ctrl-C does.
    pub fn interrupt(&self) {
        let child = Pid::from_raw(self.child.id().try_into().expect("a process"));
        kill(child, Signal::SIGINT).expect("it still runs");
    }

    /// The exit status, after the rest of the console.
    pub fn status(self) -> Option<i32> {
        self.end().0
    }

    /// The exit status and the summary, after the rest of the console.
    pub fn end(mut self) -> (Option<i32>, String) {
        let _ = std::io::copy(&mut self.console, &mut std::io::sink());
        let mut summary = Vec::new();
        let mut errors = self.child.stderr.take().expect("a summary");
        errors.read_to_end(&mut summary).expect("the summary can be read");
        let status = self.child.wait().expect("tdvisor ends");
        (status.code(), String::from_utf8_lossy(&summary).into_owned())
    }
}

/// A test that fails leaves no guest behind it.
impl Drop for Typed {
    fn drop(&mut self) {
        // It has ended already, where a test got to its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
