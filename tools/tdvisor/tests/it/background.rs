//! A `tdvisor` that serves until the test has seen enough.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

/// A process that runs beside the test; it ends with it.
pub struct Background {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Background {
    /// Starts `tdvisor` with these arguments.
    pub fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tdvisor"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tdvisor starts");
        let out = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        Self { child, out }
    }

    /// The first word that begins with `prefix`, on the lines that it prints.
    #[track_caller]
    pub fn address(&mut self, prefix: &str) -> String {
        let mut line = String::new();
        while self.out.read_line(&mut line).is_ok_and(|read| read > 0) {
            if let Some(word) = line.split_whitespace().find(|word| word.starts_with(prefix)) {
                return word.to_owned();
            }
            line.clear();
        }
        panic!("no word with {prefix}: {}", self.end());
    }

    /// Ends it; what it said on standard error.
    pub fn stop(mut self) -> String {
        self.end()
    }

    fn end(&mut self) -> String {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let mut said = String::new();
        if let Some(mut err) = self.child.stderr.take() {
            let _ = err.read_to_string(&mut said);
        }
        said
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.end();
    }
}
